"""Recommenders that only count: popularity, and weighted Markov transitions. The floor a trained model has to clear.

``Markov((1, 0.5, 0.25)).fit(prepared)`` scores an item by how often it directly followed the last, the second last and
the third last item of a history, in the training part, times 1, 1/2 and 1/4. Equal scores, zero above all, are ordered
by training popularity; what is equal in both is a tie and left to the metric. Everything is exact: ranks come from the
few items with a transition, and the rest of the catalogue is counted by popularity alone, so no dense scores exist.
Memory is bounded whatever the number of targets and the length of histories.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxrec.config import Mistake, did_you_mean
from jaxrec.data.prepared import Prepared, ranges
from jaxrec.models.transitions import Histories, Numbers, Transitions, Values, look_up, summed

MASKS = ("none", "history", "history_except_target")
DIGITS = 12  # sums of shares that differ beyond are equal: another order of the same sum may differ in its last bit


class Ranks(NamedTuple):
    """Candidates scored above each target and exactly like it, (n,) each; ``_masked``: without items of the history."""

    greater: Numbers
    equal: Numbers
    greater_masked: Numbers
    equal_masked: Numbers


@dataclass(frozen=True)
class Popularity:
    """Everyone is recommended the most frequent items of the training part."""

    def fit(self, prepared: Prepared, transitions: Transitions | None = None) -> "Counter":
        return Markov(()).fit(prepared, transitions)


@dataclass(frozen=True)
class Recency:
    """The distinct items of the history, the most recent first, then the most frequent items of the training part."""

    def fit(self, prepared: Prepared, transitions: Transitions | None = None) -> "Counter":
        return Markov((), recent=2**31).fit(prepared, transitions)


@dataclass(frozen=True)
class Markov:
    """Transition counts from the last ``len(weights)`` items, the most recent first.

    ``recent`` > 0 puts that many most recent distinct items of the history on top: the habit of going back, which
    is strong in session data and means nothing where seen items are masked. Weights that are sums of a few powers of
    two keep scores exact, so that equal scores are found equal. ``normalised`` counts what followed an item as a share
    of all that followed it, so that a rare item says as much as a frequent one.
    """

    weights: tuple[float, ...] = (1.0,)
    recent: int = 0
    normalised: bool = False

    def __post_init__(self) -> None:
        if not all(0 < weight < np.inf for weight in self.weights):
            raise Mistake(
                f"weights = {self.weights} are not all positive; give one number above 0 for each recent item"
            )
        if self.recent < 0:
            raise Mistake(
                f"recent = {self.recent} is negative; give the number of recent items to put on top, 0 for none"
            )

    def fit(self, prepared: Prepared, transitions: Transitions | None = None) -> "Counter":
        """``transitions`` are those of the training part where somebody has counted them already."""
        popularity = np.array(prepared.popularity, np.int64)
        counted = Transitions.count(prepared) if transitions is None else transitions
        return Counter(
            self.weights, self.recent, popularity, counted.normalised() if self.normalised else counted, self.normalised
        )


@dataclass(frozen=True, eq=False)
class Counter:
    """A fitted ``Markov``, ``Recency`` or ``Popularity``; ``popularity`` (1 + candidates,) counts training events of
    each item.
    """

    weights: tuple[float, ...]
    recent: int
    popularity: Numbers
    transitions: Transitions
    normalised: bool = False

    def counts(self, prepared: Prepared, split: str = "test", mask: str | None = None) -> Ranks:
        """Rank every target of a split, in the order of ``prepared.targets(split)``.

        The history of a target is every earlier event of its sequence. ``mask`` None takes the data's own
        (``card["mask_seen"]``): under ``"history_except_target"`` the target stays a candidate though it was seen,
        under ``"history"`` it is then a sure miss, under ``"none"`` masked counts equal the others. A sure miss has
        every candidate above it; so has a target outside the catalogue, or never seen in training where the card says
        so.
        """
        mask = _checked(prepared.card["mask_seen"] if mask is None else mask)
        targets, size = self._targets(prepared, split), self.transitions.size
        wanted = prepared.items[targets].astype(np.int64)
        missed = (wanted < 1) | (wanted >= size)
        if prepared.card["unknown_targets"] == "miss":
            missed |= ~prepared.is_known(targets)
        wanted[missed] = 1  # any item will do: these rows are overwritten below
        ranks = np.empty((4, len(targets)), np.int64)
        histories = Histories.before(prepared, targets)
        for start, stop in self.transitions.parts(histories, len(self.weights)):
            ranks[:, start:stop] = self._ranks(histories.part(start, stop), wanted[start:stop], mask)
        ranks[:, missed] = np.array([size - 1, 0, size - 1, 0])[:, None]
        return Ranks(*ranks)

    def top_k(self, prepared: Prepared, k: int, split: str = "test", exclude_seen: bool = True) -> NDArray[np.int32]:
        """(targets, k) item numbers recommended before each target of a split, best first; 0 where items ran out."""
        return self._top(Histories.before(prepared, self._targets(prepared, split)), k, exclude_seen)

    def recommend(self, histories: Sequence[Sequence[int]], k: int, exclude_seen: bool = True) -> NDArray[np.int32]:
        """(n, k) item numbers for histories of item numbers, oldest first; best first, 0 where items ran out.

        Numbers outside the catalogue are ignored. Of items equal in score and popularity the smaller number is first.
        """
        offsets = np.cumsum([0, *map(len, histories)])
        items = np.array([item for history in histories for item in history], np.int64)
        return self._top(Histories.whole(items, offsets), k, exclude_seen)

    def _targets(self, prepared: Prepared, split: str) -> Numbers:
        if prepared.candidates + 1 != self.transitions.size:
            fitted = self.transitions.size - 1
            raise ValueError(
                f"fitted on {fitted} items, asked about {prepared.candidates}; use the data it was fitted on"
            )
        return prepared.targets(split)

    def _scores(self, histories: Histories, seen: tuple[Numbers, Numbers]) -> tuple[Numbers, Values]:
        """Every (row, item) with a score above zero."""
        keys, scores = self.transitions.scores(histories, self.weights)
        if self.normalised:
            keys, scores = summed(keys, scores)
            scores = np.round(scores, DIGITS)
        if self.recent:
            row, item = seen
            place = np.searchsorted(row, row, side="right") - np.arange(len(row)) - 1  # 0 for the most recent
            top = place < self.recent
            keys = np.concatenate([keys, (row * self.transitions.size + item)[top]])
            scores = np.concatenate([scores, self._step_above() * (self.recent - place[top])])
        return summed(keys, scores)

    def _step_above(self) -> float:
        """A power of two above every sum of transitions, so that adding its multiples rounds nothing away."""
        return 2.0 ** np.ceil(np.log2(1 + sum(self.weights) * np.max(self.transitions.times, initial=0)))

    def _ranks(self, histories: Histories, target: Numbers, mask: str) -> tuple[Numbers, ...]:
        size, rows = self.transitions.size, len(target)
        seen = histories.distinct(size)
        keys, scores = self._scores(histories, seen)
        score, familiar = look_up(keys, scores, np.arange(rows) * size + target), self.popularity[target]

        def compare(key: Numbers, value: Values) -> tuple[Numbers, Numbers]:
            row, item = np.divmod(key, size)
            tied, known = value == score[row], self.popularity[item]
            above = (value > score[row]) | (tied & (known > familiar[row]))
            same = tied & (known == familiar[row]) & (item != target[row])
            return np.bincount(row[above], minlength=rows), np.bincount(row[same], minlength=rows)

        greater, equal = compare(keys, scores)
        more, alike = self._unscored(keys, familiar)
        greater, equal = greater + np.where(score == 0, more, 0), equal + np.where(score == 0, alike - 1, 0)
        if mask == "none":
            return greater, equal, greater, equal
        seen_keys = seen[0] * size + seen[1]
        above, same = compare(seen_keys, look_up(keys, scores, seen_keys))
        greater_masked, equal_masked = greater - above, equal - same
        if mask == "history":
            barred = seen[0][seen[1] == target[seen[0]]]
            greater_masked[barred], equal_masked[barred] = size - 1, 0
        return greater, equal, greater_masked, equal_masked

    def _unscored(self, keys: Numbers, familiar: Numbers) -> tuple[Numbers, Numbers]:
        """Per row, how many of the items without a score are more popular than ``familiar``, and exactly as popular."""
        order = np.sort(self.popularity[1:])
        below, upto = (np.searchsorted(order, familiar, side=side) for side in ("left", "right"))
        row, item = np.divmod(keys, self.transitions.size)
        known = self.popularity[item]
        more = np.bincount(row[known > familiar[row]], minlength=len(familiar))
        alike = np.bincount(row[known == familiar[row]], minlength=len(familiar))
        return len(order) - upto - more, upto - below - alike

    def _top(self, histories: Histories, k: int, exclude_seen: bool) -> NDArray[np.int32]:
        if k < 1:
            raise Mistake(f"k = {k} is not the length of a list; give 1 or more")
        lists = np.zeros((len(histories.end), k), np.int32)
        popular = 1 + np.argsort(-self.popularity[1:], kind="stable")
        for start, stop in self.transitions.parts(histories, len(self.weights)):
            row, item = self._best(histories.part(start, stop), k, exclude_seen, popular)
            place = np.arange(len(row)) - np.searchsorted(row, row)
            short = place < k
            lists[start + row[short], place[short]] = item[short]
        return lists

    def _best(self, part: Histories, k: int, exclude_seen: bool, popular: Numbers) -> tuple[Numbers, Numbers]:
        """(row, item) by row, best first: items with a score, then enough of the most popular to fill k places."""
        size, rows = self.transitions.size, len(part.end)
        seen = part.distinct(size)
        keys, scores = self._scores(part, seen)
        scored = np.bincount(keys // size, minlength=rows)
        barred = np.bincount(seen[0], minlength=rows) * exclude_seen
        fill = np.where(scored - barred < k, np.minimum(k + scored + barred, size - 1), 0)
        filled = np.repeat(np.arange(rows), fill) * size + popular[ranges(np.zeros_like(fill), fill)]
        filled = filled[look_up(keys, scores, filled) == 0]
        keys, scores = np.concatenate([keys, filled]), np.concatenate([scores, np.zeros(len(filled))])
        if exclude_seen:
            allowed = ~np.isin(keys, seen[0] * size + seen[1])
            keys, scores = keys[allowed], scores[allowed]
        row, item = np.divmod(keys, size)
        best = np.lexsort((item, -self.popularity[item], -scores, row))
        return row[best], item[best]


def _checked(mask: str) -> str:
    if mask not in MASKS:
        raise Mistake(f"mask = {mask!r} is not one of {', '.join(MASKS)}{did_you_mean(mask, MASKS)}")
    return mask
