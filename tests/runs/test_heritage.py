"""A training on data that has grown begins with what the run before it learnt of the same items and users."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxrec.config import Mistake
from jaxrec.data.context import Column
from jaxrec.data.options import Preparation
from jaxrec.data.prepared import load
from jaxrec.data.renewing import prepare_into
from jaxrec.data.vocabulary import Vocabulary
from jaxrec.runs import bundle
from jaxrec.runs.heritage import labels
from jaxrec.runs.options import Batch, Config, Evaluation, Model, Optimizer, Stopping
from jaxrec.runs.run import begin, train
from jaxrec.serving import load as serve

CONFIG = Config(
    epochs=2, model=Model(width=8, dropout=0.3, user=True), batch=Batch(size=4, length=10),
    stop=Stopping(patience=0, keep="last"), optimizer=Optimizer(lr=0.05), eval=Evaluation(metrics=("ndcg@10",)),
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAXREC_CACHE", str(tmp_path_factory.getbasetemp() / "heritage-cache"))


def prepared(path, users, first, seed, onto=None, **options):
    """Prepared data of random visits to five of the items from ``first`` on."""
    rng = np.random.default_rng(seed)
    rows = [
        f"{user},i{first + rng.integers(12)},{1_500_000_000 + 1000 * seed + n}" for n in range(12) for user in users
    ]
    file = path.with_suffix(".csv")
    file.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    prepare_into(Preparation(data=str(file), **options), str(path), lambda _: None, onto and str(onto))
    return path


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """(yesterday, today): today has users and items more; people of yesterday come again."""
    place = tmp_path_factory.mktemp("days")
    yesterday = prepared(place / "yesterday", ["a", "b", "c", "d"], 0, 0, features=("@hour",))
    return yesterday, prepared(place / "today", ["d", "e", "f"], 8, 1, onto=yesterday)


def go(config, run, said=None, **changes):
    say = (lambda sentence: None) if said is None else said.append
    return train(dataclasses.replace(config, run=str(run), **changes), say=say)


def rows_of(vocabulary, raw):
    return np.asarray(vocabulary.encode(raw))


@pytest.mark.parametrize("lazy", [False, pytest.param(True, marks=pytest.mark.long)])
def test_before_the_first_step_shared_vectors_and_lists_are_those_of_before(tmp_path, days, lazy):
    loss = {"optimizer": dataclasses.replace(CONFIG.optimizer, lazy=lazy, average=0.9)}
    if lazy:
        loss["loss"] = dataclasses.replace(CONFIG.loss, name="sampled_softmax", options={"negatives": 8})
    go(CONFIG, tmp_path / "old", data=str(days[0]), **loss)
    said, more = [], {"data": str(days[1]), "start_from": str(tmp_path / "old"), **loss}
    result = go(CONFIG, tmp_path / "new", said, epochs=0, **more)
    then, now = (bundle.load(tmp_path / run) for run in ("old", "new"))
    items, users = ((getattr(then, ids).strings, getattr(now, ids).strings) for ids in ("item_ids", "user_ids"))
    kept = [raw for raw in items[0] if raw in items[1]]
    assert len(items[1]) > len(kept) > 0 < len(users[1]) - 4
    for table in then.model.tables:
        ids, raw = ("user_ids", users[0]) if table == "user" else ("item_ids", kept)
        old = np.asarray(then.model.tables[table])[rows_of(getattr(then, ids), raw)]
        new = np.asarray(now.model.tables[table])[rows_of(getattr(now, ids), raw)]
        assert (old == new).all(), table
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), then.model.network, now.model.network))
    one, other = (serve(tmp_path / run).recommend([kept[:3]], k=8, allow=kept) for run in ("old", "new"))
    assert one == other
    counts = {"kept": len(kept), "new": len(items[1]) - len(kept), "dropped": 0}
    assert result["inherited"] == {"items": counts, "users": {"kept": 4, "new": 2, "dropped": 0}}
    sentence = f"kept {counts['kept']} items, {counts['new']} new, 0 dropped; kept 4 users, 2 new, 0 dropped; epochs"
    assert any(sentence in line for line in said)


def started(config, run, **changes):
    """(the fresh state, the one that training begins with)."""
    begun = begin(dataclasses.replace(config, run=str(run), **changes), say=lambda sentence: None)
    with begun.folder:
        fresh = begun.fresh()
        return fresh, begun.fitting.start(fresh)[0], begun.fitting.start(fresh)[1]


@pytest.mark.long
def test_tables_in_pieces_take_over_the_same_rows(tmp_path, days):
    """More items than before, in two pieces: drawn there, what is kept laid into them."""
    go(CONFIG, tmp_path / "old", data=str(days[0]), epochs=1)
    more, found = {"data": str(days[1]), "start_from": str(tmp_path / "old")}, []
    for pieces in (1, 2):
        begun = begin(
            dataclasses.replace(CONFIG, run=str(tmp_path / f"{pieces}"), devices=pieces, shards=pieces, **more),
            say=lambda _: None,
        )
        with begun.folder:
            run, state = begun.fitting.spread, begun.fitting.resumed(begun.fresh())
            placed = run.place(state, None, begun.fitting.hyper)[0]
            found.append(run.whole(placed)._replace(key=None))
            assert len({str(shard.index) for shard in placed.tables["item"].addressable_shards}) == pieces
    jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.parametrize("name", ["adamw", pytest.param("adagrad", marks=pytest.mark.long)])
def test_new_rows_are_fresh_and_the_optimiser_goes_on_row_by_row(tmp_path, days, name):
    optimizer = {"optimizer": dataclasses.replace(CONFIG.optimizer, name=name)}
    go(CONFIG, tmp_path / "old", data=str(days[0]), **optimizer)
    then, now = load(days[0]), load(days[1])
    fresh, state, clock = started(
        CONFIG, tmp_path / "new", data=str(days[1]), start_from=str(tmp_path / "old"), **optimizer
    )
    same = begin(
        dataclasses.replace(CONFIG, run=str(tmp_path / "old"), data=str(days[0]), **optimizer), say=lambda _: None
    )
    with same.folder:
        old = same.fitting.checkpoints.restore(same.fitting.checkpoints.latest(), same.fresh())[0]
    assert (int(state.step), clock.epoch, clock.step) == (0, 0, 0)
    for tree in ("tables", "optimiser"):
        pick = lambda one: one.tables if tree == "tables" else one.optimiser["tables"]  # noqa: E731, B023
        leaves = zip(*(jax.tree_util.tree_leaves_with_path(pick(one)) for one in (fresh, state, old)), strict=True)
        for (path, blank), (_, found), (_, before) in leaves:
            if not blank.ndim:
                assert (found == before).all()
                continue
            words = "user_ids" if "user" in str(path) else "item_ids"
            numbers = np.append(0, getattr(then, words).encode(getattr(now, words).strings))
            expected = np.where((numbers > 0).reshape(-1, *[1] * (blank.ndim - 1)), before[numbers], blank)
            expected[0] = before[0]
            assert (np.asarray(found) == expected).all(), path
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), state.optimiser["network"], old.optimiser["network"]))


def test_items_that_are_gone_are_counted_and_nothing_in_common_is_refused(tmp_path, days):
    go(CONFIG, tmp_path / "new", data=str(days[1]))
    result = go(CONFIG, tmp_path / "old", data=str(days[0]), start_from=str(tmp_path / "new"), epochs=1)
    gone = len(load(days[1]).item_ids) - len(load(days[0]).item_ids)
    assert result["inherited"]["items"] == {"kept": len(load(days[0]).item_ids), "new": 0, "dropped": gone}
    assert result["epochs"] == 1
    apart = prepared(tmp_path / "apart", ["a", "b"], 100, 3)
    with pytest.raises(Mistake, match="knows no item of this data"):
        go(CONFIG, tmp_path / "none", data=str(apart), start_from=str(tmp_path / "new"))
    wide = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, width=16))
    with pytest.raises(Mistake, match=r"has another model .*model.width: 8 -> 16.*; give the same here"):
        go(wide, tmp_path / "wide", data=str(days[0]), start_from=str(tmp_path / "new"))
    assert not (tmp_path / "wide").exists()


def test_it_is_resumed_and_answered_as_any_run(tmp_path, days):
    go(CONFIG, tmp_path / "old", data=str(days[0]))
    more = {"data": str(days[1]), "start_from": str(tmp_path / "old")}
    whole = go(CONFIG, tmp_path / "whole", **more)
    part = go(CONFIG, tmp_path / "part", max_seconds=1e-6, **more)
    assert part["stopped"] == "max_seconds"
    again = go(CONFIG, tmp_path / "part", **more)
    assert (again["test"], again["inherited"]) == (whole["test"], whole["inherited"])
    assert json.loads((tmp_path / "part" / "result.json").read_text())["run_id"] == whole["run_id"]


def test_rows_of_context_are_matched_by_what_they_say():
    hour, price, colour = Column("@hour", "time", 24), Column("price", "event", None), Column("colour", "event", 2)
    words = Vocabulary.from_strings(["red", "blue"])
    found = labels([hour, price, colour], [None, None, words])
    assert found[:2] == [("price",), ("@hour", 0)]
    assert found[-2:] == [("colour", "red"), ("colour", "blue")]
    assert len(found) == 27
