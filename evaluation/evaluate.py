"""Reconstruct the slices of a data set from simulated measurements and compute metrics.

    python -m evaluation.evaluate --config=configs/evaluate.py --out=results/NAME \
        --config.prior=runs/NAME --config.sampler.num_steps=500
    torchrun --nproc-per-node=4 -m evaluation.evaluate --out=results/NAME ...   one process per GPU
    python -m evaluation.evaluate --shard=slurm --out=results/NAME ...          in a SLURM array
    python -m evaluation.evaluate --shard=0/2 --out=results/NAME ...            one half

Running the same command again continues an interrupted run. `evaluation.results.folder` describes
the folder, `evaluation.run.shards` how processes share the work. Seeds are derived from
(config.seed, slice key), so that batch size, order and sharding change at most the last digits, and
resuming changes nothing.

A slice that cannot be read, measured or reconstructed is recorded with its error, and the others go
on; the same command tries it again. Exit codes: 0, all slices are finished; 1, an error that
concerns all slices (nothing was computed, or the first slices all failed with the same error);
3, finished except for the slices in failures.csv (torchrun turns this into 1).
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from absl import flags
from ml_collections import ConfigDict
from torch import distributed
from torch.utils.data import Dataset

import configs
from configs.progress import SliceProgress
from configs.ranges import check_numbers
from datasets import DataError, Sample, collate, create_dataset
from datasets.files import holding, locked
from datasets.identity import (
    check_outside,
    describe_files,
    read_files,
    refuse_changed,
    write_files,
)
from datasets.parallel import fetch
from datasets.prepare import Selection, prepare_dataset
from evaluation.figures import panel
from evaluation.metrics import all_metrics
from evaluation.results.files import check_sums, write_sums
from evaluation.results.folder import WRITE_LOCK, Results, read_failures, read_rows
from evaluation.results.volumes import write_volumes
from evaluation.run.batching import check_alike, choose_size, in_batches, unfinished
from evaluation.run.choice import over_people
from evaluation.run.idle import idle_fields
from evaluation.run.keywords import enough_samples, expected_calls
from evaluation.run.measurements import (
    check_measurement,
    measure,
    pose,
    targets,
    with_end_angle,
)
from evaluation.run.methods import (
    Reconstructor,
    create_reconstructor,
    prior_file,
    prior_keyword_files,
    spread_scale,
    weights_file,
)
from evaluation.run.protocols import protocol_of
from evaluation.run.provenance import (
    check_prior,
    describe,
    describe_prior,
)
from evaluation.run.shards import WHOLE, Shard, find_shard
from evaluation.run.slices import Outcome, describe_error, measurement_hash, run_slices
from models import checkpoint
from models.checkpoint import open_prior
from operators import LinearOperator
from operators.create import operator_class

log = logging.getLogger(__name__)

# the path of the prior may change, but not its weights, whose hash is compared
MAY_CHANGE = (
    "prior",
    "prior_format",
    "batch_size",
    "limit",
    "panels",
    "data.root",
    "data.cache",
    "data.cache_dir",
)
SOME_FAILED = 3  # exit code
MOST_NAMED = 20  # largest number of failed slices listed in a message
LONGEST_WAIT = timedelta(days=30)  # for which a finished process waits for the others


class FailedSlicesError(ValueError):
    """Some slices failed, after all slices were tried and the results stored.

    Attributes:
        failures: error messages by key of the slice.
    """

    def __init__(self, folder: Path, failures: dict[str, str]):
        self.failures = failures
        lines = [named(key, text) for key, text in failures.items()]
        if len(lines) > MOST_NAMED:
            lines[MOST_NAMED:] = [f"and {len(lines) - MOST_NAMED} more in failures.csv"]
        super().__init__(
            f"{len(failures)} slices failed, the others are in {folder}; the same command tries "
            "them again:\n  " + "\n  ".join(lines)
        )


def evaluate(config: ConfigDict, out: Path, device: str, shard: Shard = WHOLE) -> None:
    """Reconstruct and evaluate the slices of a shard that are missing in `out`.

    Args:
        config: evaluation config, see configs/evaluate.py.
        out: folder of the results, shared by all shards.
        device: device of the networks.
        shard: this process's part of the slices.

    Raises:
        ConfigError, DataError, CheckpointError, ValueError, FileNotFoundError: before any
            reconstruction, if config, data, prior or folder are invalid; also a ValueError if the
            first slices all fail with the same error.
        FailedSlicesError: at the end, if slices of this shard failed.
    """
    protocol_of(config)  # checks its name
    check_numbers(config)
    check_measurement(config)
    config = with_end_angle(config)
    size = choose_size(config.batch_size, device)
    check_outside(out, config.data, "--out")
    file = prior_file(config)
    prior = describe_prior(weights_file(config), prior_keyword_files(config))
    check_settings(config, out, prior)
    with_file = config.copy_and_resolve_references()
    with_file.prior = str(file or "")  # this very file, even if training writes a newer one
    progress = SliceProgress()
    opened = open_prior(file, config.prior_format) if file else None
    method = create_reconstructor(with_file, device, progress.call, opened)
    if opened and shard.rank == 0:
        print(f"prior: {checkpoint.describe(opened)}", file=sys.stderr)
    del opened  # frees a second copy of the weights
    dataset = open_slices(config)
    keys = list(dataset.keys)[: config.limit or None]
    operator = first_operator(config, dataset, len(keys))

    with holding(out, shared=True) as hold:
        with locked(out / WRITE_LOCK):  # no other process may start between check and writing
            check_settings(config, out, prior)
            check_data(config, out, dataset)
            results = Results(out, configs.to_json(config), keys=keys, alone=shard == WHOLE)
            skipped = list(getattr(dataset, "skipped", ()))
            info = describe(out, operator=operator, prior=prior, skipped=skipped, device=device)
            people = number_people(getattr(dataset, "people", {}), keys)
            scale = spread_scale(config)
            info |= ({"people": people} if people else {}) | (
                {"spread_scale": scale} if scale != 1 else {}
            )
            results.write_info(info)
        if info["earlier"]:
            log.warning("%s has slices of other versions: last digits may differ (info.json)", out)
        own = shard.part(range(len(keys)))
        try:
            failures = reconstruct_missing(
                config, method, dataset, keys, own, size, results, device, progress
            )
        finally:
            results.publish()
        results.gather()
        if (out / "recon.h5").is_file() and not (out / "volumes.csv").is_file():
            write_volumes(out, dataset, keys, target=lambda sample: target_of(config, sample))
        if hold.is_last():
            write_sums(out)
    if failures:
        raise FailedSlicesError(out, failures)


def check_settings(config: ConfigDict, out: Path, prior: dict | None) -> None:
    """Raise a ConfigError if `out` is damaged, or was made with other settings or another prior."""
    check_sums(out)
    configs.check_same(out / "config.json", config, ignore=MAY_CHANGE)
    check_prior(out, prior)


def check_data(config: ConfigDict, out: Path, dataset: Dataset) -> None:
    """Raise a DataError if the data of finished slices of `out` have changed; write ``files.csv``.

    Slices are compared only if files have changed, as bad files may have been repaired meanwhile.
    """
    path = out / "files.csv"
    old, now = read_files(path), describe_files(dataset, config.data)
    if any(old.get(name, what) != what for name, what in now.items()):
        done = {row["key"]: row["measurement_hash"] for row in read_rows(out)}
        refuse_changed(
            path,
            [
                key
                for i, key in enumerate(dataset.keys)
                if key in done and hash_of(config, dataset, i) != done[key]
            ],
        )
    if old != old | now:
        write_files(path, old | now)


def hash_of(config: ConfigDict, dataset: Dataset, i: int) -> str:
    """The `measurement_hash` of the i-th item; "" if it cannot be read."""
    try:
        return measurement_hash(config, dataset[i])
    except DataError:
        return ""


def number_people(people: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    """Anonymous names "person 1", ... by slice key, numbered in the order of the slices."""
    numbers: dict[str, int] = {}
    known = {key: people[key] for key in keys if key in people}
    return {
        key: f"person {numbers.setdefault(person, len(numbers) + 1)}"
        for key, person in known.items()
    }


def open_slices(config: ConfigDict) -> Dataset:
    """Data set of the config.

    Slices are read one by one, so that a bad one fails alone. To skip bad slices or to fill a
    cache, all are read beforehand.
    """
    order = over_people if config.get("spread") else None
    if config.data.skip_bad or config.data.cache != "none":
        return prepare_dataset(config.data, config.data.split, limit=config.limit, order=order)
    dataset = create_dataset(config.data, config.data.split)
    if order is None:
        return dataset
    ordered = Selection(dataset, order(dataset))
    ordered.people = getattr(dataset, "people", {})
    ordered.is_stack = getattr(dataset, "is_stack", False)
    return ordered


def first_operator(config: ConfigDict, dataset: Dataset, count: int) -> LinearOperator:
    """Operator of the first readable slice, measured as a test before anything is written."""
    error = DataError("expected at least one slice, got none; raise limit")
    for i in range(count):
        try:
            sample = dataset[i]
        except DataError as unreadable:
            error = unreadable if i == 0 else error
            continue
        try:
            return pose(config, measure(config, collate([sample]))).operator
        except TypeError as mismatch:  # complex images, but an operator of real ones
            raise ValueError(f"{mismatch}; choose data.mode or the operator accordingly") from None
    raise error


def target_of(config: ConfigDict, sample: Sample) -> np.ndarray:
    """Target ``(H, W)`` that the reconstruction of a slice is compared with."""
    return targets(config, collate([sample]))[0, 0].numpy()


def reconstruct_missing(
    config: ConfigDict,
    method: Reconstructor,
    dataset: Dataset,
    keys: Sequence[str],
    own: Sequence[int],
    size: int,
    results: Results,
    device: str,
    progress: SliceProgress,
) -> dict[str, str]:
    """Reconstruct the missing items among `own`; returns errors by key.

    Batches for a network are those of an uninterrupted run. Slices that failed before are tried
    again one by one, as they would make their whole batches fail.
    """
    failed = read_failures(results.folder)
    together = size if prior_file(config) else 1  # baselines reconstruct slices one by one
    todo = unfinished(own, together, lambda i: keys[i] in results.finished or keys[i] in failed)
    given = (config, method, dataset, keys)
    failures = reconstruct_all(*given, todo, size, results, device, progress)
    again = [i for i in own if keys[i] in failed and i not in set(todo)]
    return failures | reconstruct_all(*given, again, 1, results, device, progress)


def reconstruct_all(
    config: ConfigDict,
    method: Reconstructor,
    dataset: Dataset,
    keys: Sequence[str],
    todo: Sequence[int],
    size: int,
    results: Results,
    device: str,
    progress: SliceProgress,
) -> dict[str, str]:
    """Reconstruct and store the items `todo`, at most `size` at a time; returns errors by key.

    Raises:
        ValueError: the first slices all fail with the same error.
    """
    with_panel = set(keys if config.panels < 0 else keys[: config.panels])
    failures: dict[str, str] = {}

    def work(items: list[int]) -> list[Outcome]:
        progress.begin(len(items))
        return run_slices(config, method, fetch(dataset, items), with_panel, device)

    s = config.sampler
    given = {name: value for name, value in s.items() if value is not None}
    num_samples = enough_samples(s.num_samples, s.mean_error)
    calls = expected_calls(s.name, s.num_steps, num_samples, given)
    with progress.start(len(todo), calls):
        for items, outcome in in_batches(todo, size, work):
            if isinstance(outcome, Exception):
                outcome = [Outcome(keys[items[0]], error=describe_error(outcome))]
            for one in outcome:
                if one.error and one.key in results.finished:  # already reconstructed before
                    continue
                if one.error:
                    log.warning("failed: %s", named(one.key, one.error))
                    results.fail(one.key, one.error)
                    failures[one.key] = one.error
                else:
                    store(config, one, results)
            if not results.finished:
                check_alike(failures.values())
            progress.finish()
    return failures


def store(config: ConfigDict, one: Outcome, results: Results) -> None:
    """Write a finished slice, and its panel if it has one."""
    if one.direct is not None:
        before = all_metrics(one.target, one.direct, study=protocol_of(config).nmse)
        name = operator_class(config.operator.name).direct_name
        panel(
            results.panel(one.key),
            target=one.target,
            baseline=one.direct,
            image=one.image,
            captions=("target", caption(name, before), caption("reconstruction", one.row)),
            title=f"{one.key}, {config.sampler.name}",
        )
    results.add(one.key, one.image, one.row, one.spread)


def caption(name: str, metrics: dict[str, float]) -> str:
    """Caption of an image: name, PSNR and SSIM."""
    return f"{name}: {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.3f}"


def named(key: str, text: str) -> str:
    """An error message with the key of its slice in front, unless it already starts with it."""
    return text if text.startswith(key) else f"{key}: {text}"


def wait_for_others() -> None:
    """Wait for all processes of torchrun, which ends all as soon as one exits with an error."""
    if distributed.is_torchelastic_launched():
        distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
        distributed.barrier()
        distributed.destroy_process_group()


def choose_device() -> str:
    """Device of this process: the GPU numbered by torchrun, or the CPU if there is no GPU."""
    if not torch.cuda.is_available():
        return "cpu"
    number = int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count()
    torch.cuda.set_device(number)
    return f"cuda:{number}"


def main(_) -> None:
    """Run the command line."""
    out, code = Path(flags.FLAGS.out), 0
    with configs.clear_errors():
        shard = find_shard(flags.FLAGS.shard, os.environ)
        if shard != WHOLE:
            print(f"shard {shard.rank} of {shard.world}")
        configs.note_idle(idle_fields(flags.FLAGS.config))
        try:
            evaluate(flags.FLAGS.config, out, choose_device(), shard)
        except FailedSlicesError as error:
            print(f"error: {error}", file=sys.stderr)
            code = SOME_FAILED
    wait_for_others()
    print(f"results: {out}")
    sys.exit(code)


if __name__ == "__main__":
    flags.DEFINE_string("shard", "auto", "auto, slurm or RANK/WORLD: see evaluation/run/shards.py")
    configs.define_flags("configs/evaluate.py", out="folder of the results")
    configs.run(main)
