"""Sparsity in a wavelet frame, by accelerated proximal gradients."""

import numpy as np
import torch
from torch import Tensor

from evaluation.baselines.accelerated import (
    Minimum,
    Objective,
    data_terms,
    fitted,
    minimise_from_above,
    squared_norm,
    warn_of_late,
)
from evaluation.baselines.direct import direct
from operators import BatchGenerator, LinearOperator
from operators.batch import expand, norm

FIRST_WEIGHT = 3e-3  # smaller weights are reached by continuation from about this one
BAND_ITERATIONS = 5  # iterations of the power method; the metric need not be accurate
FLOOR = 1e-3  # smallest eigenvalue of the metric, relative to |A|^2


def l1_wavelet(
    operator: LinearOperator,
    y: Tensor,
    *,
    weight: float = 3e-4,
    wavelet: str = "db4",
    max_iterations: int = 3000,
    tolerance: float = 3e-6,
) -> Tensor:
    """Reconstruction with an L1 penalty on wavelet coefficients (synthesis form).

    The image is x = W^H c with c = argmin_c 1/2 |A W^H c - y|^2 + weight |A|^2 sum |c|. W is
    `sigpy.linop.Wavelet` with all levels and zeros outside the image. It has W^H W = 1, but more
    coefficients than pixels, so that W W^H is not the identity. A logged warning gives the number
    of samples that had not converged. The transform runs on the CPU.

    Args:
        operator: measurement operator A.
        y: ``(B, *range_shape)`` measurement.
        weight: weight of the penalty in units of |A|^2, above 0, for images in [0, 1].
        wavelet: name of an orthogonal wavelet of PyWavelets ("haar", "db4", "sym8").
        max_iterations: maximum number of iterations for each weight of the continuation.
        tolerance: length of a step relative to c at which a sample has converged.

    Returns:
        ``(B, *domain_shape)``.

    Raises:
        ValueError: a weight that is not positive, or an unknown wavelet.

    Source: M. Lustig, D. Donoho, J. M. Pauly, Magn. Reson. Med. 58 (2007) 1182-1195.
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
    """L1-wavelet reconstruction with its convergence; the arguments are those of `l1_wavelet`."""
    frame = Frame(operator.domain_shape[-2:], wavelet)
    scale = squared_norm(operator, y)  # (B,)
    eigenvalues = band_norms(operator, frame, y)  # (B, S, H', W')

    def objective(stage: float) -> Objective:
        threshold = expand(stage * scale, eigenvalues) / eigenvalues
        return Objective(
            **data_terms(operator, y, synthesis=frame.synthesis, analysis=frame.analysis),
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
    """Parseval frame of wavelets: analysis W and its adjoint, the synthesis W^H, with W^H W = 1.

    Args:
        shape: ``(H, W)`` of the images in pixels.
        wavelet: name of an orthogonal wavelet of PyWavelets.

    Raises:
        ValueError: the wavelet is unknown or not orthogonal.
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
        self.levels = torch.from_numpy(levels)  # (H', W'), from 0 (approximation) to fine
        probe = torch.ones(1, 1, *shape, dtype=torch.float64)
        if not torch.allclose(norm(self.analysis(probe)), norm(probe)):
            raise ValueError(f"expected an orthogonal wavelet such as db4, got {wavelet!r}")

    def analysis(self, x: Tensor) -> Tensor:
        """Analysis W x: ``(B, S, H, W)`` to ``(B, S, H', W')``."""
        return _each(self._transform, x)

    def synthesis(self, c: Tensor) -> Tensor:
        """Synthesis W^H c: ``(B, S, H', W')`` to ``(B, S, H, W)``."""
        return _each(self._transform.H, c)


def band_norms(operator: LinearOperator, frame: Frame, y: Tensor) -> Tensor:
    """Squared norm |A W^H|^2 on the coefficients of each level alone: ``(B, S, H', W')``.

    In tomography the eigenvalues of A^H A fall about inversely with frequency, so that a common
    step size for all levels would be far too small for the fine ones.
    """
    dtype = y.real.dtype.to_complex() if operator.domain_complex else y.real.dtype
    like = torch.empty(
        len(y), operator.domain_shape[0], *frame.levels.shape, dtype=dtype, device=y.device
    )
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
    images = batch.detach().flatten(0, 1).cpu().numpy()
    results = torch.stack([torch.from_numpy(function(image)) for image in images])
    return results.unflatten(0, batch.shape[:2]).to(batch)


def soft_threshold(v: Tensor, threshold: Tensor) -> Tensor:
    """Soft thresholding of a real or complex `v`: the magnitude is lowered by `threshold`, or 0."""
    size = v.abs()
    return v * ((size - threshold).clamp(min=0) / size.clamp(min=torch.finfo(size.dtype).tiny))
