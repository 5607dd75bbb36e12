"""One palette for every picture of cells: a hue and a shape for each family, one scale for what has a size.

Hues were found by a search for the largest least distance between any two of them, as people with normal sight and
without red, green or blue cones see them (Machado et al. 2009; distances in Oklab, Ottosson 2020), at 3:1 or more
against the paper, on light and on dark with the same hue. The scale is viridis (van der Walt and Smith 2015, CC0).
"""

import math
from dataclasses import dataclass

OWN = "own"  # what a family of somebody's own is drawn as


@dataclass(frozen=True)
class Ink:
    """A family's colour on light and on dark paper, and the shape of its marks."""

    light: str
    dark: str
    shape: str


INKS = {
    "gated": Ink("#173c98", "#709eff", "circle"),
    "linear": Ink("#a04500", "#c55703", "square"),
    "simple": Ink("#551710", "#f19b8e", "triangle"),
    "matrix": Ink("#329c7a", "#008d6a", "diamond"),
    "oscillator": Ink("#5b315a", "#b87fb5", "down"),
    "time": Ink("#a57e00", "#fdcc54", "cross"),
    "window": Ink("#1f6ca8", "#8dc5f9", "hexagon"),
    "context": Ink("#8f82d4", "#7062ae", "star"),
    OWN: Ink("#656263", "#ebe4e6", "plus"),
}
SHAPES = {  # outlines around 0 0
    "circle": "M4.2 0A4.2 4.2 0 1 1-4.2 0 4.2 4.2 0 1 1 4.2 0Z",
    "square": "M-3.7-3.7H3.7V3.7H-3.7Z",
    "triangle": "M0-4.8 4.6 3.4H-4.6Z",
    "diamond": "M0-5.2 5.2 0 0 5.2-5.2 0Z",
    "down": "M0 4.8 4.6-3.4H-4.6Z",
    "cross": "M-4.4-2-2-4.4 0-2.3 2-4.4 4.4-2 2.3 0 4.4 2 2 4.4 0 2.3-2 4.4-4.4 2-2.3 0Z",
    "hexagon": "M-4.6 0-2.3-4H2.3L4.6 0 2.3 4H-2.3Z",
    "star": "M0.0 -5.2 1.4 -1.9 4.9 -1.6 2.3 0.7 3.1 4.2 0.0 2.4 -3.1 4.2 -2.3 0.7 -4.9 -1.6 -1.4 -1.9Z",
    "plus": "M-1.5-4.4H1.5V-1.5H4.4V1.5H1.5V4.4H-1.5V1.5H-4.4V-1.5H-1.5Z",
}
SCALE = (
    "#440154", "#48186a", "#472d7b", "#424086", "#3b528b", "#33638d", "#2c728e", "#26828e", "#21918c", "#1fa088",
    "#28ae80", "#3fbc73", "#5ec962", "#84d44b", "#addc30", "#d8e219", "#fde725",
)  # fmt: skip
ZERO = ("#b9bec4", "#6f767e")  # a gradient that is exactly zero: grey with strokes of the darker one
NOT_A_NUMBER = ("#ff3fa4", "#5c0031")  # what is not finite: a pink that the scale does not have, crossed


def known(family: str) -> str:
    """The family, or `OWN` for a word that the house does not have."""
    return family if family in INKS else OWN


def shade(share: float) -> str:
    """The colour at a place between 0 and 1 of the scale; beyond its ends, that of the end."""
    at = min(max(share, 0.0), 1.0) * (len(SCALE) - 1)
    low = min(math.floor(at), len(SCALE) - 2)
    pair = map(channels, SCALE[low : low + 2])
    mixed = (round(a + (b - a) * (at - low)) for a, b in zip(*pair, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def channels(colour: str) -> list[int]:
    """Red, green and blue of `#rrggbb`, 0 to 255."""
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


def style() -> str:
    """The hues as variables of a page's style: `--gated` and so on, on light, dark and printed paper."""
    light, dark = (" ".join(f"--{name}: {getattr(ink, paper)};" for name, ink in INKS.items())
                   for paper in ("light", "dark"))  # fmt: skip
    return (
        f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
        f"@media print {{ :root {{ {light} }} }}\n"
    )
