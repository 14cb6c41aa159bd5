"""Super-resolution: the image is measured on a coarser grid."""

from collections.abc import Sequence

from torch import Tensor

from operators.base import LinearOperator


class SuperResolution(LinearOperator):
    """Super-resolution: y is the mean of each block of factor x factor pixels.

    x is ``(B, 1, H, W)``, y is ``(B, 1, H / factor, W / factor)``. As A A^T = 1 / factor^2,
    `correct` has D = 1 / factor^2 and adds `weight` times the residual to every pixel of its
    block; a weight of 1 is the orthogonal projection onto {x : A x = y}.

    Args:
        shape: image height and width in pixels, multiples of `factor`.
        factor: side of a block in pixels.
        real: whether images are real-valued (float32, float64) or complex.

    Raises:
        ValueError: a factor below 1, or one that does not divide the shape.
    """

    direct_name = "repeated pixels"

    def __init__(self, shape: Sequence[int], factor: int, real: bool = True):
        height, width = shape
        if factor < 1:
            raise ValueError(f"expected a factor of 1 or more, got {factor}")
        if height < 1 or width < 1 or height % factor or width % factor:
            raise ValueError(
                f"expected a shape of positive multiples of {factor}, got ({height}, {width}); "
                "crop or pad the image"
            )
        super().__init__(
            (1, height, width),
            (1, height // factor, width // factor),
            domain_complex=not real,
            range_complex=not real,
        )
        self.factor = factor

    @classmethod
    def create(
        cls,
        shape: tuple[int, int],
        *,
        seed: int,
        keys: Sequence[str],
        study: bool,
        factor: int = 2,
    ) -> "SuperResolution":
        """Super-resolution operator that a config describes.

        Args:
            shape: ``(H, W)`` of the images in pixels, multiples of `factor`.
            seed: not used.
            keys: not used.
            study: not used.
            factor: side of a block in pixels.

        Raises:
            ValueError: a factor below 1, or one that does not divide the shape.
        """
        return cls(shape, factor)

    def _direct(self, y: Tensor) -> Tensor:
        return self._upsample(y)

    def _forward(self, x: Tensor) -> Tensor:
        _, rows, columns = self.range_shape
        blocks = x.reshape(-1, 1, rows, self.factor, columns, self.factor)
        return blocks.mean((3, 5))  # (B, 1, H / factor, W / factor)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._upsample(y) / self.factor**2

    def _correct(self, x: Tensor, y: Tensor, weight: float) -> Tensor:
        return x + weight * self._upsample(y - self._forward(x))

    def _upsample(self, y: Tensor) -> Tensor:
        repeated = y.repeat_interleave(self.factor, dim=-2)
        return repeated.repeat_interleave(self.factor, dim=-1)  # (B, 1, H, W)
