"""Invalid keywords of samplers are found by a rehearsal, valid ones pass."""

import pytest

from evaluation.run.keywords import starts_warm
from evaluation.run.rehearsal import rehearse
from samplers import NUM_STEPS, SAMPLERS
from sde import VESDE

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = {"MR": (False, False), "complex MR": (False, True), "CT": (True, False)}


def tried(name, kind="MR", num_steps=0, **options):
    ct, is_complex = KINDS[kind]
    rehearse(
        name,
        VESDE(0.01, 5.0),
        num_steps=num_steps or NUM_STEPS[name],
        options=options,
        warm=starts_warm(name, options),
        ct=ct,
        is_complex=is_complex,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_defaults_pass(name, kind):
    tried(name, kind)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pnp", {"momentum": 1.5}, "momentum"),
        ("pnp", {"start_sigma": 50.0}, "start_sigma"),
        ("pnp", {"num_steps": 1}, "num_steps"),
        ("dds", {"end_sigma": 0.001}, "end_sigma"),
        ("warm_dds", {"start_sigma": 50.0, "point_steps": 3}, "start_sigma"),
    ],
)
def test_invalid_values_are_found_in_the_words_of_the_sampler(name, options, message):
    with pytest.raises(ValueError, match=message):
        tried(name, **options)


def test_it_ends_after_the_first_step(monkeypatch):
    calls = []
    sampler = SAMPLERS["pnp"]
    monkeypatch.setitem(
        SAMPLERS,
        "pnp",
        lambda score, *args, **kwargs: sampler(
            lambda x, sigma: calls.append(1) or score(x, sigma), *args, **kwargs
        ),
    )
    tried("pnp", num_steps=1000)
    assert len(calls) == 1
