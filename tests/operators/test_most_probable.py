"""`most_probable_change`: conditioning by products with A^H A and what is nearly a covariance."""

import pytest
import torch

from operators.most_probable import most_probable_change
from tests.operators.test_projection import (
    M,
    N,
    check_directions_that_no_covariance_has,
    check_that_samples_are_independent,
    covariances,
    dense,
    normal,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def gain(v, a, rhs, variance, **options):
    """V A^T (A V A^T + variance)^-1 rhs by products; v ``(B, N, N)``, a ``(M, N)``."""
    calls = []

    def covariance(q):
        calls.append(q)
        return (v @ q[..., None])[..., 0]

    zeros = torch.zeros(len(rhs), dtype=torch.float64)
    given = {
        "variance": variance,
        "ridge": zeros,
        "largest": zeros + 1,
        "max_products": M,
        "length": zeros,
    }
    found = most_probable_change(
        covariance, lambda x: x @ a.T @ a, rhs @ a, lambda r: r, **(given | options)
    )
    return found, len(calls)


@pytest.mark.parametrize("variance", [0.0, 0.01])
def test_with_a_covariance_it_is_exact(variance):
    v, a, rhs = covariances(3), normal(M, N, seed=1), normal(3, M, seed=2)
    variance = torch.full((3,), variance, dtype=torch.float64)
    found, products = gain(v, a, rhs, variance)
    assert products <= M
    torch.testing.assert_close(found, dense(v, a, rhs, variance), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("variance", [0.0, 0.01])
def test_a_ridge_counts_in_the_inverse_alone(variance):
    v, a, rhs = covariances(2), normal(M, N, seed=1), normal(2, M, seed=2)
    variance, ridge = (torch.full((2,), x, dtype=torch.float64) for x in (variance, 0.2))
    raised = v + 0.2 * torch.eye(N, dtype=torch.float64)
    found, _ = gain(v, a, rhs, variance, ridge=ridge)
    gram = a @ raised @ a.T + variance[:, None, None] * torch.eye(M, dtype=torch.float64)
    expected = (v @ a.T @ torch.linalg.solve(gram, rhs[..., None]))[..., 0]
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_each_iterate_is_the_most_probable_of_its_krylov_space():
    v, a, rhs = covariances(1), normal(M, N, seed=1), normal(1, M, seed=2)
    variance = torch.full((1,), 0.1, dtype=torch.float64)
    gram = a.T @ a
    last, space = a.T @ rhs[0], []
    for k in range(1, 5):
        space.append(last / last.norm())
        last = gram @ (v[0] @ space[-1]) + 0.1 * space[-1]
        q = torch.stack(space, dim=1)  # (N, k)
        change = v[0] @ q
        # of |rhs - A V q c|^2 + 0.1 <q c, V q c> the least
        energy = change.T @ gram @ change + 0.1 * q.T @ change
        expected = change @ torch.linalg.solve(energy, change.T @ a.T @ rhs[0])
        found, _ = gain(v, a, rhs, variance, max_products=k)
        torch.testing.assert_close(found[0], expected, rtol=1e-6, atol=1e-8)


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
        assert found.median() < 0.75
        assert found.max() < 2


def test_an_antisymmetric_part_counts_in_the_misfit_alone():
    v = torch.tensor([[[1.0, 0.4], [-0.4, 1.0]]], dtype=torch.float64)
    rhs, a = torch.tensor([[1.0, 2.0]], dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    found, _ = gain(v, a, rhs, torch.full((1,), 0.5, dtype=torch.float64), max_products=2)
    # least of |rhs - V q|^2 + |q|^2 / 2, where V^T V = 1.16
    torch.testing.assert_close(found[0], 1.16 / (1.16 + 0.5) * rhs[0])


def test_directions_that_no_covariance_has_are_left_out():
    check_directions_that_no_covariance_has(gain)


def test_samples_are_independent_and_stop_on_their_own():
    check_that_samples_are_independent(gain)


def test_complex_numbers_are_pairs_of_real_ones():
    v, a = covariances(1), normal(M, N, seed=1)
    rhs = torch.complex(normal(1, M, seed=2), normal(1, M, seed=3))
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    found = most_probable_change(
        lambda q: (v.to(q.dtype) @ q[..., None])[..., 0],
        lambda x: x @ (a.T @ a).to(x.dtype),
        rhs @ a.to(rhs.dtype),
        lambda r: r,
        variance=0.1 * one,
        ridge=none,
        largest=one,
        max_products=2 * M,
        length=none,
    )
    torch.testing.assert_close(found.real, dense(v, a, rhs.real, 0.1 * one), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.imag, dense(v, a, rhs.imag, 0.1 * one), rtol=1e-6, atol=1e-8)
