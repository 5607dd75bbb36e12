"""Losses of a positive against sampled negatives: arrays to arrays, one value a row.

Everywhere ``positive (n,)`` is the score of each row's target and ``negatives (n, k)`` are scores of other items, of
which ``real (n, k)`` says which count; what stands in the other places has no influence. Each function returns
``(n,)``. A row without a real negative is finite: there is nothing to tell its target from.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import log_sigmoid, sigmoid


def sampled_softmax(positive: Array, negatives: Array, real: Array) -> Array:
    """Cross-entropy among the target and its negatives, ``-log(e^p / (e^p + sum_j e^n_j))``, in nats.

    Jean et al. 2015, https://arxiv.org/abs/1412.2007. What is known of how the negatives were drawn is subtracted from
    the scores before (log-Q correction: Bengio and Senecal 2008).
    """
    everything = jnp.concatenate([positive[:, None], jnp.where(real, negatives, -jnp.inf)], axis=1)
    return jax.nn.logsumexp(everything, axis=1) - positive


def bpr(positive: Array, negatives: Array, real: Array) -> Array:
    """Bayesian personalised ranking: the mean over negatives of ``-log sigmoid(p - n_j)``.

    Rendle et al. 2009, https://arxiv.org/abs/1205.2618; with several negatives Hidasi et al. 2016, section 3.1.3.
    """
    return _mean(-log_sigmoid(positive[:, None] - _calm(negatives, real)), real)


def bpr_max(positive: Array, negatives: Array, real: Array, reg: Array | float) -> Array:
    """``-log(sum_j s_j sigmoid(p - n_j) + 1e-24) + reg sum_j s_j n_j^2`` with ``s`` the softmax of the negatives.

    Hidasi and Karatzoglou 2018, https://arxiv.org/abs/1706.03847, equations 8 and 10; gradients flow through ``s``.
    """
    calm = _calm(negatives, real)
    shares = _shares(calm, real)
    won = jnp.sum(shares * sigmoid(positive[:, None] - calm), axis=1)
    return -jnp.log(won + _tiny(won)) + reg * jnp.sum(shares * calm**2, axis=1)


def top1(positive: Array, negatives: Array, real: Array) -> Array:
    """The mean over negatives of ``sigmoid(n_j - p) + sigmoid(n_j^2)``.

    Hidasi et al. 2016, https://arxiv.org/abs/1511.06939, section 3.1.3: a smooth relative rank, and a term that keeps
    the scores of negatives near zero.
    """
    return _mean(_top1(positive, _calm(negatives, real)), real)


def top1_max(positive: Array, negatives: Array, real: Array) -> Array:
    """`top1` with each negative weighted by its softmax share: Hidasi and Karatzoglou 2018, equation 6."""
    calm = _calm(negatives, real)
    return jnp.sum(_shares(calm, real) * _top1(positive, calm), axis=1)


def binary_cross_entropy(positive: Array, negatives: Array, real: Array) -> Array:
    """``-log sigmoid(p) - sum_j log(1 - sigmoid(n_j))``: Kang and McAuley 2018, https://arxiv.org/abs/1808.09781."""
    return gbce(positive, negatives, real, 1.0)


def gbce(positive: Array, negatives: Array, real: Array, beta: Array | float) -> Array:
    """Binary cross-entropy with the positive's probability raised to ``beta``, against overconfidence.

    Petrov and Macdonald 2023 (gSASRec), https://arxiv.org/abs/2308.07192, equation 12. ``beta`` is from `gbce_beta`.
    """
    lost = jnp.where(real, -log_sigmoid(-_calm(negatives, real)), 0)
    return -beta * log_sigmoid(positive) + jnp.sum(lost, axis=1)


def gbce_beta(t: Array | float, rate: Array | float) -> Array | float:
    """``rate (t (1 - 1/rate) + 1/rate)``, where ``rate`` is how often an item is drawn, on average (the paper's
    share of negatives); ``t`` 0 is plain cross-entropy, 1 undoes all of what sampling does to the probabilities.
    """
    return rate * (t * (1 - 1 / rate) + 1 / rate)


def _top1(positive: Array, negatives: Array) -> Array:
    return sigmoid(negatives - positive[:, None]) + sigmoid(negatives**2)


def _calm(negatives: Array, real: Array) -> Array:
    """Zero where nothing is real, so that no infinity gets into a gradient as 0 times infinity."""
    return jnp.where(real, negatives, 0)


def _shares(negatives: Array, real: Array) -> Array:
    """Softmax over the real negatives of each row, all zero where it has none."""
    top = jax.lax.stop_gradient(jnp.max(negatives, axis=1, keepdims=True, where=real, initial=-jnp.inf))
    top = jnp.where(jnp.isfinite(top), top, 0)
    powers = jnp.where(real, jnp.exp(jnp.where(real, negatives - top, 0)), 0)
    total = jnp.sum(powers, axis=1, keepdims=True)
    return powers / jnp.where(total > 0, total, 1)


def _mean(values: Array, real: Array) -> Array:
    count = jnp.maximum(jnp.sum(real, axis=1), 1).astype(values.dtype)
    return jnp.sum(jnp.where(real, values, 0), axis=1) / count


def _tiny(like: Array) -> Array:
    return jnp.asarray(1e-24, like.dtype)
