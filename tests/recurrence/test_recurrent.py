"""Recurrent matrices are found in what a step computes, whatever they are called and however they are multiplied."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import GRU, AffineCell, Cell, Composite, Elman, Event, WindowCell, find, orthogonal, weight
from jaxrec.cells.find import ours
from jaxrec.config import Call
from jaxrec.recurrence.recurrent import recurrent_matrices, with_leaves
from jaxrec.recurrence.trees import is_real

SIZE = 4  # features as well: every matrix is square, and only what it does tells which one is recurrent
VECTOR = jnp.linspace(-1.0, 1.0, SIZE)
EVENT = Event(VECTOR, gap=jnp.array(86400.0), context=VECTOR, user=VECTOR, start=jnp.ones((), bool))
GRUS, LSTMS = ("un", "ur", "uz"), ("uf", "ug", "ui", "uo")


def inside(name: str, matrices: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}.{matrix}" for matrix in matrices)


FOUND: dict[str, tuple[str, ...]] = {
    "cfc(backbone=4)": ("u", "wa", "wb", "wg", "wk"), "cornn": ("u", "w"), "elman": ("u",), "gru": GRUS,
    "attentive": inside("cell", GRUS), "decayed": inside("cell", GRUS), "latentcross": inside("cell", GRUS),
    "irnn": ("u",), "lstm": LSTMS,
    "gruode": (*inside("inner", GRUS), *GRUS), "lem": ("w1", "w2", "wy", "wz"), "layernormlstm": LSTMS,
    "mgu": ("uf", "un"), "peepholelstm": inside("inner", LSTMS), "phasedlstm": LSTMS, "slstm": ("rf", "ri", "ro", "rz"),
    "prnn": (*inside("item", GRUS), *inside("side", GRUS)), "tlstm": (*inside("inner", LSTMS), "ud"),
    "timelstm1": ("forget.u", "ug", "ui", "uo"), "timelstm2": ("forget.u", "ug", "ui", "uo"),
    "timelstm3": ("ug", "ui", "uo"), "usergru": ("ua", *GRUS), "usergru(variant=linear)": GRUS,
    "hierarchicalrnn": (*inside("person", (*GRUS, "wn", "wr", "wz")), *inside("session", GRUS), "w"),
    "antisymmetricrnn": ("matrix",), "clockworkrnn": ("matrix",), "exprnn": ("rotation",),
    "decayed(exprnn)": ("cell.rotation",), "latentcross(mamba)": (),
    "decayed(latentcross(mgu))": ("cell.cell.uf", "cell.cell.un"),
}  # fmt: skip
DERIVED = {"matrix", "rotation", "cell.rotation"}


def built(name: str, hidden: int = SIZE) -> Cell:
    return find(Call.parse(name), SIZE, hidden=hidden, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", sorted({*FOUND, *(name.lower() for name in ours())}))
def test_every_cell_has_the_matrices_that_its_paper_has(name: str) -> None:
    """None for cells whose recurrence is elementwise, a window, or a matrix state, and none of what meets inputs."""
    cell = built(name)
    matrices = recurrent_matrices(cell, EVENT)
    assert tuple(matrix.name for matrix in matrices) == FOUND.get(name, ())
    ready = cell.prepare()
    for matrix in matrices:
        assert matrix.trained == (matrix.name not in DERIVED)
        assert matrix.value.shape == ((4, 1, 1) if name == "slstm" else (SIZE, SIZE))
        owner: Any = ready
        for part in matrix.name.split("."):
            owner = getattr(owner, part)
        np.testing.assert_array_equal(matrix.value, owner[...])


@pytest.mark.parametrize("name", sorted(FOUND))
def test_a_recurrent_matrix_shows_in_what_a_state_does_to_later_ones(name: str) -> None:
    """The definition, by numbers: with another matrix the state of now has another effect on that after two events."""
    cell = built(name)
    ready = cell.prepare()
    state = jax.tree.map(lambda leaf: leaf + 0.3 if is_real(leaf) else leaf, ready.initial_state())
    leaves, tree = jax.tree.flatten(ready.step(state, ready.project(EVENT)))
    real = [number for number, leaf in enumerate(leaves) if is_real(leaf)]

    def slopes(ready: Cell) -> list[np.ndarray]:
        def twice(values: list[Any]) -> list[Any]:
            given = dict(enumerate(leaves)) | dict(zip(real, values, strict=True))
            state = jax.tree.unflatten(tree, list(given.values()))
            for _ in range(2):
                state = ready.step(state, ready.project(EVENT))
            return [jax.tree.leaves(state)[number] for number in real]

        return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.jacobian(twice)([leaves[n] for n in real]))]

    plain = slopes(ready)
    for matrix in recurrent_matrices(cell, EVENT):
        moved = with_leaves(ready, {matrix.name: matrix.value + 0.3})
        assert max(np.abs(a - b).max() for a, b in zip(plain, slopes(moved), strict=True)) > 1e-4, matrix.name


def test_other_sizes_and_plain_numbers() -> None:
    for name in ("lstm", "gru", "tlstm"):
        cell = find(Call(name), 3, hidden=5, rngs=nnx.Rngs(0))
        event = Event(jnp.zeros(3), gap=jnp.zeros(()))
        assert {m.value.shape for m in recurrent_matrices(cell, event)} == {(5, 5)}
    shapes = jax.eval_shape(lambda: built("gru"))
    assert [m.name for m in recurrent_matrices(shapes, EVENT)] == list(GRUS)  # nothing is computed with the weights
    uneven = find(Call("cfc"), 3, hidden=5, rngs=nnx.Rngs(0))
    assert recurrent_matrices(uneven, EVENT._replace(x=jnp.zeros(3))) == ()  # its matrices are not square


class Bare(Cell):
    """``h' = tanh(x + product(u, h))``, beside square weights that are no recurrent matrices."""

    def __init__(self, product: Callable[[Any, Any], Any]):
        rngs = nnx.Rngs(0)
        self.product = product
        self.u, self.w, self.entries, self.out = (weight(rngs, SIZE, SIZE) for _ in range(4))

    def initial_state(self) -> Any:
        return jnp.zeros(SIZE)

    def project(self, event: Event) -> Any:
        return event.x

    def step(self, state: Any, projected: Any) -> Any:
        met = projected @ self.w  # in the step, and it sees the input alone
        each = (jnp.sin(self.entries[...]) * state[:, None]).max(1)  # a weight for every entry
        return jnp.tanh(met + each + self.product(self.u[...], state))

    def read(self, state: Any, projected: Any) -> Any:
        return state @ self.out


@jax.custom_jvp
def squashed(x: Any) -> Any:
    return jnp.tanh(x)


squashed.defjvp(lambda primals, tangents: (jnp.tanh(*primals), tangents[0]))


@jax.custom_vjp
def multiplied(u: Any, h: Any) -> Any:
    return h @ u


multiplied.defvjp(lambda u, h: (h @ u, (u, h)), lambda kept, slope: (jnp.outer(kept[1], slope), kept[0] @ slope))

PRODUCTS: dict[str, Callable[[Any, Any], Any]] = {
    "row": lambda u, h: h @ u,
    "column": lambda u, h: u @ h,
    "turned": lambda u, h: u.T @ h,
    "einsum": lambda u, h: jnp.einsum("ij,i->j", u, h),
    "batched": lambda u, h: (h[None] @ u)[0],
    "cast": lambda u, h: (h.astype(jnp.bfloat16) @ u.astype(jnp.bfloat16)).astype(h.dtype),
    "jit": jax.jit(lambda u, h: h @ u),
    "checkpoint": jax.checkpoint(lambda u, h: jnp.sin(h) @ u),
    "custom_jvp": lambda u, h: squashed(h) @ u,
    "custom_vjp": multiplied,
    "vmap": lambda u, h: jax.vmap(lambda column: h @ column, in_axes=1)(u),
    "scan": lambda u, h: jax.lax.scan(lambda h, _: (jnp.tanh(h @ u), None), h, None, length=2)[0],
    "scan, carried": lambda u, h: jax.lax.scan(lambda c, _: ((c[1], c[0] @ u), None), (h, 0 * h), None, length=3)[0][0],
    "while": lambda u, h: jax.lax.fori_loop(0, jnp.asarray(2), lambda _, h: h @ u, h),
    "cond": lambda u, h: jax.lax.cond(h.sum() > 0, lambda: h @ u, lambda: h),
    "after a gate": lambda u, h: (jax.nn.sigmoid(h) * h) @ u,
}  # fmt: skip


@pytest.mark.parametrize("how", PRODUCTS)
def test_a_matrix_is_found_however_it_is_multiplied(how: str) -> None:
    assert [matrix.name for matrix in recurrent_matrices(Bare(PRODUCTS[how]), EVENT)] == ["u"]


NONE: dict[str, Callable[[Any, Any], Any]] = {
    "the matrix of another": lambda u, h: h @ jnp.exp(u),
    "a product that nothing keeps": lambda u, h: 0 * h + jax.lax.stop_gradient(u).sum(),
    "of no state": lambda u, h: h + jnp.ones(SIZE) @ u,
}


@pytest.mark.parametrize("how", NONE)
def test_what_is_no_recurrent_matrix_is_not_found(how: str) -> None:
    assert recurrent_matrices(Bare(NONE[how]), EVENT) == ()


class Stack(Composite):
    """Two layers in one cell: the second sees the first, the first does not see the second."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.cells = nnx.List([GRU(SIZE, SIZE, rngs=rngs), Elman(SIZE, SIZE, rngs=rngs)])

    def inner(self) -> dict[str, Cell]:
        return {"low": self.cells[0], "high": self.cells[1]}

    def wire(self, run: Any, events: Event) -> Any:
        return run("high", Event(run("low", events)))


class Kept(WindowCell):
    """What the state has kept of the input is still the input."""

    def __init__(self):
        self.w, self.v = weight(nnx.Rngs(0), SIZE, SIZE), weight(nnx.Rngs(0), SIZE, SIZE)

    def initial_state(self) -> Any:
        return jnp.zeros((2, SIZE))

    def project(self, event: Event) -> Any:
        return event.x @ self.w

    def read(self, state: Any, projected: Any) -> Any:
        return state[0] @ self.v


class Delayed(Cell):
    """The way round leads over two steps: ``a' = tanh(x + b)``, ``b' = U a``, with the last input beside them."""

    def __init__(self):
        self.u, self.w = orthogonal(nnx.Rngs(0), SIZE), weight(nnx.Rngs(0), SIZE, SIZE)

    def initial_state(self) -> Any:
        return {"a": jnp.zeros(SIZE), "b": jnp.zeros(SIZE), "last": jnp.zeros(SIZE)}

    def step(self, state: Any, projected: Any) -> Any:
        a = jnp.tanh(projected + state["b"] + state["last"] @ self.w)
        return {"a": a, "b": state["a"] @ self.u, "last": projected}


class Diagonal(AffineCell):
    """A decay for every entry of a square state."""

    def __init__(self):
        self.decay, self.w = weight(nnx.Rngs(0), SIZE, SIZE), weight(nnx.Rngs(0), SIZE, SIZE * SIZE)

    def initial_state(self) -> Any:
        return jnp.zeros((SIZE, SIZE))

    def project(self, event: Event) -> Any:
        return (event.x @ self.w).reshape(SIZE, SIZE)

    def affine(self, projected: Any) -> Any:
        return jax.nn.sigmoid(self.decay[...]), projected


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        (Stack, ["cells[0].un", "cells[0].ur", "cells[0].uz", "cells[1].u"]),
        (Kept, []), (Delayed, ["u"]), (Diagonal, []),
    ],
)  # fmt: skip
def test_a_matrix_is_recurrent_where_a_state_comes_back_to_itself(cell: Any, names: list[str]) -> None:
    assert [matrix.name for matrix in recurrent_matrices(cell(), EVENT)] == names


def test_leaves_are_replaced_by_name_in_a_copy() -> None:
    cell = Stack()
    old = np.asarray(cell.cells[1].u[...])
    new = with_leaves(cell, {"cells[1].u": jnp.eye(SIZE)})
    np.testing.assert_array_equal(new.cells[1].u[...], np.eye(SIZE))
    np.testing.assert_array_equal(cell.cells[1].u[...], old)
    np.testing.assert_array_equal(new.cells[0].un[...], cell.cells[0].un[...])
