"""Raw ids to numbers and back."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from jaxrec.data.vocabulary import Vocabulary

IDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True)


@given(IDS, st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
def test_numbers_and_ids_are_inverse_and_strangers_are_zero(ids, strangers):
    vocabulary = Vocabulary.from_strings(ids)
    numbers = vocabulary.encode(ids)
    assert numbers.dtype == np.int32
    assert numbers.tolist() == list(range(1, len(ids) + 1))
    assert list(map(str, vocabulary.decode(numbers))) == ids
    assert vocabulary.encode(strangers).tolist() == [ids.index(s) + 1 if s in ids else 0 for s in strangers]


@pytest.mark.parametrize(
    ("ids", "decoded"),
    [
        (["7", "-3", "0"], [7, -3, 0]),
        (["7", "007"], ["7", "007"]),
        (["7", "+3"], ["7", "+3"]),
        (["7", "-0"], ["7", "-0"]),
        (["7", "٣"], ["7", "٣"]),
        (["7", "1.0"], ["7", "1.0"]),
    ],
)
def test_ids_come_back_as_integers_only_when_every_one_is_printed_as_one(ids, decoded):
    assert Vocabulary.from_strings(ids).decode([*range(1, len(ids) + 1)]) == decoded


def test_integers_and_text_are_the_same_id():
    assert Vocabulary.from_strings(["7", "8"]).encode([8, "8", np.int64(7), 9]).tolist() == [2, 2, 1, 0]


@pytest.mark.parametrize("number", [0, -1, 3])
def test_a_number_without_a_raw_id_is_refused(number):
    with pytest.raises(ValueError, match=f"^{number} has no raw id: numbers are 1 to 2"):
        Vocabulary.from_strings(["a", "b"]).decode([1, number])


def test_repeated_ids_are_refused():
    with pytest.raises(ValueError, match="3 ids hold only 2 distinct"):
        Vocabulary.from_strings(["a", "b", "a"])


def test_equality_looks_at_the_ids_and_not_at_how_their_bytes_join():
    assert Vocabulary.from_strings(["ab", "c"]) == Vocabulary.from_strings(["ab", "c"])
    assert Vocabulary.from_strings(["ab", "c"]) != Vocabulary.from_strings(["a", "bc"])
