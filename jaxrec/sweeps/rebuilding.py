"""A ledger made anew from the run folders, each of which says which trial it is and how that ended."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxrec.config import Mistake, from_dict
from jaxrec.data.replacing import replacing
from jaxrec.runs.folder import read_json
from jaxrec.runs.options import Config
from jaxrec.sweeps.buckets import bucket
from jaxrec.sweeps.folder import Place
from jaxrec.sweeps.ledger import Lease, Ledger, New
from jaxrec.sweeps.verdicts import row

NOTE = "trial.json"


def note(place: Path, lease: Lease, state: str, reason: str = "") -> None:
    """Write into a run folder which trial it is, where the folder is there."""
    if place.is_dir():
        about = {name: value for name, value in lease._asdict().items() if name not in ("attempt", "config")}
        with replacing(place / NOTE) as file:
            file.write((json.dumps(about | {"state": state, "reason": reason}) + "\n").encode())


def set_aside(place: Place) -> Path | None:
    """Move a ledger and what SQLite keeps beside it out of the way; where to, None where there was none."""
    if not place.ledger.exists():
        return None
    number = next(n for n in range(1, 1000) if not place.ledger.with_name(f"ledger.sqlite.damaged-{n}").exists())
    for end in ("-wal", "-shm", ""):
        old = place.ledger.with_name(place.ledger.name + end)
        if old.exists():
            old.rename(place.ledger.with_name(f"ledger.sqlite.damaged-{number}{end}"))
    return place.ledger.with_name(f"ledger.sqlite.damaged-{number}")


def rebuilt(place: Place, say: Callable[[str], None]) -> Ledger:
    """The ledger that the run folders tell of; the old one stays beside it. Attempts are not known any more."""
    if not place.about.exists():
        raise Mistake(f"{place.about} does not exist, so that nothing says what was swept; choose another --out")
    about = read_json(place.about)
    kept = set_aside(place)
    ledger = Ledger(place.ledger)
    ledger.begin(about)
    count = 0
    for file in sorted(place.runs.glob(f"*/{NOTE}")):
        count += restored(ledger, file, about)
    said = f"; the old one is {kept}" if kept else ""
    say(f"{place.ledger}: made anew from {count} run folders{said}")
    return ledger


def restored(ledger: Ledger, file: Path, about: Mapping[str, Any]) -> bool:
    """Add the trial of a run folder; False where a kill left too little of it."""
    try:
        known, config = read_json(file), read_json(file.parent / "config.json")
    except Mistake:  # it is proposed again, and goes on from its checkpoint
        return False
    result, state = {}, known["state"]
    if state == "done" or (file.parent / "result.json").exists():
        try:
            found = read_json(file.parent / "result.json")
            result, state = row(found, about["objectives"]), "done" if found["complete"] else state
        except Mistake:
            state = "waiting"
    plain = config | {"run": None}
    new = New(
        known["number"], known["id"], known["point"], plain, bucket(from_dict(Config, plain, str(file))),
        known["seed"], known["repeat"], known["notes"],
    )  # fmt: skip
    ledger.restore(new, state, result, readings(file.parent))
    return True


def readings(place: Path) -> list[dict[str, Any]]:
    """The validations that a run has written down. Their seconds are not among them."""
    found = []
    try:
        for line in (place / "metrics.jsonl").read_bytes().splitlines():
            record = json.loads(line)
            if "valid" in record:
                found.append({"epoch": record["epoch"], "seconds": 0.0, "values": record["valid"]})
    except (OSError, ValueError):
        return found
    return found
