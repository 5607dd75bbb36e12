"""The shapes that laws, benchmarks and tables share, each under one name."""

import re
from typing import NamedTuple

from jaxrec.config import Mistake, did_you_mean


class Shape(NamedTuple):
    """Sequences in a batch, events in each, and the width of inputs and state."""

    batch: int
    time: int
    width: int


SHAPES = {
    "tiny": Shape(3, 6, 4),  # of the laws
    "small": Shape(64, 50, 64),
    "medium": Shape(128, 200, 128),
    "wide": Shape(256, 50, 256),
    "long": Shape(32, 1000, 256),
}


def shape(name: str) -> Shape:
    """A named shape, or one written as ``64x50x128``: batch, time, width."""
    if re.fullmatch(r"[1-9]\d*x[1-9]\d*x[1-9]\d*", name):
        return Shape(*map(int, name.split("x")))
    if name not in SHAPES:
        raise Mistake(
            f"no shape is called {name!r} (there is {', '.join(SHAPES)}, or batch x time x width as in 64x50x128)"
            f"{did_you_mean(name, SHAPES)}"
        )
    return SHAPES[name]
