"""Per-sample dot products, norms and random numbers: samples of a batch never mix."""

import copy
import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

PEAK = 0.999  # quantile of the magnitudes that counts as the image's peak


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Re<x, y> of each sample: ``(B, ...)`` twice to ``(B,)`` real."""
    if x.is_complex():
        x, y = torch.view_as_real(x), torch.view_as_real(y)
    return (x * y).flatten(1).sum(1)  # (B,)


def norm(x: Tensor) -> Tensor:
    """Euclidean norm of each sample: ``(B, ...)``, real or complex, to ``(B,)`` real."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1)  # (B,)


def peak(images: Tensor) -> Tensor:
    """Peak magnitude ``(B,)`` of images ``(B, 1, H, W)``: the 0.999 quantile of the pixels."""
    pixels = images.abs().flatten(1)  # (B, N)
    return pixels.kthvalue(math.ceil(PEAK * pixels.shape[1]), dim=1).values


def expand(value: Tensor, like: Tensor) -> Tensor:
    """`value` ``(B,)`` reshaped to ``(B, 1, ...)``, to broadcast against `like` ``(B, ...)``."""
    return value.reshape(-1, *[1] * (like.ndim - 1))  # (B, 1, ...)


def derive_seed(seed: int, *keys: str | int) -> int:
    """A 63-bit seed computed from `seed` and all `keys`, the same on every machine.

    It gives each sample and each purpose (mask, noise, sampler) its own random stream, so that
    batch size, order and sharding do not change any number.
    """
    text = "\x1f".join([str(int(seed)), *(f"{type(k).__name__}:{k}" for k in keys)])
    # a file name that is not valid UTF-8 holds its bytes as surrogates
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class BatchGenerator:
    """Random numbers for a batch, with one torch CPU generator per sample.

    Args:
        seeds: one seed per sample, passed to `torch.Generator.manual_seed`.
        keys: names of the samples for error messages; by default "sample 0", "sample 1", ...

    Raises:
        ValueError: no seeds, or another number of keys than seeds.
    """

    def __init__(self, seeds: Sequence[int], keys: Sequence[str] | None = None):
        if len(seeds) == 0:
            raise ValueError("expected at least one seed, got none")
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.keys = list(keys) if keys is not None else [f"sample {b}" for b in range(len(seeds))]
        if len(self.keys) != len(seeds):
            raise ValueError(f"expected as many keys as seeds, got {len(self.keys)}, {len(seeds)}")

    def __len__(self) -> int:
        return len(self.generators)

    def normal(self, shape: Sequence[int], device: torch.device | str | None = None) -> Tensor:
        """Standard normal float32 numbers of `shape` ``(B, ...)``.

        Row b is ``torch.randn(shape[1:], generator=g[b])``, drawn on the CPU: a seed gives the
        same numbers on every device.

        Raises:
            ValueError: B is not the number of generators.
        """
        return self._draw(torch.randn, shape).to(device or "cpu")

    def normal_like(self, x: Tensor) -> Tensor:
        """Standard normal numbers of the shape, dtype and device of `x`.

        If `x` is complex, real and imaginary part have variance 1 each, and the whole real part is
        drawn first.

        Raises:
            ValueError: the batch size of `x` is not the number of generators.
        """
        return self._draw_like(torch.randn, x)

    def uniform_like(self, x: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) of the shape, dtype and device of `x`.

        If `x` is complex, both parts are uniform, and the whole real part is drawn first.

        Raises:
            ValueError: the batch size of `x` is not the number of generators.
        """
        return self._draw_like(torch.rand, x)

    def poisson(self, mean: Tensor) -> Tensor:
        """Poisson numbers of the means ``(B, ...)``, of their dtype and device; drawn on the CPU.

        Raises:
            ValueError: B is not the number of generators.
        """
        if len(mean) != len(self):
            raise ValueError(
                f"expected a batch of {len(self)} (one seed a sample), got {len(mean)}"
            )
        rows = zip(mean.cpu(), self.generators, strict=True)
        return torch.stack([torch.poisson(m, generator=g) for m, g in rows]).to(mean.device)

    def repeat(self, times: int) -> "BatchGenerator":
        """For a batch that holds these samples `times` times, one batch after the other.

        The members of a sample take consecutive numbers from its generator.
        """
        repeated = copy.copy(self)
        repeated.generators, repeated.keys = self.generators * times, self.keys * times
        return repeated

    def _draw_like(self, function: Callable[..., Tensor], x: Tensor) -> Tensor:
        if x.is_complex():
            real, imag = self._draw(function, x.shape), self._draw(function, x.shape)
            return torch.complex(real, imag).to(dtype=x.dtype, device=x.device)
        return self._draw(function, x.shape).to(dtype=x.dtype, device=x.device)

    def _draw(self, function: Callable[..., Tensor], shape: Sequence[int]) -> Tensor:
        if shape[0] != len(self):
            raise ValueError(f"expected a batch of {len(self)} (one seed a sample), got {shape[0]}")
        return torch.stack([function(tuple(shape[1:]), generator=g) for g in self.generators])


class GroupedGenerator(BatchGenerator):
    """Random numbers for B samples of `size` members (coils) each: a batch of ``B * size`` rows.

    The members of a sample take consecutive numbers from that sample's generator, so that samples
    stay independent of each other.

    Args:
        rng: one generator per sample.
        size: members per sample.
    """

    def __init__(self, rng: BatchGenerator, size: int):
        self.rng = rng
        self.size = size
        self.generators = rng.generators
        self.keys = [f"{key}, coil {c}" for key in rng.keys for c in range(size)]

    def __len__(self) -> int:
        return len(self.rng) * self.size

    def _draw(self, function: Callable[..., Tensor], shape: Sequence[int]) -> Tensor:
        if shape[0] != len(self):
            raise ValueError(f"expected a batch of {len(self)}, got {shape[0]}")
        grouped = (len(self.rng), self.size, *shape[1:])
        return self.rng._draw(function, grouped).flatten(0, 1)  # (B * size, ...)
