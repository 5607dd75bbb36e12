"""What every test runs under: eight CPU devices, strict ranks, compiled programs kept between runs.

Settings go through the environment, before jax is imported and for the processes that tests start.
"""

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxrec-tests"
DEVICES = "--xla_force_host_platform_device_count=8"
# tests compile thousands of programs that run for microseconds: most of their time would go into optimising these
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if version("jaxlib").startswith("0.10."):  # a later one knows no other emitters, and ends over a flag it does not know
    QUICK += " --xla_cpu_use_fusion_emitters=false"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES} {QUICK}".strip()
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_ENABLE_X64"] = "0"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

set_hypothesis_home_dir(CACHE / "hypothesis")
settings.register_profile("here", deadline=None, max_examples=50, database=None)
settings.register_profile("ci", deadline=None, max_examples=20, database=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked long")


def unit(nodeid: str) -> str:
    """What stays in one process, for its tests share fixtures and compiled programs: a file, or a cell's laws."""
    file, _, test = nodeid.partition("::")
    return f"{file}::{test.partition('-')[0]}" if test.startswith("test_law[") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Said here and not by marks: those of xdist 3.8 go unheard under pytest 9, and every test goes its own way."""
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    return Units(config, log)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Compiled programs do not outlive what shares them: thousands of them take gigabytes."""
    if "jax" in sys.modules and (nextitem is None or unit(item.nodeid) != unit(nextitem.nodeid)):
        sys.modules["jax"].clear_caches()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: unit(item.nodeid).partition("::")[2])  # small units last: all processes end together
    if config.getoption("--long"):
        return
    long = {item for item in items if item.get_closest_marker("long")}
    if long:
        config.hook.pytest_deselected(items=[item for item in items if item in long])
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets, which lies beside the repository where there is one."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not here: ../shared/data beside the repository does not exist")
    return folder
