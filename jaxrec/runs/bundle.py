"""A bundle: all that is needed to recommend, in plain files and without pickle.

``bundle.json`` (schema, configuration, protocol card, sizes, hashes of copied cell files), ``weights.npz`` (an array a
leaf, named by its path), the item and user vocabularies, training popularity, what the model's context is made of
(``features.npz``), and a copy of every user's cell file, which runs only when asked for with ``allow_code=True``.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.cells.find import path_of
from jaxrec.config import Call, Mistake, from_dict, to_dict
from jaxrec.data.context import Column
from jaxrec.data.prepared import Feature, Prepared
from jaxrec.data.vocabulary import Vocabulary
from jaxrec.models.recommender import Recommender
from jaxrec.runs import build
from jaxrec.runs.options import Config

SCHEMA = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Bundle:
    """What a bundle holds, in memory."""

    model: Recommender
    config: Config
    card: dict[str, Any]
    offer: build.Offer
    candidates: int
    popularity: np.ndarray
    item_ids: Vocabulary
    user_ids: Vocabulary
    columns: tuple[Column, ...] = ()  # what its context is made of
    features: tuple[Feature, ...] = ()  # and, in the same order, their vocabularies and the values of items and users


def save(
    directory: str | Path, model: Recommender, prepared: Prepared, config: Config, code: dict[str, bytes] | None = None
) -> Path:
    """Write a bundle: complete or not at all; one that is there already is replaced.

    ``code`` is `read_code` as it was when training began (None reads it now).
    """
    target = Path(directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left behind by a kill
    temporary.mkdir()
    offer = build.offered(prepared)
    about = {
        "schema": SCHEMA, "config": to_dict(config), "card": prepared.card, "offer": offer._asdict(),
        "candidates": prepared.candidates, "known": prepared.known,
        "code": copy_code(read_code(config.model.cell) if code is None else code, temporary),
    }  # fmt: skip
    np.savez(temporary / "weights.npz", allow_pickle=False, **leaves(model))
    picked = build.columns(config.model, offer)
    np.savez(temporary / "features.npz", allow_pickle=False, **feature_arrays(prepared, picked))
    np.savez(temporary / "popularity.npz", counts=np.asarray(prepared.popularity))
    for name in ("item_ids", "user_ids"):
        vocabulary = getattr(prepared, name)
        np.savez(temporary / f"{name}.npz", blob=np.asarray(vocabulary.blob), offsets=np.asarray(vocabulary.offsets))
    (temporary / "bundle.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(temporary, target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def load(directory: str | Path, *, allow_code: bool = False) -> Bundle:
    """What is in a bundle, or in the ``bundle`` of a run directory.

    `Mistake` when there is none, when a file is damaged, or when it needs a user's cell file and ``allow_code`` is
    False.
    """
    place = find(Path(directory))
    about = read(place / "bundle.json")
    config = from_dict(Config, about["config"], str(place / "bundle.json"))
    cell = localised(config.model.cell, place, about["code"])
    options = dataclasses.replace(config.model, cell=cell)
    offer = offer_of(about)
    picked = build.columns(options, offer)
    fresh = jax.eval_shape(lambda: build.model(options, offer, seed=0, allow_code=allow_code))
    return Bundle(
        model=filled(fresh, place / "weights.npz"), config=config, card=about["card"], offer=offer,
        candidates=about["candidates"], popularity=arrays(place / "popularity.npz")["counts"],
        item_ids=words(place / "item_ids.npz"), user_ids=words(place / "user_ids.npz"),
        columns=picked, features=features(place / "features.npz", picked),
    )  # fmt: skip


def offer_of(about: dict[str, Any]) -> build.Offer:
    """What the data offered the model of a bundle; those of 0.1 tell no features."""
    columns = tuple(Column(*entry) for entry in about["offer"].get("features", ()))
    return build.Offer(**about["offer"] | {"features": columns})


def feature_arrays(prepared: Prepared, picked: tuple[Column, ...]) -> dict[str, np.ndarray]:
    """What serving needs of each feature of the context: its vocabulary, and its values where it is not the event's."""
    found: dict[str, np.ndarray] = {}
    for number, column in enumerate(picked):
        feature = prepared.features[column.name]
        if feature.ids is not None:
            found |= {f"{number}.blob": np.asarray(feature.ids.blob), f"{number}.offsets": feature.ids.offsets}
        if column.of in ("item", "user"):
            found[f"{number}.values"] = np.asarray(feature.values)
    return found


def features(path: Path, picked: tuple[Column, ...]) -> tuple[Feature, ...]:
    """The features of a bundle, in the order of its columns."""
    found = arrays(path) if picked else {}

    def one(number: int, column: Column) -> Feature:
        text = f"{number}.blob" in found
        ids = Vocabulary(found[f"{number}.blob"], found[f"{number}.offsets"]) if text else None
        return Feature(column.of, found.get(f"{number}.values", np.zeros(0, np.float32)), ids)

    return tuple(one(number, column) for number, column in enumerate(picked))


def find(directory: Path) -> Path:
    for place in (directory, directory / "bundle"):
        if (place / "bundle.json").is_file():
            return place
    raise Mistake(f"{directory} holds no trained model (no bundle.json); give the directory of a run that has finished")


def read(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Mistake(
            f"{path} cannot be read ({error}); restore the file, or train the run again with --fresh"
        ) from None
    if about.get("schema") != SCHEMA:
        raise Mistake(
            f"{path} has schema {about.get('schema')}, this version reads {SCHEMA}; use the version that wrote it"
        )
    return about


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of an npz file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise Mistake(
            f"{path} cannot be read ({error}); restore the file, or train the run again with --fresh"
        ) from None


def words(path: Path) -> Vocabulary:
    found = arrays(path)
    return Vocabulary(found["blob"], found["offsets"])


def leaves(model: Recommender) -> dict[str, np.ndarray]:
    """Every array of a model by its path in the tree."""
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(model)}


def filled(abstract: Recommender, path: Path) -> Recommender:
    """The model with the structure of ``abstract`` and the arrays of a file."""
    found = arrays(path)
    places, tree = jax.tree_util.tree_flatten_with_path(abstract)
    values = []
    for place, leaf in places:
        name = jax.tree_util.keystr(place)
        if name not in found or found[name].shape != leaf.shape:
            raise Mistake(
                f"{path} has no array {name} of shape {leaf.shape}: it was written for another model; train again"
            )
        values.append(jnp.asarray(found[name]))
    return jax.tree.unflatten(tree, values)


def code_files(call: Call) -> set[str]:
    """Every user's file that a call names, in cells inside cells as well."""
    inner = [value for value in (*call.arguments, *dict(call.options).values()) if isinstance(value, Call)]
    return set().union({call.file} if call.file else set(), *map(code_files, inner))


def read_code(call: Call) -> dict[str, bytes]:
    """The content of every user's file that a call names. `Mistake` for one that cannot be read."""
    found = {}
    for file in sorted(code_files(call)):
        try:
            found[file] = path_of(file).read_bytes()
        except OSError as error:
            raise Mistake(f"{file}: cannot be read ({error.strerror}); give the path of a cell's file") from None
    return found


def copy_code(code: dict[str, bytes], place: Path) -> dict[str, dict[str, str]]:
    """Write the user's files into ``place``; ``{original: {file, sha256}}``."""
    copies = {}
    for number, (file, content) in enumerate(code.items()):
        name = f"cell_{number}.py"
        (place / name).write_bytes(content)
        copies[file] = {"file": name, "sha256": hashlib.sha256(content).hexdigest()}
    return copies


def localised(call: Call, place: Path, copies: dict[str, dict[str, str]]) -> Call:
    """The call with the bundle's own copies in place of the original files, each checked against its hash."""

    def local(value: Any) -> Any:
        return localised(value, place, copies) if isinstance(value, Call) else value

    file = call.file
    if file is not None:
        copy = copies.get(file)
        path = place / copy["file"] if copy else place
        if copy is None or not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != copy["sha256"]:
            raise Mistake(f"{path} is not the cell file that was trained (SHA-256 differs); restore it or train again")
        file = str(path)
    options = {name: local(value) for name, value in dict(call.options).items()}
    return Call(call.name, tuple(map(local, call.arguments)), options, file)
