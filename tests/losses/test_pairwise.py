"""Losses of a positive against sampled negatives: values and gradients against the papers' formulas, row by row."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax.test_util import check_grads
from scipy.special import expit as sigmoid, log_expit as log_sigmoid

from jaxrec.losses import pairwise
from jaxrec.losses.softmax import cross_entropy


def mean(terms):
    return sum(terms) / max(1, len(terms))


def shares(negatives):
    """Softmax over the real negatives: ``s_j`` of Hidasi & Karatzoglou 2018."""
    return [np.exp(negative - np.logaddexp.reduce(negatives)) for negative in negatives]


def bpr_max_row(positive, negatives, reg):
    """The likelihood that the positive beats the highest negative, regularised (Hidasi & Karatzoglou 2018)."""
    weighed = list(zip(shares(negatives), negatives, strict=True))
    beats = sum(share * sigmoid(positive - negative) for share, negative in weighed)
    return -np.log(beats + 1e-24) + reg * sum(share * negative**2 for share, negative in weighed)


def top1_terms(positive, negatives):
    """Relative rank of the positive, and negatives held near zero (Hidasi et al. 2016)."""
    return [sigmoid(negative - positive) + sigmoid(negative**2) for negative in negatives]


def gbce_row(positive, negatives, beta=1.0):
    """Petrov & Macdonald 2023; beta = 1 is SASRec's (Kang & McAuley 2018) with any number of negatives."""
    return -beta * log_sigmoid(positive) - sum(log_sigmoid(-negative) for negative in negatives)  # 1 - s(x) = s(-x)


class Case(NamedTuple):
    loss: Callable
    row: Callable  # the oracle: one positive and the list of its real negatives, float64
    defined_without_negatives: bool = True


CASES = {
    "sampled_softmax": Case(pairwise.sampled_softmax, lambda p, n: np.logaddexp.reduce([p, *n]) - p),
    "bpr": Case(pairwise.bpr, lambda p, n: mean([-log_sigmoid(p - negative) for negative in n])),  # Rendle et al. 2009
    "bpr_max": Case(partial(pairwise.bpr_max, reg=0.0), partial(bpr_max_row, reg=0.0), False),
    "bpr_max, reg": Case(partial(pairwise.bpr_max, reg=0.7), partial(bpr_max_row, reg=0.7), False),
    "top1": Case(pairwise.top1, lambda p, n: mean(top1_terms(p, n))),
    "top1_max": Case(pairwise.top1_max, lambda p, n: sum(np.multiply(shares(n), top1_terms(p, n)))),
    "bce": Case(pairwise.binary_cross_entropy, gbce_row),
    "gbce": Case(partial(pairwise.gbce, beta=0.3), partial(gbce_row, beta=0.3)),
    "gbce, beta 1": Case(partial(pairwise.gbce, beta=1.0), gbce_row),
}
every_loss = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_noise = pytest.mark.parametrize("noise", [1e30, -1e30, 0.5])


def inputs(seed=0, rows=6, negatives=5, scale=1.0):
    """Scores in float64, and which negatives are real: at least one a row."""
    draw = np.random.default_rng(seed)
    real = draw.uniform(size=(rows, negatives)) < 0.6
    real[np.arange(rows), draw.integers(negatives, size=rows)] = True
    return draw.normal(size=rows) * scale, draw.normal(size=(rows, negatives)) * scale, real


def oracle(case, positive, negatives, real):
    return np.array([case.row(p, list(n[r])) for p, n, r in zip(positive, negatives, real, strict=True)])


def oracle_gradients(case, positive, negatives, real, step=1e-5):
    """Central differences of the summed oracle, one score after another."""
    scores = np.concatenate([positive[:, None], negatives], axis=1)
    total = lambda scores: oracle(case, scores[:, 0], scores[:, 1:], real).sum()  # noqa: E731
    nudges = step * np.eye(scores.size).reshape(-1, *scores.shape)
    slopes = np.reshape([total(scores + n) - total(scores - n) for n in nudges], scores.shape) / (2 * step)
    return slopes[:, 0], slopes[:, 1:]


def evaluate(case, positive, negatives, real, dtype):
    """Value of each row and both gradients of their sum, as the library gives them."""

    @jax.jit
    def everything(positive, negatives):
        values, pull = jax.vjp(lambda p, n: case.loss(p, n, jnp.asarray(real)), positive, negatives)
        return values, pull(jnp.ones_like(values))

    with jax.enable_x64(dtype == np.float64):
        values, gradients = everything(jnp.asarray(positive, dtype), jnp.asarray(negatives, dtype))
    assert values.shape == positive.shape
    assert all(array.dtype == dtype for array in (values, *gradients))
    return np.asarray(values), *map(np.asarray, gradients)


def agree(found, wanted, rtol, atol=0.0):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), found, wanted)


@every_loss
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_values_are_those_of_the_paper(case, dtype, tolerance):
    arguments = inputs(scale=2.0)
    agree(evaluate(case, *arguments, dtype)[0], oracle(case, *arguments), rtol=tolerance)


@every_loss
def test_gradients_are_those_of_the_paper(case):
    arguments = inputs(scale=2.0)
    agree(evaluate(case, *arguments, np.float64)[1:], oracle_gradients(case, *arguments), rtol=1e-6, atol=1e-9)


@every_loss
def test_gradients_are_those_of_the_values(case):
    positive, negatives, real = inputs(rows=3)
    with jax.enable_x64(True):
        check_grads(lambda p, n: case.loss(p, n, jnp.asarray(real)), (positive, negatives), 2, modes=["rev"])


@settings(max_examples=10, derandomize=True)  # each example compiles; the same ones come from the cache
@given(name=st.sampled_from(list(CASES)), seed=st.integers(0, 99), rows=st.integers(1, 7), negatives=st.integers(1, 9))
def test_any_shape(name, seed, rows, negatives):
    arguments = inputs(seed, rows, negatives)
    agree(evaluate(CASES[name], *arguments, np.float64)[0], oracle(CASES[name], *arguments), rtol=1e-12)


@every_loss
@every_noise
def test_masked_negatives_have_no_influence(case, noise):
    positive, negatives, real = inputs()
    noisy = evaluate(case, positive, np.where(real, negatives, noise), real, np.float32)
    agree(noisy, evaluate(case, positive, negatives, real, np.float32), rtol=0)
    assert not noisy[2][~real].any()


@every_loss
@every_noise
def test_a_row_without_negatives_is_finite(case, noise):
    positive, negatives, real = np.array([-2.0, 0.0, 3.0]), np.full((3, 4), noise), np.zeros((3, 4), bool)
    values, d_positive, d_negatives = evaluate(case, positive, negatives, real, np.float32)
    assert np.isfinite([values, d_positive]).all()
    np.testing.assert_array_equal(d_negatives, 0.0)
    if case.defined_without_negatives:
        agree(values, oracle(case, positive, negatives, real), rtol=1e-6)


@every_loss
def test_the_order_of_negatives_does_not_matter(case):
    (positive, negatives, real), order = inputs(), np.array([3, 0, 4, 2, 1])
    values, d_positive, d_negatives = evaluate(case, positive, negatives, real, np.float64)
    found = evaluate(case, positive, negatives[:, order], real[:, order], np.float64)
    agree(found, (values, d_positive, d_negatives[:, order]), rtol=1e-12, atol=1e-15)


@every_loss
def test_extreme_scores(case):
    """Every pairing of large scores: values are the oracle's, and float32 gradients those of float64."""
    levels = [-1e3, -80.0, 0.0, 80.0, 1e3]
    grid = np.array(np.meshgrid(levels, levels, levels)).reshape(3, -1).T
    arguments = grid[:, 0], grid[:, 1:], np.ones((len(grid), 2), bool)
    single, double = (evaluate(case, *arguments, dtype) for dtype in (np.float32, np.float64))
    assert all(np.isfinite(array).all() for array in (*single, *double))
    agree(single[0], oracle(case, *arguments), rtol=1e-5, atol=1e-4)  # float32 numbers near 1e3 lie 6e-5 apart
    agree(single[1:], double[1:], rtol=1e-5, atol=1e-5)


def test_softmax_over_all_items_is_the_full_softmax():
    scores, target = inputs(rows=4, negatives=7, scale=3.0)[1], np.array([0, 6, 2, 2])
    positive, others = scores[np.arange(4), target], np.arange(7)[None, :] != target[:, None]
    found = evaluate(CASES["sampled_softmax"], positive, scores, others, np.float64)[0]
    with jax.enable_x64(True):
        agree(found, cross_entropy(jnp.asarray(scores), jnp.asarray(target)), rtol=1e-12)


@pytest.mark.parametrize("rate", [1e-4, 0.2, 1.0])
def test_beta_runs_from_one_to_the_sampling_rate(rate):
    agree(pairwise.gbce_beta(0.0, rate), 1.0, rtol=1e-6)
    agree(pairwise.gbce_beta(1.0, rate), rate, rtol=1e-6)
    agree(pairwise.gbce_beta(0.75, rate), rate * (0.75 * (1 - 1 / rate) + 1 / rate), rtol=1e-6)


def test_full_calibration_makes_the_sigmoid_a_probability():
    """Petrov & Macdonald 2023: with t = 1, negatives drawn at ``rate`` balance where sigmoid(score) is the truth."""
    truth, rate = 0.03, 0.1
    score, real = np.log([truth / (1 - truth)]), np.ones((1, 1), bool)
    calibrated = Case(partial(pairwise.gbce, beta=pairwise.gbce_beta(1.0, rate)), gbce_row)
    _, d_positive, d_negatives = evaluate(calibrated, score, score[:, None], real, np.float64)
    agree(truth * d_positive + (1 - truth) * rate * d_negatives[0], 0.0, rtol=0, atol=1e-9)


def test_gbce_with_beta_one_is_binary_cross_entropy():
    one, plain = (evaluate(CASES[name], *inputs(), np.float32) for name in ("gbce, beta 1", "bce"))
    agree(one, plain, rtol=1e-6)
