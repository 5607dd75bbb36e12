"""Chosen columns of a table -> events: ids as text, times as numbers, ratings and kinds of events as filters."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrec.config import Mistake
from jaxrec.data.clocks import microseconds
from jaxrec.data.columns import ON_REQUEST, Choice, plain
from jaxrec.data.events import Events
from jaxrec.data.formats import Format
from jaxrec.data.options import Preparation
from jaxrec.data.rows import Rows
from jaxrec.data.sides import owners

if TYPE_CHECKING:
    import polars as pl

Say = Callable[[str], None]
EXACT = 2.0**53  # whole numbers beyond it cannot all be told apart as floats


def announce(path: Path, form: Format, choice: Choice, say: Say) -> None:
    """Say which columns were chosen and why, and what the others could be used for.

    Mistake when a feature is neither a column here nor of a file beside.
    """
    chosen = [f"{role} = {name!r}" for role, name in choice.names().items()]
    for role, place in (("rating", choice.rating), ("event", choice.event)):
        chosen += [] if place is None else [f"{role} = {choice.header[place]!r}"]
    chosen += [f"feature {name!r}" for name in choice.features]
    unused = ", ".join(map(repr, choice.unused()[:8]))
    why = form.because if form.guessed is not None else f"by {choice.because}"
    why += f"; {choice.because}" if form.guessed is not None and "told" in choice.because else ""
    found = owners(path, choice.elsewhere, choice.header)
    chosen += [f"feature {name!r} of the .{of} file" for name, of in found.items()]
    say(f"{path}: {form.words}; {', '.join(chosen)} ({why})" + (f"; not used: {unused}" if unused else ""))
    for name in choice.unused():
        if plain(name) in ON_REQUEST["rating"].split():
            say(f"{path}: every event counts, whatever its {name!r}; --rating-column {name} --min-rating N drops lower")
        elif plain(name) in ON_REQUEST["event"].split():
            say(f"{path}: every kind of event in {name!r} counts alike; choose with --event-column {name}")


def from_frame(
    form: Format, choice: Choice, frame: "pl.DataFrame", rows: Rows, options: Preparation, say: Say
) -> Events:
    """Check and convert the columns, in a frame by position; rows that break a rule go to `rows`."""
    names = choice.names()
    column = lambda place: frame[f"column_{place}"]  # noqa: E731
    texts: dict[str, Any] = {
        role: as_text(column(choice.position[role]), names[role], rows)
        for role in ("user", "item", "session")
        if role in names
    }
    times, unit = None, None
    if "time" in names:
        times, unit = microseconds(column(choice.position["time"]), rows, options.time_unit)
    weights = (
        None
        if choice.event is None
        else event_weights(column(choice.event), choice.header[choice.event], options, rows)
    )
    if choice.rating is not None:
        rate(column(choice.rating), choice.header[choice.rating], options, rows)
    features = {name: as_feature(column(place), name, rows) for name, place in choice.features.items()}
    kept = None if rows.kept.all() else rows.kept
    finish(rows, say)
    return Events(
        **{role: taken(text, kept) for role, text in texts.items()},
        time=taken(times, kept),
        weights=taken(weights, kept),
        features={name: taken(values, kept) for name, values in features.items()},
        format=form.words,
        columns=names,
        because=f"{form.because}; columns by {choice.because}",
        unit=unit,
        skipped=dict(rows.bad.skipped),
        left_out=dict(rows.left_out),
        rules=rules(choice, options),
    )


def taken(values: Any, kept: np.ndarray | None) -> Any:
    """The rows of an array or series that are kept; None stays None."""
    if values is None or kept is None:
        return values
    return values[kept] if isinstance(values, np.ndarray) else values.filter(kept)


def rules(choice: Choice, options: Preparation) -> dict[str, Any]:
    """What the options about ratings and kinds of events did, for the card."""
    found: dict[str, Any] = {}
    if choice.rating is not None:
        found["rating"] = {"column": choice.header[choice.rating], "min_rating": options.min_rating}
    if choice.event is not None:
        note = "an array beside the events; training counts every event that is left alike"
        found["event"] = {"column": choice.header[choice.event], "weights": list(options.event_weights), "weight": note}
    return found


def finish(rows: Rows, say: Say) -> None:
    """Say what was left out. Mistake when nothing is left."""
    if rows.bad.skipped:
        say(rows.bad.summary())
    for why, count in rows.left_out.items():
        say(f"{rows.bad.path}: {count:,} events left out: {why}")
    if not rows.kept.any():
        raise rows.refuse("no event is left; look at what was left out, or relax the options that did")


def as_text(column: "pl.Series", name: str, rows: Rows) -> "pl.Series":
    """Ids as text: whole numbers without a fraction, everything else as written. Missing ones are rejected."""
    import polars as pl

    if column.dtype.is_nested() or column.dtype == pl.Binary:
        raise rows.refuse(
            f"column {name!r} holds {column.dtype}, not ids; write one id a row as text or a whole number"
        )
    if column.dtype.is_float():
        column = whole(column, name, rows)
    text = column.cast(pl.String)
    missing = (text.is_null() | (text == "")).fill_null(True).to_numpy()
    rows.reject(missing, f"no {name}", lambda row: f"there is no {name} here")
    if text.dtype == pl.String and column.dtype == pl.String:
        zero = text.str.contains("\0", literal=True).fill_null(False).to_numpy()
        rows.reject(zero, "a zero byte", lambda row: f"{name} {text[row]!r} holds a zero byte")
    return text


def whole(column: "pl.Series", name: str, rows: Rows) -> "pl.Series":
    """Ids that were written as floats, as whole numbers where they are and can be told apart."""
    import polars as pl

    values = column.to_numpy()
    there = np.isfinite(values)
    sentence = "is not a whole number; write ids as text or whole numbers"
    broken = ~np.isnan(values) & (~there | (values != np.round(values)))
    rows.reject(broken, f"a {name} that is no whole number", lambda row: f"{name} {column[row]} {sentence}")
    large = there & (np.abs(values) > EXACT)
    rows.reject(
        large,
        f"a {name} too large for a float",
        lambda row: f"{name} {column[row]} is too large for a float to tell it from its neighbours; write ids as text",
    )
    usable = pl.Series(there & ~broken & ~large)
    return pl.select(pl.when(usable).then(column)).to_series().cast(pl.Int64)


def numbers(column: "pl.Series") -> "pl.Series":
    """A column as Float64; what is no number is missing."""
    import polars as pl

    column = column.str.strip_chars() if column.dtype == pl.String else column
    return column.cast(pl.Float64, strict=False)


def rate(column: "pl.Series", name: str, options: Preparation, rows: Rows) -> None:
    """Leave out events rated below `min_rating`; one that has no number for a rating is a fault."""
    assert options.min_rating is not None
    rating = numbers(column).fill_null(float("nan")).to_numpy()
    rows.reject(
        np.isnan(rating),
        f"no {name}",
        lambda row: f"{name} {column[row]!r} is not a number, and --min-rating needs one",
    )
    rows.leave_out(rating < options.min_rating, f"{name} below {options.min_rating:g} (--min-rating)")


def event_weights(column: "pl.Series", name: str, options: Preparation, rows: Rows) -> np.ndarray:
    """float32 (n,): the weight of each event's kind. Kinds of weight 0 are left out, kinds without one are faults."""
    import polars as pl

    kinds = column.cast(pl.String).str.strip_chars().fill_null("")
    if not options.event_weights:
        counts = kinds.value_counts(sort=True).rows()[:8]
        seen = ", ".join(f"{kind} ({count:,})" for kind, count in counts)
        example = " ".join(f"{kind}=1" for kind, _ in counts[:3])
        raise rows.refuse(f"--event-column {name} needs --event-weights, as in {example}; it holds {seen}")
    weights = parse_weights(options.event_weights)
    for kind in weights:
        if not (kinds == kind).any():
            raise rows.refuse(
                f"--event-weights names {kind!r}, which column {name!r} does not hold; drop it or mend it"
            )
    found = kinds.replace_strict(weights, default=None, return_dtype=pl.Float64).fill_null(float("nan")).to_numpy()
    hint = "has no weight; name it in --event-weights (0 leaves it out)"
    rows.reject(np.isnan(found), f"a {name} without a weight", lambda row: f"{name} {kinds[row]!r} {hint}")
    for kind, weight in weights.items():
        if weight == 0:
            rows.leave_out((kinds == kind).to_numpy(), f"{name} {kind} has weight 0 (--event-weights)")
    return found.astype(np.float32)


def parse_weights(texts: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in texts:
        kind, equals, weight = text.rpartition("=")
        try:
            value = float(weight)
        except ValueError:
            value = -1.0
        if not equals or not 0 <= value < float("inf") or kind in found:
            raise Mistake(
                f"--event-weights {text!r} is not KIND=WEIGHT, each kind once and 0 or more; write view=1 buy=5"
            )
        found[kind] = value
    return found


def as_feature(column: "pl.Series", name: str, rows: Rows) -> "np.ndarray | pl.Series":
    """float32 numbers (missing ones NaN) where every value that is there is a number, else text ("" where missing)."""
    import polars as pl

    if column.dtype.is_nested() or column.dtype == pl.Binary:
        raise rows.refuse(f"feature {name!r} holds {column.dtype}; features are numbers or text, one a row")
    if column.dtype.is_temporal():
        column = column.cast(pl.String)
    there = (column.is_not_null() & (column.cast(pl.String).str.strip_chars() != "")).fill_null(False)
    values = numbers(column)
    if bool((values.is_not_null() | ~there).all()) and bool(there.any()):
        return values.fill_null(float("nan")).to_numpy().astype(np.float32)
    return column.cast(pl.String).fill_null("")
