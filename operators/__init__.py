"""Measurement models: linear operators with exact adjoints, sampling masks, linear solvers.

Imports nothing else of the project. A new operator is one file and one line in `OPERATORS`.
"""

from operators.base import LinearOperator
from operators.batch import BatchGenerator
from operators.ct import ParallelBeamCT
from operators.ct_study import StudyParallelBeamCT
from operators.fan_beam import FanBeamCT
from operators.function import FunctionOperator, check_adjoint
from operators.inpainting import Inpainting
from operators.mri import SingleCoilMRI
from operators.multicoil import MultiCoilMRI
from operators.non_cartesian import NonCartesianMRI
from operators.soft_sense import SoftSenseMRI
from operators.superresolution import SuperResolution
from operators.unmeasured import Unmeasured
from operators.whitened import Whitened

OPERATORS = {
    "mri": SingleCoilMRI,
    "multicoil_mri": MultiCoilMRI,
    "soft_sense_mri": SoftSenseMRI,
    "ct": ParallelBeamCT,
    "study_ct": StudyParallelBeamCT,
    "fan_ct": FanBeamCT,
    "nufft": NonCartesianMRI,
    "inpainting": Inpainting,
    "superresolution": SuperResolution,
    "unmeasured": Unmeasured,
    "whitened": Whitened,
}

__all__ = [
    "OPERATORS",
    "BatchGenerator",
    "FanBeamCT",
    "FunctionOperator",
    "Inpainting",
    "LinearOperator",
    "MultiCoilMRI",
    "NonCartesianMRI",
    "ParallelBeamCT",
    "SingleCoilMRI",
    "SoftSenseMRI",
    "StudyParallelBeamCT",
    "SuperResolution",
    "Unmeasured",
    "Whitened",
    "check_adjoint",
]
