"""Records of gradient flow: (model, batch) -> plain numbers, one record for each layer."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxrec.diagnostics.curves import by_lag, described, kept_lags, median, plain, quantiles
from jaxrec.diagnostics.gradient import by_scan, by_weights, matrix, truncation
from jaxrec.diagnostics.records import Record
from jaxrec.diagnostics.subject import Model, subject

STRIDES = 24  # rows of a (T, T) matrix at most, unless told: each costs a backward pass


def gradient(model: Model, batch: Any, *, at: int = -1, own: NDArray[np.int64] | None = None) -> list[Record]:
    """The gradient of step ``at``'s loss by every state before it, against lag: `described`, for each layer.

    ``own (batch,)`` are the events of each row's last piece where that is not the whole row. Where the model's backend
    truncates, a gradient ends with the piece of ``truncated`` events that its step is the ``place``-th of.
    """
    norms = by_scan(model, batch, at).log10()
    place = range(norms.shape[2])[at]
    own = np.full(norms.shape[1], place + 1) if own is None else np.minimum(own, place + 1)
    size = truncation(model.network)  # then lag 0 is the so manieth event of its piece
    cut = {} if size is None else {"truncated": size, "place": place % size + 1}
    return [
        {"kind": "gradient", "layer": layer} | described(by_lag(curve, place, own)) | cut
        for layer, curve in enumerate(norms)
    ]


def gradient_matrix(model: Model, batch: Any, *, stride: int | None = None) -> list[Record]:
    """``log10 |d loss_t / d state_s|`` for s <= t, every ``stride`` steps in both: the median over examples.

    It costs a backward pass for every row, so about ``time / stride`` of them (24 unless told).
    """
    time = subject(model, batch).shape[1]
    stride = stride or -(-time // STRIDES)
    steps = np.arange(time - 1, -1, -stride)[::-1]
    norms = matrix(model, batch, jnp.asarray(steps)).log10()  # (steps, layers, batch, time)
    found = []
    for layer in range(norms.shape[1]):
        rows = [median(norms[row, layer][:, steps[: row + 1]]) for row in range(len(steps))]
        found.append(
            {
                "kind": "matrix",
                "layer": layer,
                "stride": stride,
                "steps": steps.tolist(),
                "log10": [plain(row) for row in rows],
            }
        )
    return found


def contributions(model: Model, batch: Any, *, at: int = -1) -> Record:
    """What each step adds to the gradient of each of the network's arrays, against lag: ``log10`` of the norm, the
    median over examples.

    ``half`` is the lag by which half of the sum of norms is collected: how much of a weight's learning is about the
    last events.
    """
    norms = by_weights(model, batch, at).log10()  # (arrays, batch, time)
    place = range(norms.shape[2])[at]
    lags = kept_lags(place + 1)
    names = [path(where) for where, _ in jax.tree_util.tree_leaves_with_path(model.network)]
    found = {}
    for name, curve in zip(names, norms, strict=True):
        middle = quantiles(curve[:, place::-1], (0.5,))[0]
        sizes = np.power(10.0, middle - (np.max(middle) if np.isfinite(np.max(middle)) else 0))
        half = np.searchsorted(np.cumsum(sizes), sizes.sum() / 2) if sizes.sum() > 0 else None
        found[name] = {"log10": plain(middle[lags]), "half": None if half is None else int(half)}
    return {"kind": "weights", "lags": lags.tolist(), "weights": found}


def path(where: Any) -> str:
    """An array's place without what every name shares, as ``0.cell.ur`` for the first block's."""
    name = jax.tree_util.keystr(where).replace("['", ".").replace("']", "")
    return re.sub(r"^\.?blocks\[(\d+)\]", r"\1", re.sub(r"\.+", ".", name.removesuffix(".value"))).lstrip(".")
