"""Make the embedded samples from the folder of shared data that README.md of this folder lists.

    python -m datasets.samples.make_samples --data=FOLDER

Run from the top of the checkout; needs nibabel and pydicom (the extra `io`). The files depend on
the sources alone, to the byte with one version of HDF5: SHA256SUMS has their checksums.
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
from scipy.io import loadmat
from skimage.transform import resize

from datasets.dicom import read_dicom
from datasets.fit import fit_square
from datasets.samples.lesions import find_lesions

HERE = Path(__file__).parent
SUMS = "SHA256SUMS"

BRAIN_SIZE = 256  # pixels of 0.86 to 0.91 mm
# split -> volume -> axial slices of the source, from below
BRAIN = {
    "train": {
        "patient01_study1_FLAIR": (5, 8, 11, 14, 15, 18, 20, 23, 25, 27, 30),
        "patient01_study1_T1W": (5, 8, 11, 14, 17, 20, 23, 26, 29, 31, 34),
        "patient01_study1_T2W": (5, 8, 10, 13, 15, 18, 20, 23, 25, 27, 30),
    },
    "val": {
        "patient03_study1_FLAIR": (6, 12, 17, 22, 25, 29),
        "patient03_study2_T1W": (10, 18, 24, 29, 33, 38),
        "patient03_study1_T2W": (6, 12, 17, 22, 25, 29),
    },
    "test": {
        "patient04_study1_FLAIR": (9, 17, 22, 26, 29, 34),
        "patient04_study1_T1W": (10, 18, 23, 28, 32, 37),
        "patient04_study1_T2W": (9, 16, 21, 25, 29, 33),
        "patient09_study2_FLAIR": (8, 16, 18, 24, 25, 31),
        "patient12_study1_FLAIR": (10, 20, 26, 31, 33, 35),
        "patient12_study1_T1W": (10, 20, 25, 31, 34, 38),
        "patient12_study1_T2W": (9, 18, 23, 28, 31, 35),
    },
}
# slices whose lesion masks were looked at and kept; the masks of all others are empty
WITH_LESIONS = {
    "patient01_study1_FLAIR": (15,),
    "patient03_study1_FLAIR": (22, 25),
    "patient09_study2_FLAIR": (16, 18, 24, 25),
    "patient12_study1_FLAIR": (26, 31, 33, 35),
}

CT_SIZE, CT_TRAIN_SIZE = 320, 256
AIR = -1000  # HU
CT_PEOPLE = {
    "val": ("A046441", "A048383", "A058062"),
    "test": ("A002304", "A027284", "A056642", "A062055"),
}
# series of ct_lung.h5 -> slices; the other two series are the same scans with another kernel
CT_TRAIN = {
    "Lung_Dx-A0001_2.000000-5mm-40805": range(3, 28),
    "Lung_Dx-A0002_2.000000-ThoraxRouti": range(15),
}

SINOGRAM_STEP = 2.0**-10  # its rounding error is a fortieth of the noise, 0.011
FAN_OBJECTS = ("solid_disc", "ta", "tb", "tc", "td")


def write_dataset(file: h5py.File, name: str, data: np.ndarray) -> None:
    """Write a compressed data set with one chunk per slice, as readers read slices."""
    file.create_dataset(
        name,
        data=data,
        chunks=(1, *data.shape[1:]),
        compression="gzip",
        compression_opts=9,
        shuffle=True,
    )


def write(path: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, object]) -> None:
    """Write an HDF5 file of arrays, whose first axis is that of slices, and attributes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", track_order=True) as file:
        for name, array in arrays.items():
            write_dataset(file, name, array)
        file.attrs.update(attributes)


def brain_slices(volume: np.ndarray) -> np.ndarray:
    """Axial slices of a (right, anterior, superior) volume in radiological view: (n, 256, 256).

    Anterior is up, the patient's right on the left. Slices are padded with 0 to squares, and
    resampled with anti-aliasing if they have more pixels.
    """
    slices = volume[::-1, ::-1].T.astype(np.float64)  # (superior, anterior to posterior, ...)
    return np.stack([fit_square(image, BRAIN_SIZE, "pad") for image in slices])


def write_brain(data: Path, out: Path, split: str, name: str, slices: Sequence[int]) -> None:
    """Write the chosen slices of a volume, with lesion masks if it is FLAIR."""
    person, _, contrast = name.split("_")
    image = nibabel.as_closest_canonical(nibabel.load(data / f"mr_people/{name}.nii.gz"))
    volume = np.asarray(image.dataobj)
    pixel = float(image.header.get_zooms()[0]) * max(volume.shape[:2]) / BRAIN_SIZE
    squares, chosen = brain_slices(volume), list(slices)
    arrays = {"reconstruction_rss": np.round(squares[chosen]).astype(np.uint16)}
    if contrast == "FLAIR":
        looked_at = np.isin(chosen, WITH_LESIONS.get(name, ()))
        masks = find_lesions(squares, pixel)[chosen]
        arrays["lesions"] = masks & looked_at[:, None, None]
    attributes = {
        "patient_id": person,
        "acquisition": "AX" + contrast.removesuffix("W"),  # as in fastMRI
        "pixel_mm": round(pixel, 4),
        "source": f"{name}.nii.gz",
        "source_slices": np.asarray(chosen, dtype=np.int32),
    }
    write(out / f"brain/singlecoil_{split}/{person}_{contrast}.h5", arrays, attributes)


def hounsfield(image: np.ndarray, size: int) -> np.ndarray:
    """CT image in HU resampled to ``(size, size)``, int16; no value below air.

    What the scanner fills in outside its field of view (-1024 to -3024 HU) becomes air before
    the resampling, as negative attenuation does: a projection must not see it.
    """
    above = np.maximum(image.astype(np.float64), AIR)
    return np.round(resize(above, (size, size), anti_aliasing=True)).astype(np.int16)


def write_ct(data: Path, out: Path, split: str, person: str) -> None:
    """Write all images of a person: axial, coronal and sagittal at two dates."""
    paths = sorted((data / f"ct_people/{person}").glob("*.dcm"))
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    images = [hounsfield(read_dicom(path), CT_SIZE) for path in paths]
    pixels = [float(h.PixelSpacing[0]) * h.Rows / CT_SIZE for h in headers]
    attributes = {
        "patient_id": person,
        "sex": str(headers[0].PatientSex),
        "age": str(headers[0].PatientAge),
        "pixel_mm": np.round(pixels, 4),
        "source": [path.name for path in paths],
    }
    write(out / f"ct/{split}/{person}.h5", {"image": np.stack(images)}, attributes)


def write_ct_train(data: Path, out: Path, series: str, slices: Sequence[int]) -> None:
    """Write axial slices of a person for training."""
    with h5py.File(data / "ct_lung.h5") as file:
        images = [hounsfield(file[series][k], CT_TRAIN_SIZE) for k in slices]
        pixel = file[series].attrs["pixel_spacing_mm"][0] * file[series].shape[1] / CT_TRAIN_SIZE
    person = "_".join(series.split("_")[:2])  # such as Lung_Dx-A0001
    attributes = {
        "patient_id": person,
        "pixel_mm": round(float(pixel), 4),
        "source": series,
        "source_slices": np.asarray(slices, dtype=np.int32),
    }
    write(out / f"ct/train/{person}.h5", {"image": np.stack(images)}, attributes)


def write_kspace(data: Path, out: Path) -> None:
    """Write the 8-coil k-space as it is: (1, coils, H, W), 0 where nothing was measured."""
    kspace = np.load(data / "kspace/brain_8coil_undersampled.npy")
    attributes = {"source": "brain_8coil_undersampled.npy", "noise": 0.012}
    write(out / "measured/brain_8coil.h5", {"kspace": kspace[None]}, attributes)


def write_fan(data: Path, out: Path, name: str) -> None:
    """Write a fan-beam sinogram (1, 720, 560) without the last view, which repeats the first."""
    full = loadmat(data / f"ct_fan/htc2022_{name}_full.mat", simplify_cells=True)["CtDataFull"]
    segmented = loadmat(data / f"ct_fan/htc2022_{name}_full_recon_fbp_seg.mat")["reconFullFbpSeg"]
    p = full["parameters"]
    sinogram = np.round(full["sinogram"][None, :-1] / SINOGRAM_STEP) * SINOGRAM_STEP
    arrays = {
        "sinogram": sinogram.astype(np.float32),
        "angles": p["angles"][:-1].astype(np.float64),
        "segmentation": segmented.astype(bool),
    }
    attributes = {
        "geometry": "fan",
        "detector": "flat",
        "source_distance": float(p["distanceSourceOrigin"]),
        "detector_distance": round(p["distanceSourceDetector"] - p["distanceSourceOrigin"], 2),
        "bin_spacing": float(p["pixelSizePost"]),
        "unit": "mm, degrees",
        "segmentation_pixel_size": float(p["effectivePixelSizePost"]),
        "noise": 0.011,
        "source": f"htc2022_{name}_full.mat",
    }
    path = out / f"measured/htc2022_{name}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", track_order=True) as file:
        for key in arrays:
            file.create_dataset(
                key, data=arrays[key], compression="gzip", compression_opts=9, shuffle=True
            )
        file.attrs.update(attributes)


def write_sums(folder: Path) -> None:
    """Write the checksums of all HDF5 files below a folder, in the format of `sha256sum`."""
    paths = sorted(folder.rglob("*.h5"))
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in paths
    ]
    (folder / SUMS).write_text("".join(lines))


def main() -> None:
    """Write all samples."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the sources")
    parser.add_argument("--out", type=Path, default=HERE, help="folder (default: this one)")
    args = parser.parse_args()
    for split, volumes in BRAIN.items():
        for name, slices in volumes.items():
            write_brain(args.data, args.out, split, name, slices)
    for split, people in CT_PEOPLE.items():
        for person in people:
            write_ct(args.data, args.out, split, person)
    for series, chosen in CT_TRAIN.items():
        write_ct_train(args.data, args.out, series, chosen)
    write_kspace(args.data, args.out)
    for name in FAN_OBJECTS:
        write_fan(args.data, args.out, name)
    write_sums(args.out)


if __name__ == "__main__":
    main()
