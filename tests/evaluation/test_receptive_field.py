"""Effective receptive fields: exact where the denoiser is known, and the command."""

import csv

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from evaluation import receptive_field as command
from evaluation.run.receptive_field import (
    denoiser_field,
    outside,
    radii_of,
    study_diameter,
    study_field,
)
from models import checkpoint
from tests.helpers.tiny_prior import write_prior

KERNEL = torch.tensor([[0.0, 1, 0], [2, 8, 3], [0, 4, 0]])[None, None]


pytestmark = pytest.mark.usefixtures("one_thread")


def linear_score(x, sigma):
    """The score whose denoiser is a correlation with KERNEL / 18."""
    clean = F.conv2d(x, KERNEL.to(x) / 18, padding=1)
    return (clean - x) / sigma[:, None, None, None] ** 2


@pytest.mark.parametrize("sigma", [0.01, 1.0, 10.0])
def test_the_field_of_a_linear_denoiser_is_its_kernel(sigma):
    images = torch.rand(3, 1, 12, 16, generator=torch.Generator().manual_seed(0)).double()
    found = denoiser_field(linear_score, images, sigma, pixels=2, seed=1)
    assert found.energy.shape == (23, 31)
    expected = np.zeros((23, 31))
    expected[10:13, 14:17] = (KERNEL[0, 0].double() / 18).square()
    np.testing.assert_allclose(found.energy, expected, atol=1e-9)
    # 64 of 94 in the middle, all within 1 pixel
    assert found.radii == (0.0, 1.0, 1.0)
    assert outside(found.energy, 3) < 1e-9
    assert outside(found.energy, 1) == pytest.approx(30 / 94, rel=1e-6)
    assert outside(found.energy, None) == 0


def test_radii_hold_their_shares():
    energy = np.zeros((9, 9))
    energy[4, 4], energy[4, 6], energy[1, 4], energy[0, 0] = 50, 30, 15, 5
    assert radii_of(energy, (0.5, 0.51, 0.8, 0.95, 0.951)) == pytest.approx(
        (0, 2, 2, 3, np.sqrt(32))
    )
    y, x = np.mgrid[-40:41, -40:41]
    disc = (y**2 + x**2 <= 30**2).astype(float)
    assert radii_of(disc, (0.5,))[0] == pytest.approx(30 / np.sqrt(2), abs=0.5)


def test_images_do_not_depend_on_each_other():
    """A pixel's gradient is zero in other images; the mean over images is of their own fields."""
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()

    def score(x, sigma):  # a denoiser that depends on the image
        return (x * F.avg_pool2d(x, 3, 1, 1) - x) / sigma[:, None, None, None] ** 2

    both = denoiser_field(score, images, 0.5, pixels=1, seed=3)
    assert np.isfinite(both.energy).all()
    again = denoiser_field(score, images, 0.5, pixels=1, seed=3)
    np.testing.assert_array_equal(both.energy, again.energy)
    other = denoiser_field(score, images, 0.5, pixels=1, seed=4)
    assert not np.array_equal(both.energy, other.energy)


def test_the_studys_field_of_a_linear_score():
    found = study_field(linear_score, 9, repetitions=5, seed=0)
    kernel = KERNEL[0, 0].double().numpy() / 18
    kernel[1, 1] -= 1
    expected = np.zeros((9, 9))
    expected[3:6, 3:6] = np.abs(kernel) / np.abs(kernel).max()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_studys_diameter_is_that_of_a_box():
    field = np.zeros((20, 20))
    field[4, 5], field[4, 9], field[7, 5], field[15, 15] = 50, 20, 12, 18
    # 80 % needs 50 + 20 + 18: rows 4 to 15, columns 5 to 15
    assert study_diameter(field) == pytest.approx((11 + 10) / 2)
    assert study_diameter(field, 0.7) == pytest.approx((0 + 4) / 2)


def test_the_smallest_levels_decide_the_studys_field():
    """Of a mean over uniform levels of gradients that go like 1 / sigma^2."""
    draws = [torch.rand(1, generator=torch.Generator().manual_seed(k)).item() for k in range(200)]
    weights = np.array(sorted(1 / (10 * np.array(draws)) ** 2))[::-1]
    assert weights[:2].sum() > 0.5 * weights.sum()


def test_the_command(tmp_path, capsys):
    prior = write_prior(tmp_path / "prior.pt")
    argv = [str(prior), f"--out={tmp_path}/field", "--size=16", "--images=2", "--pixels=1"]
    command.main([*argv, "--levels", "0.1", "1", "100", "--study=2"])
    rows = list(csv.DictReader((tmp_path / "field" / "receptive_field.csv").open()))
    assert [(r["recipe"], r["sigma"]) for r in rows] == [
        ("denoiser", "0.1"),
        ("denoiser", "1.0"),  # 100 is beyond the prior's levels
        ("study", ""),
    ]
    assert {row["theoretical"] for row in rows} == {"25"}
    assert float(rows[0]["radius_50"]) <= float(rows[0]["radius_95"])
    assert float(rows[2]["diameter"]) > 0
    assert (tmp_path / "field" / "receptive_field.png").stat().st_size > 1000
    arrays = np.load(tmp_path / "field" / "receptive_field.npz")
    assert {value.shape for value in arrays.values()} == {(31, 31), (16, 16)}
    assert "figure:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--levels", "1e6"], "knows noise levels 0.01 to 5, none of"),
        (["--size=5000"], "expected at least 5000 pixels a side"),
        (["--depth=2"], "expected a nested network"),
    ],
)
def test_what_does_not_fit_is_an_error(tmp_path, flags, message):
    prior = write_prior(tmp_path / "prior.pt")
    with pytest.raises(SystemExit, match=message):
        command.main([str(prior), f"--out={tmp_path}/field", "--size=16", "--images=1", *flags])


def test_raw_weights_need_a_run(tmp_path):
    path = write_prior(tmp_path / "prior.pt")
    checkpoint.export(path, tmp_path / "exported.pt")
    with pytest.raises(SystemExit, match="raw weights as well"):
        command.main([f"{tmp_path}/exported.pt", f"--out={tmp_path}/f", "--size=16", "--raw"])
