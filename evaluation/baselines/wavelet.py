"""Sparsity in a wavelet frame (sigpy's), by accelerated proximal gradients."""

import numpy as np
import torch
from torch import Tensor

from evaluation.baselines.accelerated import (
    Minimum,
    Objective,
    fitted,
    minimise_from_above,
    squared_norm,
    warn_of_late,
)
from evaluation.baselines.direct import direct
from operators import BatchGenerator, LinearOperator
from operators.batch import expand, norm

FIRST_WEIGHT = 3e-3  # smaller ones are reached from about this
BAND_ITERATIONS = 5  # of the power method: the metric may be rough
FLOOR = 1e-3  # of the metric, relative to |A|^2


def l1_wavelet(
    operator: LinearOperator,
    y: Tensor,
    *,
    weight: float = 3e-4,
    wavelet: str = "db4",
    max_iterations: int = 3000,
    tolerance: float = 3e-6,
) -> Tensor:
    """W^H c with c = argmin_c 1/2 |A W^H c - y|^2 + weight |A|^2 sum |c|.

    W is `sigpy.linop.Wavelet`, all levels, zeros beyond the image: W^H W = 1, with more
    coefficients than pixels, so that W^H c stands for x and W W^H is no identity. Lustig, Donoho,
    Pauly, Magn. Reson. Med. 58 (2007) 1182-1195. A warning names how many samples had not
    converged. The transform runs on the CPU.

    Args:
        operator: measurement model.
        y: ``(B, *range_shape)`` measurement.
        weight: above 0, in units of |A|^2, of images in [0, 1].
        wavelet: a name of PyWavelets' orthogonal families ("haar", "db4", "sym8").
        max_iterations: 0 or more.
        tolerance: length of a step relative to c at which a sample has converged.

    Returns:
        ``(B, *domain_shape)``.

    Raises:
        ValueError: a weight that is not positive, or an unknown wavelet.
    """
    found = wavelet_minimum(
        operator,
        y,
        weight=weight,
        wavelet=wavelet,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    warn_of_late("l1_wavelet", found)
    return found.x


def wavelet_minimum(
    operator: LinearOperator,
    y: Tensor,
    *,
    weight: float,
    wavelet: str,
    max_iterations: int,
    tolerance: float,
) -> Minimum:
    """What `l1_wavelet` returns, and how it converged."""
    frame = Frame(operator.domain_shape[-2:], wavelet)
    scale = squared_norm(operator, y)  # (B,)
    eigenvalues = band_norms(operator, frame, y)  # (B, 1, H', W')

    def objective(stage: float) -> Objective:
        threshold = expand(stage * scale, eigenvalues) / eigenvalues
        return Objective(
            forward=lambda c: operator.forward(frame.synthesis(c)),
            adjoint=lambda r: frame.analysis(operator.adjoint(r)),
            y=y,
            smooth=lambda z: (torch.zeros_like(z), lambda d: torch.zeros_like(scale)),
            prox=lambda v, step: soft_threshold(v, expand(step, v) * threshold),
            metric=lambda d: eigenvalues * d,
            inverse_metric=lambda g: g / eigenvalues,
        )

    found = minimise_from_above(
        objective,
        frame.analysis(fitted(operator, y, direct(operator, y))),
        weight,
        first=FIRST_WEIGHT,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    return found._replace(x=frame.synthesis(found.x))


class Frame:
    """A Parseval frame of wavelets: analysis W and its adjoint W^H, with W^H W = 1.

    Args:
        shape: ``(H, W)`` of the images.
        wavelet: name of an orthogonal wavelet.

    Raises:
        ValueError: unknown, or not orthogonal.
    """

    def __init__(self, shape: tuple[int, int], wavelet: str):
        import sigpy  # imports numba: seconds, so only where needed

        shape = tuple(shape)
        self._transform = sigpy.linop.Wavelet(shape, wave_name=wavelet)
        full, slices = sigpy.wavelet.get_wavelet_shape(shape, wave_name=wavelet)
        levels = np.zeros(full, dtype=np.int64)
        for level, details in enumerate(slices[1:], start=1):
            for where in details.values():
                levels[where] = level
        self.levels = torch.from_numpy(levels)  # (H', W'), 0: the approximation, then to finer
        probe = torch.ones(1, 1, *shape, dtype=torch.float64)
        if not torch.allclose(norm(self.analysis(probe)), norm(probe)):
            raise ValueError(f"expected an orthogonal wavelet such as db4, got {wavelet!r}")

    def analysis(self, x: Tensor) -> Tensor:
        """W x: ``(B, 1, H, W)`` to ``(B, 1, H', W')``."""
        return _each(self._transform, x)

    def synthesis(self, c: Tensor) -> Tensor:
        """W^H c: ``(B, 1, H', W')`` to ``(B, 1, H, W)``."""
        return _each(self._transform.H, c)


def band_norms(operator: LinearOperator, frame: Frame, y: Tensor) -> Tensor:
    """|A W^H|^2 on the coefficients of each level alone, as ``(B, 1, H', W')``.

    What tomography measures of an image shrinks with frequency, by about the inverse: steps of
    the same length for all levels would be far too short for the fine ones.
    """
    dtype = y.real.dtype.to_complex() if operator.domain_complex else y.real.dtype
    like = torch.empty(len(y), 1, *frame.levels.shape, dtype=dtype, device=y.device)
    start = BatchGenerator([0] * len(y)).normal_like(like)
    norms = torch.zeros_like(like.real)
    for level in range(int(frame.levels.max()) + 1):
        band = (frame.levels == level).to(like.real)  # (H', W')
        c, size = start * band, norm(start * band)
        for _ in range(BAND_ITERATIONS):
            c = c / expand(size.clamp(min=torch.finfo(size.dtype).tiny), c)
            c = band * frame.analysis(operator.normal(frame.synthesis(c)))
            size = norm(c)  # (B,)
        norms = norms + expand(size, norms) * band
    largest = norms.amax(dim=(1, 2, 3), keepdim=True)
    return norms + FLOOR * largest + torch.finfo(norms.dtype).tiny


def _each(function, batch: Tensor) -> Tensor:
    results = [torch.from_numpy(function(x[0].cpu().numpy())) for x in batch.detach()]
    return torch.stack(results)[:, None].to(batch)


def soft_threshold(v: Tensor, threshold: Tensor) -> Tensor:
    """v with its magnitude lowered by `threshold`, 0 where it is smaller; real or complex."""
    size = v.abs()
    return v * ((size - threshold).clamp(min=0) / size.clamp(min=torch.finfo(size.dtype).tiny))
