"""Processes that kill themselves at a point, seen from outside through the interpreter's audit and profile hooks: the
product holds no code for it.
"""

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

TOLD = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "os.truncate")
VARIABLE = "JAXREC_PLANTS"
SITE = "import sys\nsys.path.insert(0, {scripts!r})\nimport planting\nplanting.take()\n"


class Point(NamedTuple):
    """The ``occurrence``-th time that ``event`` happens to something that matches ``what``; one of them is drawn.

    An event is one of the interpreter's audit events with its paths, or ``call`` with file and name of a function.
    With ``after`` it counts only where it is the first since another such event, of whatever kind, matched that.
    """

    event: str
    what: str
    occurrences: tuple[int, ...] = (1,)
    after: str | None = None


def plant(point: Point, occurrence: int, fired: Callable[[], object] = lambda: None) -> None:
    """Let this process kill itself at a point, ``fired`` called before."""
    left, ready, over = occurrence, point.after is None, False

    def seen(event: str, text: str) -> None:
        nonlocal left, ready, over
        if ready and not over and event == point.event and re.search(point.what, text):
            left, ready = left - 1, point.after is None
            if left == 0:
                over = True
                fired()
                os.kill(os.getpid(), signal.SIGKILL)
        ready = ready or re.search(str(point.after), text) is not None

    def audited(event: str, arguments: tuple[Any, ...]) -> None:
        if event in TOLD:
            seen(event, " ".join(str(one) for one in arguments if isinstance(one, str | os.PathLike)))

    def profiled(frame: Any, event: str, _: Any) -> None:
        if event == "call" and "jaxrec" in frame.f_code.co_filename:
            seen(event, f"{frame.f_code.co_filename} {frame.f_code.co_name}")

    if point.event == "call":
        sys.setprofile(profiled)
        threading.setprofile(profiled)  # and in threads to come
    else:
        assert point.event in TOLD
        sys.addaudithook(audited)


def site(folder: Path) -> dict[str, str]:
    """What lets every interpreter that inherits it look into ``folder`` for a point of its own."""
    (folder / "sitecustomize.py").write_text(SITE.format(scripts=str(Path(__file__).resolve().parent)))
    return {VARIABLE: str(folder), "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def lay(folder: Path, role: str, point: Point, occurrence: int) -> Path:
    """Lay a point for the next process of a role, the last part of a word of its command line; the file that is there
    once it fired.
    """
    file = folder / f"{role}.json"
    file.with_suffix(".fired").unlink(missing_ok=True)
    file.with_suffix(".tmp").write_text(json.dumps([point, occurrence]))
    file.with_suffix(".tmp").rename(file)
    return file.with_suffix(".fired")


def take() -> None:
    """Plant what was laid for this process, if anything was."""
    for file in sorted(Path(os.environ[VARIABLE]).glob("*.json")):
        if file.stem in [word.rpartition(".")[2] for word in sys.orig_argv]:
            try:
                file.rename(file.with_suffix(".taken"))
            except FileNotFoundError:  # another process was faster
                continue
            point, occurrence = json.loads(file.with_suffix(".taken").read_text())
            plant(Point(*point), occurrence, file.with_suffix(".fired").touch)
