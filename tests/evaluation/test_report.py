"""The report: what is in the file, that it needs nothing else, and how it behaves in a browser."""

import base64
import csv
import html.parser
import io
import json
import re
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from configs import load_config
from evaluation import evaluate as evaluation
from evaluation.metrics import all_metrics
from evaluation.report import embed, main, make_report
from evaluation.results.cells import read_cell
from evaluation.results.files import SUMS
from evaluation.show.cell_images import CellImages
from tests.conftest import ROOT
from tests.helpers.browser import Browser

SIDE = 48


def write_other(source, folder, part):
    """A results folder whose images are `part` target, the rest those of another folder."""
    shutil.copytree(source, folder)
    found = CellImages(read_cell(source))
    images = {k: part * found.target(k) + (1 - part) * found.reconstruction(k) for k in found.keys}
    # so that the orders by either method differ from each other
    worse = found.keys[1]
    images[worse] = 0.8 * images[worse]
    with h5py.File(folder / "recon.h5", "w") as file:
        file["reconstruction"], file["key"] = np.stack(list(images.values())), list(images)
        file["shape"] = [image.shape for image in images.values()]
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "psnr", "ssim", "nmse", "seconds", "nfe"])
        for key, image in images.items():
            writer.writerow([key, *all_metrics(found.target(key), image).values(), 2.0, 6])
    config = json.loads((folder / "config.json").read_text())
    config["sampler"]["name"] = "predictor_corrector"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / SUMS).unlink()  # edited on purpose
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """TV and a prior, made up from zero-filled slices; zero-filled itself."""
    root = tmp_path_factory.mktemp("results") / "brain" / "gaussian1d_4x"
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    config.sampler.name, config.data.image_size, config.panels = "zero_filled", SIDE, 0
    config.limit = 4
    evaluation.evaluate(config, root / "zero_filled", "cpu")
    return [
        write_other(root / "zero_filled", root / "tv", 0.3),
        write_other(root / "zero_filled", root / "natural_1_pc", 0.7),
        root / "zero_filled",
    ]


def data_of(text):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )


def pixels(uri):
    kind, _, content = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))) / 255


def test_numbers_and_images_are_those_of_the_folders(folders):
    data = data_of(make_report(folders[:2], limit=3))
    assert data["names"] == ["target", "zero-filled", "TV", "natural 1, PC"]
    assert data["start"] == {"left": 1, "right": 2}
    opened = [CellImages(read_cell(folder)) for folder in (folders[2], *folders[:2])]
    assert [piece["key"] for piece in data["slices"]] == opened[0].keys[:3]
    for piece in data["slices"]:
        key = piece["key"]
        target = opened[0].target(key)
        images = [target, *(found.reconstruction(key) for found in opened)]
        for uri, image in zip(piece["images"], images, strict=True):
            shown = pixels(uri)
            assert shown.shape[:2] == (SIDE, SIDE)
            # lossy: about one grey level in a hundred, on the average
            assert np.abs(shown[..., 0] - np.clip(image, 0, 1)).mean() < 0.015
        assert (piece["errors"][0], piece["metrics"][0]) == (None, None)
        for uri, image in zip(piece["errors"][1:], images[1:], strict=True):
            brightness, error = pixels(uri).sum(-1), np.abs(image - target)
            assert np.corrcoef(brightness.ravel(), error.ravel())[0, 1] > 0.8
        for values, found in zip(piece["metrics"][1:], opened, strict=True):
            expected = [found.cell.rows[key][name] for name in ("psnr", "ssim", "nmse")]
            assert values == pytest.approx(expected, rel=1e-4)


def test_direct_reconstruction_is_there_once(folders):
    data = data_of(make_report(folders))
    assert data["names"] == [
        "target",
        "TV",
        "natural 1, PC",
        "zero-filled",
    ]
    assert data["start"] == {"left": 3, "right": 1}
    alone = data_of(make_report(folders[2:]))
    assert alone["names"] == ["target", "zero-filled"]
    assert alone["start"] == {"left": 1, "right": 0}


class Links(html.parser.HTMLParser):
    """Collects what a page would load, and the tags that are open at its end."""

    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.found += [v for k, v in attributes if k in ("src", "href", "data", "srcset")]
        if tag not in ("meta", "input", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_file_needs_nothing_else(folders):
    text = make_report(folders, title="a <b> & c")
    links = Links()
    links.feed(text)
    assert not links.open
    assert not [link for link in links.found if not link.startswith("data:")]
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "http" not in outside.replace("http-equiv", "")
    assert "url(" not in re.sub(r"url\(#\w+\)", "", text)
    assert "<h1>a &lt;b&gt; &amp; c</h1>" in text
    assert not re.search("@[A-Z]+@", text)
    assert "default-src 'none'" in text
    table = text[text.index("<table>") : text.index("</table>")]
    assert table.count("<tr>") == 4
    assert '<th scope="row">natural 1, PC</th>' in table
    assert make_report(folders, title="a <b> & c") == text


def test_a_key_cannot_end_the_script():
    data = {"slices": [{"key": "</script><script>"}]}
    assert "</script>" not in embed(data)
    assert json.loads(embed(data)) == data


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
    assert f"(2 of {len(rows)})".replace("2", str(len(rows) - 1), 1) in page.replace("\xa0", " ")


def test_command_line(folders, tmp_path, capsys):
    out = tmp_path / "new" / "report.html"
    main([*map(str, folders), f"--out={out}", "--limit=2"])
    assert re.match(r"report: .*report\.html \(0\.\d MB\)", capsys.readouterr().out)
    text = out.read_text()
    assert "2 slices that all folders have; 2 more are left out" in text
    with pytest.raises(SystemExit, match="expected a results folder"):
        main([str(tmp_path)])


@pytest.fixture(scope="module")
def page(folders, tmp_path_factory):
    """A browser that shows a report of 24 slices, more than fit on a screen, and the data in it."""
    folder = tmp_path_factory.mktemp("browser")
    text = make_report(folders[:2])
    data = data_of(text)
    first = data["slices"][0]
    data["slices"] += [first | {"key": f"{first['key']}+{i}"} for i in range(20)]
    start, end = text.index('id="data">') + len('id="data">'), text.rindex("</script>\n<script>")
    (folder / "report.html").write_text(text[:start] + json.dumps(data) + text[end:])
    with Browser(folder / "profile") as browser:
        browser.open(folder / "report.html")
        yield browser, data


def choose(browser, control, value):
    """As a person who takes an entry of a list or ticks a box."""
    name = "checked" if isinstance(value, bool) else "value"
    browser.run(
        f"document.getElementById('{control}').{name} = {json.dumps(value)};"
        f"document.getElementById('{control}').dispatchEvent(new Event('change'))"
    )


def keys_of(browser):
    return browser.run("[...document.querySelectorAll('.card h3')].map((h) => h.textContent)")


def test_slices_are_sorted_by_psnr(page):
    browser, data = page
    given = [piece["key"] for piece in data["slices"]]

    def by_psnr(name, sign):
        return sorted(
            given, key=lambda key: sign * data["slices"][given.index(key)]["metrics"][name][0]
        )

    assert keys_of(browser) == given
    for name in (2, 3):
        choose(browser, "right", str(name))
        for order, sign in (("ascending", 1), ("descending", -1)):
            choose(browser, "order", order)
            assert keys_of(browser) == by_psnr(name, sign)
    status = browser.run("document.getElementById('status').textContent")
    assert status == "24 slices, by PSNR of natural 1, PC"
    choose(browser, "order", "data")
    assert keys_of(browser) == given


def test_slider_and_overlay(page):
    browser, data = page
    choose(browser, "left", "0")
    choose(browser, "right", "2")
    # right and left image of the first card, then their errors
    images = "document.querySelector('.card').querySelectorAll('img')"
    browser.wait(f"{images}[1].complete && {images}[1].naturalWidth")
    sources = browser.run(f"[...{images}].map((image) => image.getAttribute('src'))")
    first = data["slices"][0]["images"]
    assert sources == [first[2], first[0], None, None]
    tags = browser.run("[...document.querySelectorAll('.tag')].map((t) => t.textContent)")
    assert tags[:2] == ["target", "TV"]
    browser.run(
        "slider = document.querySelector('.compare input'); slider.value = 30;"
        "slider.dispatchEvent(new Event('input'))"
    )

    def clip(number):
        return browser.run(f"getComputedStyle({images}[{number}]).clipPath")

    assert clip(1) == "inset(0px 70% 0px 0px)"
    width = browser.run("slider.parentElement.clientWidth")
    line = browser.run("getComputedStyle(slider.parentElement, '::after').left")
    assert float(line.removesuffix("px")) == pytest.approx(0.3 * width, abs=1)
    for shown in (True, False):
        choose(browser, "errors", shown)
        assert browser.run(f"{images}[2].checkVisibility()") is shown
        assert browser.run("document.getElementById('scale').checkVisibility()") is shown
        if shown:
            error = browser.run(f"{images}[2].getAttribute('src')")
            assert error == data["slices"][0]["errors"][2]
            assert clip(2) == "inset(0px 0px 0px 30%)"
            assert browser.run(f"{images}[3].checkVisibility()") is False  # the target has none


def test_keys_reach_everything(page):
    browser, _ = page
    browser.run("document.activeElement.blur(); window.scrollTo(0, 0)")
    focus = "document.activeElement"
    reached = []
    for _ in range(6):
        browser.press("Tab", 9)
        label = browser.run(f"{focus}.ariaLabel ?? {focus}.labels[0].textContent.trim()")
        reached.append(re.sub(r"\s.*", "", label, flags=re.S))
    assert reached == [
        "Summary",
        "Left",
        "Right",
        "Order",
        "error",
        "patient04_FLAIR.h5:0:",
    ]
    before = browser.run(f"+{focus}.value")
    for _ in range(3):
        browser.press("ArrowRight", 39)
    assert browser.run(f"+{focus}.value") == before + 3
    cut = browser.run(f"{focus}.parentElement.style.getPropertyValue('--cut')")
    assert cut == f"{before + 3}%"
    ring = browser.run(f"getComputedStyle({focus}.parentElement, '::before').borderTopWidth")
    assert ring == "3px"


def test_only_slices_on_the_screen_have_pictures(page):
    browser, _ = page
    loaded = "[...document.querySelectorAll('.card')].map((c) => !!c.querySelector('img[src]'))"
    for place, near, far in (("0", 0, -1), ("document.body.scrollHeight", -1, 0)):
        browser.run(f"window.scrollTo(0, {place})")
        browser.wait(f"{loaded}.at({near}) && !{loaded}.at({far})")
        assert 1 < sum(browser.run(loaded)) < 20
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")


def test_samples_have_a_map_of_what_is_not_decided(folders, tmp_path):
    folder = tmp_path / "natural_1_dds"
    shutil.copytree(folders[1], folder)
    with h5py.File(folder / "recon.h5", "a") as file:
        std = np.zeros(file["reconstruction"].shape, np.float32)
        std[:, : SIDE // 2] = 1.0  # nothing is decided in the upper half
        file["std"] = std
    text = make_report([folders[0], folder])
    data = data_of(text)
    assert data["names"][-2:] == ["natural 1, DDS", "natural 1, DDS: not decided by the data"]
    assert "differs from sample to sample" in text
    for piece in data["slices"]:
        assert len(piece["images"]) == len(piece["errors"]) == len(piece["metrics"]) == 5
        assert (piece["errors"][-1], piece["metrics"][-1]) == (None, None)
        shown = pixels(piece["images"][-1])
        orange = shown[..., 0] - shown[..., 2]
        assert orange[: SIDE // 2 - 8].min() > 0.7
        assert np.abs(orange[SIDE // 2 + 12 :]).max() < 0.1
    assert "differs from sample" not in make_report(folders)
