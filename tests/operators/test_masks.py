"""Sampling masks: exact counts, the study's own masks bit for bit, geometry, errors."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from operators.masks import MASKS, effective_acceleration, make_mask
from operators.masks.sampling import center_slice, draw

STUDY = {
    "gaussian1d_acc4_cf0.04": {"acceleration": 4, "center_fraction": 0.04},
    "gaussian1d_acc8_cf0.04": {"acceleration": 8, "center_fraction": 0.04},
    "uniform1d_acc4_cf0.08": {"acceleration": 4, "center_fraction": 0.08},
    "gaussian2d_acc4": {"acceleration": 4},
    "gaussian2d_acc8": {"acceleration": 8},
    "poisson_acc15": {"acceleration": 15},
    "radial_29": {"num_spokes": 29},
}
LINES = ("gaussian1d", "uniform1d", "random1d", "equispaced1d")
EXACT_2D = ("gaussian2d", "uniform2d")
DRAWN = (*LINES, *EXACT_2D, "poisson")
SIDES = st.integers(8, 48)


def num_center(size: int, fraction: float) -> int:
    return round(size * fraction)


@pytest.mark.parametrize("key", STUDY)
def test_study_mask_is_the_studys_bit_for_bit(key, reference):
    expected = np.unpackbits(reference("masks_320_seed42")[key]).reshape(320, 320).astype(bool)
    mask = make_mask(key.split("_")[0], (320, 320), seed=42, study=True, **STUDY[key])
    assert mask.dtype == torch.bool
    np.testing.assert_array_equal(mask.numpy(), expected)


def test_the_studys_draws_written_out():
    """With replacement, from NumPy's legacy generator; the centre's lines are set afterwards."""
    size, seed = 40, 5
    lines = np.zeros(size, dtype=bool)
    lines[np.random.RandomState(seed).choice(size, 10 - 4)] = True
    lines[18:22] = True
    options = {"acceleration": 4, "center_fraction": 0.1, "seed": seed, "study": True}
    mask = make_mask("uniform1d", (size, size), **options)
    np.testing.assert_array_equal(mask.numpy(), np.tile(lines, (size, 1)))
    lines = np.zeros(size, dtype=bool)
    drawn = np.random.RandomState(seed).normal(20, 15 / 128 * size, size=12).astype(int)
    lines[drawn.clip(0, size - 1)] = True
    lines[18:22] = True
    mask = make_mask("gaussian1d", (size, size), **options)
    np.testing.assert_array_equal(mask.numpy(), np.tile(lines, (size, 1)))
    positions = np.zeros(size**2, dtype=bool)
    positions[np.random.RandomState(seed).choice(size**2, 400)] = True
    mask = make_mask("uniform2d", (size, size), acceleration=4, seed=seed, study=True)
    np.testing.assert_array_equal(mask.numpy(), positions.reshape(size, size))


def test_lines_are_drawn_in_proportion_to_their_density():
    """One of two positions, one of them three times as dense: taken for 3/4 of the seeds."""
    log_density = np.log([1.0, 3.0])
    nothing = np.zeros(2, dtype=bool)
    taken = [draw(nothing, log_density, acceleration=2, seed=seed)[1] for seed in range(3000)]
    assert np.mean(taken) == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / 3000))


def test_the_centre_is_around_the_origin():
    left_out = ~make_mask("outer", (8, 9), center_fraction=3 / 8, seed=0)
    rows, columns = left_out.nonzero().T
    assert rows.unique().tolist() == [3, 4, 5]  # around 8 // 2
    assert columns.unique().tolist() == [3, 4, 5]  # around 9 // 2


def test_gaussian_positions_follow_their_density():
    masks = [make_mask("gaussian2d", (64, 96), seed=s, acceleration=300) for s in range(100)]
    _, rows, columns = torch.stack(masks).nonzero().T
    for position, size in ((rows, 64), (columns, 96)):
        std = (1.5 / 128) ** 0.5 * size
        assert abs((position - size // 2).double().mean()) < 0.1 * std
        assert (position - size // 2).double().std() == pytest.approx(std, rel=0.08)


def test_nominal_acceleration_of_the_study_is_not_the_effective_one():
    mask = make_mask("gaussian2d", (320, 320), seed=42, acceleration=4, study=True)
    assert mask.float().mean().item() == pytest.approx(0.1333, abs=5e-5)
    assert effective_acceleration(mask) == pytest.approx(7.50, abs=0.005)
    exact = make_mask("gaussian2d", (320, 320), seed=42, acceleration=4)
    assert effective_acceleration(exact) == 4


@pytest.mark.parametrize("name", MASKS)
def test_every_mask_takes_the_common_arguments(name):
    mask = make_mask(name, (320, 320), seed=0, acceleration=4, center_fraction=0.04)
    assert mask.shape == (320, 320)
    assert mask.dtype == torch.bool
    assert effective_acceleration(mask) == pytest.approx(mask.numel() / int(mask.sum()))


@pytest.mark.parametrize("name", LINES)
@given(
    height=SIDES,
    width=SIDES,
    acceleration=st.floats(1, 8),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=40, deadline=None)
def test_lines_are_as_many_as_asked_for(name, height, width, acceleration, share, seed):
    count = round(width / acceleration)
    fraction = share * count / width
    assume(num_center(width, fraction) <= count)
    mask = make_mask(
        name, (height, width), seed=seed, acceleration=acceleration, center_fraction=fraction
    )
    assert mask.shape == (height, width)
    assert (mask == mask[0]).all()  # lines run along H
    assert int(mask[0].sum()) == count
    assert mask[:, center_slice(width, num_center(width, fraction))].all()


@pytest.mark.parametrize("name", EXACT_2D)
@given(
    height=SIDES,
    width=SIDES,
    acceleration=st.floats(1, 20),
    share=st.floats(0, 0.9),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=40, deadline=None)
def test_positions_are_as_many_as_asked_for(name, height, width, acceleration, share, seed):
    count = round(height * width / acceleration)
    fraction = share / acceleration**0.5
    rows, columns = num_center(height, fraction), num_center(width, fraction)
    assume(rows * columns <= count)
    mask = make_mask(
        name, (height, width), seed=seed, acceleration=acceleration, center_fraction=fraction
    )
    assert int(mask.sum()) == count
    assert mask[center_slice(height, rows), center_slice(width, columns)].all()


@given(height=SIDES, width=SIDES, acceleration=st.floats(2.5, 20), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=25, deadline=None)
def test_poisson_positions_are_as_many_as_asked_for(height, width, acceleration, seed):
    mask = make_mask("poisson", (height, width), seed=seed, acceleration=acceleration)
    assert int(mask.sum()) == round(height * width / acceleration)
    rows, columns = mask.nonzero().T
    y, x = rows - height // 2, columns - width // 2
    assert ((y / (height // 2)) ** 2 + (x / (width // 2)) ** 2 < 1 + 1e-6).all()  # no corners


def test_poisson_density_falls_as_in_the_studys():
    y, x = torch.meshgrid(torch.arange(160) - 80, torch.arange(160) - 80, indexing="ij")
    radius = torch.hypot(y.float(), x.float())
    study = make_mask("poisson", (160, 160), seed=0, acceleration=8, study=True).float()
    assert effective_acceleration(study) == pytest.approx(8, abs=0.1)
    ours = make_mask("poisson", (160, 160), seed=1, acceleration=8).float()
    for inner, outer in ((0, 20), (20, 40), (40, 80)):
        ring = (radius >= inner) & (radius < outer)
        assert ours[ring].mean().item() == pytest.approx(study[ring].mean().item(), rel=0.15)
    assert ours[radius < 20].mean() > 2 * ours[(radius >= 40) & (radius < 80)].mean()


@pytest.mark.parametrize("name", DRAWN)
def test_seed_decides_the_mask_and_global_random_state_is_left_alone(name):
    def draw(seed):
        return make_mask(name, (64, 60), seed=seed, acceleration=4, center_fraction=0.1)

    np.random.seed(7)  # noqa: NPY002 the global state is what is watched
    torch.manual_seed(7)
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first = draw(1)
    make_mask(name, (64, 64), seed=1, acceleration=4, center_fraction=0.1, study=True)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert torch.equal(draw(1), first)
    assert len({draw(seed).numpy().tobytes() for seed in range(8)}) > 1


def test_gaussian_lines_follow_their_density():
    counts = sum(
        make_mask("gaussian1d", (1, 128), seed=s, acceleration=8, center_fraction=0)[0].float()
        for s in range(400)
    )
    offset = torch.arange(128) - 64.0
    mean = (counts * offset).sum() / counts.sum()
    std = ((counts * offset**2).sum() / counts.sum()).sqrt()
    assert abs(mean) < 1  # around W // 2
    assert 15 < std < 20  # 15, widened a little by drawing without replacement


def test_equispaced_lines_are_equally_spaced_from_a_random_offset():
    offsets = set()
    for seed in range(20):
        mask = make_mask("equispaced1d", (1, 320), seed=seed, acceleration=4, center_fraction=0.08)[
            0
        ]
        left = mask[: center_slice(320, 26).start].nonzero().flatten()
        spacing = (320 - 26) / (80 - 26)  # fastMRI's adjusted acceleration
        assert (abs(left.diff() - spacing) < 1).all()
        offsets.add(int(left[0]))
    assert len(offsets) > 1


@pytest.mark.parametrize("shape", [(16, 32), (15, 33), (16, 30)])
def test_regular_is_every_nth_line_through_the_centre(shape):
    lines = make_mask("regular", shape, seed=0, acceleration=4)[0].nonzero().flatten()
    assert (lines.diff() == 4).all()
    assert shape[1] // 2 in lines
    more = make_mask("regular", shape, seed=0, acceleration=4, center_fraction=0.25)
    assert more[:, center_slice(shape[1], 8)].all()
    assert effective_acceleration(more) < 4


def test_outer_leaves_out_the_centre_only():
    mask = make_mask("outer", (40, 40), seed=0, center_fraction=0.25)
    assert not mask[15:25, 15:25].any()
    assert int((~mask).sum()) == 100


@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (40, 96)])
@pytest.mark.parametrize("name", ["radial", "radial_golden"])
def test_radial_spokes_are_thin_lines_through_the_origin(name, shape):
    height, width = shape
    one = make_mask(name, shape, seed=0, num_spokes=1)
    assert one[height // 2].all()  # the first spoke lies along W
    assert int(one.sum()) == width
    many = make_mask(name, shape, seed=0, num_spokes=6)
    assert many[height // 2, width // 2]
    # Symmetric about the origin, but for the first row and column of an even side.
    inner = many[1 - height % 2 :, 1 - width % 2 :]
    assert torch.equal(inner, inner.flip(0, 1))
    edges = torch.cat([inner[0], inner[-1], inner[1:-1, 0], inner[1:-1, -1]])
    assert int(edges.sum()) >= 12  # both ends of every spoke reach an edge


def test_radial_angles():
    y, x = (make_mask("radial", (129, 129), seed=0, num_spokes=8).nonzero() - 64).T
    far = torch.hypot(y.float(), x.float()) > 30
    angle = torch.rad2deg(torch.atan2(y[far].float(), x[far].float()))
    assert (angle / 22.5).round().long().remainder(8).unique().tolist() == list(range(8))
    angle = angle % 22.5
    assert (torch.minimum(angle, 22.5 - angle) < 1).all()
    golden = make_mask("radial_golden", (129, 129), seed=0, num_spokes=2)
    y, x = ((golden & ~make_mask("radial", (129, 129), seed=0, num_spokes=1)).nonzero() - 64).T
    far = torch.hypot(y.float(), x.float()) > 30
    angle = torch.rad2deg(torch.atan2(y[far].float(), x[far].float())) % 180
    assert (abs(angle - 111.25) < 1).all()


@pytest.mark.parametrize("acceleration", [2, 4, 11.3])
@pytest.mark.parametrize("name", ["radial", "radial_golden"])
def test_radial_takes_the_nearest_number_of_spokes(name, acceleration):
    mask = make_mask(name, (96, 120), seed=0, acceleration=acceleration, center_fraction=0.04)
    assert effective_acceleration(mask) == pytest.approx(acceleration, rel=0.05)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("spiral", {}, "expected a mask among gaussian1d, uniform1d.*got 'spiral'"),
        ("gaussian1d", {"acceleration": 0.5}, "acceleration >= 1.*got 0.5.*1 / f"),
        ("gaussian1d", {"acceleration": None}, "expected an acceleration.*None"),
        ("gaussian1d", {"acceleration": float("nan")}, "acceleration >= 1.*got nan"),
        ("uniform1d", {"center_fraction": None}, "center_fraction between 0 and 1, got None"),
        ("random1d", {"center_fraction": 1.5}, "center_fraction between 0 and 1, got 1.5"),
        ("random1d", {"center_fraction": 0.5}, "at most 8 of 32.*got 16; lower center_fraction"),
        ("uniform2d", {"center_fraction": 0.9}, "at most 256 of 1024.*got 841"),
        ("equispaced1d", {"acceleration": 100}, "at least one of 32 positions, got 100"),
        ("regular", {"acceleration": 2.5}, "whole acceleration.*got 2.5; equispaced1d"),
        ("outer", {"center_fraction": 0}, "leave out some but not all.*got 0"),
        ("outer", {"center_fraction": 1}, "leave out some but not all.*got 1"),
        ("poisson", {"acceleration": 1.2}, "expected at most.*discs.*raise acceleration"),
        ("poisson", {"acceleration": 1.2, "study": True}, "sigpy's search.*use study=False"),
        ("radial", {"num_spokes": 0}, "whole num_spokes >= 1, got 0"),
        ("gaussian2d", {"num_spokes": 3}, "num_spokes for radial masks only, got 3"),
        ("gaussian2d", {"shape": (32, 30), "study": True}, "expected a square shape.*study=False"),
        ("gaussian1d", {"seed": 2**40, "study": True}, "seed below 2\\*\\*32"),
        ("gaussian1d", {"shape": (32,)}, r"shape \(H, W\) of two positive ints, got \(32,\)"),
        ("gaussian1d", {"shape": (32, 0)}, "two positive ints"),
        ("gaussian1d", {"shape": (32, 8.0)}, "two positive ints"),
        ("gaussian1d", {"shape": 32}, "two positive ints, got 32"),
    ],
)
def test_errors_say_what_was_expected(name, arguments, message):
    arguments = {"seed": 0, "acceleration": 4, "center_fraction": 0.1} | arguments
    shape = arguments.pop("shape", (32, 32))
    with pytest.raises(ValueError, match=message):
        make_mask(name, shape, **arguments)


def test_effective_acceleration_of_a_batch_and_of_nothing():
    masks = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="at least one measured position"):
        effective_acceleration(masks)
    masks[..., 0] = True
    assert effective_acceleration(masks) == 4
