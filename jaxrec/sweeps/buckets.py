"""Which trials compile alike, without importing JAX."""

from jaxrec.config import fingerprint, to_dict
from jaxrec.runs.options import Config

TRACED = {"optimizer": ("lr", "weight_decay", "clip"), "model": ("dropout", "state_dropout", "embedding_dropout")}


def bucket(config: Config) -> str:
    """What is static in a configuration, as a short hash."""
    static = to_dict(config)
    for name in ("seed", "run", "fresh"):
        del static[name]
    for section, names in TRACED.items():
        static[section] = {name: value for name, value in static[section].items() if name not in names}
    return fingerprint(static)
