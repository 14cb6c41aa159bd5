"""Arrays as the input of `reconstruct`: k-space, sinograms, or measurements of any operator."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from configs.reconstruct import get_config
from datasets.array_layout import KSPACE, SINOGRAM
from datasets.measured import Measured, measured_array
from datasets.sample import DataError
from evaluation.own.base import Input
from evaluation.own.kspace import open_kspace
from evaluation.own.sinogram import open_sinogram
from evaluation.own.trajectory import open_trajectory
from operators import LinearOperator
from operators.batch import dot, expand
from operators.inverse_problem import InverseProblem, fitted_problem

KSPACE_SHAPES = "(H, W), (coils, H, W) or (slices, coils, H, W)"
SINOGRAM_SHAPES = "(views, bins) or (slices, views, bins)"


class Axes(NamedTuple):
    """Axes of images ``(n, 1, H, W)`` that the caller's arrays have as well.

    Attributes:
        slices: whether they have the first axis.
        channel: whether they have the second axis.
    """

    slices: bool
    channel: bool = False

    def apply(self, images: Tensor) -> Tensor:
        """Images ``(n, 1, H, W)`` without the axes that the caller's arrays do not have."""
        images = images if self.channel else images[:, 0]
        return images if self.slices else images[0]


@dataclass
class OperatorInput(Input):
    """Measurements of an operator that is given by the caller.

    Attributes:
        operator: measurement model A.
        y: ``(n, *range_shape)`` measurements.
    """

    operator: LinearOperator | None = None
    y: Tensor | None = None  # (n, *range_shape)

    def problem(self, items: Sequence[int]) -> InverseProblem:
        """Inverse problem of a batch of slices; of one slice if each has an operator of its own.

        Args:
            items: numbers of the slices, from 0.
        """
        return operator_problem(self.operator[items[0]], self.y[list(items)])


def open_array(
    measurement: ArrayLike | Tensor | Measured,
    *,
    mask: ArrayLike | Tensor | None,
    maps: ArrayLike | Tensor | None,
    angles: ArrayLike | Tensor | None,
    operator: LinearOperator | None,
    trajectory: ArrayLike | Tensor | None = None,
    image_size: tuple[int, int] | int | None = None,
) -> tuple[Input, Axes]:
    """Arrays as a checked input, and the axes that its images should have.

    Args:
        measurement: complex k-space ``(H, W)``, ``(C, H, W)`` or ``(S, C, H, W)``; a real sinogram
            ``(views, bins)`` or ``(S, views, bins)``; a measurement of `operator`; or an opened
            file.
        mask: mask of k-space, nonzero where measured; None to find it from the zeros.
        maps: coil maps of k-space; None to estimate them.
        angles: angles of the views of a sinogram in degrees.
        operator: operator of any other measurement.
        trajectory: of k-space that is not on a grid.
        image_size: pixels of the image of such k-space.

    Raises:
        DataError, ValueError, TypeError: the arguments do not fit together.
    """
    given = {"mask": mask, "maps": maps, "angles": angles, "trajectory": trajectory}
    arrays = {name: as_numpy(value, name) for name, value in given.items() if value is not None}
    if isinstance(measurement, Measured):
        if operator is not None:
            raise ValueError("expected an opened file without operator=; give its array")
        return _of_file(measurement, arrays, image_size)
    data = as_numpy(measurement, "measurement")
    if image_size is not None and trajectory is None:  # of arrays on a grid it is their own
        raise ValueError("expected image_size with a trajectory, got it without")
    if operator is not None:
        if not isinstance(operator, LinearOperator):
            raise TypeError(
                f"expected operator as a LinearOperator, got {type(operator).__name__}; functions "
                "become one by operators.FunctionOperator(forward, adjoint, domain_shape=...)"
            )
        if arrays:
            raise ValueError(
                f"expected a measurement with operator= alone, got {', '.join(arrays)}, too; the "
                "operator has to know it"
            )
        device = measurement.device if isinstance(measurement, Tensor) else "cpu"
        return _of_operator(data, operator, device)
    if "angles" in arrays:
        if len(arrays) > 1:
            others = " and ".join(arrays.keys() - {"angles"})
            raise ValueError(
                f"expected a sinogram with angles= alone, got {others} of k-space, too"
            )
        return _of_sinogram(data, arrays["angles"])
    if "trajectory" in arrays:
        return _of_trajectory(data, arrays, image_size)
    return _of_kspace(data, arrays)


def _of_file(
    measured: Measured, arrays: dict[str, np.ndarray], image_size: tuple[int, int] | int | None
) -> tuple[Input, Axes]:
    """Input of an opened file, with the arrays that are given in place of its own."""
    if "trajectory" in arrays:
        raise ValueError("expected trajectory= of open_measurement for an opened file")
    config = get_config()
    if image_size is not None:
        config.data.image_size = ",".join(map(str, _pair(image_size)))
    given = {{"maps": "sens_maps"}.get(name, name): array for name, array in arrays.items()}
    unfit = given.keys() & ({"angles"} if measured.kind == KSPACE else {"mask", "sens_maps"})
    if unfit:
        raise ValueError(f"expected arrays that belong to a {measured.kind}, got {sorted(unfit)}")
    measured = replace(measured, extras=measured.extras | given)
    if measured.kind == SINOGRAM:
        opened: Input = open_sinogram(measured, config)
    else:
        along = measured.trajectory is not None
        opened = (open_trajectory if along else open_kspace)(measured, config)
    return opened, Axes(slices=True)


def _pair(size: tuple[int, int] | int) -> tuple[int, int]:
    """Rows and columns of an image size that may be one number for both."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def as_numpy(values: ArrayLike | Tensor, name: str) -> np.ndarray:
    """Array of numbers on the CPU.

    Args:
        values: array or tensor.
        name: name of the argument, for the error.

    Raises:
        TypeError: it does not contain numbers.
    """
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"expected {name} as an array of numbers, got {type(values).__name__}")
    return array


def _of_kspace(data: np.ndarray, arrays: dict[str, np.ndarray]) -> tuple[Input, Axes]:
    if data.dtype.kind != "c":
        joined = "; join its parts: real + 1j * imaginary" if 2 in data.shape else ""
        raise DataError(
            f"expected complex k-space {KSPACE_SHAPES}, got {data.dtype} of shape {data.shape}"
            f"{joined}; a sinogram needs angles=, anything else the operator= that measured it"
        )
    if data.ndim not in (2, 3, 4) or 0 in data.shape:
        raise DataError(f"expected k-space {KSPACE_SHAPES}, got the shape {data.shape}")
    mask, maps = arrays.get("mask"), arrays.get("maps")
    if mask is not None and mask.ndim > 2 and data.ndim == 3:
        raise DataError(
            f"expected a mask (H, W) for k-space (coils, H, W), got the shape {mask.shape}; where "
            "the first axis is slices of one coil, give kspace[:, None]"
        )
    if maps is not None and maps.ndim == 2:
        arrays["maps"] = maps[None]  # of one coil
    extras = {{"maps": "sens_maps"}.get(name, name): array for name, array in arrays.items()}
    opened = open_kspace(measured_array(KSPACE, data, extras), get_config())
    return opened, Axes(slices=data.ndim == 4)


def _of_trajectory(
    data: np.ndarray, arrays: dict[str, np.ndarray], image_size: tuple[int, int] | int | None
) -> tuple[Input, Axes]:
    if "mask" in arrays:
        raise ValueError("expected k-space with a trajectory without a mask; leave the mask out")
    config, matrix = get_config(), None
    if image_size is not None:
        matrix = _pair(image_size)
        config.data.image_size = ",".join(map(str, matrix))
    extras = {"sens_maps": arrays["maps"]} if "maps" in arrays else {}
    measured = measured_array(KSPACE, data, extras, trajectory=arrays["trajectory"], matrix=matrix)
    return open_trajectory(measured, config), Axes(slices=data.ndim == 4)


def _of_sinogram(data: np.ndarray, angles: np.ndarray) -> tuple[Input, Axes]:
    if data.dtype.kind == "c" or data.ndim not in (2, 3) or 0 in data.shape:
        raise DataError(
            f"expected a real sinogram {SINOGRAM_SHAPES}, got {data.dtype} of shape {data.shape}"
        )
    extras = {"angles": angles}
    opened = open_sinogram(measured_array(SINOGRAM, data, extras), get_config())
    return opened, Axes(slices=data.ndim == 3)


def _of_operator(
    data: np.ndarray, operator: LinearOperator, device: torch.device | str
) -> tuple[Input, Axes]:
    shape = operator.range_shape
    if len(operator.domain_shape) != 3:
        raise ValueError(
            f"expected an operator of images (1, H, W), got one of {operator.domain_shape}"
        )
    if not np.isfinite(data).all():
        raise DataError(f"expected finite measurements, got NaN or infinity of {data.size} values")
    if data.dtype.kind == "c" and not operator.range_complex:
        raise DataError("expected real measurements, as the operator gives them, got complex ones")
    # an axis of length 1 in front, such as an image's channel, may be left out
    short = len(shape) > 1 and shape[0] == 1 and data.shape[-len(shape) :] != shape
    wanted = shape[1:] if short else shape
    if data.shape[-len(wanted) :] != wanted or data.ndim > len(wanted) + 1:
        raise DataError(
            f"expected measurements of the operator's shape {shape}, or several of them "
            f"(n, {', '.join(map(str, shape))}), got {data.shape}"
        )
    several = data.ndim > len(wanted)
    y = torch.from_numpy(data.astype(np.complex64 if operator.range_complex else np.float32))
    y = y.reshape(-1, *shape).to(device)  # (n, *range_shape)
    operator.check_measurement(y)
    if not y.flatten(1).any(1).any():
        raise DataError("expected measurements, got nothing but zeros")
    opened = OperatorInput(
        kind="measurements",
        numbers=range(len(y)),
        keys=[f"measurement:{n}" for n in range(len(y))],
        unit="of what the operator takes",
        direct=operator.direct_name,
        sources=(),
        facts=operator[0].facts(),
        is_complex=operator.domain_complex,
        largest_batch=None if operator.batch_size is None else 1,
        operator=operator.to(device),
        y=y,
    )
    return opened, Axes(slices=several, channel=not (short and operator.domain_shape[0] == 1))


def operator_problem(operator: LinearOperator, y: Tensor) -> InverseProblem:
    """Inverse problem of images in about [0, 1] from a measurement in any unit.

    The direct reconstruction (by default A^H y) is first scaled to fit the measurement best, as its
    own scale has no meaning unless A has a norm of about 1.

    Args:
        operator: measurement model A.
        y: ``(B, *range_shape)`` measurement.
    """
    direct = operator.direct(y)
    measured = operator.forward(direct)
    size = dot(measured, measured)  # (B,)
    fit = torch.where(size > 0, dot(measured, y) / torch.where(size > 0, size, 1.0), 0.0)
    return fitted_problem(operator, y, expand(fit, direct) * direct)
