"""The demo's shop and the people who visit it: what `jaxrec.data.demo` describes, drawn at random.

The same options give the same bits everywhere: only uniform draws, comparisons, sums in order, products and quotients
are used, and no function whose last digit depends on the processor or on the version of a library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from jaxrec.data.demo import Demo

Numbers = NDArray[np.int64]
Reals = NDArray[np.float64]

LOYALTY = 0.6  # chance that the next visit goes to the favourite successor of this visit's genre
MINUTE, DAY = 60_000, 86_400_000  # milliseconds
OPENING = 1_704_067_200_000  # 2024-01-01


class World(NamedTuple):
    """The shop. Items are numbered from 0 by falling popularity; the genre of item i is i mod genres."""

    popular: Reals  # (items,) sums to 1
    typical: Reals  # (items / genres, genres): popularity within the genre; columns sum to 1
    near: Numbers  # (successors, items): successors of each item
    far: Numbers  # (genres,): the genre that follows each genre
    share: Reals  # (successors,): how likely each successor is
    odds: Reals  # (4,): near, far, taste, trend; sums to 1
    move: Reals  # (genres, genres): from one visit to the next
    stay: float  # chance that the next event belongs to the same visit


def draw_world(options: Demo) -> World:
    """The shop of these options; how many users there are, and how busy, does not change it."""
    rng = _generator(options.seed, 0)

    def shuffled(size: int) -> Numbers:
        return np.argsort(rng.random(size), kind="stable")

    weight = 1.0 / (np.arange(options.items) + 10)  # Zipf's law with a blunted head
    move = np.full((options.genres, options.genres), (1 - LOYALTY) / options.genres)
    move[np.arange(options.genres), shuffled(options.genres)] += LOYALTY
    return World(
        popular=_normalised(weight),
        typical=_normalised(weight.reshape(-1, options.genres)),
        near=np.stack([shuffled(options.items) for _ in range(options.successors)]),
        far=shuffled(options.genres),
        share=_normalised(1.0 / 2 ** np.arange(options.successors)),
        odds=_normalised(np.array([options.near, options.far, options.taste, options.trend])),
        move=move,
        stay=1 - 1 / options.session,
    )


def simulate(options: Demo) -> tuple[Numbers, NDArray[np.bool_], Numbers]:
    """(users, steps) each: item numbers with -1 after the end, where a visit begins, times."""
    world, rng = draw_world(options), _generator(options.seed, 1)
    shortest = options.events // 4
    chance = rng.random(options.users)  # its square is a third on average: many short histories, few long ones
    lengths = shortest + ((3 * (options.events - shortest) + 1) * (chance * chance)).astype(np.int64)
    histories = np.full((options.users, int(np.max(lengths))), -1, np.int64)
    visits, clock = np.zeros(histories.shape, bool), np.zeros_like(histories)
    genre = (rng.random(options.users) * options.genres).astype(np.int64)
    now = OPENING + (rng.random(options.users) * (300 * DAY)).astype(np.int64)
    for step in range(histories.shape[1]):
        ends, where, pause = rng.random((3, options.users))
        visit = (ends >= world.stay) | (step == 0)
        if step > 0:
            genre = np.where(visit, _invert(np.cumsum(world.move, axis=1)[genre], where), genre)
        now += np.where(visit, DAY // 4 + 10 * DAY * (pause * pause), MINUTE // 2 + 5 * MINUTE * pause).astype(np.int64)
        alive = np.flatnonzero(step < lengths)
        visits[alive, step], clock[alive, step] = visit[alive], now[alive]
        histories[alive, step] = _draw(world, histories[alive, :step], genre[alive], options.lag, rng)
    return histories, visits, clock


def _draw(world: World, taken: Numbers, genre: Numbers, lag: int, rng: np.random.Generator) -> Numbers:
    """(users,): the item after each history in `taken` (users, steps).

    Source and item are drawn anew, together, until the item is new to the user: that is a draw from the whole mixture
    restricted to items not taken. A source that has nothing to follow yet is drawn anew as well.
    """
    users, steps = taken.shape
    item, todo, nothing = np.full(users, -1), np.arange(users), np.full(users, -1)
    cumulative = np.cumsum(world.typical, axis=0).T
    while len(todo):
        which, where = rng.random((2, len(todo)))
        rank = _invert(np.cumsum(world.share), where)
        near = world.near[rank, taken[todo, -1]] if steps >= 1 else nothing[todo]
        then = world.far[taken[todo, -lag] % len(cumulative)] if steps >= lag else genre[todo]
        far = _invert(cumulative[then], where) * len(cumulative) + then if steps >= lag else nothing[todo]
        taste = _invert(cumulative[genre[todo]], where) * len(cumulative) + genre[todo]
        trend = _invert(np.cumsum(world.popular), where)
        drawn = np.choose(_invert(np.cumsum(world.odds), which), [near, far, taste, trend])
        new = (drawn >= 0) & (taken[todo] != drawn[:, None]).all(axis=1)
        item[todo[new]] = drawn[new]
        todo = todo[~new]
    return item


def _invert(cumulative: Reals, chance: Reals) -> Numbers:
    """The category each uniform draw falls in; `cumulative` is (categories,) or (draws, categories)."""
    if cumulative.ndim == 1:
        return np.minimum(np.searchsorted(cumulative, chance, side="right"), len(cumulative) - 1)
    return np.minimum((chance[:, None] >= cumulative).sum(axis=1), cumulative.shape[1] - 1)


def _normalised(weight: Reals) -> Reals:
    """Columns that sum to 1; summed in order, because the order in which `np.sum` adds depends on the processor."""
    return weight / np.cumsum(weight, axis=0)[-1]


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, stream]))
