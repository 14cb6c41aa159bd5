"""Score functions: what they do to images before a network sees them."""

import torch

from operators import BatchGenerator
from sde.score import padded_score


def test_padding_for_networks_that_halve():
    def score(x, sigma):
        assert x.shape[-2] % 4 == 0
        assert x.shape[-1] % 4 == 0
        return -x / sigma[:, None, None, None]

    x = BatchGenerator([0, 1]).normal((2, 1, 9, 12))
    sigma = torch.tensor([1.0, 2.0])
    expected = -x / sigma[:, None, None, None]
    torch.testing.assert_close(padded_score(score, 4)(x, sigma), expected)
