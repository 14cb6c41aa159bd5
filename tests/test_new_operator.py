"""An operator of one file and one line in evaluate, tables, pictures, report and reconstruct."""

import json

import nibabel
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from configs import check_same, load_config, to_json
from evaluation import evaluate as evaluation
from evaluation.metrics import psnr
from evaluation.own import open_input
from evaluation.report import make_report
from evaluation.results.cells import describe_measurement, read_cell, read_grid
from evaluation.show.cell_images import CellImages
from evaluation.show.study_table import study_table
from operators import OPERATORS, LinearOperator, SingleCoilMRI
from operators.create import create_operator, fields_of, parse_keywords
from tests.conftest import ROOT
from tests.helpers.reconstruct_inputs import write_prior

SIDE = 32


class Blur(LinearOperator):
    """What a user would write: the mean over squares of `width` pixels."""

    direct_name = "blurred"

    def __init__(self, shape, width):
        super().__init__((1, *shape), (1, *shape), domain_complex=False, range_complex=False)
        self.width = width

    def _forward(self, x):
        return F.avg_pool2d(x, self.width, stride=1, padding=self.width // 2)

    _adjoint = _forward  # symmetric, as the width is odd

    @classmethod
    def create(cls, shape, *, seed, keys, study, width=3):
        return cls(shape, width)

    @classmethod
    def describe(cls, fields):
        return f"blur {fields['keywords']}", "-"


@pytest.fixture(autouse=True)
def line(monkeypatch):
    """The one line."""
    monkeypatch.setitem(OPERATORS, "blur", Blur)


def small_config(**changes):
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    fields = {
        "data.image_size": SIDE,
        "limit": 2,
        "panels": 1,
        "operator.name": "blur",
        "operator.keywords": "width=5",
        "sampler.name": "zero_filled",
    }
    config.update_from_flattened_dict(fields | changes)
    return config


def test_evaluate_tables_and_report_take_it(tmp_path):
    folder = tmp_path / "brain" / "blur" / "zero_filled"
    evaluation.evaluate(small_config(), folder, "cpu")
    evaluation.evaluate(small_config(**{"sampler.name": "tv"}), folder.with_name("tv"), "cpu")
    (panel,) = (folder / "panels").iterdir()
    assert panel.stat().st_size > 1000
    cells = read_grid([tmp_path])
    table = study_table(cells, "markdown", metrics=["psnr"])
    assert "blur width=5" in table
    assert "| TV |" in table
    images = CellImages(cells[0])
    key = images.keys[0]
    target = torch.from_numpy(images.target(key))[None, None]
    expected = Blur((SIDE, SIDE), 5).normal(target)[0, 0]
    np.testing.assert_allclose(images.direct(key), expected, atol=1e-6)
    report = make_report([folder, folder.with_name("tv")])
    assert report.count("blurred") >= 1


def test_results_are_shown_where_nobody_has_the_operator(tmp_path, monkeypatch):
    folders = [tmp_path / "brain" / "blur" / name for name in ("l1_wavelet", "tv")]
    for folder in folders:
        config = small_config(**{"sampler.name": folder.name, "sampler.max_iterations": 3})
        evaluation.evaluate(config, folder, "cpu")
    monkeypatch.delitem(OPERATORS, "blur")
    cells = read_grid([tmp_path])
    for style in ("markdown", "csv"):
        assert "blur" in study_table(cells, style, metrics=["psnr"])
    assert describe_measurement(cells[0].config, {}) == ("blur", "-")
    assert CellImages(cells[0]).target(next(iter(cells[0].rows))).shape == (SIDE, SIDE)
    report = make_report(folders)
    assert "TV" in report
    assert "blurred" not in report


def test_keywords_that_repeat_a_field_are_errors(tmp_path):
    fields = {"name": "mri", "mask": "gaussian1d", "acceleration": 4.0, "num_spokes": None}
    for keywords in ("acceleration=2", "num_spokes=5", "center_fraction=0.1, mask='radial'"):
        with pytest.raises(
            ValueError, match=r"expected operator\.keywords without .*set operator\."
        ):
            create_operator(fields | {"keywords": keywords}, (SIDE, SIDE), seed=0, keys=())
    found = create_operator(
        {"name": "mri", "keywords": "acceleration=2"}, (SIDE, SIDE), seed=0, keys=()
    )
    assert found.acceleration == 2  # no field of that name here
    config = small_config(**{"operator.name": "ct", "operator.keywords": "num_views=5"})
    with pytest.raises(ValueError, match=r"without num_views, as .*; set operator\.num_views"):
        evaluation.evaluate(config, tmp_path / "out", "cpu")
    assert not (tmp_path / "out" / "metrics.csv").exists()


def test_an_operator_with_a_mask_has_the_fields_of_masks(monkeypatch):
    class Masked(SingleCoilMRI):
        """What a user would write."""

        @classmethod
        def create(cls, shape, *, seed, keys, study, mask, phase=0.0):
            return cls(mask, real=phase == 0)

    monkeypatch.setitem(OPERATORS, "masked", Masked)
    assert set(fields_of("masked")) == {*fields_of("mri"), "phase"}
    fields = {"name": "masked", "mask": "radial", "acceleration": 3.0, "phase": 1.0}
    found = create_operator(fields, (SIDE, SIDE), seed=0, keys=())
    assert found.domain_complex
    plain = create_operator(fields | {"name": "mri"}, (SIDE, SIDE), seed=0, keys=())
    assert torch.equal(found.mask, plain.mask)


def test_reconstruct_takes_it(tmp_path, tiny_config):
    x, y = np.mgrid[-1:1:32j, -1:1:32j]
    image = np.exp(-4 * (x**2 + 2 * y**2)).astype(np.float32)[..., None]
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), tmp_path / "a.nii.gz")
    config = load_config(str(ROOT / "configs" / "reconstruct.py"))
    fields = {"operator.name": "blur", "operator.keywords": "width=3", "sampler.num_steps": 4}
    config.update_from_flattened_dict(fields)
    config.prior = str(write_prior(tmp_path / "prior.pt", tiny_config))
    opened = open_input(tmp_path / "a.nii.gz", config)
    assert opened.direct == "blurred"
    assert opened.operator.width == 3
    problem = opened.problem([0])
    torch.testing.assert_close(problem.direct, problem.operator.adjoint(problem.y))
    config.operator.keywords = "size=3"
    with pytest.raises(ValueError, match=r"blur has no size \(operator.keywords\); it has: width"):
        open_input(tmp_path / "a.nii.gz", config)
    config.operator.keywords, config.operator.num_views = "", 7
    with pytest.raises(ValueError, match=r"num_views=7 has no effect: blur is simulated"):
        open_input(tmp_path / "a.nii.gz", config)


def test_fields_are_those_that_create_names():
    assert fields_of("blur") == ["width"]
    assert set(fields_of("mri")) > {"mask", "acceleration"}
    found = create_operator(
        {"name": "mri", "mask": "radial", "acceleration": None, "num_views": 3},
        (SIDE, SIDE),
        seed=0,
        keys=(),
    )
    assert isinstance(found, SingleCoilMRI)
    assert 3 < found.acceleration < 5  # None keeps the operator's own default, 4


def test_masks_of_their_own_follow_the_keys():
    fields = {"name": "mri", "mask_per_slice": True}
    both = create_operator(fields, (SIDE, SIDE), seed=0, keys=("a", "b"))
    other = create_operator(fields, (SIDE, SIDE), seed=0, keys=("b",))
    assert torch.equal(both.mask[1:], other.mask)
    assert not torch.equal(both.mask[0], both.mask[1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", {}), ("a=1", {"a": 1}), ("a=1.5, kind='x'", {"a": 1.5, "kind": "x"})],
)
def test_keywords(text, expected):
    assert parse_keywords(text) == expected


@pytest.mark.parametrize(
    "text", ["a", "a=b", "1", "a=1)+(b=2", "**{'a': 1}", "a=open('x')", "a=1,a=2"]
)
def test_what_is_no_keyword_is_an_error(text):
    with pytest.raises(ValueError, match=r"expected operator\.keywords such as"):
        parse_keywords(text)


def test_psnr_of_the_direct_image_is_finite(tmp_path):
    folder = tmp_path / "r"
    evaluation.evaluate(small_config(**{"sampler.name": "tv", "limit": 1}), folder, "cpu")
    assert json.loads((folder / "info.json").read_text())["skipped"] == []
    images = CellImages(read_cell(folder))
    key = images.keys[0]
    target, direct = images.target(key), images.direct(key)
    assert psnr(target, images.reconstruction(key)) > psnr(target, direct) + 1


@pytest.mark.parametrize("name", ["evaluate", "reconstruct"])
def test_results_from_before_the_field_can_be_continued(tmp_path, name):
    config = load_config(str(ROOT / "configs" / f"{name}.py"))
    old = json.loads(to_json(config))
    del old["operator"]["keywords"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    check_same(tmp_path / "config.json", config)
