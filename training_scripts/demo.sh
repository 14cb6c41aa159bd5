#!/usr/bin/env bash
# The whole way on embedded data. Training: fit a toy prior to photographs, for a minute.
# Reconstruction: brain MR from 4x undersampled k-space and CT from 30 views, both with the
# shipped prior of photographs, beside zero-filling or FBP, converged TV, and (MR) the toy.
# Tables and pictures. Minutes on 2 CPU cores (README.md).
#
#   bash training_scripts/demo.sh           runs/demo, results/demo
#   bash training_scripts/demo.sh --quick   a cut of it, to see that everything works
#
# Fails if natural_small is not better than TV by 2 dB on MR (quick, with a slice of each of two
# people: 1 dB) and by 1 dB on CT.
set -euo pipefail
cd "$(dirname "$0")/.."
source training_scripts/common.sh
[ -x .venv/bin/python ] && PATH="$PWD/.venv/bin:$PATH"

name=demo steps=500 limit=12 least=2  # limit: slices; people take turns
for argument in "$@"; do
  case "$argument" in
    -h | --help) usage; exit ;;
    --quick) name=demo_quick steps=100 limit=2 least=1 ;;
    *) echo "error: unknown argument $argument; known: --quick" >&2; exit 2 ;;
  esac
done
out="results/$name"

begin=$SECONDS
# A demo shows the way from the start: an earlier one does not count as already done.
rm -rf "runs/$name" "$out"

echo "== 1/3 train a toy: score matching on photographs (train.py, configs/demo.py)"
python train.py --config=configs/demo.py --workdir="runs/$name" \
  --config.training.num_steps="$steps" --config.training.validate_every=0 \
  --config.training.sample_every=0

echo "== 2/3 reconstruct (evaluation/evaluate.py)"
# reconstruct FOLDER SAMPLER [FLAG...]
reconstruct() {
  python -m evaluation.evaluate --out="$out/$1" --config.sampler.name="$2" \
    --config.data.name=samples --config.data.image_size=256 --config.limit="$limit" \
    --config.panels=0 "${@:3}"
}
mr=(--config.data.subset=brain --config.operator.mask=gaussian1d
  --config.operator.acceleration=4 --config.operator.center_fraction=0.04)
ct=(--config.data.subset=ct --config.operator.name=ct --config.operator.num_views=30)
shipped=(--config.prior=natural_small --config.sampler.num_steps=50)
reconstruct brain/gaussian1d_4x/zero_filled zero_filled "${mr[@]}"
reconstruct brain/gaussian1d_4x/tv tv "${mr[@]}"
reconstruct brain/gaussian1d_4x/toy pnp "${mr[@]}" --config.prior="runs/$name" \
  --config.sampler.num_steps=20
reconstruct brain/gaussian1d_4x/natural_small pnp "${mr[@]}" "${shipped[@]}"
reconstruct ct/views_30/fbp fbp "${ct[@]}"
reconstruct ct/views_30/tv tv "${ct[@]}"
reconstruct ct/views_30/natural_small pnp "${ct[@]}" "${shipped[@]}"

echo "== 3/3 tables and pictures"
mr_folders=("$out"/brain/gaussian1d_4x/{zero_filled,tv,toy,natural_small})
ct_folders=("$out"/ct/views_30/{fbp,tv,natural_small})
{
  python -m evaluation.tables --spread=ci "${mr_folders[@]}"
  echo
  python -m evaluation.tables --spread=ci "${ct_folders[@]}"
} | tee "$out/table.md"
python -m evaluation.figures panels "${mr_folders[@]}" --out="$out/figures"
python -m evaluation.figures panels "${ct_folders[@]}" --out="$out/figures"
python - "$out" "$least" <<'END'
import statistics, sys
from pathlib import Path
sys.path.insert(0, ".")
from evaluation.results.folder import read_rows

print()
bad = False
for place, least in (("brain/gaussian1d_4x", float(sys.argv[2])), ("ct/views_30", 1)):
    tv, shipped = (
        statistics.fmean(float(row["psnr"]) for row in read_rows(Path(sys.argv[1], place, method)))
        for method in ("tv", "natural_small")
    )
    print(f"{place}: natural_small {shipped - tv:+.2f} dB over TV, at least {least:g}")
    bad |= not shipped - tv >= least
sys.exit(bad)
END
echo "prior:    runs/$name   (load it with models.checkpoint.load_prior)"
echo "took $((SECONDS - begin)) s"
[ -n "${VIRTUAL_ENV:-}" ] || echo "for commands of your own, in each new terminal: source .venv/bin/activate"
