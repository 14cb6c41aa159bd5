"""Noise of simulated measurements: white, by level or signal-to-noise ratio, or of counts."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand, norm

LEAST_COUNT = 1.0  # photons: fewer are read as so many, as zero has no logarithm
# nepers across the width of an image of ones: 25 to 30 cm at 0.5 to 0.6 / cm, dense bone. Water is
# then at about 0.35 to 0.4 and absorbs, as it does, 0.2 / cm; LoDoPaB's own number is 21.2
ATTENUATION = 15.0


class MeasurementNoise(NamedTuple):
    """Noise that is added to simulated measurements; None everywhere: there is none.

    Attributes:
        sigma: standard deviation of white Gaussian noise, of the real and of the imaginary part
            each, in the unit of the measurement of an image in [0, 1].
        snr_db: instead, 20 log10(|A x| / |noise|), the norms over what is measured.
        photons: instead, of line integrals, the mean count of a ray that meets nothing.
        electronic: with photons, standard deviation of the detector's noise in counts.
        attenuation: with photons, line integral in nepers across the width of an image of ones.
    """

    sigma: float | None = None
    snr_db: float | None = None
    photons: float | None = None
    electronic: float | None = None
    attenuation: float | None = None

    @property
    def is_any(self) -> bool:
        """Whether there is any noise."""
        return bool(self.sigma) or self.snr_db is not None or self.photons is not None

    def describe(self) -> str:
        """Short description for tables, such as "noise 0.03" or "1e+04 photons"; "" for none."""
        if self.photons is not None:
            electronic = f" + {self.electronic:g} electronic" if self.electronic else ""
            return f"{self.photons:.3g} photons{electronic}"
        if self.snr_db is not None:
            return f"{self.snr_db:g} dB"
        return f"noise {self.sigma:g}" if self.sigma else ""

    def add(
        self, operator: LinearOperator, y: Tensor, rng: BatchGenerator
    ) -> tuple[Tensor, Tensor]:
        """A noisy measurement, and the standard deviation of its noise.

        Args:
            operator: measurement model A, which says what is measured.
            y: ``(B, *range_shape)`` noise-free measurement; not changed in place.
            rng: one generator a sample. White noise is drawn for all of the range, so that it is
                the same wherever two masks measure both.

        Returns:
            ``(B, *range_shape)``, and the deviation, ``(B, 1, ...)`` if it is the same in all of a
            sample, otherwise ``(B, *range_shape)``; of counts it is computed from the noisy ones.

        Raises:
            ValueError: counts of an operator that does not integrate along rays.
        """
        if self.photons is not None:
            return self._count(operator, y, rng)
        measured = operator.measured().to(y.device)
        level = torch.full((len(y),), self.sigma or 0.0, dtype=torch.float64)
        if self.snr_db is not None:
            count = measured.expand(y.shape).flatten(1).sum(1) * (2 if y.is_complex() else 1)
            level = norm(y).double() / count.clamp(min=1).sqrt() * 10 ** (-self.snr_db / 20)
        std = expand(level.to(y.real), y)  # (B, 1, ...)
        return (y + std * rng.normal_like(y) * measured if self.is_any else y), std

    def _count(
        self, operator: LinearOperator, y: Tensor, rng: BatchGenerator
    ) -> tuple[Tensor, Tensor]:
        if not operator.integrates_rays:
            raise ValueError(
                f"noise.photons are counts of rays, got {type(operator).__name__}; set noise.sigma "
                "or noise.snr_db"
            )
        across = ATTENUATION if self.attenuation is None else self.attenuation
        nepers = across / operator.domain_shape[-1]  # of one unit of y
        return count_photons(
            y, rng, photons=self.photons, electronic=self.electronic or 0.0, nepers=nepers
        )


def create_noise(fields: Mapping) -> MeasurementNoise:
    """Noise described by the fields of ``config.noise``; others than its attributes are ignored.

    Raises:
        ValueError: fields that exclude each other, or a value out of range.
    """
    noise = MeasurementNoise(**{name: fields.get(name) for name in MeasurementNoise._fields})
    kinds = ("sigma", "snr_db", "photons")
    given = [name for name in kinds if getattr(noise, name) is not None]
    if noise.sigma == 0 and len(given) > 1:
        given.remove("sigma")
    if len(given) > 1:
        raise ValueError(f"expected one of {', '.join(f'noise.{k}' for k in kinds)}, got {given}")
    for name in ("electronic", "attenuation"):
        if getattr(noise, name) is not None and noise.photons is None:
            raise ValueError(f"noise.{name} belongs to counts; set noise.photons as well")
    for name, value in zip(noise._fields, noise, strict=True):
        if value is not None and not math.isfinite(value):
            raise ValueError(f"expected a finite noise.{name}, got {value}")
    for name in ("photons", "attenuation"):
        value = getattr(noise, name)
        if value is not None and value <= 0:
            raise ValueError(f"expected noise.{name} above 0, got {value}")
    for name in ("sigma", "electronic"):
        value = getattr(noise, name)
        if value is not None and value < 0:
            raise ValueError(f"expected noise.{name} of 0 or more, got {value}")
    return noise


def count_photons(
    y: Tensor, rng: BatchGenerator, *, photons: float, electronic: float, nepers: float
) -> tuple[Tensor, Tensor]:
    """Line integrals as a photon-counting or integrating detector reads them.

    The count of a ray is N ~ Poisson(N0 exp(-p)) plus normal numbers of standard deviation
    `electronic`, p = `nepers` y, and at least `LEAST_COUNT`; read is -log(N / N0) / nepers. Its
    variance is (N + electronic^2) / (N nepers)^2 to first order, with the N that was counted, as
    nobody knows the mean. The logarithm is biased upwards by half its variance, and rays that let
    less than one photon through are read as log(N0) / nepers at most; their deviation of a neper or
    more says so, and electronic noise raises it, at N = 1 to sqrt(1 + electronic^2) nepers.

    Args:
        y: real ``(B, ...)`` line integrals, in units of the image times pixels.
        rng: one generator a sample; counts are drawn before electronic noise.
        photons: N0, mean count of a ray that meets nothing, above 0.
        electronic: standard deviation in counts, 0 or more.
        nepers: line integral in nepers of a unit of `y`, above 0.

    Returns:
        Noisy line integrals and their standard deviation, both of the shape and dtype of `y`.

    Source: B. R. Whiting et al., Med. Phys. 33 (2006) 3290-3303.
    """
    counts = rng.poisson(photons * torch.exp(-nepers * y.double()))
    if electronic:
        counts = counts + electronic * rng.normal_like(counts)
    counts = counts.clamp(min=LEAST_COUNT)
    read = torch.log(photons / counts) / nepers
    std = torch.sqrt(counts + electronic**2) / (counts * nepers)
    return read.to(y.dtype), std.to(y.dtype)
