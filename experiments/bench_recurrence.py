"""How fast does every cell run on every backend that takes it, beside the best that others offer?

Claim     On one CPU thread the default backend should train a GRU in a third to .55 of the CPU time of PyTorch's own
          layer and an LSTM in no more (not settled: see the rows); no backend is faster than scan at the price of
          other values or gradients.
Command   taskset -c 0 python experiments/bench_recurrence.py --cells gru lstm --minutes 60
          python experiments/bench_recurrence.py            (on an accelerator, all cells; the same again goes on)
          (pip install -c constraints.txt -e '.[bench]' first, for torch)
Time      --minutes, 9.5 unless given, to the end of the group in hand. On one CPU core the four shapes of one cell take
          about ten minutes; the whole matrix takes hours, and each run of the command does what rows do not have yet.
Expect    Rows in experiments/results/bench_recurrence.jsonl, one for every candidate of every group: tracing, lowering
          and compiling, the first run, memory, medians of the alternation, the ratio to the anchor with its range, the
          largest difference from scan in values and gradients. A candidate that cannot run has a row with the reason.

A group is one cell at one shape in one pass (forward, or forward and backward by parameters and inputs); its candidates
take turns in one process: backends, torch.nn.GRU and LSTM (cuDNN on a GPU), the same under torch.compile, flax's
nnx.RNN, FlashRNN, and the matrix products alone, which is what the machine allows. The anchor is torch where there is
one, else scan. On a CPU every candidate has one thread, and times are CPU time of the process.
"""

import argparse
import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ["XLA_FLAGS"] = " ".join(
    [*os.environ.get("XLA_FLAGS", "").split(), "--xla_cpu_multi_thread_eigen=false", "intra_op_parallelism_threads=1"]
)
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxrec.bench.timing import Stages, Times, alternate, append_row, stages
from jaxrec.cells import find
from jaxrec.cells.find import ours
from jaxrec.config import Call, Mistake, first_line
from jaxrec.recurrence import BACKENDS, unroll
from jaxrec.recurrence.backends import named
from jaxrec.recurrence.cases import random_events
from jaxrec.recurrence.shapes import SHAPES, Shape, shape
from jaxrec.recurrence.trees import difference
from jaxrec.runs.machine import card

ROWS = Path(__file__).parent / "results" / "bench_recurrence.jsonl"
FIRST = ("GRU", "LSTM", "MinGRU", "LRU")  # what most is asked about
GATES = {"GRU": 3, "LSTM": 4}
PEERS = ("torch", "torch.compile", "nnx.RNN", "flashrnn", "products")
PIECE = 640  # rows of a product outside the loop
Run = Callable[[], Any]


class Unable(Exception):
    """Why a candidate cannot run here."""


class Group(NamedTuple):
    """One cell at one shape, in one pass."""

    cell: str
    shape: str
    backward: bool

    @property
    def size(self) -> Shape:
        return shape(self.shape)

    def row(self) -> dict[str, Any]:
        return {
            "cell": self.cell,
            "shape": self.shape,
            **self.size._asdict(),
            "pass": "forward and backward" if self.backward else "forward",
        }


def backend(group: Group, name: str) -> tuple[Run, Stages]:
    """A cell of ours on one backend."""
    batch, steps, width = group.size
    cell = find(Call.parse(group.cell), width, hidden=width, rngs=nnx.Rngs(0))
    if (reason := named(name).refuses(cell)) is not None:
        raise Unable(reason)
    events = random_events(np.random.default_rng(1), cell.wants, batch, steps, width)
    shapes = jax.eval_shape(lambda: unroll(cell, events, backend="scan")[1])
    weights = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(2).normal(size=leaf.shape), leaf.dtype), shapes
    )

    def loss(cell: Any, x: jax.Array, weights: Any) -> tuple[jax.Array, Any]:
        outputs = unroll(cell, events._replace(x=x), backend=name)[1]
        return weighted(outputs, weights), outputs

    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True, allow_int=True)
    return staged(gradient if group.backward else lambda *given: loss(*given)[1], cell, events.x, weights)


def weighted(outputs: Any, weights: Any) -> jax.Array:
    """A sum in which every output counts."""
    return sum((jnp.real(a) * w).sum() for a, w in zip(jax.tree.leaves(outputs), jax.tree.leaves(weights), strict=True))


def staged(fn: Callable[..., Any], *args: Any) -> tuple[Run, Stages]:
    done = stages(fn, *args)
    return lambda: done.compiled(*args), done


def torch_layer(group: Group, compiled: bool = False) -> Run:
    """PyTorch's own layer: a fused kernel on a CPU for the LSTM, cuDNN on a GPU."""
    torch = wanted("torch")
    if group.cell not in GATES:
        raise Unable(f"torch.nn has no {group.cell}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if jax.default_backend() != "cpu" and device == "cpu":
        raise Unable("this torch sees no accelerator")
    torch.set_num_threads(1)
    batch, steps, width = group.size
    layer = getattr(torch.nn, group.cell)(width, width, batch_first=True).to(device)
    called = torch.compile(layer) if compiled else layer
    x = torch.randn(batch, steps, width, device=device, requires_grad=group.backward)
    weights = torch.randn(batch, steps, width, device=device)
    return torch_pass(torch, lambda: called(x)[0], weights, [x, *layer.parameters()], group.backward)


def torch_pass(torch: Any, forward: Run, weights: Any, leaves: list[Any], backward: bool) -> Run:
    def go() -> None:
        if backward:
            torch.autograd.grad((forward() * weights).sum(), leaves)
        else:
            with torch.no_grad():
                forward()
        if weights.is_cuda:
            torch.cuda.synchronize()

    return go


def flashrnn(group: Group) -> Run:
    """FlashRNN's fused kernel, with the projection of the inputs that it leaves to the caller."""
    torch, library = wanted("torch"), wanted("flashrnn")
    if group.cell not in GATES:
        raise Unable(f"FlashRNN has no {group.cell}")
    if not torch.cuda.is_available():
        raise Unable("FlashRNN's kernels need an NVIDIA GPU")
    (batch, steps, width), gates = group.size, GATES[group.cell]
    make = lambda *size: torch.randn(*size, device="cuda", dtype=torch.bfloat16, requires_grad=True)  # noqa: E731
    x, w, r, b = (
        make(batch, steps, width),
        make(width, gates * width),
        make(gates, 1, width, width),
        make(gates, 1, width),
    )
    rest = {"function": group.cell.lower(), "backend": "cuda_fused"}

    def forward() -> Any:
        return library.flashrnn((x @ w).view(batch, steps, gates, 1, width), r, b, **rest)[0][0]

    weights = torch.randn_like(forward())
    return torch_pass(torch, forward, weights, [x, w, r, b], group.backward)


def flax_layer(group: Group) -> tuple[Run, Stages]:
    """flax's `nnx.RNN` over its own cell."""
    kinds = {"GRU": nnx.GRUCell, "LSTM": nnx.OptimizedLSTMCell}
    if group.cell not in kinds:
        raise Unable(f"flax has no {group.cell}")
    batch, steps, width = group.size
    layer = nnx.RNN(kinds[group.cell](width, width, rngs=nnx.Rngs(0)))
    definition, params, rest = nnx.split(layer, nnx.Param, ...)
    x, weights = (jax.random.normal(jax.random.key(n), (batch, steps, width)) for n in range(2))
    first = jnp.zeros((batch, width))  # given, since making it would draw random numbers inside the gradient

    def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        carry = first if group.cell == "GRU" else (first, first)
        outputs = nnx.merge(definition, params, rest)(x, initial_carry=carry)
        return (outputs * weights).sum(), outputs

    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    return staged(gradient if group.backward else lambda *given: loss(*given)[1], params, x)


def products(group: Group) -> tuple[Run, Stages]:
    """The matrix products of the same pass and nothing between them: recurrent ones step by step, others in pieces."""
    if group.cell not in GATES:
        raise Unable(f"the products of {group.cell} are not written down")
    (batch, steps, width), gates = group.size, GATES[group.cell]
    rows = batch * min(steps, max(1, -(-PIECE // batch)))
    pieces = -(-batch * steps // rows)
    weights = jax.random.normal(jax.random.key(0), (gates, width, width)) / width
    x = jax.random.normal(jax.random.key(1), (rows, width))

    def alone(x: jax.Array, weights: jax.Array) -> jax.Array:
        return sum(jax.lax.optimization_barrier(x @ weights[gate]) for gate in range(gates))

    def loop(x: jax.Array, weights: jax.Array, length: int) -> jax.Array:
        return jax.lax.scan(lambda x, _: (alone(x, weights), None), x, None, length=length)[0]

    def turn(weights: jax.Array, _: None) -> tuple[jax.Array, None]:
        slopes = [jax.lax.optimization_barrier(x.T @ (x + weights[0, 0, 0])) for _ in range(2 * gates)]
        return weights + 1e-9 * jnp.stack([a + b for a, b in zip(slopes[:gates], slopes[gates:], strict=True)]), None

    def work(x: jax.Array, weights: jax.Array) -> Any:
        done = [loop(x, weights, pieces), loop(x[:batch], weights, steps)]
        if group.backward:
            back = jax.lax.optimization_barrier(jnp.swapaxes(weights, 1, 2))
            done += [loop(x, back, pieces), loop(x[:batch], back, steps)]
            done += [jax.lax.scan(turn, weights, None, length=pieces)[0]]
        return done

    return staged(work, x, weights)


def wanted(package: str) -> Any:
    try:
        return __import__(package)
    except Exception as error:  # a library that does not load here is a reason like any other
        raise Unable(f"{package} does not import here: {first_line(error)}") from None


def peer(group: Group, name: str) -> tuple[Run, Stages | None]:
    made: Any = {
        "torch": torch_layer,
        "torch.compile": lambda group: torch_layer(group, compiled=True),
        "nnx.RNN": flax_layer,
        "flashrnn": flashrnn,
        "products": products,
    }[name](group)
    return made if isinstance(made, tuple) else (made, None)


def candidates(group: Group, backends: list[str], peers: list[str]) -> Iterator[tuple[str, Any]]:
    """Name, and what runs it with its stages, or why it cannot."""
    for name in dict.fromkeys([*backends, "scan", *peers]):
        try:
            run, done = backend(group, name) if name not in PEERS else peer(group, name)
            run()  # some refuse only when they run
            yield name, (run, done)
        except Unable as reason:
            yield name, str(reason)
        except Exception as error:
            yield name, f"{type(error).__name__}: {first_line(error)[:200]}"


def measure(group: Group, backends: list[str], peers: list[str], rounds: int) -> list[dict[str, Any]]:
    """The rows of a group."""
    found = dict(candidates(group, backends, peers))
    able = {name: made for name, made in found.items() if isinstance(made, tuple)}
    times = alternate({name: run for name, (run, _) in able.items()}, rounds=rounds)
    anchor = "torch" if "torch" in able else "scan"
    right = able["scan"][0]() if "scan" in able else None
    rows = []
    for name, made in found.items():
        row = group.row() | {"candidate": name, "peer": name in PEERS}
        if name not in able:
            rows.append(row | {"skipped": made})
            continue
        row |= times[name].row() | {"anchor": anchor} | ratios(times, name, anchor)
        row |= {"difference": difference(made[0](), right)} if name not in PEERS and name != "scan" else {}
        rows.append(row | (made[1].row() if made[1] else {}))
    return rows


def ratios(times: dict[str, Times], name: str, anchor: str) -> dict[str, float]:
    """Time relative to the anchor's in the same round, CPU time on a CPU: median and range."""
    pairs = zip(getattr(times[name], clock()), getattr(times[anchor], clock()), strict=True)
    found = [mine / theirs for mine, theirs in pairs]
    return {"ratio": statistics.median(found), "ratio_low": min(found), "ratio_high": max(found)}


def machine_allows() -> list[dict[str, Any]]:
    """The most that products and a large copy reach here in any round: the roof of the roofline."""
    product, widths = jax.jit(lambda a: a @ a), (256, 512, 1024, 2048)
    squares = {str(width): jax.random.normal(jax.random.key(0), (width, width)) for width in widths}
    many = jnp.zeros(2**26)
    copy = jax.jit(lambda v: v + 1)
    runs = {name: functools.partial(product, square) for name, square in squares.items()}
    times = alternate(runs | {"copy": functools.partial(copy, many)}, rounds=9)
    fastest = {name: min(getattr(one, clock())) for name, one in times.items()}
    roof = {
        "flops_per_second": max(2 * int(width) ** 3 / fastest[width] for width in squares),
        "bytes_per_second": 2 * many.nbytes / fastest["copy"],
    }
    return [{"candidate": "roof", "cell": "", "shape": "", "pass": ""} | roof]


def clock() -> str:
    """Which of the two times counts: that of the processor where it is the processor that computes."""
    return "cpu" if jax.default_backend() == "cpu" else "wall"


def here() -> str:
    """What rows must share to be of one set: the device and XLA's options."""
    return f"{jax.devices()[0].device_kind} {os.environ.get('XLA_FLAGS', '')}"


def known(path: Path, place: str) -> set[tuple[str, ...]]:
    """Cell, shape, pass and candidate of the rows there are from a place like this one."""
    if not path.exists():
        return set()
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {(row["cell"], row["shape"], row["pass"], row["candidate"]) for row in rows if row["place"] == place}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(ours(), key=lambda name: (name not in FIRST, name))
    parser.add_argument("--cells", nargs="+", default=names, help="as in gru or 'gru(reset=\"before\")'")
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), help="as in scan or 'scan(unroll=4)'")
    parser.add_argument("--shapes", nargs="+", default=[n for n in SHAPES if n != "tiny"], help="names, or 64x50x128")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--passes", nargs="+", default=["both", "forward"], choices=("both", "forward"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--minutes", type=float, default=9.5, help="no group is begun after this time")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file to append to, and to go on from")
    options = parser.parse_args()
    began, place, done = time.monotonic(), here(), known(options.rows, here())
    cells = [spelled(name) for name in options.cells]
    groups = [Group(c, s, p == "both") for p in options.passes for c in cells for s in options.shapes]
    groups.sort(key=lambda group: group.cell not in FIRST)
    need = [*options.backends, *options.peers]
    left = [g for g in groups if any((*key(g), name) not in done for name in need)]
    print(f"{len(groups) - len(left)} of {len(groups)} groups are there; {len(left)} to do on {place}", flush=True)
    if left and ("", "", "", "roof") not in done:
        save(options.rows, machine_allows(), place)
    for number, group in enumerate(left):
        if time.monotonic() - began > 60 * options.minutes:
            print(f"{options.minutes} minutes are over with {len(left) - number} groups left; run the command again")
            break
        save(options.rows, measure(group, options.backends, options.peers, options.rounds), place)
        jax.clear_caches()
    return 0


def spelled(cell: str) -> str:
    """A cell of ours as its class is written, so that rows of one cell have one name; any other call as it is."""
    return next((name for name in ours() if name.lower() == cell.lower()), cell)


def key(group: Group) -> tuple[str, str, str]:
    return group.cell, group.shape, group.row()["pass"]


def save(path: Path, rows: list[dict[str, Any]], place: str) -> None:
    machine = card()
    for row in rows:
        append_row(path, row | {"place": place, "machine": machine})
        shown = row.get("skipped") or {n: row[n] for n in ("cpu_seconds", "seconds", "ratio", "difference") if n in row}
        print(row["cell"], row["shape"], row["pass"], row["candidate"], shown, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Mistake as mistake:
        sys.exit(f"bench_recurrence: {mistake}")
