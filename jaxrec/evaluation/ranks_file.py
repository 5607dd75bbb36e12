"""``ranks.npz``: one row a target, enough to compute any metric and any comparison later without running anything.

Never imports jax.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxrec.config import Mistake
from jaxrec.data.prepared import Prepared
from jaxrec.data.replacing import replacing

Masks = Mapping[str, NDArray[np.bool_]]


class Ranks(NamedTuple):
    """One row a target, in canonical order (sequence, then position); see `save` for the file. ``top`` is ``(n, k)``
    or None.
    """

    example: np.ndarray  # sequence number
    user: np.ndarray  # user number
    position: np.ndarray  # events before the target in its sequence
    target: np.ndarray  # item number, 0 = not in the vocabulary
    greater: np.ndarray  # candidates that score higher
    equal: np.ndarray  # other candidates that score the same
    greater_masked: np.ndarray  # the same two with the history's items left out
    equal_masked: np.ndarray
    candidates: np.ndarray  # size of the catalogue
    top: np.ndarray | None = None


COLUMNS = Ranks._fields[:9]


def save(file: Any, ranks: Ranks, masks: Masks | None = None) -> None:
    """Write ``ranks.npz`` to a path or an open file: the columns of `Ranks` but ``top``, and no pickle.

    With ``masks`` also ``slices (n, s)`` and ``slice_names (s,)``: column j says which targets belong to slice j.
    """
    columns = {name: getattr(ranks, name) for name in COLUMNS}
    if masks is not None:
        columns["slices"] = np.stack(list(masks.values()), axis=1)
        columns["slice_names"] = np.array(list(masks), np.str_)
    np.savez_compressed(file, allow_pickle=False, **columns)


def load(path: Path | str) -> tuple[Ranks, dict[str, NDArray[np.bool_]]]:
    """The columns and the slices of a file that `save` wrote; no slices where it is from before there were any."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
        names, masks = found.pop("slice_names", np.array([], np.str_)), found.pop("slices", None)
        ranks = Ranks(**{name: found[name] for name in COLUMNS})
        return ranks, {str(name): masks[:, place] for place, name in enumerate(names)} if masks is not None else {}
    except FileNotFoundError:
        raise Mistake(f"{path} does not exist; jaxrec evaluate --run {Path(path).parent} writes it") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise Mistake(f"{path} cannot be read ({error}); write it again with jaxrec evaluate") from None


def refuse_place(path: Path) -> None:
    """`Mistake` where no file can be written, before any work is done."""
    if path.is_dir() or not path.parent.is_dir():
        raise Mistake(f"{path} cannot be written; give --parquet a file in a folder that exists")


def to_parquet(path: Path | str, ranks: Ranks, masks: Masks, prepared: Prepared) -> None:
    """Write the same as a Parquet file, with ``user_id`` and ``target_id`` as they were in the data (null = not in the
    vocabulary) and one true or false column a slice.
    """
    import polars as pl

    people, items = (np.array([None, *ids.strings], object) for ids in (prepared.user_ids, prepared.item_ids))
    columns: dict[str, Any] = {name: getattr(ranks, name) for name in COLUMNS}
    columns |= {"user_id": pl.Series(people[ranks.user], dtype=pl.String)}
    columns |= {"target_id": pl.Series(items[ranks.target], dtype=pl.String)}
    try:
        with replacing(Path(path)) as file:
            pl.DataFrame(columns | dict(masks)).write_parquet(file)
    except OSError as error:
        raise Mistake(f"{path} cannot be written ({error}); give --parquet a file in a folder that exists") from None
