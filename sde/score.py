"""Score functions, as samplers call them, from networks."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

Score = Callable[[Tensor, Tensor], Tensor]


def score_function(
    net: nn.Module,
    *,
    autocast: torch.dtype | None = None,
    stride: int = 1,
    symmetric: bool = False,
) -> Score:
    """``score(x, sigma) -> grad_x log p_sigma(x)`` for real and for complex images.

    A complex `x` goes through a network of one channel as one batch of twice the size: the real and
    the imaginary part are images of their own (Chung & Ye 2022, section 3.3). A network of two
    channels takes both together, and no real `x` ``(B, 1, H, W)``. One of three is shown grey
    images (`grey_score`). Several complex images of one
    sample, ``(B, S, H, W)``, go one by one. x keeps its precision: the
    network's input is cast to the network's dtype and its output cast back.

    Args:
        net: ``net(x, sigma)`` on real images; its attribute `num_channels`, 1 where it has none,
            is that of the images.
        autocast: bfloat16 or float16 for the network's inner products; None for none.
        stride: the network's image sides are multiples of it; other images are padded.
        symmetric: whether turned and mirrored images are as likely; the score's attribute of that
            name, for samplers that make use of it.

    Returns:
        The score; its attribute `joint` is True for a network of two channels.

    Raises:
        ValueError: a network of another number of channels than 1, 2 or 3.
    """
    dtype = next((p.dtype for p in net.parameters()), torch.float32)

    def real_score(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=autocast, enabled=autocast is not None):
            return net(x.to(dtype), sigma.to(dtype)).to(x.dtype)

    channels = getattr(net, "num_channels", 1)
    if channels not in (1, 2, 3):
        raise ValueError(f"expected a network of 1, 2 or 3 channels, got {channels}")
    joint = channels == 2
    extend = joint_score if joint else complex_score
    base = grey_score(real_score) if channels == 3 else real_score
    score = set_by_set(extend(padded_score(base, stride)))
    score.symmetric, score.joint = symmetric, joint
    return score


def set_by_set(score: Score) -> Score:
    """The score of several complex images a sample, ``(B, S, H, W)``, from that of one of them."""

    def extended(x: Tensor, sigma: Tensor) -> Tensor:
        if not x.is_complex() or x.shape[1] == 1:
            return score(x, sigma)
        levels = sigma.repeat_interleave(x.shape[1])  # (B S,)
        return score(x.flatten(0, 1)[:, None], levels)[:, 0].unflatten(0, x.shape[:2])

    return extended


def padded_score(score: Score, stride: int) -> Score:
    """`score` for real images of any sides: mirrored at the lower right to multiples of `stride`.

    Args:
        score: takes images ``(B, 1, H, W)`` with sides that are multiples of `stride`.
        stride: 2 ** (depth - 1) of a network that halves images.
    """

    def padded(x: Tensor, sigma: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        below, right = -height % stride, -width % stride
        if not (below or right):
            return score(x, sigma)
        return score(pad(x, (0, right, 0, below), mode="reflect"), sigma)[..., :height, :width]

    return padded


def grey_score(score: Score) -> Score:
    """The score of grey images from that of colour images ``(B, 3, H, W)``.

    The image is shown in all three channels, and the mean of what they say of it counts. The three
    have the same noise then instead of noise of their own, so this approximates.
    """

    def extended(x: Tensor, sigma: Tensor) -> Tensor:
        return score(x.expand(-1, 3, -1, -1), sigma).mean(1, keepdim=True)

    return extended


def joint_score(score: Score) -> Score:
    """The score of complex images from that of their real and imaginary parts as two channels.

    Real images of two channels, ``(B, 2, H, W)``, are taken as they are.
    """

    def extended(x: Tensor, sigma: Tensor) -> Tensor:
        if x.is_complex():
            parts = score(torch.cat([x.real, x.imag], dim=1), sigma)  # (B, 2, H, W)
            return torch.complex(*parts.chunk(2, dim=1))
        if x.shape[1] == 1:
            raise ValueError(
                "expected complex images, as this prior was trained on real and imaginary parts "
                "together, got real ones: it is for MRI with a phase; take a prior of one channel"
            )
        return score(x, sigma)

    return extended


def complex_score(score: Score) -> Score:
    """Extend the score of real images to complex ones, part by part."""

    def extended(x: Tensor, sigma: Tensor) -> Tensor:
        if not x.is_complex():
            return score(x, sigma)
        shared = sigma.stride(0) == 0  # stays one number in memory
        levels = sigma[:1].expand(2 * len(x)) if shared else torch.cat([sigma, sigma])  # (2B,)
        parts = score(torch.cat([x.real, x.imag]), levels)  # (2B, 1, H, W)
        return torch.complex(*parts.chunk(2))

    return extended
