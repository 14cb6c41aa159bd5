#!/usr/bin/env bash
# The priors of the study in small (configs/small_study.py, docs/small_study.md), without its
# reconstructions: about four hours of one CPU core. evaluation/small_study.sh trains them as well,
# when it needs them.
#
#   DATA=FOLDER bash training_scripts/train_small_study.sh                    all
#   bash training_scripts/train_small_study.sh natural_1_s0 chest_4_small_s0  some
#   JOBS=2 bash training_scripts/train_small_study.sh                two at a time, a thread each
#
# What starts with -- goes to train.py (--config.training.num_steps=1000); --list prints the names.
# Finished priors are passed over, interrupted ones go on with the same command. Variables: JOBS,
# DATA (images), OUT (results/small_study, has the pictures), and RUNS, PYTHON, PRECISION of
# common.sh; each prior gets $RUNS/small_study_NAME.
set -euo pipefail
cd "$(dirname "$0")/.."
source training_scripts/common.sh
from_the_caller DATA OUT

export OUT="${OUT:-results/small_study}"
study=("${PYTHON:-$(default_python)}" -m evaluation.small_study)
names=() flags=() list=0 jobs="${JOBS:-1}"
for argument in "$@"; do
  case "$argument" in
    -h | --help) usage; exit ;;
    --list) list=1 ;;
    --*) flags+=("$argument") ;;
    *) names+=("$argument") ;;
  esac
done
if [ "${#names[@]}" = 0 ]; then
  all=$("${study[@]}" --list-trainings)
  mapfile -t names <<< "$all"
fi
if [ "$list" = 1 ]; then
  printf '%s\n' "${names[@]}"
  exit
fi
"${study[@]}" --inputs
unset DATA_ROOT # of another data set
if [ "$jobs" -gt 1 ]; then export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"; fi

# train_part I: every JOBS-th prior from the I-th on
train_part() {
  local i
  for ((i = $1; i < ${#names[@]}; i += jobs)); do
    train_one small_study "${names[$i]}" --config.data.root="$OUT/inputs/${names[$i]%%_*}" \
      ${flags[@]+"${flags[@]}"}
  done
}

if [ "$jobs" -le 1 ]; then
  train_part 0
  exit
fi
workers=()
for ((part = 0; part < jobs; part++)); do
  train_part "$part" &
  workers+=($!)
done
trap 'kill -TERM "${workers[@]}" 2> /dev/null || true' TERM INT # they save, then end
failed=0
for worker in "${workers[@]}"; do
  while true; do
    code=0
    wait "$worker" || code=$?
    # a signal ends `wait` before the worker ends
    kill -0 "$worker" 2> /dev/null || break
  done
  [ "$code" = 0 ] || failed=$code
done
exit "$failed"
