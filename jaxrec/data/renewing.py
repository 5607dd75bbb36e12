"""Whether a folder of prepared data is written again: not while the bytes of the files and the options are the same."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxrec.config import Mistake, fingerprint
from jaxrec.data import growing, prepare
from jaxrec.data.options import Preparation, asked
from jaxrec.data.prepared import CARD, Prepared, is_prepared, load, read_json, refuse_occupied, save
from jaxrec.data.read import located
from jaxrec.data.replacing import mend

Say = Callable[[str], None]
Make = Callable[[Preparation, Say, prepare.Sources], Prepared]


def prepare_into(
    options: Preparation, out: str, say: Say = print, onto: str | None = None, replace: bool = False,
    make: Make = prepare.prepare,
) -> Prepared:  # fmt: skip
    """Prepare and save in `out`, unless that holds just this already; with `onto` a file is added to prepared data.
    `make` prepares.

    What lies there stays until the new data is complete. Mistake where that is something else and not to `replace`.
    """
    target = Path(out)
    mend(target)
    if onto is not None:
        if make is not prepare.prepare:
            raise Mistake("--onto adds a file on this machine; drop it, or drop --on spark")
        return grow_into(options, onto, target, say, replace)
    if prepare.ready(options):
        found = prepare.prepare(options, say)
        if is_prepared(target) and read_json(target / CARD) == read_json(Path(options.data) / CARD):
            return unchanged(target, found, say)
        return written(found, target, replace)
    sources = prepare.find_sources(options)
    made_of = fingerprint(prepare.identity(options, sources))
    if (held := holding(target, made_of, options.verify, say)) is not None:
        return held
    refuse(target, replace, [source.sha256 for source in sources.values()], options)
    return written(make(options, say, sources), target, replace)


def grow_into(options: Preparation, onto: str, target: Path, say: Say, replace: bool) -> Prepared:
    """`prepare_into` of prepared data and a file; `onto` itself may be what grows."""
    mend(Path(onto))
    found = growing.base(onto)
    if options.data == "demo" or prepare.ready(options):
        raise Mistake(f"--onto {onto} adds a file of events, and --data is {options.data}; name the file with --data")
    inherited = growing.inherited(options, onto, found.card)
    source = located(options.data, inherited)
    itself = target.resolve() == Path(onto).resolve()
    if growing.holds(found, source):
        if itself:
            return unchanged(target, found, say)
        raise Mistake(
            f"{onto} holds the events of {options.data} already (same SHA-256); name the file of later events"
        )
    made_of = fingerprint(growing.identity(found, source, inherited))
    if (held := holding(target, made_of, options.verify, say)) is not None:
        return held
    replace = replace or itself
    refuse(target, replace, [*found.card["source"]["sha256"], source.sha256], inherited)
    return written(growing.grow(found, source, inherited, say), target, replace)


def written(prepared: Prepared, target: Path, replace: bool) -> Prepared:
    save(prepared, target, replace)
    return prepared


def unchanged(target: Path, found: Prepared, say: Say) -> Prepared:
    say(f"{target}: holds this already (files of the same SHA-256, the same options); nothing is written")
    return found


def holding(target: Path, made_of: str, verify: bool, say: Say) -> Prepared | None:
    """What the folder holds, where it was made of just this; damaged, it goes."""
    if not is_prepared(target) or read_json(target / CARD).get("identity") != made_of:
        return None
    try:
        return unchanged(target, load(target, verify), say)
    except Mistake as damage:
        say(f"{damage}: done now, from the source")
        shutil.rmtree(target)
        return None


def refuse(target: Path, replace: bool, files: list[str], options: Preparation) -> None:
    """Mistake, before any work is done, where the folder holds something that is not to go."""
    if is_prepared(target) and not replace:
        reason = unlike(read_json(target / CARD), files, options)
        raise Mistake(f"{target} {reason}; choose another directory, or put the new data in its place with --replace")
    refuse_occupied(target, replace)


def unlike(card: dict[str, Any], files: list[str], options: Preparation) -> str:
    """How prepared data differs from what is asked, in words."""
    if card["source"]["sha256"] != files:
        return "was made of other files, or files that have changed since"
    before, now = card.get("options", {}), asked(options)
    keys = [key for key in sorted({*before, *now} - {"test", "valid"}) if before.get(key) != now.get(key)]
    others = " and ".join(f"--{key.replace('_', '-')}" for key in keys)
    return f"was prepared with another {others}" if keys else "was prepared by another version"
