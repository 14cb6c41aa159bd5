"""The original study's CT data consistency, which has no exact adjoint."""

from torch import Tensor

from operators.ct import ParallelBeamCT


class StudyParallelBeamCT(ParallelBeamCT):
    """Parallel-beam CT with the data consistency of the original study's code.

    `correct` is x + weight * B (y - A x) / (B A 1) with B = `study_adjoint`, the unfiltered,
    interpolating back-projection scaled by pi / (2 n). `forward` and `adjoint` are an exact pair.
    Arguments and errors are those of `ParallelBeamCT`.
    """

    def _correct(self, x: Tensor, y: Tensor, weight: float) -> Tensor:
        sums = self.study_adjoint(self.row_sums(x.dtype))  # B A 1
        step = self.study_adjoint(y - self._forward(x))
        return x + weight * (step / sums.clamp(min=1e-12)).where(sums > 1e-12, 0.0)
