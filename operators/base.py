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
        range_complex: whether y is complex (complex64 or complex128) or real
            (float32 or float64).
        batch_size: None if the same A applies to every sample; otherwise the number of samples
            that the operator was built for (with a mask or coil maps for each).
        direct_name: name of the image that `direct` returns, for tables and figures.
        integrates_rays: whether y are integrals along rays, which detectors count photons of.
        fast_normal: whether `normal` takes less time than `forward` and `adjoint`.

    The other methods have defaults that are valid for any operator. A subclass overrides those it
    can answer better: `direct`, `direct_error`, `noise`, `gram_inverse`, `normal_inverse`,
    `slow_phase`, `sampled`, `measured`, `measure_finely`, `acceleration`, `facts`. It also
    overrides `create` and `describe` if the command lines are to simulate measurements with it.
    """

    direct_name = "adjoint"
    integrates_rays = False
    fast_normal = False

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
        """The adjoint A^H as an operator, from measurements to images."""
        from operators.function import AdjointOperator  # a subclass of this one

        return AdjointOperator(self)

    def __matmul__(self, inner: "LinearOperator") -> "LinearOperator":
        """The product A B, the operator x -> A (B x).

        Args:
            inner: B.

        Raises:
            ValueError: the range of B is not the domain of A, or their batch sizes differ.
        """
        from operators.function import Product  # a subclass of this one

        return Product(self, inner)

    def forward(self, x: Tensor) -> Tensor:
        """The measurement A x of a batch of images.

        Args:
            x: ``(B, *domain_shape)`` images.

        Returns:
            ``(B, *range_shape)``, in the precision of `x`.

        Raises:
            ValueError: `x` has another shape or another batch size than `batch_size`.
            TypeError: `x` is real but should be complex, or the other way round.
        """
        self._check(x, self.domain_shape, self.domain_complex, "forward")
        return self._forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """The adjoint A^H y of a batch of measurements.

        Args:
            y: ``(B, *range_shape)`` measurements.

        Returns:
            ``(B, *domain_shape)``, in the precision of `y`.

        Raises:
            ValueError: `y` has another shape or another batch size than `batch_size`.
            TypeError: `y` is real but should be complex, or the other way round.
        """
        self._check(y, self.range_shape, self.range_complex, "adjoint")
        return self._adjoint(y)

    def normal(self, x: Tensor) -> Tensor:
        """The normal operator applied to a batch of images, A^H A x.

        Args:
            x: ``(B, *domain_shape)`` images.

        Returns:
            ``(B, *domain_shape)``, in the precision of `x`.

        Raises:
            ValueError: `x` has another shape or another batch size than `batch_size`.
            TypeError: `x` is real but should be complex, or the other way round.
        """
        self._check(x, self.domain_shape, self.domain_complex, "normal")
        return self._normal(x)

    def correct(self, x: Tensor, y: Tensor, weight: float = 1.0) -> Tensor:
        """One data-consistency step, x + weight * D^-1 A^H (y - A x).

        With D = 1 and an A of orthonormal rows (Cartesian MRI) a weight of 1 is the orthogonal
        projection onto {x : A x = y}: measured k-space is replaced. For CT, D = A^H A 1; along
        trajectories A^H has the weights of the density of positions instead.

        Args:
            x: ``(B, *domain_shape)`` images; not changed in place.
            y: ``(B, *range_shape)`` measurements.
            weight: relaxation, lambda of Chung & Ye (2022).

        Returns:
            ``(B, *domain_shape)``.

        Raises:
            ValueError: `x` or `y` has a wrong shape, or their batch sizes differ.
            TypeError: `x` or `y` is real but should be complex, or the other way round.
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
        """Direct (non-iterative) reconstruction: zero-filled for MRI, FBP for CT, by default A^H y.

        Args:
            y: ``(B, *range_shape)`` measurements.

        Returns:
            ``(B, *domain_shape)``.

        Raises:
            ValueError: `y` has another shape or another batch size than `batch_size`.
            TypeError: `y` is real but should be complex, or the other way round.
        """
        self._check(y, self.range_shape, self.range_complex, "direct")
        return self._direct(y)

    def direct_error(self, y: Tensor) -> Tensor | None:
        """Root mean square error of ``direct(y)``, estimated from the measurement alone.

        Args:
            y: ``(B, *range_shape)`` measurements.

        Returns:
            ``(B,)`` in units of the image (for complex images the error of the real and of the
            imaginary part each); None if the operator has no such estimate.
        """
        return None

    def noise(self, y: Tensor) -> Tensor | None:
        """Standard deviation of the noise in `y`, estimated from `y`.

        Args:
            y: ``(B, *range_shape)`` measurements.

        Returns:
            ``(B,)`` in units of `y` (for complex `y` that of the real and of the imaginary part
            each), or where it differs that of each number, ``(B, *range_shape)``; None if the
            operator has no such estimate.
        """
        return None

    def slow_phase(self, y: Tensor) -> Tensor | None:
        """Slowly varying phase of complex images, estimated from the measurement alone.

        Priors are trained on images without a phase, so that it is made part of the operator
        (`times`) where it is known.

        Args:
            y: ``(B, *range_shape)`` measurements.

        Returns:
            complex ``(B, 1, H, W)`` of magnitude 1 or 0; None if the operator has no such estimate.
        """
        return None

    def times(self, factor: Tensor) -> "LinearOperator":
        """The operator x -> A (factor x) of an operator with `slow_phase`.

        Args:
            factor: complex ``(B, 1, H, W)``.
        """
        raise NotImplementedError

    def sampled(self) -> Tensor | None:
        """Sampling pattern of one sample, such as a mask ``(H, W)`` or the angles of the views.

        Two operators of one class with equal patterns measure the same. None if the class has no
        sampling pattern.
        """
        return None

    def measure_finely(self, x: Tensor) -> Tensor:
        """Measurement of images on a grid of half the spacing, in the unit of `forward`.

        Whoever reconstructs on the coarse grid then does not have the very model that made the
        data, as with real objects.

        Args:
            x: ``(B, 1, 2 H, 2 W)``.

        Returns:
            ``(B, *range_shape)``.

        Raises:
            ValueError: the operator has no finer model.
        """
        raise ValueError(f"{self._name} has no finer model; line integrals have one")

    def measured(self) -> Tensor:
        """Which numbers of y are measured; the others are 0 in every measurement.

        Returns:
            bool, to be broadcast to ``(B, *range_shape)``.
        """
        return torch.ones(1, *[1] * len(self.range_shape), dtype=torch.bool)

    @property
    def acceleration(self) -> float | None:
        """Number of pixels divided by measured positions, of one sample; None if undefined."""
        return None

    def facts(self) -> dict:
        """Description of the measurement as JSON-able values; ``operator`` is the class's name."""
        return {"operator": type(self).__name__}

    @classmethod
    def create(
        cls, shape: tuple[int, int], *, seed: int, keys: Sequence[str], study: bool
    ) -> "LinearOperator":
        """Operator described by a config, to simulate measurements of real images.

        An override adds one keyword argument for each field of ``config.operator`` that it reads;
        with the keyword `mask`, it gets the sampling mask that the config describes
        (`operators.create.create_mask`). The command lines offer only the operators that override
        this method.

        Args:
            shape: ``(H, W)`` of the images in pixels.
            seed: seed of the random choices that all samples share.
            keys: keys of the samples in the batch, to seed random choices per sample.
            study: whether to deviate as the original study's code does.

        Raises:
            ValueError: a field has an invalid value.
        """
        raise NotImplementedError

    @classmethod
    def describe(cls, fields: Mapping) -> tuple[str, str]:
        """Short description of a config's measurement, and its nominal acceleration.

        Args:
            fields: the fields of ``config.operator``.

        Returns:
            Two strings such as "mri gaussian1d" and "4x"; the second is "-" if there is no
            acceleration.
        """
        return str(fields["name"]), "-"

    def gram_inverse(self, regularization: Tensor) -> Callable[[Tensor], Tensor] | None:
        """Approximation of (A A^H + regularization)^-1, the preconditioner of `solve_dual`.

        Args:
            regularization: ``(1,)`` or ``(B,)``, or one of each number ``(1 or B, *range_shape)``;
                0 or more.

        Returns:
            A Hermitian, positive definite map on measurements ``(B, *range_shape)``; None if
            nothing better than the identity is known, as for MRI.
        """
        return None

    def normal_inverse(self, regularization: Tensor) -> Callable[[Tensor], Tensor] | None:
        """Approximation of (A^H A + regularization)^-1, the preconditioner of conjugate gradients.

        Args:
            regularization: ``(1,)`` or ``(B,)``, 0 or more.

        Returns:
            A Hermitian, positive definite map on images ``(B, *domain_shape)``; None if nothing
            better than the identity is known, as for Cartesian MRI.
        """
        return None

    def without_weights(self, y: Tensor) -> "tuple[LinearOperator, Tensor]":
        """The operator and the measurement ``(B, *range_shape)`` without the weights of `Whitened`.

        Itself and `y`, as an operator has no weights by default.
        """
        return self, y

    def check_measurement(self, y: Tensor) -> None:
        """Raise an error if `y` is not a batch of measurements of this operator.

        Raises:
            ValueError: `y` is not ``(B, *range_shape)``, or B is not `batch_size`.
            TypeError: `y` is real but should be complex, or the other way round.
        """
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
            IndexError: `index` is not below `batch_size`.
        """
        if self.batch_size is None:
            return self
        if not -self.batch_size <= index < self.batch_size:
            raise IndexError(
                f"{self._name}: expected a sample below {self.batch_size}, got {index}"
            )
        return self._take([index % self.batch_size])

    def repeat(self, times: int) -> "LinearOperator":
        """The operator of a batch that holds its samples `times` times, one batch after the other.

        Args:
            times: number of repetitions, at least 1.
        """
        if self.batch_size is None or times == 1:
            return self
        return self._take([*range(self.batch_size)] * times)

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

    def _take(self, indices: Sequence[int]) -> "LinearOperator":
        """The operator of some samples, each any number of times; only with a `batch_size`."""
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
