"""Reading of DICOM files with one grey slice each; needs pydicom, from the extra `io`."""

from pathlib import Path

import numpy as np

from datasets.bad_input import reading, require
from datasets.sample import DataError

DICOM = "a DICOM file with one grey image"
MAGIC_AT, MAGIC = 128, b"DICM"
HOUNSFIELD = (None, "", "HU")  # rescale types; without one a CT image is in Hounsfield units, too
WORDS = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}  # bytes per word, by value representation
# Some CT files, common in the RSNA haemorrhage data, declare unsigned 12-bit numbers and an
# intercept of 0, but hold signed numbers down to about -1000 that wrapped around 4096.
WRAPPED_BITS, WRAPPED_SHIFT = 12, 1000
WRAPPED_INTERCEPT = -100  # correct CT intercepts of unsigned numbers are far lower


def is_dicom(path: Path) -> bool:
    """Whether `path` is a file with DICOM's magic bytes."""
    if not path.is_file():
        return False
    with reading(path, DICOM), path.open("rb") as file:
        return file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC


def check_dicom(path: Path) -> None:
    """Raise a DataError if `path` does not have DICOM's magic bytes."""
    with reading(path, DICOM), path.open("rb") as file:
        if file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] != MAGIC:
            raise ValueError(f"no '{MAGIC.decode()}' at byte {MAGIC_AT}")


def read_header(path: Path):
    """Header of a DICOM file without the pixels, as a `pydicom.Dataset`.

    Raises:
        DataError: it is not a DICOM file, or pydicom is not installed.
    """
    pydicom = require("pydicom")
    with reading(path, DICOM):
        return pydicom.dcmread(path, stop_before_pixels=True)


def read_patient(path: Path) -> str:
    """PatientID of a file; "" if it has none or cannot be read."""
    pydicom = require("pydicom")
    try:
        with reading(path, DICOM):
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
            return str(header.get("PatientID") or "")
    except DataError:  # reported when the file is used
        return ""


def read_dicom(path: Path, *, fix_wrapped: bool = False) -> np.ndarray:
    """Slice of a DICOM file, after its rescale slope and intercept (CT: in Hounsfield units).

    Display settings (window, MONOCHROME1) are not applied. Padding outside the round field of view
    of a CT scanner, which is often far below air, is set to the smallest value of the rest.

    Args:
        path: the file.
        fix_wrapped: whether to undo the wrap-around of 12-bit numbers, see `WRAPPED_BITS`.

    Returns:
        float32 ``(H, W)``.

    Raises:
        DataError: the file is unreadable or has several or colour images, or pydicom is not
            installed.
    """
    pydicom = require("pydicom")
    with reading(path, DICOM):
        header = pydicom.dcmread(path)
        stored = header.pixel_array
        if stored.ndim != 2:
            raise DataError(f"{path}: {_no_single_image(header, stored.shape)}")
        slope, intercept = _rescale(header)
        padding = _padding(header, stored)
        stored = stored.astype(np.float32)
        if fix_wrapped and _is_wrapped(header, intercept):
            stored = (stored + WRAPPED_SHIFT) % 2**WRAPPED_BITS
            intercept = -WRAPPED_SHIFT
        image = stored * np.float32(slope) + np.float32(intercept)
        if padding.any() and not padding.all():
            image[padding] = image[~padding].min()
    return image


def is_hounsfield(header) -> bool:
    """Whether `read_dicom` gives Hounsfield units: of CT with a rescale to them, as CT images have.

    Secondary captures of CT, whose grey levels are those of a screen, have no rescale.
    """
    found = _transformation(header)
    rescaled = found.get("RescaleIntercept") not in (None, "")
    return header.get("Modality") == "CT" and rescaled and found.get("RescaleType") in HOUNSFIELD


def frame_groups(header) -> list:
    """Functional groups of an enhanced file with one frame: its own and the shared ones."""
    names = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
    return [header.get(name)[0] for name in names if header.get(name)]


def _rescale(header) -> tuple[float, float]:
    """Rescale slope and intercept, for enhanced files from the frame's groups; 1 and 0 if none."""
    found = _transformation(header)
    return _number(found, "RescaleSlope", 1.0), _number(found, "RescaleIntercept", 0.0)


def _transformation(header):
    """The part of a header with the rescale: of enhanced files a frame's group, else all of it."""
    items = [group.get("PixelValueTransformationSequence") for group in frame_groups(header)]
    return next((item[0] for item in items if item), header)


def _padding(header, stored: np.ndarray) -> np.ndarray:
    """Mask ``(H, W)`` of the padding pixels of a CT image."""
    value = header.get("PixelPaddingValue")
    if value in (None, "") or header.get("Modality") != "CT":
        return np.zeros(stored.shape, dtype=bool)
    limit = header.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit in (None, "") else limit)))
    return (stored >= low) & (stored <= high)


def _number(header, name: str, default: float) -> float:
    """Number in the header; `default` if it is missing or empty."""
    value = header.get(name)
    return default if value is None or value == "" else float(value)


def _no_single_image(header, shape: tuple[int, ...]) -> str:
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        return (
            f"expected one image a file, got {frames} frames (multi-frame or enhanced DICOM); "
            "convert it to NIfTI (dcm2niix) or to one file a frame (dcm4che's emf2sf)"
        )
    return f"expected a grey image, got colours, shape {shape}; take the file out"


def swap_words(header) -> None:
    """Swap the bytes of words in a big-endian file that pydicom keeps as raw bytes."""
    for element in header.iterall():
        size = WORDS.get(element.VR)
        if size and element.value:
            element.value = np.frombuffer(element.value, f">u{size}").byteswap().tobytes()


def parse_window(window: str, default: str = "") -> tuple[float, float] | None:
    """Lower and upper bound of a window.

    Args:
        window: "LEVEL,WIDTH", or "" for `default`.
        default: "LEVEL,WIDTH", or "" for no window.

    Returns:
        (lower, upper), or None without a window.

    Raises:
        DataError: the text is not two numbers, or the width is not positive.
    """
    text = window or default
    if not text:
        return None
    try:
        level, width = map(float, text.split(","))
    except ValueError:
        level, width = 0.0, 0.0
    if not width > 0:
        raise DataError(
            f"expected data.window as LEVEL,WIDTH in Hounsfield units such as 40,80, got '{text}'"
        )
    return level - width / 2, level + width / 2


def _is_wrapped(header, intercept: float) -> bool:
    signed = header.get("PixelRepresentation", 0) != 0
    bits = header.get("BitsStored", 0)
    return not signed and bits == WRAPPED_BITS and intercept > WRAPPED_INTERCEPT
