"""Does anything after the boundary reach training? Every real data set, every split, and planted leaks.

Asks      `jaxrec.data.leakage.check` on each preparation: the data as it is (no fault may be found), then with each
          planted leak in turn (each must be found). Rows: experiments/results/leaks.jsonl, one a preparation.
Command   python scripts/leak_check.py --data ../shared/data          NAME ... takes some of the data sets only
Time      about two minutes on one core.
Exit      1 when a fault is found or a planted leak is not.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec.bench.timing import append_row
from jaxrec.config import Mistake
from jaxrec.data import prepare as preparing
from jaxrec.data.leakage import Truth, check
from jaxrec.data.options import Preparation
from jaxrec.data.prepared import Prepared
from jaxrec.data.vocabulary import Vocabulary
from jaxrec.runs.machine import card as machine

ROWS = Path(__file__).resolve().parents[1] / "experiments" / "results" / "leaks.jsonl"
FILES: dict[str, tuple[str, ...]] = {
    "ml-100k": ("ml-100k/ml-100k.inter.gz",),
    "ml-1m": ("ml-1m/ml-1m.txt.gz",),
    "ml-1m-lrurec-order": ("ml-1m/ml-1m-lrurec-order.txt.gz",),
    "amazon-beauty": ("amazon-beauty/Beauty.txt.gz",),
    "amazon-beauty-2014": ("amazon-beauty-2014/interactions.tsv.gz",),
    "diginetica": ("diginetica/train_sessions.txt.gz", "diginetica/test_sessions.txt.gz"),
    "yoochoose-1-64": ("yoochoose-1-64/train_sessions.txt.gz", "yoochoose-1-64/test_sessions.txt.gz"),
    "30music": ("30music/sessions.parquet",),
    "ctr-ml-1m": ("ctr-ml-1m/ctr.tsv.gz",),
}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "leave-one-out": {"split": "leave-one-out"},
    "last-n": {"split": "last-n", "last": 3},
    "time": {"split": "time"},
    "time, all items": {"split": "time", "catalogue": "all"},
    "time, 5-core of all": {"split": "time", "k_core": 5},
    "time, 5-core of training": {"split": "time", "k_core": 5, "filter_scope": "train"},
    "time, sessions": {"split": "time", "sequence": "session"},
    "time, sessions cut at 30 minutes": {"split": "time", "session_gap": 30},
    "given": {"split": "given"},
}


def an_event_of_the_test(prepared: Prepared) -> Prepared | None:
    """The first sequence with a test event trains on all of its events."""
    held = np.flatnonzero(prepared.valid_end < prepared.offsets[1:])
    train_end, valid_end = prepared.train_end.copy(), prepared.valid_end.copy()
    train_end[held[0]] = valid_end[held[0]] = prepared.offsets[held[0] + 1]
    popularity = np.bincount(prepared.items[in_training(prepared, train_end)], minlength=prepared.candidates + 1)
    return replace(prepared, train_end=train_end, valid_end=valid_end, popularity=popularity)


def a_stranger_that_is_known(prepared: Prepared) -> Prepared | None:
    """One item that no training event has is in the vocabulary and passes for known."""
    if prepared.known < prepared.candidates:
        return replace(prepared, known=prepared.known + 1)
    return replace(
        prepared,
        known=prepared.known + 1,
        candidates=prepared.candidates + 1,
        item_ids=Vocabulary.from_strings([*prepared.item_ids.strings, "an item of the future"]),
        popularity=np.append(prepared.popularity, 0),
    )


def popularity_of_all_events(prepared: Prepared) -> Prepared | None:
    counts = np.bincount(prepared.items, minlength=prepared.candidates + 1)
    counts[0] = 0
    return replace(prepared, popularity=counts)


def numbers_by_popularity_of_all_events(prepared: Prepared) -> Prepared | None:
    """Items numbered by how often they occur in the whole log; everything else follows, and is right."""
    known = prepared.known
    counts = np.bincount(prepared.items, minlength=prepared.candidates + 1)[1 : known + 1]
    order = np.argsort(-counts, kind="stable")
    if (order == np.arange(known)).all():
        return None
    number = np.arange(prepared.candidates + 1, dtype=np.int32)
    number[order + 1] = np.arange(1, known + 1)
    names, popularity = prepared.item_ids.strings, prepared.popularity.copy()
    popularity[1 : known + 1] = prepared.popularity[1:][order]
    renamed = Vocabulary.from_strings([*(names[place] for place in order), *names[known:]])
    return replace(prepared, items=number[prepared.items], popularity=popularity, item_ids=renamed)


def gaps_scaled_by_all_events(prepared: Prepared) -> Prepared | None:
    if prepared.gaps is None or not prepared.gaps.any():
        return None
    return replace(prepared, gaps=(prepared.gaps / prepared.gaps.std()).astype(np.float32))


def starts_that_look_ahead(prepared: Prepared) -> Prepared | None:
    """The event before a session's first is marked instead."""
    return None if prepared.starts is None else replace(prepared, starts=np.roll(prepared.starts, -1))


PLANTED: dict[str, Callable[[Prepared], Prepared | None]] = {
    "events": an_event_of_the_test,
    "vocabulary": a_stranger_that_is_known,
    "popularity": popularity_of_all_events,
    "numbering": numbers_by_popularity_of_all_events,
    "gaps": gaps_scaled_by_all_events,
    "starts": starts_that_look_ahead,
}


WHERE = {"events": "boundary", "gaps": "statistics", "starts": "statistics"}  # planted leak -> the check that finds it


def in_training(prepared: Prepared, train_end: np.ndarray) -> np.ndarray:
    event = np.arange(len(prepared.items))
    return event < train_end[prepared.sequence_of(event)]


def faults(prepared: Prepared, truth: Truth | None) -> set[str]:
    """Names of the checks that find a fault; an event after the boundary in training is one of the boundary."""
    found = {finding.check for finding in check(prepared, truth) if finding.fault}
    return found | {"boundary"} if "events" in found else found


def planted(prepared: Prepared, truth: Truth | None) -> dict[str, bool | None]:
    """Planted leak -> whether it was found; None where it cannot be planted."""
    found: dict[str, bool | None] = {}
    for name, plant in PLANTED.items():
        leaky = plant(prepared)
        found[name] = None if leaky is None else WHERE.get(name, name) in faults(leaky, truth)
    return found


def judged(options: Preparation) -> tuple[dict[str, Any], bool]:
    """One preparation, its findings and planted leaks; and whether all is as it should be."""
    truths: list[Truth] = []
    proven = preparing.leakage.proven

    def listening(prepared: Prepared, truth: Truth) -> dict[str, Any]:
        truths.append(truth)
        return proven(prepared, truth)

    preparing.leakage.proven = listening
    try:
        prepared = preparing.prepare(options, lambda sentence: None)
    finally:
        preparing.leakage.proven = proven
    begun = time.process_time()
    findings = check(prepared, truths[0])
    seconds = time.process_time() - begun
    found, alone = planted(prepared, truths[0]), planted(prepared, None)
    card, names = prepared.card, ("split", "catalogue", "sequence", "filters", "ties", "leaks", "counts", "fingerprint")
    row = {name: card[name] for name in names}
    row |= {"findings": [finding._asdict() for finding in findings], "planted": found, "planted_loaded": alone}
    right = not any(finding.fault for finding in findings) and False not in [*found.values(), *alone.values()]
    return row | {"check_cpu_seconds": seconds}, right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(FILES)}")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    options = parser.parse_args()
    good, circumstances = True, machine(devices=False)
    for name, files in FILES.items():
        for protocol, chosen in PROTOCOLS.items() if not options.names or name in options.names else ():
            if (protocol == "given") != (len(files) == 2):
                continue
            paths = dict(zip(("data", "test"), (str(options.data / file) for file in files), strict=False))
            try:
                row, right = judged(Preparation(**paths, **chosen))
            except Mistake as mistake:
                print(f"{name:20s} {protocol:32s} not possible: {str(mistake).replace(str(options.data), '...')}")
                continue
            append_row(ROWS, {"data": name, "protocol": protocol, "right": right, **row, "machine": circumstances})
            print(f"{name:20s} {protocol:32s} {'right' if right else 'WRONG'}: {row['findings'][0]['sentence']}")
            good &= right
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
