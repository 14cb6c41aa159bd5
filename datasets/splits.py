"""Division of files into splits, reproducible on every machine."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from datasets.bad_input import Skips
from datasets.sample import DataError
from operators.batch import derive_seed

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
FRACTION = 0.1  # fraction of the people (or files) for each of validation and test

# singlecoil_train (knee), multicoil_val (knee, brain), multicoil_test_full (brain),
# training_T2_1, validation_T2, training (prostate, by the archive and by its own tools)
_COILS, _SPLIT = r"(?:(singlecoil|multicoil)[_-])?", r"(train|val|test)(?:ing|id|idation)?"
FOLDER = re.compile(rf"{_COILS}{_SPLIT}(?:[_-].*)?", re.I)
# with the archive's name before it: knee_singlecoil_train, DIV2K_valid_HR
LONG_FOLDER = re.compile(rf"(?:.*?[_-])?{FOLDER.pattern}", re.I)
# sub-01/ses-2 of BIDS, patient01_study1_T1.nii.gz, subject_12
PERSON = re.compile(
    r"(?:^|/)(?:sub-([a-z0-9]+)|(?:subj|subject|patient|participant|person)[-_ ]?([0-9]+))"
    r"(?![a-z0-9])",
    re.I,
)


def check_split(split: str) -> None:
    """Raise a DataError if `split` is not one of `SPLITS`."""
    if split not in SPLITS:
        raise DataError(f"unknown split '{split}'; known: {', '.join(SPLITS)}")


def check_root(root: str | Path) -> Path:
    """Path of the data folder `root`; a DataError if it is missing or cannot be read."""
    if not str(root):
        raise DataError("no data folder given; set data.root to where the data set lies")
    path = Path(root).expanduser()
    try:
        path.is_dir()
    except OSError as error:  # a parent folder cannot be read
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); allow it (chmod +x on the folders above "
            "it), or set data.root"
        ) from error
    if not path.is_dir():
        state = "it is not a folder" if path.exists() else "it does not exist"
        raise DataError(f"expected a data folder at '{root}', but {state}; set data.root")
    return path


def files_by_name(paths: Iterable[Path], skips: Skips) -> dict[str, Path]:
    """Files by name, sorted, without hidden ones (such as macOS's ``._*``).

    Args:
        paths: the files.
        skips: record of files with a repeated name; if skipping is allowed, the first one is kept.

    Raises:
        DataError: two files have the same name, so that keys would be ambiguous.
    """
    files: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: (path.name, path)):
        if path.name.startswith("."):
            continue
        if path.name in files:
            skips.add(
                DataError(
                    f"{path}: the same name as {files[path.name]}; keys would be ambiguous, "
                    "remove or rename one"
                )
            )
        else:
            files[path.name] = path
    return files


def folder_of_split(parts: Sequence[str]) -> tuple[str, str]:
    """Kind of coils and split by the names of a file's folders, as in the public archives.

    Args:
        parts: names of the folders, outermost first.

    Returns:
        "singlecoil", "multicoil" or "", and one of `SPLITS` or "".
    """
    matches = [FOLDER.fullmatch(part) for part in parts]
    # names with a prefix come after exact ones, the innermost folder first
    matches += [LONG_FOLDER.fullmatch(part) for part in reversed(parts)]
    for match in filter(None, matches):
        return (match[1] or "").lower(), match[2].lower()
    return "", ""


def folder_split(names: Sequence[str], split: str, where: Path) -> list[str] | None:
    """Names of one split by their folders; None if there are no folders for train and val.

    Args:
        names: paths relative to the root of the data.
        split: "train", "val" or "test".
        where: root of the data, for errors.

    Raises:
        DataError: there are folders only for other splits.
    """
    by_split: dict[str, list[str]] = {}
    for name in names:
        by_split.setdefault(folder_of_split(name.split("/")[:-1])[1], []).append(name)
    if not {"train", "val"} <= by_split.keys():
        return None
    if split not in by_split:
        there = [name for name in SPLITS if name in by_split]
        raise DataError(
            f"{where}: expected files in its folder '{split}', got none (folders: {there}); use "
            "another split, add the folder, or name the files with data.split_list"
        )
    return by_split[split]


def seeded_split(
    names: Sequence[str],
    split: str,
    seed: int,
    where: Path,
    *,
    people: Mapping[str, str] | None = None,
) -> list[str]:
    """Sorted names of one split: a tenth each (at least one person) for val and test, rest train.

    All files of a person are in one split. The person is taken from `people` or from the path
    (``sub-01`` of BIDS, ``patient01``, see `PERSON`); other files count as one person each. People
    are ranked by a hash of their name and `seed`, so that splits are equal on every machine.

    Args:
        names: paths of the files relative to the root of the data.
        split: "train", "val" or "test".
        seed: seed of the split.
        where: root of the data, for errors.
        people: file -> person, if the files tell, see `known_people`.

    Raises:
        DataError: there are fewer than three people.
    """
    person = {name: (people or {}).get(name) or person_in(name) or name for name in names}
    everyone = set(person.values())
    if len(everyone) < len(SPLITS):
        what = "files" if len(everyone) == len(names) else "people"
        raise DataError(
            f"{where}: expected at least 3 {what} to split into train, val and test, got "
            f"{len(everyone)}; add files, or give lists of names with data.split_list"
        )
    ranked = sorted(everyone, key=lambda name: (derive_seed(seed, "split", name), name))
    part = max(1, round(FRACTION * len(ranked)))
    bounds = {"val": (0, part), "test": (part, 2 * part), "train": (2 * part, len(ranked))}
    chosen = set(ranked[slice(*bounds[split])])
    return sorted(name for name in names if person[name] in chosen)


def first_number(subset: str, what: str) -> int:
    """N of the subset ``first:N`` of a data set; 0 for "", which stands for everything.

    Args:
        subset: ``config.data.subset``.
        what: what N counts, for the error.

    Raises:
        DataError: another text, or N is 0.
    """
    kind, _, number = subset.partition(":")
    if subset and (kind != "first" or not number.isdecimal() or not int(number)):
        raise DataError(f"unknown data.subset '{subset}'; known: first:N (N {what}), or '' for all")
    return int(number or 0)


def person_in(path: str) -> str:
    """Person in a path, "person 01" for ``sub-01/ses-1/anat/T1.nii.gz``; "" if there is none."""
    match = PERSON.search(path)
    return "" if match is None else f"person {match[1] or match[2]}"


def known_people(identities: Mapping[str, str], where: Path) -> dict[str, str]:
    """File -> person from the identities in the headers, without placeholders of anonymisers.

    Empty identities, zeros, and an identity that all files share are placeholders.

    Args:
        identities: file -> identity in its header.
        where: root of the data, for the warning.
    """
    known = {name: text.strip() for name, text in identities.items() if text.strip(" 0\0")}
    if len(identities) > 1 and len(known) == len(identities) and len(set(known.values())) == 1:
        log.warning(
            "%s: all files have the patient identity '%s'; taken as a placeholder, so that files "
            "of a person may be in different splits (data.split_list decides)",
            where,
            next(iter(known.values())),
        )
        return {}
    return {name: f"identity {text}" for name, text in known.items()}


def read_split_list(
    template: str, split: str, files: Iterable[str], skips: Skips | None = None
) -> list[str]:
    """Names in a text file, one per line, in the order of the file.

    ``#`` starts a comment at the beginning of a line or after a space, as names may contain ``#``.

    Args:
        template: path of the list, in which ``{split}`` is replaced by the name of the split. It
            may be missing only for the test split, as train and val need different lists.
        split: "train", "val" or "test".
        files: names of the existing files; a line may omit the suffix if it stays unique.
        skips: record of names without a file; None to raise an error for them.

    Raises:
        DataError: the list is missing or empty, or has a name without a file or twice.
    """
    if "{split}" not in template and split != "test":
        raise DataError(
            f"data.split_list '{template}' names one list for every split; put '{{split}}' where "
            f"the split's name belongs, such as 'lists/{{split}}.txt' for 'lists/{split}.txt'"
        )
    path = Path(template.replace("{split}", split)).expanduser()
    known = _by_short_name(list(files))
    try:
        text = path.read_text("utf-8-sig")  # ignores a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the split list ({error}); check it") from error
    lines = [_without_comment(line, known) for line in text.splitlines()]
    missing = [line for line in lines if line and line not in known]
    if missing:
        (skips or Skips(False)).add(
            DataError(
                f"{path}: names {len(missing)} files that are not below data.root: "
                f"{', '.join(missing[:20])}{', ...' if len(missing) > 20 else ''}; "
                "get them or take them off the list"
            )
        )
    chosen = [known[line] for line in lines if line in known]
    if not chosen or len(set(chosen)) < len(chosen):
        twice = sorted({name for name in chosen if chosen.count(name) > 1})
        fault = f"it names {', '.join(twice)} more than once" if twice else "it is empty"
        raise DataError(f"{path}: expected one name per line, but {fault}; correct the list")
    return chosen


def _by_short_name(names: Sequence[str]) -> dict[str, str]:
    """Names by themselves, and by their stems without suffix if these are unique."""
    short = {name: name[: len(name) - len(Path(name).suffix)] for name in names}
    number = Counter(short.values())
    return {s: name for name, s in short.items() if number[s] == 1} | {n: n for n in names}


def _without_comment(line: str, known: Mapping[str, str]) -> str:
    line = line.strip()
    return line if line in known else re.split(r"(?:^|\s)#", line)[0].strip()
