"""Reconstruction of a user's file into a folder of results, slice by slice, resumable."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

import configs
from configs.progress import SliceProgress
from configs.ranges import check_numbers
from configs.reconstruct import default_prior
from datasets.files import FolderInUseError, holding, remove_abandoned, write_atomically
from evaluation.own import open_input
from evaluation.own.base import Input
from evaluation.own.engine import (
    Sampling,
    Solution,
    calibrate,
    check_prior,
    describe,
    describe_outputs,
    noise_origin,
    solve_slices,
)
from evaluation.own.last_level import (
    by_held_out,
    check_way,
    describe_last_level,
    find_last_level,
    with_last_level,
)
from evaluation.own.noise_factor import (
    check_noise_way,
    describe_noise_factor,
    find_noise_factor,
    noise_by_held_out,
)
from evaluation.own.output import write_results
from evaluation.own.parts import load_part, part_path, save_parts
from evaluation.own.report import add_report
from evaluation.own.settings import MAY_CHANGE, describe_settings, read_sampling
from evaluation.own.slabs import Slab, slabs, solve_slab
from evaluation.own.validation import check_part, read_choices, table, validate
from evaluation.own.volume import (
    NONE,
    batches,
    can_be_volume,
    check_volume,
    describe_volume,
    look_at_volume,
    read_weight,
)
from evaluation.results.files import read_json
from evaluation.run.batching import check_alike, choose_size, in_batches, unfinished
from evaluation.run.keywords import expected_calls
from evaluation.run.methods import PRECISIONS
from evaluation.run.posterior_samples import OnCall
from evaluation.run.shards import WHOLE, Shard
from evaluation.run.slices import describe_error
from models import checkpoint
from models.checkpoint import load_prior, open_prior, resolve_prior
from sde import Prior

ABANDONED = 86400  # seconds after which the temporary file of another process is no longer in use
ALWAYS = ("reconstruction", "direct", "truth")  # outputs that need no words before they are there


def reconstruct_file(
    config: ConfigDict, source: Path, out: Path, device: str, shard: Shard = WHOLE
) -> dict | None:
    """Reconstruct the slices that are missing in a folder, then write all of its files.

    Args:
        config: config with the fields of configs/reconstruct.py.
        source: the input, see `evaluation.own.open_input`.
        out: folder of the results, made if missing.
        device: device of the network.
        shard: this process's part of the batches or slabs; the last of several processes writes
            the files.

    Returns:
        The summary, as in ``summary.json``; None if slices of other processes are missing.

    Raises:
        ConfigError, DataError, CheckpointError, ValueError, FileNotFoundError: before any
            reconstruction, if something does not fit; also a ValueError at the end if some slices
            failed, while the others are kept.
    """
    _check_folders(source, out)
    check_numbers(config)
    sampling = read_sampling(config, device)
    choices = read_choices(config.choose, sampling)
    check_part(config.validate, choices, sampling)
    check_way(config.last_level)
    check_noise_way(config.noise_level)
    weight = read_weight(config.volume.weight)
    if config.prior_format and not config.prior:
        raise ValueError(f"expected the prior's file with prior_format={config.prior_format!r}")
    if config.prior:  # so that a wrong name is found before the input is read
        resolve_prior(config.prior, config.prior_format)
    opened = open_input(source, config)
    sampling = read_sampling(config, device, opened)
    check_volume(weight, opened, sampling)
    sampling = calibrate(sampling, config.prior or default_prior(opened.is_complex), opened)
    settings = describe_settings(config, source, opened, sampling)
    held_out = by_held_out(config.last_level, opened, sampling, choices)
    settings.last_level = "held_out" if held_out else "noise"
    check_the_noise = noise_by_held_out(config.noise_level, opened, sampling)
    settings.noise_level = "held_out" if check_the_noise else "estimated"
    opened_prior = open_prior(settings.prior, settings.prior_format)
    prior = load_prior(
        opened_prior, device, autocast=PRECISIONS[config.precision], compiled=config.compile
    )
    check_prior(prior, opened, sampling, choices)
    configs.check_same(out / "config.json", settings, ignore=MAY_CHANGE)
    for text in _announce(opened, sampling):
        print(text)
    if weight == NONE and can_be_volume(opened, sampling):
        print("slices are reconstructed one by one; of neighbours, volume.weight=auto is better")
    print(f"prior: {checkpoint.describe(opened_prior)}")
    del opened_prior  # frees a second copy of the weights
    alone = shard == WHOLE
    run = Run(config, out, device, opened, settings, sampling, prior, shard)
    with holding(out, shared=not alone):
        configs.check_same(out / "config.json", settings, ignore=MAY_CHANGE)
        finish = _reconstruct_missing(run)
        if alone or finish is None:
            return finish and finish()
    try:
        with holding(out):
            return finish()
    except FolderInUseError:
        return None  # another process has finished, too, and writes the files


class Run(NamedTuple):
    """A reconstruction of a file with its input opened and checked."""

    config: ConfigDict
    out: Path
    device: str
    opened: Input
    settings: ConfigDict
    sampling: Sampling
    prior: Prior
    shard: Shard

    @property
    def parts(self) -> Path:
        """Folder of the finished slices."""
        return self.out / "parts"

    @property
    def size(self) -> int:
        """Largest number of slices in a call of the network."""
        return choose_size(self.config.batch_size, self.device)


def _reconstruct_missing(run: Run) -> Callable[[], dict] | None:
    """Reconstruct this process's slices; what writes the files, or None if others are missing."""
    config, out, opened, prior = run.config, run.out, run.opened, run.prior
    summary = out / "summary.json"
    if summary.is_file():
        print(f"{out} is complete")
        shutil.rmtree(run.parts, ignore_errors=True)  # of a run that was killed at the very end
        return lambda: _with_report(run, read_json(summary))

    run.parts.mkdir(parents=True, exist_ok=True)
    for folder in (out, run.parts):
        remove_abandoned(folder, older=0 if run.shard == WHOLE else ABANDONED)
    write_atomically(out / "config.json", configs.to_json(run.settings))
    sampling, found = _choose_from_data(run)
    run = run._replace(sampling=sampling)
    weight, together = read_weight(config.volume.weight), None
    if weight != NONE:
        together = _found_once(
            out / "volume.json",
            lambda: look_at_volume(
                opened,
                weight,
                sampling,
                prior,
                seed=config.seed,
                device=run.device,
                size=run.size,
            ),
            describe_volume,
        )
    by_slabs = together is not None and together["weight"] != NONE
    failures = _solve_slabs(run, together) if by_slabs else _solve_slices(run)
    if failures:
        raise ValueError(
            f"{len(failures)} slices failed, the others are kept in {run.parts}; the same command "
            "tries them again:\n  "
            + "\n  ".join(f"{key}: {reason}" for key, reason in failures.items())
        )
    there = sum(part_path(run.parts, item).is_file() for item in range(len(opened.keys)))
    if run.shard != WHOLE and there < len(opened.keys):
        print(
            f"shard {run.shard.rank} of {run.shard.world} is done: {there} of {len(opened.keys)} "
            "slices are there; the process that finishes last writes the results"
        )
        return None
    return lambda: _with_report(run, _write(run, found, together))


def _with_report(run: Run, summary: dict) -> dict:
    """The summary of a folder that is complete, after its report was written if it is wanted."""
    if run.config.report:
        add_report(run.out)
    return summary


def _write(run: Run, found: tuple, together: dict | None) -> dict:
    """Write all files of the results from the parts of all slices."""
    summary = run.out / "summary.json"
    if summary.is_file():
        return read_json(summary)
    slices = [load_part(part_path(run.parts, item)) for item in range(len(run.opened.keys))]
    if None in slices:
        raise ValueError(f"{run.parts}: slices have gone while others were done; run this again")
    result = write_results(
        run.out, run.opened, slices, run.settings, run.sampling, *found, together
    )
    shutil.rmtree(run.parts)
    return result


def _choose_from_data(run: Run) -> tuple[Sampling, tuple]:
    """The sampler as held-out data tell, and what was found, in the order of `write_results`."""
    config, out, opened, sampling, prior = (
        run.config,
        run.out,
        run.opened,
        run.sampling,
        run.prior,
    )
    validation = factor = found = None
    how = {"seed": config.seed, "device": run.device}
    if run.settings.noise_level == "held_out":
        factor = _found_once(
            out / "noise_level.json",
            lambda: find_noise_factor(opened, prior, way=config.noise_level, **how),
            describe_noise_factor,
        )
        sampling = sampling._replace(noise_factor=factor["factor"])
    if run.settings.last_level == "held_out":
        found = _found_once(
            out / "last_level.json",
            lambda: find_last_level(opened, sampling, prior, **how),
            describe_last_level,
        )
        sampling = with_last_level(sampling, found)
    if config.validate:
        choices = read_choices(config.choose, sampling)
        validation = _found_once(
            out / "validation.json",
            lambda: validate(opened, config.validate, sampling, prior, **how, choices=choices),
            lambda found: "\n".join(table(found)),
        )
        sampling = sampling._replace(options=sampling.options | validation["chosen"])
    return sampling, (validation, found, factor)


def _solve_slices(run: Run) -> dict[str, str]:
    """Reconstruct this process's slices that are missing; error messages by key."""
    size = run.size
    mine = run.shard.part(batches(range(len(run.opened.keys)), size))
    items = [item for batch in mine for item in batch]
    there = {item: load_part(part_path(run.parts, item)) is not None for item in items}
    todo = unfinished(items, size, there.__getitem__)

    def solve(batch: list[int], on_call: OnCall) -> tuple[list[int], Solution]:
        how = {"seed": run.config.seed, "device": run.device, "size": size, "on_call": on_call}
        return batch, solve_slices(run.opened, batch, run.sampling, run.prior, **how)

    return _solve(run, todo, size, len(todo), len(items) - len(todo), solve)


def _solve_slabs(run: Run, found: dict) -> dict[str, str]:
    """Reconstruct this process's slabs of which slices are missing; error messages by key."""
    mine = run.shard.part(slabs(len(run.opened.keys)))
    todo = [
        slab
        for slab in mine
        if any(load_part(part_path(run.parts, item)) is None for item in slab.kept)
    ]

    def solve(batch: list[Slab], on_call: OnCall) -> tuple[list[int], Solution]:
        how = {"device": run.device, "size": run.size, "on_call": on_call}
        solution = solve_slab(run.opened, batch[0], found, run.sampling, run.prior, **how)
        return list(batch[0].kept), solution

    count, all_of_them = (sum(len(slab.kept) for slab in those) for those in (todo, mine))
    return _solve(run, todo, 1, count, all_of_them - count, solve)


def _solve(
    run: Run,
    todo: list,
    size: int,
    count: int,
    done: int,
    solve: Callable[[list, OnCall], tuple[list[int], Solution]],
) -> dict[str, str]:
    """Reconstruct slices or slabs in batches, with a progress bar; error messages by key."""
    opened, sampling, failures = run.opened, run.sampling, {}
    progress = SliceProgress()

    def work(batch: list) -> dict[str, str]:
        progress.begin(sum(len(_items(part)) for part in batch))
        begin = time.perf_counter()
        items, solution = solve(batch, progress.call)
        save_parts(run.parts, items, solution, (time.perf_counter() - begin) / len(items))
        return {opened.keys[items[b]]: reason for b, reason in solution.failures.items()}

    calls = expected_calls(
        sampling.sampler, sampling.num_steps, sampling.num_samples, sampling.options
    )
    with progress.start(count, calls, done=done):
        for batch, outcome in in_batches(todo, size, work):
            if isinstance(outcome, Exception):
                reason = describe_error(outcome)
                outcome = {opened.keys[item]: reason for item in _items(batch[0])}
            failures |= outcome
            if not any(run.parts.iterdir()):
                check_alike(failures.values())
            progress.finish()
    return failures


def _items(part: int | Slab) -> Sequence[int]:
    """Numbers of the slices of a slice or slab."""
    return part.kept if isinstance(part, Slab) else [part]


def _found_once(path: Path, find: Callable[[], dict], describe: Callable[[dict], str]) -> dict:
    """What `find` returns, or the file of it that an interrupted run has left; it is printed."""
    if path.is_file():
        found = read_json(path)
    else:
        found = find()
        write_atomically(path, json.dumps(found, indent=2) + "\n")
    print(describe(found))
    return found


def _check_folders(source: Path, out: Path) -> None:
    """Raise a ValueError if `out` is a file, or the folder of the input or inside it."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: expected a folder for --out, got a file")
    folder = source.resolve() if source.is_dir() else source.resolve().parent
    inside = out.resolve().is_relative_to(folder) if source.is_dir() else out.resolve() == folder
    if inside:
        raise ValueError(f"{out}: is the input's folder, or in it; choose another --out")


def _announce(opened: Input, sampling: Sampling) -> list[str]:
    """Lines that tell what is about to be done."""
    facts = ", ".join(
        f"{name} {value}" for name, value in opened.facts.items() if name != "mask_sha256"
    )
    lines = [f"input: {len(opened.keys)} slices of {opened.kind}; {facts}"]
    lines += [f"note: {note}" for note in opened.notes]
    origin = noise_origin(opened, sampling)
    value = f", {sampling.sigma_y:g}" if origin == "given" else ""
    words = describe_outputs(sampling, opened)
    return [
        *lines,
        f"noise: {origin}{value}",
        f"result: {describe(sampling)}",
        *(f"  {name}: {text}" for name, text in words.items() if name not in ALWAYS),
    ]
