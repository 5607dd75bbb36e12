"""A float64 numpy oracle of GRU4Rec training, one step at a time.

Written from the list (the written specification of the training run) alone, with every gradient derived by hand:
no code was read or copied for it, so that its agreement with another implementation means something.

All lanes of a step are computed together; absent lanes are dropped first, so every array below called "rows" has
m <= B entries. Gradients stop at the previous state. Losses are sums over the rows divided by the nominal batch size.
"""

import numpy as np
import pytest

BPR_MAX_EPSILON = 1e-24
ADAGRAD_EPSILON = 1e-6
LOSSES = ("cross_entropy", "bpr_max", "bpr", "top1", "top1_max")
MODES = ("shared", "separate", "one_hot")


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), exact in both tails."""
    return np.exp(-np.logaddexp(0.0, -x))


def softmax(x: np.ndarray) -> np.ndarray:
    """Softmax of each row; an entry of -inf gets weight 0."""
    weights = np.exp(x - x.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def elu(x: np.ndarray, a: float) -> np.ndarray:
    return np.where(x > 0, x, a * np.expm1(np.minimum(x, 0.0)))


def elu_slope(x: np.ndarray, a: float) -> np.ndarray:
    return np.where(x > 0, 1.0, a * np.exp(np.minimum(x, 0.0)))


# ---- Losses: scores (m, m + n) with row i's positive in column i -> (loss of each row, d sum(loss) / d scores) ----


def off_diagonal(scores: np.ndarray) -> np.ndarray:
    """True where a column is a negative of the row."""
    return ~np.eye(*scores.shape, dtype=bool)


def negative_softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax over the negatives of each row; 0 at the positive."""
    return softmax(np.where(off_diagonal(scores), scores, -np.inf))


def through_softmax(weights: np.ndarray, weight_gradient: np.ndarray) -> np.ndarray:
    """From the gradient with respect to softmax outputs to that with respect to its inputs."""
    return weights * (weight_gradient - (weights * weight_gradient).sum(axis=1, keepdims=True))


def positive_minus(scores: np.ndarray) -> np.ndarray:
    """R_ii - R_ij."""
    return np.diagonal(scores)[:, None] - scores


def through_positive_minus(gradient: np.ndarray) -> np.ndarray:
    """From the gradient with respect to R_ii - R_ij (0 at j = i) to that with respect to R."""
    result = -gradient
    rows = np.arange(len(gradient))
    result[rows, rows] += gradient.sum(axis=1)
    return result


def cross_entropy(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(len(scores))
    top = scores.max(axis=1)
    log_total = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
    gradient = softmax(scores)
    gradient[rows, rows] -= 1.0
    return log_total - scores[rows, rows], gradient


def bpr_max(scores: np.ndarray, bpreg: float) -> tuple[np.ndarray, np.ndarray]:
    weights = negative_softmax(scores)
    win = sigmoid(positive_minus(scores))
    lose = sigmoid(-positive_minus(scores))
    likelihood = (win * weights).sum(axis=1, keepdims=True) + BPR_MAX_EPSILON
    penalty = (scores**2 * weights).sum(axis=1)
    loss = -np.log(likelihood[:, 0]) + bpreg * penalty
    weight_gradient = -win / likelihood + bpreg * scores**2
    gradient = through_softmax(weights, weight_gradient)
    gradient += through_positive_minus(-weights * win * lose / likelihood)
    gradient += 2.0 * bpreg * scores * weights
    return loss, gradient


def bpr(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    share = off_diagonal(scores) / (scores.shape[1] - 1)
    difference = positive_minus(scores)
    loss = (share * np.logaddexp(0.0, -difference)).sum(axis=1)
    return loss, through_positive_minus(-share * sigmoid(-difference))


def top1_terms(scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The TOP1 term of each pair, its weighted sum by row, and the gradient of that with the weights held."""
    lose, win = sigmoid(-positive_minus(scores)), sigmoid(positive_minus(scores))
    square, anti_square = sigmoid(scores**2), sigmoid(-(scores**2))
    terms = lose + square
    gradient = through_positive_minus(-weights * lose * win) + weights * square * anti_square * 2.0 * scores
    return terms, (weights * terms).sum(axis=1), gradient


def top1(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    share = off_diagonal(scores) / (scores.shape[1] - 1)
    _, loss, gradient = top1_terms(scores, share)
    return loss, gradient


def top1_max(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    weights = negative_softmax(scores)
    terms, loss, gradient = top1_terms(scores, weights)
    return loss, gradient + through_softmax(weights, terms)


# ---- The training run ----


class Oracle:
    """Parameters, recurrent state and Adagrad state of one training run."""

    def __init__(
        self,
        params: dict,
        loss: str,
        mode: str,
        lr: float,
        momentum: float = 0.0,
        elu: float | None = None,
        bpreg: float = 1.0,
        logq: float = 0.0,
        alpha: float = 0.5,
        counts: np.ndarray | None = None,
        batch: int = 1,
    ):
        if loss not in LOSSES or mode not in MODES:
            raise ValueError(f"unknown loss or mode: {loss}, {mode}")
        if loss == "cross_entropy" and elu is not None:
            raise ValueError("elu is not defined for cross_entropy")
        if logq and (loss != "cross_entropy" or counts is None):
            raise ValueError("logq needs cross_entropy and counts")
        self.loss, self.mode, self.lr, self.momentum = loss, mode, lr, momentum
        self.elu, self.bpreg, self.logq, self.alpha, self.batch = elu, bpreg, logq, alpha, batch
        self.counts = None if counts is None else np.array(counts, dtype=np.float64)
        self.params = {name: np.array(value, dtype=np.float64) for name, value in params.items()}
        self.accumulator = {name: np.zeros_like(value) for name, value in self.params.items()}
        self.velocity = {name: np.zeros_like(value) for name, value in self.params.items()}
        self.state = np.zeros((batch, len(self.params["ur"])))
        self.output_name = "item" if mode == "shared" else "output"

    def step(self, item, target, present, reset, samples, hidden_mask=None, embedding_mask=None) -> float:
        """Train on one event per present lane; returns the loss before the update."""
        loss, gradients, hits, state = self.gradients(
            item, target, present, reset, samples, hidden_mask, embedding_mask
        )
        self.state = state
        for name, gradient in gradients.items():
            self._update(name, gradient, hits.get(name, slice(None)))
        return loss

    def gradients(self, item, target, present, reset, samples, hidden_mask=None, embedding_mask=None):
        """(loss, gradient of each parameter, rows hit of each table, next state); changes nothing."""
        if self.mode == "one_hot" and embedding_mask is not None:
            raise ValueError("one_hot has no embedding to drop out")
        lanes = np.flatnonzero(present)
        state = np.where(np.asarray(reset, dtype=bool)[:, None], 0.0, self.state)
        if not len(lanes):
            return 0.0, {}, {}, state
        item, target = np.asarray(item)[lanes], np.asarray(target)[lanes]
        samples = np.asarray(samples, dtype=np.int64)
        hidden_scale = 1.0 if hidden_mask is None else np.asarray(hidden_mask, dtype=np.float64)[lanes]
        input_scale = 1.0 if embedding_mask is None else np.asarray(embedding_mask, dtype=np.float64)[lanes]

        x = self.params["item"][item] * input_scale
        hidden, cache = self._gru(x, state[lanes])
        dropped = hidden * hidden_scale
        candidates = np.concatenate([target, samples])
        output_rows = self.params[self.output_name][candidates]
        scores = dropped @ output_rows.T + self.params["bias"][candidates]
        loss, d_scores = self._loss(scores, target, samples)

        gradients, d_x = self._gru_backward((d_scores @ output_rows) * hidden_scale, cache)
        tables = {name: np.zeros_like(self.params[name]) for name in {"item", self.output_name, "bias"}}
        np.add.at(tables["item"], item, d_x * input_scale)
        np.add.at(tables[self.output_name], candidates, d_scores.T @ dropped)
        np.add.at(tables["bias"], candidates, d_scores.sum(axis=0))
        hits = {"item": np.unique(item), "bias": np.unique(candidates)}
        hits[self.output_name] = np.unique(np.concatenate([item, candidates]) if self.mode == "shared" else candidates)
        state[lanes] = dropped
        return loss, gradients | tables, hits, state

    def _loss(self, scores: np.ndarray, target: np.ndarray, samples: np.ndarray) -> tuple[float, np.ndarray]:
        """The step's loss, and its gradient with respect to the raw scores."""
        if self.loss != "cross_entropy" and scores.shape[1] < 2:
            raise ValueError(f"{self.loss} needs at least one negative")
        transformed = scores if self.elu is None else elu(scores, self.elu)
        if self.loss == "cross_entropy":
            if self.logq:
                expected = np.concatenate([self.counts[target], self.counts[samples] ** self.alpha])
                transformed = scores - self.logq * np.log(expected)
            losses, gradient = cross_entropy(transformed)
        elif self.loss == "bpr_max":
            losses, gradient = bpr_max(transformed, self.bpreg)
        else:
            losses, gradient = {"bpr": bpr, "top1": top1, "top1_max": top1_max}[self.loss](transformed)
        if self.elu is not None:
            gradient = gradient * elu_slope(scores, self.elu)
        return float(losses.sum() / self.batch), gradient / self.batch

    def _gru(self, x: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, dict]:
        """The new state of each row, and what the backward pass needs."""
        p = self.params
        if self.mode == "one_hot":
            input_r, input_z, input_n = np.split(x, 3, axis=1)
        else:
            input_r, input_z, input_n = x @ p["wr"], x @ p["wz"], x @ p["wn"]
        r = sigmoid(input_r + p["br"] + h @ p["ur"])
        z = sigmoid(input_z + p["bz"] + h @ p["uz"])
        if self.mode == "one_hot":
            recurrent = None
            n = np.tanh(input_n + p["bn"] + (r * h) @ p["un"])
        else:
            recurrent = h @ p["un"] + p["cn"]
            n = np.tanh(input_n + p["bn"] + r * recurrent)
        return (1.0 - z) * n + z * h, {"x": x, "h": h, "r": r, "z": z, "n": n, "recurrent": recurrent}

    def _gru_backward(self, d_hidden: np.ndarray, cache: dict) -> tuple[dict, np.ndarray]:
        """Gradients of the dense GRU parameters and of x; the previous state h is a constant."""
        p, x, h = self.params, cache["x"], cache["h"]
        r, z, n = cache["r"], cache["z"], cache["n"]
        d_n = d_hidden * (1.0 - z) * (1.0 - n**2)  # d_n, d_z, d_r: with respect to what goes into tanh / sigmoid
        d_z = d_hidden * (h - n) * z * (1.0 - z)
        gradients = {}
        if self.mode == "one_hot":
            d_r = (d_n @ p["un"].T) * h * r * (1.0 - r)
            gradients["un"] = (r * h).T @ d_n
            d_x = np.concatenate([d_r, d_z, d_n], axis=1)
        else:
            d_r = d_n * cache["recurrent"] * r * (1.0 - r)
            gradients["un"], gradients["cn"] = h.T @ (d_n * r), (d_n * r).sum(axis=0)
            gradients |= {"wr": x.T @ d_r, "wz": x.T @ d_z, "wn": x.T @ d_n}
            d_x = d_r @ p["wr"].T + d_z @ p["wz"].T + d_n @ p["wn"].T
        gradients |= {"ur": h.T @ d_r, "uz": h.T @ d_z}
        gradients |= {"br": d_r.sum(axis=0), "bz": d_z.sum(axis=0), "bn": d_n.sum(axis=0)}
        return gradients, d_x

    def _update(self, name: str, gradient: np.ndarray, rows) -> None:
        """Adagrad with optional momentum on the given rows (distinct) of a parameter."""
        g = gradient[rows]
        self.accumulator[name][rows] += g**2
        scaled = self.lr * g / np.sqrt(self.accumulator[name][rows] + ADAGRAD_EPSILON)
        if self.momentum:
            self.velocity[name][rows] = self.momentum * self.velocity[name][rows] - scaled
            self.params[name][rows] += self.velocity[name][rows]
        else:
            self.params[name][rows] -= scaled


@pytest.fixture
def oracle() -> type[Oracle]:
    return Oracle
