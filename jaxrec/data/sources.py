"""One file on disk: what its first bytes say, its text, its hash, and the line that an error is on."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, cast

from jaxrec.config import Mistake
from jaxrec.data.prepared import file_sha256

SAMPLE = 1 << 20  # bytes of text looked at before deciding
SUFFIXES = {".gz", ".csv", ".tsv", ".txt", ".inter", ".parquet", ".dat"}
GENERIC = {"train", "data", "events", "interactions", "ratings", "sessions", "train_sessions", "clicks"}
CONTAINERS = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it or use gzip",
    b"BZh": "compressed with bzip2; unpack it or use gzip",
    b"\xfd7zXZ": "compressed with xz; unpack it or use gzip",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"\x89HDF": "an HDF5 file; save its table as Parquet or CSV",
}


@dataclass(frozen=True)
class Source:
    """A file that can be opened and is not empty; anything else is a Mistake when it is built."""

    path: Path

    def __post_init__(self) -> None:
        if self.path.is_dir():
            raise Mistake(f"{self.path} is a directory; name a file of events in it")
        if not self.path.exists():
            raise Mistake(f"{self.path} does not exist; give the path of a file of events, or 'demo'")
        if not self.path.is_file():
            raise Mistake(
                f"{self.path} is a pipe or a device, and a file is read more than once; write it to disk first"
            )
        if not self.head:
            raise Mistake(f"{self.path} is empty; it should hold one event or one session a line")
        for magic, what in CONTAINERS.items():
            if self.head.startswith(magic):
                raise Mistake(f"{self.path} is {what}")

    @cached_property
    def head(self) -> bytes:
        """The first bytes as they lie on disk."""
        with self.guarded(), open(self.path, "rb") as file:
            return file.read(8)

    @property
    def zipped(self) -> bool:
        return self.head.startswith(b"\x1f\x8b")

    @property
    def parquet(self) -> bool:
        return self.head.startswith(b"PAR1")

    @property
    def name(self) -> str:
        """The data's name: the file's without suffixes, or its folder's where the file's says nothing."""
        stem = self.path.name
        while Path(stem).suffix.lower() in SUFFIXES:
            stem = Path(stem).stem
        return self.path.absolute().parent.name or stem if stem.lower() in GENERIC else stem

    @cached_property
    def sha256(self) -> str:
        with self.guarded():
            return file_sha256(self.path)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """What reading bytes can raise, as one sentence."""
        try:
            yield
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Mistake(f"{self.path} is a damaged or cut gzip file ({error}); fetch or write it again") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise Mistake(f"{self.path} cannot be read ({reason}); check the path and its permissions") from error

    def open(self) -> IO[bytes]:
        """The bytes of the text, unpacked."""
        return cast(IO[bytes], gzip.open(self.path, "rb")) if self.zipped else open(self.path, "rb")

    def whole(self) -> Path | io.BytesIO:
        """What polars reads: the path itself, or a gzip file unpacked in memory (its checksum is then checked)."""
        if not self.zipped:
            return self.path
        with self.guarded(), self.open() as file:
            return io.BytesIO(file.read())

    @cached_property
    def sample(self) -> list[str]:
        """The first lines that are not blank, without line ends; the last is complete."""
        with self.guarded(), self.open() as file:
            data = file.read(SAMPLE)
            cut = len(data) == SAMPLE and bool(file.read(1))
        if b"\0" in data:
            raise Mistake(f"{self.path} is not text (it holds zero bytes); give CSV, TSV, .inter, text or Parquet")
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace")
        lines = text.split("\n")
        kept = lines[:-1] if cut and len(lines) > 1 else lines
        found = [line.rstrip("\r") for line in kept if line.strip()]
        if not found:
            raise Mistake(f"{self.path} holds only blank lines; it should hold one event or one session a line")
        return found

    @property
    def lines(self) -> int:
        """How many lines are not blank, quickly."""
        with self.guarded(), self.open() as file:
            return sum(not line.isspace() for line in file)

    @property
    def blank_first(self) -> int:
        """How many blank lines stand before the first that is not."""
        with self.text() as file:
            return next(number for number, line in enumerate(file) if line.strip())

    def text(self) -> io.TextIOWrapper:
        """The text with its line ends, for finding the place of an error; bytes that are not UTF-8 are kept as such."""
        return io.TextIOWrapper(self.open(), encoding="utf-8-sig", errors="surrogateescape", newline="\n")

    def line_of_row(self, row: int, separator: str, header: bool = True) -> int:
        """The line (from 1) on which data row `row` (from 0) begins. Blank lines count, as in polars."""
        for number, (line, fields) in enumerate(self.records(separator)):
            if isinstance(fields, csv.Error):
                break
            if number == row + header:
                return line
        raise Mistake(f"{self.path}: row {row + 1} cannot be found again; was the file changed while it was read?")

    def records(self, separator: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
        """(line on which it begins, fields) of every record from the first not blank; a blank line has no fields.

        In place of the fields of a record whose quotes are broken stands the error; reading goes on with the next line.
        Mistake when a quote is never closed, for then it is not known where the record ends.
        """
        line, begun = 1, False
        with self.guarded(), self.text() as file:
            plain = (text.replace("\r\n", "\n").replace("\r", " ") for text in file)
            if len(separator) > 1:
                yield from separated(plain, separator)
                return
            reader = csv.reader(plain, delimiter=separator, strict=True)
            while True:
                try:
                    fields: list[str] | csv.Error = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    if "unexpected end of data" in str(error):
                        rule = "a quote is opened here and never closed"
                        raise Mistake(
                            f"{self.path}:{line}: {rule}; close it, or double quotes inside a field"
                        ) from error
                    fields = error
                begun = begun or isinstance(fields, csv.Error) or any(map(str.strip, fields))
                if begun:
                    yield line, fields
                line = reader.line_num + 1


def separated(lines: Iterable[str], separator: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Records of a separator of several characters, which knows no quotes."""
    for number, text in enumerate(lines, start=1):
        yield number, text.rstrip("\n").split(separator) if text.strip() else []


def not_utf8(text: str) -> bool:
    """Whether text from `Source.text` holds bytes that could not be decoded."""
    return any("\udc80" <= character <= "\udcff" for character in text)
