"""MRI along any trajectory through k-space, of one or several coils."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import dot, expand
from operators.fourier import fft2c
from operators.multicoil import check_maps
from operators.noise import level_by_groups, line_noise
from operators.nufft import Nufft, toeplitz, toeplitz_spectrum
from operators.simulation import birdcage_maps
from operators.trajectories import KINDS, radial, spiral, spiral_samples

DENSITY_ITERATIONS = 30
PHASE_WIDTH = 32  # grid cells of k-space that tell the slowly varying phase
TINY = 1e-6  # smallest divisor of the iteration
GROUP = 256  # positions whose noise is looked at together
GAP = math.sqrt(0.5)  # cells from a grid point to the nearest position, where k-space is covered
FLOOR = 1e-3  # smallest eigenvalue of the preconditioner, relative to the largest
JOINED = 0.02  # standard deviation of the shifts that the preconditioner knows, in sides
MARGIN = 4  # cells around the calibration square whose positions are gridded, too


class NonCartesianMRI(LinearOperator):
    """MRI along a trajectory, y_c = F (S_c x), with the non-uniform Fourier transform F.

    Images are complex ``(B, 1, H, W)``, measurements complex ``(B, C, L, N)`` of L lines (spokes,
    interleaves) with N positions each. F is `operators.nufft.Nufft`: on a full grid, A is that of
    `MultiCoilMRI`. A^H A is computed as a convolution, by FFTs of twice the size. Data-consistency
    steps (`correct`) are x + weight A^H W (y - A x) with the weights W of `density`, as A^H A has a
    norm of many times 1; that of A^H W A is about 1.

    The maps should satisfy sum_c |S_c|^2 = 1 on the object, as those of `operators.espirit`.

    Args:
        trajectory: real ``(L, N, 2)``, row and column in cycles per pixel, from -1/2 to 1/2.
        sens_maps: complex ``(C, H, W)`` for all samples or ``(B, C, H, W)``; for one coil ones.

    Raises:
        ImportError: finufft is not installed.
        ValueError: shapes do not match, positions beyond 1/2, or values that are not finite.
        TypeError: maps are not complex.

    Source: J. A. Fessler, B. P. Sutton, IEEE Trans. Signal Process. 51 (2003) 560-574; for several
    coils K. P. Pruessmann et al., Magn. Reson. Med. 46 (2001) 638-651.
    """

    direct_name = "gridded"
    fast_normal = True

    def __init__(self, trajectory: Tensor, sens_maps: Tensor):
        trajectory = torch.as_tensor(trajectory)
        if trajectory.ndim != 3 or trajectory.shape[-1] != 2 or trajectory.is_complex():
            raise ValueError(
                "expected a real trajectory (lines, positions, 2) of rows and columns, got "
                f"{trajectory.dtype} of shape {tuple(trajectory.shape)}"
            )
        shape = tuple(torch.as_tensor(sens_maps).shape[-2:])
        sens_maps, per_sample = check_maps(sens_maps, shape, "C, H, W")
        super().__init__(
            (1, *shape),
            (sens_maps.shape[1], *trajectory.shape[:2]),
            domain_complex=True,
            range_complex=True,
            batch_size=len(sens_maps) if per_sample else None,
        )
        self.trajectory = trajectory.double()  # (L, N, 2)
        self.sens_maps = sens_maps  # (1 or B, C, H, W)
        self.nufft = Nufft(self.trajectory.flatten(0, 1), shape)
        self._known: dict[str, Tensor] = {}  # of the trajectory, shared with copies of other maps

    @classmethod
    def create(
        cls,
        shape: tuple[int, int],
        *,
        seed: int,
        keys: Sequence[str],
        study: bool,
        trajectory: str = "radial",
        num_spokes: int | None = None,
        samples: int | None = None,
        turns: float = 8.0,
        power: float = 2.0,
        coils: int = 8,
    ) -> "NonCartesianMRI":
        """MRI of complex images along simulated trajectories, by simulated coils with known maps.

        Args:
            shape: ``(H, W)`` of the images in pixels.
            seed: not used.
            keys: not used.
            study: not used.
            trajectory: "radial", "golden" (radial at the golden angle) or "spiral".
            num_spokes: number of spokes or interleaves; None: 40 spokes or 8 interleaves.
            samples: positions of each; None: of spokes twice the longer side of the image, of
                interleaves a grid cell apart.
            turns: turns of an interleave.
            power: of an interleave's radius as a function of its angle, see `trajectories.spiral`.
            coils: number of coils C.

        Raises:
            ValueError: an unknown trajectory, or numbers below 1.
        """
        if trajectory not in KINDS:
            raise ValueError(
                f"expected operator.trajectory to be one of {KINDS}, got {trajectory!r}"
            )
        count = _lines(trajectory) if num_spokes is None else num_spokes
        if trajectory == "spiral":
            form = {"turns": turns, "power": power}
            samples = spiral_samples(max(shape), **form) if samples is None else samples
            positions = spiral(count, samples, **form)
        else:
            samples = 2 * max(shape) if samples is None else samples
            positions = radial(count, samples, golden=trajectory == "golden")
        return cls(positions, birdcage_maps(coils, shape))

    @classmethod
    def describe(cls, fields: Mapping) -> tuple[str, str]:
        """Operator, trajectory and its keywords, and "-"; such as "nufft spiral 8, turns=4"."""
        kind = fields.get("trajectory") or "radial"
        text = f"{fields['name']} {kind} {fields.get('num_spokes') or _lines(kind)}"
        given = [f"{k}={fields[k]}" for k in ("samples", "turns", "power") if fields.get(k)]
        return ", ".join([text, *given]), "-"

    @property
    def density(self) -> Tensor:
        """Area of k-space that each position stands for, ``(L, N)``, in grid cells of the image.

        Where positions are more than a cell apart, each has about one. A^H with these weights, up
        to a factor, is `direct`, the gridded image. By the iteration of J. G. Pipe, P. Menon, Magn.
        Reson. Med. 41 (1999) 179-186, w / (K w), with the kernel sinc^2 of a cell's width.
        """
        if "density" not in self._known:
            shape = self.domain_shape[1:]
            large = Nufft(self.nufft.positions, (2 * shape[0], 2 * shape[1]))
            triangle = _triangle(2 * shape[0])[:, None] * _triangle(2 * shape[1])  # (2 H, 2 W)
            weights = torch.ones(len(self.nufft.positions), dtype=torch.float64)
            for _ in range(DENSITY_ITERATIONS):
                image = triangle * large.adjoint(weights.to(torch.complex128))
                weights = weights / large.forward(image).real.clamp(min=TINY) / 4
            self._known["density"] = weights.reshape(self.trajectory.shape[:2]).float()
        return self._known["density"]

    def noise(self, y: Tensor) -> Tensor:
        """Standard deviation of the noise of the real and of the imaginary part: ``(B,)``.

        The lower of two: from the magnitudes at the outermost positions (see `operators.noise`),
        and from the frequencies along the lines that the image leaves free (`line_noise`).

        Args:
            y: complex ``(B, C, L, N)``.
        """
        radius = self.trajectory.norm(dim=-1).flatten()  # (M,)
        order = radius.argsort(descending=True, stable=True)
        groups = list(order.split(GROUP))
        if len(groups) > 1 and len(groups[-1]) < GROUP:
            groups.pop()
        outermost = level_by_groups(y.flatten(2), [g.to(y.device) for g in groups])
        along = line_noise(y)
        return outermost if along is None else torch.minimum(outermost, along)

    def calibration(self, y: Tensor) -> Tensor:
        """Centre of each coil's k-space on the grid, for coil maps: complex ``(B, C, H, W)``.

        It is gridded with `density`, as far as positions lie densely (`calibration_width`), and 0
        elsewhere.

        Args:
            y: complex ``(B, C, L, N)``.
        """
        height, width = self.domain_shape[1:]
        side = self.calibration_width
        far = side / math.sqrt(2) + MARGIN  # cells
        cells = (self.trajectory * torch.tensor([height, width])).norm(dim=-1)  # (L, N)
        weights = self.density * (cells <= far)
        coils = self.nufft.adjoint((y * weights.to(y.real)).flatten(-2))  # (B, C, H, W)
        kspace = fft2c(coils)
        centre = torch.zeros_like(kspace)
        rows, columns = (
            slice(n // 2 - side // 2, n // 2 - side // 2 + side) for n in kspace.shape[-2:]
        )
        centre[..., rows, columns] = kspace[..., rows, columns]
        return centre

    @property
    def calibration_width(self) -> int:
        """Side of the largest central square of the grid whose points have a position nearby."""
        if "width" not in self._known:
            self._known["width"] = torch.tensor(self._find_width())
        return int(self._known["width"])

    def _find_width(self) -> int:
        shape = torch.tensor(self.domain_shape[1:])
        tree = KDTree((self.trajectory.flatten(0, 1) * shape).numpy())
        most = min(self.domain_shape[1:])
        axis = torch.arange(-(most // 2), most - most // 2)
        points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).flatten(0, 1)
        distance, _ = tree.query(points.numpy(), distance_upper_bound=GAP * (1 + 1e-6))
        free = torch.from_numpy(~np.isfinite(distance))
        if not free.any():
            return most
        # the square of side w holds -(w // 2) to w - w // 2 - 1
        needed = torch.where(points < 0, -2 * points, 2 * points + 1).amax(1)
        return max(int(needed[free].min()) - 1, 0)

    def slow_phase(self, y: Tensor) -> Tensor:
        """Slowly varying phase of the image, from the positions around the centre of k-space.

        Args:
            y: complex ``(B, C, L, N)``.

        Returns:
            complex ``(B, 1, H, W)`` of magnitude 1, or 0 where no coil sees anything.
        """
        shape = torch.tensor(self.domain_shape[1:])
        radius = (self.trajectory * shape).norm(dim=-1).to(y.device)  # grid cells, (L, N)
        window = torch.cos(math.pi * radius / PHASE_WIDTH).square() * (radius < PHASE_WIDTH / 2)
        image = self._gridded(y * window.to(y.real))
        size = image.abs()
        return torch.where(size > 0, image / torch.where(size > 0, size, 1.0), 0.0)

    def with_maps(self, sens_maps: Tensor) -> "NonCartesianMRI":
        """The operator with other coil maps, complex ``(B, C, H, W)``, one set a sample."""
        changed = object.__new__(type(self))
        changed.__dict__.update(vars(self))
        changed.sens_maps, _ = check_maps(sens_maps, self.domain_shape[1:], "C, H, W")
        changed.batch_size = len(sens_maps)
        changed.range_shape = (sens_maps.shape[1], *self.range_shape[1:])
        return changed

    def times(self, factor: Tensor) -> "NonCartesianMRI":
        """The operator of images that are first multiplied by `factor`, ``(B, 1, H, W)``."""
        turned = object.__new__(type(self))
        turned.__dict__.update(vars(self))
        turned.sens_maps = self.sens_maps * factor
        turned.batch_size = len(turned.sens_maps)
        return turned

    def sampled(self) -> Tensor:
        """The trajectory ``(L, N, 2)``."""
        return self.trajectory

    @property
    def acceleration(self) -> float:
        """Number of pixels divided by that of the grid cells of k-space with a position."""
        shape = torch.tensor(self.domain_shape[1:])
        cells = (self.trajectory.flatten(0, 1) * shape).round().long() % shape
        return math.prod(shape.tolist()) / len(cells.unique(dim=0))

    def facts(self) -> dict:
        """Description as a dict: ``operator``, ``coils``, ``lines`` and ``positions`` on each."""
        coils, lines, count = self.range_shape
        return {**super().facts(), "coils": coils, "lines": lines, "positions": count}

    def to(self, device: torch.device | str) -> "NonCartesianMRI":
        """A copy whose tensors are on `device`."""
        moved = super().to(device)
        moved.trajectory = self.trajectory  # stays where positions are needed
        return moved

    @property
    def circulant(self) -> Tensor:
        """Spectrum of the periodic convolution nearest to F^H F: ``(H, W)`` float64, not centred.

        By T. Chan's rule, which weights a shift by the part of the image that has it; smoothed over
        the grid cells that coils join.
        """
        if "circulant" not in self._known:
            height, width = self.domain_shape[1:]
            shifts = torch.fft.ifft2(self._spectrum)  # (2 H, 2 W), shift 0 first
            for axis, n in ((0, height), (1, width)):
                place = torch.arange(2 * n, dtype=torch.float64)
                part = 1 - torch.minimum(place, 2 * n - place) / n
                part = part[:, None] if axis == 0 else part
                shifts = shifts * part
                shifts = shifts.narrow(axis, 0, n) + shifts.narrow(axis, n, n)
            near = [_near(n) for n in (height, width)]
            spectrum = torch.fft.fft2(shifts * near[0][:, None] * near[1]).real
            self._known["circulant"] = spectrum.clamp(min=FLOOR * float(spectrum.max()))
        return self._known["circulant"]

    @property
    def _spectrum(self) -> Tensor:
        """Of F^H F on twice the grid, see `toeplitz_spectrum`: ``(2 H, 2 W)``."""
        if "spectrum" not in self._known:
            self._known["spectrum"] = toeplitz_spectrum(self.nufft)
        return self._known["spectrum"]

    def normal_inverse(self, regularization: Tensor) -> Callable[[Tensor], Tensor]:
        """Inverse of `circulant` plus `regularization`, see `LinearOperator.normal_inverse`."""
        factors = 1 / (self.circulant + regularization.double().cpu().reshape(-1, 1, 1, 1))

        def solve(x: Tensor) -> Tensor:
            return torch.fft.ifft2(torch.fft.fft2(x) * factors.to(x.real))

        return solve

    def _forward(self, x: Tensor) -> Tensor:
        y = self.nufft.forward(self.sens_maps.to(x.dtype) * x)  # (B, C, M)
        return y.unflatten(-1, self.range_shape[1:])

    def _adjoint(self, y: Tensor) -> Tensor:
        images = self.nufft.adjoint(y.flatten(-2))  # (B, C, H, W)
        return (self.sens_maps.to(y.dtype).conj() * images).sum(1, keepdim=True)

    def _normal(self, x: Tensor) -> Tensor:
        maps = self.sens_maps.to(x.dtype)
        images = toeplitz(maps * x, self._spectrum.to(x.real))  # (B, C, H, W)
        return (maps.conj() * images).sum(1, keepdim=True)

    def _direct(self, y: Tensor) -> Tensor:
        """The gridded image, scaled to fit y best in the squared error weighted by `density`."""
        largest = y.abs().flatten(1).amax(1)  # (B,)
        unit = torch.where(largest > 0, largest, 1.0)  # squares in any unit are within the range
        y = y / expand(unit, y)
        image = self._gridded(y)
        seen = self._forward(image)
        weighted = seen * self.density.to(y.real)
        size = dot(weighted, seen)  # (B,)
        fit = unit * torch.where(size > 0, dot(weighted, y) / torch.where(size > 0, size, 1.0), 1.0)
        return expand(fit, image) * image

    def _correct(self, x: Tensor, y: Tensor, weight: float) -> Tensor:
        return x + weight * self._gridded(y - self._forward(x))

    def _gridded(self, y: Tensor) -> Tensor:
        return self._adjoint(y * self.density.to(y.real))

    def _take(self, indices: Sequence[int]) -> "NonCartesianMRI":
        taken = object.__new__(type(self))
        taken.__dict__.update(vars(self))
        taken.sens_maps = self.sens_maps[indices]
        taken.batch_size = len(indices)
        return taken


def _lines(trajectory: str) -> int:
    """Number of lines of a simulated trajectory where none is given."""
    return 8 if trajectory == "spiral" else 40


def _near(length: int) -> Tensor:
    """Weights of shifts ``(length,)``, from 1 without a shift; not centred."""
    place = torch.arange(length, dtype=torch.float64)
    shift = torch.minimum(place, length - place) / length
    return torch.exp(-(shift**2) / (2 * JOINED**2))


def _triangle(length: int) -> Tensor:
    """From 0 at the ends of an axis of an even length to 1 at its middle, ``(length,)``."""
    middle = length // 2
    return 1 - (torch.arange(length, dtype=torch.float64) - middle).abs() / middle
