"""Records of cells that never were: gradients that fade, stay, grow, vanish exactly, or are not numbers."""

import json
import math

import numpy as np
import pytest

FAMILIES = ("gated", "linear", "simple", "matrix", "oscillator", "time", "window", "context", "mine")
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
EVERY = "gradient training information shuffle gates eigenvalues lyapunov singular matrix task trace clipping weights"


class Made:
    """Draws the records of one subject."""

    def __init__(self, place, lengths, steps, width):
        self.rng = np.random.default_rng(place)
        self.family = FAMILIES[place % len(FAMILIES)]
        self.name = f"{self.family}-{place}" if place else "gru"
        self.lengths, self.width = lengths, width
        self.steps = [round(2000 * n / (steps - 1)) for n in range(steps)] if steps > 1 else [0]
        self.rate = float(10 ** self.rng.uniform(-2.6, -0.5))  # decades lost an event
        self.kind = {6: "zero", 2: "growing"}.get(place % len(FAMILIES), "fading")
        self.worth = 0.05 + 0.25 * float(self.rng.uniform())

    def common(self, step):
        phase = "start" if step == 0 else "end" if step == self.steps[-1] else "during"
        return {"subject": self.name, "cell": f"{self.name}(hidden={self.width})", "family": self.family,
                "run": f"runs/{self.name}" if len(self.steps) > 1 else None, "step": step, "phase": phase}  # fmt: skip

    def records(self):
        first, last = self.steps[0], self.steps[-1]
        main = self.lengths[min(2, len(self.lengths) - 1)]
        for step in self.steps:
            for length in self.lengths if step in (first, last) else [main]:
                yield self.common(step) | self.gradient(length, step)
            if step in (first, last):
                yield self.common(step) | self.gates(main, step)
                yield self.common(step) | self.eigenvalues(step)
            yield self.common(step) | self.lyapunov(step)
        for made in (self.singular, self.matrix, self.trace, self.weights):
            yield self.common(last) | made(main)
        for distance in (10, 20, 50, 100, 200):
            for task in ("copy", "adding"):
                yield self.common(last) | self.task(task, distance)
        if len(self.steps) > 1:
            for made in (self.information, self.shuffle, self.training, self.clipping):
                yield self.common(last) | made(main)

    def gradient(self, length, step):
        lags = np.unique(np.concatenate([np.arange(min(24, length)), np.geomspace(1, length - 1, 72).round()]))
        done = step / (self.steps[-1] or 1)
        rate = self.rate * (1.6 - 0.9 * done) * (-2 if self.kind == "growing" else 1)
        middle = 0.1 - 0.4 * done - rate * lags ** (0.95 if length < 500 else 0.9)
        wave = 0.15 * np.sin(lags / 7 + step)
        quantiles = {str(share): middle + wave + (share - 0.5) * (0.4 + 0.3 * np.log1p(lags)) for share in SHARES}
        zeros = (lags >= 12).astype(float) if self.kind == "zero" else np.zeros(len(lags))
        for values in quantiles.values():
            values[zeros > 0] = np.nan
        fall = middle[0] - middle
        label = "exploding" if fall.min() < -1 else "vanishing" if fall[-1] > 2 or zeros[-1] else "in band"
        return {
            "kind": "gradient", "layer": 0, "length": length, "examples": 16, "lags": lags.astype(int).tolist(),
            "counts": [16] * len(lags), "log10_mean": plain(middle + wave + 0.1),
            "log10_quantiles": {name: plain(values) for name, values in quantiles.items()}, "zeros": plain(zeros),
            "log10_each": [plain(middle)] * 8, "label": label, "thresholds": {"vanishing": 0.01, "exploding": 10.0},
            "inputs": "histories end to end" if length > 500 else "histories",
            "horizons": {**{name: reach(math.log10(share) / -rate, length, self.kind) for name, share in
                            (("e_fold", math.e), ("half_life", 2), ("one_percent", 100))},
                         "area": reach(0.43 / -abs(rate), length, ""),
                         "lyapunov": {"value": 0.434 / rate, "low": 0.4 / rate, "high": 0.5 / rate}},
        }  # fmt: skip

    def gates(self, length, step):
        edges = np.linspace(0, 1, 25)
        middle = (edges[1:] + edges[:-1]) / 2
        done = step / (self.steps[-1] or 1)
        drawn = [np.exp(-(((middle - centre) / 0.2) ** 2)) + 0.3 * done * (middle > 0.9) for centre in (0.4, 0.7)]
        return {"kind": "gates", "layer": 0, "length": length, "inputs": "histories", "units": self.width, "dead": 0,
                "gates": [{"name": name, "kind": "sigmoid", "edges": plain(edges), "density": plain(d / d.sum()),
                           "mean": 0.5, "shut": 0.05, "open": 0.1} for name, d in zip("rz", drawn, strict=True)],
                "time_constants": plain(self.rng.gamma(2, 4, self.width))}  # fmt: skip

    def eigenvalues(self, step):
        def cloud(radius):
            values = np.linalg.eigvals(self.rng.normal(0, radius / math.sqrt(self.width), (self.width, self.width)))
            return {"real": values.real.tolist(), "imag": values.imag.tolist()}

        radius = 0.9 + 0.4 * step / (self.steps[-1] or 1)
        return {"kind": "eigenvalues", "layer": 0, "jacobian": cloud(0.8),
                "matrices": [{"name": name} | cloud(radius) for name in ("uz", "un")]}  # fmt: skip

    def lyapunov(self, step):
        done = step / (self.steps[-1] or 1)
        values = np.sort(-2.3 * self.rate * (1.5 - done) - self.rng.gamma(2, 0.05, 16))[::-1]
        return {"kind": "lyapunov", "layer": 0, "state": 16, "exponents": plain(values), "half_width": [0.01] * 16,
                "zeros": 0, "time_of_e_fold": float(-1 / values[0])}  # fmt: skip

    def singular(self, length):
        lags = [1, 2, 5, 10, 20, 50, 100]
        return {"kind": "singular", "layer": 0, "length": length, "lags": lags,
                "log10": [plain(-self.rate * lag - np.arange(16) * (0.05 + 0.004 * lag)) for lag in lags]}  # fmt: skip

    def matrix(self, length):
        steps = np.arange(0, length, max(1, length // 22))
        return {"kind": "matrix", "layer": 0, "length": length, "stride": int(steps[1]), "steps": steps.tolist(),
                "log10": [plain(-self.rate * (at - steps[: n + 1])) for n, at in enumerate(steps)]}  # fmt: skip

    def weights(self, length):
        return {"kind": "weights", "length": length, "lags": [0, 1, 2], "weights": {
            "blocks[0].un": {"log10": [-0.2, -0.5, None], "half": 3},
            "norm.scale": {"log10": [0.0, None], "half": 0}}}  # fmt: skip

    def task(self, task, distance):
        right = 0.1 + 0.9 / (1 + (distance * self.rate / 2) ** 2) * (0.8 if task == "adding" else 1)
        return {"kind": "task", "task": task, "distance": distance, "accuracy": right, "low": right - 0.02,
                "high": min(1, right + 0.02), "chance": 0.1, "solved": right > 0.9, "steps": 500, "seconds": 9.0,
                "seed": 0}  # fmt: skip

    def information(self, length):
        cutoffs = [1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 94]
        lost = self.worth * np.exp(-np.array(cutoffs) * self.rate * 2)
        lost -= lost[-1]
        return {"kind": "information", "length": length, "examples": 512, "cutoffs": cutoffs, "loss": plain(6 + lost),
                "ndcg@10": plain(0.11 - lost / 9), "lost": plain(lost), "lost_low": plain(lost - 0.03),
                "lost_high": plain(lost + 0.03), "gone": plain(lost / 9), "gone_low": plain(lost / 9 - 0.01),
                "gone_high": plain(lost / 9 + 0.01), "worth": {"value": float(lost[0]), "low": 0.02, "high": 0.3},
                "matters": self.family != "time", "share": 0.05,
                "horizon": {"value": 1.5 / self.rate ** 0.7, "low": 1 / self.rate ** 0.7,
                            "high": 2.2 / self.rate ** 0.7}}  # fmt: skip

    def shuffle(self, length):
        return {"kind": "shuffle", "length": length, "examples": 512, "ndcg@10": 0.107, "drop": {
            "loss": {"value": 0.96, "low": 0.79, "high": 1.13},
            "ndcg@10": {"value": 0.05, "low": 0.03, "high": 0.07}}}  # fmt: skip

    def training(self, length):
        value = 0.09 + 0.03 * float(self.rng.uniform()) - 0.006 * math.log10(self.rate)
        return {"kind": "training", "metric": "ndcg@10", "value": value, "low": value - 0.008, "high": value + 0.008,
                "best_counter": {"name": "markov", "value": 0.085}, "epochs": 12, "steps": self.steps[-1],
                "seconds": 61.5, "data": "ml-100k"}  # fmt: skip

    def clipping(self, length):
        return {"kind": "clipping", "limit": 1.0, "share": 0.12, "each": 1.0, "together": 0.97}

    def trace(self, length):
        events = [{"item": str(n), "title": f"The long way home, part {n} ({1950 + n})",
                   "gradient": float(-self.rate * (60 - n) + self.rng.normal(0, 0.2)),
                   "influence": float(self.rng.normal(0, 0.3) * math.exp((n - 60) * self.rate))}
                  for n in range(60)]  # fmt: skip
        return {"kind": "trace", "user": "196", "target": {"item": "50", "title": "Star Wars (1977)"}, "rank": 3,
                "events": events,
                "prediction": {"item": "181", "title": "Return of the Jedi (1983)", "score": 7.25}}  # fmt: skip


def plain(values):
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def reach(value, length, kind):
    if kind == "zero":
        value = min(abs(value), 11.5)
    value = abs(value)
    if kind == "growing" or value > length - 1:
        return {"value": None, "low": None, "high": None, "beyond": length - 1}
    return {"value": value, "low": 0.8 * value, "high": 1.3 * value}


def synthetic(cells=3, *, lengths=(20, 50, 200, 1000), steps=12, width=32, kinds=EVERY):
    """Records of ``cells`` subjects, trained for 2,000 steps and measured at ``steps`` of them; one step: untrained."""
    found = [one for place in range(cells) for one in Made(place, lengths, steps, width).records()]
    return json.loads(json.dumps([one for one in found if one["kind"] in kinds.split()]))


@pytest.fixture(scope="session", name="synthetic")
def synthetic_fixture():
    return synthetic
