"""Which column is the user, the item, the time, the session: by common names, or as told."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxrec.config import Mistake, did_you_mean, squash
from jaxrec.data.options import Preparation

# Of two columns that fit a role, the one whose name stands earlier here is taken. Names are compared squashed.
NAMES = {
    "user": "user userid uid customer customerid client clientid visitor visitorid reviewer reviewerid member memberid "
    "account accountid person personid listener",
    "item": "item itemid iid product productid song songid track trackid movie movieid article articleid asin "
    "parentasin book bookid sku skuid video videoid game gameid recipe recipeid news newsid business businessid "
    "poi poiid venue venueid artist artistid ad adid content contentid",
    "time": "timestamp time ts datetime date unixreviewtime unixtime eventtime createdat timems when",
    "session": "session sessionid sid visit visitid basket basketid order orderid",
}
ROLES = tuple(NAMES)


@dataclass(frozen=True)
class Choice:
    """The position of each role's column in the header (absent roles left out), and why it was chosen."""

    header: tuple[str, ...]
    position: dict[str, int]
    because: str

    def names(self) -> dict[str, str]:
        """Role -> the column's name as the file writes it."""
        return {role: self.header[place] for role, place in self.position.items()}

    def unused(self) -> list[str]:
        return [name for place, name in enumerate(self.header) if place not in self.position.values()]


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


def exact(header: Sequence[str], role: str, wanted: str, where: str) -> int:
    """Position of a column that the user named: as written, or without RecBole's type; else Mistake."""
    names = [name.strip() for name in header]
    for candidates in (names, [name.partition(":")[0] for name in names]):
        if wanted in candidates:
            return candidates.index(wanted)
    hint = did_you_mean(wanted, names)
    raise Mistake(f"{where} has no column {wanted!r} (--{role}-column); its columns are {listed(names)}{hint}")


def choose(header: Sequence[str], options: Preparation, where: str) -> Choice:
    """Choose the columns of a table. Mistake when the item, or both user and session, cannot be found."""
    told = demanded(options)
    position = {role: place for role, place in guess(header).items() if role not in told}
    position |= {role: exact(header, role, name, where) for role, name in told.items()}
    if "item" not in position:
        raise Mistake(
            f"{where} has no column known to be the item; its columns are {listed(header)}; add --item-column NAME"
        )
    if not {"user", "session"} & position.keys():
        raise Mistake(
            f"{where} has no column known to be the user or the session; its columns are {listed(header)}; "
            "add --user-column NAME or --session-column NAME"
        )
    twice = [name for name in header if sum(header[place] == name for place in position.values()) > 1]
    if twice:
        raise Mistake(f"{where}: column {twice[0]!r} is taken for two roles; name each, as in --user-column NAME")
    because = "common names" + (f", {', '.join(told)} as told" if told else "")
    return Choice(tuple(header), {role: position[role] for role in ROLES if role in position}, because)


def listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name.strip()) for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
