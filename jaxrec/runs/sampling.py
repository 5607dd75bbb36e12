"""Gradient flow over training: a run looks at itself now and then, in a twentieth of its time."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import jax

from jaxrec.data.batches import Rows
from jaxrec.data.prepared import Prepared
from jaxrec.diagnostics.clipping import clipping
from jaxrec.diagnostics.exponents import lyapunov
from jaxrec.diagnostics.flow import contributions, gradient
from jaxrec.diagnostics.gates import gates
from jaxrec.diagnostics.information import information
from jaxrec.diagnostics.records import Record
from jaxrec.models.recommender import Recommender
from jaxrec.runs.samples import drive, recall
from jaxrec.training.loop import Held
from jaxrec.training.optimisers import Hyper
from jaxrec.training.progress import JsonLines
from jaxrec.training.source import Events, slabs
from jaxrec.training.step import State, Step

FILE = "diagnostics.jsonl"
SHARE = 0.05  # of the training time, at most, unless told how often
EXAMPLES, PEOPLE, BATCHES, FEW = 8, 64, 4, 2
LEADING = 8  # exponents
SELECTING = ("valid", "test")  # a sweep may choose by what is seen here
DROPPED = ("log10_each", "per_example")  # a line a sample is enough


class Sampler:
    """Looks at a training's state and writes a line a sample: ``{"step", "epoch", "records": [...]}``.

    It looks before the first step, then between dispatches after at least ``every`` steps, and at the end; without
    ``every`` as often as a twentieth of the time since the first look allows, by what the last one took, with one kept
    for the end (the first, which compiles, is not counted). It never touches the state, and its time is none of the
    training's: the training is the same with it and without. Rows end before validation targets: a sweep may choose by
    what is seen here.
    """

    def __init__(
        self, directory: Path, prepared: Prepared, step: Step, hyper: Hyper, plan: Callable[[], Rows], rows: int,
        length: int, every: int | None,
    ):  # fmt: skip
        self.prepared, self.step, self.hyper, self.plan = prepared, step, hyper, plan
        self.length, self.rows, self.every = length, rows, every
        self.file = directory / FILE
        self.cost: float | None = None
        self.began = self.spent = 0.0  # when the first look was over, and what those after it took

    def begin(self, source: Events, step: int) -> None:
        """Go on after ``step``; later lines of an attempt that was cut are taken back."""
        self.lines, self.source = JsonLines(self.file, step), source
        self.last = step
        self.driven = drive(self.prepared, source, self.length, EXAMPLES, splits=SELECTING)
        self.people = recall(self.prepared, source, self.length, PEOPLE, splits=SELECTING)
        slab = next(slabs(self.plan(), size=self.rows, steps=BATCHES, begin=0))
        self.trained = [source.batch(slab.index[step], slab.reset[step]) for step in range(slab.count)]

    def due(self, step: int) -> bool:
        """Whether to look after so many steps."""
        if self.cost is None:  # one of many in a program, or one that goes on
            return True
        if self.every is not None:
            return step // self.every > self.last // self.every
        elapsed = time.perf_counter() - self.began - self.spent
        return self.spent + 2 * self.cost <= SHARE * elapsed  # this one, and the one at the end

    def __call__(self, held: Held, step: int, epoch: int) -> None:
        began = time.perf_counter()
        records = self.look(held())
        took = time.perf_counter() - began
        if self.cost is None:  # what was compiled just now is not compiled again
            began = time.perf_counter()
            self.look(held())
            self.began = time.perf_counter()
            self.cost = self.began - began
        else:
            self.cost, self.spent = took, self.spent + took
        self.lines({"step": step, "epoch": epoch, "seconds": took, "records": records})
        self.last = step

    def look(self, state: State) -> list[Record]:
        state = jax.device_put(state, jax.local_devices()[0])  # it may be spread over several
        model: Recommender = state.model
        masked = self.prepared.card["mask_seen"] != "none"
        records = [
            *gradient(model, self.driven.batch), *gates(model, self.driven.batch),
            *lyapunov(model, self.driven.batch, exponents=LEADING, full=LEADING),
            contributions(model, jax.tree.map(lambda leaf: leaf[:FEW], self.driven.batch)),
            information(model, self.people.batch, own=self.people.own, exclude_seen=masked),
            clipping(self.step, state, self.trained, self.hyper, self.source.known),
        ]  # fmt: skip
        about = {"length": self.length, "inputs": self.driven.inputs}
        return [{key: value for key, value in record.items() if key not in DROPPED} | about for record in records]

    def reach(self) -> Record:
        """How far the gradient of the lowest layer reached at the last look: the events after which 1 % is left, all of
        a row's where more is; None where it explodes.
        """
        lines = [json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines()]
        looked = lines[-1]["records"] if lines else []
        found: Record = next((record for record in looked if record["kind"] == "gradient"), {})
        told = found.get("horizons", {}).get("one_percent", {})
        value = told.get("beyond") if told.get("value") is None else told["value"]
        grows = found.get("label") == "exploding"  # which is no merit
        return {"horizon": None if grows else value, "label": found.get("label"), "length": self.length}

    def close(self) -> None:
        self.lines.close()
