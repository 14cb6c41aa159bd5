"""The eight questions on scores whose answers are known, and the summary of them."""

import csv
import math
import re

import pytest

from configs.small_study import CORNERS, SIZES, TABLE
from datasets.files import to_csv, write_atomically
from evaluation.show.intervals import Interval
from evaluation.study.small_answers import (
    NO,
    NONE,
    NOT_RUN,
    NOT_SEEN,
    OPEN,
    SEEN,
    UNSAID,
    YES,
    Row,
    answer,
    verdict,
)
from evaluation.study.small_cells import (
    DIRECT,
    OWN,
    SETS,
    make_cells,
    outside,
    run_settings,
    runs_of,
    settings,
)
from evaluation.study.small_findings import (
    all_statements,
    interaction,
    more_parameters,
    share_won,
    wider_field,
)
from evaluation.study.small_model import Estimate, Scores, contrast
from evaluation.study.small_rows import COLUMNS, RADII, ROWS, TRAINING_COLUMNS, TRAININGS
from evaluation.study.small_summary import main as summarize

MANY, WIDE = ("1_large", "4", "4_attention"), ("4_small", "4", "4_attention")
PEOPLE = {"brain_t1": 6, "photos": 5}  # 4 of others


def estimate(low, high):
    return Estimate(Interval((low + high) / 2, low, high), 5, 4.0, False)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.1, 0.3, YES), (-0.3, -0.1, NO), (-0.1, 0.1, OPEN), (math.nan, math.nan, NONE)],
)
def test_a_row_decides_only_with_its_whole_interval(low, high, expected):
    assert verdict(estimate(low, high), 0) == expected
    assert verdict(estimate(low - 5, high - 5), -5) == expected


def test_one_person_decides_nothing():
    one = Estimate(Interval(3.0, math.nan, math.nan), 1, math.nan, False)
    assert verdict(one, 0) == OPEN


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ("yyo", SEEN),
        ("yyoo", UNSAID),  # not more than half
        ("yyyn", UNSAID),
        ("nno", NOT_SEEN),
        ("nnoo", UNSAID),
        ("nnny", UNSAID),
        ("ooo", UNSAID),
        ("y--", SEEN),  # what was not run does not count
        ("---", NOT_RUN),
        ("", NOT_RUN),
    ],
)
def test_the_rule_of_the_answers(verdicts, expected):
    words = {"y": YES, "n": NO, "o": OPEN, "-": NONE}
    rows = [Row("brain", "mr", "pnp", "", estimate(0, 1), words[v]) for v in verdicts]
    assert answer(rows) == expected


def score(prior: str, size: str, data: str, person: int) -> float:
    """dB: in a prior's own set many parameters gain 1, a wide field 0.2, both 0.3 more.

    Elsewhere many parameters lose 0.6 and a wide field 1; photographs' prior is 2 better there,
    and 3 with ten times as many. 1_small loses 2 everywhere. People differ, and a little in this.
    """
    many, wide = size in MANY, size in WIDE
    scatter = 2.0 * person + 0.01 * math.sin(7 * person + len(prior + size))
    if size.startswith("structured"):
        many, wide = False, size.endswith("4")
        scatter -= 0.1 if size.endswith("4") else 0.9
    elif size == "4_flat":
        wide = True
    small = 2.0 if size == "1_small" else 0.0
    if OWN[prior] == data:
        return 35 + many + 0.2 * wide + 0.3 * (many and wide) - small + scatter
    base = {"natural": 32.0, "photos": 33.0}.get(prior, 30.0)
    return base - 0.6 * many - wide - small + scatter


def cell_rows(cell) -> list[dict]:
    network, measurement, sampler = cell.key
    shared = {"network": network, "measurement": measurement, "sampler": sampler}
    shared |= {"ssim": "0.9", "settings": settings(cell)}
    found = []
    for data in SETS[measurement]:
        for person in range(PEOPLE.get(data, 4)):
            value = 25.0 + person
            if cell.network:
                value = score(cell.network.prior, cell.network.size, data, person)
                value += 0.02 * cell.network.seed
            place = {"set": data, "person": f"{data[:5]}{person}", "slice": "0"}
            found.append({**shared, **place, "psnr": f"{value:.3f}"})
    return found


def training_row(run: str) -> dict:
    """Effective radii are 2 of narrow networks, 8 of wide ones, times 1 + seed / 10."""
    size = run.partition("_")[2].rpartition("_s")[0]
    radius = (8.0 if size in WIDE else 2.0) * (1 + int(run[-1]) / 10)
    row = dict.fromkeys(TRAINING_COLUMNS, "1") | dict.fromkeys(RADII, str(radius))
    return row | {"training": run, "settings": run_settings(run)}


@pytest.fixture(scope="module")
def rows():
    return [row for cell in make_cells() for row in cell_rows(cell)]


@pytest.fixture(scope="module")
def statements(rows):
    trainings = [training_row(run) for run in runs_of(make_cells())]
    return all_statements(Scores(rows), trainings)


def test_the_2_x_2_gives_back_the_effects_it_was_made_of(rows):
    scores = Scores(rows)
    for weights, inside, elsewhere in (
        (more_parameters, 1 + 0.15, -0.6),
        (wider_field, 0.2 + 0.15, -1.0),
        (interaction, 0.3, 0.0),
    ):
        assert set(weights("brain")) == {("brain", size) for size in TABLE}
        found = contrast(scores, weights("brain"), "mr", "pnp", [OWN["brain"]])
        assert found.interval.mean == pytest.approx(inside, abs=0.04)
        found = contrast(scores, weights("brain"), "mr", "pnp", outside("brain", "mr"))
        assert found.interval.mean == pytest.approx(elsewhere, abs=0.04)


def test_the_answers_to_made_up_scores(statements):
    found = [(s.question, answer(s.rows)) for s in statements]
    assert found == [
        (1, NOT_SEEN),  # it loses 1.5
        (2, SEEN),  # it wins 1.6
        (3, SEEN),
        *[(4, SEEN)] * 3,
        *[(4, NOT_SEEN)] * 2,
        (4, UNSAID),
        *[(5, NOT_SEEN)] * 2,
        (6, SEEN),
        (6, SEEN),
        (7, SEEN),
        (8, NOT_SEEN),  # depth 1 loses 0.9
        (8, SEEN),  # depth 4 loses 0.1
    ]


def test_rows_of_the_corners_account_for_other_trainings(statements):
    first = statements[0].rows
    with_trainings = {row.sampler for row in first if row.estimate.with_trainings}
    assert with_trainings == {"pnp", "pc", "jalal", "dps"}
    assert not any(r.estimate.with_trainings for r in statements[-1].rows if r.prior == "photos")


def test_cells_won_by_photographs_are_counted(rows):
    # with one sampler: (3 + 1) sets of the brain's, 2 of the chest's, at each size
    total = len(SIZES) * (len(outside("brain", "mr")) + len(outside("chest", "ct")))
    assert share_won(Scores(rows), ["pnp"]) == (
        f"Photographs have the higher mean in {total} of {total} cells."
    )
    assert share_won(Scores([]), ["pnp"]) == ""


def test_the_protocols_contradict_each_other_where_verdicts_do(rows):
    turned = [
        row | {"psnr": f"{60 - float(row['psnr']):.3f}"} if row["sampler"] == "pc_2026" else row
        for row in rows
    ]
    found = [s for s in all_statements(Scores(turned), []) if s.question == 7]
    assert answer(found[0].rows) == NOT_SEEN


def test_without_rows_nothing_is_answered():
    assert {answer(s.rows) for s in all_statements(Scores([]), [])} == {NOT_RUN}


def test_what_is_outside_a_distribution():
    assert outside("brain", "mr") == ("brain_flair", "brain_t2", "chest_ct")
    assert outside("chest", "ct") == ("chest_views", "brain_t1")
    assert set(outside("natural", "ct")) == {"chest_ct", "chest_views", "brain_t1"}


def write_files(folder, rows, trainings):
    write_atomically(folder / ROWS, to_csv(rows, COLUMNS))
    write_atomically(folder / TRAININGS, to_csv(trainings, TRAINING_COLUMNS))


def test_the_summary_needs_the_two_files_alone(rows, tmp_path, capsys):
    write_files(tmp_path, rows, [training_row(f"brain_{size}_s0") for size in CORNERS])
    summarize([str(tmp_path), f"--out={tmp_path / 'out'}"])
    text = (tmp_path / "out/summary.md").read_text()
    assert capsys.readouterr().out.startswith(text)
    answers = text.split("## Answers")[1].split("## 1.")[0]
    line = next(line for line in answers.splitlines() if line.startswith("| 1 |"))
    assert line.endswith("| not seen | 0 / 20 / 0 |")
    assert "1: 40 of 40, 2: 108 of 108" in text
    assert "| brain_4_s0 |" in text
    row = next(r for r in text.splitlines() if r.startswith("| brain | MR | PnP |"))
    assert re.search(r"\| -1\.(4|5)\d \[-1\.\d\d, -1\.\d\d\] \+t \(6\) \| no \|$", row)
    assert f"| {DIRECT['mr']}" not in text
    assert (tmp_path / "out/small_study.png").stat().st_size > 10_000
    assert (tmp_path / "out/small_study.pdf").is_file()


def test_rows_of_other_settings_do_not_count(rows, tmp_path):
    some = [row for row in rows if row["network"] in ("brain_1_s0", "brain_4_s0")]
    old = [row | {"settings": "000000"} if "_4_" in row["network"] else row for row in some]
    write_files(tmp_path, old, [])
    summarize([str(tmp_path)])
    text = (tmp_path / "summary.md").read_text()
    out = sum(row["settings"] == "000000" for row in old)
    assert 0 < out < len(old)
    assert f"{len(old) - out} slices. {out} rows of other settings are left out." in text
    write_files(tmp_path, [row | {"settings": "000000"} for row in some], [])
    with pytest.raises(SystemExit, match=rf"got {len(some)} of other settings; run evaluation"):
        summarize([str(tmp_path)])


def test_all_rows_take_less_than_a_megabyte(tmp_path):
    """Counted for the people of docs/small_study.md, with the longest names there are."""
    people = {"brain_t1": 15, "brain_flair": 5, "brain_t2": 4, "photos": 8}
    lines = 0
    for cell in make_cells():
        many = 0 if cell.sampler in ("pnp", "tv", *DIRECT.values()) else 1
        sets = SETS[cell.measurement].items()
        lines += sum(people.get(name, 4) * numbers[many] for name, numbers in sets)
    longest = {"network": "natural_4_attention_s0", "measurement": "mr", "sampler": "jalal"}
    longest |= {"set": "chest_ct", "person": "001b5e6f1b89fd3b", "slice": "axial0"}
    longest |= {"psnr": "31.234", "ssim": "0.9123", "settings": "a1b2c3"}
    write_atomically(tmp_path / ROWS, to_csv([longest], COLUMNS))
    with (tmp_path / ROWS).open() as file:
        assert len(list(csv.DictReader(file))) == 1
    assert lines * len((tmp_path / ROWS).read_text().splitlines()[1]) < 1_000_000
