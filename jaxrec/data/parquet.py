"""Parquet tables. A damaged one can end the process that reads it, so another process reads it first.

2026-11: one flipped bit in a page can ask for 2e18 bytes, and the allocator then aborts the process (polars 2.1, in 1
of some 20,000 damaged files; a panic in 1 of 100). No check short of decoding finds it. The other reading costs as long
as the first. A reader that raises instead would make it needless.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from jaxrec.config import Mistake, first_line
from jaxrec.data.columns import choose
from jaxrec.data.events import Events
from jaxrec.data.formats import Format
from jaxrec.data.frames import announce, from_frame
from jaxrec.data.options import Preparation
from jaxrec.data.rows import Bad, Rows
from jaxrec.data.sources import Source

Say = Callable[[str], None]
LARGE = 1 << 26  # bytes
SMALLEST = 12  # magic number, length of the footer, magic number


def read_parquet(source: Source, form: Format, options: Preparation, say: Say) -> Events:
    """A Parquet table; ids may be text, whole numbers or categories, times numbers, dates or text."""
    import polars as pl

    check_ends(source)
    probe = Probe(source)
    choice = choose(probe.header(), options, str(source.path))
    announce(source.path, form, choice, say)
    probe.read([choice.header[place] for place in choice.places()])
    with guarded(source):
        table = pl.scan_parquet(source.path, glob=False)
        frame = table.select(
            pl.col(choice.header[place]).alias(f"column_{place}") for place in choice.places()
        ).collect()
        count = int(table.select(pl.len()).collect().item())
    if frame.height != count:
        raise damaged(source, f"its columns have {frame.height:,} rows, its footer says {count:,}")
    if frame.height == 0:
        raise Mistake(f"{source.path} has columns and no rows; give a file with events")
    rows = Rows(Bad(str(source.path), options.on_bad_row == "skip"), frame.height, lambda row: f": row {row + 1}")
    return from_frame(form, choice, frame, rows, options, say)


def check_ends(source: Source) -> None:
    """Mistake when the file does not end as a Parquet file does, with a footer that fits into it."""
    with source.guarded(), open(source.path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(size - 8, 0))
        tail = file.read(8)
    if size < SMALLEST or tail[4:] != b"PAR1":
        raise damaged(source, "it does not end with PAR1")
    if int.from_bytes(tail[:4], "little") > size - SMALLEST:
        raise damaged(source, "its footer would be longer than the file")


def damaged(source: Source, reason: str) -> Mistake:
    return Mistake(f"{source.path} is a damaged or cut Parquet file ({reason}); fetch or write it again")


class Probe:
    """Another process that reads files first, column by column, and may die of one: see `probe.py`.

    It serves all files of this process and ends with it; after a large file it is ended to give back its memory.
    """

    child: "ClassVar[subprocess.Popen[str] | None]" = None

    def __init__(self, source: Source):
        self.source = source
        if Probe.child is None or Probe.child.poll() is not None:
            command = [sys.executable, "-P", str(Path(__file__).with_name("probe.py"))]
            pipe = subprocess.PIPE
            Probe.child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)

    def header(self) -> tuple[str, ...]:
        return tuple(self.ask({"open": str(self.source.path.absolute())}, "columns"))

    def read(self, names: Sequence[str]) -> None:
        """Read these columns whole. Mistake when that fails or ends the process."""
        self.ask({"read": names}, "read")
        if self.source.path.stat().st_size > LARGE:
            self.end()

    def ask(self, request: dict[str, Any], key: str) -> Any:
        assert Probe.child is not None
        assert Probe.child.stdin is not None
        assert Probe.child.stdout is not None
        with suppress(BrokenPipeError):  # the missing answer says so
            print(json.dumps(request), file=Probe.child.stdin, flush=True)
        line = Probe.child.stdout.readline()
        if not line.endswith("\n"):
            self.end()
            raise damaged(self.source, "reading it breaks the Parquet reader")
        answer = json.loads(line)
        if "error" in answer:
            raise damaged(self.source, answer["error"])
        return answer[key]

    @staticmethod
    def end() -> None:
        if Probe.child is not None:
            Probe.child.kill()
            with suppress(BrokenPipeError):
                Probe.child.communicate()
            Probe.child = None


@contextmanager
def guarded(source: Source) -> Iterator[None]:
    """What polars raises on a damaged file, its panics too, as one sentence."""
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise damaged(source, first_line(error, "unreadable")) from error
