"""A trace of a training under way, for Perfetto (https://ui.perfetto.dev) or XProf."""

import time
from pathlib import Path

import jax

SECONDS = 2.0  # of training: some dispatches, and a file that a browser still opens


class Trace:
    """Told between dispatches: begins after the first, which compiles, and ends itself."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.began: float | None = None
        self.done = False

    def __call__(self) -> None:
        if self.done:
            return
        if self.began is None:
            jax.profiler.start_trace(self.directory, create_perfetto_trace=True)
            self.began = time.perf_counter()
        elif time.perf_counter() - self.began > SECONDS:
            self.close()

    def close(self) -> None:
        """Write what there is, if anything was begun."""
        if self.began is not None and not self.done:
            jax.profiler.stop_trace()
        self.done = True
