"""The timeline of a run: its sums are the counters, its layers the records of the Verilog, its tracks in order."""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.cycles.events import Events
from compiler.cycles.model import run_to_end
from compiler.graph.dense import Dense, dense_graph
from compiler.lower.pipeline import compile_graph
from compiler.network import Network
from hw.params import preset
from sim import timeline
from sim.network import run_network
from sim.rtl.waves import window_plusargs
from sim.timeline import ArrayRun, TimelineError, follow
from sim.trace_file import ARRAY, LAYERS, PES, trace_events, write_trace_file
from tests.hw.programs import Program, random_program
from tests.sim.program_image import program_image
from tests.sim.test_cycles import works

Trace = list[dict[str, Any]]


def program_run(program: Program) -> ArrayRun:
    """The run of a random program by the cycle model."""
    events = Events()
    times, _ = run_to_end(program.params, works(program), program.masks, events=events)
    return ArrayRun(program_image(program), (0, 1), events, [asdict(each) for each in times])


def slices(trace: Trace, process: int) -> Trace:
    return [event for event in trace if event["ph"] == "X" and event["pid"] == process]


def wrong(trace: Trace, records: list[list[dict[str, int]]]) -> list[str]:
    """What of a trace is not what the records say, or cannot be shown; by the trace alone."""
    found = []
    cycles = Counter[tuple[int, int, str]]()
    tracks = defaultdict(list)
    for event in slices(trace, PES):
        args = event["args"]
        cycles[args["run"], args["layer"], args["state"]] += args["cycles"]
    for event in trace:
        if event["ph"] == "X":
            tracks[event["args"]["run"], event["pid"], event["tid"]].append(event["args"])
    layers = [event for event in slices(trace, ARRAY) if event["tid"] >= LAYERS]
    for run, of_run in enumerate(records):
        for layer, record in enumerate(of_run):
            rounds = [each["args"] for each in layers if (each["args"]["run"], each["args"]["layer"]) == (run, layer)]
            begin = min(each["cycle"] for each in rounds)
            end = max(each["cycle"] + each["cycles"] for each in rounds)
            found += ["begin or end"] * ((begin, end) != (record["accepted"], record["written"]))
            found += ["busy"] * (cycles[run, layer, "busy"] != record["entries"])
            found += ["starved"] * (cycles[run, layer, "starved"] != record["starved"])
    for spans in tracks.values():
        spans.sort(key=lambda args: args["cycle"])
        for one, other in itertools.pairwise(spans):
            found += ["overlap"] * (one["cycle"] + one["cycles"] > other["cycle"])
        found += ["empty slice"] * any(args["cycles"] <= 0 for args in spans)
    return found


@pytest.mark.verifies("timeline-equals-records")
@pytest.mark.parametrize("number", range(24))
def test_sums_of_random_programs_are_their_counters(number: int, seed: int) -> None:
    program = random_program(1000 * seed + number, pes=(1, 2, 4, 8)[number % 4])
    run = program_run(program)
    trace = list(trace_events([run], 1000.0))
    assert wrong(trace, [run.records]) == [], f"program {program.seed}"


@pytest.mark.verifies("timeline-equals-records")
def test_keeping_events_changes_no_time(seed: int) -> None:
    program = random_program(1000 * seed, pes=4)
    plain = run_to_end(program.params, works(program), program.masks)
    assert run_to_end(program.params, works(program), program.masks, events=Events()) == plain


@pytest.fixture(scope="module")
def network() -> tuple[Network, Any]:
    rng = np.random.default_rng(1)
    x = (rng.integers(-100, 100, (5, 64)) * (rng.random((5, 64)) < 0.4)).astype(np.int16)

    def layer(name: str, out: int, width: int) -> Dense:
        return Dense(name, (rng.integers(-7, 8, (out, width)) * (rng.random((out, width)) < 0.3)).astype(np.float32))

    graph = dense_graph([layer("a", 48, 64), layer("b", 32, 48), layer("c", 8, 32)])
    return compile_graph(graph, preset("BALANCED_4"), x), x


def followed(network: tuple[Network, Any], engine: str) -> tuple[list[ArrayRun], list[list[dict[str, int]]]]:
    seen: list[Any] = []
    result = run_network(network[0], network[1], engine=engine, watch=lambda *image: seen.append(image))
    return follow(*seen[0], result.runs[0].records), result.runs[0].records


@pytest.mark.verifies("timeline-equals-records")
@pytest.mark.rtl
@pytest.mark.slow
def test_layers_begin_and_end_as_the_verilog_records(network: Any, tmp_path: Path) -> None:
    runs, records = followed(network, "rtl")
    write_trace_file(tmp_path / "t.json.gz", runs, 1000.0)
    trace = json.loads(gzip.decompress((tmp_path / "t.json.gz").read_bytes()))
    assert wrong(trace["traceEvents"], records) == []
    first = next(event for event in slices(trace["traceEvents"], ARRAY) if event["name"] == "b")
    assert round(first["ts"] * 1000) == records[0][1]["accepted"], "at 1000 MHz a cycle is a nanosecond"


@pytest.mark.verifies("timeline-equals-records")
def test_planted_faults_in_a_trace_are_seen(network: Any) -> None:
    runs, records = followed(network, "cycles")
    trace = list(trace_events(runs, 800.0))
    assert wrong(trace, records) == []
    for place, name, change in (
        (PES, "busy", {"state": "busy", "cycles": 1}), (PES, "starved", {"state": "starved", "cycles": 1}),
        (ARRAY, "begin or end", {"cycle": 1}),
    ):  # fmt: skip
        bad = json.loads(json.dumps(trace))
        other = {key: value for key, value in change.items() if isinstance(value, str)}
        event = next(
            e for e in reversed(slices(bad, place)) if other.items() <= e["args"].items()
            and (place == PES or e["tid"] >= LAYERS)
        )  # fmt: skip
        for key, by in change.items():
            if isinstance(by, int):
                event["args"][key] += by
        assert name in wrong(bad, records)


@pytest.mark.verifies("timeline-equals-records")
def test_an_engine_that_disagrees_gets_no_timeline(network: Any) -> None:
    runs, records = followed(network, "cycles")
    records[0][1] = {**records[0][1], "accepted": records[0][1]["accepted"] + 1}
    image = runs[0].image
    with pytest.raises(TimelineError, match=r"layer b, run 0: accepted is .* no timeline is written"):
        follow(image, {image.maps[image.inputs[0]].name: network[1]}, records)


def test_too_many_vectors_are_refused(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MOST_BYTES", 100)
    with pytest.raises(timeline.InputError, match="give fewer samples"):
        followed(network, "golden")


def test_a_trace_keeps_within_its_limit_and_says_what_it_leaves_out(network: Any, tmp_path: Path) -> None:
    runs, _ = followed(network, "golden")
    whole = write_trace_file(tmp_path / "whole.json", runs, 1000.0)
    assert whole.cut is None
    for limit, said in ((whole.size - 2000, "the PEs from run 0, cycle"), (8000, "all PEs and a part")):
        written = write_trace_file(tmp_path / "t.json", runs, 1000.0, limit=limit)
        assert written.cut is not None
        assert written.cut.startswith(said)
        assert (tmp_path / "t.json").stat().st_size <= limit
        assert json.loads((tmp_path / "t.json").read_text())["otherData"]["left_out"] == written.cut


def test_what_a_simulator_is_told_of_levels_and_cycles() -> None:
    assert window_plusargs(None, None) == []
    assert window_plusargs(3, (10, 20)) == ["+eie_waves_depth=3", "+eie_waves_from=30000", "+eie_waves_to=50000"]
