"""A recommender: tables of vectors around a recurrent network."""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxrec.cells import Cell, Event
from jaxrec.config import Mistake
from jaxrec.data.context import Context
from jaxrec.losses.shards import Shard
from jaxrec.models import drawing
from jaxrec.models.drawing import Drawing
from jaxrec.models.initial import initialised
from jaxrec.models.network import NONE, Block, Network, Rates, declared, site
from jaxrec.models.tables import Rows, normal, whole
from jaxrec.recurrence import unroll
from jaxrec.recurrence.faults import fault
from jaxrec.recurrence.wrappers import OneHot, kept

HIDING = 2**19  # the place of hidden events among the places of a row's random numbers


class Batch(NamedTuple):
    """What the device gets. Every leaf is ``(batch, time)``; ``keys`` is ``(batch,)``.

    ``item`` and ``target`` are item numbers (0 = padding or unknown), ``mask`` marks real positions, ``reset`` where a
    packed row starts another sequence, ``gap`` is seconds since the previous event, ``start`` the first event of a
    session, ``user`` a user number (0 = unknown), ``context`` features with one more axis. ``keys=None`` means
    deterministic: no dropout.
    """

    item: Array
    target: Array | None = None
    mask: Array | None = None
    reset: Array | None = None
    gap: Array | None = None
    start: Array | None = None
    user: Array | None = None
    context: Context | None = None
    keys: Array | None = None


Cuts = tuple[tuple[str, Shard], ...]


@jax.tree_util.register_dataclass
@dataclass
class Recommender:
    """``tables`` (``item``, ``bias``, ``output`` when untied, ``user`` and ``context`` when asked for) and the dense
    ``network``, apart.

    The output shares the item table unless there is one named ``output``: sharing is this method of the owner, never a
    second reference (two references become two parameters under plain ``jax.grad``). ``cuts`` says which tables lie in
    pieces and how (`jaxrec.models.pieces`).
    """

    tables: dict[str, Array]
    network: Network
    cuts: Cuts = field(default=(), metadata={"static": True})

    def __call__(self, batch: Batch) -> Array:
        """Scores ``(batch, time, items + 1)`` of every item as the next one; column 0 is padding and scores
        ``-inf``.
        """
        return self.scores(self.encode(batch)[1])

    def scores(self, hidden: Array) -> Array:
        """Scores ``(..., items + 1)`` of hidden vectors ``(..., width)``; column 0 is padding and scores ``-inf``."""
        if self.cuts:
            raise ValueError("a model in pieces has no scores of all items in one place; use counts or top_k")
        scores = hidden @ self.output.T
        if "bias" in self.tables:
            scores = scores + self.tables["bias"].reshape(*[1] * (scores.ndim - 1), -1)
        return scores.at[..., 0].set(-jnp.inf)

    def losses(self, hidden: Array, target: Array) -> Array:
        """Softmax cross-entropy over all items ``(n,)``, in nats, of hidden vectors ``(n, width)`` and the items that
        came next ``(n,)``.
        """
        scores = self.scores(hidden)
        return jax.nn.logsumexp(scores, axis=-1) - jnp.take_along_axis(scores, target[:, None], axis=-1)[:, 0]

    def encode(self, batch: Batch, state: Any = None) -> tuple[Any, Array]:
        """``(state after the last event, hidden vectors (batch, time, width))``."""
        return encode(self.network, self.rows, batch, state)

    def events(self, batch: Batch) -> Event:
        """The vectors of a batch, as cells see them."""
        return look_up(self.rows, batch)

    @property
    def output(self) -> Array:
        """The ``(items + 1, width)`` vectors that hidden vectors are compared with; in pieces: those here."""
        return output_rows(self.rows)

    @property
    def rows(self) -> dict[str, Rows]:
        """Every row of every table."""
        return whole(self.tables, dict(self.cuts))

    @property
    def items(self) -> int:
        cut = dict(self.cuts).get("item")
        return (self.tables["item"].shape[0] if cut is None else cut.rows) - 1

    def map_cells(self, change: Any) -> "Recommender":
        """The same recommender with ``change(cell)`` in place of every cell."""
        return replace(self, network=self.network.map_cells(lambda layer, cell: change(cell)))


def output_rows(rows: dict[str, Rows]) -> Array:
    return (rows["output"] if "output" in rows else rows["item"]).values


def encode(
    network: Network, rows: dict[str, Rows], batch: Batch, state: Any = None, rates: Rates = NONE, dtype: Any = None
) -> tuple[Any, Array]:
    """Look up a batch's vectors among the gathered ``rows`` and run the network over them.

    With a ``dtype`` vectors between layers, norms and feed-forward layers are of that type, and so are the hidden
    vectors; recurrences and what they keep are not. Rows are rounded after they are looked up: their gradients are
    summed as they are.
    """
    events = look_up(rows, batch, seen(rates.event, batch))
    if dtype is not None:
        network, events = network.rounded(dtype), events._replace(x=events.x.astype(dtype))
    return network(events, state, batch.reset, rates, batch.keys)


def seen(rate: Any, batch: Batch) -> Array | None:
    """Which events a model sees in training where it does not a share ``rate`` of them, ``(batch, time)``; None: all.

    What Srivastava et al. (2014) do to features, done to events, which are predicted all the same.
    """
    if rate is None or (keys := site(batch.keys, HIDING)) is None:
        return None
    return jax.vmap(lambda key: kept(key, rate, batch.item.shape[1:])[0])(keys)


def look_up(rows: dict[str, Rows], batch: Batch, shown: Array | None = None) -> Event:
    """The events of a batch, as cells see them; where not ``shown (batch, time)``, an unknown item."""
    x = rows["item"].take(batch.item)
    x = x if shown is None else jnp.where(shown[..., None], x, 0)
    person = None
    if "user" in rows:
        users = jnp.zeros_like(batch.item) if batch.user is None else batch.user
        person = rows["user"].take(users)
        x = x + person
    context = None if batch.context is None else aside(rows["context"], batch.context)
    return Event(x=x, gap=batch.gap, context=context, user=person, start=batch.start)


def aside(table: Rows, context: Context) -> Array:
    """One vector an event: the rows of its values and each number times its row, summed; no value adds nothing."""
    known = (context.codes > 0)[..., None]
    values = jnp.where(known, table.take(context.codes), 0).sum(-2)
    return values + context.numbers @ table.values[1 : 1 + context.numbers.shape[-1]]


def build(make_cell: Any, **shape: Any) -> Recommender:
    """A fresh recommender, as `undrawn` describes it."""
    return drawn(undrawn(make_cell, **shape))


def drawn(model: Recommender) -> Recommender:
    """The model with every table that is not drawn yet drawn on one device."""
    tables = {name: drawing.whole(one) if isinstance(one, Drawing) else one for name, one in model.tables.items()}
    return replace(model, tables=tables)


def undrawn(
    make_cell: Any, *, items: int, users: int, width: int, depth: int, feedforward: int, norm: bool, residual: bool,
    tied: bool, bias: bool, user: bool, backend: Any, wants: Event, seed: int, context: int = 0,
    embedding: int | None = None, one_hot: bool = False, init: str = "cell", scale: float = 1.0,
    horizon: int | None = None,
) -> Recommender:  # fmt: skip
    """A fresh recommender whose tables are each a `Drawing`.

    ``make_cell(features, rngs)`` returns one cell; ``wants`` is an ``Event`` whose leaves ``(1, 1, ...)`` look like
    what the data offers, so that a cell that needs more is refused here, in one sentence; ``context`` is how many rows
    the features of events need. Tables start normal with
    standard deviation ``width ** -0.5`` (tied: scores of order one; the norm in front of the cell rescales the
    input). ``init`` and ``horizon`` are those of `initialised`; ``scale`` multiplies every matrix and table; vectors
    (biases, gains, eigenvalues) stay as they are.
    """
    keys = dict(zip(("item", "output", "user", "network"), jax.random.split(jax.random.key(seed), 4), strict=True))
    keys["context"] = jax.random.fold_in(keys["user"], 0)  # whoever asks for none gets the weights that he always got
    rngs = nnx.Rngs(keys["network"])
    blocks, events = [], []
    inputs = embedding or width
    for number in range(depth):
        if one_hot and not number:
            cell = OneHot(make_cell(1, rngs))
            features = inputs = cell.features
        else:
            features = width if number else inputs
            cell = make_cell(features, rngs)
        wants = wants._replace(x=jnp.zeros((1, 1, features)))
        shown = output_width(cell, wants, backend)
        events.append(declared(cell, wants))
        blocks.append(
            Block(cell, features, shown, width, norm=norm, residual=residual, feedforward=feedforward, rngs=rngs)
        )
    tables = {"item": normal(keys["item"], items, inputs, inputs**-0.5)}
    if not tied:
        tables["output"] = normal(keys["output"], items, width, width**-0.5)
    if bias:
        tables["bias"] = Drawing((items + 1,), "zeros", jax.random.key_data(keys["item"]))
    if user:
        tables["user"] = normal(keys["user"], users, inputs, 0.1 * inputs**-0.5)
    if context:
        tables["context"] = normal(keys["context"], context, inputs, inputs**-0.5)
    network = Network(blocks, width, norm=norm, backend=backend, rngs=rngs)
    key = jax.random.fold_in(keys["item"], 0)
    told: Any
    told, network = initialised(init, tables, network, events, key, scale=scale, horizon=horizon)
    return Recommender(told, network)


def output_width(cell: Cell, events: Event, backend: Any = None) -> int:
    """Width of what ``cell`` shows the layer above, found without computing anything.

    `Mistake` where the backend refuses the cell, or where what it shows is not one vector an event.
    """
    name = type(cell).__name__

    def run(cell: Cell, events: Event) -> Any:
        return unroll(cell, declared(cell, events), backend=backend)[1]

    try:
        y = jax.eval_shape(run, cell, events)
    except Mistake:
        raise
    except Exception as error:  # whatever a user's cell raises
        found = fault(error, cell)
        raise Mistake(f"{name} does not run: {found}; {found.remedy or 'see what jaxrec check says of it'}") from error
    if not isinstance(y, jax.ShapeDtypeStruct) or len(y.shape) != 3:
        shapes = ", ".join(str(leaf.shape[2:]) for leaf in jax.tree.leaves(y)) or "nothing"
        rule = "the layer above takes one vector; return one from read (a cell has no batch axis)"
        raise Mistake(f"{name} shows {shapes} for one event, and {rule}")
    return y.shape[-1]
