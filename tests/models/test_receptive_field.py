"""Theoretical receptive fields: of networks by hand, and of the study's sizes."""

import pytest
import torch
from torch import nn

from configs import base
from models import create_model, receptive_field
from models.receptive_field import field_of, theoretical_field

FIELDS = {"1_small": 25, "1": 49, "1_large": 49, "2": 146, "3": 340, "4_small": 728}


pytestmark = pytest.mark.usefixtures("one_thread")


class Plain(nn.Module):
    """Convolutions of given sizes and strides with norms and activations between them."""

    def __init__(self, *sizes: int, stride: int = 1):
        super().__init__()
        layers = [nn.Conv2d(1, 4, sizes[0], padding=sizes[0] // 2)]
        for size in sizes[1:]:
            layers += [nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 4, size, padding=size // 2)]
        self.layers = nn.Sequential(*layers)
        self.stride = stride
        self.up = nn.Upsample(scale_factor=stride) if stride > 1 else nn.Identity()
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()

    def forward(self, x, sigma):
        return self.up(self.pool(self.layers(x))) / sigma[:, None, None, None]


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (Plain(3), 3),
        (Plain(3, 3, 5), 1 + 2 + 2 + 4),
        (Plain(1, 1), 1),
        (Plain(3, 3, stride=4), 4 + 2 + 2),
    ],
)
def test_fields_by_hand(net, expected):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert field_of(net) == expected
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert any("layers.1" in name for name in before) == (len(net.layers) > 1)  # norms are kept


class Uneven(nn.Module):
    """Every other pixel also sees the one 5 further to the left."""

    stride = 2

    def forward(self, x, sigma):
        odd = torch.arange(x.shape[-1]) % 2
        return x + odd * x.roll(5, -1)


def test_the_pixel_with_the_largest_field_counts():
    assert field_of(Uneven()) == 6


@pytest.mark.parametrize(("size", "expected"), FIELDS.items())
def test_fields_of_the_sizes(size, expected):
    assert theoretical_field(base.get_config(size)) == expected


@pytest.mark.parametrize("size", ["1_attention", "4_attention"])
def test_attention_sees_everything(size):
    assert theoretical_field(base.get_config(size)) is None


@pytest.mark.parametrize(("depth", "expected"), [(1, 41), (2, 130), (3, 308)])
def test_fields_of_the_depths(depth, expected):
    assert theoretical_field(base.get_config("structured"), depth) == expected


def test_the_gradient_of_a_real_network_ends_where_the_field_does():
    """With GroupNorm taken out, as that couples all pixels."""
    config = base.get_config("1_small")
    config.model.nf = 4
    net = create_model(config).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1)
    receptive_field._without_norms(net)
    x = torch.rand(1, 1, 40, 40, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x, torch.ones(1, dtype=torch.float64))[0, 0, 20, 20], x)
    rows, columns = gradient[0, 0].nonzero().T
    for places in (rows, columns):
        assert (int(places.min()), int(places.max())) == (20 - 12, 20 + 12)


def test_a_field_beyond_the_strip_is_an_error(monkeypatch):
    monkeypatch.setattr(receptive_field, "LENGTH", 32)
    with pytest.raises(ValueError, match="less than 32 pixels, got one that reaches the border"):
        theoretical_field(base.get_config("1"))
