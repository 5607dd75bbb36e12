"""The LSTM as NVIDIA's own library runs it, through `jax.experimental.rnn`. Not yet run on a device: see README.md."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jaxrec.cells import LSTM, Cell, Event
from jaxrec.cells.lstm import LSTMState
from jaxrec.config import Mistake
from jaxrec.recurrence.states import batched_initial


@dataclass(frozen=True)
class Cudnn:
    """The plain LSTM in one call of NVIDIA's cuDNN: float32, an NVIDIA device, and no restart inside a row.

    ``tf32`` lets the tensor cores round what they multiply to ten bits. It has never run where this was written, which
    has no such device: there, only the packing of the weights, and what is around the call, are tested.
    """

    tf32: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.tf32, bool):
            raise Mistake(f"cudnn: tf32={self.tf32!r} is not true or false; choose one of these")

    def refuses(self, cell: Cell) -> str | None:
        return self.unfit(cell) or (None if nvidia() else "there is no NVIDIA device")

    def unfit(self, cell: Cell) -> str | None:
        """Why no device could run it."""
        if not isinstance(cell, LSTM):
            return "it is not an LSTM, the only cell that jax has cuDNN for"
        if getattr(cell, "refine", False):
            return "cuDNN's LSTM has an input gate where this one has a refine gate"
        kind = jax.tree.leaves(cell)[0].dtype
        return None if kind == jnp.float32 else f"its weights are {kind}, and jax has cuDNN's LSTM in float32 only"

    def run(self, cell: LSTM, state: LSTMState, events: Event, reset: Array | None) -> tuple[LSTMState, Array]:
        from jax.experimental import rnn

        batch, time, features = events.x.shape
        if events.x.dtype != jnp.float32:
            raise Mistake(f"cudnn: events.x is {events.x.dtype}; give float32, or take scan")
        state = at_the_start(state, batched_initial(cell, batch), reset)
        if not time:
            return state, jnp.zeros((batch, 0, cell.hidden), events.x.dtype)
        outputs, h, c = rnn.lstm(
            events.x, state.h[None], state.c[None], packed(cell), jnp.full(batch, time, jnp.int32),
            features, cell.hidden, 1, 0.0, False, None if self.tf32 else jax.lax.Precision.HIGHEST,
        )  # fmt: skip
        return LSTMState(h[0], c[0]), outputs


def packed(cell: LSTM) -> Array:
    """All weights as cuDNN reads them: input matrices, recurrent ones, then the biases of both, each by gate i f g o.

    A matrix has a row for each unit; cuDNN adds two biases, of which the second is zero here.
    """
    matrices = [cell.wi, cell.wf, cell.wg, cell.wo, cell.ui, cell.uf, cell.ug, cell.uo]
    biases = jnp.concatenate([leaf[...] for leaf in (cell.bi, cell.bf, cell.bg, cell.bo)])
    return jnp.concatenate([*(leaf[...].T.ravel() for leaf in matrices), biases, jnp.zeros_like(biases)])


def at_the_start(state: LSTMState, fresh: LSTMState, reset: Array | None) -> LSTMState:
    """The state that each row begins with; a restart after that is more than cuDNN can do."""
    if reset is None:
        return state
    if isinstance(reset, jax.core.Tracer) or reset[:, 1:].any():
        seen = "may restart" if isinstance(reset, jax.core.Tracer) else "restarts"
        raise Mistake(
            f"cudnn: reset {seen} inside a row, which cuDNN cannot do; give one row per sequence or take scan"
        )
    if not reset.shape[1]:
        return state
    return jax.tree.map(lambda new, old: jnp.where(reset[:, :1], new, old), fresh, state)


def nvidia() -> bool:
    return jax.default_backend() == "gpu" and "NVIDIA" in jax.devices()[0].device_kind.upper()
