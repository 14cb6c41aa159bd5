"""Watch over the steps of a sampler: its callback, and samples that stop being finite."""

from collections.abc import Callable

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator

Callback = Callable[[int, float, Tensor], None]

MOST_NAMED = 8  # failed samples in an error's text
CHECK_EVERY = 25  # steps between checks whether all samples failed, which wait for the device


def empty_images(operator: LinearOperator, y: Tensor) -> Tensor:
    """Uninitialised images ``(B, *domain_shape)`` in the precision and on the device of `y`.

    Args:
        operator: measurement model.
        y: ``(B, *range_shape)`` measurement.

    Raises:
        ValueError, TypeError: `y` is not a measurement of `operator`.
    """
    operator.check_measurement(y)
    dtype = y.real.dtype
    if operator.domain_complex:
        dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
    return torch.empty((y.shape[0], *operator.domain_shape), dtype=dtype, device=y.device)


def level(x: Tensor, sigma: float) -> Tensor:
    """Noise level `sigma` of each sample of `x` as a score takes it: ``(B,)``, real."""
    return torch.full((1,), sigma, dtype=x.real.dtype, device=x.device).expand(len(x))


class NonFiniteError(FloatingPointError):
    """Some samples of a batch became NaN or infinite; the others were finished.

    Attributes:
        failures: (index in the batch, key, step, sigma) of each failed sample.
        images: ``(B, *domain_shape)`` result, not usable for the failed samples; None if all
            samples failed.
    """

    def __init__(self, failures: list[tuple[int, str, int, float]], images: Tensor | None):
        self.failures = failures
        self.images = images
        text = "; ".join(
            f"{key} at step {step}, sigma {sigma:.4g}"
            for _, key, step, sigma in failures[:MOST_NAMED]
        )
        if len(failures) > MOST_NAMED:
            text += f" and {len(failures) - MOST_NAMED} more"
        super().__init__(
            f"NaN or infinite values in {text}; look at the measurement, or take smaller steps"
        )


class Watch:
    """Calls the callback after each step and records the step at which a sample stops being finite.

    Samples are independent: if one fails, the others go on.

    Args:
        rng: its keys name the samples in errors; None to number them.
        callback: called with (step, sigma, x) after each step; None for none.
    """

    def __init__(self, rng: BatchGenerator | None, callback: Callback | None):
        self.keys = rng and rng.keys  # None: samples are named by their numbers
        self.callback = callback
        self.sigmas: list[float] = []
        self.failed_at: Tensor | None = None  # (B,) step, -1 while finite

    def __call__(self, sigma: float, x: Tensor) -> None:
        """Check a step and call the callback.

        Args:
            sigma: noise level of the step.
            x: ``(B, *domain_shape)`` images after it.

        Raises:
            NonFiniteError: all samples have failed.
        """
        step = len(self.sigmas)
        self.sigmas.append(sigma)
        self._note(step, x)
        if step % CHECK_EVERY == 0 and bool((self.failed_at >= 0).all()):
            raise NonFiniteError(self._failures(), None)
        if self.callback is not None:
            self.callback(step, sigma, x)

    def finish(self, images: Tensor) -> Tensor:
        """The result of a sampler, if all of its samples are finite.

        Args:
            images: ``(B, *domain_shape)`` result.

        Raises:
            NonFiniteError: some samples are not; it holds the result.
        """
        self._note(len(self.sigmas) - 1, images)
        failures = self._failures()
        if failures:
            raise NonFiniteError(failures, None if len(failures) == len(images) else images)
        return images

    def _note(self, step: int, x: Tensor) -> None:
        finite = torch.isfinite(x).flatten(1).all(1)  # (B,)
        if self.failed_at is None:
            self.failed_at = torch.full_like(finite, -1, dtype=torch.long)
        now = ~finite & (self.failed_at < 0)
        self.failed_at = torch.where(now, step, self.failed_at)

    def _failures(self) -> list[tuple[int, str, int, float]]:
        return [
            (b, self.keys[b] if self.keys else f"sample {b}", step, self.sigmas[step])
            for b, step in enumerate(self.failed_at.tolist())
            if step >= 0
        ]
