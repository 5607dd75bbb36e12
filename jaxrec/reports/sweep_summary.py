"""What a sweep has come to, on a terminal or as JSON. Takes plain values."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from jaxrec.sweeps.summary import short


def print_sweep(found: Mapping[str, Any], *, as_json: bool = False) -> None:
    """Print the summary of a sweep: the best configurations, kinds of failures, what it took."""
    if as_json:
        print(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if found["best"]:
        table = Table(box=None, pad_edge=False)
        many = f", mean of {found['seeds']}" if found["seeds"] > 1 else ""
        for name in ("trial", *(entry["name"] + many for entry in found["objectives"])):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("configuration")
        for row in found["best"]:
            values = [f"{value:,.0f}" if value >= 1000 else f"{value:.4g}" for value in row["values"].values()]
            point = " ".join(f"{name}={short(value)}" for name, value in row["point"].items())
            if "member" in row:
                point += f" (member {row['member']}, generation {row['generation']})"
            table.add_row(str(row["trial"]), *values, point)
        console.print(table)
    for kind in found["failures"]:
        where = f"{kind['signature']}, as in trial {kind['trial']}"
        console.print(f"{kind['count']} x {where}: {kind['reason']}", markup=False)
    console.print(sentence(found), markup=False)
    console.print(f"jaxrec report {shlex.quote(found['sweep'])} writes its page", markup=False, soft_wrap=True)


def sentence(found: Mapping[str, Any]) -> str:
    """How many trials ended how, and what they took."""
    states = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in sorted(found["trials"].items()))
    took = f"{found['seconds']:,.0f} s, {found['device_seconds'] / 3600:.2f} device hours"
    same = f"; {found['same']} were answered from an earlier one of the same configuration" if found["same"] else ""
    ended = f"; {found['ended']}" if found["ended"] else ""
    return f"{found['sweep']}: {found['total']} trials ({states}) in {took}{same}{ended}"
