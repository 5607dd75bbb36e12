"""Pages of `inspect` and `report`: self-contained, safe, in the terminal's width, and true to the run's numbers."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import strict_html

from jaxrec.cli import main
from jaxrec.config import Mistake
from jaxrec.data.inspection import inspect
from jaxrec.data.options import Preparation
from jaxrec.metrics import evaluate as measure
from jaxrec.reports.html import element, escaped, note, page, table
from jaxrec.reports.inspection_page import inspection_page
from jaxrec.reports.options import Report
from jaxrec.reports.run_card import card
from jaxrec.reports.run_findings import findings, sentence
from jaxrec.reports.run_page import run_page
from jaxrec.runs.options import Batch, Config, Evaluation, Model
from jaxrec.runs.run import train

HOSTILE = "<script>alert('x')</script>&\"</td>"


class Reader(strict_html.Reader):
    """These pages ask for nothing: an input is no tag that may stay open."""

    void = strict_html.Reader.void - {"input"}


def self_contained(text):
    """The page needs nothing from anywhere: no script, no link, no address in an attribute or in the style."""
    read = Reader(text)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(read.tags)
    assert not [a for a in read.attributes if a[1] in ("src", "href", "srcset", "action") or a[1].startswith("on")]
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in style
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style
    assert ("meta", "charset", "utf-8") in read.attributes
    return read


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Forty people on twelve items, one of them with a name that would run as a script."""
    draw = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("log") / "visits.csv"
    names = [HOSTILE, *(f"i{n}" for n in range(11))]
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["user", "item", "time"])
        for user in range(40):
            for k, item in enumerate(draw.integers(0, 12, 9)):
                out.writerow([f"{user}{HOSTILE}", names[item], 1_600_000_000 + 60 * (k // 2) + user])
    return path


@pytest.fixture(scope="module")
def run(log, tmp_path_factory):
    """A finished run on that log."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXREC_CACHE", str(folder / "cache"))
        config = Config(
            data=str(log), run=str(folder / "run"), model=Model(width=8), batch=Batch(size=4, length=10), epochs=2,
            eval=Evaluation(metrics=("hr@5", "ndcg@10")), mask_seen="history_except_target",
        )  # fmt: skip
        train(config, command=["jaxrec", "train", "--data", "clicks & co.csv"], say=lambda told: None)
        yield folder / "run"


def reported(run, **options):
    return card(Report(run=str(run), **options), say=lambda told: None)


def test_the_page_of_a_run_is_self_contained_and_escapes_ids(run):
    read = self_contained(run_page(reported(run), "jaxrec report <run>"))
    assert HOSTILE in read.cells
    assert "jaxrec report <run>" in read.cells
    assert "clicks & co.csv" in read.text
    assert {"svg", "polyline", "circle", "table"} <= set(read.tags)


def test_the_page_of_a_log_is_self_contained_and_escapes_ids(log):
    found = inspect(Preparation(data=str(log)), say=lambda told: None)
    read = self_contained(inspection_page(found, "jaxrec inspect"))
    assert f"0{HOSTILE}" in read.cells
    for one in found["warnings"]:
        assert one["sentence"] in read.text


def test_numbers_on_the_page_are_those_of_the_result(run):
    found, result = reported(run), json.loads((run / "result.json").read_text())
    cells = Reader(run_page(found, "")).cells
    for reading in ("masked", "unmasked"):
        for values in (result["test"][reading], *(base[reading] for base in result["baselines"].values())):
            for metric in ("hr@5", "ndcg@10"):
                assert f"{values[metric]:.4f}" in cells, (reading, metric)
    for row in found["metrics"]:
        assert row["value"] == result["test"]["masked"][row["metric"]]
        assert row["low"] <= row["value"] <= row["high"]
        assert row["low"] < row["high"]
        assert row["counters"] == {name: base["masked"][row["metric"]] for name, base in result["baselines"].items()}
    assert f"{result['test']['masked']['hr@5']:.1%}" in found["sentence"]
    assert result["protocol"]["fingerprint"] in " ".join(cells)


def test_slices_and_hit_rates_are_those_of_the_ranks(run):
    found = reported(run)
    with np.load(run / "ranks.npz") as ranks:
        greater, equal = ranks["greater_masked"], ranks["equal_masked"]
        short = (ranks["position"] >= 6) & (ranks["position"] <= 20)
    rows = {row["slice"]: row for row in found["slices"]}
    row = rows["history 6-20"]
    assert row["targets"] == short.sum() == 40
    assert row["metrics"]["hr@5"]["value"] == pytest.approx(measure(["hr@5"], greater, equal)["hr@5"])
    parts = [rows[name] for name in ("repeat", "new")]
    assert sum(part["targets"] for part in parts) == 40
    whole = sum(part["targets"] * part["metrics"]["hr@5"]["value"] for part in parts) / 40
    assert whole == pytest.approx(found["metrics"][0]["value"])
    at = dict(zip(found["hit_rates"]["k"], found["hit_rates"]["hr"], strict=True))
    assert at[5] == pytest.approx(found["metrics"][0]["value"])
    assert at[12] == 1.0


def test_examples_are_evenly_spaced_and_agree_with_the_ranks(run, tmp_path):
    titles = tmp_path / "titles.tsv"
    titles.write_text("item_id\ttitle\ni3\tThe third & last\n")
    found = reported(run, examples=4, titles=str(titles))["examples"]
    assert [one["user"] for one in found] == [f"{n}{HOSTILE}" for n in (0, 13, 26, 39)]
    with np.load(run / "ranks.npz") as ranks:
        columns = {name: ranks[name][[0, 13, 26, 39]] for name in ("greater_masked", "equal_masked")}
    for place, one in enumerate(found):
        expected = columns["greater_masked"][place] + 1 + columns["equal_masked"][place] / 2
        assert one["rank"] == expected
        assert one["events"] == 8
        assert len(one["top"]) <= 5
        hit = [number for number, item in enumerate(one["top"], start=1) if item["hit"]]
        assert hit == ([expected] if expected <= 5 else [])
        for item in (*one["history"], *one["top"], one["truth"]):
            assert item["title"] == ("The third & last" if item["item"] == "i3" else "")


def test_ranks_of_another_run_are_noticed(run, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("result.json", "config.json", "metrics.jsonl"):
        (copy / name).write_bytes((run / name).read_bytes())
    with np.load(run / "ranks.npz") as ranks:
        columns = dict(ranks) | {"greater_masked": ranks["greater_masked"] * 0}
    np.savez(copy / "ranks.npz", **columns)
    found = reported(copy, examples=0)
    assert any("one of them is not of this run" in told for told in found["notes"])
    assert found["command"] == ""
    self_contained(run_page(found, ""))


def test_a_run_whose_data_is_gone_still_has_a_page(run, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("result.json", "metrics.jsonl", "ranks.npz"):
        (copy / name).write_bytes((run / name).read_bytes())
    config = json.loads((run / "config.json").read_text()) | {"data": str(tmp_path / "gone.csv")}
    (copy / "config.json").write_text(json.dumps(config))
    found = reported(copy)
    assert (found["slices"], found["examples"]) == ([], None)
    assert "gone.csv does not exist" in " ".join(found["notes"])
    assert "gone.csv does not exist" in self_contained(run_page(found, "")).text
    with pytest.raises(Mistake, match="holds no finished run"):
        reported(tmp_path)


def planted(found, **changes):
    return found | {"result": found["result"] | changes}


def told(found):
    return " ".join(one["sentence"] for one in findings(found))


def test_warnings_are_given_when_due_and_only_then(run):
    found = reported(run, examples=0)
    result = found["result"]
    quiet = result["protocol"] | {"leaks": "no leak", "ties": {"users_tied_last_share": 0.0, "policy": ""}}
    clear = [found["metrics"][0] | {"low": 0.9, "value": 0.95, "high": 0.99}]
    good = planted(found, valid={"epoch": 1}, complete=True, warnings=[], protocol=quiet)
    good |= {"slices": [], "machine": {}, "metrics": clear}
    assert told(good) == ""
    bad_metric = [good["metrics"][0] | {"value": 0.01, "low": 0.0, "high": 0.02}]
    assert "Below the counting floor" in told(good | {"metrics": bad_metric})
    unsure = [good["metrics"][0] | {"low": 0.0}]
    assert "Not clearly above counting" in told(good | {"metrics": unsure})
    assert "Short training" in told(planted(good, valid={"epoch": 2}, epochs=2))
    assert "not complete" in told(planted(good, complete=False, stopped="max_seconds"))
    assert "leaks the future" in told(
        planted(good, protocol=good["result"]["protocol"] | {"leaks": "leaks the future"})
    )
    assert "a collapsed model" in told(planted(good, warnings=["80% tie: a collapsed model"]))
    assert "model.user was set" in told(planted(good, ignored=["model.user"]))
    assert "not committed" in told(good | {"machine": {"dirty": True}})
    ties = good["result"]["protocol"] | {"ties": {"users_tied_last_share": 0.44, "policy": "file order"}}
    assert "44.0% of users have a tied last event" in told(planted(good, protocol=ties))


def test_the_sentence_says_which_floor_and_how_sure(run):
    found = reported(run, examples=0)
    rows = [
        {
            "metric": "hr@5",
            "value": 0.2195,
            "low": 0.194,
            "high": 0.246,
            "counters": {"markov3": 0.17, "popularity": 0.08},
        }
    ]
    assert sentence(found | {"metrics": rows}) == (
        "On 40 users of visits (split leave-one-out), gru finds the next item in the first five 21.9% of the time "
        "(19.4% to 24.6%); the best counter (Markov, last three items) 17.0%."
    )
    rows[0]["metric"] = "ndcg@10"
    assert "gru reaches ndcg@10 0.2195 (0.1940 to 0.2460)" in sentence(found | {"metrics": rows})


def test_verbs_print_eighty_columns_and_write_the_page(run, log, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["report", str(run), "--examples", "2"]) == 0
    assert (run / "report.html").is_file()
    assert main(["inspect", str(log), "--html", str(tmp_path / "look.html")]) == 0
    self_contained((tmp_path / "look.html").read_text())
    printed = capsys.readouterr().out.splitlines()
    wide = [line for line in printed if len(line) > 80 and not line.startswith("Page: ")]
    assert wide == []
    page = tmp_path / "elsewhere.html"
    assert main(["report", "--run", str(run), "--examples", "0", "--out", str(page), "--json"]) == 0
    self_contained(page.read_text())
    assert json.loads(capsys.readouterr().out)["sentence"].startswith("On 40 users of visits")
    assert main(["inspect", "--data", str(log), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["sequences"] == 40
    assert main(["inspect", str(log), "--html", str(tmp_path / "no" / "where.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_reading_never_imports_jax(run, log):
    code = (
        "import sys\nfrom jaxrec.cli import main\n"
        f"assert main(['inspect', {str(log)!r}, '--html', {str(run / 'look.html')!r}]) == 0\n"
        f"assert main(['report', {str(run)!r}, '--examples', '0']) == 0\n"
        "assert not {'jax', 'jaxlib', 'flax', 'optax', 'orbax'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_markup_is_made_by_elements_only():
    assert escaped("<b>&\x00\ud800") == "&lt;b&gt;&amp;\ufffd\ufffd"
    assert element("td", "<", element("b", "x"), class_='a"b') == '<td class="a&quot;b">&lt;<b>x</b></td>'
    read = Reader(page("<t>", "lead", table(["<c>"], [[1.5], ["<x>"]]), note("<n>", "<r>"), made_by="<m>"))
    assert not {"t", "c", "x", "n", "r", "m"} & set(read.tags)
    assert {"<t>", "<c>", "<x>", "<n>", "\N{RIGHTWARDS ARROW} <r>", "<m>"} <= set(read.cells)
