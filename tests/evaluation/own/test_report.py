"""The report of reconstruct.py: images in their unit, tables, warnings, what was measured."""

import json
import re
import shutil
from html import escape

import numpy as np
import pydicom
import pytest
import torch

from evaluation.own import open_input
from evaluation.own.result import OwnResult
from evaluation.own.validation import in_a_line
from evaluation.report import make_report
from operators import ParallelBeamCT
from tests.helpers.data_writers import head, write_dicom, write_nifti, write_series
from tests.helpers.own_folders import (
    SLICES,
    add_validation,
    reconstruct,
    settings,
    write_kspace,
)
from tests.helpers.reconstruct_inputs import image
from tests.helpers.report_page import needs_nothing_else
from tests.helpers.report_pixels import data_of, decode, slice_of

pytestmark = pytest.mark.usefixtures("one_thread")


def shown(text, number):
    """Images and maps of a slice in their unit, by title and name."""
    data, content = data_of(text), slice_of(text, number)
    factor, offset = data["slices"][number]["values"]
    images = {
        title: factor * decode(encoded, content["shape"]) + offset
        for title, encoded in zip(data["titles"], content["images"], strict=True)
    }
    maps = {
        title: {name: decode(found, content["shape"]) for name, found in maps.items()}
        for title, maps in zip(data["titles"], content["maps"], strict=True)
    }
    return images, maps, factor


def test_images_are_those_of_the_folder_in_its_unit(folders):
    text = (folders[1] / "report.html").read_text()
    needs_nothing_else(text)
    data = data_of(text)
    assert data["titles"] == ["zero-filled", "reconstruction"]
    assert data["metrics"] == []
    assert data["unit"] == "unit of the k-space"
    assert data["start"] == {"lead": 1, "left": 0, "right": 1, "map": "std"}
    result = OwnResult(folders[1])
    for number, key in enumerate(result.keys):
        images, maps, factor = shown(text, number)
        for title, name in (("zero-filled", "direct"), ("reconstruction", "reconstruction")):
            wanted = result.image(name, key)
            assert np.abs(images[title] - wanted).max() <= 0.51 * factor / 4096
        assert maps["zero-filled"] == {}
        found = maps["reconstruction"]
        std = result.image("std", key)
        assert np.abs(factor * found["std"] - std).max() <= 0.51 * std.max() / 4096
        width = result.image("quantile_95", key) - result.image("quantile_05", key)
        assert np.abs(factor * found["width"] - width).max() <= 1e-3 * width.max()
        assert np.abs(found["undecided"] - result.image("undecided", key)).max() < 0.003
    difference = np.abs(result.image("reconstruction", key) - result.image("direct", key))
    large = np.percentile(difference, 99.5)
    assert 0.4 < data["full"]["error"] / large < 2.5
    whole = data["windows"][0]
    values = np.stack([result.image("reconstruction", key) for key in result.keys])
    assert whole[2] == pytest.approx(values.max() - values.min(), rel=1e-5)


def test_folders_side_by_side_have_one_direct_reconstruction(folders):
    text = make_report(folders)
    needs_nothing_else(text)
    data = data_of(text)
    assert data["titles"] == ["zero-filled", "pnp", "samples"]
    assert data["start"]["map"] == "size"  # not all have samples
    images, maps, factor = shown(text, 1)
    for title, folder in (("pnp", folders[0]), ("samples", folders[1])):
        wanted = OwnResult(folder).image("reconstruction", "k.npy:1")
        assert np.abs(images[title] - wanted).max() <= 0.51 * factor / 4096
    assert set(maps["samples"]) == {"std", "width", "undecided"}
    assert not maps["pnp"]
    table = text[text.index("<table>") : text.index("</table>")]
    assert re.findall(r'<th scope="row">([^<]*)</th>', table) == ["pnp", "samples"]
    assert "mean of 3 samples by warm_mmps, 3 steps<" in table
    assert "(estimated)" in table
    differing = text[text.index("Settings that differ") :]
    assert "sampler.num_samples" in differing[: differing.index("</table>")]


def test_other_masks_have_other_direct_reconstructions(folders, prior, tmp_path):
    scan = write_kspace(tmp_path / "k.npy")
    fields = {"operator.mask": "equispaced1d", "operator.acceleration": 2.0}
    other = reconstruct(prior, scan, tmp_path / "less", **SLICES, **fields)
    text = make_report([folders[0], other])
    data = data_of(text)
    assert data["titles"] == ["zero-filled (pnp)", "pnp", "less", "zero-filled (less)"]
    assert data["direct"] == [0, 3]
    images, _, factor = shown(text, 0)
    wanted = OwnResult(other).image("direct", "k.npy:0")
    assert np.abs(images["zero-filled (less)"] - wanted).max() <= 0.51 * factor / 4096
    assert text.count('<img src="data:image/png;base64,') == 2  # both masks


def test_a_simulated_measurement_has_a_truth(volume):
    text = (volume / "report.html").read_text()
    needs_nothing_else(text)
    data = data_of(text)
    assert data["titles"] == ["truth", "reconstruction", "zero-filled"]
    assert data["start"] == {"lead": 0, "left": 2, "right": 1, "map": "size"}
    result = OwnResult(volume)
    images, _, factor = shown(text, 1)
    truth = result.image("truth", "v.nii.gz:1")
    assert truth.min() == -200
    assert np.abs(images["truth"] - truth).max() <= 0.51 * factor / 4096
    means = result.summary["metrics"]
    for place, name in ((1, "reconstruction"), (2, "direct")):
        found = np.mean([entry["metrics"][place] for entry in data["slices"]], axis=0)
        wanted = [means[name][metric] for metric in ("psnr", "ssim", "nmse")]
        assert found == pytest.approx(wanted, abs=2e-3)


def test_dicom_of_ct_is_in_hounsfield_units(prior, tmp_path):
    source = write_series(tmp_path / "ct", np.stack([head(32, seed) for seed in range(2)]))
    folder = reconstruct(prior, source, tmp_path / "out")
    data = data_of((folder / "report.html").read_text())
    assert data["unit"] == "HU"
    assert "soft tissue" in [name for name, *_ in data["windows"]]
    assert OwnResult(folder).unit == "HU"
    for elements, unit in (
        ({"RescaleType": "HU"}, "HU"),
        ({"RescaleType": "US"}, "of the images"),
        ({"RescaleIntercept": None}, "of the images"),  # as of a secondary capture
        ({"Modality": "MR"}, "of the images"),
    ):
        file = write_dicom(tmp_path / "other" / "a.dcm", head(32))
        header = pydicom.dcmread(file)
        for name, value in elements.items():
            setattr(header, name, value)
        header.save_as(file)
        config = settings(prior, **{"operator.name": "ct"})
        assert open_input(file, config).unit == unit


def test_what_was_measured_and_found(folders, tmp_path):
    copy = tmp_path / "samples"
    shutil.copytree(folders[1], copy)
    text = make_report([add_validation(copy)])
    # the mask, as the folder has it
    assert "32 x 32, white: measured" in text
    assert (copy / "sampling.png").is_file()
    assert re.search(r"effective_acceleration</th>\s*<td>[0-9.]+</td>", text)
    assert "standard deviation of the magnitude over 3 samples" in text
    info = json.loads((copy / "summary.json").read_text())
    assert f"<td>{info['torch']}</td>" in text
    assert "&quot;num_samples&quot;: 3" in text


def test_predictions_are_a_table(folders, tmp_path):
    copy = tmp_path / "pnp"
    shutil.copytree(folders[0], copy)
    text = make_report([add_validation(copy), folders[1]])
    summary = text[text.index("<table>") : text.index("</table>")]
    assert '<td class="number">0.0436</td><td class="number">0.0028</td>' in summary
    line = "error of predicting 10 % of the lines, left out: pnp 0.0436, tv 0.0472, cg_sense failed"
    assert f"pnp: {line}; noise alone 0.0408" in text
    assert '<td>weight=0.002</td><td class="number">0.0472</td>' in text
    found = json.loads((copy / "summary.json").read_text())["validation"]
    assert in_a_line(found).startswith(line)
    assert "Prediction" not in make_report(folders)


def test_warnings_are_shown_once_and_escaped(folders, tmp_path):
    copies = [tmp_path / "a", tmp_path / "b"]
    for copy, notes in zip(copies, (["<both>"], ["<both>", "of b"]), strict=True):
        shutil.copytree(folders[0], copy)
        summary = json.loads((copy / "summary.json").read_text())
        (copy / "summary.json").write_text(json.dumps(summary | {"notes": notes}))
    text = make_report(copies)
    items = re.findall("<li>(.*?)</li>", text[text.index('class="warnings"') :])
    assert items[:2] == ["&lt;both&gt;", "b: of b"]
    assert 'class="warnings"' not in make_report(folders)


def test_names_of_files_are_no_markup(prior, tmp_path):
    name = "<img src=x onerror=alert(1)>\"&'.npy"
    folder = reconstruct(prior, write_kspace(tmp_path / name), tmp_path / "<b>", **SLICES)
    for text in (make_report([folder]), (folder / "report.html").read_text()):
        needs_nothing_else(text)
        assert "<img src=x" not in text
        assert "<b>" not in text
        assert escape(name) in text
        assert data_of(text)["slices"][0]["key"] == f"{name}:0"


def test_the_view_from_the_side_is_told_in_words(prior, tmp_path):
    stack = np.stack([image((32, 36), seed) for seed in range(8)], axis=2)
    source = write_nifti(tmp_path / "v.nii.gz", stack)
    folder = reconstruct(prior, source, tmp_path / "out", **{"operator.mask": "equispaced1d"})
    text = (folder / "report.html").read_text()
    found = json.loads((folder / "summary.json").read_text())["metrics_across"]["reconstruction"]
    assert f"<td>{found['psnr_rows']}</td>" in text
    assert "{&#x27;psnr_rows" not in text  # no dict as it is printed


def test_beams_are_drawn(prior, tmp_path):
    operator = ParallelBeamCT(24, np.arange(0, 180, 12), num_bins=36)
    sinogram = operator.forward(torch.from_numpy(image((24, 24)))[None, None])[0, 0]
    np.save(tmp_path / "s.npy", sinogram.numpy())
    folder = reconstruct(prior, tmp_path / "s.npy", tmp_path / "out", **{"data.image_size": "24"})
    text = (folder / "report.html").read_text()
    needs_nothing_else(text)
    assert "15 views over 168°, parallel beams" in text
    assert "data:image/svg+xml;base64," in text
    assert data_of(text)["titles"] == ["FBP", "reconstruction"]
    assert "last level, by views that were left out" in text


def test_a_folder_of_an_older_version(folders, tmp_path):
    copy = tmp_path / "old"
    shutil.copytree(folders[0], copy)
    for name in ("sampling.png", "report.html"):
        (copy / name).unlink()
    summary = json.loads((copy / "summary.json").read_text())
    del summary["kind"], summary["sampling"]
    (copy / "summary.json").write_text(json.dumps(summary))
    assert "No picture of the sampling." in make_report([copy])
