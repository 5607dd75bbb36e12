"""Can a recurrent model tell whether somebody will like a film, better than means can?

Claim     Not yet. The mean of the item plus that of the user, from the training part, have a test AUC of .732; three
          seeds of the best of twelve trials have .7347, .7296 and .7273. What the GRU adds to means is lost in noise.
Command   python experiments/ctr.py --data ../shared/data          (--tune 12 first; its rows are there)
Time      A minute or two of one core a training.
Expect    Rows in experiments/results/ctr.jsonl: `trial` has a point and its validation AUC; `final` has of one of three
          seeds of the best trial the AUC over all test events, the mean AUC of users who have both labels, and beside
          them the means of the training part, on the data set's own time split.

A user is what a GRU makes of the films that he liked before (the file's column `his`, which holds likes of earlier
validation and test events too), as in CoLLM's SASRec. The candidate's vector is compared with that state, and beside it
stand the means of the candidate and of the user in earlier seconds of the training part, how many events and likes
there were, and a bias of users whom training knows, dropped for half of them so that strangers are no surprise. The GRU
also predicts the next liked film of the training part, by which vectors of films are learnt. Epoch and everything else
are chosen on the validation part; the training part alone trains.
"""

import argparse
import csv
import gzip
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from recipes import there

from jaxrec.bench.timing import append_row
from jaxrec.cells import GRU, Event
from jaxrec.losses import Softmax
from jaxrec.models.network import Block, Network, Rates
from jaxrec.runs.machine import card
from jaxrec.training.optimisers import Optimiser, clip

ROWS = Path(__file__).parent / "results" / "ctr.jsonl"
BATCH = 32  # users
EPOCHS = 12
PRIOR = 5.0  # events that draw a mean towards that of all
RULE = Optimiser("adamw")
SPLITS = ("train", "valid", "test")
BESIDE = 5  # numbers beside the vectors


class Events(NamedTuple):
    """Events in the order of users; all are ``(events,)``."""

    user: np.ndarray
    item: np.ndarray
    label: np.ndarray
    time: np.ndarray
    before: np.ndarray  # liked films before it: how much of `liked` its history is
    split: np.ndarray  # place in SPLITS


class Batch(NamedTuple):
    """Users ``(rows, time)`` with the films that they liked, and events ``(rows, most)``; 0 is padding."""

    liked: Array
    known: Array  # liked films of the training part, which the next film is learnt from
    user: Array  # 0: a stranger
    item: Array
    label: Array
    before: Array
    beside: Array  # `earlier` of the item and of the user, with one axis more
    weight: Array


def read(path: Path) -> tuple[Events, dict[int, np.ndarray]]:
    """The events, and what each user liked in all, oldest first: every history is a beginning of it."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    lines.sort(key=lambda line: int(line["uid"]))
    liked: dict[int, list[int]] = {}
    for line in lines:
        past = [int(item) for item in line["his"].split()]
        longest = liked.setdefault(int(line["uid"]), [])
        if past[: len(longest)] != longest[: len(past)]:
            raise ValueError(f"{path}: the histories of user {line['uid']} contradict each other")
        if len(past) > len(longest):
            liked[int(line["uid"])] = past
    columns = ([int(line[name]) for line in lines] for name in ("uid", "iid", "label", "timestamp"))
    before = [len(line["his"].split()) for line in lines]
    split = [SPLITS.index(line["split"]) for line in lines]
    return Events(*map(np.array, (*columns, before, split))), {key: np.array(value) for key, value in liked.items()}


def earlier(of: np.ndarray, events: Events, prior: float) -> tuple[np.ndarray, np.ndarray]:
    """By item (or user), for every event: the mean label of what training has of it from earlier seconds, drawn towards
    the mean of all by ``prior`` events, and how many these are. An event's own label is never among them, nor one of
    its own second.
    """
    learnt = events.split == 0
    overall = events.label[learnt].mean()
    mean, count = np.full(len(of), overall), np.zeros(len(of))
    for which in np.unique(of):
        here = np.flatnonzero(of == which)
        past = here[learnt[here]]
        past = past[np.argsort(events.time[past], kind="stable")]
        sums = np.concatenate([[0], np.cumsum(events.label[past])])
        seen = np.searchsorted(events.time[past], events.time[here])
        mean[here], count[here] = (sums[seen] + prior * overall) / (seen + prior), seen
    return mean, count


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve; a tie counts half (Mann and Whitney 1947)."""
    from scipy.stats import rankdata

    ranks, positive = rankdata(score), label.sum()
    return float((ranks[label == 1].sum() - positive * (positive + 1) / 2) / (positive * (len(label) - positive)))


def by_user(events: Events, chosen: np.ndarray, score: np.ndarray) -> float:
    """Mean AUC of users who have both labels."""
    found = []
    for user in np.unique(events.user[chosen]):
        here = events.user[chosen] == user
        label = events.label[chosen][here]
        if 0 < label.sum() < len(label):
            found.append(auc(label, score[here]))
    return float(np.mean(found))


class Ranker(nnx.Module):
    """Odds that a user likes a film."""

    def __init__(self, users: int, items: int, width: int, *, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(width**-0.5)
        self.items = nnx.Param(normal(rngs.params(), (items + 1, width)))
        self.item_bias = nnx.Param(jnp.zeros((items + 1, 1)))  # with two axes: decayed as vectors are
        self.next_bias = nnx.Param(jnp.zeros(items + 1))
        self.user_bias = nnx.Param(jnp.zeros((users + 1, 1)))
        cell = GRU(width, width, rngs=rngs)
        block = Block(cell, width, width, width, norm=True, residual=True, feedforward=0, rngs=rngs)
        self.network = Network([block], width, norm=True, backend=None, rngs=rngs)
        self.inner = nnx.Linear(3 * width + BESIDE, width, rngs=rngs)
        self.outer = nnx.Linear(width, 1, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.side = nnx.Param(jnp.array([1.0, 0.0, 0.0, 0.0, 0.0]))  # it begins as the item's mean

    def states(self, liked: Array, rate: float, keys: Array | None) -> Array:
        """``(rows, 1 + time, width)``: before anything was liked, then after each film."""
        x = self.items[...][liked]
        _, hidden = self.network(Event(x=x), None, None, Rates(rate, rate), keys)
        return jnp.pad(hidden, ((0, 0), (1, 0), (0, 0)))

    def __call__(self, states: Array, batch: Batch, rate: float, key: Array | None) -> Array:
        """Log-odds ``(rows, most)``."""
        h = jnp.take_along_axis(states, batch.before[..., None], axis=1)
        e = self.items[...][batch.item]
        user = batch.user
        beside = jnp.concatenate([batch.beside, jnp.log1p(batch.before)[..., None]], axis=-1)
        both = jnp.concatenate([h, e, h * e, beside], axis=-1)
        if key is not None:
            one, two = jax.random.split(key)
            user = jnp.where(jax.random.bernoulli(one, 0.5, user.shape), user, 0)
            both = jnp.where(jax.random.bernoulli(two, 1 - rate, both.shape), both / (1 - rate), 0)
        deep = self.outer(jax.nn.gelu(self.inner(both)))[..., 0] + beside @ self.side[...]
        known = (user > 0)[..., None] * self.user_bias[...][user]
        return deep + (self.item_bias[...][batch.item] + known)[..., 0]


def total(model: Ranker, batch: Batch, key: Array, rate: float, share: float) -> Array:
    """Cross-entropy of labels, and ``share`` of that of the next liked film."""
    rows = len(batch.liked)
    keys = jax.random.split(jax.random.fold_in(key, 0), rows)
    states = model.states(batch.liked, rate, keys)
    odds = model(states, batch, rate, jax.random.fold_in(key, 1))
    label = optax.sigmoid_binary_cross_entropy(odds, batch.label)
    loss = jnp.sum(batch.weight * label) / jnp.maximum(batch.weight.sum(), 1)
    weight = batch.known.reshape(-1).astype(odds.dtype)
    hidden, target = states[:, :-1].reshape(-1, states.shape[-1]), batch.liked.reshape(-1)
    further = Softmax()(hidden, model.items[...], model.next_bias[...], target, weight)
    return loss + share * further / jnp.maximum(weight.sum(), 1)


class Data:
    """Everything as batches of users."""

    def __init__(self, path: Path):
        self.events, self.liked = read(path)
        events = self.events
        self.known = events.split == 0
        (item, items), (user, users) = (earlier(of, events, PRIOR) for of in (events.item, events.user))
        odds = [np.log(mean / (1 - mean)) for mean in (item, user)]
        self.beside = np.stack([*odds, np.log1p(items), np.log1p(users)], axis=1)
        users = np.unique(events.user)
        self.users = users[np.argsort([len(self.liked[user]) for user in users], kind="stable")]
        self.strangers = ~np.isin(events.user, events.user[self.known])
        self.means = item, user
        self.batches = [self.cut(split) for split in range(len(SPLITS))]

    def cut(self, split: int) -> list[tuple[Batch, np.ndarray]]:
        """Users with events in a split, those with histories of about one length together."""
        users = self.users[np.isin(self.users, self.events.user[self.events.split == split])]
        return [self.batch(users[start : start + BATCH], split) for start in range(0, len(users), BATCH)]

    def labels(self, split: int) -> np.ndarray:
        """Labels of a split's events, in the order of `judged`."""
        return self.events.label[self.events.split == split]

    def judged(self, model: Ranker, split: int) -> np.ndarray:
        """Log-odds of a split's events."""
        score = np.zeros(len(self.events.user))
        for batch, which in self.batches[split]:
            score[which] = np.asarray(scored(model, batch))[np.asarray(batch.weight) > 0]
        return score[self.events.split == split]

    def counters(self) -> dict[str, float]:
        """Test AUC of means alone."""
        item, user = (mean[self.events.split == 2] for mean in self.means)
        found = {"item mean": item, "user mean": user, "item and user mean": item + user}
        return {name: auc(self.labels(2), score) for name, score in found.items()}

    def batch(self, users: np.ndarray, split: int) -> tuple[Batch, np.ndarray]:
        """A batch, and which events stand in it, row by row."""
        events = self.events
        rows = [np.flatnonzero((events.user == user) & (events.split == split)) for user in users]
        most = width(max((len(row) for row in rows), default=1))
        time = width(max(len(self.liked[user]) for user in users))
        kinds = {"user": int, "item": int, "label": float, "before": int, "weight": float}
        own: dict[str, np.ndarray] = {name: np.zeros((len(users), most), kind) for name, kind in kinds.items()}
        beside = np.zeros((len(users), most, BESIDE - 1))
        liked, known = np.zeros((2, len(users), time), int)
        for place, (user, row) in enumerate(zip(users, rows, strict=True)):
            past = self.liked[user]
            liked[place, : len(past)] = past
            until = events.before[(events.user == user) & self.known].max(initial=0)
            known[place, :until] = 1
            own["user"][place, : len(row)] = np.where(self.strangers[row], 0, user)
            for name in ("item", "label", "before"):
                own[name][place, : len(row)] = getattr(events, name)[row]
            beside[place, : len(row)], own["weight"][place, : len(row)] = self.beside[row], 1
        return Batch(liked, known, beside=beside, **own), np.concatenate(rows)


def width(count: int) -> int:
    """Lengths in steps, so that few programs are compiled."""
    return max(16, 1 << (count - 1).bit_length())


@jax.jit
def scored(model: Ranker, batch: Batch) -> Array:
    return model(model.states(batch.liked, 0.0, None), batch, 0.0, None)


@jax.jit
def learnt(model: Ranker, state: Any, batch: Batch, key: Array, point: dict[str, Array]) -> tuple[Ranker, Any]:
    """A step of clipped AdamW."""
    grads, *_ = clip(jax.grad(total)(model, batch, key, point["dropout"], point["share"]), 1.0)
    updates, state = RULE.transform(point, 0).update(grads, state, model)
    return optax.apply_updates(model, updates), state


def train(data: Data, point: dict[str, float], seed: int) -> tuple[Ranker, dict[str, Any]]:
    """The model after the epoch of the best validation AUC."""
    draw, best = np.random.default_rng(seed), {"valid_auc": 0.0}
    width = int(point["width"])
    model = kept = Ranker(int(data.users.max()), int(data.events.item.max()), width, rngs=nnx.Rngs(seed))
    rates = {name: jnp.float32(value) for name, value in point.items()}
    state = RULE.transform(rates, 0).init(model)
    for epoch in range(1, EPOCHS + 1):
        for number in draw.permutation(len(data.batches[0])):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), epoch), number)
            model, state = learnt(model, state, data.batches[0][number][0], key, rates)
        value = auc(data.labels(1), data.judged(model, 1))
        if value > best["valid_auc"]:
            best, kept = {"valid_auc": value, "epoch": epoch}, model
    return kept, best


def points(count: int) -> Iterator[dict[str, float]]:
    """What is tried: the same points every time."""
    draw = np.random.default_rng(0)
    for _ in range(count):
        yield {
            "width": float(draw.choice([16, 32, 64])), "lr": 10 ** draw.uniform(-3.3, -2.2),
            "weight_decay": 10 ** draw.uniform(-2, 0.3), "dropout": draw.uniform(0.3, 0.7),
            "share": 10 ** draw.uniform(-1.5, 0.5),
        }  # fmt: skip


def tune(data: Data, count: int, rows: Path) -> None:
    """Rows of trials: a point and its validation number."""
    for number, point in enumerate(points(count)):
        if any(row["kind"] == "trial" and row["number"] == number for row in there(rows)):
            continue
        began = time.process_time()
        _, found = train(data, point, 0)
        append_row(rows, {"kind": "trial", "data": "ctr-ml-1m", "number": number, "point": point, **found,
                          "cpu_seconds": time.process_time() - began, "machine": card()})  # fmt: skip
        print(f"trial {number}: valid AUC {found['valid_auc']:.4f} after epoch {found['epoch']}, {point}", flush=True)


def final(data: Data, seeds: int, rows: Path) -> None:
    """Rows of the best trial's seeds: test numbers."""
    trials = [row for row in there(rows) if row["kind"] == "trial"]
    if not trials:
        sys.exit("no trial has a row yet, so that nothing says how to train; search first, with --tune 12")
    point = max(trials, key=lambda row: row["valid_auc"])["point"]
    test, label, counters = data.events.split == 2, data.labels(2), data.counters()
    for seed in range(seeds):
        began = time.process_time()
        model, found = train(data, point, seed)
        score = data.judged(model, 2)
        row = {
            "kind": "final", "data": "ctr-ml-1m", "seed": seed, "test_auc": auc(label, score),
            "test_auc_by_user": by_user(data.events, test, score), **found, "counters": counters, "point": point,
            "trials": len(trials), "cpu_seconds": time.process_time() - began, "machine": card(),
        }  # fmt: skip
        append_row(rows, row)
        print(f"seed {seed}: test AUC {row['test_auc']:.4f}, by user {row['test_auc_by_user']:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--tune", type=int, metavar="TRIALS", help="search instead; chosen on the validation part")
    parser.add_argument("--seeds", type=int, default=3, help="trainings at the best trial's point")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of the rows")
    options = parser.parse_args()
    data = Data(options.data / "ctr-ml-1m" / "ctr.tsv.gz")
    if options.tune:
        tune(data, options.tune, options.rows)
    else:
        final(data, options.seeds, options.rows)


if __name__ == "__main__":
    main()
