"""The random programs themselves: a seed replays, and together they have everything in them."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest

from compiler.image.steps import AnyStep, ElementwiseStep, LoopStep, Step, parse_program
from hw.layouts import Join, Memory, descriptor, fields, output_word
from tests.hw.program_operators import Loop, Operation
from tests.hw.programs import KINDS, Program, random_program


@pytest.fixture(scope="module")
def programs() -> list[Program]:
    return [random_program(number) for number in range(60)]


@pytest.mark.verifies("programs-tests-core-models-everything")
def test_a_seed_replays() -> None:
    first, again, other = random_program(5), random_program(5), random_program(6)
    assert first.memories == again.memories
    assert first.beats == again.beats
    assert np.array_equal(first.final, again.final)
    assert first.saturated == again.saturated
    assert replace(first, seed=6).memories != other.memories


@pytest.mark.verifies("programs-tests-core-models-everything")
def test_arguments_are_kept() -> None:
    for kind in KINDS:
        program = random_program(3, kind=kind, batch=2, layers=2, pes=4, queue_depth=7)
        assert (program.batch, len(program.layers)) == (2, 2)
        assert (program.params.pes, program.params.queue_depth) == (4, 7)
        maximum = {segment.step["maximum"] for layer in program.layers for segment in layer}
        assert maximum == {int(kind == "pool")}


@pytest.mark.verifies("programs-tests-core-models-everything")
def test_the_programs_have_everything_in_them(programs: list[Program]) -> None:
    steps = [segment.step for program in programs for layer in program.layers for segment in layer]
    for name in ("chained", "dense", "maximum", "refill", "buffer"):
        assert {step[name] for step in steps} == {0, 1}, name
    assert any(step["tiles_y"] * step["tiles_x"] > 1 for step in steps)
    assert any(step["y0"] < 0 for step in steps)
    assert any(step["x0"] < 0 for step in steps)
    assert any(step["dy"] > 1 and step["wy"] > 1 for step in steps)
    assert any(step["step_x"] > 1 and step["tiles_x"] > 1 for step in steps)
    assert any(step["row_pitch"] > step["tiles_x"] * step["row_lines"] for step in steps)
    assert {len(layer) for program in programs for layer in program.layers} >= {1, 2, 3}
    assert {program.batch for program in programs} == {1, 2, 3}
    assert {program.params.pes for program in programs} == {1, 2, 4, 8, 16}
    assert any(segment.padding.any() for program in programs for layer in program.layers for segment in layer)
    assert sum(map(sum, (program.saturated for program in programs)))


def test_programs_with_operators_have_everything_in_them() -> None:
    programs = [random_program(number, operators=True) for number in range(40)]
    items = [item for program in programs for item in program.items]
    operations = [item.step for item in items if isinstance(item, Operation)]
    for name in ("has_b", "has_c", "has_e", "moves_a", "moves_b", "moves_c", "moves_result", "functions"):
        assert {step[name] for step in operations} == {0, 1}, name
    assert any(step["result"] in (step["a"], step["c"]) for step in operations)
    assert any(step["low"] > -32768 for step in operations)
    assert any(step["high"] < 32767 for step in operations)
    steps = [segment.step for item in items if isinstance(item, list) for segment in item]
    for name in ("barrier", "chained", "moves_source", "moves_result", "functions", "refill"):
        assert {step[name] for step in steps} == {0, 1}, name
    loops = [item.step for item in items if isinstance(item, Loop)]
    assert {step["count"] for step in loops} == {1, 2, 3, 4}
    assert {step["pitch"] > 0 for step in loops} == {False, True}


def test_descriptors_read_back_as_the_steps_that_they_were() -> None:
    for number in range(10):
        program = random_program(number, operators=True)
        size = descriptor(program.params).size // 8
        words = program.memories[Memory.DESCRIPTORS][0]
        rows = np.array([np.frombuffer(word.to_bytes(size, "little"), np.uint8) for word in words])
        expected: list[AnyStep] = []
        for item in program.items:
            if isinstance(item, Operation):
                expected.append(ElementwiseStep(**item.step))
            elif isinstance(item, Loop):
                expected.append(LoopStep(**item.step))
            else:
                expected += [Step(**segment.step) for segment in item]
        assert parse_program(program.params, rows) == expected


@pytest.mark.verifies("programs-tests-core-models-everything")
def test_the_output_table_has_everything_in_it(programs: list[Program]) -> None:
    seen = set()
    for program in programs:
        places = {name: (first, width) for name, first, width in fields(output_word(program.params))}
        for words in program.memories[Memory.OUTPUTS]:
            for word in words:
                join, last, flush = (word >> places[n][0] & (1 << places[n][1]) - 1 for n in ("join", "last", "flush"))
                seen.add((Join(join), bool(last), bool(flush)))
    assert seen >= {(join, last, False) for join in Join for last in (False, True)}
    assert (Join.START, False, True) in seen  # a dummy that keeps a group in step


@pytest.mark.verifies("programs-tests-core-models-everything")
def test_all_groups_flush_in_the_same_words(programs: list[Program]) -> None:
    for program in programs:
        ((flush, _),) = (place[1:] for place in fields(output_word(program.params)) if place[0] == "flush")
        tables = program.memories[Memory.OUTPUTS]
        assert len(list(groupby([[word >> flush & 1 for word in words] for words in tables]))) == 1
