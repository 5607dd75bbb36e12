"""What clipping does to gradients, against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.config import resolve
from jaxrec.diagnostics.clipping import clipping, gradients
from jaxrec.models.recommender import Batch
from jaxrec.runs import build
from jaxrec.runs.options import Config


@pytest.fixture(scope="module")
def parts():
    config = resolve(Config, flags={"model.width": 8, "model.dropout": 0.0}).section
    step, hyper = build.step(config, 10)
    model = build.model(config.model, build.Offer(items=12, users=0, gaps=False, starts=False), seed=0)
    item = jax.random.randint(jax.random.key(0), (3, 4, 6), 1, 13)
    whole = jnp.ones((4, 6), bool)
    batches = [Batch(item=one, target=jnp.roll(one, 1, 1), mask=whole, reset=~whole) for one in item]
    return step, step.init(model, hyper, jax.random.key(0)), batches, hyper


def flat(tree):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def cosine(one, other):
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


@pytest.mark.parametrize(("limit", "value"), [(np.inf, None), (0.6, None), (np.inf, 0.01), (0.3, 0.02)])
def test_shares_norms_and_directions(parts, limit, value):
    step, state, batches, hyper = parts
    hyper = hyper | {"clip": jnp.float32(limit)} | ({} if value is None else {"clip_value": jnp.float32(value)})
    whole = [flat(gradients(step, state, batch, hyper, None)) for batch in batches]
    cut = [one if value is None else np.clip(one, -value, value) for one in whole]
    left = [one * min(1, limit / np.linalg.norm(one)) for one in cut]
    found = clipping(step, state, batches, hyper)
    norms = [np.linalg.norm(one) for one in whole]
    assert found["norms"] == pytest.approx(np.quantile(norms, found["shares"]), rel=1e-4)
    assert found["share"] == np.mean([not np.array_equal(a, b) for a, b in zip(whole, left, strict=True)])
    assert found["each"] == pytest.approx(np.mean([cosine(a, b) for a, b in zip(whole, left, strict=True)]), abs=1e-5)
    assert found["together"] == pytest.approx(cosine(sum(whole), sum(left)), abs=1e-5)
    assert (found["each"] < 1 - 1e-4) == (value is not None)  # clipping by norm alone turns no single gradient
