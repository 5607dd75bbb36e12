"""Asking a run to stop: while it trains a signal sets a flag, and the loop saves and leaves at the next step; where
there is nothing to save the signal is an exception at once.
"""

import _thread
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ExtensionFileLoader
from types import FrameType, TracebackType
from typing import Any, Self

AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on
SOON = 0.01  # seconds after which a signal is tried again that came while a compiled module was loaded
PATIENCE = 8.0  # seconds from SIGTERM in which Python has to get its turn; a scheduler kills after ten or more

LATE = b"jaxrec: SIGTERM: a long call did not return in time; the same command goes on from what was saved, or afresh\n"


class Interrupted(KeyboardInterrupt):
    """A signal came where there is nothing to save. Its kind is the one that libraries let pass, event loops too."""


class Stopped(Exception):
    """A signal ended a run in order; the same command goes on from there."""


def interruption(error: BaseException | None) -> Interrupted | None:
    """The `Interrupted` behind an error: a library that was cut off, as in an import, may make another one of it."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__cause__ or error.__context__
    return error


class StopSignal:
    """While the context is open, SIGTERM (a scheduler's notice) and SIGINT (ctrl-C) only set `requested`; inside
    `raising` they raise `Interrupted`.

    A second SIGINT raises KeyboardInterrupt: the person means it. Outside the main thread Python delivers no signals,
    so there the context does nothing.

    Python runs a handler only between two of its own instructions. A compilation, a read or one long step may keep it
    from that: when nobody has called `heard` `PATIENCE` seconds after a SIGTERM, a thread ends the process with status
    75. What was saved last stands, as after any kill.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self.requested: str | None = None  # name of the first signal that came
        self._numbers = numbers or (signal.SIGTERM, signal.SIGINT)
        self._interrupts = 0
        self._raise = False
        self._postponed = False
        self._before: dict[signal.Signals, Any] = {}
        self._watch: _Watch | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._watch = _Watch()
            for number in self._numbers:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that was not installed from Python and cannot be put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Work that may be dropped at any point and done again: a signal, also one that came before, raises
        `Interrupted`. Once: a scheduler that repeats itself must not cut the cleaning up.
        """
        self._raise = True
        try:
            self.check()
            yield
            self.check()  # an exception raised inside a finaliser is swallowed there
        except Exception as error:
            if self.requested and not isinstance(error, Stopped):  # what was cut off raised an error of its own
                raise Interrupted(self.requested) from error
            raise
        finally:
            self._raise = self._postponed = False

    def check(self) -> None:
        """Raise `Interrupted` when a signal has come."""
        if self.requested:
            raise Interrupted(self.requested)

    def heard(self) -> None:
        """Somebody acts on the request: saving may take as long as it takes."""
        if self._watch is not None:
            self._watch.heard.set()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        echo, self._postponed = self._postponed, False
        first = echo or self.requested is None
        self._interrupts += number == signal.SIGINT and not echo
        if self._interrupts > 1:
            raise KeyboardInterrupt
        self.requested = self.requested or signal.Signals(number).name
        if self._raise and first:
            if not _loads_compiled(frame):
                raise Interrupted(self.requested)
            self._postponed = True
            _thread.start_new_thread(self._again, (number,))  # a handler must not wait for the locks of `threading`

    def _again(self, number: int) -> None:
        time.sleep(SOON)
        main = threading.main_thread().ident
        if self._postponed and main:
            signal.pthread_kill(main, number)  # a true signal: a simulated one does not end a wait


def _loads_compiled(frame: FrameType | None) -> bool:
    """Whether a compiled module is being loaded, where an exception may end the process with a segmentation fault."""
    while frame is not None:
        loads = frame.f_code.co_name in ("create_module", "exec_module")
        if loads and isinstance(frame.f_locals.get("self"), ExtensionFileLoader):
            return True
        frame = frame.f_back
    return False


class _Watch:
    """A thread that hears of signals from the interpreter's C handler, whatever the main thread is doing."""

    def __init__(self) -> None:
        self.heard = threading.Event()
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="jaxrec-stop", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while numbers := self._read.recv(64):
            if signal.SIGTERM in numbers and not self.heard.wait(PATIENCE):
                with suppress(OSError):
                    os.write(2, LATE)
                os._exit(AGAIN)

    def close(self) -> None:
        signal.set_wakeup_fd(self._before)
        self.heard.set()
        self._write.close()
        self._thread.join(1.0)
        self._read.close()
