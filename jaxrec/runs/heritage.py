"""What a training on other data takes over from a finished run: the network, and table rows of the same raw ids.

The vectors are those that the run serves, the optimiser's state that of its last step, row by row as well; a row that
is new there begins as in any training, with nothing behind it in the optimiser either. Epochs, schedule and warm-up are
of the new training alone: how often other data was seen says nothing of these.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrec.config import Mistake
from jaxrec.data.context import Column
from jaxrec.data.prepared import Prepared
from jaxrec.data.vocabulary import Vocabulary
from jaxrec.models.recommender import Recommender
from jaxrec.runs import build, bundle
from jaxrec.runs.options import Config
from jaxrec.training.checkpoints import Checkpoints
from jaxrec.training.loop import Clock
from jaxrec.training.step import State

Begin = Callable[[State], tuple[State, Clock]]
Counts = dict[str, dict[str, int]]  # "items", "users": how many are kept, new and dropped
ITEMS = ("item", "output", "bias")


def inherit(
    directory: str, prepared: Prepared, config: Config, blank: Callable[[Recommender], State], unlike: Mistake,
    say: Callable[[str], None],
) -> tuple[Begin, Counts]:  # fmt: skip
    """From a fresh state to one with what the run in ``directory`` learnt, and what was kept. ``blank`` is the state
    before the first step of a model. `Mistake` where nothing fits, ``unlike`` where another model is there.
    """
    place = bundle.find(Path(directory))
    offer = bundle.offer_of(bundle.read(place / "bundle.json"))
    try:
        shapes = jax.eval_shape(lambda: build.model(config.model, offer, seed=0))
        weights = bundle.filled(shapes, place / "weights.npz")
    except Mistake:
        raise unlike from None
    rows = matched(place, offer, prepared, config)
    counts = counted(rows, weights.tables)
    if not counts["items"]["kept"]:
        raise Mistake(f"start_from = {directory!r} knows no item of this data; give a run of data that shares some")

    def begun(fresh: State) -> tuple[State, Clock]:
        then, _ = last_state(directory, jax.eval_shape(blank, shapes), unlike)
        say(f"start_from {directory}: {told(counts)}; epochs and schedule begin anew")
        return taken(fresh, weights, then.optimiser, rows), Clock()

    return begun, counts


def last_state(directory: str, form: State, unlike: Mistake) -> tuple[State, dict[str, Any]]:
    """The state in the newest checkpoint of a run, shaped like ``form``, and its notes; ``unlike`` where it is not."""
    shelf = Checkpoints(Path(directory) / "checkpoints")
    if (step := shelf.latest()) is None:
        raise Mistake(f"start_from = {directory!r} has no checkpoint left; train it again with --fresh")
    try:
        return shelf.restore(step, form)
    except Mistake:
        raise unlike from None


def taken(fresh: State, weights: Recommender, optimiser: Mapping[str, Any], rows: Mapping[str, np.ndarray]) -> State:
    """The fresh state with the weights and the optimiser's state of another run where there are any."""
    tables = carried(weights.tables, fresh.tables, rows)
    moments = carried(optimiser["tables"], fresh.optimiser["tables"], rows)
    begun = Recommender(tables, weights.network)
    average = None if fresh.average is None else jax.tree.map(lambda leaf: leaf.copy(), begun)
    return fresh._replace(
        tables=tables,
        network=weights.network,
        optimiser={"tables": moments, "network": optimiser["network"]},
        average=average,
    )


def carried(then: Any, now: Any, rows: Mapping[str, np.ndarray]) -> Any:
    """A tree of tables (or of what an optimiser keeps for them, row by row) with the rows that were there ``then``."""

    def one(path: Any, old: Array, new: Array) -> Array:
        name = next(key.key for key in path if getattr(key, "key", None) in rows) if new.ndim else None
        if name is None:  # a count of steps
            return old
        source = rows[name].reshape(-1, *[1] * (new.ndim - 1))
        here: Any = np if isinstance(new, np.ndarray) else jnp  # what lies in pieces on devices stays on the host
        return here.where(source >= 0, here.asarray(old)[np.maximum(rows[name], 0)], new)

    return jax.tree_util.tree_map_with_path(one, then, now)


def matched(place: Path, offer: build.Offer, prepared: Prepared, config: Config) -> dict[str, np.ndarray]:
    """For every table the row that each of its rows had in another run's, -1 where it is new."""
    items, users = (
        by_raw_id(bundle.words(place / f"{name}.npz").strings, ids.strings)
        for name, ids in (("item_ids", prepared.item_ids), ("user_ids", prepared.user_ids))
    )
    then, now = (build.columns(config.model, one) for one in (offer, build.offered(prepared)))
    before = [feature.ids for feature in bundle.features(place / "features.npz", then)]
    after = [prepared.features[one.name].ids for one in now]
    context = by_raw_id(labels(then, before), labels(now, after))
    return dict.fromkeys(ITEMS, items) | {"user": users, "context": context}


def by_raw_id(then: Sequence[Any], now: Sequence[Any]) -> np.ndarray:
    """int (1 + now,): the number that each had, -1 where it had none; 0 stays 0."""
    number = {raw: place for place, raw in enumerate(then, start=1)}
    return np.array([0, *(number.get(raw, -1) for raw in now)])


def labels(picked: Sequence[Column], texts: Sequence[Vocabulary | None]) -> list[tuple[Any, ...]]:
    """What each row of the table of context is about, as `data.context` lays them out."""
    numbers: list[tuple[Any, ...]] = [(one.name,) for one in picked if one.values is None]
    coded = [(one, ids) for one, ids in zip(picked, texts, strict=True) if one.values is not None]
    return numbers + [
        (one.name, value) for one, ids in coded for value in (range(one.values or 0) if ids is None else ids.strings)
    ]


def counted(rows: Mapping[str, np.ndarray], tables: Mapping[str, Array]) -> Counts:
    """How many items and users are kept, new and dropped."""
    found = {}
    for what, name in (("items", "item"), ("users", "user")):
        if name in tables:
            kept = int(np.count_nonzero(rows[name][1:] >= 0))
            new, dropped = len(rows[name]) - 1 - kept, tables[name].shape[0] - 1 - kept
            found[what] = {"kept": kept, "new": new, "dropped": dropped}
    return found


def told(counts: Counts) -> str:
    return "; ".join(
        f"kept {n['kept']:,} {what}, {n['new']:,} new, {n['dropped']:,} dropped" for what, n in counts.items()
    )
