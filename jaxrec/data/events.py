"""What every reader returns: columns of text ids and times."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, eq=False)
class Events:
    """One row an event, in file order; ids are text. `user` or `session` (or both) is there."""

    item: "pl.Series"
    user: "pl.Series | None" = None
    session: "pl.Series | None" = None
    time: np.ndarray | None = None  # int64 microseconds since 1970
    format: str = ""
    columns: dict[str, str] | None = None  # role -> column
    because: str = ""
    unit: str | None = None
    weights: np.ndarray | None = None  # float32 (events,): of the kind of event
    features: "dict[str, np.ndarray | pl.Series]" = field(default_factory=dict)  # float32 numbers (NaN: none) or text
    skipped: dict[str, int] = field(default_factory=dict)  # rule -> rows that broke it
    left_out: dict[str, int] = field(default_factory=dict)  # what an option left out -> rows
    rules: dict[str, Any] = field(default_factory=dict)  # options that changed what was read, for the card
