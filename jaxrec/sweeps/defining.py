"""What is swept: from what a person asked for, and from what the ledger says was asked for before."""

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from jaxrec.config import Mistake
from jaxrec.sweeps.options import Sweep, described
from jaxrec.sweeps.proposals import objectives
from jaxrec.sweeps.space import parse
from jaxrec.sweeps.worker import code


def definition(
    options: Sweep, given: Mapping[str, Any], known: Mapping[str, Any] | None, command: Sequence[str],
    say: Callable[[str], None], said: Collection[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """What is swept, as the ledger keeps it; without a space what is ``known``, where nothing else is ``said``."""
    asked = plain(options)
    if given or options.space is not None or options.profile is not None:
        asked["space"] = parse(described(options, given)).plain()
    elif known is None:
        raise Mistake(f"{options.out} holds no sweep yet; say what to sweep, in a file or as in --model.width '32|64'")
    else:
        default = plain(Sweep(out=options.out))
        told = {"seed" if name == "sweep_seed" else name for name in said}
        asked = {
            name: value if name in told or value != default[name] else known.get(name) for name, value in asked.items()
        }
        asked["space"] = known["space"]
    now = code()
    look_at(now, asked["strict_code"], known, say)
    created = datetime.now().astimezone().isoformat("T", "seconds")
    return asked | {
        "trials": total(options, asked, known),
        "code": now,
        "created": created,
        "command": shlex.join(command),
    }


def plain(options: Sweep) -> dict[str, Any]:
    """The options that define a sweep."""
    return {
        "search": options.search, "population": options.population, "seed": options.sweep_seed, "seeds": options.seeds,
        "objectives": objectives(options.objectives), "prune": options.prune, "prune_after": options.prune_after,
        "strict_code": options.strict_code,
    }  # fmt: skip


def look_at(now: str, strict: bool, known: Mapping[str, Any] | None, say: Callable[[str], None]) -> None:
    """Report another code than the sweep began with; `Mistake` where it decides what a trial is."""
    if strict and now.endswith("-dirty"):
        raise Mistake(f"--strict-code needs a commit, and files differ from {now[:12]}; commit them first")
    if known is not None and known["code"] != now:
        differs = f"this sweep began with code {known['code']}, and this is {now}"
        if known["strict_code"]:
            raise Mistake(f"{differs}; go back to that one, which --strict-code asks for, or choose another --out")
        say(f"note: {differs}; each attempt says with which it was made")


def total(options: Sweep, asked: Mapping[str, Any], known: Mapping[str, Any] | None) -> int | None:
    """Trials in all; None for the whole grid. `Mistake` for fewer than were asked for before."""
    before, seeds = (known or {}).get("trials"), asked["seeds"]
    count = options.trials or before
    if count is not None and before is not None and count < before:
        raise Mistake(
            f"trials = {count} is fewer than the {before} that this sweep was asked for before, which are not taken "
            f"back; give {before} or more, stop it where you like (it stays as it is), or choose another --out"
        )
    if count is None and asked["search"] != "grid":
        raise Mistake("a sweep needs an end; say how many trainings, as in --trials 100")
    if count is not None and count % seeds:
        more = count + seeds - count % seeds
        raise Mistake(f"trials = {count} cannot be shared evenly by {seeds} seeds of each configuration; give {more}")
    return count
