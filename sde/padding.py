"""Images of any size for networks that halve them."""

from torch import Tensor
from torch.nn.functional import pad

from sde.score import Score


def padded_score(score: Score, stride: int) -> Score:
    """`score` for images of any sides: mirrored at the lower right to multiples of `stride`.

    Args:
        score: takes images ``(B, 1, H, W)`` with sides that are multiples of `stride`.
        stride: 2 ** (depth - 1) of the network.
    """

    def padded(x: Tensor, sigma: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        below, right = -height % stride, -width % stride
        if not (below or right):
            return score(x, sigma)
        return score(pad(x, (0, right, 0, below), mode="reflect"), sigma)[..., :height, :width]

    return padded
