"""When samplers stop: samples whose image and misfit no longer change."""

import pytest
import torch

from operators import (
    BatchGenerator,
    Inpainting,
    SingleCoilMRI,
)
from operators.masks import make_mask
from samplers import pnp
from samplers.stopping import PATIENCE, StoppingCriterion
from tests.samplers.test_levels import SDE, SIDE, shrink, smooth_images


def test_a_sample_that_stands_still_is_kept():
    operator = Inpainting(torch.ones(4, 4, dtype=torch.bool))
    y = torch.ones(2, 1, 4, 4)
    stall = StoppingCriterion(operator, y, 1e-3)
    x = torch.ones(2, 1, 4, 4)
    for step in range(PATIENCE + 2):
        moved = x.clone()
        moved[1] += 0.1  # the second sample goes on
        x = stall.keep(x, moved)
        assert not stall.finished(), step
    later = stall.keep(x, x + 1)
    assert torch.equal(later[0], x[0])
    assert torch.equal(later[1], x[1] + 1)


def test_an_image_may_stand_still_while_its_misfit_does_not_and_the_other_way_round():
    operator = Inpainting(torch.eye(8, dtype=torch.bool))
    y = operator.forward(torch.full((2, 1, 8, 8), 0.01))
    x = torch.ones(2, 1, 8, 8)
    unseen = ~torch.eye(8, dtype=torch.bool)
    stall = StoppingCriterion(operator, y, 0.05)
    for _ in range(PATIENCE + 3):
        moved = x.clone()
        moved[0] += 0.2 * unseen  # what is not measured changes
        moved[1] *= 0.97  # a small part of the image, but a large one of the small measurement
        x = stall.keep(x, moved)
        assert torch.equal(x, moved)


def test_steps_that_stand_still_count_when_they_follow_each_other():
    operator = Inpainting(torch.ones(4, 4, dtype=torch.bool))
    stall = StoppingCriterion(operator, torch.ones(1, 1, 4, 4), 1e-3)
    x = torch.ones(1, 1, 4, 4)
    for step in range(8):  # every second step moves it
        moved = x + (step % 2)
        x = stall.keep(x, moved)
        assert torch.equal(x, moved)


def test_stopping_early_saves_calls_and_hardly_changes_the_image():
    images = smooth_images(2)
    mask = make_mask("gaussian1d", (SIDE, SIDE), seed=0, acceleration=4, center_fraction=0.08)
    operator, calls = SingleCoilMRI(mask), []

    def score(x, sigma):
        calls.append(1)
        return shrink(x, sigma)

    def run(tolerance: float):
        calls.clear()
        options = {"num_steps": 300, "start_sigma": 0.3, "tolerance": tolerance}
        x = pnp(score, SDE, operator, y, rng=BatchGenerator([1, 2]), **options)
        return x, len(calls)

    y = operator.forward(images)
    (all_of_it, full), (early, fewer) = run(0.0), run(1e-4)
    assert full == 300
    assert fewer < 0.8 * full
    assert (early - all_of_it).norm() < 0.02 * all_of_it.norm()
    with pytest.raises(ValueError, match="tolerance of at least 0"):
        run(-1.0)
