"""Sizes of networks: parameter counts of the study's 2026 edition, groups, nested depths."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from configs import base, celeba_2026, ct_2026, fastmri_knee_2026
from models import create_model
from models.layers import AttentionBlock
from models.nested import AtDepth, NestedNCSNpp, depth_of_step

COUNTS = {
    "1_small": 161_985,
    "1": 5_274_753,
    "1_attention": 5_341_057,
    "1_large": 64_480_193,
    "2": 23_929_473,
    "3": 42_402_177,
    "4": 61_169_793,
    "4_attention": 61_433_473,
    "4_small": 5_993_001,
    "mrncsn": 20_457_348,
    "msncsn": 20_457_348,
    "structured": 20_303_745,
}
ACTIVE = (4_552_065, 9_464_193, 14_522_625, 20_303_745)  # structured, by depth


pytestmark = pytest.mark.usefixtures("one_thread")


def count(parameters) -> int:
    return sum(p.numel() for p in parameters)


@pytest.mark.parametrize(("size", "expected"), COUNTS.items())
def test_parameter_counts_of_2026(size, expected):
    with torch.device("meta"):
        net = create_model(ct_2026.get_config(size))
    assert count(net.parameters()) == expected


def test_every_size_is_counted():
    assert COUNTS.keys() == base.ALL_SIZES.keys() | base.NESTED.keys()


def nested(family: str, **fields) -> NestedNCSNpp:
    part, own_ends = base.NESTED[family]
    torch.manual_seed(0)
    net = NestedNCSNpp(
        nf=8,
        num_levels=3,
        num_res_blocks=1,
        part=part,
        own_ends=own_ends,
        fourier_scale=16.0,
        **fields,
    )
    with torch.no_grad():  # branches and outputs start at zero, which would hide everything
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return net.eval()


def batch(side: int = 16):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 1, side, side, generator=generator), torch.tensor([0.1, 2.0])


def used(net, depth: int) -> list[str]:
    net.zero_grad(set_to_none=True)
    x, sigma = batch()
    out = net(x, sigma, depth)
    assert out.shape == x.shape
    out.square().sum().backward()
    return [name for name, p in net.named_parameters() if p.grad is not None]


def test_parameters_of_each_depth_of_the_structured_network():
    with torch.device("meta"):  # only shapes are computed
        net = create_model(base.get_config("structured"))
        x, sigma = torch.empty(1, 1, 8, 8), torch.ones(1)
    for depth, expected in enumerate(ACTIVE, start=1):
        net.zero_grad(set_to_none=True)
        net(x, sigma, depth).sum().backward()
        assert count(p for p in net.parameters() if p.grad is not None) == expected


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_finest_levels_without_bottleneck(depth):
    names = used(nested("mrncsn"), depth)
    assert {n.split(".")[1] for n in names if n.startswith("down.")} == {
        str(level) for level in range(depth)
    }
    assert any(n.startswith("middle.") for n in names) == (depth == 3)
    ends = {n.split(".")[1] for n in names if n.startswith(("inputs.", "outputs."))}
    assert ends == {str(depth - 1)}


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_coarsest_levels_with_bottleneck(depth):
    names = used(nested("msncsn"), depth)
    levels = {str(level) for level in range(3 - depth, 3)}
    assert {n.split(".")[1] for n in names if n.startswith("down.")} == levels
    assert any(n.startswith("middle.") for n in names)
    assert {n.split(".")[1] for n in names if n.startswith("up.")} == {str(i) for i in range(depth)}


def test_the_structured_network_at_full_depth_is_ncsnpp():
    config = base.get_config("4")
    config.model.update(nf=8, ch_mult=(1, 1, 1), num_res_blocks=1)
    ours, other = nested("structured"), create_model(config).eval()
    state = {
        name.replace("inputs.0", "input").replace("outputs.0", "output"): value
        for name, value in ours.state_dict().items()
    }
    other.load_state_dict(state)
    assert torch.equal(ours(*batch()), other(*batch()))
    assert not torch.allclose(ours(*batch(), 2), other(*batch()))


@pytest.mark.parametrize("family", base.NESTED)
def test_each_depth_takes_images_of_its_own_stride(family):
    net = nested(family)
    for depth in (1, 2, 3):
        alone = AtDepth(net, depth)
        assert alone.stride == 2 ** (depth - 1)
        x, sigma = batch(side=3 * alone.stride)
        assert torch.equal(alone(x, sigma), net(x, sigma, depth))
        if depth > 1:
            with pytest.raises(ValueError, match=rf"multiples of {alone.stride} "):
                alone(*batch(side=9))


def test_wrong_depths_are_errors():
    net = nested("mrncsn")
    for depth in (0, 4):
        with pytest.raises(ValueError, match=r"a depth in 1 \.\.\. 3, got"):
            net(*batch(), depth)
        with pytest.raises(ValueError, match=r"a depth in 1 \.\.\. 3, got"):
            AtDepth(net, depth)
    with pytest.raises(ValueError, match=r"expected a nested network .* got Linear"):
        AtDepth(torch.nn.Linear(1, 1), 1)
    with pytest.raises(ValueError, match=r"model\.part to be one of"):
        NestedNCSNpp(
            nf=8, num_levels=2, num_res_blocks=1, part="some", own_ends=True, fourier_scale=1.0
        )
    with pytest.raises(ValueError, match=r"own_ends for model\.part=coarsest"):
        NestedNCSNpp(
            nf=8, num_levels=2, num_res_blocks=1, part="coarsest", own_ends=False, fourier_scale=1.0
        )


def test_depths_of_training_are_uniform_and_follow_from_the_seed():
    found = [depth_of_step(seed, 4) for seed in range(400)]
    assert found == [depth_of_step(seed, 4) for seed in range(400)]
    counts = [found.count(depth) for depth in (1, 2, 3, 4)]
    assert sum(counts) == 400
    assert min(counts) > 65  # 4 standard deviations below 100


def groups(net) -> set[int]:
    blocks = (m for name, m in net.named_modules() if name.endswith(("norm1", "norm2")))
    return {block.num_groups for block in blocks}


def test_groups_of_the_residual_blocks_alone():
    config = base.get_config("4_attention")
    with torch.device("meta"):
        assert groups(create_model(config)) == {32}
        config.model.max_groups = 4
        net = create_model(config)
    assert groups(net) == {4}
    assert net.middle.attention.norm.num_groups == net.output_norm.num_groups == 32


def test_another_number_of_groups_is_another_network_with_the_same_weights():
    config = base.get_config("1_small")
    default = create_model(config)
    config.model.max_groups = 4
    net = create_model(config)
    with torch.no_grad():
        for parameter in default.parameters():
            parameter.add_(0.1)
    net.load_state_dict(default.state_dict())
    assert not torch.allclose(net(*batch()), default(*batch()), rtol=0.01)


class Largest(TorchDispatchMode):
    """Largest number of elements of any tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple) else (result,):
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return result


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("grad", [False, True])
def test_attention_never_holds_the_weights_of_all_pairs(layout, grad):
    side = 32
    block = AttentionBlock(8).requires_grad_(grad)
    x = torch.rand(1, 8, side, side).to(memory_format=layout).requires_grad_(grad)
    with Largest() as largest:
        out = block(x)
        if grad:
            out.sum().backward()
    assert largest.elements < side**4 / 20  # the weights of all pairs are side^4


@pytest.mark.parametrize("config", [fastmri_knee_2026, celeba_2026, ct_2026])
def test_the_three_trainings_of_2026_are_alike(config):
    found = config.get_config("4_small")
    assert found.training.num_steps == 2_497_440
    assert found.training.batch_size == 1
    assert found.model.max_groups == 4
    assert found.training.shuffle
    assert found.model.to_dict() == celeba_2026.get_config("4_small").model.to_dict()


def test_narrow_families_keep_the_ratio_of_widths():
    widths = {size: base.narrowed(base.ALL_SIZES[size].nf, 24) for size in base.ALL_SIZES}
    assert widths["1"] == widths["4_attention"] == 24
    assert (widths["1_large"], widths["4_small"], widths["1_small"]) == (84, 8, 8)
