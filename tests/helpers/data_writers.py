"""Writers of small files in exactly the public data sets' formats, for tests and benchmarks.

Arrays, dtypes, layout, attributes and header fields are those of the public files; only sizes
(and of course contents) differ.
"""

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from operators.fourier import fft2c, ifft2c

HEADER = """<?xml version="1.0" encoding="utf-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <acquisitionSystemInformation>
  <systemFieldStrength_T>2.8936</systemFieldStrength_T>
  <receiverChannels>{coils}</receiverChannels>
 </acquisitionSystemInformation>
 <encoding>
  <encodedSpace><matrixSize><x>{full[0]}</x><y>{full[1]}</y><z>1</z></matrixSize></encodedSpace>
  <reconSpace><matrixSize><x>{size[0]}</x><y>{size[1]}</y><z>1</z></matrixSize></reconSpace>
  <encodingLimits>
   <kspace_encoding_step_1>
    <minimum>0</minimum><maximum>{last}</maximum><center>{centre}</center>
   </kspace_encoding_step_1>
  </encodingLimits>
  <trajectory>cartesian</trajectory>
 </encoding>
</ismrmrdHeader>
"""
SCALE = 1e-4  # the size of the numbers in fastMRI files


def phantom(shape, seed=0):
    """Smooth blobs with a smooth phase: complex, (slices, height, width)."""
    rng = np.random.default_rng(seed)
    _, height, width = shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    images = np.zeros(shape)
    for image in images:
        for cy, cx, r in rng.uniform((-0.3, -0.3, 0.1), (0.3, 0.3, 0.4), (6, 3)):
            image += np.exp(-(((y - cy) / r) ** 2) - ((x - cx) / r) ** 2)
        image += 0.02 * rng.random(image.shape)
    return SCALE * images * np.exp(1j * (x - 0.5 * y))


def coil_sensitivities(coils, height, width):
    """Smooth complex maps with sum |S|^2 = 1, (coils, height, width)."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angles = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    distance = (y - 1.2 * np.sin(angles)) ** 2 + (x - 1.2 * np.cos(angles)) ** 2
    maps = np.exp(-0.5 * distance + 1j * angles * (0.2 + 0.1 * x))
    return maps / np.linalg.norm(maps, axis=0)


def transform(images):
    return fft2c(torch.from_numpy(images)).numpy().astype(np.complex64)


def crop(images, size):
    top, left = ((n - m) // 2 for n, m in zip(images.shape[-2:], size, strict=True))
    return images[..., top : top + size[0], left : left + size[1]]


def write_fastmri(
    path, *, slices=6, size=(24, 20), coils=0, acquisition="CORPD_FBK", kspace=True, test=False,
    seed=0,
):  # fmt: skip
    """A knee or brain file; twice the readout, as the scanner oversamples.

    coils: 0 for single-coil. test: a public test file: undersampled, with `mask`, without images.
    """
    full = (2 * size[0], size[1] + 8)
    image = phantom((slices, *full), seed)  # (S, H, W)
    if coils:
        image = image[:, None] * coil_sensitivities(coils, *full)  # (S, C, H, W)
    measured = transform(image)
    reconstruction = crop(np.abs(ifft2c(torch.from_numpy(measured)).numpy()), size)
    rss = np.linalg.norm(reconstruction, axis=1) if coils else reconstruction
    header = HEADER.format(
        coils=max(coils, 15), full=full, size=size, last=full[1] - 1, centre=full[1] // 2
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("ismrmrd_header", data=header.encode())
        if test:
            mask = np.zeros(full[1], dtype=np.float32)
            mask[::4] = mask[full[1] // 2 - 6 : full[1] // 2 + 6] = 1
            file.create_dataset("mask", data=mask)
            file.create_dataset("kspace", data=measured * mask)
        else:
            if kspace:
                file.create_dataset("kspace", data=measured)
            if kspace and not coils:
                file.create_dataset("reconstruction_esc", data=rss.astype(np.float32))
            file.create_dataset("reconstruction_rss", data=rss.astype(np.float32))
            file.attrs["max"] = float(rss.max())
            file.attrs["norm"] = float(np.linalg.norm(rss))
        file.attrs["acquisition"] = acquisition
        file.attrs["patient_id"] = "0" * 64
    return path


def write_prostate(path, *, slices=3, side=48, size=32, width=40, coils=4, seed=0):
    """A prostate T2 file: three averages of every other column, unpadded k-space, `side` rows."""
    image = phantom((slices, side, side), seed)[:, None] * coil_sensitivities(coils, side, side)
    short = (side - width) // 2
    measured = transform(image)[..., short : short + width]  # (S, C, H, W)
    averages = np.zeros((3, *measured.shape), dtype=np.complex64)
    for average, first in enumerate((1, 0, 1)):
        averages[average, ..., first::2] = measured[..., first::2]
    padded = np.pad(measured, ((0, 0), (0, 0), (0, 0), (short, side - width - short)))
    full = np.linalg.norm(ifft2c(torch.from_numpy(padded)).numpy(), axis=1)[:, ::-1]
    rss = crop(full, (size, size)).astype(np.float32)
    header = HEADER.format(
        coils=coils, full=(side, side), size=(size, size), last=width - 1, centre=width // 2
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("calibration_data", data=measured[..., width // 2 - 8 : width // 2 + 8])
        file.create_dataset("ismrmrd_header", data=header.encode())
        file.create_dataset("kspace", data=averages)
        file.create_dataset("reconstruction_rss", data=rss)
        file.attrs["acquisition"] = "AXT2"
        file.attrs["max"], file.attrs["norm"] = float(rss.max()), float(np.linalg.norm(rss))
        file.attrs["patient_id"] = "0" * 64
    return path


def write_lodopab(path, *, slices=3, size=362, seed=0):
    """A ground-truth file of LoDoPaB."""
    data = np.random.default_rng(seed).random((slices, size, size), dtype=np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data, chunks=True, maxshape=(128, size, size))
    return path


def write_picture(path, *, size=(40, 32), mode="RGB", seed=0):
    """A picture of random pixels, (width, height)."""
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def head(size=64, seed=0):
    """Hounsfield units of air, skull and brain, (size, size)."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radius = np.hypot(x, y)
    hu = np.where(radius < 0.8, 1000, -1000)
    brain = np.random.default_rng(seed).normal(35, 5, hu.shape)
    return np.where(radius < 0.7, brain, hu).round().astype(np.int16)


def write_dicom(
    path, hu, *, intercept=-1024, wrapped=False, series="1.2.3", position=(0, 0, 0),
    orientation=(1, 0, 0, 0, 1, 0),
):  # fmt: skip
    """A CT slice as in the RSNA data. wrapped: its well-known files of unsigned 12-bit numbers."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path), str(position)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    file.Modality, file.PatientID = "CT", "ID_0002cd41"
    file.StudyInstanceUID, file.SeriesInstanceUID = "1.2", series
    file.ImagePositionPatient = [float(v) for v in position]
    file.ImageOrientationPatient = [float(v) for v in orientation]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.Rows, file.Columns = hu.shape
    file.PixelSpacing = [0.488281, 0.488281]
    file.BitsAllocated = 16
    file.BitsStored = 12 if wrapped else 16
    file.HighBit = file.BitsStored - 1
    file.PixelRepresentation = 0 if wrapped else 1
    file.WindowCenter, file.WindowWidth = "30", "80"
    file.RescaleIntercept, file.RescaleSlope = "0" if wrapped else str(intercept), "1"
    stored = hu.astype(np.int32) % 4096 if wrapped else hu.astype(np.int32) - intercept
    file.PixelData = stored.astype("<u2" if wrapped else "<i2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, file, enforce_file_format=True)
    return path


def write_series(folder, volume, **options):
    """A DICOM series of axial slices (slices, rows, columns), from below; names shuffled."""
    for z, hu in enumerate(volume):
        name = f"{(7 * z) % 100:03d}.dcm"
        write_dicom(folder / name, hu, position=(-100, -100, 1.5 * z), **options)
    return folder


def write_nifti(path, volume, affine=None):
    """A volume (i, j, k), int16; its affine says where the axes point (default: RAS)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(volume.astype(np.int16), np.eye(4) if affine is None else affine)
    nibabel.save(image, path)
    return path


def truncate(path: Path, fraction=0.5):
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])


def overwrite(path, key, index, value):
    with h5py.File(path, "r+") as file:
        file[key][index] = value
