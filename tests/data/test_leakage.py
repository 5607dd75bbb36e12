"""The leak check is silent on what is right and finds every leak that is planted."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxrec.config import Mistake
from jaxrec.data import leakage, prepare as preparing
from jaxrec.data.demo import Demo
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.data.prepared import load, save

SMALL = Demo(users=60, items=60, events=12)
SPLITS = [
    {"split": "leave-one-out"},
    {"split": "last-n", "last": 2},
    {"split": "time"},
    {"split": "time", "catalogue": "all"},
    {"split": "time", "sequence": "session"},
    {"split": "time", "k_core": 3},
    {"split": "time", "k_core": 3, "filter_scope": "train"},
]


def script():
    path = Path(__file__).parents[2] / "scripts" / "leak_check.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


SCRIPT = script()


@pytest.fixture
def made(monkeypatch):
    """Prepared data and the truth it was checked against."""

    def make(**options):
        truths, proven = [], leakage.proven

        def listening(prepared, truth):
            truths.append(truth)
            return proven(prepared, truth)

        with monkeypatch.context() as patch:
            patch.setattr(preparing.leakage, "proven", listening)
            return prepare(Preparation(demo=SMALL, **options), lambda _: None), truths[0]

    return make


@pytest.mark.parametrize("options", SPLITS, ids=str)
def test_planted_leaks_are_found_and_nothing_else(made, options):
    prepared, truth = made(**options)
    assert SCRIPT.faults(prepared, truth) == SCRIPT.faults(prepared, None) == set()
    found, alone = SCRIPT.planted(prepared, truth), SCRIPT.planted(prepared, None)
    assert False not in found.values()
    assert False not in alone.values()
    expected = {"events", "vocabulary", "popularity", "numbering", "gaps"}
    assert {name for name, seen in found.items() if seen} == expected | (
        {"starts"} if "sequence" not in options else set()
    )


def test_a_given_test_event_in_training_is_found(tmp_path):
    for name, users in (("train", range(20)), ("test", range(20, 30))):
        rows = "".join(f"u{user},i{(user * 7 + step) % 9},{step}\n" for user in users for step in range(3))
        (tmp_path / f"{name}.csv").write_text("user,item,when\n" + rows)
    options = Preparation(data=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"))
    row, right = SCRIPT.judged(options)
    assert right
    assert row["planted"]["events"] is row["planted_loaded"]["events"] is True


@pytest.mark.parametrize("name", SCRIPT.PLANTED)
def test_a_planted_leak_stops_the_preparation(monkeypatch, name):
    """The check runs inside every preparation: break the last step before it and nothing is handed out."""
    assemble = preparing.assemble
    monkeypatch.setattr(preparing, "assemble", lambda *given: SCRIPT.PLANTED[name](assemble(*given)))
    with pytest.raises(Mistake, match=r"^the prepared data leaks \(.*please report it$"):
        prepare(Preparation(demo=SMALL, split="time", catalogue="all"), lambda _: None)


def test_raw_ids_given_to_the_wrong_numbers_are_found(made):
    """Consistent in every number, yet training knows other items than its events have."""
    prepared, truth = made(split="time", catalogue="all")
    events = np.arange(len(truth.code))
    training = events < prepared.train_end[prepared.sequence_of(events)]
    shifted = replace(truth, code=np.where(training, (truth.code + 1) % len(truth.item), truth.code))
    assert {finding.check for finding in leakage.check(prepared, shifted) if finding.fault} == {"popularity"}


def test_how_much_of_the_future_leave_one_out_leaks(tmp_path):
    """u's test is at 30, v's at 70; training has 10, 20, 40, 50 of v and 1 of u: two are later than 30."""
    rows = [("u", "a", 1), ("u", "b", 25), ("u", "c", 30)]
    rows += [("v", item, time) for item, time in zip("abcaba", (10, 20, 40, 50, 60, 70), strict=True)]
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + "".join(f"{user},{item},{time}\n" for user, item, time in rows))
    card = prepare(Preparation(data=str(path)), lambda _: None).card
    found = {finding["check"]: finding for finding in card["leak_check"]["findings"]}
    assert (found["events"]["leaks"], found["events"]["by_design"]) == (2, True)
    assert found["events"]["sentence"].startswith("40.0% of the training events are later than the earliest test event")
    assert not card["leak_check"]["clean"]
    assert card["leaks"].startswith("leaks the future: ")


def test_only_a_split_by_time_without_foreign_counts_is_clean():
    def clean(**options):
        return prepare(Preparation(demo=SMALL, **options), lambda _: None).card["leak_check"]["clean"]

    assert clean(split="time")
    assert clean(split="time", k_core=3, filter_scope="train")
    assert clean(split="time", deduplicate="first", collapse_repeats=True)
    assert not clean(split="time", k_core=3)
    assert not clean(split="time", deduplicate="last")
    assert not clean(split="leave-one-out")


def test_the_card_says_that_filters_counted_the_future():
    leaky = prepare(Preparation(demo=SMALL, split="time", k_core=3), lambda _: None).card
    assert leaky["leaks"].startswith("no leak across time: ")
    assert leaky["leaks"].endswith(
        "but the filters counted validation and test events too (--filter-scope train does not)"
    )


def test_loaded_data_is_checked_by_its_arrays(tmp_path):
    made = prepare(Preparation(demo=SMALL, split="time"), lambda _: None)
    again = load(save(made, tmp_path / "prepared"))
    assert again.card["leak_check"] == made.card["leak_check"]
    assert not any(finding.fault for finding in leakage.check(again))
