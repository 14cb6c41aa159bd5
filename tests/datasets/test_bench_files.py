"""Files of other programs and laboratories: BART, MATLAB, twix, TIFF, Helsinki, LoDoPaB."""

from importlib.util import find_spec

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

from datasets import bart
from datasets.array_layout import KSPACE, SINOGRAM
from datasets.measured_files import open_measurement
from datasets.sample import DataError
from tests.helpers.data_writers import truncate
from tests.helpers.reconstruct_inputs import image, kspace_of

needs_twix = pytest.mark.skipif(not find_spec("twixtools"), reason="twixtools is not installed")


def scan(slices=2, coils=3, shape=(12, 10), seed=0):
    rng = np.random.default_rng(seed)
    size = (slices, coils, *shape)
    return (rng.standard_normal(size) + 1j * rng.standard_normal(size)).astype(np.complex64)


def concentrated(slices=2, coils=3):
    """K-space of an image, by coils of different weight."""
    one = kspace_of(image())
    weights = np.arange(1, coils + 1)[:, None, None]
    return np.stack([one * weights * (s + 1) for s in range(slices)]).astype(np.complex64)


# ------------------------------------------------------------------------------------------- BART


def test_bart_files_in_and_out(tmp_path):
    kspace = scan()
    bart.write_cfl(tmp_path / "k.cfl", bart.kspace_to_bart(kspace))
    header = (tmp_path / "k.hdr").read_text().split("\n")
    assert header[0] == "# Dimensions"
    assert header[1].split() == ["12", "10", "1", "3", *["1"] * 9, "2", "1", "1"]
    first = np.fromfile(tmp_path / "k.cfl", np.complex64)[:2]
    np.testing.assert_array_equal(first, kspace[0, 0, :2, 0])  # the first dimension is fastest
    for name in ("k.cfl", "k.hdr"):
        opened = open_measurement(tmp_path / name)
        assert (opened.kind, opened.shape) == (KSPACE, (2, 3, 12, 10))
        np.testing.assert_array_equal(opened.read(1), kspace[1])
    maps = bart.maps_from_bart(tmp_path / "k.cfl", bart.read_cfl(tmp_path / "k.cfl"))
    np.testing.assert_array_equal(maps, kspace)
    # a slice encoded along the second and third dimension, as of a volume
    bart.write_cfl(tmp_path / "v.cfl", np.moveaxis(kspace[0], 0, -1)[None])
    np.testing.assert_array_equal(open_measurement(tmp_path / "v.cfl").read(0), kspace[0])


def test_bart_files_that_do_not_fit(tmp_path):
    bart.write_cfl(tmp_path / "a.cfl", np.ones((4, 5, 6, 2), np.complex64) * 1j)
    with pytest.raises(DataError, match=r"three encoded dimensions .*bart fft"):
        open_measurement(tmp_path / "a.cfl")
    bart.write_cfl(tmp_path / "b.cfl", np.ones((4, 5, 1, 2, 2, 3), np.complex64) * 1j)
    with pytest.raises(DataError, match="2 along dimension 4, 3 along dimension 5"):
        open_measurement(tmp_path / "b.cfl")
    with pytest.raises(DataError, match="one set of coil maps, got 2"):
        bart.maps_from_bart(tmp_path / "b.cfl", bart.read_cfl(tmp_path / "b.cfl"))
    bart.write_cfl(tmp_path / "c.cfl", np.ones((4, 5), np.complex64))
    with pytest.raises(DataError, match="got real numbers"):
        open_measurement(tmp_path / "c.cfl")
    truncate(tmp_path / "c.cfl")
    with pytest.raises(DataError, match=r"80 bytes where c.hdr says 160, of \(4, 5\)"):
        open_measurement(tmp_path / "c.cfl")
    (tmp_path / "c.hdr").write_text("nothing")
    with pytest.raises(DataError, match="a BART header"):
        open_measurement(tmp_path / "c.cfl")
    (tmp_path / "c.hdr").unlink()
    with pytest.raises(DataError, match=r"c\.hdr: not found; .* pairs"):
        open_measurement(tmp_path / "c.cfl")
    with pytest.raises(DataError, match=r"expected a trajectory \(3, positions, lines\)"):
        bart.trajectory_from_bart(tmp_path / "a.cfl", bart.read_cfl(tmp_path / "a.cfl"))


# ----------------------------------------------------------------------------------------- MATLAB


def write_mat73(path, **arrays):
    """As MATLAB writes it: HDF5 behind 512 bytes, axes reversed, complex numbers as two fields."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_group("#refs#")
        for name, array in arrays.items():
            array = np.asarray(array).T
            if array.dtype.kind == "c":
                pair = np.zeros(array.shape, [("real", "<f8"), ("imag", "<f8")])
                pair["real"], pair["imag"] = array.real, array.imag
                array = pair
            file[name] = array
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))


def write_mat5(path, **arrays):
    scipy.io.savemat(path, arrays)


@pytest.mark.parametrize("write", [write_mat5, write_mat73])
def test_matlab_files(tmp_path, write):
    path, kspace = tmp_path / "a.mat", concentrated()
    write(path, kspace=kspace, mask=np.ones((32, 32)))
    opened = open_measurement(path)
    assert (opened.kind, opened.shape) == (KSPACE, (2, 3, 32, 32))
    np.testing.assert_allclose(opened.read(1), kspace[1], rtol=1e-6)
    assert opened.extras["mask"].shape == (32, 32)
    # (H, W, coils, slices), and any name
    write(path, data=np.ascontiguousarray(kspace.transpose(2, 3, 1, 0)))
    opened = open_measurement(path)
    np.testing.assert_allclose(opened.read(1), kspace[1], rtol=1e-6)
    assert "taken as (H, W, coils, slices)" in opened.notes[0]
    write(path, sinogram=np.arange(35.0).reshape(5, 7), angles=np.arange(5.0)[None])
    opened = open_measurement(path)
    assert (opened.kind, opened.shape) == (SINOGRAM, (1, 5, 7))
    np.testing.assert_array_equal(opened.read(0), np.arange(35.0).reshape(5, 7))
    assert opened.extras["angles"].shape == (5,)
    write(path, p=np.ones((2, 3)), q=np.ones((4, 5)))
    with pytest.raises(DataError, match=r"got the arrays \['p \(2, 3\)', 'q \(4, 5\)'\]"):
        open_measurement(path)
    truncate(path)
    with pytest.raises(DataError, match="intact"):
        open_measurement(path)


def helsinki(**parameters):
    given = {
        "distanceSourceOrigin": 410.66,
        "distanceSourceDetector": 553.74,
        "distanceUnit": "mm",
        "angles": np.arange(0, 360, 40.0),
        "pixelSize": 0.05,
        "pixelSizePost": 0.2,
    } | parameters
    sinogram = np.random.default_rng(0).random((9, 40))
    return {"CtDataFull": {"type": "2D", "sinogram": sinogram, "parameters": given}}


def test_the_geometry_of_helsinkis_files(tmp_path):
    path, content = tmp_path / "a.mat", helsinki()
    scipy.io.savemat(path, content)
    opened = open_measurement(path)
    assert (opened.kind, opened.shape) == (SINOGRAM, (1, 9, 40))
    np.testing.assert_allclose(opened.read(0), content["CtDataFull"]["sinogram"], rtol=1e-6)
    np.testing.assert_array_equal(opened.extras["angles"], np.arange(0, 360, 40.0))
    expected = {"source_distance": 410.66, "detector_distance": 143.08, "bin_spacing": 0.2}
    assert {k: opened.geometry[k] for k in expected} == pytest.approx(expected)
    assert opened.geometry["geometry"] == "fan"
    assert opened.geometry["pixel_size"] == pytest.approx(0.14832, rel=1e-4)
    scipy.io.savemat(path, helsinki(angles=np.arange(8.0)))
    with pytest.raises(DataError, match="an angle for each of 8 views"):
        open_measurement(path)
    content = helsinki()
    del content["CtDataFull"]["parameters"]["distanceSourceOrigin"]
    scipy.io.savemat(path, content)
    with pytest.raises(DataError, match="expected the parameters distanceSourceOrigin"):
        open_measurement(path)


def test_lodopabs_observations(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["data"] = np.full((2, 1000, 513), 0.25, np.float32)
    opened = open_measurement(tmp_path / "a.hdf5")
    assert opened.shape == (2, 1000, 513)
    assert opened.read(1).max() == 0.25
    assert opened.extras["angles"][[0, -1]] == pytest.approx([0.09, 179.91])
    ratio = opened.geometry["bin_spacing"] / opened.geometry["pixel_size"]
    assert ratio == pytest.approx(362 * 2**0.5 / 513)


def test_tiff_stacks(tmp_path):
    stack = np.random.default_rng(0).random((4, 5, 7)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    opened = open_measurement(tmp_path / "a.tif")
    assert (opened.kind, opened.shape) == (SINOGRAM, (4, 5, 7))
    np.testing.assert_array_equal(opened.read(2), stack[2])
    views = open_measurement(tmp_path / "a.tif", first_axis="views")  # radiographs
    assert views.shape == (5, 4, 7)
    np.testing.assert_array_equal(views.read(2), stack[:, 2])
    truncate(tmp_path / "a.tif", 0.6)
    with pytest.raises(DataError, match="intact TIFF"):
        open_measurement(tmp_path / "a.tif")


# ------------------------------------------------------------------------------------------- twix


def write_twix(path, kspace, *, centre, **counters):
    """Slices (S, C, X, Y) as twixtools writes them, with a noise scan first."""
    import twixtools
    from twixtools.mdb import Mdb_local

    count, _, x, y = kspace.shape
    lines = [Mdb_local(1e3 * kspace[0, :, :, 0])]
    lines[0].add_flag("NOISEADJSCAN")
    for z in range(count):
        for row in range(y):
            line = Mdb_local(kspace[z, :, :, row])
            line.mdh.Counter.Lin, line.mdh.Counter.Sli = row, z
            line.mdh.CenterCol, line.mdh.CenterLin = x // 2, centre
            lines.append(line)
    for name, value in counters.items():
        setattr(lines[-1].mdh.Counter, name, value)
    header = np.frombuffer(np.array([8, 4], "<u4").tobytes(), "S1").copy()
    twixtools.write_twix([{"hdr_str": header, "mdb": lines}], str(path))
    return path


@needs_twix
def test_twix_files(tmp_path):
    kspace = scan(shape=(12, 8))
    opened = open_measurement(write_twix(tmp_path / "a.dat", kspace, centre=4))
    assert opened.shape == (2, 3, 12, 8)
    np.testing.assert_allclose(opened.read(1), kspace[1], rtol=1e-6)
    # a partial acquisition: lines before the centre are missing
    part = open_measurement(write_twix(tmp_path / "b.dat", kspace, centre=2))
    assert part.shape == (2, 3, 12, 12)
    np.testing.assert_allclose(part.read(0)[..., 4:], kspace[0], rtol=1e-6)
    assert not part.read(0)[..., :4].any()
    path = write_twix(tmp_path / "c.dat", kspace, centre=4, Eco=1)
    with pytest.raises(DataError, match="2 values of the counter 'echo'"):
        open_measurement(path)
    truncate(tmp_path / "a.dat", 0.4)
    with pytest.raises(DataError, match="intact twix"):
        open_measurement(tmp_path / "a.dat")


@pytest.mark.skipif(find_spec("twixtools") is not None, reason="twixtools is installed")
def test_twix_files_name_the_missing_package(tmp_path):
    (tmp_path / "a.dat").write_bytes(np.array([0, 1, 0, 0], "<u4").tobytes())
    with pytest.raises(DataError, match=r"twixtools.*pip install '\.\[twix\]'"):
        open_measurement(tmp_path / "a.dat")
