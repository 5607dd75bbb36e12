"""Saved data comes back as it was, and damage does not."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxrec.config import Mistake
from jaxrec.data.demo import Demo
from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare
from jaxrec.data.prepared import content_fingerprint, contents, load, save


@pytest.fixture(scope="module")
def prepared():
    return prepare(Preparation(demo=Demo(users=12, items=60, events=8)), lambda _: None)


@pytest.fixture
def saved(prepared, tmp_path):
    return save(prepared, tmp_path / "prepared")


def test_what_is_loaded_is_what_was_saved(prepared, saved):
    again = load(saved, verify=True)
    assert again.path == saved
    assert again.card == prepared.card
    assert (again.known, again.candidates) == (prepared.known, prepared.candidates)
    assert again.item_ids == prepared.item_ids
    assert again.user_ids == prepared.user_ids
    before, after = contents(prepared), contents(again)
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert after[name].dtype == array.dtype
        np.testing.assert_array_equal(after[name], array)
    assert content_fingerprint(again) == prepared.card["fingerprint"]


def test_arrays_are_mapped_and_not_read(saved):
    assert isinstance(load(saved).items, np.memmap)


def test_absent_columns_stay_absent(tmp_path):
    (tmp_path / "log").write_text("".join(f"{n // 4} {n % 5}\n" for n in range(20)))
    plain = prepare(Preparation(data=str(tmp_path / "log")), lambda _: None)
    again = load(save(plain, tmp_path / "prepared"))
    assert (again.times, again.gaps, again.starts) == (None, None, None)


@settings(max_examples=100)
@given(st.data())
def test_a_flipped_bit_is_found(prepared, tmp_path_factory, data):
    folder = save(prepared, tmp_path_factory.mktemp("flipped") / "prepared")
    name = data.draw(st.sampled_from(sorted(file.name for file in folder.iterdir() if file.name != "manifest.json")))
    content = bytearray((folder / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(content)
    with pytest.raises(Mistake, match=rf"{name} was changed after it was written"):
        load(folder, verify=True)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_cut_or_missing_file_is_always_found(prepared, tmp_path):
    for name in names(save(prepared, tmp_path / "names")):
        folder = save(prepared, tmp_path / f"cut-{name}")
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1] if name != "manifest.json" else content[:-2])
        with pytest.raises(Mistake, match=f"{name}.*prepare the data again"):
            load(folder)
        (folder / name).unlink()
        with pytest.raises(Mistake, match=rf"{name} is missing|no manifest\.json"):
            load(folder)


def test_a_newer_schema_is_refused(saved):
    card = json.loads((saved / "card.json").read_text())
    changed = json.dumps(card | {"schema": 9}, indent=2, ensure_ascii=False) + "\n"
    (saved / "card.json").write_text(changed)
    with pytest.raises(Mistake, match="has schema 9, this version reads 1"):
        load(saved)


def test_an_array_with_a_broken_header_is_a_mistake(saved):
    content = bytearray((saved / "items.npy").read_bytes())
    content[:6] = b"broken"
    (saved / "items.npy").write_bytes(content)
    with pytest.raises(Mistake, match=r"items\.npy is not an array as it was written"):
        load(saved)


def test_a_folder_that_holds_something_is_not_overwritten(prepared, saved):
    with pytest.raises(Mistake, match="exists already"):
        save(prepared, saved)


def test_a_failed_save_leaves_nothing_behind(prepared, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxrec.data.prepared.np.save", full)
    with pytest.raises(Mistake, match="cannot be written: No space left on device"):
        save(prepared, tmp_path / "prepared")
    assert list(tmp_path.iterdir()) == []


def test_loading_needs_neither_polars_nor_jax(saved):
    code = f"""
import sys
from jaxrec.data import load
load({str(saved)!r}, verify=True).targets("test")
print({{"jax", "polars", "tyro"}} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "set()\n", "")


def test_splits_without_targets_are_refused(prepared):
    with pytest.raises(ValueError, match='no targets of "train"'):
        prepared.targets("train")


def test_features_of_items_are_compared_side_by_side(tmp_path):
    """Hand-counted: a number in standard deviations, a text as one column a value, nothing where there is nothing."""
    (tmp_path / "shop.inter").write_text(
        "user_id:token\titem_id:token\ttimestamp:float\n"
        + "".join(f"u{u}\ti{(u + t) % 4}\t{1_000_000_000 + 60 * t}\n" for u in range(4) for t in range(4))
    )
    (tmp_path / "shop.item").write_text("item_id:token\tprice:float\tkind:token\ni0\t1\ta\ni1\t3\tb\ni2\t\ta\n")
    options = Preparation(data=str(tmp_path / "shop.inter"), features=("price", "kind"))
    data = prepare(options, say=lambda sentence: None)
    rows = {name: data.item_features[data.item_ids.encode([name])[0]] for name in ("i0", "i1", "i2", "i3")}
    a, b = rows["i0"][1:], rows["i1"][1:]
    assert rows["i0"][0] == -rows["i1"][0] == -1  # prices 1 and 3: one standard deviation from their mean
    np.testing.assert_array_equal(a + b, [1, 1])
    np.testing.assert_array_equal(rows["i2"], [0, *a])
    np.testing.assert_array_equal(rows["i3"], [0, 0, 0])
    assert not data.item_features[0].any()
    assert prepare(Preparation(data=options.data), say=lambda sentence: None).item_features is None
