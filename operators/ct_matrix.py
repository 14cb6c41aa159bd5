"""Sparse system matrices of ray transforms by Joseph's method, with their transposes."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

_RAYS_PER_CHUNK = 512  # keeps the temporary arrays near 10 MB at 320 x 320
# Spare entries behind the end of each array: MKL's AVX-512 product reads a few indices past the
# last one, and crashes if the next page is not mapped (MKL 2024.2).
_SLACK = 64
_MAX_INDEX = 2**31 - 1  # 32-bit indices take half the memory, and MKL needs no copy of them


class Rays(NamedTuple):
    """Lines in the plane of the image, one per row of the matrix.

    The origin is the centre of the image, x points right and y points up; the unit is one pixel.
    """

    points: NDArray[np.float64]  # (R, 2), any (x, y) on each line
    directions: NDArray[np.float64]  # (R, 2), (x, y), of any length above 0


class SystemMatrix:
    """A sparse matrix A and its transpose, both in CSR format for fast products.

    Attributes:
        matrix: ``(M, N)`` sparse CSR.
        transposed: ``(N, M)`` sparse CSR.
    """

    def __init__(self, matrix: Tensor, transposed: Tensor):
        self.matrix = matrix
        self.transposed = transposed

    def multiply(self, x: Tensor) -> Tensor:
        """A x for each row of `x`: ``(B, N)`` to ``(B, M)``; autograd uses the exact adjoint."""
        return _Product.apply(x, self, False)

    def multiply_transposed(self, y: Tensor) -> Tensor:
        """A^T y for each row of `y`: ``(B, M)`` to ``(B, N)``."""
        return _Product.apply(y, self, True)

    def to(self, device: torch.device | str) -> "SystemMatrix":
        """A copy on `device`."""
        return SystemMatrix(self.matrix.to(device), self.transposed.to(device))

    @cached_property
    def row_sums(self) -> Tensor:
        """A 1: ``(1, M)``."""
        return _multiply(self.matrix, self._ones(self.matrix.shape[1]))

    @cached_property
    def column_sums(self) -> Tensor:
        """A^T 1: ``(1, N)``."""
        return _multiply(self.transposed, self._ones(self.matrix.shape[0]))

    @cached_property
    def normal_sums(self) -> Tensor:
        """A^T A 1: ``(1, N)``."""
        return _multiply(self.transposed, self.row_sums)

    def _ones(self, length: int) -> Tensor:
        return torch.ones(1, length, dtype=self.matrix.dtype, device=self.matrix.device)


class _Product(torch.autograd.Function):
    """Sparse times dense product; its derivative is the product with the stored transpose."""

    @staticmethod
    def forward(x: Tensor, system: SystemMatrix, transposed: bool) -> Tensor:
        return _multiply(system.transposed if transposed else system.matrix, x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, ctx.system, ctx.transposed = inputs

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Product.apply(gradient, ctx.system, not ctx.transposed), None, None


def _multiply(matrix: Tensor, x: Tensor) -> Tensor:
    """Product of ``(M, N)`` with each row of ``(B, N)``: ``(B, M)``."""
    # MKL multiplies vectors one by one faster than a matrix of one or two columns.
    if len(x) == 1 or (len(x) == 2 and x.device.type == "cpu"):
        return torch.stack([matrix @ row for row in x])  # (B, M)
    # With the B numbers of a pixel side by side in memory, the product is 8x faster than in the
    # transposed layout.
    columns = matrix @ x.T.contiguous()  # (M, B)
    return columns.T.contiguous()  # (B, M)


def joseph_matrix(shape: tuple[int, int], rays: Rays, dtype: torch.dtype) -> SystemMatrix:
    """System matrix of line integrals by Joseph's method, with its transpose.

    A ray steps through the rows of the image (through the columns if it is closer to horizontal or
    at 45 degrees). Each step adds the value at the crossing, interpolated linearly between the two
    nearest pixel centres, times the length of the ray per step. The image is zero outside. This is
    the convention of ASTRA's `linear` projector.

    Args:
        shape: image height and width in pixels.
        rays: R lines.
        dtype: dtype of the entries, which are computed in float64.

    Returns:
        An ``(R, H * W)`` matrix on the CPU with entries in pixels. In float32 it takes at most 32
        bytes per ray and step (two entries of 8 bytes each, stored twice).

    Raises:
        ValueError: the matrix could have more than 2^31 - 1 entries.

    Source: P. M. Joseph, IEEE Trans. Med. Imaging 1 (1982) 192-196.
    """
    num_rays = len(rays.points)
    capacity = 2 * max(shape) * num_rays
    if capacity > _MAX_INDEX:
        raise ValueError(
            f"expected at most {_MAX_INDEX} matrix entries, got up to {capacity} for {num_rays} "
            f"rays through {shape[0]} x {shape[1]} pixels; use fewer views or bins"
        )
    # Memory that is never written is never allocated by the system: no need to count first.
    columns = np.empty(capacity, np.int32)
    values = np.empty(capacity, np.float32 if dtype == torch.float32 else np.float64)
    row_ends = np.zeros(num_rays + 2, np.int32)

    steep = np.abs(rays.directions[:, 0]) < np.abs(rays.directions[:, 1])
    filled = 0
    for start, stop in _chunks(steep):
        chunk = Rays(rays.points[start:stop], rays.directions[start:stop])
        kept, pixels, weights = _entries(shape, chunk, through_rows=bool(steep[start]))
        counts = kept.sum((1, 2))  # (R,)
        total = int(counts.sum())
        columns[filled : filled + total] = pixels[kept]
        values[filled : filled + total] = weights[kept]
        row_ends[start + 1 : stop + 1] = filled + np.cumsum(counts)
        filled += total
    return _with_transpose(columns, values, row_ends, filled, (num_rays, shape[0] * shape[1]))


def _with_transpose(
    columns: NDArray[np.int32],
    values: NDArray,
    row_ends: NDArray[np.int32],
    filled: int,
    size: tuple[int, int],
) -> SystemMatrix:
    """The matrix from CSR arrays with spare space behind `filled` entries and one extra row.

    `_SLACK` zeros fill that row and an extra column, and are then excluded again. They are last in
    the arrays of the transpose as well, and no array has to be copied.
    """
    rows, pixels = size
    columns.resize(filled + _SLACK, refcheck=False)  # in place: a slice would keep the reserve
    values.resize(filled + _SLACK, refcheck=False)
    columns[filled:], values[filled:], row_ends[-1] = pixels, 0, filled + _SLACK
    extended = scipy.sparse.csr_array((values, columns, row_ends), shape=(rows + 1, pixels + 1))
    transpose = extended.tocsc()  # the CSC arrays of A are the CSR arrays of its transpose
    return SystemMatrix(
        _front((row_ends, columns, values), filled, size),
        _front((transpose.indptr, transpose.indices, transpose.data), filled, size[::-1]),
    )


def _chunks(steep: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Ranges of consecutive rays that step along the same axis, of bounded length."""
    changes = np.flatnonzero(steep[1:] != steep[:-1]) + 1
    bounds = np.union1d(changes, np.arange(0, len(steep), _RAYS_PER_CHUNK))
    return list(zip(bounds.tolist(), [*bounds[1:].tolist(), len(steep)], strict=True))


def _entries(
    shape: tuple[int, int], rays: Rays, *, through_rows: bool
) -> tuple[NDArray[np.bool_], NDArray[np.int32], NDArray[np.float64]]:
    """The two pixels and their weights at each step of each ray.

    Returns:
        Whether each is inside the image and not zero, its index and its weight:
        ``(R, steps, 2)`` each.
    """
    height, width = shape
    rows_up = (height - 1) / 2 - np.arange(height)  # y of each row
    columns_right = np.arange(width) - (width - 1) / 2  # x of each column
    x, y = rays.points[:, :1], rays.points[:, 1:]  # (R, 1)
    dx, dy = rays.directions[:, :1], rays.directions[:, 1:]
    if through_rows:
        position = x + (rows_up - y) * (dx / dy) + (width - 1) / 2  # (R, H) column crossed
        length = np.hypot(dx, dy) / np.abs(dy)
        num_pixels, stride, first = width, 1, np.arange(height, dtype=np.int32) * width
    else:
        position = (height - 1) / 2 - y - (columns_right - x) * (dy / dx)  # (R, W) row crossed
        length = np.hypot(dx, dy) / np.abs(dx)
        num_pixels, stride, first = height, width, np.arange(width, dtype=np.int32)
    # Distant crossings are clipped to just outside the image, so that they fit 32 bits.
    position = np.clip(position, -2, num_pixels + 1)
    lower = np.floor(position)
    upper_weight = position - lower
    weights = np.stack([(1 - upper_weight) * length, upper_weight * length], axis=-1)
    pixels = lower.astype(np.int32)[..., None] + np.array([0, 1], np.int32)  # (R, steps, 2)
    kept = (pixels >= 0) & (pixels < num_pixels) & (weights > 0)
    return kept, pixels * np.int32(stride) + first[:, None], weights


def _front(arrays: Sequence[NDArray], entries: int, size: tuple[int, int]) -> Tensor:
    """CSR tensor of the first `entries` entries; the column indices behind them are set to 0."""
    row_ends, columns, values = (torch.from_numpy(array) for array in arrays)
    columns[entries:] = 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
        return torch.sparse_csr_tensor(
            row_ends[: size[0] + 1],
            columns[:entries],
            values[:entries],
            size=size,
            check_invariants=False,
        )
