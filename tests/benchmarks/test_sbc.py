"""Rank histograms: uniform for exact samples of a known posterior, rejected for other ones."""

import pytest
import torch

from benchmarks import sbc
from benchmarks.calibration import inpainting
from benchmarks.coverage import read
from benchmarks.gaussian_posterior import toy_ct, toy_mri
from operators.batch import expand
from sde import Prior


@pytest.mark.parametrize(("operator", "noise"), [(toy_mri, 0.1), (toy_ct, 0.0), (inpainting, 0.1)])
def test_exact_samples_are_uniform_and_half_of_the_variance_is_not(operator, noise):
    simulation = sbc.simulate(sbc.gaussian_images(300, 0), operator(), noise, seed=0)
    exact = sbc.rows_from(simulation, sbc.exact_samples(simulation, 15, 1), seed=0)
    half = sbc.rows_from(simulation, sbc.exact_samples(simulation, 15, 1, part=0.5), seed=0)
    names = {"pixel", "difference", "region", "direction", "unmeasured"}
    assert {row["functional"] for row in exact} == names | ({"measured"} if noise else set())
    assert all(row["p"] > 0.01 for row in exact)
    assert all(0.7 < row["ends"] < 1.3 for row in exact)
    for row in half:
        # a pixel that inpainting measures without much noise, and those beside it, differ little
        assert row["p"] < 0.01
        assert row["ends"] > 1.3


def test_a_wrong_mean_is_rejected():
    simulation = sbc.simulate(sbc.gaussian_images(300, 0), toy_mri(), 0.1, seed=0)
    samples = sbc.exact_samples(simulation, 15, 1) + 0.2
    (row,) = (r for r in sbc.rows_from(simulation, samples, 0) if r["functional"] == "pixel")
    assert row["p"] < 1e-6
    assert row["middle"] < 0.3  # true values are below their samples


def test_ranks_by_hand():
    images = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 1, 1, 2)
    samples = torch.tensor([-10.0, 0.0, 10.0]).reshape(3, 1, 1, 1, 1) + 0.5 * images
    weights = torch.tensor([1.0, -1.0]).reshape(1, 1, 1, 2).expand(2, 1, 1, 2)
    # true values are -1; those of all samples -0.5
    assert sbc.ranks(weights, images, samples).tolist() == [0, 0]
    first = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2).expand(2, 1, 1, 2)
    assert sbc.ranks(first, images, samples).tolist() == [2, 2]


def test_histogram_and_its_test():
    even = torch.arange(16).repeat(25)
    assert sbc.chi_square(even, 15) == ([50] * 8, 1.0)
    histogram, p = sbc.chi_square(torch.zeros(400, dtype=torch.long), 15)
    assert histogram == [400, 0, 0, 0, 0, 0, 0, 0]
    assert p < 1e-100
    with pytest.raises(ValueError, match="expected 8 n - 1 samples, such as 15, got 16"):
        sbc.chi_square(even, 16)


def test_functionals_see_what_they_say():
    simulation = sbc.simulate(sbc.gaussian_images(20, 0), toy_mri(), 0.1, seed=0)
    weights = sbc.functionals(simulation, 0)
    operator = simulation.operator
    torch.testing.assert_close(operator.normal(weights["measured"]), weights["measured"])
    assert operator.forward(weights["unmeasured"]).abs().max() < 1e-12
    assert (weights["pixel"].flatten(1).sum(1) == 1).all()
    assert (weights["difference"].flatten(1).sum(1) == 0).all()
    assert (weights["region"].flatten(1).sum(1) == 4).all()
    again = sbc.functionals(simulation, 0)
    assert all(torch.equal(again[name], w) for name, w in weights.items())


def test_a_run_continues_with_a_network_or_the_gaussian(tmp_path):
    opened = []

    def prior(name):
        opened.append(name)
        return Prior.from_denoiser(
            lambda x, s: x / (1 + expand(s, x) ** 2), sigma_min=0.01, sigma_max=1.0
        )

    def again(name, samplers):
        sbc.run(
            tmp_path,
            prior=name,
            samplers=samplers,
            kinds=["mri"],
            noises=[0.1],
            images=16,
            side=16,
            num_steps=2,
            open_prior=prior,
        )
        return read(tmp_path / "sbc.csv")

    assert len(again("any", ["dds"])) == 6
    assert len(again("any", ["dds"])) == 6
    assert opened == ["any"]
    assert len(again("any", ["dds", "dps"])) == 12
    rows = again("gaussian", ["exact", "dds"])
    assert len(rows) == 24
    assert len(sbc.markdown(rows).splitlines()) == 2 + 4
