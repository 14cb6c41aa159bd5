#!/usr/bin/env bash
# Everything that waits for a GPU, in a given time: tests, benchmarks, then the training of
# natural_base and natural_complex_small, side by side, until the time is over.
#
#   bash training_scripts/gpu.sh --pack=PHOTOS        where there is a network: what it needs, to
#                                                     .gpu/ (ignored by git); PHOTOS has train/, val/
#   bash training_scripts/gpu.sh --minutes=12         on the machine with the GPU
#   bash training_scripts/gpu.sh --rehearse           the same way on a CPU, tiny, a few steps
#   --stages=training                                 some of tests,benchmarks,training (all)
#
# Needs Python with PyTorch, and for what that Python lacks the wheels in .gpu/wheels; nothing is
# fetched. Writes to $OUT (default results/gpu): log.txt with everything that was printed,
# summary.txt with the outcome of each stage, and for each prior its averaged weights in float16, to
# be put into weights/, where the next run goes on from, and the log.csv and validation.csv of its
# training. A stage that fails or overruns its share does not stop the next ones. Variables: OUT,
# PYTHON, PHOTOS (.gpu/photos), PRIORS (configs of those names: "natural_base natural_complex_small").
set -euo pipefail
cd "$(dirname "$0")/.."
source training_scripts/common.sh

minutes=12 rehearse=0 pack= stages=tests,benchmarks,training
for argument in "$@"; do
  case "$argument" in
    --minutes=*) minutes="${argument#*=}" ;;
    --pack=*) pack="${argument#*=}" ;;
    --rehearse) rehearse=1 minutes=8 ;;
    --stages=*) stages="${argument#*=}" ;;
    *)
      echo "expected --minutes=N, --stages=NAMES, --pack=PHOTOS or --rehearse, got $argument" >&2
      exit 2
      ;;
  esac
done
for name in ${stages//,/ }; do
  case "$name" in
    tests | benchmarks | training) ;;
    *)
      echo "expected --stages out of tests,benchmarks,training, got $name" >&2
      exit 2
      ;;
  esac
done
python="${PYTHON:-$(default_python)}"
priors="${PRIORS:-natural_base natural_complex_small}"
home=.gpu

if [ -n "$pack" ]; then
  "$python" -m training_scripts.gpu pack "$pack" "$home"
  exit
fi

out="${OUT:-results/gpu}"
mkdir -p "$out"
exec > >(tee -a "$out/log.txt") 2>&1
begin=$SECONDS
end=$("$python" -c "print($begin + round(60 * $minutes))")
export PYTHONUNBUFFERED=1
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if [ "$rehearse" = 0 ] && ls "$home"/wheels/*.whl > /dev/null 2>&1; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$home"/wheels/*.whl
  export PYTHONPATH="$site"
fi

# stage NAME SECONDS COMMAND...: at most so long, and never into the last stage's time
stage() {
  local name=$1 most=$2 code=0 start=$SECONDS
  shift 2
  echo "== $name, at $((SECONDS - begin)) s: $*"
  timeout --signal=TERM --kill-after=20 "$most" "$@" || code=$?
  echo "$name: exit $code, $((SECONDS - start)) s" | tee -a "$out/summary.txt"
  return 0
}

has() { [[ ",$stages," == *",$1,"* ]]; }

if [ "$rehearse" = 1 ]; then export CUDA_VISIBLE_DEVICES=; fi
if has tests; then
  stage tests 100 "$python" -m pytest -m gpu -p no:cacheprovider tests/test_gpu.py tests/operators/test_operators.py
fi
if has benchmarks && [ "$rehearse" = 0 ]; then
  stage benchmark-training 150 "$python" -m benchmarks.training --gpu --repeats=5
  for name in natural_small natural_base; do
    [ -f "weights/$name.pt" ] || continue
    stage "benchmark-network-$name" 60 "$python" -m benchmarks.network --prior="$name" --rounds=1 --compile
    stage "benchmark-reconstruction-$name" 75 "$python" -m benchmarks.reconstruction \
      --prior="$name" --out="$site/reconstruction_$name" --quick --limit=4
  done
fi
trainings=
has training || priors=
# the processors are shared: each training has a process of its own, the others read for it
workers=$(($(nproc) / $(wc -w <<< "${priors:-none}") - 1))
((workers >= 0)) || workers=0
for prior in $priors; do
  stage "training-$prior" "$((end - SECONDS))" "$python" -m training_scripts.gpu train "$prior" "$out" \
    --seconds="$((end - SECONDS - 25))" --photos="${PHOTOS:-$home/photos}" \
    --workers="$workers" --rehearse="$rehearse" &
  trainings+=" $!"
done
for training in $trainings; do wait "$training"; done # not for tee, which ends with this script
cat "$out/summary.txt"
