"""Tables before they are drawn: any rows of one have the bits that they have in the whole table.

What `jax.random` draws for a place is a function of that place, so each device can draw its own piece of a table, and a
whole one is drawn some rows at a time, with room for the table and little more.
"""

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.random import define_prng_impl, threefry2x32_p

BLOCK = 2**18  # numbers drawn at a time

Law = Literal["zeros", "normal", "uniform"]


@partial(
    jax.tree_util.register_dataclass, data_fields=["words", "spread", "times", "known"], meta_fields=["shape", "law"]
)
@dataclass(frozen=True)
class Drawing:
    """A table of ``shape``, whose row 0 (padding, unknown) is zero: normal with standard deviation ``spread``, or
    uniform in ``+-spread``, then ``times`` a number. Rows that are not ``known (rows,)`` are zero too.

    ``words`` are those of the key.
    """

    shape: tuple[int, ...]
    law: Law
    words: Array
    spread: Any = 0.0
    times: Any = None
    known: Any = None

    def piece(self, first: Any, count: int) -> Array:
        """Rows ``first`` to ``first + count``, zeros beyond the last; ``known`` are these rows' entries."""
        blank = jnp.zeros((count, *self.shape[1:]))
        if self.law == "zeros":
            return blank
        tall = max(1, min(count, BLOCK // self.shape[1]))

        def fill(number: Any, table: Array) -> Array:
            begin = jnp.minimum(number * tall, count - tall)  # the last block draws some rows once more
            real = first + begin + jnp.arange(tall)
            real = (real > 0) & (real < self.shape[0])
            if self.known is not None:
                real &= lax.dynamic_slice_in_dim(jnp.asarray(self.known), begin, tall)
            drawn = jnp.where(real[:, None], self.numbers(first + begin, tall), 0.0)
            return lax.dynamic_update_slice_in_dim(table, drawn, begin, 0)

        return lax.fori_loop(0, -(-count // tall), fill, blank)

    def numbers(self, first: Any, count: int) -> Array:
        """What is drawn for rows ``first`` to ``first + count``."""
        wide = self.shape[1]
        if self.law == "normal":
            drawn = self.spread * exact(jax.random.normal(further(self.words, first, wide), (count * wide,)))
        else:  # whose numbers begin with row 1
            least, most = exact((-self.spread, self.spread))
            drawn = jax.random.uniform(further(self.words, first - 1, wide), (count * wide,), minval=least, maxval=most)
        drawn = exact(drawn)
        return exact(drawn if self.times is None else drawn * self.times).reshape(count, wide)


def exact(drawn: Any) -> Any:
    """The same numbers, rounded here: a compiler would multiply first what they are multiplied with."""
    return lax.optimization_barrier(drawn)


@jax.jit
def whole(drawing: Drawing) -> Array:
    """All rows, on one device."""
    return drawing.piece(0, drawing.shape[0])


def bits(key: Array, width: int, shape: tuple[int, ...]) -> Array:
    """Random bits of the places that follow the one in ``key``'s last two words, as `jax.random` has them there."""
    low = key[3] + lax.iota(jnp.uint32, prod(shape)).reshape(shape)
    high = key[2] + (low < key[3]).astype(jnp.uint32)
    one, other = threefry2x32_p.bind(key[0], key[1], high, low)
    if width == 64:
        return one.astype(jnp.uint64) << 32 | other.astype(jnp.uint64)
    return (one ^ other).astype(f"uint{width}")


def refuse(*_: Any) -> Array:
    raise NotImplementedError("a place among a key's numbers is no key to make others of")


PLACE = define_prng_impl(
    key_shape=(4,), seed=refuse, split=refuse, fold_in=refuse, random_bits=bits, name="place", tag="plc"
)


def further(words: Array, rows: Any, width: int) -> Array:
    """The threefry key with ``words`` as it is after ``rows`` rows of ``width`` numbers; there may be -1."""
    count, wide = jnp.asarray(rows).astype(jnp.uint32), jnp.uint32(width)
    high = upper(count, wide) - jnp.where(rows < 0, wide, 0)
    return jax.random.wrap_key_data(jnp.stack([words[0], words[1], high, count * wide]), impl=PLACE)


def upper(one: Array, other: Array) -> Array:
    """The upper 32 of the 64 bits of a product (`jax.lax.mulhi` does not lower under `jax.shard_map` in jax 0.10)."""
    (a, b), (c, d) = ((number >> 16, number & 0xFFFF) for number in (one, other))
    middle = a * d + (b * d >> 16)
    return a * c + (middle >> 16) + (b * c + (middle & 0xFFFF) >> 16)
