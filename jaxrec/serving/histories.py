"""Histories as people write them: on the command line, in a file, on standard input."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from jaxrec.config import Mistake


def histories(history: str | None, file: str | None) -> Iterator[list[str]]:
    """The ids of one history, else of every line of a file, else of every line of standard input."""
    if history is not None:
        lines = [history]
    elif file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise Mistake(f"{file}: cannot be read ({error.strerror}); give a file of histories") from None
    else:
        lines = sys.stdin.read().splitlines()
    yield from map(items, lines)


def items(line: str) -> list[str]:
    """The ids on a line: a JSON list, or words between commas, or words between blanks where there is no comma."""
    if line.lstrip().startswith("["):
        try:
            return [str(item) for item in json.loads(line)]
        except ValueError:
            pass  # an id may begin with a bracket too
    return [item.strip() for item in line.split(",") if item.strip()] if "," in line else line.split()
