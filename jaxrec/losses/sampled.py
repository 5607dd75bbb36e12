"""Losses against sampled negatives, one class each; what they compute is in `pairwise`."""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from jaxrec.config import Mistake, Within
from jaxrec.losses import pairwise
from jaxrec.losses.fused import cut, product, wide_type
from jaxrec.losses.loss import Loss, Positions, given, weighted
from jaxrec.losses.negatives import NOTHING, Candidates, Drawn, Popularity, draw, log_counts, popularity

Hits = Literal["masked", "kept"]
Correction = Literal["expected", "raw"]

SCORES = 2**22  # the most that are held at one time


def summed(block: Callable[..., Array], arrays: Any, blocks: int) -> Array:
    """The sum of ``block(*arrays)`` over equal blocks of their first axis, padded with zeros; memory of one block."""
    if blocks <= 1:
        return block(*arrays)
    parts = cut(arrays, -(-len(jax.tree.leaves(arrays)[0]) // blocks))
    zero = jax.eval_shape(block, *jax.tree.map(lambda leaf: leaf[0], parts))
    add = jax.checkpoint(lambda total, part: (total + block(*part), None))
    return jax.lax.scan(add, jnp.zeros((), zero.dtype), parts)[0]


@dataclass(frozen=True)
class Sampled(Loss):
    """A loss that tells each target from some other items."""

    negatives: int = 256
    """items drawn, with replacement: once a step for all positions, or for every position unless shared"""
    alpha: float = 0.0
    """an item is drawn in proportion to its count to this power: 0 uniform, 1 by popularity"""
    in_batch: bool = False
    """also the targets of the step's other positions, as they stand (several for an item that occurs several times)"""
    shared: bool = True
    """one draw for all positions of a step, a single matrix product; otherwise each position has its own"""
    hits: Hits = "masked"
    """negatives that are the position's own target: left out, or counted as GRU4Rec does"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("negatives", Annotated[int, Within(0)])
        self.check("alpha", Annotated[float, Within(0)])
        self.check("hits", Hits)
        for name in ("in_batch", "shared"):
            self.check(name, bool)
        if not self.negatives:
            self.check_nothing_drawn()

    def check_nothing_drawn(self) -> None:
        """`Mistake` where there is nothing to tell a target from, or where something says how to draw it."""
        if not self.in_batch:
            raise Mistake("negatives = 0 leaves nothing to tell a target from; draw some, or add in_batch=true")
        idle = {"alpha": isinstance(self.alpha, int | float) and self.alpha, "shared": self.shared != type(self).shared}
        for name in filter(idle.get, idle):
            raise Mistake(
                f"{name} = {getattr(self, name)} says how negatives are drawn, and negatives = 0 draws none; leave "
                f"{name} out, or draw some"
            )

    @property
    def samples(self) -> bool:
        return True

    def know(self, counts: Array | None) -> Popularity:
        return popularity(self.counted(counts), self.alpha, self.propensity)

    def draw(self, known: Popularity | None, positions: Positions) -> Drawn:
        """Negatives of a step, drawn for all its positions so that devices and micro-batches see the same."""
        known, parts, column = self.counted(known), [], None
        if self.in_batch:
            parts.append(self.corrected(known, positions, positions.targets, positions.mask, among_targets=True))
            column = jnp.arange(len(positions.targets))
        own = None
        if self.negatives:
            if self.shared:
                ids = draw(positions.key, known, (self.negatives,))
                parts.append(self.corrected(known, positions, ids, jnp.ones(ids.shape, bool)))
            else:
                rows = len(positions.keys)
                shape = (len(positions.targets) // rows, self.negatives)
                ids = jax.vmap(lambda key: draw(key, known, shape))(positions.keys).reshape(-1, self.negatives)
                own = self.corrected(known, positions, ids, jnp.ones(ids.shape, bool))
        joined = Candidates(*(jnp.concatenate(leaves) for leaves in zip(*parts, strict=True))) if parts else None
        return Drawn(
            joined, own, column, self.correction_of_targets(known, positions), self.weights(known, positions),
            jnp.asarray(self.negatives / known.items, known.counts.dtype),
        )  # fmt: skip

    def corrected(
        self, known: Popularity, positions: Positions, ids: Array, real: Array, among_targets: bool = False
    ) -> Candidates:
        """Candidates with what log-Q correction takes off their scores: nothing, but for losses that correct."""
        return Candidates(ids, real, jnp.zeros(ids.shape, known.counts.dtype))

    def correction_of_targets(self, known: Popularity, positions: Positions) -> Array | None:
        return None

    def activated(self, scores: Array) -> Array:
        """Scores as the loss takes them."""
        return scores

    @abstractmethod
    def of(self, positive: Array, negatives: Array, real: Array, drawn: Drawn) -> Array:
        """The loss of each row: see `pairwise`."""

    def __call__(
        self, hidden: Array, rows: Array, bias: Array | None, targets: Array, weight: Array, drawn: Drawn = NOTHING
    ) -> Array:
        bias = given(bias, rows)
        columns = 0 if drawn.shared is None else drawn.shared.ids.shape[-1]
        columns += 0 if drawn.own is None else drawn.own.ids.shape[-1] * hidden.shape[-1]  # vectors, not scores alone
        weight = weighted(weight, drawn)

        def block(hidden: Array, targets: Array, weight: Array, apart: Drawn) -> Array:
            here = apart.joined(drawn)
            positive, negatives, real = self.scores(hidden, rows, bias, targets, here)
            return jnp.sum(weight * self.of(positive, negatives, real, here))

        blocks = math.ceil(len(targets) * columns / SCORES)
        return summed(block, (hidden, targets, weight, drawn.apart()), blocks)

    def scores(
        self, hidden: Array, rows: Array, bias: Array, targets: Array, drawn: Drawn
    ) -> tuple[Array, Array, Array]:
        """Scores of targets ``(n,)`` and of negatives ``(n, k)``, in `wide_type`, and which of these count."""
        found, counts, positive, wide = [], [], None, wide_type(hidden)
        if (shared := drawn.shared) is not None:
            scores = (product(hidden, rows[shared.ids].T) + bias[shared.ids][None]) / self.temperature
            real = self.counting(shared.ids[None], shared.real[None], targets)
            if drawn.column is not None:  # the target is there already: no row is looked up, and summed up, twice
                itself = jnp.arange(len(shared.ids))[None] == drawn.column[:, None]
                positive, real = jnp.sum(jnp.where(itself, scores, 0), axis=1), real & ~itself
            found.append(scores - shared.log_q[None].astype(scores.dtype))
            counts.append(real)
        if positive is None:
            positive = (jnp.sum(hidden.astype(wide) * rows[targets], axis=1) + bias[targets]) / self.temperature
        if drawn.log_q is not None:
            positive = positive - drawn.log_q.astype(positive.dtype)
        if (own := drawn.own) is not None:
            scores = jnp.einsum("nd,nkd->nk", hidden, rows[own.ids].astype(hidden.dtype), preferred_element_type=wide)
            scores = (scores + bias[own.ids]) / self.temperature
            found.append(scores - own.log_q.astype(scores.dtype))
            counts.append(self.counting(own.ids, own.real, targets))
        negatives = jnp.concatenate(found, axis=1) if len(found) > 1 else found[0]
        real = jnp.concatenate(counts, axis=1) if len(counts) > 1 else counts[0]
        return self.activated(positive), self.activated(negatives), real

    def counting(self, ids: Array, real: Array, targets: Array) -> Array:
        """Which candidates ``(n, k)`` count, by what `hits` says of those that are the position's own target."""
        if self.hits == "masked":
            return real & (ids != targets[:, None])
        return jnp.broadcast_to(real, (len(targets), real.shape[1]))


@dataclass(frozen=True)
class SampledSoftmax(Sampled):
    """Softmax cross-entropy among the target and its negatives (Jean et al. 2015), corrected for how they were drawn.

    ``correction="expected"`` takes the log of how often an item is expected among a position's negatives off its score,
    targets of other positions and draws together (Yang et al. 2020, https://doi.org/10.1145/3366424.3386195), and
    nothing off the target's, which is there for sure (Khrylchenko et al. 2025, https://arxiv.org/abs/2507.09331): with
    more and more negatives this becomes the full softmax. ``"raw"`` is GRU4Rec's: log of the count of a target, its own
    included, and of ``count^alpha`` of a draw.
    """

    log_q: float = 1.0
    """how much of the correction is made; 0 none"""
    correction: Correction = "expected"
    """what is corrected for"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("log_q", Annotated[float, Within(0)])
        self.check("correction", Correction)

    def corrected(
        self, known: Popularity, positions: Positions, ids: Array, real: Array, among_targets: bool = False
    ) -> Candidates:
        if self.correction == "raw":
            power = 1.0 if among_targets else known.alpha
            return Candidates(ids, real, self.log_q * power * log_counts(known.counts[ids]))
        drawn = jnp.log(jnp.maximum(self.negatives, 1e-9)) + known.log_drawn(ids)
        if self.in_batch:
            targets = jnp.log(jnp.maximum(jnp.sum(positions.mask) - 1, 1e-9)) + known.log_seen(ids)
            drawn = jnp.logaddexp(drawn, targets) if self.negatives else targets
        return Candidates(ids, real, self.log_q * drawn)

    def correction_of_targets(self, known: Popularity, positions: Positions) -> Array | None:
        if self.correction == "expected":
            return None
        return self.log_q * log_counts(known.counts[positions.targets])

    def of(self, positive: Array, negatives: Array, real: Array, drawn: Drawn) -> Array:
        return pairwise.sampled_softmax(positive, negatives, real)


@dataclass(frozen=True)
class Activated(Sampled):
    """A loss of GRU4Rec's family, whose scores may pass an exponential linear unit first."""

    elu: float | None = None
    """scores below zero become ``elu (e^score - 1)``; none leaves them"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("elu", Annotated[float | None, Within(0)])

    def activated(self, scores: Array) -> Array:
        return scores if self.elu is None else jax.nn.elu(scores, self.elu)


@dataclass(frozen=True)
class BPR(Activated):
    """Bayesian personalised ranking (Rendle et al. 2009), the mean over negatives."""

    negatives: int = 1
    shared: bool = False

    def of(self, positive: Array, negatives: Array, real: Array, drawn: Drawn) -> Array:
        return pairwise.bpr(positive, negatives, real)


@dataclass(frozen=True)
class BPRMax(Activated):
    """BPR against a softmax of the negatives (Hidasi and Karatzoglou 2018)."""

    reg: float = 1.0
    """weight of the squared scores of negatives, GRU4Rec's bpreg"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("reg", Annotated[float, Within(0)])

    def of(self, positive: Array, negatives: Array, real: Array, drawn: Drawn) -> Array:
        return pairwise.bpr_max(positive, negatives, real, self.reg)


@dataclass(frozen=True)
class TOP1(Activated):
    """A smooth relative rank with a penalty on the scores of negatives (Hidasi et al. 2016)."""

    def of(self, positive: Array, negatives: Array, real: Array, drawn: Drawn) -> Array:
        return pairwise.top1(positive, negatives, real)


@dataclass(frozen=True)
class TOP1Max(Activated):
    """TOP1 against a softmax of the negatives (Hidasi and Karatzoglou 2018)."""

    def of(self, positive: Array, negatives: Array, real: Array, drawn: Drawn) -> Array:
        return pairwise.top1_max(positive, negatives, real)


@dataclass(frozen=True)
class BCE(Sampled):
    """Binary cross-entropy of the target and of negatives, one each as in SASRec (Kang and McAuley 2018)."""

    negatives: int = 1
    shared: bool = False

    def of(self, positive: Array, negatives: Array, real: Array, drawn: Drawn) -> Array:
        return pairwise.binary_cross_entropy(positive, negatives, real)


@dataclass(frozen=True)
class GBCE(Sampled):
    """Generalised binary cross-entropy (gSASRec: Petrov and Macdonald 2023), calibrated for uniform negatives.

    Each position has its own, as in the paper. With ``shared=true`` a step is many times cheaper and moves far fewer
    items: the scores of the others, which must all fall, take as many more steps to do so.
    """

    shared: bool = False
    t: float = 0.75
    """how much of sampling's overconfidence is undone, 0 to 1"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("t", Annotated[float, Within(0, 1)])
        if self.in_batch or (isinstance(self.alpha, int | float) and self.alpha):
            raise Mistake("gbce is calibrated for uniform negatives; leave out in_batch and alpha, or use bce")

    def of(self, positive: Array, negatives: Array, real: Array, drawn: Drawn) -> Array:
        assert drawn.rate is not None
        return pairwise.gbce(positive, negatives, real, pairwise.gbce_beta(self.t, drawn.rate))
