"""Prepared data as a TFDS data set that anybody reads with `tfds.data_source`, and back without a difference."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.options import Preparation
from jaxrec.data.prepared import SCHEMA, Feature, Prepared, content_fingerprint
from jaxrec.data.tfds import PREFIX, intact, need, quiet, tfds_source
from jaxrec.data.vocabulary import Vocabulary

Say = Callable[[str], None]
HALF = "incomplete."  # begins the name under which TFDS writes, and renames at the end
LISTS = ("times", "gaps", "starts", "weights")  # where the data has them


def export(prepared: Prepared, data_dir: str | Path, say: Say = print) -> Path:
    """Write `data_dir/NAME/1.0.0` as array_record: one example a sequence, in order. Mistake when it exists.

    An example has `sequence` (from 0), `user` (from 1) and `user_id` (text); `items` (from 1, 0 outside the catalogue),
    and where there are any `times` (milliseconds), `gaps` (seconds), `starts`, `weights` and `feature/NAME` of its
    events, oldest first; the first `train_end` of them train, those up to `valid_end` validate, the rest test.
    `metadata.json` has the protocol card, in `item_ids` the raw id of item i at i - 1, and what features mean.
    """
    need("tensorflow_datasets")
    need("array_record")
    from jaxrec.data.builders import JaxrecSequences, many, write

    name = dataset_name(prepared.card["name"])
    directory = Path(data_dir).expanduser() / name
    if directory.exists() and not all(entry.name.startswith(HALF) for entry in directory.iterdir()):
        raise Mistake(f"{directory} exists already; choose another directory or remove it")
    lists = {field: getattr(prepared, field) for field in LISTS if getattr(prepared, field) is not None}
    kept = prepared.features.items()
    lists |= {f"feature/{feature}": column.values for feature, column in kept if column.of == "event"}
    with quiet():
        builder = JaxrecSequences(
            name,
            np.asarray(prepared.offsets),
            example_of(prepared, lists),
            features={
                "sequence": np.int64,
                "user": np.int32,
                "user_id": np.str_,
                "items": many(np.int32),
                "train_end": np.int64,
                "valid_end": np.int64,
                **{field: many(values.dtype.type) for field, values in lists.items()},
            },
            metadata={
                "written_by": "jaxrec",
                "card": {**prepared.card, "known": prepared.known, "candidates": prepared.candidates},
                "item_ids": prepared.item_ids.strings,
                "features": {feature: described(column) for feature, column in kept},
            },
            data_dir=str(Path(data_dir).expanduser()),
        )
        write(builder)
    say(f'read it with tfds.data_source("{name}", data_dir="{data_dir}", split="sequences")')
    say(f"or with --data {PREFIX}{builder.data_dir}")
    return Path(builder.data_dir)


def described(feature: Feature) -> dict[str, Any]:
    """A feature for metadata.json: the texts behind its codes, and its values unless they stand beside the events."""
    return {
        "of": feature.of,
        "from": feature.origin,
        "ids": None if feature.ids is None else feature.ids.strings,
        "values": None if feature.of == "event" else feature.values.tolist(),
    }


def restored(entry: dict[str, Any], values: np.ndarray | None) -> Feature:
    """The feature behind an entry of metadata.json, with the values that stood beside the events."""
    ids = None if entry["ids"] is None else Vocabulary.from_strings(entry["ids"])
    if values is None:
        values = np.array(entry["values"], np.float32 if ids is None else np.int32)
    return Feature(entry["of"], values, ids, entry["from"])


def dataset_name(name: str) -> str:
    """A name that TFDS takes: letters, digits and underscores, the first a letter."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()
    return plain if re.match("[a-z]", plain) else f"jaxrec_{plain}".rstrip("_")


def example_of(
    prepared: Prepared, lists: dict[str, np.ndarray]
) -> Callable[[int, int, int], tuple[int, dict[str, Any]]]:
    """The function that makes the example of a sequence from its number and its events' range."""
    people = prepared.user_ids.strings

    def example(number: int, begin: int, end: int) -> tuple[int, dict[str, Any]]:
        user = int(prepared.users[number])
        return number, {
            "sequence": number,
            "user": user,
            "user_id": people[user - 1],
            "items": prepared.items[begin:end],
            "train_end": int(prepared.train_end[number]) - begin,
            "valid_end": int(prepared.valid_end[number]) - begin,
            **{field: values[begin:end] for field, values in lists.items()},
        }

    return example


def is_export(options: Preparation) -> bool:
    """Whether `data` is tfds:... and names prepared data that `export` wrote."""
    if not options.data.startswith(PREFIX) or (source := tfds_source(options.data, options)).release is not None:
        return False
    metadata = source.builder.info.metadata or {}
    return metadata.get("written_by") == "jaxrec" and "card" in metadata


def read_export(options: Preparation) -> Prepared:
    """The prepared data as it was. Mistake when its fingerprint is no longer that on its card."""
    source = tfds_source(options.data, options)
    if source.asked[1] not in (None, "sequences"):
        raise Mistake(f"{source.words} is prepared data and loaded whole; leave out @{source.asked[1]}")
    info = source.builder.info
    card = dict(info.metadata["card"])
    if card.get("schema") != SCHEMA:
        raise Mistake(f"{source.words} has schema {card.get('schema')}, this version reads {SCHEMA}; export it again")
    known, candidates = card.pop("known"), card.pop("candidates")
    with quiet():
        stored = intact(source, source.builder.as_data_source("sequences"))
        examples = sorted(stored, key=lambda example: int(example["sequence"]))
    joined = {
        field: np.concatenate([example[field] for example in examples])
        for field in info.features
        if np.ndim(examples[0][field])
    }
    lengths = np.array([len(example["items"]) for example in examples], np.int64)
    offsets = np.append(0, np.cumsum(lengths))
    ends = {end: offsets[:-1] + [example[end] for example in examples] for end in ("train_end", "valid_end")}
    people = {int(example["user"]): example["user_id"].decode() for example in examples}
    training = np.arange(len(joined["items"])) < np.repeat(ends["train_end"], lengths)
    prepared = Prepared(
        card=card,
        items=joined["items"],
        offsets=offsets,
        users=np.array([example["user"] for example in examples], np.int32),
        popularity=np.bincount(joined["items"][training], minlength=candidates + 1).astype(np.int64),
        item_ids=Vocabulary.from_strings(info.metadata["item_ids"]),
        user_ids=Vocabulary.from_strings([people[number] for number in sorted(people)]),
        known=known,
        candidates=candidates,
        times=joined.get("times"),
        gaps=joined.get("gaps"),
        starts=joined.get("starts"),
        weights=joined.get("weights"),
        features={
            feature: restored(entry, joined.get(f"feature/{feature}"))
            for feature, entry in info.metadata.get("features", {}).items()
        },
        train_end=ends["train_end"],
        valid_end=ends["valid_end"],
    )
    if content_fingerprint(prepared) != card["fingerprint"]:
        raise Mistake(f"{source.words} was damaged or changed after it was written (fingerprint); export it again")
    return prepared
