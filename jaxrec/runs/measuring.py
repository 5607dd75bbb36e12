"""Everything that the atlas measures of one model on one set of data, as records."""

from collections.abc import Iterator, Sequence
from typing import Any

from jaxrec.data.prepared import Prepared
from jaxrec.diagnostics.exponents import lyapunov
from jaxrec.diagnostics.flow import contributions, gradient, gradient_matrix
from jaxrec.diagnostics.gates import gates
from jaxrec.diagnostics.information import information, shuffle_drop
from jaxrec.diagnostics.records import Record
from jaxrec.diagnostics.spectra import eigenvalues, singular_values
from jaxrec.models.recommender import Recommender
from jaxrec.recurrence.recurrent import recurrent_matrices
from jaxrec.runs.samples import Sample, drive, recall, shuffled
from jaxrec.training.source import Events

SHORT = 200  # events of a row for what costs more than a backward pass
LAGS = (1, 2, 5, 10, 20, 50, 100)  # of singular values
EXAMPLES, PEOPLE = 16, 512  # rows for gradients, and for the worth of the past
SOME, FEW = 8, 4  # rows where each costs several passes, and where it costs many


def measured(
    model: Recommender, prepared: Prepared, source: Events, lengths: Sequence[int], *, seed: int = 0
) -> Iterator[Record]:
    """Records of every measurement; those of gradients at each of ``lengths``, the costlier at the longest up to
    `SHORT`.
    """
    for length in lengths:
        sample = drive(prepared, source, length, EXAMPLES, seed=seed)
        for record in gradient(model, sample.batch):
            yield record | about(sample, length)
    short = min(max(lengths), SHORT)
    some = drive(prepared, source, short, SOME, seed=seed)
    for record in (*gradient_matrix(model, some.batch), *gates(model, some.batch)):
        yield record | about(some, short)
    few = drive(prepared, source, short, FEW, seed=seed)
    for record in (contributions(model, few.batch), *spectra(model, few, short)):
        yield record | about(few, short)
    yield from remembered(model, prepared, source, short, rows=PEOPLE, seed=seed)


def spectra(model: Recommender, sample: Sample, length: int) -> list[Record]:
    """Exponents, singular values and eigenvalues of every layer, without what they are of each example."""
    batch = sample.batch
    found = [
        *lyapunov(model, batch),
        *singular_values(model, batch, lags=[lag for lag in LAGS if lag <= length]),
        *eigenvalues(model, batch, samples=4, matrices=recurrent_matrices),
    ]
    return [{key: value for key, value in record.items() if key != "per_example"} for record in found]


def remembered(
    model: Recommender, prepared: Prepared, source: Events, length: int, *, rows: int, seed: int
) -> Iterator[Record]:
    """What the past is worth to the model, and what its order is."""
    sample = recall(prepared, source, length, rows, seed=seed)
    masked = prepared.card["mask_seen"] != "none"
    yield information(model, sample.batch, own=sample.own, exclude_seen=masked, seed=seed) | about(sample, length)
    other = shuffled(sample, seed=seed)
    yield shuffle_drop(model, sample.batch, other, exclude_seen=masked, seed=seed) | about(sample, length)


def about(sample: Sample, length: int) -> dict[str, Any]:
    return {"length": length, "inputs": sample.inputs}
