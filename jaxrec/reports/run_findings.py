"""A run in one sentence, and what an expert would object to before believing its numbers."""

from collections.abc import Callable, Iterator
from typing import Any

from jaxrec.config import idle
from jaxrec.reports.results import NAMES

Found = dict[str, Any]
WORDS = {1: "one", 3: "three", 5: "five", 10: "ten", 20: "twenty", 50: "fifty", 100: "hundred"}
NOTABLE = 0.05


def sentence(found: Found) -> str:
    """ "On 943 targets of ml-100k gru finds the next item in the first ten 22% of the time (19% to 25%); ..." """
    result, card = found["result"], found["result"]["protocol"]
    tested, kind = found["tested"], card["sequence"]
    cell = result["model"]["cell"]
    hits = next((row for row in found["metrics"] if row["metric"].partition("@")[0] in ("hr", "recall")), None)
    row = hits or found["metrics"][0]
    name, best = best_counter(row)
    people = f"{tested['sequences']:,} {kind}s"
    if tested["targets"] != tested["sequences"]:
        people = f"{tested['targets']:,} test targets of {people}"
    where = f"On {people} of {card['name']} (split {card['split']['name']})"
    if hits is None:
        return (
            f"{where}, {cell} reaches {row['metric']} {row['value']:.4f} ({row['low']:.4f} to {row['high']:.4f}); "
            f"the best counter ({name}) {best:.4f}."
        )
    cutoff = row["metric"].partition("@")[2]
    first = f"in the first {WORDS.get(int(cutoff), cutoff)}" if cutoff else "somewhere in the list"
    return (
        f"{where}, {cell} finds the next item {first} {row['value']:.1%} of the time ({row['low']:.1%} to "
        f"{row['high']:.1%}); the best counter ({name}) {best:.1%}."
    )


def best_counter(row: Found) -> tuple[str, float]:
    """Name in words and value of the counting baseline that is best in a metric."""
    name, value = max(row["counters"].items(), key=lambda pair: pair[1])
    return NAMES.get(name, name), value


def findings(found: Found) -> list[dict[str, str]]:
    """Sentence and remedy of everything that weakens the numbers, the worst first."""
    return [{"sentence": told, "remedy": remedy} for rule in RULES for told, remedy in rule(found)]


Told = Iterator[tuple[str, str]]


def said_by_the_run(found: Found) -> Told:
    for told in found["result"]["warnings"]:
        yield f"{told}.", ""


def below_counting(found: Found) -> Told:
    for row in found["metrics"]:
        name, best = best_counter(row)
        reached = f"{row['metric']} is {row['value']:.4f} ({row['low']:.4f} to {row['high']:.4f})"
        if row["value"] < best:
            rest = "longer training, other options: this is not a result yet"
            yield f"Below the counting floor: {reached}, {name} has {best:.4f}.", rest
        elif row["low"] <= best:
            rest = "more test targets or several seeds (--seed 1, 2, ...)"
            yield f"Not clearly above counting: {reached}, {name} has {best:.4f}.", rest


def leaking(found: Found) -> Told:
    leaks = found["result"]["protocol"].get("leaks", "")
    if leaks.startswith("leaks"):
        yield f"The protocol {leaks}.", "--split time"


def ties(found: Found) -> Told:
    protocol = found["result"]["protocol"]
    share, policy = protocol["ties"]["users_tied_last_share"], protocol["ties"]["policy"]
    if share is not None and share > NOTABLE:
        yield (
            f"{share:.1%} of {protocol['sequence']}s have a tied last event: {policy} decides what they are asked.",
            "read the slices of tied and untied times apart, or --split time",
        )


def unfinished(found: Found) -> Told:
    result = found["result"]
    if not result["complete"]:
        yield f"The run is not complete (stopped by {result['stopped']}).", "the same command goes on"
    elif result["valid"]["epoch"] == result["epochs"] and result["epochs"] > 1:
        yield (
            f"Short training: the last epoch ({result['epochs']}) was the best, so it was still getting better.",
            f"--epochs {2 * result['epochs']}",
        )


def unknown(found: Found) -> Told:
    counts = found["result"]["protocol"]["counts"]
    lost = counts["unknown_test_targets"]
    if lost > NOTABLE * counts["test_targets"]:
        yield (
            f"{lost:,} of {counts['test_targets']:,} test targets never occur in training: misses for every model.",
            "--min-item-events 5, or --unknown-targets drop",
        )


def repeated(found: Found) -> Told:
    row = next((row for row in found["slices"] if row["slice"] == "repeat"), None)
    if row and found["result"]["protocol"]["mask_seen"] == "history" and row["share"] > NOTABLE:
        yield (
            f"{row['share']:.1%} of the test targets were seen before, and --mask-seen history makes them misses.",
            "--mask-seen none, or --mask-seen history_except_target",
        )


def ignored(found: Found) -> Told:
    for name in found["result"].get("ignored", []):
        yield f"{idle(name)}.", f"leave out --{name.replace('_', '-')}"


def uncommitted(found: Found) -> Told:
    if found["machine"].get("dirty"):
        yield "The code that ran was changed and not committed: the command may not give these numbers again.", "commit"


RULES: tuple[Callable[[Found], Told], ...] = (
    said_by_the_run, below_counting, unfinished, leaking, ties, unknown, repeated, ignored, uncommitted,
)  # fmt: skip
