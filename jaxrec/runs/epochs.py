"""Which rows an epoch has, and in which order."""

from jaxrec.data.batches import Rows, packed, windows
from jaxrec.data.lanes import lanes
from jaxrec.data.mixed import Mixed
from jaxrec.data.prepared import Prepared
from jaxrec.runs.build import rows_a_step
from jaxrec.runs.options import Config


def plan(config: Config, prepared: Prepared, epoch: int) -> Rows:
    """An epoch's index plan, in the layout and the order that ``config`` names."""
    options, seed = config.batch, config.seed
    if options.layout == "lanes":
        return lanes(prepared, options.length, width=rows_a_step(config))
    if options.shuffle_over is not None:
        return Mixed(prepared, options.length, options.layout, over=options.shuffle_over, seed=seed, epoch=epoch)
    layout = {"packed": packed, "windows": windows}[options.layout]
    return layout(prepared, options.length, seed=seed, epoch=epoch)
