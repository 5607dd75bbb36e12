"""What a sweep may be told, and which words of its command line are options of the sweep and which of its space."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from jaxrec.config import Mistake, Section, Within, did_you_mean, from_dict, keys
from jaxrec.runs.options import Config
from jaxrec.runs.profiles import profile_file

Positive = Annotated[int, Within(1)]
Count = Annotated[int, Within(0)]
Amount = Annotated[float, Within(0.0, above=True)]


@dataclass(frozen=True, kw_only=True)
class Sweep(Section):
    """Train many configurations: jaxrec sweep SPACE.toml --out DIR --trials 100

    The space is a TOML file as `jaxrec train --config` takes it, flags, or both:

    --model.cell "gru|lstm|lru"           one of these
    --optimizer.lr "log(1e-4, 1e-2)"      also uniform, int, logint; step= or n=
    --optimizer.weight_decay "log(1e-6, 1e-2) if optimizer.name=adamw"
    --loss "sampled_softmax(negatives=512, alpha={uniform(0, 1)})"
    --epochs 10                           anything else is the same for all

    Any option of a training can stand there: jaxrec train --help lists them.

    A table [sweep] in the file may hold the options below; flags win over it.

    The same command goes on with what is missing; --out alone does, too.
    """

    out: str
    """directory of the sweep: its ledger, trials.jsonl with a row a trial, and a run directory for each"""
    space: str | None = None
    """TOML file of the space; a first word without a flag is this file"""
    profile: Literal["gru4rec"] | None = None
    """settings of a published model, laid under the space as `jaxrec train --profile` lays them"""
    trials: Positive | None = None
    """trainings in all, over every start of the sweep; none is the whole grid, or as many as before"""
    workers: Positive | None = None
    """processes that train; none: one for each accelerator, or for each processor core where there is none; with slurm
    the jobs at a time"""
    on: Literal["here", "ray", "slurm"] = "here"
    """where workers are: on this machine, in a Ray cluster, or as Slurm's jobs"""
    address: str | None = None
    """of the Ray cluster: host:port, or auto for one on this machine; none begins one. With slurm what jobs know this
    machine by; none: its name"""
    slurm: tuple[str, ...] = ()
    """what a job asks for, in submitit's words: partition=gpu timeout_min=120 gpus_per_node=1"""
    together: Positive = 1
    """trials that a worker leases at a time, of configurations that compile alike"""
    search: Literal["grid", "random", "sobol", "tpe", "cmaes", "nsga2", "pbt"] = "random"
    """who proposes the next configuration; pbt is population-based training: the weak go on from the strong"""
    population: Positive | None = None
    """members that --search pbt trains side by side (10 unless given), each for --epochs a generation"""
    objectives: tuple[str, ...] = ("ndcg@10",)
    """what is sought, the first above all: validation metrics (the highest), seconds, parameters (the lowest), or with
    --diagnose gradient_horizon (the highest): the events after which 1 % of the trained gradient is left, in rows of
    batch.length, none where it explodes"""
    seeds: Positive = 1
    """trainings of each configuration, with seeds 0, 1, 2, ..."""
    prune: Literal["none", "halving", "hyperband", "median"] = "none"
    """give trainings up after a validation that compares badly by the first objective; median from five finished on"""
    prune_after: Positive | None = None
    """epochs that every training gets before it may be given up; none: a quarter of its own"""
    sweep_seed: Count = 0
    """seed of what is proposed"""
    max_seconds: Amount | None = None
    """seconds of the sweep in all, over every start; for one training put max_seconds into SPACE.toml"""
    max_device_hours: Amount | None = None
    """hours of devices in all, over every start"""
    retries: Count = 2
    """more tries after an error, for each kind of error of a trial; a refused configuration gets none"""
    lease_seconds: Amount = 60.0
    """seconds without a sign of life after which a worker's trials are given to others"""
    strict_code: bool = False
    """let the commit be a part of what identifies a trial, and refuse to go on with another"""
    watch: bool = False
    """show a live table of the trials while they run"""
    track: tuple[str, ...] = ()
    """tell tensorboard, mlflow, wandb each trial that has ended, once; files under OUT/tracking"""
    rebuild: bool = False
    """make a damaged ledger anew from the run directories; the damaged one is kept beside it"""
    json: bool = False
    """print JSON instead of a table"""


def divided(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The words for the options of the sweep, and what others say of its space: a text an option, several as a list."""
    sweep, config, mine, given = keys(Sweep), keys(Config), list[str](), dict[str, list[str]]()
    words = list(argv)
    if words and not words[0].startswith("-"):
        words[0:1] = ["--space", words[0]]
    place: list[str] = mine
    for word in words:
        name, equals, value = word[2:].partition("=") if word.startswith("--") else ("", "", "")
        key = name.replace("-", "_")
        if not name:
            place.append(word)
        elif key in sweep or key == "help":
            mine.append(word)
            place = mine
        else:
            key, values = _option(word.partition("=")[0], key, config, sweep)
            place = given.setdefault(key, [])
            place += values + ([value] if equals else [])
    return mine, {name: _only(name, values) for name, values in given.items()}


def _option(word: str, key: str, config: list[str], sweep: list[str]) -> tuple[str, list[str]]:
    """The option of a training that a word names, and its value where the word says `no`."""
    positive = ".".join([*key.split(".")[:-1], key.split(".")[-1].removeprefix("no_")])
    if key in config:
        return key, []
    if positive in config:
        return positive, ["false"]
    close = did_you_mean(key, [*config, *sweep]).replace("_", "-").replace("'", "'--", 1)
    raise Mistake(f"{word!r} is not an option{close or '; --help lists them'}")


def _only(name: str, values: list[str]) -> Any:
    if not values:
        return "true"
    return values[0] if len(values) == 1 else values


def default(argv: Sequence[str]) -> Sweep | None:
    """The options as the file that ``argv`` names has them in its table [sweep]; None where it has none."""
    file = value_of(argv, "--space")
    if file is None:
        return None
    from jaxrec.sweeps.space import read

    table = {name.removeprefix("sweep."): value for name, value in read(Path(file)).items() if _ours(name)}
    out = value_of(argv, "--out") or table.get("out")
    return from_dict(Sweep, table | {"out": out, "space": file}, f"{Path(file).name} [sweep]") if out else None


def described(options: Sweep, given: Mapping[str, Any]) -> dict[str, Any]:
    """The space that a profile, a file and flags describe, by dotted name; the later wins."""
    from jaxrec.sweeps.space import read

    found: dict[str, Any] = {}
    if options.profile is not None:
        found |= read(profile_file(options.profile))
    if options.space is not None:
        found |= {name: value for name, value in read(Path(options.space)).items() if not _ours(name)}
    return found | dict(given)


def _ours(name: str) -> bool:
    return name.startswith("sweep.")


def value_of(argv: Sequence[str], flag: str) -> str | None:
    """What stands behind a flag, before anything is parsed."""
    for place, word in enumerate(argv):
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
        if word == flag and place + 1 < len(argv):
            return argv[place + 1]
    return None
