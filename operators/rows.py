"""Samples as rows of real numbers."""

import torch
from torch import Tensor


def real_rows(x: Tensor) -> Tensor:
    """``(B, ...)``, real or complex, as real ``(B, n)``."""
    return (torch.view_as_real(x) if x.is_complex() else x).flatten(1)


def as_rows_of(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `real_rows`: real ``(B, n)`` in the shape of `like`, complex if that is."""
    if like.is_complex():
        return torch.view_as_complex(rows.reshape(*like.shape, 2))
    return rows.reshape(like.shape)
