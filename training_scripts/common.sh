# Sourced by train_*.sh. Variables, with their defaults:
#
#   DATA_ROOT   the config's   folder of the download
#   RUNS        runs           each prior gets the folder $RUNS/NAME_SIZE
#   PYTHON      .venv's, or python
#   PRECISION   bfloat16       or float32, as the study
#   NPROC       1              processes a node, one a GPU; the batch size has to be a multiple of
#                              nodes x NPROC
#   PORT        29500          of the first node, where processes meet

source training_scripts/shell.sh # usage, from_the_caller

SIZES=(1 2 3 4 4_attention)
child=0 signalled=0 requeue=0

from_the_caller DATA_ROOT NATURAL RUNS

# train_sizes NAME [SIZE...] [--FLAG...]: all these sizes, or this array task's one; --plan: only
# what they take, and an sbatch command with a time limit that fits
train_sizes() {
  local name=$1 sizes=() extra=() argument size plan=0
  shift
  for argument in "$@"; do
    case "$argument" in
      -h | --help) usage; return ;;
      --plan) plan=1 ;;
      --*) extra+=("$argument") ;;
      *) sizes+=("$argument") ;;
    esac
  done
  [ "${#sizes[@]}" -gt 0 ] || sizes=("${SIZES[@]}")
  if [ "$plan" = 1 ]; then
    "${PYTHON:-$(default_python)}" -m training_scripts.plan "$name" "${sizes[@]}" \
      ${extra[@]+"${extra[@]}"}
    return
  fi
  if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    if [ "$SLURM_ARRAY_TASK_ID" -ge "${#sizes[@]}" ]; then
      echo "array task $SLURM_ARRAY_TASK_ID: nothing to do, the sizes are ${sizes[*]}"
      return
    fi
    sizes=("${sizes[$SLURM_ARRAY_TASK_ID]}")
  fi
  for size in "${sizes[@]}"; do
    train_one "$name" "$size" ${extra[@]+"${extra[@]}"}
  done
}

# train_one NAME SIZE [--FLAG...]
train_one() {
  local name=$1 size=$2 code
  shift 2
  local nodes="${SLURM_NNODES:-1}" processes="${NPROC:-1}"
  local command=("${PYTHON:-$(default_python)}")
  if [ "$((nodes * processes))" -gt 1 ]; then
    command+=(-m torch.distributed.run --nnodes="$nodes" --nproc-per-node="$processes")
    if [ "$nodes" -gt 1 ]; then
      local first
      first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
      command+=(--rdzv-backend=c10d --rdzv-endpoint="$first:${PORT:-29500}"
        --rdzv-id="$SLURM_JOB_ID")
      command=(srun --ntasks="$nodes" --ntasks-per-node=1 --kill-on-bad-exit=1 "${command[@]}")
    else
      command+=(--standalone)
    fi
  fi
  command+=(train.py --config="configs/$name.py:$size" --workdir="${RUNS:-runs}/${name}_$size"
    --config.training.precision="${PRECISION:-bfloat16}")
  [ -z "${DATA_ROOT:-}" ] || command+=(--config.data.root="$DATA_ROOT")
  echo "== $(date '+%F %T') $name $size, start $((${SLURM_RESTART_COUNT:-0} + 1))"

  trap 'signalled=1 requeue=1; kill -TERM "$child"' USR1 # the time limit is near
  trap 'signalled=1; kill -TERM "$child"' TERM INT       # preempted, requeued or cancelled
  "${command[@]}" "$@" &
  child=$!
  while true; do
    signalled=0 code=0
    wait "$child" || code=$?
    # a signal ends `wait` before the child ends, which is still saving
    [ "$signalled" = 1 ] && [ "$code" -gt 128 ] || break
  done
  trap - USR1 TERM INT
  if [ "$code" != 0 ] && [ "$requeue" = 1 ] && [ -n "${SLURM_JOB_ID:-}" ]; then
    echo "== interrupted before the time limit; back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
  fi
  if [ "$code" != 0 ]; then # 75: interrupted, the same command continues
    echo "== $name $size ended with code $code" >&2
    exit "$code"
  fi
}
