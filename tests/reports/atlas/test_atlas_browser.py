"""The atlas in a real browser without a network: it opens, nothing overflows, cells are chosen, numbers taken away."""

import csv
import json
import time

import pytest

from jaxrec.reports.atlas_page import write_atlas

WIDTHS = (400, 1280)
SHOWN = """[...document.querySelectorAll('%s')].filter(node => node.offsetParent || node.getClientRects().length)
    .map(node => Number(node.dataset.subject))"""
CHARTS = {"heat", "horizon", "strip", "ridges", "circle", "matrix"}
DRAWN = ("gradient", "gates", "eigenvalues", "lyapunov", "singular", "matrix", "task", "trace", "information")
LINES = {"curve", "together", "information", "task", "exponents", "singular"}
HOSTILE = "</script><img src=x onerror=window.hurt=1><script>window.hurt=1</script>\u202e\u2028" + "long " * 40


@pytest.fixture(scope="module")
def pages(synthetic, tmp_path_factory):
    """An untrained cell; one of each family, trained; forty-five."""
    folder = tmp_path_factory.mktemp("atlas")
    made = {"one": synthetic(1, steps=1), "nine": synthetic(9),
            "many": synthetic(45, lengths=(20, 50, 100, 200, 500, 1000), width=64)}  # fmt: skip
    for name, records in made.items():
        write_atlas(records, folder / f"{name}.html", ["jaxrec", "atlas"])
    return {name: folder / f"{name}.html" for name in made}


def ink(browser):
    """Whether each visible canvas holds anything, by its chart."""
    return browser.ask("""(() => {
        const copy = document.createElement('canvas'), pen = copy.getContext('2d', {willReadFrequently: true});
        return [...document.querySelectorAll('[data-chart]')].filter(one => one.clientWidth).map(one => {
            const canvas = one.querySelector('canvas');
            if (!canvas || !canvas.width || !canvas.height) return [one.dataset.chart, false];
            [copy.width, copy.height] = [canvas.width, canvas.height];
            pen.drawImage(canvas, 0, 0);
            return [one.dataset.chart, pen.getImageData(0, 0, copy.width, copy.height).data.some(part => part > 0)];
        });
    })()""")


def see_all(browser, width):
    height = browser.ask("document.documentElement.scrollHeight")
    browser("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    browser.ask("new Promise(done => setTimeout(done, 500))")
    browser.settle()


def choose(browser, name, value):
    browser.ask(f"""(() => {{ const box = document.getElementById({name!r}); box.value = {value!r};
        box.dispatchEvent(new Event('change')); }})()""")
    browser.settle()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_chart_is_drawn_inside_the_page_without_a_complaint(browser, pages, width, dark):
    browser.open(pages["nine"], width, dark=dark)
    see_all(browser, width)
    drawn = ink(browser)
    assert all(has for _, has in drawn), [kind for kind, has in drawn if not has]
    assert {kind for kind, _ in drawn} == CHARTS | LINES
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []


@pytest.mark.parametrize("width", WIDTHS)
def test_letters_are_never_smaller_than_nine_pixels(browser, pages, width):
    browser.open(pages["nine"], width)
    see_all(browser, width)
    smallest = browser.ask("""Math.min(...[...document.querySelectorAll('main *')].filter(node => node.clientWidth &&
        [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim()))
        .map(node => parseFloat(getComputedStyle(node).fontSize)))""")
    in_strips = browser.ask("""Math.min(...[...document.querySelectorAll('#reach svg text, .colours text')]
        .map(node => node.getBoundingClientRect().height))""")
    assert smallest >= 9
    assert in_strips >= 9


def test_an_untrained_cell_has_a_page(browser, pages):
    for width in WIDTHS:
        browser.open(pages["one"], width)
        see_all(browser, width)
        drawn = ink(browser)
        assert all(has for _, has in drawn), drawn
        kinds = {kind for kind, _ in drawn}
        assert {"curve", "heat"} <= kinds
        assert "together" not in kinds
        assert browser.ask("document.documentElement.scrollWidth") <= width
        assert browser.complaints() == []


def test_choosing_a_cell_hides_the_others(browser, pages):
    browser.open(pages["nine"], 1280)
    see_all(browser, 1280)
    every = set(range(9))
    for kind in ("figure[data-subject]", "#reach tr[data-subject]"):
        assert set(browser.ask(SHOWN % kind)) == every
    browser.ask("document.querySelector('button[data-only=\"3\"]').click()")
    see_all(browser, 1280)
    for kind in ("figure[data-subject]", "#reach tr[data-subject]", "li[data-subject]"):
        assert set(browser.ask(SHOWN % kind)) == {3}
    assert browser.ask("document.getElementById('chosen').textContent") == "1 of 9 cells"
    assert browser.ask("document.querySelectorAll('[data-chart=together] .u-series').length") == 1
    assert all(has for _, has in ink(browser))
    browser.ask("document.querySelector('#cells input[value=\"5\"]').click()")
    assert set(browser.ask(SHOWN % "#reach tr[data-subject]")) == {3, 5}
    browser.ask("document.querySelector('button[data-family=gated]').click()")
    assert set(browser.ask(SHOWN % "#reach tr[data-subject]")) == {0}
    browser.ask("document.getElementById('every').click()")
    see_all(browser, 1280)
    assert set(browser.ask(SHOWN % "#reach tr[data-subject]")) == every
    assert browser.ask("document.getElementById('every').hidden")
    assert browser.complaints() == []


def test_lengths_scales_and_horizons_can_be_chosen(browser, pages):
    browser.open(pages["nine"], 1280)
    see_all(browser, 1280)
    label = "document.querySelector('[data-chart=curve] canvas').getAttribute('aria-label')"
    look = "document.querySelector('[data-chart=%s] canvas').toDataURL()"
    assert "rows of 200 events" in browser.ask(label)
    choose(browser, "length", "50")
    assert "rows of 50 events" in browser.ask(label)
    for name, value, chart in (("relative", "relative", "together"), ("even", "even", "heat"),
                               ("horizon", "information_horizon", "horizon")):  # fmt: skip
        before = browser.ask(look % chart)
        choose(browser, name, value)
        assert browser.ask(look % chart) != before
    assert all(has for _, has in ink(browser))
    assert browser.complaints() == []


def hover(browser, chart, across=0.5, down=0.5):
    x, y = browser.ask(f"""(() => {{ const one = document.querySelector('[data-chart={chart}]');
        one.scrollIntoView({{block: 'center'}});
        const box = (one.querySelector('.u-over') || one).getBoundingClientRect();
        return [box.left + box.width * {across}, box.top + box.height * {down}]; }})()""")
    browser("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    browser.settle()
    return browser.ask("document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent")


def test_hovering_says_what_is_there(browser, pages):
    browser.open(pages["nine"], 1280)
    see_all(browser, 1280)
    assert "events back: 10^" in hover(browser, "heat", 0.5, 0.4)
    assert "gru, step" in hover(browser, "heat", 0.5, 0.4)
    assert "events back" in hover(browser, "together", 0.6, 0.2)
    assert "The long way home" in hover(browser, "strip", 0.9, 0.4)
    browser.ask("document.querySelector('[data-chart=horizon] canvas').focus()")
    browser.press("ArrowRight")
    said = browser.ask("document.getElementById('tip').textContent")
    assert said.startswith("gru (gated), rows of 200: vanishing\nhalf-life 7.9")
    assert "NDCG@10 0." in said
    browser.press("Escape")
    assert browser.ask("document.getElementById('tip').hidden")


def test_dragging_looks_closer_and_a_legend_hides_a_line(browser, pages):
    browser.open(pages["nine"], 1280)
    see_all(browser, 1280)
    look = "document.querySelector('[data-chart=together] canvas').toDataURL()"
    first = browser.ask(look)
    left, top, wide, tall = browser.ask("""(() => {
        const box = document.querySelector('[data-chart=together] .u-over').getBoundingClientRect();
        return [box.left, box.top, box.width, box.height]; })()""")
    browser.drag((left + 0.4 * wide, top + tall / 2), (left + 0.7 * wide, top + tall / 2))
    closer = browser.ask(look)
    assert closer != first
    browser.ask("document.querySelectorAll('[data-chart=together] .u-series th')[1].click()")
    browser.settle()
    assert browser.ask(look) != closer
    assert browser.complaints() == []


def test_numbers_can_be_taken_away(browser, pages, tmp_path):
    browser("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.open(pages["nine"], 1280)
    for name in ("atlas.csv", "atlas-curves.csv", "atlas.json"):
        browser.ask(f"document.querySelector('button[data-file=\"{name}\"]').click()")
        end = time.time() + 20
        while not (tmp_path / name).exists() and time.time() < end:
            time.sleep(0.1)
            browser.settle()
    told = list(csv.DictReader((tmp_path / "atlas.csv").open(newline="")))
    assert len(told) == 9 * 4
    assert told[0]["subject"] == "gru"
    assert float(told[0]["half_life"]) > 0
    curves = list(csv.DictReader((tmp_path / "atlas-curves.csv").open(newline="")))
    assert {row["subject"] for row in curves} == {row["subject"] for row in told}
    zeros = [row for row in curves if row["exactly_zero"] == "1"]
    assert {row["subject"] for row in zeros} == {"window-6"}
    assert all(row["log10_median"] == "" for row in zeros)
    everything = json.loads((tmp_path / "atlas.json").read_text())
    assert len(everything["curves"]) == len(curves)
    assert everything["subjects"][0]["tasks"]
    assert browser.complaints() == []


def test_45_cells_open_quickly_and_are_all_drawn(browser, pages):
    seconds = browser.open(pages["many"], 1280)
    assert seconds < 10
    browser.ask("for (const node of document.querySelectorAll('details')) node.open = true")
    see_all(browser, 1280)
    end = time.time() + 60
    while not all(has for _, has in ink(browser)) and time.time() < end:
        see_all(browser, 1280)
    drawn = ink(browser)
    assert all(has for _, has in drawn), [kind for kind, has in drawn if not has]
    assert sum(kind == "heat" for kind, _ in drawn) == 45
    assert browser.ask("document.documentElement.scrollWidth") <= 1280
    assert browser.complaints() == []


def test_hostile_names_are_drawn_and_run_nothing(browser, synthetic, tmp_path):
    records = json.loads(json.dumps(synthetic(2)).replace("linear-1", json.dumps(HOSTILE)[1:-1]))
    for record in records:
        record["family"] = HOSTILE
        if record["kind"] == "trace":
            record["events"][-1]["title"] = record["target"]["title"] = HOSTILE
        if record["kind"] == "task":
            record["task"] = HOSTILE
        if record["kind"] == "gates":
            record["gates"][0]["name"] = HOSTILE
        if record["kind"] == "eigenvalues":
            record["matrices"][0]["name"] = HOSTILE
    write_atlas(records, tmp_path / "atlas.html", ["jaxrec", HOSTILE])
    for width in WIDTHS:
        browser.open(tmp_path / "atlas.html", width)
        see_all(browser, width)
        assert browser.ask("window.hurt") is None
        assert browser.ask("document.images.length") == 0
        assert browser.ask("document.documentElement.scrollWidth") <= width
        assert all(has for _, has in ink(browser))
        assert browser.complaints() == []


@pytest.mark.parametrize("kind", [*DRAWN, ""])
def test_no_record_breaks_the_script(browser, synthetic, tmp_path, kind):
    """Records of one kind alone, as they are and with every list and number gone, and no record at all."""
    records = synthetic(2, kinds=kind) if kind else []
    empty = [{key: None if isinstance(value, float) else [] if isinstance(value, list) else value
              for key, value in r.items()} for r in records]  # fmt: skip
    for some in (records, empty, [r for r in records if r["phase"] == "start"]):
        write_atlas(some, tmp_path / "atlas.html", ["jaxrec"])
        browser.open(tmp_path / "atlas.html", 400)
        see_all(browser, 400)
        assert browser.ask("document.documentElement.scrollWidth") <= 400
        assert browser.complaints() == []


def test_it_prints_every_chart_on_light_paper(browser, pages):
    browser.open(pages["nine"], 1280, dark=True)
    assert len(browser("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"]) > 200_000
    drawn = ink(browser)
    assert all(has for _, has in drawn), [kind for kind, has in drawn if not has]
    assert browser.complaints() == []


def test_without_its_script_the_page_still_has_the_numbers(browser, pages):
    browser.open(pages["nine"], 1280, script=False)
    assert browser.ask("document.querySelectorAll('#reach tr[data-subject]').length") == 9
    assert browser.ask("document.querySelectorAll('#reach rect').length") > 100
    assert browser.ask("[...document.querySelectorAll('.scripted')].every(node => node.hidden)")
    assert "need the page's own script" in browser.ask("document.querySelector('noscript').textContent")
