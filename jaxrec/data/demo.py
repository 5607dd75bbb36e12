"""A shop that never was: histories of known structure, and the best that any recommender can do on them.

A user takes each item at most once. The next item is drawn among those not yet taken, from a mixture of

- near:  a successor of the previous item,
- far:   the genre that follows the genre of the item `lag` steps back,
- taste: the genre of the visit,
- trend: the whole shop,

the last three by popularity. Steps count along the user's own history, across visits. The genre of a visit is hidden,
and that of the next visit follows a Markov chain. Because all this is known, so is the exact distribution of the next
item (TruePredictor). Its ranking is the ceiling, in expectation, of every metric for recommenders that see item ids in
order and nothing else; one that also sees where a visit begins knows slightly more. Taking each item once keeps the
mask of seen items harmless, for a seen item is never the target, and keeps the filter exact, for it sees what is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaxrec.config import Mistake, Section, from_dict
from jaxrec.data.shop import draw_world, simulate

if TYPE_CHECKING:
    from jaxrec.data.prepared import Prepared

Numbers = NDArray[np.int64]
Reals = NDArray[np.float64]

BLOCK = 512  # users filtered at a time


@dataclass(frozen=True, kw_only=True)
class Demo(Section):
    """Size and structure of the demo. `near`, `far`, `taste` and `trend` are odds: they need not sum to 1."""

    users: int = 3000
    """how many people there are"""
    items: int = 500
    """how many items there are, a multiple of the genres"""
    events: int = 40
    """mean length of a history; lengths run from a quarter of it to 2.5 times it"""
    genres: int = 20
    """groups of equally many items"""
    session: int = 8
    """mean number of events in a visit"""
    lag: int = 4
    """how many steps back the planted dependency sits"""
    successors: int = 3
    """successors of an item; each is half as likely as the one before"""
    near: float = 0.15
    """odds that an event follows the previous item"""
    far: float = 0.6
    """odds that it follows the genre of the item `lag` steps back"""
    taste: float = 0.2
    """odds that it follows the genre of the visit"""
    trend: float = 0.05
    """odds that it follows the popularity of the whole shop"""
    seed: int = 0
    """another one draws other events by the same rules"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("users", "genres", "session", "lag", "successors"):
            if getattr(self, name) < 1:
                raise Mistake(f"demo.{name} = {getattr(self, name)} must be 1 or more")
        if min(self.near, self.far, self.taste) < 0 or self.trend <= 0:
            raise Mistake("demo.near, far and taste must be 0 or more and demo.trend above 0: they are odds")
        if self.events < 8:
            raise Mistake(f"demo.events = {self.events} makes histories too short to split; use 8 or more")
        if self.items < 5 * self.events:
            raise Mistake(f"demo.items = {self.items} would run out for long histories; use {5 * self.events} or more")
        if self.items % self.genres:
            raise Mistake(f"demo.items = {self.items} is not a multiple of demo.genres = {self.genres}; make it one")
        if self.seed < 0:
            raise Mistake(f"demo.seed = {self.seed} must not be negative")


def generate(options: Demo) -> dict[str, NDArray[Any]]:
    """The events of all users, each user's together and oldest first, as columns of one length.

    user: int64 from 1; item: text such as "g3-i015" (genre 3; sixteenth most popular); time: int64 milliseconds since
    1970, strictly increasing within a user; session: int64 number of the visit, unique across users. The same options
    give the same bits everywhere.
    """
    histories, visits, clock = simulate(options)
    user, step = np.nonzero(histories >= 0)
    return {
        "user": user + 1,
        "item": item_names(options)[histories[user, step]],
        "time": clock[user, step],
        "session": np.cumsum(visits[user, step]),
    }


def item_names(options: Demo) -> NDArray[np.str_]:
    """(items,): the raw id of every item, by its number."""
    return np.array([f"g{number % options.genres}-i{number:03d}" for number in range(options.items)])


class TruePredictor:
    """The exact Bayes filter: the distribution of the next item given the items taken so far, in order.

    It sees neither times nor visits: the hidden genre is filtered by the forward algorithm, in which the beginning of
    a visit is one of the things that may happen before any event.
    """

    def __init__(self, options: Demo):
        self.options, self.world = options, draw_world(options)
        self.move = self.world.stay * np.eye(options.genres) + (1 - self.world.stay) * self.world.move

    def probabilities(self, history: Any) -> Reals:
        """(items,): the distribution after one history of item numbers, oldest first, all different."""
        *_, (_, _, last) = self.walk(np.asarray(history, np.int64).reshape(1, -1))
        return last[0]

    def walk(self, histories: Numbers) -> Iterator[tuple[int, Numbers, Reals]]:
        """For step 0, 1, ...: (step, rows, probabilities (rows, items)) of the event after the first `step` ones.

        `histories` (users, steps) holds item numbers, oldest first, with -1 after the end; `rows` are the users whose
        history has at least `step` events, so that the last prediction of each is for an event not in `histories`. The
        steps end with the longest of them.
        """
        lengths, genres, taste = (histories >= 0).sum(axis=1), self.options.genres, self.world.odds[2]
        belief = np.full((len(histories), genres), 1 / genres)
        untaken = np.ones((len(histories), *self.world.typical.shape))
        for step in range(lengths.max(initial=0) + 1):
            rows, on = np.flatnonzero(lengths >= step), np.flatnonzero(lengths > step)
            plain, typical = self._plain(histories[rows], step) * untaken[rows], self.world.typical * untaken[rows]
            # the chance of a genre, over the chance that its mixture falls on an untaken item: scales that mixture to 1
            chance = belief[rows] / (plain.sum(axis=(1, 2))[:, None] + taste * typical.sum(axis=1))
            total = plain * chance.sum(axis=1)[:, None, None] + typical * (taste * chance)[:, None]
            yield step, rows, total.reshape(len(rows), -1)
            if len(on):
                place, (shelf, genre) = np.searchsorted(rows, on), np.divmod(histories[on, step], genres)
                joint = chance[place] * plain[place, shelf, genre][:, None]
                joint[np.arange(len(on)), genre] += (taste * chance)[place, genre] * typical[place, shelf, genre]
                belief[on] = joint / joint.sum(axis=1, keepdims=True) @ self.move
                untaken[on, shelf, genre] = 0

    def _plain(self, histories: Numbers, step: int) -> Reals:
        """(users, items / genres, genres): the part of the mixture that does not depend on the hidden genre."""
        near, far, _, trend = self.world.odds
        users, genres = np.arange(len(histories)), self.options.genres
        out = np.tile(trend * self.world.popular, (len(users), 1))
        if step >= 1:
            for share, follow in zip(self.world.share, self.world.near, strict=True):
                out[users, follow[histories[:, step - 1]]] += near * share
        out = out.reshape(len(users), -1, genres)
        if step >= self.options.lag:
            then = self.world.far[histories[:, step - self.options.lag] % genres]
            out += far * self.world.typical * (then[:, None, None] == np.arange(genres))
        return out


def true_counts(
    prepared: Prepared, split: str = "test", *, options: Demo | None = None
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """How the generator's own probabilities rank every target of `split` among the catalogue.

    (greater, equal, greater_masked, equal_masked): int64 (targets,) each, in the order of `prepared.targets(split)`:
    candidates more probable than the target, and others exactly as probable. Masking changes nothing, because what was
    taken has probability 0. A target outside the catalogue, or (where the card says so) never seen in training, is a
    sure miss. `options` None takes them from the card. Mistake unless the sequences are the demo's whole histories.
    """
    options = options or _options(prepared)
    histories, ids = _histories(prepared, options)
    targets = prepared.targets(split)
    sequence = prepared.sequence_of(targets)
    step = targets - prepared.offsets[sequence]
    candidate = (ids > 0) & (ids <= prepared.candidates)
    greater, equal = _ranks(TruePredictor(options), histories, sequence, step, candidate)
    wanted = prepared.items[targets]
    missed = (wanted < 1) | (wanted > prepared.candidates)
    if prepared.card["unknown_targets"] == "miss":
        missed |= ~prepared.is_known(targets)
    greater[missed], equal[missed] = prepared.candidates, 0
    return greater, equal, greater.copy(), equal.copy()


def _ranks(
    predictor: TruePredictor, histories: Numbers, sequence: Numbers, step: Numbers, candidate: NDArray[np.bool_]
) -> tuple[Numbers, Numbers]:
    """Candidates more probable than event `step` of `sequence` (ascending), and others exactly as probable."""
    greater, equal = np.zeros(len(step), np.int64), np.zeros(len(step), np.int64)
    for first in range(0, len(histories), BLOCK):
        mine = np.arange(*np.searchsorted(sequence, [first, first + BLOCK]))
        for now, rows, probabilities in predictor.walk(histories[first : first + BLOCK]):
            asked = mine[step[mine] == now]
            if len(asked):
                chance = probabilities[np.searchsorted(rows, sequence[asked] - first)]
                own = chance[np.arange(len(asked)), histories[sequence[asked], now]][:, None]
                greater[asked] = (chance[:, candidate] > own).sum(axis=1)
                equal[asked] = (chance[:, candidate] == own).sum(axis=1) - 1
    return greater, equal


def _options(prepared: Prepared) -> Demo:
    if "demo" not in prepared.card["source"]:
        raise Mistake(f"{prepared.card['name']} is not the demo; only of the demo are the true probabilities known")
    return from_dict(Demo, prepared.card["source"]["demo"], "the card's demo")


def _histories(prepared: Prepared, options: Demo) -> tuple[Numbers, Numbers]:
    """Item numbers (sequences, steps) of the prepared sequences, -1 after the end; the prepared id of each item.

    The demo is generated again and compared, for filtered or cut histories would make its probabilities wrong.
    """
    histories = simulate(options)[0]
    ids = prepared.item_ids.encode(item_names(options)).astype(np.int64)
    user_at = np.zeros(len(prepared.user_ids) + 1, np.int64)
    user_at[prepared.user_ids.encode(range(1, options.users + 1))] = np.arange(options.users)
    histories = histories[user_at[prepared.users]]
    taken = histories >= 0
    same_lengths = np.array_equal(taken.sum(axis=1), np.diff(prepared.offsets))
    if same_lengths and np.array_equal(ids[histories[taken]], prepared.items):
        return histories, ids
    raise Mistake(
        f"the sequences of {prepared.card['name']} are not the whole histories of the demo with these options, so "
        "their true probabilities are unknown; prepare the demo by user, without filters"
    )
