"""The report: what is in the page, that it needs nothing else, its folder of images."""

import csv
import json
import re
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from evaluation.report import main, make_report, write_report
from evaluation.results.cells import read_cell
from evaluation.results.files import SUMS
from evaluation.show.cell_images import CellImages
from evaluation.show.slice_data import embed
from tests.helpers.report_folders import (
    SIDE,
    add_spread,
    evaluate_direct,
    three_methods,
    write_other,
)
from tests.helpers.report_page import needs_nothing_else
from tests.helpers.report_pixels import data_of, decode, slice_of

STEP = 1 / 4096  # of images
PLACE = "brain/gaussian1d_4x"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return three_methods(tmp_path_factory.mktemp("results") / PLACE)


def test_numbers_and_images_are_those_of_the_folders(folders):
    text = make_report(folders[:2], limit=3)
    data = data_of(text)
    # the best first, whatever the order of the folders; what needs no method at the end
    assert data["titles"] == ["target", "natural 1, PC", "TV", "zero-filled"]
    assert data["start"] == {"lead": 0, "left": 3, "right": 1, "map": "size"}
    opened = [CellImages(read_cell(folders[i])) for i in (1, 0, 2)]
    assert [entry["key"] for entry in data["slices"]] == opened[0].keys[:3]
    for number, entry in enumerate(data["slices"]):
        key, content = entry["key"], slice_of(text, number)
        target = opened[0].target(key)
        images = [target, *(found.reconstruction(key) for found in opened)]
        assert content["shape"] == [SIDE, SIDE]
        for encoded, image in zip(content["images"], images, strict=True):
            assert np.abs(decode(encoded, image.shape) - image).max() <= 0.51 * STEP
        assert entry["metrics"][0] is None
        for values, found in zip(entry["metrics"][1:], opened, strict=True):
            expected = [found.cell.rows[key][name] for name in ("psnr", "ssim", "nmse")]
            assert values == pytest.approx(expected, rel=1e-4)
    errors = [
        np.abs(found.reconstruction(k) - found.target(k))
        for found in opened[:2]
        for k in opened[0].keys[:3]
    ]
    large = np.median([np.percentile(error, 99.5) for error in errors])
    assert 0.6 < data["full"]["error"] / large < 1.7


def test_best_method_is_first_in_the_table_too(folders):
    text = make_report(folders)
    rows = re.findall(r'<tr><th scope="row">([^<]*)</th>', text[text.index("<table>") :])
    assert rows[:3] == ["natural 1, PC", "TV", "zero-filled"]


def test_direct_reconstruction_is_there_once(folders):
    data = data_of(make_report(folders))
    assert data["titles"] == ["target", "natural 1, PC", "TV", "zero-filled"]
    assert data["start"] == {"lead": 0, "left": 3, "right": 1, "map": "size"}
    alone = data_of(make_report(folders[2:]))
    assert alone["titles"] == ["target", "zero-filled"]
    assert alone["start"] == {"lead": 0, "left": 1, "right": 0, "map": "size"}


def test_the_file_needs_nothing_else(folders):
    text = make_report(folders, title="a <b> & c")
    needs_nothing_else(text)
    assert "<h1>a &lt;b&gt; &amp; c</h1>" in text
    table = text[text.index("<table>") : text.index("</table>")]
    assert table.count("<tr>") == 4
    assert make_report(folders, title="a <b> & c") == text


def test_images_far_beyond_the_range_and_nan(folders, tmp_path):
    folder = tmp_path / "wild"
    shutil.copytree(folders[2], folder)
    with h5py.File(folder / "recon.h5", "a") as file:
        image = file["reconstruction"][()]
        image[0] *= 1000 / image[0].max()
        image[0, 0, 0] = np.nan
        del file["digest"], file["reconstruction"]
        file["reconstruction"] = image
    content = slice_of(make_report([folder]), 0)
    kept = decode(content["images"][1], (SIDE, SIDE))
    assert kept[0, 0] == 0
    assert np.abs(kept - image[0]).ravel()[1:].max() < 0.05
    assert kept.max() == pytest.approx(1000)


def test_a_key_cannot_end_the_script():
    data = {"slices": [{"key": "</script><script>"}]}
    assert "</script>" not in embed(data)
    assert json.loads(embed(data)) == data


def test_settings_versions_and_sampling_are_there(folders):
    text = make_report(folders)
    settings = text[text.index("Settings and versions") :]
    differ = settings[: settings.index("</table>")]
    assert re.search(r">sampler.name</th>\n?<td>predictor_corrector</td>", differ)
    assert "operator.mask" not in differ  # the same in all
    info = json.loads((folders[0] / "info.json").read_text())
    assert f"<td>{info['torch']}</td>" in settings
    assert "&quot;acceleration&quot;: 4.0" in settings
    assert '<img src="data:image/png;base64,' in text
    assert f"Mask of {SIDE} x {SIDE}" in text


def test_infinite_metrics_are_no_numbers(folders, tmp_path):
    folder = tmp_path / "exact"
    shutil.copytree(folders[2], folder)
    lines = (folder / "metrics.csv").read_text().splitlines()
    key, _, _, _, *others = lines[1].split(",")
    lines[1] = ",".join([key, "inf", "1.0", "0.0", *others])
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    (folder / SUMS).unlink()  # edited on purpose
    data = data_of(make_report([folder]))
    assert data["slices"][0]["metrics"][1] == [None, 1.0, 0.0]


def test_a_missing_metric_is_no_number(folders, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(folders[0], folder)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["psnr"] = ""
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    page = make_report([folder])
    assert f"({len(rows) - 1} of {len(rows)})" in page.replace("\xa0", " ")


def test_samples_have_maps_of_how_they_differ(folders, tmp_path):
    folder = tmp_path / "natural_1_dds"
    shutil.copytree(folders[1], folder)
    text = make_report([folders[0], add_spread(folder)])
    data = data_of(text)
    assert data["titles"][1] == "natural 1, DDS"
    assert data["full"].keys() == {"error", "std", "width", "undecided"}
    assert (data["full"]["std"], data["full"]["width"]) == (0.5, 2)  # 1.5: nearest of 1, 2, 5
    assert "over posterior samples; orange, not decided by the data" in text
    for number in range(len(data["slices"])):
        none, samples, *others = slice_of(text, number)["maps"]
        assert none == {}
        assert not any(others)
        upper = np.zeros((SIDE, SIDE))
        upper[: SIDE // 2] = 1
        std, width, part = (
            decode(samples[name], upper.shape) for name in ("std", "width", "undecided")
        )
        assert np.abs(std - 0.5 * upper).max() < 1e-3
        assert np.abs(width - 1.5 * upper).max() < 1e-3
        assert part[: SIDE // 2 - 8].min() > 0.7
        assert part[SIDE // 2 + 12 :].max() < 0.1
    assert "posterior samples;" not in make_report(folders)


def test_ct_is_shown_in_hounsfield_units(tmp_path):
    fields = {"sampler.name": "fbp", "operator.name": "ct", "data.subset": "ct", "limit": 2}
    folder = evaluate_direct(tmp_path / "ct" / "views_30" / "fbp", **fields)
    other = write_other(folder, folder.with_name("natural_1_pc"), 0.9)
    text = make_report([folder, other])
    data = data_of(text)
    assert data["unit"] == "HU"
    assert [name for name, *_ in data["windows"]][:3] == ["soft tissue", "lung", "bone"]
    factor, offset = data["slices"][0]["values"]
    found = CellImages(read_cell(folder))
    key = found.keys[0]
    low, high = found._sample(key).scale
    assert (offset, factor + offset) == pytest.approx((low, high))
    assert low < -900  # air
    assert high > 300  # bone
    assert data["full"]["error"] >= 10  # in HU
    assert "30 views over 174°, parallel beams" in text


def test_images_beside_the_page(folders, tmp_path):
    out = tmp_path / "a report.html"
    paths = write_report(folders[:2], out, limit=0, title="t", files="yes")
    folder = tmp_path / "a report_files"
    assert paths == [out, folder]
    text, whole = out.read_text(), make_report(folders[:2])
    assert len(text) < len(whole) - 10_000
    assert "'self' file:" in text
    data = data_of(text)
    used = set()
    for number, entry in enumerate(data["slices"]):
        used |= {entry["file"], entry["thumbnail"]}
        content = (tmp_path / entry["file"]).read_text()
        match = re.fullmatch(rf"receive\({number}, (.*)\);\n", content, re.S)
        assert json.loads(match[1]) == slice_of(whole, number)
        assert Image.open(tmp_path / entry["thumbnail"]).size == (SIDE, SIDE)
    assert {f"{folder.name}/{path.name}" for path in folder.iterdir()} == used
    # other slices: what is no longer used goes, what is not ours stays
    (folder / "notes.txt").write_text("mine")
    write_report(folders[:2], out, limit=1, title="t", files="yes")
    assert sorted(path.suffix for path in folder.iterdir()) == [".js", ".txt", ".webp"]
    (folder / "notes.txt").unlink()
    write_report(folders[:2], out, limit=0, title="t")  # small enough for the page
    assert not folder.exists()
    assert data_of(out.read_text()) == data_of(whole)


def test_a_thousand_slices(tmp_path):
    """The page stays small, as the images are beside it: about 300 bytes a slice."""
    count, side = 1000, 8
    rng = np.random.default_rng(0)
    root = tmp_path / "pictures"
    root.mkdir()
    names = [f"{i:04d}.png" for i in range(count)]
    pictures = rng.integers(0, 255, (count, side, side)).astype(np.uint8)
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(root / name)
    (tmp_path / "all.txt").write_text("\n".join(names))
    place = {"data.name": "image_folder", "data.root": str(root), "limit": 1}
    choice = {"data.split_list": str(tmp_path / "all.txt"), "data.image_size": side}
    folder = evaluate_direct(tmp_path / PLACE / "zero_filled", **place, **choice)
    with h5py.File(folder / "recon.h5", "w") as file:
        file["reconstruction"], file["key"] = (pictures / 300).astype(np.float32), names
        file["shape"] = [(side, side)] * count
    rows = "".join(f"{name},20.5,0.9,0.01,1.0,0\n" for name in names)
    (folder / "metrics.csv").write_text(f"key,psnr,ssim,nmse,seconds,nfe\n{rows}")
    (folder / SUMS).unlink()  # edited on purpose
    out = tmp_path / "report.html"
    write_report([folder], out, limit=0, title="many", files="yes")
    text = out.read_text()
    assert len(data_of(text)["slices"]) == count
    assert len(text) < 100_000 + 400 * count
    assert 'id="slice-0"' not in text
    assert "data:image/webp" not in text
    files = list((tmp_path / "report_files").iterdir())
    assert sum(path.suffix == ".js" for path in files) == count


def test_folders_of_other_slices_are_named(folders, tmp_path):
    other = tmp_path / "tv"
    shutil.copytree(folders[0], other)
    with h5py.File(other / "recon.h5", "a") as file:
        keys = [f"other {i}" for i in range(len(file["key"]))]
        del file["key"]
        file["key"] = keys
    with pytest.raises(ValueError, match="none in common"):
        make_report([folders[1], other])


def test_command_line(folders, tmp_path, capsys):
    out = tmp_path / "new" / "report.html"
    main([*map(str, folders), f"--out={out}", "--limit=2"])
    assert re.match(r"report: .*report\.html \(0\.\d MB\)", capsys.readouterr().out)
    text = out.read_text()
    assert "2 slices that all folders have; 2 more are left out" in text
    main([*map(str, folders), f"--out={out}", "--limit=2", "--files=yes"])
    assert re.match(r"report: .* and report_files \(0\.\d MB\)", capsys.readouterr().out)
    with pytest.raises(SystemExit, match="expected a results folder"):
        main([str(tmp_path)])
