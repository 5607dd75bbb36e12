"""A model whose tables lie in pieces on several devices: drawn, judged and asked as they lie."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrec.losses.shards import PIECES, Shard
from jaxrec.models.drawing import Drawing
from jaxrec.models.recommender import Cuts, Recommender, drawn

CUT = ("item", "output", "bias", "user")  # tables that devices share out; the rows of features are few


def in_pieces(model: Recommender, devices: Sequence[jax.Device]) -> Recommender:
    """The model, every table of items and users cut in as many equal pieces as there are ``devices``; the network is on
    all of them. What takes a model whole reads such a one through `run`.
    """
    mesh = Mesh(np.array(devices), (PIECES,), axis_types=(AxisType.Auto,))
    cuts = tuple((name, Shard(len(table), PIECES)) for name, table in sorted(model.tables.items()) if name in CUT)
    cut, everywhere = (NamedSharding(mesh, spec) for spec in (PartitionSpec(PIECES), PartitionSpec()))
    tables = {
        name: jax.device_put(filled(table, len(devices)), cut) if name in CUT else jax.device_put(table, everywhere)
        for name, table in model.tables.items()
    }
    return Recommender(tables, jax.device_put(model.network, everywhere), cuts)


def cut_in(place: Any) -> int:
    """In how many pieces an array lies that has such a sharding."""
    return place.mesh.shape[PIECES] if isinstance(place, NamedSharding) and PIECES in place.spec else 1


def filled(table: Any, pieces: int) -> np.ndarray:
    """A table on the host, filled up with rows of zeros to equal pieces."""
    found = np.asarray(table)
    return np.concatenate([found, np.zeros((-len(found) % pieces, *found.shape[1:]), found.dtype)])


def drawn_in_pieces(model: Recommender, mesh: Mesh) -> Recommender:
    """The model with every table that can be cut drawn where it lies, filled up with rows of zeros to equal pieces: no
    device ever has more of it than its piece.
    """
    tables: dict[str, Any] = dict(model.tables)
    tables |= {name: drawn_there(one, mesh) for name, one in tables.items() if name in CUT}
    return drawn(replace(model, tables=tables))


def drawn_there(drawing: Drawing, mesh: Mesh) -> Array:
    known, everything = drawing.known, jax.tree.map(np.asarray, replace(drawing, known=None))
    if known is not None:
        full = filled(known, mesh.shape[PIECES])
        known = jax.make_array_from_callback(full.shape, NamedSharding(mesh, PartitionSpec(PIECES)), full.__getitem__)
    return drawer(mesh)(everything, known)  # type: ignore[no-any-return]


@lru_cache(maxsize=16)
def drawer(mesh: Mesh) -> Callable[[Drawing, Any], Any]:
    """What draws a table over the devices that share it out."""
    cut = PartitionSpec(PIECES)

    def piece(drawing: Drawing, known: Any) -> Array:
        count = -(-drawing.shape[0] // mesh.shape[PIECES])
        return replace(drawing, known=known).piece(jax.lax.axis_index(PIECES) * count, count)

    mapped = jax.shard_map(piece, mesh=mesh, in_specs=(PartitionSpec(), cut), out_specs=cut, check_vma=False)
    return jax.jit(mapped)


def run(fn: Callable[..., Any], model: Recommender, *args: Any, **static: Any) -> Any:
    """``fn(model, *args, **static)``; where the model lies in pieces, on each of its devices with that device's pieces,
    whose results must be the same.
    """
    if not model.cuts:
        return fn(model, *args, **static)
    place = model.tables["item"].sharding
    assert isinstance(place, NamedSharding)
    mesh = place.mesh
    return compiled(fn, mesh, tuple(sorted(model.tables)), model.cuts, tuple(sorted(static.items())))(model, *args)


@lru_cache(maxsize=64)
def compiled(
    fn: Callable[..., Any], mesh: Mesh, names: tuple[str, ...], cuts: Cuts, static: tuple[tuple[str, Any], ...]
) -> Callable[..., Any]:
    cut = dict(cuts)
    specs: dict[str, Any] = {name: PartitionSpec(PIECES) if name in cut else PartitionSpec() for name in names}
    whole: Any = PartitionSpec()
    form = Recommender(specs, whole, cuts)

    def piece(model: Recommender, *args: Any) -> Any:
        return fn(model, *args, **dict(static))

    def everywhere(model: Recommender, *args: Any) -> Any:
        specs = (form, *[whole] * len(args))
        return jax.shard_map(piece, mesh=mesh, in_specs=specs, out_specs=whole, check_vma=False)(model, *args)

    return jax.jit(everywhere)
