"""Mutation test: whether the tests notice wrong formulas.

    python -m benchmarks.mutants                     all of them, about a second each
    python -m benchmarks.mutants --only=samplers/    those of some files

puts one wrong formula of `mutants.tsv` (file, right text, wrong text, test) at a time into a copy
of the checkout, runs its test, and reports which mutants are killed (the test fails) and which
survive. The exit code is 1 if one survives.
"""

import argparse
import contextlib
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path(__file__).with_name("mutants.tsv")
# not copied: anywhere, and below the root alone (evaluation/results is code)
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "samples")
DATA = {"results", "runs", "weights"}
LINKED = "weights", "datasets/samples"
# imported once and shared by all runs, as importing takes longer than most tests
PRELOADED = ["torch", "pytest", "hypothesis", "numpy", "scipy.optimize", "skimage.transform"]
TIMEOUT = 300  # seconds; a mutant that hangs counts as killed
PASSED, FAILED, BROKEN = 0, 1, 2  # exit codes of pytest; broken: a module cannot be imported


class Mutant(NamedTuple):
    """One wrong formula.

    Attributes:
        file: path relative to the root of the checkout.
        old: right text, which occurs once in the file.
        new: wrong text that replaces it.
        test: test that then fails, ``file::function`` without folder and suffix.
    """

    file: str
    old: str
    new: str
    test: str

    @property
    def node(self) -> str:
        """`test` in pytest's notation."""
        return f"tests/{self.test.replace('::', '.py::', 1)}"

    def apply(self, text: str) -> str:
        """The text of the file with the wrong formula.

        Raises:
            ValueError: the right text does not occur exactly once.
        """
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file}: expected once, got {text.count(self.old)}: {self.old}")
        return text.replace(self.old, self.new)


def load() -> list[Mutant]:
    """Mutants of the table, in which ``\\n`` stands for the end of a line."""
    lines = TABLE.read_text().splitlines()[1:]
    return [Mutant(*(field.replace("\\n", "\n") for field in line.split("\t"))) for line in lines]


def copy_checkout(folder: Path) -> Path:
    """Copy of the checkout in which data are links."""
    copy = folder / ROOT.name

    def left_out(folder: str, names: list[str]) -> set[str]:
        return LEFT_OUT(folder, names) | (DATA if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, copy, ignore=left_out)
    for name in LINKED:
        (copy / name).symlink_to(ROOT / name)
    return copy


def run_tests(folder: Path, nodes: Sequence[str], *, quiet: bool = True) -> int:
    """Exit code of pytest in a separate process; its output is shown unless `quiet`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_pytest, args=(folder, nodes, quiet))
    process.start()
    process.join(TIMEOUT * len(nodes))
    if process.is_alive():
        process.kill()
        process.join()
        return FAILED
    return process.exitcode


def _pytest(folder: Path, nodes: Sequence[str], quiet: bool) -> None:
    import pytest
    import torch

    os.chdir(folder)
    ours = {path.stem for path in folder.iterdir()}
    for name in [name for name in sys.modules if name.split(".")[0] in ours]:
        del sys.modules[name]
    sys.path[:] = [str(folder), *(path for path in sys.path if path not in ("", str(ROOT)))]
    sys.dont_write_bytecode = True  # a mutant may have the size and time stamp of its original
    os.environ["PYTEST_XDIST_WORKER"] = "mutants"  # one thread, see tests/conftest.py
    torch.set_num_threads(1)
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *nodes]
    arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of preloaded modules
    with contextlib.ExitStack() as stack:
        if quiet:
            nothing = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nothing))
        code = pytest.main(arguments)
    sys.stdout.flush()
    os._exit(int(code))


def survives(folder: Path, mutant: Mutant) -> bool:
    """Whether the test of a mutant passes in the copy `folder`, which is restored afterwards."""
    path = folder / mutant.file
    original = path.read_text()
    path.write_text(mutant.apply(original))
    try:
        return run_tests(folder, [mutant.node]) not in (FAILED, BROKEN)
    finally:
        path.write_text(original)


def main() -> int:
    """Print one line per mutant; returns the number of survivors."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants")
    parser.add_argument("--only", default="", help="how the mutated file's path begins")
    only = parser.parse_args().only
    chosen = [mutant for mutant in load() if mutant.file.startswith(only)]
    survivors = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = copy_checkout(Path(temporary))
        nodes = sorted({mutant.node for mutant in chosen})
        if run_tests(folder, nodes, quiet=False) != PASSED:
            raise SystemExit("a test fails without any mutant, see above")
        for mutant in chosen:
            alive = survives(folder, mutant)
            survivors += alive
            verdict = "SURVIVED" if alive else "killed"
            print(f"{verdict} {mutant.file} {mutant.new.strip()!r}: {mutant.test}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} killed")
    return survivors


if __name__ == "__main__":
    raise SystemExit(1 if main() else 0)
