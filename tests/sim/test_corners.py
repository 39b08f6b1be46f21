from __future__ import annotations

import numpy as np
import pytest

from hw.layouts import Error, Memory, fields, identity, refill_header
from hw.params import LANES, Params
from hw.registers import ID
from sim import run as engines
from sim.corner_cases import MOMENTS, corner_cases, observe, overlap
from sim.decode import decode
from sim.golden_array import run_layers
from sim.program import chunks, layer_records, record_numbers, refill_stream
from sim.rtl.build import build
from sim.rtl.engine import unpack_record
from tests.sim.faults import with_switches

pytestmark = [pytest.mark.rtl, pytest.mark.slow]

PARAMS = Params(
    pes=4, rows=64, queue_depth=8, weight_words=128, pointer_blocks=64, act_lines=512, output_words=512,
    codebooks=4, descriptors=64,
)  # fmt: skip


FAULTS = {
    # name → (module, assignment, what it becomes while the fault is on, what is said of it)
    "answer": ("eie_accelerator_host", r"assign takes_read = (.*?);", "(free & ar_full & ~ takes_write)", "protocol: "),
    "order": ("eie_accelerator_host", r"assign takes_read = (.*?);", "(free & ar_full & ~ bus__rvalid)", ""),
    "strobes": ("eie_accelerator_host", r"= (& bus__wstrb);", "1'h1", "registers: "),
    "taken": ("eie_accelerator_host", r"assign bus__awready = (.*?);", "awake", ""),
    "position": ("eie_accelerator_host", r"= (at \+ 1'h1);", "at", "window: "),
}  # fmt: skip
"""Faults of the host port, all in one build; none is on but where a test asks for it."""


@pytest.fixture(scope="module")
def built():
    return build(PARAMS, mutate=lambda text: with_switches(text, FAULTS))


@pytest.fixture(scope="module")
def observed(tmp_path_factory, request, built):
    """One simulation of all scenarios, and the networks that it used."""
    cases = corner_cases(PARAMS, request.config.getoption("seed"))
    results = observe(built, cases, tmp_path_factory.mktemp("corners"))
    return results, cases.images, cases.inputs, [(e, i) for *_, e, i in cases.refused]


def check_run(outcome, images, inputs, timed=True):
    """Every line of the frames equals golden, records equal the cycle model; returns the values compared."""
    number = outcome["network"]
    image, x = images[number], inputs[number]
    memory = np.array([[np.frombuffer(int(word, 16).to_bytes(16, "little"), "<i2") for word in bank]
                       for bank in outcome["lines"]]).transpose(1, 0, 2)  # fmt: skip
    (part,) = chunks(image, engines.check_input(image, x)[0])
    golden = part.inputs.reshape(part.count, image.frame, PARAMS.groups, LANES).copy()
    values = sum(run.words.size for run in run_layers(decode(image), golden, PARAMS.acc_bits))
    np.testing.assert_array_equal(memory, golden.reshape(memory.shape))
    if timed:
        assert records_of(outcome, image) == engines.run(image, x, engine="cycles").records[0]
    assert outcome["status"]["done"]
    assert outcome["status"]["error"] == 0
    return values


def records_of(outcome, image):
    """The record of each layer."""
    words = [int(outcome["records"][n], 16) for n in record_numbers(image)]
    return layer_records(image, [unpack_record(image, word) for word in words])[0]


@pytest.mark.verifies("networks-after-build")
def test_two_networks_one_after_the_other_on_one_build(observed):
    results, *rest = observed
    assert sum(check_run(outcome, *rest[:2]) for outcome in results["plain"]) > 100
    assert [outcome["network"] for outcome in results["plain"]] == [0, 1, 0]


@pytest.mark.verifies("start-memory-access-while-busy")
def test_start_and_memory_access_while_busy_are_refused_and_change_nothing(observed):
    results, *rest = observed
    check_run(results["refused"], *rest[:2])
    assert results["refused"]["during"]["refused"] == 1
    assert results["refused"]["status"]["refused"] == 1
    assert results["refused"]["flags"] == [[1, 0], [0, 0]]  # one by one


@pytest.mark.verifies("reset-restart-mid-layer")
def test_reset_and_restart_in_mid_layer_leave_nothing_behind(observed):
    results, *rest = observed
    assert len(results["restarted"]) == 8
    for outcome in results["restarted"]:
        check_run(outcome, *rest[:2])


def packets_of(tiles):
    """(first beat, beat behind the last, whether it ends a tile) of each packet of a refill stream."""
    beats = [int.from_bytes(beat.tobytes(), "little") for beat in tiles]
    where = {name: (first, width) for name, first, width in fields(refill_header(PARAMS))}
    words, last = (lambda beat, at=where[name]: beat >> at[0] & ((1 << at[1]) - 1) for name in ("words", "last"))
    packets, at = [], 0
    while at < len(beats):
        packets.append((at, at + 1 + words(beats[at]), last(beats[at])))
        at = packets[-1][1]
    return packets


@pytest.mark.verifies("reset-restart-mid-tile-stream")
def test_reset_and_restart_in_mid_tile_leave_nothing_behind(observed):
    """The stream is offered anew each time; what the abandoned run had taken of it does not matter, nor does the rest
    of a tile that its source still sends."""
    results, *rest = observed
    image = rest[0][2]
    stream = refill_stream(image, 2)
    packets = packets_of(stream)
    outcomes = results["tiles"]["restarted"]
    assert sum(check_run(outcome, *rest[:2]) for outcome in outcomes) > 100
    assert len(outcomes) == MOMENTS
    taken = [outcome["taken"] for outcome in outcomes]
    assert taken == sorted(taken)
    assert all(outcome["during"]["busy"] for outcome in outcomes)
    assert sum(0 < beats < len(stream) for beats in taken) >= 3
    # Caught inside a packet, or between the packets of a tile: neither header nor buffer may survive.
    ends = {0, *(end for _, end, last in packets if last)}
    assert sum(beats not in ends for beats in taken) >= 2
    assert results["tiles"]["whole"][0]["taken"] == len(stream)


@pytest.mark.verifies("stream-stops-restart-recovers")
def test_a_stream_that_stops_starves_the_array_until_it_is_restarted(observed):
    """No tile, or half of one: the run waits, computes nothing wrong, and a restart recovers it."""
    results, *rest = observed
    outcomes = results["tiles"]["starved"]
    tiles = len(refill_stream(rest[0][2], 2))
    assert [outcome["taken"] for outcome in outcomes] == [int(tiles * 0.6), 0]
    for outcome in outcomes:
        assert outcome["during"]["busy"]
        assert not outcome["during"]["done"]
        check_run(outcome, *rest[:2])


@pytest.mark.verifies("gaps-stream-cost-time-change")
def test_gaps_in_the_stream_cost_time_and_change_no_value(observed):
    results, *rest = observed
    whole, paused = results["tiles"]["whole"][0], results["tiles"]["paused"][0]
    check_run(whole, *rest[:2])
    check_run(paused, *rest[:2], timed=False)
    image = rest[0][2]
    before, after = (records_of(outcome, image) for outcome in (whole, paused))
    assert sum(record["refill"] for record in after) > sum(record["refill"] for record in before)
    assert after[-1]["written"] > before[-1]["written"]
    for one, other in zip(before, after, strict=True):
        assert [one[name] for name in ("entries", "padding", "skipped", "saturated")] == [
            other[name] for name in ("entries", "padding", "skipped", "saturated")
        ]


@pytest.mark.verifies("wrong-streams-pe-tlast-too")
def test_a_wrong_stream_ends_the_run_and_the_next_one_is_right(observed):
    results, *rest = observed
    assert [outcome["name"] for outcome in results["tiles"]["wrong"]] == ["unit", "early", "late", "twice"]
    for outcome in results["tiles"]["wrong"]:
        assert outcome["ended"]["done"]
        assert outcome["ended"]["error"] == Error.STREAM.value, outcome["name"]
        check_run(outcome, *rest[:2])


@pytest.mark.verifies("cycles-before-first-run")
def test_cycles_are_zero_before_the_first_run(observed):
    assert observed[0]["cycles"] == 0


@pytest.mark.verifies("interrupt")
def test_interrupt_follows_done_and_enable(observed):
    assert observed[0]["interrupt"] == {"silent": 0, "raised": 1, "cleared": 0, "refused": 1, "quiet": 0}


@pytest.mark.verifies("illegal-descriptors-end-stated-error")
def test_illegal_descriptors_end_in_a_stated_error(observed):
    results, *_, expected = observed
    got = [(Error(outcome["status"]["error"]), outcome["status"]["index"]) for outcome in results["illegal"]]
    assert got == expected
    assert all(outcome["status"]["done"] and not outcome["status"]["busy"] for outcome in results["illegal"])


@pytest.mark.verifies("memories-registers-random-initial-contents")
def test_the_array_runs_well_after_errors(observed):
    results, *rest = observed
    check_run(results["after"], *rest[:2])


@pytest.mark.verifies("bus-errors-identity")
def test_bus_answers_errors_and_identity(observed):
    bus = observed[0]["bus"]
    assert all(bus["refused"].values())
    assert bus["kept"] == 3
    assert [one["memory"] for one in bus["beyond"] if one["refused"] and one["kept"]] == [m.name for m in Memory]
    digest = int(identity(PARAMS), 16)
    assert bus["id"] == [ID, digest & 0xFFFFFFFF, digest >> 32, PARAMS.pes]


@pytest.mark.verifies("axi4-lite-three-hosts-once")
def test_accesses_may_overlap_in_any_way(built, tmp_path, seed):
    found = overlap(built, PARAMS, seed, tmp_path)
    assert found["wrong"] is None
    seen = found["seen"]
    assert all(seen[f"{channel} waits"] > 20 for channel in ("aw", "w", "b", "ar", "r"))
    assert seen["both channels"] > 20
    assert seen["reads during a write"] > 20
    assert seen["words read"] > 20
    assert seen["refused"] > 20


@pytest.mark.verifies("planted-faults-response-overwritten-order")
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_of_the_host_port_is_caught(built, tmp_path, seed, fault):
    found = overlap(built, PARAMS, seed, tmp_path, (f"+fault_{fault}",))
    assert found["wrong"] is not None
    assert found["wrong"].startswith(FAULTS[fault][3])
