# Sourced by evaluate_*.sh. Everything that varies is an argument or an environment variable of
# `python -m evaluation.grid --help`; PYTHON is the interpreter (default .venv's, or python).

# run_grid NAME [ARGUMENT...]: all cells of a grid, or this array task's one
run_grid() {
  local python=python
  if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
  if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then set -- "$@" --cell="$SLURM_ARRAY_TASK_ID"; fi
  # in the shell's place, so that SLURM's warning before the time limit reaches it
  exec "${PYTHON:-$python}" -m evaluation.grid "$@"
}
