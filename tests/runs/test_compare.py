"""Runs held against each other from their folders alone."""

import json
import subprocess
import sys

import numpy as np
import pytest

from jaxrec.cli import main
from jaxrec.config import Mistake
from jaxrec.evaluation.ranks_file import Ranks, save
from jaxrec.runs.compare import compare

N, USERS, ITEMS = 300, 60, 40
CARD = {"name": "toys", "fingerprint": "abc", "mask_seen": "history", "split": {"name": "leave-one-out"}}
SLICES = {"new": np.arange(N) % 3 > 0, "repeat": np.arange(N) % 3 == 0, "never in training": np.zeros(N, bool)}


def table(seed=0, better=0, **changes):
    draw = np.random.default_rng(seed)
    target = np.random.default_rng(99).integers(1, ITEMS + 1, N)
    greater = np.maximum(draw.integers(0, 20, N) - better, 0)
    equal = np.zeros(N, int)
    return Ranks(
        example=np.arange(N), user=np.repeat(np.arange(1, USERS + 1), N // USERS), position=np.arange(N) % 7 + 1,
        target=target, greater=greater + 1, equal=equal, greater_masked=greater, equal_masked=equal,
        candidates=np.full(N, ITEMS),
    )._replace(**changes)  # fmt: skip


def written(folder, ranks, *, card=CARD, run_id="one-s0", items=None, slices=SLICES):
    """A run's folder with all that a comparison reads."""
    (folder / "bundle").mkdir(parents=True)
    test = {"unmasked": {"hr@10": 0, "ndcg@10": 0}, "masked": {"hr@10": 0, "ndcg@10": 0, "coverage@10": 1}}
    result = {"schema": 1, "run_id": run_id, "complete": True, "headline": "masked", "test": test, "protocol": card,
              "model": {"cell": "gru"}, "warnings": []}  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    save(folder / "ranks.npz", ranks, slices)
    items = [f"i{n}" for n in range(1, ITEMS + 1)] if items is None else items
    for name, words in (("item_ids", items), ("user_ids", [f"u{n}" for n in range(1, USERS + 1)])):
        blob, ends = "".join(words), np.cumsum([0, *map(len, words)])
        np.savez(folder / "bundle" / f"{name}.npz", blob=np.frombuffer(blob.encode(), np.uint8), offsets=ends)
    return str(folder)


@pytest.fixture
def pair(tmp_path):
    return written(tmp_path / "a", table()), written(tmp_path / "b", table(better=3), run_id="two-s0")


def test_every_number_is_about_pairs_of_the_same_target(pair):
    found = compare(pair, rounds=500)
    first, second = table().greater_masked, table(better=3).greater_masked
    assert (found["reading"], found["targets"], found["users"]) == ("masked", N, USERS)
    assert found["metrics"] == ["hr@10", "ndcg@10"]
    hit, ndcg = found["comparisons"]
    assert hit["first"] == np.mean(first < 10)
    assert hit["delta"] == pytest.approx(np.mean(second < 10) - np.mean(first < 10))
    assert hit["wins"] == np.mean((second < 10) & (first >= 10))
    assert hit["losses"] == 0
    assert hit["wins"] + hit["losses"] + hit["ties"] == pytest.approx(1)
    assert 0 < hit["low"] < hit["delta"] < hit["high"]
    assert hit["p"] == hit["p_holm"] == pytest.approx(1 / 501), "never worse anywhere: only the observed order"
    gain = 1 / np.log2(np.stack([first, second]) + 2) * (np.stack([first, second]) < 10)
    assert ndcg["delta"] == pytest.approx(np.mean(gain[1] - gain[0]))


def test_slices_add_up_and_empty_ones_are_left_out(pair):
    one = compare(pair, metrics=["mrr"], rounds=50)["comparisons"][0]
    assert one["slices"].keys() == {"new", "repeat"}
    total = sum(row["count"] * row["delta"] for row in one["slices"].values())
    assert total / N == pytest.approx(one["delta"])


def test_a_run_beside_itself_does_not_differ(pair):
    found = compare([pair[0], pair[0]], rounds=50)
    for one in found["comparisons"]:
        assert (one["delta"], one["p"], one["ties"]) == (0, 1, 1)
    assert "is the first run again" in found["notes"][0]


def test_several_runs_are_corrected_for_their_number(pair, tmp_path):
    third = written(tmp_path / "c", table(seed=4), run_id="three-s0")
    found = compare([*pair, third], rounds=500)
    assert [(one["metric"], one["run"]) for one in found["comparisons"]] == [
        (metric, run) for metric in ("hr@10", "ndcg@10") for run in (pair[1], third)
    ]
    better, chance = found["comparisons"][:2]
    assert better["p_holm"] == pytest.approx(2 * better["p"])
    assert chance["p_holm"] == chance["p"] > 0.05, "the largest p-value is not corrected"


@pytest.mark.parametrize(
    ("changes", "card", "words"),
    [
        (
            {"target": table().target % ITEMS + 1},
            {},
            r"300 of 300 differ, the first is item 'i\d+' of user 'u1' after 1",
        ),
        ({"position": np.arange(N) % 7 + 2}, {}, "after 1 events and item .* after 2 events"),
        ({"candidates": np.full(N, 41)}, {"catalogue": "train"}, "against 40 and 41 items .*catalogue"),
        ({}, {"mask_seen": "history_except_target"}, "mask_seen history and history_except_target"),
        ({}, {"mask_seen": "none", "fingerprint": "x"}, "mask_seen history and none"),
    ],
)
def test_runs_that_were_judged_otherwise_are_refused_with_the_difference(tmp_path, changes, card, words):
    a, b = written(tmp_path / "a", table()), written(tmp_path / "b", table(**changes), card=CARD | card)
    with pytest.raises(Mistake, match=words):
        compare([a, b])


def test_another_number_of_targets_is_refused_with_the_split(tmp_path):
    fewer = Ranks(*(None if column is None else column[:100] for column in table()))
    slices = {name: mask[:100] for name, mask in SLICES.items()}
    card = CARD | {"split": {"name": "time"}}
    a, b = written(tmp_path / "a", table()), written(tmp_path / "b", fewer, card=card, slices=slices)
    with pytest.raises(Mistake, match=r'300 and 100 test targets \(split\.name: "leave-one-out" -> "time"\)'):
        compare([a, b])


def test_items_that_are_only_numbered_otherwise_are_the_same_targets(tmp_path):
    turned = table(target=ITEMS + 1 - table().target)
    items = [f"i{n}" for n in range(ITEMS, 0, -1)]
    a, b = (
        written(tmp_path / "a", table()),
        written(tmp_path / "b", turned, items=items, card=CARD | {"fingerprint": "x"}),
    )
    found = compare([a, b], rounds=50)
    assert found["comparisons"][0]["delta"] == 0
    assert any("not the same training data" in note for note in found["notes"])


def test_runs_from_before_slices_compare_without_them(tmp_path):
    a, b = (written(tmp_path / name, table(), slices=None) for name in "ab")
    found = compare([a, b], rounds=50)
    assert found["comparisons"][0]["slices"] == {}
    assert f"jaxrec evaluate --run {a}" in found["notes"][0]


def test_what_is_no_pair_of_runs_is_a_mistake(pair, tmp_path):
    for runs, words in (([pair[0]], "two or more"), ([pair[0], str(tmp_path / "z")], "no finished run")):
        with pytest.raises(Mistake, match=words):
            compare(runs)
    with pytest.raises(Mistake, match="did you mean 'ndcg'"):
        compare(pair, metrics=["ndgc@10"])


def test_on_a_terminal_and_as_json(pair, tmp_path, monkeypatch, capsys):
    third = written(tmp_path / "c", table(seed=4), run_id="three-s0")
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["compare", *pair, third, "--rounds", "200"]) == 0
    printed = capsys.readouterr().out
    short = [line for line in printed.splitlines() if str(tmp_path) not in line]  # a path is as long as it is
    assert max(map(len, short)) <= 80
    for word in ("B - A", "C - A", "p (Holm)", "ndcg@10 by slice", "significant"):
        assert word in printed
    assert main(["compare", *pair, "--json", "--rounds", "200", "--metrics", "mrr"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(json.dumps(compare(pair, metrics=["mrr"], rounds=200)))


def test_a_comparison_never_imports_jax(pair):
    code = (
        "import sys\nfrom jaxrec.cli import main\n"
        f"assert main({['compare', *pair, '--rounds', '50']!r}) == 0\n"
        "assert not {'jax', 'jaxlib', 'flax', 'optax', 'orbax'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
