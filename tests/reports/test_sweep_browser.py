"""The page of a sweep in a real browser without a network: it opens, nothing overflows, brushing and filtering work."""

import json

import pytest

from jaxrec.reports.sweep_page import write_page

WIDTHS = (400, 1280)
LINES = "[...document.querySelectorAll('#board tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
SHOWN = "document.getElementById('shown').textContent"


@pytest.fixture(scope="module")
def page(synthetic, tmp_path_factory):
    """A sweep of 80 configurations, two seeds each, three objectives."""
    about, rows = synthetic(80, seeds=2, objectives=("ndcg@10", "seconds", "parameters"))
    file = tmp_path_factory.mktemp("sweep") / "report.html"
    sweep = write_page(file, about, rows, ["jaxrec", "report", "sweep"])
    return file, sweep


def ink(browser):
    """Whether each canvas holds anything, by its chart."""
    return browser.ask("""[...document.querySelectorAll('[data-chart] canvas')].map(canvas => {
        const {width, height} = canvas;
        const dots = canvas.getContext('2d').getImageData(0, 0, width, height).data;
        return [canvas.parentNode.dataset.chart, dots.some(part => part > 0)];
    })""")


def see_all(browser, width):
    height = browser.ask("document.documentElement.scrollHeight")
    browser("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    browser.ask("new Promise(done => setTimeout(done, 300))")
    browser.settle()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_chart_is_drawn_inside_the_page_without_a_complaint(browser, page, width, dark):
    browser.open(page[0], width, dark=dark)
    see_all(browser, width)
    drawn = ink(browser)
    assert all(has for _, has in drawn), drawn
    assert {kind for kind, _ in drawn} == {"history", "curves", "front", "parallel", "slice", "lanes"}
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []


def test_the_script_shows_the_same_lines_as_the_page_without_it(browser, page):
    browser.open(page[0], 1280)
    with_script = browser.ask(LINES)
    browser.open(page[0], 1280, script=False)
    without = browser.ask(LINES)
    assert [[cell.removesuffix("copy") for cell in row] for row in with_script] == without
    assert "jaxrec train --" in without[0][1]


def brush(browser, name, low, high):
    """Drag along the axis of an option between two shares of its length."""
    x, y, wide, tall, flat = browser.ask(
        f"""(() => {{
        const axis = [...document.querySelectorAll('.axis')].find(node => node.title === {json.dumps(name)});
        axis.scrollIntoView({{block: 'center', inline: 'center'}}); const box = axis.getBoundingClientRect();
        return [box.left, box.top, box.width, box.height, axis.flat]; }})()"""
    )
    grip = 9  # pixels beyond either end
    at = lambda u: (  # noqa: E731
        (x + grip + (wide - 2 * grip) * u, y + tall / 2)
        if flat
        else (x + wide / 2, y + tall - grip - (tall - 2 * grip) * u)
    )
    browser.drag(at(low), at(high))


@pytest.mark.parametrize("width", WIDTHS)
def test_brushing_keeps_what_crosses_there(browser, page, width):
    file, sweep = page
    browser.open(file, width)
    see_all(browser, width)
    finished = [one for one in sweep.ranked if one.mean is not None]
    cut = sweep.options[[one.name for one in sweep.options].index("model.dropout")]
    brush(browser, "model.dropout", 0.4, 0.999)
    low, high = (float(word) for word in browser.ask(
        "document.querySelector('.axis[title=\"model.dropout\"]').getAttribute('aria-label')"
    ).split(": ")[1].split(";")[0].split(" to "))  # fmt: skip
    kept = [one for one in finished if low - 1e-3 <= one.point["model.dropout"] <= high + 1e-3]
    assert cut.low < low < high <= cut.high
    assert 0 < len(kept) < len(finished)
    said = browser.ask("document.getElementById('brushed').textContent")
    assert said.startswith(f"{len(kept)} of {len(finished)} configurations brushed")
    assert f"of {len(kept)} configurations, those brushed below" in browser.ask(SHOWN)
    assert browser.ask(LINES)[0][0] == str(finished.index(kept[0]) + 1) if kept[0].placed else "few seeds"
    browser.ask("document.getElementById('unbrush').click()")
    browser.settle()
    assert f"of {len(sweep.ranked)} configurations" in browser.ask(SHOWN)
    assert browser.complaints() == []


def test_the_lane_of_what_does_not_apply_can_be_brushed(browser, page):
    file, sweep = page
    browser.open(file, 1280)
    see_all(browser, 1280)
    brush(browser, "loss.alpha", 0, 0.06)
    without = [one for one in sweep.ranked if one.mean is not None and "loss.alpha" not in one.point]
    assert browser.ask("document.getElementById('brushed').textContent").startswith(f"{len(without)} of ")
    brush(browser, "loss.alpha", 0.01, 0.01)
    assert browser.ask("document.getElementById('brushed').textContent") == "In focus: the best 10%"
    brush(browser, "loss.alpha", 0.01, 0.01)
    assert browser.ask("document.getElementById('brushed').textContent").startswith(f"{len(without)} of ")
    brush(browser, "model.cell", 0.165, 0.165)
    gru = [one for one in without if one.point["model.cell"] == "gru"]
    assert browser.ask("document.getElementById('brushed').textContent").startswith(f"{len(gru)} of ")


def test_the_keyboard_brushes_moves_and_clears(browser, page):
    browser.open(page[0], 1280)
    see_all(browser, 1280)
    label = "document.activeElement.getAttribute('aria-label')"
    browser.ask("document.querySelector('.axis[title=\"model.dropout\"]').focus()")
    assert "not brushed" in browser.ask(label)
    browser.press("ArrowUp")
    first = browser.ask(label)
    browser.press("ArrowDown")
    assert browser.ask(label) != first
    assert "configurations brushed" in browser.ask("document.getElementById('brushed').textContent")
    browser.press("Escape")
    assert "not brushed" in browser.ask(label)
    browser.ask("document.querySelector('[data-chart=history] canvas').focus()")
    browser.press("ArrowRight")
    assert browser.ask("document.getElementById('tip').textContent").startswith("trial 0: ")
    assert "epochs" in browser.ask("document.getElementById('tip').textContent")


def test_the_leaderboard_sorts_filters_and_shows_more(browser, page):
    file, sweep = page
    browser.open(file, 1280)
    assert len(browser.ask(LINES)) == 10
    browser.ask("document.getElementById('more').click()")
    assert len(browser.ask(LINES)) == 60
    type_words = """(() => { const box = document.getElementById('filter');
        box.value = %s; box.dispatchEvent(new Event('input')); })()"""
    browser.ask(type_words % json.dumps("CELL lru, width 64,"))
    lines = browser.ask(LINES)
    assert lines
    assert all("cell lru" in row[1] and "width 64" in row[1] for row in lines)
    browser.ask(type_words % '""')
    test = [one.test for one in sweep.ranked if one.test is not None]
    browser.ask(
        "[...document.querySelectorAll('#board th button')].find(b => b.textContent.startsWith('test')).click()"
    )
    column = browser.ask(
        "[...document.querySelectorAll('#board th')].findIndex(h => h.dataset.name.startsWith('test'))"
    )
    assert [row[column] for row in browser.ask(LINES)] == [f"{v:.4f}" for v in sorted(test, reverse=True)[:10]]
    sorted_by = "document.querySelectorAll('#board th[aria-sort=descending]').length"
    assert browser.ask(sorted_by) == 1


def test_a_hostile_name_is_drawn_and_runs_nothing(browser, synthetic, tmp_path):
    about, rows = synthetic(12, failed=0, pruned=0)
    name = "</script><img src=x onerror=window.hurt=1><script>window.hurt=1</script>\u202e\u2028" + "long " * 40
    for row in rows:
        row["point"] = {name: float(row["number"]), "model.cell": name}
        row["attempts"][0] |= {"worker": name}
    write_page(tmp_path / "report.html", about, rows, ["jaxrec", name])
    for width in WIDTHS:
        browser.open(tmp_path / "report.html", width)
        see_all(browser, width)
        assert browser.ask("window.hurt") is None
        assert browser.ask("document.images.length") == 0
        assert browser.ask("document.documentElement.scrollWidth") <= width
        assert browser.complaints() == []


@pytest.mark.parametrize("kind", ["none", "one", "equal", "minimal", "failed", "wide"])
def test_no_sweep_breaks_the_page(browser, synthetic, tmp_path, kind):
    about, rows = synthetic({"none": 0, "one": 1}.get(kind, 9), failed=0, pruned=0, extra=36 * (kind == "wide"))
    if kind == "equal":
        rows = [r | {"objectives": {"ndcg@10": 0.1, "seconds": 5}, "readings": r["readings"][:1]} for r in rows]
    if kind == "minimal":
        about = {}
        rows = [{key: row[key] for key in ("number", "state", "point", "objectives")} for row in rows]
    if kind == "failed":
        rows = [r | {"state": "diverged" if r["number"] % 2 else "out_of_memory", "objectives": {}, "valid": {}}
                for r in rows]  # fmt: skip
    write_page(tmp_path / "report.html", about, rows, ["jaxrec"])
    for width in WIDTHS:
        browser.open(tmp_path / "report.html", width)
        see_all(browser, width)
        assert browser.ask("document.documentElement.scrollWidth") <= width
        assert browser.complaints() == []


def test_it_prints_every_chart(browser, page):
    browser.open(page[0], 1280)
    assert len(browser("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"]) > 100_000
    drawn = ink(browser)
    assert all(has for _, has in drawn), drawn
    assert browser.complaints() == []
