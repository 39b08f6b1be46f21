"""Counts of accesses, against every enable of the hardware's memories and against plain loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from compiler.image.image import Image
from compiler.image.steps import ElementwiseStep, Step, executions
from hw.core import Core
from hw.layouts import fields, output_word
from hw.mac import Mac
from hw.params import LANES, Params
from sim import accesses
from sim.accesses import ACCESSES, Counts, count, scanned
from sim.amaranth_engine import run_amaranth
from sim.cases import random_case
from sim.decode import decode
from sim.golden_array import Layer, run_layers
from sim.network import run_network
from sim.program import chunks, frames, refill_stream
from sim.recurrent_cases import KINDS
from sim.run import check_input
from sim.stream_cases import random_ends_case
from sim.streams import Outside, given_maps, transfers
from sim.timing import works
from tests.arrays import COMMON
from tests.sim.test_recurrent import compiled
from tests.sim.test_streams import small

# Of these the hardware has no enable of its own; the test of each is another one, or its definition.
NOT_WATCHED = {"multiplications", "additions", "accumulator_reads", "table_reads", "pe_cycles", "stream_beats",
               "map_beats"}  # fmt: skip
ONE_GROUP = Params(
    pes=4, rows=64, weight_words=1024, pointer_blocks=1024, act_lines=1024, output_words=1024, codebooks=4,
    descriptors=64, queue_depth=6, index_bits=4,
)  # fmt: skip


def summed(found: Counts) -> Counter[str]:
    total: Counter[str] = Counter()
    for layer in found.layers:
        total.update(layer)
    return total


def accumulator_writes(mac: Mac, get: Callable[[Any], int]) -> int:
    """Enables of both banks; a maximum that a near one keeps is counted as if it were written, as docs/energy.md says.

    Entries are counted where they come in, a cycle before they are added.
    """
    if not mac.params.near:
        return sum(get(bank.w_en) for bank in mac.banks)
    clears = [(mac.drain.clear & (mac.drain.bank == n)) | mac.drain.clear_all for n in range(2)]
    return get(mac.i.valid) + sum(map(get, clears))


def watched(image: Image, x: Any) -> Counter[str]:
    """How often each enable is set while the array runs, in Amaranth's simulator."""
    seen: Counter[str] = Counter()

    def watch(core: Core, get: Callable[[Any], int]) -> None:
        for pe in core.pes:
            seen["weight_reads"] += get(pe.weight_read.memory.r_en)
            seen["weight_writes"] += get(pe.weight_read.memory.w_en)
            seen["pointer_reads"] += get(pe.pointer_read.memory.r_en)
            seen["pointer_writes"] += get(pe.pointer_read.memory.w_en)
            seen["queue_reads"] += get(pe.queue.o.valid & pe.queue.o.ready)  # each is read once, to be taken
            seen["queue_writes"] += get(pe.queue.i.valid)
            seen["codebook_reads"] += get(pe.weight_decode.memory.r_en)
            seen["working_cycles"] += get(pe.weight_read.o.valid)
            seen["accumulator_writes"] += accumulator_writes(pe.mac, get)
        for acts, writeback in zip(core.acts, core.writebacks, strict=True):
            seen["activation_reads"] += get(acts.r_en)
            seen["activation_writes"] += get(acts.w_en)
            seen["output_reads"] += get(writeback.memory.r_en)
            if image.params.elementwise:
                seen["operand_writes"] += get(core.elementwise.put.valid)
                seen["operand_reads"] += 2 * get(core.elementwise.step.valid)
        if image.params.streams:
            seen["lines_out"] += get(core.stream_out.r_en) * image.params.groups
        seen["descriptor_reads"] += get(core.descriptors.r_en)

    raw, _ = check_input(image, x)
    run_amaranth(image, raw, decode(image), watch=watch)
    return seen


def differing(found: Counter[str], seen: Counter[str]) -> list[str]:
    return [name for name in ACCESSES if name not in NOT_WATCHED and found[name] != seen[name]]


@pytest.mark.verifies("accesses-run-enables-memory-hardware")
@pytest.mark.parametrize("number", range(5))
def test_counts_are_the_enables_of_the_memories(number: int, seed: int) -> None:
    params = ONE_GROUP if number < 3 else None
    case = random_case(1000 * seed + number, params, max_batch=2)
    found = count(case.image, case.x)
    assert differing(summed(found), watched(case.image, case.x)) == []
    for layer, record in zip(found.layers, found.records, strict=True):
        assert layer["working_cycles"] == record["entries"]


@pytest.mark.verifies("accesses-run-enables-memory-hardware")
def test_streamed_weights_are_counted(seed: int) -> None:
    cases = (random_case(1000 * seed + n, max_batch=2) for n in range(100))
    case = next(each for each in cases if len(each.image.tiles) and each.image.params.pes <= 8)
    found = summed(count(case.image, case.x))
    raw, _ = check_input(case.image, case.x)
    given = [refill_stream(case.image, chunk.count) for chunk in chunks(case.image, raw)]
    assert found["stream_beats"] == sum(map(len, given)) > found["weight_writes"] > 0
    assert differing(found, watched(case.image, case.x)) == []


@pytest.mark.verifies("accesses-run-enables-memory-hardware")
@pytest.mark.parametrize("kind", KINDS[:2])
def test_loops_and_operations_are_counted(kind: str, seed: int) -> None:
    network, x, _ = compiled(1000 * seed, kind, array=COMMON, steps=3, size=9)
    given: list[tuple[Image, Any]] = []
    run_network(network, x, watch=lambda image, maps: given.append((image, maps)))
    ((image, maps),) = given
    found, seen = summed(count(image, maps)), watched(image, maps)
    assert found["operand_reads"] > 0
    assert found["table_reads"] == looked_up(image, len(x)) > 0
    # A vector of the scan whose word an operation's read has replaced is read again: that is not counted.
    assert differing(found, seen) in ([], ["activation_reads"])
    assert 0 <= seen["activation_reads"] - found["activation_reads"] <= found["operand_writes"]


def looked_up(image: Image, samples: int) -> int:
    """Pieces of function tables, word by word of the output table."""
    places = {name: (first, width) for name, first, width in fields(output_word(image.params))}
    groups, total = image.params.groups, 0
    for first, _ in executions(image.program):
        step = image.program[first]
        if isinstance(step, ElementwiseStep):
            total += step.functions * step.lines * groups * LANES * samples
        elif isinstance(step, Step) and step.functions:
            for group, number in np.ndindex(groups, step.words):
                word = int.from_bytes(image.table[group, step.outputs + number].tobytes(), "little")
                last, function = (
                    word >> places[name][0] & (1 << places[name][1]) - 1 for name in ("last", "function")
                )  # fmt: skip
                total += step.tiles * samples * (last and function > 0)
    return total


def plain(image: Image, x: Any) -> Counter[str]:
    """The same with loops, from the definition of each count."""
    params, total = image.params, Counter[str]()
    raw, _ = check_input(image, x)
    program = decode(image)
    runs = list(run_layers(program, frames(image, raw), params.acc_bits, masks=True))
    every = works(image)
    for (number, _), ran in zip(program.rounds, runs, strict=True):
        layer = program.layers[number]
        assert isinstance(layer, Layer)
        for n, mask in enumerate(ran.masks):
            work = every[image.numbers[number] + n]
            step = work.step
            for sample in range(len(mask)):
                for ty, tx, i, j in np.ndindex(step.tiles_y, step.tiles_x, step.wy, step.wx):
                    y = step.y0 + ty * step.step_y + i * step.dy
                    column = step.x0 + tx * step.step_x + j * step.dx
                    if not (0 <= y < step.height and 0 <= column < step.width):
                        total["skipped"] += 1
                        continue
                    for v in range(step.vectors):
                        bits = 255 if step.dense else int(mask[sample, y, column, v])
                        total["activation_reads"] += params.groups
                        if not bits:
                            total["skipped"] += 1
                            continue
                        block = (i * step.wx + j) * step.vectors + v
                        for pe in range(params.pes):
                            total["pointer_reads"] += 1
                            own = 0
                            for lane in range(LANES):
                                entries = int(work.counts[block, lane, pe])
                                if bits >> lane & 1 and entries:
                                    first = int(work.starts[block, lane, pe])
                                    total["weight_reads"] += (first + entries - 1) // LANES + 1
                                    own += entries
                            total["queue_writes"] += own > 0
                            total["multiplications"] += own * (not layer.maximum)
                            total["additions"] += own
            samples = len(mask)
        words = layer.step.words * params.groups * layer.step.tiles * samples
        total["additions"] += words
    total["accumulator_reads"] = total["additions"]
    return total


@pytest.mark.verifies("accesses-against-plain-loops")
@pytest.mark.parametrize("number", range(20))
def test_counts_are_those_of_plain_loops(number: int, seed: int) -> None:
    case = random_case(77_000 * seed + number, max_batch=2)
    made, right = count(case.image, case.x), plain(case.image, case.x)
    found = summed(made)
    found["skipped"] = sum(record["skipped"] for record in made.records)
    assert {name: found[name] for name in right} == dict(right)


@cache
def streaming(name: str) -> tuple[Image, Any, Counter[str]]:
    """An image whose maps stream, its inputs, and the enables that the hardware sets."""
    case = small() if name == "rings" else random_ends_case(2, ONE_GROUP)
    given: list[tuple[Image, Any]] = []
    run_network(case.network, case.x, watch=lambda image, maps: given.append((image, maps)))
    image, maps = given[0]
    return image, maps, watched(image, maps)


def compared(name: str) -> list[str]:
    """What differs between counts and enables; reads that are made again are allowed for."""
    image, maps, seen = streaming(name)
    found = summed(count(image, maps))
    again = seen["activation_reads"] - found["activation_reads"]
    samples = len(next(iter(maps.values())))
    good = sum(accesses._transfer(each, samples)["activation_reads"] for each in transfers(image)) == seen["lines_out"]
    good = good and 0 <= again <= seen["lines_out"]
    return [each for each in differing(found, seen) if each != "activation_reads" or not good]


@pytest.mark.verifies("accesses-streamed-maps-enables-memory")
@pytest.mark.parametrize("name", [pytest.param("rings", marks=pytest.mark.slow), "ends"])
def test_rows_that_stream_are_counted(name: str) -> None:
    """Each vector that comes is written, each line that goes is read; beats are what the host sends and takes."""
    image, maps, _ = streaming(name)
    assert compared(name) == []
    plan, beats = transfers(image), 0
    for chunk in chunks(image, check_input(image, maps)[0]):
        beats += sum(Outside(plan, chunk.count, given_maps(image, chunk.memory)).left)
    assert summed(count(image, maps))["map_beats"] == beats > 0


@pytest.mark.verifies("accesses-streamed-maps-enables-memory")
@pytest.mark.parametrize("lost", ["activation_reads", "activation_writes"])
def test_fault_of_what_streams_is_seen(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = accesses._transfer
    monkeypatch.setattr(accesses, "_transfer", lambda *of: {**counted(*of), lost: 0})
    assert lost in compared("ends")


@pytest.mark.verifies("planted-faults-count-off")
@pytest.mark.parametrize("name", ["words", "jobs", "read", "entries"])
def test_fault_a_count_that_is_one_off_is_caught(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(1000 * seed, ONE_GROUP, max_batch=1)
    right = scanned

    def wrong(*given: Any) -> Any:
        made = right(*given)
        return replace(made, **{name: getattr(made, name) + 1})

    monkeypatch.setattr(accesses, "scanned", wrong)
    assert differing(summed(count(case.image, case.x)), watched(case.image, case.x)) != []
