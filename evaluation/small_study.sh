#!/usr/bin/env bash
# The study in small: all its reconstructions, tables and the figure (docs/small_study.md). About
# two hours on one CPU core, one with JOBS=2 on two; the priors first, by
# training_scripts/train_small_study.sh.
#
#   bash evaluation/small_study.sh --list           the cells; --only='*/*/brain_1_*' takes some
#   JOBS=2 bash evaluation/small_study.sh           two at a time, a thread each
#   MRI=FOLDER NATURAL=FOLDER bash evaluation/small_study.sh        more test sets
#
# Variables: JOBS, MRI, NATURAL, RUNS (priors), OUT (results/small_study), PYTHON. The same command
# continues. Arguments go to `python -m evaluation.small_study`.
set -euo pipefail
cd "$(dirname "$0")/.."
source evaluation/common.sh

python="${PYTHON:-$(default_python)}"
export OUT="${OUT:-results/small_study}"
jobs="${JOBS:-1}"
for argument in "$@"; do
  case "$argument" in
    --list | --help | -h) exec "$python" -m evaluation.small_study "$@" ;;
    --out | --out=* | --part | --part=*)
      echo "error: set OUT and JOBS instead of $argument" >&2
      exit 2
      ;;
  esac
done
if [ "$jobs" -gt 1 ]; then export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"; fi

workers=() failed=0
trap 'kill -TERM "${workers[@]}" 2> /dev/null; exit 75' TERM INT # the same command continues
for ((part = 0; part < jobs; part++)); do
  "$python" -m evaluation.small_study --part="$part/$jobs" "$@" &
  workers+=($!)
done
for worker in "${workers[@]}"; do
  wait "$worker" || failed=1
done
if ! compgen -G "$OUT/*/*/*/metrics.csv" > /dev/null; then exit 1; fi # the reason stands above
"$python" -m evaluation.tables --grid "$OUT" > "$OUT/table.md" || failed=1
"$python" -m evaluation.study.small_summary "$OUT" || failed=1
exit "$failed"
