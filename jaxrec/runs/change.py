"""What may change when a run goes on in its old folder, and how a refusal says what did."""

import json
from collections.abc import Mapping
from typing import Any

from jaxrec.data.prepared import Prepared

DESCRIBED = ("name", "source", "filters", "split", "catalogue", "unknown_targets", "mask_seen", "sequence", "counts")

# options that came after the first runs, and what they are where nobody gives them: the ids of older runs still hold
LATER = (
    ("start_from", None), ("optimizer.clip_value", 0.0), ("model.horizon", None), ("model.event_dropout", 0.0),
    ("optimizer.average", 0.0), ("batch.shuffle_over", None), ("compute", "float32"),
)  # fmt: skip


def told(options: Mapping[str, Any]) -> dict[str, Any]:
    """Plain nested options without those of `LATER` that are at their defaults."""
    left = {name: dict(value) if isinstance(value, Mapping) else value for name, value in options.items()}
    for key, default in LATER:
        section, _, name = key.rpartition(".")
        place = left.get(section, {}) if section else left
        if name in place and place[name] == default:
            del place[name]
    return left


def described(prepared: Prepared) -> dict[str, Any]:
    """What a person knows data by: files and their hashes, filters, split, counts."""
    return {name: prepared.card[name] for name in DESCRIBED if name in prepared.card}


def refusal(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Why a run may not go on under another configuration, "" where that needs no words; None where it ends in the
    very run that is asked for.

    Only ``epochs`` may change, and only upwards: under a constant learning rate the steps that are done are then those
    of the longer run, provided that their last epoch would have been validated in it too.
    """
    if [line.partition(":")[0] for line in differences(before, after)] != ["epochs"]:
        return ""
    if after["epochs"] < before["epochs"]:
        return "a run may get more epochs, not fewer"
    if (schedule := after["optimizer"]["schedule"]) != "constant":
        return f"under a {schedule} schedule the last epoch decides the learning rate of the steps that are done"
    if before["epochs"] % (every := after["eval"]["every"]):
        return f"epoch {before['epochs']} was validated, which the longer run would not do (eval.every = {every})"
    return None


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two contents of ``run.json``: options first, then the data, not by its fingerprint where it
    can be told by what it holds.
    """
    options = differences(with_defaults(before["of"]), with_defaults(after["of"]))
    data = differences(before.get("data") or {}, after.get("data") or {}, "data.")
    if before.get("data") and data:
        options = [line for line in options if not line.startswith("data: ")]
    return options + data


def with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Plain nested options with those of `LATER` that `told` leaves out, so that a person reads what they are."""
    full = {name: dict(value) if isinstance(value, Mapping) else value for name, value in options.items()}
    for key, default in LATER:
        section, _, name = key.rpartition(".")
        (full.get(section, {}) if section else full).setdefault(name, default)
    return full


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What changed from one nested mapping to another, as `dotted.key: old -> new`, sorted by key."""
    lines = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, _ABSENT), after.get(name, _ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{prefix}{name}.")
        elif old != new or type(old) is not type(new):
            lines.append(f"{prefix}{name}: {_shown(old)} -> {_shown(new)}")
    return lines


_ABSENT = object()


def _shown(value: Any) -> str:
    return "(absent)" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
