#!/usr/bin/env bash
# The study in small: its trainings, reconstructions, summary and figure (docs/small_study.md).
# About ten hours of one CPU core, in as many pieces as you like; the same command continues.
#
#   bash evaluation/small_study.sh --list                    the cells, and what is done
#   DATA=FOLDER JOBS=2 bash evaluation/small_study.sh --hours=2      two at a time, a thread each
#   bash evaluation/small_study.sh --quick                   a trial on embedded slices: see that
#                                                            everything runs, in half an hour
#
# Variables: JOBS, DATA (images), RUNS (priors), OUT (results/small_study), CARRIED (finished rows,
# docs/small_study), PYTHON. Arguments go to `python -m evaluation.small_study`.
set -euo pipefail
cd "$(dirname "$0")/.."
source training_scripts/shell.sh # usage, from_the_caller
from_the_caller DATA RUNS OUT CARRIED

python="${PYTHON:-$(default_python)}"
jobs="${JOBS:-1}" quick=()
for argument in "$@"; do
  case "$argument" in
    -h | --help) usage; exit ;;
    --list | --list-trainings | --inputs) exec "$python" -m evaluation.small_study "$@" ;;
    --out | --out=*)
      echo "error: set OUT instead of $argument" >&2
      exit 2
      ;;
    --quick) quick=(--quick) ;;
  esac
done
if [ "${#quick[@]}" = 0 ]; then OUT="${OUT:-results/small_study}"; fi
export OUT="${OUT:-results/small_study_quick}"
if [ "$jobs" -gt 1 ]; then export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"; fi

workers=() failed=0
trap 'kill -TERM "${workers[@]}" 2> /dev/null; wait; exit 75' TERM INT # the same command continues
for ((worker = 0; worker < jobs; worker++)); do
  "$python" -m evaluation.small_study "$@" &
  workers+=($!)
done
for worker in "${workers[@]}"; do
  wait "$worker" || failed=1
done
if [ -s "$OUT/rows.csv" ]; then
  "$python" -m evaluation.study.small_summary "$OUT" ${quick[@]+"${quick[@]}"} || failed=1
fi
exit "$failed"
