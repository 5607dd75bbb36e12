"""Labels that clicks are judged by: means know nothing of their own second, and nobody is told the future."""

import gzip
from pathlib import Path

import ctr
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx


def test_means_of_labels_know_nothing_of_their_own_second_and_the_area_counts_ties_half():
    draw = np.random.default_rng(0)
    count = 60
    user, item, time, split = draw.integers(1, 5, count), draw.integers(1, 9, count), *draw.integers(0, 9, (2, count))
    label = draw.integers(0, 2, count)
    events = ctr.Events(user, item, label, time, split % 3)
    mean, seen = ctr.earlier(item, events, prior=2.0)
    overall = label[events.split == 0].mean()
    for n in range(count):
        past = (item == item[n]) & (time < time[n]) & (events.split == 0)
        assert seen[n] == past.sum()
        assert mean[n] == pytest.approx((label[past].sum() + 2 * overall) / (past.sum() + 2))
    score = draw.integers(0, 4, count)
    pairs = [(a > b) + 0.5 * (a == b) for a in score[label == 1] for b in score[label == 0]]
    assert ctr.auc(label, score) == pytest.approx(np.mean(pairs))


def clicks_written(folder: Path, label: np.ndarray) -> None:
    """A file of clicks in the form of `ctr-ml-1m`: three users, seconds with several events, all three splits."""
    draw = np.random.default_rng(3)
    lines = []
    for user in range(3):
        liked: list[str] = []
        for place in range(20):
            second = place // 2
            split, item = ("train", "train", "valid", "test")[place // 5], str(draw.integers(1, 8))
            lines.append([split, user + 1, item, label[user, place], second, 1, " ".join(liked)])
            liked += [item] * label[user, place]
    titles = [["iid", "title"], *([item, f"Film ({1980 + item})"] for item in range(1, 8))]
    for name, columns, rows in (
        ("ctr", ["split", "uid", "iid", "label", "timestamp", "not_cold", "his"], lines),
        ("items", titles[0], titles[1:]),
    ):
        with gzip.open(folder / f"{name}.tsv.gz", "wt", encoding="utf-8") as file:
            file.writelines("\t".join(map(str, row)) + "\n" for row in [columns, *rows])


def test_a_label_of_the_test_part_tells_only_of_later_seconds_of_its_own_user(tmp_path):
    label = np.random.default_rng(4).integers(0, 2, (3, 20))
    clicks_written(tmp_path, label)
    before = ctr.Data(tmp_path)
    model = ctr.Ranker(7, 8, rngs=nnx.Rngs(0))
    model.outer.kernel[...] = jnp.ones_like(model.outer.kernel[...])
    label[1, 16] ^= 1  # films stand in pairs, two a second
    clicks_written(tmp_path, label)
    after = ctr.Data(tmp_path)
    moved = before.judged(model, 2) != after.judged(model, 2)
    assert np.flatnonzero(moved).tolist() == [5 + 3, 5 + 4]  # of five test events a user: not the one of its own second
    np.testing.assert_array_equal(before.judged(model, 1), after.judged(model, 1))


def test_a_history_that_is_not_what_was_liked_before_is_refused(tmp_path):
    clicks_written(tmp_path, np.ones((3, 20), int))
    text = gzip.decompress((tmp_path / "ctr.tsv.gz").read_bytes()).decode().splitlines()
    text[-1] = text[-1].rsplit(" ", 1)[0]
    (tmp_path / "ctr.tsv.gz").write_bytes(gzip.compress("\n".join(text).encode()))
    with pytest.raises(ValueError, match="his"):
        ctr.Data(tmp_path)
