"""Recurrent recommenders in JAX: write a cell in ten lines, train it, measure it, serve it.

`import jaxrec` imports nothing else; the names below are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrec.config import Call, Mistake
    from jaxrec.data.prepare import prepare
    from jaxrec.runs.options import Config
    from jaxrec.runs.run import evaluate, train
    from jaxrec.serving import load

_HOMES = {
    "Call": "jaxrec.config",
    "Config": "jaxrec.runs.options",
    "Mistake": "jaxrec.config",
    "evaluate": "jaxrec.runs.run",
    "load": "jaxrec.serving",
    "prepare": "jaxrec.data.prepare",
    "train": "jaxrec.runs.run",
}

__all__ = ["Call", "Config", "Mistake", "evaluate", "load", "prepare", "train"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("jaxrec")
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxrec' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
