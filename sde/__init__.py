"""SDEs, their training loss, and the priors and score functions that networks stand for."""

from sde.loss import draw_levels, edm_weight, level_weight, score_matching_loss
from sde.parametrise import SDES, create_sde, parametrise
from sde.prior import Prior, check_prediction
from sde.score import Score, complex_score, score_function
from sde.validation import noise_level_bins, validation_loss
from sde.ve import VESDE
from sde.view import Schedule, View
from sde.vp import VPSDE, SubVPSDE

__all__ = [
    "SDES",
    "VESDE",
    "VPSDE",
    "Prior",
    "Schedule",
    "Score",
    "SubVPSDE",
    "View",
    "check_prediction",
    "complex_score",
    "create_sde",
    "draw_levels",
    "edm_weight",
    "level_weight",
    "noise_level_bins",
    "parametrise",
    "score_function",
    "score_matching_loss",
    "validation_loss",
]
