"""The official MovieLens archives: which file holds the ratings, its layout, and the published SHA-256 of the zip."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.prepared import file_sha256

HOME = "https://files.grouplens.org/datasets/movielens/"
BLOCK = 1 << 24  # bytes of text parsed at a time
COLUMNS = ("user_id", "movie_id", "rating", "timestamp")


@dataclass(frozen=True)
class Release:
    """One archive, as GroupLens publishes it."""

    archive: str
    sha256: str
    member: str  # the file of ratings inside
    separator: str
    header: bool = False

    @property
    def url(self) -> str:
        return HOME + self.archive


# F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015,
# https://doi.org/10.1145/2827872. The hashes are those that tensorflow-datasets publishes for the same archives.
RELEASES = {
    "100k": Release(
        "ml-100k.zip", "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229", "ml-100k/u.data", "\t"
    ),
    "1m": Release(
        "ml-1m.zip", "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20", "ml-1m/ratings.dat", "::"
    ),
    "20m": Release(
        "ml-20m.zip",
        "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
        "ml-20m/ratings.csv",
        ",",
        True,
    ),
    "25m": Release(
        "ml-25m.zip",
        "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
        "ml-25m/ratings.csv",
        ",",
        True,
    ),
}


def verified(archive: Path, release: Release) -> Path:
    """The archive, when its bytes are those that were published; else Mistake."""
    try:
        found = file_sha256(archive)
    except OSError as error:
        raise Mistake(f"{archive} cannot be read ({error.strerror}); check the path and its permissions") from error
    if found != release.sha256:
        raise Mistake(
            f"{archive} is not the published {release.archive}: its SHA-256 is {found}, not {release.sha256}; "
            f"fetch {release.url} again"
        )
    return archive


def ratings(archive: Path, release: Release) -> dict[str, np.ndarray]:
    """The ratings in the order of the file: user_id and movie_id int32, rating float32, timestamp int64 seconds.

    Mistake, naming the line, where the file is not in the published layout.
    """
    where, parts, line = f"{archive}/{release.member}", [], 1
    try:
        with zipfile.ZipFile(archive) as folder, folder.open(release.member) as file:
            if release.header:
                file.readline()
                line += 1
            for block in blocks(file):
                parts.append(parsed(block, release.separator, where, line))
                line += len(parts[-1]["rating"])
    except (zipfile.BadZipFile, zlib.error, KeyError, OSError) as error:
        raise Mistake(f"{where} cannot be unpacked ({error}); fetch {release.url} again") from error
    if not parts:
        raise Mistake(f"{where} holds no ratings; fetch {release.url} again")
    return {name: np.concatenate([part.pop(name) for part in parts]) for name in COLUMNS}


def blocks(file: IO[bytes]) -> Iterator[bytes]:
    """The rest of a text in large pieces that end where a line ends."""
    kept = b""
    while data := file.read(BLOCK):
        whole, end, rest = data.rpartition(b"\n")
        if end:
            yield kept + whole + end
        kept = rest if end else kept + data
    if kept:
        yield kept


def parsed(block: bytes, separator: str, where: str, line: int) -> dict[str, np.ndarray]:
    """The columns of one block, whose first line is number `line` of the file."""
    import polars as pl

    kinds = dict(zip(COLUMNS, (pl.Int32, pl.Int32, pl.Float32, pl.Int64), strict=True))
    text = block.replace(separator.encode(), b"\t") if len(separator) > 1 else block
    single = "\t" if len(separator) > 1 else separator
    try:
        frame = pl.read_csv(io.BytesIO(text), separator=single, has_header=False, schema=kinds, quote_char=None)
        complete = not any(frame[name].null_count() for name in COLUMNS)
    except pl.exceptions.PolarsError:
        complete = False
    if not complete:
        raise malformed(block, separator, where, line)
    return {name: frame[name].to_numpy() for name in COLUMNS}


def malformed(block: bytes, separator: str, where: str, line: int) -> Mistake:
    """Name the first line that is not four numbers."""
    for number, text in enumerate(block.decode(errors="replace").splitlines(), start=line):
        fields = text.split(separator)
        try:
            whole = [int(fields[place]) for place in (0, 1, 3)] if len(fields) == len(COLUMNS) else []
            float(fields[2 % len(fields)])
        except ValueError:
            whole = []
        if not whole:
            rule = f"user, movie, rating and time separated by {separator!r}"
            return Mistake(f"{where}:{number}: {text[:80]!r} is not {rule}; fetch the archive again")
    return Mistake(f"{where}:{line}: numbers here are beyond any id or time; fetch the archive again")
