#!/usr/bin/env bash
# The twelve priors of the study in small (configs/small_study.py, docs/small_study.md): about an
# hour on one CPU core, half of it with JOBS=2 on two.
#
#   bash training_scripts/train_small_study.sh                   all, smallest first
#   bash training_scripts/train_small_study.sh natural_1 chest_4 some
#   JOBS=2 bash training_scripts/train_small_study.sh            two at a time, a thread each
#   NATURAL=FOLDER bash training_scripts/train_small_study.sh    photographs of one's own, in
#                                                                FOLDER/train and FOLDER/val
#
# What starts with -- goes to train.py (--config.training.num_steps=1000); --list prints the names.
# Finished priors are passed over, interrupted ones go on with the same command. Variables: JOBS,
# NATURAL, and RUNS, PYTHON, PRECISION of common.sh; each prior gets $RUNS/small_study_PRIOR_SIZE.
set -euo pipefail
cd "$(dirname "$0")/.."
source training_scripts/common.sh

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
  for size in 1 2 4 4_attention; do
    names+=("natural_$size" "brain_$size" "chest_$size")
  done
fi
if [ "$list" = 1 ]; then
  printf '%s\n' "${names[@]}"
  exit
fi
unset DATA_ROOT # of another data set
if [ "$jobs" -gt 1 ]; then export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"; fi

# train_part I: every JOBS-th prior from the I-th on
train_part() {
  local i data
  for ((i = $1; i < ${#names[@]}; i += jobs)); do
    data=()
    if [ -n "${NATURAL:-}" ] && [[ "${names[$i]}" = natural_* ]]; then
      data=(--config.data.name=image_folder --config.data.subset= --config.data.root="$NATURAL")
    fi
    train_one small_study "${names[$i]}" ${data[@]+"${data[@]}"} ${flags[@]+"${flags[@]}"}
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
