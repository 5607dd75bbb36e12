"""Cells that know about time gaps, against float64 numpy written from their papers alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxrec.cells import Event, find
from jaxrec.config import Call

D, H = 3, 4
DAY = 86400.0
Weights = dict[str, np.ndarray]


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def within(p: Weights, place: str) -> Weights:
    """The weights of the module at ``place``."""
    return {name.removeprefix(f"{place}."): value for name, value in p.items() if name.startswith(f"{place}.")}


def gru(p: Weights, h: np.ndarray, x: np.ndarray) -> np.ndarray:
    """PyTorch's GRU, which `test_cell_equations` holds to PyTorch itself."""
    r, z = (sigmoid(p[f"w{k}"].T @ x + p[f"u{k}"].T @ h + p[f"b{k}"]) for k in "rz")
    n = np.tanh(p["wn"].T @ x + p["bn"] + r * (p["un"].T @ h + p["cn"]))
    return (1 - z) * n + z * h


def lstm(p: Weights, h: np.ndarray, c: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    i, f, o = (sigmoid(p[f"w{k}"].T @ x + p[f"u{k}"].T @ h + p[f"b{k}"]) for k in "ifo")
    c = f * c + i * np.tanh(p["wg"].T @ x + p["ug"].T @ h + p["bg"])
    return o * np.tanh(c), c


def gamma(p: Weights, leaf: int, gap: float) -> np.ndarray:
    """Che et al. 2018, equation 10, with the gap in days."""
    return np.exp(-np.maximum(0, p[f"w.{leaf}"] * gap / DAY + p[f"b.{leaf}"]))


def decayed_gru(p: Weights, h: np.ndarray, event: Event) -> tuple[np.ndarray, np.ndarray]:
    """Che et al. 2018, equation 11: h decays, then the GRU runs on what is left."""
    h = gru(within(p, "cell"), gamma(p, 0, event.gap) * h, event.x)
    return h, h


def decayed_lstm(p: Weights, state: Any, event: Event) -> Any:
    h, c = lstm(within(p, "cell"), gamma(p, 0, event.gap) * state[0], gamma(p, 1, event.gap) * state[1], event.x)
    return (h, c), h


def decayed_lstm_memory(p: Weights, state: Any, event: Event) -> Any:
    """Only c decays."""
    h, c = lstm(within(p, "cell"), state[0], gamma(p, 0, event.gap) * state[1], event.x)
    return (h, c), h


def decayed_lru(p: Weights, h: np.ndarray, event: Event) -> Any:
    inner = within(p, "cell")
    h = np.exp(-np.exp(inner["nu"]) + 1j * np.exp(inner["theta"])) * (gamma(p, 0, event.gap) * h)
    h = h + np.exp(inner["gamma"]) * ((inner["b"][0].T + 1j * inner["b"][1].T) @ event.x)
    return h, ((inner["c"][0].T + 1j * inner["c"][1].T) @ h).real + inner["d"] * event.x


def time_gates(p: Weights, event: Event) -> dict[str, np.ndarray]:
    """Zhu et al. 2017, equations 6, 9 and 10: the gap in days inside a tanh; W_t1 <= 0 as -softplus of what is free."""
    found = {}
    for name in ("time", "now", "later"):
        if f"{name}.w" in p:
            v = p[f"{name}.v"] if f"{name}.v" in p else -np.log1p(np.exp(p[f"{name}.s"]))
            found[name] = sigmoid(p[f"{name}.w"].T @ event.x + np.tanh(event.gap / DAY * v) + p[f"{name}.b"])
    return found


def time_lstm(p: Weights, state: Any, event: Event, memories: Callable[..., Any]) -> Any:
    """Equations 1 to 5 with the time of equation 8 in the output gate."""
    (h, c), x = state, event.x
    i = sigmoid(p["wi"].T @ x + p["ui"].T @ h + p["pi"] * c + p["bi"])
    f = 0.0
    if "forget.w" in p:
        f = sigmoid(p["forget.w"].T @ x + p["forget.u"].T @ h + p["forget.p"] * c + p["forget.b"])
    candidate = np.tanh(p["wg"].T @ x + p["ug"].T @ h + p["bg"])
    seen, kept = memories(c, i, f, candidate, **time_gates(p, event))
    o = sigmoid(p["wo"].T @ x + event.gap / DAY * p["to"] + p["uo"].T @ h + p["po"] * seen + p["bo"])
    h = o * np.tanh(seen)
    return (h, kept), h


def time_lstm_1(p: Weights, state: Any, event: Event) -> Any:
    """Equation 7."""
    return time_lstm(p, state, event, lambda c, i, f, g, time: (f * c + i * time * g,) * 2)


def time_lstm_2(p: Weights, state: Any, event: Event) -> Any:
    """Equations 11 and 12."""
    return time_lstm(p, state, event, lambda c, i, f, g, now, later: (f * c + i * now * g, f * c + i * later * g))


def time_lstm_3(p: Weights, state: Any, event: Event) -> Any:
    """Equations 15 and 16."""

    def memories(c: Any, i: Any, f: Any, g: Any, now: Any, later: Any) -> Any:
        return (1 - i * now) * c + i * now * g, (1 - i) * c + i * later * g

    return time_lstm(p, state, event, memories)


def rhythm(p: Weights, t: float, leak: float) -> np.ndarray:
    """Neil et al. 2016, equations 6 and 7, from the absolute time."""
    tau, r_on = np.exp(p["log_period"]), sigmoid(p["ratio"])
    phi = ((t - p["shift"]) % tau) / tau
    return np.select([phi < r_on / 2, phi < r_on], [2 * phi / r_on, 2 - 2 * phi / r_on], leak * phi)


def phased_lstm(p: Weights, state: Any, event: Event) -> Any:
    """Equations 8 to 10 around an LSTM with peepholes."""
    (h, c, t), x = state, event.x
    t = t + event.gap
    k = rhythm(p, t, 0.1)
    i, f = (sigmoid(p[f"w{g}"].T @ x + p[f"u{g}"].T @ h + p[f"p{g}"] * c + p[f"b{g}"]) for g in "if")
    proposed = f * c + i * np.tanh(p["wg"].T @ x + p["ug"].T @ h + p["bg"])
    o = sigmoid(p["wo"].T @ x + p["uo"].T @ h + p["po"] * proposed + p["bo"])
    h, c = k * (o * np.tanh(proposed)) + (1 - k) * h, k * proposed + (1 - k) * c
    return (h, c, t), h


def cfc(p: Weights, h: np.ndarray, event: Event) -> Any:
    """Hasani et al. 2022, equation 4: sigma(-f t) g + (1 - sigma(-f t)) h, where f t has become t_a t + t_b."""
    backbone = 1.7159 * np.tanh(0.666 * (p["w"].T @ event.x + p["u"].T @ h + p["b"]))
    g, k, a, b = (p[f"w{name}"].T @ backbone + p[f"b{name}"] for name in "gkab")
    gate = sigmoid(-(a * event.gap / DAY + b))
    h = gate * np.tanh(g) + (1 - gate) * np.tanh(k)
    return h, h


def ode_slope(p: Weights, h: np.ndarray) -> np.ndarray:
    """De Brouwer et al. 2019, equation 3 without an input."""
    r, z = (sigmoid(p[f"u{k}"].T @ h + p[f"b{k}"]) for k in "rz")
    return (1 - z) * (np.tanh(p["un"].T @ (r * h) + p["bn"]) - h)


def bogacki_shampine(p: Weights, h: np.ndarray, time: float, steps: int) -> np.ndarray:
    """Bogacki and Shampine 1989, the third-order formula, in equal steps."""
    step = time / steps
    for _ in range(steps):
        first = ode_slope(p, h)
        second = ode_slope(p, h + step / 2 * first)
        third = ode_slope(p, h + 3 / 4 * step * second)
        h = h + step * (2 * first + 3 * second + 4 * third) / 9
    return h


def gru_ode(p: Weights, h: np.ndarray, event: Event) -> Any:
    """The equation on a logarithmic clock, then the GRU of Cho et al. 2014."""
    h, inner, x = bogacki_shampine(p, h, np.log1p(event.gap / DAY), 8), within(p, "inner"), event.x
    r, z = (sigmoid(inner[f"w{k}"].T @ x + inner[f"u{k}"].T @ h + inner[f"b{k}"]) for k in "rz")
    n = np.tanh(inner["wn"].T @ x + inner["bn"] + inner["un"].T @ (r * h))
    h = (1 - z) * n + z * h
    return h, h


PAIR = (np.zeros(H), np.zeros(H))
PAPERS: dict[str, tuple[str, Callable[..., Any], Any]] = {
    "decayed": ("decayed", decayed_gru, np.zeros(H)),
    "decayed-lstm": ("decayed(cell=lstm)", decayed_lstm, PAIR),
    "decayed-lstm-memory": ("decayed(lstm, keep=h)", decayed_lstm_memory, PAIR),
    "decayed-lru": ("decayed(lru)", decayed_lru, np.zeros(H, complex)),
    "time-lstm-1": ("timelstm1", time_lstm_1, PAIR),
    "time-lstm-2": ("timelstm2", time_lstm_2, PAIR),
    "time-lstm-3": ("timelstm3", time_lstm_3, PAIR),
    "phased-lstm": ("phasedlstm(unit=1, ratio_on=0.4, leak=0.1)", phased_lstm, (*PAIR, 0.0)),
    "cfc": ("cfc(backbone=6)", cfc, np.zeros(H)),
    "gru-ode": ("gruode", gru_ode, np.zeros(H)),
}


@pytest.mark.parametrize("name", PAPERS)
def test_cell_follows_its_paper(name: str, follows_paper: Callable[..., None]) -> None:
    text, step, state = PAPERS[name]
    unit = 20 * DAY if "unit=1" in text else 30.0  # the steeper the cell in its gaps, the coarser are differences
    follows_paper(lambda rngs: find(Call.parse(text), D, hidden=H, rngs=rngs), step, state, unit=unit)
