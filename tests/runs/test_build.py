"""From options to a model."""

from dataclasses import replace

import jax
import numpy as np

from jaxrec.config import Call
from jaxrec.losses import Softmax
from jaxrec.runs import build
from jaxrec.runs.options import Config, Model, Optimizer


def test_initial_matrices_and_tables_are_scaled_and_nothing_else():
    offer = build.Offer(items=30, users=0, gaps=False, starts=False)
    for options in (Model(width=8), Model(width=8, init="glorot", cell=Call("lru"))):
        one = build.model(options, offer, seed=0)
        half = build.model(replace(options, init_scale=0.5), offer, seed=0)
        for old, new in zip(jax.tree.leaves(one), jax.tree.leaves(half), strict=True):
            np.testing.assert_array_equal(new, old * 0.5 if old.ndim > 1 else old)


def test_what_is_off_at_zero_is_not_in_the_step_at_all():
    off, on = (build.floats(Config(optimizer=Optimizer(clip_value=value)), Softmax()) for value in (0.0, 0.1))
    assert on.keys() - off.keys() == {"clip_value"}
