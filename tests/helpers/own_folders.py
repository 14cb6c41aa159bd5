"""Small results folders of `reconstruct.py`."""

import json

import numpy as np
import torch
from ml_collections import ConfigDict

from configs import load_config
from evaluation.own.folder import reconstruct_file
from tests.conftest import ROOT
from tests.helpers.reconstruct_inputs import image, kspace_of, lines, phase, write_prior

UNIT = 3e-6  # of the k-space, far from 1
SLICES = {"data.first_axis": "slices"}  # of `write_kspace`


def write_tiny_prior(path):
    """A network whose score is 0."""
    config = load_config(str(ROOT / "configs" / "demo.py"))
    config.model.nf, config.model.num_res_blocks = 8, 1
    return write_prior(path, config)


def settings(prior, **fields) -> ConfigDict:
    """Few steps; changes are dotted fields."""
    config = load_config(str(ROOT / "configs" / "reconstruct.py"))
    config.prior, config.sampler.num_steps = str(prior), 3
    config.update_from_flattened_dict(fields)
    return config


def reconstruct(prior, source, out, **fields):
    """The folder of a reconstruction with few steps; on one thread, which suits small images."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        reconstruct_file(settings(prior, **fields), source, out, "cpu")
    finally:
        torch.set_num_threads(threads)
    return out


def write_kspace(path, count=3, side=32, seed=0):
    """Noisy undersampled k-space (count, 1, side, side) of one coil, as npy with a slice axis."""
    images = np.stack([image((side, side), seed + number) for number in range(count)])
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((2, *images.shape))
    kspace = kspace_of(UNIT * images * phase((side, side)))
    kspace = kspace + 0.02 * UNIT * (noise[0] + 1j * noise[1])
    np.save(path, (kspace * lines(side))[:, None].astype(np.complex64))
    return path


def add_validation(folder):
    """What `validate` finds, with numbers that are made up, in a summary."""
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    methods = [
        {"method": summary["sampler"], "settings": "", "error": 0.0436, "above_noise": 0.0028},
        {"method": "tv", "settings": "weight=0.002", "error": 0.0472, "above_noise": 0.0064},
        {"method": "cg_sense", "settings": "weight=1", "error": None, "above_noise": None},
    ]
    summary["validation"] = {
        **{"part": 0.1, "left_out": "lines", "slices": ["k.npy:0"], "noise": 0.0408},
        **{"methods": methods, "chosen": {}},
    }
    path.write_text(json.dumps(summary))
    return folder
