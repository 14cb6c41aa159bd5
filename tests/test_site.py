"""The documentation site: its notebooks run, its gallery has everything, broken links are found.

`make docs` builds it, with the notebooks' own sizes; here they run with the few steps that each
notebook's metadata has, so that this takes seconds.
"""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

from operators import OPERATORS
from operators.masks import MASKS
from samplers import SAMPLERS
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
MOST_LINES = 60


def load(name: str):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_cells(path) -> list[dict]:
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def is_parameters(cell: dict) -> bool:
    return "parameters" in cell["metadata"].get("tags", ())


def test_there_are_six_notebooks_and_the_site_has_them():
    index = (ROOT / "docs" / "index.md").read_text()
    assert len(NOTEBOOKS) >= 6
    for path in NOTEBOOKS:
        assert f"\nnotebooks/{path.stem}\n" in index


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_has_no_results(path):
    notebook, cells = json.loads(path.read_text()), code_cells(path)
    lines = [line for cell in cells for line in "".join(cell["source"]).splitlines()]
    assert sum(bool(line.strip()) for line in lines) <= MOST_LINES
    assert max(map(len, lines)) <= 100
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    (parameters,) = filter(is_parameters, cells)
    names = {node.targets[0].id for node in ast.parse("".join(parameters["source"])).body}
    assert notebook["metadata"]["score_priors"]["quick"].keys() <= names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    quick = json.loads(path.read_text())["metadata"]["score_priors"]["quick"]
    few = "\n".join(f"{name} = {value!r}" for name, value in quick.items())
    parts = [
        "".join(cell["source"]) + (f"\n{few}" if is_parameters(cell) else "")
        for cell in code_cells(path)
    ]
    (tmp_path / "score_priors").symlink_to(ROOT / "configs" / "namespace")
    (tmp_path / "cells.py").write_text("\n".join(parts))
    environment = {"PYTHONPATH": str(tmp_path), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "cells.py"],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def gallery():
    module = load("gallery")
    module.SIZE, module.MOST_STEPS = 32, 2
    return module


@pytest.fixture(scope="module")
def images(gallery):
    mr = gallery.open_samples("test", subset="brain", image_size=32, fit="resize")[0].image[None]
    return mr, gallery.open_samples("test", subset="ct", image_size=32)[0].image[None]


@pytest.mark.parametrize("name", MASKS)
def test_each_mask_has_a_picture(gallery, images, name, tmp_path):
    assert f"mask-{name}.png" in gallery.draw_mask(tmp_path, name, images[0])
    assert (tmp_path / f"mask-{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("name", OPERATORS)
def test_each_operator_has_a_picture(gallery, images, name, tmp_path):
    """One that the command lines cannot create needs a line in `gallery.by_hand`."""
    assert f"operator-{name}.png" in gallery.draw_operator(tmp_path, name, *images)
    assert (tmp_path / f"operator-{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_sampler_has_a_problem(gallery, images, name):
    operator, y, target, (score, sde) = gallery.problem(name, images[0])
    operator.check_measurement(y)
    assert target.shape == images[0].shape
    if name in ("pnp", *gallery.COILS):
        sampler = SAMPLERS[name]
        rng = gallery.BatchGenerator([0])
        x = sampler(score, sde, operator, y, rng=rng, num_steps=2)
        assert x.shape[-2:] == target.shape[-2:]


def test_the_page_of_the_gallery_shows_its_pictures(gallery):
    card = gallery.card("mask-radial_golden", "4x")
    page = gallery.page({"Masks": ("Words.", [card, card])})
    assert page.count("{figure} mask-radial_golden.png") == 2
    assert page.index("## Masks") < page.index("Words.") < page.index("{container} gallery")
    assert len(re.findall(r"^````", page, re.M)) == 2


def test_links_to_nothing_are_found(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.html").write_text(
        '<p id="here"><a href="#here">1</a><a href="#gone">2</a><a href="../two.html#x">3</a>'
        '<img src="no.png"><a href="https://example.org/a">4</a><a href="../two.html#y">5</a>'
    )
    (tmp_path / "two.html").write_text(
        '<h1 id="x">a</h1><script src="https://b.org/c.js"></script>'
    )
    found = load("build").broken_links(tmp_path)
    expected = [f"a/one.html: {link}" for link in ("#gone", "no.png", "../two.html#y")]
    assert sorted(found) == sorted(
        [*expected, "two.html: https://b.org/c.js, which is not of this site"]
    )


def test_links_to_sources_become_links_to_their_pages(tmp_path):
    build = load("build")
    (tmp_path / "docs" / "notebooks").mkdir(parents=True)
    (tmp_path / "samplers").mkdir()
    (tmp_path / "configs").mkdir()
    for name in ("samplers/pnp.py", "configs/demo.py", "docs/notebooks/a.ipynb"):
        (tmp_path / name).write_text("a\n")
    (tmp_path / "docs" / "a.md").write_text(
        "[p](../samplers/pnp.py) [g](gallery.py) [c](../configs/demo.py) [o](a.md#b) [u](http://a.b)"
    )
    build.copy_documents(tmp_path, tmp_path / "site")
    assert (tmp_path / "site" / "docs" / "a.md").read_text() == (
        "[p](api/samplers.pnp.rst) [g](gallery/index.md) [c](../configs/demo.py) [o](a.md#b) "
        "[u](http://a.b)"
    )
    assert (tmp_path / "site" / "configs" / "demo.py").is_file()
    assert (tmp_path / "site" / "docs" / "notebooks" / "a.ipynb").is_file()
    assert not (tmp_path / "site" / "samplers").exists()


def test_the_api_has_every_module(monkeypatch):
    build = load("build")
    monkeypatch.setattr(build, "ROOT", ROOT)
    modules = build.submodules("samplers")
    expected = {f"samplers.{p.stem}" for p in (ROOT / "samplers").glob("*.py")}
    assert set(modules) == expected - {"samplers.__init__"}
    page = build.api_page("samplers", modules)
    assert "* `pnp <samplers.pnp.pnp>`" in page
    assert "   pnp <samplers.pnp>" in page
    assert ".. automodule:: samplers\n" in page
