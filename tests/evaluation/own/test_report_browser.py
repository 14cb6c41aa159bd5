"""The report of reconstruct.py in Chromium: it has no truth, and any unit."""

import shutil

import numpy as np
import pytest

from evaluation.own.result import OwnResult
from evaluation.report import write_report
from tests.helpers.own_folders import (
    SLICES,
    UNIT,
    add_validation,
    reconstruct,
    write_kspace,
    write_tiny_prior,
)
from tests.helpers.report_browser import (
    CANVAS,
    DESKTOP,
    PHONE,
    choose,
    fits,
    grey,
    show,
)

KEY = "k.npy:0"
TITLES = "[...stage.querySelectorAll('figcaption b')].map((b) => b.textContent)"
DISTINCT = 0.51 / 4096  # of the range: half a step of what is stored


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folders of a point estimate and of samples of one scan, a page of both, one of a slice."""
    root = tmp_path_factory.mktemp("own")
    prior = write_tiny_prior(root / "prior.pt")
    scan = write_kspace(root / "k.npy")
    add_validation(reconstruct(prior, scan, root / "pnp", **SLICES))
    reconstruct(prior, scan, root / "samples", **SLICES, **{"sampler.num_samples": 3})
    one = {"data.slices": "first:1", "sampler.end_sigma": 0.05}
    reconstruct(prior, scan, root / "one", **SLICES, **one)
    write_report([root / "pnp", root / "samples"], root / "both.html", limit=0, title="")
    return root


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_fits_the_screen_in_light_and_dark(browser, root, size, scheme):
    fits(browser, root / "both.html", size, scheme)


def test_the_window_is_of_the_reconstruction(browser, root):
    show(browser, root / "samples" / "report.html")
    image = OwnResult(root / "samples").image("reconstruction", KEY)
    step = DISTINCT * float(np.ptp(image))
    low, high = np.percentile(image, [1, 99], method="nearest")
    assert browser.run("bounds()") == pytest.approx([low, high], abs=2 * step)
    assert browser.run("state.level") == pytest.approx(UNIT, rel=2)  # far from 1
    shown = grey(browser, 1)
    assert np.abs(shown - np.clip(np.floor(256 * (image - low) / (high - low)), 0, 255)).max() <= 1
    assert "e\N{MINUS SIGN}" in browser.run("stage.querySelector('.corner').textContent")
    before = browser.run("state.width")
    choose(browser, "width", f"{before / 2:.3g}")
    assert browser.run("state.width") == pytest.approx(before / 2, rel=0.01)
    assert "unit of the k-space" in browser.run("byId('legend').textContent")


def test_without_a_truth_nothing_is_ranked(browser, root):
    show(browser, root / "both.html")
    assert browser.run(TITLES) == ["zero-filled", "pnp", "samples"]
    assert browser.run("[...byId('rank').options].map((o) => o.textContent)") == [
        *("as given", "by name", "as the table")
    ]
    for control in ("order", "by"):
        assert browser.run(f"byId('{control}').checkVisibility()") is False
    assert browser.run("byId('filter').checkVisibility()") is True
    assert browser.run("byId('blink').textContent") == "Show zero-filled"
    header = "[...document.querySelectorAll('#summary thead button')]"
    for _ in range(2):
        browser.run(f"{header}.find((b) => b.textContent === 'name').click()")
    assert browser.run(TITLES) == ["zero-filled", "samples", "pnp"]
    for order in ("ascending", "descending"):  # errors are best where small; none is last
        browser.run(f"{header}.find((b) => b.textContent === 'above the noise').click()")
        assert browser.run("document.querySelector('[aria-sort]').ariaSort") == order
        assert browser.run(TITLES) == ["zero-filled", "pnp", "samples"]
    assert browser.run("wrong") == []


def test_difference_to_the_direct_reconstruction_and_to_another(browser, root):
    show(browser, root / "both.html")
    results = {name: OwnResult(root / name) for name in ("pnp", "samples")}
    image = results["samples"].image("reconstruction", KEY)
    others = {
        "0": results["pnp"].image("direct", KEY),
        "1": results["pnp"].image("reconstruction", KEY),
    }
    choose(browser, "map", "signed")
    table = np.array(browser.run("[...TABLES.signed].map((color) => color & 255)"))
    for reference, other in others.items():
        choose(browser, "reference", reference)
        assert browser.run("byId('map').selectedOptions[0].textContent") == "signed difference"
        full = browser.run("state.full.error")
        places = np.clip(np.floor(256 * (image - other + full) / (2 * full)), 0, 255).astype(int)
        number = browser.run("views.findIndex(({ map, layers }) => map && layers[0].index === 2)")
        # values are stored in steps, which may be more than one of 256 colours
        steps = 2 + 256 * 2 * DISTINCT * np.ptp(image) / (2 * full)
        near = np.abs(table[:, None] - grey(browser, number).ravel()).argmin(0)
        assert np.median(np.abs(near - places.ravel())) <= steps
        large = np.percentile(np.abs(image - other), 99.5)
        assert 0.3 < full / large < 3
    assert browser.run("byId('blink').textContent") == "Show pnp"


def test_maps_of_samples_stand_below_theirs(browser, root):
    show(browser, root / "samples" / "report.html")
    assert browser.run("state.map") == "std"
    assert browser.run(f"{CANVAS}.length") == 3  # zero-filled has none
    std = OwnResult(root / "samples").image("std", KEY)
    full = browser.run("state.full.std")
    values = browser.run("[...images.maps[1].std]")
    assert np.abs(np.reshape(values, std.shape) - std).max() <= 1e-3 * std.max()
    assert 0.3 < full / np.percentile(std, 99.5) < 3
    for name in ("width", "undecided"):
        choose(browser, "map", name)
        assert browser.run(f"{CANVAS}.length") == 3
    assert browser.run("wrong") == []


def test_keys_go_through_the_slices(browser, root):
    show(browser, root / "both.html")
    browser.run("stage.focus()")
    browser.press("PageDown", 34)
    browser.wait("state.slice === 1 && !stage.hasAttribute('aria-busy')")
    image = OwnResult(root / "pnp").image("reconstruction", "k.npy:1")
    low, high = np.percentile(image, [1, 99], method="nearest")
    expected = np.clip(np.floor(256 * (image - low) / (high - low)), 0, 255)
    labels = browser.run(f"[...{CANVAS}].map((c) => c.getAttribute('aria-label'))")
    number = next(i for i, label in enumerate(labels) if label.startswith("pnp;"))
    assert np.abs(grey(browser, number) - expected).max() <= 1
    browser.run("document.querySelectorAll('#gallery button')[2].click()")
    browser.wait("state.slice === 2 && images !== null && !stage.hasAttribute('aria-busy')")
    browser.press("r", 82)
    assert browser.run("state.reference") == 1
    browser.press("t", 84)
    assert browser.run("state.blink") is True


def test_one_slice_needs_no_list_of_slices(browser, root):
    show(browser, root / "one" / "report.html")
    for name in ("list", "slice", "previous", "next"):
        assert browser.run(f"byId('{name}').checkVisibility()") is False
    assert browser.run("byId('status').textContent") == f"1 of 1: {KEY}"


def test_a_drawing_of_somebody_else_runs_no_script(browser, root, tmp_path):
    copy = tmp_path / "theirs"
    shutil.copytree(root / "pnp", copy)
    (copy / "sampling.png").unlink()
    (copy / "sampling.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" onload="wrong.push(1)">'
        "<script>parent.wrong.push(2)</script></svg>"
    )
    write_report([copy], tmp_path / "report.html", limit=0, title="")
    show(browser, tmp_path / "report.html")
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    browser.wait("document.querySelector('#sampling img').complete")
    assert browser.run("document.querySelector('#sampling img').naturalWidth") > 0
    assert browser.run("wrong") == []
