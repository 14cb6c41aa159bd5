"""Spread against error of what was left out, by samples whose posterior is known."""

import pytest
import torch

from benchmarks.real_spread import energies, main
from evaluation.own.holdout import HoldOut
from operators import SingleCoilMRI

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE, COUNT = 32, 8


def images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, SIDE, SIDE, generator=generator, dtype=torch.complex128)


def left_out(truth):
    """Half of the k-space of an image, without noise."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[::2] = True
    operator = SingleCoilMRI(mask, real=False)
    return HoldOut(None, operator, operator.forward(truth), 2 * int(mask.sum()), "samples")


def test_samples_of_the_posterior_spread_as_widely_as_their_mean_is_wrong():
    mean = 3 * images(1, 0)  # of a posterior of variance 1, from which truth and samples are drawn
    held = left_out(mean + images(1, 1))
    error, spread = energies(held, mean + images(COUNT, 2))
    assert spread == pytest.approx(error, rel=0.1)
    assert error == pytest.approx((1 + 1 / COUNT) / 10, rel=0.1)
    _, narrow = energies(held, mean + images(COUNT, 2) / 2)
    assert narrow == pytest.approx(spread / 4)


def test_a_wrong_mean_is_an_error_and_no_spread():
    truth = images(1, 0)
    error, spread = energies(left_out(truth), torch.zeros(COUNT, 1, SIDE, SIDE).to(truth))
    assert error == pytest.approx(1)
    assert spread == 0


def test_a_row_that_is_not_known_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([f"--data={tmp_path}", "--rows=knee"])
    assert "expected the beginning of one of" in capsys.readouterr().err
