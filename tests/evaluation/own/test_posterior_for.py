"""Which sampler draws several samples by default: moment matching where its solutions are quick."""

from types import SimpleNamespace

import pytest

from evaluation.own.engine import posterior_for


@pytest.mark.parametrize(
    ("kind", "facts", "expected"),
    [
        ("k-space", {}, ""),
        ("a sinogram", {"geometry": "parallel"}, ""),
        ("images", {"simulated": "mri"}, ""),
        ("images", {"simulated": "ct"}, ""),
        ("images", {"simulated": "superresolution"}, "warm_dds"),
        ("a sinogram", {"geometry": "fan"}, "warm_dds"),
        ("images", {"simulated": "fan_ct"}, "warm_dds"),
        ("k-space along a trajectory", {}, ""),
        ("measurements", {}, "warm_dds"),
    ],
)
def test_the_default_depends_on_the_input(kind, facts, expected):
    opened = SimpleNamespace(kind=kind, facts=facts)
    assert posterior_for(opened, "", 4) == expected
    assert posterior_for(opened, "", 1) == ""
    assert posterior_for(opened, "mmps", 4) == "mmps"
