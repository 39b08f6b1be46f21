"""A reset in any cycle of a run, and streams that stop: the next run is right. On Verilog; EIE_FUZZ=1."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from compiler.image.image import Image
from hw.registers import mask
from sim import run as engines
from sim.driver.driver import Driver
from sim.driver.feed import Feed
from sim.driver.library import LibraryPort
from sim.driver.port import DriverError
from sim.fuzz import traffic
from sim.fuzz.traffic import TINY, Traffic, small_images
from sim.fuzz.worker import Runner
from sim.program import chunks
from sim.streams import given_maps

pytestmark = [
    pytest.mark.rtl, pytest.mark.slow, pytest.mark.timeout(3000),
    pytest.mark.skipif(not os.environ.get("EIE_FUZZ"), reason="builds for a minute, runs for another: EIE_FUZZ=1"),
]  # fmt: skip


@pytest.fixture(scope="module")
def images() -> tuple:
    return small_images(TINY)


@pytest.fixture
def driver() -> Iterator[Driver]:
    with LibraryPort(TINY) as port:
        yield Driver(port, timeout=0.05)


def right(image: Image, x: tuple) -> dict:
    names = [image.maps[number].name for number in image.inputs]
    values = engines.run(image, dict(zip(names, x, strict=True)), engine="golden").values
    return {image.maps[number].name: values[image.maps[number].name] for number in image.outputs}


def equal(found: dict, wanted: dict) -> bool:
    return all(np.array_equal(found[name].reshape(values.shape), values) for name, values in wanted.items())


def begun(driver: Driver, image: Image, x: tuple, cycles: int) -> None:
    """A run that is some cycles under way, all beats of its streams before the pins."""
    (chunk,) = chunks(image, x)
    Feed(driver.port, image, chunk.count, given_maps(image, chunk.memory)).ahead()
    driver.write("BATCH", chunk.count)
    driver.write("CONTROL", mask("CONTROL", "START"))
    driver.port.tick(cycles)  # type: ignore[attr-defined]


@pytest.mark.verifies("robust-reset-every-cycle")
@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("how", ["reset", "restart"])
def test_a_reset_in_any_cycle_leaves_nothing_behind(driver: Driver, images: tuple, number: int, how: str) -> None:
    """By the reset line the memories keep what they hold, so only inputs are loaded anew; or by RESTART."""
    image, x = images[number]
    wanted = right(image, x)
    driver.load(image)
    assert equal(driver.run(x).values, wanted)
    port, whole = driver.port, driver.read("CYCLES")
    assert isinstance(port, LibraryPort)
    for cycle in range(whole + 3):
        begun(driver, image, x, cycle)
        if how == "reset":
            port.forget()
            port.reset()
            assert driver.read("CYCLES") == 0
        else:
            driver.reset()
        status = driver.status()
        assert not status.done, cycle
        assert equal(driver.run(x).values, wanted), cycle
    assert not port.failure


@pytest.mark.verifies("robust-streams-stop")
@pytest.mark.parametrize("number", [0, 1])
def test_a_stream_that_stops_is_an_error_in_time_and_the_next_run_is_right(
    driver: Driver, images: tuple, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any number of beats: of weights for image 0, of a map for image 1."""
    image, x = images[number]
    wanted = right(image, x)
    name = "send" if number == 0 else "give"
    given = getattr(driver.port, name)
    for most in range(0, 30):
        driver.load(image)
        left = [most]

        def some(beats: np.ndarray, *ends: np.ndarray, left: list[int] = left) -> int:
            count = min(left[0], len(beats))
            left[0] -= count
            if count:
                given(beats[:count], *(each[:count] for each in ends))
            return count

        monkeypatch.setattr(driver.port, name, some)
        said = ""
        try:
            driver.run(x)
        except DriverError as error:
            said = str(error)
        monkeypatch.setattr(driver.port, name, given)
        if not said:
            break
        assert said.startswith("nothing happened for 0.05 s before"), said
        assert driver.image is None
        driver.load(image)
        assert equal(driver.run(x).values, wanted), most
    else:
        pytest.fail("the stream has more beats than were tried")


@pytest.mark.verifies("fuzz-ports")
def test_lies_at_the_ports_leave_nothing_behind(seed: int) -> None:
    runner = Runner({"rtl": Traffic()})
    found = runner.chunk("rtl", seed, 0, 200)
    runner.close()
    assert found.failures == []


class Forgets(LibraryPort):
    """An array for which RESTART means nothing."""

    def write32(self, offset: int, value: int) -> None:
        super().write32(offset, value & ~2 if offset == 0x10 else value)


class Answers(LibraryPort):
    """An array that takes writes of part of a word."""

    def raw_write(self, offset: int, value: int, strobes: int = 15) -> int:
        return super().raw_write(offset, value, 15)


@pytest.mark.verifies("fuzz-ports")
@pytest.mark.parametrize("planted", [Forgets, Answers])
def test_planted_faults_at_the_port_are_found(planted: type[LibraryPort], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "LibraryPort", planted)
    runner = Runner({"rtl": Traffic()})
    found = runner.chunk("rtl", 1, 0, 150)
    runner.close()
    assert {failure.kind for failure in found.failures} == {"wrong"}
