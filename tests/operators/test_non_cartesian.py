"""MRI along trajectories: against the explicit sum, sigpy, the grid and the Cartesian operator."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import sigpy
import torch

from operators import BatchGenerator, MultiCoilMRI, NonCartesianMRI, non_cartesian
from operators.fourier import fft2c
from operators.noise import line_noise
from operators.nufft import Nufft, toeplitz, toeplitz_spectrum
from operators.simulation import birdcage_maps, smooth_phase
from operators.solvers import solve_normal_equations
from operators.trajectories import GOLDEN, radial, spiral

SHAPES = [(8, 10), (7, 9), (5, 8)]


def random(*shape, seed=0, dtype=torch.complex128):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def positions(count=50, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 2, generator=generator, dtype=torch.float64) - 0.5


def explicit(x, k):
    """The sum that defines it, over images ``(..., H, W)``."""
    height, width = x.shape[-2:]
    rows, columns = (torch.arange(n, dtype=torch.float64) - n // 2 for n in (height, width))
    down, across = (
        torch.exp(-2j * math.pi * k[:, i : i + 1] * r) for i, r in ((0, rows), (1, columns))
    )
    return torch.einsum("...hw,mh,mw->...m", x, down, across) / math.sqrt(height * width)


def grid(height, width):
    """All positions of a grid, ``(H, W, 2)``."""
    axes = ((torch.arange(n, dtype=torch.float64) - n // 2) / n for n in (height, width))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.complex128, 1e-11), (torch.complex64, 1e-5)]
)
def test_it_is_the_sum(shape, dtype, tolerance):
    x, k = random(2, 3, *shape), positions()
    nufft = Nufft(k, shape)
    expected = explicit(x, k)
    found = nufft.forward(x.to(dtype))
    assert found.dtype == dtype
    assert (found - expected).norm() < tolerance * expected.norm()
    y = random(2, 3, 50, seed=3)
    back = nufft.adjoint(y.to(dtype))
    exact = torch.vdot(expected.flatten(), y.flatten())
    assert (torch.vdot(x.flatten(), back.to(x).flatten()) - exact).abs() < tolerance * 50
    normal = toeplitz(x.to(dtype), toeplitz_spectrum(nufft).to(found.real.dtype))
    there = nufft.adjoint(found)
    assert (normal - there).norm() < 10 * tolerance * there.norm()


@pytest.mark.parametrize("shape", SHAPES)
def test_sigpy_agrees(shape):
    x, k = random(*shape), positions()
    expected = sigpy.nufft(x.numpy(), k.numpy() * np.array(shape), oversamp=2.0, width=8)
    found = Nufft(k, shape).forward(x).numpy()
    assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(found)


def test_gradients_of_both_orders():
    nufft = Nufft(positions(3), (2, 2))
    x, y = random(2, 2).requires_grad_(), random(3).requires_grad_()
    assert torch.autograd.gradcheck(nufft.forward, (x,))
    assert torch.autograd.gradcheck(nufft.adjoint, (y,))
    assert torch.autograd.gradgradcheck(nufft.forward, (x,))


@pytest.mark.parametrize("shape", SHAPES)
def test_on_a_full_grid_it_is_cartesian(shape):
    maps, x = birdcage_maps(3, shape).to(torch.complex128), random(2, 1, *shape)
    cartesian = MultiCoilMRI(torch.ones(shape, dtype=torch.bool), maps)
    operator = NonCartesianMRI(grid(*shape), maps)
    torch.testing.assert_close(operator.forward(x), cartesian.forward(x))
    torch.testing.assert_close(operator.normal(x), x)
    assert operator.acceleration == 1


def test_copies_and_pickles_measure_the_same():
    operator = NonCartesianMRI(radial(3, 8), birdcage_maps(2, (8, 6)))
    x = random(1, 1, 8, 6, dtype=torch.complex64)
    y = operator.forward(x)
    for other in (
        copy.deepcopy(operator),
        pickle.loads(pickle.dumps(operator)),
        operator.to("cpu"),
    ):
        torch.testing.assert_close(other.forward(x), y)


def blob():
    """A smooth image, whose spectrum is within a few grid cells of the centre."""
    axis = torch.linspace(-1, 1, 64)
    return torch.exp(-(axis[:, None] ** 2 + axis**2) / 0.1).to(torch.complex64)[None, None]


TRAJECTORIES = {
    "radial": radial(100, 128),
    "golden": radial(40, 128, golden=True),
    "few": radial(12, 128),
    "spiral": spiral(16, 1600, turns=8),
    "dense centre": spiral(6, 540, turns=8, power=2),
}


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_the_gridded_image_keeps_the_intensity(name):
    """Of a smooth image exactly; of sharp ones as far as the trajectory covers k-space."""
    x, operator = blob(), NonCartesianMRI(TRAJECTORIES[name], birdcage_maps(4, (64, 64)))
    assert (operator.direct(operator.forward(x)) - x).abs().max() < 0.015
    # weights are areas in cells: of a position that is alone 1, of all at most that of the disc
    # and half a cell around it
    assert operator.density.min() >= 0
    assert operator.density.max() < 1.01
    assert operator.density.sum() < math.pi * 32.5**2


def test_the_gridded_image_fits_the_measurement_best():
    """In the error weighted by density: of any k-space, and of each sample alone."""
    operator = NonCartesianMRI(radial(9, 64), birdcage_maps(3, (32, 32)))
    y = random(2, 3, 9, 64, seed=4)
    y[1] *= 1e4
    image, weights = operator.direct(y), operator.density.double()

    def misfit(scale):
        return (weights * (operator.forward(scale * image) - y).abs().square()).flatten(1).sum(1)

    least = misfit(1)
    assert (misfit(0.99) > least).all()
    assert (misfit(1.01) > least).all()
    plain = operator.adjoint(weights * y)
    parallel = (image.conj() * plain).flatten(1).sum(1).abs()
    torch.testing.assert_close(
        parallel, image.flatten(1).norm(dim=1) * plain.flatten(1).norm(dim=1)
    )
    torch.testing.assert_close(operator[1].direct(y[1:]), image[1:])
    for unit in (1e-25, 1e25):  # in single precision, whose squares end at 1e-45 and 3e38
        short = operator.direct(y.to(torch.complex64))
        change = operator.direct(unit * y.to(torch.complex64)) / unit - short
        assert change.norm() < 1e-5 * short.norm()
    nothing = operator.direct(torch.zeros_like(y))
    assert torch.equal(nothing, torch.zeros_like(nothing))


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_repeated_corrections_go_to_a_solution(name):
    """A^H A itself has a norm of many times 1 along a trajectory, and steps of 1 would diverge."""
    operator = NonCartesianMRI(TRAJECTORIES[name], birdcage_maps(4, (64, 64)))
    y = operator.forward(blob())
    x = random(1, 1, 64, 64, dtype=torch.complex64)
    misfits = []
    for _ in range(30):
        misfits.append(float((operator.forward(x) - y).norm()))
        x = operator.correct(x, y)
    assert all(b < a for a, b in itertools.pairwise(misfits))
    assert misfits[-1] < 0.1 * misfits[0]


def test_simulated_spirals_are_sampled_densely_along_the_curve():
    operator = NonCartesianMRI.create((48, 64), seed=0, keys=[], study=False, trajectory="spiral")
    steps = (64 * operator.trajectory).diff(dim=1).norm(dim=-1)
    assert operator.range_shape[:2] == (8, 8)
    assert 0.98 < steps.max() <= 1
    assert steps[:, 20:].min() > 0.98
    few = {"num_spokes": 3, "samples": 50, "power": 1.0}
    operator = NonCartesianMRI.create(
        (48, 64), seed=0, keys=[], study=False, trajectory="spiral", **few
    )
    torch.testing.assert_close(operator.trajectory, spiral(3, 50, turns=8))
    given = {"name": "nufft", "trajectory": "spiral"}
    assert NonCartesianMRI.describe(given)[0] == "nufft spiral 8"
    what = "nufft spiral 3, samples=50, power=1.0"
    assert NonCartesianMRI.describe(given | few)[0] == what


def test_positions_that_are_measured_again_do_not_change_the_gridded_image():
    x = torch.ones(1, 1, 32, 32, dtype=torch.complex64)
    once, maps = radial(8, 64), birdcage_maps(4, (32, 32))
    images = [
        operator.direct(operator.forward(x))
        for operator in (NonCartesianMRI(once, maps), NonCartesianMRI(once.repeat(3, 1, 1), maps))
    ]
    torch.testing.assert_close(*images, rtol=0, atol=1e-4)


def test_the_density_makes_gridding_an_inverse_where_k_space_is_covered():
    """Of an image in the disc that the spokes cover, far from the edge of the field of view."""
    axis = torch.linspace(-1, 1, 64)
    x = torch.sigmoid(12 * (0.6 - (axis[:, None] ** 2 + axis**2).sqrt()))[None, None] + 0j
    operator = NonCartesianMRI(radial(110, 128), birdcage_maps(4, (64, 64)))
    error = (operator.direct(operator.forward(x)) - x).norm() / x.norm()
    assert error < 0.01


def test_the_slow_phase_is_made_part_of_the_operator():
    axis = torch.linspace(-1, 1, 64)
    size = torch.sigmoid(20 * (0.7 - (axis[:, None] ** 2 + axis**2).sqrt()))[None, None]
    phase = smooth_phase((64, 64), rng=BatchGenerator([0]))
    operator = NonCartesianMRI(radial(64, 128), birdcage_maps(4, (64, 64)))
    y = operator.forward(size * phase)
    factor = operator.slow_phase(y)
    inside = size > 0.5
    assert ((factor * phase.conj()).angle().abs()[inside]).max() < 0.1
    turned = operator.times(factor)
    assert turned.batch_size == 1
    torch.testing.assert_close(turned.forward(size + 0j), operator.forward(size * factor))
    assert turned.direct(y)[inside].imag.abs().max() < 0.1


def test_noise_from_the_outermost_positions():
    operator = NonCartesianMRI(radial(80, 128), birdcage_maps(4, (64, 64)))
    rng = BatchGenerator([0, 1])
    y = operator.forward(blob().expand(2, -1, -1, -1))
    noisy = y + torch.tensor([0.01, 0.1]).reshape(2, 1, 1, 1) * rng.normal_like(y)
    np.testing.assert_allclose(operator.noise(noisy), [0.01, 0.1], rtol=0.05)
    assert torch.equal(operator.noise(noisy)[1:], operator.noise(noisy[1:]))


def test_trajectories():
    spokes = radial(4, 8)
    assert spokes.shape == (4, 8, 2)
    torch.testing.assert_close(spokes[0, :, 1], (torch.arange(8) - 4) / 8, check_dtype=False)
    assert torch.equal(spokes[:, 4], torch.zeros(4, 2, dtype=torch.float64))
    angles = torch.atan2(*spokes[:, -1].T)
    torch.testing.assert_close(angles.diff(), torch.full((3,), math.pi / 4).double())
    angles = torch.atan2(*radial(3, 8, golden=True)[:, -1].T)
    torch.testing.assert_close(
        (angles[1:] - angles[:-1]) % math.pi, torch.full((2,), GOLDEN % math.pi).double()
    )
    arms = spiral(3, 200, turns=4)
    radius = arms.norm(dim=-1)
    assert (radius.diff(dim=1) > 0).all()
    assert radius[0, -1] == 0.5
    steps = arms[0].diff(dim=0).norm(dim=-1)
    assert steps[0] > 0.8 * steps.max()  # the curve is longer than its chord
    assert steps[20:].min() > 0.99 * steps.max()
    torch.testing.assert_close(arms[1, -1].norm(), torch.tensor(0.5).double())
    dense = spiral(1, 2000, turns=0.25, power=2)[0]
    share = torch.atan2(*dense.T) / (math.pi / 2)  # of the turn
    torch.testing.assert_close(dense.norm(dim=1), share**2 / 2)


@pytest.mark.parametrize(
    ("trajectory", "error", "match"),
    [
        (torch.zeros(4, 2), ValueError, r"trajectory \(lines, positions, 2\)"),
        (torch.full((1, 4, 2), 3.0), ValueError, "cycles per pixel.*divide"),
        (torch.full((1, 4, 2), torch.nan), ValueError, "finite"),
        (torch.zeros(1, 4, 2, dtype=torch.complex64), ValueError, "a real trajectory"),
    ],
)
def test_wrong_trajectories_are_told(trajectory, error, match):
    with pytest.raises(error, match=match):
        NonCartesianMRI(trajectory, birdcage_maps(2, (8, 8)))
    with pytest.raises(ValueError, match="spokes of 1 or more"):
        radial(0, 8)
    with pytest.raises(ValueError, match="turns and power above 0"):
        spiral(1, 8, turns=0)


def test_fft_of_the_origin():
    """An image of one pixel at the origin has a constant spectrum, as in `fft2c`."""
    x = torch.zeros(6, 8, dtype=torch.complex128)
    x[3, 4] = 1
    torch.testing.assert_close(
        Nufft(positions(), (6, 8)).forward(x), torch.full((50,), 48**-0.5 + 0j).to(x)
    )
    torch.testing.assert_close(fft2c(x), torch.full((6, 8), 48**-0.5 + 0j).to(x))


def test_the_preconditioner_is_that_of_chan_where_coils_join_nothing(monkeypatch):
    """The mean of F^H F along its periodic diagonals, over shifts, as an explicit matrix."""
    monkeypatch.setattr(non_cartesian, "JOINED", 1e6)
    monkeypatch.setattr(non_cartesian, "FLOOR", 0.0)
    shape, k = (4, 6), positions(40)
    operator = NonCartesianMRI(k[None], torch.ones(1, *shape, dtype=torch.complex128))
    basis = torch.eye(24, dtype=torch.complex128).reshape(24, 1, *shape)
    matrix = operator.normal(basis).reshape(24, *shape)  # column by column
    columns = [
        matrix[p].roll((-(p // 6), -(p % 6)), (0, 1)) for p in range(24)
    ]  # shifts from each pixel
    expected = torch.fft.fft2(torch.stack(columns).mean(0)).real
    torch.testing.assert_close(operator.circulant, expected)
    x = random(2, 1, *shape)
    solved = operator.normal_inverse(torch.tensor([0.5, 2.0]))(x)
    back = torch.fft.ifft2(torch.fft.fft2(solved) * operator.circulant)
    torch.testing.assert_close(back + torch.tensor([0.5, 2.0]).reshape(2, 1, 1, 1) * solved, x)


def test_preconditioned_data_steps_are_exact_and_need_fewer_iterations(monkeypatch):
    operator = NonCartesianMRI(radial(60, 64), birdcage_maps(4, (32, 32)))
    y, x0 = random(2, 4, 60, 64), random(2, 1, 32, 32, seed=5)
    options = {"regularization": 0.1, "x0": x0, "max_iterations": 300, "tolerance": 1e-6}
    found = solve_normal_equations(operator, y, **options)
    monkeypatch.setattr(NonCartesianMRI, "normal_inverse", lambda *_: None)
    monkeypatch.setattr(NonCartesianMRI, "fast_normal", False)
    plain = solve_normal_equations(operator, y, **options)
    assert found.converged.all()
    torch.testing.assert_close(found.x, plain.x, rtol=0, atol=1e-4)
    assert (found.iterations < 0.8 * plain.iterations).all()


def test_the_calibration_width_is_that_of_nyquist():
    maps = birdcage_maps(2, (64, 64))
    widths = [NonCartesianMRI(radial(s, 128), maps).calibration_width for s in (20, 40, 400)]
    # in the corner of the square, half the distance of spokes is the root of 1/2
    expected = [2 * s / math.pi for s in (20, 40)]
    np.testing.assert_allclose(widths[:2], expected, rtol=0.1)
    assert widths[2] < 64  # the corners of the grid are outside the disc


@pytest.mark.parametrize("side", [1, 2, 7, 10])
def test_the_calibration_width_of_a_square_of_the_grid_is_its_side(side):
    axis = (torch.arange(side) - side // 2) / 16
    square = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    operator = NonCartesianMRI(square.double(), birdcage_maps(2, (16, 16)))
    assert operator.calibration_width == side


def test_noise_beside_the_image_along_the_lines():
    """An image with sharp edges, which reach the outermost positions."""
    x = torch.zeros(1, 1, 64, 64, dtype=torch.complex64)
    x[..., 20:44, 24:40] = 1
    for trajectory in (radial(60, 128), spiral(8, 8192, turns=8)):
        operator = NonCartesianMRI(trajectory, birdcage_maps(4, (64, 64)))
        y = operator.forward(x)
        assert operator.noise(y) < 2e-3
        noisy = y + 0.01 * BatchGenerator([0]).normal_like(y)
        np.testing.assert_allclose(operator.noise(noisy), 0.01, rtol=0.05)
        assert line_noise(y[..., :20]) is None
