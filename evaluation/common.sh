# Sourced by the scripts in evaluation/. Everything that varies is an argument or an environment
# variable, see `python -m evaluation.grid --help`; and PYTHON is the interpreter.

source training_scripts/shell.sh # usage, from_the_caller
from_the_caller KNEE BRAIN CT HEAD MRI NATURAL RUNS OUT

# run_grid NAME [ARGUMENT...]: all cells of a grid, or this array task's one
run_grid() {
  if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then set -- "$@" --cell="$SLURM_ARRAY_TASK_ID"; fi
  # in the shell's place, so that SLURM's warning before the time limit reaches it
  exec "${PYTHON:-$(default_python)}" -m evaluation.grid "$@"
}
