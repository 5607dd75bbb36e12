"""How a command ends that did not come to its end: the sentence that a person needs, and the exit status."""

import os
import sys
from collections.abc import Callable

from jaxrec.config import Mistake
from jaxrec.training.stop import AGAIN, Stopped, interruption

Say = Callable[[str], None]


def ended(error: BaseException, say: Say) -> int:
    """The exit status of an exception, after its sentence; what is a defect of ours goes on.

    One of many processes is gone at once: an orderly end would wait for the others, who wait for this one.
    """
    status = told(error, say)
    if "JAXREC_PROCESSES" in os.environ:
        sys.stdout.flush()
        os._exit(status)
    return status


def told(error: BaseException, say: Say) -> int:
    if isinstance(error, Stopped):
        say(f"jaxrec: {error}")
        return AGAIN
    if sent := interruption(error):
        say(f"jaxrec: {sent}: no file is left half written; the same command does it again")
        return AGAIN
    if isinstance(error, Mistake) and not os.environ.get("JAXREC_TRACEBACK"):
        say(f"jaxrec: {error}")
        return 2
    if isinstance(error, KeyboardInterrupt):
        return 130
    if "JAXREC_PROCESSES" in os.environ and type(error).__name__ == "JaxRuntimeError":  # mostly, another one is gone
        say(f"jaxrec: a step of all processes failed: {str(error).splitlines()[0]}")
        return 1
    if isinstance(error, BrokenPipeError):  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError) and error.filename is not None and not os.environ.get("JAXREC_TRACEBACK"):
        say(f"jaxrec: {error.filename}: {error.strerror}; choose a place that can be read and written")
        return 2
    raise error
