"""Raw ids to codes as they come: 0, 1, 2, ... in order of first appearance, batch after batch."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl

DENSE = 1 << 25  # whole-number ids below this are looked up in a table, of 4 bytes an id


class Irregular(Exception):
    """What only the reader in memory can judge, in words."""


def whole_numbers(column: "pl.Series") -> np.ndarray | None:
    """int64 (n,) of integers, or of text that holds nothing else; None where a value is missing or something else."""
    import polars as pl

    found = column.cast(pl.Int64, strict=False)
    return None if found.null_count() else found.to_numpy()


class Coder:
    """Codes of one column. Ids are compared as text: `007` is not `7`."""

    def __init__(self) -> None:
        self._values: list[np.ndarray] = []  # whole numbers, in order of their codes
        self._table: np.ndarray | None = np.full(1, -1, np.int32)  # whole number -> code; None once ids are text
        self._known: Any = None  # frame of name and code, once ids are text
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def codes(self, column: "pl.Series") -> np.ndarray:
        """int32 (n,) codes; Irregular where an id is missing or is no id."""
        import polars as pl

        if not (column.dtype.is_integer() or column.dtype == pl.String):
            raise Irregular(f"its ids are of type {column.dtype}")
        if column.null_count() or (column.dtype == pl.String and (column == "").any()):
            raise Irregular("ids are missing")
        if self._table is not None:
            numbers = whole_numbers(column)
            if numbers is not None and numbers.min() >= 0 and numbers.max() < DENSE and canonical(column, numbers):
                return self._dense(numbers)
            self._known, self._table = self._frame(self.names(), 0), None
        return self._text(column.cast(pl.String))

    def names(self) -> "pl.Series":
        """The distinct ids as text, in order of their codes."""
        import polars as pl

        if self._known is not None:
            return self._known["name"]
        values = np.concatenate([np.zeros(0, np.int64), *self._values])
        return pl.Series("name", values, dtype=pl.Int64).cast(pl.String)

    def _dense(self, numbers: np.ndarray) -> np.ndarray:
        assert self._table is not None
        if (largest := int(numbers.max())) >= len(self._table):
            more = max(largest + 1, min(2 * len(self._table), DENSE)) - len(self._table)
            self._table = np.concatenate([self._table, np.full(more, -1, np.int32)])
        code = self._table[numbers]
        if len(new := numbers[code < 0]):
            fresh, place = np.unique(new, return_index=True)
            fresh = fresh[np.argsort(place)]
            self._table[fresh] = np.arange(self._size, self._size + len(fresh), dtype=np.int32)
            self._values.append(fresh)
            self._size += len(fresh)
            code = self._table[numbers]
        return code

    def _text(self, column: "pl.Series") -> np.ndarray:
        import polars as pl

        distinct = column.unique(maintain_order=True)
        place = column.cast(pl.Enum(distinct)).to_physical().to_numpy()
        asked = pl.DataFrame({"name": distinct})
        code = asked.join(self._known, on="name", how="left", maintain_order="left")["code"].fill_null(-1).to_numpy()
        new = code < 0
        if new.any():
            fresh = self._frame(distinct.filter(pl.Series(new)), self._size)
            code = code.copy()
            code[new] = fresh["code"].to_numpy()
            self._known = pl.concat([self._known, fresh])
            self._size += fresh.height
        return code[place]

    @staticmethod
    def _frame(names: "pl.Series", begin: int) -> "pl.DataFrame":
        import polars as pl

        code = np.arange(begin, begin + len(names), dtype=np.int32)
        return pl.DataFrame({"name": names, "code": code}, schema={"name": pl.String, "code": pl.Int32})


def canonical(column: "pl.Series", numbers: np.ndarray) -> bool:
    """Whether texts are as their numbers (from 0) print: no sign, blank or leading zero."""
    import polars as pl

    if column.dtype != pl.String:
        return True
    digits = np.searchsorted(10 ** np.arange(1, 9), numbers, side="right") + 1
    return bool((column.str.len_bytes().to_numpy() == digits).all())
