"""Whether the tests notice a wrong formula.

    python -m benchmarks.mutants                     all of them, about a second each
    python -m benchmarks.mutants --only=samplers/    those of some files

puts one wrong formula of `mutants.tsv` (file, right text, wrong text, test) at a time into a copy
of the checkout, runs the test that is named beside it and says which mutants are killed (the test
fails) and which survive. Exits with 1 where one survives.
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
LEFT_OUT = ".*", "__pycache__", "results", "runs", "weights", "samples"  # of the copy
LINKED = "weights", "datasets/samples"
# imported once and shared by all runs: they take longer than most of the tests
PRELOADED = ["torch", "pytest", "hypothesis", "numpy", "scipy.optimize", "skimage.transform"]
TIMEOUT = 300  # seconds; a mutant that hangs is noticed, too
PASSED, FAILED, BROKEN = 0, 1, 2  # pytest's exit codes; broken: a module could not be imported


class Mutant(NamedTuple):
    """One wrong formula.

    Attributes:
        file: path from the checkout's root.
        old: what stands in the file, once.
        new: what is put in its place.
        test: the test that fails then, ``file::function`` without folder and suffix.
    """

    file: str
    old: str
    new: str
    test: str

    @property
    def node(self) -> str:
        """`test` as pytest takes it."""
        return f"tests/{self.test.replace('::', '.py::', 1)}"

    def apply(self, text: str) -> str:
        """The file's text with the wrong formula.

        Raises:
            ValueError: the right one is not there, or not once.
        """
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file}: expected once, got {text.count(self.old)}: {self.old}")
        return text.replace(self.old, self.new)


def load() -> list[Mutant]:
    """The table; ``\\n`` stands for the end of a line."""
    lines = TABLE.read_text().splitlines()[1:]
    return [Mutant(*(field.replace("\\n", "\n") for field in line.split("\t"))) for line in lines]


def copy_checkout(folder: Path) -> Path:
    """The checkout without its data, which are linked."""
    copy = folder / ROOT.name
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for name in LINKED:
        (copy / name).symlink_to(ROOT / name)
    return copy


def run_tests(folder: Path, nodes: Sequence[str], *, quiet: bool = True) -> int:
    """pytest's exit code in a process of its own, with its output unless `quiet`."""
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
    sys.dont_write_bytecode = True  # a mutant may have its original's size and second
    os.environ["PYTEST_XDIST_WORKER"] = "mutants"  # one thread, see tests/conftest.py
    torch.set_num_threads(1)
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *nodes]
    arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what is preloaded
    with contextlib.ExitStack() as stack:
        if quiet:
            nothing = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nothing))
        code = pytest.main(arguments)
    sys.stdout.flush()
    os._exit(int(code))


def survives(folder: Path, mutant: Mutant) -> bool:
    """Whether the mutant's test passes in the copy `folder`, which is left as it was."""
    path = folder / mutant.file
    original = path.read_text()
    path.write_text(mutant.apply(original))
    try:
        return run_tests(folder, [mutant.node]) not in (FAILED, BROKEN)
    finally:
        path.write_text(original)


def main() -> int:
    """Print a line a mutant; how many survived."""
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
