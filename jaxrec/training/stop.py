"""Asking a training to stop: a signal sets a flag, and the loop saves and leaves at the next step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class StopSignal:
    """While the context is open, SIGTERM (a scheduler's notice) and SIGINT (ctrl-C) only set `requested`.

    A second SIGINT raises KeyboardInterrupt: the person means it. Outside the main thread Python delivers no signals,
    so there the context does nothing.
    """

    def __init__(self) -> None:
        self.requested: str | None = None  # name of the first signal that came
        self._interrupts = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that was not installed from Python and cannot be put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
        self.requested = self.requested or signal.Signals(number).name
