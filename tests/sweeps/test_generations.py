"""Population-based training: who goes on from whom, with which numbers, and that a cut sweep ends as a whole one."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxrec.config import Mistake
from jaxrec.reports.sweep_ranking import configurations
from jaxrec.reports.sweep_rows import Objective
from jaxrec.sweeps.generations import Generations, changed
from jaxrec.sweeps.options import Sweep
from jaxrec.sweeps.rows import timeless
from jaxrec.sweeps.search import Past
from jaxrec.sweeps.selection import candidates, front, winner
from jaxrec.sweeps.space import parse
from jaxrec.sweeps.sweep import sweep
from jaxrec.training.stop import Stopped

ROOT = Path(__file__).resolve().parents[2]
SPACE = parse({"optimizer.lr": "log(1e-3, 1e-1)", "model.dropout": "0.1|0.2|0.3", "epochs": 2})
TINY = {
    "demo.users": 60, "demo.items": 240, "demo.genres": 4, "demo.lag": 2, "epochs": 1, "model.width": 4,
    "batch.size": 8, "batch.length": 10, "eval.metrics": ["hr@5", "ndcg@10"], "stop.patience": 0,
    "optimizer.lr": "log(1e-3, 1e-1)", "model.dropout": "0.1|0.2|0.3",
}  # fmt: skip


def told(searcher, numbers, values, past=()):
    found = list(past)
    for number, value in zip(numbers, values, strict=True):
        proposal = searcher.propose(number, found)
        state = "diverged" if value is None else "done"
        values_ = None if value is None else (value,)
        found.append(Past(number, proposal.point, state, values_, (), proposal.notes))
    return found


def test_the_worst_go_on_from_the_best_with_other_numbers_and_the_rest_from_themselves():
    searcher = Generations(SPACE, 3, ["maximize"], population=10, epochs=2)
    past = told(searcher, range(10), [0.5, 0.1, 0.9, 0.4, None, 0.6, 0.8, 0.3, 0.35, 0.45])
    next_ = [searcher.propose(number, past) for number in range(10, 20)]
    parents = [proposal.notes["parent"] for proposal in next_]
    assert [member for member in range(10) if parents[member] != member] == [1, 4]  # the worst, and the lost one
    assert {parents[1], parents[4]} <= {2, 6}
    for member, proposal in enumerate(next_):
        assert proposal.options == {"epochs": 4, "seed": member}
        assert (proposal.point == past[member].point) == (member not in (1, 4))
    assert [searcher.propose(n, past) for n in range(10, 20)] == next_  # whoever asks again gets the same
    low = Generations(SPACE, 3, ["minimize"], population=10, epochs=2)
    assert low.propose(12, past).notes["parent"] in (1, 7)  # 0.9 is the worst now


def test_a_generation_waits_for_the_one_before_and_ends_where_nobody_is_left():
    searcher = Generations(SPACE, 0, ["maximize"], population=4, epochs=1)
    past = told(searcher, range(3), [1.0, 2.0, 3.0])
    assert searcher.ready(3, past)
    assert not searcher.ready(4, past)
    assert not searcher.ready(4, [*past, Past(3, past[0].point, "running")])
    assert searcher.ready(4, [*past, Past(3, past[0].point, "failed")])
    lost = [Past(number, past[0].point, "diverged") for number in range(4)]
    assert searcher.propose(4, lost) is None


def test_numbers_change_by_the_factors_or_anew_and_stay_inside():
    draw = np.random.default_rng(0)
    lr, dropout = (dimension.domain for dimension in SPACE.dimensions)
    found = [changed(lr, 0.01, draw) for _ in range(400)]
    near = sum(value == pytest.approx(0.008) or value == pytest.approx(0.0125) for value in found)
    assert 0.68 < near / 400 < 0.82
    assert all(1e-3 <= value <= 1e-1 for value in found)
    assert {changed(lr, 0.099, draw) for _ in range(50)} >= {0.1}
    assert {changed(dropout, 0.2, draw) for _ in range(50)} == {0.1, 0.2, 0.3}


def go(out, **options):
    given = {"search": "pbt", "population": 5, "trials": 15, "workers": 1}
    return sweep(Sweep(out=str(out), **given | options), TINY, command=[], say=lambda sentence: None)


def table(out):
    return [timeless(json.loads(line)) for line in (out / "trials.jsonl").read_text().splitlines()]


def plain(out):
    """Rows without the name of the sweep's folder."""
    rows = table(out)
    for row in rows:
        row["config"] |= {"start_from": Path(row["config"]["start_from"] or "").name}
    return rows


def test_a_population_trains_on_and_a_cut_one_ends_as_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert go(tmp_path / "whole")["trials"] == {"done": 15}
    rows = plain(tmp_path / "whole")
    for row in rows[5:]:
        parent = rows[row["notes"]["parent"]]
        assert row["config"]["start_from"] == parent["id"]
        assert row["epochs"] == parent["epochs"] + 1 == row["number"] // 5 + 1
        result = json.loads((tmp_path / "whole" / row["run"] / "result.json").read_text())
        assert result["steps"] > json.loads((tmp_path / "whole" / parent["run"] / "result.json").read_text())["steps"]
    assert any(row["notes"]["parent"] % 5 != row["number"] % 5 for row in rows[5:])
    with pytest.raises(Stopped):
        cut(tmp_path / "cut", monkeypatch, after=7)
    assert 5 < sum(row["state"] == "done" for row in table(tmp_path / "cut")) < 15
    go(tmp_path / "cut", workers=2)
    assert plain(tmp_path / "cut") == rows
    go(tmp_path / "together", together=5)
    for row, other in zip(plain(tmp_path / "together"), rows, strict=True):
        assert (row["id"], row["point"], row["notes"]) == (other["id"], other["point"], other["notes"])


def cut(out, monkeypatch, after):
    """A sweep that is told to stop after so many trials."""
    from jaxrec.sweeps import sweep as module

    class Impatient(module.Coordinator):
        def tend(self):
            super().tend()
            if self.ledger.counts().get("done", 0) >= after:
                self.stop.requested = "SIGTERM"

    with monkeypatch.context() as patch:
        patch.setattr(module, "Coordinator", Impatient)
        go(out)


@pytest.mark.parametrize(
    ("space", "options", "words"),
    [
        ({"model.width": "4|8"}, {}, "model.width is none that can change"),
        ({"model.dropout": "0.1|0.2 if optimizer.lr=0.1", "optimizer.lr": "0.1|0.2"}, {}, "model.dropout is none that"),
        ({"optimizer.lr": 0.1, "model.dropout": 0.1}, {}, "nothing to change; give a range"),
        ({}, {"population": 1}, "nobody to learn from; give 2"),
        ({}, {"seeds": 3}, "--seeds 3 does not go with --search pbt"),
        ({}, {"prune": "median"}, "--prune median does not go with --search pbt"),
        ({"optimizer.schedule": "cosine"}, {}, "changes the rate itself"),
        ({}, {"search": "random"}, "--population 5 does nothing without --search pbt"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tmp_path, space, options, words):
    with pytest.raises(Mistake, match=words):
        sweep(
            Sweep(out=str(tmp_path / "sweep"), **{"search": "pbt", "population": 5, "trials": 15} | options),
            TINY | space, command=[], say=lambda sentence: None,
        )  # fmt: skip
    assert not (tmp_path / "sweep").exists()


def test_generations_are_no_seeds_of_one_configuration():
    """Members that keep their numbers are judged one by one: they are one training at different ages."""
    point = {"optimizer.lr": 0.01}
    rows = [
        {
            "number": number, "id": str(number), "state": "done", "point": point, "seed": number % 2, "same_as": None,
            "valid": {"ndcg@10": number / 10}, "test": {"ndcg@10": 0.1}, "objectives": {"ndcg@10": number / 10},
            "notes": {"generation": number // 2, "member": number % 2}, "attempts": [], "readings": [], "config": {},
        }
        for number in range(6)
    ]  # fmt: skip
    assert [candidate.numbers for candidate in candidates(rows, "ndcg@10")] == [(n,) for n in range(6)]
    best = winner(rows, "ndcg@10")
    assert best.best.numbers == (5,)
    placed = configurations(rows, [Objective("ndcg@10")])
    assert [one.number for one in placed] == [5, 4, 3, 2, 1, 0]
    assert all(len(one.values) == 1 for one in placed)
    found = front(rows, [("ndcg@10", "maximize")])
    assert [one.numbers for one in found.placed] == [(5,)]
