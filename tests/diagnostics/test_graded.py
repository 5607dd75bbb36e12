"""Singular values of graded triangles, where a dense decomposition still reaches and where it does not."""

import numpy as np
import pytest

from jaxrec.diagnostics.graded import log_singular_values

LOG10 = np.log(10.0)


def test_a_triangle_of_hundreds_of_decades_with_close_values_in_it() -> None:
    """Two blocks that are far apart: the singular values of each are dense ones."""
    draw, size = np.random.default_rng(0), 12
    blocks = [np.triu(draw.normal(size=(size, size)), 1) / 4 + np.eye(size) for _ in range(2)]
    near = -0.1 * np.arange(size)
    t = np.kron(np.diag([1.0, 0.0]), blocks[0]) + np.kron(np.diag([0.0, 1.0]), blocks[1])
    found = log_singular_values(np.concatenate([near, near - 2000]), t)
    wanted = [np.log(np.linalg.svd(np.exp(near)[:, None] * block, compute_uv=False)) for block in blocks]
    np.testing.assert_allclose(found, np.concatenate([wanted[0], wanted[1] - 2000]), atol=1e-10)


def test_a_triangle_that_grows_in_small_steps() -> None:
    """Thirty decades of values close to their neighbours: the determinant, and the ends as a dense matrix has them."""
    draw, size = np.random.default_rng(1), 60
    logs = -0.5 * LOG10 * np.arange(size)
    t = np.triu(draw.normal(size=(size, size)), 1) / 8 + np.eye(size)
    found = log_singular_values(logs, t)
    assert found.sum() == pytest.approx(logs.sum(), rel=1e-10)
    matrix = np.exp(logs)[:, None] * t
    top = np.log(np.linalg.svd(matrix, compute_uv=False))
    np.testing.assert_allclose(found[:12], top[:12], atol=1e-9)
    bottom = -np.log(np.linalg.svd(np.linalg.inv(t) * np.exp(-logs), compute_uv=False)[::-1])
    np.testing.assert_allclose(found[-12:], bottom[-12:], atol=1e-9)


def test_what_is_lost_or_no_number_stays_so() -> None:
    t = np.array([[1.0, 0.5, 0.2], [0.0, 1.0, 0.3], [0.0, 0.0, 1.0]])
    found = log_singular_values(np.array([0.0, -np.inf, -np.inf]), t)
    np.testing.assert_allclose(found, [np.log(np.linalg.norm(t[0])), -np.inf, -np.inf])
    assert np.isnan(log_singular_values(np.array([0.0, np.nan, 0.0]), t)).all()
