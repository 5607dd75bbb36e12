"""Recommendations from a trained model: whole histories at once, or one event at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrec.config import Mistake
from jaxrec.models.catalogue import top_k
from jaxrec.models.history import History, advance, begin_all, last_hidden, padded_size
from jaxrec.models.recommender import Batch, Recommender
from jaxrec.runs import build
from jaxrec.runs.bundle import Bundle
from jaxrec.serving.contexts import Given, context as context_of

ROWS = 64  # histories that run together
Raw = str | int
Ranked = list[tuple[Raw, float]]

best = jax.jit(top_k, static_argnames=("candidates", "k"))


class Stream(NamedTuple):
    """One person so far: recurrent state, hidden vector after the last event (None before any), item numbers, last
    time.
    """

    state: Any
    hidden: Array | None
    items: tuple[int, ...]
    user: int
    time: float | None


@dataclass(frozen=True, eq=False)
class Served:
    """A trained model. Raw ids in, raw ids out; the people need not have been in the training data."""

    bundle: Bundle

    def recommend(
        self, histories: Sequence[Sequence[Raw]], k: int = 10, *, exclude_seen: bool | None = None,
        exclude: Iterable[Raw] = (), allow: Iterable[Raw] | None = None,
        times: Sequence[Sequence[float]] | None = None, users: Sequence[Raw | None] | None = None,
        contexts: Sequence[Sequence[Given] | None] | None = None,
        starts: Sequence[Sequence[bool] | None] | None = None,
    ) -> list[Ranked]:  # fmt: skip
        """The ``k`` best next items for each history, as ``(raw id, score)``, best first.

        ``histories`` hold raw item ids, oldest first; ids the model does not know count as events of an unknown item. A
        history without a known item gets the most popular items of training, scored by their share of events.
        ``exclude_seen`` leaves out a history's own items (None: as the protocol card says), ``exclude`` these items for
        everybody, ``allow`` all others. ``times`` are seconds, one an event, for cells that look at gaps or models
        that look at the calendar (since 1970, UTC); ``users`` raw user ids for models with user vectors; ``contexts``
        one mapping an event for models that look at features of events, as in ``[[{"rating": 4}, ...], ...]``;
        ``starts`` whether an event began a session, where the data had sessions (None: the first did, no other).
        Lists are shorter than ``k`` where fewer items are left.
        """
        if isinstance(histories, str) or any(isinstance(history, str | int) for history in histories):
            raise Mistake(f'histories = {histories!r} is one history; give a list of them, as in [["a", "b"]]')
        if times is None and self.reads_gaps and any(len(history) for history in histories):
            raise Mistake(
                "this model looks at the time between events; give times, one list of seconds a history "
                '(on the command line --times "SECONDS,SECONDS", or write each history as [[item, seconds], ...])'
            )
        if k < 1:
            raise Mistake(f"k = {k} recommends nothing; give 1 or more")
        hidden_seen = self.masked if exclude_seen is None else exclude_seen
        banned = self.bundle.item_ids.encode(exclude)
        model = self.restricted(allow)
        sides = (times, users, contexts, starts)
        known = [self.history(items, *(self.at(side, n) for side in sides)) for n, items in enumerate(histories)]
        found: list[Ranked] = [[] for _ in known]
        order = sorted((n for n, one in enumerate(known) if one.items.any()), key=lambda n: len(known[n].items))
        for begin in range(0, len(order), ROWS):
            some = order[begin : begin + ROWS]
            hidden = last_hidden(model, [known[n] for n in some])
            seen = [np.concatenate([known[n].items, banned]) if hidden_seen else banned for n in some]
            for n, ranked in zip(some, self.ranked(model, hidden, seen, k), strict=True):
                found[n] = ranked
        for n, one in enumerate(known):
            if not one.items.any():
                found[n] = self.popular(model, banned, k)
        return found

    def start(self, user: Raw | None = None) -> Stream:
        """A person before their first event."""
        return Stream(begin_all(self.bundle.model, 1), None, (), self.user_number(user), None)

    def observe(
        self, stream: Stream, item: Raw, time: float | None = None, *, context: Given | None = None,
        start: bool | None = None,
    ) -> Stream:  # fmt: skip
        """The person after one more event; what `recommend` takes of each event: ``time`` in seconds, ``context``, and
        whether it began a session (``start``; None: a person's first event did, no other).
        """
        if time is None and self.reads_gaps:
            raise Mistake("this model looks at the time between events; give the event's time in seconds")
        numbers = self.bundle.item_ids.encode([item])
        number = int(numbers[0])
        gap = 0.0 if time is None or stream.time is None else time - stream.time
        starts = self.starts(1, None if start is None else [start], first=stream.hidden is None)
        times, given = None if time is None else [time], None if context is None else [context]
        aside = context_of(self.bundle, numbers, stream.user, times, given)
        batch = self.events(History(numbers, np.array([gap], np.float32), starts, stream.user, aside))
        state, hidden = advance(self.bundle.model, batch, stream.state)
        return Stream(state, hidden[:, -1], (*stream.items, number), stream.user, time)

    def top_k(self, stream: Stream, k: int = 10, *, exclude_seen: bool | None = None) -> Ranked:
        """The ``k`` best next items for the person now; the same as `recommend` gives for the events so far."""
        seen = np.array(stream.items if (self.masked if exclude_seen is None else exclude_seen) else (), np.int32)
        if stream.hidden is None or not any(stream.items):
            return self.popular(self.bundle.model, seen, k)
        return self.ranked(self.bundle.model, stream.hidden, [seen], k)[0]

    def unknown(self, history: Sequence[Raw]) -> list[Raw]:
        """The ids of a history that the model does not know."""
        return [raw for raw, number in zip(history, self.bundle.item_ids.encode(history), strict=True) if number == 0]

    def notes(self, histories: Sequence[Sequence[Raw]], users: Sequence[Raw | None] | None) -> Iterator[str]:
        """What a person should know of what they ask: ids that the model does not know, users that it misses."""
        for history in histories:
            if unknown := self.unknown(history):
                yield f"the model does not know {', '.join(map(repr, unknown[:5]))}{', ...' if unknown[5:] else ''}"
        named = [user for user in users or () if user is not None]
        looks = build.needs(self.bundle.model, self.bundle.columns)["user"]
        if looks and not named:
            yield "the model looks at who it is; without --user everybody counts as new"
        if not looks and named:
            yield "the model does not look at who it is; --user changes nothing"
        for user in dict.fromkeys(named if looks else ()):
            if not self.user_number(user):
                yield f"the model does not know the user {user!r}, who counts as new"

    @property
    def masked(self) -> bool:
        """Whether the protocol leaves a history's items out."""
        return self.bundle.card["mask_seen"] != "none"

    @property
    def reads_gaps(self) -> bool:
        return "gap" in build.wanted(self.bundle.model)

    def history(
        self, items: Sequence[Raw], times: Sequence[float] | None, user: Raw | None,
        contexts: Sequence[Given] | None, starts: Sequence[bool] | None,
    ) -> History:  # fmt: skip
        """One history in numbers."""
        numbers = self.bundle.item_ids.encode(items)
        gaps = np.zeros(len(numbers), np.float32)
        if times is not None:
            if len(times) != len(numbers):
                raise Mistake(f"{len(numbers)} events have {len(times)} times; give one time (seconds) an event")
            gaps[1:] = np.diff(np.asarray(times, np.float64))
        person = self.user_number(user)
        aside = context_of(self.bundle, numbers, person, times, contexts)
        return History(numbers, gaps, self.starts(len(numbers), starts), person, aside)

    def starts(self, events: int, given: Sequence[bool] | None, first: bool = True) -> np.ndarray | None:
        """Where sessions began: as given, else a whole history is one; None for a model whose data had no sessions."""
        if not self.bundle.offer.starts:
            if given is not None:
                raise Mistake("this model's data had no sessions inside a history; leave starts out")
            return None
        if given is None:
            return np.arange(events) == (0 if first else -1)
        if len(given) != events:
            raise Mistake(f"{events} events have {len(given)} starts; give one an event, True where a session began")
        return np.asarray(given, bool)

    def events(self, history: History) -> Batch:
        """One history as a batch of one row."""
        user = jnp.full((1, len(history.items)), history.user) if "user" in self.bundle.model.tables else None
        starts = None if history.starts is None else jnp.asarray(history.starts)[None]
        return Batch(
            item=jnp.asarray(history.items)[None], gap=jnp.asarray(history.gaps)[None], start=starts, user=user,
            context=jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], history.context),
        )  # fmt: skip

    def user_number(self, user: Raw | None) -> int:
        return 0 if user is None else int(self.bundle.user_ids.encode([user])[0])

    @staticmethod
    def at(values: Sequence[Any] | None, n: int) -> Any:
        return None if values is None else values[n]

    def restricted(self, allow: Iterable[Raw] | None) -> Recommender:
        """The model with every item outside ``allow`` at score ``-inf``."""
        if allow is None:
            return self.bundle.model
        allowed = np.zeros(self.bundle.model.items + 1, bool)
        allowed[self.bundle.item_ids.encode(allow)] = True
        bias = self.bundle.model.tables.get("bias", jnp.zeros(self.bundle.model.items + 1))
        return replace(
            self.bundle.model, tables=self.bundle.model.tables | {"bias": jnp.where(allowed, bias, -jnp.inf)}
        )

    def ranked(self, model: Recommender, hidden: Array, seen: Sequence[np.ndarray], k: int) -> list[Ranked]:
        """Lists for hidden vectors ``(n, width)``, without the items ``seen`` by each."""
        width = padded_size(max(len(one) for one in seen))
        padded = np.zeros((len(seen), width), np.int32)
        for row, one in enumerate(seen):
            padded[row, : len(one)] = one
        scores, items = best(model, hidden, padded, candidates=self.bundle.candidates, k=min(k, self.bundle.candidates))
        return [self.named(*row) for row in zip(np.asarray(scores), np.asarray(items), strict=True)]

    def named(self, scores: np.ndarray, items: np.ndarray) -> Ranked:
        real = scores > -np.inf
        return list(zip(self.bundle.item_ids.decode(items[real]), scores[real].tolist(), strict=True))

    def popular(self, model: Recommender, banned: np.ndarray, k: int) -> Ranked:
        """The most popular items of training that are allowed, scored by their share of training events."""
        share = self.bundle.popularity[: self.bundle.candidates + 1] / max(1, self.bundle.popularity.sum())
        barred = np.isneginf(np.asarray(model.tables.get("bias", np.zeros(1))))
        share[: len(barred)][barred[: len(share)]] = -np.inf
        share[np.concatenate([[0], banned]).astype(int)] = -np.inf
        order = np.argsort(-share, kind="stable")[:k]
        return self.named(share[order], order)
