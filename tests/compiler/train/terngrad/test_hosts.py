"""Workers on hosts of their own: bytes that their interfaces count, and what a machine without the right says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from compiler.errors import ToolError
from compiler.train.terngrad import hosts
from compiler.train.terngrad.bytes import float_bits, gather_bits
from compiler.train.terngrad.hosts import LOOPBACK, NAMESPACES, Way, run_workers, ways

NETWORK = {"channels": 16, "layers": 1, "hidden": 1000}
PROBE = "compiler.train.terngrad.probe"


@pytest.fixture(scope="module")
def way() -> Way:
    found = ways()
    if found.name != NAMESPACES:
        pytest.skip(found.missing)
    return found


@pytest.mark.verifies("bytes-interfaces-workers-network-namespaces")
@pytest.mark.slow
def test_interfaces_count_what_the_formulae_say(way: Way) -> None:
    methods = ("float", "gather")
    plan = {
        "measurements": [
            {"network": NETWORK, "method": method, "batch": 1, "mbit": None, "steps": 1} for method in methods
        ]
    }
    for worker in run_workers(PROBE, plan, 2, way, 300):
        values = worker["results"][0]["values"]
        bits = {method: 8 * result["tx"] / values for method, result in zip(methods, worker["results"], strict=True)}
        assert float_bits(2) < bits["float"] < 1.1 * float_bits(2)
        # Last layer and biases are float; some kilobytes are headers and barriers.
        assert gather_bits(2) < bits["gather"] < 1.5 * gather_bits(2)


def test_a_worker_that_fails_is_named_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="worker 0 ended with 1: no such plan"):
        hosts._finish([["sh", "-c", "echo no such plan; exit 1"], ["sleep", "60"]], [{}, {}], tmp_path, 60)


@pytest.mark.verifies("machine-cannot-measure-skipped-reason")
def test_without_the_right_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_run", lambda *command: "Operation not permitted")
    found = ways()
    if "need Linux" in found.missing:
        pytest.skip(found.missing)
    assert found.name == ""
    assert "Operation not permitted" in found.missing
    with pytest.raises(ToolError, match="cannot be kept apart"):
        run_workers(PROBE, {}, 2, found, 1)


def test_one_namespace_for_all_where_workers_may_not_have_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        hosts, "_run", lambda *command: None if "--map-root-user" in command else "Operation not permitted"
    )
    found = ways()
    if "need Linux" in found.missing:
        pytest.skip(found.missing)
    assert (found.name, found.limits) == (LOOPBACK, False)
    assert "run as root" in found.missing


def test_without_a_traffic_shaper_links_are_not_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_run", lambda *command: "unknown qdisc" if "tbf" in command[-1] else None)
    found = ways()
    if "need Linux" in found.missing:
        pytest.skip(found.missing)
    assert (found.name, found.limits) == (NAMESPACES, False)
    assert "links cannot be limited" in found.missing


HOLDING = """
import time
from compiler.train.terngrad.hosts import _namespaces
with _namespaces(2) as pids:
    print(*pids, flush=True)
    time.sleep(60)
"""


@pytest.mark.verifies("namespaces-end-with-their-process")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_namespaces_end_with_the_process_that_made_them_however_it_ends(way: Way, how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDING], stdout=subprocess.PIPE, text=True) as making:
        assert making.stdout is not None
        try:
            pids = [int(word) for word in making.stdout.readline().split()]
            spaces = {os.readlink(f"/proc/{pid}/ns/net") for pid in pids}
            assert len(spaces - {os.readlink("/proc/self/ns/net")}) == 2
        finally:
            making.send_signal(how)
    end = time.monotonic() + 30
    while (left := [pid for pid in pids if Path(f"/proc/{pid}/ns/net").exists()]) and time.monotonic() < end:
        time.sleep(0.01)
    assert left == []
    assert not spaces & set(spaces_in_use())


def spaces_in_use() -> Iterator[str]:
    """Network namespaces of all processes."""
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        with suppress(OSError):  # it may have ended meanwhile
            yield os.readlink(path)
