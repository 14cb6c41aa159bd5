"""README and docs: every block of code is run or checked, every link leads somewhere.

A block is a formula, a table of contents, commands, whose files, flags and config fields have to be
there, or Python, which is run here or in the test that `RUN_ELSEWHERE` names. What cannot be run
here has its reason in `NOT_RUN`; a block of any other kind fails.
"""

import ast
import doctest
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.helpers.documents import (
    LINK,
    anchors,
    blocks,
    check_command,
    commands,
    documents,
    inline_commands,
)

DOCUMENTS = [path.relative_to(ROOT).as_posix() for path in documents()]
# languages whose blocks are no code: the site's formulas, contents and grids
NO_CODE = ("math", "{toctree}")
RUN_ELSEWHERE = {"README.md": "tests/configs/test_namespace.py"}
# (document, begin of a Python block) -> why it is only parsed
NOT_RUN = {("docs/priors.md", "import pickle"): "runs in a checkout of NVlabs/edm, on a pickle"}

each_document = pytest.mark.parametrize("name", DOCUMENTS)


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def python_blocks(name: str) -> list[str]:
    """Blocks that are run here, in their order."""
    left_out = tuple(begin for document, begin in NOT_RUN if document == name)
    return [
        text
        for language, text in blocks(text_of(name))
        if text.startswith(">>>") or (language == "python" and not text.startswith(left_out))
    ]


@each_document
def test_every_block_is_of_a_kind_that_is_checked(name):
    for language, text in blocks(text_of(name)):
        if language in NO_CODE:
            continue
        assert language in ("", "python"), f"{name}: no check for blocks of {language!r}"
        if language == "python":
            ast.parse(text)
        elif not text.startswith(">>>"):
            for line in commands(text):
                check_command(line)


@each_document
def test_commands_within_the_text_are_there(name):
    for line in inline_commands(text_of(name)):
        check_command(line)


@pytest.mark.parametrize(
    "line",
    [
        "make nothing",
        "python -m evaluation.nothing",
        "python -m evaluation.evaluate --out=a --config.sampler.nme=tv",
        "python -m evaluation.evaluate --nothing=a",
        "python train.py --config=configs/nothing.py",
        "bash evaluation/nothing.sh",
        "bash evaluation/evaluate_mri.sh --nothing",
        "bash evaluation/evaluate_mri.sh --only='nothing/*'",
        "NOTHING=1 bash evaluation/evaluate_mri.sh",
        "pip install -e '.[nothing]'",
        "nothing --flag",
    ],
)
def test_a_wrong_command_is_noticed(line):
    with pytest.raises((AssertionError, ValueError, FileNotFoundError, SystemExit)):
        check_command(line)


def test_commands_of_a_block_are_found():
    text = "a --b \\\n    --c  # d\n\nsbatch --array=0-$(( $(bash x.sh --count) - 1 )) x.sh\n"
    assert commands(text) == ["a --b --c  # d", "sbatch --array=0-0 x.sh", "bash x.sh --count"]
    assert blocks("a\n\n    b c\n    d\n\n```python\ne\n```\n") == [
        ("python", "e\n"),
        ("", "b c\nd\n"),
    ]
    assert inline_commands("`make a`, `make` and `x y`\n```\n`make b`\n```\n") == ["make a"]


@each_document
def test_links_lead_somewhere(name):
    path = ROOT / name
    for link in LINK.findall(re.sub(r"^```.*?^```", "", text_of(name), flags=re.M | re.S)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), f"{name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text()), f"{name}: {link}"


def test_anchors_are_those_of_github():
    text = "# A b\n## What it gives: `x`, y\n## A b\n```\n# no\n```\n"
    assert anchors(text) == {"a-b", "what-it-gives-x-y", "a-b-1"}


def cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line.strip())) - 1


def uneven_rows(text: str) -> list[str]:
    """Rows of tables that have not as many cells as their table's first."""
    found, wanted = [], None
    for line in text.splitlines():
        if not line.startswith("|"):
            wanted = None
            continue
        wanted = wanted or cells(line)
        found += [line] * (cells(line) != wanted)
    return found


def test_uneven_rows_are_noticed():
    table = "| a | b |\n|---|---|\n| 1 | 2 |\n| 1 | 2 | 3 |\n\n| a \\| b |\n"
    assert uneven_rows(table) == ["| 1 | 2 | 3 |"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_rows_of_a_table_have_as_many_cells(name):
    assert not uneven_rows(text_of(name))


PRELUDE = """
import re
import numpy as np
import torch
from torch.nn.functional import avg_pool2d
import score_priors
score_priors.samplers.NUM_STEPS["pnp"] = 3
generator = np.random.default_rng(0)
rows, columns = np.mgrid[:256, :256] - 128
truth = 1e6 * (rows**2 + columns**2 < 90**2) * np.exp(0.01j * rows)
coils = np.exp(-((rows - 128 * np.array([[[-1]], [[1]], [[0]], [[0]]])) / 200) ** 2
    - ((columns - 128 * np.array([[[0]], [[0]], [[-1]], [[1]]])) / 200) ** 2)
kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(coils * truth, (1, 2)), norm="ortho"), (1, 2))
kspace += 5000 * (generator.normal(size=kspace.shape) + 1j * generator.normal(size=kspace.shape))
measured = (abs(columns[0]) < 16) | (generator.random(256) < 0.2)
kspace = (kspace * measured).astype(np.complex64)
np.save("kspace.npy", kspace)
blurred = avg_pool2d(torch.from_numpy(abs(truth) / 1e6).float()[None], 5, 1, 2)
np.save("blurred.npy", blurred[0].numpy())
net = lambda x, sigma: (x - avg_pool2d(x, 5, 1, 2)) / sigma[:, None, None, None]

def same(value, wanted):
    # steps are fewer here, and this noise is another
    pattern = re.escape(" ".join(wanted.split())).replace(r"\\.\\.\\.", ".*")
    pattern = re.sub(r"50\\\\ steps|10\\\\ steps", r"\\\\d+ steps", pattern)
    pattern = pattern.replace(re.escape("5e+03"), r"\\S+e\\+03")
    assert re.fullmatch(pattern, " ".join(value.split())), (value, wanted)

def shown(line, wanted):
    try:
        same(repr(eval(line, globals())), wanted)
    except ValueError as error:
        same(f"ValueError: {error}", wanted)
"""


def script(text: str) -> str:
    """A block as lines of a script, which compare what a session showed."""
    if not text.startswith(">>>"):
        return text
    # doctest wants a traceback where the documents show the error alone
    lines = []
    for example in doctest.DocTestParser().get_examples(text):
        wanted = example.want.strip()
        line = example.source.partition("  #")[0].strip()
        lines.append(f"shown({line!r}, {wanted!r})" if wanted else example.source)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "name", [d for d in DOCUMENTS if d not in RUN_ELSEWHERE and python_blocks(d)]
)
def test_python_blocks_run(name, tmp_path):
    """In the order of the document, in one session, with fewer steps."""
    site, work = tmp_path / "site", tmp_path / "work"
    site.mkdir()
    work.mkdir()
    (site / "score_priors").symlink_to(ROOT / "configs" / "namespace")
    text = PRELUDE + "\n".join(script(block) for block in python_blocks(name))
    (tmp_path / "blocks.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(tmp_path / "blocks.py")],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_what_is_run_elsewhere_is_there():
    for name, test in RUN_ELSEWHERE.items():
        assert name in text_of(test)
    for name, begin in NOT_RUN:
        assert any(text.startswith(begin) for _, text in blocks(text_of(name)))
