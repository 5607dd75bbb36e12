"""What every cell and every backend must obey. Tests and ``jaxrec check`` apply the same table, `LAWS`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from flax import nnx

from jaxrec.cells import Cell, find
from jaxrec.config import Call, Mistake, first_line
from jaxrec.recurrence import measures
from jaxrec.recurrence.backends import choose
from jaxrec.recurrence.cases import Case
from jaxrec.recurrence.faults import NotFinite, fault


@dataclass(frozen=True)
class Law:
    """A law, the largest violation that rounding explains, what it promises, and what to do about a violation."""

    name: str
    measure: Callable[[Case], measures.Finding]
    tolerance: float
    promise: str
    remedy: str
    of: Literal["cell", "backend"] = "backend"  # of the cell, so on scan alone, or of every pair
    gate: bool = False  # nothing else can be said of a cell that breaks it

    def concerns(self, backend: Call) -> bool:
        """Whether a matrix of cells and backends examines it there: what a cell must obey, on the plain scan alone."""
        return self.of == "backend" or backend == Call("scan")


ROUNDING = 1e-5
COARSE = 0.1  # six steps whose weights and vectors keep eight bits
LAWS = (
    Law(
        "contract",
        measures.contract,
        0,
        "it runs, and a step keeps the state's tree, shapes and dtypes",
        "make step and initial_state agree",
        of="cell",
        gate=True,
    ),
    Law(
        "jit",
        measures.compiles,
        ROUNDING,
        "jax.jit changes nothing",
        "use no Python branch, float() or numpy on values in prepare, project, step or read",
        of="cell",
        gate=True,
    ),
    Law(
        "deterministic",
        measures.deterministic,
        0,
        "two runs agree to the last bit",
        "take randomness only from event.key, and change no attribute while running",
        of="cell",
    ),
    Law(
        "owners",
        measures.owners,
        0,
        "every array is a real parameter with one owner",
        "wrap arrays in nnx.Param, build complex ones from real pairs, and tie by a method of the owner",
        of="cell",
    ),
    Law(
        "split",
        measures.split,
        ROUNDING,
        "two pieces give what the whole gives",
        "keep everything that must be remembered in the state",
    ),
    Law(
        "resets",
        measures.resets,
        ROUNDING,
        "a reset forgets the past of its own row",
        "start from initial_state() where reset is True",
    ),
    Law(
        "states",
        measures.states,
        ROUNDING,
        "a run begins at the given state and ends at the last",
        "return the state after the last event",
    ),
    Law(
        "streaming",
        measures.streaming,
        ROUNDING,
        "one event at a time gives what the sequence gives",
        "let project and read use one event only",
    ),
    Law("causal", measures.causal, 0, "outputs do not see later events", "let nothing mix time steps except the state"),
    Law(
        "separate",
        measures.separate,
        ROUNDING,
        "rows do not see each other",
        "write the cell for one example and reduce over no batch axis",
    ),
    Law(
        "padding",
        measures.padding,
        ROUNDING,
        "padding after the end changes nothing before it",
        "let nothing depend on the sequence's length",
    ),
    Law(
        "stacked",
        measures.stacked,
        ROUNDING,
        "vmap over cells gives what they give one by one",
        "branch on no array, in the constructor either",
    ),
    Law(
        "saved",
        measures.saved,
        0,
        "weights saved and put into a new cell give the same outputs",
        "keep all that outputs depend on in options or in parameters, under names that every new cell has",
        of="cell",
    ),
    Law(
        "bfloat16",
        measures.bfloat16,
        COARSE,
        "weights and vectors in bfloat16 give nearly the outputs of float32, and a float32 state",
        "keep decays near 1 and other fine numbers in a logarithmic domain, and cast nothing to bfloat16",
        of="cell",
    ),
    Law(
        "specification",
        measures.specification,
        1e-4,
        "values and gradients are those of the plain scan",
        "correct the backend, or say in refuses() why it does not take this cell",
    ),
    Law(
        "specification64",
        measures.specification_double,
        1e-9,
        "values and gradients in float64 are those of the plain scan",
        "fix no dtype, and drop no term that float32 hides",
    ),
    Law(
        "gradients",
        measures.gradients,
        1e-4,
        "gradients agree with finite differences in float64",
        "check custom derivatives and stop_gradient; fix no dtype, so that the cell can run in float64",
        of="cell",
    ),
    Law(
        "alive",
        measures.alive,
        0,
        "every parameter has a gradient",
        "remove parameters that nothing depends on",
        of="cell",
    ),
    Law(
        "lasting",
        measures.lasting,
        0,
        f"nothing overflows within {measures.LONG} steps",
        "it grows from event to event: bound the state, as by tanh, or multiply it by no more than 1 in a step",
        of="cell",
    ),
    Law(
        "portable",
        measures.portable,
        0,
        "lowers for cpu, cuda and tpu",
        "replace the operation that exists on one platform only",
    ),
)


@dataclass(frozen=True)
class LawResult:
    """One law on one cell: the largest violation against the tolerance, and a sentence for a person."""

    name: str
    passed: bool
    largest: float
    tolerance: float
    sentence: str


def examine(law: Law, case: Case) -> LawResult:
    """Apply one law; a cell that raises has broken it."""
    try:
        largest, place = law.measure(case)
    except Exception as error:  # whatever a user's cell raises is the finding
        # a mistake about the contract names its own remedy
        told = isinstance(error, NotFinite) or (isinstance(error, Mistake) and law.gate)
        said = first_line(error) if told else raised(law, error, case.fresh)
        sentence = f"{law.name} is broken ({law.promise}): {said}."
        return LawResult(law.name, False, float("inf"), law.tolerance, sentence)
    passed = bool(largest <= law.tolerance)
    amount = f"off by {largest:.2g}" + (f" at {place}" if place else "") + f", allowed {law.tolerance:.2g}"
    sentence = f"{law.promise}." if passed else f"{law.name} is broken ({law.promise}): {amount}; {law.remedy}."
    return LawResult(law.name, passed, largest, law.tolerance, sentence)


def raised(law: Law, error: Exception, cell: Cell) -> str:
    """An exception with its line in the cell's file and its remedy; a cell that ran until then also broke the law."""
    found = fault(error, cell)
    remedies = [found.remedy] if found.remedy else []
    remedies += [] if law.gate and remedies else [law.remedy]
    return "; ".join([str(found), *remedies])


def check(
    cell: Call | str | Callable[[nnx.Rngs], Cell],
    *,
    features: int = 3,
    hidden: int = 4,
    backend: Any = None,
    seed: int = 0,
    allow_code: bool = True,
    say: Callable[[str], None] | None = None,
) -> list[LawResult]:
    """Examine a cell, named by a call or made by a function of ``rngs``, against every law; ``say`` is told each.

    When it breaks one without which nothing else makes sense (`contract`, `jit`), that result is the last. `Mistake`
    for a name that does not exist or a backend that refuses the cell.
    """
    if isinstance(cell, Call | str):
        call = Call.parse(cell) if isinstance(cell, str) else cell

        def make(rngs: nnx.Rngs) -> Cell:
            return find(call, features, hidden=hidden, rngs=rngs, allow_code=allow_code)

        case = Case(make, features, backend=backend, seed=seed)
    else:
        case = Case(cell, features, backend=backend, seed=seed)
    choose(case.fresh, backend)
    results = []
    for number, law in enumerate(LAWS, start=1):
        if say is not None:
            say(f"law {number} of {len(LAWS)}, {law.name}: {law.promise}")
        results.append(examine(law, case))
        if law.gate and not results[-1].passed:
            break
    return results
