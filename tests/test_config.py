"""Calls as text, strict sections, TOML under flags, origins, fingerprints, and which options nobody read."""

import dataclasses
import math
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, strategies as st

from jaxrec.config import (
    Call,
    Mistake,
    Section,
    Within,
    changed,
    did_you_mean,
    fingerprint,
    from_dict,
    keys,
    resolve,
    squash,
    to_dict,
    value_at,
    watch,
)


@dataclass(frozen=True, kw_only=True)
class Inner(Section):
    cell: Call = Call("gru")
    width: Annotated[int, Within(1)] = 64
    rate: Annotated[float, Within(0.0, 1.0)] = 0.5
    backend: Call | None = None


@dataclass(frozen=True, kw_only=True)
class Outer(Section):
    data: str = "demo"
    split: Literal["auto", "time", "given"] = "auto"
    metrics: tuple[str, ...] = ("hr@10",)
    edges: tuple[str, str] = ("0.8", "0.9")
    users: Annotated[int, Within(1)] | None = None
    fresh: bool = False
    model: Inner = field(default_factory=Inner)


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}(-[a-z0-9]{1,3})?", fullmatch=True)
FILES = st.none() | st.sampled_from(["my_cell.py", "a/b-c.py", "../x y.py", 'odd"name.py', "c:\\d.py", "it's.py"])
LITERALS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)


def calls(arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    options = st.dictionaries(NAMES.filter(str.isidentifier), arguments, max_size=3)
    return st.builds(Call, NAMES, st.lists(arguments, max_size=2).map(tuple), options, FILES)


NESTED = st.recursive(LITERALS, lambda inner: calls(inner) | st.lists(inner, max_size=3), max_leaves=8)


@given(calls(NESTED))
def test_a_call_survives_its_text(call: Call):
    text = str(call)
    again = Call.parse(text)
    assert again == call
    assert str(again) == text
    assert hash(again) == hash(call)
    assert pickle.loads(pickle.dumps(call)) == call


def test_calls_mean_what_they_say():
    call = Call.parse(
        " my_cell.py:MyCell( normed(gru, 8), size=1_000, rate=-1e-3, name='a\\'b', pair=[1, (2,)], on=true )"
    )
    assert (call.file, call.name) == ("my_cell.py", "MyCell")
    assert call.arguments == (Call("normed", (Call("gru"), 8)),)
    assert dict(call.options) == {"size": 1000, "rate": -0.001, "name": "a'b", "pair": (1, (2,)), "on": True}
    assert Call.parse("f(b=1, a=2)") == Call.parse("f(a=2, b=1)")
    assert Call.parse("f(1)") != Call.parse("f(1.0)")
    assert Call.parse("f(1)") != Call.parse("f(true)")
    assert math.isinf(Call.parse("f(-inf)").arguments[0])
    assert Call.parse("RG-LRU").name == "RG-LRU"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "expected a value"),
        ("gru(", "found the end"),
        ("gru)", "expected nothing more"),
        ("gru(hidden=)", "expected a value"),
        ("gru(hidden=8 layers=2)", "expected ',' or ')'"),
        ("gru(hidden=1, 2)", "after the first option"),
        ("gru(a=1, a=2)", "'a' twice"),
        ("gru(a=6_)", "'6_' is not a number"),
        ("gru(a=" + "9" * 5000 + ")", "is not a number"),
        ("my_cell.py:", "expected a name"),
        ("128", "a name such as"),
        ("'gru'", "a name such as"),
        ("gru(lambda x: x)", "expected ',' or ')'"),
        ("gru(os.system('x'))(2)", "expected nothing more"),
    ],
)
def test_a_malformed_call_says_where(text: str, part: str):
    with pytest.raises(Mistake, match=r"is not a call|twice") as raised:
        Call.parse(text)
    assert part in str(raised.value)


def test_a_call_holds_nothing_that_can_change():
    weights = [1, 2]
    call = Call("f", options={"weights": weights})
    weights.append(3)
    assert call == Call.parse("f(weights=(1, 2))")
    with pytest.raises(Mistake, match="cannot be an argument"):
        Call("f", ({1, 2},))
    with pytest.raises(Mistake, match="is not a name"):
        Call("f(x)")


@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        ("RG-LRU", ["gru", "rglru"], "; did you mean 'rglru'?"),
        ("widht", ["depth", "width"], "; did you mean 'width'?"),
        ("banana", ["gru", "lstm"], ""),
        ("x", [], ""),
    ],
)
def test_suggestions(name: str, choices: list[str], expected: str):
    assert did_you_mean(name, choices) == expected


@given(st.text())
def test_squashing_twice_changes_nothing(name: str):
    assert squash(squash(name)) == squash(name)


@pytest.mark.parametrize(
    ("given_", "parts"),
    [
        ({"modl": {}}, ["unknown key 'modl'", "did you mean 'model'?"]),
        ({"model": {"widht": 8}}, ["unknown key 'model.widht'", "did you mean 'model.width'?"]),
        ({"model": {"zzz": 8}}, ["the keys here are cell, width, rate, backend"]),
        ({"model": 3}, ["model = 3 is not a section", "cell, width"]),
        ({"model": {"width": "8"}}, ["model.width = '8' is not a whole number", "without quotes"]),
        ({"model": {"width": 8.0}}, ["model.width = 8.0 is not a whole number"]),
        ({"model": {"width": True}}, ["model.width = True is not a whole number"]),
        ({"model": {"width": 0}}, ["model.width = 0 is out of range", "at least 1"]),
        ({"model": {"rate": 1.5}}, ["at least 0 and at most 1"]),
        ({"model": {"rate": float("nan")}}, ["out of range"]),
        ({"model": {"cell": "gru("}}, ["model.cell = 'gru(' is not a call"]),
        ({"model": {"cell": 3}}, ["model.cell = 3 is not a name with options"]),
        ({"data": 3}, ["data = 3 is not text", "quotes"]),
        ({"fresh": "yes"}, ["fresh = 'yes' is not a truth value"]),
        ({"fresh": 1}, ["fresh = 1 is not a truth value"]),
        ({"split": "tme"}, ["split = 'tme' is not one of 'auto', 'time', 'given'", "did you mean 'time'?"]),
        ({"metrics": "hr@10"}, ["metrics = 'hr@10' is not a list"]),
        ({"metrics": ["hr@10", 3]}, ["metrics[1] = 3 is not text"]),
        ({"edges": ["0.8"]}, ["edges = ['0.8'] has 1 entries; give 2"]),
        ({"users": 0}, ["users = 0 is out of range"]),
    ],
)
def test_what_is_not_allowed_is_named(given_: dict[str, Any], parts: list[str]):
    with pytest.raises(Mistake) as raised:
        from_dict(Outer, given_, "run.toml")
    assert str(raised.value).startswith("run.toml: ")
    for part in parts:
        assert part in str(raised.value)


def test_building_in_python_is_as_strict():
    assert Inner(cell="gru(hidden=8)", rate=1).cell == Call("gru", options={"hidden": 8})  # type: ignore[arg-type]
    assert isinstance(Inner(rate=1).rate, float)
    with pytest.raises(Mistake, match="width = 'x' is not a whole number"):
        Inner(width="x")  # type: ignore[arg-type]


def test_exclusive_bound():
    positive = Within(0.0, above=True)
    assert not positive.admits(0.0)
    assert positive.admits(1e-9)
    assert str(positive) == "above 0"


SECTIONS = st.builds(
    Outer,
    data=st.text(max_size=5),
    split=st.sampled_from(["auto", "time", "given"]),
    metrics=st.lists(st.text(max_size=4), max_size=3).map(tuple),
    users=st.none() | st.integers(1, 99),
    fresh=st.booleans(),
    model=st.builds(
        Inner, cell=calls(LITERALS), width=st.integers(1, 99), rate=st.floats(0, 1), backend=st.none() | calls(LITERALS)
    ),
)


@given(SECTIONS)
def test_a_section_survives_its_dict_and_keeps_its_fingerprint(section: Outer):
    mapping = to_dict(section)
    assert from_dict(Outer, mapping) == section
    backwards = dict(reversed(mapping.items())) | {"model": dict(reversed(mapping["model"].items()))}
    assert fingerprint(backwards) == fingerprint(mapping)


def test_fingerprint_is_the_same_in_every_process():
    assert fingerprint({"b": [1, 2.5, None], "a": {"x": "é"}}) == "6837b6380c8c"
    code = "from jaxrec.config import fingerprint; print(fingerprint({'a': {'x': 'é'}, 'b': [1, 2.5, None]}))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "6837b6380c8c"


@given(SECTIONS, SECTIONS)
def test_different_sections_have_different_fingerprints(one: Outer, other: Outer):
    assert (fingerprint(to_dict(one)) == fingerprint(to_dict(other))) == (to_dict(one) == to_dict(other))


FLAGS = {
    "data": "b.csv",
    "model.width": 32,
    "model.cell": "lstm(hidden=4)",
    "metrics": ["mrr"],
    "users": None,
    "split": "given",
}
TOML = {"data": "a.csv", "model.width": 16, "model.rate": 0.25, "users": 7, "split": "time"}


@given(st.sets(st.sampled_from(sorted(TOML))), st.sets(st.sampled_from(sorted(FLAGS))))
def test_flags_win_over_the_file_and_the_file_over_defaults(
    tmp_path_factory: Any, in_file: set[str], in_flags: set[str]
):
    path = tmp_path_factory.mktemp("toml") / "run.toml"
    path.write_text("".join(f"{key} = {TOML[key]!r}\n" for key in sorted(in_file)))
    resolved = resolve(Outer, path, {key: FLAGS[key] for key in in_flags})
    for key in keys(Outer):
        source, origin = (
            (FLAGS, "flag") if key in in_flags else (TOML, "run.toml") if key in in_file else ({}, "default")
        )
        expected = source[key] if source else value_at(Outer(), key)
        assert resolved.origins[key] == origin
        assert to_plain(value_at(resolved.section, key)) == to_plain(expected)
    assert set(resolved.explicit()) == in_file | in_flags


def to_plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Call) else value


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("model.widht = 3", "run.toml: unknown key 'model.widht'; did you mean 'model.width'?"),
        ("model = [", "not a TOML file"),
        ("split = 3", "run.toml: split = 3 is not one of"),
        ("[model]\nwidth = 3\nwi-dth = 4", "unknown key 'model.wi-dth'"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, part: str):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(Mistake) as raised:
        resolve(Outer, path)
    assert part in str(raised.value)


def test_a_missing_file_and_an_unknown_flag_are_mistakes(tmp_path: Path):
    with pytest.raises(Mistake, match="cannot be read"):
        resolve(Outer, tmp_path / "none.toml")
    with pytest.raises(Mistake, match=r"unknown option 'model.with'; did you mean 'model.width'\?"):
        resolve(Outer, None, {"model.with": 3})


def test_unread_names_what_was_set_and_never_read():
    section = Outer(data="a", split="time", model=Inner(width=8, rate=0.1))
    explicit = ["data", "split", "model.width", "model.rate"]
    assert section.data == "a"  # before the watch: does not count
    with watch(section) as seen:
        assert (section.split, section.model.width) == ("time", 8)
        assert seen.unread(explicit) == ["data", "model.rate"]
        part = section.model
        assert part.rate == 0.1
        assert seen.unread(explicit) == ["data"]
    assert section.data == "a"  # after the watch: does not count either
    assert seen.unread(explicit) == ["data"]


def test_comparing_printing_and_writing_are_not_reading():
    section = Outer()
    with watch(section) as seen:
        assert section == Outer()
        assert "demo" in repr(section)
        hash(section)
        to_dict(section)
        value_at(section, "model.width")
        assert seen.unread(keys(Outer)) == keys(Outer)


def test_a_changed_copy_reads_nothing_but_reading_it_does():
    section = Outer(data="a", split="time")
    with watch(section) as seen:
        copy = changed(section, data="b")
        assert seen.unread(keys(Outer)) == keys(Outer)
        assert (copy.data, copy.model.width) == ("b", section.model.width)
        assert set(keys(Outer)) - set(seen.unread(keys(Outer))) == {"data", "model.width"}
    assert section.data == "a"


def test_two_watches_do_not_mix():
    one, other = Outer(), Outer()
    with watch(one) as first, watch(other) as second:
        assert one.data == other.model.cell.name.replace("gru", "demo")
    assert first.unread(["data", "model.cell"]) == ["model.cell"]
    assert second.unread(["data", "model.cell"]) == ["data"]


def test_sections_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Outer().data = "x"  # type: ignore[misc]
