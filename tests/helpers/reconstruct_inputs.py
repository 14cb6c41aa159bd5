"""Small inputs of every kind for the tests of `reconstruct`: phantoms, ISMRMRD files, a prior."""

import h5py
import numpy as np
import torch
from ml_collections import ConfigDict

from models import create_model
from models.checkpoint import save
from operators.fourier import fft2c

FLAG = {"noise": 19, "calibration": 20, "reverse": 22}


def image(shape=(32, 32), seed=0):
    """Blocks and blobs in [0, 1], (H, W) float32."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    result = 0.3 * ((x / 0.8) ** 2 + (y / 0.9) ** 2 < 1)
    for cy, cx, r in rng.uniform((-0.4, -0.4, 0.1), (0.4, 0.4, 0.3), (4, 3)):
        result = result + 0.15 * (np.hypot(x - cx, y - cy) < r)
    return (result / result.max()).astype(np.float32)


def phase(shape=(32, 32)):
    """exp(i phi), smooth."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    return np.exp(1j * (0.5 + 1.5 * x - y + 0.8 * x * y))


def kspace_of(images):
    """Centred orthonormal DFT of (..., H, W)."""
    return fft2c(torch.from_numpy(np.ascontiguousarray(images))).numpy().astype(np.complex64)


def lines(width=32, every=3, centre=10):
    """A mask (W,) of columns."""
    mask = np.arange(width) % every == 0
    mask[width // 2 - centre // 2 : width // 2 + centre // 2] = True
    return mask


def write_prior(path, config, *, depth=2):
    """An untrained network, whose score is 0: its last layer starts at 0."""
    config = ConfigDict(config.to_dict())
    config.model.ch_mult = (1,) * depth
    torch.manual_seed(0)
    net = create_model(config)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    for name in ("output.weight", "output.bias"):
        state[name] = torch.zeros_like(state[name])
    save(
        path,
        {
            "config": config.to_dict(),
            "model": state,
            "ema": state,
            "step": config.training.num_steps,
        },
    )
    return path


XML = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <encoding>
  <trajectory>{trajectory}</trajectory>
  <encodedSpace>
   <matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>{fov_x}</x><y>{fov_y}</y><z>5</z></fieldOfView_mm>
  </encodedSpace>
  <reconSpace>
   <matrixSize><x>{recon_x}</x><y>{y}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>{recon_fov_x}</x><y>{fov_y}</y><z>5</z></fieldOfView_mm>
  </reconSpace>
  <encodingLimits><kspace_encoding_step_1>
   <minimum>0</minimum><maximum>{last}</maximum><center>{centre}</center>
  </kspace_encoding_step_1></encodingLimits>
  <parallelImaging><calibrationMode>{calibration}</calibrationMode></parallelImaging>
 </encoding>
</ismrmrdHeader>
"""
COUNTERS = np.dtype(
    [
        (name, "<u2")
        for name in (
            *("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast"),
            *("phase", "repetition", "set", "segment"),
        )
    ]
    + [("user", "<u2", (8,))]
)
HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("scan_counter", "<u4"),
        ("acquisition_time_stamp", "<u4"),
        ("physiology_time_stamp", "<u4", (3,)),
        ("number_of_samples", "<u2"),
        ("available_channels", "<u2"),
        ("active_channels", "<u2"),
        ("channel_mask", "<u8", (16,)),
        ("discard_pre", "<u2"),
        ("discard_post", "<u2"),
        ("center_sample", "<u2"),
        ("encoding_space_ref", "<u2"),
        ("trajectory_dimensions", "<u2"),
        ("sample_time_us", "<f4"),
        *((name, "<f4", (3,)) for name in ("position", "read_dir", "phase_dir", "slice_dir")),
        ("patient_table_position", "<f4", (3,)),
        ("idx", COUNTERS),
        ("user_int", "<i4", (8,)),
        ("user_float", "<f4", (8,)),
    ]
)  # 340 bytes, the format's own layout


def write_ismrmrd(
    path, kspace, mask, *, trajectory="cartesian", calibration="embedded", flags=(), places=None,
    **counters
):  # fmt: skip
    """Slices (S, C, X, Y) as a scanner sends them: readout by readout, with a noise scan first.

    The first sample of each readout is discarded, and the first line comes twice. mask: (Y,).
    flags: names for the last line. counters: of the last line. places: (Y, X, 2) trajectory; lines
    are then taken once.
    """
    count, coils, x, y = kspace.shape
    assert HEAD.itemsize == 340
    record = np.dtype(
        [
            ("head", HEAD),
            ("traj", h5py.vlen_dtype(np.float32)),
            ("data", h5py.vlen_dtype(np.float32)),
        ]
    )
    measured = np.flatnonzero(mask)
    twice = () if places is not None else (measured[0],)
    order = [(z, line) for z in range(count) for line in (*twice, *measured)]
    records = np.zeros(len(order) + 1, dtype=record)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(2 * coils * 7).astype(np.float32)
    records[0]["head"]["flags"] = 1 << (FLAG["noise"] - 1)
    records[0]["head"]["number_of_samples"], records[0]["head"]["active_channels"] = 7, coils
    records[0]["data"], records[0]["traj"] = noise, np.zeros(0, np.float32)
    seen = set()
    for i, (z, line) in enumerate(order, 1):
        head = records[i]["head"]
        head["number_of_samples"], head["active_channels"] = x + 1, coils
        head["discard_pre"], head["center_sample"] = 1, x // 2 + 1
        head["idx"]["slice"], head["idx"]["kspace_encode_step_1"] = z, line
        # the two takes of the first line differ; their mean is right
        wobble = 0.5 if line in twice else 0.0
        values = kspace[z, :, :, line] * (1 + (-wobble if (z, line) in seen else wobble))
        seen.add((z, line))
        values = np.concatenate([np.full((coils, 1), 9e9), values], axis=1).astype(np.complex64)
        records[i]["data"] = np.ascontiguousarray(values).view(np.float32).ravel()
        records[i]["traj"] = np.zeros(0, np.float32)
        if places is not None:
            head["trajectory_dimensions"] = 2
            here = np.concatenate([np.full((1, 2), 7.0), places[line]])
            records[i]["traj"] = here.astype(np.float32).ravel()
    for name in flags:
        records[-1]["head"]["flags"] |= 1 << (FLAG[name] - 1)
    for name, value in counters.items():
        records[-1]["head"]["idx"][name] = value
    xml = XML.format(
        trajectory=trajectory, x=x, y=y, fov_x=2.0 * x, fov_y=2.0 * y, recon_x=x // 2,
        recon_fov_x=1.0 * x, last=y - 1, centre=y // 2, calibration=calibration,
    )  # fmt: skip
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[xml.encode()], dtype=h5py.string_dtype())
        group.create_dataset("data", data=records)
    return path
