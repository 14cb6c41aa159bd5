"""The grids of the study's 2026 edition: cells, geometry, slices over people, shares of cells."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from configs import load_config
from configs.base import ALL_SIZES
from datasets import create_dataset
from datasets.prepare import prepare_dataset
from evaluation import evaluate as evaluation
from evaluation import grid, tables
from evaluation.results.cells import parse_method, read_grid
from evaluation.results.folder import read_rows
from evaluation.run.choice import from_the_middle, over_people
from evaluation.run.measurements import build_operator
from evaluation.run.protocols import study_step
from evaluation.show.plots import draw_boxplots, draw_depth
from evaluation.show.share_table import share_table
from evaluation.study.grids_2026 import CT_2026, GRIDS_2026
from tests.helpers.data_writers import write_lodopab
from tests.helpers.grids import write_results


def test_numbers_of_cells():
    assert {name: len(cells) for name, cells in GRIDS_2026.items()} == {
        "study2026_mri": 3 * 5 * (9 * 2 * 3 + 3),
        "study2026_ct": 2 * 4 * (9 * 2 * 3 + 3),
        "study2026_nested": (3 * 5 + 2 * 4) * 4 * 2 * 3,
    }


@pytest.mark.parametrize(
    ("name", "priors", "measurements"),
    [
        (
            "study2026_mri",
            ("knee", "natural"),
            {"gaussian1d_4x", "gaussian1d_8x", "gaussian2d_4x", "radial_29", "poisson_15x"},
        ),
        ("study2026_ct", ("ct", "natural"), {"views_60", "views_30", "views_20", "fan_60"}),
    ],
)
def test_every_prior_meets_every_measurement_with_every_sampler(name, priors, measurements):
    cells = [cell for cell in GRIDS_2026[name] if cell.prior and cell.method != "unet"]
    found = Counter((c.measurement, parse_method(c.method)[:3]) for c in cells)
    number = len({cell.data for cell in cells})
    assert found == {
        (measurement, (sampler, prior, size)): number
        for measurement in measurements
        for sampler in ("pc", "jalal", "dps")
        for prior in priors
        for size in ALL_SIZES
    }


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("study2026_mri", {"pc": 250, "jalal": 500, "dps": 250}),
        ("study2026_ct", {"pc": 1000, "jalal": 1000, "dps": 500}),
    ],
)
def test_levels_and_slices_of_the_facts(name, steps):
    for cell in GRIDS_2026[name]:
        assert (cell.overrides["limit"], cell.overrides["spread"]) == (100, True)
        method = parse_method(cell.method)
        if method.prior:
            assert cell.overrides["sampler.num_steps"] == steps[method.sampler]
            assert cell.prior.endswith(f"_2026_{method.size}")
            assert "sampler.start_level" not in cell.overrides  # no warm start any more
    assert cell.overrides.get("data.upside_down", False) == (name == "study2026_mri")


def test_the_fan_beam():
    config = load_config("configs/evaluate.py")
    config.update_from_flattened_dict(CT_2026["fan_60"])
    operator = build_operator(config, (320, 320), ["a"])
    assert operator.detector == "curved"
    assert operator.range_shape == (1, 60, 960)
    assert operator.source_distance == operator.detector_distance == 480
    assert operator.magnification == 2
    assert operator.bin_angle == pytest.approx(1 / 960)
    # the study turns the other way: of a full turn the same sources
    ours = np.sort(np.round(operator.angles_deg % 360, 9))
    np.testing.assert_allclose(ours, np.sort(np.round(-360 * np.arange(60) / 60 % 360, 9)))
    radius = 480 * np.sin(np.abs(operator.ray_angles).max())
    assert radius > 320 / np.sqrt(2)  # the whole image is seen
    assert study_step(config.operator) == 2.0


@pytest.mark.parametrize(("views", "step"), [(20, 1.27), (30, 1.91), (60, 1.91)])
def test_parallel_beams(views, step):
    config = load_config("configs/evaluate.py")
    config.update_from_flattened_dict(CT_2026[f"views_{views}"])
    operator = build_operator(config, (320, 320), ["a"])
    assert operator.range_shape == (1, views, 453)
    assert operator.angles_deg[-1] == pytest.approx(180 - 180 / views)
    assert study_step(config.operator) == pytest.approx(step, abs=0.01)


def test_nested_cells_have_their_depth():
    cells = {cell.method: cell for cell in GRIDS_2026["study2026_nested"]}
    cell = cells["natural_structured_3_dps"]
    assert parse_method(cell.method)[:3] == ("dps", "natural", "structured_3")
    assert (cell.overrides["depth"], cell.prior) == (3, "celeba_2026_structured")


def test_results_of_the_editions_lie_apart(tmp_path):
    arguments = grid.parse(["study2026_mri"])[0]
    cell = GRIDS_2026["study2026_mri"][0]
    assert grid.folder_of(cell, arguments).startswith("results/grid_2026/")
    quick = grid.parse(["study2026_mri", "--quick"])[0]
    assert grid.folder_of(cell, quick).startswith("results/quick_2026/")
    with pytest.raises(ValueError, match="has no small version; leave --quick out"):
        grid.choose(grid.parse(["study2026_nested", "--quick"])[0])


def test_a_list_of_volumes_keeps_the_number_of_slices(tmp_path):
    (tmp_path / "knee_pd.txt").write_text("file1\n")
    arguments = grid.parse(["study2026_mri", f"--lists={tmp_path}"])[0]
    command = grid.command_of(GRIDS_2026["study2026_mri"][0], arguments, [])
    assert "--config.limit=100" in command
    assert f"--config.data.split_list={tmp_path}/knee_pd.txt" in command


# --- slices over people


def listed(people: dict[str, int]):
    keys = [f"{name}.h5:{i}" for name, number in people.items() for i in range(number)]
    return SimpleNamespace(keys=keys)


def test_the_first_slices_are_of_as_many_people_as_there_are():
    data = listed({"a": 5, "b": 1, "c": 4})
    order = over_people(data)
    assert sorted(order) == list(range(10))
    keys = [data.keys[i] for i in order]
    assert [key[0] for key in keys] == ["a", "b", "c", "a", "c", "a", "c", "a", "c", "a"]
    assert keys[:3] == ["a.h5:2", "b.h5:0", "c.h5:2"]  # from the middle
    same = SimpleNamespace(keys=data.keys, people={key: "one" for key in data.keys[:6]})
    assert [same.people.get(data.keys[i], "c") for i in over_people(same)[:2]] == ["one", "c"]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 10])
def test_from_the_middle_outwards(count):
    order = from_the_middle(count)
    assert sorted(order) == list(range(count))
    assert from_the_middle(7) == [3, 1, 5, 0, 2, 4, 6]


def test_an_evaluation_over_people(tmp_path):
    for i in range(3):
        write_lodopab(tmp_path / f"d/ground_truth_test_00{i}.hdf5", slices=5, size=16, seed=i)
    config = load_config("configs/evaluate.py")
    config.update_from_flattened_dict(
        {
            "data.name": "lodopab",
            "data.root": str(tmp_path / "d"),
            "operator.name": "ct",
            "operator.num_views": 3,
            "sampler.name": "fbp",
            "spread": True,
            "limit": 4,
            "panels": 0,
        }
    )
    expected = [f"ground_truth_test_00{i}.hdf5:{k}" for i, k in ((0, 2), (1, 2), (2, 2), (0, 1))]
    for name, fields in (("plain", {}), ("checked", {"skip_bad": True})):
        config.data.update(fields)
        evaluation.evaluate(config, tmp_path / name, "cpu")
        assert [row["key"] for row in read_rows(tmp_path / name)] == expected
    before = read_rows(tmp_path / "plain")
    config.data.skip_bad, config.limit = False, 6
    evaluation.evaluate(config, tmp_path / "plain", "cpu")
    assert read_rows(tmp_path / "plain")[:4] == before  # more only add


def test_a_cache_knows_the_order(tmp_path):
    write_lodopab(tmp_path / "d/ground_truth_test_000.hdf5", slices=5, size=16)
    data = {"name": "lodopab", "root": str(tmp_path / "d"), "cache": "disk"}
    data["cache_dir"] = str(tmp_path / "cache")
    plain = create_dataset(data, "test")
    for order in (over_people, None):
        found = prepare_dataset(data, "test", limit=2, order=order)
        expected = over_people(plain)[:2] if order else [0, 1]
        assert found.keys == [plain.keys[i] for i in expected]
        assert (found[0].image == plain[expected[0]].image).all()


# --- shares of cells


@pytest.fixture
def results(tmp_path):
    """Two samplers, two masks: natural is 1 dB better for all people, or for one of three."""
    gains = {
        ("pc", "a"): (1.0, 1.1, 0.9), ("pc", "b"): (1.0, 0.9, 1.1),
        ("dps", "a"): (-1.0, -1.1, -0.9), ("dps", "b"): (3.0, -1.0, -1.0),
    }  # fmt: skip
    for (sampler, mask), own in gains.items():
        for prior, factor in (("knee", 0), ("natural", 1)):
            rows = [
                (f"file{i}.h5:{k}", 30 + i + factor * gain, 0.5, 0.1 - 0.01 * factor * gain)
                for i, gain in enumerate(own)
                for k in range(2)
            ]
            write_results(tmp_path / "brain" / mask / f"{prior}_1_large_{sampler}", rows)
    write_results(tmp_path / "brain" / "a" / "tv", [("file0.h5:0", 10, 0.1, 0.9)])
    return tmp_path


def test_shares_of_cells_and_intervals_over_people(results):
    lines = share_table(read_grid([results]), "natural", "knee", "csv", metrics=["psnr"])
    header, *rows = [line.split(",") for line in lines.splitlines()]
    found = {row[1]: dict(zip(header, row, strict=True)) for row in rows}
    assert found.keys() == {"dps", "pc", "all"}
    counts = {
        name: [int(row[c]) for c in ("cells", "better", "clearly_better", "clearly_worse")]
        for name, row in found.items()
    }
    assert counts == {"pc": [2, 2, 2, 0], "dps": [2, 1, 0, 1], "all": [4, 3, 2, 1]}
    assert {row["people"] for row in found.values()} == {"3"}
    assert {row["slices"] for row in found.values()} == {"6"}
    assert float(found["pc"]["difference"]) == pytest.approx(1.0)
    # by person, over both masks: 1, 1, 1 and 1, -1.05, -0.95
    assert float(found["pc"]["ci_low"]) == pytest.approx(1.0)
    assert float(found["dps"]["difference"]) == pytest.approx(-1 / 3)
    values = np.array([1.0, -1.05, -0.95])
    half = 4.3027 * values.std(ddof=1) / np.sqrt(3)
    assert float(found["dps"]["ci_high"]) == pytest.approx(values.mean() + half, rel=1e-3)


def test_a_metric_that_is_better_if_smaller(results):
    error = share_table(read_grid([results]), "natural", "knee", "csv", metrics=["nmse"])
    assert "all,nmse,4,3,2,1," in error
    worse = share_table(read_grid([results]), "knee", "natural", "csv", metrics=["psnr"])
    assert "all,psnr,4,1,1,2," in worse


def test_figures_and_tables_know_the_sizes_of_2026(results):
    rows = [(f"file{i}.h5:0", 30.0 + i, 0.5, 0.1) for i in range(3)]
    for size in ("1", "4_small", "1_attention", "structured_2"):
        write_results(results / "brain" / "a" / f"natural_{size}_pc", rows)
    cells = read_grid([results])
    assert {cell.method.size for cell in cells} == {
        *("", "1", "1_large", "4_small", "1_attention", "structured_2")
    }
    with_prior = [cell for cell in cells if cell.method.prior]
    legend = {text.get_text() for text in draw_boxplots(with_prior, "psnr").legends[0].get_texts()}
    assert {"natural 1 + att.", "natural structured 2", "knee 1 large"} <= legend
    draw_depth([cell for cell in with_prior if cell.method.size == "1"], "psnr")
    table = tables.study_table(cells, "markdown", metrics=["psnr"])
    assert "natural structured 2, PC" in table


def test_the_command_prints_shares(results, capsys):
    tables.main(["--grid", str(results), "--share", "natural", "knee", "--metrics=psnr"])
    text = capsys.readouterr().out
    assert "natural better" in text
    assert "3 of 4 (75%)" in text
    with pytest.raises(ValueError, match=r"no measurement has natural and ct .*knee, natural"):
        share_table(read_grid([results]), "natural", "ct", "markdown", metrics=["psnr"])
    with pytest.raises(SystemExit):
        tables.main(["results", "--share", "natural", "knee"])
