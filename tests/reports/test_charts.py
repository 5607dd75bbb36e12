"""Charts: whatever the numbers are, the picture is well-formed, inside its frame and in the right order."""

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, strategies as st

from jaxrec.reports.charts import Axis, Scale, Series, bars, interval_dots, line_chart, percent, quantile_curve, short

numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)
positive = st.floats(1e-9, 1e12)


def picture(figure):
    return ET.fromstring(figure).find("svg")


def inside(svg):
    _, _, width, height = map(float, svg.get("viewBox").split())
    for node in svg.iter():
        for name in ("x", "cx", "x1", "x2"):
            if node.get(name) is not None:
                assert -0.11 <= float(node.get(name)) <= width + 0.11, ET.tostring(node)
        for name in ("y", "cy", "y1", "y2"):
            if node.get(name) is not None:
                assert -0.11 <= float(node.get(name)) <= height + 0.11, ET.tostring(node)
        for pair in (node.get("points") or "").split():
            x, y = map(float, pair.split(","))
            assert -0.11 <= x <= width + 0.11
            assert -0.11 <= y <= height + 0.11


@given(low=positive, factor=st.floats(1.0001, 1e9), log=st.booleans())
def test_ticks_are_few_round_ascending_and_inside(low, factor, log):
    scale = Scale.of(Axis("", log=log), [low, low * factor], 58, 386)
    ticks = scale.ticks()
    assert ticks == sorted(set(ticks))
    assert 1 <= len(ticks) <= 8
    span = scale.high - scale.low
    assert all(scale.low * 0.998 - span * 1e-6 <= tick <= scale.high * 1.002 + span * 1e-6 for tick in ticks)
    for tick in ticks:
        digits = f"{tick:.6e}".partition("e")[0].rstrip("0").rstrip(".")
        assert len(digits) <= 8  # round, not 0.30000000000000004


@given(values=st.lists(numbers, min_size=1, max_size=30), log=st.booleans())
def test_lines_of_any_numbers_stay_inside(values, log):
    small = [math.copysign(min(abs(v), 1e30), v) if math.isfinite(v) else v for v in values]
    svg = picture(line_chart("t", [Series("a", range(len(small)), small)], Axis("x"), Axis("y", log=log)))
    inside(svg)
    drawn = sum(len((line.get("points") or "").split()) for line in svg.iter("polyline"))
    dots = len(list(svg.iter("circle")))
    fitting = [v for v in small if math.isfinite(v) and (v > 0 or not log)]
    assert dots == len(fitting)
    assert drawn <= len(fitting)


@given(points=st.lists(st.tuples(positive, positive), min_size=2, max_size=20), log=st.booleans())
def test_larger_values_are_higher_and_further_right(points, log):
    svg = picture(line_chart("t", [Series("a", *zip(*points, strict=True))], Axis("x", log=log), Axis("y", log=log)))
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in svg.iter("circle")]
    for (x, y), (cx, cy) in zip(points, dots, strict=True):
        for (x2, y2), (cx2, cy2) in zip(points, dots, strict=True):
            assert x <= x2 or cx >= cx2
            assert y <= y2 or cy <= cy2


def test_a_gap_breaks_the_line_and_bars_stand_on_zero():
    svg = picture(line_chart("t", [Series("a", range(5), [1, 2, None, 4, 5])], Axis("x"), Axis("y")))
    assert len(list(svg.iter("polyline"))) == 2
    svg = picture(bars("t", ["a", "b", "c"], [1, 0, 2], "x", Axis("n")))
    heights = [float(bar.get("height")) for bar in svg.iter("rect")]
    assert len(heights) == 2  # nothing stands where there is nothing
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    inside(svg)


def test_dots_show_interval_reference_and_hover():
    rows = [("first", 0.2, 0.1, 0.3), ("a heading", None, None, None), ("second", 0.25, None, None)]
    figure = interval_dots("hr@10", rows, Axis("mean", low=0), reference=(0.22, "all"), exact="{:.4f}".format)
    svg = picture(figure)
    inside(svg)
    first, second = svg.iter("circle")
    low, high = (
        float(line.get(at)) for line in svg.iter("line") if line.get("stroke") == "var(--c0)" for at in ("x1", "x2")
    )
    assert low < float(first.get("cx")) < high
    assert float(second.get("cx")) > float(first.get("cx"))
    assert "first: 0.2000 (0.1000 to 0.3000)" in figure
    assert "0.2500" in figure


def test_series_differ_in_more_than_colour_and_names_are_escaped():
    many = [Series(f"<b>{n}", [1, 2], [n, n + 1]) for n in range(4)]
    figure = line_chart("<i>", many, Axis("&"), Axis('"'), note="<u>", shade=(1, 1.5, "<s>"), marks=[(2, "<m>")])
    assert not {"b", "i", "u", "s", "m"} & {node.tag for node in ET.fromstring(figure).iter()}
    lines = list(picture(figure).iter("polyline"))
    assert len({line.get("stroke-dasharray") for line in lines}) == len({line.get("stroke") for line in lines}) == 4


def test_nothing_at_all_is_still_a_picture():
    for figure in (
        line_chart("t", [Series("a", [], [])], Axis("x"), Axis("y", log=True)),
        bars("t", [], [], "x", Axis("n")),
        interval_dots("t", [], Axis("x")),
        quantile_curve("t", {"0": 3, "1": 3}, Axis("y")),
    ):
        inside(picture(figure))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.05, "0.05"), (12, "12"), (1500, "1500"), (15_000, "15k"), (2e6, "2M"), (1e-5, "1e-5"), (-3, "-3")],
)
def test_numbers_are_short(value, text):
    assert short(value) == text
    assert percent(0.125) == "12.5%"
