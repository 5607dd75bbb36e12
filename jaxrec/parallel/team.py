"""Processes that train as one: each has some devices of one mesh and does the same steps, and the first decides.

A process learns from its environment that it is one of many (`jaxrec launch` sets it): JAXREC_PROCESSES, how many there
are, JAXREC_PROCESS, which it is, from 0, and JAXREC_COORDINATOR, ``host:port`` of the first; or JAXREC_PROCESSES=auto,
where `jax.distributed` finds all three by itself (Slurm, Open MPI, Cloud TPU, Kubernetes).

What decides, such as when to stop, goes through the coordination service as JSON, where a process may wait as long as
it takes; what has a size goes from device to device. One process alone talks to nobody.
"""

import json
import os
import sys
from collections.abc import Sequence
from itertools import count as numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxrec.config import Mistake

HEARTBEAT = 20  # seconds without a sign of life after which the service calls a process dead, and ends the others
FAREWELL = 5  # seconds in which all have to come to the end, which they have agreed on before
PATIENCE = 7 * 24 * 3_600_000  # milliseconds in which the others prepare data, save or judge
ROWS = 1 << 20  # of an array that travel at a time
BYTES = 1 << 26  # of an array that is handed on

_messages = numbers()
_kept: list[str] = []  # what the service holds, in the first process


def join() -> None:
    """Find the other processes, where the environment names any; before JAX has looked for devices."""
    told = os.environ.get("JAXREC_PROCESSES")
    if told is None or jax.distributed.is_initialized():
        return
    quieten()
    # its handler would swallow the signals that a training listens to
    jax.config.update("jax_enable_preemption_service", False)
    limits: dict[str, Any] = {"heartbeat_timeout_seconds": HEARTBEAT, "shutdown_timeout_seconds": FAREWELL}
    try:
        jax.distributed.initialize(**({} if told == "auto" else _told(told)), **limits)
    except (RuntimeError, ValueError) as error:
        raise Mistake(
            f"the processes did not find each other ({str(error).splitlines()[0]}); every one needs the same "
            "JAXREC_COORDINATOR and JAXREC_PROCESSES and its own JAXREC_PROCESS, which `jaxrec launch` sets"
        ) from None


def quieten() -> None:
    """Let what libraries write to standard output, as gloo does, go to standard error: results stand there alone."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)


def _told(processes: str) -> dict[str, Any]:
    try:
        many, which = int(processes), int(os.environ["JAXREC_PROCESS"])
        where = os.environ["JAXREC_COORDINATOR"]
    except (KeyError, ValueError) as error:
        raise Mistake(
            f"JAXREC_PROCESSES={processes} needs JAXREC_PROCESS, a number, and JAXREC_COORDINATOR, host:port "
            f"({error}); start processes with `jaxrec launch`"
        ) from None
    return {"num_processes": many, "process_id": which, "coordinator_address": where}


def size() -> int:
    """How many processes there are."""
    return jax.process_count()


def leads() -> bool:
    """Whether this is the first process: the one that writes."""
    return jax.process_index() == 0


def united(value: Any) -> list[Any]:
    """What every process says, in their order; JSON."""
    if size() == 1:
        return [value]
    name = f"jaxrec/{next(_messages)}"
    service().key_value_set(f"{name}/{jax.process_index()}", json.dumps(value))
    if leads():
        said = [heard(f"{name}/{process}") for process in range(size())]
        while _kept:  # who says this has heard all that came before
            service().key_value_delete(_kept.pop())
        tell(name, said)
        return said
    return heard(name)


def agreed(value: Any) -> Any:
    """What the first process says; JSON."""
    if size() == 1:
        return value
    name = f"jaxrec/{next(_messages)}"
    if leads():
        tell(name, value)
    return heard(name)


def tell(name: str, value: Any) -> None:
    """Of the first process, to all."""
    service().key_value_set(name, json.dumps(value))
    _kept.append(name)


def heard(name: str) -> Any:
    return json.loads(service().blocking_key_value_get(name, PATIENCE))


def service() -> Any:
    from jax._src.distributed import global_state  # as Orbax does: JAX has no public name for it

    return global_state.client


def handed(tree: Any) -> Any:
    """Arrays of the first process, for all: every other one has such a tree of its own, whose values do not matter.
    Large ones travel some rows at a time.
    """
    if size() == 1:
        return tree
    leaves, form = jax.tree.flatten(tree)
    values = [np.asarray(data(leaf)) for leaf in leaves]
    small = [value if value.nbytes <= BYTES else None for value in values]
    found = multihost_utils.broadcast_one_to_all(small)
    found = [_in_parts(value) if one is None else one for one, value in zip(found, values, strict=True)]
    return jax.tree.unflatten(form, [_like(leaf, value) for leaf, value in zip(leaves, found, strict=True)])


def _in_parts(values: np.ndarray) -> np.ndarray:
    """The first process's array, which comes to the host."""
    tall, whole = max(1, BYTES * len(values) // values.nbytes), np.empty_like(values)
    for begin in range(0, len(values), tall):
        whole[begin : begin + tall] = multihost_utils.broadcast_one_to_all(values[begin : begin + tall])
    return whole


def added(values: np.ndarray) -> np.ndarray:
    """The sum over processes of arrays of small whole numbers; rows travel some at a time."""
    if size() == 1:
        return values
    parts = [values[begin : begin + ROWS].astype(np.int32) for begin in range(0, max(len(values), 1), ROWS)]
    sums = [multihost_utils.process_allgather(part).sum(0) for part in parts]
    return np.concatenate(sums).astype(values.dtype)


def shared(things: Sequence[Any]) -> Sequence[Any]:
    """This process's share of what all have: every so manieth."""
    return things[jax.process_index() :: size()]


def part(values: np.ndarray, axis: int) -> np.ndarray:
    """This process's part of an array that the devices of all share out along ``axis``."""
    return np.split(values, size(), axis)[jax.process_index()]


def joined(part: np.ndarray, place: jax.sharding.Sharding) -> jax.Array:
    """The array on the devices of all, of which every process has its `part`."""
    return jax.make_array_from_process_local_data(place, part)


def devices(each: int) -> list[jax.Device]:
    """The first ``each`` devices of every process, process by process; the caller has seen that there are so many."""
    found = []
    for process in range(size()):
        theirs = [device for device in jax.devices() if device.process_index == process]
        if len(theirs) < each:
            raise Mistake(f"devices={each} of each process, but process {process} has {len(theirs)}; give all as many")
        found += theirs[:each]
    return found


def ours(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Those of them that belong to this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def laid(leaf: Any, place: jax.sharding.Sharding) -> jax.Array:
    """An array that every process has, on the devices of all."""
    if place.is_fully_addressable:
        return jax.device_put(leaf, place)
    whole = np.asarray(data(jnp.asarray(leaf)))
    return _like(leaf, jax.make_array_from_callback(whole.shape, place, lambda index: whole[index]))


def here(leaf: Any) -> Any:
    """An array as this process can read it: whole, on one of its devices, or on the host where it lay in pieces."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return leaf
    if leaf.is_fully_replicated:
        return leaf.addressable_data(0)
    pieces = {str(piece.index): piece for piece in leaf.addressable_shards}.values()
    if sum(piece.data.size for piece in pieces) < leaf.size:
        return multihost_utils.process_allgather(leaf, tiled=True)
    whole = np.empty(leaf.shape, leaf.dtype)
    for piece in pieces:
        whole[piece.index] = piece.data
    return whole


def data(leaf: Any) -> Any:
    """A key's numbers; any other array as it is."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _like(leaf: Any, value: Any) -> Any:
    """``value`` as a key, where ``leaf`` is one."""
    return jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(leaf)) if _is_key(leaf) else value
