"""RecBole's side files: `.item` and `.user` beside `.inter`, whose columns can be features."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxrec.config import Mistake, did_you_mean
from jaxrec.data.columns import listed
from jaxrec.data.folders import Folder
from jaxrec.data.formats import Format, atomic
from jaxrec.data.options import Preparation
from jaxrec.data.sources import Source

KINDS = {".item": "item", ".user": "user"}


def beside(path: Path) -> dict[str, Source]:
    """ "item" and "user" -> the side file, for those that exist."""
    stem = path.name.removesuffix(".gz")
    found = {}
    for suffix, of in KINDS.items():
        for ending in (suffix, f"{suffix}.gz") if stem.endswith(".inter") else ():
            side = path.with_name(stem.removesuffix(".inter") + ending)
            if side.is_file():
                found[of] = Source(side)
    return found


def header(source: Source) -> tuple[Format, list[str]]:
    """The format of a side file and its columns' names without types."""
    form = atomic(source)
    if form is None:
        raise Mistake(f"{source.path} has no header of name:type, as RecBole's side files have; mend it or move it")
    return form, [name.partition(":")[0] for name in form.header]


def owners(path: Path, names: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """Feature -> "item" or "user", by the headers beside the file of events alone.

    Mistake when a name is in none or in both of them; `columns` are those of the events.
    """
    known = {of: header(source)[1] for of, source in beside(path).items()}
    found = {}
    for name in names:
        having = [of for of, columns_there in known.items() if name in columns_there]
        if len(having) == 2:
            raise Mistake(f"{path}: feature {name!r} is in the .item and in the .user file; rename it in one of them")
        if not having:
            more = "".join(f", the .{of} file has {listed(there)}" for of, there in known.items())
            hint = did_you_mean(name, [*columns, *(other for there in known.values() for other in there)])
            raise Mistake(f"{path} has no column {name!r} (--features); its columns are {listed(columns)}{more}{hint}")
        found[name] = having[0]
    return found


def hashes(sources: Iterable[Source | Folder], options: Preparation) -> list[str]:
    """SHA-256 of the files beside the events, where a feature may come from them."""
    named = any(not name.startswith("@") for name in options.features)
    paths = [source.path for source in sources if named and isinstance(source, Source)]
    return [side.sha256 for path in paths for side in beside(path).values()]
