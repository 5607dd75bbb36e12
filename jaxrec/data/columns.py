"""Which column is the user, the item, the time, the session: by common names, or as told."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxrec.config import Mistake, did_you_mean, squash
from jaxrec.data.options import Preparation

# Of two columns that fit a role, the one whose name stands earlier here is taken. Names are compared squashed.
NAMES = {
    "user": "user userid uid customer customerid client clientid visitor visitorid reviewer reviewerid member memberid "
    "account accountid person personid listener",
    "item": "item itemid iid product productid song songid track trackid movie movieid article articleid "
    "parentasin asin book bookid sku skuid video videoid game gameid recipe recipeid news newsid business businessid "
    "poi poiid venue venueid artist artistid ad adid content contentid",
    "time": "timestamp time ts datetime date unixreviewtime unixtime eventtime createdat timems when",
    "session": "session sessionid sid visit visitid basket basketid order orderid",
}
ROLES = tuple(NAMES)
ON_REQUEST = {
    "rating": "rating stars overall score label",
    "event": "event eventtype action actiontype behavior behaviour behaviortype interaction interactiontype type",
}


@dataclass(frozen=True)
class Choice:
    """The position of each role's column in the header (absent roles left out), and why it was chosen."""

    header: tuple[str, ...]
    position: dict[str, int]
    because: str
    rating: int | None = None
    event: int | None = None
    features: dict[str, int] = field(default_factory=dict)
    elsewhere: tuple[str, ...] = ()  # features that are no columns here

    def places(self) -> list[int]:
        """Positions of all columns that are read, ascending."""
        single = [place for place in (self.rating, self.event) if place is not None]
        return sorted({*self.position.values(), *single, *self.features.values()})

    def names(self) -> dict[str, str]:
        """Role -> the column's name as the file writes it."""
        return {role: self.header[place] for role, place in self.position.items()}

    def unused(self) -> list[str]:
        read = self.places()
        return [name for place, name in enumerate(self.header) if place not in read]


def demanded(options: Preparation) -> dict[str, str]:
    """Role -> column name, where the user named one."""
    given = {role: getattr(options, f"{role}_column") for role in ROLES}
    return {role: name for role, name in given.items() if name is not None}


def plain(name: str) -> str:
    """A header's name for comparison: blanks and RecBole's `:type` dropped, case folded, punctuation dropped."""
    return squash(name.strip().partition(":")[0])


def guess(header: Sequence[str]) -> dict[str, int]:
    """Role -> position by common names; roles without a match are left out."""
    places: dict[str, int] = {}
    for place, name in enumerate(header):
        places.setdefault(plain(name), place)
    found = {role: [places[name] for name in names.split() if name in places] for role, names in NAMES.items()}
    return {role: matches[0] for role, matches in found.items() if matches}


def exact(header: Sequence[str], option: str, wanted: str, where: str) -> int:
    """Position of a column that the user named: as written, without RecBole's type, or by its number; else Mistake."""
    names = [name.strip() for name in header]
    for candidates in (names, [name.partition(":")[0] for name in names]):
        if wanted in candidates:
            return candidates.index(wanted)
    if wanted.isdecimal() and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    hint = did_you_mean(wanted, names)
    raise Mistake(f"{where} has no column {wanted!r} (--{option}); its columns are {listed(names)}{hint}")


def choose(header: Sequence[str], options: Preparation, where: str, guessed: dict[str, int] | None = None) -> Choice:
    """Choose the columns of a table; `guessed` are roles by position where the names say nothing.

    Mistake when the item, or both user and session, cannot be found, or an option names a column that is not there.
    """
    told = demanded(options)
    position = {role: exact(header, f"{role}-column", name, where) for role, name in told.items()}
    by_guess = guess(header) if guessed is None else guessed
    free = {role: place for role, place in by_guess.items() if role not in told}
    if guessed is not None:  # by values: a place that was told is taken
        free = {role: place for role, place in free.items() if place not in position.values()}
    position = free | position
    if "item" not in position:
        raise Mistake(
            f"{where} has no column known to be the item; its columns are {listed(header)}; add --item-column NAME"
        )
    if not {"user", "session"} & position.keys():
        raise Mistake(
            f"{where} has no column known to be the user or the session; its columns are {listed(header)}; "
            "add --user-column NAME or --session-column NAME"
        )
    twice = [header[place] for place in position.values() if list(position.values()).count(place) > 1]
    if twice:
        raise Mistake(f"{where}: column {twice[0]!r} is taken for two roles; name each, as in --user-column NAME")
    how = "common names" if guessed is None else "values"
    because = ", ".join([how] * bool(free) + [f"{', '.join(told)} as told"] * bool(told))
    features, elsewhere = wanted_features(header, options, where)
    return Choice(
        tuple(header),
        {role: position[role] for role in ROLES if role in position},
        because,
        rating=on_request("rating", header, options, where),
        event=on_request("event", header, options, where),
        features=features,
        elsewhere=elsewhere,
    )


def on_request(role: str, header: Sequence[str], options: Preparation, where: str) -> int | None:
    """Position of the column of ratings or of kinds of events, if an option needs it. Mistake when it is not there."""
    name, used, flag = {
        "rating": (options.rating_column, options.min_rating is not None, "--min-rating N"),
        "event": (options.event_column, bool(options.event_weights), "--event-weights KIND=WEIGHT ..."),
    }[role]
    if name is not None and not used and role == "rating":
        raise Mistake(
            f"--rating-column {name} does nothing alone; add {flag}, or keep the column with --features {name}"
        )
    if name is not None:
        return exact(header, f"{role}-column", name, where)
    if not used:
        return None
    names = [plain(name) for name in header]
    found = next((names.index(known) for known in ON_REQUEST[role].split() if known in names), None)
    if found is None:
        raise Mistake(
            f"{where} has no column known to be the {role}, which {flag} needs; its columns are {listed(header)}; "
            f"add --{role}-column NAME"
        )
    return found


def wanted_features(header: Sequence[str], options: Preparation, where: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """(feature -> position, features that are no columns here); those of the calendar (@hour) are no columns."""
    wanted = [name for name in options.features if not name.startswith("@")]
    if len(set(options.features)) < len(options.features):
        raise Mistake(f"--features {' '.join(options.features)} names a column twice; name each once")
    here, elsewhere = {}, []
    for name in wanted:
        try:
            here[name] = exact(header, "features", name, where)
        except Mistake:
            elsewhere.append(name)
    return here, tuple(elsewhere)


def listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name.strip()) for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
