"""score_priors: the project from another folder, beside packages of the same names."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.helpers.reconstruct_inputs import image, kspace_of, lines, write_prior

OTHERS = ("datasets", "models", "evaluation", "configs")


@pytest.fixture
def elsewhere(tmp_path, tiny_config):
    """A folder with other people's packages; a function that runs Python there."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "score_priors").symlink_to(ROOT / "configs" / "namespace")  # as pip's finder has it
    for name in OTHERS:
        (site / f"{name}.py").write_text("mine = False\n")
    folder = tmp_path / "work"
    folder.mkdir()
    write_prior(tmp_path / "prior.pt", tiny_config)
    np.save(folder / "k.npy", (kspace_of(image((16, 16))) * lines(16)).astype(np.complex64))

    def run(*arguments):
        environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )

    return run


SCRIPT = """
import sys
paths = list(sys.path)
from score_priors import Prior, load_prior, operators, reconstruct, samplers
import datasets, models, evaluation, configs
assert not any(m.mine for m in (datasets, models, evaluation, configs))
assert sys.path == paths
ours = ("operators", "samplers", "sde", "reconstruct", "train")
assert not [name for name in sys.modules if name.partition(".")[0] in ours]

import importlib, multiprocessing, pickle
import numpy as np
import torch
assert importlib.import_module("score_priors.reconstruct").reconstruct is reconstruct
import score_priors.reconstruct
assert score_priors.reconstruct is reconstruct
from score_priors.evaluation import metrics
import score_priors.evaluation.run.methods as methods
assert methods.SAMPLERS["pnp"] is samplers.pnp

def measure(operator):
    return operator.forward(torch.ones(1, 1, 4, 4)).sum().real.item()

if __name__ == "__main__":
    result = reconstruct(np.load("k.npy"), prior="../prior.pt", num_steps=2, sigma_y=0)
    assert pickle.loads(pickle.dumps(result)).image.shape == (16, 16)
    operator = operators.SingleCoilMRI(torch.ones(4, 4, dtype=torch.bool))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(measure, [operator]) == [measure(operator)]
    from score_priors.configs import load_config  # config files import configs, too
    assert load_config("configs/fastmri_knee.py:1").model.name == "ncsnpp"
    from score_priors.datasets.embedded import open_samples  # imported late, and further inside
    loader = torch.utils.data.DataLoader(
        open_samples("val", subset="brain"), batch_size=None, num_workers=1,
        multiprocessing_context="spawn",
    )
    assert next(iter(loader)).image.shape == (1, 256, 256)
    print("fine")
"""


def test_it_works_beside_packages_of_the_same_names(elsewhere, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = elsewhere(str(tmp_path / "script.py"))
    assert done.stdout == "fine\n", done.stderr


README = """
import numpy as np
import torch
generator = torch.Generator().manual_seed(0)
kspace = np.load("kspace.npy")
mask = np.load("mask.npy")
images = torch.rand(3, 1, 64, 64, generator=generator)
blurred = torch.nn.functional.avg_pool2d(images[0], 5, 1, 2)
"""


def test_the_readmes_lines_run(elsewhere, tmp_path):
    kspace, mask = kspace_of(image((64, 64))), lines(64)
    np.save(tmp_path / "work" / "kspace.npy", kspace.astype(np.complex64))
    np.save(tmp_path / "work" / "mask.npy", mask)
    text = (ROOT / "README.md").read_text()
    text = text[text.index("## In Python") : text.index("## Layout")]
    blocks = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    assert len(blocks) == 4
    few = [block.replace("num_steps=50", "num_steps=3") for block in blocks]
    check = "assert result.image.shape == (1, 64, 64) and x.shape == images.shape\n"
    (tmp_path / "readme.py").write_text("\n".join([README, *few, check]))
    done = elsewhere(str(tmp_path / "readme.py"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(64, 64) None ")
    assert "Warning" not in done.stderr


def test_commands_run_from_anywhere(elsewhere, tmp_path):
    done = elsewhere(
        *("-m", "score_priors", "reconstruct", "--input=k.npy", "--out=results/k"),
        *("--config.prior=../prior.pt", "--config.sampler.num_steps=2"),
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "work" / "results" / "k" / "summary.json").read_text())
    assert summary["num_steps"] == 2
    done = elsewhere("-m", "score_priors", "train", "--help")
    assert "Fit a score network" in done.stdout
    assert "--workdir" in done.stdout
    done = elsewhere("-m", "score_priors", "--version")
    assert re.fullmatch(r"score-priors \d+\.\d+\.\d+\n", done.stdout), done.stderr
    done = elsewhere("-m", "score_priors", "unknown")
    assert done.returncode == 1
    assert done.stderr.startswith("error: unknown command 'unknown'\nusage: score-priors ")


def test_every_command_is_there():
    text = (ROOT / "configs" / "namespace" / "__main__.py").read_text()
    start = text.index("COMMANDS = ") + len("COMMANDS = ")
    commands = json.loads(text[start : text.index("}", start) + 1].replace(",\n}", "}"))
    for module in commands.values():
        path = ROOT / f"{module.replace('.', '/')}.py"
        assert 'if __name__ == "__main__":' in path.read_text(), module


def test_pip_installs_score_priors_and_no_other_name(tmp_path):
    """An editable install: no folder of ours gets into anybody's sys.path."""
    pytest.importorskip("setuptools")
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    checkout = tmp_path / "checkout"
    (checkout / tool["package-dir"]["score_priors"]).mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    build = (
        "from setuptools import build_meta; import sys; print(build_meta.build_editable('wheels'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=checkout, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (checkout / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        texts = {Path(name).name: archive.read(name).decode() for name in archive.namelist()}
    finder = next(text for name, text in texts.items() if name.endswith("_finder.py"))
    assert f"{{'score_priors': '{checkout / 'configs' / 'namespace'}'}}" in finder
    assert tool["package-data"]["score_priors"] == ["py.typed"]  # types are for type checkers, too
    assert (ROOT / tool["package-dir"]["score_priors"] / "py.typed").is_file()
    paths = [text for name, text in texts.items() if name.endswith(".pth")]
    assert len(paths) == 1
    assert paths[0].startswith("import __editable__")  # the finder, and no folder
    assert "score-priors = score_priors.__main__:main" in texts["entry_points.txt"]


def test_a_copy_without_its_checkout_says_so(tmp_path):
    (tmp_path / "score_priors").mkdir()
    source = ROOT / "configs" / "namespace" / "__init__.py"
    (tmp_path / "score_priors" / "__init__.py").write_text(source.read_text())
    done = subprocess.run(
        [sys.executable, "-c", "import score_priors"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "runs from a checkout of the project" in done.stderr
    assert "pip install -e PATH_OF_THE_CHECKOUT" in done.stderr
