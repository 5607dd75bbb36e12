"""One resolved configuration becomes a run directory and a result row."""

import hashlib
import os
import shlex
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxrec.config import Mistake, fingerprint, idle, to_dict, watch
from jaxrec.data.batches import Rows, waste
from jaxrec.data.context import attached
from jaxrec.data.prepare import prepare_cached
from jaxrec.data.prepared import Prepared
from jaxrec.data.replacing import replacing
from jaxrec.evaluation.ranks_file import Ranks, refuse_place, to_parquet
from jaxrec.evaluation.summary import headline
from jaxrec.metrics import parse
from jaxrec.metrics.sampled import split_name
from jaxrec.models.recommender import Recommender, drawn
from jaxrec.parallel import team
from jaxrec.runs import build, judge
from jaxrec.runs.ancestry import ancestor, start
from jaxrec.runs.build import rows_a_step
from jaxrec.runs.bundle import Bundle, load, read_code, save as save_bundle
from jaxrec.runs.change import described, told
from jaxrec.runs.epochs import plan, refuse_large
from jaxrec.runs.fitting import Ask, Fitting
from jaxrec.runs.folder import Folder, cache, mendable, read_json, write_json
from jaxrec.runs.machine import card as machine
from jaxrec.runs.options import Config
from jaxrec.training import source
from jaxrec.training.step import State
from jaxrec.training.stop import Interrupted, Stopped, StopSignal

SCHEMA = 1
# where things lie, how long and on what they run: none of it decides the result beyond the last bits of a sum over
# devices
VOLATILE = (
    "data", "test", "valid", "verify", "run", "seed", "max_seconds", "checkpoint_seconds", "fresh", "tensorboard",
    "parallel", "devices", "shards", "events_on", "readers", "tfds_data_dir", "tfds_manual_dir", "trace", "diagnose",
    "diagnose_every",
)  # fmt: skip
Say = Callable[[str], None]
Draw = Callable[..., Recommender]  # as `build.undrawn` or `build.model`


def identity(config: Config, prepared: Prepared, code: dict[str, bytes]) -> tuple[str, dict[str, Any]]:
    """The run's id and what it is the hash of: the configuration without paths and conveniences, the data's
    fingerprint, the seed.
    """
    deciding = told({name: value for name, value in to_dict(config).items() if name not in VOLATILE})
    if "start_from" in deciding:
        deciding["start_from"] = ancestor(deciding["start_from"])["id"]
    deciding["data"] = prepared.card["fingerprint"]
    deciding["code"] = {Path(file).name: hashlib.sha256(content).hexdigest() for file, content in code.items()}
    return f"{fingerprint(deciding)}-s{config.seed}", deciding | {"seed": config.seed}


class Begun(NamedTuple):
    """A run whose folder is claimed, before it trains; ``done`` is its result where it is complete already."""

    folder: Folder
    fitting: Fitting
    recommender: Recommender
    code: dict[str, bytes]
    known: dict[str, Any]
    done: dict[str, Any] | None

    @property
    def lanes(self) -> int:
        """Rows that keep their recurrent state from step to step."""
        return lanes(self.fitting.config)

    def fresh(self) -> State:
        """The state before the first step."""
        return self.fitting.spread.begun(self.recommender, partial(blank, self.fitting))


def lanes(config: Config) -> int:
    return rows_a_step(config) if config.batch.layout == "lanes" else 0


def blank(fitting: Fitting, model: Recommender) -> State:
    """The state before the first step of a model."""
    key = jax.random.key(fitting.config.seed)
    return fitting.step.init(model, fitting.hyper, key, lanes(fitting.config))


def again(config: Config) -> list[str]:
    """The words that go on with a run that no command line began."""
    return ["python", "-m", "jaxrec.runs", f"{config.run}/config.json"]


def train(
    config: Config, *, explicit: Sequence[str] = (), command: Sequence[str] = (), say: Say = print,
    ask: Ask | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Prepare, train, judge and save; returns the content of ``result.json``, or nothing in a process that is not the
    first of many.

    ``explicit`` are the dotted options that somebody set: those that nothing reads are reported. A directory that
    holds this run already is gone on with, or answered from when it is complete. ``ask`` hears of every validation and
    may give the run up. Raises `Stopped` after a signal, `GivenUp` where it was, and `Mistake` for anything the user
    can mend, a full disk included.
    """
    early = StopSignal(signal.SIGTERM)  # before and after training nothing is lost by leaving at once
    try:
        with early, early.raising(), mendable(cache()):
            return resumable(config, explicit, command, say, ask)
    except Interrupted as sent:
        raise Stopped(f"{sent}: what was saved stands; the same command, without --fresh, goes on from there") from None


def resumable(
    config: Config, explicit: Sequence[str], command: Sequence[str], say: Say, ask: Ask | None
) -> dict[str, Any]:
    """`train` itself."""
    team.join()
    remember_compilations()
    with scratch() as place:
        begun = begin(config, explicit, command, say if place is None else silent, ask, place=place)
        with begun.folder, mendable(begun.folder.path):
            found = run(begun) if begun.done is None else begun.done
            team.agreed(None)  # the first has written everything down
            return found


@contextmanager
def scratch() -> Iterator[Path | None]:
    """A folder for what a process writes that does not write the run; None for the one that does."""
    if team.leads():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="jaxrec-process-") as place:
        yield Path(place) / "run"


def silent(sentence: str) -> None:
    """For processes that would say what the first says."""


def begin(
    config: Config, explicit: Sequence[str] = (), command: Sequence[str] = (), say: Say = print,
    ask: Ask | None = None, draw: Draw = build.undrawn, place: Path | None = None,
) -> Begun:  # fmt: skip
    """Prepare the data, build everything, claim the folder and write down what it will hold; the caller releases it.
    ``draw`` makes the model, whose tables may be drawn later; ``place`` is written to instead of the folder of the run.
    """
    with watch(config) as seen:
        prepared = read(config, say)
        # everything that can be refused is built before the folder is touched
        first = first_epoch(config, prepared)
        steps = source.batches(first, rows_a_step(config)) * config.epochs  # packed afresh, an epoch may differ by one
        padding = waste(first)
        step, hyper = build.step(config, steps)
        offer = build.offered(prepared)
        recommender = draw(config.model, offer, seed=config.seed)
        prepared = attached(prepared, build.columns(config.model, offer))
        recommender = build.without_strangers(recommender, prepared)
        code = read_code(config.model.cell)
        run_id, deciding = identity(config, prepared, code)
        refuse_others(f"train {run_id}")
        folder = Folder(place or config.run or f"runs/{prepared.card['name']}-{config.model.cell.name}-{run_id}")
        fitting = Fitting(config, prepared, folder.path, step, hyper, steps, say, first, ask)
        known: dict[str, Any] = {"run_id": run_id}
        if config.start_from is not None:
            fitting.start, inherited = start(config.start_from, prepared, config, partial(blank, fitting), say)
            known |= {"inherited": inherited} if inherited else {}
        fresh = config.fresh
        ignored = seen.unread(explicit)
    folder.claim(run_id, deciding, fresh=fresh, data=described(prepared))
    done = finished(folder, run_id)
    if team.agreed(done is not None):
        done = done or {}
    begun = Begun(folder, fitting, recommender, code, known | {"ignored": ignored}, done)
    try:
        with mendable(folder.path):
            announce(begun, command, padding, say)
    except BaseException:
        folder.release()
        raise
    return begun


def read(config: Config, say: Say) -> Prepared:
    """The prepared data; of many processes the first prepares what the others then find."""
    if team.leads():
        prepared = prepare_cached(config, cache(), say=say)
    team.agreed(None)
    return prepared if team.leads() else prepare_cached(config, cache(), say=silent)


def refuse_others(work: str) -> None:
    """`Mistake` where processes that should do one work have been told, or have read, different things."""
    for process, other in enumerate(team.united(work)):
        if other != work:
            raise Mistake(
                f"process {process} would {other} and this one {work}; give all of them the same options, data and "
                "versions"
            )


def announce(begun: Begun, command: Sequence[str], padding: float, say: Say) -> None:
    """Write down what makes the run and say what there is to say of it."""
    folder, config = begun.folder, begun.fitting.config
    if begun.done is not None:
        say(f"{folder.path} holds this run already, complete; --fresh trains it again")
        return
    # without `fresh`: whoever repeats what stands here means to go on, not to start over
    write_json(folder.config, to_dict(config) | {"fresh": False})
    words = shlex.join(word for word in command if word != "--fresh")
    with replacing(folder.command) as file:
        file.write((words + "\n").encode())
    write_json(folder.machine, machine())
    parameters = size(jax.eval_shape(drawn, begun.recommender))
    say(f"{folder.path}: {sum(parameters.values()):,} parameters, {parameters['tables']:,} of them in tables")
    if padding > 0.5:
        remedy = "use a smaller batch.size" if config.batch.layout == "lanes" else "use --batch.layout packed"
        say(f"note: {padding:.0%} of the slots of an epoch are padding; {remedy}")
    for name in begun.known["ignored"]:
        say(f"note: {idle(name)}")


def run(begun: Begun) -> dict[str, Any]:
    """Train, then judge the best weights once on the test targets, and write everything down."""
    fitting = begun.fitting
    state = fitting.fit(begun.fresh(), fitting.events())
    fitting.refuse_unfinished()
    late = StopSignal()
    with late, late.raising():
        best, valid, valid_ranks = fitting.chosen(state)
        began = time.perf_counter()
        judged = judge.on_test(fitting.laid(best), fitting.prepared, fitting.config.eval.metrics)
        if not team.leads():
            return {}
        return conclude(begun, best, valid, valid_ranks, judged, time.perf_counter() - began)


def conclude(
    begun: Begun, best: Recommender, valid: dict[str, Any], valid_ranks: Ranks, judged: judge.Judged, seconds: float
) -> dict[str, Any]:
    """Write ranks, bundle and result of a judged model, each whole or not at all."""
    folder, fitting, code = begun.folder, begun.fitting, begun.code
    config, prepared = fitting.config, fitting.prepared
    judged.save(folder)
    judge.write_ranks(folder.ranks_valid, valid_ranks, judge.sliced(prepared, valid_ranks))
    save_bundle(folder.bundle, best, prepared, config, code)
    needs = build.needs(best, build.columns(config.model, build.offered(prepared)))
    result = {
        "schema": SCHEMA, **begun.known, "run": str(folder.path),
        "complete": fitting.progress.done, "stopped": fitting.stopped,
        "headline": headline(prepared), "test": judged.found, "valid": valid,
        "baselines": judge.baselines(prepared, config.eval.metrics),
        "ceiling": judge.ceiling(prepared, config.eval.metrics),
        "protocol": prepared.card, "seed": config.seed,
        "model": {"cell": str(config.model.cell), "parameters": size(best), "needs": needs},
        "skipped": fitting.progress.clock.skipped,
        "warnings": [*fitting.warnings, *filter(None, [fitting.left_out()]), *judged.warnings],
        "epochs": fitting.progress.clock.epoch, "steps": fitting.progress.clock.step,
        "seconds": {"train": fitting.progress.seconds, "test": seconds},
        **({} if fitting.sampler is None else {"gradient": fitting.sampler.reach()}),
    }  # fmt: skip
    write_json(folder.result, result)
    return result


def finished(folder: Folder, run_id: str) -> dict[str, Any] | None:
    """The result of this very run where it is complete and lies whole beside its ranks and its model, else None."""
    if not (folder.result.exists() and folder.ranks.exists() and (folder.bundle / "bundle.json").exists()):
        return None
    try:
        found = read_json(folder.result)
    except Mistake:  # damaged; judging again gives the same
        return None
    return found if found.get("complete") and found.get("run_id") == run_id else None


def first_epoch(config: Config, prepared: Prepared) -> Rows:
    """Its plan. `Mistake` where there is nothing to train on, or no memory to make it."""
    refuse_large(config, prepared)
    rows = plan(config, prepared, 0)
    if not rows.rows:
        raise Mistake(
            f"{config.data} leaves no event to train on (no sequence has two training events); split it otherwise"
        )
    return rows


def trained(directory: str, *, allow_code: bool) -> Bundle:
    """What a finished run left. `Mistake` where it has not finished."""
    if not Path(directory).is_dir():
        raise Mistake(f"{directory} does not exist; give the directory of a finished run")
    if not Folder(directory).result.exists():
        raise Mistake(
            f"{directory} holds no finished run (no result.json); finish it with: jaxrec train --run {directory} ..."
        )
    return load(Path(directory), allow_code=allow_code)


def trained_on(directory: str, bundle: Bundle, say: Say) -> Prepared:
    """The data of that run, with the context that its model reads. `Mistake` where they are others by now."""
    prepared = read(bundle.config, say)
    if prepared.card["fingerprint"] != bundle.card["fingerprint"]:
        raise Mistake(
            f"{bundle.config.data} is not what {directory} was trained on (its fingerprint differs); restore it"
        )
    return attached(prepared, bundle.columns)


def evaluate(
    directory: str, *, metrics: Sequence[str] = (), parquet: str | None = None, allow_code: bool = False,
    say: Say = print,
) -> dict[str, Any]:  # fmt: skip
    """Judge the model of a finished run again on every test target; returns ``result.json``, written anew, or nothing
    in a process that is not the first of many: each judges its share, with the run's folder before it, and the first
    writes.

    ``metrics`` are measured beside those of the run; ``parquet`` names a file to write the ranks to as well.
    """
    team.join()
    remember_compilations()
    folder = Folder(directory)
    bundle = trained(directory, allow_code=allow_code)
    names = tuple(dict.fromkeys([*bundle.config.eval.metrics, *metrics]))
    refuse_unreadable(names)
    if parquet is not None:
        refuse_place(Path(parquet))
    prepared = trained_on(directory, bundle, say)
    refuse_others(f"judge {fingerprint({'result': read_json(folder.result), 'metrics': names})}")
    judged = judge.on_test(bundle.model, prepared, names)
    valid = None
    if team.agreed(not folder.ranks_valid.exists()):  # a run from before they were kept
        valid, _ = judge.model(bundle.model, prepared, names, "valid", users=bundle.config.eval.users)
    result = rewrite(folder, prepared, names, judged, valid) if team.leads() else {}
    if result and parquet is not None:
        to_parquet(parquet, judged.ranks, judged.masks, prepared)
        say(f"{parquet}: {len(judged.ranks.target):,} test targets")
    team.agreed(None)  # the first has written everything down
    return result


def rewrite(
    folder: Folder, prepared: Prepared, names: tuple[str, ...], judged: judge.Judged, valid: Ranks | None
) -> dict[str, Any]:
    """Put a judgement in the place of the one that a finished run has."""
    new = {
        "test": judged.found, "baselines": judge.baselines(prepared, names),
        "ceiling": judge.ceiling(prepared, names), "warnings": judged.warnings,
    }  # fmt: skip
    owner = read_json(folder.identity)
    folder.claim(owner["id"], owner["of"], data=owner.get("data"))
    with folder, mendable(folder.path):
        judged.save(folder)
        if valid is not None:
            judge.write_ranks(folder.ranks_valid, valid, judge.sliced(prepared, valid))
        result = read_json(folder.result) | new
        write_json(folder.result, result)
    return result


def refuse_unreadable(names: Sequence[str]) -> None:
    """`Mistake` for a metric that cannot be read, before any work is done."""
    for name in names:
        parse(split_name(name)[0])


def size(recommender: Recommender) -> dict[str, int]:
    """Parameters in tables and in the network."""
    return {
        "tables": sum(table.size for table in recommender.tables.values()),
        "network": sum(leaf.size for leaf in jax.tree.leaves(recommender.network)),
    }


def remember_compilations() -> None:
    """Keep compiled programs between processes: a second start takes a third of the time."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or getattr(jax.config, "jax_compilation_cache_dir"):  # noqa: B009 (jax does not declare it)
        return
    jax.config.update("jax_compilation_cache_dir", str(cache() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
