"""Losses: one line each. A loss is a frozen dataclass with ``touched`` and ``__call__``; see ``Softmax``."""

from jaxrec.losses.softmax import Softmax

__all__ = ["Softmax"]
