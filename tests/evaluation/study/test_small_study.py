"""The study in small: its priors, test sets and cells; findings and figure of known numbers."""

import math
import sys

import pytest

from configs import load_config
from configs.base import ALL_SIZES
from configs.small_study import NAMES, PRIORS, SIZES
from datasets import create_dataset
from evaluation import small_study
from evaluation.results.cells import parse_method, read_grid
from evaluation.results.folder import read_rows
from evaluation.show.intervals import Interval
from evaluation.study.small_cells import (
    BODY,
    CT,
    LEVELS,
    MEASURED,
    MRI,
    OWN,
    STUDIED,
    VOLUMES,
    TestSets,
    make_cells,
    outside,
    prior_folder,
)
from evaluation.study.small_findings import (
    NO,
    OPEN,
    YES,
    Scores,
    estimate,
    gap,
    natural_findings,
    natural_is_as_good_inside,
    natural_is_better_outside,
    resampled,
    size_findings,
    size_helps_less_outside,
    small_is_as_good,
    small_is_better_outside,
    verdict,
)
from evaluation.study.small_summary import main as summarize
from evaluation.study.small_summary import size_panels
from models import create_model
from samplers.predictor_corrector import first_step
from sde import VESDE
from tests.conftest import ROOT
from tests.helpers.grids import write_results
from tests.helpers.scripts import bash
from tests.helpers.tiny_prior import write_prior

TRAIN, EVALUATE = "training_scripts/train_small_study.sh", "evaluation/small_study.sh"


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """The checkout as the current folder, none of our variables set."""
    monkeypatch.chdir(ROOT)
    for name in ("OUT", "RUNS", "MRI", "NATURAL", "JOBS", "PYTHON", "DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)


# --- the priors


def test_there_are_three_priors_of_four_sizes():
    assert len(NAMES) == len(set(NAMES)) == 12
    counts = {}
    for name in NAMES:
        config = load_config(f"configs/small_study.py:{name}")
        prior, _, size = name.partition("_")
        assert (tuple(config.model.ch_mult), config.model.attention) == ALL_SIZES[size][:2]
        assert config.data.subset == PRIORS[prior]["subset"]
        counts.setdefault(prior, []).append(
            sum(p.numel() for p in create_model(config).parameters() if p.requires_grad)
        )
    assert counts["natural"] == counts["brain"] == counts["chest"] == sorted(counts["brain"])


def test_only_the_data_differ_between_priors():
    configs = [load_config(f"configs/small_study.py:{p}_4").to_dict() for p in PRIORS]
    for config in configs:
        del config["data"]
    assert configs[0] == configs[1] == configs[2]


@pytest.mark.parametrize("prior", ["brain", "chest"])
def test_whole_bodies_are_seen_at_128_pixels(prior):
    data = create_dataset(load_config(f"configs/small_study.py:{prior}_1").data, "train")
    assert data[0].image.shape == (1, 128, 128)


@pytest.mark.parametrize("name", ["natural", "natural_3", "knee_1", "1"])
def test_an_unknown_prior_is_refused(name):
    with pytest.raises(ValueError, match=rf"natural_1, brain_1, .*chest_4_attention, got '{name}'"):
        load_config(f"configs/small_study.py:{name}")


# --- test sets and cells


@pytest.fixture
def volumes(tmp_path):
    """A folder that looks like the optional one."""
    for name, _ in VOLUMES.values():
        (tmp_path / "mri").mkdir(exist_ok=True)
        (tmp_path / "mri" / f"{name}.nii.gz").touch()
    return tmp_path / "mri"


@pytest.fixture
def everything(tmp_path, volumes):
    pytest.importorskip("pydicom")
    return TestSets(tmp_path, mri=volumes, natural=tmp_path)


def test_each_set_says_how_to_get_it(tmp_path, everything):
    assert everything.found.keys() == MEASURED.keys()
    assert not everything.absent
    without = TestSets(tmp_path)
    assert without.absent.keys() == VOLUMES.keys()
    assert "--mri=FOLDER" in without.absent["brain_gd"]
    assert "MR_Gd.nii.gz" in without.absent["brain_gd"]


def test_without_pydicom_the_body_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom.data", None)
    sets = TestSets(tmp_path)
    assert BODY not in sets.found
    assert "pip install" in sets.absent[BODY]


def test_the_embedded_sets_are_read_at_128_pixels(tmp_path):
    sizes = {}
    for name, fields in TestSets(tmp_path).found.items():
        data = {k.removeprefix("data."): v for k, v in fields.items() if k.startswith("data.")}
        dataset = create_dataset(data, data.pop("split"))
        assert dataset[0].image.shape == (1, 128, 128)
        sizes[name] = len(dataset)
    assert {"brain_mr": 42, "chest_ct": 24, "photos": 2}.items() <= sizes.items()
    assert sizes.get(BODY, 1) == 1


def test_the_cells(everything):
    cells = make_cells(everything.found)
    folders = [cell.folder for cell in cells]
    mri, ct = (sum(m in kinds for kinds in MEASURED.values()) for m in (MRI, CT))
    expected = mri * (2 + 3 * len(NAMES)) + ct * (2 + 2 * len(NAMES))  # two baselines each
    assert len(folders) == len(set(folders)) == expected
    for cell in cells:
        method = parse_method(cell.method)
        config = small_study.config_of(cell, small_study.Path("runs"))
        assert config.precision == "bfloat16"
        if not method.prior:
            assert method.sampler in ("zero_filled", "fbp", "tv")
            continue
        assert f"{method.prior}_{method.size}" in NAMES
        assert method.sampler in STUDIED[cell.measurement]
        assert config.sampler.num_steps == LEVELS[method.sampler]
        assert config.prior == f"runs/small_study_{method.prior}_{method.size}"
        assert (config.operator.name == "ct") == (cell.measurement == CT)


def test_halves_are_alike_and_together_everything(everything):
    cells = make_cells(everything.found)
    halves = [cells[part::2] for part in (0, 1)]
    for size in SIZES:
        one, other = (sum(parse_method(c.method).size == size for c in half) for half in halves)
        assert abs(one - other) <= 1


def test_the_warm_start_of_ct():
    sde, steps = VESDE(0.01, 5.0), LEVELS["ccdf"]
    sigmas = sde.sigma(sde.sampling_times(steps)).tolist()
    assert 0.15 < sigmas[first_step(sigmas, sigmas, None, steps // 2)] < 0.3


def test_what_is_out_of_distribution():
    assert outside("brain", MRI) == ("chest_ct", "brain_pd", "brain_gd", "brain_sagittal")
    assert outside("chest", CT) == ("brain_mr", "body_ct")
    assert set(outside("natural", CT)) == {"brain_mr", "chest_ct", "body_ct"}


# --- running them


def test_a_prior_is_evaluated_and_again_at_no_cost(tmp_path, capfd):
    write_prior(tmp_path / f"runs/{prior_folder('brain_1')}/checkpoints/step_00000001.pt")
    argv = ["--quick", f"--out={tmp_path}/out", f"--prior-root={tmp_path}/runs"]
    argv += ["--only=chest_ct/*/brain_1_*[cfl]"]
    small_study.main([*argv, "--part=0/2"])
    small_study.main([*argv, "--part=1/2"])
    folders = sorted((tmp_path / "out").glob("*/*/brain_1_*"))
    assert {(folder.parent.name, folder.name) for folder in folders} == {
        *((MRI, "brain_1_pc"), (MRI, "brain_1_jalal")),
        (CT, "brain_1_ccdf"),
    }
    rows = [read_rows(folder) for folder in folders]
    assert all(len(r) == 2 for r in rows)
    small_study.main(argv)
    assert [read_rows(folder) for folder in folders] == rows
    assert "without brain_pd: give --mri=FOLDER" in capfd.readouterr().err


def test_missing_priors_are_listed_before_anything_runs(tmp_path):
    argv = [f"--out={tmp_path}", f"--prior-root={tmp_path}", "--only=brain_mr/*/*_1_pc"]
    with pytest.raises(SystemExit, match=r"small_study_natural_1, .*chest_1; run training_scripts"):
        small_study.main(argv)
    assert not (tmp_path / "brain_mr").exists()


def test_a_failing_cell_does_not_stop_the_others(tmp_path, monkeypatch):
    done = []

    def evaluate(config, out, device):
        done.append(out)
        if "chest_ct" in str(out):
            raise ValueError("too bad")

    monkeypatch.setattr(small_study, "evaluate", evaluate)
    with pytest.raises(SystemExit, match=r"1 of 3 failed.*\n  chest_ct/gaussian1d_4x/tv: too bad"):
        small_study.main([f"--out={tmp_path}", f"--only=*/{MRI}/tv"])
    assert len(done) == 3


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only=nothing"], "no cell matches --only='nothing'"),
        (["--mri=nowhere"], "nowhere: no such folder"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, argv, message):
    with pytest.raises(SystemExit, match=message):
        small_study.main([f"--out={tmp_path}", *argv])


@pytest.mark.parametrize("part", ["2/2", "1", "0/0", "a/b"])
def test_a_part_that_does_not_exist_is_refused(part, capsys):
    with pytest.raises(SystemExit):
        small_study.main([f"--part={part}"])
    assert "expected I/N" in capsys.readouterr().err


# --- findings


COUNTS = {"brain_mr": 6, "chest_ct": 5, BODY: 1}


def keys_of(data: str) -> list[str]:
    if data == OWN["natural"]:
        return [f"{i}.jpg" for i in range(4)]
    return [f"{data}.h5:{i}" for i in range(COUNTS.get(data, 4))]


def score(data: str, prior: str, size: str, number: int) -> float:
    """dB: 33 in the prior's own set, else natural 32.6, medical 30; the k-th size changes it.

    In the own set it gains 0.1 k; elsewhere a medical prior loses k, the natural one 0.3 k.
    """
    k = SIZES.index(size)
    scatter = number + 0.01 * math.sin(7 * number + len(prior + size))
    if OWN[prior] == data:
        return 33 + 0.1 * k + scatter
    return scatter + (32.6 - 0.3 * k if prior == "natural" else 30 - k)


def write_study(root) -> None:
    for data, measurements in MEASURED.items():
        for measurement in measurements:
            fields = {"operator__name": "ct" if measurement == CT else "mri"}
            folder = root / data / measurement
            rows = [(key, 25.0 + i, 0.5, 0.1) for i, key in enumerate(keys_of(data))]
            write_results(folder / "tv", rows, sampler__name="tv", **fields)
            for name in NAMES:
                prior, _, size = name.partition("_")
                rows = [
                    (key, score(data, prior, size, i), 0.5, 0.1)
                    for i, key in enumerate(keys_of(data))
                ]
                for sampler in STUDIED[measurement]:
                    write_results(folder / f"{name}_{sampler}", rows, prior=name, **fields)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("small_study")
    write_study(root)
    return root


@pytest.fixture(scope="module")
def scores(study):
    return Scores(read_grid([study]))


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.1, 0.3, YES), (-0.3, -0.1, NO), (-0.1, 0.1, OPEN)]
)
def test_a_verdict_needs_the_whole_interval(low, high, expected):
    assert verdict(Interval((low + high) / 2, low, high), 0) == expected
    assert verdict(Interval((low + high) / 2 + 5, low + 5, high + 5), 5) == expected


def test_a_single_slice_decides_nothing():
    one = estimate({"body.h5:0": 3.0})
    assert one.interval.mean == 3
    assert verdict(one.interval, 0) == OPEN
    assert verdict(estimate({}).interval, 0) == "\N{EN DASH}"


def test_volumes_are_resampled_from_three_on():
    two = {"a.h5:0": 1.0, "a.h5:1": 2.0, "b.h5:0": 3.0}
    assert set(resampled(two)) == {"a.h5 0", "a.h5 1", "b.h5 0"}
    three = two | {"c.jpg": 4.0}
    assert resampled(three) == three
    assert (estimate(three).slices, estimate(three).volumes) == (4, 3)


def test_the_gap_of_two_means():
    first = {f"{i}.jpg": 5.0 + (-1) ** i for i in range(20)}
    second = {f"x.h5:{i}": 2.0 + (-1) ** i for i in range(20)}
    found = gap(first, second)
    assert found.mean == pytest.approx(3)
    # two means of 20 values of variance 1
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(2 / 20), rel=0.1)
    assert math.isnan(gap(first, {"x.h5:0": 1.0}).low)
    assert math.isnan(gap(first, {}).mean)


def test_findings_about_sizes(scores):
    rows = size_findings(scores)
    # two priors with each measurement, three sizes above the smallest
    assert len(rows) == 2 * (3 + 2) * 3
    for row in rows:
        k = SIZES.index(row.size)
        assert row.inside.interval.mean == pytest.approx(0.1 * k, abs=0.02)
        loss = -0.3 * k if row.prior == "natural" else -k
        assert row.outside.interval.mean == pytest.approx(loss, abs=0.02)
        assert row.drop.mean == pytest.approx(loss - 0.1 * k, abs=0.02)
        assert row.drop.low <= row.drop.mean <= row.drop.high
        assert small_is_as_good(row) == small_is_better_outside(row) == YES
        assert size_helps_less_outside(row) == YES
    brain = rows[0]
    assert (brain.prior, brain.measurement, brain.sampler) == ("brain", MRI, "pc")
    assert (brain.inside.slices, brain.inside.volumes) == (6, 1)
    assert (brain.outside.slices, brain.outside.volumes) == (5 + 4 + 4 + 4, 4)


def test_findings_about_photographs(scores):
    rows = natural_findings(scores)
    assert len(rows) == (3 + 2) * 4  # MR's samplers and CT's, four sizes
    for row in rows:
        k = SIZES.index(row.size)
        assert row.outside.interval.mean == pytest.approx(2.6 + 0.7 * k, abs=0.02)
        assert row.inside.interval.mean == pytest.approx(-0.4 - 0.4 * k, abs=0.02)
        assert natural_is_better_outside(row) == YES
        assert natural_is_as_good_inside(row) == (YES if k == 0 else NO)


def test_differences_are_of_slices_that_both_have(tmp_path):
    rows = [(f"x.h5:{i}", 30.0 + i, 0.5, 0.1) for i in range(6)]
    for name, part in (("brain_1_pc", rows), ("brain_2_pc", rows[2:4])):
        write_results(tmp_path / "brain_mr" / MRI / name, part)
    row = size_findings(Scores(read_grid([tmp_path])))[0]
    assert (row.inside.interval.mean, row.inside.slices) == (0, 2)
    assert row.outside.slices == 0
    assert math.isnan(row.drop.mean)


def test_the_summary_and_its_figure(study, tmp_path, capsys):
    summarize([str(study), f"--out={tmp_path}"])
    text = (tmp_path / "summary.md").read_text()
    assert capsys.readouterr().out.startswith(text)
    lines = text.splitlines()
    assert "| 1: in distribution the smallest is as good | 30 / 0 / 0 | 10 / 0 / 0 |" in lines
    assert "| 3: in the medical prior's own it is as good | 5 / 15 / 0 | 0 / 5 / 0 |" in lines
    row = next(line for line in lines if line.startswith("| brain | gaussian1d 4x | PC | 2 |"))
    assert "+0.10 [+0.10, +0.10] (6 / 1) | yes | -1.00 [-1.00, -1.00] (17 / 4) | yes" in row
    assert "not independent" in text
    assert "Not finished" not in text
    assert (tmp_path / "sizes.png").stat().st_size > 10_000
    assert (tmp_path / "sizes.pdf").is_file()


def test_the_figure_s_axes(scores):
    panels = size_panels(scores)
    assert [panel.known for panel in panels[::3]] == [set(), {"chest"}, set(), {"brain"}]
    assert len({panel.column for panel in panels}) == 4
    assert [panel.row for panel in panels[:3]] == ["PC / CCDF", "Jalal", "PnP"]
    first = panels[0]
    assert first.reference == pytest.approx(27.5)
    assert first.lines["brain"]["4"].mean == pytest.approx(33.2 + 2.5, abs=0.02)
    assert first.lines.keys() == {"natural", "brain", "chest"}


def test_what_is_not_finished_is_named(tmp_path):
    for name, count in (("brain_1_pc", 3), ("brain_2_pc", 2)):
        rows = [(f"x.h5:{i}", 30.0 + i, 0.5, 0.1) for i in range(count)]
        write_results(tmp_path / "brain_mr" / MRI / name, rows)
    summarize([str(tmp_path)])
    text = (tmp_path / "summary.md").read_text()
    assert "lacking slices:** brain_mr/gaussian1d_4x/brain_2_pc\n" in text


def test_without_results_the_summary_says_what_to_run(tmp_path):
    write_results(tmp_path / "brain_mr" / MRI / "tv", [("x.h5:0", 30.0, 0.5, 0.1)])
    with pytest.raises(SystemExit, match=r"no finished slice of a prior; run evaluation/small"):
        summarize([str(tmp_path)])


# --- the scripts


def test_the_scripts_list_what_they_do(tmp_path):
    assert bash(TRAIN, "--list").stdout.split() == list(NAMES)
    assert bash(TRAIN, "--list", "chest_4", "natural_1").stdout.split() == ["chest_4", "natural_1"]
    argv = ("--list", "--only=chest_ct/*/chest_1_*")
    assert bash(EVALUATE, *argv, OUT=str(tmp_path)).stdout.split() == [
        *(f"chest_ct/{MRI}/chest_1_{sampler}" for sampler in STUDIED[MRI]),
        *(f"chest_ct/{CT}/chest_1_{sampler}" for sampler in STUDIED[CT]),
    ]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_training_script_s_commands(tmp_path, jobs):
    log, fake = tmp_path / "log", tmp_path / "python"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    fake.chmod(0o755)
    result = bash(
        *(TRAIN, "natural_1", "brain_4_attention", "--config.training.num_steps=7"),
        **{"PYTHON": str(fake), "JOBS": jobs, "NATURAL": "photos", "RUNS": "there"},
    )
    assert result.returncode == 0, result.stderr
    brain, natural = sorted(log.read_text().splitlines())
    for name, line in (("brain_4_attention", brain), ("natural_1", natural)):
        assert line.startswith(
            f"train.py --config=configs/small_study.py:{name} --workdir=there/small_study_{name} "
        )
        assert line.endswith("--config.training.num_steps=7")
    assert "image_folder" not in brain
    assert "--config.data.name=image_folder --config.data.subset= --config.data.root=photos" in (
        natural
    )


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_prior_that_fails_is_told(tmp_path, jobs):
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\ncase "$@" in *brain_1*) exit 3 ;; esac\n')
    fake.chmod(0o755)
    result = bash(TRAIN, "natural_1", "brain_1", PYTHON=str(fake), JOBS=jobs)
    assert result.returncode == 3
    assert "brain_1 ended with code 3" in result.stderr


def test_the_evaluation_script_shares_the_cells_and_sums_up(tmp_path):
    log, fake = tmp_path / "log", tmp_path / "python"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    fake.chmod(0o755)
    write_results(tmp_path / "out/brain_mr" / MRI / "tv", [("x.h5:0", 30.0, 0.5, 0.1)])
    environment = {"PYTHON": str(fake), "JOBS": "2", "OUT": f"{tmp_path}/out"}
    result = bash(EVALUATE, "--quick", **environment)
    assert result.returncode == 0, result.stderr
    lines = log.read_text().splitlines()
    assert sorted(lines[:2]) == [
        f"-m evaluation.small_study --part={part}/2 --quick" for part in (0, 1)
    ]
    assert lines[2:] == [
        f"-m evaluation.tables --grid {tmp_path}/out",
        f"-m evaluation.study.small_summary {tmp_path}/out",
    ]
    refused = bash(EVALUATE, "--out=there", **environment)
    assert refused.returncode == 2
    assert "set OUT and JOBS instead of --out=there" in refused.stderr
