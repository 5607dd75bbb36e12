"""One training step of GRU4Rec in PyTorch, for CPU: the opponent in a benchmark, not a part of jaxrec.

Claim     Does what a step of the official PyTorch code does, in its style.
Command   python experiments/bench_gru4rec.py, which imports it: it does nothing by itself.
Time      Of a step, a few to a hundred milliseconds.
Expect    Rows of that benchmark, in experiments/results/bench_gru4rec.jsonl.

Written from a description of the algorithm; no code was copied, and none of the official code was at hand. What is the
same as and different from it below is by that description.

The same as the official PyTorch code, in arithmetic and in style (eager, `nn.GRUCell`, sparse gradients):
  * one item table for input and output; inputs, targets and samples are one look-up, the output bias is another;
  * one step of `batch` parallel sessions: state carried and detached, zeroed where a session starts, hidden dropout on
    the state that is scored and carried on, embedding dropout on the input only;
  * the other targets of the batch and the shared samples are the negatives; bpr-max with elu and the penalty of scores,
    or cross-entropy with log-Q: log of the count off a target's column, of count**alpha off a sample's; a loss is
    summed over rows and divided by the batch;
  * Adagrad with momentum, eps inside the root; of the tables only rows that were hit move: parameter, accumulator and
    velocity, by the sum of the gradients of that row;
  * samples are drawn with replacement, by a search in the cumulative sum of count**alpha, many steps' worth at once.

Different, each to the advantage of this one or neutral:
  * the softmax of negatives leaves its own target out by a constant mask of -inf; cross-entropy is torch's fused one;
    bias (with log-Q folded in) and product are one `addmm`; constants of the batch are made once;
  * Adagrad's accumulator starts at eps instead of adding eps at every step; dense weights are updated in place;
  * the cache holds `cached` steps of samples, not millions, so that a short timing sees its fair share of the drawing;
    with draw=False it is filled once and used again and again;
  * one GRU layer; no data loader, no padding of sessions that ended, no check for NaN, no transfer of the loss.

Creating a model seeds torch's global generator, which dropout draws from. Call `torch.set_num_threads(1)` first where
CPU time is what counts, and `keep_memory()` to keep glibc from giving its pages back between steps: 1.3 to 1.4 times as
fast at hidden 100, batch 256, else noise.
"""

import ctypes
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-6


class Adagrad:
    """With momentum; a sparse gradient moves the rows it names and nothing else."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float):
        self.parameters, self.lr, self.momentum = parameters, lr, momentum
        self.squares = [torch.full_like(p, EPS, requires_grad=False) for p in parameters]
        self.velocity = [torch.zeros_like(p, requires_grad=False) for p in parameters]

    @torch.no_grad()
    def step(self) -> None:
        for parameter, square, velocity in zip(self.parameters, self.squares, self.velocity, strict=True):
            gradient, parameter.grad = parameter.grad, None
            if gradient is None:
                continue
            update = self.sparse if gradient.is_sparse else self.dense
            update(parameter, gradient, square, velocity)

    def dense(self, parameter: Tensor, gradient: Tensor, square: Tensor, velocity: Tensor) -> None:
        square.addcmul_(gradient, gradient)
        root = square.sqrt()
        if self.momentum:
            velocity.mul_(self.momentum).addcdiv_(gradient, root, value=-self.lr)
            parameter.add_(velocity)
        else:
            parameter.addcdiv_(gradient, root, value=-self.lr)

    def sparse(self, parameter: Tensor, gradient: Tensor, square: Tensor, velocity: Tensor) -> None:
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        root = square.index_select(0, rows).addcmul_(values, values)
        square.index_copy_(0, rows, root)
        move = values.div_(root.sqrt_()).mul_(-self.lr)
        if self.momentum:
            move.add_(velocity.index_select(0, rows), alpha=self.momentum)
            velocity.index_copy_(0, rows, move)
        parameter.index_add_(0, rows, move)


class Sampler:
    """Item ids with probability proportional to count**alpha, from a cache that is refilled when it is used up."""

    def __init__(self, counts: np.ndarray, alpha: float, samples: int, seed: int, draw: bool, cached: int):
        weight = np.asarray(counts, np.float64) ** alpha
        self.edges = torch.from_numpy(np.cumsum(weight / weight.sum())).to(torch.float32)
        self.edges[weight.nonzero()[0][-1] :] = 1.0  # rounding must not open a gap that no item fills
        self.generator = torch.Generator().manual_seed(seed)
        self.samples, self.draw, self.cached, self.at = samples, draw, cached, 0
        self.cache = self.filled()

    def filled(self) -> Tensor:
        points = torch.rand(self.cached, self.samples, generator=self.generator, dtype=torch.float32)
        return torch.searchsorted(self.edges, points, right=True)

    def __call__(self) -> Tensor:
        if self.at == self.cached:
            self.at = 0
            if self.draw:
                self.cache = self.filled()
        self.at += 1
        return self.cache[self.at - 1]


class TorchGRU4Rec:
    """Parameters, state and `step`, which trains on one event of each of `batch` sessions."""

    def __init__(
        self, items: int, hidden: int, batch: int, counts: np.ndarray, *, samples: int = 2048, alpha: float = 0.5,
        loss: str = "bpr_max", lr: float = 0.05, momentum: float = 0.2, elu: float = 0.5, bpreg: float = 1.0,
        logq: float = 1.0, dropout_hidden: float = 0.0, dropout_embed: float = 0.0, seed: int = 0, draw: bool = True,
        cached: int = 128,
    ):  # fmt: skip
        if len(counts) != items or loss not in ("bpr_max", "cross_entropy"):
            raise ValueError(f"{len(counts)} counts of {items} items, loss {loss!r}")
        torch.manual_seed(seed)
        self.items, self.batch, self.counts = items, batch, np.asarray(counts)
        self.elu, self.bpreg, self.logq = elu, bpreg, logq
        self.dropout_hidden, self.dropout_embed = dropout_hidden, dropout_embed
        self.sampler = Sampler(counts, alpha, samples, seed, draw, cached)
        self.table, self.bias = nn.Embedding(items, hidden, sparse=True), nn.Embedding(items, 1, sparse=True)
        self.cell = nn.GRUCell(hidden, hidden)
        self.initialise()
        parameters = [self.table.weight, self.bias.weight, *self.cell.parameters()]
        self.optimizer = Adagrad(parameters, lr, momentum)
        dtype = self.table.weight.dtype
        self.state = torch.zeros(batch, hidden, dtype=dtype)
        self.own = torch.arange(batch)
        self.mask = torch.zeros(batch, batch + samples, dtype=dtype)
        self.mask[self.own, self.own] = -torch.inf
        self.log_target = torch.from_numpy(np.log(np.maximum(self.counts, 1))).to(dtype)
        self.log_sample = alpha * self.log_target
        self.loss = self.bpr_max if loss == "bpr_max" else self.cross_entropy
        self.corrected = loss == "cross_entropy" and logq > 0

    @torch.no_grad()
    def initialise(self) -> None:
        nn.init.xavier_uniform_(self.table.weight)
        self.bias.weight.zero_()
        for weight in (self.cell.weight_ih, self.cell.weight_hh):
            for gate in weight.chunk(3):
                nn.init.xavier_uniform_(gate)
        self.cell.bias_ih.zero_()
        self.cell.bias_hh.zero_()

    def scores(self, item: Tensor, target: Tensor, reset: Tensor) -> Tensor:
        """(batch, batch + samples), a row's own target on the diagonal; carries the state on."""
        samples = self.sampler()
        columns = torch.cat((target, samples))
        embedded, outputs = self.table(torch.cat((item, columns))).split((self.batch, len(columns)))
        bias = self.bias(columns).T
        if self.corrected:
            bias = bias - self.logq * torch.cat((self.log_target[target], self.log_sample[samples]))
        if self.dropout_embed:
            embedded = functional.dropout(embedded, self.dropout_embed)
        state = self.cell(embedded, self.state.masked_fill(reset[:, None], 0.0))
        if self.dropout_hidden:
            state = functional.dropout(state, self.dropout_hidden)
        self.state = state.detach()
        return torch.addmm(bias, state, outputs.T)

    def bpr_max(self, scores: Tensor) -> Tensor:
        if self.elu:
            scores = functional.elu(scores, self.elu)
        weight = torch.softmax(scores + self.mask, 1)
        better = torch.sigmoid(scores.diagonal()[:, None] - scores)
        won = (better * weight).sum(1)
        loss = -torch.log(won + 1e-24).sum()
        if self.bpreg:
            loss = loss + self.bpreg * (scores.square() * weight).sum()
        return loss / self.batch

    def cross_entropy(self, scores: Tensor) -> Tensor:
        return functional.cross_entropy(scores, self.own)

    def step(self, item: Tensor, target: Tensor, reset: Tensor) -> Tensor:
        loss = self.loss(self.scores(item, target, reset))
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def keep_memory() -> bool:
    """Tell glibc to keep what is freed (M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD); whether it took that."""
    library = ctypes.CDLL(None)
    return hasattr(library, "mallopt") and all(
        library.mallopt(name, size) for name, size in ((-1, 2**30), (-2, 2**28), (-3, 2**28))
    )


def zipf(items: int) -> np.ndarray:
    """Counts that fall with the rank, at least one."""
    return np.maximum(1, np.round(items / np.arange(1, items + 1))).astype(np.int64)


def events_per_cpu_second(model: TorchGRU4Rec, steps: int, seconds: float = 2.0) -> float:
    """`steps` batches of Zipf-like items, a tenth of the rows a new session, trained on in turn for `seconds`."""
    rng = np.random.default_rng(0)
    share = zipf(model.items) / zipf(model.items).sum()
    events = torch.from_numpy(rng.choice(model.items, (steps, 2, model.batch), p=share))
    resets = torch.from_numpy(rng.random((steps, model.batch)) < 0.1)
    for number in range(min(3, steps)):
        model.step(*events[number], resets[number])
    done, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds:
        model.step(*events[done % steps], resets[done % steps])
        done += 1
    return done * model.batch / spent
