"""The VE-SDE, its training loss, and the priors and score functions that networks stand for."""

from sde.loss import level_weight, score_matching_loss
from sde.prior import Prior, check_prediction
from sde.score import Score, complex_score, score_function
from sde.validation import noise_level_bins, validation_loss
from sde.ve import VESDE

__all__ = [
    "VESDE",
    "Prior",
    "Score",
    "check_prediction",
    "complex_score",
    "level_weight",
    "noise_level_bins",
    "score_function",
    "score_matching_loss",
    "validation_loss",
]
