"""Curves over lag: horizons, labels, quantiles and intervals against plain definitions."""

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

from jaxrec.diagnostics.curves import (
    area,
    by_lag,
    described,
    horizons,
    kept_lags,
    label,
    lyapunov,
    mean_log10,
    median,
    quantiles,
    reach,
)  # fmt: skip
from jaxrec.diagnostics.powers import Norms


def fading(rate, lags=100, examples=1):
    """Every example loses the factor ``rate`` an event."""
    return np.tile(np.arange(lags) * np.log10(rate), (examples, 1))


def test_a_curve_runs_backwards_from_its_step_and_ends_with_its_own_events():
    norms = np.arange(12.0).reshape(2, 6)
    found = by_lag(norms, 4, np.array([2, 5]))
    assert np.array_equal(found, [[4, 3, np.nan, np.nan, np.nan], [10, 9, 8, 7, 6]], equal_nan=True)


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.99])
def test_horizons_of_a_geometric_curve_are_known(rate):
    found = horizons(fading(rate, lags=2_000, examples=5))
    wanted = {"e_fold": -1 / np.log(rate), "half_life": np.log(0.5) / np.log(rate), "lyapunov": -1 / np.log(rate)}
    wanted |= {"one_percent": np.log(0.01) / np.log(rate), "area": 1 / (1 - rate)}
    for name, value in wanted.items():
        assert found[name]["value"] == pytest.approx(value, rel=1e-4), name
        assert found[name]["low"] == pytest.approx(value, rel=1e-4) == found[name]["high"]


def test_a_horizon_that_is_not_reached_is_longer_than_what_was_looked_at():
    found = horizons(fading(0.99, lags=50, examples=3))
    assert found["one_percent"] == {"value": None, "low": None, "high": None, "beyond": 49}
    assert horizons(fading(1.1, lags=50))["lyapunov"]["value"] == pytest.approx(-1 / np.log(1.1), rel=1e-4)


def test_a_curve_that_rises_again_reaches_as_far_as_its_last_rise():
    curve = np.log10(np.array([1.0, 0.1, 0.1, 0.9, 0.1, 0.01]))
    assert 3 < reach(curve, 0.5) < 4
    assert reach(curve, 0.95) < 1


def test_zeros_end_a_curve_and_are_not_numbers_that_underflow():
    curve = np.array([[0.0, -0.1, -np.inf, -np.inf]])
    assert reach(curve[0], 0.5) == 2.0
    assert area(curve[0]) == pytest.approx(1 + 10**-0.1)
    record = described(curve)
    assert record["zeros"] == [0, 0, 1, 1]
    assert record["log10_quantiles"]["0.5"] == [0, -0.1, None, None]
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@pytest.mark.parametrize(
    ("rate", "lags", "wanted"),
    [(0.9, 100, "vanishing"), (0.9, 20, "in band"), (1.0, 100, "in band"), (1.1, 100, "exploding")],
)
def test_labels_follow_the_thresholds(rate, lags, wanted):
    assert label(fading(rate, lags)[0]) == wanted


def test_a_label_knows_a_bump_and_no_gradient_at_all():
    assert label(np.array([0.0, 1.1, -5.0])) == "exploding"
    assert label(np.array([-np.inf, -np.inf])) == "zero"
    assert label(np.array([np.nan])) == "zero"


def test_the_mean_of_norms_does_not_overflow_and_skips_missing_lags():
    curve = np.array([[0.0, 400.0, -5_000.0], [1.0, 400.0, np.nan]])
    assert mean_log10(curve) == pytest.approx([np.log10(5.5), 400.0, -5_000.0])


def test_quantiles_are_values_of_examples():
    curve = np.array([[1.0, -np.inf], [2.0, np.nan], [3.0, 7.0]])
    assert np.array_equal(quantiles(curve, (0.0, 0.5, 1.0)), [[1, -np.inf], [2, -np.inf], [3, 7]])
    assert np.isnan(median(np.full((3, 1), np.nan)))


@given(st.integers(1, 20_000))
def test_lags_that_are_kept_begin_with_all_and_end_with_the_last(count):
    lags = kept_lags(count)
    assert lags[0] == 0
    assert lags[-1] == count - 1
    assert (np.diff(lags) > 0).all()
    assert len(lags) <= 100
    assert np.array_equal(lags[:24], np.arange(min(count, 24)))


@given(st.lists(st.floats(-3, 1), min_size=2, max_size=60), st.floats(0.05, 0.9))
def test_a_lower_level_is_reached_no_earlier(values, level):
    curve = np.array([0.0, *values])
    assert reach(curve, level / 2) >= reach(curve, level)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    """Examples fade at rates spread about a truth; the half-life of the median's truth lies in 95 % intervals."""
    noise, hits = np.random.default_rng(0), 0
    for trial in range(30):
        rates = 0.9 + 0.02 * noise.standard_normal(32)
        curve = np.arange(20)[None] * np.log10(rates)[:, None]
        found = horizons(curve, seed=trial)["half_life"]
        hits += found["low"] <= np.log(0.5) / np.log(0.9) <= found["high"]
    assert hits >= 25


def test_lyapunov_leaves_the_first_lags_out_and_needs_two():
    curve = np.concatenate([[5.0] * 5, np.arange(5, 40) * np.log10(0.8)])
    assert lyapunov(curve) == pytest.approx(-1 / np.log(0.8))
    assert np.isnan(lyapunov(np.array([0.0])))


def test_exponents_are_added_in_float64():
    norms = Norms(np.array([1.5], np.float32), np.array([-40_000], np.int32))
    assert norms.log10()[0] == pytest.approx(np.log10(1.5) - 40_000 * np.log10(2), abs=1e-9)
