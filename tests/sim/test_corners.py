from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest

from compiler.errors import ImageError
from compiler.image.words import memory_words
from compiler.lower.build import build as compiled
from hw.layouts import Error, Memory, Op, descriptor, fields, identity, refill_header
from hw.params import LANES, SEGMENTS, Params
from hw.registers import ID
from sim import run as engines
from sim.cases import random_input, random_network
from sim.decode import decode
from sim.golden_array import run_layers
from sim.program import chunks, layer_records, record_numbers, refill_stream
from sim.rtl.build import build
from sim.rtl.engine import simulate, unpack_record
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


MOMENTS = 9  # at which a run in tiles is abandoned
WILD = 2  # programs, the last, that add up what nothing reads


def put(word: int, **values: int) -> int:
    """A descriptor with fields replaced."""
    for name, first, width in fields(descriptor(PARAMS)):
        if name in values:
            word = word & ~(((1 << width) - 1) << first) | (values[name] & (1 << width) - 1) << first
    return word


def network(rng, wanted, batch, tiles=0):
    """A random network of at least `wanted` entries, so that it can be caught in the middle, in so many tiles."""
    while True:
        with contextlib.suppress(ImageError):
            image = compiled(random_network(rng, PARAMS), PARAMS)
            entries = sum(layer.entries for layer in image.layers)
            refills = sum(step.refill for steps in image.steps for step in steps)
            enough = wanted < entries < 12000 and len(image.layers) > 1 and image.frame * batch <= PARAMS.act_lines
            if enough and (refills >= tiles if tiles else not refills):
                return image


def refused_programs(image):
    """(descriptors, samples, error, index at which the run ends), all but a few fields as in a network."""
    words = memory_words(image)[Memory.DESCRIPTORS][0]
    end = words[-1]
    legal = put(words[0], first=1, last=1, chained=0, tiles_y=1, tiles_x=1)
    beyond = PARAMS.act_lines * PARAMS.groups  # activation vectors
    inside = {"y0": 0, "x0": 0, "height": 99, "width": 99}
    sizes = ("vectors", "wy", "wx", "height", "width", "tiles_y", "tiles_x", "row_lines", "words")
    two = {"tiles_x": 2, "first": 0, "last": 0}
    return [
        ([put(legal, op=Op.ILLEGAL.value), end], 1, Error.OPCODE, 0),
        ([put(legal, op=4), end], 1, Error.OPCODE, 0),
        ([legal, put(legal, op=14), end], 1, Error.OPCODE, 1),
        ([put(legal, reserved9=1), end], 1, Error.RESERVED, 0),
        ([legal, put(legal, reserved11=1 << 7), end], 1, Error.RESERVED, 1),
        ([put(end, reserved2=5)], 1, Error.RESERVED, 0),
        *(([put(legal, **{size: 0}), end], 1, Error.RANGE, 0) for size in sizes),
        ([legal, end], 0, Error.RANGE, 0),  # no samples
        ([put(legal, codebook=PARAMS.codebooks), end], 1, Error.RANGE, 0),
        ([put(legal, pointers=PARAMS.pointer_blocks), end], 1, Error.RANGE, 0),
        ([put(legal, outputs=PARAMS.output_words, words=1), end], 1, Error.RANGE, 0),
        ([put(legal, outputs=PARAMS.output_words - 1, words=2), end], 1, Error.RANGE, 0),
        ([put(legal, low=5, high=4), end], 1, Error.RANGE, 0),
        ([put(legal, low=0, high=-1), end], 1, Error.RANGE, 0),
        # Addresses that leave their memory while the window is scanned, or the results are written.
        ([put(legal, source=beyond, **inside), end], 1, Error.RANGE, 0),
        ([put(legal, destination=0xFFFF), end], 1, Error.RANGE, 0),
        ([put(legal, destination=0, frame=PARAMS.act_lines), end], 2, Error.RANGE, 0),
        # A layer that begins in another, ends before it is complete, or does not begin.
        ([put(legal, last=0), legal, end], 1, Error.RANGE, 1),
        ([put(legal, last=0), end], 1, Error.RANGE, 1),
        ([legal, put(legal, first=0), end], 1, Error.RANGE, 1),
        ([put(legal, tiles_x=2, last=0), *[put(legal, **two)] * SEGMENTS, end], 1, Error.RANGE, SEGMENTS),
        # Sums that were kept for a segment that does not come: written back, and the next run starts from zero.
        ([put(legal, last=0), put(legal, first=0, last=0), put(end, reserved3=1)], 1, Error.RESERVED, 2),
        # A refused tile takes nothing from the stream (which is empty here) and waits for nothing.
        ([put(legal, refill=1, words=0), end], 1, Error.RANGE, 0),
        ([put(legal, refill=1, tiles_y=2), end], 1, Error.RANGE, 0),
        ([legal] * PARAMS.descriptors, 1, Error.RANGE, PARAMS.descriptors),  # no END anywhere
        # The pointers of these lead anywhere, and so do the sums: a restart must follow.
        ([put(legal, source=0, wy=1, wx=1, vectors=beyond + 1, pointers=0, **inside), end], 1, Error.RANGE, 0),
        ([put(legal, source=0, wy=1, wx=1, vectors=3, pointers=PARAMS.pointer_blocks - 1, **inside), end], 1,
         Error.RANGE, 0),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def observed(tmp_path_factory, request, built):
    """One simulation of all scenarios, and the networks that it used."""
    rng = np.random.default_rng(request.config.getoption("seed"))
    batches = (1, 3, 2)
    images = [network(rng, 1500, 1), network(rng, 500, 3), network(rng, 2000, 2, tiles=4)]
    inputs = []
    for n, (image, batch) in enumerate(zip(images, batches, strict=True)):
        maps = [image.maps[number] for number in image.inputs]
        x = {info.name: random_input(rng, (info.height, info.width, info.channels), batch) for info in maps}
        if n != 1:  # dense: long enough to be interrupted
            x = {name: rng.integers(-32768, 32768, raw.shape).astype(np.int16) for name, raw in x.items()}
        inputs.append(x)
    networks = []
    for image, x, batch in zip(images, inputs, batches, strict=True):
        (part,) = chunks(image, engines.check_input(image, x)[0])
        words = {m.name: [[hex(w) for w in unit] for unit in units] for m, units in memory_words(image).items()}
        lines = [
            [hex(int.from_bytes(line.astype("<i2").tobytes(), "little")) for line in bank]
            for bank in part.inputs.transpose(1, 0, 2)
        ]
        networks.append({"words": words, "inputs": lines, "batch": batch, "lines": len(part.inputs),
                         "records": len(image.descriptors) - 1,
                         "tiles": refill_stream(image, batch).tobytes().hex()})  # fmt: skip
    illegal = refused_programs(images[0])
    folder = tmp_path_factory.mktemp("corners")
    job = {"params": PARAMS.asdict(), "watchdog": 2_000_000, "networks": networks, "moments": MOMENTS, "seed": 1,
           "illegal": [([hex(w) for w in words], batch, n >= len(illegal) - WILD)
                       for n, (words, batch, *_) in enumerate(illegal)]}  # fmt: skip
    (folder / "job.json").write_text(json.dumps(job))
    simulate(built, "sim.testbench.corners", folder, plusargs=("+verilator+rand+reset+2", "+verilator+seed+7"))
    return json.loads((folder / "results.json").read_text()), images, inputs, [(e, i) for *_, e, i in illegal]


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
    assert observed[0]["interrupt"] == {"silent": 0, "raised": 1, "cleared": 0}


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


def overlap(built, folder, seed, *plusargs, rounds=8):
    """What the bench of overlapping accesses says: what was wrong first, and what was seen."""
    (folder / "job.json").write_text(json.dumps({"params": PARAMS.asdict(), "seed": seed, "rounds": rounds}))
    simulate(built, "sim.testbench.overlap", folder, plusargs=("+verilator+rand+reset+2", *plusargs))
    return json.loads((folder / "results.json").read_text())


@pytest.mark.verifies("axi4-lite-three-hosts-once")
def test_accesses_may_overlap_in_any_way(built, tmp_path, seed):
    found = overlap(built, tmp_path, seed)
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
    found = overlap(built, tmp_path, seed, f"+fault_{fault}")
    assert found["wrong"] is not None
    assert found["wrong"].startswith(FAULTS[fault][3])
