"""Files of plain tensors and values, read without executing code."""

import zipfile
from pathlib import Path

import torch

from configs import is_out_of_memory


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not hold what is expected."""


def read_plain(path: str | Path, map_location: str | torch.device) -> object:
    """Content of a `torch.save` file of plain tensors and values, read without executing code.

    Args:
        path: the file.
        map_location: device of the tensors.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, or holds pickled objects.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        _check_archive(Path(path))
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # the unpickler raises anything on damaged bytes
        if isinstance(error, PermissionError) or is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path}: not readable as a checkpoint of plain tensors (truncated, corrupt, or "
            f"with pickled objects, which are refused): {reason}"
        ) from None


def _check_archive(path: Path) -> None:
    """Verify the checksums of a `torch.save` file, which `torch.load` does not.

    Raises:
        ValueError: a checksum differs, or the file claims to hold more than its size.
        zipfile.BadZipFile: the archive is damaged otherwise.
    """
    if not zipfile.is_zipfile(path):
        return  # an old format, or not a checkpoint
    with zipfile.ZipFile(path) as archive:
        claimed = sum(part.file_size for part in archive.infolist())
        if claimed > path.stat().st_size:  # tensors are stored uncompressed
            raise ValueError(f"it claims {claimed} bytes in a file of {path.stat().st_size}")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} does not fit its checksum")
