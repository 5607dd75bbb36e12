"""Rows that break a rule: the first one stops the reading, or each is left out and counted, as the user chose."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from jaxrec.config import Mistake

LONGEST = 400  # characters
REMEDY = "fix it, or leave such rows out with --on-bad-row skip"


class Bad:
    """The rule for one file. `skipped` counts rows by rule; `first` is where and what the first of them was."""

    def __init__(self, path: str, skip: bool):
        self.path, self.skip = path, skip
        self.skipped: Counter[str] = Counter()
        self.first: str | None = None

    def row(self, where: str, rule: str, sentence: str, count: int = 1) -> None:
        """A row at `where` (":12" or ": row 12") breaks `rule`: Mistake, or counted."""
        sentence = one_line(sentence)
        if not self.skip:
            raise Mistake(f"{self.path}{where}: {sentence}; {REMEDY}")
        self.skipped[rule] += count
        self.first = self.first or f"{where.removeprefix(':').strip()}: {sentence}"

    def summary(self) -> str:
        """Counts by rule, and the first: what is said when anything was left out."""
        rules = ", ".join(f"{count:,} with {rule}" for rule, count in self.skipped.items())
        return f"{self.path}: {self.skipped.total():,} bad rows left out: {rules}; the first found is {self.first}"


def one_line(sentence: str) -> str:
    """A sentence that quotes the file, on one line and not endless."""
    plain = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in sentence[:LONGEST])
    return plain + "..." * (len(sentence) > LONGEST)


class Rows:
    """The rows of one table while its columns are checked one after the other."""

    def __init__(self, bad: Bad, count: int, where: Callable[[int], str]):
        self.bad, self.where = bad, where
        self.kept = np.ones(count, bool)
        self.left_out: Counter[str] = Counter()

    def reject(self, wrong: np.ndarray, rule: str, sentence: Callable[[int], str]) -> None:
        """Rows in `wrong` (bool, one a row) that are still there break `rule`; `sentence(row)` says how."""
        wrong = wrong & self.kept
        if not wrong.any():
            return
        row, count = int(np.argmax(wrong)), int(wrong.sum())
        others = f" ({count - 1:,} more like it)" if count > 1 else ""
        self.bad.row(self.where(row), rule, sentence(row) + others * (not self.bad.skip), count)
        self.kept &= ~wrong

    def leave_out(self, unwanted: np.ndarray, why: str) -> None:
        """Rows that an option leaves out; they are no fault."""
        unwanted = unwanted & self.kept
        self.left_out[why] += int(unwanted.sum())
        self.kept &= ~unwanted

    def refuse(self, sentence: str) -> Mistake:
        """A fault of a whole column, which leaving out rows cannot mend."""
        return Mistake(f"{self.bad.path}: {sentence}")
