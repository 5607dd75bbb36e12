"""A training that goes on from the end of another run: its weights, its optimiser, its count of epochs.

On other data (the same that has grown, above all) only what is learnt goes over, see `jaxrec.runs.heritage`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxrec.config import Mistake, to_dict
from jaxrec.data.prepared import Prepared
from jaxrec.models.recommender import Recommender
from jaxrec.runs.change import differences, told
from jaxrec.runs.folder import Folder, read_json
from jaxrec.runs.heritage import Counts, inherit, last_state
from jaxrec.runs.options import Config
from jaxrec.training.loop import Clock
from jaxrec.training.step import State

Start = Callable[[State], tuple[State, Clock]]


def differing(before: Mapping[str, Any], config: Config) -> str:
    """What another run was told of its model, optimiser and batch, where this one is told otherwise."""
    now = told(to_dict(config))
    lines = [
        line for part in ("model", "optimizer", "batch") for line in differences(before[part], now[part], f"{part}.")
    ]
    return "; ".join(lines) or "another file of a cell, or another version"


def ancestor(directory: str) -> dict[str, Any]:
    """What makes the run in ``directory``, as its ``run.json`` has it. `Mistake` where none stands complete there."""
    folder = Folder(directory)
    if not (folder.identity.exists() and folder.result.exists()):
        raise Mistake(
            f"start_from = {directory!r} holds no finished run; give the directory of one, or finish it first"
        )
    if not read_json(folder.result).get("complete"):
        raise Mistake(f"start_from = {directory!r} was cut short; finish it first, with the same command as before")
    return dict(read_json(folder.identity))


def unlike(directory: str, about: Mapping[str, Any], config: Config) -> Mistake:
    """What to say where the state of another run does not fit."""
    reason = differing(about["of"], config)
    return Mistake(f"start_from = {directory!r} has another model or optimiser ({reason}); give the same here")


def start(
    directory: str,
    prepared: Prepared,
    config: Config,
    blank: Callable[[Recommender], State],
    say: Callable[[str], None],
) -> tuple[Start, Counts]:
    """From a fresh state to the one that the run in ``directory`` ended with, and to where its clock stands; on other
    data what `inherit` takes over, and how much that is. ``blank`` is the state before the first step of a model.

    `Mistake` where that is no beginning for ``config``.
    """
    about, done = ancestor(directory), read_json(Folder(directory).result)["epochs"]
    if about["of"]["data"] != prepared.card["fingerprint"]:
        return inherit(directory, prepared, config, blank, unlike(directory, about, config), say)
    epochs = config.epochs
    if epochs <= done:
        raise Mistake(f"epochs = {epochs} counts those of start_from = {directory!r}, which has {done}; give more")

    def started(fresh: State) -> tuple[State, Clock]:
        state, notes = last_state(directory, fresh, unlike(directory, about, config))
        return state, Clock(**notes["clock"])

    return started, {}
