"""Trials that have ended, told to programs in which people look at them: TensorBoard, MLflow, Weights & Biases.

A trial is told once over all starts: ``DIR/tracking/NAME/told`` has a line for it. One that a kill cut short has none,
and is told again in the place of what is there. The ledger knows nothing of this.
"""

import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, cast

from jaxrec.config import Mistake, did_you_mean, fingerprint, first_line
from jaxrec.sweeps.ledger import ENDS
from jaxrec.sweeps.rows import Rows
from jaxrec.training.stop import StopSignal

PATIENCE, LOOK = 5.0, 0.05  # seconds for what is being told when a signal comes, and between looks for one
FINE = ENDS[:2]
HERE = "under the sweep"
PLAIN = (str, int, float)


class Told(NamedTuple):
    """A trial as trackers see it."""

    name: str  # of no other trial of this sweep
    sweep: str
    params: dict[str, Any]
    numbers: dict[str, float]
    series: list[tuple[int, dict[str, float]]]  # validations by epoch
    facts: dict[str, str]
    fine: bool
    began: int  # milliseconds since 1970, as are those of its end
    ended: int

    @property
    def key(self) -> str:
        """A name of no other trial anywhere."""
        return f"{self.sweep}-{self.name}"


def told(row: Mapping[str, Any], sweep: str) -> Told:
    """A row of the ledger as trackers see it; what is not a number there is left out."""
    groups = {"valid": row["valid"], "test": row["test"], "objective": row["objectives"]}
    values = {f"{group}/{name}": value for group, found in groups.items() for name, value in found.items()}
    values |= {name: row[name] for name in ("seconds", "epochs", "parameters")}
    facts = {"state": row["state"], "trial": str(row["number"]), "run": row["run"]}
    if row["same_as"] is not None:
        facts["same_as"] = str(row["same_as"])
    last = row["attempts"][-1] if row["attempts"] else {}
    began, ended = (int(1000 * (last.get(name) or time.time())) for name in ("start", "end"))
    return Told(
        f"{row['number']}-{row['id']}", sweep, row["point"] | {"seed": row["seed"]}, _numbers(values),
        [(each["epoch"], _numbers(each["values"], "epochs/")) for each in row["readings"]], facts, row["state"] in FINE,
        began, ended,
    )  # fmt: skip


def _numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    return {prefix + name: float(value) for name, value in values.items() if value is not None}


class Tracker(Protocol):
    """Where trials are told. Made and used in one thread."""

    where: str

    def tell(self, trial: Told) -> None:
        """Write a trial down, in the place of whatever there is of it."""
        ...


class TensorBoard:
    """A folder of events for each trial, for the scalars and for the HParams page."""

    def __init__(self, folder: Path, sweep: str):
        self.folder, self.where = folder, HERE

    def tell(self, trial: Told) -> None:
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        folder = self.folder / trial.name
        shutil.rmtree(folder, ignore_errors=True)
        params = {name: value if isinstance(value, PLAIN) else str(value) for name, value in trial.params.items()}
        numbers = {
            name.replace("@", "_"): value for name, value in trial.numbers.items()
        }  # as it writes scalars' names
        with SummaryWriter(str(folder)) as writer:
            for summary in hparams(params | {"state": trial.facts["state"]}, numbers):
                writer.file_writer.add_summary(summary)
            for epoch, values in [*trial.series, (0, numbers)]:
                for name, value in values.items():
                    writer.add_scalar(name.replace("@", "_"), value, epoch)


class MLflow:
    """A run for each trial, in a database under the sweep or where MLFLOW_TRACKING_URI says."""

    def __init__(self, folder: Path, sweep: str):
        from mlflow import MlflowClient

        self.where = os.environ.get("MLFLOW_TRACKING_URI") or HERE
        self.client = MlflowClient(tracking_uri=database(folder) if self.where == HERE else self.where)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or sweep
        found = self.client.get_experiment_by_name(name)
        self.experiment = found.experiment_id if found else self.client.create_experiment(name)

    def tell(self, trial: Told) -> None:
        from mlflow.entities import Metric, Param

        for there in self.client.search_runs([self.experiment], f"tags.`jaxrec.key` = '{trial.key}'"):
            self.client.delete_run(there.info.run_id)
        tags = {"jaxrec.key": trial.key, **{f"jaxrec.{name}": value for name, value in trial.facts.items()}}
        run = self.client.create_run(self.experiment, trial.began, tags, trial.name).info.run_id
        params = [Param(name, str(value)) for name, value in trial.params.items()]
        metrics = [
            Metric(name.replace("@", "_at_"), value, trial.ended, epoch)
            for epoch, values in [*trial.series, (0, trial.numbers)]
            for name, value in values.items()
        ]
        for start in range(0, max(len(params), 1), 100):  # as many as a server takes at a time
            self.client.log_batch(run, params=params[start : start + 100])
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run, metrics=metrics[start : start + 1000])
        self.client.set_terminated(run, "FINISHED" if trial.fine else "FAILED", trial.ended)


def database(folder: Path) -> str:
    """The address of MLflow's database in ``folder``, which takes its place when it is whole: MLflow makes it in fifty
    steps, and cannot use one that a kill cut short.
    """
    from mlflow import MlflowClient

    path, new = folder.resolve() / "mlflow.db", folder.resolve() / "new"
    if not path.exists():
        shutil.rmtree(new, ignore_errors=True)  # with the journal of what was cut short
        new.mkdir()
        MlflowClient(tracking_uri=f"sqlite:///{new / path.name}")
        (new / path.name).rename(path)
        new.rmdir()
    return f"sqlite:///{path}"


class WandB:
    """A run for each trial, offline unless WANDB_MODE says otherwise; `wandb sync` sends what is offline."""

    def __init__(self, folder: Path, sweep: str):
        self.folder, self.sweep, self.where = folder, sweep, os.environ.get("WANDB_MODE") or "offline"

    def tell(self, trial: Told) -> None:
        import wandb

        for there in self.folder.glob(f"wandb/*run-*-{trial.key}"):
            shutil.rmtree(there)
        quiet = {"silent": True, "console": "off", "x_disable_stats": True, "disable_git": True, "disable_code": True}
        project, mode = os.environ.get("WANDB_PROJECT") or self.sweep, cast(Any, self.where)
        run = wandb.init(
            project=project, id=trial.key, name=trial.name, dir=str(self.folder), mode=mode, config=trial.params,
            reinit="create_new", resume=None if self.where == "offline" else "allow", settings=wandb.Settings(**quiet),
        )  # fmt: skip
        for epoch, values in trial.series:
            run.log(values, step=epoch)
        run.summary.update(trial.numbers | trial.facts)
        run.finish(exit_code=0 if trial.fine else 1)


TRACKERS: dict[str, Callable[[Path, str], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
PACKAGES = {"tensorboard": ("tensorboardX",), "mlflow": ("mlflow", "sqlalchemy", "alembic"), "wandb": ("wandb",)}
ENVIRONMENT = {  # where a person says nothing else: nothing is sent to makers, and a dead server is given up soon
    "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING", "WANDB_ERROR_REPORTING": "false",
}  # fmt: skip


def trackers(names: Sequence[str]) -> list[str]:
    """Each name once. `Mistake` for one that is unknown, or whose packages are missing."""
    for name in names:
        if name not in TRACKERS:
            raise Mistake(f"--track {name} is not one of {', '.join(TRACKERS)}{did_you_mean(name, TRACKERS)}")
        for package in PACKAGES[name]:
            try:
                __import__(package)
            except ImportError:
                raise Mistake(
                    f'--track {name} needs {package}, which is not installed; pip install "jaxrec[{name}]"'
                ) from None
    return list(dict.fromkeys(names))


class Teller(threading.Thread):
    """Tells one tracker in its own time, so that no slow server holds the sweep up."""

    def __init__(self, name: str, folder: Path, sweep: str, say: Callable[[str], None]):
        super().__init__(name=f"tracking by {name}", daemon=True)  # a server that hangs holds no process
        self.tracker, self.folder, self.sweep, self.say = name, folder, sweep, say
        self.trials: queue.SimpleQueue[Told | None] = queue.SimpleQueue()
        self.leaving = False

    def run(self) -> None:
        try:
            self.tell_all()
        except Exception as error:
            why = f"{type(error).__name__}: {first_line(error)}"
            self.say(
                f"note: --track {self.tracker} failed ({why}); the sweep goes on, "
                "and the same command tells it what is missing"
            )

    def tell_all(self) -> None:
        tracker: Tracker | None = None
        path, before = self.folder / "told", set[str]()
        while (trial := self.trials.get()) is not None and not self.leaving:
            if tracker is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                tracker = TRACKERS[self.tracker](self.folder, self.sweep)
                before = set(path.read_text().splitlines()) if path.exists() else before
            line = f"{trial.key} {fingerprint({'where': tracker.where})}"  # the address itself may hold a password
            if line not in before:
                tracker.tell(trial)
                with path.open("a") as file:
                    file.write(f"\n{line}")  # in front, so that a line that was cut short ends there


class Tracking:
    """The trackers of one start of a sweep. Where the block ends well, all that has ended was told."""

    def __init__(
        self, names: Sequence[str], out: Path, about: Mapping[str, Any], stop: StopSignal, say: Callable[[str], None]
    ):
        if names:
            os.environ.update(ENVIRONMENT | os.environ)
        sweep, folder = out.resolve().name, out / "tracking"
        self.key = fingerprint({name: about[name] for name in ("created", "space")})  # the folder may be renamed
        self.tellers = [Teller(name, folder / name, sweep, say) for name in trackers(names)]
        self._tick, self._stop = 0, stop

    def __enter__(self) -> Self:
        for teller in self.tellers:
            teller.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for teller in self.tellers:
            teller.trials.put(None)
        while kind is None and not self._stop.requested and any(teller.is_alive() for teller in self.tellers):
            time.sleep(LOOK)
        for teller in self.tellers:
            teller.leaving = True
        for teller in self.tellers:
            teller.join(PATIENCE)

    def look(self, ledger: Rows) -> None:
        """Let trials be told that have ended since the last look."""
        if not self.tellers or (tick := ledger.tick()) == self._tick:
            return
        for row in ledger.rows(self._tick):
            if row["state"] in ENDS:
                for teller in self.tellers:
                    teller.trials.put(told(row, self.key))
        self._tick = tick
