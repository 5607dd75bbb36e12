"""Trained models in use: recommendations for people the model has never seen."""

from pathlib import Path

from jaxrec.runs import bundle
from jaxrec.serving.served import Served as Served


def load(directory: str | Path, *, allow_code: bool = False) -> Served:
    """The recommender of a run directory, or of a bundle copied out of one.

    A model with a user's own cell holds a copy of that file, which is executed only with ``allow_code=True``. Raises
    `jaxrec.config.Mistake` when there is no bundle or a file of it is damaged.
    """
    return Served(bundle.load(directory, allow_code=allow_code))
