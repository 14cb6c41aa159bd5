"""Reports in a browser, as a person uses them."""

import base64
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from tests.helpers.browser import Browser

DESKTOP, PHONE = (1400, 900), (390, 844)
WATCH = (  # what goes wrong in the page
    "window.wrong = [];"
    "for (const name of ['error', 'unhandledrejection', 'securitypolicyviolation'])"
    "  addEventListener(name, (e) => wrong.push(e.message ?? e.blockedURI ?? `${e.reason}`));"
)
CANVAS = "stage.querySelectorAll('canvas')"


@contextmanager
def open_browser(profile) -> Iterator[Browser]:
    """A browser that notes what goes wrong in its page."""
    with Browser(profile) as found:
        found.call("Page.enable")
        found.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        yield found


def show(browser, path, size=DESKTOP, scheme="light"):
    """Open a report, and wait until its first slice is there."""
    width, height = size
    look = {"width": width, "height": height, "deviceScaleFactor": 1}
    browser.call("Emulation.setDeviceMetricsOverride", mobile=size == PHONE, **look)
    preference = {"name": "prefers-color-scheme", "value": scheme}
    browser.call("Emulation.setEmulatedMedia", features=[preference])
    browser.open(path)
    browser.run("localStorage.clear()")
    browser.open(path)
    browser.wait("typeof images === 'object' && images !== null && !stage.ariaBusy")
    assert browser.run("wrong") == []


def choose(browser, control, value):
    """As a person who takes an entry of a list, or writes into a field."""
    browser.run(
        f"byId('{control}').value = {json.dumps(value)};"
        f"byId('{control}').dispatchEvent(new Event('change'))"
    )


def grey(browser, number=0):
    """Red part of each pixel of a canvas ``(H, W)``."""
    canvas = f"{CANVAS}[{number}]"
    width, height = browser.run(f"[{canvas}.width, {canvas}.height]")
    pixels = browser.run(
        f"[...{canvas}.getContext('2d').getImageData(0, 0, {width}, {height}).data]"
        ".filter((_, i) => i % 4 === 0)"
    )
    return np.array(pixels).reshape(height, width)


def middle(browser, number=0):
    """Point of the page in the middle of a view, which is scrolled into sight."""
    return browser.run(
        f"(() => {{ const view = stage.querySelectorAll('.view')[{number}];"
        "view.scrollIntoView({ block: 'center' }); const r = view.getBoundingClientRect();"
        "return [r.left + r.width / 2, r.top + r.height / 2, r.width]; })()"
    )


def mouse(browser, kind, x, y, **more):
    browser.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **more)


def drag(browser, start, end, button="left", modifiers=0):
    held = {"left": 1, "right": 2}[button]
    common = {"button": button, "modifiers": modifiers, "clickCount": 1}
    mouse(browser, "Pressed", *start, buttons=held, **common)
    mouse(browser, "Moved", *end, buttons=held, **common)
    mouse(browser, "Released", *end, buttons=0, **common)


def fits(browser, path, size, scheme):
    """Assert that all of a report is as wide as the screen, and legible."""
    show(browser, path, size, scheme)
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    browser.run("byId('help').click()")
    for layout in ("slider", "all"):
        choose(browser, "layout", layout)
        assert browser.run("document.documentElement.scrollWidth") <= size[0]
    shot = base64.b64decode(browser.call("Page.captureScreenshot", format="png")["data"])
    corner = np.asarray(Image.open(io.BytesIO(shot)).convert("L"))[-5:, :5].mean()
    assert corner < 60 if scheme == "dark" else corner > 200
    # text against what is behind it (WCAG 2: at least 4.5)
    for what in ("h1", ".note", "#summary td", "#viewer label", "#gallery span"):
        assert contrast(browser, what) >= 4.5, what
    assert browser.run("wrong") == []


def contrast(browser, what):
    """Contrast of the text of an element to what is behind it (WCAG 2)."""
    colors = browser.run(
        f"(() => {{ const of = document.querySelector('{what}'); let behind = of;"
        "const back = (e) => getComputedStyle(e).backgroundColor;"
        "while (back(behind) === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;"
        "return [getComputedStyle(of).color, back(behind)].map((c) => c.match(/[0-9.]+/g)); })()"
    )
    light = []
    for color in colors:
        part = np.array(color[:3], float) / 255
        linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        light.append(0.05 + linear @ [0.2126, 0.7152, 0.0722])
    return max(light) / min(light)
