"""The demo: the same bits everywhere, the structure it claims, and a filter that is Bayes' own."""

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from jaxrec.config import Mistake
from jaxrec.data import demo
from jaxrec.data.demo import Demo, TruePredictor, generate, item_names, true_counts
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.data.shop import World, draw_world, simulate

TINY = Demo(users=6, items=42, events=8, genres=3, session=3, lag=2, successors=2, seed=1)
SMALL = Demo(users=400, items=120, events=16, genres=6, seed=5)


def prepared(options=SMALL, **chosen):
    return prepare(Preparation(demo=options, **chosen), say=lambda line: None)


def mixture(world: World, options: Demo, history, genre: int):
    """The distribution of the next item in a known genre, item by item, as the module's first lines define it."""
    chance = np.zeros(options.items)
    near, far, taste, trend = world.odds
    for item in range(options.items):
        if item in history:
            continue
        typical = world.typical[item // options.genres, item % options.genres]
        if len(history) >= 1:
            chance[item] += near * sum(
                share for share, follow in zip(world.share, world.near, strict=True) if follow[history[-1]] == item
            )
        if len(history) >= options.lag and world.far[history[-options.lag] % options.genres] == item % options.genres:
            chance[item] += far * typical
        chance[item] += taste * typical * (item % options.genres == genre) + trend * world.popular[item]
    return chance / chance.sum()


def brute_force(options: Demo, history):
    """Sum over every path of hidden genres, without a recursion."""
    world, total = draw_world(options), np.zeros(options.items)
    chance = [
        [mixture(world, options, history[:step], genre) for genre in range(options.genres)]
        for step in range(len(history) + 1)
    ]
    for path in itertools.product(range(options.genres), repeat=len(history) + 1):
        weight = 1 / options.genres
        for before, after in itertools.pairwise(path):
            weight *= (before == after) * world.stay + (1 - world.stay) * world.move[before, after]
        for step, item in enumerate(history):
            weight *= chance[step][path[step]][item]
        total += weight * chance[-1][path[-1]]
    return total / total.sum()


@given(st.permutations(range(12)), st.integers(0, 5))
def test_the_filter_is_the_sum_over_all_hidden_paths(items, steps):
    history = items[:steps]
    found = TruePredictor(TINY).probabilities(history)
    np.testing.assert_allclose(found, brute_force(TINY, history), rtol=1e-10, atol=1e-15)
    assert found.sum() == pytest.approx(1)
    assert (found[history] == 0).all(), "what was taken is not taken again"


def test_walking_many_histories_is_walking_each():
    histories = simulate(TINY)[0]
    predictor = TruePredictor(TINY)
    seen = np.zeros(len(histories), int)
    for step, rows, chance in predictor.walk(histories):
        for row, found in zip(rows, chance, strict=True):
            np.testing.assert_allclose(found, predictor.probabilities(histories[row, :step]), atol=1e-15)
            seen[row] += 1
    assert seen.tolist() == ((histories >= 0).sum(axis=1) + 1).tolist()


def bits(options, histories):
    """Log-probability (base 2) of every event of `histories` under the filter of `options`."""
    found = []
    for step, rows, chance in TruePredictor(options).walk(histories):
        if step < histories.shape[1]:
            alive = histories[rows, step] >= 0
            found.append(np.log2(chance[alive, histories[rows[alive], step]]))
    return np.concatenate(found)


@pytest.mark.parametrize(
    "change",
    [
        *({"lag": 3}, {"lag": 5}, {"near": 0.05}, {"near": 0.4}, {"far": 0.3}, {"taste": 0.05}, {"trend": 0.3}),
        *({"session": 1}, {"session": 64}, {"successors": 1}, {"seed": 6}),
    ],
    ids=str,
)
def test_no_other_filter_explains_the_data_better(change):
    """The truth maximises the expected log-probability; 6,000 events make that plain for every wrong option."""
    histories = simulate(SMALL)[0]
    gain = bits(SMALL, histories) - bits(replace(SMALL, **change), histories)
    assert gain.mean() > 2 * gain.std() / np.sqrt(len(gain))


def test_the_probabilities_are_calibrated():
    """Of all (event, item) pairs given a probability near p, a share p happens."""
    histories = simulate(replace(SMALL, users=1500))[0]
    edges = np.array([0, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.2, 1])
    said, happened, spread = np.zeros((3, len(edges) - 1))
    for step, rows, chance in TruePredictor(SMALL).walk(histories):
        if step == histories.shape[1]:
            break
        alive = histories[rows, step] >= 0
        group = np.digitize(chance[alive], edges) - 1
        said += np.bincount(group.ravel(), chance[alive].ravel(), len(said))
        spread += np.bincount(group.ravel(), (chance * (1 - chance))[alive].ravel(), len(said))
        hit = group[np.arange(alive.sum()), histories[rows[alive], step]]
        happened += np.bincount(hit, minlength=len(said))
    assert (said > 50).all(), "every group is well filled"
    assert (np.abs(happened - said) < 4.5 * np.sqrt(spread)).all()


def test_generation_is_the_same_bits_everywhere():
    columns = generate(Demo(users=200))
    digest = hashlib.sha256()
    for name, column in columns.items():
        digest.update(name.encode() + "\n".join(map(str, column.tolist())).encode())
    assert digest.hexdigest()[:16] == "b664dee1a1fc50af"
    again = generate(Demo(users=200))
    assert all(np.array_equal(columns[name], again[name]) for name in columns)
    assert not np.array_equal(columns["item"][:500], generate(Demo(users=200, seed=1))["item"][:500])


def test_columns_are_what_they_say():
    columns = generate(SMALL)
    user, item, time, session = (columns[name] for name in ("user", "item", "time", "session"))
    assert len({len(column) for column in columns.values()}) == 1
    assert np.unique(user).tolist() == list(range(1, SMALL.users + 1))
    lengths = np.bincount(user)[1:]
    assert lengths.min() == SMALL.events // 4
    assert lengths.max() <= 2.5 * SMALL.events + 1
    assert lengths.mean() == pytest.approx(SMALL.events, rel=0.1)
    same = np.diff(user) == 0
    assert (np.diff(user) >= 0).all()
    assert (np.diff(time)[same] > 0).all()
    assert len({*zip(user.tolist(), item.tolist(), strict=True)}) == len(user), "each item once"
    assert set(item) <= set(item_names(SMALL))
    visit = np.diff(session) > 0
    assert visit[~same].all(), "a user's first event begins a visit"
    hours = np.diff(time) / 3_600_000
    assert hours[same & visit].min() >= 6
    assert hours[same & ~visit].max() < 0.1
    assert (same & ~visit).sum() / (same & visit).sum() == pytest.approx(SMALL.session - 1, rel=0.1)


def test_popularity_is_skewed():
    counts = np.sort(np.unique(generate(Demo(users=500))["item"], return_counts=True)[1])[::-1]
    assert counts[:50].sum() > 0.2 * counts.sum(), "a tenth of the items has more than a fifth of the events"


def test_the_far_genre_shows_at_its_lag_and_the_successor_at_one_step():
    """The share of events in the genre that follows the genre some steps back peaks at `lag` steps."""
    histories, world = simulate(SMALL)[0], draw_world(SMALL)

    def share(back):
        then, now = histories[:, :-back], histories[:, back:]
        both = now >= 0
        return (world.far[then[both] % SMALL.genres] == now[both] % SMALL.genres).mean()

    shares = {back: share(back) for back in range(1, 8)}
    assert max(shares, key=shares.get) == SMALL.lag
    assert shares[SMALL.lag] > 0.6 > 2 * max(value for back, value in shares.items() if back != SMALL.lag)
    follows = (world.near[:, histories[:, :-1]] == histories[:, 1:]).any(axis=0)[histories[:, 1:] >= 0]
    assert 0.1 < follows.mean() < 0.3


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("chosen", [{}, {"split": "time"}], ids=str)
def test_true_counts_rank_each_target_by_brute_force(split, chosen):
    data = prepared(replace(TINY, users=60), **chosen)
    greater, equal, greater_masked, equal_masked = true_counts(data, split)
    targets, number = data.targets(split), {name: i for i, name in enumerate(item_names(TINY).tolist())}
    assert len(targets) == len(greater) > 0
    raw = [number[data.item_ids.strings[i - 1]] for i in range(1, data.candidates + 1)]
    compared = 0
    for place, target in enumerate(targets):
        begin = data.offsets[data.sequence_of(np.array([target]))[0]]
        history = [raw[item - 1] for item in data.items[begin:target] if item]
        if len(history) < target - begin or not data.is_known(np.array([target]))[0]:
            continue  # its history cannot be read back from the prepared data
        compared += 1
        chance = TruePredictor(TINY).probabilities(history)[raw]
        wanted = data.items[target] - 1
        assert greater[place] == (chance > chance[wanted]).sum()
        assert equal[place] == (chance == chance[wanted]).sum() - 1
        left = np.setdiff1d(np.arange(len(raw)), data.items[begin:target] - 1)
        assert greater_masked[place] == (chance[left] > chance[wanted]).sum()
        assert equal_masked[place] == (chance[left] == chance[wanted]).sum() - 1
    assert compared > 20


def test_true_counts_do_not_depend_on_who_is_looked_at_together(monkeypatch):
    """Blocks of users without a history as long as the longest of all among them."""
    data = prepared(replace(TINY, users=30))
    whole = true_counts(data)
    monkeypatch.setattr(demo, "BLOCK", 2)
    for some, all_ in zip(true_counts(data), whole, strict=True):
        np.testing.assert_array_equal(some, all_)


def test_a_target_that_training_never_shows_is_a_sure_miss():
    data = prepared(replace(TINY, users=12), split="time", boundaries=("0.3", "0.6"))
    unknown = ~data.is_known(data.targets("test"))
    assert unknown.any()
    greater, equal, _, _ = true_counts(data)
    assert (greater[unknown] == data.candidates).all()
    assert (equal[unknown] == 0).all()
    assert (greater[~unknown] < data.candidates).all()


def test_histories_that_are_not_whole_are_refused():
    with pytest.raises(Mistake, match="not the whole histories"):
        true_counts(prepared(sequence="session"))
    with pytest.raises(Mistake, match="not the whole histories"):
        true_counts(prepared(SMALL), options=replace(SMALL, seed=6))
    with pytest.raises(Mistake, match="not the whole histories"):
        true_counts(prepared(min_item_events=40))
    whole = true_counts(prepared(min_user_events=10))
    assert 0 < len(whole[0]) < SMALL.users, "fewer users are no obstacle: the histories left are whole"
    data = prepared()
    data.card["source"].pop("demo")
    with pytest.raises(Mistake, match="is not the demo"):
        true_counts(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"users": 0}, "demo.users = 0"),
        ({"lag": 0}, "demo.lag = 0"),
        ({"trend": 0.0}, "demo.trend above 0"),
        ({"far": -0.1}, "0 or more"),
        ({"events": 4}, "demo.events = 4"),
        ({"items": 180}, "use 200 or more"),
        ({"items": 510}, "not a multiple of demo.genres = 20"),
        ({"seed": -1}, "demo.seed = -1"),
    ],
    ids=str,
)
def test_a_demo_that_cannot_be_drawn_says_why(change, words):
    with pytest.raises(Mistake, match=words):
        Demo(**change)


@pytest.mark.parametrize("change", [{"near": 0.0, "far": 0.0}, {"taste": 0.0}, {"genres": 1}, {"session": 1}], ids=str)
def test_the_structure_can_be_switched_off(change):
    options = replace(TINY, users=40, **change)
    histories = simulate(options)[0]
    assert np.isfinite(bits(options, histories)).all(), "what is drawn has a probability"
