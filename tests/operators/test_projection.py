"""`projected_gain`: conditioning by a covariance, and by a matrix that is only nearly one."""

import pytest
import torch

from operators.projection import projected_gain

pytestmark = pytest.mark.usefixtures("one_thread")
N, M = 24, 10  # numbers of an image, and measured ones


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def covariances(count, seed=0):
    """Of eigenvalues from 1e-3 to 1: ``(count, N, N)``."""
    vectors = torch.linalg.qr(normal(count, N, N, seed=seed))[0]
    return (vectors * torch.logspace(-3, 0, N, dtype=torch.float64)) @ vectors.mT


def gain(v, a, rhs, variance, **options):
    """V A^T (A V A^T + variance)^-1 rhs by products; v ``(B, N, N)``, a ``(M, N)``."""
    calls = []

    def product(u):
        calls.append(u)
        image = (v @ (u @ a)[..., None])[..., 0]
        return image @ a.T, image

    given = {
        "variance": variance,
        "largest": torch.ones(len(rhs), dtype=torch.float64),
        "max_products": M,
        "length": torch.zeros(len(rhs), dtype=torch.float64),
    }
    found = projected_gain(product, rhs, lambda r: r, **(given | options))
    return found, len(calls)


def dense(v, a, rhs, variance):
    eye = torch.eye(len(a), dtype=torch.float64)
    inverse = torch.linalg.inv(a @ v @ a.T + variance[:, None, None] * eye)
    return (v @ a.T @ inverse @ rhs[..., None])[..., 0]


@pytest.mark.parametrize("variance", [0.0, 0.01])
def test_with_a_covariance_it_is_exact(variance):
    v, a, rhs = covariances(3), normal(M, N, seed=1), normal(3, M, seed=2)
    variance = torch.full((3,), variance, dtype=torch.float64)
    found, products = gain(v, a, rhs, variance)
    assert products <= M
    torch.testing.assert_close(found, dense(v, a, rhs, variance), rtol=1e-8, atol=1e-8)


def test_each_iterate_is_that_of_conjugate_gradients():
    v, a, rhs = covariances(1), normal(M, N, seed=1), normal(1, M, seed=2)
    matrix = (a @ v @ a.T)[0] + 0.1 * torch.eye(M, dtype=torch.float64)
    x, r = torch.zeros(M, dtype=torch.float64), rhs[0]
    p = r
    for k in range(1, 5):
        step = (r @ r) / (p @ matrix @ p)
        x, left = x + step * p, r - step * (matrix @ p)
        p, r = left + (left @ left) / (r @ r) * p, left
        found, _ = gain(v, a, rhs, torch.full((1,), 0.1, dtype=torch.float64), max_products=k)
        torch.testing.assert_close(found[0], v[0] @ a.T @ x, rtol=1e-6, atol=1e-8)


def test_what_is_no_covariance_does_less_harm():
    """A fifth of it antisymmetric, some eigenvalues negative: the plain solution is far off."""
    count = 40
    v, a = covariances(count), normal(M, N, seed=1) / N**0.5
    skew = normal(count, N, N, seed=3)
    skew = skew - skew.mT
    size = 0.2 * v.flatten(1).norm(dim=1) / skew.flatten(1).norm(dim=1)
    lowered = 0.05 * torch.eye(N, dtype=torch.float64)  # eigenvalues down to -0.049
    spoilt = v + size[:, None, None] * skew - lowered
    variance = torch.full((count,), 1e-3, dtype=torch.float64)
    drawn = (torch.linalg.cholesky(v) @ normal(count, N, 1, seed=5))[..., 0]
    rhs = drawn @ a.T + variance[:, None].sqrt() * normal(count, M, seed=2)
    wanted = dense(v, a, rhs, variance)

    def away(found):
        return (found - wanted).norm(dim=1) / wanted.norm(dim=1)

    plain = away(dense(spoilt, a, rhs, variance))
    assert plain.median() > 2
    assert plain.max() > 30
    for products in (2, 5, 10):
        found = away(gain(spoilt, a, rhs, variance, max_products=products)[0])
        assert found.median() < 1
        assert found.max() < 12


def test_an_antisymmetric_part_does_not_count_in_the_inverse():
    v = torch.tensor([[[1.0, 0.4], [-0.4, 1.0]]], dtype=torch.float64)
    rhs, a = torch.tensor([[1.0, 2.0]], dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    found, _ = gain(v, a, rhs, torch.full((1,), 0.5, dtype=torch.float64), max_products=2)
    torch.testing.assert_close(found[0], v[0] @ rhs[0] / 1.5)


def check_directions_that_no_covariance_has(gain):
    v = torch.diag_embed(torch.tensor([[1.0, 0.0, 0.3]], dtype=torch.float64))
    v[0, 2, 1] = 1.0  # C of the second number is long, though its own variance is 1e-6
    v[0, 1, 1] = 1e-6
    rhs, a = torch.tensor([[1.0, 1.0]], dtype=torch.float64), torch.eye(3, dtype=torch.float64)[:2]
    variance = torch.zeros(1, dtype=torch.float64)
    found, _ = gain(v, a, rhs, variance, max_products=2)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64))
    large = torch.full((1,), 1e6, dtype=torch.float64)
    assert gain(v, a, rhs, variance, max_products=2, largest=large)[0].abs().max() > 1e5


def test_directions_that_no_covariance_has_are_left_out():
    check_directions_that_no_covariance_has(gain)


def check_that_samples_are_independent(gain):
    v, a, rhs = covariances(3), normal(M, N, seed=1), normal(3, M, seed=2)
    rhs[1] = 0.0
    variance = torch.tensor([0.0, 0.1, 0.5], dtype=torch.float64)
    length = torch.tensor([1e-3, 1e-3, 0.3], dtype=torch.float64)
    together, products = gain(v, a, rhs, variance, length=length)
    assert (together[1] == 0).all()
    counts = []
    for b in range(3):
        one = slice(b, b + 1)
        alone, count = gain(v[one], a, rhs[one], variance[one], length=length[one])
        torch.testing.assert_close(alone, together[one], rtol=1e-10, atol=1e-12)
        counts.append(count)
    assert counts[1] == 1
    assert counts[2] < counts[0] == products


def test_samples_are_independent_and_stop_on_their_own():
    check_that_samples_are_independent(gain)


def test_complex_numbers_are_pairs_of_real_ones():
    v, a = covariances(1), normal(M, N, seed=1)
    rhs = torch.complex(normal(1, M, seed=2), normal(1, M, seed=3))

    def product(u):
        image = (v.to(u.dtype) @ (u @ a.to(u.dtype))[..., None])[..., 0]
        return image @ a.T.to(u.dtype), image

    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    given = {"variance": 0.1 * one, "largest": one, "max_products": 2 * M, "length": none}
    found = projected_gain(product, rhs, lambda r: r, **given)
    torch.testing.assert_close(found.real, dense(v, a, rhs.real, 0.1 * one), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.imag, dense(v, a, rhs.imag, 0.1 * one), rtol=1e-6, atol=1e-8)
