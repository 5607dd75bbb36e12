"""Any cell over time: `unroll` a whole sequence, or `start` and `advance` one event at a time."""

from jaxrec.recurrence.associative import Associative as Associative
from jaxrec.recurrence.backends import BACKENDS as BACKENDS, Backend as Backend
from jaxrec.recurrence.chunkwise import Chunkwise as Chunkwise
from jaxrec.recurrence.composite import Wired as Wired
from jaxrec.recurrence.cudnn import Cudnn as Cudnn
from jaxrec.recurrence.newton import Newton as Newton, Report as Report
from jaxrec.recurrence.scan import Scan as Scan
from jaxrec.recurrence.unroll import advance as advance, start as start, unroll as unroll
from jaxrec.recurrence.window import Window as Window
from jaxrec.recurrence.wrappers import (
    Exposed as Exposed,
    Tapped as Tapped,
    Taps as Taps,
    Trajectory as Trajectory,
    tap as tap,
    zero_taps as zero_taps,
)
