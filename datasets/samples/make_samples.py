"""Make the embedded brain and head CT samples from two freely redistributable Debian packages.

Download the sources (no root needed), then run from the top of the checkout::

    apt-get download mricron-data invesalius-examples
    for deb in *.deb; do dpkg -x "$deb" extracted; done
    python -m datasets.samples.make_samples \
        --brain extracted/usr/share/mricron/templates/ch2.nii.gz \
        --head extracted/usr/share/doc/invesalius-examples/examples/Cranium.inv3

Needs nibabel (the extra `io`). The result depends only on the sources; README.md in this folder
describes it.
"""

import argparse
import plistlib
import tarfile
from pathlib import Path

import h5py
import nibabel
import numpy as np
import torch
from skimage.transform import resize

from operators.fourier import fft2c

HERE = Path(__file__).parent

# Axial slices (index = mm) of Colin 27: slabs of 4 mm for training, pairs for evaluation, 5 mm
# between the slabs of different splits. Below 62 the volume cuts off part of the head.
BRAIN_SLICES = {
    "train": (62, 64, 66, 78, 80, 82, 94, 96, 98, 110, 112, 114, 126, 128, 130),
    "val": (87, 89, 119, 121),
    "test": (71, 73, 103, 105, 135, 137),
}
BRAIN_SIZE = 256  # pixels of 1 mm: the volume's own grid, padded with its zero background
BRAIN_UNIT = 2.0**-20  # one grey level; a power of two, so that grey levels stay exact
KSPACE_STEP = 1 / 16  # grey levels; far below the source's own rounding to integers

# Axial slices of the head CT, 1.5 mm apart; at least 6 mm between slices of different splits.
HEAD_SLICES = {
    "train": (36, 38, 50, 52, 64, 66, 78, 80),
    "validation": (44, 72, 86),
    "test": (30, 32, 58, 92, 94),
}
# LoDoPaB's attenuation scale (Leuschner et al. 2021, section "Methods"), 1/m.
MU_WATER, MU_AIR = 20.0, 0.02
MU_MAX = 3071 * (MU_WATER - MU_AIR) / 1000 + MU_WATER  # 81.35858
LODOPAB_SIZE = 362
LODOPAB_PIXEL = 260 / LODOPAB_SIZE  # mm: LoDoPaB's images show 26 cm x 26 cm
HEAD_STEP = 2.0**-11  # 0.04 / m, about 2 HU: below the scan's noise

HEADER = """<?xml version="1.0" encoding="utf-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <encoding>
  <encodedSpace>
   <matrixSize><x>{n}</x><y>{n}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>{n}</x><y>{n}</y><z>1</z></fieldOfView_mm>
  </encodedSpace>
  <reconSpace>
   <matrixSize><x>{n}</x><y>{n}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>{n}</x><y>{n}</y><z>1</z></fieldOfView_mm>
  </reconSpace>
  <encodingLimits>
   <kspace_encoding_step_1>
    <minimum>0</minimum><maximum>{last}</maximum><center>{centre}</center>
   </kspace_encoding_step_1>
  </encodingLimits>
  <trajectory>cartesian</trajectory>
 </encoding>
</ismrmrdHeader>
"""


def quantise(x: np.ndarray, step: float) -> np.ndarray:
    """`x` rounded to multiples of `step`, which makes it compressible."""
    if np.iscomplexobj(x):
        return quantise(x.real, step) + 1j * quantise(x.imag, step)
    return np.round(x / step) * step


def brain_slice(volume: np.ndarray, index: int) -> np.ndarray:
    """Axial slice of a (right, anterior, superior) volume in radiological view: (256, 256).

    Anterior is up, the patient's right is on the left. The slice is padded, not resampled.
    """
    image = volume[::-1, ::-1, index].T  # (anterior to posterior, right to left)
    rows, columns = ((BRAIN_SIZE - n) // 2 for n in image.shape)
    padded = np.zeros((BRAIN_SIZE, BRAIN_SIZE))
    padded[rows : rows + image.shape[0], columns : columns + image.shape[1]] = image
    return padded


def smooth_phase(size: int, index: int) -> np.ndarray:
    """Second-order polynomial phase in radians that drifts with the slice: (size, size)."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    return 0.02 * index + 1.1 * x - 0.8 * y + 0.9 * x * y + 0.7 * y**2 - 0.4 * x**2


def simulate_kspace(image: np.ndarray, index: int) -> np.ndarray:
    """Noise-free single-coil k-space of a magnitude image with a smooth phase, complex64."""
    signal = image * np.exp(1j * smooth_phase(image.shape[0], index))
    kspace = fft2c(torch.from_numpy(signal)).numpy()
    return (quantise(kspace, KSPACE_STEP) * BRAIN_UNIT).astype(np.complex64)


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


def write_brain(path: Path, volume: np.ndarray, slices: tuple[int, ...], kspace: bool) -> None:
    """Write a fastMRI-style file: `reconstruction_rss`, header, attributes, optionally `kspace`."""
    images = np.stack([brain_slice(volume, index) for index in slices])  # (n, 256, 256)
    rss = (images * BRAIN_UNIT).astype(np.float32)
    header = HEADER.format(n=BRAIN_SIZE, last=BRAIN_SIZE - 1, centre=BRAIN_SIZE // 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", track_order=True) as file:
        file.create_dataset("ismrmrd_header", data=header.encode())
        write_dataset(file, "reconstruction_rss", rss)
        if kspace:
            simulated = [simulate_kspace(*pair) for pair in zip(images, slices, strict=True)]
            write_dataset(file, "kspace", np.stack(simulated))
        file.attrs["acquisition"] = "AXT1"
        file.attrs["max"] = float(rss.max())
        file.attrs["norm"] = float(np.linalg.norm(rss.astype(np.float64)))
        file.attrs["patient_id"] = "colin27"
        file.attrs["simulated_kspace"] = "smooth second-order phase, no noise, one coil"
        file.attrs["source"] = "Colin 27 average (ch2.nii.gz of mricron-data), see README.md"
        file.attrs["source_slices"] = np.asarray(slices, dtype=np.int32)


def read_head(path: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """HU volume (slices, rows, columns) and spacing (mm; x, y, z) of an InVesalius project."""
    with tarfile.open(path) as tar:
        members = {Path(member.name).name: member for member in tar.getmembers()}
        plist = plistlib.load(tar.extractfile(members["main.plist"]))
        matrix = tar.extractfile(members[plist["matrix"]["filename"]]).read()
    volume = np.frombuffer(matrix, dtype=plist["matrix"]["dtype"])
    return volume.reshape(plist["matrix"]["shape"]), tuple(plist["spacing"])


def head_slice(volume: np.ndarray, spacing: tuple[float, ...], index: int) -> np.ndarray:
    """Axial slice in LoDoPaB's scale, field of view and orientation: (362, 362) in [0, 1].

    InVesalius stores rows from posterior to anterior, DICOM from anterior to posterior, and LoDoPaB
    the transpose of DICOM's, so that the nose is up after the reader's rotation by -90 degrees.
    """
    hu = volume[index, ::-1].astype(np.float64)  # as in DICOM
    mu = np.clip((hu * (MU_WATER - MU_AIR) / 1000 + MU_WATER) / MU_MAX, 0, 1)
    shape = tuple(round(n * spacing[0] / LODOPAB_PIXEL) for n in mu.shape)
    mu = resize(mu, shape, order=3)  # to smaller pixels, so that aliasing cannot occur
    pad = [((LODOPAB_SIZE - n) // 2, (LODOPAB_SIZE - n + 1) // 2) for n in shape]
    return quantise(np.clip(np.pad(mu, pad), 0, 1), HEAD_STEP).T


def write_head(path: Path, volume: np.ndarray, spacing: tuple, slices: tuple[int, ...]) -> None:
    """Write a LoDoPaB-style file: `data` (n, 362, 362) float32."""
    data = np.stack([head_slice(volume, spacing, index) for index in slices])
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", track_order=True) as file:
        write_dataset(file, "data", data.astype(np.float32))
        file.attrs["source"] = "Cranium.inv3 of invesalius-examples, see README.md"
        file.attrs["source_slices"] = np.asarray(slices, dtype=np.int32)


def main() -> None:
    """Write the sets whose sources are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--brain", type=Path, help="ch2.nii.gz of mricron-data")
    parser.add_argument("--head", type=Path, help="Cranium.inv3 of invesalius-examples")
    parser.add_argument("--out", type=Path, default=HERE, help="folder (default: this one)")
    args = parser.parse_args()
    if args.brain:
        volume = np.asarray(nibabel.as_closest_canonical(nibabel.load(args.brain)).dataobj)
        for split, slices in BRAIN_SLICES.items():
            path = args.out / f"brain/singlecoil_{split}/file_brain_colin27_{split}.h5"
            write_brain(path, volume, slices, kspace=split != "train")
    if args.head:
        volume, spacing = read_head(args.head)
        for split, slices in HEAD_SLICES.items():
            path = args.out / f"head_ct/ground_truth_{split}_000.hdf5"
            write_head(path, volume, spacing, slices)


if __name__ == "__main__":
    main()
