"""How far a command is: lines in logs, network calls of slices."""

import io
import re

import pytest

from configs import load_config
from configs import progress as module
from configs.progress import LogLines, SliceProgress, progress_bar
from evaluation.evaluate import evaluate
from evaluation.run.keywords import expected_calls
from tests.conftest import ROOT
from tests.helpers.tiny_prior import write_prior


class Clock:
    """In place of `time`: every look at it takes `step` seconds."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def monotonic(self):
        self.now += self.step
        return self.now

    def strftime(self, _):
        return "2026-01-31 12:00:00"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_dated_line_a_minute(monkeypatch):
    monkeypatch.setattr(module, "time", Clock(1.0))
    file = io.StringIO()
    bar = progress_bar(1000, "step", label="fit", initial=100, file=file)
    for i in range(300):
        bar.set_postfix_str(f"loss {i}", refresh=False)
        bar.update()
    bar.close()
    lines = file.getvalue().splitlines()
    assert 5 <= len(lines) <= 7  # 300 seconds, and the end
    pattern = r"2026-01-31 12:00:00  fit: (\d+)/1000 steps, 0.9\d+ steps/s, \d+:\d+ left, loss \d+"
    assert all(re.fullmatch(pattern, line) for line in lines), lines
    assert lines[-1].startswith("2026-01-31 12:00:00  fit: 400/1000")


def test_the_last_line_is_not_written_twice(monkeypatch):
    monkeypatch.setattr(module, "time", Clock(61.0))
    file = io.StringIO()
    with progress_bar(2, "slice", file=file) as bar:
        bar.update()
        bar.update()
    assert [line.split()[2] for line in file.getvalue().splitlines()] == ["1/2", "2/2"]
    with progress_bar(3, "slice", file=file) as bar:
        bar.update()
        bar.n = 3
    assert file.getvalue().splitlines()[-1].split()[2] == "3/3"


def test_lines_of_network_calls_tell_the_time_left(monkeypatch):
    clock = Clock(0.0)
    monkeypatch.setattr(module, "time", clock)
    file = io.StringIO()
    monkeypatch.setattr(module.sys, "stderr", file)
    progress = SliceProgress()
    with progress.start(80, calls=50):
        progress.begin(8)
        for _ in range(50):
            clock.now += 1.2
            progress.call()
        progress.finish()
        progress.begin(8)
        for _ in range(10):
            clock.now += 1.2
            progress.call()
    last = file.getvalue().splitlines()[-1]
    assert last == (
        "2026-01-31 12:00:00  480/4000 network calls, 6.67 network calls/s, 08:48 left, 8/80 slices"
    )


def test_a_short_job_leaves_no_line(monkeypatch):
    monkeypatch.setattr(module, "time", Clock(0.001))
    file = io.StringIO()
    with progress_bar(1000, "step", file=file) as bar:
        for _ in range(1000):
            bar.update()
    assert file.getvalue() == ""


def test_a_terminal_gets_a_bar():
    file = Terminal()
    with progress_bar(10, "step", file=file) as bar:
        bar.update(10)
    assert "10/10" in file.getvalue()
    assert progress_bar(10, "step", file=file, disable=True).disable


@pytest.fixture
def moves(monkeypatch):
    """What the bars showed: (n, total, postfix) of each change."""
    seen = []

    class Recorder(LogLines):
        def refresh(self):
            seen.append((self.n, self.total, self.postfix))

    monkeypatch.setattr(module, "progress_bar", lambda total, unit, initial, disable: Recorder(
        total, unit, label="", initial=initial, file=io.StringIO()
    ))  # fmt: skip
    return seen


def test_slices_move_with_each_call_of_the_network(moves):
    progress = SliceProgress()
    with progress.start(6, calls=10, done=2):
        for _ in range(3):
            progress.begin(2)
            for _ in range(5):  # half of what is expected
                progress.call()
            progress.finish()
    assert moves[0] == (22, 80, "2/8 slices")
    assert moves[4] == (30, 80, "2/8 slices")
    assert moves[5] == (20, 40, "4/8 slices")  # 5 calls a slice it is
    assert moves[-1] == (40, 40, "8/8 slices")
    assert all(n <= total for n, total, _ in moves)


def test_a_batch_that_has_to_be_repeated_is_counted_once(moves):
    progress = SliceProgress()
    with progress.start(4, calls=3):
        progress.begin(4)
        progress.call()
        for _ in range(2):  # out of memory: halves
            progress.begin(2)
            for _ in range(3):
                progress.call()
            progress.finish()
    assert moves[-1][:2] == (12, 12)


def test_without_a_network_slices_are_counted(moves):
    progress = SliceProgress()
    with progress.start(3, calls=0):
        progress.begin(2)
        progress.call()
        assert moves[-1] == (1, 3, "")
        progress.call()
        progress.finish()
        progress.begin(1)
        progress.finish()
    assert moves[-1] == (3, 3, "")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("predictor_corrector", {}, 2 * 7 * 3),
        ("predictor_corrector", {"corrector_steps": 2}, 3 * 7 * 3),
        ("annealed_langevin", {}, 3 * 7 * 3),
        ("pnp", {}, 7 * 3),
        ("dds", {"order": 2}, 2 * 7 * 3),
        ("daps", {"order": 2}, 2 * 5 * 7 * 3),
        ("warm_dds", {}, 50 + 7 * 3),
        ("warm_mmps", {}, 50 + 7 * 3),
        ("tv", {}, 0),
        ("moment_gibbs", {"particles": 2, "inner_steps": 3, "start_steps": 5}, (7 * 6 + 5) * 3),
    ],
)
def test_expected_calls(name, options, expected):
    assert expected_calls(name, 7, 3, options) == expected


@pytest.mark.parametrize("sampler", ["predictor_corrector", "pnp", "zero_filled"])
def test_evaluation_moves_within_a_batch(tmp_path, moves, sampler):
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    config.data.image_size, config.limit, config.panels = 32, 3, 0
    config.data.fit = "resize"
    config.sampler.name, config.sampler.num_steps = sampler, 4
    config.prior = str(write_prior(tmp_path / "prior.pt"))
    evaluate(config, tmp_path / "out", "cpu")
    places = [n for n, _, _ in moves]
    calls = {"predictor_corrector": 24, "pnp": 12}.get(sampler, 3)
    assert places == sorted(places)
    assert places[-1] == moves[-1][1] == calls  # all three slices were one batch
    assert len(set(places)) >= 3
