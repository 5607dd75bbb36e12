"""The grammar of a space, its conditions, and the points in it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxrec.config import Mistake, resolve
from jaxrec.runs.options import Config
from jaxrec.sweeps.draft import IDLE, REFUSED
from jaxrec.sweeps.fields import annotations
from jaxrec.sweeps.space import OPTIONS, Space, parse, read

EVERYTHING = {
    "model.cell": "gru(hidden=64)|lstm(forget_bias={0|1|2.5})|a.py:Mine(a=1)|normed({gru|mgu(bias={true|false})})",
    "loss": "sampled_softmax(negatives=512, alpha={uniform(0, 1, step=0.1)})",
    "optimizer.weight_decay": "log(1e-6, 1e-2) if optimizer.name=adamw and model.cell=gru|lstm",
    "optimizer.name": "adam|adamw",
    "optimizer.lr": "log(1e-4, 1e-2, n=3)",
    "model.width": "logint(16, 128, n=4)",
    "model.depth": "int(1, 3)",
    "model.norm": "true|false if model.depth=2|3",
    "model.embedding_dropout": "none|0.1|0.5",
    "model.backend": "none|scan(hoist={true|false})",
    "eval.metrics": 'hr@10 ndcg@10|["hr@5"]',
    "epochs": 3,
    "data": "'a|b if c.csv'",
}


def domain(text: str, option: str = "optimizer.lr") -> Any:
    [found] = parse({option: text}).dimensions
    return found.domain


def shares(count: int) -> Any:
    return st.lists(st.floats(0, 1, exclude_max=True), min_size=count, max_size=count)


def as_toml(space: Space) -> Space:
    return Space.of(json.loads(json.dumps(space.plain())))


@given(st.data())
def test_points_are_configurations_and_hold_what_is_active(data: st.DataObject):
    space = parse(EVERYTHING)
    point = space.at(data.draw(shares(len(space.dimensions))))
    assert json.loads(json.dumps(point)) == point
    for dimension in space.dimensions:
        assert (dimension.name in point) == dimension.active(point)
    flags = space.flags(point)
    config = resolve(Config, flags=flags).section
    assert ("optimizer.weight_decay" in point) == (
        config.optimizer.name == "adamw" and config.model.cell.name in ("gru", "lstm")
    )
    assert ("model.norm" in point) == (config.model.depth > 1)
    assert config.model.norm or config.model.depth > 1  # its default where the condition does not hold
    assert config.loss.options == {"negatives": 512, "alpha": point["loss.alpha"]}
    assert (config.data, config.epochs) == ("a|b if c.csv", 3)
    assert as_toml(space).flags(point) == flags


def test_a_space_survives_json():
    space = parse(EVERYTHING)
    assert as_toml(space) == space


def test_what_depends_stands_behind_what_it_looks_at():
    space = parse(
        {"model.depth": "1|2 if model.width=64", "model.width": "32|64 if model.tied=true", "model.tied": "true|false"}
    )
    assert [entry.name for entry in space.dimensions] == ["model.tied", "model.width", "model.depth"]
    assert space.at([0.9, 0.9, 0.9]) == {"model.tied": False}
    assert space.at([0.1, 0.9, 0.9]) == {"model.tied": True, "model.width": 64, "model.depth": 2}
    assert [len(point) for point in space.grid()] == [2, 3, 3, 1]


def test_a_grid_is_row_major_and_complete():
    space = parse({"model.width": "32|64", "optimizer.lr": "log(1e-4, 1e-2, n=3)", "model.depth": "int(1, 2)"})
    found = [tuple(point.values()) for point in space.grid()]
    assert found == [(w, r, d) for w in (32, 64) for r in (1e-4, 1e-3, 1e-2) for d in (1, 2)]
    assert domain("uniform(0, 1, step=0.1)").grid() == tuple(k / 10 for k in range(11))
    assert domain("uniform(0, 1, n=5)").grid() == (0, 0.25, 0.5, 0.75, 1)
    assert domain("int(1, 9, step=4)", "model.width").grid() == (1, 5, 9)
    assert domain("int(1, 3, n=7)", "model.width").grid() == (1, 2, 3)
    assert domain("logint(1, 100, n=3)", "model.width").grid() == (1, 10, 100)
    assert list(parse({"epochs": 3}).grid()) == [{}]


@pytest.mark.parametrize("text", ["log(1e-4, 1e-2)", "uniform(0, 1)", "logint(1, 8)"])
def test_a_grid_names_what_has_no_steps(text: str):
    option = "model.width" if "int" in text else "optimizer.lr"
    with pytest.raises(Mistake, match=f"{option} has no steps for a grid; give it n=5"):
        parse({"model.depth": "1|2", option: text}).grid()


def test_a_space_is_counted():
    assert parse({"model.width": "32|64", "model.depth": "int(1, 3)"}).size() == 6
    assert parse({"model.width": "32|64 if model.depth=2", "model.depth": "int(1, 3)"}).size() == 4
    assert parse({"model.width": "int(1, 1000000)", "model.depth": "int(1, 1000000)"}).size(most=500) == 500
    assert parse({"optimizer.lr": "log(1e-4, 1, n=3)"}).size() is None
    assert [point["model.width"] for point in parse({"model.width": "logint(3, 6)"}).points()] == [3, 4, 5, 6]


BOUNDS = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).filter(lambda pair: pair[0] < pair[1])
WHOLE = st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)).filter(lambda pair: pair[0] < pair[1])


@given(BOUNDS, st.floats(0, 1, exclude_max=True))
def test_uniform_is_linear_in_its_share(ends: tuple[float, float], u: float):
    low, high = ends
    found = domain(f"uniform({low!r}, {high!r})", "min_rating").at(u)
    assert low <= found <= high
    assert found == pytest.approx(low + u * (high - low), rel=1e-9, abs=1e-9 * (high - low))


@given(st.floats(1e-12, 1e12), st.floats(1.001, 1e9), st.floats(0, 1, exclude_max=True))
def test_log_is_linear_in_the_logarithm(low: float, ratio: float, u: float):
    found = domain(f"log({low!r}, {low * ratio!r})").at(u)
    assert low <= found <= low * ratio
    assert math.log(found / low) == pytest.approx(u * math.log(ratio), abs=1e-6)


@given(WHOLE, st.floats(0, 1, exclude_max=True))
def test_whole_numbers_stay_in_bounds(ends: tuple[int, int], u: float):
    for head in ("int", "logint"):
        found = domain(f"{head}{ends}", "model.width").at(u)
        assert type(found) is int
        assert ends[0] <= found <= ends[1]


def test_steps_and_whole_numbers_have_equal_shares():
    u = (np.arange(12_000) + 0.5) / 12_000
    for text, option, count in (("int(1, 6)", "epochs", 6), ("int(0, 9, step=3)", "optimizer.warmup", 4),
                                ("uniform(0, 1, step=0.25)", "optimizer.lr", 5), ("1|2|3", "epochs", 3)):  # fmt: skip
        found = domain(text, option)
        _, times = np.unique([found.at(share) for share in u], return_counts=True)
        assert len(times) == count
        assert times.max() - times.min() <= 1


def test_logint_gives_each_number_the_width_of_its_logarithm():
    asked = domain("logint(1, 8)", "epochs")
    found = np.array([asked.at(share) for share in (np.arange(20_000) + 0.5) / 20_000])
    for number in range(1, 9):
        expected = math.log((number + 0.5) / (number - 0.5)) / math.log(8.5 / 0.5)
        assert np.mean(found == number) == pytest.approx(expected, abs=2e-4)


def test_one_argument_of_several_calls_is_one_dimension_where_it_may_be_the_same():
    same = parse({"model.cell": "gru(hidden={32|64})|lstm(hidden={32|64})|lru"})
    assert [(entry.name, entry.when) for entry in same.dimensions] == [
        ("model.cell", ()), ("model.cell.hidden", (("model.cell", ("gru", "lstm")),)),
    ]  # fmt: skip
    other = parse({"model.cell": "gru(hidden={32|64})|lstm(hidden={int(8, 16)})"})
    assert [entry.name for entry in other.dimensions][1:] == ["model.cell.gru.hidden", "model.cell.lstm.hidden"]
    assert other.flags({"model.cell": "lstm", "model.cell.lstm.hidden": 9}) == {"model.cell": "lstm(hidden=9)"}


def test_a_condition_may_look_into_a_call_and_at_ranges():
    space = parse(
        {"loss": "sampled_softmax(negatives={256|512})", "optimizer.lazy": "true|false if loss.negatives=512"}
    )
    assert [len(point) for point in space.grid()] == [1, 2, 2]
    space = parse({"model.depth": "int(1, 3)", "model.residual": "true|false if model.depth=2|3"})
    assert len(list(space.grid())) == 5
    space = parse(
        {
            "model.cell": "RG-LRU|gru(hidden=8)|gru(hidden=16)",
            "model.norm": "true|false if model.cell=rglru|gru(hidden=16)",
        }
    )
    assert len(list(space.grid())) == 5


def test_a_constant_may_be_conditional():
    space = parse({"optimizer.weight_decay": "0.1 if optimizer.name=adamw", "optimizer.name": "adam|adamw"})
    assert [space.flags(point) for point in space.grid()] == [
        {"optimizer.name": "adam"}, {"optimizer.name": "adamw", "optimizer.weight_decay": 0.1},
    ]  # fmt: skip


def test_quotes_keep_bars_and_words_together():
    assert parse({"data": "'a|b'|\"c if d\"|it's.csv"}).dimensions[0].domain.values == ("a|b", "c if d", "it's.csv")
    cells = parse({"model.cell": "a.py:Mine(name='x|y', f='{z}')|gru(hidden=64)"})
    assert cells.dimensions[0].domain.values == ("a.py:Mine(f='{z}', name='x|y')", "gru(hidden=64)")
    [point, _] = cells.grid()
    assert cells.flags(point) == {"model.cell": "a.py:Mine(f='{z}', name='x|y')"}


WRONG: list[tuple[Mapping[str, Any], str, str]] = [
    ({"optimizer.lrr": "log(1, 2)"}, "'optimizer.lrr'", "did you mean 'optimizer.lr'"),
    ({"loss.alpha": "1|2"}, "'loss.alpha'", 'write loss = "name\\(alpha='),
    ({"sweep.trials": 3}, "'sweep.trials'", "no such option"),
    ({"seed": "1|2"}, "seed", "give --seeds K"),
    ({"run": "x"}, "run", "its own folder"),
    ({"fresh": True}, "fresh", "give another --out"),
    ({"max_seconds": "1|2"}, "max_seconds", "all its values are one trial"),
    ({"optimizer.lr": "log(0, 1)"}, "optimizer.lr", "begin above 0"),
    ({"optimizer.lr": "log(1, 0.1)"}, "optimizer.lr", "smaller one first"),
    ({"optimizer.lr": "log(1)"}, "optimizer.lr", "give two numbers"),
    ({"optimizer.lr": "log(1, 2"}, "optimizer.lr", "never closes"),
    ({"optimizer.lr": "log(1, 2, m=3)"}, "optimizer.lr", "does not take"),
    ({"optimizer.lr": "log(1, 2, step=1)"}, "optimizer.lr", "does not take"),
    ({"optimizer.lr": "uniform(0, 1, n=1)"}, "optimizer.lr", "whole number from 2"),
    ({"optimizer.lr": "uniform(0, 1, step=0.3)"}, "optimizer.lr", "end at 0.9"),
    ({"optimizer.lr": "uniform(0, 1, step=0.1, n=3)"}, "optimizer.lr", "no step beside it"),
    ({"optimizer.lr": "uniform(-1, 1)"}, "optimizer.lr", "at least 0"),
    ({"optimizer.lr": "0.1|nan"}, "optimizer.lr", "out of range"),
    ({"min_rating": "1|inf"}, "min_rating", "not finite"),
    ({"optimizer.lr": "log(1, 2)|0.1"}, "optimizer.lr", "a range stands alone"),
    ({"model.width": "uniform(1, 2)"}, "model.width", "write int"),
    ({"model.width": "int(1, 2.5)"}, "model.width", "not whole numbers"),
    ({"model.width": "32|0"}, "model.width", "at least 1"),
    ({"model.width": "32|x"}, "model.width", "not a whole number"),
    ({"model.width": "32|32"}, "model.width", "keep one"),
    ({"model.width": "32||64"}, "model.width", "empty choice"),
    ({"model.width": [32, 64]}, "model.width", "not a whole number"),
    ({"optimizer.name": "adam|adamx"}, "optimizer.name", "did you mean 'adam'"),
    ({"optimizer.name": "uniform(0, 1)"}, "optimizer.name", "range of numbers"),
    ({"ties": "file|price"}, "ties", "use file or shuffle"),
    ({"loss": "log(1, 2)"}, "loss", "range of numbers"),
    ({"loss": "softmax|uniform(0, 1)"}, "loss", "range of numbers"),
    ({"model.cell": "gru("}, "model.cell", "never closes"),
    ({"model.cell": "gru(a=6_)"}, "model.cell", "'6_' is not a number"),
    ({"model.cell": "gru(a={1|2)"}, "model.cell", "not open"),
    ({"model.cell": "gru(a=6{1|2})"}, "model.cell", "'6_' is not a number"),
    ({"model.cell": "{gru|lstm}"}, "model.cell", "not a whole argument"),
    ({"model.cell": "gru{1|2}"}, "model.cell", "not a whole argument"),
    ({"model.cell": "gru(a={1|2, b=3})"}, "model.cell", "its own braces"),
    ({"model.cell": "gru(a={log(1, 2)|3})"}, "model.cell", "a range stands alone"),
    ({"model.cell": "gru(a={1|2 if model.depth=1})"}, "model.cell", "put it behind the call"),
    ({"model.cell": "gru(a={1|2}, b=1)|gru(a={3|4})"}, "model.cell", "twice"),
    ({"model.cell": "normed(gru(a={1|2}), lru(a={1|2}))"}, "model.cell", "two braces for one name"),
    ({"model.cell": "lstm|lstm(b={1|2})"}, "model.cell", "keep one"),
    ({"data": "a if b.csv"}, "data", "not a condition"),
    ({"model.width": "32|64 if model.depth=2"}, "model.width", "is not swept"),
    ({"model.width": "32|64 if model.dept=2", "model.depth": "1|2"}, "model.width", "no option of this space"),
    ({"model.width": "32|64 if model.depth=3", "model.depth": "1|2"}, "model.width", "never takes"),
    ({"model.width": "32|64 if model.depth=4", "model.depth": "int(1, 3)"}, "model.width", "never takes"),
    ({"model.width": "32|64 if model.depth=x", "model.depth": "1|2"}, "model.width", "cannot be read"),
    ({"model.width": "32|64 if model.cell=mgu", "model.cell": "gru|lstm"}, "model.width", "not among"),
    ({"model.width": "32|64 if optimizer.lr=0.1", "optimizer.lr": "log(0.01, 1)"}, "model.width", "no single value"),
    ({"model.width": "32|64 if model.depth=1 and model.depth=2", "model.depth": "1|2"}, "model.width", "two things"),
    ({"model.width": "32|64 if model.width=32"}, "model.width", "circle"),
    ({"model.width": "32|64 if model.depth=1", "model.depth": "1|2 if model.width=32"}, "model.width", "circle"),
    ({"model.width": "32 if model.depth", "model.depth": "1|2"}, "model.width", "not a condition"),
    ({"optimizer.lr": "1|" + "9" * 5000}, "optimizer.lr", "at most 4000"),
    ({"optimizer.lr": 10**400}, "optimizer.lr", "beyond every float"),
    ({"model.cell": "f(" * 60 + ")" * 60}, "model.cell", "deep"),
    ({"model.no-such": 1}, "'model.no-such'", "no such option"),
]  # fmt: skip


@pytest.mark.parametrize(("space", "option", "part"), WRONG, ids=[f"{o}-{n}" for n, (_, o, _) in enumerate(WRONG)])
def test_a_mistake_names_option_value_rule_and_remedy(space: Mapping[str, Any], option: str, part: str):
    with pytest.raises(Mistake, match=part) as raised:
        parse(space)
    said = str(raised.value)
    value = repr(next(iter(space.values())))
    assert said.startswith(option)
    last = repr(value.strip("'").rpartition("|")[2])
    assert value in said or last in said or len(value) > 100 or "0" in said
    assert "_slot" not in said
    assert len(said) < 1000


ALPHABET = "abf1.06 |(){}[],='\"\\_-:if andlogue@noe\n"
TEXTS = st.text(ALPHABET, max_size=30) | st.text(max_size=10)
PIECES = st.lists(
    st.sampled_from(
        [
            *"|(){}[],='\"\\:",
            *("log(", "uniform(", "int(", "logint(", "1", "2.5", "1e-3", "6_", "step=", "n=", "gru", "lstm(a=", "true"),
            *("none", "nan", "inf", ".py:", " if ", " and ", "model.depth=", "model.width=", "1|2"),
        ]
    ),
    max_size=12,
).map("".join)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.text(max_size=3), max_size=2)
)


def attempt(given: Mapping[str, Any]) -> Space | str:
    """The space, or what is said instead; nothing else may happen."""
    try:
        return parse(given)
    except Mistake as mistake:
        return str(mistake)


@settings(max_examples=600)
@given(st.sampled_from(sorted(OPTIONS)), TEXTS | PIECES, st.sampled_from(["1|2", "int(1, 3) if model.width=2", "2"]))
def test_any_text_is_a_space_or_a_mistake(option: str, text: str, depth: str):
    space = attempt({"model.depth": depth} | {option: text})
    if isinstance(space, str):
        assert option in space or "model.depth" in space
        assert "_slot" not in space
        return
    assert as_toml(space) == space
    for share in (0.0, 0.3, 0.999999):
        point = space.at([share] * len(space.dimensions))
        resolve(Config, flags=space.flags(point))


@settings(max_examples=200)
@given(st.sampled_from(sorted(OPTIONS)), VALUES)
def test_any_value_is_a_constant_or_a_mistake(option: str, value: Any):
    space = attempt({option: value})
    if isinstance(space, str):
        assert option in space
        return
    resolve(Config, flags=space.flags({}))
    assert as_toml(space) == space


def test_a_file_is_flat_and_keeps_what_is_about_the_sweep_apart(tmp_path: Path):
    file = tmp_path / "space.toml"
    file.write_text(
        'epochs = 3\n[model]\nembedding-dropout = "0.1|0.2"\n[optimizer]\nlr = "log(1e-4, 1e-2)"\n[sweep]\ntrials = 9\n'
    )
    found = read(file)
    assert found == {
        "epochs": 3, "model.embedding_dropout": "0.1|0.2", "optimizer.lr": "log(1e-4, 1e-2)", "sweep.trials": 9,
    }  # fmt: skip
    assert [entry.name for entry in parse({k: v for k, v in found.items() if k != "sweep.trials"}).dimensions] == [
        "model.embedding_dropout", "optimizer.lr",
    ]  # fmt: skip
    file.write_text("epochs = = 3")
    with pytest.raises(Mistake, match="not a TOML file"):
        read(file)
    with pytest.raises(Mistake, match="cannot be read"):
        read(tmp_path / "nothing.toml")


def test_what_cannot_be_swept_are_options_that_decide_nothing():
    from jaxrec.runs.run import VOLATILE

    paths = {"data", "test", "valid"}  # what lies there decides, whatever the path
    assert set(VOLATILE) - paths == set(IDLE) | set(REFUSED)
    assert set(annotations()) == OPTIONS
