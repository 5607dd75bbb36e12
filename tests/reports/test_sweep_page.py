"""The page of a sweep: its numbers are those of the rows, whatever those are; no text of a user's runs."""

import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from strict_html import Reader

from jaxrec.cli import main
from jaxrec.config import Mistake
from jaxrec.reports.sweep_commands import command
from jaxrec.reports.sweep_findings import alarms, failures, gathered, savings, sentence
from jaxrec.reports.sweep_page import sweep_page, write_page

HOSTILE = "</script><script>alert('x')</script><!--&\"</td>\u2028"


def page_of(about, rows, importances=()):
    folder = Path("sweeps/one")
    sweep = gathered(about, rows, importances)
    return sweep_page(sweep, "jaxrec report sweeps/one", out=folder / "report.html", folder=folder)


def read(about, rows, importances=()):
    return Reader(page_of(about, rows, importances))


def by_point(rows):
    """An own grouping: the finished trials of each point."""
    found = {}
    for row in rows:
        if row["same_as"] is None and row["state"] == "done" and math.isfinite(row["objectives"]["ndcg@10"]):
            found.setdefault(json.dumps(row["point"], sort_keys=True), []).append(row)
    return found


# ---- the numbers


def test_the_leaderboard_holds_the_means_over_seeds_in_order(synthetic):
    about, rows = synthetic(30, seeds=3)
    found = read(about, rows)
    groups = by_point(rows).values()
    groups = [some for some in groups if len(some) >= sorted(map(len, groups))[-2]]
    means = sorted((statistics.fmean(r["objectives"]["ndcg@10"] for r in some) for some in groups), reverse=True)
    place = next(at for at, row in enumerate(found.rows) if row and row[0] == "place")
    lines = found.rows[place + 1 : place + 11]
    assert 5 < len(means) < 10
    assert [line[2] for line in lines][: len(means)] == [f"{value:.4f}" for value in means]
    assert [line[0] for line in lines][: len(means)] == [str(n) for n in range(1, len(means) + 1)]
    assert lines[len(means)][0] == "few seeds"
    best = max(groups, key=lambda some: statistics.fmean(r["objectives"]["ndcg@10"] for r in some))
    values = [r["objectives"]["ndcg@10"] for r in best]
    scipy_stats = pytest.importorskip("scipy.stats")
    low, high = scipy_stats.t.interval(
        0.95, len(values) - 1, statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    )
    assert lines[0][3] == f"{low:.4f} to {high:.4f}"
    test = statistics.fmean(r["test"]["ndcg@10"] for r in best)
    assert f"{test:.4f}" in lines[0]
    assert "chose nothing" in found.text
    counts = {state: sum(r["state"] == state for r in rows) for state in ("done", "pruned")}
    lead = found.text
    assert f"{counts['done']} done, {counts['pruned']} pruned" in lead
    assert f"reaches ndcg@10 {means[0]:.4f} ({low:.4f} to {high:.4f}, 3 seeds)" in lead
    assert f"and {test:.4f} on the test targets" in lead


def test_what_the_script_gets_are_the_rows(synthetic):
    about, rows = synthetic(25)
    data = read(about, rows).data
    assert data["trials"]["number"] == [row["number"] for row in rows]
    assert [data["states"][at] for at in data["trials"]["state"]] == [row["state"] for row in rows]
    for row, value, n, config in zip(rows, data["trials"]["value"], data["curves"]["count"], data["trials"]["config"],
                                     strict=True):  # fmt: skip
        assert n == len(row["readings"])
        last = row["readings"][-1]["values"]["ndcg@10"] if row["readings"] else None
        expected = row["objectives"].get("ndcg@10", last)
        assert value == (None if expected is None else pytest.approx(expected, rel=1e-5))
        for option, column in zip(data["options"], data["points"], strict=True):
            at = column[config]
            if at is None:
                assert option["name"] not in row["point"]
            elif "categories" in option:
                assert option["categories"][at] == str(row["point"][option["name"]])
            else:
                assert at == pytest.approx(row["point"][option["name"]], rel=1e-5)
    assert sum(data["curves"]["count"]) == len(data["curves"]["epoch"]) == len(data["curves"]["value"])
    lane = data["lanes"]
    attempts = [one for row in rows for one in row["attempts"]]
    zero = min(one["start"] for one in attempts)
    assert lane["start"] == pytest.approx([one["start"] - zero for one in attempts], rel=1e-4, abs=1e-2)
    assert lane["end"] == pytest.approx([one["end"] - zero for one in attempts], rel=1e-4, abs=1e-2)


def test_pruning_saved_what_the_finished_ones_run_in_the_middle(synthetic):
    about, rows = synthetic(80)
    found = savings(gathered(about, rows))
    usual = statistics.median(row["epochs"] for row in rows if row["state"] == "done")
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert found.pruned == len(pruned)
    assert found.epochs == pytest.approx(sum(usual - row["epochs"] for row in pruned))
    assert found.spent_epochs == sum(row["epochs"] for row in rows)
    pace = [sum(one["seconds"] for one in row["attempts"]) / row["epochs"] for row in pruned]
    assert found.seconds == pytest.approx(sum(p * (usual - r["epochs"]) for p, r in zip(pace, pruned, strict=True)))
    text = read(about, rows).text
    assert f"would have run {usual:g} epochs" in text
    assert f"{found.epochs:,.0f}" in text


def test_failures_are_grouped_with_their_last_lines_and_a_way_to_repeat_them(synthetic):
    about, rows = synthetic(60, failed=0.3)
    found = failures(gathered(about, rows))
    attempts = [a for row in rows for a in row["attempts"] if a["state"] not in ("done", "pruned")]
    assert sum(one.attempts for one in found) == len(attempts)
    assert {one.signature for one in found} == {a["signature"] for a in attempts}
    text = read(about, rows).text
    for one in found:
        assert one.signature in text
        assert command(one.trials[0]) in text
        assert all(line in text for line in one.log)
    lost = next(one for one in found if one.signature == "lease")
    assert lost.recovered == sum(r["state"] in ("done", "pruned") for r in rows if len(r["attempts"]) > 1)


def test_the_edge_alarm_sounds_on_a_bound_and_not_inside(synthetic):
    about, rows = synthetic(200, edge=True, pruned=0, failed=0)
    for row in rows:  # the best lie within 5 % of the upper end of the log range
        row["objectives"]["ndcg@10"] = math.log10(row["point"]["optimizer.lr"])
    sweep = gathered(about, rows)
    assert [(one.name, end) for one, end in alarms(sweep)] == [("optimizer.lr", "upper")]
    text = read(about, rows).text
    assert "the best five sit on the upper bound of lr: widen" in text
    assert "The best five sit on the upper bound of optimizer.lr (0.01): widen." in text
    for row in rows:
        row["objectives"]["ndcg@10"] = -abs(math.log10(row["point"]["optimizer.lr"]) + 3)
    assert alarms(gathered(about, rows)) == []
    for row in rows:
        row["objectives"]["ndcg@10"] = 0.1
    assert alarms(gathered(about, rows)) == []


# ---- whatever the rows are


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", "There is no trial yet"),
        ("waiting", "none has a number yet"),
        ("one", "one seed, so without an interval"),
        ("nan", "has no place"),
        ("equal", "reaches ndcg@10 0.1000"),
        ("failed", "none has a number yet"),
        ("wide", "and 33 more"),
    ],
)
def test_any_sweep_has_a_page(synthetic, kind, expected):
    about, rows = synthetic(0 if kind == "none" else 1 if kind == "one" else 9, failed=0, pruned=0,
                            extra=36 if kind == "wide" else 0)  # fmt: skip
    if kind == "waiting":
        rows = [r | {"state": "waiting", "objectives": {}, "valid": {}, "test": {}, "readings": [], "attempts": [],
                     "seconds": None, "epochs": None} for r in rows]  # fmt: skip
    if kind == "nan":
        rows[0]["objectives"]["ndcg@10"] = rows[0]["valid"]["ndcg@10"] = math.nan
    if kind == "equal":
        for row in rows:
            row["objectives"] = {"ndcg@10": 0.1, "seconds": 5}
            row["seconds"], row["readings"] = 5, []
    if kind == "failed":
        rows = [r | {"state": "diverged" if r["number"] % 2 else "out_of_memory", "objectives": {}} for r in rows]
    if kind == "wide":
        for row in rows:
            row["point"].pop("loss.alpha", None)
    found = read(about, rows)
    assert expected in found.text
    assert (found.data["focus"] > 0) == (kind not in ("none", "waiting", "failed"))


def test_rows_alone_are_enough(synthetic):
    _, rows = synthetic(30)
    bare = [{key: row[key] for key in ("number", "state", "point", "objectives")} for row in rows]
    sweep = gathered({}, bare)
    assert [one.name for one in sweep.sought] == ["ndcg@10", "seconds"]
    assert {one.name: (one.log, one.categories is not None) for one in sweep.options} == {
        "model.cell": (False, True), "model.width": (False, False), "optimizer.lr": (max(
            row["point"]["optimizer.lr"] for row in rows) >= 100 * min(row["point"]["optimizer.lr"] for row in rows),
            False), "model.dropout": (sweep.options[3].log, False), "batch.size": (False, False),
        "loss.alpha": (sweep.options[-1].log, False),
    }  # fmt: skip
    assert Reader(page_of({}, bare)).data["trials"]["number"] == [row["number"] for row in rows]


def test_a_proposal_answered_from_another_trial_counts_once(synthetic):
    about, rows = synthetic(10, failed=0, pruned=0)
    twins = [row | {"number": 100 + row["number"], "same_as": row["number"], "attempts": []} for row in rows[:4]]
    sweep = gathered(about, rows + twins)
    assert len(sweep.rows) == 10
    assert sweep.best.values == gathered(about, rows).best.values
    assert "4 proposals were known already" in read(about, rows + twins).text


@settings(max_examples=15)
@given(
    text=st.text(min_size=1, max_size=40) | st.just(HOSTILE), place=st.sampled_from(["option", "value", "log", "about"])
)
def test_a_users_text_is_only_text(synthetic, text, place):
    about, rows = synthetic(4, failed=0, pruned=0)
    for row in rows:
        if place == "option":
            row["point"] = {f"model.{text}": 1.5, text: text}
        elif place == "value":
            row["point"]["model.cell"] = text
        elif place == "log":
            row["state"] = row["attempts"][-1]["state"] = "failed"
            row["attempts"][-1] |= {"log": [text], "signature": text, "reason": text, "worker": text}
        else:
            about |= {"name": text, "command": text, "search": text}
    found = read(about, rows, [(text, 0.5, 0.4, 0.6)])
    plain = read(*synthetic(4, failed=0, pruned=0))
    assert found.tags.count("script") == plain.tags.count("script") == 2
    assert not {"b", "i", "img", "iframe", "alert"} & (set(found.tags) - {"b"})
    assert not [a for a in found.attributes if a[1].startswith("on")]
    assert "<!--" not in page_of(about, rows).split("<script", 1)[1].split("</script>", 1)[0]


def test_the_page_needs_nothing_from_anywhere_and_lets_no_other_script_run(synthetic):
    text = page_of(*synthetic(12))
    found = Reader(text)
    assert not {"link", "img", "iframe", "object", "base", "form"} & set(found.tags)
    assert all(value.startswith("runs/") for _, name, value in found.attributes if name == "href")
    assert not [a for a in found.attributes if a[1] in ("src", "srcset", "action")]
    [policy] = [value for _, name, value in found.attributes if name == "content" and "default-src" in value]
    assert policy.startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in style


def test_ten_thousand_trials_are_small_on_disk(synthetic):
    about, rows = synthetic(10_000, objectives=("ndcg@10",))
    text = page_of(about, rows)
    assert len(text) < 8_000_000
    board = Reader(text)
    assert len(board.data["trials"]["number"]) == 10_000
    assert len(board.rows) < 20


def test_importances_order_the_options_and_are_shown(synthetic):
    about, rows = synthetic(20)
    shares = [("model.width", 0.2, 0.1, 0.3), ("loss.alpha", 0.55, 0.5, 0.6)]
    sweep = gathered(about, rows, shares)
    assert [one.name for one in sweep.options][:3] == ["loss.alpha", "model.width", "model.cell"]
    text = read(about, rows, shares).text
    assert "55%" in text
    assert "Not known: no importances were computed" in read(about, rows).text
    assert gathered(about | {"importances": [list(one) for one in shares]}, rows).options == sweep.options


# ---- the verb


def save(folder, about, rows):
    folder.mkdir(exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(about))
    (folder / "trials.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def test_report_takes_the_folder_of_a_sweep(synthetic, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    about, rows = synthetic(12)
    rows[0]["attempts"][0]["log"] = [HOSTILE]  # it holds a separator of lines that JSON does not know
    save(tmp_path / "cells", about, rows)
    run = tmp_path / "cells" / rows[0]["run"]
    run.mkdir(parents=True)
    (run / "report.html").write_text("")
    assert main(["report", str(tmp_path / "cells")]) == 0
    printed = capsys.readouterr().out
    assert sentence(gathered(about, rows))[:40] in printed
    assert all(len(line) <= 80 or line.startswith("Page: ") for line in printed.splitlines())
    page = Reader((tmp_path / "cells" / "report.html").read_text())
    links = [value for _, name, value in page.attributes if name == "href"]
    assert f"{rows[0]['run']}/report.html" in links or all(rows[0]["run"] not in link for link in links)
    assert main(["report", str(tmp_path / "cells"), "--out", str(tmp_path / "x.html"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["best"]["point"] == gathered(about, rows).best.point
    assert said["trials"] == {state: sum(r["state"] == state for r in rows) for state in {r["state"] for r in rows}}
    links = [value for _, name, value in Reader((tmp_path / "x.html").read_text()).attributes if name == "href"]
    assert all(link.startswith("cells/runs/") for link in links)


def test_a_page_that_cannot_be_written_is_a_mistake(synthetic, tmp_path):
    with pytest.raises(Mistake, match="cannot be written"):
        write_page(tmp_path / "no" / "page.html", *synthetic(1), ["jaxrec"])


def test_the_front_is_a_table_with_its_knee(synthetic):
    about, rows = synthetic(40, seeds=2)
    sweep = gathered(about, rows)
    [knee] = [row for row in read(about, rows).rows if row[0].endswith(", knee")]
    assert knee[2] == f"{sweep.ranked[sweep.front.knee].mean:.4f}"


def test_reading_a_sweep_never_imports_jax(synthetic, tmp_path):
    save(tmp_path / "cells", *synthetic(6))
    code = (
        "import sys\nfrom jaxrec.cli import main\n"
        f"assert main(['report', {str(tmp_path / 'cells')!r}]) == 0\n"
        "assert not {'jax', 'jaxlib', 'flax', 'optax', 'orbax'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
