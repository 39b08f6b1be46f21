"""The cycle model against the array: every record field of random programs, and every activation against numpy."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from compiler.cycles import model
from compiler.cycles.model import DISTANCES, Work, run_to_end
from compiler.image.steps import ElementwiseStep, LoopStep, Step
from hw.layouts import Error, Memory, fields, output_word
from hw.parity import found
from tests.hw.core_run import play
from tests.hw.program_operators import Loop, Operation
from tests.hw.programs import Program, random_program

Records = list[dict[str, int]]


def works(program: Program) -> list[Work | ElementwiseStep | LoopStep]:
    """What the model needs to know of a program."""
    ((first, _),) = ((first, width) for name, first, width in fields(output_word(program.params)) if name == "flush")
    flush = np.array([word >> first & 1 for word in program.memories[Memory.OUTPUTS][0]])
    result: list[Work | ElementwiseStep | LoopStep] = []
    for item in program.items:
        if isinstance(item, Operation):
            result.append(ElementwiseStep(**item.step))
        elif isinstance(item, Loop):
            result.append(LoopStep(**item.step))
        else:
            for segment in item:
                step = Step(**segment.step)
                flushes = np.flatnonzero(flush[step.outputs : step.outputs + step.words]).astype(np.int64)
                result.append(Work(step, segment.counts, segment.starts, segment.padding, flushes, segment.packets))
    return result


def modelled(program: Program, **changes: int) -> tuple[Records, int]:
    """Records and cycles of a run by the model, with some of its distances changed."""
    times, end = run_to_end(program.params, works(program), program.masks, distances=DISTANCES._replace(**changes))
    return [asdict(each) | {"saturated": count} for each, count in zip(times, program.saturated, strict=True)], end


SHORT = 25_000
"""PEs times cycles of a program that always runs; of longer ones, of which one takes half a minute in Amaranth's
simulator, `make regression` has some."""


def short_program(number: int, **how: Any) -> Program:
    """The program of a number, or of another if that takes long."""
    program = random_program(number, **how)
    while program.params.pes * modelled(program)[1] > SHORT:
        number += 500
        program = random_program(number, **how)
    return program


def compare(program: Program) -> tuple[tuple[Records, int], tuple[Records, int]]:
    """Run a program: activations are those of numpy, nothing is left. Returns records and cycles of array and model."""
    seen = play(program)
    assert seen.error is Error.NONE, f"program {program.seed}: {seen.error} at descriptor {seen.index}"
    wrong = np.argwhere((seen.acts != program.final).any(axis=2))
    assert not len(wrong), f"program {program.seed}: bank and line {wrong[0].tolist()} of {len(wrong)}"
    assert seen.sent == program.sent, f"program {program.seed}"
    assert not seen.wrong, f"program {program.seed}: no bit has flipped in {found(seen.wrong)}"
    assert not seen.left, f"program {program.seed}: a sum is left"
    assert (seen.beats, seen.taken) == (len(program.beats), len(program.taken)), f"program {program.seed}"
    return (seen.records, seen.cycles), modelled(program)


@pytest.mark.verifies("cycle-model-records-activation-random")
@pytest.mark.parametrize("number", range(16))
def test_records_and_activations_of_random_programs(number: int, seed: int) -> None:
    program = random_program(1000 * seed + number, pes=(1, 2, 4, 8)[number % 4], parity=number % 4 == 1)
    seen, expected = compare(program)
    assert seen == expected, f"program {program.seed}"


@pytest.mark.verifies("core-operators-there-used-change", "core-streams-there-used-change")
@pytest.mark.parametrize("number", [0, 2, 3])
@pytest.mark.parametrize("there", [{"tables": 2, "elementwise": True}, {"streams": True}], ids=["operators", "streams"])
def test_what_is_there_and_not_used_changes_nothing(there: dict[str, Any], number: int, seed: int) -> None:
    """A program without takes the same cycles on an array that has them, in every record, as on the one above."""
    plain = random_program(1000 * seed + number, pes=(1, 2, 4, 8)[number])
    assert (plain.params.elementwise, plain.params.tables, plain.params.streams) == (False, 0, False)
    seen, _ = compare(replace(plain, params=plain.params.replace(**there)))
    assert seen == modelled(plain), f"program {plain.seed}"


@pytest.mark.verifies("cycle-model-record-random-programs-operators", "core-random-programs-functions-operations")
@pytest.mark.parametrize("number", range(8))
def test_records_of_programs_with_operators(number: int, seed: int) -> None:
    """Elementwise operations, functions and loops among the layers."""
    program = short_program(1000 * seed + number, operators=True, parity=number % 4 == 1)
    records, expected = compare(program)
    assert records == expected, f"program {program.seed}"


@pytest.mark.verifies("cycle-model-record-random-programs")
@pytest.mark.parametrize("number", range(8))
def test_records_of_programs_with_streams(number: int, seed: int) -> None:
    """Maps that stream in, out, or both ways, among others; and when the last row is sent."""
    program = random_program(1000 * seed + number, streams=True, pes=(1, 2, 4, 16)[number % 4], parity=number % 4 == 1)
    seen, expected = compare(program)
    assert seen == expected, f"program {program.seed}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "drawn" in metafunc.fixturenames:
        metafunc.parametrize("drawn", range(100, 100 + metafunc.config.getoption("programs")))


@pytest.mark.verifies("cycle-model-record-random-programs", "cycle-model-records-activation-random")
@pytest.mark.parametrize("kind", ["layers", "operators", "streams"])
def test_records_and_activations_of_many_programs(
    kind: str, drawn: int, seed: int, request: pytest.FixtureRequest
) -> None:
    """As many as --programs says: a few here, hundreds in `make regression`.

    Every other one with streams has operations, functions and loops as well.
    """
    operators = kind == "operators" or (kind == "streams" and bool(drawn % 2))
    of = random_program if request.config.getoption("programs") > 10 else short_program
    program = of(1000 * seed + drawn, streams=kind == "streams", operators=operators)
    seen, expected = compare(program)
    assert seen == expected, f"program {program.seed}"


SLIM: dict[str, Any] = {"slim": True, "refill": False}


@pytest.mark.verifies("cycle-model-slim-arrays")
@pytest.mark.parametrize("number", range(6))
def test_records_and_activations_of_programs_on_slim_arrays(number: int, seed: int) -> None:
    """Each descriptor comes as many cycles later as it has words; with few or many layers."""
    changes = SLIM | ({"kind": "full", "layers": 1} if number % 2 else {})
    program = random_program(1000 * seed + number, pes=(1, 2, 8)[number % 3], **changes)
    seen, expected = compare(program)
    assert seen == expected, f"program {program.seed}"


@pytest.fixture(scope="module")
def watched() -> list[tuple[Program, tuple[Records, int]]]:
    """Programs of every kind with short queues, and what the array's records say."""
    kinds: list[dict[str, Any]] = [
        {"seed": 1, "pes": 2}, {"seed": 4, "pes": 2}, {"seed": 10, "pes": 2, "kind": "stream"},
        {"seed": 12, "pes": 2, "kind": "full", "layers": 5},
        *({"seed": seed, "pes": 2, "operators": True} for seed in (4, 14, 37)),
        *({"seed": seed, "pes": 2, "streams": True, "layers": 3} for seed in (0, 1, 33)),
        {"seed": 50, "pes": 2, "kind": "full", "layers": 1, **SLIM},  # END is found when all is written
    ]  # fmt: skip
    programs = [random_program(**each, queue_depth=6) for each in kinds]
    return [(program, compare(program)[0]) for program in programs]


@pytest.mark.verifies("planted-faults-distance-model-cycle")
@pytest.mark.parametrize("name", DISTANCES._fields)
@pytest.mark.parametrize("by", [-1, 1])
def test_a_distance_that_is_wrong_by_a_cycle_is_seen(
    watched: list[tuple[Program, tuple[Records, int]]], name: str, by: int
) -> None:
    for program, records in watched:
        assert modelled(program) == records, f"program {program.seed}"
    changed = {name: getattr(DISTANCES, name) + by}
    assert any(modelled(program, **changed) != records for program, records in watched)


@pytest.fixture(scope="module")
def far() -> list[tuple[Program, tuple[Records, int]]]:
    """Programs whose vectors and credit make two hops more, with the shortest queues that hold them."""
    programs = [random_program(seed, pes=2, queue_depth=10, hops=2, kind="full", layers=5) for seed in (2, 12)]
    return [(program, compare(program)[0]) for program in programs]


@pytest.mark.verifies("planted-faults-hops-cycle-model")
def test_fault_hops_that_the_model_does_not_know_are_seen(far, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(modelled(program) == records for program, records in far)
    monkeypatch.setattr(model, "distances_of", lambda params, known: known)
    assert any(modelled(program) != records for program, records in far)


@pytest.mark.verifies("planted-faults-hops-cycle-model")
@pytest.mark.parametrize("name", ["fire_to_queue", "credit", "round_trip"])
def test_fault_a_hop_more_or_less_is_seen(far, name: str) -> None:
    for by in (-1, 1):
        changed = {name: getattr(DISTANCES, name) + by}
        assert any(modelled(program, **changed) != records for program, records in far), by


@pytest.mark.verifies("cycle-model-slim-arrays")
def test_fault_fetches_that_the_model_does_not_know_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    program = random_program(50, pes=2, kind="full", layers=1, **SLIM)
    records = compare(program)[0]
    assert modelled(program) == records
    monkeypatch.setattr(model, "distances_of", lambda params, known: known)
    assert modelled(program) != records


@pytest.mark.verifies("counters-stop-largest-value-hardware")
def test_a_record_holds_32_bits_a_field():
    """Counters stop, as in the hardware; times wrap."""
    least = model.LayerTimes(*range(1, 11))
    assert model._as_read(least) == least
    far = model.LayerTimes(*(value + (1 << 32) for value in range(1, 11)))
    assert model._as_read(far) == model.LayerTimes(1, 2, 3, *[(1 << 32) - 1] * 7)
