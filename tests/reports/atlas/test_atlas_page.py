"""The page of the atlas: its numbers are those of the records, whatever these lack; nothing from outside."""

import json
import re
import subprocess
import sys
import time

import pytest
from strict_html import Reader

from jaxrec.config import Mistake
from jaxrec.reports.atlas_columns import ZERO, Limits, data, evenly, fewer
from jaxrec.reports.atlas_findings import Reach, definitions, first_zero, lead, notes, rows, sentence, shown
from jaxrec.reports.atlas_page import LARGEST, SCRIPTS, atlas_page, fitting, summary, write_atlas
from jaxrec.reports.atlas_records import gathered, read_records
from jaxrec.reports.sweep_page import asset

HOSTILE = "</script><script>alert('x')</script><!--&\"</td>\u2028=cmd()"
KINDS = "gradient training information shuffle gates eigenvalues lyapunov singular matrix task trace clipping weights"


def read(records):
    return Reader(atlas_page(gathered(records), "jaxrec atlas gru", Limits()))


def whole_histories(records, subject, length=200):
    """The last gradient of a subject in rows of a length, found by hand."""
    return [r for r in records if r["kind"] == "gradient" and r["subject"] == subject and r["length"] == length][-1]


# ---- the numbers


def test_tables_and_sentences_hold_the_numbers_of_the_last_records(synthetic):
    records = synthetic(3)
    found = read(records)
    table = {(row[0], row[1]): row for row in found.rows if len(row) == 9}
    for subject in ("gru", "linear-1", "simple-2"):
        record = whole_histories(records, subject)
        half = record["horizons"]["half_life"]
        cells = table[subject, "200"]
        assert cells[8] == record["label"]
        assert cells[2].startswith(Reach.of(half).text)
        [training] = [r for r in records if r["kind"] == "training" and r["subject"] == subject]
        assert cells[7].startswith(f"{training['value']:.4f} ({training['low']:.4f} to {training['high']:.4f})")
    half = whole_histories(records, "gru")["horizons"]["half_life"]["value"]
    one = whole_histories(records, "gru")["horizons"]["one_percent"]["value"]
    [information] = [r for r in records if r["kind"] == "information" and r["subject"] == "gru"]
    horizon = information["horizon"]
    said = (
        f"half of the gradient is gone after {half:.2g} events, 1 % is left after {one:,.0f}; it uses "
        f"{horizon['value']:,.0f} events of history (information horizon {horizon['value']:,.0f}, 95 % "
        f"{horizon['low']:.2g} to {horizon['high']:,.0f}): in band at 20 and 50, vanishing at 200 and 1,000"
    )
    assert said in found.text
    assert "3 cells on ml-100k, in rows of 200 events" in found.text


def test_what_the_script_gets_are_the_medians(synthetic):
    records = synthetic(9)
    found = read(records).data
    for subject, curves in zip(found["subjects"], found["curves"], strict=True):
        [last] = [one for one in curves if one["length"] == 200 and one["phase"] == "end"]
        record = whole_histories(records, subject["name"])
        assert found["lags"][last["lags"]] == record["lags"]
        for got, value, zero in zip(last["median"], record["log10_quantiles"]["0.5"], record["zeros"], strict=True):
            assert got == (ZERO if zero else round(100 * value))
        steps = [one["step"] for one in curves if one["length"] == 200]
        assert steps == sorted({r["step"] for r in records})
    low, high = found["low"], found["high"]
    assert (low, high) == (-8, 3)


def test_of_records_about_the_same_the_last_counts(synthetic):
    records = synthetic(1)
    again = whole_histories(records, "gru") | {"label": "in band"}
    atlas = gathered([*records, again])
    assert [row.label for row in rows(atlas) if row.length == 200] == ["in band"]
    assert len(atlas.subjects) == 1


def test_the_length_that_was_followed_speaks_for_the_page(synthetic):
    assert gathered(synthetic(2)).main == 200
    assert gathered(synthetic(2, steps=1, lengths=(20, 100, 1000))).main == 100  # 1,000 are joined histories
    assert gathered(synthetic(2, steps=1, lengths=(1000,))).main == 1000


def test_zeros_are_named_and_are_no_missing_numbers(synthetic):
    records = synthetic(7)
    window = whole_histories(records, "window-6")
    assert first_zero(window) == 12
    found = read(records)
    assert "exactly zero, not merely small: window-6 from 12 events back" in found.text
    assert ("rect", "fill", "url(#zeros)") in found.attributes
    broken = [r | {"zeros": [0.0] * len(r["lags"])} if r["kind"] == "gradient" else r for r in records]
    found = read(broken)
    assert ("rect", "fill", "url(#unknown)") in found.attributes
    assert "exactly zero, not merely" not in found.text


def test_joined_histories_examples_and_missing_tests_are_said(synthetic):
    atlas = gathered(synthetic(2))
    told = " ".join(notes(atlas, rows(atlas)))
    assert "Rows of 1,000 events are histories of several people end to end" in told
    assert "16 examples" in told
    atlas = gathered(synthetic(2, kinds="gradient information", lengths=(20, 50)))
    told = " ".join(notes(atlas, rows(atlas)))
    assert "end to end" not in told
    assert "NDCG@10 is that of the sample" in told
    few = [r | {"examples": 4} for r in synthetic(1)]
    assert "rough" in " ".join(notes(gathered(few), rows(gathered(few))))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"half_life": {"value": None, "beyond": 199}}, "more than half of the gradient is left after all 199 events"),
        ({"one_percent": {"value": None, "beyond": 199}}, "more than 1 % is left after all 199"),
    ],
)
def test_what_lies_beyond_the_longest_lag_is_said(synthetic, changes, said):
    records = synthetic(1, lengths=(200,))
    for record in records:
        if record["kind"] == "gradient":
            record["horizons"] |= changes
    atlas = gathered(records)
    [row] = shown(atlas, rows(atlas))
    assert said in sentence(row)
    assert said in lead(atlas, [row])


def test_memory_that_is_worth_nothing_has_no_horizon(synthetic):
    atlas = gathered(synthetic(6))
    [row] = [row for row in shown(atlas, rows(atlas)) if row.subject.name == "time-5"]
    assert "worth nothing" in sentence(row)
    assert not row.matters


def test_thresholds_and_definitions_stand_on_the_page(synthetic):
    found = read(synthetic(1))
    assert "less than 1% of the gradient of lag 0" in found.text
    assert "more than 10 times that of lag 0" in found.text
    for word, meaning in definitions(gathered(synthetic(1))):
        assert {word, meaning} <= set(found.cells)


# ---- a page of its own


def self_contained(text):
    """Nothing from outside, one script that the policy names, and no address but that of the plotting library."""
    found = Reader(text)
    assert not {"link", "img", "iframe", "object", "base", "form"} & set(found.tags)
    assert not [a for a in found.attributes if a[1] in ("src", "href", "srcset", "action") or a[1].startswith("on")]
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import|http", style)
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    assert set(re.findall(r"https?://[^\s\"'`,)]+", text)) == {"https://github.com/leeoniya/uPlot"}
    policy = next(value for _, name, value in found.attributes if name == "content" and "script-src" in value)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    return found


def test_the_page_needs_nothing_from_outside_and_keeps_the_licence(synthetic):
    text = atlas_page(gathered(synthetic(3)), "jaxrec atlas", Limits())
    self_contained(text)
    for words in ("uPlot 1.6.32", "The MIT License", "Leon Sorokin", "WITHOUT WARRANTY OF ANY KIND"):
        assert words in text
    assert "</" not in "".join(map(asset, SCRIPTS))


def test_every_drawing_has_words(synthetic):
    found = read(synthetic(9))
    drawn = [a for a in found.attributes if a[1] == "role" and a[2] in ("img", "group")]
    named = [a for a in found.attributes if a[1] == "aria-label"]
    assert len(named) >= len(drawn) > 50
    assert all(value.strip() for *_, value in named)


def test_45_cells_fit_and_are_quick(synthetic, tmp_path):
    records = synthetic(45, lengths=(20, 50, 100, 200, 500, 1000), width=64)
    began = time.perf_counter()
    told = write_atlas(records, tmp_path / "atlas.html", ["jaxrec", "atlas"])
    assert time.perf_counter() - began < 30
    assert (tmp_path / "atlas.html").stat().st_size == told["bytes"] < 3_000_000
    assert len(told["rows"]) == 45 * 6
    assert len(told["sentences"]) == 45
    self_contained((tmp_path / "atlas.html").read_text())


def test_what_does_not_fit_is_thinned_and_says_so(synthetic, monkeypatch):
    atlas = gathered(synthetic(9))
    monkeypatch.setattr("jaxrec.reports.atlas_page.LARGEST", 440_000)
    text, limits = fitting(atlas, "")
    assert len(text.encode()) <= 440_000 < LARGEST
    assert limits.lags < 96
    assert f"at most {limits.lags} lags" in Reader(text).text
    assert max(map(len, Reader(text).data["lags"])) <= limits.lags


def test_thinning_keeps_both_ends():
    lags = [*range(24), *range(30, 1000, 7)]
    for most in (12, 24, 96):
        places = fewer(lags, most)
        assert len(places) <= most
        assert (places[0], places[-1]) == (0, len(lags) - 1)
        assert places == sorted(set(places))
    assert evenly(range(10), 4) == [0, 3, 6, 9]
    assert evenly([1, 2], 4) == [1, 2]


def test_hostile_names_and_titles_are_only_text(synthetic):
    records = json.loads(json.dumps(synthetic(2)).replace("linear-1", json.dumps(HOSTILE)[1:-1]))
    for record in records:
        record["family"] = HOSTILE
        if record["kind"] == "trace":
            record["events"][3]["title"] = HOSTILE * 30
            record["prediction"]["title"] = record["target"]["title"] = HOSTILE
        if record["kind"] == "task":
            record["task"] = HOSTILE
        if record["kind"] == "gates":
            record["gates"][0]["name"] = HOSTILE
    found = self_contained(atlas_page(gathered(records), HOSTILE, Limits()))
    assert HOSTILE in found.cells
    assert found.data["subjects"][1]["name"] == HOSTILE
    assert len(max(found.data["traces"][0][0]["titles"], key=len)) == 120


# ---- records that lack something


@pytest.mark.parametrize("kind", KINDS.split())
def test_a_page_of_one_kind_alone_stands(synthetic, kind):
    found = self_contained(atlas_page(gathered(synthetic(2, kinds=kind)), "", Limits()))
    assert "Gradient-flow atlas" in found.text


@pytest.mark.parametrize("missing", KINDS.split())
def test_a_page_without_one_kind_leaves_out_its_section_alone(synthetic, missing):
    heads = {"trace": "One person", "task": "Memory tasks", "gates": "Gates", "matrix": "Inside a row"}
    kinds = " ".join(kind for kind in KINDS.split() if kind != missing)
    found = read(synthetic(2, kinds=kinds))
    for kind, head in heads.items():
        assert any(text.startswith(head) for text in found.cells) == (kind != missing)


def bare(records):
    """Records with the least that their kinds can have."""
    return [{name: r[name] for name in ("kind", "subject")} for r in records]


def test_records_that_say_nothing_break_nothing(synthetic):
    self_contained(atlas_page(gathered(bare(synthetic(2))), "", Limits()))
    self_contained(atlas_page(gathered([{"kind": "gradient"}, {"kind": "something new", "x": [1]}]), "", Limits()))
    assert "no gradients" in read([]).text


@pytest.mark.parametrize("broken", [None, "text", 3, [], {}, [None], [[]], [{}], {"a": None}])
def test_values_of_the_wrong_kind_break_nothing(synthetic, broken):
    common = {"kind", "subject", "cell", "family", "step", "phase"}
    sound = synthetic(1, steps=2, lengths=(20,))
    for name in {key for r in sound for key in r} - common:
        records = [r | ({name: broken} if name in r else {}) for r in sound]
        Reader(atlas_page(gathered(records), "", Limits()))


def test_an_untrained_cell_has_one_curve_and_says_so(synthetic):
    found = read(synthetic(1, steps=1))
    assert "gru, untrained: " in found.text
    assert "Nothing here was trained" in found.text
    assert {one["phase"] for one in found.data["curves"][0]} == {"start"}


def test_layers_are_told_apart(synthetic):
    records = [r | {"layer": n} for r in synthetic(1) for n in (0, 1)]
    found = read(records)
    assert "several layers" in found.text
    assert ("select", "id", "layer") in found.attributes
    assert {one["layer"] for one in found.data["curves"][0]} == {0, 1}


def test_eigenvalues_may_come_as_a_mapping(synthetic):
    records = [r for r in synthetic(1) if r["kind"] == "eigenvalues"]
    told = {one["name"]: {"real": one["real"], "imaginary": one["imag"]} for one in records[-1]["matrices"]}
    other = [r | {"matrices": told, "mean_jacobian": r["jacobian"], "jacobian": {"real": [[0.1]], "imaginary": [[0]]}}
             for r in records]  # fmt: skip
    first, second = (data(gathered(some), [], Limits())["spectra"][0][-1]["clouds"] for some in (records, other))
    assert first == second


def test_reading_a_file_says_which_line_is_no_record(synthetic, tmp_path):
    file = tmp_path / "records.jsonl"
    file.write_text("\n".join(map(json.dumps, synthetic(1))) + "\n\n")
    assert read_records(file) == synthetic(1)
    for line in ("{", "[]", "{}", '{"kind": 3}', "null"):
        file.write_text('{"kind": "gradient"}\n' + line)
        with pytest.raises(Mistake, match=r"records\.jsonl:2: not a record"):
            read_records(file)
    with pytest.raises(Mistake, match="cannot be read"):
        read_records(tmp_path / "none.jsonl")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(Mistake, match="not UTF-8"):
        read_records(file)


def test_a_summary_is_plain(synthetic):
    told = summary(gathered(synthetic(3)))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["rows"][0]["half_life"].keys() == {"value", "low", "high", "beyond"}


def test_the_atlas_never_imports_jax(synthetic, tmp_path):
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, synthetic(2))))
    code = (
        "import sys\nfrom pathlib import Path\nfrom jaxrec.reports.atlas_page import write_atlas\n"
        "from jaxrec.reports.atlas_records import read_records\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "write_atlas(read_records(folder / 'records.jsonl'), folder / 'a.html', [])\n"
        "assert not {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
