"""Which rows an epoch has, and in which order."""

from jaxrec.config import Mistake
from jaxrec.data.batches import Rows, bytes_while_made, packed, windows
from jaxrec.data.lanes import lanes
from jaxrec.data.mixed import Mixed
from jaxrec.data.prepared import Prepared
from jaxrec.parallel.programs import free_of_machine
from jaxrec.runs.build import rows_a_step
from jaxrec.runs.options import Config
from jaxrec.runs.planner import size

AT_ONCE = 3  # windows of `Mixed`: one that is read, two that are made


def plan(config: Config, prepared: Prepared, epoch: int) -> Rows:
    """An epoch's index plan, in the layout and the order that ``config`` names."""
    options, seed = config.batch, config.seed
    if options.layout == "lanes":
        return lanes(prepared, options.length, width=rows_a_step(config))
    if options.shuffle_over is not None:
        return Mixed(prepared, options.length, options.layout, over=options.shuffle_over, seed=seed, epoch=epoch)
    layout = {"packed": packed, "windows": windows}[options.layout]
    return layout(prepared, options.length, seed=seed, epoch=epoch)


def refuse_large(config: Config, prepared: Prepared) -> None:
    """`Mistake` where the machine's memory does not hold what an epoch's plan takes while it is made."""
    options = config.batch
    if options.layout == "lanes":
        return
    events, whole = bytes_while_made(prepared, options.length, options.layout)
    share = 1.0 if options.shuffle_over is None else min(AT_ONCE * options.shuffle_over / max(events, 1), 1.0)
    free = free_of_machine()
    if share * whole <= free:
        return
    fewer = rounded(free / 2 / whole * events / AT_ONCE)
    raise Mistake(
        f"an epoch of {events:,} events takes {size(share * whole)} of memory while its order is made, and "
        f"{size(free)} are free; shuffle fewer together: --batch.shuffle-over {fewer} takes "
        f"{size(AT_ONCE * fewer / events * whole)}"
    )


def rounded(number: float) -> int:
    """Down to one digit and zeros."""
    digits = str(max(int(number), 1))
    return int(digits[0]) * 10 ** (len(digits) - 1)
