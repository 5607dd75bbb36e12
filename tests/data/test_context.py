"""Features as context: rows and standard numbers, with nothing of validation or test in them."""

from dataclasses import replace

import numpy as np
import pytest

from jaxrec.config import Mistake
from jaxrec.data.context import MOST, Column, attached, chosen, columns, encoded, rows, trained_rows
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare

START = 1_400_000_000
PRICES = [1.0, 2.0, 3.0, 4.0, 900.0, -500.0]  # of each user's events: the last two are validation and test


def made(tmp_path, prices=PRICES, **options):
    """Four users of six events, a price and a colour; the colour of the last event occurs nowhere else."""
    path = tmp_path / "log.inter"
    lines = ["user_id:token\titem_id:token\ttimestamp:float\tprice:float\tcolour:token"]
    for user in range(4):
        for place, price in enumerate(prices):
            colour = "" if place == 1 else "odd" if place == 5 else f"c{(user + place) % 3}"
            time = START + 100_000 * user + 5_000 * place
            lines.append(f"u{user}\ti{(user * 3 + place) % 7}\t{time}\t{price}\t{colour}")
    path.write_text("\n".join(lines) + "\n")
    items = ["item_id:token\tgenre:token_seq\tyear:float"] + [f"i{n}\tg{n % 2}\t{1990 + n}" for n in range(6)]
    path.with_suffix(".item").write_text("\n".join(items) + "\n")
    features = ("price", "colour", "@hour", "genre", "year")
    return prepare(Preparation(data=str(path), features=features, **options), lambda sentence: None)


def test_mean_and_spread_are_those_of_training(tmp_path):
    """Whatever prices validation and test have, and however absurd."""
    [price] = chosen(columns(made(tmp_path)), ["price"])
    assert (price.mean, price.spread) == (2.5, pytest.approx(np.std([1, 2, 3, 4])))
    other = made(tmp_path, [*PRICES[:4], 0.0, 0.0])
    assert columns(other)[0] == price
    changed = made(tmp_path, [7.0, *PRICES[1:]])
    assert columns(changed)[0] != price


def test_every_event_has_its_values_rows_and_numbers(tmp_path):
    prepared = made(tmp_path)
    picked = chosen(columns(prepared), ("all",))
    assert [(one.name, one.of, one.values) for one in picked] == [
        ("price", "event", None), ("colour", "event", 3), ("@hour", "time", 24), ("genre", "item", 2),
        ("year", "item", None),
    ]  # fmt: skip
    codes, numbers = attached(prepared, picked).context
    assert rows(picked) == 1 + 3 + 24 + 2 + 1
    assert (codes.dtype, numbers.dtype) == (np.int32, np.float32)
    at, items = prepared.offsets[0], prepared.item_ids.decode(prepared.items)
    assert codes[at + 1, 0] == 0, "no colour"
    assert codes[at + 5, 0] == 0, "a colour that training never saw"
    assert set(codes[codes[:, 0] > 0, 0]) == {3, 4, 5}, "after the rows of the two numbers"
    hours = (prepared.times // 3_600_000 % 24).astype(int)
    np.testing.assert_array_equal(codes[:, 1], 6 + hours)
    with_genre = np.array([item != "i6" for item in items])
    np.testing.assert_array_equal(codes[:, 2] > 0, with_genre)
    same = [codes[n, 2] == codes[0, 2] for n in np.flatnonzero(with_genre)]
    assert same == [int(items[n][1]) % 2 == int(items[0][1]) % 2 for n in np.flatnonzero(with_genre)]
    np.testing.assert_allclose(numbers[at : at + 3, 0], (np.array([1, 2, 3]) - 2.5) / np.std([1, 2, 3, 4]), rtol=1e-6)
    assert (numbers[at + 4, 0], numbers[at + 5, 0]) == (MOST, -MOST)
    assert not numbers[~with_genre, 1].any(), "an item without a year counts as the mean"


def test_a_row_is_known_where_an_input_of_training_has_it(tmp_path):
    prepared = made(tmp_path)
    prepared = attached(prepared, chosen(columns(prepared), ("price", "colour", "@hour")))
    used = trained_rows(prepared, 29)
    codes = prepared.context.codes
    inputs = np.concatenate([codes[a : b - 1] for a, b in zip(prepared.offsets, prepared.train_end, strict=False)])
    assert set(np.flatnonzero(used)) == {1} | set(inputs[inputs > 0])


def test_encoding_takes_calendar_values_as_they_are():
    month, hour = Column("@month", "time", 12), Column("@hour", "time", 24)
    codes, numbers = encoded((month, hour), (np.array([1.0, 12.0]), np.array([0.0, 23.0])))
    assert codes.tolist() == [[1, 13], [12, 36]]
    assert numbers.shape == (2, 0)


def test_features_that_are_not_there_are_named_with_a_remedy(tmp_path):
    prepared = made(tmp_path)
    for names, sentence in (
        (["pric"], "did you mean 'price'"),
        (["weather"], "--features weather"),
        (["price", "price"], "twice"),
    ):
        with pytest.raises(Mistake, match=sentence):
            chosen(columns(prepared), names)
    with pytest.raises(Mistake, match="--features NAME"):
        chosen(columns(replace(prepared, features={})), ["all"])
