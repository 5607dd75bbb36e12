"""The atlas in a terminal: eighty columns, the page's own numbers, and JSON for programs."""

import json

import pytest

from jaxrec.reports.atlas_findings import Reach
from jaxrec.reports.atlas_page import summary
from jaxrec.reports.atlas_records import gathered
from jaxrec.reports.atlas_terminal import BLOCKS, block, blocks, print_atlas


def printed(records, capsys, monkeypatch, **more):
    monkeypatch.setenv("COLUMNS", "80")
    print_atlas(summary(gathered(records)) | more, as_json=False)
    return capsys.readouterr().out


@pytest.mark.parametrize("cells", [1, 3, 45])
def test_it_says_the_same_in_eighty_columns(synthetic, capsys, monkeypatch, cells):
    records = synthetic(cells)
    text = printed(records, capsys, monkeypatch, page="atlas.html")
    assert all(len(line) <= 80 for line in text.splitlines())
    flat = " ".join(text.split())
    told = summary(gathered(records))
    for sentence in [told["sentence"], *(told["sentences"] if cells > 1 else ()), *told["notes"]]:
        assert sentence in flat
    for row in told["rows"]:
        assert f"{row['subject']} ({row['family']}): NDCG@10 {row['ndcg@10']['value']:.4f}" in flat
        assert Reach.of(row["half_life"]).text in flat
    assert flat.endswith("Page: atlas.html")
    assert ("95 % intervals below" in flat) == (cells <= 12)


def test_every_length_is_a_line_with_its_numbers(synthetic, capsys, monkeypatch):
    records = synthetic(1)
    lines = printed(records, capsys, monkeypatch).splitlines()
    row = next(row for row in summary(gathered(records))["rows"] if row["length"] == 200)
    at = next(n for n, line in enumerate(lines) if line.split()[:1] == ["200"])
    texts = [Reach.of(row[name]).text for name in ("half_life", "e_fold", "one_percent", "lyapunov")]
    assert lines[at].split()[2:] == [*texts, *row["label"].split()]
    between = [Reach.of(row[name]).between.replace(" to ", "\N{EN DASH}") for name in ("half_life", "e_fold")]
    assert lines[at + 1].split()[:2] == between


def test_blocks_fall_with_the_gradient_and_tell_zero_from_nothing():
    assert block(0.0, 0.0, 0) == BLOCKS[-1]
    assert block(-3.9, 0.0, 0) == BLOCKS[0]
    heights = [BLOCKS.index(block(-n / 10, 0.0, 0)) for n in range(40)]
    assert heights == sorted(heights, reverse=True)
    assert block(-4.1, 0.0, 0) == "\N{MIDDLE DOT}"
    assert block(1.1, 0.0, 0) == "\N{UPWARDS ARROW}"
    assert block(None, 0.0, 1.0) == "0"
    assert block(None, 0.0, 0.0) == "?"
    curve = {"lags": [0, 1, 2], "log10": [1.0, 0.0, None], "zeros": [0, 0, 1.0]}
    drawn = blocks({"curve": curve})
    assert (drawn[0], drawn[-1], len(drawn)) == (BLOCKS[-1], "0", 12)


def test_json_is_the_summary(synthetic, capsys):
    told = summary(gathered(synthetic(2)))
    print_atlas(told, as_json=True)
    assert json.loads(capsys.readouterr().out) == told


@pytest.mark.parametrize("kinds", ["", "task", "gradient", "training information"])
def test_missing_records_break_nothing(synthetic, capsys, monkeypatch, kinds):
    assert printed(synthetic(2, kinds=kinds), capsys, monkeypatch)


def test_long_and_hostile_names_stay_in_the_terminal(synthetic, capsys, monkeypatch):
    name = "[bold]x[/bold] " + "very long " * 30
    records = [r | {"subject": name, "family": name} for r in synthetic(1)]
    text = printed(records, capsys, monkeypatch)
    assert "[bold]x[/bold]" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_curves_are_never_split(synthetic, capsys, monkeypatch):
    records = json.loads(json.dumps(synthetic(9)).replace('"length": 1000', '"length": 10000'))
    for record in records:
        if record["kind"] == "gradient":
            record["horizons"]["lyapunov"] = {"value": -123456.0, "low": -234567.0, "high": -98765.0}
    text = printed(records, capsys, monkeypatch)
    told = [blocks(row) for row in summary(gathered(records))["rows"]]
    assert all(f" {curve} " in text for curve in told)
    assert all(len(line) <= 80 for line in text.splitlines())
