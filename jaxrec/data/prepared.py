"""Prepared data: flat arrays with offsets, two vocabularies and the protocol card; saved as plain npy and json."""

import hashlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.context import Context
from jaxrec.data.replacing import take_place, writing
from jaxrec.data.vocabulary import Vocabulary

SCHEMA = 1
ARRAYS = ("items", "offsets", "train_end", "valid_end", "users", "popularity", "times", "gaps", "starts", "weights")
OPTIONAL = ("times", "gaps", "starts", "weights")
VOCABULARIES = ("item_ids", "user_ids")
RAW = ("appearance", "below", "outside", "session")  # arrays of `Raw`; the last two are numbers of raw ids
PROTOCOL = ("split", "catalogue", "unknown_targets", "mask_seen", "sequence")
PIECE = 1 << 21  # entries of a large array handled at once
MOST_VALUES = 1000  # of a text feature that is compared value by value
CARD, MANIFEST = "card.json", "manifest.json"


@dataclass(frozen=True, eq=False)
class Feature:
    """A column beside the events, the items or the users; what it came from is in words."""

    of: str  # "event": an entry each; "item", "user": an entry each by number, and one for 0, which has no value
    values: np.ndarray  # float32, NaN where there is none; or int32 codes of `ids`, 0 where there is none
    ids: Vocabulary | None = None
    origin: str = ""


@dataclass(frozen=True, eq=False)
class Raw:
    """What the arrays do not tell of the events they were made of, kept so that a later file can be added as if it had
    been there from the beginning (`jaxrec.data.growing`); no part of the fingerprint.
    """

    appearance: np.ndarray  # int32 (sequences,): which sequence came first in the files, 0, 1, ...
    below: np.ndarray | None = None  # int16 (events,): microseconds beyond the milliseconds; None where all are 0
    outside: np.ndarray | None = None  # int32 (events with item 0,): their items, numbers of `outside_ids`
    session: np.ndarray | None = None  # int32 (events,): of files with users and sessions, numbers of `session_ids`
    outside_ids: Vocabulary | None = None
    session_ids: Vocabulary | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Sequences of events, each event stored once.

    Events of sequence s are `offsets[s]:offsets[s + 1]`, oldest first. `[offsets[s], train_end[s])` is training,
    `[train_end[s], valid_end[s])` validation, the rest test; all are absolute event indices.
    """

    path: Path | None = None
    card: dict[str, Any]
    items: np.ndarray  # int32 (events,): 1..candidates; 0 = not in the vocabulary, never inside training
    offsets: np.ndarray  # int64 (sequences + 1,)
    train_end: np.ndarray  # int64 (sequences,)
    valid_end: np.ndarray  # int64 (sequences,)
    users: np.ndarray  # int32 (sequences,): 1..users
    popularity: np.ndarray  # int64 (candidates + 1,): training events of each item
    item_ids: Vocabulary
    user_ids: Vocabulary
    known: int  # items 1..known occur in training
    candidates: int  # the catalogue is 1..candidates
    times: np.ndarray | None = None  # int64 (events,): milliseconds since 1970
    gaps: np.ndarray | None = None  # float32 (events,): seconds since the previous event of the sequence, first 0
    starts: np.ndarray | None = None  # bool (events,): first event of a session inside a user's history
    weights: np.ndarray | None = None  # float32 (events,): of the kind of event; nothing in training reads them yet
    features: dict[str, Feature] = field(default_factory=dict)
    context: Context | None = None  # what a model asked for of the features, event by event; never saved
    raw: Raw | None = None  # None in data prepared before this was kept, and in sets of TFDS

    @property
    def item_features(self) -> np.ndarray | None:
        """float32 (1 + candidates, f): the features of items side by side, for comparing items; None without any.

        A number is in standard deviations from its mean, a text with at most `MOST_VALUES` values is one column a
        value, others are left out; an item without a value has zeros.
        """
        given = [feature for feature in self.features.values() if feature.of == "item"]
        columns = [column for feature in given if (column := beside(feature)) is not None]
        return np.concatenate(columns, axis=1) if columns else None

    def targets(self, split: str, unknown: bool | None = None) -> np.ndarray:
        """int64 (targets,): absolute indices of the events to predict in "valid" or "test", in canonical order.

        Canonical order is sequence order, then position. A target has at least one earlier event in its sequence; where
        the card says `unknown_targets: drop`, an event whose item never occurs in training is no target; `unknown`
        True or False overrules the card.
        """
        if split not in ("valid", "test"):
            raise ValueError(f'there are no targets of "{split}": the splits with targets are "valid" and "test"')
        begin = self.train_end if split == "valid" else self.valid_end
        end = self.valid_end if split == "valid" else self.offsets[1:]
        found = ranges(np.maximum(begin, self.offsets[:-1] + 1), end)
        keep = self.card["unknown_targets"] == "miss" if unknown is None else unknown
        return found if keep else found[self.is_known(found)]

    def is_known(self, events: np.ndarray) -> np.ndarray:
        """bool (n,): whether the items of these events occur in training."""
        items = self.items[events]
        return (items > 0) & (items <= self.known)

    def sequence_of(self, events: np.ndarray) -> np.ndarray:
        """int64 (n,): the sequence of each absolute event index."""
        return np.searchsorted(self.offsets, events, side="right") - 1


def ranges(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """int64: begin[0]..end[0]-1, begin[1]..end[1]-1, ... one after the other; empty where end <= begin."""
    length = np.maximum(end - begin, 0)
    shift = np.repeat(begin - (np.cumsum(length) - length), length)
    return shift + np.arange(len(shift), dtype=np.int64)


def beside(feature: Feature) -> np.ndarray | None:
    """float32 columns of a feature of items, see `Prepared.item_features`; None where it has too many values."""
    if feature.ids is not None:
        values = len(feature.ids)
        return np.eye(1 + values, dtype=np.float32)[feature.values][:, 1:] if 0 < values <= MOST_VALUES else None
    known = np.isfinite(feature.values)
    spread = float(feature.values[known].std()) if known.any() else 0.0
    if spread == 0:
        return None
    centred = (feature.values - feature.values[known].mean()) / spread
    return np.where(known, centred, 0).astype(np.float32)[:, None]


def contents(prepared: Prepared) -> dict[str, np.ndarray]:
    """Every array that is written, by file stem; optional ones only where present."""
    arrays = {name: getattr(prepared, name) for name in ARRAYS if getattr(prepared, name) is not None}
    for name in VOCABULARIES:
        vocabulary = getattr(prepared, name)
        arrays |= {f"{name}.blob": vocabulary.blob, f"{name}.offsets": vocabulary.offsets}
    for number, feature in enumerate(prepared.features.values()):
        arrays[f"feature.{number}"] = feature.values
        if feature.ids is not None:
            arrays |= {f"feature.{number}.blob": feature.ids.blob, f"feature.{number}.offsets": feature.ids.offsets}
    return arrays


def written(prepared: Prepared) -> dict[str, np.ndarray]:
    """`contents`, and what is kept of the raw events beside them."""
    arrays, raw = contents(prepared), prepared.raw
    for name in RAW if raw is not None else ():
        if (array := getattr(raw, name)) is not None:
            arrays[f"raw.{name}"] = array
        if (ids := getattr(raw, f"{name}_ids", None)) is not None:
            arrays |= {f"raw.{name}.blob": ids.blob, f"raw.{name}.offsets": ids.offsets}
    return arrays


def content_fingerprint(prepared: Prepared) -> str:
    """12 hex characters of a hash of the arrays and the protocol: the same for the same contents, wherever they lie."""
    digest = hashlib.sha256(json.dumps({key: prepared.card[key] for key in PROTOCOL}, sort_keys=True).encode())
    for name, array in sorted(contents(prepared).items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        for begin in range(0, len(array), PIECE):
            digest.update(np.ascontiguousarray(piece(array, begin, begin + PIECE)).data)
    return digest.hexdigest()[:12]


def piece(array: np.ndarray, begin: int, end: int) -> np.ndarray:
    """array[begin:end]; of a mapped file it is read, so that pages of a large one do not pile up in memory."""
    if not whole_file(array):
        return array[begin:end]
    begin, end, _ = slice(begin, end).indices(len(array))
    mapped: Any = array
    return np.fromfile(mapped.filename, array.dtype, max(end - begin, 0), offset=mapped.offset + begin * array.itemsize)


def whole_file(array: np.ndarray) -> bool:
    """Whether a flat array is all that one npy file holds, mapped."""
    if not isinstance(array, np.memmap) or array.filename is None or array.ndim != 1 or array.offset == 0:
        return False
    return bool(array.nbytes + array.offset == Path(array.filename).stat().st_size)


def write_array(array: np.ndarray, path: Path) -> None:
    """One npy file; of a mapped one that is whole the bytes are linked or copied, not mapped in."""
    if not whole_file(array):
        np.save(path, array, allow_pickle=False)
        return
    mapped: Any = array
    try:
        os.link(mapped.filename, path)
    except OSError:  # another file system, or one without links
        shutil.copyfile(mapped.filename, path)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(prepared: Prepared, directory: str | Path, replace: bool = False) -> Path:
    """Write a prepared directory: complete or not at all (a temporary sibling is renamed).

    Mistake when the directory already holds something, unless that is prepared data to `replace`.
    """
    target = Path(directory)
    refuse_occupied(target, replace)
    target.parent.mkdir(parents=True, exist_ok=True)
    with writing(target):
        temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
        try:
            temporary.mkdir()
            write_files(prepared, temporary)
            take_place(temporary, target)
        except OSError as error:
            raise Mistake(
                f"{target} cannot be written: {error.strerror}; free some space or choose another directory"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def refuse_occupied(target: Path, replace: bool) -> None:
    """Mistake when a directory holds what may not go: anything, or what is no prepared data."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not replace:
        raise Mistake(f"{target} exists already; choose another directory or remove it")
    known = manifest(target).keys() | {MANIFEST} if is_prepared(target) else set()
    if others := [entry.name for entry in target.iterdir() if entry.name not in known] if target.is_dir() else [""]:
        raise Mistake(f"{target / others[0]} is no part of prepared data and is not replaced; choose another directory")


def write_files(prepared: Prepared, directory: Path) -> None:
    """The card, one npy per array, and last the manifest with size and hash of each."""
    for name, array in written(prepared).items():
        write_array(array, directory / f"{name}.npy")
    card = {**prepared.card, "known": prepared.known, "candidates": prepared.candidates}
    (directory / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    manifest = {
        file.name: {"bytes": file.stat().st_size, "sha256": file_sha256(file)} for file in sorted(directory.iterdir())
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def is_prepared(path: str | Path) -> bool:
    """Whether the path is a directory that `save` wrote."""
    try:
        return (Path(path) / MANIFEST).is_file()
    except OSError:  # a folder that may not be looked into, a name too long: reading it says so
        return False


def load(directory: str | Path, verify: bool = False) -> Prepared:
    """Map a prepared directory into memory. Sizes are always checked, every byte when `verify` is set.

    Mistake, naming the file, when one is missing, cut, changed, or written by a newer schema.
    """
    directory = Path(directory)
    if not is_prepared(directory):
        raise Mistake(f"{directory} is not a prepared directory (no {MANIFEST}); name a file of events or prepare one")
    check_files(directory, verify)
    card = read_json(directory / CARD)
    if card.get("schema") != SCHEMA:
        raise Mistake(f"{directory} has schema {card.get('schema')}, this version reads {SCHEMA}; prepare it again")
    if file_sha256(directory / CARD) != manifest(directory)[CARD]["sha256"]:  # small, and it decides every number
        raise Mistake(f"{directory / CARD} was changed after it was written (SHA-256 differs); prepare the data again")
    known, candidates = card.pop("known"), card.pop("candidates")
    found: dict[str, Any] = {name: map_array(directory / f"{name}.npy") for name in ARRAYS if has(directory, name)}
    for name in VOCABULARIES:
        blob, offsets = (map_array(directory / f"{name}.{part}.npy") for part in ("blob", "offsets"))
        found[name] = Vocabulary(blob, offsets)
    found["features"] = {
        name: load_feature(directory, number, entry)
        for number, (name, entry) in enumerate(card.get("features", {}).items())
    }
    return Prepared(path=directory, card=card, known=known, candidates=candidates, raw=load_raw(directory), **found)


def load_raw(directory: Path) -> Raw | None:
    """What is kept of the raw events, mapped; None where nothing is."""
    array = lambda part: map_array(directory / f"raw.{part}.npy")  # noqa: E731
    found: dict[str, Any] = {name: array(name) for name in RAW if (directory / f"raw.{name}.npy").exists()}
    ids: dict[str, Any] = {
        f"{name}_ids": Vocabulary(array(f"{name}.blob"), array(f"{name}.offsets"))
        for name in ("outside", "session")
        if name in found
    }
    return Raw(**found, **ids) if found else None


def load_feature(directory: Path, number: int, entry: dict[str, Any]) -> Feature:
    """The feature that the card lists at this place, mapped."""
    array = lambda part: map_array(directory / f"feature.{number}{part}.npy")  # noqa: E731
    ids = Vocabulary(array(".blob"), array(".offsets")) if entry["kind"] == "text" else None
    return Feature(entry["of"], array(""), ids, entry["from"])


def has(directory: Path, name: str) -> bool:
    return name not in OPTIONAL or (directory / f"{name}.npy").exists()


def check_files(directory: Path, verify: bool) -> None:
    """Compare every file with the manifest: size always, hash when asked."""
    for name, expected in manifest(directory).items():
        file = directory / name
        if not file.is_file():
            raise Mistake(f"{file} is missing from the prepared data; prepare the data again")
        if (size := file.stat().st_size) != expected["bytes"]:
            raise Mistake(f"{file} has {size} bytes, {expected['bytes']} were written; prepare the data again")
        if verify and file_sha256(file) != expected["sha256"]:
            raise Mistake(f"{file} was changed after it was written (SHA-256 differs); prepare the data again")


def manifest(directory: Path) -> dict[str, dict[str, Any]]:
    """Size and hash of every file."""
    found = read_json(directory / MANIFEST)
    if not isinstance(found, dict) or not all(
        isinstance(entry, dict) and entry.keys() == {"bytes", "sha256"} for entry in (found.get(CARD), *found.values())
    ):
        raise Mistake(f"{directory / MANIFEST} is not as it was written; prepare the data again")
    return found


def read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise Mistake(f"{path} cannot be read ({error}); prepare the data again") from error


def map_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise Mistake(f"{path} is not an array as it was written ({error}); prepare the data again") from error
