"""Arrays of a checkpoint on their way to its files and back, some rows at a time: the host never holds all of them."""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

SLAB = 2**22  # bytes of an array that come to the host at a time


def rows(leaf: Any) -> int:
    """How many rows of a large array go together: about `SLAB` bytes."""
    return max(1, SLAB * len(leaf) // leaf.nbytes)


def slabs(leaf: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Parts of an array, of so many rows each, and the numbers of their first rows."""
    if leaf.nbytes <= SLAB:
        yield 0, np.asarray(leaf)
        return
    tall = rows(leaf)
    for first in range(0, len(leaf), tall):
        count = min(tall, len(leaf) - first)
        if isinstance(leaf, jax.Array):  # one that was on the host whole would stay there
            yield first, np.asarray(jax.lax.dynamic_slice_in_dim(leaf, first, count))
        else:
            yield first, leaf[first : first + count]


def sha256(leaf: Any) -> str:
    """The hash of an array's bytes, in the order of its rows."""
    found = hashlib.sha256()
    for _, part in slabs(leaf):
        found.update(part.tobytes())
    return found.hexdigest()


class Rowwise(ocp.type_handlers.NumpyHandler):
    """Writes an array, wherever it lies, in the form in which Orbax writes those of the host."""

    def __init__(self) -> None:
        super().__init__(deepcopy_host_arrays=False)

    async def _open_and_write(self, value: Any, tspec: dict[str, Any], ts_context: ts.Context) -> None:
        if value.nbytes > SLAB:  # a part is then a chunk of the file, which is neither kept nor read again
            metadata = tspec["metadata"] | {"chunks": [rows(value), *value.shape[1:]]}
            tspec = tspec | {"metadata": metadata}
        file = await ts.open(ts.Spec(tspec), create=True, open=True, context=ts_context)
        for first, part in slabs(value):
            await (file[first : first + len(part)] if value.ndim else file).write(part)


def handler(**options: Any) -> ocp.PyTreeCheckpointHandler:
    """What writes leaves by name, and reads those that are asked for."""
    registry = ocp.type_handlers.create_type_handler_registry((np.ndarray, Rowwise()), (jax.Array, Rowwise()))
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry, **options)


def asked(described: dict[str, Any]) -> Any:
    """What to ask of it to read leaves that are ``described`` by name."""
    arrays = {
        path: ocp.RestoreArgs(restore_type=np.ndarray, dtype=np.dtype(leaf["dtype"]))
        for path, leaf in described.items()
    }
    return ocp.args.PyTreeRestore(dict.fromkeys(described, 0), restore_args=arrays, partial_restore=True)


def together(described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same, so many at a time that a group is one leaf or less than a `SLAB`; empty ones lie in no file."""
    group: dict[str, Any] = {}
    size = 0
    for path, leaf in described.items():
        more = math.prod(leaf["shape"]) * np.dtype(leaf["dtype"]).itemsize
        if group and size + more > SLAB:
            yield group
            group, size = {}, 0
        if more:
            group, size = group | {path: leaf}, size + more
    if group:
        yield group
