"""Evaluation runs: shards, kills, batches, bad slices, other priors: the numbers stay the same."""

import csv
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch

from configs import ConfigError, load_config
from datasets import DataError, create_dataset
from evaluation import evaluate as evaluation
from evaluation.evaluate import FailedSlicesError, evaluate
from evaluation.metrics import across_metrics
from evaluation.results import files
from evaluation.results.cells import describe_measurement
from evaluation.results.folder import read_failures, read_rows
from evaluation.results.recon_file import read_images
from evaluation.run import methods
from evaluation.run.calibrated import SCALES
from evaluation.run.provenance import fingerprint
from evaluation.run.shards import WHOLE, Shard
from evaluation.tables import make_table
from operators.ct import few_view_angles
from operators.masks import make_mask
from sde import VESDE
from tests.conftest import PATIENCE, ROOT
from tests.helpers.data_writers import overwrite, write_fastmri, write_lodopab
from tests.helpers.tiny_prior import write_prior

TIMING = ("seconds", "memory_mib")
FILES = ("info.json", "metrics.csv", "recon.h5", "volumes.csv")
CT = {"operator.name": "ct", "operator.num_views": 7, "sampler.name": "fbp"}
MRI = {"operator.mask_per_slice": True, "sampler.name": "zero_filled"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return write_prior(tmp_path_factory.mktemp("priors") / "tiny.pt")


@pytest.fixture
def knee(tmp_path):
    """Three volumes of 5, 2 and 3 slices, 24 x 20 pixels."""
    for i, slices in enumerate((5, 2, 3)):
        path = tmp_path / "knee" / "singlecoil_val" / f"file{i}.h5"
        write_fastmri(path, slices=slices, seed=i, kspace=False)
    return tmp_path / "knee"


def split_list(root):
    """A list of all files, for the folder's are shared out to val and test otherwise."""
    path = root.parent / "names.txt"
    names = sorted(path.name for path in root.glob("*/*.h5"))
    path.write_text("".join(f"{name}\n" for name in names))
    return str(path)


def config_of(root, **fields):
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    given = {
        "data.name": "fastmri",
        "data.subset": "",
        "data.root": str(root),
        "data.split": "test",
        "data.split_list": split_list(root),
        "sampler.num_steps": 3,
        "panels": 0,
    }
    config.update_from_flattened_dict(given | fields)
    return config


def content(folder):
    """Everything that must not depend on how it was computed."""
    rows = [{k: v for k, v in row.items() if k not in TIMING} for row in read_rows(folder)]
    with h5py.File(folder / "recon.h5") as file:
        arrays = {name: file[name][()].tolist() for name in file}
    with (folder / "metrics.csv").open() as file:
        assert [row["key"] for row in csv.DictReader(file)] == [row["key"] for row in rows]
    return rows, arrays, (folder / "volumes.csv").read_text()


def run_all(config, out, world):
    for rank in range(world):
        evaluate(config, out, "cpu", Shard(rank, world))
    return out


# ---- the same numbers


@pytest.mark.parametrize("fields", [MRI, CT], ids=["mri", "ct"])
def test_shards_and_batch_sizes_change_no_bit_of_a_baseline(knee, tmp_path, fields):
    config = config_of(knee, **fields)
    evaluate(config, tmp_path / "whole", "cpu")
    expected = content(tmp_path / "whole")
    assert len(expected[0]) == 10
    for world in (1, 2, 3):
        for size in (1, 2, 5):
            config.batch_size = size
            out = run_all(config, tmp_path / f"{world}_{size}", world)
            assert content(out) == expected
            assert sorted(p.name for p in out.iterdir() if p.name in FILES) == sorted(FILES)
            assert not (out / "parts").exists()


def test_shards_and_batch_sizes_change_a_network_by_its_kernels_only(knee, prior, tmp_path):
    config = config_of(knee, prior=str(prior), batch_size=5)
    evaluate(config, tmp_path / "whole", "cpu")
    expected = read_images(tmp_path / "whole")
    assert max(np.abs(image).max() for image in expected.values()) > 0.1
    for world, size in ((1, 1), (2, 2), (3, 5)):
        config.batch_size = size
        out = run_all(config, tmp_path / f"{world}", world)
        assert [row["key"] for row in read_rows(out)] == list(expected)
        for key, image in read_images(out).items():
            np.testing.assert_allclose(image, expected[key], atol=1e-5)


def test_another_number_of_shards_does_only_what_is_left(knee, tmp_path):
    config = config_of(knee, **MRI)
    evaluate(config, tmp_path, "cpu", Shard(2, 4))
    done = read_rows(tmp_path)
    assert [row["key"] for row in done] == ["file0.h5:2", "file1.h5:1"]
    assert not (tmp_path / "recon.h5").exists()
    evaluate(config, tmp_path, "cpu", Shard(0, 2))
    assert len(read_rows(tmp_path)) == 5  # both of 2/4's slices are 0/2's, too
    assert not (tmp_path / "recon.h5").exists()
    evaluate(config, tmp_path, "cpu")
    rows = {row["key"]: row for row in read_rows(tmp_path)}
    assert len(rows) == len(read_images(tmp_path)) == 10
    assert all(rows[row["key"]] == row for row in done)  # with the seconds it took then


def fork(target, *arguments):
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


@pytest.mark.parametrize("shards", [(Shard(0, 2), Shard(1, 2)), (WHOLE, WHOLE, Shard(2, 3))])
def test_processes_at_the_same_time(knee, tmp_path, shards):
    """Also some that do each other's work, as a mistake."""
    config = config_of(knee, batch_size=1, **MRI)
    evaluate(config, tmp_path / "whole", "cpu")
    barrier = multiprocessing.get_context("fork").Barrier(len(shards))

    def work(shard):
        barrier.wait()
        evaluate(config, tmp_path / "shared", "cpu", shard)

    processes = [fork(work, shard) for shard in shards]
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0] * len(shards)
    assert content(tmp_path / "shared") == content(tmp_path / "whole")
    assert not (tmp_path / "shared" / "parts").exists()


def test_other_settings_at_the_same_moment_are_refused(knee, tmp_path):
    """Whoever comes second is refused, though there was nothing when it looked first."""
    barrier = multiprocessing.get_context("fork").Barrier(2)

    def work(acceleration, shard):
        config = config_of(knee, **MRI, **{"operator.acceleration": acceleration})
        real = evaluation.holding

        def holding(*given, **how):
            barrier.wait()  # both have checked, and written nothing
            return real(*given, **how)

        evaluation.holding = holding
        try:
            evaluate(config, tmp_path / "out", "cpu", shard)
        except ConfigError as error:
            sys.exit(7 if "made with another config" in str(error) else 1)

    processes = [fork(work, 4.0, Shard(0, 2)), fork(work, 2.0, Shard(1, 2))]
    for process in processes:
        process.join(60)
    assert sorted(process.exitcode for process in processes) == [0, 7]
    assert len(read_rows(tmp_path / "out")) == 5


@pytest.mark.parametrize("first", [1, 3, 6])
def test_a_continued_run_has_the_same_bits(knee, prior, tmp_path, first):
    """Whatever was there before: batches form as in a run that was not interrupted."""
    config = config_of(knee, prior=str(prior), batch_size=4)
    evaluate(config, tmp_path / "whole", "cpu")
    config.limit = first
    evaluate(config, tmp_path / "parts", "cpu")
    config.limit = 0
    evaluate(config, tmp_path / "parts", "cpu")
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_slices_of_a_begun_batch_are_done_again_and_none_is_lost(
    knee, prior, tmp_path, monkeypatch
):
    config = config_of(knee, prior=str(prior), batch_size=4)
    config.limit = 6
    evaluate(config, tmp_path, "cpu")
    before = read_rows(tmp_path)
    config.limit = 0
    calls, real = [], evaluation.run_slices

    def fails(config, method, samples, *more):
        calls.append([sample.key for sample in samples])
        if "file2.h5:2" in calls[-1] or len(samples) == 1:
            raise KeyError("broken")
        return real(config, method, samples, *more)

    monkeypatch.setattr(evaluation, "run_slices", fails)
    with pytest.raises(FailedSlicesError):
        evaluate(config, tmp_path, "cpu")
    assert [len(keys) for keys in calls] == [4, 2, 1, 1]
    assert len(read_rows(tmp_path)) == 8
    calls.clear()
    monkeypatch.setattr(evaluation, "run_slices", lambda *given: calls.append(1) or real(*given))
    evaluate(config, tmp_path, "cpu")
    assert len(calls) == 2  # those that have failed, one by one
    assert len(read_rows(tmp_path)) == 10
    assert {row["key"] for row in before} <= {row["key"] for row in read_rows(tmp_path)}


# ---- kills


class DiedError(BaseException):
    """As a kill: nothing catches it."""


def test_dying_before_any_change_of_a_file_loses_nothing(knee, tmp_path, monkeypatch):
    config = config_of(knee, limit=2, **MRI)
    evaluate(config, tmp_path / "whole", "cpu")
    expected = content(tmp_path / "whole")
    changes, fatal = 0, 0
    replace, unlink = os.replace, files.Path.unlink

    def counted(change):
        def wrapper(*arguments, **options):
            nonlocal changes
            changes += 1
            if changes == fatal:
                raise DiedError
            return change(*arguments, **options)

        return wrapper

    finished = False
    while not finished:
        changes, fatal = 0, fatal + 1
        out = tmp_path / str(fatal)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", counted(replace))
            patch.setattr(files.Path, "unlink", counted(unlink))
            try:
                evaluate(config, out, "cpu")
                finished = changes < fatal
            except DiedError:
                pass
        evaluate(config, out, "cpu")
        assert content(out) == expected, f"died before change {fatal}"
    assert fatal > 15


def test_kill_9_and_a_bad_slice_on_the_command_line(prior, tmp_path):
    root = tmp_path / "knee"
    path = write_fastmri(root / "singlecoil_val" / "file0.h5", slices=40, kspace=False)
    overwrite(path, "reconstruction_rss", 5, np.nan)
    out, fields = tmp_path / "killed", {"data.root": str(root), "prior": str(prior)}
    fields |= {"data.name": "fastmri", "data.subset": "", "data.split": "test", "batch_size": 1}
    fields |= {"panels": 0, "sampler.num_steps": 10, "data.split_list": split_list(root)}
    command = [sys.executable, "-m", "evaluation.evaluate", f"--out={out}"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    options = {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "text": True}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **options)
    deadline = time.monotonic() + PATIENCE
    while len(read_rows(out)) < 2:
        assert time.monotonic() < deadline, "no rows"
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with (out / "metrics.csv").open("a") as file:
        file.write("file0.h5:39,31.")  # as a kill in the middle of a write
    before = read_rows(out)
    assert 2 <= len(before) < 39

    again = subprocess.run(command, capture_output=True, **options)
    assert again.returncode == evaluation.SOME_FAILED
    assert "1 slices failed" in again.stderr
    assert "file0.h5:5: expected finite values, got 480 NaN" in again.stderr
    with pytest.raises(FailedSlicesError):
        evaluate(config_of(root, **fields), tmp_path / "whole", "cpu")
    assert content(out) == content(tmp_path / "whole")
    after = {row["key"]: row for row in read_rows(out)}
    assert len(after) == 39
    assert all(after[row["key"]] == row for row in before)


# ---- slices that fail


def test_a_bad_slice_is_recorded_and_cleared_once_it_is_good(knee, tmp_path):
    path = knee / "singlecoil_val" / "file0.h5"
    with h5py.File(path) as file:
        good = file["reconstruction_rss"][0]
    overwrite(path, "reconstruction_rss", 0, np.nan)  # the first one, whose size all others share
    config = config_of(knee, batch_size=4, **MRI)
    for _ in range(2):
        with pytest.raises(FailedSlicesError) as caught:
            evaluate(config, tmp_path / "out", "cpu")
        assert list(caught.value.failures) == ["file0.h5:0"]
    with (tmp_path / "out" / "failures.csv").open() as file:
        (failure,) = csv.DictReader(file)
    assert failure["key"] == "file0.h5:0"
    assert "480 NaN or infinite" in failure["error"]
    rows, _, volumes = content(tmp_path / "out")
    assert len(rows) == len(read_images(tmp_path / "out")) == 9
    assert [line.split(",")[0] for line in volumes.splitlines()[1:]] == ["file1.h5", "file2.h5"]

    overwrite(path, "reconstruction_rss", 0, good)
    evaluate(config, tmp_path / "out", "cpu")
    evaluate(config, tmp_path / "whole", "cpu")
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert not (tmp_path / "out" / "failures.csv").exists()
    assert not (tmp_path / "out" / "parts").exists()


def failing_method(fails):
    """`create_reconstructor`, of a method that raises what ``fails(keys)`` gives, if anything."""

    def create(config, device, *on_call):
        method = methods.create_reconstructor(config, device, *on_call)

        def wrapper(problem, keys):
            error = fails(keys)
            if error is not None:
                raise error
            return method(problem, keys)

        return wrapper

    return create


def test_any_exception_of_a_slice_is_its_own(knee, tmp_path, monkeypatch):
    bad = {"file0.h5:2": RuntimeError("no\nluck"), "file2.h5:0": ZeroDivisionError()}
    monkeypatch.setattr(
        evaluation,
        "create_reconstructor",
        failing_method(lambda keys: next((bad[key] for key in keys if key in bad), None)),
    )
    config = config_of(knee, batch_size=4, **MRI)
    with pytest.raises(FailedSlicesError, match="2 slices failed"):
        evaluate(config, tmp_path / "bad", "cpu")
    errors = {"file0.h5:2": "RuntimeError: no luck", "file2.h5:0": "ZeroDivisionError: "}
    assert read_failures(tmp_path / "bad") == errors
    monkeypatch.undo()
    evaluate(config, tmp_path / "whole", "cpu")
    whole = {row["key"]: row["psnr"] for row in read_rows(tmp_path / "whole") if row["key"]}
    others = {row["key"]: row["psnr"] for row in read_rows(tmp_path / "bad")}
    assert others == {key: value for key, value in whole.items() if key not in bad}


def test_a_baseline_that_gives_nan_fails_for_that_slice(knee, tmp_path, monkeypatch):
    def baseline(operator, y):
        image = operator.adjoint(y)
        return image if image.max() < 0.9 else image * torch.nan

    monkeypatch.setitem(methods.BASELINES, "zero_filled", baseline)
    with pytest.raises(FailedSlicesError) as caught:
        evaluate(config_of(knee, batch_size=3, **MRI), tmp_path, "cpu")
    errors = set(caught.value.failures.values())
    assert errors == {"NaN or infinite values in the reconstruction"}
    assert len(read_rows(tmp_path)) + len(caught.value.failures) == 10
    assert read_rows(tmp_path)


def test_what_concerns_all_stops_at_once(knee, tmp_path, monkeypatch):
    tried = []

    def fails(keys):
        tried.append(keys)
        return ValueError("expected something else")

    monkeypatch.setattr(evaluation, "create_reconstructor", failing_method(fails))
    config = config_of(knee, batch_size=1, **MRI)
    with pytest.raises(ValueError, match=r"first 3 slices all failed alike.*: expected something"):
        evaluate(config, tmp_path, "cpu")
    assert len(tried) == 3
    assert not read_rows(tmp_path)


def test_data_that_cannot_be_measured_stop_before_anything_is_written(tmp_path):
    path = tmp_path / "knee" / "singlecoil_val" / "file0.h5"
    write_fastmri(path, slices=2)
    config = config_of(tmp_path / "knee", **CT, **{"data.mode": "complex"})
    with pytest.raises(ValueError, match=r"expected a float32 .*choose data\.mode"):
        evaluate(config, tmp_path / "out", "cpu")
    overwrite(path, "reconstruction_rss", slice(None), np.nan)
    with pytest.raises(DataError, match=r"file0\.h5:0: expected finite values"):
        evaluate(config_of(tmp_path / "knee", **MRI), tmp_path / "out", "cpu")
    assert not (tmp_path / "out").exists()


def test_skipping_bad_slices_is_written_down(knee, tmp_path):
    overwrite(knee / "singlecoil_val" / "file1.h5", "reconstruction_rss", 1, np.nan)
    evaluate(config_of(knee, **MRI, **{"data.skip_bad": True}), tmp_path / "out", "cpu")
    assert len(read_rows(tmp_path / "out")) == 9
    (reason,) = json.loads((tmp_path / "out" / "info.json").read_text())["skipped"]
    assert reason.startswith("file1.h5:1: ")


@pytest.mark.parametrize("largest", [2, 1])
def test_out_of_memory_takes_smaller_batches(knee, tmp_path, monkeypatch, largest):
    sizes = []

    def fails(keys):
        sizes.append(len(keys))
        return torch.OutOfMemoryError("CUDA out of memory") if len(keys) > largest else None

    config = config_of(knee, batch_size=5, **MRI)
    evaluate(config, tmp_path / "whole", "cpu")
    monkeypatch.setattr(evaluation, "create_reconstructor", failing_method(fails))
    evaluate(config, tmp_path / "little", "cpu")
    assert sizes == [5, *[2] * 5] if largest == 2 else sizes == [5, 2, *[1] * 10]
    assert content(tmp_path / "little") == content(tmp_path / "whole")


def test_out_of_memory_with_a_single_slice_is_its_failure(knee, tmp_path, monkeypatch):
    def fails(keys):
        if "file0.h5:3" in keys:
            torch.empty(2**60)  # PyTorch's own error
        return None

    monkeypatch.setattr(evaluation, "create_reconstructor", failing_method(fails))
    with pytest.raises(FailedSlicesError):
        evaluate(config_of(knee, **MRI), tmp_path, "cpu")
    ((key, error),) = read_failures(tmp_path).items()
    assert key == "file0.h5:3"
    assert error.startswith("out of memory with one slice at a time: ")
    assert len(read_rows(tmp_path)) == 9


# ---- what a folder goes on with


def test_another_prior_is_refused_and_the_same_one_elsewhere_is_not(knee, prior, tmp_path):
    config = config_of(knee, prior=str(prior), limit=1)
    evaluate(config, tmp_path / "out", "cpu")
    info = json.loads((tmp_path / "out" / "info.json").read_text())
    assert info["prior"]["sha256"] == hashlib.sha256(prior.read_bytes()).hexdigest()
    before = (tmp_path / "out" / "config.json").read_text()

    other = write_prior(tmp_path / "run" / "checkpoints" / "step_00000001.pt", seed=1)
    config.prior, config.limit = str(tmp_path / "run"), 2
    with pytest.raises(ConfigError, match=r"another prior(.|\n)*prior: .*tiny.pt \(sha256 .* now"):
        evaluate(config, tmp_path / "out", "cpu")
    assert (tmp_path / "out" / "config.json").read_text() == before

    other.write_bytes(prior.read_bytes())
    evaluate(config, tmp_path / "out", "cpu")
    assert len(read_rows(tmp_path / "out")) == 2


def test_other_slices_are_refused_and_fewer_take_nothing_away(knee, tmp_path):
    config = config_of(knee, limit=3, **MRI)
    evaluate(config, tmp_path / "out", "cpu")
    config.limit = 7
    evaluate(config, tmp_path / "out", "cpu")
    config.limit = 2
    evaluate(config, tmp_path / "out", "cpu")
    assert len(read_rows(tmp_path / "out")) == len(read_images(tmp_path / "out")) == 7
    (knee / "singlecoil_val" / "file0.h5").rename(knee / "singlecoil_val" / "file3.h5")
    split_list(knee)
    with pytest.raises(ConfigError, match=r"number 0 was file0\.h5:0, now it is file1\.h5:0"):
        evaluate(config, tmp_path / "out", "cpu")


def test_without_its_images_a_slice_is_done_again(knee, tmp_path):
    config = config_of(knee, **MRI)
    evaluate(config, tmp_path / "out", "cpu")
    expected = content(tmp_path / "out")
    (tmp_path / "out" / "recon.h5").unlink()
    evaluate(config, tmp_path / "out", "cpu")
    assert content(tmp_path / "out") == expected


def test_versions_of_earlier_runs_are_kept(knee, tmp_path, monkeypatch):
    config = config_of(knee, limit=1, **MRI)
    evaluate(config, tmp_path, "cpu")
    now = evaluation.describe.__globals__["environment"]("cpu")
    monkeypatch.setitem(
        evaluation.describe.__globals__, "environment", lambda device: now | {"torch": "9.9"}
    )
    for _ in range(2):
        evaluate(config, tmp_path, "cpu")
    info = json.loads((tmp_path / "info.json").read_text())
    assert info["torch"] == "9.9"
    assert info["earlier"] == [now]


# ---- what is written


def test_hashes_say_whether_two_methods_saw_the_same_data(knee, prior, tmp_path):
    mri = {"operator.mask_per_slice": False, "seed": 7}
    given = {
        "a": mri | {"sampler.name": "zero_filled"},
        "b": mri | {"prior": str(prior), "batch_size": 3},
        "c": mri | {"sampler.name": "zero_filled", "operator.acceleration": 2.0},
    }
    rows = {}
    for name, fields in given.items():
        evaluate(config_of(knee, **fields), tmp_path / name, "cpu")
        rows[name] = read_rows(tmp_path / name)
    for a, b, c in zip(*rows.values(), strict=True):
        for column in ("mask_hash", "measurement_hash"):
            assert a[column] == b[column] != c[column]
    assert len({row["measurement_hash"] for row in rows["a"]}) == 10
    mask = make_mask("gaussian1d", (24, 20), seed=7, acceleration=4, center_fraction=0.04)
    digest = hashlib.blake2b(mask.numpy().tobytes(), digest_size=8).hexdigest()
    assert {row["mask_hash"] for row in rows["a"]} == {digest}
    assert {float(row["acceleration"]) for row in rows["c"]} == {2.0}


def test_residual_and_measurement_by_hand(knee, tmp_path):
    config = config_of(knee, limit=1, **MRI | {"operator.mask_per_slice": False})
    evaluate(config, tmp_path, "cpu")
    (row,), (image,) = read_rows(tmp_path), read_images(tmp_path).values()
    target = create_dataset(config.data, "test")[0].image[0].numpy()
    mask = make_mask("gaussian1d", (24, 20), seed=42, acceleration=4, center_fraction=0.04).numpy()

    def measure(x):
        kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x), norm="ortho"))
        return kspace[mask]

    y = measure(target)
    zero_filled = np.zeros((24, 20), complex)
    zero_filled[mask] = y
    zero_filled = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(zero_filled), norm="ortho")).real
    np.testing.assert_allclose(image, zero_filled, atol=1e-6)
    residual = np.linalg.norm(measure(zero_filled) - y) / np.linalg.norm(y)
    assert float(row["residual"]) == pytest.approx(residual, rel=1e-4)


def test_several_posterior_samples_keep_their_spread(knee, prior, tmp_path, monkeypatch):
    config = config_of(knee, prior=str(prior), limit=2)
    evaluate(config, tmp_path / "one", "cpu")
    config.sampler.num_samples = 2
    evaluate(config, tmp_path / "two", "cpu")
    first, mean = read_images(tmp_path / "one"), read_images(tmp_path / "two")
    std, low, high = (
        read_images(tmp_path / "two", name) for name in ("std", "quantile_05", "quantile_95")
    )
    for key, image in first.items():
        # the other sample is 2 mean - first; of two numbers the deviation is |a - b| / sqrt 2
        spread = np.abs(2 * mean[key] - 2 * image) / np.sqrt(2)
        assert spread.max() > 0.01
        np.testing.assert_allclose(std[key], spread, atol=1e-5)
        # of two samples 6.314 sqrt(3/2) deviations on either side of their mean
        np.testing.assert_allclose(high[key] - mean[key], 7.733 * spread, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(mean[key] - low[key], 7.733 * spread, rtol=1e-3, atol=1e-4)
    config.sampler.num_samples, config.sampler.mean_error = 9, 0.9
    evaluate(config, tmp_path / "enough", "cpu")
    assert "mean of 2) |" in make_table([tmp_path / "enough"], "markdown")
    config.sampler.num_samples, config.sampler.mean_error = 2, None
    monkeypatch.setitem(SCALES, (str(prior), "predictor_corrector", 3, "MR"), 3.0)
    config.sampler.calibrated = True
    evaluate(config, tmp_path / "scaled", "cpu")
    for key, values in read_images(tmp_path / "scaled", "std").items():
        np.testing.assert_allclose(values, 3 * std[key], rtol=1e-5)
    assert "mean of 2, spread x 3)" in make_table([tmp_path / "scaled"], "markdown")
    assert "mean of 2) |" in make_table([tmp_path / "two"], "markdown")
    assert "mean" not in make_table([tmp_path / "one"], "markdown").splitlines()[-1]
    config.sampler.num_steps = 7
    with pytest.raises(ValueError, match="no scale was fitted"):
        evaluate(config, tmp_path / "other", "cpu")
    with h5py.File(tmp_path / "one" / "recon.h5") as file:
        assert "std" not in file
    assert {row["nfe"] for row in read_rows(tmp_path / "two")} == {"12"}


@pytest.mark.parametrize(("normalize", "slices"), [("slice", ""), ("volume", "range:1:2")])
def test_volumes_csv_by_hand(knee, tmp_path, normalize, slices):
    config = config_of(knee, **MRI, **{"data.normalize": normalize, "data.slices": slices})
    run_all(config, tmp_path, 2)
    images = read_images(tmp_path)
    dataset = create_dataset(config.data, "test")
    with (tmp_path / "volumes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["volume"] for row in rows] == ["file0.h5", "file1.h5", "file2.h5"]
    assert [row["slices"] for row in rows] == (["1", "1", "1"] if slices else ["5", "2", "3"])
    peaks = []
    for row in rows:
        pairs = [
            (dataset[i].image[0].double().numpy(), images[key].astype(float))
            for i, key in enumerate(dataset.keys)
            if key.startswith(row["volume"])
        ]
        target, image = (np.stack(x) for x in zip(*pairs, strict=True))
        error = np.sum((target - image) ** 2)
        peak = target.max()
        peaks.append(peak)
        psnr = 10 * np.log10(peak**2 / (error / target.size))
        assert float(row["psnr"]) == pytest.approx(psnr, abs=1e-9)
        assert float(row["nmse"]) == pytest.approx(error / np.sum(target**2), rel=1e-9)
        ssim = np.mean([ssim_by_windows(*pair, peak) for pair in pairs])
        assert float(row["ssim"]) == pytest.approx(ssim, abs=1e-9)
    # scaled over the volume, the brightest pixel may lie in a slice that was not evaluated
    assert min(peaks) < 0.95 if slices else set(peaks) == {1.0}


def test_a_prior_of_complex_images_is_refused_for_sinograms(knee, prior, tmp_path, monkeypatch):
    def score(x, sigma):
        return -x

    score.joint = True
    monkeypatch.setattr(methods, "load_prior", lambda *_, **__: (score, VESDE(0.01, 5.0)))
    config = config_of(knee, prior=str(prior), **{**CT, "sampler.name": "pnp"})
    with pytest.raises(ValueError, match=r"^expected a prior of real images for ct"):
        evaluate(config, tmp_path / "out", "cpu")
    assert not (tmp_path / "out").exists()


def test_baselines_of_a_calibrated_grid_have_no_factor(knee, tmp_path):
    config = config_of(knee, **MRI, **{"sampler.calibrated": True})
    evaluate(config, tmp_path / "out", "cpu")
    assert "spread_scale" not in json.loads((tmp_path / "out" / "info.json").read_text())


def test_volumes_of_neighbours_are_looked_at_from_the_side(tmp_path):
    path = tmp_path / "knee" / "singlecoil_val" / "file0.h5"
    write_fastmri(path, slices=9, seed=0, kspace=False)
    config = config_of(tmp_path / "knee", **MRI, **{"data.normalize": "volume"})
    run_all(config, tmp_path / "out", 2)
    images, dataset = read_images(tmp_path / "out"), create_dataset(config.data, "test")
    target = np.stack([dataset[i].image[0].double().numpy() for i in range(9)])
    image = np.stack([images[key].astype(float) for key in dataset.keys])
    (row,) = csv.DictReader((tmp_path / "out" / "volumes.csv").open())
    for name, value in across_metrics(target, image).items():
        assert float(row[name]) == pytest.approx(value, rel=1e-9)
    config.data.cache = "memory"
    run_all(config, tmp_path / "cached", 2)
    assert list(csv.DictReader((tmp_path / "cached" / "volumes.csv").open())) == [row]
    config.data.slices = "range:0:7"
    run_all(config, tmp_path / "few", 2)
    (row,) = csv.DictReader((tmp_path / "few" / "volumes.csv").open())
    assert row["psnr_columns"] == ""


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_files_of_slices_of_several_patients_are_no_volumes(tmp_path, cache):
    write_lodopab(tmp_path / "l" / "ground_truth_test_000.hdf5", slices=9, size=16)
    of_files = {"data.name": "lodopab", "data.split_list": "", "data.cache": cache}
    run_all(config_of(tmp_path / "l", **CT, **of_files), tmp_path / "out", 1)
    (row,) = csv.DictReader((tmp_path / "out" / "volumes.csv").open())
    assert row["slices"] == "9"
    assert float(row["psnr"]) > 0
    assert row["psnr_rows"] == row["psnr_columns"] == row["step_error"] == ""


def ssim_by_windows(a, b, peak):
    """Wang et al. 2004, eq. 13, over all 7 x 7 windows, with sample (co)variances."""
    a, b = (np.lib.stride_tricks.sliding_window_view(x, (7, 7)).reshape(-1, 49) for x in (a, b))
    ma, mb = a.mean(1), b.mean(1)
    covariance = ((a - ma[:, None]) * (b - mb[:, None])).sum(1) / 48
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    luminance = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
    return np.mean(luminance * (2 * covariance + c2) / (a.var(1, ddof=1) + b.var(1, ddof=1) + c2))


def test_none_is_the_operators_own_range_of_angles(tmp_path):
    fields = CT | {"data.name": "samples", "data.subset": "head_ct", "data.image_size": 24}
    for name, end in (("ct", 180.0), ("fan_ct", 360.0)):
        config = load_config(str(ROOT / "configs" / "evaluate.py"))
        config.update_from_flattened_dict(fields | {"limit": 1, "operator.name": name})
        evaluate(config, tmp_path / name, "cpu")
        stored = json.loads((tmp_path / name / "config.json").read_text())
        assert stored["operator"]["end_angle"] == end
        (row,) = read_rows(tmp_path / name)
        angles = torch.from_numpy(few_view_angles(7, end))
        assert row["mask_hash"] == fingerprint(angles)
        assert describe_measurement(stored, {}) == (f"{name} 7 views of {end:g}°", "-")
        assert config.operator.end_angle is None
        config.operator.end_angle = end  # spelt out: the folder is the same
        evaluate(config, tmp_path / name, "cpu")
    config.operator.keywords = "detector='flat'"
    with pytest.raises(ValueError, match=r"operator\.keywords: None there"):
        evaluate(config, tmp_path / "fan_ct", "cpu")


def test_folders_of_earlier_versions_have_180_degrees_with_any_operator(tmp_path):
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    fields = MRI | {"data.image_size": 24, "limit": 1, "operator.mask_per_slice": False}
    config.update_from_flattened_dict(fields)
    evaluate(config, tmp_path, "cpu")
    assert json.loads((tmp_path / "config.json").read_text())["operator"]["end_angle"] == 180.0
