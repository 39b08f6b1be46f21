"""One regression in this process, in processes and on a Ray cluster; workers die, runs are taken up again."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from compiler import clusters
from compiler.errors import InputError, ToolError
from compiler.journal import JOURNAL, Journal
from sim import executors
from sim.case_file import CASES, SUMMARY, case_file
from sim.pages.progress import state
from sim.suites import SUITES
from sim.trials import COUNTS, SHARD, Line, Shard, kit, run_shard, shards
from sim.verify import TURNS, Report, verify

ROOT = Path(__file__).parents[2]
SUITE, SEED, TRIALS = "amaranth", 151, 3  # on one and two PEs, a few hundred cycles each
RUN = (sys.executable, "-m", "eie", "verify", SUITE, "--seed", str(SEED), "--cases", str(TRIALS))


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """The folder of the run in this process."""
    folder = tmp_path_factory.mktemp("plain")
    assert verify(SUITE, SEED, trials=TRIALS, out=folder).passed
    return folder


def lines(folder: Path) -> list[Line]:
    return [Line.of(json.loads(text)) for text in (folder / CASES).read_text().splitlines()]


def summary(folder: Path) -> str:
    """The summary, byte for byte but for its time."""
    text = (folder / SUMMARY).read_text()
    return "\n".join(line for line in text.splitlines() if '"cpu_seconds"' not in line)


def below(pid: int) -> list[tuple[int, str]]:
    """Process and command of everything that a process has started."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found[int(folder.name)] = parent, (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended
                continue
    inside = {pid}
    while more := {child for child, (parent, _) in found.items() if parent in inside} - inside:
        inside |= more
    return [(child, found[child][1]) for child in inside - {pid}]


def kill_one(running: subprocess.Popen[str], title: str) -> int:
    """Kill the first worker that has a shard, while it has it; returns its process."""
    deadline = time.monotonic() + 500
    while time.monotonic() < deadline and running.poll() is None:
        workers = [child for child, command in below(running.pid) if command.startswith(title)]
        if workers:
            os.kill(workers[0], signal.SIGKILL)
            return workers[0]
        time.sleep(0.02)
    raise AssertionError(f"no worker had a shard; the run ended with {running.poll()}")


@pytest.mark.verifies("regression-three-executors")
def test_lines_say_what_was_compared(plain):
    assert Counter(line.seed for line in lines(plain)) == Counter(SEED * 1_000_003 + n for n in range(TRIALS))
    for line in lines(plain):
        assert (line.suite, line.kit, line.status, line.message) == (SUITE, kit(), "passed", "")
        assert len(line.array) == 16
        assert line.counts["values"] > 0
        assert line.counts["cycles"] > 0
        assert line.counts["records"] > 0
        assert line.seconds > 0
    assert json.loads((plain / SUMMARY).read_text())["values"] == sum(line.counts["values"] for line in lines(plain))


@pytest.mark.verifies("watch-page-browser")
def test_who_reads_along_knows_how_far_it_is(plain):
    (run,) = state(plain)["runs"]
    assert (run["kind"], run["name"], run["status"]) == ("regression", SUITE, "finished")
    assert (run["done"], run["total"], run["cases"], run["failures"]) == (TRIALS, TRIALS, {"passed": TRIALS}, [])
    assert run["values"] == sum(line.counts["values"] for line in lines(plain))


@pytest.mark.verifies("regression-three-executors")
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers in /proc")
def test_a_cluster_gives_the_same_though_a_worker_dies(plain, tmp_path):
    pytest.importorskip("ray")
    folder = tmp_path / "cluster"
    command = (*RUN, "--cluster", "local", "--jobs", "2", "-o", str(folder))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as running:
        killed = kill_one(running, "ray::_lines")
        _, said = running.communicate()
    assert running.returncode == 0, said
    assert "a worker died with" in said
    assert "they run again" in said
    assert Counter(line.key for line in lines(folder)) == Counter(line.key for line in lines(plain))
    assert not [line for line in lines(folder) if line.where.endswith(f":{killed}")]
    assert summary(folder) == summary(plain)


@pytest.mark.verifies("regression-resume")
def test_what_has_a_line_is_not_run_again(plain, tmp_path, monkeypatch):
    there = (plain / CASES).read_text().splitlines(keepends=True)
    (tmp_path / CASES).write_text("".join(there[:-1]) + there[-1][:40])  # killed while it wrote the last one
    ran = []
    monkeypatch.setattr(executors, "run_shard", lambda shard, told=None: ran.append(shard) or run_shard(shard, told))
    verify(SUITE, SEED, trials=TRIALS, out=tmp_path, resume=True)
    assert [len(shard.seeds) for shard in ran] == [1]
    assert Counter(line.key for line in lines(tmp_path)) == Counter(line.key for line in lines(plain))
    assert summary(tmp_path) == summary(plain)
    begin = json.loads((tmp_path / JOURNAL).read_text().splitlines()[0])
    assert (begin["total"], begin["done"]) == (TRIALS, TRIALS - 1)


@pytest.mark.verifies("regression-resume")
def test_the_time_left_of_a_resumed_run_is_by_the_pace_of_its_own_cases(plain, tmp_path):
    text = (plain / CASES).read_text().splitlines(keepends=True)[0]
    cases = [json.dumps({**json.loads(text), "seed": seed}) + "\n" for seed in range(90)]
    (tmp_path / CASES).write_text("".join(cases))
    Journal(tmp_path).note("begin", kind="regression", name=SUITE, total=100, done=88)  # two are through since
    began = json.loads((tmp_path / JOURNAL).read_text())["time"]
    os.utime(tmp_path / CASES, (began + 20, began + 20))
    (run,) = state(tmp_path, now=began + 20)["runs"]
    assert (run["done"], run["left"]) == (90, pytest.approx(100, abs=1))


@pytest.mark.verifies("regression-resume")
def test_a_line_that_is_there_twice_counts_once(plain, tmp_path):
    text = (plain / CASES).read_text()
    (tmp_path / CASES).write_text(text + text.splitlines(keepends=True)[0])
    verify(SUITE, SEED, trials=TRIALS, out=tmp_path, resume=True)
    assert summary(tmp_path) == summary(plain)


@pytest.mark.verifies("regression-resume")
def test_a_folder_that_does_not_fit_is_refused(plain, tmp_path):
    def begin(folder: Path, suite: str = SUITE, resume: bool = True) -> None:
        with case_file(folder, suite, resume):
            pass

    with pytest.raises(InputError, match="continue it with --resume or choose another folder"):
        begin(plain, resume=False)
    with pytest.raises(InputError, match="holds cases of suite amaranth; this is rtl"):
        begin(plain, "rtl")
    first = json.loads((plain / CASES).read_text().splitlines()[0])
    for wrong, said in (
        (json.dumps({**first, "kit": "0.0.9+abc"}), "holds cases of kit 0.0.9"), ("[1]", "line 1 is no JSON object"),
        ("{}", "it has no suite"), (json.dumps({**first, "values": "many"}), "values should be whole numbers"),
        (json.dumps({**first, "values": -1}), "values should be whole"), (json.dumps({**first, "cpu": None}), "cpu sh"),
        (json.dumps({**first, "passed": 1}), "nothing is counted as passed"), ('{"a":' * 100_000, "line 1 is no JSON"),
        (json.dumps({**first, "stage": []}), "stage should be text"), (json.dumps({**first, "seed": "x"}), "seed sho"),
        (json.dumps({**first, "status": "fine"}), "status fine; expected one of passed, "),
    ):  # fmt: skip
        (tmp_path / CASES).write_text(wrong + "\n")
        with pytest.raises(InputError, match=said):
            begin(tmp_path)
        assert (tmp_path / CASES).read_text() == wrong + "\n"
    with case_file(tmp_path / "held", SUITE, False), pytest.raises(InputError, match="another process is at work"):
        begin(tmp_path / "held")


def test_what_is_counted_is_what_a_report_has():
    whole = {each.name for each in dataclasses.fields(Report) if each.type == "int"}
    assert set(COUNTS) == whole - {"seed", "trials"}


@pytest.mark.verifies("regression-one-kit")
def test_lines_of_other_sources_are_refused_by_every_executor(monkeypatch, tmp_path):
    """A commit while it runs: a worker that begins later has other sources."""

    def other(shard: Shard, told=None):
        yield Line(SUITE, "", shard.number, shard.seeds[0], "", "0+b", "passed", "", 1.0, 1.0, "here:7", {"values": 5})

    monkeypatch.setattr(executors, "run_shard", other)
    with pytest.raises(InputError, match=r"here:7 ran kit 0\+b; this run began with .*: the sources were changed"):
        verify(SUITE, SEED, trials=1, out=tmp_path)
    assert not (tmp_path / CASES).exists()


class Ray:
    """As much of Ray as a cluster of one machine needs, whose task raises `cause`."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            def __init__(self, cause: Exception | None) -> None:
                super().__init__("a task failed")
                self.cause = cause

        WorkerCrashedError = NodeDiedError = OutOfMemoryError = type("Gone", (RayError,), {})

    def __init__(self, cause: Exception | None) -> None:
        self.cause, self.begun = cause, {}

    def init(self, **how) -> None:
        self.begun = how

    def shutdown(self) -> None:
        pass

    def remote(self, **how):
        return lambda function: type("Task", (), {"remote": staticmethod(lambda work, shard: "reference")})

    def wait(self, references, **how):
        return references, []

    def get(self, reference):
        raise self.exceptions.RayTaskError(self.cause)


@pytest.mark.verifies("regression-one-kit")
@pytest.mark.parametrize(
    ("cause", "kind", "said"),
    [
        (RuntimeError("The function failed to import\nNo module named 'sim'"), InputError,
         r"install it on every machine \(RuntimeError: No module named 'sim'\)"),
        (ImportError("no numba"), InputError, r"install it on every machine \(ImportError: no numba\)"),
        (None, InputError, r"install it on every machine \(RayTaskError: a task failed\)"),
        (ToolError("no Verilator"), ToolError, "^no Verilator$"),
    ],
)  # fmt: skip
def test_a_machine_without_the_kit_is_told_from_an_error_of_the_kit(cause, kind, said, monkeypatch):
    """And a cluster of this machine joins no other one, whatever RAY_ADDRESS says."""
    ray = Ray(cause)
    monkeypatch.setattr(clusters, "load", lambda: ray)
    with pytest.raises(kind, match=said):
        list(executors.Cluster("local", 2).run([Shard(SUITE, "", 0, (1,))]))
    assert (ray.begun["address"], ray.begun["num_cpus"]) == ("local", 2)


class Dying:
    """An executor one of whose cases kills its worker."""

    local = False

    def __init__(self, deadly: int, deaths: int) -> None:
        self.deadly, self.deaths, self.begun = deadly, deaths, Counter()

    def run(self, work, careful=False):
        for shard in work:
            self.begun.update(shard.seeds)
            if self.deadly in shard.seeds and self.begun[self.deadly] <= self.deaths:
                yield shard, None
            else:
                yield (
                    shard,
                    [
                        Line(shard.suite, "", shard.number, seed, "", kit(), "passed", "", 1.0, 1.0, "", {"values": 5})
                        for seed in shard.seeds
                    ],
                )


@pytest.mark.verifies("regression-deadly-case")
@pytest.mark.parametrize("deaths", [0, 1, TURNS - 1, TURNS])
def test_a_case_that_kills_its_worker_each_time_is_named_and_takes_no_other_along(deaths, monkeypatch):
    told = []
    deadly = SEED * 1_000_003 + 1
    dying = Dying(deadly, deaths)
    monkeypatch.setattr("sim.verify.Here", lambda note: dying)
    report = verify(SUITE, SEED, trials=TRIALS, told=told.append)
    assert len(told) == deaths
    assert dying.begun[deadly] == min(deaths + 1, TURNS)
    assert report.trials == TRIALS
    assert report.values == 5 * (TRIALS - (deaths == TURNS))
    assert [(failure.seed, failure.what) for failure in report.failures] == (
        [(deadly, f"its worker died each of {TURNS} times")] if deaths == TURNS else []
    )


def _dies(shard: Shard, told=None) -> Iterator[Line]:
    """Ends its process at the first case; in a process of its own."""
    if 1 in shard.seeds:
        os._exit(9)
    yield from ()


@pytest.mark.verifies("regression-three-executors")
def test_processes_go_on_when_one_dies():
    work = [Shard(SUITE, "", 0, (seed,)) for seed in (1, 2)]
    ran = list(executors.Processes(2, work=_dies).run(work))
    assert Counter(shard.seeds[0] for shard, _ in ran) == Counter((1, 2))
    assert (1,) in [shard.seeds for shard, found in ran if found is None]
    assert [
        shard.seeds for shard, found in executors.Processes(2, work=_dies).run(work, careful=True) if found is None
    ] == [(1,)]


@pytest.mark.parametrize("suite", ["rtl", "networks", "netlist", "amaranth"])
def test_shards_hold_each_case_once(suite):
    trials = 30
    work = shards(suite, 3, trials)
    keys = Counter(key for shard in work for key in shard.keys())
    assert max(keys.values()) == 1
    assert len(keys) == trials * max(1, len(SUITES[suite].stages)) + SUITES[suite].proof
    assert SUITES[suite].stages or max(len(shard.seeds) for shard in work) == SHARD
    done = [key for key in keys if key[2] % 3]
    assert {key for shard in shards(suite, 3, trials, done) for key in shard.keys()} == set(keys) - set(done)


@pytest.mark.verifies("regression-three-executors")
def test_reports_do_not_depend_on_the_order(plain):
    one, other = Report(SUITE, SEED), Report(SUITE, SEED)
    for report, each in ((one, lines(plain)), (other, lines(plain)[::-1])):
        for line in each:
            report.add(line)
    assert {**one.asdict(), "cpu_seconds": 0} == {**other.asdict(), "cpu_seconds": 0}


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ToolError, match=r"pip install 'eie-kit\[cluster\]'"):
        verify(SUITE, trials=1, cluster="local")
    with pytest.raises(InputError, match="leave out the cluster"):
        verify("port", cluster="local")
