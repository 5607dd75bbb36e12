"""Every task can be solved perfectly from what goes in, and from nothing only as often as it says."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.config import Call, Mistake
from jaxrec.diagnostics import tasks
from jaxrec.diagnostics.gradient import by_scan
from jaxrec.diagnostics.problem import NEAR
from jaxrec.diagnostics.solve import (
    Recipe,
    Training,
    failed,
    frontier,
    hyper_of,
    learn,
    mean_gradient,
    rule_of,
    solve,
    train,
    wilson,
)  # fmt: skip
from jaxrec.diagnostics.student import student
from jaxrec.diagnostics.tasks import TASKS, named, task

DISTANCES = (24, 30, 64)


def symbols(x):
    return x.argmax(-1)


# What a machine with perfect memory answers, from one sequence's input alone, in plain Python.


def copy(t, x):
    return symbols(x)[: t.items]


def adding(t, x):
    return [sum(value for value, marked in x if marked)]


def recall(t, x):
    return symbols(x)[:1]


def selective(t, x):
    return [symbol for symbol in symbols(x) if symbol < t.symbols]


def mqar(t, x):
    shown = symbols(x)
    known = {shown[place]: shown[place + 1] - t.keys for place in range(0, 2 * t.pairs, 2)}
    return [known[key] for key in shown[-t.pairs :]]


def parity(t, x):
    odd, found = 0, []
    for bit in symbols(x):
        odd ^= bit
        found.append(odd)
    return found


def flipflop(t, x):
    shown, found, held = symbols(x), [], None
    for place in range(0, len(shown), 2):
        if shown[place] == 0:
            held = shown[place + 1] - 3
        if shown[place] == 1:
            found.append(held)
            assert place + 1 == len(shown) or shown[place + 1] - 3 == held
    return found


def permuted(t, x):
    return [int(((t.waves() - x[:, 0] * np.sqrt(1 + t.noise**2 * t.distance)) ** 2).sum(1).argmin())]


ORACLES = {
    "copy": copy, "adding": adding, "recall": recall, "selective": selective, "mqar": mqar, "parity": parity,
    "flipflop": flipflop, "permuted": permuted,
}  # fmt: skip


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("name", TASKS)
def test_perfect_memory_answers_every_question(name, distance):
    given = task(name, distance)
    problem = jax.device_get(given.draw(jax.random.key(distance), 50))
    assert problem.x.shape == (50, given.length, given.features)
    for x, target, mask in zip(*problem, strict=True):
        np.testing.assert_allclose(ORACLES[name](given, x), target[mask], rtol=1e-5)
        assert mask[-1]
        assert not target[~mask].any()


@pytest.mark.parametrize("name", TASKS)
def test_chance_is_how_often_the_commonest_answer_is_right(name):
    given = task(name, 24)
    problem = given.draw(jax.random.key(0), 4000)
    target = problem.target[problem.mask]
    if given.regression:
        outputs = jnp.full((len(target), 1), 1.0)
        assert float(given.losses(outputs, target).mean()) == pytest.approx(1 / 6, rel=0.05)
    else:
        counts = jnp.bincount(target, length=given.outputs)
        assert counts.min() > 0
        outputs = jnp.tile(jax.nn.one_hot(counts.argmax(), given.outputs), (len(target), 1))
    found = float(given.right(outputs, target).mean())
    assert found == pytest.approx(given.chance, abs=4 * (given.chance / 4000) ** 0.5)


@pytest.mark.parametrize("name", TASKS)
def test_equal_keys_draw_equal_sequences_and_others_do_not(name):
    given = task(name, 24)
    first, again, other = (given.draw(jax.random.key(seed), 4) for seed in (0, 0, 1))
    assert all(map(np.array_equal, first, again))
    assert not np.array_equal(first.x, other.x)
    inside = jax.jit(lambda key: given.draw(key, 4))(jax.random.key(0))
    assert np.array_equal(inside.mask, first.mask)
    np.testing.assert_allclose(inside.x, first.x, rtol=1e-6)


def asked(name, distance=24):
    return np.asarray(task(name, distance).draw(jax.random.key(0), 30).mask)


def test_answers_are_asked_where_the_definition_says():
    for name, count in (("copy", 10), ("adding", 1), ("recall", 1), ("selective", 8), ("mqar", 4), ("parity", 24)):
        assert (asked(name).sum(1) == count).all()
    for name in ("copy", "selective", "mqar"):
        count = asked(name).sum(1)[0]
        assert asked(name)[:, -count:].all()
    assert not asked("flipflop")[:, 1::2].any()


def test_what_a_task_asks_lies_its_distance_back():
    given = task("copy", 30)
    problem = given.draw(jax.random.key(0), 3)
    shown = np.asarray(problem.x.argmax(-1))
    assert np.array_equal(shown[:, given.length - 1 - given.reach], problem.target[:, -1])
    lags = [np.flatnonzero(row[:, 1]) for row in np.asarray(task("adding", 30).draw(jax.random.key(0), 50).x)]
    assert all(first < 15 <= second for first, second in lags)


def test_flipflops_grow_rare_as_strings_grow_long():
    for distance in (20, 200):
        shown = np.asarray(task("flipflop", distance).draw(jax.random.key(0), 400).x.argmax(-1))
        events = (shown[:, 2:-1:2] < 2).sum(1)
        assert events.mean() == pytest.approx(2, abs=0.3)


MISTAKES = [
    (lambda: task("coppy", 5), "there is no task 'coppy'", "did you mean 'copy'?"),
    (lambda: task("copy(item=5)", 5), "copy has no option 'item'", "did you mean 'items'?"),
    (lambda: task("copy(5)", 5), "name the options", "copy(items=...)"),
    (lambda: task("recall", 0), "distance = 0", "at least 1"),
    (lambda: task("selective", 7), "distance = 7", "give a distance of at least 8"),
    (lambda: task("mqar(pairs=20)", 7), "pairs = 20", "give keys of at least 20"),
    (lambda: task("flipflop", 21), "distance = 21", "give an even number, such as 22"),
    (lambda: task("permuted", 20), "distance = 20", "give a distance above 20"),
    (lambda: Recipe(batch=6, accumulate=4), "accumulate = 4", "give a divisor"),
    (lambda: Recipe(weight_decay=0.1), "weight_decay = 0.1", "choose adamw"),
    (lambda: Recipe(clip=0.0), "clip = 0.0", "give a number above 0"),
    (lambda: Recipe(optimizer="sgd"), "optimizer = 'sgd'", "adam"),
    (lambda: solve(task("recall", 3), Recipe(cell=Call("gruu"))), "no cell 'gruu'", "did you mean 'GRU'?"),
]


@pytest.mark.parametrize(("refused", "rule", "remedy"), MISTAKES, ids=[rule for _, rule, _ in MISTAKES])
def test_a_refusal_is_one_sentence_with_its_remedy(refused, rule, remedy):
    with pytest.raises(Mistake) as caught:
        refused()
    said = str(caught.value)
    assert rule in said
    assert remedy in said
    assert "\n" not in said


def test_a_task_is_named_by_a_call_that_makes_it():
    for call in (*TASKS, "copy(items=3)", "mqar(pairs=2, values=4)"):
        assert named(task(call, 32)) == call
        assert task(named(task(call, 32)), 32) == task(call, 32)


TINY = Recipe(cell=Call("gru"), width=16, batch=16, steps=400, every=50, lr=0.01, sequences=128)


def test_a_gru_learns_to_recall_and_does_not_know_before():
    learnt = learn(task("recall(symbols=4)", 3), TINY)
    found = learnt.record
    assert found["solved"]
    assert found["accuracy"] >= 0.95
    assert found["low"] < found["accuracy"] <= found["high"]
    assert not failed(found)
    untrained = solve(task("recall(symbols=4)", 3), replace(TINY, steps=1, lr=1e-9))
    assert untrained["low"] <= untrained["chance"] <= untrained["high"] + 0.1
    assert failed(untrained)


def test_equal_seeds_give_equal_records_and_accumulation_the_same_course():
    short = replace(TINY, steps=20, every=10, sequences=32)
    first, again, other = (solve(task("copy(items=2)", 3), replace(short, seed=seed)) for seed in (0, 0, 1))
    clocks = ("seconds", "cpu_seconds", "steps_per_second", "first_seconds")
    same = [{key: value for key, value in row.items() if key not in clocks} for row in (first, again, other)]
    assert same[0] == same[1]
    assert same[0]["loss"] != same[2]["loss"]


def test_parts_of_a_step_add_up_to_its_mean():
    given = task("adding", 6)
    model = student(given, Call("gru"), width=8, depth=1, feedforward=0, norm=True, residual=True, backend=None, seed=0)
    rule = rule_of(Recipe(batch=8, accumulate=4))
    loss, grads = mean_gradient(model, given, jax.random.key(0), rule)
    parts = [
        jax.value_and_grad(lambda m, key=key: m.loss(given.draw(key, 2)))(model)
        for key in jax.random.split(jax.random.key(0), 4)
    ]
    assert float(loss) == pytest.approx(np.mean([float(part[0]) for part in parts]), rel=1e-5)
    for mine, *theirs in zip(jax.tree.leaves(grads), *(jax.tree.leaves(part[1]) for part in parts), strict=True):
        np.testing.assert_allclose(mine, np.mean(theirs, axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cell", ["elman", "cfc", "usergru", "hierarchicalrnn", "lem"])
def test_gradients_reach_back_through_every_sort_of_student(cell):
    given = task("recall", 4)
    model = student(given, Call(cell), width=8, depth=1, feedforward=0, norm=True, residual=True, backend=None, seed=0)
    found = by_scan(model, given.draw(jax.random.key(0), 3)).log10()
    assert found.shape == (1, 3, given.length)
    assert np.isfinite(found).all()


def test_truncation_lets_no_gradient_through():
    given, backend = task("recall", 6), Call.parse("scan(truncate=4)")
    model = student(
        given, Call("gru"), width=8, depth=1, feedforward=0, norm=True, residual=True, backend=backend, seed=0
    )
    found = by_scan(model, given.draw(jax.random.key(0), 2)).log10()[0]
    assert np.isneginf(found[:, :4]).all()
    assert np.isfinite(found[:, 4:]).all()


def test_a_gradient_that_is_not_finite_changes_nothing():
    given = task("recall", 3)
    model = student(given, Call("gru"), width=4, depth=1, feedforward=0, norm=True, residual=True, backend=None, seed=0)
    model.head.bias[...] = jnp.full(8, jnp.nan)
    rule, hyper = rule_of(TINY), hyper_of(TINY)
    begun = Training(jnp.zeros((), int), model, rule.optimiser.transform(hyper, 0).init(model), jax.random.key(0))
    after, measured = train(begun, hyper, task=given, rule=rule, steps=3)
    assert not measured.finite.any()
    for old, new in zip(jax.tree.leaves(model), jax.tree.leaves(after.student), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_frontier_goes_up_to_the_first_failure():
    def run(task, recipe):
        accuracy = 1.0 if task.distance < 10 else 0.6 if task.distance < 20 else 0.3
        low, high = wilson(accuracy, 100)
        return {"distance": task.distance, "accuracy": accuracy, "low": low, "high": high, "chance": task.chance}

    found = list(frontier(task("recall", 1), (40, 5, 20, 10), TINY, run))
    assert [row["distance"] for row in found] == [5, 10, 20]
    assert [failed(row) for row in found] == [False, False, True]


def test_wilson_is_the_published_interval():
    # Agresti and Coull 1998, table 1 and the formula by hand: 9 of 10, and none of 20
    assert wilson(0.9, 10) == pytest.approx((0.5958, 0.9821), abs=2e-4)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=2e-4)


def test_adding_counts_what_is_near():
    given = task("adding", 8)
    outputs = jnp.array([[1.0], [1.0]])
    assert given.right(outputs, jnp.array([1 + NEAR * 0.9, 1 - NEAR * 1.1])).tolist() == [True, False]
    assert tasks.Adding(distance=8).chance == pytest.approx(0.0784)
