"""Counting baselines against a dense oracle that scores every item, and against the known floors of real data."""

import gzip
import itertools
import re
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, strategies as st

from jaxrec.config import Mistake
from jaxrec.data.prepared import Prepared
from jaxrec.data.vocabulary import Vocabulary
from jaxrec.metrics import coverage, evaluate
from jaxrec.models import transitions
from jaxrec.models.counting import DIGITS, Markov, Popularity, Recency

MASKS = ("none", "history", "history_except_target")
RECOMMENDERS = (
    Popularity(),
    Markov(),
    Markov((1.0, 0.5, 0.25)),
    Markov((0.5,), recent=2),
    Markov((2.0, 1.0), recent=1),
    Markov((1.0, 0.5, 0.25), normalised=True),
    Markov((1.0,), recent=2, normalised=True),
    Recency(),
)


def prepared_from(sequences, held_out, *, candidates=None, mask="history_except_target", unknown="miss"):
    """Data as prepared: ``held_out[s]`` is how many of the last events of sequence s validate and test."""
    lengths = np.array([len(sequence) for sequence in sequences])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    valid, test = np.array(held_out, np.int64).T
    train_end = offsets[1:] - valid - test
    train = [s[: len(s) - v - t] for s, v, t in zip(sequences, valid, test, strict=True)]
    names = list(dict.fromkeys(item for s in [*train, *sequences] for item in s if item != 0))
    known = len({item for s in train for item in s})
    candidates = len(names) if candidates is None else max(known, candidates)
    number = {name: n for n, name in enumerate(names, start=1) if n <= candidates} | {0: 0}
    items = np.array([number.get(item, 0) for s in sequences for item in s], np.int32)
    counted = [number[item] for s in train for item in s]
    ids = Vocabulary.from_strings([str(name) for name in names[:candidates]])
    people = np.arange(1, len(lengths) + 1, dtype=np.int32)
    return Prepared(
        card={"mask_seen": mask, "unknown_targets": unknown}, items=items, offsets=offsets, train_end=train_end,
        valid_end=train_end + valid, users=people, popularity=np.bincount(counted, minlength=candidates + 1),
        item_ids=ids, user_ids=Vocabulary.from_strings([str(n) for n in people]), known=known, candidates=candidates,
    )  # fmt: skip


class Dense:
    """The same recommender written as one comparison of whole score vectors at a time."""

    def __init__(self, prepared, weights, recent, normalised=False):
        self.prepared, self.weights, self.recent = prepared, weights, recent
        size = prepared.candidates + 1
        self.table = np.zeros((size, size))
        for first, end in zip(prepared.offsets[:-1], prepared.train_end, strict=True):
            for event in range(first, end - 1):
                self.table[prepared.items[event], prepared.items[event + 1]] += 1
        if normalised:
            self.table /= np.maximum(self.table.sum(axis=1, keepdims=True), 1)

    def score(self, history):
        """(score, popularity) of every item; history without unknown items at the end counts by age all the same."""
        scores = np.zeros(len(self.table))
        for weight, item in zip(self.weights, reversed(history), strict=False):
            if 0 < item < len(scores):
                scores += weight * self.table[item]
        scores = np.round(scores, DIGITS)
        distinct = [item for item in dict.fromkeys(reversed(history)) if 0 < item < len(scores)]
        for place, item in enumerate(distinct[: self.recent]):
            scores[item] += 1e6 * (self.recent - place)
        return list(zip(scores, self.prepared.popularity, strict=True))

    def ranks(self, split, mask):
        rows = [
            self.rank(self.history(event), int(self.prepared.items[event]), event, mask)
            for event in self.prepared.targets(split)
        ]
        return np.array(rows, np.int64).reshape(-1, 4).T

    def history(self, event):
        return self.prepared.items[
            self.prepared.offsets[self.prepared.sequence_of(np.array([event]))[0]] : event
        ].tolist()

    def rank(self, history, target, event, mask):
        miss = (self.prepared.candidates, 0)
        known = self.prepared.is_known(np.array([event]))[0]
        if target == 0 or (self.prepared.card["unknown_targets"] == "miss" and not known):
            return miss * 2
        score = self.score(history)
        others = set(range(1, len(score))) - {target}
        seen = set(history) if mask != "none" else set()
        free = self.count(score, target, others)
        if mask == "history" and target in seen:
            return free + miss
        return free + self.count(score, target, others - seen)

    @staticmethod
    def count(score, target, others):
        return sum(score[i] > score[target] for i in others), sum(score[i] == score[target] for i in others)

    def top(self, history, k, exclude_seen):
        score = self.score(history)
        allowed = [i for i in range(1, len(score)) if not (exclude_seen and i in history)]
        best = sorted(allowed, key=lambda i: (-score[i][0], -score[i][1], i))[:k]
        return best + [0] * (k - len(best))


def held_out(length):
    return st.tuples(st.integers(0, 2), st.integers(0, 2)).filter(lambda parts: sum(parts) <= length)


@st.composite
def data(draw):
    sequences = draw(st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=9), min_size=2, max_size=7))
    sequences.append([1, 2, 1])
    parts = [draw(held_out(len(sequence))) for sequence in sequences[:-1]] + [(0, 0)]
    return prepared_from(
        sequences,
        parts,
        candidates=draw(st.none() | st.integers(1, 7)),
        unknown=draw(st.sampled_from(["miss", "drop"])),
    )


recommenders = st.sampled_from(RECOMMENDERS)


def dense(prepared, recommender):
    if isinstance(recommender, Recency):
        return Dense(prepared, (), 10**6)
    told = ("weights", ()), ("recent", 0), ("normalised", False)
    return Dense(prepared, *(getattr(recommender, name, default) for name, default in told))


@given(prepared=data(), recommender=recommenders, mask=st.sampled_from(MASKS), split=st.sampled_from(["valid", "test"]))
def test_ranks_equal_the_dense_oracle(prepared, recommender, mask, split):
    ranks = recommender.fit(prepared).counts(prepared, split, mask)
    np.testing.assert_array_equal(np.stack(ranks), dense(prepared, recommender).ranks(split, mask))


@given(prepared=data(), recommender=recommenders, exclude_seen=st.booleans(), k=st.integers(1, 9))
def test_lists_equal_the_dense_oracle(prepared, recommender, exclude_seen, k):
    oracle, fitted = dense(prepared, recommender), recommender.fit(prepared)
    histories = [oracle.history(event) for event in prepared.targets("test")]
    wanted = [oracle.top(history, k, exclude_seen) for history in histories]
    np.testing.assert_array_equal(fitted.top_k(prepared, k, "test", exclude_seen), np.array(wanted).reshape(-1, k))
    np.testing.assert_array_equal(fitted.recommend(histories, k, exclude_seen), np.array(wanted).reshape(-1, k))


@given(prepared=data(), recommender=recommenders)
def test_small_chunks_change_nothing(prepared, recommender):
    fitted = recommender.fit(prepared)
    whole, lists = fitted.counts(prepared, "test"), fitted.top_k(prepared, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transitions, "BUDGET", 5)
        np.testing.assert_array_equal(fitted.counts(prepared, "test"), whole)
        np.testing.assert_array_equal(fitted.top_k(prepared, 3), lists)


def test_only_training_transitions_are_counted():
    """2 follows 1 only in what validates, 3 only in training: the history may be recent, the counts may not."""
    prepared = prepared_from([[1, 3, 1, 2, 1, 2], [2, 2, 2, 2]], [(1, 2), (0, 0)])
    assert Markov().fit(prepared).recommend([[1]], 3, exclude_seen=False).tolist() == [[2, 3, 1]]
    one, three, two = 1, 2, 3  # numbers are given by first appearance in training
    assert prepared.popularity[[one, two, three]].tolist() == [2, 4, 1]


def test_a_history_of_strangers_gets_the_most_popular():
    prepared = prepared_from([[1, 2, 2, 3, 3, 3]], [(0, 0)])
    fitted = Markov((1.0, 0.5)).fit(prepared)
    assert fitted.recommend([[], [0], [99, -4], [3]], 3).tolist() == [[3, 2, 1]] * 3 + [[2, 1, 0]]
    assert fitted.recommend([], 3).shape == (0, 3)


def test_card_decides_the_mask():
    sequences, parts = [[1, 2, 3, 1, 2, 1, 2], [3, 3, 2]], [(0, 1), (0, 0)]
    for mask in MASKS:
        prepared = prepared_from(sequences, parts, mask=mask)
        fitted = Markov().fit(prepared)
        np.testing.assert_array_equal(fitted.counts(prepared), fitted.counts(prepared, "test", mask))
    assert fitted.counts(prepared, "test", "history").greater_masked == [3], "a seen target is a sure miss"
    assert fitted.counts(prepared, "test", "history_except_target").greater_masked == [0]


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda p: Markov((1.0, -0.5)), "-0.5"),
        (lambda p: Markov((float("nan"),)), "nan"),
        (lambda p: Markov(recent=-1), "-1"),
        (lambda p: Markov().fit(p).counts(p, "test", "historie"), "did you mean 'history'"),
        (lambda p: Markov().fit(p).counts(p, "train"), "train"),
        (lambda p: Markov().fit(p).recommend([[1]], 0), "k = 0"),
    ],
)
def test_mistakes(call, part):
    prepared = prepared_from([[1, 2, 1]], [(0, 1)])
    with pytest.raises(ValueError, match=re.escape(part)):
        call(prepared)


def test_fitted_on_other_data():
    small, large = prepared_from([[1, 2]], [(0, 1)]), prepared_from([[1, 2, 3]], [(0, 0)])
    with pytest.raises(ValueError, match="fitted on 3 items, asked about 2"):
        Markov().fit(large).counts(small)


def test_a_mistake_in_a_mask_is_a_users_mistake():
    prepared = prepared_from([[1, 2, 1]], [(0, 1)])
    with pytest.raises(Mistake, match="none, history, history_except_target"):
        Popularity().fit(prepared).counts(prepared, "test", "seen")


@pytest.fixture(scope="module")
def movielens(shared_data):
    """MovieLens 1M in SASRec's order: the last event of a user tests, the one before validates."""
    people: dict[int, list[int]] = {}
    with gzip.open(shared_data / "ml-1m" / "ml-1m.txt.gz", "rt") as lines:
        for line in lines:
            user, item = map(int, line.split())
            people.setdefault(user, []).append(item)
    return prepared_from(list(people.values()), [(1, 1)] * len(people))


@pytest.mark.parametrize(
    ("recommender", "hr", "ndcg"),
    [
        (Markov((1.0, 0.5, 0.25)), 0.2303, 0.1342),
        (Markov((1.0, 0.5, 0.25), normalised=True), 0.2401, 0.1403),
        (Popularity(), 0.0369, 0.0180),
    ],
)
def test_floor_of_movielens(movielens, recommender, hr, ndcg):
    """Seen items removed. The Markov floor is above several published numbers of neural models on this file."""
    ranks = recommender.fit(movielens).counts(movielens)
    found = evaluate(["hr@10", "ndcg@10"], ranks.greater_masked, ranks.equal_masked)
    assert found == pytest.approx({"hr@10": hr, "ndcg@10": ndcg}, abs=5e-5)


def test_lists_of_movielens_hit_as_often_as_the_ranks_say(movielens):
    fitted = Markov((1.0, 0.5, 0.25)).fit(movielens)
    lists = fitted.top_k(movielens, 10)
    hits = (lists == movielens.items[movielens.targets("test")][:, None]).any(axis=1)
    assert hits.mean() == pytest.approx(0.2303, abs=5e-5)
    assert 0.5 < coverage(lists, movielens.candidates) < 0.7


def read_sessions(path):
    with gzip.open(path, "rt") as lines:
        return [list(map(int, line.split())) for line in lines]


SESSIONS = ("diginetica", "yoochoose-1-64")


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "recent", "hr", "mrr"),
    [
        ("diginetica", 0, 0.3476, 0.1296),
        ("diginetica", 5, 0.4319, 0.1781),
        ("yoochoose-1-64", 0, 0.6516, 0.2973),
        ("yoochoose-1-64", 5, 0.6756, 0.2738),
    ],
)
def test_floor_of_sessions(shared_data, name, recent, hr, mrr):
    """All prefixes of the test sessions, transitions from the last item, the five most recent distinct items first or
    not. Ties of the count are broken by popularity, and lists filled with it; the next test has another rule."""
    train, test = (read_sessions(shared_data / name / f"{part}_sessions.txt.gz") for part in ("train", "test"))
    parts = [(0, 0)] * len(train) + [(0, len(session)) for session in test]
    prepared = prepared_from(train + test, parts, mask="none")
    ranks = Markov(recent=recent).fit(prepared).counts(prepared)
    found = evaluate(["hr@20", "mrr@20"], ranks.greater, ranks.equal)
    assert found == pytest.approx({"hr@20": hr, "mrr@20": mrr}, abs=5e-5)


@pytest.mark.long
@pytest.mark.parametrize("name", SESSIONS)
def test_the_known_floors_of_sessions_break_ties_by_first_appearance(shared_data, name):
    """Why others report less for the same counters: equal counts in order of first appearance, nothing to fill with."""
    train, test = (read_sessions(shared_data / name / f"{part}_sessions.txt.gz") for part in ("train", "test"))
    table: dict[int, Counter[int]] = {}
    for session in train:
        for item, follower in itertools.pairwise(session):
            table.setdefault(item, Counter())[follower] += 1
    best = {item: [follower for follower, _ in counts.most_common()] for item, counts in table.items()}
    known = {"diginetica": (33.61, 12.77, 42.27, 17.67), "yoochoose-1-64": (64.71, 29.73, 67.39, 27.49)}[name]
    found = []
    for recent in (0, 5):
        places = []
        for session in test:
            for end in range(1, len(session)):
                first = list(dict.fromkeys(reversed(session[:end])))[:recent]
                order = (first + [item for item in best.get(session[end - 1], ()) if item not in first])[:20]
                places.append(order.index(session[end]) if session[end] in order else np.inf)
        found += [100 * np.mean(np.isfinite(places)), 100 * np.mean(1 / (1 + np.array(places)))]
    assert found == pytest.approx(known, abs=5e-3)


def test_memory_does_not_grow_with_the_number_of_targets(monkeypatch):
    """Every event of long sequences is a target: all histories at once would be 2.7 million events."""
    monkeypatch.setattr(transitions, "BUDGET", 2**14)
    draw = np.random.default_rng(0)
    sequences = draw.integers(1, 50, (60, 300)).tolist()
    prepared = prepared_from([*sequences, [1, 2]], [(0, 300)] * 60 + [(0, 0)], candidates=50)
    fitted = Markov(recent=3).fit(prepared)
    tracemalloc.start()
    fitted.counts(prepared)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 15e6


@given(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=9), min_size=1, max_size=9), st.integers(1, 12))
def test_transitions_are_counted_a_piece_at_a_time(sequences, budget):
    """Whatever the pieces, what followed what is what a dictionary counts."""
    prepared = prepared_from(sequences, [(0, 0)] * len(sequences))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transitions, "BUDGET", budget)
        found = transitions.Transitions.count(prepared)
    number = {int(text): n for n, text in enumerate(prepared.item_ids.decode(range(1, 1 + prepared.candidates)), 1)}
    wanted = Counter((number[a], number[b]) for one in sequences for a, b in itertools.pairwise(one))
    counted = {
        (item, int(found.follower[place])): int(found.times[place])
        for item in range(found.size)
        for place in range(found.start[item], found.start[item + 1])
    }
    assert counted == dict(wanted)
    assert (np.diff(found.follower + found.size * np.repeat(np.arange(found.size), np.diff(found.start))) > 0).all()
