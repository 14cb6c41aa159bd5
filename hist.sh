#!/usr/bin/env bash
# The image-statistics figure (the study's figure 1): mean images and gradient histograms of the
# knee, CT and natural training images. Minutes from the disk cache, which the first run builds.
#
#   KNEE=PATH CT=PATH CELEBA=PATH bash hist.sh     downloads, see docs/data.md
#   bash hist.sh --quick                           the embedded samples, seconds
set -euo pipefail
cd "$(dirname "$0")"
source evaluation/common.sh
from_the_caller CELEBA
[ -x .venv/bin/python ] && PATH="$PWD/.venv/bin:$PATH"

case "${1:-}" in
  -h | --help) usage ;;
  --quick)
    # photographs have several sizes: their central 256 x 256
    python -m evaluation.image_statistics --out="${OUT:-results/image_statistics_quick}" \
      "brain MR=configs/demo.py,subset=brain,image_size=256" \
      "CT=configs/demo.py,subset=ct,image_size=256" \
      "natural=configs/demo.py,subset=natural,image_size=256" ;;
  "")
    python -m evaluation.image_statistics --out="${OUT:-results/image_statistics}" \
      "knee=configs/fastmri_knee.py,root=${KNEE:-data/fastmri_knee}" \
      "CT=configs/ct.py,root=${CT:-data/lodopab}" \
      "natural=configs/celeba.py,root=${CELEBA:-data/celeba_hq}" ;;
  *)
    echo "error: unknown argument $1; known: --quick" >&2
    exit 2 ;;
esac
