"""A model whose tables lie in pieces on several devices: judged and asked as they lie."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrec.losses.shards import PIECES, Shard
from jaxrec.models.recommender import Cuts, Recommender

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


def filled(table: Any, pieces: int) -> np.ndarray:
    """A table on the host, filled up with rows of zeros to equal pieces."""
    found = np.asarray(table)
    return np.concatenate([found, np.zeros((-len(found) % pieces, *found.shape[1:]), found.dtype)])


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
