"""Blocks, commands and links of the Markdown documents, and checks of commands without a run."""

import ast
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

from configs import check_overrides, find_config, flatten, load_config
from tests.conftest import ROOT

# programs whose command lines are checked
PROGRAMS = ("python", "python3", "bash", "sbatch", "make", "torchrun", "score-priors", "pip")
# config of the flags that a script passes on
CONFIGS = {"evaluation": "configs/evaluate.py", "training_scripts": "configs/fastmri_knee.py:1"}
BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```", re.M | re.S)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}\S.*\n)+")
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def documents() -> list[Path]:
    """All Markdown files of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split()
    found = [ROOT / name for name in listed] or [*ROOT.glob("*.md"), *ROOT.glob("[!.]*/**/*.md")]
    return sorted(path for path in found if path.is_file())


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, text) of the fenced and the indented blocks of a document."""
    fenced = BLOCK.findall(text)
    rest = BLOCK.sub("", text)
    return [
        *fenced,
        *(("", re.sub("^ {4}", "", part, flags=re.M)) for part in INDENTED.findall(rest)),
    ]


def commands(text: str) -> list[str]:
    """Command lines of a block, those within others as well, without comments."""
    text = re.sub(r"\\\n\s*", "", text)
    inner = re.findall(r"\$\(((?:bash|python) [^()]*)\)", text)
    text = re.sub(r"\$\(\(.*\)\)", "0", text)
    return [line for line in [*text.splitlines(), *inner] if line.strip()]


def inline_commands(text: str) -> list[str]:
    """Command lines between backticks in running text and tables."""
    found = (re.sub(r"\s*\n\s*", " ", code) for code in INLINE.findall(BLOCK.sub("", text)))
    return [code for code in found if code.split()[0] in PROGRAMS and " " in code.strip()]


def check_command(line: str) -> None:
    """Assert that what a command line names is there: files, targets, modules, flags, fields."""
    words = [word for word in shlex.split(line, comments=True) if word != "..."]
    if any(word.endswith("/...") for word in words):
        return  # any script of that folder
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        check_variable(words.pop(0).partition("=")[0])
    if not words:
        return
    program, *arguments = words
    if program == "export":
        check_variable(arguments[0].partition("=")[0])
    elif program == "source":
        assert arguments == [".venv/bin/activate"]
    elif program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
        given = [word for word in arguments if "=" not in word]
        assert given
        assert set(given) <= set(targets), given
    elif program == "pip":
        check_pip(arguments)
    elif program in ("bash", "sbatch"):
        check_script(arguments)
    elif program == "score-priors":
        check_python(command_modules()[arguments[0]], arguments[1:])
    elif program in ("python", "python3", "torchrun"):
        at = next(i for i, word in enumerate(arguments) if word == "-m" or word.endswith(".py"))
        rest = arguments[at:]
        module, rest = (rest[1], rest[2:]) if rest[0] == "-m" else (rest[0][:-3], rest[1:])
        if module == "torch.distributed.run":
            return check_command(shlex.join(["torchrun", *rest])) if "-m" in rest else None
        if module not in ("venv", "pip"):
            check_python(module.replace("/", "."), rest)
    else:
        raise AssertionError(f"no check for the program {program}")


def command_modules() -> dict[str, str]:
    """Commands of ``score-priors`` and their modules."""
    text = (ROOT / "configs" / "namespace" / "__main__.py").read_text()
    return ast.literal_eval(re.search(r"COMMANDS = (\{.*?\})", text, re.S)[1])


def check_variable(name: str) -> None:
    """Assert that some script reads the environment variable."""
    sources = [*ROOT.glob("*/*.sh"), *ROOT.glob("evaluation/study/*.py"), ROOT / "Makefile"]
    read = re.compile(rf"\$[({{]?{name}\b|\"{name}\"|^from_the_caller .*\b{name}\b", re.M)
    assert any(read.search(path.read_text()) for path in sources), name


def check_pip(arguments: list[str]) -> None:
    """Assert that pip is asked for this project's extras and existing files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert arguments[0] == "install"
    for word in arguments[1:]:
        for extra in re.findall(r"\[([\w,]+)\]", word):
            assert set(extra.split(",")) <= set(project["optional-dependencies"]), word
        if word.endswith(".txt"):
            assert (ROOT / word).is_file()


def check_script(arguments: list[str]) -> None:
    """Assert that a shell script exists and takes the arguments."""
    at = next(i for i, word in enumerate(arguments) if word.endswith(".sh"))
    script, given = arguments[at], arguments[at + 1 :]
    text = (ROOT / script).read_text()
    if grid := re.search(r"^run_grid (\w+)", text, re.M):
        return check_grid([grid[1], *given])
    fields = [word for word in given if word.startswith("--config.")]
    if fields:
        check_overrides(fields, load_config(str(ROOT / CONFIGS[script.split("/")[0]])))
    for word in given:
        if word.startswith("--") and word not in fields:
            known = text + "".join(p.read_text() for p in ROOT.glob("evaluation/**/*.py"))
            known += (ROOT / "training_scripts" / "gpu.py").read_text()
            assert word.partition("=")[0] in known, (script, word)
    return None


def check_grid(arguments: list[str]) -> None:
    """Assert that `evaluation.grid` takes the arguments, and that some cell is meant."""
    from evaluation import grid

    parsed, _ = grid.parse([word.replace("NAME", "mri") for word in arguments])
    assert parsed.count or grid.choose(parsed), arguments


def check_python(module: str, arguments: list[str]) -> None:
    """Assert that a module of ours is a command and has the flags."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    path = path if path.is_file() else path.with_suffix("") / "__main__.py"
    source = path.read_text()
    assert "__main__" in source, module
    if module == "evaluation.grid":
        return check_grid(arguments)
    flags = [word for word in arguments if word.startswith("--")]
    fields = [word for word in flags if word.startswith("--config.")]
    kind = re.search(r"define_flags\(\s*(?:\"([^\"]+)\"|None)", source)
    if kind:
        given = [word.partition("=")[2] for word in flags if word.startswith("--config=")]
        spec = given[0] if given else kind[1] or "configs/fastmri_knee.py:1"
        spec = find_config(spec)
        known = flatten(load_config(spec).to_dict())
        unknown = [field for field in fields if field[9:].partition("=")[0] not in known]
        assert not unknown, (module, unknown)
    else:
        assert not fields, (module, fields)
    others = "".join(p.read_text() for p in (ROOT / "evaluation").rglob("*.py"))
    for flag in {word.partition("=")[0] for word in flags if word not in fields} - {"--config"}:
        name = flag.removeprefix("--")
        stands = rf"[\"']{flag}[\"']|DEFINE_\w+\(\s*\"{name}\"|\b{name}=\"|\"{name}\""
        is_general = flag in ("--help", "--verbosity", "--version")
        assert is_general or re.search(stands, source) or re.search(stands, others), (module, flag)
    return None


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    found: set[str] = set()
    for title in re.findall(r"^#{1,6} (.+)$", BLOCK.sub("", text), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (name := slug if not number else f"{slug}-{number}") in found:
            number += 1
        found.add(name)
    return found
