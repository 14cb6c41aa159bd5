"""The study in small: its trainings, pictures and cells; work in pieces, and rows carried along."""

import shutil
import time

import h5py
import numpy as np
import pytest
from PIL import Image

from configs import ConfigError, load_config
from configs.base import ALL_SIZES
from configs.small_study import CORNERS, FLAT, IMAGES, NESTED, PRIORS, SIDE, SIZES, TABLE
from datasets import DataError
from evaluation import small_study
from evaluation.study import small_cells, small_rows
from evaluation.study.small_cells import (
    Cell,
    Network,
    choose_slices,
    fields_of,
    make_cells,
    parse_network,
    runs_of,
    settings,
)
from evaluation.study.small_inputs import evenly, write_inputs, write_picture
from models import create_model
from models.receptive_field import theoretical_field
from tests.conftest import ROOT
from tests.helpers.data_writers import write_dicom, write_nifti
from tests.helpers.data_writers import write_picture as write_photo
from tests.helpers.grids import write_results
from tests.helpers.scripts import bash

pytestmark = pytest.mark.usefixtures("one_thread")
TRAIN, EVALUATE = "training_scripts/train_small_study.sh", "evaluation/small_study.sh"
ONE = "brain_1_small_s0/mr/pnp"


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """The checkout as the current folder, none of our variables set."""
    monkeypatch.chdir(ROOT)
    for name in ("OUT", "RUNS", "DATA", "CARRIED", "JOBS", "PYTHON", "DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)


# --- the priors


def parameters(config) -> int:
    return sum(p.numel() for p in create_model(config).parameters() if p.requires_grad)


def test_the_2_x_2_has_pairs_of_equal_parameters_and_of_equal_fields():
    configs = {size: load_config(f"configs/small_study.py:brain_{size}_s0") for size in SIZES}
    count = {size: parameters(config) for size, config in configs.items()}
    field = {size: theoretical_field(config) for size, config in configs.items()}
    assert 1 < count["4_small"] / count["1"] < 1.15
    assert 1 < count["1_large"] / count["4"] < 1.15
    assert 9 < count["4"] / count["4_small"] < 13
    assert 9 < count["1_large"] / count["1"] < 13
    assert field["1"] == field["1_large"] < SIDE / 2
    assert field["4"] == field["4_small"] > SIDE
    assert field["1_small"] < field["1"]
    assert count["1_small"] < count["1"] / 10
    assert field["4_attention"] is None


def test_widths_are_the_study_s_in_proportion():
    for size in SIZES:
        model = load_config(f"configs/small_study.py:chest_{size}_s0").model
        assert model.nf * 8 == ALL_SIZES[size].nf
        assert tuple(model.ch_mult) == ALL_SIZES[size].ch_mult
        assert model.attention == ALL_SIZES[size].attention


def test_the_nested_network_at_full_depth_is_the_flat_one():
    nested, flat = (load_config(f"configs/small_study.py:brain_{s}_s0") for s in (NESTED, FLAT))
    assert parameters(nested) == parameters(flat)


def test_only_the_data_differ_between_priors_and_only_the_seed_between_trainings():
    configs = [load_config(f"configs/small_study.py:{p}_4_s0").to_dict() for p in PRIORS]
    again = load_config("configs/small_study.py:natural_4_s1").to_dict()
    assert again.pop("seed") == 1
    seeds = [config.pop("seed") for config in configs]
    assert seeds == [0] * len(PRIORS)
    assert again == configs[0]
    roots = [config.pop("data")["root"].rpartition("/")[2] for config in configs]
    assert roots == list(PRIORS)
    assert all(config == configs[0] for config in configs)


@pytest.mark.parametrize("name", ["natural_1", "natural_3_s0", "knee_1_s0", "natural_1_s", "1"])
def test_an_unknown_prior_is_refused(name):
    with pytest.raises(ValueError, match=rf"expected PRIOR_SIZE_sSEED .* got '{name}'"):
        load_config(f"configs/small_study.py:{name}")


# --- cells


def test_the_most_informative_cells_come_first():
    cells = make_cells()
    assert len({cell.key for cell in cells}) == len(cells)
    stages = [cell.stage for cell in cells]
    assert stages == sorted(stages)
    first = {cell.key for cell in cells if cell.stage == 1 and cell.network}
    three = ("natural", "brain", "chest")
    assert first == {(f"{p}_{s}_s0", m, "pnp") for p in three for s in SIZES for m in ("mr", "ct")}
    second = {cell.sampler for cell in cells if cell.stage == 2}
    assert second == {"pc", "jalal", "dps"}
    repeated = {(c.network.prior, c.network.size) for c in cells if c.network and c.network.seed}
    assert repeated == {(p, s) for p in three for s in CORNERS}
    assert set(CORNERS) < set(TABLE) < set(SIZES)


def test_all_configs_of_the_cells_are_valid(tmp_path):
    for cell in make_cells():
        config = load_config("configs/evaluate.py")
        config.update_from_flattened_dict(fields_of(cell))
        config.update_from_flattened_dict(fields_of(cell, quick=True))
        if cell.network:
            load_config(f"configs/small_study.py:{cell.network.run}")
            assert parse_network(str(cell.network)) == cell.network
    assert fields_of(Cell(5, Network("brain", f"{NESTED}_4", 0), "ct", "pnp"))["depth"] == 4


def test_settings_are_of_all_that_rows_depend_on(monkeypatch):
    cell = Cell(1, Network("brain", "1", 0), "mr", "pnp")
    found = {settings(cell), settings(cell, quick=True), settings(cell._replace(measurement="ct"))}
    found |= {settings(cell._replace(sampler="pc"))}
    found |= {settings(cell._replace(network=Network("brain", "4", 0)))}
    found |= {settings(cell._replace(network=Network("natural", "1", 0)))}
    assert len(found) == 6
    monkeypatch.setitem(small_cells.TRAINING_FIELDS, "training.num_steps", 3000)
    assert settings(cell) not in found


def test_every_person_has_the_slices_that_are_asked_for(tmp_path):
    for name in ("brain_t1/b_1", "brain_t1/b_0", "brain_t1/a_0", "brain_t1/b_2", "photos/x_0"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.png").touch()
    many = choose_slices("mr", "pnp", tmp_path)
    one = choose_slices("mr", "pc", tmp_path)
    assert many == [f"brain_t1/{n}.png" for n in ("a_0", "b_0", "b_1")] + ["photos/x_0.png"]
    assert one == [f"brain_t1/{n}.png" for n in ("a_0", "b_0")] + ["photos/x_0.png"]
    with pytest.raises(FileNotFoundError, match="expected test pictures, got none"):
        choose_slices("mr", "pc", tmp_path / "nothing")


# --- pictures


def write_data(folder):
    """A folder of data as docs/small_study.md describes it, of small images."""
    rng = np.random.default_rng(0)
    for split, count in (("train", IMAGES + 7), ("val", 44)):
        for i in range(count):
            write_photo(folder / f"photos_cc/{split}/{i:04d}.png", size=(112, 120), seed=i)
    with h5py.File(folder / "mr_t1_people.h5", "w") as file:
        for person in range(45):
            file[f"person{person:02d}"] = rng.integers(0, 999, (9, 100, 97)).astype(np.uint16)
    for name in ("patient01_study1_FLAIR", "patient03_study1_FLAIR", "patient01_study2_T2W"):
        volume = rng.integers(0, 999, (100, 98, 20)).astype(np.int16)
        write_nifti(folder / f"mr_people/{name}.nii.gz", volume)
    with h5py.File(folder / "ct_lung.h5", "w") as file:
        for name in ("A_1", "B_1"):
            file[name] = rng.integers(-1024, 2000, (3, 100, 100)).astype(np.int16)
    for person in "ABCDE":
        for view in ("axial", "coronal", "sagittal"):
            for date in ("19000101", "19010101"):
                hu = rng.integers(-1000, 2000, (100, 100))
                write_dicom(folder / f"ct_people/{person}/{view}_{date}-1.dcm", hu)
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    pytest.importorskip("pydicom")
    root = tmp_path_factory.mktemp("small")
    write_inputs(root / "inputs", write_data(root / "data"))
    return root


def people(folder) -> set[str]:
    return {path.stem.partition("_")[0] for path in folder.glob("*.png")}


def test_nobody_is_in_training_and_test(inputs):
    root = inputs / "inputs"
    brain = [people(root / p) for p in ("brain/train", "brain/val", "tests/brain_t1")]
    assert list(map(len, brain)) == [27, 3, 15]
    chest = [people(root / p) for p in ("chest/train", "chest/val", "tests/chest_ct")]
    assert chest == [{"A-1", "B-1", "A", "B"}, {"C"}, {"D", "E"}]
    assert people(root / "tests/chest_views") == {"D", "E"}
    assert people(root / "tests/brain_flair") == {"patient01", "patient03"}
    assert people(root / "tests/brain_t2") == {"patient01"}
    assert len(list((root / "natural/train").iterdir())) == IMAGES
    assert len(list((root / "brain/train").iterdir())) == IMAGES
    assert len(list((root / "photos/train").iterdir())) == IMAGES + 7
    assert len(list((root / "natural/val").iterdir())) == 42
    assert people(root / "tests/photos") == {"0042", "0043"}


def test_pictures_are_square_and_keep_their_values(inputs, tmp_path):
    for path in (inputs / "inputs/tests").glob("*/*.png"):
        with Image.open(path) as picture:
            assert picture.size == (SIDE, SIDE)
    values = np.linspace(-3.0, 5.0, SIDE**2).reshape(SIDE, SIDE)
    write_picture(tmp_path / "x.png", values)
    back = np.asarray(Image.open(tmp_path / "x.png"), dtype=float) / 65535 * 8 - 3
    assert np.abs(back - values).max() < 1e-4
    with pytest.raises(DataError, match="x: expected an image, got the constant 1"):
        write_picture(tmp_path / "x.png", np.ones((4, 4)))


def test_pictures_are_written_once_and_not_mixed(inputs):
    marker = inputs / "inputs/tests/photos/0042_0.png"
    before = marker.stat().st_mtime_ns
    write_inputs(inputs / "inputs", inputs / "data")
    assert marker.stat().st_mtime_ns == before
    with pytest.raises(DataError, match="expected pictures of the embedded samples, got those of"):
        write_inputs(inputs / "inputs", None)


def test_what_a_folder_lacks_is_named(tmp_path):
    (tmp_path / "data/photos_cc").mkdir(parents=True)
    with pytest.raises(DataError, match=r"got no mr_t1_people.h5, mr_people, ct_lung.h5, ct_peop"):
        write_inputs(tmp_path / "inputs", tmp_path / "data")


def test_items_are_spread_evenly():
    assert evenly(list(range(10)), 4) == [0, 2, 5, 7]
    assert evenly([1, 2], 4) == [1, 2]


# --- running


def argv(tmp_path, *more):
    return ["--quick", f"--out={tmp_path}/out", *more]


def test_a_prior_is_trained_and_evaluated_and_then_only_its_rows_are_needed(
    tmp_path, monkeypatch, capsys
):
    small_study.main(argv(tmp_path, f"--only={ONE}"))
    rows = small_rows.read(tmp_path / "out/rows.csv")
    assert {row["set"] for row in rows} == {"brain_t1", "chest_ct", "photos"}
    assert {small_rows.cell_key(row) for row in rows} == {tuple(ONE.split("/"))}
    assert all(5 < float(row["psnr"]) < 60 for row in rows)
    (training,) = small_rows.read(tmp_path / "out/trainings.csv")
    assert training["training"] == "brain_1_small_s0"
    assert (training["steps"], training["field"]) == ("4", "25")
    config = load_config("configs/small_study.py:brain_1_small_s0")
    assert training["parameters"] == str(parameters(config))

    def never(*_):
        raise AssertionError("expected no work")

    monkeypatch.setattr(small_study, "evaluate", never)
    monkeypatch.setattr(small_study, "call", never)
    small_study.main(argv(tmp_path, f"--only={ONE}"))
    for folder in ("cells", "runs", "inputs"):
        shutil.rmtree(tmp_path / "out" / folder)
    small_study.main(argv(tmp_path, f"--only={ONE}"))  # from its own rows
    shutil.move(tmp_path / "out", tmp_path / "carried")
    carried = f"--carried={tmp_path}/carried"
    capsys.readouterr()
    small_study.main(argv(tmp_path, f"--only={ONE}", carried, "--list"))
    assert capsys.readouterr().out == f"1 {ONE} done\n"
    small_study.main(argv(tmp_path, f"--only={ONE}", carried))
    assert small_rows.read(tmp_path / "out/rows.csv") == rows
    assert small_rows.read(tmp_path / "out/trainings.csv") == [training]
    assert not (tmp_path / "out/inputs").exists()


@pytest.fixture
def faked(monkeypatch):
    """Cells that are finished at once, and the names of what was done."""
    done = []

    def train(run, arguments):
        small_study.check_time(arguments)
        done.append(run)

    def evaluate(config, out, device):
        done.append(out.name)
        if "chest" in out.name:
            raise ValueError("too bad")
        write_results(out, [("photos/a_0.png", 30.0, 0.9, 0.1)])

    monkeypatch.setattr(small_study, "train", train)
    monkeypatch.setattr(small_study, "evaluate", evaluate)
    return done


def test_a_failing_cell_does_not_stop_the_others_and_is_tried_again(tmp_path, faked):
    given = argv(tmp_path, "--only=*_1_small_s0/mr/pnp")
    with pytest.raises(SystemExit, match=r"1 of 3 failed.*\n  chest_1_small_s0/mr/pnp: too bad"):
        small_study.main(given)
    names = [name for name in faked if name.endswith("pnp")]
    assert names == [f"{p}_1_small_s0_pnp" for p in ("natural", "brain", "chest")]
    faked.clear()
    with pytest.raises(SystemExit, match="1 of 3 failed"):
        small_study.main(given)
    assert faked == ["chest_1_small_s0", "chest_1_small_s0_pnp"]


def test_no_time_means_no_work(tmp_path, faked, monkeypatch, capsys):
    clock = iter([0.0, *range(100, 200)])
    monkeypatch.setattr(small_study.time, "monotonic", lambda: next(clock))
    small_study.main(argv(tmp_path, "--only=brain_1_*/mr/pnp", "--minutes=1"))
    assert faked == []
    assert "time is over; 4 of 4 cells left, the same command continues" in capsys.readouterr().out


def test_a_training_ends_at_the_deadline():
    begin = time.monotonic()
    with pytest.raises(small_study.OutOfTimeError):
        small_study.call(["sleep", "1000"], begin)
    with pytest.raises(small_study.subprocess.CalledProcessError):
        small_study.call(["false"], float("inf"))
    with pytest.raises(KeyboardInterrupt):
        small_study.call(["sh", "-c", "exit 75"], float("inf"))


def test_a_failed_training_is_not_tried_for_each_of_its_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(small_study, "training_command", lambda run, arguments: ["false"])
    calls = []
    call = small_study.call
    monkeypatch.setattr(small_study, "call", lambda *a: (calls.append(a), call(*a)))
    with pytest.raises(SystemExit, match=r"2 of 2 failed.*\n.*mr/pnp: its training failed"):
        small_study.main(argv(tmp_path, "--only=brain_1_small_s0/*/pnp"))
    assert len(calls) == 1


def test_all_cells_of_a_training_at_once_on_request(tmp_path):
    arguments = small_study.parse(argv(tmp_path, "--depth-first"))
    runs = [cell.network.run for cell in small_study.choose(arguments) if cell.network]
    changes = sum(a != b for a, b in zip(runs, ["", *runs], strict=False))
    assert changes == len(runs_of(make_cells()))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--quick", "--only=nothing"], "no cell matches --only='nothing'"),
        ([], "expected a folder of images, got none; give --data=FOLDER or set DATA"),
        (["--data=nowhere"], "nowhere: expected photos_cc"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, more, message):
    given = [f"--out={tmp_path}", f"--prior-root={tmp_path}", f"--carried={tmp_path}"]
    with pytest.raises(SystemExit, match=message):
        small_study.main([*given, *more])


# --- the file of rows


def row_of(network, value, hashed=None):
    cell = Cell(1, parse_network(network), "mr", "pnp")
    row = dict.fromkeys(small_rows.COLUMNS, "x") | {"network": network, "psnr": str(value)}
    row |= {"measurement": "mr", "sampler": "pnp"}
    return row | {"settings": hashed or settings(cell)}


def test_rows_of_a_cell_replace_its_old_ones(tmp_path):
    path = tmp_path / "rows.csv"
    first, other = row_of("brain_1_s0", 1), row_of("brain_4_s0", 2)
    small_rows.add(path, [first, other], small_rows.cell_key)
    small_rows.add(path, [row_of("brain_1_s0", 3)], small_rows.cell_key)
    assert [row["psnr"] for row in small_rows.read(path)] == ["2", "3"]


def test_only_what_is_missing_and_current_is_carried(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    carried = [row_of("brain_1_s0", 1), row_of("brain_4_s0", 2), row_of("chest_1_s0", 5, "000000")]
    small_rows.add(there / "rows.csv", carried, small_rows.cell_key)
    small_rows.add(here / "rows.csv", [row_of("brain_1_s0", 9)], small_rows.cell_key)
    small_rows.carry(there, here)
    assert [row["psnr"] for row in small_rows.read(here / "rows.csv")] == ["9", "2"]
    assert small_rows.finished_cells(here) == {
        ("brain_1_s0", "mr", "pnp"),
        ("brain_4_s0", "mr", "pnp"),
    }


def test_another_file_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match=r"rows.csv: expected the columns network, .*, got a, b"):
        small_rows.read(tmp_path / "rows.csv")


# --- the scripts


def test_the_scripts_list_what_they_do(tmp_path):
    runs = runs_of(make_cells())
    assert bash(TRAIN, "--list").stdout.split() == runs
    where = {"OUT": str(tmp_path), "CARRIED": str(tmp_path / "none")}
    found = bash(EVALUATE, "--list", f"--only={ONE}", **where).stdout
    assert found == f"1 {ONE} -\n"


@pytest.fixture
def fake_python(tmp_path):
    """A Python that writes down its arguments, and fails for brain_1_s0."""
    fake = tmp_path / "python"
    fake.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/log\ncase "$*" in *:brain_1_s0*) exit 3 ;; esac\n'
    )
    fake.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_training_script_s_commands(fake_python, jobs):
    given = {"PYTHON": f"{fake_python}/python", "JOBS": jobs, "RUNS": "there", "OUT": "out"}
    names = ("natural_1_s0", "chest_4_attention_s0")
    result = bash(TRAIN, *names, "--config.training.num_steps=7", **given)
    assert result.returncode == 0, result.stderr
    inputs, *lines = (fake_python / "log").read_text().splitlines()
    assert inputs == "-m evaluation.small_study --inputs"
    for name, line in zip(sorted(names), sorted(lines), strict=True):
        assert line.startswith(f"train.py --config=configs/small_study.py:{name} ")
        assert f" --workdir=there/small_study_{name} " in line
        assert f"--config.data.root=out/inputs/{name.partition('_')[0]} " in line
        assert line.endswith("--config.training.num_steps=7")


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_prior_that_fails_is_told(fake_python, jobs):
    given = {"PYTHON": f"{fake_python}/python", "JOBS": jobs}
    result = bash(TRAIN, "natural_1_s0", "brain_1_s0", **given)
    assert result.returncode == 3
    assert "brain_1_s0 ended with code 3" in result.stderr


def test_the_evaluation_script_shares_the_work_and_sums_up(fake_python):
    (fake_python / "out").mkdir()
    (fake_python / "out/rows.csv").write_text("x\n")
    given = {"PYTHON": f"{fake_python}/python", "JOBS": "2", "OUT": f"{fake_python}/out"}
    result = bash(EVALUATE, "--quick", "--hours=1", **given)
    assert result.returncode == 0, result.stderr
    assert (fake_python / "log").read_text().splitlines() == [
        *["-m evaluation.small_study --quick --hours=1"] * 2,
        f"-m evaluation.study.small_summary {fake_python}/out --quick",
    ]
    refused = bash(EVALUATE, "--out=there", **given)
    assert refused.returncode == 2
    assert "set OUT instead of --out=there" in refused.stderr
