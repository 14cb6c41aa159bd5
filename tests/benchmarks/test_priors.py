"""The tables of priors and of their learning curves, from made-up measurements."""

from argparse import Namespace

import pytest

from benchmarks import learning_curve, priors
from models.checkpoint import shipped_priors


@pytest.fixture
def asked(monkeypatch):
    """What is measured; PSNR grows with each call, but TV's falls."""
    calls = []

    def mean_psnr(row, _fields, method, own, _args):
        calls.append((row, method, own))
        return len(calls) * (-1.0 if own["sampler.name"] == "tv" else 1.0)

    monkeypatch.setattr(priors, "mean_psnr", mean_psnr)
    return calls


def test_priors_of_complex_images_are_left_out_where_images_are_real(asked):
    cells = priors.measure_row("CT 30 views", {"a": False, "b/c": True}, Namespace())
    assert cells == ["1.00", "-2.00", "3.00", ""]
    assert [method for _, method, _ in asked] == ["fbp", "tv", "a"]
    assert asked[-1][2] == {"sampler.name": "pnp", "sampler.num_steps": 50, "prior": "a"}


def test_tv_has_the_best_of_weights_in_proportion_to_the_noise(asked):
    row = "MR Poisson 8x, 8 coils, noise 0.03"
    assert priors.measure_row(row, {"a": False, "b/c": True}, Namespace())[1:] == [
        "-2.00",
        "5.00",
        "6.00",
    ]
    weights = [own["sampler.weight"] for _, _, own in asked if own["sampler.name"] == "tv"]
    assert weights == pytest.approx([0.003, 0.009, 0.03])
    assert [method for _, method, _ in asked][-1] == "b_c"


def test_the_kind_of_the_shipped_priors_is_known():
    kinds = {name: priors.is_complex(name) for name in shipped_priors()}
    assert kinds["natural_complex_small"]
    assert not kinds["natural_small"]


def test_hours_leave_pauses_out_and_losses_are_grouped_by_step(tmp_path):
    log = "step,images_per_second\n100,20\n200,0.01\n300,20\n400,20\n"
    (tmp_path / "log.csv").write_text(log)
    hours = learning_curve.hours_a_step(tmp_path, batch=10)
    assert hours == pytest.approx(0.5 / 3600)
    assert learning_curve.logged(tmp_path, hours) == []
    (tmp_path / "validation.csv").write_text(
        "step,loss_per_pixel\n7200,0.75\n7200,0.5\n14400,0.7\n14400,0.4\n"
    )
    assert learning_curve.logged(tmp_path, hours) == [
        ["7200", "1.00", "0.7500", "0.5000"],
        ["14400", "2.00", "0.7000", "0.4000"],
    ]
    with pytest.raises(ValueError, match="expected a training run"):
        learning_curve.hours_a_step(tmp_path / "nowhere", batch=10)
