"""Other initial weights than those that each cell's paper has."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
from jax import Array

from jaxrec.cells import Cell, Event
from jaxrec.cells.chrono import start_keeping
from jaxrec.config import Mistake
from jaxrec.models.drawing import Drawing
from jaxrec.models.network import Network
from jaxrec.recurrence.recurrent import recurrent_matrices, with_leaves
from jaxrec.recurrence.wrappers import OneHot

Tables = dict[str, Drawing]


def initialised(
    init: str, tables: Tables, network: Network, events: Sequence[Event], key: Array, *, scale: float,
    horizon: int | None,
) -> tuple[Tables, Network]:  # fmt: skip
    """Tables and network as ``init`` has them, matrices and tables multiplied with ``scale``.

    ``events`` look like those that each layer's cell sees, ``(1, 1, ...)``; only shapes are read. What chrono draws is
    not scaled, not even where a cell has the biases of several gates in one array.
    """
    if init == "glorot":
        tables, network = glorot(tables, network, key)
    if init == "orthogonal":
        change_cells(network, key, lambda cell, number, key: orthogonal(cell, events[number], key))
    if scale != 1:
        tables = {name: replace(one, times=scale) if len(one.shape) > 1 else one for name, one in tables.items()}
        network = jax.tree.map(lambda leaf: leaf * scale if leaf.ndim > 1 else leaf, network)
    if init == "chrono":
        assert horizon is not None, "build asks for it"
        change_cells(network, key, lambda cell, number, key: chrono(cell, horizon, key))
    return tables, network


def change_cells(network: Network, key: Array, change: Callable[[Cell, int, Array], Cell]) -> None:
    """Every block's cell becomes ``change(cell, number, key)``, in place."""
    for number, block in enumerate(network.blocks):
        block.cell = change(block.cell, number, jax.random.fold_in(key, number))


def glorot(tables: Tables, network: Network, key: Array) -> tuple[Tables, Network]:
    """Every matrix uniform in ``+-sqrt(6 / (rows + columns))`` and every vector as it is.

    Glorot and Bengio 2010; GRU4Rec's initialisation. A cell keeps a matrix a gate; where the item table holds what a
    cell reads as several gates, its columns are those of one.
    """

    def bound(rows: int, columns: int) -> float:
        return float((6 / (rows + columns)) ** 0.5)

    def fresh(number: int, leaf: Array) -> Array:
        most = bound(*leaf.shape)
        return jax.random.uniform(jax.random.fold_in(key, number), leaf.shape, leaf.dtype, -most, most)

    leaves, tree = jax.tree.flatten(network)
    drawn = [fresh(n, leaf) if leaf.ndim == 2 else leaf for n, leaf in enumerate(leaves)]
    first, tables = network.blocks[0].cell, dict(tables)
    for number, name in enumerate(("item", "output"), start=len(leaves)):
        if name in tables:
            rows, columns = tables[name].shape
            gates = len(first.sizes) if name == "item" and isinstance(first, OneHot) else 1
            words = jax.random.key_data(jax.random.fold_in(key, number))
            tables[name] = Drawing((rows, columns), "uniform", words, bound(rows - 1, columns // gates))
    return tables, jax.tree.unflatten(tree, drawn)


def orthogonal(cell: Cell, event: Event, key: Array) -> Cell:
    """The cell with every recurrent matrix of its own a random rotation or reflection, and all else as it is.

    Saxe et al. 2014, https://arxiv.org/abs/1312.6120: a state neither grows nor fades under it (Le et al. 2015,
    https://arxiv.org/abs/1504.00941, take the identity to that end). A matrix that the cell derives of other weights
    stays.
    """
    one = jax.tree.map(lambda leaf: leaf[0, 0], event)
    matrices = [matrix for matrix in recurrent_matrices(cell, one) if matrix.trained]
    if not matrices:
        raise Mistake(
            f"init = orthogonal draws square recurrent matrices, and {type(cell).__name__} has none of its own; leave "
            "init = cell, or take a cell that has some, such as gru, lstm or elman"
        )

    def drawn(number: int, leaf: Any) -> Array:
        draw = jax.nn.initializers.orthogonal()
        count = leaf.size // leaf.shape[-1] ** 2  # blocks of one that is block-diagonal
        keys = jax.random.split(jax.random.fold_in(key, number), count)
        return jax.vmap(lambda key: draw(key, leaf.shape[-2:], leaf.dtype))(keys).reshape(leaf.shape)

    return with_leaves(cell, {matrix.name: drawn(n, matrix.value) for n, matrix in enumerate(matrices)})


def chrono(cell: Cell, horizon: int, key: Array) -> Cell:
    """The cell whose gates keep its state over up to ``horizon`` events, and all else as it is."""
    cell = jax.tree.map(lambda leaf: leaf, cell)
    start_keeping(cell, horizon, key)
    return cell
