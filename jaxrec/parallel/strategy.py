"""One pure function, run over local devices in three interchangeable ways.

`jit` leaves the communication to the compiler, `shard_map` and `pmap` leave it to the function, which is told the
axis to sum over. All three give the numbers of one device up to the order of summation. The devices are a mesh of
``data`` x ``model``: rows of a batch are cut over the first axis, and tables, where they are cut, over the second.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrec.config import Mistake, did_you_mean
from jaxrec.losses.shards import PIECES
from jaxrec.parallel import team
from jaxrec.parallel.programs import Programs

Mode = Literal["jit", "shard_map", "pmap"]
Split = Sequence[Any]  # of int, None, or trees of PartitionSpec

AXIS = "data"


def local_devices(count: int) -> list[jax.Device]:
    """The first `count` devices of this process; raises Mistake when there are fewer."""
    found = jax.local_devices()
    if not 1 <= count <= len(found):
        raise Mistake(
            f"devices={count}, but this process has {len(found)} {found[0].platform} device(s); "
            f"choose 1 to {len(found)}" + _forcing(found[0].platform)
        )
    return found[:count]


def _forcing(platform: str) -> str:
    return " or force more with XLA_FLAGS=--xla_force_host_platform_device_count=N" if platform == "cpu" else ""


def distribute(
    fn: Callable[..., Any],
    mode: Mode = "jit",
    devices: int | Sequence[jax.Device] = 1,
    *,
    split: Split,
    out: Split | None = None,
    donate: Sequence[int] = (),
    pieces: int = 1,
) -> "Distributed":
    """Compile `fn(*args, axis=None)` to run over `devices` (a count, or the devices).

    `split` names for every positional argument the array axis that is cut into one piece per device, or None for an
    argument that every device sees whole; it holds for all leaves of that argument. The outputs of `fn` must be the
    same on every device and come back replicated. `out`, where `fn` returns a tuple, names for every part of it the
    axis along which devices hold pieces, or None: such a part stays where it is, but for pmap, which joins it on one
    device. Under "jit", `fn` sees whole arrays and `axis=None`; under "shard_map" and "pmap" it sees one piece and
    `axis="data"`, and must sum over that axis itself what depends on the pieces (`jax.lax.psum` of sums and of counts,
    not a mean of means: pieces weigh differently). Buffers of the arguments numbered in `donate` are reused for the
    outputs.

    With ``pieces`` the mesh is (devices / pieces, pieces), and entries of `split` and `out` may be trees of
    `PartitionSpec` that cut leaves over `PIECES`; what such leaves need to know of each other, `fn` sends over that
    axis in every mode. pmap has one axis and takes whole arguments only.
    """
    chosen = local_devices(devices) if isinstance(devices, int) else list(devices)
    mesh = meshed(chosen, mode, pieces)
    if mode not in get_args(Mode):
        known = get_args(Mode)
        raise Mistake(f"parallel={mode!r} is not one of {', '.join(known)}{did_you_mean(mode, known)}")
    make = {"jit": _by_jit, "shard_map": _by_shard_map, "pmap": _by_pmap}[mode]
    compiled = make(fn, mesh, split, out, tuple(donate))
    return Distributed(compiled, mode, mesh, tuple(split), out, frozenset(donate))


def meshed(devices: Sequence[jax.Device], mode: Mode, pieces: int) -> Mesh:
    """The mesh of ``data`` x ``model``."""
    if len(devices) % pieces:
        raise Mistake(
            f"shards={pieces} does not divide devices={len(devices)}; "
            f"use {_divisor(len(devices), min(pieces, len(devices)))}, or a multiple of {pieces} devices"
        )
    if pieces > 1 and mode == "pmap":
        raise Mistake(f"shards={pieces} cuts tables, and pmap cuts batches only; use --parallel jit or shard_map")
    if pieces == 1:
        return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
    return Mesh(np.array(devices).reshape(-1, pieces), (AXIS, PIECES), axis_types=(AxisType.Auto, AxisType.Auto))


def _specs(split: Split) -> tuple[Any, ...]:
    def spec(axis: Any) -> Any:
        if axis is None:
            return PartitionSpec()
        return PartitionSpec(*[None] * axis, AXIS) if isinstance(axis, int) else axis

    return tuple(spec(axis) for axis in split)


def _is_spec(found: Any) -> bool:
    return isinstance(found, PartitionSpec)


def _places(mesh: Mesh, specs: Any) -> Any:
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=_is_spec)


def _pieces_only(split: Split) -> tuple[Any, ...]:
    """The specs as a function sees them that is told of pieces only."""
    return tuple(PartitionSpec() if axis is None or isinstance(axis, int) else axis for axis in split)


def _by_jit(
    fn: Callable[..., Any], mesh: Mesh, split: Split, out: Split | None, donate: tuple[int, ...]
) -> Callable[..., Any]:
    def whole(*args: Any) -> Any:
        return fn(*args, axis=None)

    places = _places(mesh, _specs(split))
    ends = NamedSharding(mesh, PartitionSpec()) if out is None else _places(mesh, _specs(out))
    if PIECES in mesh.axis_names:  # the batch's axis stays the compiler's, the tables' is the function's
        whole = jax.shard_map(
            whole, mesh=mesh, in_specs=_pieces_only(split), check_vma=False, axis_names={PIECES},
            out_specs=PartitionSpec() if out is None else _pieces_only(out),
        )  # fmt: skip
    return jax.jit(whole, in_shardings=places, out_shardings=ends, donate_argnums=donate)


def _by_shard_map(
    fn: Callable[..., Any], mesh: Mesh, split: Split, out: Split | None, donate: tuple[int, ...]
) -> Callable[..., Any]:
    def piece(*args: Any) -> Any:
        return fn(*args, axis=AXIS)

    # Without check_vma gradients of replicated parameters stay per piece, and `fn` sums them itself, as under pmap.
    ends = PartitionSpec() if out is None else _specs(out)
    mapped = jax.shard_map(piece, mesh=mesh, in_specs=_specs(split), out_specs=ends, check_vma=False)
    return jax.jit(mapped, donate_argnums=donate)


def _by_pmap(
    fn: Callable[..., Any], mesh: Mesh, split: Split, out: Split | None, donate: tuple[int, ...]
) -> Callable[..., Any]:
    def piece(*args: Any) -> Any:
        return fn(*args, axis=AXIS)

    devices = list(mesh.devices.flat)
    ends = None if out is None else tuple(out)
    return jax.pmap(piece, axis_name=AXIS, in_axes=tuple(split), out_axes=ends, devices=devices, donate_argnums=donate)


class Distributed:
    """A function compiled by `distribute`; call it as `fn`, without `axis`.

    Arguments that `place` put on the devices are used where they lie; any other is placed at every call, which costs
    a copy to all devices (under pmap several times the step itself). ``programs`` are those compiled so far, one for
    every shape of arguments.
    """

    def __init__(
        self,
        compiled: Callable[..., Any],
        mode: Mode,
        mesh: Mesh,
        split: Split,
        out: Split | None,
        donated: frozenset[int],
    ):
        self.programs, self.mode, self.mesh, self.split, self.out = Programs(compiled), mode, mesh, split, out
        self.donated = donated
        self._places = [_places(mesh, spec) for spec in _specs(split)]

    def __call__(self, *args: Any) -> Any:
        placed = self.place(*args)
        found = self.programs(*placed)(*placed)
        if self.out is None or self.mode != "pmap":
            return found
        return tuple(self._join(part, axis) for part, axis in zip(found, self.out, strict=True))

    def place(self, *args: Any) -> tuple[Any, ...]:
        """The arguments on the devices, cut as `split` says; those that lie there already are passed through.

        Under pmap a cut axis of n comes back as two, (devices, n / devices): hand the result to this function only.
        Donated arguments are copied, so that the arrays handed in stay alive. Raises Mistake when an axis cannot be
        cut evenly.
        """
        if len(args) != len(self.split):
            raise TypeError(f"{len(args)} arguments, but split names {len(self.split)}; they go by position")
        return tuple(self.put(number, tree) for number, tree in enumerate(args))

    def put(self, number: int, tree: Any) -> Any:
        """Argument `number` on the devices; see `place`."""
        axis = self.split[number]

        def one(place: NamedSharding, leaf: Any) -> Any:
            if isinstance(leaf, jax.Array) and leaf.sharding == place:
                return leaf
            if isinstance(axis, int):
                leaf = self._cut(leaf, axis, number)
            if number in self.donated and isinstance(leaf, jax.Array):
                leaf = leaf.copy()  # device_put keeps the buffer as one replica, even when told may_alias=False
            return team.laid(leaf, place)

        return jax.tree.map(lambda place, part: jax.tree.map(partial(one, place), part), self._places[number], tree)

    def put_part(self, number: int, tree: Any) -> Any:
        """Argument `number`, which is cut, on the devices, where each of many processes has its part of it."""
        if team.size() == 1:
            return self.put(number, tree)
        return jax.tree.map(lambda part: team.joined(part, self._places[number]), tree)

    def _join(self, tree: Any, axis: int | None) -> Any:
        """Undo what pmap does to a cut axis. One device holds the result: `put` tells it from what is cut already."""
        if axis is None:
            return tree

        def one(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(*leaf.shape[:axis], -1, *leaf.shape[axis + 2 :])

        return jax.device_put(jax.tree.map(one, tree), self.mesh.devices.flat[0])

    def _cut(self, leaf: Any, axis: int, number: int) -> Any:
        count, size = self.mesh.shape[AXIS], np.shape(leaf)[axis]
        if size % count:
            raise Mistake(
                f"{size} rows (axis {axis} of argument {number}) cannot be shared evenly by {count} devices; "
                f"use a multiple of {count}, such as {-(-size // count) * count}, or {_divisor(size, count)} device(s)"
            )
        if self.mode != "pmap":
            return leaf
        shape = np.shape(leaf)
        return leaf.reshape(*shape[:axis], count, size // count, *shape[axis + 1 :])


def _divisor(size: int, most: int) -> int:
    return max(count for count in range(1, most + 1) if size % count == 0)
