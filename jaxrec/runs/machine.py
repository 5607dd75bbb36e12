"""The circumstances of a number: processor, memory, versions, devices, commit."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "torch")
RESULTS = "experiments/results"
SETTINGS = ("XLA_FLAGS", "JAX_PLATFORMS", "JAX_DEFAULT_MATMUL_PRECISION", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def card(devices: bool = True) -> dict[str, Any]:
    """A flat JSON-ready description of this machine and installation.

    `devices` asks JAX for its devices, which imports JAX and starts its back end; without it JAX is not imported.
    """
    found = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "jaxrec": _version("jaxrec"),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }
    found |= _code()
    return found | ({"devices": _devices()} if devices else {})


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _code() -> dict[str, Any]:
    """Of this package, as it was when this process first asked: later changes are not what it runs."""
    return _git(Path(__file__).resolve().parents[2])


def _git(root: Path) -> dict[str, Any]:
    """Commit and whether tracked files differ from it; nothing when `root` itself is not a checkout with commits.

    Rows of results do not count: a script that writes a second one has changed nothing that the first depends on.
    """
    top = _ask_git(root, "rev-parse", "--show-toplevel")
    commit = _ask_git(root, "rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != root:
        return {}  # an installed package may lie inside some other project's checkout
    changed = _ask_git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", f":(exclude){RESULTS}")
    return {"commit": commit, "dirty": changed != ""}  # also where git did not answer


def _ask_git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _devices() -> list[str]:
    """One entry per kind: "8 x cpu (cpu)"."""
    import jax

    kinds = [(device.platform, device.device_kind) for device in jax.devices()]
    return [f"{kinds.count(kind)} x {kind[1]} ({kind[0]})" for kind in dict.fromkeys(kinds)]
