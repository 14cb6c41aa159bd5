"""Which files belong to which split, the same on every machine."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets.bad_input import Skips
from datasets.sample import DataError
from operators.batch import derive_seed

SPLITS = ("train", "val", "test")
FRACTION = 0.1  # of the files, for validation and for testing each


def check_split(split: str) -> None:
    """Raise a DataError if `split` is not one of `SPLITS`."""
    if split not in SPLITS:
        raise DataError(f"unknown split '{split}'; known: {', '.join(SPLITS)}")


def check_root(root: str | Path) -> Path:
    """The folder `root`, or a DataError that says what is wrong with it."""
    if not str(root):
        raise DataError("no data folder given; set data.root to where the data set lies")
    path = Path(root).expanduser()
    try:
        path.is_dir()
    except OSError as error:  # a folder on the way to it
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); allow it (chmod +x on the folders above "
            "it), or set data.root"
        ) from error
    if not path.is_dir():
        state = "it is not a folder" if path.exists() else "it does not exist"
        raise DataError(f"expected a data folder at '{root}', but {state}; set data.root")
    return path


def files_by_name(paths: Iterable[Path], skips: Skips) -> dict[str, Path]:
    """The files among `paths` by name, sorted, hidden ones (such as macOS's ``._*``) left out.

    Raises:
        DataError: two files have the same name, so that keys would be ambiguous (where skipping
            is allowed, the first one counts).
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


def seeded_split(names: Sequence[str], split: str, seed: int, where: Path) -> list[str]:
    """The `names` of one split, sorted: a tenth each for val and test (at least one), rest train.

    Each name is ranked by a hash of it and `seed`: no random state, the same on every machine.

    Raises:
        DataError: fewer than three names.
    """
    if len(names) < len(SPLITS):
        raise DataError(
            f"{where}: expected at least 3 files to split into train, val and test, "
            f"got {len(names)}; add files, or give lists of names with data.split_list"
        )
    ranked = sorted(names, key=lambda name: (derive_seed(seed, "split", name), name))
    part = max(1, round(FRACTION * len(names)))
    bounds = {"val": (0, part), "test": (part, 2 * part), "train": (2 * part, len(names))}
    first, last = bounds[split]
    return sorted(ranked[first:last])


def read_split_list(
    template: str, split: str, files: Iterable[str], skips: Skips | None = None
) -> list[str]:
    """The names in a text file, one a line, in its order; ``#`` starts a comment.

    Args:
        template: path of the list; ``{split}`` in it is replaced by the split's name. Only the
            test split may go without: one list for both train and val would be the same files.
        split: "train", "val" or "test".
        files: names of the files there are; a line may leave out the name's ending.
        skips: takes the names without a file; None: they are an error.

    Raises:
        DataError: no such list, an empty list, a name without file (all are listed) or twice.
    """
    if "{split}" not in template and split != "test":
        raise DataError(
            f"data.split_list '{template}' names one list for every split; put '{{split}}' where "
            f"the split's name belongs, such as 'lists/{{split}}.txt' for 'lists/{split}.txt'"
        )
    path = Path(template.replace("{split}", split)).expanduser()
    try:
        lines = [line.split("#")[0].strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the split list ({error}); check it") from error
    names = list(files)
    known = {str(Path(name).with_suffix("")): name for name in names} | {n: n for n in names}
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
        raise DataError(f"{path}: expected one name a line, but {fault}; correct the list")
    return chosen
