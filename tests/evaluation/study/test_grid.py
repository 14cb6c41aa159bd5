"""The study's grid: which cells there are, that every command fits, and how they are run."""

import ast
import functools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from absl import flags
from ml_collections import config_flags

from configs import load_config
from datasets import create_dataset, dataset_options
from evaluation import grid
from evaluation.baselines import BASELINES
from evaluation.results.cells import describe_measurement
from evaluation.results.folder import read_rows
from evaluation.run.measurements import build_operator, check_measurement
from evaluation.study import grids as study
from evaluation.study.runner import INTERRUPTED
from operators.create import simulated_names
from operators.masks import MASKS
from operators.trajectories import spiral, spiral_samples
from samplers import SAMPLERS
from samplers.predictor_corrector import first_step
from sde import VESDE
from tests.conftest import PATIENCE, ROOT
from tests.helpers.scripts import bash

SCRIPTS = {
    name: f"evaluation/evaluate_{name}.sh"
    for name in (
        "mri",
        "jalal",
        "ct",
        "lambda",
        "baselines",
        "noisy",
        "study2026_mri",
        "study2026_ct",
    )
}
ALL = grid.ALL
VARIABLES = ("OUT", "RUNS", "LISTS", "NPROC", "PYTHON", "KNEE", "BRAIN", "CT", "HEAD")
CASES = [
    pytest.param(grids[name], id=f"{kind}-{name}")
    for kind, grids in (("full", ALL), ("quick", grid.ALL_QUICK))
    for name in grids
]


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """The checkout as the current folder, none of our variables set."""
    monkeypatch.chdir(ROOT)
    for name in [*VARIABLES, *(n for n in os.environ if n.startswith("SLURM_"))]:
        monkeypatch.delenv(name, raising=False)


def arguments_of(*argv: str):
    return grid.parse(argv)[0]


def overrides_of(command: list[str]) -> dict[str, str]:
    """The fields of a command line."""
    pairs = [a.removeprefix("--config.").split("=", 1) for a in command if "--config." in a]
    return dict(pairs)


def find(name: str, folder: str) -> study.GridCell:
    return next(cell for cell in study.GRIDS[name] if cell.folder == folder)


# --- which cells there are


def test_the_study_s_numbers_of_cells():
    assert {name: len(grid_) for name, grid_ in study.GRIDS.items()} == {
        "mri": 2 * 5 * 3 * 5,
        "jalal": 2 * 5 * 3 * 5,
        "ct": 2 * 5 * 2 * 3,
        "lambda": 16 * 2 * 2,
        "baselines": 3 * 5 * 4 + 2 * 3 * 3,
    }


@pytest.mark.parametrize(
    ("name", "data", "measurements", "priors"),
    [
        (
            "mri",
            {"knee_pd", "knee_pdfs", "brain"},
            {"gaussian1d_4x", "gaussian1d_8x", "gaussian2d_4x", "radial_29", "poisson_15x"},
            {"knee", "natural"},
        ),
        (
            "jalal",
            {"knee_pd", "knee_pdfs", "brain"},
            {"gaussian1d_4x", "gaussian1d_8x", "gaussian2d_4x", "radial_29", "poisson_15x"},
            {"knee", "natural"},
        ),
        ("ct", {"lodopab", "head"}, {"views_30", "views_60", "limited_90"}, {"ct", "natural"}),
    ],
)
def test_every_prior_meets_every_measurement_once(name, data, measurements, priors):
    sampler = {"mri": "pc", "jalal": "jalal", "ct": "ccdf"}[name]
    methods = {
        f"{prior}_{size}_{sampler}"
        for prior in priors
        for size in ("1", "2", "3", "4", "4_attention")
    }
    expected = {f"{d}/{m}/{method}" for d in data for m in measurements for method in methods}
    assert Counter(cell.folder for cell in study.GRIDS[name]) == Counter(expected)


def test_an_mri_cell_field_by_field():
    cell = find("mri", "knee_pdfs/gaussian1d_8x/natural_4_attention_pc")
    command = grid.command_of(cell, arguments_of("mri", "--knee=there", "--prior-root=runs"), [])
    assert command[1:5] == [
        "-m",
        "evaluation.evaluate",
        "--config=configs/evaluate.py",
        "--out=results/grid/knee_pdfs/gaussian1d_8x/natural_4_attention_pc",
    ]
    assert overrides_of(command) == {
        "data.name": "fastmri",
        "data.root": "there",
        "data.split": "val",
        "data.acquisition": "CORPDFS_FBK",
        "data.slices": "central:10",
        "data.image_size": "320",
        "limit": "500",  # 50 volumes
        "operator.mask": "gaussian1d",
        "operator.acceleration": "8",
        "operator.center_fraction": "0.04",
        "sampler.name": "predictor_corrector",
        "sampler.num_steps": "500",
        "prior": "runs/celeba_4_attention",
    }


@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        (
            "jalal",
            "brain/poisson_15x/knee_1_jalal",
            {
                "data.root": "data/fastmri_brain",
                "data.slices": "first:5",
                "limit": "500",  # 100 volumes
                "operator.mask": "poisson",
                "operator.acceleration": "15",
                "sampler.name": "annealed_langevin",
                "sampler.num_steps": "500",
                "prior": "runs/fastmri_knee_1",
            },
        ),
        (
            "ct",
            "head/limited_90/ct_3_ccdf",
            {
                "data.name": "rsna_head",
                "data.root": "data/rsna_head",
                "operator.name": "ct",
                "operator.num_views": "60",
                "operator.end_angle": "90",
                "sampler.name": "predictor_corrector",
                "sampler.num_steps": "1000",
                "sampler.start_level": "300",
                "prior": "runs/ct_3",
            },
        ),
        (
            "lambda",
            "knee_pd/gaussian1d_4x/natural_1_pc_lambda_0.009",
            {"sampler.weight": "0.009", "sampler.num_steps": "500", "prior": "runs/celeba_1"},
        ),
        ("baselines", "lodopab/views_30/fbp", {"sampler.name": "fbp", "data.root": "data/lodopab"}),
        (
            "baselines",
            "brain/radial_29/unet",
            {
                "sampler.name": "unet",
                "sampler.checkpoint": "runs/unet_radial_29",
                "operator.num_spokes": "29",
            },
        ),
    ],
)
def test_other_cells_have_the_study_s_values(name, folder, expected):
    command = grid.command_of(find(name, folder), arguments_of(name), [])
    assert expected.items() <= overrides_of(command).items()


def test_noisy_rows_have_each_noise_once_and_the_baselines_several_weights():
    cells = study.NOISY_GRIDS["noisy"]
    assert {cell.measurement for cell in cells if cell.data == "brain"} == {
        f"{mask}_noise_{sigma}"
        for mask in ("gaussian1d_4x", "gaussian1d_8x", "poisson_8x_8_coils")
        for sigma in ("0.01", "0.03", "0.05")
    }
    assert {cell.measurement for cell in cells if cell.data == "ct"} == {
        f"views_{views}_photons_{photons}" for views in (30, 60) for photons in (10_000, 100_000)
    }
    methods = Counter(cell.overrides["sampler.name"] for cell in cells)
    assert methods == {
        "zero_filled": 9, "fbp": 4, "tv": 13 * 5, "l1_wavelet": 13 * 5, "pnp": 13, "warm_dds": 13
    }  # fmt: skip
    priors = {cell.prior for cell in cells} - {""}
    assert priors == set(study.SHIPPED_PRIORS)
    assert not grid.missing(cells, arguments_of("noisy"))  # nothing to download or to fit
    assert grid.prior_of(cells[-1], arguments_of("noisy", "--prior-root=x")) in priors


def test_trajectories_have_each_noise_and_the_baselines_several_weights():
    cells = grid.ALL["trajectories"]
    assert {cell.measurement for cell in cells} == {
        f"{name}_noise_{sigma}"
        for name in ("radial_20", "radial_40", "spiral_8")
        for sigma in ("0.01", "0.03")
    }
    methods = Counter(cell.overrides["sampler.name"] for cell in cells)
    assert methods == {"gridded": 6, "cg_sense": 36, "l1_wavelet": 36, "tv": 36, "pnp": 6}
    assert not grid.missing(cells, arguments_of("trajectories"))
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    config.update_from_flattened_dict(find_in(cells, "spiral_8_noise_0.03/gridded").overrides)
    operator = build_operator(config, (32, 32), ["a"])
    assert operator.range_shape[:2] == (8, 8)
    torch.testing.assert_close(
        operator.trajectory,
        spiral(8, spiral_samples(32, turns=8, power=2), turns=8, power=2),
    )
    assert describe_measurement(config.to_dict(), {"coils": 8}) == (
        "nufft spiral 8, 8 coils, noise 0.03",
        "-",
    )


def find_in(cells, end):
    return next(cell for cell in cells if cell.folder.endswith(end))


def test_the_sweep_s_values():
    found = [cell.overrides["sampler.weight"] for cell in study.GRIDS["lambda"]]
    thousandths, hundredths = range(1, 10), range(1, 6)
    expected = [0, *(n / 1000 for n in thousandths), *(n / 100 for n in hundredths), 1]
    assert Counter(found) == Counter(expected * 4)
    labels = {c.method.rpartition("_")[2] for c in study.GRIDS["lambda"]}
    assert labels == {f"{value:g}" for value in expected}


def test_limited_angle_is_half_a_turn_less():
    operators = {
        name: build_operator(config_of(find("ct", f"lodopab/{name}/ct_1_ccdf")), (32, 32), ["a"])
        for name in study.CT
    }
    assert {name: len(o.angles_deg) for name, o in operators.items()} == {
        "views_30": 30,
        "views_60": 60,
        "limited_90": 60,
    }
    assert operators["views_60"].angles_deg[-1] == pytest.approx(180 - 3)
    assert operators["limited_90"].angles_deg[-1] == pytest.approx(90 - 1.5)


@pytest.mark.parametrize(
    ("overrides", "sigma_max", "calls"),
    [(study.CCDF, 378.0, 600), (study.QUICK_CCDF, 5.0, 100)],
)
def test_the_warm_start_calls_the_network_twice_a_level(overrides, sigma_max, calls):
    sde, steps = VESDE(0.01, sigma_max), overrides["sampler.num_steps"]
    sigmas = sde.sigma(sde.sampling_times(steps)).tolist()
    start = first_step(sigmas, torch.zeros(1), None, overrides["sampler.start_level"])
    assert 2 * (steps - start) == calls
    assert 0.15 < sigmas[start] < 0.3  # above the artefacts of few views, far below the image


# --- every command fits


def config_of(cell: study.GridCell, *extra: str):
    """The config that evaluation.evaluate sees: its flags, parsed."""
    command = grid.command_of(cell, arguments_of("mri"), extra)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    with pytest.MonkeyPatch.context() as patch:  # the flag looks there for its fields
        patch.setattr(sys, "argv", ["evaluate", *(a for a in command if a.startswith("--config"))])
        values(sys.argv)
    return values.config


@pytest.mark.parametrize("grid_", CASES)
def test_every_cell_is_a_config(grid_):
    assert len({cell.folder for cell in grid_}) == len(grid_)
    default = load_config("configs/evaluate.py")
    for cell in grid_:
        assert cell.folder.count("/") == 2
        config = config_of(cell)
        for field, value in cell.overrides.items():
            section, _, leaf = field.rpartition(".")
            assert (config[section] if section else config)[leaf] == value, (cell.folder, field)
        assert config.operator.name in simulated_names()
        assert config.operator.name == "ct" or config.operator.mask in MASKS
        check_measurement(config)
        assert config.sampler.name in {*SAMPLERS, *BASELINES}
        assert bool(config.prior) == (config.sampler.name in SAMPLERS)
        assert bool(config.sampler.checkpoint) == (config.sampler.name == "unet")
        assert config.seed == default.seed
        dataset_options(config.data)  # refuses a field that the data set does not read
        if config.data.name == "samples":
            open_embedded(str(config.data.to_dict()))


@functools.cache
def open_embedded(fields: str) -> None:
    """Refuses values that do not go together."""
    data = ast.literal_eval(fields)
    assert len(create_dataset(data, data.pop("split")))


def test_what_is_passed_on_wins():
    cell = find("mri", "knee_pd/radial_29/knee_1_pc")
    extra = ("--config.protocol=study", "--config.limit=3", "--config.batch_size=16")
    config = config_of(cell, *extra)
    assert (config.protocol, config.limit, config.batch_size) == ("study", 3, 16)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["mri", "--config.sampler.num_step=3"], "did you mean sampler.num_steps"),
        (["mri", "--dryrun"], "unknown arguments --dryrun"),
        (["mri", "--only=nothing*"], "no cell matches --only='nothing[*]'"),
        (["mri", "--cell=-1"], r"expected --cell in 0 \.\.\. 149, got -1"),
    ],
)
def test_wrong_arguments_are_refused(argv, message):
    with pytest.raises(SystemExit, match=message):
        grid.main(argv)


def test_several_gpus_share_a_cell():
    cell = find("mri", "knee_pd/radial_29/knee_1_pc")
    one = grid.command_of(cell, arguments_of("mri"), [])
    four = grid.command_of(cell, arguments_of("mri", "--nproc=4"), [])
    assert four[:1] == one[:1]
    assert four[1:5] == [
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"),
    ]
    assert four[5:] == one[1:]


def test_a_list_of_volumes_replaces_the_first_ones(tmp_path):
    (tmp_path / "knee_pd.txt").write_text("file1000000\n")
    arguments = arguments_of("mri", f"--lists={tmp_path}")
    listed, other = (
        overrides_of(grid.command_of(find("mri", f"{data}/radial_29/knee_1_pc"), arguments, []))
        for data in ("knee_pd", "knee_pdfs")
    )
    assert listed["data.split_list"] == str(tmp_path / "knee_pd.txt")
    assert (listed["data.split"], listed["limit"]) == ("test", "0")
    assert listed["data.slices"] == "central:10"
    assert (other["data.split"], other["limit"]) == ("val", "500")
    assert "data.split_list" not in other


# --- running them


def make_prior(folder: Path) -> None:
    """What looks like a run that has saved a checkpoint."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "step_00000001.pt").touch()


def test_what_is_missing_is_listed_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "call", lambda command: pytest.fail("something was run"))
    make_prior(tmp_path / "runs" / "celeba_1")
    (tmp_path / "knee").mkdir()
    argv = ["mri", "--only=*/radial_29/*_[12]_pc", f"--prior-root={tmp_path}/runs"]
    argv += [f"--knee={tmp_path}/knee", "--brain=nowhere", f"--lists={tmp_path}/lists"]
    with pytest.raises(SystemExit) as error:
        grid.main(argv)
    text = str(error.value)
    assert "data of brain: no folder nowhere; give --brain=FOLDER or set BRAIN" in text
    assert f"lists: no folder {tmp_path}/lists" in text
    for name in ("fastmri_knee_1", "fastmri_knee_2", "celeba_2"):
        assert f"{tmp_path}/runs/{name}" in text
    assert "celeba_1" not in text
    assert "knee_pd" not in text


def test_a_failing_cell_does_not_stop_the_others(tmp_path, monkeypatch, capfd):
    def command(cell, arguments, overrides):
        code = 3 if cell.measurement == "gaussian1d_4x" else 0
        return ["bash", "-c", f"echo ran {cell.folder}; exit {code}"]

    monkeypatch.setattr(grid, "command_of", command)
    argv = ["baselines", "--only=knee_pd/*/zero_filled", f"--knee={tmp_path}"]
    with pytest.raises(SystemExit) as error:
        grid.main(argv)
    bad = "results/grid/knee_pd/gaussian1d_4x/zero_filled"
    assert str(error.value).splitlines() == [
        "error: 1 of 5 failed; the same command tries again:",
        f"  {bad}: exit code 3",
    ]
    assert capfd.readouterr().out.count("ran knee_pd/") == 5
    grid.main([*argv, "--only=knee_pd/radial_29/zero_filled"])  # without a failure: returns


def ends(pid: int) -> bool:
    """Whether a process that was sent a signal is gone in time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def wait_for(condition, process) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "slurm", "requeued"),
    [
        (signal.SIGTERM, {"SLURM_JOB_ID": "17"}, False),
        (signal.SIGUSR1, {}, False),
        (signal.SIGUSR1, {"SLURM_JOB_ID": "17"}, True),
    ],
)
def test_a_signal_ends_the_cell_and_the_grid(tmp_path, number, slurm, requeued):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $@ > {tmp_path}/requeued\n")
    scontrol.chmod(0o755)
    pid = tmp_path / "pid"
    code = (
        "from evaluation.study import runner; runner.run_commands("
        f"{{'a': ['bash', '-c', 'echo $$ > {pid}.part; mv {pid}.part {pid}; exec sleep 60'],"
        f" 'b': ['touch', '{tmp_path}/second']}})"
    )
    environment = os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
    wait_for(pid.is_file, process)
    process.send_signal(number)
    assert process.wait(PATIENCE) == INTERRUPTED
    assert ends(int(pid.read_text()))
    assert not (tmp_path / "second").exists()
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 17\n"


# --- the scripts


@pytest.mark.parametrize(
    "script",
    [Path("hist.sh"), *sorted(p.relative_to(ROOT) for p in ROOT.glob("[!.]*/**/*.sh"))],
    ids=str,
)
def test_bash_can_read_every_script(script):
    result = bash("-n", str(script))
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_dry_run_is_the_grid(name):
    result = bash(SCRIPTS[name], "--dry-run", "--config.protocol=study")
    assert result.returncode == 0, result.stderr
    commands = [shlex.split(line) for line in result.stdout.splitlines()]
    arguments = arguments_of(name)
    assert commands == [
        grid.command_of(cell, arguments, ["--config.protocol=study"]) for cell in ALL[name]
    ]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_s_array_has_a_task_for_each_cell(name):
    header = (ROOT / SCRIPTS[name]).read_text()
    assert f"#SBATCH --array=0-{len(ALL[name]) - 1}%{grid.AT_ONCE}\n" in header
    assert f"run_grid {name} " in header


def test_an_array_task_takes_its_cell():
    script = SCRIPTS["ct"]
    folders = bash(script, "--list", OUT="there").stdout.splitlines()
    assert folders == [f"there/{cell.folder}" for cell in study.GRIDS["ct"]]
    assert bash(script, "--count").stdout == "60\n"
    for task in (0, 59):
        result = bash(script, "--list", OUT="there", SLURM_ARRAY_TASK_ID=str(task))
        assert result.stdout.splitlines() == [folders[task]]
    beyond = bash(script, SLURM_ARRAY_TASK_ID="60")
    assert beyond.returncode == 0
    assert beyond.stdout == "cell 60: nothing to do, there are fewer\n"


def test_signals_to_the_script_reach_the_grid(tmp_path):
    """SLURM warns the batch script's process: it has to be Python's."""
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho "$$ $@"\n')
    fake.chmod(0o755)
    process = subprocess.Popen(
        ["bash", ROOT / SCRIPTS["mri"], "--quick"],
        env=os.environ | {"PYTHON": str(fake)},
        cwd=tmp_path,  # from anywhere
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.communicate()[0] == f"{process.pid} -m evaluation.grid mri --quick\n"


def test_slurm_s_copy_of_a_script_finds_the_repository(tmp_path):
    copy = tmp_path / "slurm_script"
    copy.write_text((ROOT / SCRIPTS["lambda"]).read_text())
    result = bash(str(copy), "--count", SLURM_SUBMIT_DIR=str(ROOT))
    assert (result.returncode, result.stdout) == (0, "64\n"), result.stderr


def test_collect_asks_for_every_table_and_figure(tmp_path):
    root, log = tmp_path / "grid", tmp_path / "log"
    for folder in ("b/m/tv", "a/m/natural_1_pc", "a/m/tv", "a/m/unfinished"):
        (root / folder).mkdir(parents=True)
        (root / folder / "metrics.csv").touch()
        if "unfinished" not in folder:
            (root / folder / "recon.h5").touch()
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {log}\necho "$2 $5"\n[ "$3" != depth ]\n')
    fake.chmod(0o755)
    out = Path(f"{root}_summary")

    def collect() -> subprocess.CompletedProcess:
        log.unlink(missing_ok=True)
        return bash("evaluation/collect.sh", f"{root}/", PYTHON=str(fake))

    result = collect()
    assert log.read_text().splitlines() == [
        *(f"-m evaluation.tables --grid {root} --format={f}" for f in ("markdown", "latex", "csv")),
        f"-m evaluation.figures boxplots {root} --out={out}",
        f"-m evaluation.figures depth {root} --out={out}",
        f"-m evaluation.figures panels {root}/a/m/natural_1_pc {root}/a/m/tv --out={out}/a/m",
        f"-m evaluation.report {root}/a/m/natural_1_pc {root}/a/m/tv --out={out}/a/m/report.html",
        f"-m evaluation.figures panels {root}/b/m/tv --out={out}/b/m",
        f"-m evaluation.report {root}/b/m/tv --out={out}/b/m/report.html",
    ]
    assert result.returncode == 1
    assert result.stderr.endswith("error: could not be made: depth\n")
    tables = {"md": "markdown", "tex": "latex", "csv": "csv"}
    for ending, style in tables.items():
        written = (out / f"table.{ending}").read_text()
        assert written == f"evaluation.tables --format={style}\n"

    (root / "a/m/natural_1_pc_lambda_1").mkdir()
    (root / "a/m/natural_1_pc_lambda_1/metrics.csv").touch()
    collect()
    assert f"-m evaluation.figures lambda {root} --out={out}" in log.read_text().splitlines()
    nothing = bash("evaluation/collect.sh", str(tmp_path / "nothing"), PYTHON=str(fake))
    assert nothing.returncode == 1
    assert "run evaluation/evaluate_*.sh first" in nothing.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("mri", "zero_filled", "natural_1_pc"), ("ct", "fbp", "natural_1_ccdf")],
)
def test_quick_runs_and_the_prior_is_worth_it(tmp_path, name, before, after):
    result = bash(SCRIPTS[name], "--quick", OUT=str(tmp_path))
    assert result.returncode == 0, result.stderr[-3000:]
    rows = [line for line in result.stdout.splitlines() if line.startswith("| samples")]
    assert len(rows) == len(study.QUICK_GRIDS[name])
    for cell in study.QUICK_GRIDS[name]:
        assert len(read_rows(tmp_path / cell.folder)) == 2
    for folder in tmp_path.glob("*/*"):
        psnr = {
            method: [float(row["psnr"]) for row in read_rows(folder / method)]
            for method in (before, after)
        }
        assert all(a > b for a, b in zip(psnr[after], psnr[before], strict=True)), folder
