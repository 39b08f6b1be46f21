from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest

from compiler.errors import ImageError
from compiler.image.words import memory_words
from compiler.lower.encode import encode
from compiler.lower.pack import pack
from hw.layouts import Error, Memory, Op, descriptor, fields, identity, refill_header
from hw.params import Params
from hw.registers import ID
from sim import run as engines
from sim.cases import random_input, random_network
from sim.program import chunks, layer_outputs, layer_records, record_numbers
from sim.rtl.build import build
from sim.rtl.engine import simulate, unpack_record

pytestmark = [pytest.mark.rtl, pytest.mark.slow]

PARAMS = Params(
    pes=4, rows=64, queue_depth=8, weight_words=128, pointer_blocks=64, act_lines=512, bias_words=512,
    codebooks=4, descriptors=16,
)  # fmt: skip


MOMENTS = 8  # at which a run in tiles is abandoned


def put(word: int, **values: int) -> int:
    """A descriptor with fields replaced."""
    for name, first, width in fields(descriptor(PARAMS)):
        if name in values:
            word = word & ~(((1 << width) - 1) << first) | values[name] << first
    return word


def network(rng, wanted, tiles=0):
    """A random network of at least `wanted` entries, so that it can be caught in the middle, in so many tiles."""
    while True:
        graph = random_network(rng, PARAMS, 160 if tiles else 96)
        with contextlib.suppress(ImageError):
            image = pack(graph, encode(graph))
            entries = sum(layer.nonzeros for layer in image.layers)
            refills = sum(step.refill for steps in image.steps for step in steps)
            enough = wanted < entries < 8000 and len(image.layers) > 1
            if enough and (refills >= tiles if tiles else not refills):
                return image


@pytest.fixture(scope="module")
def observed(tmp_path_factory, request):
    """One simulation of all scenarios, and the networks that it used."""
    rng = np.random.default_rng(request.config.getoption("seed"))
    images = [network(rng, 1500), network(rng, 500), network(rng, 2000, tiles=4)]
    inputs = [random_input(rng, image.inputs, 1) for image in images]
    for n in (0, 2):  # dense: long enough to be interrupted
        inputs[n][:] = rng.integers(-32768, 32768, inputs[n].shape)
    parts = [next(chunks(image, x)) for image, x in zip(images, inputs, strict=True)]
    networks = []
    for image, part in zip(images, parts, strict=True):
        words = {m.name: [[hex(w) for w in unit] for unit in units] for m, units in memory_words(image).items()
                 if m is not Memory.DESCRIPTORS}  # fmt: skip
        words["ACTIVATIONS"] = [
            [hex(int.from_bytes(line.astype("<i2").tobytes(), "little")) for line in bank]
            for bank in part.inputs.transpose(1, 0, 2)
        ]
        networks.append({"words": words, "descriptors": [hex(w) for w in part.descriptors],
                         "lines": len(part.inputs), "tiles": image.tiles.tobytes().hex()})  # fmt: skip
    legal, end = parts[0].descriptors[0], parts[0].descriptors[-1]
    illegal = [
        ([put(legal, op=Op.ILLEGAL.value), end], Error.OPCODE, 0),
        ([put(legal, op=Op.CONVOLUTION.value), end], Error.OPCODE, 0),
        ([legal, put(legal, function=2), end], Error.OPCODE, 1),
        ([put(legal, reserved0=1), end], Error.RESERVED, 0),
        ([legal, put(legal, reserved4=1 << 31), end], Error.RESERVED, 1),
        ([put(end, reserved2=5)], Error.RESERVED, 0),
        ([put(legal, act_vectors=0), end], Error.RANGE, 0),
        ([put(legal, slots=0), end], Error.RANGE, 0),
        ([put(legal, slots=PARAMS.rows + 1), end], Error.RANGE, 0),
        ([put(legal, source=PARAMS.act_lines), end], Error.RANGE, 0),
        ([put(legal, destination=0xFFFF), end], Error.RANGE, 0),
        ([put(legal, pointers=PARAMS.pointer_blocks), end], Error.RANGE, 0),
        ([put(legal, bias=PARAMS.bias_words - 1), end], Error.RANGE, 0),
        ([put(legal, codebook=PARAMS.codebooks), end], Error.RANGE, 0),
        ([put(legal, fragment_log2=3), end], Error.RANGE, 0),
        ([put(legal, slots=2, fragment_slots=3), end], Error.RANGE, 0),
        ([put(legal, fold=1, act_vectors=3, pointers=PARAMS.pointer_blocks - 1), end], Error.RANGE, 0),
        ([put(legal, reserved1=1), end], Error.RESERVED, 0),
        ([put(legal, op=Op.TILE.value), end], Error.OPCODE, 0),
        # Sums that were kept for a descriptor that does not come: written back, and the next run starts from zero.
        ([put(legal, keep=1), put(legal, slots=0), end], Error.RANGE, 1),
        ([put(legal, keep=1), put(legal, keep=1), put(end, reserved3=1)], Error.RESERVED, 2),
        # A refused tile takes nothing from the stream (which is empty here) and waits for nothing.
        ([put(legal, refill=1, act_vectors=0), end], Error.RANGE, 0),
        ([put(legal, chained=0)] * PARAMS.descriptors, Error.RANGE, PARAMS.descriptors),  # no END anywhere
    ]
    folder = tmp_path_factory.mktemp("corners")
    job = {"params": PARAMS.asdict(), "watchdog": 20_000, "networks": networks, "moments": MOMENTS, "seed": 1,
           "illegal": [[hex(w) for w in words] for words, _, _ in illegal]}  # fmt: skip
    (folder / "job.json").write_text(json.dumps(job))
    simulate(build(PARAMS), "sim.testbench.corners", folder, plusargs=("+verilator+rand+reset+2", "+verilator+seed+7"))
    return json.loads((folder / "results.json").read_text()), images, inputs, parts, [(e, i) for _, e, i in illegal]


def check_run(outcome, images, inputs, parts, timed=True):
    """Outputs of all layers equal golden, records equal the cycle model; returns the values compared."""
    number = outcome["network"]
    image, part = images[number], parts[number]
    memory = np.array([[np.frombuffer(int(word, 16).to_bytes(16, "little"), "<i2") for word in bank]
                       for bank in outcome["lines"]]).transpose(1, 0, 2)  # fmt: skip
    golden = engines.run(image, inputs[number], engine="golden")
    model = engines.run(image, inputs[number], engine="cycles")
    for got, expected in zip(layer_outputs(image, np.ascontiguousarray(memory), part), golden.layer_raw, strict=True):
        np.testing.assert_array_equal(got, expected)
    if timed:
        assert records_of(outcome, image) == model.records[0]
    assert outcome["status"]["done"]
    assert outcome["status"]["error"] == 0
    return sum(raw.size for raw in golden.layer_raw)


def records_of(outcome, image):
    """The record of each layer."""
    words = [int(outcome["records"][n], 16) for n in record_numbers(image, 1)]
    return layer_records(image, [unpack_record(image, word) for word in words])[0]


def test_two_networks_one_after_the_other_on_one_build(observed):
    results, *rest = observed
    assert sum(check_run(outcome, *rest[:3]) for outcome in results["plain"]) > 100
    assert [outcome["network"] for outcome in results["plain"]] == [0, 1, 0]


def test_start_and_memory_access_while_busy_are_refused_and_change_nothing(observed):
    results, *rest = observed
    check_run(results["refused"], *rest[:3])
    assert results["refused"]["during"]["refused"] == 1
    assert results["refused"]["status"]["refused"] == 1
    assert results["refused"]["cleared"] | {"index": 0} == {"busy": 0, "done": 0, "refused": 0, "error": 0, "index": 0}


def test_reset_and_restart_in_mid_layer_leave_nothing_behind(observed):
    results, *rest = observed
    assert len(results["restarted"]) == 8
    for outcome in results["restarted"]:
        check_run(outcome, *rest[:3])


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


def test_reset_and_restart_in_mid_tile_leave_nothing_behind(observed):
    """The stream is offered anew each time; what the abandoned run had taken of it does not matter."""
    results, *rest = observed
    image = rest[0][2]
    packets = packets_of(image.tiles)
    outcomes = results["tiles"]["restarted"]
    assert sum(check_run(outcome, *rest[:3]) for outcome in outcomes) > 100
    assert len(outcomes) == MOMENTS
    taken = [outcome["taken"] for outcome in outcomes]
    assert taken == sorted(taken)
    assert all(outcome["during"]["busy"] for outcome in outcomes)
    assert sum(0 < beats < len(image.tiles) for beats in taken) >= 3
    # Caught inside a packet, or between the packets of a tile: neither header nor buffer may survive.
    ends = {0, *(end for _, end, last in packets if last)}
    assert sum(beats not in ends for beats in taken) >= 2
    assert results["tiles"]["whole"][0]["taken"] == len(image.tiles)


def test_a_stream_that_stops_starves_the_array_until_it_is_restarted(observed):
    """No tile, or half of one: the run waits, computes nothing wrong, and a restart recovers it."""
    results, *rest = observed
    outcomes = results["tiles"]["starved"]
    tiles = len(rest[0][2].tiles)
    assert [outcome["taken"] for outcome in outcomes] == [int(tiles * 0.6), 0]
    for outcome in outcomes:
        assert outcome["during"]["busy"]
        assert not outcome["during"]["done"]
        check_run(outcome, *rest[:3])


def test_gaps_in_the_stream_cost_time_and_change_no_value(observed):
    results, *rest = observed
    whole, paused = results["tiles"]["whole"][0], results["tiles"]["paused"][0]
    check_run(whole, *rest[:3])
    check_run(paused, *rest[:3], timed=False)
    image = rest[0][2]
    before, after = (records_of(outcome, image) for outcome in (whole, paused))
    assert sum(record["refill"] for record in after) > sum(record["refill"] for record in before)
    assert after[-1]["written"] > before[-1]["written"]
    for one, other in zip(before, after, strict=True):
        assert [one[name] for name in ("entries", "padding", "skipped", "saturated")] == [
            other[name] for name in ("entries", "padding", "skipped", "saturated")
        ]


def test_interrupt_follows_done_and_enable(observed):
    assert observed[0]["interrupt"] == {"silent": 0, "raised": 1, "cleared": 0}


def test_illegal_descriptors_end_in_a_stated_error(observed):
    results, *_, expected = observed
    got = [(Error(outcome["status"]["error"]), outcome["status"]["index"]) for outcome in results["illegal"]]
    assert got == expected
    assert all(outcome["status"]["done"] and not outcome["status"]["busy"] for outcome in results["illegal"])


def test_the_array_runs_well_after_errors(observed):
    results, *rest = observed
    check_run(results["after"], *rest[:3])


def test_bus_answers_errors_and_identity(observed):
    bus = observed[0]["bus"]
    assert bus["unknown"]
    assert bus["partial"]
    assert bus["missing"]
    assert bus["kept"] == 3
    assert bus["weights"] == [0, 0]
    digest = int(identity(PARAMS), 16)
    assert bus["id"] == [ID, digest & 0xFFFFFFFF, digest >> 32, PARAMS.pes]
