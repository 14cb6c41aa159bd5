"""Predictor-corrector posterior sampling: Chung & Ye, MedIA 2022 (algorithms 2 to 4)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.batch import BatchGenerator, expand, norm
from samplers.watch import Callback, Watch, empty_images, level
from sde import VESDE, Score

SNR = 0.16  # signal-to-noise ratio of the Langevin corrector (Song et al. 2021, table 5)
PREDICTORS = ("reverse_diffusion", "euler_maruyama", "ancestral", "none")
CORRECTORS = ("langevin", "none")
FINALS = ("mean", "sample", "study")
STARTS = ("prior", "residual", "noise")

# the original code's deviations from its algorithm (the study ran this); its data step for CT is
# made once at the end, too

NUM_STEPS = 500  # default number of noise levels
SPREAD = "samples take noise for image: with noise they spread too little"  # docs/samplers.md
STUDY = {"final": "study", "complex_start": False, "truncated_label": True}
STUDY_CT = STUDY | {"final": "sample", "start": "residual"}
# of 2026: MRI and fan beams, and parallel beams, whose D is twice as large
STUDY_2026 = {"start": "noise", "weight": 2.0, "final": "mean"}
STUDY_2026_CT = STUDY_2026 | {"weight": 1.0}


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
    """Predictor-corrector sampling (Chung & Ye, MedIA 2022, algorithms 2 to 4) given y = A x.

    Each noise level has corrector steps (Langevin) and a predictor step (reverse diffusion), each
    followed by the data-consistency step P. With `operators.Unmeasured` this is the unconditional
    sampler of Song et al. (ICLR 2021).

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        sde: its noise schedule.
        operator: measurement model; its `correct` is the data-consistency step P.
        y: ``(B, *range_shape)`` measurement.
        rng: one generator per sample; draws the start, then per step the corrector's noise and the
            predictor's (of complex images the whole real part first).
        num_steps: number of noise levels N; without a warm start the score is called
            (1 + corrector_steps) N times.
        snr: signal-to-noise ratio r of the corrector, whose step is 2 (r |z| / |s|)^2.
        corrector_steps: Langevin steps per level.
        weight: lambda, relaxation of the data consistency in every step (a start from the prior is
            made fully consistent). 1 replaces measured k-space; 2, the study's of 2026, turns the
            error of real images around at frequencies whose mirror is measured as well, and is the
            largest stable value for a fan beam.
        predictor: one of `PREDICTORS`; "ancestral" adds the noise of the exact step back along the
            ladder (Song et al. 2021, equation 47, appendix F), less than "reverse_diffusion".
        corrector: one of `CORRECTORS`.
        initial: ``(B, *domain_shape)`` images for a warm start (Come-Closer-Diffuse-Faster, Chung
            et al., CVPR 2022), to which noise of the first level is added; needs either
            `start_sigma` or `start_level`.
        start_sigma: start at the first level that is not above this one.
        start_level: start at level N' of N, counted from the smallest.
        start: ``"prior"``: start from noise of the first level (added to `initial`, if given), made
            consistent with the data; ``"residual"``: start from A^T (y - A x) of that x, neither
            normalised nor made consistent, as the original code does for CT (A^T is its own
            back-projection, `study_adjoint` of a parallel beam); ``"noise"``: start from that x
            without any data step.
        final: what is returned: ``"mean"``, P of the last noise-free mean; ``"sample"``, the noisy
            sample; ``"study"``, the result of the original code: for real images P(P(.)) of the
            noisy sample, in which noise of sigma_min stays and which relaxes twice, for complex
            images the same as ``"mean"``.
        complex_start: whether complex images start from complex noise; in the original code they
            start from real noise. Has no effect on real images.
        truncated_label: whether the network is told, after a warm start, the levels of a schedule
            that ends at the first level, as in the original code, instead of the true ones.
        after_step: (step, x) -> x, a further change of x at the end of each step; the change of the
            last step is also made to the mean, if that is returned.
        callback: called after each step with (step, sigma, x).

    Returns:
        ``(B, *domain_shape)`` images, complex if the operator's are.

    Raises:
        ValueError: an unknown name, or warm-start arguments that do not go together.
        NonFiniteError: some samples became NaN or infinite; it holds the others.
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
    # a start that is consistent with the data, or the original code's for CT
    if start == "residual":
        back_project = getattr(operator, "study_adjoint", operator.adjoint)
        x = back_project(y - operator.forward(x))
    elif start == "prior":
        x = operator.correct(x, y)

    watch = Watch(rng, callback)
    step = _predictor_step(predictor, sde, num_steps)
    mean = x
    for i in range(first, num_steps):
        label = level(x, labels[i])
        # corrector, then data consistency
        for _ in range(corrector_steps if corrector == "langevin" else 0):
            mean, x = langevin_step(x, score(x, label), rng.normal_like(x), snr)
            x = operator.correct(x, y, weight)
        # predictor, then data consistency
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
    """Langevin step with step size e = 2 (snr |z| / |s|)^2 for each sample.

    The real and the imaginary part of complex images have their own step sizes, as each is an image
    to the network.

    Args:
        x: ``(B, *domain_shape)`` images.
        score: their score s.
        noise: standard normal noise z.
        snr: signal-to-noise ratio.

    Returns:
        Mean x + e s, and sample x + e s + sqrt(2 e) z.
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
    variance between two levels; ancestral steps have that of the lower level given image and upper
    level (Song et al. 2021, appendices E and F).
    """
    if name == "euler_maruyama":
        times = sde.sampling_times(num_steps)
        scales = (sde.diffusion(times) / math.sqrt(num_steps)).tolist()
    else:
        scales = sde.increments(num_steps).tolist()
    noises = sde.ancestral_noise(num_steps).tolist() if name == "ancestral" else scales

    def step(i: int, x: Tensor, score: Tensor, rng: BatchGenerator) -> tuple[Tensor, Tensor]:
        mean = x + scales[i] ** 2 * score
        return mean, mean + noises[i] * rng.normal_like(x)

    return step


def first_step(
    sigmas: list[float],
    initial: Tensor | None,
    start_sigma: float | None,
    start_level: int | None,
) -> int:
    """Number of the first step; 0 without a warm start (see `predictor_corrector`).

    Args:
        sigmas: noise levels of the steps, falling.
        initial: images of a warm start, or None.
        start_sigma: level of a warm start, or None.
        start_level: number of its level from the smallest, or None.

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
