"""What does training cost whose events stay on disk, beside training whose events lie on the device, and beside Grain?

Claim     A step whose events are gathered from mapped files ahead of it takes at most 1.05 times the time of one whose
          events lie on the device, with one reader as with two; Grain, given the very same work in elements of a slab,
          cannot be told apart from it, so it is no dependency. So it was while the machine was quiet, within its noise;
          with the cores kept busy by others the larger data took up to 1.2 times as long, at equal CPU time.
Command   python experiments/bench_input.py --data ../shared/data/ml-1m/ml-1m.txt.gz --millions 30
          (pip install grain first; without it the rows have no Grain)
Time      About half an hour on two cores, and 0.3 GB on the disk.
Expect    A row a setting in experiments/results/bench_input.jsonl: ml-1m, a GRU of 64 under the full softmax, and as
          many millions of generated events under a sampled one with lazy updates, both in batches of 16 x 200; for each
          way seconds and CPU-seconds a step (all threads of the process), the ratios to the device's (least_ratio: of
          the fastest rounds), the share of a step's time that it waits for its slab, and the bytes of events there.

The ways take turns in one process, a slab of 32 steps at a time, each with a training of its own from the same weights:
all train on the same slabs in the same order, and the losses must be equal to the last bit. The device's way is there
twice: by how much it differs from itself, other differences may be the machine's. XLA has one thread, so that
another core, where there is one, is free to read. The generated files are in the page cache, as they were just written:
what is measured is gathering, copying and handing over, not the disk.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = " ".join(
    [*os.environ.get("XLA_FLAGS", "").split(), "--xla_cpu_multi_thread_eigen=false", "intra_op_parallelism_threads=1"]
)

import jax
import numpy as np

from jaxrec.bench.timing import Times, alternate, append_row, ratio
from jaxrec.config import resolve
from jaxrec.data.batches import Rows
from jaxrec.data.prepare import prepare
from jaxrec.data.prepared import Prepared, load, save
from jaxrec.data.vocabulary import Vocabulary
from jaxrec.runs import build
from jaxrec.runs.epochs import plan
from jaxrec.runs.machine import card
from jaxrec.runs.options import Config
from jaxrec.training.feed import Feed, Mapped
from jaxrec.training.loop import RECORD, informed
from jaxrec.training.source import AnySource, Bare, Slab, Source, load as on_device, slabs, spans
from jaxrec.training.spread import Spread

ROWS = Path(__file__).parent / "results" / "bench_input.jsonl"
ITEMS, MEAN = 200_000, 60  # of the generated events: items, and events of a sequence
COMMON: dict[str, Any] = {"model.width": 64, "batch.size": 16, "batch.length": 200}
LARGE = {"loss": "sampled_softmax(negatives=512)", "optimizer.lazy": True, "batch.shuffle_over": 5_000_000}


def generated(folder: Path, millions: int) -> Prepared:
    """Sequences of geometric length, items by a power law, mapped from the disk."""
    rng = np.random.default_rng(0)
    lengths = rng.geometric(1 / MEAN, millions * 1_000_000 // MEAN) + 2
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    drawn = ITEMS * rng.random(offsets[-1], np.float32) ** 2.5
    items = 1 + np.minimum(drawn.astype(np.int32), ITEMS - 1)
    gaps = rng.standard_exponential(len(items), np.float32)
    people = np.arange(1, len(lengths) + 1, dtype=np.int32)
    names = [Vocabulary.from_strings([str(number) for number in range(1, 1 + n)]) for n in (ITEMS, len(people))]
    made = Prepared(
        card={"schema": 1, "name": "generated", "sequence": "user"}, items=items, offsets=offsets,
        train_end=offsets[1:] - 2, valid_end=offsets[1:] - 1, users=people,
        popularity=np.bincount(items, minlength=ITEMS + 1), item_ids=names[0], user_ids=names[1],
        known=ITEMS, candidates=ITEMS, gaps=gaps,
    )  # fmt: skip
    return load(save(made, folder / "prepared"))


class Bench:
    """One setting: the step, and what each way of reading feeds it."""

    def __init__(self, config: Config, prepared: Prepared):
        self.config, self.prepared = config, prepared
        self.step, self.hyper = build.step(config, 1000)
        self.run = Spread(self.step, "jit", 1)
        self.losses: dict[str, list[np.ndarray]] = {}
        self.waits: dict[str, list[float]] = {}
        self.bytes: dict[str, int] = {}

    def plans(self) -> Iterator[Rows]:
        return (plan(self.config, self.prepared, epoch) for epoch in itertools.count())

    def resident(self) -> tuple[Source, Iterator[Slab]]:
        source = on_device(self.prepared, user=False)
        return source, itertools.chain.from_iterable(
            slabs(rows, size=self.config.batch.size, steps=RECORD, begin=0) for rows in self.plans()
        )

    def disk(self, readers: int) -> tuple[Bare, Iterator[Slab]]:
        feed = Feed(Mapped(self.prepared, False), readers)
        return feed.data.bare(), itertools.chain.from_iterable(
            feed.slabs(rows, size=self.config.batch.size, steps=RECORD, begin=0, lay=self.run.lay)
            for rows in self.plans()
        )

    def grain(self, readers: int) -> tuple[Bare, Iterator[Slab]]:
        return Mapped(self.prepared, False).bare(), itertools.chain.from_iterable(
            self.by_grain(rows, readers) for rows in self.plans()
        )

    def by_grain(self, rows: Rows, readers: int) -> Iterator[Slab]:
        """An epoch's slabs as elements of a Grain data set, as many threads and as many ahead as ours."""
        import grain

        feed, size = Feed(Mapped(self.prepared, False), readers), self.config.batch.size
        parts = list(spans(rows, size=size, steps=RECORD, begin=0))

        class Slabs:
            def __len__(self) -> int:
                return len(parts)

            def __getitem__(inner, number: int) -> Slab:  # noqa: N805
                return feed.slab(rows, *parts[number], size, RECORD, self.run.lay)

        options = grain.ReadOptions(num_threads=readers, prefetch_buffer_size=readers)
        return iter(grain.MapDataset.source(Slabs()).to_iter_dataset(options))

    def way(self, name: str, source: AnySource, stream: Iterator[Slab]) -> Callable[[], Any]:
        """A training whose every call is a slab."""
        model = build.model(self.config.model, build.offered(self.prepared), seed=0)
        source = informed(self.step, source, self.hyper)
        state, placed, hyper = self.run.place(self.step.init(model, self.hyper, jax.random.key(0)), source, self.hyper)
        held, losses, waits = [state], self.losses.setdefault(name, []), self.waits.setdefault(name, [])

        def go() -> None:
            began = time.perf_counter()
            slab = next(stream)
            waits.append(time.perf_counter() - began)
            bounds = np.array([0, slab.count], np.int32)
            read, *plan = slab.read(placed)
            self.bytes[name] = sum(leaf.nbytes for leaf in jax.tree.leaves((read.items, read.gaps)))
            held[0], metrics = self.run(held[0], read, *plan, bounds, hyper)
            losses.append(np.asarray(metrics.loss)[: slab.count])

        return go


def measure(name: str, config: Config, prepared: Prepared, rounds: int) -> dict[str, Any]:
    """One row."""
    bench = Bench(config, prepared)
    ways: dict[str, tuple[AnySource, Iterator[Slab]]] = {
        "device": bench.resident(), "device, again": bench.resident(), "disk, 1 reader": bench.disk(1),
        "disk, 2 readers": bench.disk(2),
    }  # fmt: skip
    try:
        import grain

        ways |= {f"grain, {n} reader{'s' * (n > 1)}": bench.grain(n) for n in (1, 2)}
    except ImportError:
        grain = None
    times = alternate({way: bench.way(way, *parts) for way, parts in ways.items()}, rounds=rounds)
    first = np.concatenate(bench.losses["device"])
    return {
        "setting": name, "events": len(prepared.items), "items": prepared.candidates, "rounds": rounds,
        "steps_a_round": RECORD, "grain": getattr(grain, "__version__", None),
        "losses_equal": all(np.array_equal(first, np.concatenate(found)) for found in bench.losses.values()),
        "steps": len(first), "ways": {way: told(times, way, bench) for way in ways}, "machine": card(),
    }  # fmt: skip


def told(times: dict[str, Times], way: str, bench: Bench) -> dict[str, Any]:
    cpu = np.array(times[way].cpu) / np.array(times["device"].cpu)
    return {
        "step_seconds": times[way].seconds / RECORD, "step_cpu_seconds": times[way].cpu_seconds / RECORD,
        **ratio(times, way, "device"),
        "cpu_ratio": float(np.median(cpu)), "cpu_ratio_low": float(cpu.min()), "cpu_ratio_high": float(cpu.max()),
        "least_ratio": min(times[way].wall) / min(times["device"].wall),
        "wait_share": float(np.median(bench.waits[way][1:])) / times[way].seconds,
        "bytes_of_events_on_device": bench.bytes[way],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/ml-1m/ml-1m.txt.gz")
    parser.add_argument("--millions", type=int, default=30, help="of generated events; 0 generates none")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        settings: list[tuple[str, dict[str, Any], Callable[[Config], Prepared]]] = [
            (Path(options.data).name, {"data": options.data}, lambda config: mapped(config, Path(temporary)))
        ]
        if options.millions:
            name = f"{options.millions} million generated"
            settings.append((name, LARGE, lambda config: generated(Path(temporary), options.millions)))
        for name, flags, made in settings:
            config = resolve(Config, flags=COMMON | flags).section
            row = measure(name, config, made(config), options.rounds)
            append_row(ROWS, row | {"flags": COMMON | flags | {"data": name}})
            for way, found in row["ways"].items():
                ratios = ", ".join(f"{key} {found[key]:.3f}" for key in ("ratio", "least_ratio", "cpu_ratio"))
                print(f"{name}, {way}: {ratios}, waits {found['wait_share']:.2%}")


def mapped(config: Config, folder: Path) -> Prepared:
    return load(save(prepare(config, lambda sentence: None), folder / "given"))


if __name__ == "__main__":
    sys.exit(main())
