"""Operators made from functions or from other operators, and tests of linearity and adjoint."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from operators.base import LinearOperator, Shape
from operators.batch import BatchGenerator, dot, norm
from operators.solvers import power_method

Map = Callable[[Tensor], Tensor]
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}  # relative
TINY = 1e-20  # in place of the norm of an operator that is 0


class FunctionOperator(LinearOperator):
    """Linear operator made from a function, such as a user's own blur.

    `correct` steps by A^H (y - A x) / |A|^2, where |A| is found by power iteration.

    Args:
        forward: A, from images ``(B, *domain_shape)`` to measurements ``(B, *range_shape)``; has to
            treat each sample of a batch independently.
        adjoint: A^H; None to derive it from `forward` by autograd, if `forward` is differentiable.
        domain_shape: shape of one image, ``(1, H, W)``.
        range_shape: shape of one measurement; None to take it from the output of `forward`.
        domain_complex: whether images are complex.
        range_complex: whether measurements are complex; None to take it from the output of
            `forward`.

    Raises:
        ValueError: `forward` is not linear, `adjoint` is not its adjoint, or a shape or dtype is
            not the declared one.
    """

    def __init__(
        self,
        forward: Map,
        adjoint: Map | None = None,
        *,
        domain_shape: Shape,
        range_shape: Shape | None = None,
        domain_complex: bool = False,
        range_complex: bool | None = None,
    ):
        dtype = torch.complex64 if domain_complex else torch.float32
        found = forward(torch.zeros(1, *domain_shape, dtype=dtype))
        shape = tuple(found.shape[1:])
        if range_shape is not None and tuple(range_shape) != shape:
            raise ValueError(f"expected forward to give (B, *{tuple(range_shape)}), got {shape}")
        super().__init__(
            domain_shape,
            shape,
            domain_complex=domain_complex,
            range_complex=found.is_complex() if range_complex is None else range_complex,
        )
        self._forward_function, self._adjoint_function = forward, adjoint
        check_linear(self)
        check_adjoint(self)
        self.norm = float(power_method(self))

    def _correct(self, x: Tensor, y: Tensor, weight: float) -> Tensor:
        return x + (weight / max(self.norm, TINY) ** 2) * self._adjoint(y - self._forward(x))

    def _forward(self, x: Tensor) -> Tensor:
        return self._forward_function(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        if self._adjoint_function is not None:
            return self._adjoint_function(y)
        zero = torch.zeros(
            len(y),
            *self.domain_shape,
            dtype=y.dtype.to_complex() if self.domain_complex else y.real.dtype,
            device=y.device,
        )
        return torch.func.vjp(self._forward_function, zero)[1](y)[0]


class AdjointOperator(LinearOperator):
    """The adjoint A^H of an operator A, as ``A.H`` returns it.

    Args:
        operator: A.
    """

    def __init__(self, operator: LinearOperator):
        super().__init__(
            operator.range_shape,
            operator.domain_shape,
            domain_complex=operator.range_complex,
            range_complex=operator.domain_complex,
            batch_size=operator.batch_size,
        )
        self.operator = operator

    def to(self, device: torch.device | str) -> "AdjointOperator":
        """A copy whose tensors are on `device`."""
        return AdjointOperator(self.operator.to(device))

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator.adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator.forward(y)

    def _take(self, indices: Sequence[int]) -> "AdjointOperator":
        return AdjointOperator(self.operator._take(indices))


class Product(LinearOperator):
    """The product of two operators, x -> A (B x), as ``A @ B`` returns it.

    The measurement is that of A, so that `noise`, `sampled` and `acceleration` are those of A.

    Args:
        outer: A.
        inner: B.

    Raises:
        ValueError: the range of B is not the domain of A, or their batch sizes differ.
    """

    def __init__(self, outer: LinearOperator, inner: LinearOperator):
        given = (inner.range_shape, inner.range_complex)
        taken = (outer.domain_shape, outer.domain_complex)
        if given != taken:
            kinds = ["complex" if is_complex else "real" for _, is_complex in (given, taken)]
            raise ValueError(
                f"expected operators that fit, got {kinds[0]} {given[0]} for "
                f"{type(outer).__name__}, which takes {kinds[1]} {taken[0]}"
            )
        sizes = {o.batch_size for o in (outer, inner)} - {None}
        if len(sizes) > 1:
            raise ValueError(f"expected operators of one batch size, got {sorted(sizes)}")
        super().__init__(
            inner.domain_shape,
            outer.range_shape,
            domain_complex=inner.domain_complex,
            range_complex=outer.range_complex,
            batch_size=sizes.pop() if sizes else None,
        )
        self.outer, self.inner = outer, inner

    def noise(self, y: Tensor) -> Tensor | None:
        """Noise estimate of the outer operator, ``(B,)`` in units of `y`, or None."""
        return self.outer.noise(y)

    def sampled(self) -> Tensor | None:
        """Sampling pattern of the outer operator, or None."""
        return self.outer.sampled()

    @property
    def acceleration(self) -> float | None:
        """Acceleration of the outer operator, or None."""
        return self.outer.acceleration

    def to(self, device: torch.device | str) -> "Product":
        """A copy whose tensors are on `device`."""
        return Product(self.outer.to(device), self.inner.to(device))

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer.forward(self.inner.forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def _take(self, indices: Sequence[int]) -> "Product":
        parts = (
            part if part.batch_size is None else part._take(indices)
            for part in (self.outer, self.inner)
        )
        return Product(*parts)


def check_adjoint(
    operator: LinearOperator,
    *,
    dtype: torch.dtype = torch.float32,
    tolerance: float | None = None,
    seed: int = 0,
) -> float:
    """Dot-product test of an adjoint: Re<A x, y> = Re<x, A^H y> for random x and y.

    Args:
        operator: A.
        dtype: precision, float32 or float64.
        tolerance: largest allowed relative difference; None for 1e-4 (float32) or 1e-10 (float64).
        seed: seed of x and y.

    Returns:
        The relative difference of the worst sample.

    Raises:
        ValueError: the difference is larger than `tolerance`, or `forward` or `adjoint` returns a
            wrong shape or dtype.
    """
    tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
    x, y = _random_pair(operator, dtype, seed)
    projected, back = operator.forward(x), operator.adjoint(y)
    for name, found, like in (("forward", projected, y), ("adjoint", back, x)):
        if (found.shape, found.dtype) != (like.shape, like.dtype):
            raise ValueError(
                f"expected {name} to give {tuple(like.shape)} {like.dtype}, got "
                f"{tuple(found.shape)} {found.dtype}"
            )
    left, right = dot(projected, y), dot(x, back)
    # relative to the norms: the inner products themselves may cancel to about 0
    size = (norm(projected) * norm(y) + norm(x) * norm(back)).clamp(min=TINY)
    worst = float(((left - right).abs() / size).max())
    if not worst <= tolerance:
        raise ValueError(
            f"adjoint is not that of forward: Re<A x, y> = {left[0]:.6g}, but Re<x, A^H y> = "
            f"{right[0]:.6g} for random x and y"
        )
    return worst


def check_linear(operator: LinearOperator, *, seed: int = 0) -> None:
    """Raise a ValueError unless A (2 x + z) = 2 A x + A z for random x and z, in float32."""
    x, _ = _random_pair(operator, torch.float32, seed)
    z, _ = _random_pair(operator, torch.float32, seed + 1)
    expected = 2 * operator.forward(x) + operator.forward(z)
    found = operator.forward(2 * x + z)
    if not (norm(found - expected) <= TOLERANCE[torch.float32] * norm(expected)).all():
        raise ValueError("expected a linear forward, got one with A (2 x + z) != 2 A x + A z")


def _random_pair(operator: LinearOperator, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    """Standard normal x ``(B, *domain_shape)`` and y ``(B, *range_shape)``."""
    batch = operator.batch_size or 2
    rng = BatchGenerator([seed + b for b in range(batch)])

    def draw(shape: Shape, is_complex: bool) -> Tensor:
        kind = dtype.to_complex() if is_complex else dtype
        return rng.normal_like(torch.empty(batch, *shape, dtype=kind))

    x = draw(operator.domain_shape, operator.domain_complex)
    return x, draw(operator.range_shape, operator.range_complex)
