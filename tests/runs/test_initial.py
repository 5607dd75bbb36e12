"""Initial weights that are asked for: what they are, and that nothing else moves."""

import jax
import numpy as np
import pytest

from jaxrec.config import Call, Mistake, resolve
from jaxrec.runs import build
from jaxrec.runs.options import Config, Model
from jaxrec.sweeps import member

OFFER = build.Offer(items=30, users=4, gaps=True, starts=True)
WIDTH = 6


def built(cell, init, seed=0, **options):
    if init == "chrono":
        options = {"horizon": 40} | options
    return build.model(Model(width=WIDTH, depth=2, cell=Call.parse(cell), init=init, **options), OFFER, seed=seed)


def moved(one, other):
    """Values that differ, old and new, by the name of their leaf."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True)
    return {
        jax.tree_util.keystr(path).removesuffix(".value"): (np.asarray(old), np.asarray(new))
        for (path, old), new in pairs
        if not np.array_equal(old, new)
    }


def layers(*names):
    return {f".network.blocks[{number}].cell.{name}" for number in range(2) for name in names}


ORTHOGONAL = {
    "gru": ("ur", "uz", "un"), "irnn": ("u",), "decayed(mgu)": ("cell.uf", "cell.un"),
    "slstm(heads=2)": ("ri", "rf", "rz", "ro"),
    "cfc(backbone=6)": ("u", "wg", "wk", "wa", "wb"), "timelstm3": ("ui", "ug", "uo"),
    "layernormlstm": ("ui", "uf", "ug", "uo"),
}  # fmt: skip


@pytest.mark.parametrize("cell", ORTHOGONAL)
def test_orthogonal_draws_every_recurrent_matrix_and_nothing_else(cell):
    changed = moved(built(cell, "cell"), built(cell, "orthogonal"))
    assert set(changed) == layers(*ORTHOGONAL[cell])
    for _, new in changed.values():
        blocks = new.reshape(-1, *new.shape[-2:]).astype(np.float64)
        squares = blocks @ blocks.swapaxes(1, 2)
        np.testing.assert_allclose(squares, np.broadcast_to(np.eye(blocks.shape[1]), squares.shape), atol=1e-5)
    assert len({new.tobytes() for _, new in changed.values()}) == len(changed)  # each its own draw
    other = moved(built(cell, "orthogonal"), built(cell, "orthogonal", seed=1))
    assert set(other) >= set(changed)


def test_orthogonal_matrices_lie_anywhere_among_all_of_them():
    """Haar's measure: an entry has mean 0 and variance 1 / n, and rotations are as many as reflections."""
    models = [member.drawn(Model(width=WIDTH, cell=Call("elman"), init="orthogonal"), OFFER, seed=n) for n in range(60)]
    matrices = np.stack([np.asarray(model.network.blocks[0].cell.u[...]) for model in models])
    assert abs(matrices.mean()) < 4 / np.sqrt(matrices.size * WIDTH)
    assert matrices.var() == pytest.approx(1 / WIDTH, rel=1e-3)
    assert 15 < (np.linalg.det(matrices) > 0).sum() < 45


def test_orthogonal_matrices_are_scaled_as_all_are_and_the_first_layer_may_be_one_hot():
    one, half = built("gru", "orthogonal"), built("gru", "orthogonal", init_scale=0.5)
    for old, new in zip(jax.tree.leaves(one), jax.tree.leaves(half), strict=True):
        np.testing.assert_array_equal(new, old * 0.5 if old.ndim > 1 else old)
    options = {"one_hot": True, "tied": False, "residual": False}
    changed = moved(built("gru", "cell", **options), built("gru", "orthogonal", **options))
    assert set(changed) == {
        f".network.blocks[{n}].cell.{path}{name}" for n, path in enumerate(("cell.", "")) for name in ("ur", "uz", "un")
    }


CHRONO = {
    "gru": ("bz",), "lstm": ("bf", "bi"), "decayed(lstm)": ("cell.bf", "cell.bi"), "qrnn": ("gates.bf",),
    "layernormlstm": ("b",),
}  # fmt: skip


@pytest.mark.parametrize("cell", CHRONO)
def test_chrono_draws_the_biases_of_gates_that_keep_and_nothing_else(cell):
    changed = moved(built(cell, "cell"), built(cell, "chrono"))
    assert set(changed) == layers(*CHRONO[cell])
    for _, new in changed.values():
        spans = np.exp(np.abs(new[:2] if cell == "layernormlstm" else new))
        assert spans.max() < 39.001
        assert spans.min() > 0.999
    low, high = (changed[f".network.blocks[{number}].cell.{CHRONO[cell][0]}"][1] for number in range(2))
    assert not np.array_equal(low, high)  # layers draw apart


def test_biases_that_chrono_draws_are_no_matrix_to_scale():
    """A layer-normalised LSTM has those of its four gates in one array."""
    one, half = built("layernormlstm", "chrono"), built("layernormlstm", "chrono", init_scale=0.5)
    for a, b in zip(one.network.blocks, half.network.blocks, strict=True):
        np.testing.assert_array_equal(a.cell.b[...][:2], b.cell.b[...][:2])
        np.testing.assert_array_equal(a.cell.uf[...] * 0.5, b.cell.uf[...])


@pytest.mark.parametrize(("cell", "init"), [("gru", "orthogonal"), ("lstm", "chrono"), ("gru", "glorot")])
def test_populations_draw_what_a_run_alone_draws(cell, init):
    options = Model(width=WIDTH, cell=Call.parse(cell), init=init, horizon=40 if init == "chrono" else None)
    for seed in (0, 3):
        found, alone = member.drawn(options, OFFER, seed=seed), build.model(options, OFFER, seed=seed)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


REFUSED = [
    ({"init": "chrono"}, "model.init = chrono spreads memories up to a horizon, and none is given; add --model.hor"),
    ({"horizon": 30}, "model.horizon = 30 is for model.init = chrono, and model.init = cell; add --model.init "),
    ({"init": "chrono", "horizon": 30, "cell": "elman"}, "Elman names no gate that keeps its state.*take one of gru, "),
    ({"init": "chrono", "horizon": 30, "cell": "decayed(lru)"}, "names no gate that keeps its state"),
    ({"init": "orthogonal", "cell": "lru"}, "draws square recurrent matrices, and LRU has none of its own; leave init"),
    ({"init": "orthogonal", "cell": "exprnn"}, "ExpRNN has none of its own"),
    (
        {"init": "chrono", "horizon": 30, "cell": "lstm(chrono=9)"},
        r"model.init = chrono and chrono of lstm\(chrono=9\) say how the same weights begin; keep one",
    ),
    ({"init": "chrono", "horizon": 30, "cell": "decayed(lstm(forget_bias=2.0))"}, "chrono and forget_bias of lstm"),
    ({"init": "orthogonal", "cell": "irnn(scale=0.1)"}, "orthogonal and scale of irnn"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_what_cannot_begin_so_is_refused_in_a_sentence(options, words):
    options = options | {"cell": Call.parse(options.get("cell", "gru"))}
    with pytest.raises(Mistake, match=words):
        build.model(Model(width=WIDTH, **options), OFFER, seed=0)


@pytest.mark.parametrize(("horizon", "words"), [(2, "model.horizon = 2 .*3"), (2.5, "horizon = 2.5"), ("x", "horizon")])
def test_a_horizon_is_a_whole_number_of_three_or_more(horizon, words):
    with pytest.raises(Mistake, match=words):
        resolve(Config, flags={"model.init": "chrono", "model.horizon": horizon})
