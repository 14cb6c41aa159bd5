"""Reports of folders of reconstruct.py: which go together, some of many slices, what is kept."""

import errno
import re
import shutil

import h5py
import pytest

from configs import ConfigError
from evaluation.own.report import own_report
from evaluation.own.result import OwnResult
from evaluation.report import main, make_report, write_report
from tests.helpers.own_folders import SLICES, reconstruct, write_kspace
from tests.helpers.report_folders import evaluate_direct
from tests.helpers.report_pixels import data_of

pytestmark = pytest.mark.usefixtures("one_thread")


# ---------------------------------------------------------------------------------- what is refused


def test_folders_that_do_not_go_together(folders, volume, prior, tmp_path):
    scan = write_kspace(tmp_path / "k.npy", seed=9)
    other = reconstruct(prior, scan, tmp_path / "other", **SLICES)
    evaluated = evaluate_direct(tmp_path / "brain" / "m" / "zero_filled", limit=1)
    cases = {
        "expected results of one input, got k.npy": [folders[0], other],
        "expected folders of one kind, got .*pnp of reconstruct.py": [evaluated, folders[0]],
        "got one without config.json": [folders[0], tmp_path],
        "got no folder": [tmp_path / "nowhere"],
        "expected different folders": [folders[0], folders[0]],
    }
    for message, those in cases.items():
        with pytest.raises(ValueError, match=message):
            make_report(those)
        with pytest.raises(ValueError, match=message):
            write_report(those, tmp_path / "report.html", limit=0, title="")
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(SystemExit, match="error: expected results of one input"):
        main([str(folders[0]), str(other), f"--out={tmp_path / 'report.html'}"])


def test_other_slices_or_sizes_of_the_same_input(folders, prior, tmp_path):
    scan = write_kspace(tmp_path / "k.npy")
    last = reconstruct(prior, scan, tmp_path / "last", **SLICES, **{"data.slices": "range:1:3"})
    data = data_of(make_report([folders[0], last]))
    assert [entry["key"] for entry in data["slices"]] == ["k.npy:1", "k.npy:2"]
    first = reconstruct(prior, scan, tmp_path / "first", **SLICES, **{"data.slices": "first:1"})
    with pytest.raises(ValueError, match="none in common"):
        make_report([last, first])
    small = reconstruct(prior, scan, tmp_path / "small", **SLICES, **{"data.image_size": "24,32"})
    with pytest.raises(ValueError, match=r"one image size, got \(24, 32\)"):
        make_report([folders[0], small])


def test_unfinished_and_damaged_folders(folders, tmp_path):
    unfinished, damaged = tmp_path / "unfinished", tmp_path / "damaged"
    for copy in (unfinished, damaged):
        shutil.copytree(folders[0], copy)
    (unfinished / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"without summary.json; run its command again"):
        make_report([unfinished])
    (unfinished / "reconstruction.h5").unlink()
    (unfinished / "parts").mkdir()
    with pytest.raises(ValueError, match=r"without reconstruction.h5 and summary.json"):
        make_report([unfinished])
    content = bytearray((damaged / "reconstruction.h5").read_bytes())
    with h5py.File(damaged / "reconstruction.h5") as file:
        place = file["reconstruction"].id.get_chunk_info(0).byte_offset
    content[place + 100] ^= 1
    (damaged / "reconstruction.h5").write_bytes(content)
    with pytest.raises(ConfigError, match=r"reconstruction.h5: damaged"):
        make_report([damaged])


# ------------------------------------------------------------------ of many slices, and beside them


def test_some_of_many_slices(folders, tmp_path, capsys):
    out = tmp_path / "report.html"
    main([str(folders[0]), f"--out={out}", "--limit=2", "--files=yes", "--title=a <b>"])
    assert re.match(r"report: .* and report_files \(0\.\d MB\)", capsys.readouterr().out)
    text = out.read_text()
    assert [entry["key"] for entry in data_of(text)["slices"]] == ["k.npy:0", "k.npy:2"]
    assert "2 slices, evenly spaced; 1 more are left out" in text
    assert "<h1>a &lt;b&gt;</h1>" in text
    files = {path.suffix for path in (tmp_path / "report_files").iterdir()}
    assert files == {".js", ".webp"}
    assert own_report([folders[0]], limit=2) == own_report([folders[0]], limit=2)


def test_the_report_can_be_switched_off_and_comes_later(prior, tmp_path):
    scan = write_kspace(tmp_path / "k.npy", count=1)
    out = reconstruct(prior, scan, tmp_path / "out", **SLICES, report=False)
    assert not (out / "report.html").exists()
    before = (out / "reconstruction.h5").stat().st_mtime_ns
    reconstruct(prior, scan, out, **SLICES)
    assert (out / "report.html").is_file()
    assert (out / "reconstruction.h5").stat().st_mtime_ns == before


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), RuntimeError("a bug")])
def test_a_report_that_cannot_be_written_loses_nothing(prior, tmp_path, monkeypatch, caplog, error):
    scan = write_kspace(tmp_path / "k.npy", count=1)

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("evaluation.show.report_file.write_atomically", fail)
        out = reconstruct(prior, scan, tmp_path / "out", **SLICES)
    assert "report.html was not written" in caplog.text
    assert str(error.args[-1]) in caplog.text
    assert not (out / "report.html").exists()
    assert (out / "summary.json").is_file()
    assert not (out / "parts").exists()
    assert OwnResult(out).keys == ["k.npy:0"]
    reconstruct(prior, scan, out, **SLICES)
    assert data_of((out / "report.html").read_text())["titles"][1] == "reconstruction"
