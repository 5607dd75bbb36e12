"""Cross-entropy of ``hidden @ rows.T + bias`` without ever holding positions x items scores.

Positions are cut into blocks. The weighted sum of losses is a scalar, so its gradient is known up to that scalar's
cotangent and can be taken in the forward pass, while a block's scores are in the cache. Two ways, chosen by shape:

- *whole rows*: a block holds every item. Scores, and from the same exponentials both gradients: three products.
- *item blocks*: when whole rows would leave too few positions in a block, the normaliser is summed over blocks of items
  first and the scores are computed again for the gradients: four products, memory independent of the catalogue.

Row 0 is padding; it gets the bias ``-inf`` instead of being cut off, which would copy the table. Where devices share
out the table (`Shard`), each computes the scores of its own rows and the normalisers are summed over the pieces: as in
Megatron-LM (Shoeybi et al. 2019, https://arxiv.org/abs/1909.08053), a few numbers a position and its gradient are all
that travels.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxrec.losses.shards import Shard

# Scores at one time: as many as are good for speed, and at most. On CPU a block should stay in the cache. Measured.
CPU_GOOD, CPU_MOST = 2**20, 2**22
GOOD = MOST = 2**26
FEWEST = 96  # positions in a block of whole rows; with fewer, adding up the table's gradient costs more than a product
TALLEST = 1024  # positions in a block of some of the items


class Blocks(NamedTuple):
    """Positions and items of one block of scores."""

    positions: int
    items: int


def block_sizes(positions: int, items: int, chunk: int | None = None) -> Blocks:
    """Sizes of equal blocks of at most ``chunk`` scores, with all ``items`` in a block if enough positions fit."""
    good, most = (CPU_GOOD, CPU_MOST) if jax.default_backend() == "cpu" else (GOOD, MOST)
    if chunk is not None:
        good = most = chunk
    fewest = min(positions, FEWEST)
    if most // items >= fewest:
        return Blocks(_even(positions, max(fewest, good // items)), items)
    height = _even(positions, min(good, TALLEST))
    return Blocks(height, _even(items, good // height))


def _even(total: int, most: int) -> int:
    """The size of the fewest nearly equal parts of at most ``most``."""
    parts = -(-total // max(1, most))
    return max(1, -(-total // max(1, parts)))


@partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def fused_cross_entropy(
    hidden: Array, rows: Array, bias: Array, targets: Array, weight: Array, smoothing: Array, blocks: Blocks,
    shard: Shard,
) -> Array:  # fmt: skip
    """Sum of ``weight * cross_entropy`` over positions, a scalar, in float32 or the wider of the inputs. What is
    multiplied is of the type of ``hidden``: wider rows are rounded for it, and get their gradient as it is summed.

    ``hidden`` (n, d), ``rows`` (1 + i, d), ``bias`` (1 + i,), ``targets`` and ``weight`` (n,), ``smoothing`` ().
    Row 0 is never a candidate; a position of weight 0 may have any target. ``rows`` and ``bias`` are this device's
    piece, as ``shard`` says, and targets are rows of the whole; all pieces' devices must have the same ``hidden``, and
    get its whole gradient.
    """
    targets = jnp.clip(targets, 1, shard.rows - 1)
    candidates = jnp.where(shard.real(rows), bias, -jnp.inf)
    low = rows.astype(hidden.dtype)

    def one(_: None, block: tuple[Array, ...]) -> tuple[None, tuple[Array, Array]]:
        return None, _normaliser(block[0], low, candidates, block[1], blocks.items, shard)

    _, found = lax.scan(one, None, cut((hidden, targets), blocks.positions))
    log_z, hit = (_joined(part, len(targets)) for part in found)
    return jnp.sum(weight * (log_z - hit + smoothing * (hit - _mean_score(hidden, rows, bias, shard))))


def _forward(
    hidden: Array, rows: Array, bias: Array, targets: Array, weight: Array, smoothing: Array, blocks: Blocks,
    shard: Shard,
) -> tuple[Array, tuple[Array, ...]]:  # fmt: skip
    targets = jnp.clip(targets, 1, shard.rows - 1)
    candidates = jnp.where(shard.real(rows), bias, -jnp.inf)
    gradients = (
        _gradients_of_whole_rows if blocks.items == len(rows) else partial(_gradients_by_items, items=blocks.items)
    )
    low = rows.astype(hidden.dtype)
    d_rows, d_bias, log_z, hit, d_hidden = _accumulate(
        partial(gradients, shard=shard), hidden, low, candidates, targets, weight, blocks.positions
    )

    gap = hit - _mean_score(hidden, rows, bias, shard)
    losses = log_z - hit + smoothing * gap
    on_target = weight * (1 - smoothing)
    even = smoothing * _even_share(rows, shard)
    d_hidden -= on_target[:, None] * shard.own(low, targets) + weight[:, None] * (even @ rows)[None, :]
    places = shard.places(rows, targets)
    d_rows = d_rows.at[places].add(-on_target[:, None] * hidden, mode="drop")
    d_rows -= even[:, None] * (weight @ hidden)[None, :]
    d_bias = d_bias.at[places].add(-on_target, mode="drop") - even * jnp.sum(weight)
    found = (shard.total(d_hidden), d_rows, d_bias, losses, jnp.sum(weight * gap))
    wanted = (hidden.dtype, rows.dtype, bias.dtype, weight.dtype, smoothing.dtype)
    return jnp.sum(weight * losses), tuple(part.astype(dtype) for part, dtype in zip(found, wanted, strict=True))


def _backward(blocks: Blocks, shard: Shard, found: tuple[Array, ...], cotangent: Array) -> tuple[Array | None, ...]:
    d_hidden, d_rows, d_bias, d_weight, d_smoothing = (part * cotangent.astype(part.dtype) for part in found)
    return d_hidden, d_rows, d_bias, None, d_weight, d_smoothing


fused_cross_entropy.defvjp(_forward, _backward)


def _accumulate(
    gradients: Callable[..., Any],
    hidden: Array,
    rows: Array,
    bias: Array,
    targets: Array,
    weight: Array,
    positions: int,
) -> tuple[Array, ...]:
    """Gradients of the weighted sum of log normalisers: of rows and bias summed over blocks, the rest per position."""
    wide = wide_type(hidden)
    zero = (jnp.zeros(rows.shape, wide), jnp.zeros(bias.shape, wide))

    def one(sums: tuple[Array, Array], block: tuple[Array, ...]) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        d_rows, d_bias, *rest = gradients(*block, rows, bias)
        return (sums[0] + d_rows, sums[1] + d_bias), tuple(rest)

    (d_rows, d_bias), found = lax.scan(one, zero, cut((hidden, targets, weight), positions))
    return d_rows, d_bias, *(_joined(part, len(targets)) for part in found)


def _gradients_of_whole_rows(
    h: Array, target: Array, weight: Array, rows: Array, bias: Array, *, shard: Shard
) -> tuple[Array, ...]:
    scores = product(h, rows.T) + bias[None, :]
    top = shard.most(jnp.max(scores, axis=1))
    powers = jnp.exp(scores - top[:, None])
    total = shard.total(jnp.sum(powers, axis=1))
    place = shard.places(rows, target)[:, None]
    hit = shard.total(jnp.take_along_axis(scores, place, axis=1, mode="fill", fill_value=0)[:, 0])
    scale = weight / total
    low = powers.astype(rows.dtype)
    d_hidden = product(low, rows) * scale[:, None]
    d_rows = product(low.T, (h * scale[:, None]).astype(h.dtype))
    return d_rows, scale @ powers, top + jnp.log(total), hit, d_hidden


def _normaliser(h: Array, rows: Array, bias: Array, target: Array, items: int, shard: Shard) -> tuple[Array, Array]:
    """Log of the summed exponentials, and the target's score, of each position: an online log-sum-exp over blocks."""
    places = shard.places(rows, target)

    def one(carry: Any, block: Array) -> tuple[Any, None]:
        top, total, hit = carry
        start, part, part_bias = items_of(rows, bias, block, items)
        scores = product(h, part.T) + part_bias[None, :]
        new = jnp.maximum(top, jnp.max(scores, axis=1))
        total = total * jnp.exp(top - new) + jnp.sum(jnp.exp(scores - new[:, None]), axis=1)
        place = jnp.clip(places - start, 0, items - 1)
        own = jnp.take_along_axis(scores, place[:, None], axis=1)[:, 0]
        return (new, total, jnp.where((places // items == block) & (places < len(rows)), own, hit)), None

    wide, positions = wide_type(h), len(h)
    start = (jnp.full(positions, jnp.finfo(wide).min, wide), jnp.zeros(positions, wide), jnp.zeros(positions, wide))
    (here, total, hit), _ = lax.scan(one, start, jnp.arange(-(-len(rows) // items)))
    top = shard.most(here)
    return top + jnp.log(shard.total(total * jnp.exp(here - top))), shard.total(hit)


def _gradients_by_items(
    h: Array, target: Array, weight: Array, rows: Array, bias: Array, *, items: int, shard: Shard
) -> tuple[Array, ...]:
    log_z, hit = _normaliser(h, rows, bias, target, items, shard)

    def one(sums: Any, block: Array) -> tuple[Any, None]:
        d_hidden, d_rows, d_bias = sums
        start, part, part_bias = items_of(rows, bias, block, items)
        scores = product(h, part.T) + part_bias[None, :]
        shares = jnp.exp(scores - log_z[:, None]) * weight[:, None]
        low = shares.astype(rows.dtype)
        d_rows = _add_at(d_rows, start, product(low.T, h))
        d_bias = _add_at(d_bias, start, jnp.sum(shares, axis=0))
        return (d_hidden + product(low, part), d_rows, d_bias), None

    zero = tuple(jnp.zeros(like.shape, wide_type(h)) for like in (h, rows, bias))
    (d_hidden, d_rows, d_bias), _ = lax.scan(one, zero, jnp.arange(-(-len(rows) // items)))
    return d_rows, d_bias, log_z, hit, d_hidden


def items_of(rows: Array, bias: Array, block: Array, items: int) -> tuple[Array, Array, Array]:
    """First row, rows and bias of a block. The last block starts early to be full; what it repeats gets ``-inf``."""
    start = jnp.minimum(block * items, len(rows) - items)
    part = lax.dynamic_slice_in_dim(rows, start, items)
    part_bias = lax.dynamic_slice_in_dim(bias, start, items)
    return start, part, jnp.where(start + jnp.arange(items) < block * items, -jnp.inf, part_bias)


def _add_at(total: Array, start: Array, part: Array) -> Array:
    old = lax.dynamic_slice_in_dim(total, start, len(part))
    return lax.dynamic_update_slice_in_dim(total, old + part, start, 0)


def wide_type(like: Array) -> Any:
    """What sums of ``like`` are made in: float32, or its own type where that is wider."""
    return jnp.promote_types(like.dtype, jnp.float32)


def product(left: Array, right: Array) -> Array:
    """The matrix product of numbers in the type of ``left``, summed and handed out in `wide_type`."""
    return jnp.matmul(left, right.astype(left.dtype), preferred_element_type=wide_type(left))


def _mean_score(hidden: Array, rows: Array, bias: Array, shard: Shard) -> Array:
    share = _even_share(rows, shard)
    return shard.total(hidden @ (share @ rows) + share @ bias)


def _even_share(rows: Array, shard: Shard) -> Array:
    """The even distribution over candidates: 0 for rows that are none."""
    return shard.real(rows) / jnp.asarray(shard.rows - 1, rows.dtype)


def cut(arrays: Any, positions: int) -> Any:
    """Cut the first axis of every array of a tree in blocks, the last one filled with zeros."""

    def one(leaf: Array) -> Array:
        full = jnp.pad(leaf, ((0, -len(leaf) % positions), *((0, 0),) * (leaf.ndim - 1)))
        return full.reshape(-1, positions, *leaf.shape[1:])

    return jax.tree.map(one, arrays)


def _joined(part: Array, length: int) -> Array:
    return part.reshape(-1, *part.shape[2:])[:length]
