"""The bias-free U-Net: size, homogeneity, image sizes, what it does to precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import configs
from models import BiasFreeUNet, create_model
from models.checkpoint import load_prior
from samplers.denoise import denoise


def network(seed: int = 0, **changes) -> BiasFreeUNet:
    """A small one with weights that are far from the initialisation's near-zero output."""
    torch.manual_seed(seed)
    net = BiasFreeUNet(**{"nf": 4, "ch_mult": (1, 2, 2), "num_res_blocks": 1} | changes)
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_(std=0.2)
    return net.eval().requires_grad_(False)


def test_the_shipped_size_is_small():
    net = create_model(configs.load_config("configs/natural_small.py"))
    count = sum(p.numel() for p in net.parameters())
    blocks = 2 * 9 * (2 * 2 * (32**2 + 48**2 + 56**2) + 2 * 56**2)  # two of each width each way
    assert count == blocks + 2 * 4 * (32 * 48 + 48 * 56 + 56 * 56) + 9 * (2 * 32 + 32)
    assert count <= 700_000


@given(scale=st.floats(0.01, 100), sigma=st.floats(0.01, 5))
@settings(max_examples=20, deadline=None)
def test_image_and_noise_scale_together(scale, sigma):
    net = network().double()
    x = torch.rand(2, 1, 12, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    level = torch.full((2,), sigma, dtype=torch.float64)
    # of log p_{c sigma}(c x) the gradient is that of log p_sigma(x) divided by c
    torch.testing.assert_close(net(scale * x, scale * level) * scale, net(x, level))


@pytest.mark.parametrize("size", [(13, 18), (1, 2), (3, 4), (2, 9)])
def test_any_image_size_is_the_mirrored_one_cut(size):
    net = network().double()
    x = torch.rand(1, 1, *size, dtype=torch.float64)
    sigma = torch.tensor([0.3], dtype=torch.float64)
    below, right = (-side % 4 for side in size)
    padded = np.pad(x[0, 0].numpy(), ((0, below), (0, right)), mode="reflect")
    expected = net(torch.from_numpy(padded)[None, None], sigma)[:, :, : size[0], : size[1]]
    torch.testing.assert_close(net(x, sigma), expected)


def test_the_last_rows_of_an_odd_image_are_denoised_as_well_as_the_first():
    """Repeated rows of noise are a pattern: the last rows' error was 1.15 to 1.5 times as large."""
    score, _ = load_prior("natural_small")
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(24, 1, 65, 65, generator=generator)
    left = denoise(score, 0.5 + noise, torch.full((24,), 0.1)) - 0.5
    errors = left.square().mean((0, 1))  # (65, 65)
    first, last = errors[:2, 8:-8].mean(), errors[-2:, 8:-8].mean()
    assert last < 1.1 * first


def test_each_level_can_have_its_own_number_of_blocks():
    net = network(num_res_blocks=(1, 3, 2))
    assert [len(level) for level in net.down] == [1, 3]
    assert len(net.middle) == 2
    assert [len(level) for level in net.up] == [3, 1]
    same, plain = network(num_res_blocks=(2, 2, 2)), network(num_res_blocks=2)
    assert same.state_dict().keys() == plain.state_dict().keys()
    with pytest.raises(ValueError, match="each of 3 levels"):
        network(num_res_blocks=(1, 2))


def test_samples_and_noise_levels_are_apart():
    net = network().double()
    x, sigma = torch.rand(3, 1, 16, 16).double(), torch.tensor([0.01, 0.1, 1]).double()
    together = net(x, sigma)
    for b in range(3):
        torch.testing.assert_close(together[b : b + 1], net(x[b : b + 1], sigma[b : b + 1]))
    assert not torch.allclose(net(x, sigma.flip(0))[0] * 1e4, together[0])


def test_starts_near_the_zero_score():
    torch.manual_seed(0)
    net = BiasFreeUNet(nf=16, ch_mult=(2, 3, 4), num_res_blocks=2)
    with torch.no_grad():
        noise = net(torch.rand(1, 1, 64, 64) + torch.randn(1, 1, 64, 64), torch.ones(1))
    assert 0 < noise.std() < 0.2


def test_bfloat16_keeps_input_and_output_precise():
    net, x, sigma = network(), torch.rand(2, 1, 32, 32), torch.tensor([0.01, 1.0])
    with torch.autocast("cpu", torch.bfloat16):
        low = net(x, sigma)
    assert low.dtype == torch.float32
    exact = net(x, sigma)
    error = (low - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert 0 < error.max() < 0.04  # 0.019 on an AMD EPYC


@pytest.mark.parametrize(
    ("shape", "levels", "message"),
    [((1, 2, 8, 8), 1, r"\(B, 1, H, W\)"), ((8, 8), 1, "images"), ((2, 1, 8, 8), 1, "sigma")],
)
def test_says_what_does_not_fit(shape, levels, message):
    with pytest.raises(ValueError, match=message):
        network()(torch.zeros(shape), torch.ones(levels))
