"""Reconstructions without a score: ``baseline(operator, y, *, options) -> images (B, 1, H, W)``.

A new baseline is one file and one line in `BASELINES`.
"""

from evaluation.baselines.cg_sense import cg_sense
from evaluation.baselines.direct import direct, fbp, gridded, zero_filled
from evaluation.baselines.tv import tv
from evaluation.baselines.unet import unet
from evaluation.baselines.wavelet import l1_wavelet

BASELINES = {
    "zero_filled": zero_filled,
    "gridded": gridded,
    "fbp": fbp,
    "cg_sense": cg_sense,
    "tv": tv,
    "l1_wavelet": l1_wavelet,
    "unet": unet,
}

# keywords that turn a baseline into the study's
STUDY = {"tv": {"num_iterations": 200}}
STUDY_2026 = {"tv": {"num_iterations": 200, "start": "back_projection"}}

__all__ = ["BASELINES", "STUDY", "STUDY_2026", "direct", "fbp", "gridded", "zero_filled"]
