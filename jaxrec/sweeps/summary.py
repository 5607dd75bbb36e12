"""How far a sweep is, in a sentence and in plain values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrec.sweeps.ledger import ENDS, Ledger
from jaxrec.sweeps.pasts import Pasts
from jaxrec.sweeps.search import Past

BEST = 10


def progress(ledger: Ledger, total: int | None) -> str:
    """How many trials have ended, and how, as "12 of 40 trials have ended (11 done, 1 failed), 2 running"."""
    counts = ledger.counts()
    ended = {state: counts[state] for state in ENDS if counts.get(state)}
    many = f"{sum(ended.values())} of {total or sum(counts.values())} trials have ended"
    how = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in ended.items())
    running = f", {counts['running']} running" if counts.get("running") else ""
    return f"{many}{f' ({how})' if how else ''}{running}"


def best(configurations: Sequence[Past], about: Mapping[str, Any]) -> list[Past]:
    """Configurations that are done, the best by the first objective first."""
    sign = -1.0 if about["objectives"][0]["direction"] == "maximize" else 1.0
    done = [past for past in configurations if past.state == "done" and past.values is not None]
    return sorted(done, key=lambda past: sign * (past.values or (0.0,))[0])


def leader(pasts: Pasts, about: Mapping[str, Any]) -> str:
    """The best configuration so far in a few words; nothing before there is one."""
    found = best(pasts.configurations(about["seeds"]), about)
    if not found or not found[0].values:
        return ""
    point = " ".join(f"{name}={short(value)}" for name, value in found[0].point.items())
    return f"; best {about['objectives'][0]['name']} {found[0].values[0]:.4g}: {point}"


def short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def summary(ledger: Ledger, pasts: Pasts, about: Mapping[str, Any], out: Path, why: str) -> dict[str, Any]:
    """What there is to say of a sweep that has come to an end, or to the end of a budget, and ``why``."""
    counts, spent, rows = ledger.counts(), ledger.spent(), ledger.rows()
    names = [entry["name"] for entry in about["objectives"]]
    seeds, same = about["seeds"], {row["number"] for row in rows if row["same_as"] is not None}
    leaders = [
        {
            "trial": past.number * seeds,
            "values": dict(zip(names, past.values or (), strict=False)),
            "point": past.point,
            **{name: past.notes[name] for name in ("generation", "member") if name in past.notes},
        }
        for past in best(pasts.configurations(seeds), about)
        if past.number * seeds not in same
    ][:BEST]
    return {
        "sweep": str(out), "trials": counts, "total": about["trials"] or sum(counts.values()), "seeds": seeds,
        "complete": not why, "ended": why, "objectives": about["objectives"], "best": leaders,
        "same": len(same), "failures": failures(rows), "seconds": spent.seconds, "device_seconds": spent.device_seconds,
    }  # fmt: skip


def failures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Kinds of errors, the most frequent first, each with one of its trials and what was said there."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        for attempt in row["attempts"]:
            if attempt["signature"]:
                first = {
                    "signature": attempt["signature"],
                    "count": 0,
                    "trial": row["number"],
                    "reason": attempt["reason"],
                }
                found.setdefault(attempt["signature"], first)["count"] += 1
    return sorted(found.values(), key=lambda entry: -entry["count"])
