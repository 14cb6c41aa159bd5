"""Operators out of functions and of other operators; the public check of an adjoint."""

import pytest
import torch
from torch.nn import functional as F

from operators import (
    BatchGenerator,
    FunctionOperator,
    LinearOperator,
    ParallelBeamCT,
    SingleCoilMRI,
    SuperResolution,
    check_adjoint,
)
from samplers import SAMPLERS
from sde import VESDE

SIDE = 12
KERNEL = torch.tensor([[0.0, 0.2, 0.1], [0.3, 0.4, 0.0], [0.0, 0.1, 0.0]])


def blur(x):
    return F.conv2d(x, KERNEL.to(x)[None, None], padding=1)


def blur_back(y):
    return F.conv_transpose2d(y, KERNEL.to(y)[None, None], padding=1)


@pytest.fixture
def mask():
    return torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(0)) < 0.5


@pytest.mark.parametrize("adjoint", [blur_back, None])
def test_a_function_is_an_operator(adjoint):
    operator = FunctionOperator(blur, adjoint, domain_shape=(1, SIDE, SIDE))
    assert operator.range_shape == (1, SIDE, SIDE)
    assert not operator.range_complex
    assert check_adjoint(operator, dtype=torch.float64) < 1e-12
    y = torch.randn(2, 1, SIDE, SIDE, dtype=torch.float64)
    torch.testing.assert_close(operator.adjoint(y), blur_back(y))


def test_the_derived_adjoint_of_a_complex_function(mask):
    known = SingleCoilMRI(mask, real=False)
    shape = known.domain_shape
    operator = FunctionOperator(known.forward, domain_shape=shape, domain_complex=True)
    y = torch.randn(3, *shape, dtype=torch.complex64)
    torch.testing.assert_close(operator.adjoint(y), known.adjoint(y))


def test_the_derived_adjoint_of_real_images_in_kspace(mask):
    known = SingleCoilMRI(mask)
    operator = FunctionOperator(known.forward, domain_shape=known.domain_shape)
    assert operator.range_complex
    y = torch.randn(3, *known.range_shape, dtype=torch.complex64)
    torch.testing.assert_close(operator.adjoint(y), known.adjoint(y))


def test_corrections_converge_whatever_the_scale():
    operator = FunctionOperator(lambda x: 30 * blur(x), domain_shape=(1, SIDE, SIDE))
    truth = torch.rand(1, 1, SIDE, SIDE)
    y, x = operator.forward(truth), torch.zeros_like(truth)
    for _ in range(200):
        x = operator.correct(x, y)
    assert (operator.forward(x) - y).norm() < 0.02 * y.norm()


@pytest.mark.parametrize(
    ("forward", "adjoint", "options", "message"),
    [
        (blur, lambda y: 2 * blur_back(y), {}, "adjoint is not that of forward"),
        (blur, blur, {}, "adjoint is not that of forward"),
        (lambda x: blur(x) + 1, None, {}, "expected a linear forward"),
        (torch.abs, None, {}, "expected a linear forward"),
        (blur, blur_back, {"range_shape": (1, 3, 3)}, r"forward to give \(B, \*\(1, 3, 3\)\)"),
        (lambda x: x[..., 1:], lambda y: y, {}, "expected adjoint to give"),
    ],
)
def test_what_is_no_operator_is_an_error(forward, adjoint, options, message):
    with pytest.raises(ValueError, match=message):
        FunctionOperator(forward, adjoint, domain_shape=(1, SIDE, SIDE), **options)


def test_a_wrong_adjoint_of_a_class_is_noticed():
    class Wrong(SuperResolution):
        def _adjoint(self, y):
            return self._upsample(y)  # without the factor

    assert check_adjoint(SuperResolution((SIDE, SIDE), 2)) < 1e-6
    with pytest.raises(ValueError, match="not that of forward"):
        check_adjoint(Wrong((SIDE, SIDE), 2))


def test_adjoint_operator_and_product(mask):
    mri = SingleCoilMRI(mask)
    blurred = FunctionOperator(blur, blur_back, domain_shape=mri.domain_shape)
    product = mri @ blurred
    x = torch.rand(2, *mri.domain_shape)
    torch.testing.assert_close(product.forward(x), mri.forward(blur(x)))
    assert check_adjoint(product) < 1e-6
    assert check_adjoint(mri.H) < 1e-6
    torch.testing.assert_close((mri.H @ mri).forward(x), mri.normal(x))
    assert product.acceleration == mri.acceleration
    assert torch.equal(product.sampled(), mask)
    with pytest.raises(ValueError, match="expected operators that fit, got complex"):
        ParallelBeamCT(SIDE, [0.0]) @ mri


def test_a_batch_of_masks_goes_through(mask):
    masks = torch.stack([mask, ~mask])[:, None]
    mri = SingleCoilMRI(masks)
    product = mri @ FunctionOperator(blur, domain_shape=mri.domain_shape)
    x = torch.rand(2, *mri.domain_shape)
    torch.testing.assert_close(product[1].forward(x[1:]), product.forward(x)[1:])
    torch.testing.assert_close(
        mri.H[1].forward(mri.forward(x)[1:]), mri.adjoint(mri.forward(x))[1:]
    )


@pytest.mark.parametrize("name", ["pnp", "dds", "predictor_corrector", "diffpir"])
def test_samplers_take_a_function(name):
    operator = FunctionOperator(blur, domain_shape=(1, SIDE, SIDE))
    assert isinstance(operator, LinearOperator)
    assert operator.noise(torch.zeros(1, 1, SIDE, SIDE)) is None
    x = torch.full((1, 1, SIDE, SIDE), 0.5)
    result = SAMPLERS[name](
        lambda x, sigma: (0.5 - x) / (0.1**2 + sigma**2)[:, None, None, None],
        VESDE(0.01, 1.0),
        operator,
        operator.forward(x),
        rng=BatchGenerator([0]),
        num_steps=12,
    )
    assert result.shape == x.shape
    assert (result - x).square().mean().sqrt() < 0.15
