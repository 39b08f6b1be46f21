"""Parity from outside: the driver names the memory, scrubbing mends it, and the Verilog tells of flipped bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from compiler.image.image import Image
from compiler.image.words import memory_words, stored_words
from compiler.lower.build import build
from compiler.lower.program import MapForm, Program, ProgramLayer, segment_of
from hw.layouts import Memory
from hw.params import Params
from hw.registers import mask
from sim import run as engines
from sim.coverage.disturbed import flip_case, flips_told
from sim.decode import decode
from sim.driver.driver import Driver
from sim.driver.port import DriverError
from sim.driver.simulated import SimulatedPort
from sim.rtl.engine import RtlError, run_rtl, scope
from sim.suites import SUITES
from tests.sim.boards import SMALL

CHECKED = SMALL.replace(parity=True, streams=False, refill=False)


def made(rng: np.random.Generator, params: Params) -> tuple[Image, Any]:
    """One layer without a zero, and a sample without one: every word that is loaded is used."""
    shape = (8, 1, 1, 16)
    codes, book = rng.integers(1, 4, shape).astype(np.uint8), np.array([0, -70, 31, 5], np.int16)
    maps = (MapForm("x", 16, 1, 1, 0), MapForm("y", 8, 1, 1, 0))
    layer = ProgramLayer("layer", 1, (segment_of(0, codes, book),), rng.integers(-99, 99, 8), np.full(8, 5))
    image = build(Program(maps, (layer,), (0,), (1,)), params)
    raw, _ = engines.check_input(image, rng.integers(1, 300, (1, 16)).astype(np.int16))
    return image, raw


def core_memory(port: SimulatedPort, memory: Memory) -> Any:
    """The first unit of a memory in the simulated array."""
    core = port.dut.core
    return {
        Memory.WEIGHTS: core.pes[0].weight_read.memory, Memory.DESCRIPTORS: core.descriptors,
        Memory.OUTPUTS: core.writebacks[0].memory,
    }[memory]  # fmt: skip


def flip(port: SimulatedPort, memory: Memory, address: int, bit: int) -> None:
    """Change a bit of a word behind the back of the array."""
    words = core_memory(port, memory).data

    async def work(ctx: Any) -> None:
        ctx.set(words[address], ctx.get(words[address]) ^ 1 << bit)

    port._do(work)


@contextlib.contextmanager
def at_port(rng: np.random.Generator, params: Params) -> Iterator[tuple[Driver, SimulatedPort, Image, Any]]:
    """A driver with an image loaded, its port, and inputs."""
    image, raw = made(rng, params)
    with SimulatedPort(params) as port:
        driver = Driver(port, timeout=0.01)
        driver.load(image)
        yield driver, port, image, raw


def interrupted(port: SimulatedPort) -> bool:
    """Whether the interrupt is high."""

    async def look(ctx: Any) -> bool:
        return bool(ctx.get(port.dut.irq))

    return bool(port._do(look))


@pytest.mark.verifies("parity-driver-names-memory", "driver-scrub-compares-and-mends")
def test_the_driver_names_the_memory_and_scrubbing_mends_it(rng: np.random.Generator) -> None:
    with at_port(rng, CHECKED) as (driver, port, image, raw):
        assert not driver.status().parity
        flip(port, Memory.WEIGHTS, 0, int(rng.integers(image.params.word_bytes * 8)))
        driver.write("INTERRUPT", mask("INTERRUPT", "PARITY"))
        with pytest.raises(DriverError, match="parity of a word was wrong in WEIGHTS"):
            driver.run(raw)
        with pytest.raises(DriverError, match="nothing is loaded"):
            driver.run(raw)
        driver.reset()  # which leaves it as it is
        assert driver.status().parity
        assert interrupted(port)
        flip(port, Memory.DESCRIPTORS, 0, 40)
        found = driver.scrub(image)
        assert (found.differs, found.parity) == (("DESCRIPTORS 0",), ("WEIGHTS", "DESCRIPTORS"))
        assert not driver.status().parity
        assert not interrupted(port)


@pytest.mark.verifies("driver-scrub-compares-and-mends")
def test_an_array_without_parity_is_scrubbed_too(rng: np.random.Generator) -> None:
    with at_port(rng, CHECKED.replace(parity=False)) as (driver, port, image, raw):
        flip(port, Memory.DESCRIPTORS, 0, 40)
        flip(port, Memory.OUTPUTS, 0, 3)
        found = driver.scrub(image)
        (name,) = found.crc32
        assert (found.differs, found.parity) == ((name,), ())
        assert found.crc32[name][0] != found.crc32[name][1]
        assert found.rewritten == ("WEIGHTS", "POINTERS", "CODEBOOK", "OUTPUTS")
        model = engines.run(image, raw[0].reshape(1, -1), engine="golden")
        assert np.array_equal(driver.run(raw).values["y"].reshape(1, -1), model.values["y"].reshape(1, -1))
        with pytest.raises(DriverError, match=r"refuses a read.*PARITY"):
            driver.parity()


@pytest.mark.verifies("parity-words-preloaded")
def test_what_is_preloaded_has_its_parity(rng: np.random.Generator) -> None:
    for params in (CHECKED, CHECKED.replace(slim=True)):
        image, _ = made(rng, params)
        for memory, units in stored_words(image).items():
            assert all(word.bit_count() % 2 == 0 for unit in units for word in unit), memory
        plain = made(rng, params.replace(parity=False))[0]
        assert memory_words(image).keys() == memory_words(plain).keys()


@pytest.mark.verifies("parity-verilog-tells-flips")
@pytest.mark.rtl
def test_flips_are_told_by_the_verilog(rng: np.random.Generator) -> None:
    """Memories start with random contents: whatever is used without having been written would be told as well."""
    image, raw = made(rng, SUITES["rtl"].arrays[0])  # which other tests build
    assert image.params.parity
    program = decode(image)
    model = engines.run(image, raw[0].reshape(1, -1), engine="cycles")
    seen = run_rtl(image, raw, program, bus=True)
    assert np.array_equal(seen.values["y"].reshape(1, -1), model.values["y"].reshape(1, -1))
    assert seen.records == model.records
    places = {Memory.WEIGHTS: 0, Memory.POINTERS: 1, Memory.ACTIVATIONS: 0, Memory.OUTPUTS: 2}
    flips = [(scope(memory, 0), address, int(rng.integers(6))) for memory, address in places.items()]
    with pytest.raises(RtlError, match=r"parity of a word was wrong: WEIGHTS, POINTERS, ACTIVATIONS, OUTPUTS$"):
        run_rtl(image, raw, program, flips=flips)
    # All kinds at once, also what only a run writes; no value changes.
    assert flips_told(flip_case(int(rng.integers(1 << 20)), image.params)) is None
