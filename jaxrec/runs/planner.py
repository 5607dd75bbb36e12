"""Does a training fit into the memory of its devices? Asked of the compiled program, before the first step."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.prepared import Prepared
from jaxrec.parallel import team
from jaxrec.parallel.programs import Memory, free_memory, free_of_machine, memory_of
from jaxrec.parallel.strategy import local_devices
from jaxrec.runs import build
from jaxrec.runs.options import Config
from jaxrec.training.feed import Feed, Mapped
from jaxrec.training.loop import RECORD
from jaxrec.training.optimisers import Hyper
from jaxrec.training.source import AnySource, Bare, Slab
from jaxrec.training.spread import Spread, shape, spread
from jaxrec.training.step import State, Step
from jaxrec.words import Call

if TYPE_CHECKING:
    from jaxrec.runs.fitting import Fitting

SHARE = 0.5  # of a device's free memory that events may take before they stay on disk
UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


@dataclass(frozen=True)
class Plan:
    """Bytes of each device: ``state`` (parameters and what the optimiser keeps), ``data`` (events), ``peak`` (with all
    that exists while a step runs), and ``room``, which a device has for all three.
    """

    state: int
    data: int
    peak: int
    room: float

    @property
    def fits(self) -> bool:
        return self.peak <= self.room

    def told(self) -> str:
        rest = self.peak - self.state - self.data
        return (
            f"{size(self.peak)} on each device, as compiled: {size(self.state)} parameters and optimiser, "
            f"{size(self.data)} data, {size(rest)} while a step runs"
        )


def size(count: float) -> str:
    unit, name = next(((unit, name) for unit, name in UNITS if count >= unit), UNITS[-1])
    return f"{count / unit:.1f} {name}"


def spread_out(step: Step, config: Config) -> Spread:
    """How a training's steps run on its devices; `Mistake` where they cannot."""
    local_devices(config.devices)  # or the sentence of one process
    if team.size() > 1:
        refuse_together(config)
    run = spread(step, config.parallel, tuple(team.devices(config.devices)), config.shards)
    if config.batch.size % (pieces := len(run.devices) // config.shards):
        raise Mistake(
            f"batch.size = {config.batch.size} rows cannot be shared evenly by {pieces} devices; "
            f"use a multiple of {pieces}, or other --devices"
        )
    return run


def refuse_together(config: Config) -> None:
    """`Mistake` for what processes that train as one cannot do."""
    if config.parallel == "pmap":
        raise Mistake("pmap sees the devices of one process; use --parallel jit or shard_map with several")
    if config.devices % config.shards:
        raise Mistake(
            f"shards={config.shards} does not divide the {config.devices} devices of a process, and the pieces of a "
            "table lie within one; use fewer shards or more devices"
        )


def feed(config: Config, prepared: Prepared) -> Feed | None:
    """Who brings events from disk while a training runs; None where all of them lie on the device."""
    data = Mapped(prepared, config.model.user)
    chosen = config.events_on
    if chosen == "device" or (chosen == "auto" and team.agreed(fits(data))):
        return None
    return Feed(replace(data, beyond=data.bytes > free_of_machine()), config.readers)


def fits(data: Mapped) -> bool:
    """Whether all events may lie on a device."""
    return data.events <= np.iinfo(np.int32).max and data.bytes <= SHARE * free_memory()


def foretell(fitting: "Fitting", placed: tuple[State, AnySource, Hyper], state: State, source: AnySource) -> None:
    """Say what memory a training needs whose arguments are ``placed``; `Mistake` where there is less."""
    config, first = fitting.config, fitting.first
    rows = build.rows_a_step(config)
    length = config.batch.length if first is None else first.part(0, min(rows, first.rows)).index.shape[1]
    data, ahead = (None, 0) if fitting.feed is None else (fitting.feed.data, fitting.feed.ahead)
    plan = planned(fitting.spread, *placed, blank(data, rows, length), ahead)
    if plan is not None:
        fitting.say(f"memory: {plan.told()}" + (" (the rest of it stays on disk)" if ahead else ""))
        refuse(plan, fitting, state, source, length)


def blank(data: Mapped | None, rows: int, length: int) -> Slab:
    """A slab of padding; with events of its own where they stay on disk."""
    index = np.full((RECORD, rows, length), -1, np.int32)
    reset = np.zeros(index.shape, bool)
    return Slab(index, reset, count=0, end=0, last=True, own=None if data is None else data.own(index, reset))


def planned(run: Spread, state: State, source: AnySource, hyper: Hyper, slab: Slab, ahead: int = 0) -> Plan | None:
    """The plan of a training whose arguments lie on the devices already, and whose slabs come with events of their own
    where some are ``ahead``; None where the compiler does not tell.
    """
    needs = needed(run, state, source, hyper, slab)
    if needs is None:
        return None
    parameters, events = held(state), held(source)
    crowd = len(run.devices) if run.devices[0].platform == "cpu" else 1  # they share the machine's memory
    room = free_memory() / crowd + parameters + events
    each = slab_bytes(run, slab)
    return Plan(parameters, events + each * (ahead and ahead + 1), needs.peak + each * ahead, room)


def needed(run: Spread, state: Any, source: Any, hyper: Hyper, slab: Slab) -> Memory | None:
    """What the program of a dispatch needs of each device."""
    return memory_of(run.program(state, *slab.read(source), np.zeros(2, np.int32), hyper))


def held(tree: Any) -> int:
    """Bytes that arrays have on one of their devices."""

    def bytes_of(leaf: Any) -> int:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return 0
        return int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64)) * leaf.dtype.itemsize

    return sum(bytes_of(leaf) for leaf in jax.tree.leaves(tree))


def slab_bytes(run: Spread, slab: Slab) -> int:
    """What a slab takes of a device: its events, where they travel with it, and the plan of the device's rows."""
    source, *plan = slab.read(Bare())
    whole, cut = (sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for tree in (source, plan))
    return whole + cut * run.pieces // len(run.devices)


def refuse(plan: Plan, fitting: "Fitting", state: State, source: AnySource, length: int) -> None:
    """`Mistake` where a training does not fit, with what other options would need."""
    if plan.fits:
        return
    others = sorted(alternatives(fitting, state, source, length), key=lambda found: found[1])
    advice = "; ".join(f"{words} would need {size(peak)}" for words, peak in others if peak < plan.peak)
    raise Mistake(
        f"training needs {plan.told()}, and a device has room for {size(plan.room)}; "
        + (advice or "make the model or the batch smaller, or use a device with more memory")
    )


def alternatives(fitting: "Fitting", state: State, source: AnySource, length: int) -> Iterator[tuple[str, int]]:
    """Other options and the peak that each of them alone would have; nothing is allocated for it."""
    shapes: Any = jax.tree.map(shape, (state._replace(carry=None), source))
    config, data = fitting.config, Mapped(fitting.prepared, fitting.config.model.user)
    for words, changed in changes(config, fitting.feed is not None):
        step, hyper = build.step(changed, fitting.steps)
        rows = build.rows_a_step(changed)
        lanes = rows if config.batch.layout == "lanes" else 0
        begun = jax.eval_shape(partial(step.init, lanes=lanes), shapes[0].model, hyper, shapes[0].key)
        disk = fitting.feed is not None or changed.events_on == "disk"
        read = jax.eval_shape(data.bare) if disk else shapes[1]
        slab = blank(data if disk else None, rows, length)
        known = jax.eval_shape(step.know, shapes[1].counts, hyper)
        run = Spread(step, "jit", changed.devices, changed.shards)  # the ways need the same
        found = needed(run, begun, read._replace(known=known), hyper, slab)
        if found is not None:
            yield words, found.peak + (changed.readers * slab_bytes(run, slab) if disk else 0)


def changes(config: Config, disk: bool) -> Iterator[tuple[str, Config]]:
    """What may need less, where events lie on ``disk`` already or not."""
    batch, optimizer = config.batch, config.optimizer
    if not disk:
        yield "--events-on disk", replace(config, events_on="disk")
    data = config.devices // config.shards
    if batch.size % (2 * data) == 0:
        half = replace(batch, size=batch.size // 2)
        yield f"--batch.size {half.size}", replace(config, batch=half)
        twice = replace(optimizer, accumulate=2 * optimizer.accumulate)
        words = f"--batch.size {half.size} --optimizer.accumulate {twice.accumulate} (the same updates)"
        yield words, replace(config, batch=half, optimizer=twice)
    if config.compute == "float32":
        yield "--compute bfloat16", replace(config, compute="bfloat16")
    devices = len(jax.local_devices())
    if devices >= 2 * config.devices and batch.size % (2 * data) == 0:
        more = replace(config, devices=2 * config.devices)
        yield f"--devices {more.devices}", more
    if devices >= 2 * config.devices:
        more = replace(config, devices=2 * config.devices, shards=2 * config.shards)
        yield f"--devices {more.devices} --shards {more.shards}", more
    if config.loss.name == "softmax":
        lazy = replace(optimizer, lazy=True)
        yield (
            '--loss "sampled_softmax(negatives=512)" --optimizer.lazy',
            replace(config, loss=Call.parse("sampled_softmax(negatives=512)"), optimizer=lazy),
        )
