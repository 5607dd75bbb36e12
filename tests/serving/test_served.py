"""A bundle is all it takes: raw ids of strangers in, raw ids out, streaming equal to batch, code only when allowed."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxrec.config import Call, Mistake
from jaxrec.data.demo import Demo
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.models.recommender import Batch, Recommender
from jaxrec.runs import build, bundle
from jaxrec.runs.options import Config, Model
from jaxrec.serving import load

DEMO = Demo(users=40, items=60, events=10, genres=4, lag=2)
CELL = """
import jax, jax.numpy as jnp
from jaxrec.cells import Cell, weight

class Mine(Cell):
    def __init__(self, features: int, hidden: int, *, rngs):
        self.w = weight(rngs, features, hidden)
        self.hidden = hidden
    def initial_state(self): return jnp.zeros(self.hidden)
    def project(self, event): return event.x @ self.w
    def step(self, state, u): return jnp.tanh(0.5 * state + u)
"""


@pytest.fixture(scope="module")
def data():
    return prepare(Preparation(demo=DEMO), lambda sentence: None)


def saved(directory, data, **changes):
    """A bundle of an untrained model: serving does not care how good it is."""
    config = Config(demo=DEMO, model=Model(width=8, depth=2, **changes))
    model = build.model(config.model, build.offered(data), seed=1)
    bundle.save(directory, model, data, config)
    return model


@pytest.fixture(scope="module")
def served(data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("served") / "bundle"
    saved(directory, data)
    return load(directory)


def histories(data, number=5):
    items = [data.item_ids.decode(data.items[a:b]) for a, b in zip(data.offsets, data.offsets[1:], strict=False)]
    return items[:number]


def test_streaming_gives_the_answer_of_the_batch(served, data):
    for history, batch in zip(histories(data), served.recommend(histories(data), k=7), strict=True):
        stream = served.start()
        for item in history:
            stream = served.observe(stream, item)
        streamed = served.top_k(stream, k=7)
        assert [item for item, _ in streamed] == [item for item, _ in batch]
        np.testing.assert_allclose([s for _, s in streamed], [s for _, s in batch], rtol=1e-4, atol=1e-5)


def test_a_cell_that_looks_at_gaps_is_served_with_times_only(data, tmp_path):
    saved(tmp_path / "bundle", data, cell=Call.parse("decayed(gru)"))
    served, history = load(tmp_path / "bundle"), histories(data, 1)[0]
    times = [1_700_000_000 + 86_400 * place**3 for place in range(len(history))]
    (batch,) = served.recommend([history], k=7, times=[times])
    stream = served.start()
    for item, time in zip(history, times, strict=True):
        stream = served.observe(stream, item, time)
    np.testing.assert_allclose([s for _, s in served.top_k(stream, k=7)], [s for _, s in batch], rtol=1e-4, atol=1e-5)
    (at_once,) = served.recommend([history], k=7, times=[[1_700_000_000] * len(history)])
    assert np.abs(np.array([s for _, s in at_once]) - [s for _, s in batch]).max() > 1e-3
    with pytest.raises(Mistake, match=r"give times, .* --times .* as \[\[item, seconds\], ...\]"):
        served.recommend([history])
    with pytest.raises(Mistake, match="give the event's time in seconds"):
        served.observe(stream, history[0])
    assert served.recommend([[]], k=1) == served.recommend([[]], k=1, times=[[]])


def test_a_list_is_the_best_of_the_scores_without_what_was_seen(served, data):
    history = histories(data, 1)[0]
    numbers = data.item_ids.encode(history)
    scores = np.array(served.bundle.model(Batch(item=numbers[None])))[0, -1]
    scores[numbers] = -np.inf
    wanted = data.item_ids.decode(np.argsort(-scores)[:5])
    assert [item for item, _ in served.recommend([history], k=5)[0]] == wanted


def test_seen_exclude_and_allow(served, data):
    (history,) = histories(data, 1)
    everything = {item for item, _ in served.recommend([history], k=1000, exclude_seen=False)[0]}
    assert everything == set(data.item_ids.strings)
    unseen = {item for item, _ in served.recommend([history], k=1000)[0]}
    assert unseen == everything - set(history), "the card masks histories by default"
    few = sorted(unseen)[:6]
    ranked = served.recommend([history], k=10, allow=few, exclude=few[:2])[0]
    assert {item for item, _ in ranked} == set(few[2:])
    popular = served.recommend([[]], k=10, allow=few, exclude=few[:2])[0]
    assert {item for item, _ in popular} == set(few[2:])


def test_strangers_with_nothing_known_get_what_is_popular(served, data):
    order = np.argsort(-data.popularity[1:], kind="stable")[:3] + 1
    for history in ([], ["never heard of"]):
        ranked = served.recommend([history], k=3)[0]
        assert [item for item, _ in ranked] == data.item_ids.decode(order)
        assert ranked[0][1] == pytest.approx(data.popularity.max() / data.popularity.sum())
    assert served.unknown(["never heard of", data.item_ids.strings[0]]) == ["never heard of"]
    known = histories(data, 1)[0]
    assert served.recommend([[*known, "never heard of"]], k=3)[0] != served.recommend([known], k=3)[0]


def test_company_and_order_of_the_histories_do_not_matter(served, data):
    many = histories(data, 12)
    together = served.recommend(many, k=4)
    for history, ranked in zip(many[::-1], served.recommend(many[::-1], k=4), strict=True):
        assert [i for i, _ in ranked] == [i for i, _ in together[many.index(history)]]


def test_one_history_instead_of_a_list_is_a_mistake(served):
    with pytest.raises(Mistake, match="list of them"):
        served.recommend(["a", "b"])
    with pytest.raises(Mistake, match="1 or more"):
        served.recommend([["a"]], k=0)


def test_the_bundle_holds_every_array_and_no_pickle(served, data, tmp_path):
    model = saved(tmp_path / "b", data)
    again = bundle.load(tmp_path / "b").model
    assert isinstance(again, Recommender)
    jax.tree.map(np.testing.assert_array_equal, model, again)
    for file in (tmp_path / "b").glob("*.np[yz]"):
        with np.load(file, allow_pickle=False) if file.suffix == ".npz" else open(file, "rb"):
            pass
    assert not list((tmp_path / "b").glob("*.pkl"))


def test_damage_is_named(data, tmp_path):
    saved(tmp_path / "b", data)
    weights = tmp_path / "b" / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Mistake, match=r"weights\.npz cannot be read"):
        load(tmp_path / "b")
    with pytest.raises(Mistake, match="holds no trained model"):
        load(tmp_path)


def test_a_users_cell_travels_with_the_bundle_and_runs_only_when_allowed(data, tmp_path):
    file = tmp_path / "my_cell.py"
    file.write_text(CELL)
    call = Call.parse(f"{file}:Mine(hidden=5)")
    config = Config(demo=DEMO, model=Model(width=8, cell=call))
    model = build.model(config.model, build.offered(data), seed=1)
    bundle.save(tmp_path / "b", model, data, config)
    file.unlink()
    moved = shutil.move(tmp_path / "b", tmp_path / "elsewhere")
    with pytest.raises(Mistake, match="allow"):
        load(moved)
    wanted = load_scores(load(moved, allow_code=True), data)
    assert len(wanted) == 5
    copy = next((tmp_path / "elsewhere").glob("cell_*.py"))
    copy.write_text(copy.read_text().replace("0.5", "0.25"))
    with pytest.raises(Mistake, match="SHA-256"):
        load(moved, allow_code=True)


def load_scores(served, data):
    return served.recommend(histories(data, 1), k=5)[0]


def test_user_vectors_change_the_answer_for_known_people_only(data, tmp_path):
    saved(tmp_path / "b", data, user=True)
    served = load(tmp_path / "b")
    (history,) = histories(data, 1)
    nobody, somebody, stranger = (
        served.recommend([history], k=5, users=u)[0] for u in (None, data.user_ids.decode([1]), ["?"])
    )
    assert nobody == stranger
    assert [s for _, s in nobody] != [s for _, s in somebody]


def test_what_the_model_does_not_know_or_look_at_is_said(served, data, tmp_path):
    known, (user,) = data.item_ids.strings[0], data.user_ids.decode([1])
    assert list(served.notes([[known], ["odd", known]], None)) == ["the model does not know 'odd'"]
    assert list(served.notes([[known]], [user])) == ["the model does not look at who it is; --user changes nothing"]
    saved(tmp_path / "b", data, user=True)
    looks = load(tmp_path / "b")
    assert list(looks.notes([[known]], [user])) == []
    assert list(looks.notes([[known]], None)) == [
        "the model looks at who it is; without --user everybody counts as new"
    ]
    assert list(looks.notes([[known]] * 2, ["?", "?"])) == ["the model does not know the user '?', who counts as new"]


def test_the_card_is_plain_json(tmp_path, data):
    saved(tmp_path / "b", data)
    about = json.loads((tmp_path / "b" / "bundle.json").read_text())
    assert about["card"]["mask_seen"] == "history"
    assert replace(Config(demo=DEMO, model=Model(width=8, depth=2))).model.cell.name == "gru"


def test_sessions_inside_a_history_are_told_in_one_go_and_event_by_event(data, tmp_path):
    saved(tmp_path / "b", data, cell=Call("hierarchicalrnn"))
    served = load(tmp_path / "b")
    (history,) = histories(data, 1)
    begun = [n % 4 == 0 for n in range(len(history))]
    (told,), (untold,) = served.recommend([history], k=5, starts=[begun]), served.recommend([history], k=5)
    assert [score for _, score in told] != [score for _, score in untold]
    for starts, wanted in ((begun, told), ([None] * len(history), untold)):
        stream = served.start()
        for item, start in zip(history, starts, strict=True):
            stream = served.observe(stream, item, start=start)
        np.testing.assert_allclose([s for _, s in served.top_k(stream, k=5)], [s for _, s in wanted], rtol=1e-4)
    with pytest.raises(Mistake, match="events have 1 starts"):
        served.recommend([history], starts=[[True]])
