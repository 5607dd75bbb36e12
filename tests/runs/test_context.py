"""Context from the file to the served list: learnt, judged, saved, resumed and streamed alike."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest

from jaxrec.cli import main
from jaxrec.config import Call, Mistake
from jaxrec.data.context import attached
from jaxrec.data.prepare import prepare
from jaxrec.reports.results import print_result
from jaxrec.runs import build, bundle, fitting
from jaxrec.runs.options import Batch, Config, Evaluation, Model, Optimizer, Stopping
from jaxrec.runs.run import evaluate, train
from jaxrec.serving import load

USERS, EVENTS, ITEMS, START = 40, 14, 7, 1_400_000_000
METRICS = ("hr@1",)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Items in a ring; the next one lies on the side that the event's ``way`` says. ``price`` says nothing."""
    draw, path = np.random.default_rng(0), tmp_path_factory.mktemp("log") / "ring.csv"
    lines = ["user,item,time,way,price"]
    for user in range(USERS):
        item = int(draw.integers(ITEMS))
        for place in range(EVENTS):
            up = bool(draw.integers(2))
            time = START + 1000 * user + 7_000 * place
            lines.append(f"u{user},i{item},{time},{'up' if up else 'down'},{draw.exponential():.3f}")
            item = (item + (1 if up else -1)) % ITEMS
    path.write_text("\n".join(lines) + "\n")
    return path


def config(log, cell, *context):
    return Config(
        data=str(log), features=("way", "price", "@hour"), mask_seen="none", epochs=30,
        model=Model(cell=Call.parse(cell), width=16, dropout=0.0, context=context),
        batch=Batch(size=8, length=16), optimizer=Optimizer(lr=0.02), stop=Stopping(patience=0, metric="hr@1"),
        eval=Evaluation(metrics=METRICS, every=15), checkpoint_seconds=0.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(log, tmp_path_factory):
    """A run with context and one without, from one cache; ``go`` trains another."""
    place, patch = tmp_path_factory.mktemp("runs"), pytest.MonkeyPatch()
    patch.setenv("JAXREC_CACHE", str(place / "cache"))

    def go(name, *told):
        return train(replace(config(log, *told), run=str(place / name)), say=lambda sentence: None)

    crossed = go("crossed", "latentcross(gru)", "way", "price", "@hour")
    yield place, go, crossed
    patch.undo()


def histories(log):
    """Every user's events before the last, with their context, times, and what comes next."""
    rows = [line.split(",") for line in log.read_text().splitlines()[1:]]
    users = [rows[n : n + EVENTS] for n in range(0, len(rows), EVENTS)]
    items = [[row[1] for row in user[:-1]] for user in users]
    times = [[float(row[2]) for row in user[:-1]] for user in users]
    contexts = [[{"way": row[3], "price": float(row[4])} for row in user[:-1]] for user in users]
    return items, times, contexts, [user[-1][1] for user in users]


def test_a_planted_dependency_is_learnt_with_context_and_cannot_be_without(runs):
    _, go, crossed = runs
    plain = go("plain", "gru")
    assert plain["test"]["unmasked"]["hr@1"] < 0.75, "without the way it is the toss of a coin"
    assert crossed["test"]["unmasked"]["hr@1"] > 0.9


def test_serving_says_what_was_judged_in_one_go_and_event_by_event(runs, log):
    place, _, crossed = runs
    served = load(place / "crossed")
    items, times, contexts, targets = histories(log)
    lists = served.recommend(items, k=3, times=times, contexts=contexts)
    hits = [ranked[0][0] == target for ranked, target in zip(lists, targets, strict=True)]
    assert np.mean(hits) == pytest.approx(crossed["test"]["unmasked"]["hr@1"])
    for n in (0, 7):
        stream = served.start()
        for item, time, context in zip(items[n], times[n], contexts[n], strict=True):
            stream = served.observe(stream, item, time, context=context)
        streamed = served.top_k(stream, k=3)
        assert [item for item, _ in streamed] == [item for item, _ in lists[n]]
        np.testing.assert_allclose([s for _, s in streamed], [s for _, s in lists[n]], rtol=1e-4, atol=1e-5)
    again = evaluate(str(place / "crossed"), say=lambda sentence: None)
    assert again["test"] == crossed["test"]


def test_an_unknown_value_counts_as_none(runs, log):
    served = load(runs[0] / "crossed")
    items, times, contexts, _ = (part[:1] for part in histories(log))
    lists = []
    for way, price in (("sideways", None), (None, float("nan"))):
        one = [[*contexts[0][:-1], {"way": way, "price": price}]]
        lists.append(served.recommend(items, k=3, times=times, contexts=one)[0])
    assert lists[0] == lists[1]
    assert lists[0] != served.recommend(items, k=3, times=times, contexts=contexts)[0]


def test_what_is_missing_at_serving_is_one_sentence(runs, log):
    served = load(runs[0] / "crossed")
    items, times, contexts, _ = (part[:1] for part in histories(log))
    short, strange = [contexts[0][:-1]], [[*contexts[0][:-1], contexts[0][-1] | {"wheather": 1}]]
    misspelt = [[*contexts[0][:-1], {"way": "up", "prise": 1.0}]]
    lacking, text = [[*contexts[0][:-1], {"way": "up"}]], [[*contexts[0][:-1], {"way": "up", "price": "dear"}]]
    for told, sentence in (
        ({"times": times}, "looks at 'way' of every event; give contexts"),
        ({"contexts": contexts}, "looks at @hour; give the time"),
        ({"times": times, "contexts": short}, "13 events have 12 contexts"),
        ({"times": times, "contexts": lacking}, "context 12 has no 'price'"),
        ({"times": times, "contexts": misspelt}, "context 12 has 'prise', .* did you mean 'price'"),
        ({"times": times, "contexts": strange}, "does not read"),
        ({"times": times, "contexts": text}, "'dear' is not a number"),
    ):
        with pytest.raises(Mistake, match=sentence):
            served.recommend(items, **told)
    with pytest.raises(Mistake, match="give contexts"):
        served.observe(served.start(), items[0][0], times[0][0])


def test_the_command_line_tells_what_python_tells_and_the_result_says_how(runs, log, capsys):
    place, _, crossed = runs
    items, times, contexts, _ = (part[0] for part in histories(log))
    print_result(crossed, as_json=False, run="a")
    hint = capsys.readouterr().out.partition("Next: ")[2].replace("\\\n", "")
    assert shlex.split(hint) == [
        "jaxrec", "recommend", "--run", "a", "--history", "ITEM,ITEM", "--times", "SECONDS,SECONDS",
        "--context", "way=VALUE,VALUE", "price=VALUE,VALUE", "--k", "10",
    ]  # fmt: skip
    told = [f"{name}={','.join(str(one[name]) for one in contexts)}" for name in ("way", "price")]
    argv = ["--history", ",".join(items), "--times", ",".join(map(str, times)), "--context", *told, "--k", "3"]
    assert main(["recommend", "--run", str(place / "crossed"), *argv, "--json"]) == 0
    [wanted] = load(place / "crossed").recommend([items], k=3, times=[times], contexts=[contexts])
    given = json.loads(capsys.readouterr().out)
    assert list(zip(given["items"], given["scores"], strict=True)) == wanted
    for less, option in ((argv[:4], "--context way=VALUE,VALUE"), ([*argv[:2], *argv[4:]], '--times "SECONDS')):
        assert main(["recommend", "--run", str(place / "crossed"), *less]) == 2
        assert option in capsys.readouterr().err


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_to_the_same_bits(runs, monkeypatch):
    place, go, crossed = runs
    told = ("latentcross(gru)", "way", "price", "@hour")
    with monkeypatch.context() as patch:
        pause = fitting.Fitting.pause

        def dies(self, state, clock):
            if clock.step >= 23:
                raise Killed
            return pause(self, state, clock)

        patch.setattr(fitting.Fitting, "pause", dies)
        patch.setattr(fitting.Loop, "adapt", lambda self, count, seconds: None)  # one step a dispatch
        with pytest.raises(Killed):
            go("cut", *told)
    resumed = go("cut", *told)
    assert resumed["test"] == crossed["test"]
    whole, cut = (dict(np.load(place / name / "bundle" / "weights.npz")) for name in ("crossed", "cut"))
    assert "['context']" in " ".join(whole)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, cut[name], err_msg=name)


def test_a_model_and_its_data_must_agree_about_context(log):
    data = prepare(config(log, "gru"), lambda sentence: None)
    offer = build.offered(data)
    for cell, context, given, sentence in (
        ("latentcross", (), offer, r"wants the context of every event.*--model.context NAME.*way, price, @hour"),
        ("latentcross", (), offer._replace(features=()), "--features NAME"),
        ("gru", ("way",), offer, r"gru does not read it.*latentcross\(gru\)"),
        ("latentcross", ("wy",), offer, "did you mean 'way'"),
        ("usergru", (), offer, "add --model.user"),
        ("hierarchicalrnn", (), offer, "--sequence user"),
        ("tlstm", (), offer._replace(gaps=False), "--time-column"),
    ):
        with pytest.raises(Mistake, match=sentence):
            build.model(Model(cell=Call(cell), width=8, context=context), given, seed=0)


def test_values_that_training_never_reads_have_zero_vectors(log, tmp_path):
    told = config(log, "latentcross", "@month", "way")
    told = replace(told, features=("@month", "way"))
    data = prepare(told, lambda sentence: None)
    offer = build.offered(data)
    data = attached(data, build.columns(told.model, offer))
    model = build.without_strangers(build.model(told.model, offer, seed=0), data)
    used = np.asarray(model.tables["context"]).any(axis=1)
    assert np.flatnonzero(used).tolist() == [5, 13, 14], "May, up and down"
    bundle.save(tmp_path / "b", model, data, told)
    again = bundle.load(tmp_path / "b")
    assert again.columns == build.columns(told.model, offer)
    assert again.features[1].ids == data.features["way"].ids
