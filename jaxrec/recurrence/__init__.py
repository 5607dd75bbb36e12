"""Any cell over time: `unroll` a whole sequence, or `start` and `advance` one event at a time."""

from jaxrec.recurrence.backends import BACKENDS as BACKENDS, Backend as Backend
from jaxrec.recurrence.scan import Scan as Scan
from jaxrec.recurrence.unroll import advance as advance, start as start, unroll as unroll
from jaxrec.recurrence.wrappers import (
    Exposed as Exposed,
    Tapped as Tapped,
    Taps as Taps,
    Trajectory as Trajectory,
    tap as tap,
    zero_taps as zero_taps,
)
