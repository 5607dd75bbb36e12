"""The test of the laws: a cell or a backend that breaks one is caught by that law, and an honest one by none."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrec.cells import Cell, Elman, Event, weight
from jaxrec.config import Mistake
from jaxrec.recurrence import Scan, measures
from jaxrec.recurrence.cases import Case
from jaxrec.recurrence.laws import LAWS, LawResult, check, examine

D, H = 3, 4
LAW = {law.name: law for law in LAWS}


class Plain(Cell):
    """An honest leaky integrator; every fault below differs from it in one place."""

    def __init__(self, features: int = D, hidden: int = H, *, rngs: nnx.Rngs):
        self.hidden = hidden
        self.w = weight(rngs, features, hidden)
        self.decay = nnx.Param(jnp.zeros(hidden))

    def initial_state(self) -> Any:
        return jnp.zeros(self.hidden)

    def project(self, event: Event) -> Any:
        return event.x @ self.w

    def step(self, state: Any, projected: Any) -> Any:
        keep = jax.nn.sigmoid(self.decay[...])
        return keep * state + (1 - keep) * projected


class ChangesDtype(Plain):
    def step(self, state: Any, projected: Any) -> Any:
        return super().step(state, projected).astype(jnp.float16)


class BranchesOnValues(Plain):
    def prepare(self) -> Cell:
        self.decay[...].max().item()
        return self


class RollsDice(Plain):
    def step(self, state: Any, projected: Any) -> Any:
        return super().step(state, projected) + np.random.default_rng().normal()


class TiesTwoNames(Plain):
    def __init__(self, features: int = D, hidden: int = H, *, rngs: nnx.Rngs):
        super().__init__(features, hidden, rngs=rngs)
        self.again = self.decay

    def step(self, state: Any, projected: Any) -> Any:
        return super().step(state, projected) + self.again[...]


class KeepsABareArray(Plain):
    def __init__(self, features: int = D, hidden: int = H, *, rngs: nnx.Rngs):
        super().__init__(features, hidden, rngs=rngs)
        self.constant = jnp.ones(hidden)


class LooksAtItsWeights(Plain):
    def __init__(self, features: int = D, hidden: int = H, *, rngs: nnx.Rngs):
        super().__init__(features, hidden, rngs=rngs)
        self.scale = float(self.w[...].max())


class KeepsANumberBesideItsWeights(Plain):
    def __init__(self, features: int = D, hidden: int = H, *, rngs: nnx.Rngs):
        super().__init__(features, hidden, rngs=rngs)
        self.scale = float(jax.random.uniform(rngs.params()))

    def step(self, state: Any, projected: Any) -> Any:
        return super().step(state, self.scale * projected)


class ReadsCoarsely(Plain):
    def read(self, state: Any, projected: Any) -> Any:
        return state.astype(jnp.bfloat16)


class NeedsFineWeights(Plain):
    def step(self, state: Any, projected: Any) -> Any:
        return super().step(state, jnp.sin(3000 * projected))


class StopsGradients(Plain):
    def step(self, state: Any, projected: Any) -> Any:
        return super().step(jax.lax.stop_gradient(state), projected)


class InsistsOnFloat32(Plain):
    def initial_state(self) -> Any:
        return jnp.zeros(self.hidden, jnp.float32)

    def step(self, state: Any, projected: Any) -> Any:
        return super().step(state, projected).astype(jnp.float32)


class HasADeadParameter(Plain):
    def __init__(self, features: int = D, hidden: int = H, *, rngs: nnx.Rngs):
        super().__init__(features, hidden, rngs=rngs)
        self.unused = nnx.Param(jnp.ones(hidden))


class Explodes(Plain):
    def step(self, state: Any, projected: Any) -> Any:
        return 1.5 * state + super().step(state, projected)


class RunsOnCPUOnly(Plain):
    def step(self, state: Any, projected: Any) -> Any:
        return super().step(state, projected) + jnp.linalg.eigvals(jnp.outer(projected, projected)).real.sum()


CELLS = [
    (ChangesDtype, "contract", "float16"),
    (BranchesOnValues, "jit", "Concretization"),
    (RollsDice, "deterministic", "event.key"),
    (TiesTwoNames, "owners", ".decay is also .again"),
    (KeepsABareArray, "owners", ".constant is a bare array"),
    (LooksAtItsWeights, "stacked", "constructor"),
    (KeepsANumberBesideItsWeights, "saved", "in parameters"),
    (ReadsCoarsely, "bfloat16", "in bfloat16"),
    (NeedsFineWeights, "bfloat16", "values"),
    (StopsGradients, "gradients", "stop_gradient"),
    (InsistsOnFloat32, "gradients", "fix no dtype"),
    (HasADeadParameter, "alive", "cell.unused"),
    (Explodes, "lasting", "it grows from event to event: bound the state"),
    (RunsOnCPUOnly, "portable", "tpu: "),
]


@pytest.mark.parametrize(("kind", "law", "words"), CELLS)
def test_a_broken_cell_is_caught_by_its_law(kind: type[Plain], law: str, words: str) -> None:
    broken(examine(LAW[law], Case(lambda rngs: kind(rngs=rngs))), words)


Run = Callable[[Any, Cell, Any, Event, Any], tuple[Any, Any]]


@dataclass(frozen=True)
class Broken:
    """A backend that does what ``how`` says instead of a scan."""

    how: Run

    def refuses(self, cell: Cell) -> str | None:
        return None

    def run(self, cell: Cell, state: Any, events: Event, reset: Any) -> tuple[Any, Any]:
        return self.how(Scan().run, cell, state, events, reset)


def starts_afresh(scan: Any, cell: Cell, state: Any, events: Event, reset: Any) -> Any:
    return scan(cell, jnp.zeros_like(state), events, reset)


def never_resets(scan: Any, cell: Cell, state: Any, events: Event, reset: Any) -> Any:
    return scan(cell, state, events, None)


def resets_every_row(scan: Any, cell: Cell, state: Any, events: Event, reset: Any) -> Any:
    every = None if reset is None else jnp.broadcast_to(reset.any(axis=0), reset.shape)
    return scan(cell, state, events, every)


def returns_the_first_state(scan: Any, cell: Cell, state: Any, events: Event, reset: Any) -> Any:
    _, outputs = scan(cell, state, events, reset)
    return state, outputs


def rounds_coarsely(scan: Any, cell: Cell, state: Any, events: Event, reset: Any) -> Any:
    last, outputs = scan(cell, state, events, reset)
    return last, outputs.astype(jnp.bfloat16).astype(jnp.float32)


def rounds_to_float32(scan: Any, cell: Cell, state: Any, events: Event, reset: Any) -> Any:
    last, outputs = scan(cell, state, events, reset)
    return last, outputs.astype(jnp.float32).astype(outputs.dtype)


def centres_over_time(scan: Any, cell: Cell, state: Any, events: Event, reset: Any) -> Any:
    return scan(cell, state, events._replace(x=events.x - events.x.mean(axis=1, keepdims=True)), reset)


def lets_gradients_back(scan: Any, cell: Cell, state: Any, events: Event, reset: Any) -> Any:
    future = events.x.sum(axis=1, keepdims=True)
    return scan(cell, state, events._replace(x=events.x + (future - jax.lax.stop_gradient(future))), reset)


def centres_over_rows(scan: Any, cell: Cell, state: Any, events: Event, reset: Any) -> Any:
    return scan(cell, state, events._replace(x=events.x - events.x.mean(axis=0, keepdims=True)), reset)


def favours_the_first_row(scan: Any, cell: Cell, state: Any, events: Event, reset: Any) -> Any:
    return scan(cell, state, events._replace(x=events.x.at[0].multiply(2.0)), reset)


def scales_by_length(scan: Any, cell: Cell, state: Any, events: Event, reset: Any) -> Any:
    return scan(cell, state, events._replace(x=events.x / events.x.shape[1]), reset)


def truncates_gradients(scan: Any, cell: Cell, state: Any, events: Event, reset: Any) -> Any:
    half = events.x.shape[1] // 2
    cut = lambda x, a, b: None if x is None else x[:, a:b]  # noqa: E731
    between, before = scan(cell, state, Event(events.x[:, :half]), cut(reset, 0, half))
    between = jax.lax.stop_gradient(between)
    last, after = scan(cell, between, Event(events.x[:, half:]), cut(reset, half, None))
    return last, jnp.concatenate([before, after], axis=1)


BACKENDS = [
    (starts_afresh, "split", ""),
    (starts_afresh, "states", "the given state"),
    (never_resets, "resets", "the row that restarts"),
    (resets_every_row, "resets", "the other rows"),
    (returns_the_first_state, "states", "the last state"),
    (rounds_coarsely, "streaming", ""),
    (rounds_coarsely, "specification", "values"),
    (rounds_to_float32, "specification64", "values"),
    (centres_over_time, "causal", "values"),
    (lets_gradients_back, "causal", "gradients"),
    (centres_over_rows, "separate", "a changed neighbour"),
    (favours_the_first_row, "separate", "another order"),
    (scales_by_length, "padding", "length"),
    (truncates_gradients, "specification", "cell."),
    (truncates_gradients, "gradients", "stop_gradient"),
]


@pytest.mark.parametrize(("how", "law", "words"), BACKENDS)
def test_a_broken_backend_is_caught_by_its_law(how: Run, law: str, words: str) -> None:
    broken(examine(LAW[law], Case(lambda rngs: Plain(rngs=rngs), backend=Broken(how))), words)


def broken(result: LawResult, words: str) -> None:
    assert not result.passed
    assert words in result.sentence
    assert result.sentence.startswith(f"{result.name} is broken (")
    assert result.largest > result.tolerance
    assert "\n" not in result.sentence


def test_an_honest_cell_passes_every_law() -> None:
    results = check(lambda rngs: Plain(rngs=rngs))
    assert [result.name for result in results] == [law.name for law in LAWS]
    assert [result.sentence for result in results if not result.passed] == []


def test_every_law_has_a_fault_that_it_alone_was_planted_for() -> None:
    assert {law for _, law, _ in CELLS + BACKENDS} == set(LAW)


def test_check_stops_where_nothing_more_can_be_said() -> None:
    assert [result.name for result in check(lambda rngs: ChangesDtype(rngs=rngs))] == ["contract"]
    assert [result.name for result in check(lambda rngs: BranchesOnValues(rngs=rngs))] == ["contract", "jit"]


def test_check_takes_a_users_file_and_its_own_width(tmp_path: Path) -> None:
    file = tmp_path / "short.py"
    file.write_text(
        "import jax.numpy as jnp\nfrom jaxrec.cells import Cell\n"
        "class Forgets(Cell):\n"
        "    def __init__(self, features, hidden, *, rngs): self.hidden = hidden\n"
        "    def initial_state(self): return jnp.zeros(self.hidden)\n"
        "    def step(self, state, projected): return state[:1]\n",
        encoding="utf-8",
    )
    (result,) = check(f"{file}:Forgets(hidden=6)")
    assert "expected float32[6], found float32[1]" in result.sentence
    with pytest.raises(Mistake, match="would run code"):
        check(f"{file}:Forgets", allow_code=False)


def test_check_refuses_a_backend_that_does_not_exist() -> None:
    with pytest.raises(Mistake, match="did you mean 'scan'"):
        check(lambda rngs: Elman(D, H, rngs=rngs), backend="scam")


def test_a_cell_that_wants_everything_is_given_everything() -> None:
    class Greedy(Plain):
        wants = Event._fields

        def project(self, event: Event) -> Any:
            noise = jax.random.uniform(event.key, (self.hidden,)) / jnp.sqrt(1 + event.gap)
            return (event.x + event.context * event.user) @ self.w + jnp.where(event.start, noise, 0)

    case = Case(lambda rngs: Greedy(rngs=rngs))
    for name in ("contract", "deterministic", "split", "resets", "streaming", "separate", "padding"):
        result = examine(LAW[name], case)
        assert result.passed, result.sentence


THEIRS = """
import jax.numpy as jnp, numpy as np
from flax import nnx
from jaxrec.cells import Cell, weight

class Base(Cell):
    def __init__(self, features: int, hidden: int, *, rngs):
        self.w, self.hidden = weight(rngs, features, hidden), hidden
    def initial_state(self): return jnp.zeros(self.hidden)
    def step(self, h, x): return jnp.tanh(x @ self.w + h)

class Fault(Base):
    {body}
"""
MENDED = [  # the faulty line, and what is said of it
    ("def step(self, h, x): return h if h.sum() > 0 else -h", "jnp.where or jax.lax.cond: a Python if"),
    ("def step(self, h, x): return h + float(h[0])", "float(), int()"),
    ("def step(self, h, x): return h + range(9)[h.argmax()]", "jax.lax.fori_loop"),
    ("def step(self, h, x): return h + jnp.ones(h.argmax()).sum()", "float(), int()"),
    ("def step(self, h, x): return np.tanh(h)", "write jnp instead of np"),
    ("def step(self, h, x): return h[h > 0].sum() + h", "jnp.where(mask, x, 0)"),
    ("def project(self, event): return event.x * event.gap", 'as in wants = ("x", "gap")'),
    ("def project(self, event): return event.x + event.context.sum()", 'wants = ("x", "context")'),
    ("def step(self, h, x): return h @ self.w", "h has shape (4,), self.w has shape (3, 4): make"),
    ("def step(self, h, x): return h + x", "h has shape (4,), x has shape (3,): make"),
    ("def step(self, h, x): return h + unknown", "name 'unknown' is not defined; correct that line"),
    ("def step(self, h, x): return h + jnp.log(jnp.abs(h))", "jnp.log1p"),
    ("def step(self, h, x): return h + x.sum() / h", "divided by 0"),
]


@pytest.mark.parametrize(("body", "words"), MENDED)
def test_the_line_of_a_users_file_is_named_with_what_mends_it(
    body: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("theirs.py").write_text(THEIRS.format(body=body), encoding="utf-8")
    result = check("theirs.py:Fault")[-1]
    assert result.name == "contract"
    broken(result, words)
    assert ": theirs.py:13: " in result.sentence
    assert "make step and initial_state agree" not in result.sentence


def test_a_gradient_that_is_not_a_number_is_told_as_such() -> None:
    class Roots(Plain):
        def step(self, state: Any, projected: Any) -> Any:
            return super().step(state, jnp.sqrt(jnp.maximum(projected, 0)))

    class RootsOfWeights(Plain):
        def step(self, state: Any, projected: Any) -> Any:
            return super().step(state, projected + jnp.sqrt(jnp.abs(self.decay)))  # which starts at 0

    broken(examine(LAW["gradients"], Case(lambda rngs: Roots(rngs=rngs))), "the gradient by cell.w, events.x is not")
    broken(examine(LAW["lasting"], Case(lambda rngs: RootsOfWeights(rngs=rngs))), "from the first events on; sqrt,")


def test_nan_is_worse_than_any_number() -> None:
    for found in ({"a": 0.5, "b": float("nan")}, {"b": float("nan"), "a": 0.5}):
        assert measures.worst(found)[1] == "b"
