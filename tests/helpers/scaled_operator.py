"""A measurement model in another unit."""

from operators import LinearOperator


class ScaledOperator(LinearOperator):
    """Another operator times a number."""

    def __init__(self, operator, factor):
        super().__init__(
            operator.domain_shape,
            operator.range_shape,
            domain_complex=operator.domain_complex,
            range_complex=operator.range_complex,
        )
        self.operator, self.factor = operator, factor

    def _forward(self, x):
        return self.factor * self.operator.forward(x)

    def _adjoint(self, y):
        return self.factor * self.operator.adjoint(y)

    def _correct(self, x, y, weight):
        return self.operator.correct(x, y / self.factor, weight)
