"""Measurements whose noise differs from sample to sample, brought to noise of one level."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import expand


class Whitened(LinearOperator):
    """The operator W A, each measured number times its own weight.

    With W = sigma / (standard deviation of each number), the noise of W y is white with standard
    deviation sigma, and |W (A x - y)|^2 is weighted least squares. Whatever takes an operator and
    the level of its white noise (samplers, total variation, wavelets, conjugate gradients) so
    minimises the weighted misfit.

    `direct` is A's of y itself, and so is `correct`: what an image has to be like to fit the data
    does not depend on the weights.

    Args:
        operator: A.
        weights: real ``(1, *range_shape)``, or ``(B, *range_shape)`` with weights for each sample;
            all above 0. They should be about 1.

    Raises:
        ValueError: a wrong shape, or weights that are not positive and finite.
    """

    def __init__(self, operator: LinearOperator, weights: Tensor):
        count = len(weights)
        expected = (operator.batch_size or count, *operator.range_shape)
        if count != 1 and tuple(weights.shape) != expected:
            raise ValueError(
                f"expected weights of shape {expected}, or one for all samples, got "
                f"{tuple(weights.shape)}"
            )
        if tuple(weights.shape[1:]) != operator.range_shape:
            raise ValueError(
                f"expected weights of shape (B, {', '.join(map(str, operator.range_shape))}), got "
                f"{tuple(weights.shape)}"
            )
        if not bool((weights.isfinite() & (weights > 0)).all()):
            raise ValueError("expected positive, finite weights; leave the others out of y")
        self.operator = operator
        self.weights = weights
        self.direct_name = operator.direct_name
        super().__init__(
            operator.domain_shape,
            operator.range_shape,
            domain_complex=operator.domain_complex,
            range_complex=operator.range_complex,
            batch_size=operator.batch_size if count == 1 else count,
        )

    def direct_error(self, y: Tensor) -> Tensor | None:
        """Root mean square error of the direct reconstruction, as estimated by A.

        Args:
            y: ``(B, *range_shape)`` weighted measurements.
        """
        return self.operator.direct_error(self._unweighted(y))

    def without_weights(self, y: Tensor) -> tuple[LinearOperator, Tensor]:
        """A, and the measurement without weights.

        Args:
            y: ``(B, *range_shape)`` weighted measurements.
        """
        return self.operator, self._unweighted(y)

    def sampled(self) -> Tensor | None:
        """Sampling pattern of A."""
        return self.operator.sampled()

    @property
    def acceleration(self) -> float | None:
        """Acceleration of A."""
        return self.operator.acceleration

    def facts(self) -> dict:
        """Description of A."""
        return self.operator.facts()

    def gram_inverse(self, regularization: Tensor) -> Callable[[Tensor], Tensor] | None:
        """Preconditioner W^-1 M W^-1, where M of A is about (A A^H + regularization W^-2)^-1.

        Args:
            regularization: ``(1,)`` or ``(B,)``, or one of each number ``(1 or B, *range_shape)``.
        """
        if regularization.ndim == 1:
            regularization = expand(regularization, self.weights)
        inner = self.operator.gram_inverse(regularization / self.weights.to(regularization) ** 2)
        if inner is None:
            return None
        return lambda r: self._unweighted(inner(self._unweighted(r)))

    def to(self, device: torch.device | str) -> "Whitened":
        """A copy on `device`."""
        return Whitened(self.operator.to(device), self.weights.to(device))

    def _weighted(self, y: Tensor) -> Tensor:
        return y * self.weights.to(y.real)

    def _unweighted(self, y: Tensor) -> Tensor:
        return y / self.weights.to(y.real)

    def _forward(self, x: Tensor) -> Tensor:
        return self._weighted(self.operator.forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator.adjoint(self._weighted(y))

    def _direct(self, y: Tensor) -> Tensor:
        return self.operator.direct(self._unweighted(y))

    def _correct(self, x: Tensor, y: Tensor, weight: float) -> Tensor:
        return self.operator.correct(x, self._unweighted(y), weight)

    def _take(self, indices: Sequence[int]) -> "Whitened":
        inner = self.operator if self.operator.batch_size is None else self.operator._take(indices)
        return Whitened(inner, self.weights if len(self.weights) == 1 else self.weights[indices])


def whiten(
    operator: LinearOperator, y: Tensor, noise: Tensor
) -> tuple[LinearOperator, Tensor, Tensor]:
    """Operator, measurement and noise ``(B,)`` of a measurement whose noise is then white.

    Args:
        operator: A.
        y: ``(B, *range_shape)`` measurement.
        noise: its standard deviation, ``(B,)`` or of each number ``(B, *range_shape)``. Samples
            where it is 0 somewhere are taken as free of noise.
    """
    if noise.ndim == 1:
        return operator, y, noise
    noisy = (noise > 0).flatten(1).all(1)  # (B,)
    weights, level = noise_weights(torch.where(expand(noisy, noise), noise, 1.0))
    return Whitened(operator, weights), weights * y, torch.where(noisy, level, 0.0)


def noise_weights(std: Tensor) -> tuple[Tensor, Tensor]:
    """Weights that make noise white, and the level that it has then.

    Args:
        std: ``(B, *range_shape)`` standard deviation of each measured number, above 0.

    Returns:
        Weights ``(B, *range_shape)``, of geometric mean 1, and the level ``(B,)`` of the noise of
        the weighted measurement, the geometric mean of `std`.
    """
    level = std.double().log().flatten(1).mean(1).exp().to(std.dtype)  # (B,)
    return expand(level, std) / std, level
