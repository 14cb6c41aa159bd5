"""Samples as rows of real numbers, and orthonormal bases of them."""

from collections.abc import Iterable

import torch
from torch import Tensor

from operators.batch import norm
from operators.solvers import FLOOR


def real_rows(x: Tensor) -> Tensor:
    """``(B, ...)``, real or complex, as real ``(B, n)``."""
    return (torch.view_as_real(x) if x.is_complex() else x).flatten(1)


def as_rows_of(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `real_rows`: real ``(B, n)`` in the shape of `like`, complex if that is."""
    if like.is_complex():
        return torch.view_as_complex(rows.reshape(*like.shape, 2))
    return rows.reshape(like.shape)


def new_direction(rows: Tensor, basis: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """What rows ``(B, n)`` have outside of orthonormal ones ``(B, n)`` each (Gram-Schmidt).

    Returns:
        The direction, of length 1, and the length of what it is of, ``(B,)``; both 0 where there is
        nothing but rounding.
    """
    rest = rows
    for _ in range(2):  # once loses orthogonality in float32
        for q in basis:
            rest = rest - (q * rest).sum(1, keepdim=True) * q
    length = norm(rest)
    kept = length > FLOOR * torch.finfo(rows.dtype).eps * norm(rows)
    direction = rest / torch.where(kept, length, 1.0)[:, None]
    return torch.where(kept[:, None], direction, 0.0), torch.where(kept, length, 0.0)


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """`torch.linalg.eigh` of ``(B, k, k)``; of a matrix that is not finite the values are NaN.

    The other matrices of the batch are decomposed all the same.
    """
    finite = matrix.isfinite().flatten(1).all(1)  # (B,)
    values, vectors = torch.linalg.eigh(torch.where(finite[:, None, None], matrix, 0.0))
    return torch.where(finite[:, None], values, torch.nan), vectors


def bordered(matrix: Tensor, last: list[Tensor]) -> Tensor:
    """A symmetric ``(B, k, k)`` with a further row and column of k + 1 numbers ``(B,)`` each."""
    row = torch.stack(last, dim=1)  # (B, k + 1)
    upper = torch.cat([matrix, row[:, :-1, None]], dim=2)
    return torch.cat([upper, row[:, None]], dim=1)
