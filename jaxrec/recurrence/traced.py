"""A cell's step as a list of equations, sorted by what they depend on and by what is worth keeping of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

Environment = dict[Var, Any]
Special = Callable[[JaxprEqn, list[Any]], list[Any] | None]

# the derivative of a function that is costly to compute again, from its value
SLOPES: dict[str, Callable[[Array], Array]] = {
    "tanh": lambda y: 1 - y * y,
    "logistic": lambda y: y * (1 - y),
    "exp": lambda y: y,
}


@dataclass(frozen=True)
class Traced:
    """A step ``(parameters, inputs) -> outputs``, each a flat list, in two parts.

    ``fixed`` depends on parameters only and is computed once; ``moving`` is computed at every step from ``shared``
    (parameters and results of the fixed part) and the inputs.
    """

    parameters: list[Var]
    inputs: list[Var]
    outputs: list[Any]
    known: Environment  # constants
    fixed: list[JaxprEqn]
    moving: list[JaxprEqn]
    shared: list[Var]

    def share(self, parameters: Sequence[Any]) -> list[Any]:
        """Values of ``shared``."""
        env = self.known | dict(zip(self.parameters, parameters, strict=True))
        evaluate(self.fixed, env)
        return [env[var] for var in self.shared]

    def run(self, shared: Sequence[Any], inputs: Sequence[Any], special: Special) -> list[Any]:
        """One step; ``special`` computes the equations it wants to, and returns None for the others."""
        env = dict(zip([*self.shared, *self.inputs], [*shared, *inputs], strict=True))
        evaluate(self.moving, env, special)
        return [value(atom, env) for atom in self.outputs]

    def product(self, eqn: JaxprEqn) -> int | None:
        """Which of ``shared`` a row-by-matrix product multiplies with, as ``state @ weight`` does; None for others, and
        for one that asks for a precision of its own, which its reverse would not have.
        """
        if eqn.primitive.name != "dot_general" or len({abstract(a).dtype for a in (*eqn.invars, *eqn.outvars)}) > 1:
            return None
        right = eqn.invars[1]
        plain = eqn.params["dimension_numbers"] == (((1,), (0,)), ((), ())) and eqn.params["precision"] is None
        flat = all(len(abstract(atom).shape) == 2 for atom in eqn.invars)
        if not (plain and flat and isinstance(right, Var) and right in self.shared) or eqn.invars[0] in self.shared:
            return None
        return self.shared.index(right)


def trace(fn: Callable[..., Any], parameters: Any, *inputs: Any) -> tuple[Traced, Any]:
    """``fn(parameters, *inputs)`` traced, and its outputs' shapes."""
    closed, shape = flat_jaxpr(fn, parameters, *inputs)
    jaxpr, count = closed.jaxpr, len(jax.tree.leaves(parameters))
    moved = set(jaxpr.invars[count:])
    fixed: list[JaxprEqn] = []
    moving: list[JaxprEqn] = []
    for eqn in jaxpr.eqns:
        moves = any(isinstance(atom, Var) and atom in moved for atom in eqn.invars) or bool(eqn.effects)
        (moving if moves else fixed).append(eqn)
        moved |= set(eqn.outvars) if moves else set()
    read = [atom for eqn in moving for atom in eqn.invars] + list(jaxpr.outvars)
    shared = list(dict.fromkeys(atom for atom in read if isinstance(atom, Var) and atom not in moved))
    known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    made = Traced(jaxpr.invars[:count], jaxpr.invars[count:], jaxpr.outvars, known, fixed, moving, shared)
    return made, shape


def flat_jaxpr(fn: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """The equations of ``fn`` with those of the jitted functions it calls in their place."""
    closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args)

    def inline(jaxpr: Jaxpr, consts: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *given], strict=True))
        evaluate(jaxpr.eqns, env, inner)
        return [value(atom, env) for atom in jaxpr.outvars]

    def inner(eqn: JaxprEqn, given: list[Any]) -> list[Any] | None:
        if eqn.primitive.name not in ("jit", "pjit"):
            return None
        return inline(eqn.params["jaxpr"].jaxpr, eqn.params["jaxpr"].consts, given)

    return jax.make_jaxpr(lambda *leaves: inline(closed.jaxpr, closed.consts, leaves))(*jax.tree.leaves(args)), shape


def evaluate(eqns: Iterable[JaxprEqn], env: Environment, special: Special | None = None) -> None:
    """Compute the equations one after the other, in ``env``."""
    for eqn in eqns:
        given = [value(atom, env) for atom in eqn.invars]
        found = special(eqn, given) if special else None
        env.update(zip(eqn.outvars, compute(eqn, given) if found is None else found, strict=True))


def compute(eqn: JaxprEqn, given: list[Any]) -> list[Any]:
    with eqn.ctx.manager:
        found = eqn.primitive.bind(*given, **eqn.primitive.get_bind_params(eqn.params))
    return list(found) if eqn.primitive.multiple_results else [found]


def abstract(atom: Any) -> Any:
    """Shape and dtype of a variable or a literal."""
    return atom.aval


def value(atom: Any, env: Environment) -> Any:
    return atom.val if isinstance(atom, Literal) else env[atom]


def alive(jaxpr: Jaxpr) -> tuple[set[Var], list[JaxprEqn]]:
    """What the outputs depend on, and the equations that compute it."""
    needed = {atom for atom in jaxpr.outvars if isinstance(atom, Var)}
    equations = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(var in needed for var in eqn.outvars):
            needed |= {atom for atom in eqn.invars if isinstance(atom, Var)}
            equations.append(eqn)
    return needed, equations[::-1]


@jax.custom_vjp
def kept_product(rows: Array, transposed: Array, result: Array, tap: Array) -> Array:
    """A product whose ``result`` is known; its derivative by ``tap`` is what the gradient of the matrix is made of."""
    return result


kept_product.defvjp(
    lambda rows, transposed, result, tap: (result, transposed),
    lambda transposed, slope: (slope @ transposed, None, None, slope),
)


def kept(name: str) -> Callable[[Array, Array], Array]:
    """A function of `SLOPES` whose result is known."""
    return _KEPT[name]


def _make_kept(slope_of: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    @jax.custom_vjp
    def function(x: Array, result: Array) -> Array:
        return result

    function.defvjp(lambda x, result: (result, result), lambda result, slope: (slope * slope_of(result), None))
    return function


_KEPT = {name: _make_kept(slope_of) for name, slope_of in SLOPES.items()}
