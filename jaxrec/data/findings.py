"""What an expert would point at in a log of events, each with the flag that changes it. Input: `inspection.inspect`."""

import time as clock
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxrec.data.shape import DAY

Found = dict[str, Any]
EARLY = 3652 * DAY  # 1980-01-01: nobody clicked before
NOTABLE = 0.05  # share of targets from which a rule decides numbers
SORTED = 0.9  # share of tied neighbours with ascending ids above which the file was sorted by id
PAIRS = 100  # tied neighbours needed to say so
FEW = 500  # targets below which an interval is wide
HEAVY = 0.2  # share of all events above which one item decides averages


@dataclass(frozen=True)
class Finding:
    """One sentence, and what to do about it: flags of `prepare` and `train`, or words."""

    sentence: str
    remedy: str


def findings(found: Found, time: np.ndarray | None) -> list[Finding]:
    """Everything worth a warning, the ones that decide numbers first."""
    return [one for rule in RULES for one in rule(found, time)]


def tied_targets(found: Found, time: np.ndarray | None) -> Iterator[Finding]:
    share = found["ties"]["users_tied_last_share"]
    if share is not None and share > NOTABLE:
        kind = found["sequence"]
        yield Finding(
            f"{share:.1%} of {kind}s have a tied last event: the order of the file, not time, decides what a "
            "leave-one-out test asks of them",
            "--split time, or --ties shuffle with several --ties-seed; jaxrec report shows tied targets apart",
        )


def sorted_ties(found: Found, time: np.ndarray | None) -> Iterator[Finding]:
    ties = found["ties"]
    if ties["pairs"] >= PAIRS and not 1 - SORTED < ties["ascending_share"] < SORTED:
        direction = "ascend" if ties["ascending_share"] > 0.5 else "descend"
        yield Finding(
            f"the file is sorted by item inside a tie: ids {direction} in "
            f"{max(ties['ascending_share'], 1 - ties['ascending_share']):.1%} of tied neighbours, a pattern that a "
            "sequence model learns and that no user made",
            "--ties shuffle, or --split time",
        )


def future(found: Found, time: np.ndarray | None) -> Iterator[Finding]:
    split = next((row for row in found["splits"] if row["split"] == "leave-one-out" and "leaks" in row), None)
    if split and time is not None:
        yield Finding(
            "split leave-one-out, the default, leaks the future: a user's training events may be later than another "
            "user's test event",
            "--split time",
        )


def no_time(found: Found, time: np.ndarray | None) -> Iterator[Finding]:
    if time is None:
        yield Finding(
            "there is no time: the order of the file is the order of events, and no split by time is possible",
            "--time-column NAME if a column holds it",
        )


def no_such_time(found: Found, time: np.ndarray | None) -> Iterator[Finding]:
    if time is None:
        return
    for count, which in (
        (int((time < EARLY).sum()), "before 1980"),
        (int((time > (clock.time() + 86_400) * 1e6).sum()), "in the future"),
    ):
        if count:
            yield Finding(
                f"{count:,} events are {which} ({found['time']['span']}): times that are no times move the boundaries "
                "of a time split",
                "--time-column NAME if it is another column, else drop the rows",
            )


def duplicates(found: Found, time: np.ndarray | None) -> Iterator[Finding]:
    count = found["repeats"]["duplicates"]
    if count:
        yield Finding(
            f"{count:,} events ({count / found['counts']['events']:.1%}) have {found['sequence']}, item and time of "
            "another event: the same row twice, or clicks inside one tick of the clock",
            "--deduplicate exact, if they are one event",
        )


def repeats(found: Found, time: np.ndarray | None) -> Iterator[Finding]:
    for row in found["splits"]:
        if found["sequence"] == "user" and row.get("test_targets"):
            share = row["repeated_test_targets"] / row["test_targets"]
            if share > NOTABLE:
                yield Finding(
                    f"split {row['split']}: {share:.1%} of the test targets are items the user had before, which "
                    "--mask-seen history (the default for users) makes impossible to recommend",
                    "--mask-seen none, or --mask-seen history_except_target",
                )
                return


def unknown(found: Found, time: np.ndarray | None) -> Iterator[Finding]:
    for row in found["splits"]:
        if row.get("test_targets") and row["unknown_test_targets"] > NOTABLE * row["test_targets"]:
            share = row["unknown_test_targets"] / row["test_targets"]
            yield Finding(
                f"split {row['split']}: {share:.1%} of the test targets never occur in training and count as misses",
                "--min-item-events 5, or --unknown-targets drop",
            )


def little(found: Found, time: np.ndarray | None) -> Iterator[Finding]:
    """Splits under which nothing, or too little, is left to measure."""
    for row in found["splits"]:
        targets = row.get("test_targets")
        if targets == 0 or row.get("train_events") == 0:
            yield Finding(
                f"split {row['split']} leaves {row['train_events']:,} events to train on and {targets:,} test targets",
                "another --split, or other --boundaries",
            )
        elif targets is not None and targets < FEW:
            wide = 1.96 * np.sqrt(0.1 * 0.9 / targets)
            yield Finding(
                f"split {row['split']} leaves {targets:,} test targets: a hit rate of 10% is known to "
                f"{wide:.1%} up or down at best",
                "more data, or several seeds",
            )


def short(found: Found, time: np.ndarray | None) -> Iterator[Finding]:
    share = found["lengths"]["under_three"] / found["counts"]["sequences"]
    if share > NOTABLE:
        yield Finding(
            f"{share:.1%} of {found['sequence']}s have fewer than three events: leave-one-out gives them no target, "
            "and they teach at most one transition",
            "--min-user-events 3",
        )


def rare(found: Found, time: np.ndarray | None) -> Iterator[Finding]:
    share = found["popularity"]["once"] / found["counts"]["items"]
    if share > NOTABLE:
        yield Finding(
            f"{share:.1%} of the items occur once: they cannot be both learnt and tested", "--min-item-events 5"
        )


def heavy(found: Found, time: np.ndarray | None) -> Iterator[Finding]:
    share = found["popularity"]["most"] / found["counts"]["events"]
    if share > HEAVY:
        yield Finding(
            f"one item has {share:.1%} of all events: recommending it to everybody looks like a good model",
            "look at popularity beside every number; drop the item if it is no choice (a home page, a bag)",
        )


def small(found: Found, time: np.ndarray | None) -> Iterator[Finding]:
    """Logs from which nothing can be learnt."""
    for name, least in (("items", 2), ("sequences", 2)):
        if found["counts"][name] < least:
            yield Finding(
                f"there is one {'item' if name == 'items' else found['sequence']} only, and a recommender needs at "
                f"least {least}",
                f"--{'item' if name == 'items' else 'user'}-column NAME if it is another column",
            )


RULES: tuple[Callable[[Found, np.ndarray | None], Iterator[Finding]], ...] = (
    small, tied_targets, sorted_ties, future, no_time, no_such_time, duplicates, repeats, unknown, little, short,
    rare, heavy,
)  # fmt: skip
