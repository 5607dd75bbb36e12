"""Run by itself: reads Parquet files before their reader does, and may die of one.

One JSON object a line, answered by one: {"open": path} by {"columns": names}, {"read": names} by {"read": true}; or by
{"error": why}. It ends with its standard input.
"""

import json
import sys
from typing import Any

ROWS = 1 << 20  # decoded at once


def pieces(frame: Any) -> list[Any]:
    """All rows, those that no count tells of too, but never more than memory should hold."""
    import polars as pl

    begins = list(range(0, frame.select(pl.len()).collect().item(), ROWS)) or [0]
    return [frame.slice(begin, ROWS) for begin in begins[:-1]] + [frame.slice(begins[-1])]


def answer(request: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    import polars as pl

    try:
        if "open" in request:
            table["frame"] = pl.scan_parquet(request["open"], glob=False)
            return {"columns": table["frame"].collect_schema().names()}
        for name in request["read"]:
            for piece in pieces(table["frame"]):
                piece.select(pl.col(name)).collect()
        return {"read": True}
    except (Exception, pl.exceptions.PanicException) as error:
        return {"error": (str(error).splitlines() or ["unreadable"])[0]}


def main() -> None:
    table: dict[str, Any] = {}
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), table)), flush=True)


if __name__ == "__main__":
    main()
