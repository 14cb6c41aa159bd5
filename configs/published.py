"""Settings of published evaluations: fields of configs/evaluate.py with their values.

``--config=configs/evaluate.py:NAME`` starts from one; docs/published.md has the sources, what they
leave open, and the published numbers. Prior and data.root are the user's.
"""

KNEE = {
    "data.name": "fastmri",
    "data.mode": "multicoil",
    "data.split": "val",
    "data.slices": "central:10",
    "data.image_size": 320,
    "operator.name": "multicoil_mri",
}
BRAIN = KNEE | {"data.acquisition": "AXT2", "data.slices": "", "limit": 100}
SCORE_MRI = KNEE | {
    "target": "rss",
    "operator.mask": "uniform1d",
    "operator.acceleration": 4.0,
    "operator.center_fraction": 0.08,
    "sampler.name": "hybrid",
    "sampler.num_steps": 500,
}
INVERSEBENCH = KNEE | {
    "target": "mvue",
    "operator.mask": "random1d",
    "operator.maps": "known",
    "noise.sigma": 0.01,
    "sampler.name": "pnp",
    "sampler.num_steps": 50,
}
SNAP = BRAIN | {
    "target": "mvue",
    "operator.mask": "random1d",
    "operator.maps": "known",
    "noise.snr_db": 30.0,
    "sampler.name": "pnp",
    "sampler.num_steps": 50,
}
FOUR = {"operator.acceleration": 4.0, "operator.center_fraction": 0.08}
EIGHT = {"operator.acceleration": 8.0, "operator.center_fraction": 0.04}

SETTINGS = {
    "score_mri": SCORE_MRI,
    "dds_knee": SCORE_MRI | {"target": "mvue", "sampler.name": "dds", "sampler.num_steps": 50},
    "inversebench_4x": INVERSEBENCH | FOUR,
    "inversebench_8x": INVERSEBENCH | EIGHT,
    "snap_brain_4x": SNAP | FOUR,
    "snap_brain_8x": SNAP | EIGHT,
}
