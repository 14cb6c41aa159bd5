"""Plug and play on volumes against the recursion written out, and what it asks of its batch."""

import math

import numpy as np
import pytest
import torch

from operators import SingleCoilMRI
from operators.masks import make_mask
from samplers import pnp
from samplers.volume import denoise_plane, planes_of_steps, pnp_volume
from sde import VESDE, complex_score

pytestmark = pytest.mark.usefixtures("one_thread")

SDE = VESDE(0.02, 5.0)
SLICES, HEIGHT, WIDTH, STEPS = 8, 6, 10, 7
STRENGTH, START, END = 0.4, 1.5, 0.1


def along_rows(images):
    """A denoiser ``(..., H, W)`` that knows up from down and rows from columns."""
    below = np.roll(images, -1, axis=-2)
    return 0.5 * images + 0.3 * below + 0.1 * np.roll(images, 2, axis=-1)


@complex_score
def score(x, sigma):
    clean = torch.from_numpy(along_rows(x.numpy()))
    return (clean - x) / sigma[:, None, None, None] ** 2


def problem(seed=0):
    rng = np.random.default_rng(seed)
    truth = torch.from_numpy(rng.random((SLICES, 1, HEIGHT, WIDTH)))
    masks = [
        make_mask("gaussian1d", (HEIGHT, WIDTH), seed=s, acceleration=2, center_fraction=0.2)
        for s in range(SLICES)
    ]
    operator = SingleCoilMRI(torch.stack(masks)[:, None])
    return operator, operator.forward(truth)


def run(operator, y, **options):
    given = {"start_sigma": START, "end_sigma": END, "num_steps": STEPS, "strength": STRENGTH}
    return pnp_volume(score, SDE, operator, y, **given | {"turns": False} | options)


def fit(clean, mask, kspace, sigma, noise):
    """Nearest images to `clean` that fit k-space: (m y + w F clean) / (m + w), real part."""
    axes = {"axes": (-2, -1), "norm": "ortho"}

    def centred(transform, x):
        x = np.fft.ifftshift(x, axes=(-2, -1))
        return np.fft.fftshift(transform(x, **axes), axes=(-2, -1))

    weight = STRENGTH * noise**2 / sigma**2
    if weight == 0:
        raise ValueError("only with noise: the masks are not symmetric")
    # real images: the normal equations are solved densely
    size = HEIGHT * WIDTH
    basis = np.eye(size).reshape(size, HEIGHT, WIDTH)
    rows = centred(np.fft.fft2, basis)[:, mask]  # (size, measured)
    normal = (rows.conj() @ rows.T).real + weight * np.eye(size)
    right = (rows.conj() @ kspace[mask]).real + weight * clean.ravel()
    return np.linalg.solve(normal, right).reshape(HEIGHT, WIDTH)


@pytest.mark.parametrize("weight", [1.0, 2 / 3, 0.4])
def test_the_recursion_written_out(weight):
    operator, y = problem()
    noise = 0.2
    masks, kspace = operator.mask[:, 0].numpy(), y[:, 0].numpy()
    x = image = operator.adjoint(y)[:, 0].numpy()
    sigmas = START * (END / START) ** np.linspace(0, 1, STEPS)
    across = 0
    for step, sigma in enumerate(sigmas):
        if math.floor((step + 1) * weight + 1e-6) > math.floor(step * weight + 1e-6):
            # images of rows are (N, W) for each row, of columns (N, H) for each column
            axis = (1, 2)[across % 2]
            clean = np.moveaxis(along_rows(np.moveaxis(x, axis, 0)), 0, axis)
            across += 1
        else:
            clean = along_rows(x)
        trusted = sigma if step < STEPS - 1 else SDE.sigma_min
        before = image
        image = np.stack(
            [fit(c, m, k, trusted, noise) for c, m, k in zip(clean, masks, kspace, strict=True)]
        )
        x = image + (0.3 * (image - before) if step else 0)
    initial = operator.adjoint(y)
    found = run(
        operator, y, weight=weight, sigma_y=noise, momentum=0.3, initial=initial, cg_steps=60
    )
    np.testing.assert_allclose(found[:, 0].numpy(), image, rtol=1e-4, atol=1e-5)


def test_weight_zero_is_slice_by_slice():
    operator, y = problem()
    options = {"start_sigma": START, "end_sigma": END, "num_steps": STEPS, "sigma_y": 0.1}
    alone = pnp(score, SDE, operator, y, **options, turns=True)
    together = pnp_volume(score, SDE, operator, y, **options, turns=True, weight=0)
    assert torch.equal(alone, together)


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.4, 2 / 3, 1.0])
def test_the_planes_take_their_part_of_the_steps_evenly(weight):
    planes = planes_of_steps(weight, 60)
    across = [plane != "slices" for plane in planes]
    for begin in range(0, 60, 15):  # of every quarter of the steps
        assert abs(sum(across[begin : begin + 15]) - 15 * weight) < 1 + 1e-9
    assert sum(across) == round(60 * weight)
    assert abs(planes.count("rows") - planes.count("columns")) <= 1


@pytest.mark.parametrize("plane", ["slices", "rows", "columns"])
def test_every_turn_gives_the_volume_back(plane):
    """A denoiser that changes nothing leaves every voxel in its place, complex sets included."""
    generator = torch.Generator().manual_seed(0)
    x = torch.complex(*(torch.randn(8, 2, 5, 7, generator=generator) for _ in range(2)))
    for turn in range(8):
        same = denoise_plane(lambda x, s: 0 * x, x, torch.ones(8), plane, turn=turn, size=2)
        assert torch.equal(same, x)


def test_each_plane_is_seen_in_its_eight_orientations(monkeypatch):
    operator, y = problem()
    seen = []

    def turned(score, x, sigma, *, turn):
        seen.append((tuple(x.shape[-2:]), turn))
        return x

    monkeypatch.setattr("samplers.volume.denoise_turned", turned)
    run(operator, y, weight=2 / 3, turns=True, num_steps=12)
    for plane in ((HEIGHT, WIDTH), (SLICES, WIDTH), (SLICES, HEIGHT)):
        assert [turn for shape, turn in seen if shape == plane] == [0, 1, 2, 3]


def test_the_size_of_network_calls_changes_nothing():
    operator, y = problem()
    seen = []

    def counting(x, sigma):
        seen.append(x.numel())
        return score(x, sigma)

    how = {"weight": 2 / 3, "start_sigma": START, "end_sigma": END, "num_steps": STEPS}
    whole = pnp_volume(score, SDE, operator, y, **how, sigma_y=0.1)
    parts = pnp_volume(counting, SDE, operator, y, **how, sigma_y=0.1, size=2)
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-9)
    assert max(seen) <= 2 * HEIGHT * WIDTH
    assert sum(seen) == STEPS * y[:, 0].numel()  # a step costs the volume's pixels, in any plane


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
def test_a_weight_outside_of_its_range_is_refused(weight):
    operator, y = problem()
    with pytest.raises(ValueError, match=r"weight of the volume from 0 to 1"):
        run(operator, y, weight=weight)


def test_few_slices_are_refused():
    operator, y = problem()
    with pytest.raises(ValueError, match="at least 8 slices"):
        run(SingleCoilMRI(operator.mask[:4]), y[:4], weight=0.5)
