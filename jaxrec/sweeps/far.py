"""What a worker on another machine does, whoever started it there: it works, and says how it ended."""

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jaxrec.config import Mistake
from jaxrec.sweeps import logs
from jaxrec.sweeps.crew import computing
from jaxrec.sweeps.heart import Heart
from jaxrec.sweeps.presence import Worker
from jaxrec.sweeps.remote import Carry, Remote
from jaxrec.sweeps.worker import Compiled, Shift, code, device, given, left
from jaxrec.training.stop import AGAIN, Stopped, StopSignal


class Left(NamedTuple):
    """How a worker ended, as a process does, and the last lines it printed."""

    status: int
    log: list[str]


def work(
    out: Path, name: str, where: str, connect: Callable[[], Carry], threads: int | None, environ: Mapping[str, str]
) -> Left:
    """Work for the sweep in ``out`` until its desk lets go. ``where`` tells machines apart whose names are the same;
    ``threads`` are those for computing, None for as many as there are.
    """
    os.environ.update(environ if threads is None else {**environ, **computing(threads, os.environ)})
    with tempfile.TemporaryDirectory(prefix="jaxrec-cells-", ignore_cleanup_errors=True) as copies:
        remote = Remote(connect, out, Path(copies))
        worker = Worker.here(name)
        worker = replace(worker, host=f"{worker.host} ({where})")
        try:
            remote.enter(worker)
        except (Mistake, Stopped) as error:  # there is no file to print into
            return Left(AGAIN if isinstance(error, Stopped) else 2, [f"jaxrec: {error}"])
        printing(logs.place(out, name))
        try:
            status = left(lambda: serve(out, remote, worker))
        except SystemExit as asked:
            status = int(asked.code or 0)
        except Exception as error:  # as of a process
            traceback.print_exception(error)
            status = 1
        return Left(status, logs.tail(logs.place(out, name)))


def printing(file: Path) -> None:
    """From now on all that this process prints, libraries in C included, goes into a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    log = file.open("ab", buffering=0)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in (1, 2):
        os.dup2(log.fileno(), number)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False, encoding="utf-8")  # noqa: SIM115


def serve(out: Path, remote: Remote, worker: Worker) -> int:
    """The exit status."""
    from jaxrec.runs.run import remember_compilations

    stop = StopSignal()
    with stop:
        remember_compilations()
        worker = replace(worker, device=device(), code=code())
        same_code(worker, given(remote))
        every = float(remote.options["lease_seconds"]) / 6
        with Heart(remote, worker, lambda desk: desk.dismissed(worker.name), every):
            Shift(out, remote, worker, Compiled()).work(stop, stay=True)
    return AGAIN if stop.requested else 0


def same_code(worker: Worker, about: Mapping[str, Any]) -> None:
    """`Mistake` where the sweep is of one commit, and this machine has another."""
    if about["strict_code"] and about["code"] != worker.code:
        raise Mistake(
            f"{worker.host} has code {worker.code}, and --strict-code asks for {about['code']}; install that one there"
        )
