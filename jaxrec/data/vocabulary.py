"""Raw ids to numbers 1..n and back. 0 is padding or unknown and has no raw id."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl

INTEGER = re.compile(r"0|-?[1-9][0-9]*")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The raw id of number i is the text `blob[offsets[i - 1]:offsets[i]]` (UTF-8): no pickle, and cheap to map."""

    blob: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_strings(cls, strings: Sequence[str]) -> "Vocabulary":
        """Number the distinct texts 1..n in the given order; ValueError where one comes twice."""
        encoded = [text.encode() for text in strings]
        if len(set(encoded)) != len(encoded):
            raise ValueError(f"{len(encoded)} ids hold only {len(set(encoded))} distinct ones; pass each id once")
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    @classmethod
    def from_series(cls, texts: "pl.Series") -> "Vocabulary":
        """`from_strings` of a column of polars, without a Python object for each text."""
        if (distinct := texts.n_unique()) != len(texts):
            raise ValueError(f"{len(texts)} ids hold only {distinct} distinct ones; pass each id once")
        offsets = np.append(0, np.cumsum(texts.str.len_bytes().to_numpy(), dtype=np.int64))
        joined = texts.str.join("").item() if len(texts) else ""
        return cls(np.frombuffer(joined.encode(), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return np.array_equal(self.offsets, other.offsets) and np.array_equal(self.blob, other.blob)

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def strings(self) -> list[str]:
        """Every raw id as text; that of number i stands at i - 1."""
        blob, ends = self.blob.tobytes(), self.offsets.tolist()
        return [blob[start:end].decode() for start, end in pairwise(ends)]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Raw id as text -> number."""
        return {text: number for number, text in enumerate(self.strings, start=1)}

    @cached_property
    def integers(self) -> bool:
        """Whether every raw id is an integer as Python prints it, so that decoding may give integers."""
        return all(map(INTEGER.fullmatch, self.strings))

    def encode(self, ids: Iterable[Any]) -> np.ndarray:
        """Raw ids (text or integers, compared as text) -> int32 (n,) numbers; 0 for those never seen."""
        return np.array([self.numbers.get(str(raw), 0) for raw in ids], np.int32)

    def decode(self, numbers: Iterable[Any]) -> list[Any]:
        """Numbers 1..n -> raw ids: integers when every id of the vocabulary is one, else text."""
        wanted = [int(number) for number in numbers]
        outside = [number for number in wanted if not 1 <= number <= len(self)]
        if outside:
            raise ValueError(f"{outside[0]} has no raw id: numbers are 1 to {len(self)}, 0 is padding or unknown")
        texts = [self.strings[number - 1] for number in wanted]
        return [int(text) for text in texts] if self.integers else texts
