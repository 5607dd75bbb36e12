"""Scripts start with their claim, rows carry their circumstances, and README tables are what the rows say."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "experiments").glob("*.py"))


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_says_claim_command_time_and_what_to_expect(path):
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    for word in ("Claim", "Command", "Time", "Expect"):
        assert f"\n{word} " in words, word


def test_every_accuracy_row_can_be_told_from_every_other_and_run_again():
    rows = module(ROOT / "scripts" / "tables.py").rows("accuracy")
    assert rows
    assert len({row["run_id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["command"] == f"python experiments/accuracy.py {row['setting']} --seeds {row['seed']}"
        assert {"config", "machine", "protocol", "seconds", "seed", "test", "valid", "baselines"} <= row.keys()


def test_the_readme_tables_are_what_the_rows_say():
    tables = module(ROOT / "scripts" / "tables.py")
    pages = [page.read_text(encoding="utf-8") for page in tables.PAGES]
    assert sum(page.count("<!-- table:") for page in pages) == len(tables.TABLES)
    for page in pages:
        assert tables.written(page) == page, "run python scripts/tables.py"


def test_listed_sizes_are_those_of_the_cells():
    found = (ROOT / "jaxrec" / "cells" / "facts.json").read_text(encoding="utf-8")
    assert module(ROOT / "scripts" / "tables.py").cells() == found, "run python scripts/tables.py"


def test_the_printed_commands_resolve_to_the_same_configuration():
    from jaxrec.cli import _resolve_train
    from jaxrec.config import resolve, to_dict
    from jaxrec.runs.options import Config

    accuracy = module(ROOT / "experiments" / "accuracy.py")
    for name in accuracy.SETTINGS:
        chosen = accuracy.flags(name, 1, Path("data"), Path("runs"))
        resolved, _ = _resolve_train(accuracy.command(chosen)[2:])
        assert to_dict(resolved.section) == to_dict(resolve(Config, flags=chosen).section)


@pytest.mark.long
def test_the_demo_experiment_adds_one_row_once(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'experiments'); import accuracy, pathlib; "
        f"accuracy.ROWS = pathlib.Path({str(tmp_path / 'rows.jsonl')!r}); "
        f"sys.argv = ['accuracy', 'demo', '--runs', {str(tmp_path)!r}]; accuracy.main(); accuracy.main()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    (row,) = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert row["test"]["masked"]["ndcg@10"] > row["baselines"]["markov3"]["masked"]["ndcg@10"]


@pytest.mark.long
def test_the_smallest_gradient_experiment_adds_its_rows_once_and_shares_them_out(tmp_path):
    rows = tmp_path / "rows.jsonl"
    code = (
        "import sys; sys.path.insert(0, 'experiments'); import vanishing_gradients as v, pathlib; "
        f"v.ROWS = pathlib.Path({str(rows)!r})\n"
        "for words in (['--shard', '1/2'], ['--max-seconds', '0'], [], []): sys.argv = ['v', *words]; v.main(); "
        "print(len(v.rows()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert [int(line) for line in done.stdout.splitlines() if line.isdigit()] == [1, 1, 3, 3]
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert {row["task"] for row in found} == {"recall", "demo"}
    for row in found:
        assert row["low"] <= row["accuracy"] <= row["high"]
        assert set(row["label"]) == set(row["gradient"]) == {"start", "end"}
        assert {"0", "1", "2", str(row["reach"])} <= row["gradient"]["start"].keys()
        assert {"machine", "seed", "seconds", "recipe", "distance", "chance"} <= row.keys()


@pytest.mark.long
def test_the_smallest_experiment_on_lengths_adds_a_row_once(tmp_path):
    rows = tmp_path / "rows.jsonl"
    words = ["--size", "ci", "--out", str(tmp_path / "sweeps"), "--rows", str(rows), "--workers", "1"]
    for _ in range(2):
        command = [sys.executable, "experiments/cells_and_lengths.py", *words]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [row] = [json.loads(line) for line in rows.read_text().splitlines()]
    result = json.loads(next((tmp_path / "sweeps").glob("*/runs/*/result.json")).read_text())
    assert row["run_id"] == result["run_id"]
    assert row["test"]["ndcg@10"] == result["test"][result["headline"]]["ndcg@10"]
    assert {"gradient", "information", "shuffle", "interval", "counters", "seconds", "machine"} <= row.keys()


def test_a_recipe_and_what_was_searched_for_it_are_configurations_of_known_data():
    from jaxrec.config import resolve
    from jaxrec.runs.options import Config
    from jaxrec.sweeps.space import parse, read

    recipes = module(ROOT / "experiments" / "recipes.py")
    for name in recipes.searched():
        assert parse(read(recipes.RECIPES / f"{name}.space.toml")).size() is None, "a range has no last point"
    for name in (*recipes.names(), *recipes.searched()):
        assert name.partition("_")[0] in recipes.DATA
    for name in recipes.names():
        assert resolve(Config, flags=read(recipes.RECIPES / f"{name}.toml")).explicit()


def test_a_row_of_a_recipe_keeps_every_target_and_one_that_chooses_no_test_number(tmp_path):
    from jaxrec.config import resolve
    from jaxrec.reports.leaderboard import boards
    from jaxrec.runs.options import Config
    from jaxrec.runs.run import train

    recipes = module(ROOT / "experiments" / "recipes.py")
    flags = {"demo.users": 40, "demo.items": 60, "demo.events": 8, "model.width": 8, "epochs": 1, "run": str(tmp_path)}
    result = train(resolve(Config, flags=flags).section, say=lambda sentence: None)
    trial = {"seconds": 1.0, "code": "abc", "number": 0, "point": {"model.width": 8}}
    row = recipes.row("demo_gru", "final", trial, tmp_path, {})
    (board,) = boards([json.loads(json.dumps(row))])
    values = board.entries[0].values("ndcg@10")
    assert len(values) == result["protocol"]["counts"]["test_targets"]
    assert values.mean() == pytest.approx(result["test"][result["headline"]]["ndcg@10"], abs=1e-6)
    assert "run" not in row["config"]
    again, new = (row["kinds"].get(name, {"count": 0, "ndcg@10": 0.0}) for name in ("repeat", "new"))
    assert again["count"] + new["count"] == len(values)
    parts = sum(part["count"] * part["ndcg@10"] for part in (again, new))
    assert parts / len(values) == pytest.approx(row["test"]["ndcg@10"], abs=1e-6)
    chooser = recipes.row(
        "demo_gru", "trial", trial, tmp_path, {"space": {"constants": {"data": "/a/place", "epochs": 1}}}
    )
    assert not {"test", "places", "baselines"} & chooser.keys()
    assert chooser["space"] == {"constants": {"epochs": 1}}
    assert chooser["valid"] == row["valid"]


def test_cells_are_held_against_each_other_in_one_block_at_their_own_rates():
    from jaxrec.config import resolve
    from jaxrec.runs.options import Config
    from jaxrec.sweeps.space import parse

    matters = module(ROOT / "experiments" / "cell_matters.py")
    for name in matters.SETS:
        space = matters.BLOCK | matters.SETS[name] | {"model.cell": "|".join(matters.CELLS), "optimizer.lr": 0.003}
        assert parse(space).size() == len(matters.CELLS)
        assert resolve(Config, flags=space | {"model.cell": "gru"}).section.epochs % 3 == 0
    rows = [
        {"cell": cell, "config": {"optimizer": {"lr": rate}}, "valid": {"ndcg@10": value}}
        for cell, values in {"gru": (0.1, 0.3, 0.2), "lru": (0.1, 0.2, 0.3), "lstm": (0.4, 0.5)}.items()
        for rate, value in zip(matters.RATES, values, strict=False)
    ]
    assert matters.chosen_rates(rows) == {"gru": matters.RATES[1], "lru": matters.RATES[2]}  # lstm has one to try


@pytest.mark.parametrize(("loss", "mesh"), [("softmax", (4, 2)), ("sampled_softmax(negatives=16)", (2, 4))])
def test_a_compiled_step_sends_what_the_plan_for_many_users_says(loss, mesh):
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxrec.bench.collectives import collectives, repeated
    from jaxrec.config import resolve
    from jaxrec.runs import build
    from jaxrec.runs.options import Config
    from jaxrec.training.loop import informed
    from jaxrec.training.source import Source
    from jaxrec.training.spread import Spread

    plan = module(ROOT / "experiments" / "plan_scaling.py")
    items, width, rows, time = 61, 8, 16, 3
    flags = {"data": "synthetic", "model.width": width, "loss": loss, "optimizer.lazy": loss != "softmax"}
    config = resolve(Config, flags=flags).section
    step, hyper = build.step(config, 10)
    model = build.model(config.model, build.Offer(items, 0, gaps=False, starts=False), seed=0)
    state = step.init(model, hyper, jax.random.key(0))
    source = informed(step, Source(jnp.ones(99, jnp.int32), counts=jnp.ones(items + 1)), hyper)
    run = Spread(step, "shard_map", mesh[0] * mesh[1], mesh[1])
    index = np.zeros((2, rows, time), np.int32)
    state, source, hyper = run.place(state, source, hyper)
    program = run.program(state, source, index, index.astype(bool), np.zeros(2, np.int32), hyper)
    found = sum(one.sent for one in repeated(collectives(program.as_text())))
    dense = sum(leaf.size for leaf in jax.tree.leaves(state.network))
    assert dense == plan.network(width)
    if loss == "softmax":
        wanted = plan.sent_exact(rows * time, items, width, dense, plan.Mesh(*mesh))
    else:
        wanted = plan.sent_sampled(rows * time, 16, width, dense, plan.Mesh(*mesh))
    assert found == pytest.approx(wanted)


def test_the_formulas_of_the_plan_hold_for_every_measured_case():
    rows = module(ROOT / "scripts" / "tables.py").rows
    plan = module(ROOT / "experiments" / "plan_scaling.py")
    checks = [row for row in rows("plan_scaling") if row["kind"] == "check"]
    assert checks == json.loads(json.dumps(list(plan.checks(rows("bench_scaling"))))), "run experiments/plan_scaling.py"
    exact = [row for row in checks if row["what"] == "sent" and row["case"]["mode"] == "shard_map"]
    assert len(exact) == 14
    assert all(abs(row["error"]) < 1e-9 for row in exact)
