"""Writing of reconstructions as HDF5, NIfTI and DICOM files, each atomically."""

import gzip
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from datasets.bad_input import require
from datasets.dicom import frame_groups, read_header, swap_words
from datasets.files import replacing, write_atomically
from datasets.image_series import NiftiVolume
from datasets.sample import DataError

LARGEST_STORED = 2**16 - 1  # DICOM pixels are written as unsigned 16-bit numbers
GZIP_LEVEL = 1  # as in nibabel; higher levels take much longer and gain little
DS_LENGTH = 16  # largest number of characters of a DICOM decimal string
# elements that describe the pixels of the source and do not apply to the result
PIXEL_ELEMENTS = (
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "IconImageSequence",
    "NumberOfFrames",
)


def write_hdf5(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    attributes: Mapping[str, str | float | int],
    descriptions: Mapping[str, str] | None = None,
) -> None:
    """Write an HDF5 file of arrays, with checksums, and file attributes.

    Args:
        path: the file to write.
        arrays: name -> array, whose first axis is that of the slices.
        attributes: name -> value.
        descriptions: name of an array -> what it is, which becomes its attribute `description`.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as target, h5py.File(target, "w") as file:
        for name, array in arrays.items():
            # one chunk per slice, as HDF5 has checksums of chunks only
            chunks = (1, *array.shape[1:])
            data = file.create_dataset(name, data=array, chunks=chunks, fletcher32=True)
            if descriptions and name in descriptions:
                data.attrs["description"] = descriptions[name]
        for name, value in attributes.items():
            file.attrs[name] = value


def write_nifti(path: Path, images: np.ndarray, volume: NiftiVolume, *, numbers: range) -> None:
    """Write slices as NIfTI, at their place in the volume that they come from.

    Args:
        path: the .nii.gz file to write.
        images: ``(n, H, W)``.
        volume: geometry of the source volume.
        numbers: numbers of the slices in the source.

    Raises:
        OSError: the file cannot be written.
    """
    nibabel = require("nibabel")
    shift = volume.shift(numbers)
    array = volume.array(images.astype(np.float32))
    image = nibabel.Nifti1Image(array, volume.affine @ shift, volume.header)
    image.set_data_dtype(np.float32)
    image.header["cal_min"] = image.header["cal_max"] = 0  # display range of the source
    for name in ("sform", "qform"):
        matrix, code = getattr(volume.header, f"get_{name}")(coded=True)
        if code:
            getattr(image, f"set_{name}")(matrix @ shift, code=int(code))
    _write_compressed(path, image)


def _write_compressed(path: Path, image) -> None:
    """Write a `nibabel` image as .nii.gz, with equal bytes for equal images."""
    write_atomically(path, gzip.compress(image.to_bytes(), compresslevel=GZIP_LEVEL, mtime=0))


def write_plain_nifti(
    path: Path, images: np.ndarray, voxel_size: tuple[float, float, float] | None
) -> None:
    """Write slices whose orientation is unknown as NIfTI.

    Viewers show the images as if they were axial. No orientation is declared: the codes of the
    coordinate system are 0.

    Args:
        path: the .nii.gz file to write.
        images: ``(n, H, W)``.
        voxel_size: size in mm (row, column, slice); None if unknown.

    Raises:
        OSError: the file cannot be written.
    """
    nibabel = require("nibabel")
    rows, columns, thickness = voxel_size or (1.0, 1.0, 1.0)
    array = np.ascontiguousarray(images.astype(np.float32).transpose(2, 1, 0)[:, ::-1])
    image = nibabel.Nifti1Image(array, None)  # readers then take i for right to left
    image.header.set_zooms((columns, rows, thickness))
    image.header.set_xyzt_units("mm" if voxel_size else "unknown")
    _write_compressed(path, image)


def write_dicom(
    folder: Path,
    images: np.ndarray,
    sources: Sequence[Path],
    *,
    description: str,
    identity: str,
) -> None:
    """Write slices as a derived DICOM series, one file per slice, with the source's geometry.

    Patient and geometry are copied from the sources.

    Args:
        folder: folder of the new files ``0000.dcm``, ...; created if missing.
        images: ``(n, H, W)`` in the unit of the sources (after their rescale).
        sources: DICOM file of each slice; not changed.
        description: description of the processing, stored in the header.
        identity: text that identifies this result, from which new UIDs are computed.

    Raises:
        DataError: an image has another size than its source.
        OSError: a file cannot be written.
    """
    pydicom = require("pydicom")
    low, high = float(images.min()), float(images.max())
    intercept = float(_decimal(low))
    # rounded up, so that the largest value is within the range
    slope = float(_decimal((high - intercept) / LARGEST_STORED * (1 + 1e-7))) or 1.0
    series = pydicom.uid.generate_uid(entropy_srcs=[identity, "series"])
    folder.mkdir(parents=True, exist_ok=True)
    for number, (image, source) in enumerate(zip(images, sources, strict=True)):
        file = read_header(source)
        if image.shape != (file.Rows, file.Columns):
            raise DataError(f"{source}: expected {(file.Rows, file.Columns)}, got {image.shape}")
        _derive(file, description)
        file.SeriesInstanceUID = series
        _set_identity(file, pydicom.uid.generate_uid(entropy_srcs=[identity, str(number)]))
        _set_rescale(file, _decimal(slope), _decimal(intercept))
        stored = np.clip(np.rint((image - intercept) / slope), 0, LARGEST_STORED)
        file.PixelData = stored.astype("<u2").tobytes()
        file["PixelData"].VR = "OW"
        content = io.BytesIO()
        # unlike save_as, this also writes headers that were big-endian
        pydicom.dcmwrite(content, file, enforce_file_format=True)
        write_atomically(folder / f"{number:04d}.dcm", content.getvalue())


def check_sources(sources: Sequence[Path]) -> None:
    """Raise a DataError for a DICOM file whose header `write_dicom` could not write.

    Call it before any long work, whose result would otherwise be lost.
    """
    pydicom = require("pydicom")
    for source in sources:
        file = read_header(source)
        try:
            _derive(file, "")
            _set_identity(file, pydicom.uid.generate_uid(entropy_srcs=["check"]))
            _set_rescale(file, "1", "0")
            file.PixelData = bytes(2 * file.Rows * file.Columns)
            file["PixelData"].VR = "OW"
            pydicom.dcmwrite(io.BytesIO(), file, enforce_file_format=True)
        except Exception as error:  # pydicom raises anything for elements it cannot encode
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(
                f"{source}: its header cannot be written for the result ({reason}); repair it "
                "(dcmodify), or convert the series to NIfTI (dcm2niix)"
            ) from error


def _set_identity(file, uid: str) -> None:
    """Set class, instance and transfer syntax, which every DICOM file needs."""
    pydicom = require("pydicom")
    kind = file.get("SOPClassUID") or file.file_meta.get("MediaStorageSOPClassUID")
    file.SOPClassUID = kind or pydicom.uid.SecondaryCaptureImageStorage
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = uid
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian


def _set_rescale(file, slope: str, intercept: str) -> None:
    """Set rescale slope and intercept, in enhanced files those of their frame."""
    groups = frame_groups(file)
    target, kind = file, "US"  # unspecified
    for group in groups:
        for old in group.get("PixelValueTransformationSequence") or []:
            kind = old.get("RescaleType") or kind
        group.pop("PixelValueTransformationSequence", None)
    if groups:
        file.NumberOfFrames = 1
        target = require("pydicom").Dataset()
        target.RescaleType = kind
        groups[-1].PixelValueTransformationSequence = [target]
    target.RescaleSlope, target.RescaleIntercept = slope, intercept


def _derive(file, description: str) -> None:
    """Turn the header of a source into that of a derived image without pixels."""
    pydicom = require("pydicom")
    if file.get("SOPClassUID") and file.get("SOPInstanceUID"):  # anonymisers may remove them
        origin = pydicom.Dataset()
        origin.ReferencedSOPClassUID = file.SOPClassUID
        origin.ReferencedSOPInstanceUID = file.SOPInstanceUID
        file.SourceImageSequence = pydicom.Sequence([origin])
    old = list(file.get("ImageType", []))
    file.ImageType = ["DERIVED", "SECONDARY", *old[2:]]
    file.DerivationDescription = description
    file.SeriesDescription = f"{file.get('SeriesDescription', '')} reconstruction".strip()[:64]
    if file.get("SeriesNumber") is not None:
        file.SeriesNumber = int(file.SeriesNumber) + 1000
    for name in PIXEL_ELEMENTS:
        if name in file:
            delattr(file, name)
    if file.original_encoding[1] is False:
        swap_words(file)
    if file.get("PhotometricInterpretation") != "MONOCHROME1":  # kept, to be shown as the source
        file.PhotometricInterpretation = "MONOCHROME2"
    file.SamplesPerPixel = 1
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 0


def _decimal(value: float) -> str:
    """`value` as a DICOM decimal string, as precise as 16 characters allow."""
    for digits in range(DS_LENGTH, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= DS_LENGTH:
            return text
    raise ValueError(f"expected a number of at most {DS_LENGTH} characters, got {value}")
