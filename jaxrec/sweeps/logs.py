"""What a worker printed: one file a worker, a line where a trial begins."""

import os
from pathlib import Path

MARK = "-- trial "
LINES, BYTES = 20, 1 << 15


def place(out: Path, worker: str) -> Path:
    """The file of a worker of the sweep in ``out``."""
    return out / "workers" / f"{worker}.log"


def tail(path: Path) -> list[str]:
    """The last lines of a worker's present trial; nothing where there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    marks = [number for number, line in enumerate(lines) if line.startswith(MARK)]
    return [line[:500] for line in lines[marks[-1] + 1 if marks else 0 :][-LINES:]]
