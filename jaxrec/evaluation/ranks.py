"""The pass over users: every target of a split ranked against the whole catalogue, with bounded memory."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrec.config import Mistake
from jaxrec.data.context import Context
from jaxrec.data.prepared import Prepared
from jaxrec.evaluation.ranks_file import Ranks, save
from jaxrec.evaluation.slices import events_of, repeated
from jaxrec.models import history
from jaxrec.models.catalogue import Counts, counts
from jaxrec.models.history import History, padded_size
from jaxrec.models.pieces import run
from jaxrec.models.recommender import Recommender
from jaxrec.parallel import team

__all__ = ["Ranks", "evaluate", "rank", "save"]
ROWS = 64  # sequences of similar length that run together
TARGETS = 256  # targets that are ranked together


class Group(NamedTuple):
    """Sequences of similar length and where their targets are: ``row`` in the group, ``at`` events before the
    target.
    """

    sequences: np.ndarray
    histories: list[History]
    row: np.ndarray
    at: np.ndarray
    event: np.ndarray
    order: np.ndarray  # places of these targets in canonical order


@partial(jax.jit, static_argnames=("candidates", "k"))
def rank(
    model: Recommender, hidden: Array, row: Array, col: Array, target: Array,
    seen: Array | None, at: Array, before: Array,
    *, candidates: int, k: int,
) -> Counts:  # fmt: skip
    """The inner pass: pure, and vmappable over models.

    ``hidden (rows, time, width)``; for every target its ``row`` and ``col`` there, its item number and how many
    events come ``before`` it. ``seen (rows, s)`` are the distinct items of each sequence and ``at (rows, s)`` where
    each occurs first.
    """
    shown = None if seen is None else jnp.where(at[row] < before[:, None], seen[row], 0)
    return counts(model, hidden[row, col], target, shown, candidates=candidates, k=k)


@partial(jax.jit, static_argnames=("candidates", "k"))
def rank_members(models: Recommender, hidden: Array, *rest: Any, candidates: int, k: int) -> Counts:
    """`rank` of stacked models with their hidden vectors ``(members, rows, time, width)``, the targets the same."""
    one = partial(rank, candidates=candidates, k=k)
    return jax.vmap(lambda model, hidden: one(model, hidden, *rest))(models, hidden)


def evaluate(model: Recommender, prepared: Prepared, split: str, *, users: int | None = None, k: int = 0) -> Ranks:
    """Rank every target of ``split`` ("valid" or "test") among the prepared data's catalogue.

    Each sequence runs once from its first event, whatever its length, and is asked at every target. ``users`` takes
    that many sequences only, evenly spaced. ``k`` also keeps top-k lists. Peak memory does not depend on the number
    of users, positions or items, beyond the model's own tables.
    """
    (found,) = passed(model, prepared, split, users, k, members=0)
    if isinstance(found, Mistake):
        raise found
    return found


def evaluate_members(
    models: Recommender, prepared: Prepared, split: str, *, users: int | None = None, k: int = 0
) -> list[Ranks | Mistake]:
    """`evaluate` of models that are stacked along a first axis, in one pass; a Mistake stands for a model whose scores
    are not numbers.
    """
    return passed(models, prepared, split, users, k, members=models.tables["item"].shape[0])


def passed(
    model: Recommender, prepared: Prepared, split: str, users: int | None, k: int, *, members: int
) -> list[Ranks | Mistake]:
    """The pass for one model (``members`` 0), or for so many that are stacked."""
    events = choose(prepared, prepared.targets(split), users)
    table = describe(prepared, events)
    masked = prepared.card["mask_seen"] != "none"
    shape = (max(members, 1), len(events))
    results = {name: np.zeros(shape, np.int64) for name in Counts._fields[:4]}
    top = np.zeros((*shape, k), np.int32) if k else None
    for group in groups(prepared, events, table.example, user="user" in model.tables):
        for order, found in rank_group(model, prepared, group, masked=masked, k=k, members=members > 0):
            for name, values in results.items():
                values[:, order] = np.asarray(getattr(found, name))[..., : len(order)]
            if top is not None:
                top[:, order] = np.asarray(found.top)[..., : len(order), :]
    results = {name: team.added(values.T).T for name, values in results.items()}
    top = None if top is None else team.added(top.swapaxes(0, 1)).swapaxes(0, 1)
    rows = ({name: values[row] for name, values in results.items()} for row in range(shape[0]))
    answers = [table._replace(**row, top=None if top is None else top[n]) for n, row in enumerate(rows)]
    lost, hidden = unknown(prepared, table), barred(prepared, table)
    return [broken(prepared, answer) or miss(prepared, answer, lost, lost | hidden) for answer in answers]


def broken(prepared: Prepared, table: Ranks) -> Mistake | None:
    """`Mistake` where the model's score of a known target is not a number."""
    places = np.flatnonzero((table.greater == prepared.candidates) & (table.target > 0))
    if not len(places):
        return None
    first = places[:1]
    person = prepared.user_ids.decode(table.user[first])[0]
    return Mistake(
        f"the model's score is not a number for {len(places):,} of {len(table.greater):,} targets, first for the one "
        f"after {table.position[first][0]:,} events of user {person!r}; its state overflows: lower optimizer.lr "
        "or optimizer.clip, or hold the cell against the laws with `jaxrec check`"
    )


def choose(prepared: Prepared, events: np.ndarray, users: int | None) -> np.ndarray:
    """Targets of at most ``users`` sequences, evenly spaced in canonical order: the same ones every time."""
    if users is None:
        return events
    sequence = prepared.sequence_of(events)
    distinct = np.unique(sequence)
    if users >= len(distinct):
        return events
    kept = distinct[np.linspace(0, len(distinct) - 1, users).astype(np.int64)]
    return events[np.isin(sequence, kept)]


def describe(prepared: Prepared, events: np.ndarray) -> Ranks:
    """The columns that say what was asked, answers still zero."""
    sequence = prepared.sequence_of(events)
    zero = np.zeros(len(events), np.int64)
    return Ranks(
        example=sequence, user=np.asarray(prepared.users)[sequence].astype(np.int64),
        position=events - np.asarray(prepared.offsets)[sequence],
        target=np.asarray(prepared.items)[events].astype(np.int64),
        greater=zero, equal=zero, greater_masked=zero, equal_masked=zero, candidates=zero + prepared.candidates,
    )  # fmt: skip


def miss(prepared: Prepared, ranks: Ranks, lost: np.ndarray, hidden: np.ndarray) -> Ranks:
    """The answers with ``lost`` targets as misses, and ``hidden`` ones where what was seen is masked."""

    def sure(values: np.ndarray, where: np.ndarray, value: int) -> np.ndarray:
        return np.where(where, value, values)

    return ranks._replace(
        greater=sure(ranks.greater, lost, prepared.candidates), equal=sure(ranks.equal, lost, 0),
        greater_masked=sure(ranks.greater_masked, hidden, prepared.candidates),
        equal_masked=sure(ranks.equal_masked, hidden, 0),
    )  # fmt: skip


def unknown(prepared: Prepared, ranks: Ranks) -> np.ndarray:
    """Which targets training never saw: sure misses."""
    return (ranks.target == 0) | (ranks.target > prepared.known)


def barred(prepared: Prepared, ranks: Ranks) -> np.ndarray:
    """Which targets nobody may be recommended, because the mask hides the history and they are in it."""
    if prepared.card["mask_seen"] != "history":
        return np.zeros(len(ranks.target), bool)
    return repeated(prepared, events_of(prepared, ranks))


def groups(prepared: Prepared, events: np.ndarray, sequence: np.ndarray, *, user: bool) -> Iterator[Group]:
    """Sequences sorted by the length of what has to be run, ``ROWS`` at a time; of many processes, this one's share."""
    distinct, first, count = np.unique(sequence, return_index=True, return_counts=True)
    last = events[first + count - 1]  # canonical order: a sequence's targets are together and ascending
    begin = np.asarray(prepared.offsets)[distinct]
    for part in team.shared(np.array_split(np.argsort(last - begin, kind="stable"), max(1, -(-len(distinct) // ROWS)))):
        if not len(part):
            continue
        places = np.concatenate([np.arange(first[s], first[s] + count[s]) for s in part])
        row = np.repeat(np.arange(len(part)), count[part])
        histories = [take(prepared, begin[s], last[s], int(prepared.users[distinct[s]]) if user else 0) for s in part]
        yield Group(distinct[part], histories, row, events[places] - begin[part][row], events[places], places)


def take(prepared: Prepared, begin: int, end: int, user: int) -> History:
    """Events ``begin`` to ``end`` of the flat arrays."""
    part = slice(int(begin), int(end))
    gaps = None if prepared.gaps is None else np.asarray(prepared.gaps[part])
    starts = None if prepared.starts is None else np.asarray(prepared.starts[part])
    context = None if prepared.context is None else Context(*(leaf[part] for leaf in prepared.context))
    return History(np.asarray(prepared.items[part]), gaps, starts, user, context)


def rank_group(
    model: Recommender, prepared: Prepared, group: Group, *, masked: bool, k: int, members: bool = False
) -> Iterator[tuple[np.ndarray, Counts]]:
    """Run a group's histories and rank its targets ``TARGETS`` at a time; yields ``(canonical places, counts)``."""
    seen, at = distinct_items(group.histories) if masked else (None, np.zeros((ROWS, 1), np.int32))
    target = np.asarray(prepared.items)[group.event]
    inner = rank_members if members else rank
    for begin, hidden, some, pad in blocks(model, group, members=members):
        found = run(
            inner, model, hidden, np.pad(group.row[some], pad), np.pad(group.at[some] - begin - 1, pad),
            np.pad(target[some], pad).astype(np.int32), seen, at, np.pad(group.at[some], pad),
            candidates=prepared.candidates, k=k,
        )  # fmt: skip
        yield group.order[some], found


def blocks(
    model: Recommender, group: Group, *, members: bool = False
) -> Iterator[tuple[int, Array, np.ndarray, tuple[int, int]]]:
    """Run a group's histories: ``(first position, hidden (rows, time, width))`` with the targets, ``TARGETS`` at a
    time, whose history ends in there, and how many to pad them with so that few shapes are compiled.
    """
    for begin, hidden in history.chunks(model, group.histories, ROWS, members=members):
        here = np.flatnonzero((group.at > begin) & (group.at <= begin + hidden.shape[-2]))
        for start in range(0, len(here), TARGETS):
            some = here[start : start + TARGETS]
            yield begin, hidden, some, (0, padded_size(len(some)) - len(some))


def distinct_items(histories: Sequence[History]) -> tuple[np.ndarray, np.ndarray]:
    """Each history's distinct items and the position of their first occurrence, padded with item 0 to a power of
    two.
    """
    found = [np.unique(one.items, return_index=True) for one in histories]
    shape = (ROWS, padded_size(max(len(items) for items, _ in found)))
    seen, at = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for row, (items, first) in enumerate(found):
        seen[row, : len(items)], at[row, : len(items)] = items, first
    return seen, at
