"""Can a recurrent model tell whether somebody will like a film, better than means can?

Claim     Yes, though most of the gain is reading what the file tells of the user. The mean of the item plus that of the
          user, from the training part, have a test AUC of .732; counting the user's own past instead has .773; three
          seeds of the best of twelve trials of a GRU have .787, .786 and .787. Within users (mean AUC of those who
          have both labels) they have .661 to .667, which is less than the .674 that CoLLM prints for SASRec.
Command   python experiments/ctr.py --data ../shared/data          (--tune 12 first; its rows are there)
Time      A minute or two of one core a training.
Expect    Rows in experiments/results/ctr.jsonl: `trial` has a point and its validation AUC; `final` has of one of three
          seeds of the best trial the AUC over all test events, the mean AUC of users who have both labels, and beside
          them the means of the training part, on the data set's own time split.

A user is what a GRU makes of the films that were shown to him in earlier seconds and of whether he liked them. The
column `his` holds what a user liked before a row, whichever part that was in, as input also of test rows (CoLLM feeds
it to SASRec), and so it tells the labels of all his earlier rows; a plain count of them, added to the item's mean, has
.77 and is the floor of a model that reads it. Other people's labels are of the training part only. The candidate's
vector is compared with the user's state, and beside it stand the item's mean in earlier seconds, how much more often
than expected the user has liked things, how many events each of them rests on, and the year in the film's title. The
GRU also predicts the next liked film of the training part, by which vectors of films are learnt. Epoch and everything
else are chosen on the validation part; the training part alone trains.
"""

import argparse
import csv
import gzip
import re
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
# Numbers beside the vectors, and what they weigh in the log-odds at first: that of the item's mean, what the user liked
# more than was expected, and four that say how sure both are and how old the film is.
START = (1.0, 4.0, 0.0, 0.0, 0.0, 0.0)


class Events(NamedTuple):
    """Events by user, oldest first; all are ``(events,)``."""

    user: np.ndarray
    item: np.ndarray
    label: np.ndarray
    time: np.ndarray
    split: np.ndarray  # place in SPLITS


class Batch(NamedTuple):
    """Events of users, ``(rows, time)``, oldest first; 0 is padding."""

    item: Array
    label: Array
    seen: Array  # how many events of the row have an earlier second
    beside: Array  # what means say, with one axis more
    weight: Array  # 1: an event to be judged
    known: Array  # 1: a liked film of the training part, which its user's past should expect


def read(path: Path) -> Events:
    """The events. That ``his`` holds the films that a user liked in all rows before is what makes a user's own past
    an input also where labels are to be told; a file in which it does not is refused.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    lines.sort(key=lambda line: (int(line["uid"]), int(line["timestamp"])))
    liked: dict[str, list[str]] = {}
    for line in lines:
        past = liked.setdefault(line["uid"], [])
        if line["his"].split() != past:
            raise ValueError(f"{path}: `his` of user {line['uid']} at {line['timestamp']} is not what was liked before")
        if line["label"] == "1":
            past.append(line["iid"])
    columns = ([int(line[name]) for line in lines] for name in ("uid", "iid", "label", "timestamp"))
    return Events(*map(np.array, columns), np.array([SPLITS.index(line["split"]) for line in lines]))


def years(path: Path, items: int) -> np.ndarray:
    """``(items + 1,)``: when a film came out, by its title, in decades from that of the average film."""
    found = np.full(items + 1, np.nan)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in csv.DictReader(file, delimiter="\t"):
            if year := re.search(r"\((\d{4})\)", line["title"]):
                found[int(line["iid"])] = int(year[1]) / 10
    return np.nan_to_num(found - np.nanmean(found))


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


def own(events: Events, expected: np.ndarray, prior: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By user, for every event: how many events have an earlier second, how many of them were liked, and by how much
    more often than ``expected``, drawn towards 0 by ``prior`` events.
    """
    seen, likes = np.zeros((2, len(events.user)))
    more = np.zeros(len(events.user))
    for user in np.unique(events.user):
        here = np.flatnonzero(events.user == user)
        seen[here] = count = np.searchsorted(events.time[here], events.time[here])
        likes[here] = np.concatenate([[0], np.cumsum(events.label[here])])[count]
        gain = np.concatenate([[0], np.cumsum(events.label[here] - expected[here])])[count]
        more[here] = gain / (count + prior)
    return seen.astype(int), likes, more


class Ranker(nnx.Module):
    """Odds that a user likes a film."""

    def __init__(self, items: int, width: int, *, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(width**-0.5)
        self.items = nnx.Param(normal(rngs.params(), (items + 1, width)))
        self.item_bias = nnx.Param(jnp.zeros((items + 1, 1)))  # with two axes: decayed as vectors are
        self.next_bias = nnx.Param(jnp.zeros(items + 1))
        self.liked = nnx.Param(normal(rngs.params(), (2, width)))
        cell = GRU(width, width, rngs=rngs)
        block = Block(cell, width, width, width, norm=True, residual=True, feedforward=0, rngs=rngs)
        self.network = Network([block], width, norm=True, backend=None, rngs=rngs)
        self.inner = nnx.Linear(3 * width + len(START), width, rngs=rngs)
        self.outer = nnx.Linear(width, 1, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.side = nnx.Param(jnp.array(START))

    def states(self, batch: Batch, rate: float, keys: Array | None) -> Array:
        """``(rows, 1 + time, width)``: before anything was seen, then after each film."""
        x = self.items[...][batch.item] + self.liked[...][batch.label]
        _, hidden = self.network(Event(x=x), None, None, Rates(rate, rate), keys)
        return jnp.pad(hidden, ((0, 0), (1, 0), (0, 0)))

    def __call__(self, states: Array, batch: Batch, rate: float, key: Array | None) -> Array:
        """Log-odds ``(rows, time)``."""
        h = jnp.take_along_axis(states, batch.seen[..., None], axis=1)
        e = self.items[...][batch.item]
        both = jnp.concatenate([h, e, h * e, batch.beside], axis=-1)
        if key is not None:
            both = jnp.where(jax.random.bernoulli(key, 1 - rate, both.shape), both / (1 - rate), 0)
        deep = self.outer(jax.nn.gelu(self.inner(both)))
        return (deep + self.item_bias[...][batch.item])[..., 0] + batch.beside @ self.side[...]


def total(model: Ranker, batch: Batch, key: Array, rate: float, share: float) -> Array:
    """Cross-entropy of labels, and ``share`` of that of the next liked film."""
    keys = jax.random.split(jax.random.fold_in(key, 0), len(batch.item))
    states = model.states(batch, rate, keys)
    odds = model(states, batch, rate, jax.random.fold_in(key, 1))
    label = optax.sigmoid_binary_cross_entropy(odds, batch.label)
    loss = jnp.sum(batch.weight * label) / jnp.maximum(batch.weight.sum(), 1)
    h = jnp.take_along_axis(states, batch.seen[..., None], axis=1)
    weight = batch.known.reshape(-1).astype(odds.dtype)
    further = Softmax()(
        h.reshape(-1, h.shape[-1]), model.items[...], model.next_bias[...], batch.item.reshape(-1), weight
    )
    return loss + share * further / jnp.maximum(weight.sum(), 1)


class Data:
    """Everything as batches of users."""

    def __init__(self, folder: Path):
        self.events = events = read(folder / "ctr.tsv.gz")
        (item, items), (user, _) = (earlier(of, events, PRIOR) for of in (events.item, events.user))
        self.seen, likes, more = own(events, item, PRIOR)
        year = years(folder / "items.tsv.gz", int(events.item.max()))[events.item]
        told = (np.log(item / (1 - item)), more, np.log1p(items), np.log1p(self.seen), np.log1p(likes), year)
        self.beside = np.stack(told, axis=1)
        self.counters = {"item mean": item, "item and user mean": item + user, "item mean and own past": item + more}
        self.users, counts = np.unique(events.user, return_counts=True)
        self.users = self.users[np.argsort(counts, kind="stable")]
        self.batches = [self.cut(split) for split in range(len(SPLITS))]

    def cut(self, split: int) -> list[tuple[Batch, np.ndarray]]:
        """Users with events in a split, those with pasts of about one length together."""
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

    def batch(self, users: np.ndarray, split: int) -> tuple[Batch, np.ndarray]:
        """A batch of what users did until the end of a split, and which events of the split stand in it."""
        events = self.events
        rows = [np.flatnonzero((events.user == user) & (events.split <= split)) for user in users]
        shape = len(users), width(max(map(len, rows)))
        item, label, seen = np.zeros((3, *shape), int)
        weight, beside = np.zeros(shape), np.zeros((*shape, len(START)))
        for place, row in enumerate(rows):
            until = len(row)
            item[place, :until], label[place, :until] = events.item[row], events.label[row]
            seen[place, :until], beside[place, :until] = self.seen[row], self.beside[row]
            weight[place, :until] = events.split[row] == split
        known = weight * label if split == 0 else np.zeros(shape)
        return Batch(item, label, seen, beside, weight, known), np.concatenate(
            [row[events.split[row] == split] for row in rows]
        )


def width(count: int) -> int:
    """Lengths in steps, so that few programs are compiled."""
    return max(16, 1 << (count - 1).bit_length())


@jax.jit
def scored(model: Ranker, batch: Batch) -> Array:
    return model(model.states(batch, 0.0, None), batch, 0.0, None)


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
    model = kept = Ranker(int(data.events.item.max()), width, rngs=nnx.Rngs(seed))
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
    test, label = data.events.split == 2, data.labels(2)
    counters = {name: auc(label, score[test]) for name, score in data.counters.items()}
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
    data = Data(options.data / "ctr-ml-1m")
    if options.tune:
        tune(data, options.tune, options.rows)
    else:
        final(data, options.seeds, options.rows)


if __name__ == "__main__":
    main()
