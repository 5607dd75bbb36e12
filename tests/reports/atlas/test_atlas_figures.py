"""Figures as files: those that the records have, not blank, the same each time, small enough for a README."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from jaxrec.config import Mistake
from jaxrec.reports.atlas_figures import figures

matplotlib_image = pytest.importorskip("matplotlib.image")
ALL = {"atlas", "atlas-dark", "atlas-heat", "atlas-curves", "atlas-horizon", "atlas-tasks"}


def names(files):
    return {file.stem for file in files}


@pytest.fixture(scope="module")
def nine(synthetic, tmp_path_factory):
    return figures(synthetic(9), tmp_path_factory.mktemp("figures"))


def test_every_figure_is_there_twice_and_not_blank(nine):
    assert names(nine) == ALL
    assert sorted(file.suffix for file in nine) == [".png"] * 6 + [".svg"] * 6
    for file in nine:
        if file.suffix == ".png":
            dots = matplotlib_image.imread(file)[..., :3]
            paper = dots[0, 0]
            assert 0.02 < (np.abs(dots - paper).max(-1) > 0.1).mean() < 0.98
            assert (paper.mean() < 0.2) == file.stem.endswith("dark")
        else:
            assert ET.parse(file).getroot().tag.endswith("svg")
    assert all(file.stat().st_size < 200_000 for file in nine)


def test_the_headline_says_names_and_numbers(nine):
    text = next(file for file in nine if file.name == "atlas.svg").read_text()
    for words in ("gru", "matrix-3", "0.1069", "7.9", "events back", "exactly 0", "NDCG@10"):
        assert f">{words}<" in text or f">{words} " in text or f"> {words}" in text, words


def test_the_same_records_give_the_same_files(synthetic, nine, tmp_path):
    again = figures(synthetic(9), tmp_path)
    for first, second in zip(nine, again, strict=True):
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("kinds", "left"),
    [
        ("", set()),
        ("task", {"atlas-tasks"}),
        ("gradient", {"atlas", "atlas-dark", "atlas-heat", "atlas-curves"}),
        ("gradient training", ALL - {"atlas-tasks"}),
    ],
)
def test_what_has_no_records_is_left_out(synthetic, tmp_path, kinds, left):
    assert names(figures(synthetic(2, kinds=kinds, lengths=(20, 50)), tmp_path)) == left


def test_an_untrained_cell_has_no_map_over_training(synthetic, tmp_path):
    found = names(figures(synthetic(1, steps=1), tmp_path))
    assert {"atlas", "atlas-curves"} <= found
    assert "atlas-heat" not in found


def test_hostile_names_and_missing_numbers_are_drawn(synthetic, tmp_path):
    name = "$\\frac{<script>$ " + "long " * 30
    records = [r | {"subject": name, "family": name} if r["subject"] == "gru" else r for r in synthetic(2)]
    for record in records:
        if record["kind"] == "gradient" and record["subject"] == name:
            record["log10_quantiles"]["0.5"][3:] = [None] * len(record["lags"][3:])
    for file in figures(records, tmp_path):
        if file.suffix == ".svg":
            ET.parse(file)
    with pytest.raises(Mistake, match="cannot be written"):
        figures(records, tmp_path / "none")
