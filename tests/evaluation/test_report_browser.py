"""The report in Chromium: at the widths of a desktop and a phone, by mouse, touch and keys."""

import json

import numpy as np
import pytest

from evaluation.report import write_report
from tests.helpers.report_browser import (
    CANVAS,
    DESKTOP,
    PHONE,
    choose,
    drag,
    fits,
    grey,
    middle,
    mouse,
    show,
)
from tests.helpers.report_folders import (
    SIDE,
    add_spread,
    evaluate_direct,
    three_methods,
    write_other,
)
from tests.helpers.report_pixels import data_of, decode, slice_of

SHIFT = 8  # of Chromium's modifiers


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Paths of reports: MR with samples in one page; CT with its images beside it."""
    root = tmp_path_factory.mktemp("reports")
    mr = three_methods(root / "brain" / "gaussian1d_4x")
    add_spread(mr[1])
    fields = {"sampler.name": "fbp", "operator.name": "ct", "data.subset": "ct", "limit": 6}
    fbp = evaluate_direct(root / "ct" / "views_30" / "fbp", **fields)
    ct = [fbp, write_other(fbp, fbp.with_name("natural_1_pc"), 0.9)]
    write_report(mr, root / "mr.html", limit=0, title="MR", files="no")
    write_report(ct, root / "ct.html", limit=0, title="CT", files="yes")
    return {"mr": root / "mr.html", "ct": root / "ct.html"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("name", ["mr", "ct"])
def test_fits_the_screen_in_light_and_dark(browser, pages, name, size, scheme):
    fits(browser, pages[name], size, scheme)


def test_window_shows_the_values_of_the_results(browser, pages):
    show(browser, pages["mr"])
    text = pages["mr"].read_text()
    target = decode(slice_of(text, 0)["images"][0], (SIDE, SIDE))
    choose(browser, "window", "0")
    assert np.abs(grey(browser) - np.clip(np.floor(256 * target), 0, 255)).max() <= 1
    choose(browser, "level", "0.3")
    choose(browser, "width", "0.2")
    expected = np.clip(np.floor(256 * (target - 0.2) / 0.2), 0, 255)
    assert np.abs(grey(browser) - expected).max() <= 1
    assert browser.run("byId('window').value") == "own"
    assert browser.run("stage.querySelector('.corner').textContent") == "W 0.2 L 0.3"
    choose(browser, "window", "5\N{EN DASH}95 %")
    low, high = np.percentile(target, [5, 95], method="nearest")
    assert browser.run("bounds()") == pytest.approx([low, high], abs=1e-4)
    choose(browser, "width", "nonsense")
    assert browser.run("bounds()") == pytest.approx([low, high], abs=1e-4)


def test_presets_of_ct_are_in_hounsfield_units(browser, pages):
    show(browser, pages["ct"])
    assert browser.run("stage.querySelector('.corner').textContent") == "W 400 L 40 HU"
    browser.run("stage.focus()")
    browser.press("2", ord("2"))
    assert browser.run("[state.level, state.width]") == [-600, 1500]
    label = browser.run(f"{CANVAS}[0].getAttribute('aria-label')")
    assert label == "target; W 1500 L \N{MINUS SIGN}600 HU"
    entry = data_of(pages["ct"].read_text())["slices"][0]
    factor, offset = entry["values"]
    content = (pages["ct"].parent / entry["file"]).read_text()
    images = json.loads(content[content.index("{") : content.rindex("}") + 1])["images"]
    values = factor * decode(images[0], (SIDE, SIDE)) + offset
    expected = np.clip(np.floor(256 * (values + 1350) / 1500), 0, 255)
    assert np.abs(grey(browser) - expected).max() <= 1


def test_maps_of_errors_and_samples(browser, pages):
    show(browser, pages["mr"])
    images = slice_of(pages["mr"].read_text(), 0)["images"]
    target, best = (decode(image, (SIDE, SIDE)) for image in images[:2])
    choose(browser, "full", "0.1")
    for name, low in (("size", 0), ("signed", -0.1)):
        choose(browser, "map", name)
        assert browser.run("views.filter(({ map }) => map).length") == 3  # the target has none
        error = best - target if name == "signed" else np.abs(best - target)
        table = browser.run(f"[...TABLES.{name}].map((color) => color & 255)")
        places = np.clip(np.floor(256 * (error - low) / (0.1 - low)), 0, 255).astype(int)
        number = browser.run("views.findIndex(({ map }) => map)")
        allowed = np.abs(np.diff(table)).max()  # a place more or less, by rounding
        assert np.abs(grey(browser, number) - np.array(table)[places]).max() <= allowed
    # red, green and blue of no error differ by little: neutral, and light
    zero = browser.run("[0, 8, 16].map((shift) => TABLES.signed[128] >> shift & 255)")
    assert min(zero) > 235
    assert browser.run("[...byId('legend').querySelectorAll('span')].map((s) => s.textContent)")[
        3:
    ] == ["\N{MINUS SIGN}0.1", "0", "0.1"]
    for name in ("std", "width", "undecided"):
        choose(browser, "map", name)
        assert browser.run("views.filter(({ map }) => map).length") == 1
        labels = browser.run(f"[...{CANVAS}].map((c) => c.getAttribute('aria-label'))")
        assert any("natural 1, PC: " in label and "sample" in label + "samples" for label in labels)
    assert browser.run("wrong") == []


def test_differences_to_another_image(browser, pages):
    show(browser, pages["mr"])
    images = [decode(i, (SIDE, SIDE)) for i in slice_of(pages["mr"].read_text(), 0)["images"]]
    assert browser.run("byId('map').selectedOptions[0].textContent") == "|error|"
    choose(browser, "reference", "2")  # TV
    assert browser.run("byId('map').selectedOptions[0].textContent") == "|difference|"
    assert browser.run("byId('blink').textContent") == "Show TV"
    assert "|image \N{MINUS SIGN} TV|" in browser.run("byId('legend').textContent")
    shown = browser.run("views.filter(({ map }) => map).map(({ layers }) => layers[0].index)")
    assert shown == [0, 1, 3]  # all but TV
    large = [np.percentile(np.abs(images[i] - images[2]), 99.5) for i in (0, 1)]
    assert 0.6 < browser.run("state.full.error") / np.mean(large) < 1.7
    choose(browser, "map", "signed")
    choose(browser, "full", "0.1")
    table = np.array(browser.run("[...TABLES.signed].map((color) => color & 255)"))
    places = np.clip(np.floor(256 * (images[1] - images[2] + 0.1) / 0.2), 0, 255).astype(int)
    number = browser.run("views.findIndex(({ map, layers }) => map && layers[0].index === 1)")
    assert np.abs(grey(browser, number) - table[places]).max() <= np.abs(np.diff(table)).max()
    browser.run("stage.focus()")
    for expected in (3, 0):
        browser.press("r", 82)
        assert browser.run("state.reference") == expected
    assert browser.run("byId('map').selectedOptions[0].textContent") == "signed error"


def test_zoom_and_pan_are_those_of_all_images(browser, pages):
    show(browser, pages["mr"])
    choose(browser, "map", "none")
    x, y, width = middle(browser, 1)
    point = {"x": x + width / 4, "y": y}
    wheel = {"type": "mouseWheel", "deltaX": 0, "deltaY": -90, **point}
    browser.call("Input.dispatchMouseEvent", **wheel | {"deltaY": -1})  # a pixel, soon scrolled
    assert browser.run("state.zoom.by") == 1  # it scrolls the page until an image was clicked
    x, y, width = middle(browser, 1)
    drag(browser, (x, y), (x, y))
    for _ in range(3):
        browser.call("Input.dispatchMouseEvent", **wheel | {"x": x + width / 4, "y": y})
    browser.wait("state.zoom.by > 2")
    zoom = browser.run("state.zoom")
    # what was under the pointer, at 3/4 of the width, is still there
    assert (0.75 - zoom["x"]) / zoom["by"] == pytest.approx(0.75, abs=0.01)
    drag(browser, (x, y), (x - width / 8, y + width / 16))
    assert browser.run("state.zoom.x") == pytest.approx(zoom["x"] - 1 / 8, abs=0.01)
    shapes = browser.run(f"[...{CANVAS}].map((c) => getComputedStyle(c).transform)")
    assert len(shapes) == 4
    assert len(set(shapes)) == 1
    assert float(shapes[0].removeprefix("matrix(").split(",")[0]) == pytest.approx(
        zoom["by"], rel=1e-3
    )
    browser.run("byId('fit').click()")
    assert browser.run("state.zoom") == {"by": 1, "x": 0, "y": 0}
    drag(browser, (x, y), (x + width / 4, y))  # the whole image stays inside
    assert browser.run("state.zoom.x") == 0


def test_drags_with_shift_or_the_right_button_set_the_window(browser, pages):
    show(browser, pages["mr"])
    choose(browser, "window", "0")
    x, y, width = middle(browser)
    drag(browser, (x, y), (x + width / 4, y), modifiers=SHIFT)
    assert browser.run("state.width") > 1.2
    before = browser.run("state.level")
    drag(browser, (x, y), (x, y - width / 4), button="right")
    assert browser.run("state.level") < before  # brighter
    assert browser.run("state.zoom.by") == 1
    browser.run("byId('tool').click()")
    before = browser.run("state.width")
    drag(browser, (x, y), (x - width / 4, y))
    assert browser.run("state.width") < before


def test_two_fingers_pinch(browser, pages):
    show(browser, pages["mr"], PHONE)
    x, y, width = middle(browser)

    def fingers(kind, apart):
        places = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        touches = [] if kind == "End" else places
        browser.call("Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=touches)

    browser.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
    try:
        fingers("Start", width / 10)
        for part in (8, 6, 5):
            fingers("Move", width / part)
        fingers("End", 0)
        browser.wait("state.zoom.by > 1.5")
        assert browser.run("state.zoom.by") == pytest.approx(2, rel=0.15)
        assert browser.run("pointers.size") == 0
    finally:
        browser.call("Emulation.setTouchEmulationEnabled", enabled=False)


def test_value_under_the_pointer(browser, pages):
    show(browser, pages["mr"])
    images = [decode(i, (SIDE, SIDE)) for i in slice_of(pages["mr"].read_text(), 0)["images"]]
    x, y, width = middle(browser)
    mouse(browser, "Moved", x + 0.101 * width, y - 0.202 * width)
    row, column = int(0.298 * SIDE), int(0.601 * SIDE)
    shown = browser.run("[...stage.querySelectorAll('.value')].map((v) => v.textContent)")
    assert len(shown) == 7  # four images and three errors
    values = {text.rpartition(") ")[2].replace("\N{MINUS SIGN}", "-") for text in shown}
    assert {text.partition(")")[0] for text in shown} == {f"({row}, {column}"}
    for image in images:
        assert min(abs(float(value) - image[row, column]) for value in values) < 2e-3


def test_slices_by_keys_and_the_list(browser, pages):
    show(browser, pages["mr"])
    browser.run("stage.focus()")
    browser.press("PageDown", 34)
    browser.wait("state.slice === 1 && !stage.hasAttribute('aria-busy')")
    assert browser.run("byId('status').textContent").startswith("2 of 4: ")
    assert browser.run("cards.map(({ button }) => button.getAttribute('aria-current'))") == [
        *(None, "true", None, None)
    ]
    choose(browser, "by", "2")
    choose(browser, "order", "ascending")
    slices = data_of(pages["mr"].read_text())["slices"]
    expected = sorted(slices, key=lambda entry: entry["metrics"][2][0])
    listed = browser.run(
        "[...document.querySelectorAll('#gallery li')].map(({ number }) => number)"
    )
    assert [slices[number]["key"] for number in listed] == [entry["key"] for entry in expected]
    browser.run("byId('filter').value = 'T1W'; byId('filter').dispatchEvent(new Event('input'))")
    assert browser.run("byId('count').textContent") == "1 slice"
    browser.run("document.querySelector('#gallery button').click()")
    browser.wait("images !== null && !stage.hasAttribute('aria-busy')")
    assert "T1W" in browser.run("byId('status').textContent")


def test_order_of_the_methods(browser, pages):
    show(browser, pages["mr"])
    titles = "[...stage.querySelectorAll('figcaption b')].map((b) => b.textContent)"
    rows = "[...document.querySelectorAll('#summary tbody th')].map((th) => th.textContent)"
    best = ["natural 1, PC", "TV", "zero-filled"]
    assert browser.run(titles) == ["target", *best]
    choose(browser, "rank", "name")
    assert browser.run(titles) == ["target", "natural 1, PC", "TV", "zero-filled"]
    header = "[...document.querySelectorAll('#summary thead button')]"
    click = f"{header}.find((b) => b.textContent.startsWith('PSNR')).click()"
    browser.run(click)
    assert browser.run(rows) == best
    browser.run(click)
    assert browser.run(rows) == best[::-1]
    assert browser.run(titles) == ["target", *best[::-1]]
    assert browser.run("document.querySelector('[aria-sort]').ariaSort") == "ascending"
    choose(browser, "rank", "0")
    assert browser.run(rows) == best
    browser.run("byId('choice').querySelectorAll('input')[2].click()")
    assert browser.run(titles) == ["target", "natural 1, PC", "zero-filled"]


def test_slider_between_two(browser, pages):
    show(browser, pages["mr"])
    choose(browser, "layout", "slider")
    choose(browser, "left", "0")
    choose(browser, "right", "2")
    names = browser.run("[...stage.querySelectorAll('.name')].map((n) => n.textContent)")
    assert names == ["target", "TV"]
    browser.run("byId('cut').value = 30; byId('cut').dispatchEvent(new Event('input'))")
    clip = "getComputedStyle(stage.querySelector('.layer.left')).clipPath"
    assert browser.run(clip) == "inset(0px 70% 0px 0px)"
    # a view of the images and one of the error, which the target has not
    assert browser.run(f"{CANVAS}.length") == 4


def test_keys_reach_everything(browser, pages):
    show(browser, pages["mr"])
    browser.run("document.activeElement.blur(); window.scrollTo(0, 0)")
    focus = "document.activeElement"
    reached = []
    for _ in range(60):
        browser.press("Tab", 9)
        element = f"({focus}.id || {focus}.closest('[id]')?.id)"
        reached.append(browser.run(element))
        ring = browser.run(f"getComputedStyle({focus}).outlineStyle")
        assert ring != "none", reached
        if reached[-1] == "filter":
            break
    wanted = ["theme", "summary", "slice", "next", "window", "level", "width", "map", "full"]
    wanted += ["layout", "rank", "out", "in", "fit", "tool", "blink", "screen", "help", "choice"]
    wanted += ["stage", "order", "by", "filter"]
    assert [name for name in reached if name in wanted] == sorted(
        [name for name in reached if name in wanted], key=wanted.index
    )
    assert set(wanted) <= set(reached)


def test_shortcuts(browser, pages):
    show(browser, pages["mr"])
    browser.run("stage.focus()")
    browser.press("+", 107)
    assert browser.run("state.zoom.by") == pytest.approx(1.25)
    before = browser.run("state.zoom.x")
    browser.press("ArrowRight", 39)
    assert browser.run("state.zoom.x") == pytest.approx(max(-0.25, before - 0.1))
    browser.press("0", 48)
    assert browser.run("state.zoom.by") == 1
    browser.press("m", 77)
    assert browser.run("state.map") == "signed"
    browser.press("t", 84)
    assert browser.run("state.blink") is True
    text = pages["mr"].read_text()
    target = decode(slice_of(text, 0)["images"][0], (SIDE, SIDE))
    choose(browser, "window", "0")
    shown = grey(browser, 1)  # the best method's place
    assert np.abs(shown - np.clip(np.floor(256 * target), 0, 255)).max() <= 1
    browser.press("?", 191)
    assert browser.run("byId('shortcuts').checkVisibility()") is True
    listed = browser.run("byId('shortcuts').textContent")
    assert "full screen" in listed
    browser.run("byId('filter').focus()")
    browser.press("m", 77)  # not while one writes
    assert browser.run("state.map") == "signed"


def test_everything_has_a_name_for_screen_readers(browser, pages):
    show(browser, pages["mr"])
    browser.call("Accessibility.enable")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "combobox", "slider", "spinbutton", "searchbox", "image", "img", "checkbox"}
    asked = [n for n in nodes if n.get("role", {}).get("value") in roles and not n["ignored"]]
    assert len(asked) > 30
    nameless = [n["role"]["value"] for n in asked if not n.get("name", {}).get("value", "").strip()]
    assert not nameless
    names = {n["name"]["value"] for n in asked}
    assert any(name.startswith("natural 1, PC; W ") and "PSNR" in name for name in names)


def test_only_slices_that_are_looked_at_are_loaded(browser, pages):
    show(browser, pages["ct"])
    browser.wait("decoded.size === 2")  # the first, and its neighbour
    assert browser.run("[...decoded.keys()]") == [0, 1]
    browser.run("showSlice(4)")
    browser.wait("state.slice === 4 && !stage.hasAttribute('aria-busy')")
    assert browser.run("decoded.has(2)") is False
    assert browser.run("wrong") == []
    assert browser.run("document.querySelectorAll('#gallery img[loading=lazy]').length") == 6
    browser.wait("document.querySelector('#gallery img').naturalWidth > 0")


def test_a_page_without_its_folder_says_so(browser, pages, tmp_path):
    (tmp_path / "alone.html").write_text(pages["ct"].read_text())
    browser.open(tmp_path / "alone.html")
    browser.wait("byId('trouble').checkVisibility()")
    assert "ct_files" in browser.run("byId('trouble').textContent")
    assert "belong together" in browser.run("byId('trouble').textContent")


def test_colours_are_kept(browser, pages):
    show(browser, pages["mr"], scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = browser.run(background)
    for wanted in ("light", "dark"):
        browser.run("byId('theme').click()")
        assert browser.run("byId('theme').textContent") == f"Colours: {wanted}"
    dark = browser.run(background)
    assert dark != light
    browser.open(pages["mr"])
    browser.wait("byId('theme').textContent === 'Colours: dark'")
    assert browser.run(background) == dark
    browser.run("byId('theme').click()")
    assert browser.run(background) == light  # the system's
