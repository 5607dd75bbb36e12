"""Timing that can be believed: tracing, compiling and running apart, and rivals measured in turns.

A machine that is shared or that heats up gets slower and faster over minutes. Candidates therefore take turns, and
what is reported is the median of rounds and of the ratios within a round, together with their spread.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxrec.parallel.programs import memory_of


@dataclass(frozen=True)
class Stages:
    """A function compiled for certain arguments, and what each step on the way took."""

    compiled: Callable[..., Any]
    seconds: dict[str, float]  # lower (tracing included), compile, first (the first run)
    memory: dict[str, int]  # bytes: arguments, outputs, aliased, temporary, code, peak; empty where XLA does not tell
    flops: float | None  # as counted by XLA: a while loop's body counts once
    cached: bool  # whether a persistent compilation cache was on, so that `compile` may be a look-up

    def row(self) -> dict[str, Any]:
        """The numbers under flat names, for a row of results."""
        row: dict[str, Any] = {f"{name}_seconds": value for name, value in self.seconds.items()}
        row |= {f"{name}_bytes": value for name, value in self.memory.items()}
        return row | {"flops": self.flops, "compilation_cached": self.cached}


def stages(fn: Callable[..., Any], *args: Any, **jit: Any) -> Stages:
    """Lower, compile and run `fn(*args)` once, each timed apart; `jit` are options of `jax.jit` (static_argnums...).

    A function that can be lowered already (the result of `jax.jit`) is taken as it is. With donated arguments, `args`
    are gone afterwards.
    """
    staged = fn if hasattr(fn, "lower") else jax.jit(fn, **jit)
    lowered, lower = _timed(lambda: staged.lower(*args))
    compiled, compile_ = _timed(lowered.compile)
    static = jit.get("static_argnums", ())
    static = (static,) if isinstance(static, int) else static
    dynamic = [arg for number, arg in enumerate(args) if number not in static]
    _, first = _timed(lambda: jax.block_until_ready(compiled(*dynamic)))
    cost = compiled.cost_analysis()
    flops = float(cost["flops"]) if isinstance(cost, Mapping) and "flops" in cost else None
    settings = jax.config.values
    cached = bool(settings["jax_enable_compilation_cache"] and settings["jax_compilation_cache_dir"])
    seconds = {"lower": lower, "compile": compile_, "first": first}
    return Stages(compiled, seconds, _memory(compiled), flops, cached)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def _memory(compiled: Any) -> dict[str, int]:
    found = memory_of(compiled)
    if found is None:
        return {}
    # XLA's own peak counts what is alive at once; without it, everything together is an upper bound.
    alive = int(getattr(compiled.memory_analysis(), "peak_memory_in_bytes", 0))
    return found._asdict() | {"peak": alive or found.peak}


@dataclass(frozen=True)
class Times:
    """Seconds per call in every round, by the wall and by this process's processors (all threads together)."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    calls: int  # per round

    @property
    def seconds(self) -> float:
        return statistics.median(self.wall)

    @property
    def cpu_seconds(self) -> float:
        return statistics.median(self.cpu)

    def row(self) -> dict[str, Any]:
        """The numbers under flat names, for a row of results."""
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "seconds_low": min(self.wall),
            "seconds_high": max(self.wall),
            "rounds": len(self.wall),
            "calls": self.calls,
        }


def alternate(
    candidates: Mapping[str, Callable[[], Any]], rounds: int = 9, warmup: int = 1, least: float = 0.02
) -> dict[str, Times]:
    """Time every candidate once a round, in an order that rotates, for `rounds` rounds.

    A candidate is called as often in a row as fills about `least` seconds, and JAX arrays that it returns are waited
    for after every call; work queued elsewhere (another library's accelerator stream) it must wait for itself. The
    `warmup` calls before the first round are not counted.
    """
    if rounds < 1 or not candidates:
        raise ValueError(f"{len(candidates)} candidates in {rounds} rounds give no times; use at least one of each")
    calls = {}
    for name, candidate in candidates.items():
        for _ in range(warmup):
            jax.block_until_ready(candidate())
        once, _ = _per_call(candidate, 1)
        calls[name] = max(1, round(least / max(once, 1e-9)))
    names = list(candidates)
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seen[name].append(_per_call(candidates[name], calls[name]))
    return {
        name: Times(wall=tuple(wall for wall, _ in times), cpu=tuple(cpu for _, cpu in times), calls=calls[name])
        for name, times in seen.items()
    }


def _per_call(candidate: Callable[[], Any], calls: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        jax.block_until_ready(candidate())
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls


def ratio(times: Mapping[str, Times], name: str, base: str) -> dict[str, float]:
    """How much longer `name` takes than `base`: the median over rounds of the ratio within a round, and its range."""
    ratios = [mine / theirs for mine, theirs in zip(times[name].wall, times[base].wall, strict=True)]
    return {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}


def append_row(path: Path | str, row: Mapping[str, Any]) -> None:
    """Append one result to a .jsonl file, in one write; raises ValueError when a number in it is not finite."""
    line = json.dumps(dict(row), allow_nan=False, ensure_ascii=False) + "\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, line.encode())
        os.fsync(file)
    finally:
        os.close(file)
