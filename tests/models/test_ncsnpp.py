"""NCSN++: parameter counts, reference vectors, resampling, attention, EMA."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from configs import base, natural_small
from models import create_model
from models.checkpoint import import_state_dict
from models.ema import create_ema
from models.layers import AttentionBlock
from models.original import original_names
from models.resample import FIR_TAPS, downsample2, upsample2

COUNTS = {
    "1": 5_274_753,
    "2": 23_929_473,
    "3": 42_402_177,
    "4": 61_169_793,
    "4_attention": 61_433_473,
}


def small(size: str = "1", nf: int = 8):
    config = base.get_config(size)
    config.model.nf = nf
    return config


@pytest.mark.parametrize(("size", "count"), COUNTS.items())
def test_parameter_counts_of_the_study(size, count):
    with torch.device("meta"):
        net = create_model(base.get_config(size))
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == count


@pytest.mark.parametrize("size", ["1", "2", "4_attention"])
def test_matches_the_original_network(reference, size):
    vectors = reference(f"ncsnpp_{size}_nf8")
    net = create_model(small(size)).eval()
    state = {
        name.removeprefix("state/"): torch.from_numpy(value)
        for name, value in vectors.items()
        if name.startswith("state/")
    }
    import_state_dict(net, {f"module.{name}": value for name, value in state.items()})
    with torch.no_grad():
        out = net(torch.from_numpy(vectors["x"]), torch.from_numpy(vectors["sigma"]))
    expected = torch.from_numpy(vectors["out"])
    error = (out - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert error.max() < 1e-5  # of each sample: the noise levels differ by a factor of 600


@pytest.mark.parametrize("size", COUNTS)
def test_every_parameter_has_an_original_name_in_the_same_order(size):
    net = create_model(small(size))
    ours = [path for path, _ in original_names(net).values()]
    assert sorted(ours) == sorted(net.state_dict())
    # the original's EMA list follows its parameters' order; so does ours
    assert ours[1:] == [name for name, _ in net.named_parameters()]


def dense_resample(x: np.ndarray, up: bool) -> np.ndarray:
    """Resampling by 2 of one channel in loops: the definition."""
    taps = np.outer(FIR_TAPS, FIR_TAPS)
    taps = taps / taps.sum() * (4 if up else 1)
    if up:
        stuffed = np.zeros((2 * x.shape[0], 2 * x.shape[1]))
        stuffed[::2, ::2] = x
        x = np.pad(stuffed, ((2, 1), (2, 1)))
    else:
        x = np.pad(x, 1)
    height, width = x.shape[0] - 3, x.shape[1] - 3
    out = np.array(
        [[(x[i : i + 4, j : j + 4] * taps).sum() for j in range(width)] for i in range(height)]
    )
    return out if up else out[::2, ::2]


@pytest.mark.parametrize("up", [True, False])
def test_resampling_is_the_fir_filter(up):
    x = torch.randn(2, 3, 6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = (upsample2 if up else downsample2)(x)
    for b in range(2):
        for c in range(3):
            expected = dense_resample(x[b, c].numpy(), up)
            np.testing.assert_allclose(out[b, c].numpy(), expected, atol=1e-14)


def test_resampling_keeps_a_constant_inside():
    x = torch.full((1, 2, 8, 8), 0.7)
    assert torch.allclose(downsample2(x)[..., 1:-1, 1:-1], torch.tensor(0.7))
    assert torch.allclose(upsample2(x)[..., 2:-2, 2:-2], torch.tensor(0.7))


def test_attention_is_softmax_of_scaled_products():
    torch.manual_seed(0)
    block = AttentionBlock(8).double()
    torch.nn.init.normal_(block.output.weight)
    x = torch.randn(2, 8, 4, 6, dtype=torch.float64)
    h = block.norm(x)
    q, k, v = (layer(h).flatten(2) for layer in (block.query, block.key, block.value))
    weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / 8**0.5, dim=2)
    attended = torch.einsum("bij,bcj->bci", weights, v).reshape(x.shape)
    expected = (x + block.output(attended)) / 2**0.5
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("size", ["1", "3", "4_attention"])
def test_samples_of_a_batch_are_independent(size):
    torch.manual_seed(0)
    net = create_model(small(size)).double().eval()
    for parameter in net.parameters():  # zero-initialised branches would hide a mistake
        torch.nn.init.normal_(parameter, std=0.1)
    x, sigma = torch.randn(3, 1, 16, 24, dtype=torch.float64), torch.tensor([0.1, 1.0, 30.0])
    together = net(x, sigma.double())
    alone = torch.cat([net(x[i : i + 1], sigma[i : i + 1].double()) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-11, atol=1e-11)


def test_unfit_input_is_an_error():
    net = create_model(small("3"))
    sigma = torch.ones(1)
    with pytest.raises(ValueError, match=r"multiples of 4 .* got 30 x 32; crop or pad"):
        net(torch.zeros(1, 1, 30, 32), sigma)
    with pytest.raises(ValueError, match=r"expected images \(B, 1, H, W\), got \(1, 3, 32, 32\)"):
        net(torch.zeros(1, 3, 32, 32), sigma)
    with pytest.raises(ValueError, match=r"expected sigma \(1,\), got \(2,\)"):
        net(torch.zeros(1, 1, 32, 32), torch.ones(2))


def test_unfit_configs_are_errors():
    config = small()
    config.model.name = "resnet"
    with pytest.raises(ValueError, match=r"one of \['bias_free_unet', 'ncsnpp', .*got 'resnet'"):
        create_model(config)
    config = small()
    config.model.nf = 130
    with pytest.raises(ValueError, match="multiple of 4 below 128"):
        create_model(config)
    with pytest.raises(ValueError, match=r"model size out of .*4_attention.*, got '5'"):
        base.get_config("5")


def test_ema_follows_the_stated_decay():
    net = torch.nn.Linear(1, 1, bias=False)
    ema = create_ema(net, 0.5)
    expected = net.weight.item()
    for n in range(1, 9):
        with torch.no_grad():
            net.weight.fill_(float(n))
        ema.update_parameters(net)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
        assert ema.module.weight.item() == pytest.approx(expected, rel=1e-6)


def test_fresh_network_is_almost_silent():
    """Residual branches and the output start at zero, as the original initialises them."""
    torch.manual_seed(0)
    net = create_model(small("2"))
    out = net(torch.rand(1, 1, 16, 16), torch.ones(1))
    assert out.abs().max() < 1e-3
    assert F.mse_loss(out, torch.zeros_like(out)) < 1e-6


def test_a_level_that_all_samples_share_is_embedded_once():
    torch.manual_seed(0)
    net = create_model(small("2")).eval()
    x, sigma = torch.rand(3, 1, 16, 16), torch.tensor([0.3])
    sizes = []
    net.embedding.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    with torch.no_grad():
        net.output.weight.normal_()
        once, each = net(x, sigma.expand(3)), net(x, sigma.repeat(3))
    assert sizes == [1, 3]
    torch.testing.assert_close(once, each, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "low"),
    [("1", False), ("1", True), ("4_attention", True), ("bias_free", False), ("bias_free", True)],
)
def test_compiles_into_one_graph(size, low):
    """In pieces a GPU waits for the CPU: depth 1 trained at 0.76 times the eager speed (H100)."""
    config = natural_small.get_config() if size == "bias_free" else small(size)
    net = create_model(config)
    torch._dynamo.reset()
    fast = torch.compile(net, fullgraph=True, backend="eager")
    x, sigma = torch.rand(1, 1, 32, 32), torch.ones(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        torch.testing.assert_close(fast(x, sigma), net(x, sigma))
    with torch.inference_mode():
        torch.testing.assert_close(fast(x, sigma), net(x, sigma))
