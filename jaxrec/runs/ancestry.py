"""A training that goes on from the end of another run: its weights, its optimiser, its count of epochs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxrec.config import Mistake, to_dict
from jaxrec.data.prepared import Prepared
from jaxrec.runs.change import differences, told
from jaxrec.runs.folder import Folder, read_json
from jaxrec.runs.options import Config
from jaxrec.training.checkpoints import Checkpoints
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


def start(directory: str, prepared: Prepared, config: Config) -> Start:
    """From a fresh state to the one that the run in ``directory`` ended with, and to where its clock stands.

    `Mistake` where that is no beginning for ``config`` on this data.
    """
    epochs = config.epochs
    about, done = ancestor(directory), read_json(Folder(directory).result)["epochs"]
    if about["of"]["data"] != prepared.card["fingerprint"]:
        raise Mistake(
            f"start_from = {directory!r} was trained on other data (its fingerprint differs); give a run of this data"
        )
    if epochs <= done:
        raise Mistake(f"epochs = {epochs} counts those of start_from = {directory!r}, which has {done}; give more")

    def started(fresh: State) -> tuple[State, Clock]:
        shelf = Checkpoints(Path(directory) / "checkpoints")
        if (step := shelf.latest()) is None:
            raise Mistake(f"start_from = {directory!r} has no checkpoint left; train it again with --fresh")
        try:
            state, notes = shelf.restore(step, fresh)
        except Mistake:
            raise Mistake(
                f"start_from = {directory!r} has another model or optimiser ({differing(about['of'], config)}); "
                "give the same here"
            ) from None
        return state, Clock(**notes["clock"])

    return started
