"""The fuzzer's own cases, a few hundred of them, and faults planted in the readers, which it must find."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def fuzzer():
    spec = importlib.util.spec_from_file_location("fuzz_readers", ROOT / "scripts" / "fuzz_readers.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_readers"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["fuzz_readers"]


@settings(max_examples=300)
@given(st.integers(0, 10**9))
def test_whatever_the_file_it_is_read_or_refused_and_nothing_is_silent(fuzzer, tmp_path_factory, number):
    kind, outcome, why = fuzzer.case(tmp_path_factory.getbasetemp(), 0, number)
    assert outcome not in fuzzer.FAILURES, (kind, why)


def first_lost(read):
    return lambda *given: shortened(read(*given), slice(1, None))


def last_lost(read):
    return lambda *given: shortened(read(*given), slice(None, -1))


def shortened(events, kept):
    columns = {role: getattr(events, role) for role in ("item", "user", "session", "time")}
    return replace(events, **{role: values if values is None else values[kept] for role, values in columns.items()})


def stripped(read):
    def wrong(*given):
        events = read(*given)
        return replace(events, item=events.item.str.strip_chars())

    return wrong


def seconds_off(read):
    def wrong(*given):
        events = read(*given)
        return events if events.time is None else replace(events, time=events.time + np.int64(1))

    return wrong


@pytest.mark.parametrize("fault", [first_lost, last_lost, stripped, seconds_off])
def test_a_reader_that_changes_what_was_written_is_found(fuzzer, monkeypatch, fault):
    monkeypatch.setattr(fuzzer, "read", fault(fuzzer.read))
    assert "silent" in fuzzer.fuzz(200, seed=0)["outcomes"]


def test_a_reader_that_mends_short_lines_in_silence_is_found(fuzzer, monkeypatch):
    """Damage that a reader hides by dropping every row after it."""

    def forgiving(read):
        def wrong(source, options, say):
            events = read(source, options, say)
            return shortened(events, slice(None, len(events.item) // 2)) if options.on_bad_row == "skip" else events

        return wrong

    monkeypatch.setattr(fuzzer, "read", forgiving(fuzzer.read))
    assert "silent" in fuzzer.fuzz(200, seed=0)["outcomes"]


def test_an_exception_is_a_failure(fuzzer, monkeypatch):
    monkeypatch.setattr(fuzzer, "read", lambda *_: 1 / 0)
    row = fuzzer.fuzz(3, seed=0)
    assert row["outcomes"] == {"exception": 3}
    assert "ZeroDivisionError" in row["failures"][0]["why"]


def test_committed_rows_have_no_failures():
    rows = list(map(json.loads, (ROOT / "experiments" / "results" / "fuzz_readers.jsonl").read_text().splitlines()))
    assert rows
    assert rows[-1]["failures"] == []
    assert sum(rows[-1]["outcomes"].values()) == rows[-1]["cases"]
