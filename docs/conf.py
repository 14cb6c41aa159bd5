"""Sphinx's settings of the documentation site; `build.py` beside this file builds it.

Nothing is loaded from elsewhere: formulas are MathML, the search index is a file of the site.
"""

import ast
import inspect
import os
import re
import sys
import textwrap
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

SOURCE = Path(os.environ["SITE_SOURCE"])  # build.py's copy of the repository's documents
ROOT = Path(os.environ["SITE_ROOT"])  # the checkout
sys.path.insert(0, str(ROOT))

project = "score-priors"
author = copyright = "the authors of score-priors"
version = release = os.environ["SITE_VERSION"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
root_doc = "docs/index"
exclude_patterns = ["_*"]
language = "en"
default_role = "py:obj"  # `name` in a docstring is a link where there is such a name

myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]  # ```math, as GitHub has it
myst_heading_anchors = 4
nb_execution_mode = os.environ["SITE_NOTEBOOKS"]
nb_execution_timeout = 1800  # seconds a cell: ends a hang
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"  # warnings of the machine that builds

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # no entries of their own, which classes with annotations have already
napoleon_use_rtype = False
viewcode_line_numbers = True

html_theme = "furo"
html_title = "score-priors"
html_static_path = [str(ROOT / "docs" / name) for name in ("site.css", "math.woff", "math.txt")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
pygments_style = "friendly"
pygments_dark_style = "monokai"


def _write(display: str, node: nodes.Node, body: list[str]) -> None:
    formula = convert(node.astext(), display=display)
    if "\\" in formula:
        raise ValueError(f"a command that latex2mathml does not know: {node.astext()}")
    body.append(formula if display == "inline" else f'<div class="formula">{formula}</div>')
    raise nodes.SkipNode


def _inline(translator: nodes.NodeVisitor, node: nodes.Node) -> None:
    _write("inline", node, translator.body)


def _block(translator: nodes.NodeVisitor, node: nodes.Node) -> None:
    _write("block", node, translator.body)


def signature(app, what, name, obj, options, arguments, result) -> tuple[str, str] | None:
    """Signature of a function or class as its source has it, with the names of types used there."""
    function = obj.__init__ if inspect.isclass(obj) else obj
    if not inspect.isroutine(function):
        return None
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError, SyntaxError):  # no function of a file: of a dataclass, or of C
        return None
    first = (tree.args.posonlyargs + tree.args.args)[:1]
    if first and first[0].arg in ("self", "cls"):
        (tree.args.posonlyargs or tree.args.args).pop(0)
    returns = "" if tree.returns is None or inspect.isclass(obj) else ast.unparse(tree.returns)
    return f"({ast.unparse(tree.args)})", returns


def plain_bars(app, what, name, obj, options, lines: list[str]) -> None:
    """Keep the bars of |x| in docstrings, which mean something else in reStructuredText."""
    for i, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        lines[i] = "".join(p if p.startswith("`") else p.replace("|", r"\|") for p in parts)


def setup(app) -> dict:
    """Register the renderer of formulas, and what docstrings and signatures need."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-docstring", plain_bars)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
