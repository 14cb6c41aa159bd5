"""DICOM files sorted into stacks of parallel slices; a series may contain several stacks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.bad_input import reading
from datasets.dicom import DICOM, is_dicom, read_header
from datasets.discovery import find_files
from datasets.sample import DataError

SUFFIXES = (".dcm", ".ima", ".dicom")
# suffixes of files that are never DICOM. Other files are opened to see, as exports of scanners and
# archives have no suffix, or a number: IM_0001, MR.1.2.840.113619.2
OTHERS = (
    *(".nii", ".gz", ".json", ".txt", ".csv", ".tsv", ".xml", ".pdf", ".md", ".html", ".zip"),
    *(".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".npy", ".npz", ".h5", ".hdf5"),
)
SAME_PLACE = 1e-3  # mm along the normal
PARALLEL = 0.02  # tolerance of direction cosines, about one degree
SAME_ECHO = 0.1  # ms
PLANES = ("sagittal", "coronal", "axial")
GE_PART = (0x0043, 0x102F)  # 0 to 3: magnitude, phase, real, imaginary
PARTS = ("magnitude", "phase", "real", "imaginary")


@dataclass(frozen=True)
class DicomSlice:
    """Position and kind of a DICOM image, from its header.

    Attributes:
        path: the file.
        series: SeriesInstanceUID.
        instance: SOPInstanceUID.
        person: PatientID.
        orientation: direction cosines of rows and columns; () if unknown.
        position: position in mm along the normal of the slice; None if unknown.
        number: InstanceNumber.
        echo: EchoTime in ms; 0 if none.
        part: one of `PARTS`.
    """

    path: Path
    series: str
    instance: str
    person: str
    orientation: tuple[float, ...]
    position: float | None
    number: int
    echo: float
    part: str

    def matches(self, other: "DicomSlice") -> bool:
        """Whether both can belong to one stack: parallel, with the same echo and part."""
        return (
            self.part == other.part
            and abs(self.echo - other.echo) < SAME_ECHO
            and len(self.orientation) == len(other.orientation)
            and np.allclose(self.orientation, other.orientation, rtol=0, atol=PARALLEL)
        )

    @property
    def plane(self) -> str:
        """Nearest anatomical plane; "" if unknown."""
        if not self.orientation:
            return ""
        return PLANES[int(np.argmax(np.abs(np.cross(*np.split(np.array(self.orientation), 2)))))]


def find_dicom(folder: Path) -> list[str]:
    """Sorted paths of DICOM files in or below `folder`, by their suffix or magic bytes."""
    return [
        name
        for name in find_files(folder)
        if name.lower().endswith(SUFFIXES)
        or (not name.lower().endswith(OTHERS) and is_dicom(folder / name))
    ]


def read_slice(path: Path) -> DicomSlice | None:
    """Position and kind of the image in a file; None for files without one (DICOMDIR, reports).

    Raises:
        DataError: it is not a DICOM file, or pydicom is not installed.
    """
    header = read_header(path)
    if "Rows" not in header:
        return None
    with reading(path, DICOM):
        orientation = tuple(map(float, header.get("ImageOrientationPatient") or ()))
        corner = tuple(map(float, header.get("ImagePositionPatient") or ()))
        position = None
        if len(orientation) == 6 and len(corner) == 3:
            position = float(np.cross(orientation[:3], orientation[3:]) @ np.array(corner))
        return DicomSlice(
            path=path,
            series=str(header.get("SeriesInstanceUID", "")),
            instance=str(header.get("SOPInstanceUID", "")),
            person=str(header.get("PatientID") or ""),
            orientation=orientation if position is not None else (),
            position=position,
            number=int(header.get("InstanceNumber") or 0),
            echo=float(header.get("EchoTime") or 0.0),
            part=_part(header),
        )


def _part(header) -> str:
    """Part of a complex MR image that a file holds, one of `PARTS`."""
    if header.get("Modality") != "MR":
        return "magnitude"
    private = header.get(GE_PART)
    if private is not None and str(private.value) in "0123":
        return PARTS[int(private.value)]
    words = [str(header.get("ComplexImageComponent", ""))]
    words += [str(word) for word in (header.get("ImageType") or [])[2:]]
    for word in map(str.upper, words):
        for part in PARTS[1:]:
            if word == part[0].upper() or word.startswith((part.upper(), f"{part[0].upper()}_")):
                return part
    return "magnitude"


def group_by_series(slices: Iterable[DicomSlice]) -> dict[str, list[DicomSlice]]:
    """Slices by series; copies of an image count once."""
    series: dict[str, dict[tuple, DicomSlice]] = {}
    for image in slices:
        copies = (image.instance, image.position, image.number)
        series.setdefault(image.series, {}).setdefault(
            copies if image.instance else (image.path,), image
        )
    return {uid: list(images.values()) for uid, images in series.items()}


def split_stacks(slices: Iterable[DicomSlice]) -> dict[str, tuple[DicomSlice, ...]]:
    """Stacks of parallel slices of one kind in a series, ordered along their normal.

    Images of one stack agree in orientation, echo time and part (magnitude, phase, ...). If there
    are several images at each position, such as a time series, they are divided further, in the
    order of their numbers.

    Returns:
        Label that distinguishes a stack, such as ``"#coronal"`` ("" if there is only one) -> its
        slices.

    Raises:
        DataError: only some positions have several images.
    """
    kinds: list[list[DicomSlice]] = []
    for image in slices:
        for kind in kinds:
            if kind[0].matches(image):
                kind.append(image)
                break
        else:
            kinds.append([image])
    stacks = [stack for kind in kinds for stack in _in_turn(kind)]
    labels = _labels([stack[0] for stack in stacks])
    return dict(zip(labels, stacks, strict=True))


def _in_turn(images: Sequence[DicomSlice]) -> list[tuple[DicomSlice, ...]]:
    """Stacks of one kind: one for each of the images at a position."""
    if any(image.position is None for image in images):
        return [tuple(sorted(images, key=lambda s: (s.number, s.path)))]
    ordered = sorted(images, key=lambda s: (s.position, s.number, s.path))
    places = [[ordered[0]]]
    for image in ordered[1:]:
        if image.position - places[-1][0].position < SAME_PLACE:
            places[-1].append(image)
        else:
            places.append([image])
    if len({len(place) for place in places}) > 1:
        several = max(places, key=len)
        raise DataError(
            f"{several[0].path}: expected one image at each position of a stack, or equally many, "
            f"got {len(several)} here (another one is {several[1].path}); move those of one stack "
            "into a folder of their own"
        )
    in_turn = [sorted(place, key=lambda s: (s.number, s.path)) for place in places]
    return list(zip(*in_turn, strict=True))


def _labels(images: Sequence[DicomSlice]) -> list[str]:
    """Labels that distinguish images, such as "#coronal#phase"; numbered if nothing else does."""
    traits = [(image.plane, f"te{image.echo:g}", image.part) for image in images]
    differs = [len(set(values)) > 1 for values in zip(*traits, strict=True)]
    labels = [
        "".join(f"#{word}" for word, told in zip(words, differs, strict=True) if told)
        for words in traits
    ]
    number = [labels[: i + 1].count(label) for i, label in enumerate(labels)]
    return [
        f"{label}#{n}" if labels.count(label) > 1 else label
        for label, n in zip(labels, number, strict=True)
    ]


def describe_stacks(stacks: dict[str, tuple[DicomSlice, ...]]) -> str:
    """Description of the first stacks for errors: number of files, label, and one of the files."""
    return "; ".join(
        f"{len(stack)} files{label.replace('#', ' ')}, such as {stack[0].path}"
        for label, stack in list(stacks.items())[:4]
    )
