"""From options to a model."""

from dataclasses import replace

import jax
import numpy as np

from jaxrec.config import Call
from jaxrec.runs import build
from jaxrec.runs.options import Model


def test_initial_matrices_and_tables_are_scaled_and_nothing_else():
    offer = build.Offer(items=30, users=0, gaps=False, starts=False)
    for options in (Model(width=8), Model(width=8, init="glorot", cell=Call("lru"))):
        one = build.model(options, offer, seed=0)
        half = build.model(replace(options, init_scale=0.5), offer, seed=0)
        for old, new in zip(jax.tree.leaves(one), jax.tree.leaves(half), strict=True):
            np.testing.assert_array_equal(new, old * 0.5 if old.ndim > 1 else old)
