"""Fields that are set and have no effect in the chosen setting: said, or refused."""

import sys

import nibabel
import numpy as np
import pytest

import configs
import datasets
import train
from configs import load_config
from evaluation.own import open_input
from evaluation.own.settings import describe_settings, read_sampling
from evaluation.run.idle import idle_fields
from tests.conftest import ROOT


def config(name, **fields):
    found = load_config(str(ROOT / "configs" / f"{name}.py"))
    found.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return found


@pytest.mark.parametrize(
    ("fields", "idle"),
    [
        ({}, {"operator.num_views", "operator.end_angle", "data.root", "data.split_seed"}),
        ({"operator__name": "ct"}, {"operator.mask", "operator.acceleration"}),
        ({"operator__mask": "radial", "operator__num_spokes": 3}, {"operator.acceleration"}),
        ({"operator__mask": "outer"}, {"operator.acceleration", "operator.mask_per_slice"}),
        ({"sampler__name": "tv"}, {"prior", "sampler.num_steps", "sampler.num_samples"}),
    ],
)
def test_fields_of_an_evaluation(fields, idle):
    found = idle_fields(config("evaluate", **fields))
    assert idle <= found.keys()
    assert not {"seed", "operator.name", "data.name", "data.subset", "data.fit"} & found.keys()
    known = configs.flatten(config("evaluate").to_dict())
    assert {name for name in found if not name.startswith("data.")} <= known.keys()


def test_what_is_read_is_not_called_idle():
    default = idle_fields(config("evaluate"))
    assert (
        not {"operator.mask", "operator.acceleration", "prior", "data.image_size"} & default.keys()
    )
    other = idle_fields(config("evaluate", operator__name="ct", data__name="fastmri"))
    assert not {"operator.num_views", "data.root", "data.acquisition"} & other.keys()
    assert "sampler.num_steps" not in default
    assert idle_fields(config("unet")).keys() >= {"operator.num_views"}


def test_fields_of_a_training():
    found = train.idle_fields(config("demo", training__validate_every=0))
    assert {"training.validation_bins", "data.root"} <= found.keys()
    assert not {"data.shrink", "training.sample_steps", "data.crop", "data.flip"} & found.keys()
    found = train.idle_fields(config("fastmri_knee", training__sample_every=0))
    assert {"data.shrink", "training.sample_images", "data.subset"} <= found.keys()
    assert not {"training.validation_bins", "training.reconstruct_from"} & found.keys()
    found = train.idle_fields(config("fastmri_knee", training__reconstruct_every=0))
    assert {f"training.reconstruct_{name}" for name in ("images", "steps", "from")} <= found.keys()
    assert datasets.idle_fields({"name": "unknown"}) == {}


def test_only_what_the_command_line_sets_is_said(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--config.a.b=1", "--config.c", "2", "--noconfig.d"])
    configs.note_idle({"a.b": "why", "d": "therefore", "e": "not given"})
    assert capsys.readouterr().err.splitlines() == [
        "note: config.a.b has no effect: why",
        "note: config.d has no effect: therefore",
    ]


def kspace(folder):
    rng = np.random.default_rng(0)
    image = np.pad(np.ones((8, 8)), 4) + 0.1 * rng.random((16, 16))
    np.save(folder / "k.npy", np.fft.fftshift(np.fft.fft2(image, norm="ortho")))
    return folder / "k.npy"


@pytest.mark.parametrize("value", [4.0, 8.0])  # the default, too
@pytest.mark.parametrize("name", ["acceleration", "center_fraction"])
def test_an_acceleration_without_a_mask_is_refused(tmp_path, name, value):
    fields = {f"operator__{name}": value / 100 if name == "center_fraction" else value}
    with pytest.raises(ValueError, match=rf"operator\.{name}=.* has no effect: no mask is drawn"):
        open_input(kspace(tmp_path), config("reconstruct", **fields))
    opened = open_input(tmp_path / "k.npy", config("reconstruct"))
    assert opened.facts["effective_acceleration"] == [1.0]
    masked = config("reconstruct", operator__mask="gaussian1d", **fields)
    expected = value if name == "acceleration" else 4.0
    opened = open_input(tmp_path / "k.npy", masked)
    assert opened.facts["effective_acceleration"] == [expected]


def test_fields_of_the_other_modality_are_refused(tmp_path):
    image = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), tmp_path / "a.nii.gz")
    for fields, message in (
        ({"operator__num_views": 30}, "operator.num_views=30 has no effect: mri is simulated"),
        ({"operator__end_angle": 90.0}, "operator.end_angle=90.0 has no effect: mri is simulated"),
        (
            {"operator__name": "ct", "operator__mask": "radial"},
            "operator.mask=radial has no effect: ct is simulated",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            open_input(tmp_path / "a.nii.gz", config("reconstruct", **fields))


def test_fields_of_another_geometry_are_refused(tmp_path):
    sinogram = np.random.default_rng(0).random((12, 23))
    np.savez(tmp_path / "s.npz", sinogram=sinogram, angles=15.0 * np.arange(12))
    for fields, message in (
        ({"operator__end_angle": 180.0}, "has no effect: the angle of each view is given"),
        ({"operator__source_distance": 50.0}, "has no effect: the beam is parallel"),
    ):
        with pytest.raises(ValueError, match=message):
            open_input(tmp_path / "s.npz", config("reconstruct", **fields))


def test_none_and_what_it_stands_for_are_one_setting(tmp_path):
    """A folder that was begun with 4 spelt out, or by an earlier version, continues."""
    one = config("reconstruct", operator__mask="gaussian1d")
    other = config("reconstruct", operator__mask="gaussian1d", operator__acceleration=4.0)
    texts = set()
    for chosen in (one, other):
        opened = open_input(kspace(tmp_path), chosen)
        sampling = read_sampling(chosen, "cpu")
        texts.add(configs.to_json(describe_settings(chosen, tmp_path / "k.npy", opened, sampling)))
    assert len(texts) == 1
