"""Scales of the spread of posterior samples, fitted to images of validation people."""

from collections.abc import Mapping

# (prior, sampler, steps, measurement) -> factor of the samples' deviation from their mean at which
# intervals of 90 % cover 90 % of the pixels of the embedded validation people, as
# `python -m benchmarks.coverage --fit` prints it
SCALES: dict[tuple[str, str, int, str], float] = {
    ("natural_small", "warm_mmps", 6, "MR"): 1.26,  # one person, 6 measurements
    ("natural_complex_small", "warm_mmps", 6, "MR complex"): 1.43,  # one person, 6 measurements
    ("natural_small", "warm_mmps", 6, "CT"): 1.10,  # three people, 6 measurements
    ("natural_small", "warm_dds", 20, "MR"): 1.64,  # one person, 6 measurements
    ("natural_complex_small", "warm_dds", 20, "MR complex"): 2.05,  # one person, 6 measurements
    ("natural_small", "warm_dds", 20, "CT"): 1.48,  # three people, 6 measurements
    ("natural_small", "dds", 20, "MR"): 2.62,  # one person, 6 measurements
    ("natural_complex_small", "dds", 20, "MR complex"): 3.00,  # one person, 6 measurements
    ("natural_small", "dds", 20, "CT"): 2.35,  # three people, 6 measurements
}
MRI, COMPLEX_MRI, CT = "MR", "MR complex", "CT"
# simulated operator -> measurement
KINDS = {"mri": MRI, "multicoil_mri": COMPLEX_MRI, "ct": CT, "fan_ct": CT}


def calibrated_steps(sampler: str, steps: int) -> int:
    """Number of a sampler's steps that scales were fitted for; `steps` where there is none.

    Args:
        sampler: name of the sampler.
        steps: its default.
    """
    fitted = {n for _, name, n, _ in SCALES if name == sampler}
    return steps if steps in fitted or not fitted else min(fitted)


def find_scale(
    prior: str, sampler: str, options: Mapping, num_steps: int, kind: str
) -> float | None:
    """The scale of samples; None where none was fitted.

    Args:
        prior: name of a shipped prior.
        sampler: name of the sampler.
        options: its keywords; scales are of the defaults, beside `sigma_y`.
        num_steps: number of its steps.
        kind: `MRI` of real images, `COMPLEX_MRI` or `CT`.
    """
    changed = {name for name, value in options.items() if value is not None} - {"sigma_y"}
    return None if changed else SCALES.get((prior, sampler, num_steps, kind))


def calibrated_scale(
    prior: str, sampler: str, options: Mapping, num_steps: int, kind: str, num_samples: int
) -> float:
    """The scale of samples for ``sampler.calibrated``.

    Args:
        prior: name of a shipped prior.
        sampler: name of the sampler.
        options: its keywords.
        num_steps: number of its steps.
        kind: see `find_scale`; "" for another measurement.
        num_samples: number of samples.

    Raises:
        ValueError: one sample, or no scale was fitted (those that were are listed).
    """
    if num_samples == 1:
        raise ValueError("expected sampler.num_samples above 1 beside sampler.calibrated")
    found = find_scale(prior, sampler, options, num_steps, kind)
    if found is None:
        known = "; ".join(f"{p}, {s} of {n} steps, {k}" for p, s, n, k in SCALES)
        raise ValueError(
            f"sampler.calibrated: no scale was fitted for {prior or 'this prior'}, {sampler} of "
            f"{num_steps} steps, {kind or 'this measurement'}, with these keywords; there are "
            f"scales for: {known}. Choose one of these, leave calibrated at None, or fit one to "
            "images of your own kind as benchmarks/coverage.py does"
        )
    return found
