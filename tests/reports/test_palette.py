"""The palette: hues that people with every kind of cones tell apart, that stand out from the paper, at fixed places."""

import itertools
import math

import numpy as np
import pytest

from jaxrec.reports import palette

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
EYES = {
    "all cones": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
PAPERS = {"light": "#ffffff", "dark": "#14171b"}


def linear(colour):
    parts = np.array(palette.channels(colour)) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def oklab(parts):
    """Ottosson 2020."""
    cones = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                      [0.0883024619, 0.2817188376, 0.6299787005]]) @ np.clip(parts, 0, 1)  # fmt: skip
    return np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                     [0.0259040371, 0.7827717662, -0.8086757660]]) @ np.cbrt(cones)  # fmt: skip


def contrast(first, second):
    bright, dim = sorted((linear(one) @ (0.2126, 0.7152, 0.0722) for one in (first, second)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("paper", PAPERS)
def test_families_can_be_told_apart(paper, eyes):
    seen = [oklab(np.array(EYES[eyes]) @ linear(getattr(ink, paper))) for ink in palette.INKS.values()]
    least = min(math.dist(a, b) for a, b in itertools.combinations(seen, 2))
    assert least > 0.095  # the seven colours of Okabe and Ito as the house darkens them come to 0.018


@pytest.mark.parametrize("paper", PAPERS)
def test_families_stand_out_from_the_paper(paper):
    for ink in palette.INKS.values():
        assert contrast(getattr(ink, paper), PAPERS[paper]) >= 3


def test_a_family_has_one_shape_and_one_hue_on_both_papers():
    shapes = [ink.shape for ink in palette.INKS.values()]
    assert len(set(shapes)) == len(shapes)
    assert set(shapes) == set(palette.SHAPES)
    for name, ink in palette.INKS.items():
        light, dark = (oklab(linear(colour))[1:] for colour in (ink.light, ink.dark))
        if name != palette.OWN:
            apart = math.degrees(math.atan2(light[1], light[0]) - math.atan2(dark[1], dark[0]))
            assert abs((apart + 180) % 360 - 180) < 12
    assert palette.known("somebody's word") == palette.OWN


def test_the_scale_brightens_and_what_is_reserved_is_not_on_it():
    shades = [oklab(linear(palette.shade(place / 100))) for place in range(101)]
    assert all(a[0] < b[0] for a, b in itertools.pairwise(shades))
    assert palette.shade(-1) == palette.SCALE[0]
    assert palette.shade(2) == palette.SCALE[-1]
    for face, stroke in (palette.ZERO, palette.NOT_A_NUMBER):
        assert min(math.dist(oklab(linear(face)), one) for one in shades) > 0.1
        assert contrast(face, stroke) > 2


def test_the_style_has_every_family_on_every_paper():
    for ink, one in palette.INKS.items():
        assert palette.style().count(f"--{ink}: {one.light};") == 2
        assert palette.style().count(f"--{ink}: {one.dark};") == 1
