"""A progress bar for samplers that shows noise level and data residual."""

from torch import Tensor
from tqdm import tqdm

from operators.base import LinearOperator
from operators.batch import norm

EVERY = 10  # steps between residuals: each costs one forward


class Progress:
    """Callback of a sampler that draws a progress bar with sigma and the largest |A x - y| / |y|.

    It draws nothing if the output is not a terminal. To be used as a context manager::

        with Progress(operator, y, num_steps) as progress:
            sampler(..., callback=progress)

    Args:
        operator: measurement model; for the multi-coil samplers, that of their coil images.
        y: the measurement.
        num_steps: number of steps of the sampler; it may also make fewer.
        leave: whether the bar stays on the screen at the end.
    """

    def __init__(self, operator: LinearOperator, y: Tensor, num_steps: int, *, leave: bool = True):
        self.operator, self.y = operator, y
        # None: not into a file, which would get a line a step
        self.bar = tqdm(total=num_steps, unit="step", leave=leave, disable=None)

    def __call__(self, step: int, sigma: float, x: Tensor) -> None:
        """Advance the bar by one step; the arguments are those of a sampler's `callback`."""
        self.bar.update()
        if step % EVERY == 0 and not self.bar.disable:
            residual = norm(self.operator.forward(x) - self.y) / norm(self.y).clamp(min=1e-30)
            self.bar.set_postfix_str(f"sigma {sigma:.3g}, residual {float(residual.max()):.2e}")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()
