"""Reconstruct a user's own measurement: k-space, sinograms, what any linear operator measured.

From Python, arrays in and arrays out:

    from reconstruct import open_measurement, reconstruct
    result = reconstruct(kspace, mask=mask)  # or reconstruct(open_measurement("scan.h5"))
    result.image, result.std, result.sigma_y

From the command line, files in and a folder of files out:

    python reconstruct.py --input=scan.h5 --out=results/scan

Every field of configs/reconstruct.py is a flag (``--config.sampler.num_samples=8``); files and
units are in docs/reconstruct.md. Run again, it continues where it was stopped.
"""

# first: says what to do where one of the packages below is missing
import configs.installed

# isort: split
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from absl import flags
from numpy.typing import ArrayLike
from torch import Tensor

import configs
from configs.ranges import check_numbers
from configs.reconstruct import default_prior
from datasets.measured import Measured
from datasets.measured_files import open_measurement
from evaluation.own.arrays import open_array
from evaluation.own.base import Input
from evaluation.own.engine import (
    Sampling,
    Solution,
    calibrate,
    check_prior,
    choose_sampling,
    describe,
    describe_outputs,
    posterior_for,
    solve_slices,
)
from evaluation.own.folder import reconstruct_file
from evaluation.own.last_level import (
    by_held_out,
    check_way,
    find_last_level,
    with_last_level,
)
from evaluation.own.noise_factor import check_noise_way, find_noise_factor, noise_by_held_out
from evaluation.own.slabs import slabs, solve_slab
from evaluation.own.validation import check_part
from evaluation.own.validation import validate as run_validation
from evaluation.own.volume import NONE, check_volume, look_at_volume, read_weight
from evaluation.run.batching import choose_size
from evaluation.run.methods import PRECISIONS
from evaluation.run.shards import find_shard
from evaluation.show.undecided import undecided
from models.checkpoint import load_prior
from operators import LinearOperator
from samplers.posterior import magnitude
from sde import Prior

__all__ = ["Prior", "Result", "load_prior", "open_measurement", "reconstruct"]


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A reconstruction, in the unit of the measurement.

    Arrays are NumPy's where the measurement was NumPy's, else tensors on its device.

    Attributes:
        image: the reconstruction; of several samples their mean. complex64 if images are complex
            (for k-space, show ``abs(result.image)``), otherwise float32.
        std: standard deviation of each pixel over the samples, float32 (of complex images that of
            the magnitude); None for one sample.
        quantile_05: limit of each pixel (of complex images of the magnitude) that the true value is
            below with a probability of 5 %, as far as samples are of the posterior
            (`samplers.posterior.prediction_quantile`), float32; None for one sample.
        quantile_95: that of 95 %.
        undecided: from 0 to 1, the part of the local detail that is not decided by the data
            (`evaluation.show.undecided.undecided`), float32; None for one sample.
        direct: the reconstruction without a prior, of the same shape: zero-filled, filtered
            back-projection, or the operator's own (`LinearOperator.direct`).
        sigma_y: standard deviation of the measurement noise (for complex data that of the real and
            of the imaginary part each), given or estimated; of several slices an array. Not all
            samplers use it.
        scale: intensity range, by which images are divided for the prior; of several slices an
            array.
        description: kind of image (point estimate, sample, mean of samples) and sampler, in words.
        outputs: what each of the images is, in words; that of `image` is called `reconstruction`.
        facts: properties of the measurement, such as coils, mask, acceleration and geometry.
        notes: unusual properties of it, which are also warned of.
        failures: number of a slice -> error message; such images are NaN.
        validation: prediction errors of left-out parts, of this and of other methods
            (`evaluation.own.validation.validate`); None if it was not asked for.
        last_level: how well left-out views are predicted by noise level
            (`evaluation.own.last_level.find_last_level`); None if the noise decided.
        noise_level: how well left-out parts of k-space are predicted by noise
            (`evaluation.own.noise_factor.find_noise_factor`); None if it was estimated or given.
        volume: weight with which slices were reconstructed together, and what it was found from
            (`evaluation.own.volume.look_at_volume`); None if it was not asked for.
    """

    image: np.ndarray | Tensor
    std: np.ndarray | Tensor | None
    direct: np.ndarray | Tensor
    sigma_y: float | np.ndarray | Tensor
    scale: float | np.ndarray | Tensor
    description: str
    facts: dict
    notes: tuple[str, ...]
    failures: dict[int, str]
    validation: dict | None = None
    last_level: dict | None = None
    noise_level: dict | None = None
    volume: dict | None = None
    quantile_05: np.ndarray | Tensor | None = None
    quantile_95: np.ndarray | Tensor | None = None
    undecided: np.ndarray | Tensor | None = None
    outputs: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        kind, shape = str(self.image.dtype).removeprefix("torch."), tuple(self.image.shape)
        noise = f"{self.sigma_y:.3g}" if isinstance(self.sigma_y, float) else "of each slice"
        return f"Result({self.description}; image {kind} {shape}; sigma_y {noise})"


def reconstruct(
    measurement: ArrayLike | Tensor | Measured,
    *,
    mask: ArrayLike | Tensor | None = None,
    maps: ArrayLike | Tensor | None = None,
    angles: ArrayLike | Tensor | None = None,
    trajectory: ArrayLike | Tensor | None = None,
    image_size: tuple[int, int] | int | None = None,
    operator: LinearOperator | None = None,
    sigma_y: float | None = None,
    prior: str | Path | Prior | None = None,
    sampler: str = "",
    num_steps: int | None = None,
    samples: int = 1,
    mean_error: float | None = None,
    calibrated: bool = False,
    seed: int = 0,
    device: str | torch.device | None = None,
    precision: str = "float32",
    options: Mapping | None = None,
    validate: float = 0.0,
    choose: Mapping[str, Sequence[float]] | None = None,
    last_level: str = "",
    noise_level: str = "",
    volume: str | float = NONE,
) -> Result:
    """Reconstruct images from k-space, sinograms, or the measurement of any linear operator.

    - **k-space**, complex: ``(H, W)``, ``(coils, H, W)`` or ``(slices, coils, H, W)``; three axes
      are always coils (slices of one coil: ``kspace[:, None]``). The origin is at
      ``(H // 2, W // 2)``, the image the centred orthonormal inverse DFT. The images are complex,
      ``(H, W)`` or ``(slices, H, W)``.
    - **k-space along a** `trajectory`, complex: ``(lines, positions)``, ``(coils, lines,
      positions)`` or ``(slices, coils, lines, positions)``. The images are complex, of
      `image_size`.
    - **a sinogram**, real, with its `angles`: ``(views, bins)`` or ``(slices, views, bins)`` line
      integrals of a parallel beam. The images are ``(bins, bins)``, attenuation a bin.
    - **a file** that `open_measurement` has opened, of k-space or sinograms of any kind that it
      reads. The images are those of all of its slices, ``(slices, H, W)``.
    - **y with its `operator`**: of its `range_shape`, or several of them ``(n, *range_shape)``. The
      images have its `domain_shape`, or ``(n, *domain_shape)``. A first axis of length 1, a
      channel, may be left out; the images are without it, too.

    Any unit will do: images come out in that of the measurement.

    Args:
        measurement: NumPy array, tensor, nested lists, or an opened file; read, never written to.
        mask: k-space: where it was measured, bool ``(H, W)`` or ``(slices, H, W)``, or its columns
            ``(W,)``. None: positions that are exactly 0 in all coils were not measured.
        maps: k-space: complex coil maps ``(coils, H, W)`` or ``(slices, coils, H, W)``, of any
            scale. None: where there are several coils, estimated from the fully measured centre of
            k-space (ESPIRiT).
        angles: sinogram: degrees of the views ``(views,)``, directions as in `operators.ct`.
        trajectory: positions of k-space, complex ``(lines, positions)`` or real ``(lines,
            positions, 2)``, along rows and columns of the image: in cycles per pixel (up to 0.5),
            radians per pixel (up to pi) or cycles per field of view (up to half of `image_size`).
        image_size: with a trajectory, or of a file: rows and columns of the image in pixels, or one
            number for both; None: of the file or the maps, or twice the extent of a trajectory in
            cycles per field of view.
        operator: measurement model of any other `measurement`, such as `operators.FanBeamCT`,
            `operators.FunctionOperator` or a `LinearOperator` of your own; it gets tensors on
            `device`. (For MRI better give k-space, mask and maps: the slowly varying phase of the
            image is then removed for the prior.)
        sigma_y: standard deviation of the measurement noise in the unit of `measurement` (for
            complex data that of the real and of the imaginary part each); 0: no noise. None: it is
            estimated for each slice, or, with a warning, taken for 0 if the operator has no
            estimate.
        prior: name of a shipped prior, path of a checkpoint or of a training run's folder, or a
            `Prior`, e.g. `Prior.from_denoiser`; None: "natural_complex_small" for complex images,
            "natural_small" for real ones.
        sampler: a key of `samplers.SAMPLERS`; "": `pnp`, a point estimate, for one sample,
            `warm_mmps` for several, and `warm_dds` for several of fan beams and of an `operator`.
        num_steps: number of steps of the sampler; None: its default (`samplers.NUM_STEPS`).
        samples: number of posterior samples, whose mean, standard deviation and quantiles are the
            result. As many as fit are drawn at a time.
        mean_error: with several `samples`: stop when the Monte Carlo error of their mean is this
            part of the standard deviation (0.25 takes 16); None: draw all.
        calibrated: with several `samples` of a shipped prior, given by name: multiply their
            deviations from the mean by a factor that was fitted to images of other people
            (`evaluation.run.calibrated`), for standard deviation and quantiles. The default of
            `num_steps` is then what it was fitted for.
        seed: seed of the random numbers, together with the number of each slice.
        device: device of the computation; None: that of the prior, or, for the name of a prior, a
            GPU if there is one.
        precision: precision of a prior that is given by name: "float32", "bfloat16" or "float16".
        options: further keywords of the sampler, such as ``{"eta": 0.5}``.
        validate: fraction of the measured lines or points of k-space, or of the views, that is
            first left out of up to three slices and predicted, see `Result.validation`; 0: none.
        choose: a keyword of the sampler and its values, such as ``{"strength": (0.1, 0.23)}``, of
            which the one that predicts the left-out part best is used.
        last_level: how the noise level is found at which `pnp` ends: "noise", what that of the
            measurement is in an image, or "held_out", where a tenth of the measurement, left out of
            up to three slices, is predicted best (20 network calls each; it sees errors of the
            model, too, such as beam hardening). "": "held_out" for sinograms of ten views or more,
            "noise" else.
        noise_level: how the noise of k-space is found if `sigma_y` is None: "estimated", from its
            quietest part, or "held_out", that estimate times the factor from 1/4 to 8 with which a
            tenth of the data, left out of up to three slices, is predicted best (20 network calls
            each for some three to five factors). "": "held_out" where points were measured one by
            one or along a trajectory.

    Returns:
        A `Result`.

    Raises:
        ValueError, TypeError, FileNotFoundError: before the network is called, if something does
            not fit; the message says what was expected, what was given, and what to do.
        FloatingPointError: every slice became NaN or infinite.
    """
    chosen = (num_steps, samples, sigma_y, mean_error, calibrated, options)
    sampling = _choose(sampler, *chosen)
    choose = dict(choose or {})
    check_part(validate, choose, sampling)
    check_way(last_level)
    check_noise_way(noise_level)
    weight = read_weight(volume)
    opened, axes = open_array(
        measurement,
        mask=mask,
        maps=maps,
        angles=angles,
        trajectory=trajectory,
        image_size=image_size,
        operator=operator,
    )
    sampling = _choose(posterior_for(opened, sampler, samples), *chosen)
    unknown = operator is not None and operator[0].noise(opened.y[:1]) is None
    if unknown and sigma_y is None and sampling.uses_noise:
        opened.notes.append(
            f"{type(operator).__name__} cannot tell how noisy a measurement is: it is taken as "
            "free of noise; say so with sigma_y=0, or give the noise's standard deviation"
        )
    check_volume(weight, opened, sampling)
    held_out = by_held_out(last_level, opened, sampling, choose)
    check_the_noise = noise_by_held_out(noise_level, opened, sampling)
    prior = default_prior(opened.is_complex) if prior is None else prior
    sampling = calibrate(sampling, prior if isinstance(prior, str) else "", opened)
    prior, device = _open_prior(prior, device, precision, measurement)
    check_prior(prior, opened, sampling, choose)
    for note in opened.notes:
        warnings.warn(note, stacklevel=2)
    validation = factor = found = None
    if check_the_noise:
        factor = find_noise_factor(opened, prior, way=noise_level, seed=seed, device=device)
        sampling = sampling._replace(noise_factor=factor["factor"])
    if held_out:
        found = find_last_level(opened, sampling, prior, seed=seed, device=device)
        sampling = with_last_level(sampling, found)
    if validate:
        validation = run_validation(
            opened, validate, sampling, prior, seed=seed, device=device, choices=choose
        )
        sampling = sampling._replace(options=sampling.options | validation["chosen"])
    together = None
    if weight != NONE:
        together = look_at_volume(
            opened,
            weight,
            sampling,
            prior,
            seed=seed,
            device=device,
            size=choose_size(0, device.type),
        )
    by_slabs = together is not None and together["weight"] != NONE
    if by_slabs:
        solution = _solve_volume(opened, together, sampling, prior, device)
    else:
        solution = _solve_all(opened, sampling, prior, seed, device)
    if len(solution.failures) == len(opened.keys):
        raise FloatingPointError(f"no image is usable: {solution.failures[0]}")
    for number, reason in solution.failures.items():
        warnings.warn(f"slice {number} is NaN: {reason}", stacklevel=2)

    def like_measurement(values: Tensor) -> np.ndarray | Tensor:
        values = values.contiguous()
        return values.to(measurement.device) if is_tensor else values.cpu().numpy()

    def number(values: Tensor) -> float | np.ndarray | Tensor:
        return like_measurement(values) if axes.slices else float(values[0])

    is_tensor = isinstance(measurement, Tensor)
    return Result(
        image=like_measurement(axes.apply(solution.image)),
        **_spread(solution, samples, lambda x: like_measurement(axes.apply(x))),
        direct=like_measurement(axes.apply(solution.direct)),
        sigma_y=number(solution.sigma_y),
        scale=number(solution.scale),
        description=describe(sampling),
        facts=dict(opened.facts),
        notes=tuple(opened.notes),
        failures=solution.failures,
        validation=validation,
        last_level=found,
        noise_level=factor,
        volume=together,
        outputs=describe_outputs(sampling, opened),
    )


def _spread(
    solution: Solution, samples: int, finish: Callable[[Tensor], np.ndarray | Tensor]
) -> dict:
    """How samples differ: images of a `Result` by name."""
    if samples == 1:
        return {"std": None}
    pairs = zip(magnitude(solution.image).cpu(), solution.std.cpu(), strict=True)
    maps = [torch.from_numpy(undecided(x[0].numpy(), std[0].numpy())) for x, std in pairs]
    images = {
        "std": solution.std,
        "quantile_05": solution.low,
        "quantile_95": solution.high,
        "undecided": torch.stack(maps)[:, None].to(solution.std.device),
    }
    return {name: finish(image) for name, image in images.items()}


def _choose(
    sampler: str,
    num_steps: int | None,
    samples: int,
    sigma_y: float | None,
    mean_error: float | None,
    calibrated: bool,
    options: Mapping | None,
) -> Sampling:
    """`choose_sampling`, its arguments checked as those of a command line are."""
    given = dict(options or {})
    for name, value in {"samples": samples, "num_steps": num_steps}.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise TypeError(f"expected {name} as an int, got {value!r}")
    own = given.keys() & {"sigma_y", "num_steps", "num_samples", "mean_error", "calibrated", "name"}
    if own:
        raise ValueError(f"expected {', '.join(sorted(own))} outside of options, got it in them")
    sigma_y = None if sigma_y is None else float(sigma_y)
    numbers = {"num_steps": num_steps, "num_samples": samples, "sigma_y": sigma_y}
    check_numbers(given | numbers, "sampler.")
    return choose_sampling(
        sampler,
        num_steps=num_steps,
        num_samples=samples,
        sigma_y=sigma_y,
        options=given,
        mean_error=mean_error,
        calibrated=calibrated,
    )


def _open_prior(
    prior: str | Path | Prior,
    device: str | torch.device | None,
    precision: str,
    measurement: ArrayLike | Tensor | Measured,
) -> tuple[Prior, torch.device]:
    """The prior, and the device that its network is on."""
    if precision not in PRECISIONS:
        raise ValueError(f"expected precision in {list(PRECISIONS)}, got {precision!r}")
    if isinstance(prior, str | Path):
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        prior = load_prior(prior, device, autocast=PRECISIONS[precision])
        return prior, torch.device(device)
    if not (isinstance(prior, tuple) and len(prior) == 2 and callable(prior[0])):
        raise TypeError(
            f"expected prior as a name, a path or a Prior, got {type(prior).__name__}; a denoiser "
            "becomes one by Prior.from_denoiser(net, sigma_min=..., sigma_max=...)"
        )
    if precision != "float32":
        raise ValueError(f"expected precision of a prior that is loaded by name, got {precision!r}")
    there = measurement.device if isinstance(measurement, Tensor) else "cpu"
    device = device or getattr(prior[0], "device", None) or there
    return Prior(*prior).checked(), torch.device(device)


def _solve_all(
    opened: Input, sampling: Sampling, prior: Prior, seed: int, device: torch.device
) -> Solution:
    """All slices, as many at a time as memory has room for; images that failed are NaN."""
    left, found = list(range(len(opened.keys))), []
    most = choose_size(0, device.type)  # slices times samples
    size = opened.largest_batch or most
    while left:
        batch = left[:size]
        try:
            solution = solve_slices(
                opened, batch, sampling, prior, seed=seed, device=device, size=most
            )
        except (MemoryError, RuntimeError) as error:
            if len(batch) == 1 or not configs.is_out_of_memory(error):
                raise
            size = len(batch) // 2
            continue
        found.append(solution)
        left = left[len(batch) :]
    return _joined(found)


def _solve_volume(
    opened: Input, together: dict, sampling: Sampling, prior: Prior, device: torch.device
) -> Solution:
    """All slices, slab by slab; images that failed are NaN."""
    how = {"device": device, "size": choose_size(0, device.type)}
    parts = slabs(len(opened.keys))
    return _joined([solve_slab(opened, slab, together, sampling, prior, **how) for slab in parts])


def _joined(found: list[Solution]) -> Solution:
    """Solutions of successive slices as one; images that failed are NaN."""
    starts = np.cumsum([0, *(len(part.scale) for part in found)])
    failures = {
        int(start) + b: reason
        for start, part in zip(starts, found, strict=False)
        for b, reason in part.failures.items()
    }
    tensors = (torch.cat(parts) for parts in zip(*(part[:-1] for part in found), strict=True))
    solution = Solution(*tensors, failures)
    for images in (solution.image, solution.std, solution.low, solution.high):
        images[list(failures)] = torch.nan
    return solution


def main(_) -> None:
    """Command line."""
    out = Path(flags.FLAGS.out)
    with configs.clear_errors():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        shard = find_shard(flags.FLAGS.shard, os.environ)
        source = Path(flags.FLAGS.input)
        summary = reconstruct_file(flags.FLAGS.config, source, out, device, shard)
    if summary is None:
        return
    noise = summary["noise"]
    if noise["origin"] == "estimated":
        print(f"estimated noise: {noise['least']:.3g} to {noise['most']:.3g} (sampler.sigma_y)")
    for name, metrics in summary.get("metrics", {}).items():
        print(
            f"{name}: {_number(metrics['psnr'], '.2f')} dB, SSIM {_number(metrics['ssim'], '.4f')}"
        )
    for name, metrics in summary.get("metrics_across", {}).items():
        known = {way: metrics[f"psnr_{way}"] for way in ("rows", "columns")}
        text = ", ".join(f"{v:.2f} dB along {way}" for way, v in known.items() if v is not None)
        print(f"{name}, across the slices: {text or 'nothing to compare'}")
    pictures = [out / name for name in ("report.html", "preview.png")]
    print(f"results: {out} (look at {next(p for p in pictures if p.is_file())})")


def _number(value: float | None, form: str) -> str:
    """A mean of metrics as text; "-" where it is infinite or does not exist."""
    return "-" if value is None else f"{value:{form}}"


if __name__ == "__main__":
    flags.DEFINE_string("shard", "auto", "auto, slurm or RANK/WORLD: see evaluation/run/shards.py")
    configs.define_flags(
        "configs/reconstruct.py",
        input="file or folder: k-space, sinogram, or images (docs/reconstruct.md)",
        out="folder of the results",
    )
    configs.run(main)
