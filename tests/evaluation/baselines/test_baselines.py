"""TV, wavelets and least squares against other solvers, closed forms and each other."""

import numpy as np
import pytest
import scipy.optimize
import sigpy
import torch
from skimage.restoration import denoise_tv_chambolle

from configs import load_config
from datasets.prepare import prepare_dataset
from evaluation.baselines import BASELINES, STUDY, direct
from evaluation.baselines.accelerated import Objective, minimise, squared_norm
from evaluation.baselines.cg_sense import cg_sense
from evaluation.baselines.tv import (
    gradient,
    gradient_adjoint,
    total_variation,
    tv,
    tv_minimum,
    tv_objective,
)
from evaluation.baselines.wavelet import Frame, l1_wavelet, soft_threshold, wavelet_minimum
from evaluation.metrics import psnr
from operators import (
    Inpainting,
    LinearOperator,
    MultiCoilMRI,
    NonCartesianMRI,
    ParallelBeamCT,
    SingleCoilMRI,
    Whitened,
)
from operators.batch import dot
from operators.ct import few_view_angles
from operators.masks import make_mask
from operators.simulation import birdcage_maps
from operators.trajectories import radial
from tests.conftest import ROOT
from tests.helpers.scaled_operator import ScaledOperator

SIZE = 16


def _mask(seed: int, size: int = SIZE):
    return make_mask("gaussian1d", (size, size), seed=seed, acceleration=2, center_fraction=0.2)


def _coils(size: int = SIZE):
    generator = torch.Generator().manual_seed(4)
    phase = torch.randn(3, 1, 1, generator=generator, dtype=torch.complex128)
    ramp = torch.linspace(-1, 1, size, dtype=torch.float64)
    maps = phase + torch.stack([ramp[:, None] + 0j * ramp, ramp + 0j * ramp[:, None]]).sum(0)
    return maps / torch.linalg.vector_norm(maps, dim=0)


def _weights(views: int = 6, size: int = SIZE):
    """Of rays through a thick object: those through its middle count a tenth of the others."""
    bins = ParallelBeamCT(size, few_view_angles(views)).num_bins
    middle = torch.exp(-((torch.linspace(-2, 2, bins, dtype=torch.float64)) ** 2))
    return (10**-middle).expand(1, 1, views, bins)


OPERATORS = {
    "mri": SingleCoilMRI(_mask(0)),
    "complex mri": SingleCoilMRI(_mask(0), real=False),
    "multi-coil mri": MultiCoilMRI(_mask(0), _coils()),
    "ct": ParallelBeamCT(SIZE, few_view_angles(6)),
    "weighted ct": Whitened(ParallelBeamCT(SIZE, few_view_angles(6)), _weights()),
}
any_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())


def _images(operator: LinearOperator, count: int = 2, dtype=torch.float64):
    """Blocks on a slope, different in each sample; with a phase where images are complex."""
    x = torch.zeros(count, *operator.domain_shape, dtype=dtype)
    for b in range(count):
        x[b, :, 3 : 9 + b, 4:12] = 1.0 - 0.2 * b
        x[b] += torch.linspace(0, 0.3, x.shape[-1], dtype=dtype)
    return x * torch.exp(torch.tensor(0.4j)).to(torch.complex128) if operator.domain_complex else x


def _embedded(kind: str, count: int, size: int):
    """Embedded validation slices and their measurement."""
    data = load_config(str(ROOT / "configs" / "evaluate.py")).data
    data.subset, data.fit = ("ct", "") if kind == "ct" else ("brain", "resize")
    data.image_size = size
    dataset = prepare_dataset(data, "val")
    x = torch.stack([dataset[i].image for i in range(count)])
    if kind == "ct":
        operator = ParallelBeamCT(size, few_view_angles(20))
    else:
        mask = make_mask("gaussian1d", (size, size), seed=1, acceleration=4, center_fraction=0.08)
        operator = SingleCoilMRI(mask)
    return x, operator, operator.forward(x)


def _mean_psnr(x, image):
    return np.mean([psnr(a[0].numpy(), b[0].numpy()) for a, b in zip(x, image, strict=True)])


# ---- the solver


@pytest.mark.parametrize("metric", [1e-3, 1.0, 1e3])
def test_minimise_against_a_closed_form(metric):
    """1/2 |D x - y|^2 + |x|_1 of diagonal D: soft thresholding, whatever the metric's scale."""
    generator = torch.Generator().manual_seed(0)
    D = torch.logspace(-0.5, 0.5, 20, dtype=torch.float64)
    y = torch.randn(3, 20, generator=generator, dtype=torch.float64) * 3
    objective = Objective(
        forward=lambda x: D * x,
        adjoint=lambda r: D * r,
        y=y,
        smooth=lambda z: (torch.zeros_like(z), lambda d: torch.zeros(3, dtype=d.dtype)),
        prox=lambda v, step: soft_threshold(v, step[:, None] / metric),
        metric=lambda d: metric * d,
        inverse_metric=lambda g: g / metric,
    )
    start = torch.zeros_like(y)
    found = minimise(objective, start, max_iterations=30000, tolerance=1e-13)
    expected = soft_threshold(y / D, 1 / D**2)
    assert found.converged.all()
    assert 0 < (expected == 0).sum() < expected.numel()
    torch.testing.assert_close(found.x, expected, rtol=0, atol=1e-8)
    nothing = minimise(objective, start, max_iterations=0, tolerance=1e-13)
    assert torch.equal(nothing.x, start)
    assert not nothing.converged.any()


def test_momentum_and_restart_on_an_ill_conditioned_quadratic():
    """Without momentum, or with momentum that is never dropped, this takes far longer."""
    D = torch.logspace(-1.5, 0, 40, dtype=torch.float64)
    y = torch.ones(1, 40, dtype=torch.float64)
    objective = Objective(
        forward=lambda x: D * x,
        adjoint=lambda r: D * r,
        y=y,
        smooth=lambda z: (torch.zeros_like(z), lambda d: torch.zeros(1, dtype=d.dtype)),
        prox=lambda v, step: v,
        metric=lambda d: d,
        inverse_metric=lambda g: g,
    )
    found = minimise(objective, torch.zeros_like(y), max_iterations=2000, tolerance=1e-10)
    assert found.converged.all()
    # gradients alone would take condition number x ln(1e8), 18 000 iterations
    assert found.iterations.item() < 1500
    torch.testing.assert_close(found.x, y / D, rtol=1e-6, atol=0)


@pytest.mark.parametrize("limits", [(-1, 0.1), (5, -0.1), (5, float("nan"))])
def test_minimise_refuses_impossible_limits(limits):
    operator = OPERATORS["mri"]
    y = operator.forward(_images(operator))
    objective = tv_objective(operator, y, torch.ones(2), 0.1)
    with pytest.raises(ValueError, match="expected max_iterations and tolerance of 0 or more"):
        minimise(objective, _images(operator), max_iterations=limits[0], tolerance=limits[1])


# ---- total variation


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradient_and_its_adjoint(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 7, generator=generator, dtype=dtype)
    field = torch.randn(2, 2, 3, 5, 7, generator=generator, dtype=dtype)
    torch.testing.assert_close(dot(gradient(x), field), dot(x, gradient_adjoint(field)))
    assert gradient(x)[0, 0, 1, 2, 3] == x[0, 1, 2, 4] - x[0, 1, 2, 3]
    assert gradient(x)[0, 1, 1, 2, 3] == x[0, 1, 3, 3] - x[0, 1, 2, 3]
    assert not gradient(x)[:, 0, ..., -1].any()
    assert not gradient(x)[:, 1, ..., -1, :].any()


@any_operator
def test_tv_penalty_gradient_and_the_bound_on_its_curvature(operator):
    x = _images(operator).requires_grad_()
    weight = torch.tensor([0.3, 2.0], dtype=torch.float64)
    objective = tv_objective(operator, operator.forward(x.detach()), weight, 0.05)
    value = weight * total_variation(x, 0.05)
    (expected,) = torch.autograd.grad(value.sum(), x)
    slope, curvature = objective.smooth(x.detach())
    torch.testing.assert_close(slope, expected)
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-3, 0.1, 10.0):
        d = scale * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        rise = weight * total_variation(x.detach() + d, 0.05) - value - dot(slope, d)
        assert (rise >= 0).all()
        assert (2 * rise <= curvature(d) * (1 + 1e-9)).all()


@any_operator
def test_metric_and_its_inverse(operator):
    x = _images(operator)
    objective = tv_objective(operator, operator.forward(x), torch.ones(2).double(), 0.05)
    assert (dot(x, objective.metric(x)) > 0).all()
    torch.testing.assert_close(objective.inverse_metric(objective.metric(x)), x)


def _by_lbfgs(operator, y, weight, smoothing):
    """The minimiser by scipy's L-BFGS with gradients of autograd, one sample."""
    like = operator.adjoint(y)

    def unpack(numbers):
        tensor = torch.from_numpy(numbers)
        if like.is_complex():
            tensor = torch.view_as_complex(tensor.reshape(*like.shape, 2))
        return tensor.reshape(like.shape)

    def evaluate(numbers):
        flat = torch.from_numpy(numbers).requires_grad_()
        x = flat.reshape(*like.shape, 2) if like.is_complex() else flat.reshape(like.shape)
        x = torch.view_as_complex(x) if like.is_complex() else x
        residual = operator.forward(x) - y
        value = dot(residual, residual) / 2 + weight * total_variation(x, smoothing)
        (slope,) = torch.autograd.grad(value.sum(), flat)
        return value.item(), slope.numpy()

    size = like.numel() * (2 if like.is_complex() else 1)
    options = {"maxiter": 3000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}
    found = scipy.optimize.minimize(
        evaluate, np.zeros(size), jac=True, method="L-BFGS-B", options=options
    )
    return unpack(found.x)


@any_operator
def test_tv_is_the_minimiser(operator):
    x = _images(operator, 1)
    generator = torch.Generator().manual_seed(0)
    y = operator.forward(x)
    y = y + 0.02 * torch.randn(y.shape, generator=generator, dtype=y.dtype)
    weight, smoothing = 5e-3, 0.03
    found = tv_minimum(
        operator, y, weight=weight, smoothing=smoothing, max_iterations=1000, tolerance=1e-9
    )
    assert found.converged.all()
    expected = _by_lbfgs(operator, y, weight * squared_norm(operator, y)[0].item(), smoothing)
    torch.testing.assert_close(found.x, expected, rtol=0, atol=1e-5)


def test_steps_that_disregard_the_weights_of_rays_are_fewer():
    size, views = 32, 20
    plain = ParallelBeamCT(size, few_view_angles(views))
    weighted = Whitened(plain, _weights(views, size))
    x = torch.zeros(1, 1, size, size, dtype=torch.float64)
    x[..., 6:26, 8:20] = 1.0
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, *plain.range_shape, generator=generator, dtype=torch.float64)
    y = weighted.forward(x) + 0.2 * noise
    options = {"weight": 3e-4, "smoothing": 1e-3, "max_iterations": 4000, "tolerance": 1e-6}
    found = tv_minimum(weighted, y, **options)
    assert found.converged.all()

    class Unaware(Whitened):
        def without_weights(self, y):
            return self, y

    other = tv_minimum(Unaware(plain, weighted.weights), y, **options)
    assert float(found.iterations) < 0.7 * float(other.iterations)


def test_small_weights_are_reached_through_larger_ones():
    """With and without continuation there is one minimiser."""
    operator = OPERATORS["mri"]
    y = operator.forward(_images(operator, 1))
    weight, smoothing = 2e-6, 0.02
    found = tv_minimum(
        operator, y, weight=weight, smoothing=smoothing, max_iterations=2000, tolerance=1e-9
    )
    objective = tv_objective(operator, y, weight * squared_norm(operator, y), smoothing)
    alone = minimise(objective, direct(operator, y), max_iterations=2000, tolerance=1e-9)
    assert found.converged.all()
    assert alone.converged.all()
    torch.testing.assert_close(found.x, alone.x, rtol=0, atol=1e-6)


def test_tv_denoising_against_scikit_image():
    generator = torch.Generator().manual_seed(0)
    clean = _images(OPERATORS["mri"], 1)
    y = clean + 0.1 * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    identity = Inpainting(torch.ones(SIZE, SIZE))
    ours = tv(identity, y, weight=0.15, smoothing=1e-4, tolerance=1e-7)
    theirs = denoise_tv_chambolle(y[0, 0].numpy(), weight=0.15, eps=1e-10, max_num_iter=10000)
    assert np.abs(ours[0, 0].numpy() - theirs).max() < 4e-3  # 2e-3, as near as theirs comes
    assert np.abs(y[0, 0].numpy() - theirs).max() > 0.1


def test_tv_of_a_step_in_closed_form():
    """Plateaus move towards each other by weight x length of the edge / area."""
    y = torch.zeros(1, 1, 8, 20, dtype=torch.float64)
    y[..., 5:] = 1.0
    identity = Inpainting(torch.ones(8, 20))
    x = tv(identity, y, weight=0.4, smoothing=1e-4, tolerance=1e-7)
    expected = torch.where(y == 0, 0.4 / 5, 1 - 0.4 / 15).double()
    torch.testing.assert_close(x, expected, rtol=0, atol=2e-3)


@any_operator
def test_a_constant_image_is_recovered(operator):
    x = torch.full_like(_images(operator), 0.7)
    found = tv(operator, operator.forward(x), weight=1e-2, smoothing=0.1, tolerance=1e-9)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["mri", "ct"])
def test_tv_has_converged_on_real_slices(kind):
    x, operator, y = _embedded(kind, 1, 64)
    default = tv(operator, y)
    precise = y.to(torch.complex128 if y.is_complex() else torch.float64)
    strict = tv(operator, precise, tolerance=2e-7).float()
    assert abs(_mean_psnr(x, default) - _mean_psnr(x, strict)) < 0.04  # 0.018 and less
    assert _mean_psnr(x, default) > _mean_psnr(x, direct(operator, y)) + 2
    few = tv(operator, y, **STUDY["tv"] | {"num_iterations": 20})
    assert (few - strict).norm() > 3 * (default - strict).norm()


@pytest.mark.parametrize("name", ["tv", "l1_wavelet", "cg_sense"])
def test_samples_are_independent(name):
    masks = torch.stack([_mask(s, 32) for s in range(3)])[:, None]
    operator = SingleCoilMRI(masks)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 1, 32, 32, generator=generator)
    x[1] = x[1] > 0.5
    x[2] = 0.3  # finished much sooner
    y = operator.forward(x)
    options = {"weight": 1e-3, "tolerance": 1e-3, "max_iterations": 40}
    together = BASELINES[name](operator, y, **options)
    for b in range(3):
        alone = BASELINES[name](operator[b], y[b : b + 1], **options)
        torch.testing.assert_close(alone[0], together[b], rtol=1e-5, atol=1e-6)


def test_finished_samples_wait_for_the_others():
    operator = OPERATORS["ct"]
    y = operator.forward(_images(operator))
    y[1] = 0
    found = tv_minimum(
        operator, y, weight=1e-3, smoothing=0.01, max_iterations=2000, tolerance=1e-6
    )
    assert found.iterations[1] == 1
    assert not found.x[1].any()
    assert found.iterations[0] > 10
    assert found.converged.all()


@pytest.mark.parametrize("name", ["tv", "l1_wavelet", "cg_sense"])
def test_weights_do_not_depend_on_the_scale_of_the_operator(name):
    operator = OPERATORS["ct"]
    y = operator.forward(_images(operator))
    options = {"weight": 1e-3, "max_iterations": 30}
    expected = BASELINES[name](ScaledOperator(operator, 1.0), y, **options)
    # a power of two: every rounding is the same
    ours = BASELINES[name](ScaledOperator(operator, 8.0), 8 * y, **options)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_iterations_that_run_out_are_a_warning(caplog):
    operator = OPERATORS["ct"]
    y = operator.forward(_images(operator))
    tv(operator, y, max_iterations=3)
    l1_wavelet(operator, y, max_iterations=3)
    assert "tv: 2 of 2 images have not converged" in caplog.text
    assert "l1_wavelet: 2 of 2 images have not converged" in caplog.text


@pytest.mark.parametrize("name", ["tv", "l1_wavelet"])
@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_weights_have_to_be_positive(name, weight):
    operator = OPERATORS["mri"]
    with pytest.raises(ValueError, match="expected a positive weight, got"):
        BASELINES[name](operator, operator.forward(_images(operator)), weight=weight)


def test_smoothing_has_to_be_positive():
    operator = OPERATORS["mri"]
    with pytest.raises(ValueError, match=r"expected a positive smoothing, got 0\.0"):
        tv(operator, operator.forward(_images(operator)), smoothing=0.0)


# ---- wavelets


@pytest.mark.parametrize("shape", [(16, 16), (13, 22)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_frame_is_a_parseval_frame(shape, dtype):
    frame = Frame(shape, "db4")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, *shape, generator=generator, dtype=dtype)
    c = torch.randn(2, 1, *frame.levels.shape, generator=generator, dtype=dtype)
    torch.testing.assert_close(dot(frame.analysis(x), c), dot(x, frame.synthesis(c)))
    torch.testing.assert_close(frame.synthesis(frame.analysis(x)), x)


def test_wavelet_denoising_in_closed_form():
    """Haar on a power of two is a basis: soft thresholding of the coefficients."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(2, 1, 16, 16, generator=generator, dtype=torch.float64)
    identity = Inpainting(torch.ones(16, 16))
    frame = Frame((16, 16), "haar")
    assert frame.levels.shape == (16, 16)
    assert frame.levels.unique().tolist() == [0, 1, 2, 3, 4]
    expected = frame.synthesis(soft_threshold(frame.analysis(y), torch.tensor(0.5)))
    ours = l1_wavelet(identity, y, weight=0.5, wavelet="haar", tolerance=1e-12)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)


def test_wavelet_reconstruction_against_sigpy():
    """sigpy's own FISTA on the same coefficients, of complex single-coil MRI."""
    operator = OPERATORS["complex mri"]
    y = operator.forward(_images(operator, 1))
    weight = 0.05
    found = wavelet_minimum(
        operator, y, weight=weight, wavelet="db4", max_iterations=2000, tolerance=1e-8
    )
    W = sigpy.linop.Wavelet((SIZE, SIZE))
    sampled = sigpy.linop.Multiply((SIZE, SIZE), operator.mask[0, 0].numpy().astype(float))
    A = sampled * sigpy.linop.FFT((SIZE, SIZE)) * W.H
    theirs = sigpy.app.LinearLeastSquares(
        A,
        y[0, 0].numpy(),
        proxg=sigpy.prox.L1Reg(W.oshape, weight * squared_norm(operator, y).item()),
        alpha=1.0,
        max_iter=2000,
        tol=1e-10,
        show_pbar=False,
    ).run()
    difference = np.abs(found.x[0, 0].numpy() - W.H(theirs)).max()
    assert found.converged.all()
    assert difference < 1e-5


def test_wavelets_help_on_real_slices():
    x, operator, y = _embedded("ct", 1, 64)
    assert (
        _mean_psnr(x, l1_wavelet(operator, y, tolerance=1e-4))
        > _mean_psnr(x, direct(operator, y)) + 1
    )


def test_wavelets_have_to_be_orthogonal():
    operator = OPERATORS["mri"]
    y = operator.forward(_images(operator))
    with pytest.raises(ValueError, match="expected an orthogonal wavelet such as db4"):
        l1_wavelet(operator, y, wavelet="bior2.2")
    with pytest.raises(ValueError, match="Unknown wavelet name 'magic'"):
        l1_wavelet(operator, y, wavelet="magic")


# ---- least squares


@any_operator
def test_cg_sense_solves_the_normal_equations(operator):
    y = operator.forward(_images(operator))
    x = cg_sense(operator, y, weight=0.01, max_iterations=2000, tolerance=1e-12)
    shift = 0.01 * squared_norm(operator, y)[:, None, None, None]
    torch.testing.assert_close(operator.normal(x) + shift * x, operator.adjoint(y))


def test_cg_sense_of_one_coil_is_zero_filling():
    operator = OPERATORS["complex mri"]
    y = operator.forward(_images(operator))
    torch.testing.assert_close(cg_sense(operator, y), operator.adjoint(y))
    torch.testing.assert_close(
        cg_sense(operator, y, weight=0.25), operator.adjoint(y) / 1.25, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("baseline", ["tv", "l1_wavelet", "cg_sense"])
def test_along_a_trajectory_the_minimum_is_that_of_the_operator(baseline, monkeypatch):
    """Iterations with A^H A end where those with A and A^H do."""
    operator = NonCartesianMRI(radial(12, 24), birdcage_maps(2, (12, 12)))
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(1, 1, 12, 12, dtype=torch.complex128)
    x[:, :, 4:9, 5:10] = 1 + 0.3j
    y = operator.forward(x)
    y = y + 0.01 * torch.randn(y.shape, generator=generator, dtype=y.dtype)
    options = {"weight": 1e-3, "tolerance": 1e-6, "max_iterations": 500}
    fast = BASELINES[baseline](operator, y, **options)
    monkeypatch.setattr(NonCartesianMRI, "fast_normal", False)
    slow = BASELINES[baseline](operator, y, **options)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-3)
