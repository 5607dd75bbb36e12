"""Files of events -> splits -> sequences -> batches. Dataframes and numpy; never jax.

`prepare.prepare(options)` makes a `Prepared` from a file, `prepare_cached` keeps it, `load` maps a kept one.
"""

from jaxrec.data.options import Preparation
from jaxrec.data.prepare import prepare_cached
from jaxrec.data.prepared import Prepared, load, save
from jaxrec.data.vocabulary import Vocabulary

__all__ = ["Preparation", "Prepared", "Vocabulary", "load", "prepare_cached", "save"]
