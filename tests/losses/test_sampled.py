"""Losses that sample, whole: which items count, with what taken off their scores, against float64; and their laws."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.special import expit as sigmoid, log_expit as log_sigmoid, logsumexp, softmax

from jaxrec.config import Mistake
from jaxrec.losses import BCE, BPR, GBCE, SCE, TOP1, BPRMax, SampledSoftmax, TOP1Max, sampled
from jaxrec.losses.loss import Positions, traced, with_hyper
from jaxrec.losses.scalable import hardest

ITEMS, ROWS, TIME, WIDTH = 9, 3, 4, 3
COUNTS = np.array([0, 5, 1, 20, 3, 0, 8, 2, 40, 1])
SQUARES = np.array([0, 4, 1, 16, 9, 1, 4, 25, 1, 9])  # counts whose roots are whole


def inputs(seed=0, dtype=np.float64):
    """``hidden, rows, bias, weight``, and the positions: some padding, several of one target."""
    rng = np.random.default_rng(seed)
    shapes = (ROWS * TIME, WIDTH), (ITEMS + 1, WIDTH), (ITEMS + 1,)
    mask = np.arange(TIME)[None] < np.array([[4], [2], [3]])
    target = np.where(mask, rng.choice([1, 3, 8], mask.shape), 0).reshape(-1)
    weight = rng.uniform(0.5, 2, mask.size) * mask.reshape(-1)
    floats = [jnp.asarray(leaf, dtype) for leaf in (*(rng.normal(size=s) for s in shapes), weight)]
    keys = jax.random.split(jax.random.key(seed), ROWS + 1)
    return floats, Positions(jnp.asarray(target, jnp.int32), jnp.asarray(mask.reshape(-1)), keys[1:], keys[0])


def evaluate(loss, floats, positions, counts=COUNTS):
    """What was drawn, the value, and its gradients with respect to ``hidden, rows, bias``; one program."""

    @jax.jit
    def everything(floats, positions, counts):
        *floats, weight = floats
        drawn = loss.draw(loss.know(counts), positions)
        return drawn, *jax.value_and_grad(lambda f: loss(*f, positions.targets, weight, drawn))(floats)

    return everything(floats, positions, jnp.asarray(counts))


def correction(loss, item, among_targets, events):
    """What log-Q takes off a candidate's score."""
    if not isinstance(loss, SampledSoftmax):
        return 0.0
    count = max(COUNTS[item], 1)
    if loss.correction == "raw":
        return loss.log_q * np.log(count if among_targets else count**loss.alpha)
    powers = (np.where(COUNTS > 0, COUNTS, loss.alpha == 0) ** loss.alpha)[1:]
    often = loss.negatives * count**loss.alpha / powers.sum()
    often += (events - 1) * count / COUNTS.sum() if loss.in_batch else 0
    return loss.log_q * np.log(often)


def row_of(loss, p, n):
    """The papers' losses of one positive and its negatives."""
    share = softmax(n)
    ranks = sigmoid(n - p) + sigmoid(n**2)
    beta = 1 + loss.t * (loss.negatives / ITEMS - 1) if isinstance(loss, GBCE) else 1.0
    return {
        "SampledSoftmax": lambda: logsumexp([p, *n]) - p,
        "BPR": lambda: -log_sigmoid(p - n).mean(),
        "BPRMax": lambda: -np.log(share @ sigmoid(p - n)) + loss.reg * share @ n**2,
        "TOP1": ranks.mean,
        "TOP1Max": lambda: share @ ranks,
    }.get(type(loss).__name__, lambda: -beta * log_sigmoid(p) - log_sigmoid(-n).sum())()


def specification(loss, floats, positions, ids):
    """The weighted sum, one position and one candidate after another; ``ids (n, k)`` is what each was given."""
    hidden, rows, bias, weight = (np.asarray(leaf, float) for leaf in floats)
    targets, real = np.asarray(positions.targets), np.asarray(positions.mask)
    total, events = 0.0, real.sum()
    mean = np.sum(COUNTS * np.maximum(COUNTS, 1.0) ** -loss.propensity) / COUNTS.sum()
    curved = lambda s: s if getattr(loss, "elu", None) is None else np.where(s > 0, s, loss.elu * np.expm1(s))  # noqa: E731
    raw = getattr(loss, "correction", None) == "raw"
    for place in np.flatnonzero(real):
        own, score = targets[place], (rows @ hidden[place] + bias) / loss.temperature
        others = [n for n in range(len(targets)) if real[n] and n != place] if loss.in_batch else []
        found = [(targets[n], True) for n in others] + [(item, False) for item in ids[place]]
        found = [pair for pair in found if loss.hits == "kept" or pair[0] != own]
        negatives = np.array([score[i] - correction(loss, i, among, events) for i, among in found])
        positive = score[own] - (correction(loss, own, True, events) if raw else 0)
        scale = weight[place] * COUNTS[own] ** -loss.propensity / mean
        total += scale * row_of(loss, curved(positive), curved(negatives))
    return total


def ids_of(loss, drawn, positions):
    """The drawn items of every position ``(n, k)``; targets of others stand before them."""
    among = len(positions.targets) if loss.in_batch else 0
    if drawn.shared is not None:
        np.testing.assert_array_equal(drawn.shared.ids[:among], positions.targets[:among])
    return np.tile(drawn.shared.ids[among:], (len(positions.targets), 1)) if drawn.own is None else drawn.own.ids


CASES = {
    "softmax, shared": SampledSoftmax(negatives=5, alpha=0.5),
    "softmax, own, warm": SampledSoftmax(negatives=4, alpha=1.0, shared=False, temperature=0.6, log_q=0.7),
    "softmax, in batch": SampledSoftmax(negatives=0, in_batch=True, propensity=0.4),
    "softmax, both, kept": SampledSoftmax(negatives=5, alpha=0.3, in_batch=True, hits="kept", temperature=1.7),
    "softmax, in batch and own": SampledSoftmax(negatives=3, in_batch=True, shared=False),
    "raw": SampledSoftmax(negatives=6, alpha=0.5, in_batch=True, hits="kept", correction="raw", log_q=0.9),
    "BPR": BPR(negatives=2, alpha=0.5, propensity=0.7),
    "BPR, in batch": BPR(in_batch=True, hits="kept"),
    "GRU4Rec's BPR-max": BPRMax(negatives=4, alpha=0.5, in_batch=True, hits="kept", elu=0.5, reg=0.3),
    "TOP1": TOP1(negatives=4, elu=1.5, temperature=0.7),
    "TOP1-max": TOP1Max(negatives=4, in_batch=True, propensity=1.0),
    "BCE": BCE(negatives=6, shared=True, hits="kept", alpha=0.5, temperature=2.0),
    "gBCE": GBCE(negatives=6, t=0.4, shared=True),
    "gBCE, own": GBCE(negatives=3, t=1.0, shared=False, propensity=0.5),
}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def close(found, wanted, rtol=1e-11):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=1e-12), found, wanted)


@pytest.mark.parametrize("loss", CASES.values(), ids=CASES)
def test_who_counts_and_how_much(loss):
    """Padding's targets lie among the candidates, drawn items hit targets, and items of no events are drawn."""
    floats, positions = inputs(2)  # where targets have scores of both signs
    drawn, found, slopes = evaluate(loss, floats, positions)
    wanted = specification(loss, floats, positions, ids_of(loss, drawn, positions))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert not np.any(slopes[0][~positions.mask])
    assert not np.any([*slopes[1][0], slopes[2][0]])
    assert all(np.isfinite(leaf).all() for leaf in slopes)


@pytest.mark.parametrize(("name", "scores"), [("softmax, in batch and own", 40), ("GRU4Rec's BPR-max", 5)])
def test_blocks_of_any_size_are_the_whole(name, scores, monkeypatch):
    """Several positions a block, the last block not full; and one position each."""
    floats, positions = inputs(1)
    whole = evaluate(CASES[name], floats, positions)
    monkeypatch.setattr(sampled, "SCORES", scores)
    close(evaluate(CASES[name], floats, positions)[1:], whole[1:])


@pytest.mark.parametrize("name", ["raw", "GRU4Rec's BPR-max", "gBCE, own"])
def test_numerical_derivatives(name):
    """In every float argument and in every float field but ``alpha``, which what is drawn does not follow smoothly."""
    floats, positions = inputs(2)
    loss = CASES[name]
    fields = {field: jnp.asarray(getattr(loss, field)) for field in traced(loss) if field != "alpha"}

    @jax.jit
    def value(floats, fields):
        *most, weight = floats
        chosen = with_hyper(loss, fields)
        return chosen(*most, positions.targets, weight, chosen.draw(chosen.know(jnp.asarray(COUNTS)), positions))

    check_grads(value, (floats, fields), 1, modes=["rev"])


HALF = CASES | {"SCE": SCE(buckets=3, positions=99, items=99, temperature=0.6, propensity=0.5)}


@pytest.mark.parametrize("loss", HALF.values(), ids=HALF)
def test_half_precision_is_what_goes_in_and_nothing_is_rounded_to_it_after(loss):
    """The value of the same inputs as float64 has it; gradients are handed out in half precision."""
    floats, positions = inputs(2, jnp.bfloat16)
    _, found, slopes = evaluate(loss, floats, positions)
    _, wanted, wanted_slopes = evaluate(loss, [leaf.astype(float) for leaf in floats], positions)
    np.testing.assert_allclose(found, wanted, rtol=2e-6)
    for slope, exact in zip(slopes, wanted_slopes, strict=True):
        assert slope.dtype == jnp.bfloat16
        np.testing.assert_allclose(slope.astype(float), exact, rtol=0.02, atol=0.02 * np.abs(exact).max())


@pytest.mark.parametrize("loss", HALF.values(), ids=HALF)
def test_wider_rows_are_rounded_where_they_are_multiplied_and_get_their_gradient_unrounded(loss):
    (hidden, *rest), positions = inputs(2, np.float32)
    hidden = hidden.astype(jnp.bfloat16)
    _, found, slopes = evaluate(loss, [hidden, *rest], positions)
    _, wanted, wanted_slopes = evaluate(loss, [leaf.astype(float) for leaf in (hidden, *rest)], positions)
    np.testing.assert_allclose(found, wanted, rtol=0.01)
    assert [str(slope.dtype) for slope in slopes] == ["bfloat16", "float32", "float32"]
    for slope, exact in zip(slopes, wanted_slopes, strict=True):
        np.testing.assert_allclose(slope.astype(float), exact, atol=0.02 * np.abs(exact).max())


def full(floats, positions, temperature=1.0, among=1.0):
    """The full softmax, value and gradients; what other items weigh is multiplied by ``among``."""
    own = jax.nn.one_hot(positions.targets - 1, ITEMS, dtype=bool)
    *floats, weight = floats

    def value(floats):
        hidden, rows, bias = floats
        scores = ((hidden @ rows.T + bias[None]) / temperature)[:, 1:]
        scores = jnp.where(own, scores, scores + jnp.log(among))
        return jnp.sum(weight * (jax.nn.logsumexp(scores, axis=1) - jnp.sum(jnp.where(own, scores, 0), axis=1)))

    return jax.jit(jax.value_and_grad(value))(floats)


@pytest.mark.parametrize(("shared", "log_q"), [(True, 1.0), (False, 1.0), (True, 0.0)])
def test_drawn_exactly_as_often_as_expected_it_is_the_full_softmax(shared, log_q, monkeypatch):
    """To the last digit, in value and gradients; without the correction it is not."""
    floats, positions = inputs(3)
    ids = jnp.asarray(np.repeat(np.arange(ITEMS + 1), 2 * np.sqrt(SQUARES).astype(int)))
    monkeypatch.setattr(sampled, "draw", lambda key, known, shape: jnp.broadcast_to(ids, shape))
    loss = SampledSoftmax(negatives=len(ids), alpha=0.5, shared=shared, log_q=log_q, temperature=0.7)
    _, found, slopes = evaluate(loss, floats, positions, SQUARES)
    wanted = full(floats, positions, 0.7)
    if log_q:
        close((found, slopes), wanted)
    else:
        assert found > 1.2 * wanted[0]


def population(targets, seed):
    """``inputs`` for any targets, all of them real; two vectors in turn."""
    (hidden, rows, bias, _), positions = inputs(seed)
    weight = jnp.full(len(targets), 1 / len(targets))
    real = positions._replace(targets=jnp.asarray(targets, jnp.int32), mask=weight > 0, keys=positions.keys[:1])
    return [jnp.tile(hidden[:2], (len(targets) // 2, 1)), rows, bias, weight], real


def test_targets_exactly_as_often_as_expected_are_the_full_softmax_too():
    """Of n targets the n - 1 others are expected; here, where all n follow the counts, others are n / (n - 1) of it."""
    count = SQUARES.sum()
    floats, positions = population(np.repeat(np.arange(ITEMS + 1), SQUARES), 0)
    _, *found = evaluate(SampledSoftmax(negatives=0, in_batch=True), floats, positions, SQUARES)
    close(tuple(found), full(floats, positions, among=count / (count - 1)))


@pytest.mark.parametrize("log_q", [1.0, 0.0])
def test_with_many_real_draws_and_real_targets_it_becomes_the_full_softmax(log_q):
    """In the batch targets follow their counts whatever the vector."""
    targets = np.random.default_rng(1).choice(ITEMS + 1, 2000, p=SQUARES / SQUARES.sum())
    floats, positions = population(targets, 4)
    loss = SampledSoftmax(negatives=1000, alpha=0.5, in_batch=True, log_q=log_q)
    _, found, slopes = evaluate(loss, floats, positions, SQUARES)
    wanted, wanted_slopes = full(floats, positions)
    apart = np.abs(slopes[1] - wanted_slopes[1]).max() / np.abs(wanted_slopes[1]).max()
    assert [abs(found / wanted - 1) < 0.02, apart < 0.08] == [log_q == 1] * 2


@pytest.mark.parametrize(("buckets", "places"), [(3, 99), (1, 9)])
def test_buckets_of_everything_are_the_full_softmax(buckets, places):
    """Whatever stands in the padding row; and padding takes no place from the nine real positions."""
    floats, positions = inputs(6)
    loud = [floats[0], floats[1].at[0].set(1e3), *floats[2:]]
    _, *found = evaluate(SCE(buckets=buckets, positions=places, items=99, temperature=0.6), loud, positions)
    close(tuple(found), full(floats, positions, 0.6))
    directions = jnp.asarray(np.random.default_rng(0).normal(size=(50, WIDTH)))
    scores, what = hardest(directions, loud[1], 4)
    assert (what > 0).all()
    np.testing.assert_allclose(scores, np.sort(directions @ floats[1][1:].T)[:, :-5:-1], rtol=1e-12)


@pytest.mark.parametrize("most", [1, 12, 28, 44, 72])
def test_the_hardest_by_blocks_of_any_size_are_those_of_the_whole_and_of_equal_ones_the_first(most):
    """Blocks of 1, 3, 7 and 11 of the 18 rows and of all; the last one overlaps, some are smaller than the list."""
    rng = np.random.default_rng(0)
    directions, rows = (rng.integers(-2, 3, shape).astype(float) for shape in ((4, WIDTH), (18, WIDTH)))
    rows[0], rows[3:15:4] = 99, 2  # padding lies furthest, and three rows are equal
    along = (directions @ rows.T)[:, 1:]
    wanted = 1 + np.argsort(-along, axis=1, kind="stable")
    for count in (1, 5, 17, 40):
        scores, what = jax.jit(partial(hardest, count=count, most=most))(jnp.asarray(directions), jnp.asarray(rows))
        np.testing.assert_array_equal(what, wanted[:, :count])
        np.testing.assert_array_equal(scores, np.take_along_axis(along, wanted[:, :count] - 1, axis=1))


def of_buckets(floats, positions, who, what, temperature):
    """SCE by its description, one position after another."""
    hidden, rows, bias, weight = (np.asarray(leaf) for leaf in floats)
    found = {}
    for place, items in ((p, items) for bucket, items in zip(who, what, strict=True) for p in bucket if weight[p] > 0):
        score, own = (rows @ hidden[place] + bias) / temperature, int(positions.targets[place])
        loss = logsumexp(score[[own, *(item for item in items if item != own)]]) - score[own]
        found[place] = max(loss, found.get(place, -np.inf))
    return sum(weight[p] * loss for p, loss in found.items()) * weight.sum() / sum(weight[p] for p in found)


def test_a_position_counts_in_its_hardest_bucket_and_not_at_all_outside_of_them():
    floats, positions = inputs(7)
    who = jnp.array([[0, 1, 4, 7], [1, 0, 8, 2], [0, 8, 1, 9]])
    what = jnp.array([[1, 2, 8], [8, 3, 9], [9, 3, 8]])
    assert floats[3][7] == 0, "padding in a bucket; 3, 5 and 10 are in none"

    @jax.jit
    def value(*floats):
        *floats, weight = floats
        return SCE(temperature=0.8).of_buckets(*floats, positions.targets, weight, weight > 0, who, what)

    found, wanted = value(*floats), of_buckets(floats, positions, who.tolist(), what.tolist(), 0.8)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    check_grads(lambda *most: value(*most, floats[3]), tuple(floats[:3]), 1, modes=["rev"])
    outside = jnp.array([3, 5, 6, 7, 10, 11])
    assert value(floats[0].at[outside].set(1e3), *floats[1:]) == found
    assert not jax.jit(jax.grad(value))(*floats)[outside].any()


def test_no_direction_leans_on_padding():
    (hidden, rows, bias, weight), positions = inputs(6)
    small = SCE(buckets=4, positions=3, items=3)
    _, *quiet = evaluate(small, [hidden, rows, bias, weight], positions)
    _, *loud = evaluate(small, [jnp.where(weight[:, None] > 0, hidden, 1e3), rows, bias, weight], positions)
    close(loud, quiet)
    _, *nothing = evaluate(small, [hidden, rows, bias, jnp.zeros_like(weight)], positions)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(nothing)), "a step of padding is zero, not NaN"


MISTAKES = [
    (partial(SampledSoftmax, negatives=-1), "negatives = -1 is out of range; give a number at least 0"),
    (partial(BPR, negatives=0), "negatives = 0 leaves nothing to tell a target from"),
    (partial(BPR, alpha=-0.5), "alpha = -0.5 is out of range"),
    (partial(TOP1, temperature=0.0), "temperature = 0.0 is out of range; give a number above 0"),
    (partial(BCE, propensity=float("nan")), "propensity = nan is out of range"),
    (partial(GBCE, t=1.5), "t = 1.5 is out of range; give a number at least 0 and at most 1"),
    (partial(GBCE, in_batch=True), "leave out in_batch and alpha, or use bce"),
    (partial(GBCE, alpha=0.5), "leave out in_batch and alpha, or use bce"),
    (partial(SCE, items=0), "items = 0 is out of range"),
    (partial(SCE, items=None), "items = None is not a whole number"),
    (partial(SCE, buckets=2.5), "buckets = 2.5 is not a whole number"),
    (partial(SampledSoftmax, log_q=float("nan")), "log_q = nan is out of range; give a number at least 0"),
    (partial(SampledSoftmax, log_q=np.float32("nan")), "log_q = nan is out of range"),
    (partial(SampledSoftmax, correction="Raw"), "'Raw' is not one of 'expected', 'raw'; did you mean 'raw'"),
    (partial(BPRMax, hits="keep"), "hits = 'keep' is not one of 'masked', 'kept'; did you mean 'kept'"),
    (partial(GBCE, negatives=2.5), "negatives = 2.5 is not a whole number"),
    (partial(TOP1Max, elu="1"), "elu = '1' is not a number"),
    (partial(BPR, shared=1), "shared = 1 is not a truth value"),
    (partial(BPR, negatives=0, in_batch=True, alpha=0.5),
     "alpha = 0.5 says how negatives are drawn, and negatives = 0 draws none; leave alpha out, or draw some"),
    (partial(BPR, negatives=0, in_batch=True, shared=True), "shared = True says how negatives are drawn"),
    (partial(TOP1, negatives=0, in_batch=True, shared=False), "shared = False says how negatives are drawn"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "part"), MISTAKES)
def test_mistakes(make, part):
    with pytest.raises(Mistake, match=re.escape(part)):
        make()


def test_numbers_that_are_traced_or_numpys_are_no_mistakes():
    """Whatever they are: nobody can look at a traced one, and ``alpha`` of a population may move nothing."""
    both = SampledSoftmax(negatives=np.int64(3), in_batch=True, shared=np.bool_(False), alpha=np.float32(0.5))
    alone = SampledSoftmax(negatives=0, in_batch=True)

    @jax.jit
    def made(hyper):
        return [getattr(with_hyper(loss, hyper), name) for loss in (both, alone) for name in hyper]

    hyper = {"alpha": 0.5, "log_q": jnp.nan, "propensity": jnp.nan, "temperature": -1.0}
    np.testing.assert_array_equal(made(hyper), 2 * list(hyper.values()))


def test_what_needs_the_counts_says_so():
    for needy in (lambda: BPR().know(None), lambda: SCE(propensity=0.5).draw(None, inputs()[1])):
        with pytest.raises(ValueError, match="training counts"):
            needy()
    assert (BPR().samples, SCE().samples) == (True, False)
