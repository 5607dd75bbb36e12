"""Who proposes what: the same again after a restart, nothing twice, and better than chance where it should be."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from jaxrec.config import Mistake, fingerprint
from jaxrec.sweeps.search import SEARCHES, Direction, Past, Proposal, searcher
from jaxrec.sweeps.space import Point, Space, parse

CONTINUOUS = parse({"optimizer.lr": "log(1e-4, 1)", "model.dropout": "uniform(0, 1)"})
MIXED = parse(
    {
        "optimizer.lr": "log(1e-4, 1, n=4)",
        "model.cell": "gru|lstm(forget_bias={0|1|2.5})",
        "model.width": "logint(8, 64, n=3)",
        "optimizer.name": "adam|adamw",
        "optimizer.weight_decay": "log(1e-6, 1, n=2) if optimizer.name=adamw",
        "eval.metrics": 'hr@10|["hr@5", "mrr@5"]',
        "model.embedding_dropout": "none|0.1|0.5",
    }
)
FINITE = parse({"model.width": "8|16|32", "model.depth": "int(1, 2)", "model.norm": "true|false if model.depth=2"})
ADAPTIVE = ("tpe", "cmaes", "nsga2")


def bowl(point: Point) -> tuple[float, ...]:
    return ((math.log10(point["optimizer.lr"]) + 2) ** 2 + 4 * (point["model.dropout"] - 0.3) ** 2,)


def two(point: Point) -> tuple[float, ...]:
    return (*bowl(point), point["model.dropout"])


def any_value(point: Point) -> tuple[float, ...]:
    return (float(int(fingerprint(point), 16) % 1000),)


def swept(
    name: str, space: Space, trials: int, value: Callable[[Point], tuple[float, ...]], *, seed: int = 0, lag: int = 2,
    directions: Sequence[Direction] = ("minimize",), states: Sequence[str] = ("done",), again: bool = False,
) -> list[Past]:  # fmt: skip
    """A sweep with `lag` trials running; with `again` everything goes through JSON and a new searcher every time."""
    make = lambda: searcher(name, space, seed=seed, directions=directions)  # noqa: E731
    asked, past = make(), list[Past]()
    for number in range(trials):
        found = (make() if again else asked).propose(number, past)
        if found is None:
            break
        if again:
            found = Proposal(json.loads(json.dumps(found.point)), json.loads(json.dumps(found.notes)))
        past.append(Past(number, found.point, "running", None, (), found.notes))
        if number >= lag:
            past[number - lag] = ended(past[number - lag], states[number % len(states)], value)
    return past


def ended(trial: Past, state: str, value: Callable[[Point], tuple[float, ...]]) -> Past:
    values = value(trial.point)
    readings = ((1, values[0] + 1), (2, values[0])) if state in ("done", "pruned") else ()
    return Past(trial.number, trial.point, state, values if state == "done" else None, readings, trial.notes)


@pytest.mark.parametrize("name", ["random", "sobol", "tpe", "nsga2"])
@pytest.mark.parametrize("seed", [0, 7])
def test_a_restart_proposes_the_same(name: str, seed: int):
    states = ("done", "done", "pruned", "failed", "diverged", "done")
    live = swept(name, MIXED, 60, any_value, seed=seed, states=states)
    assert swept(name, MIXED, 60, any_value, seed=seed, states=states, again=True) == live
    assert [trial.point for trial in swept(name, MIXED, 5, any_value, seed=seed + 1)] != [t.point for t in live[:5]]
    for trial in live:
        assert {entry.name for entry in MIXED.dimensions if entry.active(trial.point)} == set(trial.point)


@pytest.mark.parametrize("text", ["uniform(0, 1)", "uniform(0, 1, step=0.125)"])
def test_evolution_restarts_the_same_and_keeps_no_pickle(text: str):
    space = parse({"optimizer.lr": "log(1e-4, 1)", "model.dropout": text})
    live = swept("cmaes", space, 70, bowl, states=("done", "done", "done", "failed"))
    assert swept("cmaes", space, 70, bowl, states=("done", "done", "done", "failed"), again=True) == live
    assert max(trial.notes.get("cma:generation", 0) + trial.notes.get("cmawm:generation", 0) for trial in live) > 5
    assert max(len(json.dumps(trial.notes)) for trial in live) < 100


def test_proposals_do_not_depend_on_hashes_of_a_process():
    program = (
        "from tests.sweeps.test_search import *\n"
        "for name in ('tpe', 'nsga2', 'random'):\n"
        "    print([trial.point for trial in swept(name, MIXED, 14, any_value)])"
    )
    run = lambda seed: subprocess.run(  # noqa: E731
        [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join([".", *sys.path])},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert run("1") == run("2") != ""


@pytest.mark.parametrize("name", ["random", "sobol"])
def test_a_draw_needs_no_history(name: str):
    for space in (CONTINUOUS, MIXED, FINITE):
        in_order = searcher(name, space, seed=3, directions=("maximize",))
        wanted = [in_order.propose(k, []) for k in range(9)]
        for k in (8, 2, 5):
            assert searcher(name, space, seed=3, directions=("maximize",)).propose(k, []) == wanted[k]


def test_sobol_is_the_scrambled_sequence_and_covers_better_than_chance():
    from scipy.stats import qmc

    asked = searcher("sobol", CONTINUOUS, seed=5, directions=("maximize",))
    found = np.array([list(asked.propose(k, []).point.values()) for k in range(64)])
    u = np.stack([np.log(found[:, 0] / 1e-4) / np.log(1e4), found[:, 1]], axis=1)
    wanted = qmc.Sobol(2, scramble=True, rng=np.random.default_rng(5)).random(64)
    np.testing.assert_allclose(u, wanted, atol=1e-9)
    assert qmc.discrepancy(u) < qmc.discrepancy(np.random.default_rng(0).random((64, 2))) / 4


@pytest.mark.parametrize("name", ["grid", "random", "sobol", "tpe", "nsga2"])
def test_a_finite_space_is_exhausted_without_repeats(name: str):
    past = swept(name, FINITE, 50, any_value)
    points = [fingerprint(trial.point) for trial in past]
    assert len(points) == len(set(points)) == FINITE.size() == 9
    assert set(points) == {fingerprint(point) for point in FINITE.grid()}
    assert len(swept(name, parse({"epochs": 3}), 50, any_value)) == 1


def test_a_grid_keeps_its_order():
    asked = searcher("grid", FINITE, seed=0, directions=("maximize",))
    assert asked.propose(4, []).point == list(FINITE.grid())[4]
    assert [asked.propose(k, []).point for k in range(9)] == list(FINITE.grid())
    assert asked.propose(9, []) is None


@pytest.mark.parametrize("name", ["tpe", "cmaes"])
def test_what_was_found_matters(name: str):
    best = lambda found: np.mean([  # noqa: E731
        min(t.values[0] for t in swept(found, CONTINUOUS, 60, bowl, seed=seed) if t.values) for seed in range(3)
    ])  # fmt: skip
    assert best(name) < best("random") / 2


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_several_objectives(name: str):
    states = ("done", "done", "pruned", "failed", "diverged", "out_of_memory")
    past = swept(name, CONTINUOUS, 80, two, directions=("minimize", "maximize"), states=states)
    assert len({fingerprint(trial.point) for trial in past}) == 80
    again = swept(name, CONTINUOUS, 80, two, directions=("minimize", "maximize"), states=states, again=True)
    assert past == again


def test_tpe_stays_away_from_running_trials_and_from_what_diverged():
    done = [
        Past(k, point, "done", bowl(point))
        for k, point in enumerate(map(CONTINUOUS.at, np.random.default_rng(0).random((20, 2))))
    ]
    asked = searcher("tpe", CONTINUOUS, seed=0, directions=("minimize",))
    first = asked.propose(99, done)
    crowd = [Past(20 + k, first.point, "running") for k in range(30)]
    assert asked.propose(99, done + crowd).point != first.point
    high = [t for t in done if t.point["optimizer.lr"] > 1e-2]
    lost = [Past(t.number, t.point, "diverged") if t in high else t for t in done]
    rates = [asked.propose(k, lost).point["optimizer.lr"] for k in range(20, 50)]
    assert np.mean(np.array(rates) > 1e-1) < 0.2


def test_values_that_are_no_numbers_are_borne():
    for name in ADAPTIVE:
        past = swept(
            name, CONTINUOUS, 30, lambda point: (math.nan if point["model.dropout"] > 0.7 else bowl(point)[0],)
        )
        assert len(past) == 30


def test_optuna_is_left_as_it_was(capfd: pytest.CaptureFixture[str]):
    optuna = pytest.importorskip("optuna")
    before = optuna.logging.get_verbosity()
    for name in ADAPTIVE:
        swept(name, CONTINUOUS, 14, bowl)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "space", "directions", "part"),
    [
        ("tpee", CONTINUOUS, ["minimize"], "did you mean 'tpe'"),
        ("cmaes", MIXED, ["minimize"], "model.cell is a choice between values; use tpe"),
        ("cmaes", parse({"model.depth": "int(1, 2)", "optimizer.lr": "log(0.1, 1) if model.depth=2"}), ["minimize"],
         "optimizer.lr depends on another option; use tpe"),
        ("cmaes", CONTINUOUS, ["minimize", "minimize"], "one objective, not 2; keep the first, or use nsga2 or tpe"),
        ("grid", CONTINUOUS, ["minimize"], "optimizer.lr has no steps for a grid"),
    ],
)  # fmt: skip
def test_a_search_that_cannot_be_is_refused(name: str, space: Space, directions: list[Direction], part: str):
    with pytest.raises(Mistake, match=part):
        searcher(name, space, seed=0, directions=directions)


@pytest.mark.parametrize(("missing", "names"), [("optuna", ADAPTIVE), ("cmaes", ("cmaes",))])
def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch, missing: str, names: Sequence[str]):
    from jaxrec.sweeps.pruning import pruner

    monkeypatch.setitem(sys.modules, missing, None)
    for name in names:
        with pytest.raises(Mistake, match=r'not installed; pip install "jaxrec\[sweep\]"'):
            searcher(name, CONTINUOUS, seed=0, directions=("minimize",))
    if missing == "optuna":
        with pytest.raises(Mistake, match=r'--prune median needs Optuna.*pip install "jaxrec\[sweep\]"'):
            pruner("median")
    assert searcher("random", CONTINUOUS, seed=0, directions=("minimize",)).propose(0, [])


def test_whoever_does_not_look_back_says_so():
    kinds = {
        name: searcher(name, FINITE if name == "grid" else CONTINUOUS, seed=0, directions=("minimize",))
        for name in SEARCHES
    }
    assert {name: kind.adaptive for name, kind in kinds.items()} == {
        name: name in (*ADAPTIVE, "pbt") for name in SEARCHES
    }


def test_a_space_is_searched_without_jax():
    program = (
        "import sys\nfrom jaxrec.sweeps.space import parse\nfrom jaxrec.sweeps import search, pruning\n"
        "space = parse({'optimizer.lr': 'log(1e-4, 1)'})\n"
        "search.searcher('random', space, seed=0, directions=['maximize']).propose(3, [])\n"
        "assert not {'jax', 'optuna', 'scipy'} & set(sys.modules), 'heavy'\n"
        "search.searcher('tpe', space, seed=0, directions=['maximize']).propose(3, [])\nassert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})
