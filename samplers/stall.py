"""When a sample has stopped changing."""

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import expand, norm

PATIENCE = 2  # steps running


class Stall:
    """Freezes the samples whose image and misfit have both stopped changing.

    Args:
        operator: measurement model.
        y: ``(B, *range_shape)`` measurement.
        tolerance: relative change of an image, and change of |A x - y| / |y|, below which a step
            counts as standing still; 0 freezes nothing, at no cost.
    """

    def __init__(self, operator: LinearOperator, y: Tensor, tolerance: float):
        if tolerance < 0:
            raise ValueError(f"expected tolerance of at least 0, got {tolerance}")
        self.operator, self.y, self.tolerance = operator, y, tolerance
        self.misfit: Tensor | None = None  # (B,) of the step before
        self.still = torch.zeros(len(y), dtype=torch.long, device=y.device)  # steps running

    def keep(self, before: Tensor, after: Tensor) -> Tensor:
        """The images after a step ``(B, ...)``; those of frozen samples as they were."""
        if not self.tolerance:
            return after
        frozen = self.still >= PATIENCE
        after = torch.where(expand(frozen, after), before, after)
        misfit = norm(self.operator.forward(after) - self.y) / norm(self.y).clamp(min=1e-30)
        if self.misfit is not None:
            change = norm(after - before) / norm(after).clamp(min=1e-30)
            quiet = (change < self.tolerance) & ((misfit - self.misfit).abs() < self.tolerance)
            self.still = torch.where(frozen, self.still, torch.where(quiet, self.still + 1, 0))
        self.misfit = misfit
        return after

    def finished(self) -> bool:
        """Whether all samples are frozen."""
        return bool(self.tolerance) and bool((self.still >= PATIENCE).all())
