"""Profiles: settings of published models, one TOML file each."""

from pathlib import Path

from jaxrec.config import Mistake, did_you_mean

FOLDER = Path(__file__).parent


def profile_file(name: str) -> Path:
    """The file of a profile. `Mistake` where there is none of that name."""
    known = sorted(path.stem for path in FOLDER.glob("*.toml"))
    if name not in known:
        raise Mistake(f"there is no profile {name!r} (there is {', '.join(known)}){did_you_mean(name, known)}")
    return FOLDER / f"{name}.toml"
