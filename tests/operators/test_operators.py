"""Properties that every operator in `operators.OPERATORS` has; one list of examples each."""

import copy
import pickle

import pytest
import torch
from torch import Tensor

from operators import OPERATORS, LinearOperator, ParallelBeamCT, SingleCoilMRI
from operators.batch import dot, norm
from operators.fourier import fft2c, ifft2c
from operators.trajectories import radial, spiral

BATCH = 3


def _mask(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.4


def _sens_maps(*shape: int) -> Tensor:
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.complex64)
    return maps / torch.linalg.vector_norm(maps, dim=-3, keepdim=True)


def _weights(*shape: int) -> Tensor:
    return 0.5 + torch.rand(shape, generator=torch.Generator().manual_seed(3))


# name in OPERATORS -> argument lists that between them cover odd, even and non-square sizes and,
# where there is one, a mask a sample.
EXAMPLES: dict[str, list[dict]] = {
    "mri": [
        {"mask": _mask(6, 8)},
        {"mask": _mask(4, 6), "real": False},
        {"mask": _mask(7, 10), "real": False},
        {"mask": _mask(9, 5)},
        {"mask": _mask(BATCH, 1, 8, 6), "real": False},
        {"mask": _mask(BATCH, 1, 7, 5)},
    ],
    "multicoil_mri": [
        {"mask": _mask(8, 6), "sens_maps": _sens_maps(4, 8, 6)},
        {"mask": _mask(7, 9), "sens_maps": _sens_maps(3, 7, 9)},
        {"mask": _mask(BATCH, 1, 5, 8), "sens_maps": _sens_maps(BATCH, 2, 5, 8)},
    ],
    "nufft": [
        {"trajectory": radial(3, 7), "sens_maps": _sens_maps(2, 8, 6)},
        {"trajectory": spiral(2, 9, turns=2), "sens_maps": _sens_maps(BATCH, 3, 5, 7)},
    ],
    "soft_sense_mri": [
        {"mask": _mask(8, 6), "sens_maps": _sens_maps(2, 4, 8, 6)},
        {"mask": _mask(BATCH, 1, 5, 8), "sens_maps": _sens_maps(BATCH, 2, 3, 5, 8)},
    ],
    "ct": [
        {"size": 8, "angles_deg": [0.0, 45.0, 90.0, 200.0]},
        {"size": (7, 10), "angles_deg": [-20.0, 33.3], "num_bins": 8, "bin_spacing": 1.5},
    ],
    "study_ct": [{"size": (7, 10), "angles_deg": [-20.0, 33.3, 80.0]}],
    "unmeasured": [{"domain_shape": (1, 4, 5)}, {"domain_shape": (1, 3, 2), "real": False}],
    "fan_ct": [
        {
            "size": (9, 6),
            "angles_deg": [0.0, 50.0, 170.0, 300.0],
            "source_distance": 15.0,
            "detector_distance": 8.0,
            "num_bins": 12,
            "bin_spacing": 1.4,
        },
        {
            "size": (6, 9),
            "angles_deg": [10.0, -50.0, -110.0],
            "source_distance": 15.0,
            "detector_distance": 8.0,
            "num_bins": 10,
            "bin_spacing": 1.4,
            "centre_offset": 2.5,
            "detector": "curved",
        },
    ],
    "inpainting": [
        {"mask": _mask(5, 8)},
        {"mask": _mask(BATCH, 1, 6, 7), "real": False},
    ],
    "superresolution": [
        {"shape": (6, 9), "factor": 3},
        {"shape": (4, 10), "factor": 2, "real": False},
    ],
    "whitened": [
        {
            "operator": ParallelBeamCT(8, [0.0, 45.0, 90.0, 200.0]),
            "weights": _weights(1, 1, 4, 12),
        },
        {
            "operator": SingleCoilMRI(_mask(BATCH, 1, 7, 5), real=False),
            "weights": _weights(BATCH, 1, 7, 5),
        },
    ],
}

CASES = [
    pytest.param(name, arguments, id=f"{name}-{i}")
    for name in OPERATORS
    for i, arguments in enumerate(EXAMPLES.get(name, []))
]
# One step of weight 1 gives A x = y where the rows of A are orthogonal (those of masked k-space
# are for complex images, not for real ones).
PROJECTING = [
    case
    for case in CASES
    if case.values[0] in ("inpainting", "superresolution")
    or (case.values[0] == "mri" and not case.values[1].get("real", True))
]
every_operator = pytest.mark.parametrize(("name", "arguments"), CASES)
both_precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def _random(shape: tuple[int, ...], is_complex: bool, dtype: torch.dtype, seed: int) -> Tensor:
    kind = dtype.to_complex() if is_complex else dtype
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, *shape, generator=generator, dtype=kind)


def _image(operator: LinearOperator, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return _random(operator.domain_shape, operator.domain_complex, dtype, seed)


def _measurement(operator: LinearOperator, dtype: torch.dtype, seed: int = 10) -> Tensor:
    return _random(operator.range_shape, operator.range_complex, dtype, seed)


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-5 if dtype == torch.float32 else 1e-12


def _assert_near(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    scale = torch.linalg.vector_norm(expected).clamp(min=1e-30)
    assert torch.linalg.vector_norm(actual - expected) <= _tolerance(dtype) * scale


def test_every_registered_operator_has_an_example():
    missing = set(OPERATORS) - set(EXAMPLES)
    assert not missing, f"add examples for {missing} to EXAMPLES"


@every_operator
@both_precisions
def test_linear(name, arguments, dtype):
    operator = OPERATORS[name](**arguments)
    x, z = _image(operator, dtype), _image(operator, dtype, seed=1)
    combined = operator.forward(2.5 * x - 0.3 * z)
    _assert_near(combined, 2.5 * operator.forward(x) - 0.3 * operator.forward(z), dtype)


@every_operator
@both_precisions
def test_adjoint_dot(name, arguments, dtype):
    operator = OPERATORS[name](**arguments)
    x = _image(operator, dtype)
    projected = operator.forward(x)
    y = projected + _measurement(operator, dtype)  # neither orthogonal to A x nor in its range
    left, right = dot(projected, y), dot(x, operator.adjoint(y))
    assert ((left - right).abs() <= _tolerance(dtype) * left.abs()).all()


@every_operator
@both_precisions
def test_keeps_precision_kind_and_inputs(name, arguments, dtype):
    operator = OPERATORS[name](**arguments)
    x, y = _image(operator, dtype), _measurement(operator, dtype)
    x_before, y_before = x.clone(), y.clone()
    assert operator.forward(x).dtype == y.dtype
    assert operator.forward(x).shape == y.shape
    assert operator.adjoint(y).dtype == x.dtype
    assert operator.adjoint(y).shape == x.shape
    assert operator.correct(x, y).dtype == x.dtype
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)


@every_operator
@both_precisions
def test_autograd_is_the_adjoint(name, arguments, dtype):
    operator = OPERATORS[name](**arguments)
    x = _image(operator, dtype).requires_grad_()
    y = _measurement(operator, dtype).requires_grad_()
    (gradient,) = torch.autograd.grad(operator.forward(x), x, y.detach())
    _assert_near(gradient, operator.adjoint(y.detach()), dtype)
    (gradient,) = torch.autograd.grad(operator.adjoint(y), y, x.detach())
    _assert_near(gradient, operator.forward(x.detach()), dtype)


@every_operator
def test_gradcheck(name, arguments):
    operator = OPERATORS[name](**arguments)
    x = _image(operator, torch.float64).requires_grad_()
    y = _measurement(operator, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(operator.forward, x, fast_mode=True)
    assert torch.autograd.gradcheck(operator.adjoint, y, fast_mode=True)
    assert torch.autograd.gradgradcheck(operator.normal, x, fast_mode=True)


@every_operator
@both_precisions
def test_normal_is_forward_then_adjoint(name, arguments, dtype):
    operator = OPERATORS[name](**arguments)
    x = _image(operator, dtype)
    _assert_near(operator.normal(x), operator.adjoint(operator.forward(x)), dtype)


@every_operator
@both_precisions
def test_samples_are_independent(name, arguments, dtype):
    operator = OPERATORS[name](**arguments)
    x, y = _image(operator, dtype), _measurement(operator, dtype)
    for i in range(BATCH):
        alone, one_x, one_y = operator[i], x[i : i + 1], y[i : i + 1]
        _assert_near(operator.forward(x)[i : i + 1], alone.forward(one_x), dtype)
        _assert_near(operator.adjoint(y)[i : i + 1], alone.adjoint(one_y), dtype)
        _assert_near(
            operator.correct(x, y, 0.7)[i : i + 1], alone.correct(one_x, one_y, 0.7), dtype
        )


@every_operator
def test_repeated_batches(name, arguments):
    operator = OPERATORS[name](**arguments)
    x = _image(operator, torch.float32)
    y = _measurement(operator, torch.float32)
    repeated = operator.repeat(2)
    assert repeated.batch_size == (2 * BATCH if operator.batch_size else None)
    twice_x, twice_y = torch.cat([x, 2 * x]), torch.cat([y, 2 * y])
    expected = torch.cat([operator.forward(x), 2 * operator.forward(x)])
    _assert_near(repeated.forward(twice_x), expected, torch.float32)
    expected = torch.cat([operator.adjoint(y), 2 * operator.adjoint(y)])
    _assert_near(repeated.adjoint(twice_y), expected, torch.float32)


def test_compositions_of_repeated_batches():
    mri = SingleCoilMRI(_mask(BATCH, 1, 8, 8), real=False)
    shared = SingleCoilMRI(_mask(8, 8), real=False)
    for operator in (mri.H @ mri, shared.H @ mri, mri @ shared.H, mri.H, shared.H):
        x = _image(operator, torch.float64)
        expected = operator.forward(x).repeat(2, 1, 1, 1)
        _assert_near(operator.repeat(2).forward(x.repeat(2, 1, 1, 1)), expected, torch.float64)
        if operator.batch_size:
            _assert_near(operator[1].forward(x[1:2]), expected[1:2], torch.float64)


@every_operator
def test_pickles_and_copies(name, arguments):
    operator = OPERATORS[name](**arguments)
    x = _image(operator, torch.float32)
    expected = operator.forward(x)
    restored = pickle.loads(pickle.dumps(operator))
    for other in (restored, copy.deepcopy(operator), operator.to("cpu")):
        assert torch.equal(other.forward(x), expected)
        assert torch.equal(other.adjoint(expected), operator.adjoint(expected))


@every_operator
def test_memory_layout_does_not_matter(name, arguments):
    operator = OPERATORS[name](**arguments)
    x, y = _image(operator, torch.float64), _measurement(operator, torch.float64)
    strided = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    _assert_near(operator.forward(strided), operator.forward(x), torch.float64)
    strided = y.transpose(0, -1).contiguous().transpose(0, -1)
    _assert_near(operator.adjoint(strided), operator.adjoint(y), torch.float64)


@every_operator
def test_wrong_shape(name, arguments):
    operator = OPERATORS[name](**arguments)
    x, y = _image(operator, torch.float32), _measurement(operator, torch.float32)
    for call, value in ((operator.forward, x), (operator.adjoint, y), (operator.normal, x)):
        if value.numel():  # the empty measurement cannot be cut any shorter
            with pytest.raises(ValueError, match=r"expected shape \(B, .*got"):
                call(value[..., :-1])
        with pytest.raises(ValueError, match=r"expected shape \(B, .*got"):
            call(value[0])
    with pytest.raises(ValueError, match="expected"):
        operator.correct(x, y[:2])
    if operator.batch_size is not None:
        with pytest.raises(ValueError, match=f"expected a batch of {BATCH}"):
            operator.forward(x[:2])
        with pytest.raises(IndexError, match="expected a sample below"):
            operator[BATCH]


@every_operator
def test_wrong_dtype(name, arguments):
    operator = OPERATORS[name](**arguments)
    x, y = _image(operator, torch.float32), _measurement(operator, torch.float32)
    for call, value in ((operator.forward, x), (operator.adjoint, y)):
        other = value.real if value.is_complex() else value.to(torch.complex64)
        for wrong in (other, torch.zeros_like(value, dtype=torch.int64)):
            with pytest.raises(TypeError, match=r"expected a .* tensor, got"):
                call(wrong)
    if not operator.domain_complex:
        with pytest.raises(TypeError, match="expected a float32 or float64 tensor, got"):
            operator.forward(x.half())


@every_operator
def test_correct_with_weight_zero_does_nothing(name, arguments):
    operator = OPERATORS[name](**arguments)
    x, y = _image(operator, torch.float32), _measurement(operator, torch.float32)
    assert torch.equal(operator.correct(x, y, weight=0.0), x)


@every_operator
def test_correct_keeps_a_solution(name, arguments):
    operator = OPERATORS[name](**arguments)
    x = _image(operator, torch.float64)
    _assert_near(operator.correct(x, operator.forward(x)), x, torch.float64)


@pytest.mark.parametrize(("name", "arguments"), PROJECTING)
def test_correct_projects(name, arguments):
    operator = OPERATORS[name](**arguments)
    x = _image(operator, torch.float64)
    y = operator.forward(_image(operator, torch.float64, seed=1))
    projected = operator.correct(x, y, weight=1.0)
    _assert_near(operator.forward(projected), y, torch.float64)
    # Orthogonal: the step is perpendicular to the way to any other solution.
    solution = operator.correct(_image(operator, torch.float64, seed=2), y)
    inner = dot(x - projected, solution - projected).abs()
    assert (inner <= 1e-12 * norm(x - projected) * norm(solution - projected)).all()


@pytest.mark.parametrize(("name", "arguments"), [c for c in CASES if c.values[0] != "unmeasured"])
def test_relaxed_correct_shrinks_the_residual(name, arguments):
    operator = OPERATORS[name](**arguments)
    x = _image(operator, torch.float64)
    y = operator.forward(_image(operator, torch.float64, seed=1))
    before = norm(y - operator.forward(x))
    after = norm(y - operator.forward(operator.correct(x, y, weight=0.3)))
    assert (after < before).all()


@pytest.mark.parametrize("shape", [(8, 8), (4, 6), (6, 8), (7, 8), (8, 5), (9, 7)])
@pytest.mark.parametrize("real", [True, False])
def test_mri_kspace_is_centred(shape, real):
    operator = OPERATORS["mri"](_mask(*shape), real=real)
    x = _image(operator, torch.float64)
    expected = fft2c(x) * operator.mask
    _assert_near(operator.forward(x), expected, torch.float64)
    back = ifft2c(expected)
    _assert_near(operator.adjoint(expected), back.real if real else back, torch.float64)


@pytest.mark.parametrize("name", ["mri", "inpainting"])
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 4, 4), r"expected a mask of shape \(H, W\) or \(B, 1, H, W\), got"),
        (torch.full((4, 4), 0.5), "expected a mask of zeros and ones"),
        (torch.zeros(4, 4), "expected a mask with at least one"),
    ],
)
def test_wrong_mask(name, mask, message):
    with pytest.raises(ValueError, match=message):
        OPERATORS[name](mask)


@pytest.mark.parametrize(("shape", "factor"), [((6, 8), 4), ((0, 4), 2), ((6, 8), 0)])
def test_wrong_superresolution(shape, factor):
    with pytest.raises(ValueError, match=r"expected a .*, got"):
        OPERATORS["superresolution"](shape, factor)


def test_superresolution_averages_blocks():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    y = OPERATORS["superresolution"]((4, 4), 2).forward(x)
    assert torch.equal(y[0, 0], torch.tensor([[2.5, 4.5], [10.5, 12.5]]))


@pytest.mark.gpu
@every_operator
@both_precisions
def test_same_on_gpu(name, arguments, dtype):
    operator = OPERATORS[name](**arguments)
    on_gpu = operator.to("cuda")
    x, y = _image(operator, dtype), _measurement(operator, dtype)
    _assert_near(on_gpu.forward(x.cuda()).cpu(), operator.forward(x), dtype)
    _assert_near(on_gpu.adjoint(y.cuda()).cpu(), operator.adjoint(y), dtype)
    _assert_near(on_gpu.correct(x.cuda(), y.cuda()).cpu(), operator.correct(x, y), dtype)
