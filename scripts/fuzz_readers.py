"""Is any file read wrongly without a word? Writes logs in every format, damages them and real files, and reads them.

Claim     Whatever the file: no exception but Mistake, in one sentence that names the file; what was written is what is
          read; and after damage the log is the same, or differs only on the damaged lines, or was read under another
          decision that is said (format, columns, unit), or is refused.
Command   python scripts/fuzz_readers.py --cases 10000          one case again: --cases 1 --first 4711
Time      About 15 minutes of one core.
Expect    No failure; one row in experiments/results/fuzz_readers.jsonl. Outcomes: same, mistake, damaged lines only,
          said; "no checksum" counts flipped bits inside Parquet pages that carry none, which nobody can detect.
"""

import argparse
import contextlib
import csv
import gzip
import io
import json
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from jaxrec.config import Mistake
from jaxrec.data.events import Events
from jaxrec.data.folders import locate
from jaxrec.data.options import Preparation
from jaxrec.data.read import read

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "experiments" / "results" / "fuzz_readers.jsonl"
SHARED = ROOT.parent / "shared" / "data"
FAILURES = ("exception", "silent", "vague")
LINES = 300  # of a real file
Row = tuple[str, str, int | None]  # user or where a session begins, item, microseconds
Random = random.Random

AWKWARD = [
    "007",
    "7.0",
    " x ",
    'say "hi"',
    '"',
    "a,b",
    "a;b|c",
    "tab\there",
    "two\nlines",
    "é",
    "日本",
    "NA",
    "null",
    "-",
]
AWKWARD += ["18446744073709551616", "9007199254740993", "True", "1e5", "'", "\\", "{}", "[1]", "\u200b", "#", "a::b"]
WORDS = [
    "007",
    "é",
    "日本",
    "NA",
    "null",
    "-1",
    "'",
    "#x",
    "u7",
    "18446744073709551616",
    "9007199254740993",
    "1e5",
    "b'",
]


@dataclass
class File:
    """What was written: bytes, a name, the rows on every line (none on a header), and how it has to be read."""

    name: str
    content: bytes
    lines: list[list[Row]]
    options: dict[str, Any] = field(default_factory=dict)
    sessions: bool = False


def log(noise: Random, awkward: bool, count: int | None = None) -> list[Row]:
    """Events of a few users, ids as odd as the format bears, times of one year or none in common."""
    ids = [*WORDS, *(AWKWARD if awkward else [])]
    users = [noise.choice(ids) if noise.random() < 0.3 else f"u{noise.randrange(99)}" for _ in range(5)]
    start = noise.choice([946_684_800, 1_400_000_000, 1_700_000_000])
    item = lambda: noise.choice(ids) if noise.random() < 0.3 else f"i{noise.randrange(20)}"  # noqa: E731
    return [
        (noise.choice(users), item(), (start + noise.randrange(30_000_000)) * 1_000_000)
        for _ in range(count or noise.randint(1, 30))
    ]


def moment(noise: Random, rows: list[Row]) -> list[Any]:
    """The times as a file might have them: one way for all."""
    scale = noise.choice([1, 1_000, 1_000_000, 0])
    if scale:
        return [row[2] // scale for row in rows]
    return [datetime.fromtimestamp(row[2] // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for row in rows]


def separated(separator: str, header: list[str] | None, name: str) -> Callable[[Random, bool], File]:
    def write(noise: Random, awkward: bool) -> File:
        rows = log(noise, awkward and header is not None, None if header else noise.randint(3, 30))
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=separator, lineterminator="\n")
        extra = noise.random() < 0.5 and header is not None
        writer.writerows([[*header, "title"] if extra else header] if header else [])
        for row, when in zip(rows, moment(noise, rows), strict=True):
            title = noise.choice(AWKWARD[:6] if awkward else ["plain", "", "two words"])
            writer.writerow([*row[:2], when, title] if extra else [*row[:2], when])
        return File(name, text.getvalue().encode(), [[]] * bool(header) + [[row] for row in rows])

    return write


def movielens(noise: Random, _: bool) -> File:
    rows = log(noise, False, noise.randint(3, 30))
    text = "".join(f"{user}::{item}::{noise.randint(1, 5)}::{when // 1_000_000}\n" for user, item, when in rows)
    positions = {"user_column": "1", "item_column": "2", "time_column": "4"}
    return File("ratings.dat", text.encode(), [[row] for row in rows], positions)


def json_lines(noise: Random, awkward: bool) -> File:
    rows = log(noise, awkward)
    names = noise.choice([("reviewerID", "asin", "unixReviewTime"), ("user_id", "parent_asin", "timestamp")])
    texts = [
        json.dumps(dict(zip(names, [*row[:2], when], strict=True)) | {"text": noise.choice(AWKWARD)})
        for row, when in zip(rows, moment(noise, rows), strict=True)
    ]
    if noise.random() < 0.3:
        return File("reviews.json", ("[" + ",\n".join(texts) + "]\n").encode(), [[row] for row in rows])
    return File("reviews.jsonl", ("\n".join(texts) + "\n").encode(), [[row] for row in rows])


def pairs(noise: Random, _: bool) -> File:
    rows = [(user, item, None) for user, item, _ in sorted(log(noise, False, noise.randint(8, 30)))]
    header = noise.random() < 0.5
    text = "user item\n" * header + "".join(f"{user} {item}\n" for user, item, _ in rows)
    return File("pairs.txt", text.encode(), [[]] * header + [[row] for row in rows])


def sessions(noise: Random, _: bool) -> File:
    held = [[item for _, item, _ in log(noise, False, noise.randint(1, 6))] for _ in range(noise.randint(1, 12))]
    held += [["a", "b", "c"], ["d"]]
    lines = [[(str(place == 0), item, None) for place, item in enumerate(items)] for items in held]
    text = "".join(" ".join(items) + "\n" for items in held)
    return File("sessions.txt", text.encode(), lines, sessions=True)


def news(noise: Random, _: bool) -> File:
    lines, text = [], ""
    for number, (user, _, when) in enumerate(log(noise, False), start=1):
        shown = [(f"N{noise.randrange(99)}", noise.random() < 0.4) for _ in range(noise.randint(1, 5))]
        at = datetime.fromtimestamp(when // 1_000_000, UTC)
        clock = f"{at.month}/{at.day}/{at.year} {at.hour % 12 or 12}:{at:%M:%S} {'AM' if at.hour < 12 else 'PM'}"
        text += f"{number}\t{user}\t{clock}\tN1 N2\t{' '.join(f'{item}-{int(hit)}' for item, hit in shown)}\n"
        lines.append([(user, item, when) for item, hit in shown if hit])
    lines.append([("u", "N5", 1_573_808_122_000_000)])
    text += "0\tu\t11/15/2019 8:55:22 AM\t\tN5-1\n"
    return File("behaviors.tsv", text.encode(), lines)


def parquet(noise: Random, awkward: bool) -> File:
    rows = log(noise, awkward)
    columns = {"user": [row[0] for row in rows], "item": [row[1] for row in rows], "ts": moment(noise, rows)}
    file = io.BytesIO()
    pl.DataFrame(columns).write_parquet(file, compression=noise.choice(["zstd", "snappy", "uncompressed", "gzip"]))
    return File("events.parquet", file.getvalue(), [rows])


PLAIN = ["user", "item", "time"]
ATOMIC = ["user_id:token", "item_id:token", "timestamp:float"]
WRITERS: dict[str, Callable[[Random, bool], File]] = {
    "csv": separated(",", PLAIN, "events.csv"),
    "tsv": separated("\t", ["UserId", "ItemId", "ts"], "events.tsv"),
    "semicolons": separated(";", ["customer", "product", "date"], "events.csv"),
    "bars": separated("|", ["visitor", "song", "when"], "events"),
    "atomic": separated("\t", ATOMIC, "events.inter"),
    "headless csv": separated(",", None, "clicks.csv"),
    "headless tsv": separated("\t", None, "u.data"),
    "movielens": movielens,
    "json": json_lines,
    "pairs": pairs,
    "sessions": sessions,
    "news": news,
    "parquet": parquet,
}
REAL = ["ml-100k/ml-100k.inter.gz", "ml-1m/ml-1m.txt.gz", "amazon-beauty/Beauty.txt.gz"]
REAL += ["amazon-beauty-2014/interactions.tsv.gz", "diginetica/train_sessions.txt.gz", "30music/sessions.parquet"]
REAL += ["yoochoose-1-64/test_sessions.txt.gz", "ctr-ml-1m/ctr.tsv.gz"]


def real(noise: Random) -> tuple[str, File] | None:
    """The beginning of a real file, rows still unknown; None where there are none."""
    path = SHARED / noise.choice(REAL)
    if not path.exists():
        return None
    if path.suffix == ".parquet":
        file = io.BytesIO()
        pl.scan_parquet(path).slice(noise.randrange(300_000), LINES).collect().write_parquet(file)
        return "real parquet", File(path.name, file.getvalue(), [])
    with gzip.open(path) as lines:
        content = b"".join(line for _, line in zip(range(LINES), lines, strict=False))
    return "real text", File(path.name.removesuffix(".gz"), content, [], sessions="sessions" in path.name)


def rows_of(events: Events, file: File) -> list[Row]:
    """What was read, in the terms of `File.lines`."""
    times: list[Any] = [None] * len(events.item) if events.time is None else events.time.tolist()
    owners = (events.user if events.user is not None else events.session).to_list()  # type: ignore[union-attr]
    if file.sessions:
        owners = [str(one != two) for one, two in zip(owners, [None, *owners], strict=False)]
    return list(zip(owners, events.item.to_list(), times, strict=True))


def damage(content: bytes, noise: Random) -> tuple[bytes, int, int]:
    """The bytes with one thing done to them, and the place where it begins and ends in the original."""
    place = noise.randrange(len(content))
    size = min(noise.choice([1, 1, 2, 5, 40]), len(content) - place)
    kind = noise.choice(["cut", "flip", "flip", "insert", "insert", "remove", "repeat", "overwrite"])
    if kind == "cut":
        return content[:place], place, len(content)
    if kind == "flip":
        return content[:place] + bytes([content[place] ^ 1 << noise.randrange(8)]) + content[place + 1 :], place, place
    if kind == "remove":
        return content[:place] + content[place + size :], place, place + size - 1
    piece = noise.choice(
        [b'"', b"\n", b",", b" ", b"\0", b"\xff", b"\r", b"\n\n", b"\xef\xbb\xbf", b"\t", b'""', b"-", b"9"]
    )
    if kind == "insert":
        return content[:place] + piece + content[place:], place, place
    if kind == "repeat":
        return content[: place + size] + content[place:], place, place + size - 1
    return content[:place] + piece + content[place + len(piece) :], place, place + len(piece) - 1


def decision(events: Events) -> tuple[Any, ...]:
    return events.format, events.columns, events.because, events.unit


def judge(folder: Path, file: File, noise: Random, damaged: bool) -> str:
    """Write, perhaps damage, read: the outcome in a word or two; those in FAILURES are failures."""
    zipped = not file.name.endswith(".parquet") and noise.random() < 0.15
    content = gzip.compress(file.content, 1) if zipped else file.content
    path = folder / (file.name + ".gz" * zipped)
    path.write_bytes(content)
    options = dict(file.options)
    heard: list[str] = []
    before = read(locate(str(path)), Preparation(data=str(path), **options), heard.append)
    original = rows_of(before, file)
    if not damaged:
        return "same" if original == [row for line in file.lines for row in line] else "silent"
    wrong, begin, end = damage(content, noise)
    path.write_bytes(wrong)
    skip = noise.random() < 0.4
    heard.clear()
    try:
        after = read(
            locate(str(path)),
            Preparation(data=str(path), on_bad_row="skip" if skip else "error", **options),
            heard.append,
        )
    except Mistake as mistake:
        return "mistake" if str(path) in str(mistake) and "\n" not in str(mistake) else "vague"
    found = rows_of(after, file)
    if found == original:
        return "same"
    if decision(after) != decision(before) or any("line breaks begins" in sentence for sentence in heard):
        return "said"
    if file.name.endswith(".parquet"):
        return "no checksum"
    if zipped:
        return "silent"
    return "damaged lines only" if elsewhere_alike(file, original, found, begin, end) else "silent"


def elsewhere_alike(file: File, original: list[Row], found: list[Row], begin: int, end: int) -> bool:
    """Whether the rows of the lines before and after the damage are the first and last that were read."""
    lines = file.lines or by_line(file, original)
    text = file.content
    first, last = text.count(b"\n", 0, begin), text.count(b"\n", 0, end + 1)  # a line end that goes joins two lines
    head = [row for line in lines[:first] for row in line]
    tail = [row for line in lines[last + 1 :] for row in line]
    fits = len(head) + len(tail) <= len(found)
    return fits and found[: len(head)] == head and (not tail or found[-len(tail) :] == tail)


def by_line(file: File, original: list[Row]) -> list[list[Row]]:
    """The rows of a real file on its lines: one each after a header, or as many as there are words."""
    texts = file.content.decode().splitlines()
    if not file.sessions:
        return [[]] * (len(texts) - len(original)) + [[row] for row in original]
    held = iter(original)
    return [[next(held) for _ in text.split()] for text in texts]


def case(folder: Path, seed: int, number: int) -> tuple[str, str, str]:
    """Format, outcome, and what is needed to see a failure again."""
    noise = Random(f"{seed}-{number}")
    damaged = noise.random() < 0.75
    found = real(noise) if damaged and noise.random() < 0.3 else None
    if found is None:
        name = noise.choice(list(WRITERS))
        found = name, WRITERS[name](noise, not damaged)
    kind, file = found
    try:
        outcome = judge(folder, file, noise, damaged)
    except Mistake as mistake:
        return kind, "silent", f"an undamaged file is refused: {mistake}"
    except Exception:
        return kind, "exception", traceback.format_exc(limit=-3)
    return kind, outcome, "" if outcome not in FAILURES else f"{file.name}, damaged: {damaged}"


def fuzz(cases: int, seed: int, first: int = 0, seconds: float = float("inf")) -> dict[str, Any]:
    """Run the cases (fewer when the processor time is spent) and count what came of them."""
    outcomes: Counter[str] = Counter()
    by_format: dict[str, Counter[str]] = {}
    failures, began, done = [], time.process_time(), 0
    with tempfile.TemporaryDirectory() as place:
        for number in range(first, first + cases):
            kind, outcome, why = case(Path(place), seed, number)
            outcomes[outcome] += 1
            by_format.setdefault(kind, Counter())[outcome] += 1
            done += 1
            if outcome in FAILURES:
                failures.append({"case": number, "format": kind, "outcome": outcome, "why": why.replace(place, "")})
            if time.process_time() - began > seconds:
                break
    return {
        "cases": done,
        "outcomes": dict(outcomes.most_common()),
        "by_format": {kind: dict(counts.most_common()) for kind, counts in sorted(by_format.items())},
        "failures": failures,
        "cpu_seconds": round(time.process_time() - began, 1),
        "seed": seed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seconds", type=float, default=900.0, help="processor time after which it ends")
    parser.add_argument("--dry", action="store_true", help="write no row")
    given = parser.parse_args()
    row = fuzz(given.cases, given.seed, given.first, given.seconds)
    for failure in row["failures"][:20]:
        print(failure["case"], failure["format"], failure["outcome"], failure["why"], file=sys.stderr)
    row |= {
        "first": given.first,
        "real_files": SHARED.is_dir(),
        "polars": pl.__version__,
        "python": sys.version.split()[0],
    }
    with contextlib.suppress(OSError):
        command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
        row["commit"] = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    print(json.dumps({key: value for key, value in row.items() if key != "failures"}, indent=2))
    if given.cases > 1 and not given.dry:
        with open(ROWS, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    sys.exit(1 if row["failures"] else 0)


if __name__ == "__main__":
    main()
