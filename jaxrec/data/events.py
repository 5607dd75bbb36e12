"""What every reader returns: columns of text ids and times."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
