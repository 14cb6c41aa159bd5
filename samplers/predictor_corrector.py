"""Predictor-corrector posterior sampling of Chung & Ye, MedIA 2022 (algorithms 2 to 4)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand, norm
from samplers.watch import Callback, Watch, empty_images, level
from sde import VESDE, Score

SNR = 0.16  # signal-to-noise ratio of the Langevin corrector (Song et al. 2021, table 5)
PREDICTORS = ("reverse_diffusion", "euler_maruyama", "none")
CORRECTORS = ("langevin", "none")
FINALS = ("mean", "sample", "study")
STARTS = ("prior", "residual")

# the original code's deviations from its algorithm (the study ran this); its data step for CT is
# made once at the end, too

NUM_STEPS = 500  # noise levels where none are asked for
SPREAD = "samples take noise for image: with noise they spread too little"  # docs/samplers.md
STUDY = {"final": "study", "complex_start": False, "truncated_label": True}
STUDY_CT = STUDY | {"final": "sample", "start": "residual"}


@torch.no_grad()
def predictor_corrector(
    score: Score,
    sde: VESDE,
    operator: LinearOperator,
    y: Tensor,
    *,
    rng: BatchGenerator,
    num_steps: int,
    snr: float = SNR,
    corrector_steps: int = 1,
    weight: float = 1.0,
    predictor: str = "reverse_diffusion",
    corrector: str = "langevin",
    initial: Tensor | None = None,
    start_sigma: float | None = None,
    start_level: int | None = None,
    start: str = "prior",
    final: str = "mean",
    complex_start: bool = True,
    truncated_label: bool = False,
    after_step: Callable[[int, Tensor], Tensor] | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Sample images given y = A x: Langevin corrector, data, reverse-diffusion predictor, data.

    Random numbers are drawn per sample in the order: start, then per step the corrector's, the
    predictor's (of complex images the whole real part first). With `operators.Unmeasured` this is
    the unconditional sampler of Song et al. (2021).

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its noise schedule.
        operator: measurement model; its `correct` is the data-consistency step P.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator a sample.
        num_steps: N, noise levels; without warm start the score is called
            (1 + corrector_steps) N times.
        snr: r of the corrector's step 2 (r |z| / |s|)^2.
        corrector_steps: Langevin steps a level.
        weight: lambda, relaxation of the data consistency in every step (a start from the prior is
            made fully consistent).
        predictor: one of `PREDICTORS`.
        corrector: one of `CORRECTORS`.
        initial: images ``(B, *domain_shape)`` for a warm start (Come-Closer-Diffuse-Faster, Chung
            et al., CVPR 2022): noise of the starting level is added to them. Needs one of:
        start_sigma: start at the first level that is not above it;
        start_level: or at level N' of N, counted from the smallest.
        start: from ``"prior"``, that is noise of the first level (on `initial`, where it is given),
            made consistent with the data; or from ``"residual"``, A^T (y - A x) of that x, neither
            normalised nor made consistent, as the original code does for CT (A^T is its own
            back-projection, the `study_adjoint` of a parallel beam).
        final: what is returned: ``"mean"``, P of the last noise-free mean; ``"sample"``, the noisy
            sample; ``"study"``, what the original code returns: for real images P(P(.)) of the
            noisy sample, which leaves noise of sigma_min and relaxes twice, for complex images
            as ``"mean"``.
        complex_start: whether complex images start from complex noise; the original code starts
            from real noise. Without effect on real images.
        truncated_label: after a warm start, tell the network the levels of a schedule that ends
            at the starting level, as the original code does, not the true ones.
        after_step: (step, x) -> x, a further change of the state at the end of each step; where the
            mean is returned, the last step's is made to that, too.
        callback: called after each step with (step, sigma, x).

    Returns:
        ``(B, *domain_shape)`` images.

    Raises:
        ValueError: an unknown name, or warm-start arguments that do not go together.
        NonFiniteError: some samples became NaN or infinite; the others are in it.
    """
    _check_name("predictor", predictor, PREDICTORS)
    _check_name("corrector", corrector, CORRECTORS)
    _check_name("start", start, STARTS)
    _check_name("final", final, FINALS)
    x = empty_images(operator, y)
    sigmas = sde.sigma(sde.sampling_times(num_steps)).tolist()
    first = first_step(sigmas, initial, start_sigma, start_level)
    labels = sigmas
    if initial is not None:
        x = initial.to(x) + sigmas[first] * _start_noise(x, rng, complex_start)
        if truncated_label:
            truncated = VESDE(sde.sigma_min, sigmas[first], sde.eps)
            labels = truncated.sigma(sde.sampling_times(num_steps)).tolist()
    else:
        x = sde.sigma_max * _start_noise(x, rng, complex_start)
    if start == "residual":
        back_project = getattr(operator, "study_adjoint", operator.adjoint)
        x = back_project(y - operator.forward(x))
    else:
        x = operator.correct(x, y)

    watch = Watch(rng, callback)
    step = _predictor_step(predictor, sde, num_steps)
    mean = x
    for i in range(first, num_steps):
        label = level(x, labels[i])
        for _ in range(corrector_steps if corrector == "langevin" else 0):
            mean, x = langevin_step(x, score(x, label), rng.normal_like(x), snr)
            x = operator.correct(x, y, weight)
        if predictor != "none":
            mean, x = step(i, x, score(x, label), rng)
            x = operator.correct(x, y, weight)
        if after_step is not None:
            x = after_step(i, x)
        watch(sigmas[i], x)

    if final == "mean" or (final == "study" and operator.domain_complex):
        mean = operator.correct(mean, y, weight)
        return watch.finish(mean if after_step is None else after_step(num_steps - 1, mean))
    return watch.finish(operator.correct(x, y, weight) if final == "study" else x)


def langevin_step(x: Tensor, score: Tensor, noise: Tensor, snr: float) -> tuple[Tensor, Tensor]:
    """(mean, sample) of x + e s + sqrt(2 e) z with e = 2 (snr |z| / |s|)^2 per sample.

    The real and the imaginary part of a complex image each have a step of their own, as each is
    an image to the network.
    """
    if x.is_complex():
        real = langevin_step(x.real, score.real, noise.real, snr)
        imag = langevin_step(x.imag, score.imag, noise.imag, snr)
        return torch.complex(real[0], imag[0]), torch.complex(real[1], imag[1])
    step = expand(2 * (snr * norm(noise) / norm(score)) ** 2, x)  # (B, 1, 1, 1)
    mean = x + step * score
    return mean, mean + torch.sqrt(2 * step) * noise


def _predictor_step(name: str, sde: VESDE, num_steps: int):
    """(step, x, score, rng) -> (mean, sample) of one step of the reverse SDE.

    Euler-Maruyama with dt = -1/N uses g(t) at the step's time; reverse diffusion uses the exact
    variance between two levels (Song et al. 2021, appendices E and F).
    """
    if name == "euler_maruyama":
        times = sde.sampling_times(num_steps)
        scales = (sde.diffusion(times) / math.sqrt(num_steps)).tolist()
    else:
        scales = sde.increments(num_steps).tolist()

    def step(i: int, x: Tensor, score: Tensor, rng: BatchGenerator) -> tuple[Tensor, Tensor]:
        mean = x + scales[i] ** 2 * score
        return mean, mean + scales[i] * rng.normal_like(x)

    return step


def first_step(
    sigmas: list[float],
    initial: Tensor | None,
    start_sigma: float | None,
    start_level: int | None,
) -> int:
    """The step to begin with: 0 without a warm start, else as `predictor_corrector` says.

    Raises:
        ValueError: arguments that do not go together, or a level that does not exist.
    """
    given = [v for v in (start_sigma, start_level) if v is not None]
    if initial is None and not given:
        return 0
    if initial is None or len(given) != 1:
        raise ValueError(
            "expected a warm start with `initial` images and either start_sigma or start_level, "
            f"got initial={'None' if initial is None else 'images'}, start_sigma={start_sigma}, "
            f"start_level={start_level}"
        )
    if start_level is not None:
        if not 1 <= start_level <= len(sigmas):
            raise ValueError(f"expected start_level in 1 ... {len(sigmas)}, got {start_level}")
        return len(sigmas) - start_level
    below = [i for i, sigma in enumerate(sigmas) if sigma <= start_sigma]
    if not below:
        raise ValueError(f"expected start_sigma of at least {sigmas[-1]:.4g}, got {start_sigma}")
    return below[0]


def _start_noise(x: Tensor, rng: BatchGenerator, complex_start: bool) -> Tensor:
    """Standard normal noise like `x`; real-valued for complex images unless `complex_start`."""
    if x.is_complex() and not complex_start:
        return rng.normal_like(x.real).to(x.dtype)
    return rng.normal_like(x)


def _check_name(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"expected {field} to be one of {known}, got {value!r}")
