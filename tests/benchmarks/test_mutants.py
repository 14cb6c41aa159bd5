"""The table of wrong formulas fits the code: `python -m benchmarks.mutants` runs it."""

import ast

import pytest

from benchmarks.mutants import ROOT, load

MUTANTS = load()
FILES = sorted({mutant.file for mutant in MUTANTS})


@pytest.mark.parametrize("file", FILES)
def test_the_right_formula_is_there_and_the_wrong_one_can_be_read(file):
    text = (ROOT / file).read_text()
    for mutant in MUTANTS:
        if mutant.file == file:
            mutated = mutant.apply(text)  # raises where the code has changed
            assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(text)), mutant


def test_the_tests_that_kill_them_are_there():
    for mutant in MUTANTS:
        file, function = mutant.node.split("::", 1)
        text = (ROOT / file).read_text()
        for name in function.split("::"):
            assert f"def {name}(" in text or f"class {name}:" in text, mutant


@pytest.mark.parametrize("folder", ["samplers", "sde", "operators/masks"])
def test_every_file_with_a_formula_has_one(folder):
    without = {"__init__.py", "progress.py", "watch.py"}
    files = {path.name for path in (ROOT / folder).glob("*.py")} - without
    assert files <= {file.removeprefix(f"{folder}/") for file in FILES}


def test_a_formula_that_has_changed_is_an_error():
    with pytest.raises(ValueError, match="expected once, got 0: nowhere"):
        MUTANTS[0]._replace(old="nowhere").apply((ROOT / MUTANTS[0].file).read_text())
