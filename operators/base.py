"""The interface of every measurement model: a linear map with its exact adjoint."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Shape = tuple[int, ...]


class LinearOperator:
    """A linear map y = A x on batches, with its adjoint A^H under Re<., .>.

    A subclass calls ``super().__init__`` and implements `_forward` and `_adjoint`, which may
    rely on the shapes and kinds of numbers that the public methods have checked. Both must be
    differentiable by autograd, work in the precision of their input, and treat each sample
    of the batch on its own.

    Attributes:
        domain_shape: shape of one x without the batch axis, e.g. ``(1, H, W)``.
        range_shape: shape of one y without the batch axis.
        domain_complex: whether x is complex (complex64 or complex128) or real
            (float32 or float64).
        range_complex: likewise for y.
        batch_size: None where the same A serves every sample; else the number of samples that
            the operator was built for (a mask or a coil map each).
        direct_name: what the image that `direct` gives is called in tables and pictures.

    What else callers ask of an operator has an answer here that fits any; a subclass that knows
    better overrides it: `direct`, `direct_error`, `noise`, `gram_inverse`, `sampled`,
    `acceleration`, `facts`; and `create` and `describe` for an operator that the command lines
    simulate measurements with.
    """

    direct_name = "adjoint"

    def __init__(
        self,
        domain_shape: Shape,
        range_shape: Shape,
        *,
        domain_complex: bool,
        range_complex: bool,
        batch_size: int | None = None,
    ):
        self.domain_shape = tuple(domain_shape)
        self.range_shape = tuple(range_shape)
        self.domain_complex = domain_complex
        self.range_complex = range_complex
        self.batch_size = batch_size

    @property
    def H(self) -> "LinearOperator":  # noqa: N802 -- as it is written in formulas
        """A^H as an operator: measurements to images."""
        from operators.function import AdjointOperator  # a subclass of this one

        return AdjointOperator(self)

    def __matmul__(self, inner: "LinearOperator") -> "LinearOperator":
        """The operator x -> A (B x), with B = `inner`; a ValueError where they do not fit."""
        from operators.function import Product  # a subclass of this one

        return Product(self, inner)

    def forward(self, x: Tensor) -> Tensor:
        """A x.

        Args:
            x: ``(B, *domain_shape)``.

        Returns:
            ``(B, *range_shape)``, in the precision of `x`.

        Raises:
            ValueError: another shape, or a batch other than `batch_size`.
            TypeError: real where complex is expected, or the other way round.
        """
        self._check(x, self.domain_shape, self.domain_complex, "forward")
        return self._forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """A^H y: ``(B, *range_shape)`` to ``(B, *domain_shape)``; errors as `forward`."""
        self._check(y, self.range_shape, self.range_complex, "adjoint")
        return self._adjoint(y)

    def normal(self, x: Tensor) -> Tensor:
        """A^H A x: ``(B, *domain_shape)`` to the same; errors as `forward`."""
        self._check(x, self.domain_shape, self.domain_complex, "normal")
        return self._normal(x)

    def correct(self, x: Tensor, y: Tensor, weight: float = 1.0) -> Tensor:
        """One data-consistency step, x + weight * D^-1 A^H (y - A x).

        With D = 1 and an A of orthonormal rows (Cartesian MRI) a weight of 1 is the orthogonal
        projection onto {x : A x = y}: measured k-space is replaced. For CT, D = A^H A 1.

        Args:
            x: ``(B, *domain_shape)``.
            y: ``(B, *range_shape)`` measurement.
            weight: relaxation, lambda of Chung & Ye (2022).

        Returns:
            ``(B, *domain_shape)``; `x` is left as it was.
        """
        self._check(x, self.domain_shape, self.domain_complex, "correct")
        self._check(y, self.range_shape, self.range_complex, "correct")
        if x.shape[0] != y.shape[0]:
            raise ValueError(
                f"{self._name}.correct: expected x and y of one batch size, "
                f"got {x.shape[0]} and {y.shape[0]}"
            )
        return self._correct(x, y, weight)

    def direct(self, y: Tensor) -> Tensor:
        """The reconstruction in one step, as a scanner would show it: zero-filled, FBP, or A^H y.

        Args:
            y: ``(B, *range_shape)`` measurement.

        Returns:
            ``(B, *domain_shape)``; errors as `forward`.
        """
        self._check(y, self.range_shape, self.range_complex, "direct")
        return self._direct(y)

    def direct_error(self, y: Tensor) -> Tensor | None:
        """Root mean square error of ``direct(y)``, where the measurement alone tells it.

        Args:
            y: ``(B, *range_shape)`` measurement.

        Returns:
            ``(B,)`` in units of the image, of complex images the error of each part; None where
            it has to be found in another way.
        """
        return None

    def noise(self, y: Tensor) -> Tensor | None:
        """Standard deviation of the noise of `y`, estimated from it.

        Args:
            y: ``(B, *range_shape)`` measurement.

        Returns:
            ``(B,)`` in units of `y`, of complex numbers that of each part; None where nothing is
            known of it.
        """
        return None

    def sampled(self) -> Tensor | None:
        """What one sample's measurement consists of, such as a mask ``(H, W)`` or angles.

        Operators of one kind with equal values measure the same. None where there is no choice.
        """
        return None

    @property
    def acceleration(self) -> float | None:
        """Pixels over measured positions, of one sample; None where that is no measure of it."""
        return None

    def facts(self) -> dict:
        """What one sample's measurement is, as plain values for files: ``operator`` and others."""
        return {"operator": type(self).__name__}

    @classmethod
    def create(
        cls, shape: tuple[int, int], *, seed: int, keys: Sequence[str], study: bool
    ) -> "LinearOperator":
        """The operator that a config describes, to simulate measurements of real images with.

        A subclass adds the fields of the config that it reads as keywords of these names. An
        operator without this method of its own is not offered by the command lines.

        Args:
            shape: ``(H, W)`` of the images in pixels.
            seed: of random choices that all samples share.
            keys: of the batch's samples, for random choices of their own.
            study: whether to deviate as the original study's code does.

        Raises:
            ValueError: unfit fields.
        """
        raise NotImplementedError

    @classmethod
    def describe(cls, fields: Mapping) -> tuple[str, str]:
        """A config's measurement in words, and its nominal acceleration ("-": none).

        Args:
            fields: of the config's `operator`.
        """
        return str(fields["name"]), "-"

    def gram_inverse(self, regularization: Tensor) -> Callable[[Tensor], Tensor] | None:
        """About (A A^H + regularization)^-1, to speed up `operators.dual.solve_dual`.

        Args:
            regularization: ``(1,)`` or ``(B,)``, 0 or more.

        Returns:
            A Hermitian, positive definite map of measurements ``(B, *range_shape)``; None where
            there is none that is better than the identity, as for MRI.
        """
        return None

    def check_measurement(self, y: Tensor) -> None:
        """Raise the errors of `adjoint` if `y` is not a measurement ``(B, *range_shape)``."""
        self._check(y, self.range_shape, self.range_complex, "check_measurement")

    def to(self, device: torch.device | str) -> "LinearOperator":
        """A copy whose tensors are on `device`."""
        moved = object.__new__(type(self))
        moved.__dict__.update(
            {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        )
        return moved

    def __getitem__(self, index: int) -> "LinearOperator":
        """The operator of sample `index` alone, for a batch of one.

        Raises:
            IndexError: outside `batch_size`.
        """
        if self.batch_size is None:
            return self
        if not -self.batch_size <= index < self.batch_size:
            raise IndexError(
                f"{self._name}: expected a sample below {self.batch_size}, got {index}"
            )
        return self._sample(index % self.batch_size)

    def _forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _adjoint(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def _normal(self, x: Tensor) -> Tensor:
        return self._adjoint(self._forward(x))

    def _direct(self, y: Tensor) -> Tensor:
        return self._adjoint(y)

    def _correct(self, x: Tensor, y: Tensor, weight: float) -> Tensor:
        return x + weight * self._adjoint(y - self._forward(x))

    def _sample(self, index: int) -> "LinearOperator":
        raise NotImplementedError

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check(self, value: Tensor, shape: Shape, is_complex: bool, method: str) -> None:
        if tuple(value.shape[1:]) != shape:
            raise ValueError(
                f"{self._name}.{method}: expected shape (B, {', '.join(map(str, shape))}), "
                f"got {tuple(value.shape)}"
            )
        if self.batch_size is not None and value.shape[0] != self.batch_size:
            raise ValueError(
                f"{self._name}.{method}: expected a batch of {self.batch_size} "
                f"(the operator has one mask or map a sample), got {value.shape[0]}"
            )
        if is_complex and value.dtype not in (torch.complex64, torch.complex128):
            raise TypeError(
                f"{self._name}.{method}: expected a complex64 or complex128 tensor, "
                f"got {value.dtype}; use x.to(torch.complex64)"
            )
        if not is_complex and value.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"{self._name}.{method}: expected a float32 or float64 tensor, got {value.dtype}"
            )
