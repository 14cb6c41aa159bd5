"""Stopping criterion of iterations: image and misfit of a sample have stopped changing."""

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import expand, norm

PATIENCE = 2  # successive steps without a change after which a sample is finished


class StoppingCriterion:
    """Keeps samples as they are once their image and their misfit have both stopped changing.

    Args:
        operator: measurement model.
        y: ``(B, *range_shape)`` measurement.
        tolerance: largest relative change of the image, and largest change of |A x - y| / |y|, of
            a step that counts as unchanged; 0 switches the criterion off, at no cost.

    Raises:
        ValueError: a negative `tolerance`.
    """

    def __init__(self, operator: LinearOperator, y: Tensor, tolerance: float):
        if tolerance < 0:
            raise ValueError(f"expected tolerance of at least 0, got {tolerance}")
        self.operator, self.y, self.tolerance = operator, y, tolerance
        self.misfit: Tensor | None = None  # (B,) after the previous step
        self.still = torch.zeros(len(y), dtype=torch.long, device=y.device)  # successive steps

    def keep(self, before: Tensor, after: Tensor) -> Tensor:
        """Images after a step, in which finished samples are unchanged.

        Args:
            before: ``(B, *domain_shape)`` images before the step.
            after: ``(B, *domain_shape)`` images after it.
        """
        if not self.tolerance:
            return after
        done = self.still >= PATIENCE
        after = torch.where(expand(done, after), before, after)
        misfit = norm(self.operator.forward(after) - self.y) / norm(self.y).clamp(min=1e-30)
        if self.misfit is not None:
            change = norm(after - before) / norm(after).clamp(min=1e-30)
            quiet = (change < self.tolerance) & ((misfit - self.misfit).abs() < self.tolerance)
            self.still = torch.where(done, self.still, torch.where(quiet, self.still + 1, 0))
        self.misfit = misfit
        return after

    def finished(self) -> bool:
        """Whether all samples are finished."""
        return bool(self.tolerance) and bool((self.still >= PATIENCE).all())
