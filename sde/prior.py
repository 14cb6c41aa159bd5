"""Priors: a score function with its range of noise levels, also from denoisers."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from operators.batch import expand
from sde.score import Score, complex_score, padded_score
from sde.ve import VESDE

# what networks predict of x = x0 + sigma z
PREDICTS = {
    "x0": "the clean image",
    "noise": "the noise in standard deviations",
    "score": "the gradient of the log-density",
}
NOISY = 0.5  # noise level that hides much of an image in [0, 1]
ALIKE = 0.5  # of the image: at its lowest level a denoiser changes it by less than that
OPPOSED = -0.2  # part of the noise that a denoised image keeps; less is no such image
FOURFOLD = 4  # so many times as much noise as in another reading is no denoised image


class Prior(NamedTuple):
    """A prior, ready to sample: ``score, sde = prior``.

    Attributes:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``, for MRI of complex x, too (`complex_score`).
            Two attributes of the function are made use of where it has them: `symmetric`, whether
            turned and mirrored images are as likely, and `device`, where its network is.
        sde: the range of noise levels that it knows.
    """

    score: Score
    sde: VESDE

    @classmethod
    def from_denoiser(
        cls,
        net: Callable[[Tensor, Tensor], Tensor],
        *,
        sigma_min: float,
        sigma_max: float,
        predicts: str = "x0",
        stride: int = 1,
        symmetric: bool = False,
    ) -> "Prior":
        """The prior that a denoiser of Gaussian noise stands for.

        By Tweedie's formula the score is (E[x0 | x] - x) / sigma^2 for x = x0 + sigma z with z of
        variance 1 (Efron, J. Am. Stat. Assoc. 106 (2011)). At its first call, two calls of the
        network on a test image tell whether it predicts what is said.

        Args:
            net: ``net(x, sigma)`` on real images ``(B, 1, H, W)`` in about [0, 1] and noise levels
                ``(B,)`` in the same unit; returns the shape of x. A module is called in the
                precision of its parameters, as it is: put it into evaluation mode.
            sigma_min: smallest noise level that it knows.
            sigma_max: largest; samplers that start from pure noise need about 1 or more.
            predicts: ``"x0"``, the clean image E[x0 | x]; ``"noise"``, E[z | x]; or ``"score"``,
                the gradient of log p_sigma at x, -E[z | x] / sigma.
            stride: number of which the sides of images have to be multiples; others are padded.
            symmetric: whether turned and mirrored images are as likely to it: `samplers.pnp` then
                shows it images in all eight positions.

        Returns:
            A prior for real images of any sides, and for complex ones, part by part
            (`sde.complex_score`).

        Raises:
            ValueError: levels that are not 0 < sigma_min < sigma_max, or an unknown `predicts`;
                at the first call, for a network that does not return the shape of x, or whose
                output is clearly not what `predicts` says.
        """
        if predicts not in PREDICTS:
            raise ValueError(f"expected predicts in {list(PREDICTS)}, got {predicts!r}")
        if not callable(net):
            raise ValueError(f"expected a denoiser net(x, sigma), got {type(net).__name__}")
        sde = VESDE(sigma_min, sigma_max)
        parameter = next(net.parameters(), None) if isinstance(net, nn.Module) else None

        def call(x: Tensor, sigma: Tensor) -> Tensor:
            if parameter is None:
                output = net(x, sigma)
            else:
                output = net(x.to(parameter.dtype), sigma.to(parameter.dtype))
            if not isinstance(output, Tensor) or output.shape != x.shape:
                is_tensor = isinstance(output, Tensor)
                found = tuple(output.shape) if is_tensor else type(output).__name__
                raise ValueError(
                    "expected the denoiser to return a tensor of the shape of x, "
                    f"{tuple(x.shape)}, got {found}; wrap it in a function that does"
                )
            if torch.is_grad_enabled() and x.requires_grad and not output.requires_grad:
                raise RuntimeError(
                    "expected a denoiser that autograd can go through, as this sampler needs its "
                    "gradient, got one whose result has none; pnp for one image and warm_dds for "
                    "several need none"
                )
            return output.to(x.dtype)

        padded, checked = padded_score(call, stride), False

        def real_score(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal checked
            if not checked:
                check_prediction(padded, sde, predicts, like=x)
                checked = True
            output = padded(x, sigma)
            if predicts == "score":
                return output
            if predicts == "noise":
                return -output / expand(sigma, x)
            return (output - x) / expand(sigma, x) ** 2

        score = complex_score(real_score)
        score.symmetric = symmetric
        score.device = None if parameter is None else parameter.device
        return cls(score, sde)

    def checked(self) -> "Prior":
        """A copy that checks its score function in the first call, by two further network calls.

        Raises (in that call):
            ValueError: the function seems to be a denoiser instead of a score.
        """
        done = False

        @functools.wraps(self.score)  # its attributes, too
        def score(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal done
            if not done:
                shown = (
                    _real_part_of(self.score) if getattr(self.score, "joint", False) else self.score
                )
                check_prediction(shown, self.sde, "score", like=x.real)
                done = True
            return self.score(x, sigma)

        return Prior(score, self.sde)


def _real_part_of(score: Score) -> Score:
    """A score of complex images as a function of real ones: x -> the real part at x + 0 i."""

    def real(x: Tensor, sigma: Tensor) -> Tensor:
        return score(torch.complex(x, torch.zeros_like(x)), sigma).real

    return real


def check_prediction(
    net: Callable[[Tensor, Tensor], Tensor], sde: VESDE, predicts: str, *, like: Tensor
) -> None:
    """Raise a ValueError if a network's output is not what `predicts` says.

    Args:
        net: function of real images and noise levels.
        sde: range of noise levels of the network.
        predicts: a key of `PREDICTS`.
        like: real images of the shape, dtype and device to try it with.
    """
    found = find_prediction(net, sde, like=like)
    if found not in (predicts, None):
        raise ValueError(
            f"expected a network that predicts {PREDICTS[predicts]} ({predicts!r}), got one whose "
            f"output looks like {PREDICTS[found]}: Prior.from_denoiser(net, sigma_min=..., "
            f"sigma_max=..., predicts={found!r}) makes a prior of it; if it does predict "
            f"{predicts!r}, give the noise levels that it was made for, for images in [0, 1]"
        )


@torch.no_grad()
def find_prediction(
    net: Callable[[Tensor, Tensor], Tensor], sde: VESDE, *, like: Tensor
) -> str | None:
    """The key of `PREDICTS` that a network's output looks like, from its answer to two noisy waves.

    Of a denoiser that keeps a part beta of the noise, 0 <= beta < 1, that part in the output is
    beta sigma if it predicts x0, 1 - beta if noise, and (beta - 1) / sigma if the score: its sign
    tells the score from the others. With noise of the smallest level, x0 is nearly what went in.
    Half the sum and the difference of the answers to x0 +- sigma z tell image from noise; medians
    over pixels leave out the borders. None for an output that is not finite. Arguments as of
    `check_prediction`.
    """
    rows = torch.arange(like.shape[-2], dtype=like.dtype, device=like.device)
    wave = (1 + torch.cos(2 * torch.pi * (rows + 0.5) / len(rows))) / 2  # (H,), all of [0, 1]
    image = wave[:, None].expand(1, *like.shape[1:])
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image)

    def answer(level: float) -> tuple[Tensor, float]:
        """The image in the output, and its part of the noise."""
        x = torch.cat([image + level * noise, image - level * noise])
        plus, minus = net(x, torch.full((2,), level, dtype=x.dtype, device=x.device)).chunk(2)
        return (plus + minus) / 2, float(((plus - minus) / 2 * noise).sum() / noise.square().sum())

    sigma = min(max(NOISY, 2 * sde.sigma_min), sde.sigma_max)
    kept = answer(sigma)[1]
    shown = answer(sde.sigma_min)[0]
    if not (math.isfinite(kept) and bool(torch.isfinite(shown).all())):
        return None
    is_alike = float((shown - image).abs().median()) < ALIKE * float(image.median())
    if is_alike and OPPOSED < kept / sigma <= FOURFOLD * abs(1 - kept):
        return "x0"
    return "score" if kept < 0 else "noise"
