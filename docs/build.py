"""Build the documentation site: ``python docs/build.py``, or ``make docs``.

The site is docs/_build/html/index.html: pages of docs/, of the folders' READMEs, and of the API;
notebooks and the gallery with what they print and draw here. A warning of Sphinx or a link to
nothing is an error.
"""

import argparse
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "docs" / "_build"
# documents beside docs/ that belong to the site
OTHERS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "weights/*.md", "datasets/samples/*.md")
# packages and modules of the API's pages (docs/api.md)
API = (
    "reconstruct",
    "operators",
    "samplers",
    "sde",
    "models",
    "datasets",
    "evaluation.baselines",
    "evaluation.metrics",
)
NOT_API = ("datasets.samples", "models.foreign.")  # scripts; behind models.foreign's functions
GALLERY = Path("docs", "gallery.py")
LINK = re.compile(r"\]\(([^)#\s:]+)(?:#[^)\s]*)?\)")


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser("docs/build.py", description=__doc__)
    parser.add_argument(
        "--draft", action="store_true", help="without running notebooks and gallery: seconds"
    )
    draft = parser.parse_args(argv).draft
    source, html = BUILD / "source", BUILD / "html"
    for folder in (source, html):
        shutil.rmtree(folder, ignore_errors=True)
    copy_documents(ROOT, source)
    write_api(source / "docs" / "api")
    pictures = source / "docs" / "gallery"
    if draft:
        pictures.mkdir()
        (pictures / "index.md").write_text("# Gallery\n\nNot drawn in a draft.\n")
    else:
        run([sys.executable, str(ROOT / GALLERY), str(pictures)])
    run_sphinx(source, html, draft)
    (html / "index.html").write_text(
        '<!doctype html><title>score-priors</title><meta http-equiv="refresh" '
        'content="0; url=docs/index.html"><a href="docs/index.html">score-priors</a>\n'
    )
    broken = broken_links(html)
    if broken:
        sys.exit("links to nothing:\n" + "\n".join(broken))
    print(f"the site: {html / 'index.html'}")


def copy_documents(root: Path, target: Path) -> None:
    """Copy the site's documents, and the files that they link to, to the same places.

    Links to sources, which a reader of the repository follows, become links to their pages.
    """
    files = [p for p in (root / "docs").rglob("*") if p.suffix in (".md", ".ipynb", ".png")]
    files += [path for pattern in OTHERS for path in root.glob(pattern)]
    for path in (p for p in files if BUILD not in p.parents):
        place = target / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".md":
            shutil.copy(path, place)
            continue
        text = path.read_text()
        for link in set(LINK.findall(text)):
            linked = (path.parent / link).resolve()
            if page := page_of(linked, root):
                text = text.replace(f"]({link})", f"]({os.path.relpath(root / page, path.parent)})")
            elif linked.is_file() and linked not in files:
                copied = target / linked.relative_to(root)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(linked, copied)
        place.write_text(text)


def page_of(path: Path, root: Path) -> str | None:
    """Page of the site that shows what a source has; None if there is none."""
    relative = path.relative_to(root)
    if relative == GALLERY:
        return "docs/gallery/index.md"
    parts = relative.with_suffix("").parts
    is_shown = any(".".join(parts[:n]) in API for n in (1, 2))
    return f"docs/api/{'.'.join(parts)}.rst" if path.suffix == ".py" and is_shown else None


def write_api(folder: Path) -> None:
    """Write a page for each module of the packages in `API`; new modules appear by themselves."""
    folder.mkdir(parents=True)
    sys.path.insert(0, str(ROOT))
    for name in API:
        modules = submodules(name)
        for module in (name, *modules):
            (folder / f"{module}.rst").write_text(api_page(module, modules))


def submodules(package: str) -> list[str]:
    """Names of the modules below a package, those below its packages included."""
    path = getattr(importlib.import_module(package), "__path__", None)
    if path is None:
        return []
    found = (module.name for module in pkgutil.walk_packages(path, f"{package}."))
    return sorted(name for name in found if not name.startswith(NOT_API))


def api_page(module: str, modules: list[str]) -> str:
    """Page of a module: what it defines, and of a package what it exports and its modules."""
    lines = [f"{module}\n{'=' * len(module)}", f".. automodule:: {module}\n   :members:"]
    lines[-1] += "\n   :ignore-module-all:\n   :show-inheritance:"
    loaded = importlib.import_module(module)
    exported = [
        f"* `{name} <{value.__module__}.{name}>`"
        for name in getattr(loaded, "__all__", ())
        if getattr(value := getattr(loaded, name), "__module__", module) != module
    ]
    if exported:
        lines += [f".. rubric:: From {module}", "\n".join(exported)]
    inner = [name for name in modules if name == f"{module}.{last(name)}"]
    if inner:
        lines += [".. rubric:: Modules"]
        lines += ["\n".join(f"* :doc:`{name}`: {first_line(name)}" for name in inner)]
        lines += [".. toctree::\n   :hidden:\n\n" + "\n".join(f"   {last(n)} <{n}>" for n in inner)]
    return "\n\n".join(lines) + "\n"


def last(name: str) -> str:
    """Last part of a dotted name."""
    return name.rpartition(".")[2]


def first_line(module: str) -> str:
    """First sentence of a module's docstring."""
    return (importlib.import_module(module).__doc__ or "").strip().split("\n\n")[0].split("\n")[0]


def run_sphinx(source: Path, html: Path, draft: bool) -> None:
    """Run Sphinx with warnings as errors."""
    here = BUILD / "path"  # so that notebooks import this checkout as score_priors
    here.mkdir(parents=True, exist_ok=True)
    (here / "score_priors").unlink(missing_ok=True)
    (here / "score_priors").symlink_to(ROOT / "configs" / "namespace")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    os.environ |= {
        "SITE_ROOT": str(ROOT),
        "SITE_SOURCE": str(source),
        "SITE_VERSION": project["version"],
        "PYTHONPATH": str(here),
        "SITE_NOTEBOOKS": "off" if draft else "force",
    }
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "-j", "2"]
    run([*command, "-d", str(BUILD / "doctrees"), "-c", str(ROOT / "docs"), str(source), str(html)])


def run(command: list[str]) -> None:
    """Run a command; exit with its code if it fails."""
    code = subprocess.run(command).returncode
    if code:
        sys.exit(code)


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []  # what the page itself needs
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what a tag links to, and its anchor."""
        values = dict(attrs)
        links = [values[name] for name in ("href", "src") if values.get(name)]
        self.links += links
        self.loads += [link for link in links if tag != "a"]
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}


def broken_links(html: Path) -> list[str]:
    """Links within the site to files or anchors that are not there, each with its page.

    So is what a page loads from elsewhere: the site works without a network.
    """
    pages = {path.resolve(): Page(path.read_text()) for path in html.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loads and parts.scheme != "data":
                    broken.append(f"{path.relative_to(html)}: {link}, which is not of this site")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            is_there = target.is_file() or (target / "index.html").is_file()
            if not is_there or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.relative_to(html)}: {link}")
    return broken


if __name__ == "__main__":
    main()
