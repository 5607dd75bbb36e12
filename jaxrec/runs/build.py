"""From a resolved configuration to the parts of a run: model, loss, optimiser, step, hyper."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxrec.losses
from jaxrec.cells import Cell, Event, find
from jaxrec.config import Call, Mistake, checked, did_you_mean, squash
from jaxrec.data import context
from jaxrec.data.context import Column
from jaxrec.data.prepared import Prepared
from jaxrec.losses.loss import Loss, traced
from jaxrec.models import recommender
from jaxrec.models.drawing import Drawing
from jaxrec.models.recommender import Recommender, drawn
from jaxrec.runs.options import Config, Model
from jaxrec.training.lazy import LazyUpdate
from jaxrec.training.optimisers import Hyper, Optimiser
from jaxrec.training.step import DenseUpdate, Step


class Offer(NamedTuple):
    """What the data offers a model: sizes of its tables, which leaves an event can have, and features for context."""

    items: int
    users: int
    gaps: bool
    starts: bool
    features: tuple[Column, ...] = ()


def offered(prepared: Prepared) -> Offer:
    """What prepared data offers a model."""
    users = len(prepared.user_ids) if prepared.card["sequence"] == "user" else 0
    features = context.columns(prepared)
    return Offer(prepared.candidates, users, prepared.gaps is not None, prepared.starts is not None, features)


def columns(options: Model, offer: Offer) -> tuple[Column, ...]:
    """The features that ``options`` make context of. `Mistake` for one that the data does not keep."""
    return context.chosen(offer.features, options.context)


def model(options: Model, offer: Offer, *, seed: int, allow_code: bool = True) -> Recommender:
    """A fresh recommender as ``options`` describe it."""
    return drawn(undrawn(options, offer, seed=seed, allow_code=allow_code))


def undrawn(options: Model, offer: Offer, *, seed: int, allow_code: bool = True) -> Recommender:
    """The same before its tables are drawn."""
    if options.user and not offer.users:
        raise Mistake(
            "model.user = True needs users, and sequences are sessions here; leave it out, or add --sequence user"
        )
    apart(options)
    beginning(options)
    one, picked = (1, 1), columns(options, offer)
    vector = jnp.zeros((*one, options.embedding or options.width))
    example = Event(
        x=vector,
        gap=jnp.zeros(one) if offer.gaps else None,
        context=vector if picked else None,
        user=vector if options.user else None,
        start=jnp.zeros(one, bool) if offer.starts else None,
    )

    def make(features: int, rngs: Any) -> Cell:
        cell = find(options.cell, features, hidden=options.width, rngs=rngs, allow_code=allow_code)
        refuse(cell, example, options, offer)
        return cell

    return recommender.undrawn(
        make,
        items=offer.items, users=offer.users, width=options.width, depth=options.depth, feedforward=options.feedforward,
        norm=options.norm, residual=options.residual, tied=options.tied, bias=options.bias, user=options.user,
        backend=options.backend, wants=example, seed=seed, context=context.rows(picked),
        embedding=options.embedding, one_hot=options.one_hot, init=options.init, scale=options.init_scale,
        horizon=options.horizon,
    )  # fmt: skip


def apart(options: Model) -> None:
    """`Mistake` where vectors that go in cannot differ from those that score."""
    which = "model.one_hot = True" if options.one_hot else f"model.embedding = {options.embedding}"
    if options.one_hot and options.embedding:
        raise Mistake(
            f"model.one_hot = True needs no vectors, and model.embedding = {options.embedding} asks for some; keep one"
        )
    if not (options.one_hot or options.embedding not in (None, options.width)):
        return
    if options.tied:
        raise Mistake(f"{which} gives items vectors of another width than those that score; add --model.no-tied")
    if options.residual:
        raise Mistake(f"{which} cannot be added to the first layer's output; add --model.no-residual")
    if options.one_hot and (options.user or options.context):
        raise Mistake("model.one_hot = True leaves users and context nothing to be added to; leave model.one_hot out")


def beginning(options: Model) -> None:
    """`Mistake` where two options say how the same weights begin, or one that must be said is not."""
    if options.init == "chrono" and options.horizon is None:
        raise Mistake(
            "model.init = chrono spreads memories up to a horizon, and none is given; add --model.horizon N, about the "
            "events over which something is to be remembered"
        )
    if options.init != "chrono" and options.horizon is not None:
        raise Mistake(
            f"model.horizon = {options.horizon} is for model.init = chrono, and model.init = {options.init}; add "
            "--model.init chrono, or leave model.horizon out"
        )
    rivals = {"chrono": ("forget_bias", "chrono", "uniform"), "orthogonal": ("scale",)}.get(options.init, ())
    for call in calls(options.cell):
        for name in rivals:
            if name in call.options and call.file is None:
                raise Mistake(
                    f"model.init = {options.init} and {name} of {call} say how the same weights begin; keep one"
                )


def calls(call: Call) -> Iterator[Call]:
    """A call and those among its arguments."""
    yield call
    for value in (*call.arguments, *call.options.values()):
        if isinstance(value, Call):
            yield from calls(value)


def wanted(recommender: Recommender) -> set[str]:
    """The leaves of an event that a model's cells want."""
    return {name for block in recommender.network.blocks for name in block.cell.wants}


def needs(recommender: Recommender, picked: tuple[Column, ...]) -> dict[str, Any]:
    """What a model must be told of a history beside its items: times, who it is, features of the events themselves."""
    of = {column.of for column in picked}
    return {
        "times": "gap" in wanted(recommender) or "time" in of,
        "user": "user" in recommender.tables or "user" in of,
        "context": [column.name for column in picked if column.of == "event"],
    }


def refuse(cell: Cell, example: Event, options: Model, offer: Offer) -> None:
    """`Mistake` where the cell wants a leaf that the data or the options do not give, or leaves the context unread."""
    keeps = ", ".join(one.name for one in offer.features)
    remedies = {
        "gap": "the data has no times; name their column with --time-column NAME",
        "start": "no sessions are marked in the data; where it has them, or with --session-gap MINUTES, "
        "add --sequence user",
        "user": "users have no vectors; add --model.user",
        "context": f"model.context names no feature; add --model.context NAME ... (the data keeps {keeps})"
        if keeps
        else "the data keeps no features; add --features NAME ... (as in @hour rating) and --model.context all",
    }
    for name in cell.wants:
        if name in remedies and getattr(example, name) is None:
            raise Mistake(f"{options.cell} wants the {name} of every event, and {remedies[name]}")
    if example.context is not None and "context" not in cell.wants:
        raise Mistake(
            f"model.context = {' '.join(options.context)} is given, and {options.cell} does not read it; leave it out, "
            f'or wrap the cell, as in --model.cell "latentcross({options.cell})"'
        )


def without_strangers(recommender: Recommender, prepared: Prepared) -> Recommender:
    """The model with a zero vector for every user and every value of a feature that no training pair reads, as for
    those that it never heard of.
    """
    known, tables = {}, recommender.tables
    if "user" in tables:
        trained = np.asarray(prepared.train_end) - np.asarray(prepared.offsets)[:-1] >= 2
        known["user"] = np.zeros(tables["user"].shape[0], bool)
        known["user"][np.asarray(prepared.users)[trained]] = True
    if "context" in tables:
        known["context"] = context.trained_rows(prepared, tables["context"].shape[0])

    def zeroed(table: Any, rows: np.ndarray) -> Any:
        if isinstance(table, Drawing):
            return dataclasses.replace(table, known=rows)
        return jnp.where(rows[:, None], table, 0.0)

    return dataclasses.replace(recommender, tables=tables | {n: zeroed(tables[n], rows) for n, rows in known.items()})


def loss(call: Call) -> Any:
    """The loss that ``call`` names, with its options checked."""
    choices: dict[str, Any] = {
        name: kind for name, kind in vars(jaxrec.losses).items() if dataclasses.is_dataclass(kind)
    }
    squashed = {squash(name): kind for name, kind in choices.items()}
    if squash(call.name) not in squashed or call.file is not None:
        known = ", ".join(sorted(choices))
        raise Mistake(f"there is no loss {str(call)!r} (there is {known}){did_you_mean(call.name, choices)}")
    kind = squashed[squash(call.name)]
    accepted = inspect.signature(kind).parameters
    if call.arguments:
        raise Mistake(f"{call}: name the options of {kind.__name__}, as in {call.name}({next(iter(accepted))}=...)")
    options = {}
    for name, value in call.options.items():
        if name not in accepted:
            raise Mistake(
                f"{kind.__name__} has no option {name!r} (it has {', '.join(accepted)}){did_you_mean(name, accepted)}"
            )
        word = value.name if isinstance(value, Call) and value.bare else value
        options[name] = checked(word, accepted[name].annotation, f"{call.name}: {name}")
    return kind(**options)


def rows_a_step(config: Config) -> int:
    """Rows that one step of the optimiser sees: all lanes, where rows are lanes."""
    return config.batch.size * config.optimizer.accumulate


def step(config: Config, steps: int) -> tuple[Step, Hyper]:
    """The step of a run of ``steps`` steps in all, and the floats it is called with."""
    options = config.optimizer
    own: dict[str, Any] = (
        {"accumulator": options.accumulator} if options.name == "adagrad" else {"b1": options.b1, "b2": options.b2}
    )
    rule = Optimiser(
        name=options.name, schedule=options.schedule, warmup=options.warmup, steps=steps, eps=options.eps,
        momentum=options.momentum > 0, **own,
    )  # fmt: skip
    chosen = loss(config.loss)
    made = Step(
        chosen, rule, LazyUpdate() if lazily(config, chosen) else DenseUpdate(), microbatches=options.accumulate,
        nominal=rows_a_step(config) * config.batch.length if config.batch.nominal else None,
        averages=options.average > 0, compute=None if config.compute == "float32" else config.compute,
    )  # fmt: skip
    hyper = floats(config, chosen) | ({"steps": steps} if options.schedule == "cosine" else {})
    return made.plain(), {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}


def lazily(config: Config, chosen: Loss) -> bool:
    """Whether only rows that are read are changed. `Mistake` where the loss reads them all."""
    if config.optimizer.lazy and not chosen.samples:
        raise Mistake(
            f"optimizer.lazy = True changes only the rows that a step reads, and {config.loss} reads the whole output "
            "table; leave it out, or take a loss that samples"
        )
    return config.optimizer.lazy


def floats(config: Config, chosen: Loss) -> Hyper:
    """The traced numbers of a step. What is off at zero is left out there, so that nothing is computed for it."""
    options = config.optimizer
    hyper: Hyper = {
        "lr": options.lr,
        "clip": options.clip or float("inf"),
        **{name: getattr(chosen, name) for name in traced(chosen)},
    }
    if options.name == "adamw":
        hyper["weight_decay"] = options.weight_decay
    if config.model.embedding_dropout is not None:
        hyper["embedding_dropout"] = config.model.embedding_dropout
    off = {
        "dropout": config.model.dropout, "state_dropout": config.model.state_dropout, "momentum": options.momentum,
        "clip_value": options.clip_value, "average": options.average, "event_dropout": config.model.event_dropout,
        "propensity": hyper.pop("propensity"),
    }  # fmt: skip
    return hyper | {name: value for name, value in off.items() if value}
