"""What a host can do to the array: words, registers, packets and rows that lie, on its Verilog in Verilator."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError, InputError
from compiler.image.check import check
from compiler.image.image import Image
from compiler.image.words import memory_words
from compiler.lower.build import build
from compiler.options import Options
from hw.host import WRITABLE
from hw.layouts import Memory, descriptor, elementwise, fields, loop, memory_shape, output_word, refill_header
from hw.params import Params
from hw.registers import REGISTERS, mask, offset
from sim import run as engines
from sim.cases import random_input, random_network
from sim.driver.driver import Driver
from sim.driver.library import LibraryPort
from sim.driver.port import DriverError
from sim.fuzz.lies import number
from sim.fuzz.networks import lie_words
from sim.fuzz.target import Finding, Target
from sim.graph_cases import random_graph_case
from sim.program import chunks, refill_stream
from sim.streams import BEAT, given_maps
from sim.tiles import tile_ends

__all__ = ["TINY", "Traffic", "small_images"]

TINY = Params(
    pes=2, rows=8, queue_depth=6, weight_words=32, pointer_blocks=64, act_lines=64, output_words=64, codebooks=2,
    descriptors=16, code_bits=2, index_bits=4, tables=1,
)  # fmt: skip
"""The smallest array with every unit: its Verilog is built once, and runs a hundred thousand cycles a second."""

WATCHDOG = 12_000
"""Cycles that a run that lies is given; then it is given up by RESTART."""

RIGHT = 0.4
"""Seconds of the port's clock of 1 MHz after which a run that is right is late."""


@cache
def small_images(params: Params, count: int = 6) -> tuple[tuple[Image, tuple[NDArray[np.int16], ...]], ...]:
    """Images that fit such an array and use its units in turn, with inputs."""
    found: list[tuple[Image, tuple[NDArray[np.int16], ...]]] = []
    wanted = [
        lambda image: any(step.refill for steps in image.steps for step in steps),
        lambda image: any(steps and steps[0].stream_in for steps in image.steps),
        lambda image: bool(image.operations),
        lambda image: any(steps and steps[0].maximum for steps in image.steps),
        lambda image: any(steps and steps[0].tiles > 1 for steps in image.steps),
        lambda image: len(image.layers) > 1,
    ]
    for seed in range(4000):
        if len(found) >= count:
            break
        rng = np.random.default_rng([seed, 17])
        try:
            if seed % 2:
                image = build(random_network(rng, params), params, Options(stream_io=bool(seed % 4 == 1)))
            else:
                (image,) = random_graph_case(seed, params).network.images
        except (ImageError, ValueError, InputError):
            continue
        if wanted[len(found) % len(wanted)](image):
            maps = [image.maps[number] for number in image.inputs]
            x = tuple(random_input(rng, (each.height, each.width, each.channels), 1) for each in maps)
            found.append((image, x))
    return tuple(found)


class Traffic(Target):
    """The array at its ports. Whatever it was given: it answers, RESTART brings it back, and the next run is right."""

    name = "rtl"
    text = "words, register accesses, refill packets and rows of maps, on the Verilog of a small array"
    suffix = ".json"
    share = 2

    def prepare(self) -> None:
        """The array, and images with what golden makes of them."""
        LibraryPort(TINY).close()
        self._images = small_images(TINY)
        self._right = [self._golden(image, x) for image, x in self._images]

    @staticmethod
    def _golden(image: Image, x: tuple[NDArray[np.int16], ...]) -> dict[str, NDArray[np.int16]]:
        names = [image.maps[number].name for number in image.inputs]
        ran = engines.run(image, dict(zip(names, x, strict=True)), engine="golden")
        return {image.maps[number].name: ran.values[image.maps[number].name] for number in image.outputs}

    def make(self, random: Random) -> bytes:
        """The number of an image, and what is done to the array before and while it runs."""
        at = random.randrange(len(self._images))
        image = self._images[at][0]
        case: dict[str, Any] = {"image": at, "seed": random.getrandbits(31), "actions": []}
        if random.random() < 0.3:  # an image that lies; if its check does not see it, it must run as golden says
            name, layouts = random.choice((
                ("descriptors", (descriptor(TINY), elementwise(TINY), loop(TINY))), ("table", (output_word(TINY),)),
            ))  # fmt: skip
            case["lies"] = {name: lie_words(random, getattr(image, name), layouts).tolist()}
            return json.dumps(case).encode()
        for _ in range(random.choice((1, 1, 2, 4))):
            case["actions"].append(self._before(random, image))
        case["actions"].append(["start", random.choice((0, 0, 0, 0, 1, number(random, 0, 16))),
                                random.choice((1, 1, 1, 2, number(random, 1, 16)))])  # fmt: skip
        case["streams"] = self._streams(random, image)
        for _ in range(random.choice((0, 0, 1, 3))):
            case["actions"].append(self._access(random))
            case["actions"].append(["tick", random.choice((1, 10, 100, random.randrange(2000)))])
        return json.dumps(case).encode()

    @staticmethod
    def _before(random: Random, image: Image) -> list[Any]:
        """Something that lies before a run begins."""
        if random.random() < 0.5:
            words = image.descriptors
            made = lie_words(random, words, (descriptor(TINY), elementwise(TINY), loop(TINY)))
            at = random.choice(np.flatnonzero((made != words).any(axis=1)).tolist() or [0])
            return ["word", Memory.DESCRIPTORS.value, 0, at, hex(int.from_bytes(made[at].tobytes(), "little"))]
        if random.random() < 0.5:
            memory = random.choice([each for each in WRITABLE if memory_shape(TINY, each)[1]])
            units, words_there, width = memory_shape(TINY, memory)
            return ["word", memory.value, random.randrange(units), random.randrange(words_there),
                    hex(random.getrandbits(width))]  # fmt: skip
        return Traffic._access(random)

    @staticmethod
    def _access(random: Random) -> list[Any]:
        """One access that may be refused; of CONTROL more often than chance would."""
        place = random.choice([*(register.offset for register in REGISTERS), offset("CONTROL"), number(random, 0, 12)])
        if random.random() < 0.3:
            return ["read", place]
        value = random.choice((random.getrandbits(32), random.getrandbits(4), 1, 2, 3, 10, 11, number(random, 0, 32)))
        return ["write", place, value, random.choice((15, 15, 15, 15, random.randrange(16)))]

    @staticmethod
    def _streams(random: Random, image: Image) -> dict[str, Any]:
        """Beats that lie: (place, word) of changed ones, how many come, and where TLAST stands wrongly."""
        made: dict[str, Any] = {"room": random.choice((None, None, 0, 1, random.randrange(50)))}
        for name, beats in (("tiles", len(refill_stream(image, 1))), ("rows", 40)):
            some = max(1, beats)
            made[name] = {
                "share": random.choice((1.0, 1.0, 1.0, random.random(), 2.0)),
                "flip": [[random.randrange(some), random.randrange(16), random.randrange(1, 256)]
                         for _ in range(random.choice((0, 0, 1, 2)))],
                "ends": [random.randrange(some) for _ in range(random.choice((0, 0, 0, 1, 2)))],
            }  # fmt: skip
            if name == "tiles" and beats and random.random() < 0.5:  # a field of the first header
                _, first, width = random.choice(fields(refill_header(TINY)))
                bit = first + random.randrange(width)
                made[name]["flip"].append([0, bit // 8, 1 << bit % 8])
        return made

    def check(self, path: Path, random: Random) -> None:
        """The array states how the run ended, RESTART brings it back, and the right run is right."""
        case = json.loads(path.read_text())
        image, x = self._images[case["image"]]
        port = LibraryPort(TINY, seed=case["seed"])
        driver = Driver(port, timeout=RIGHT)
        try:
            if "lies" in case:
                self._lying(driver, image, x, case["lies"])
            else:
                self._abused(driver, image, x, case)
            port.room(None)
            self._again(driver, image, x, self._right[case["image"]])
        except DriverError as error:  # nothing that a host does may be without an answer, or break what is asserted
            raise Finding(str(error)) from None
        finally:
            port.close()

    def _lying(self, driver: Driver, image: Image, x: tuple[NDArray[np.int16], ...], lies: dict[str, Any]) -> None:
        """An image that lies and passes its check runs as golden says."""
        words: dict[str, Any] = {name: np.array(values, np.uint8) for name, values in lies.items()}
        wrong = dataclasses.replace(image, **words)
        try:
            check(wrong)
            right = self._golden(wrong, x)
        except ImageError:
            driver.image = None
            driver.check(TINY)
            driver.reset()
            for memory, units in memory_words(wrong).items():
                for unit, given in enumerate(units):
                    driver.load_words(TINY, memory, unit, 0, given[: memory_shape(TINY, memory)[1]])
            driver.write("BATCH", 1)
            driver.write("CONTROL", mask("CONTROL", "START"))
            self._watched(driver)
            return
        driver.load(wrong)
        found = driver.run(x).values
        for name, values in right.items():
            if not np.array_equal(found[name].reshape(values.shape), values):
                raise Finding(f"{name}: an image that passes its check is not what golden makes of it")

    def _abused(self, driver: Driver, image: Image, x: tuple[NDArray[np.int16], ...], case: dict[str, Any]) -> None:
        """Load what is right, then do what the case says."""
        port = driver.port
        assert isinstance(port, LibraryPort)
        driver.load(image)
        (chunk, *_) = chunks(image, x)
        for unit, lines in enumerate(chunk.inputs.transpose(1, 0, 2)):
            driver.load_words(TINY, Memory.ACTIVATIONS, unit, 0,
                              [int.from_bytes(line.astype("<i2").tobytes(), "little") for line in lines])  # fmt: skip
        self._offer(port, image, chunk.memory, case["streams"])
        for action, *rest in case["actions"]:
            if action == "word":
                memory, unit, address, word = rest
                if not driver.status().busy:
                    driver.load_words(TINY, Memory(memory), unit, address, [int(word, 16)])
            elif action == "start":
                for name, value in zip(("FIRST", "BATCH"), rest, strict=True):
                    driver.write(name, value)
                driver.write("CONTROL", mask("CONTROL", "START"))
            elif action == "tick":
                port.tick(rest[0])
            else:
                self._accessed(port, action, rest)
        self._watched(driver)

    @staticmethod
    def _offer(port: LibraryPort, image: Image, memory: NDArray[np.int16], lies: dict[str, Any]) -> None:
        """The streams of one sample, with the lies of a case."""
        tiles = refill_stream(image, 1)
        rows = [beats.reshape(-1, BEAT) for _, beats in sorted(given_maps(image, memory).items())]
        given = np.concatenate(rows) if rows else np.zeros((0, BEAT), np.uint8)
        port.room(lies["room"])
        for name, beats in (("tiles", tiles), ("rows", given)):
            ends = tile_ends(TINY, beats) if name == "tiles" else np.zeros(len(beats), np.bool_)
            told = lies[name]
            changed = beats.copy()
            for at, byte, bits in told["flip"]:
                if at < len(changed):
                    changed[at, byte] ^= bits
            for at in told["ends"]:
                if at < len(ends):
                    ends[at] = not ends[at]
            most = int(len(changed) * told["share"])
            changed, ends = np.tile(changed, (2, 1))[:most], np.tile(ends, 2)[:most]
            if len(changed):
                port.send(changed, ends) if name == "tiles" else port.give(changed)

    @staticmethod
    def _accessed(port: LibraryPort, action: str, rest: list[Any]) -> None:
        """An access is answered as the register map says."""
        place = rest[0] & 0xFFC
        register = next((each for each in REGISTERS if each.offset == place), None)
        if action == "read":
            response, _ = port.raw_read(rest[0])
            legal = register is not None
        else:
            _, value, strobes = rest
            response = port.raw_write(rest[0], value, strobes)
            legal = register is not None and register.access != "RO" and strobes == 15
            if legal and register is not None and register.access != "W1C":
                legal = not value & ~register.mask
        if response < 0:
            raise Finding(f"no answer to a {action} at {rest[0]:#x}")
        if place != offset("DATA") and (response == 0) != legal:
            raise Finding(f"a {action} at {rest} is answered with {response}; the register map says otherwise")

    @staticmethod
    def _watched(driver: Driver) -> None:
        """The run ends, or stands with BUSY until the watchdog; STATUS is read in any case.

        The driver raises if an access is not answered, or the design asserts that something is broken.
        """
        port = driver.port
        assert isinstance(port, LibraryPort)
        end = port.cycles + WATCHDOG
        while driver.status().busy and port.cycles < end:
            port.tick(200)

    def _again(
        self, driver: Driver, image: Image, x: tuple[NDArray[np.int16], ...], right: dict[str, NDArray[np.int16]]
    ) -> None:
        """After RESTART, which `Driver.load` begins with, the right image runs as golden says."""
        port = driver.port
        assert isinstance(port, LibraryPort)
        try:
            driver.write("INTERRUPT", 0)
            driver.load(image)
            found = driver.run(x).values
        except DriverError as error:
            raise Finding(f"after RESTART: {error}") from None
        if port.failure:
            raise Finding(f"an assertion of the design failed: {port.failure}")
        for name, values in right.items():
            if not np.array_equal(found[name].reshape(values.shape), values):
                raise Finding(f"after RESTART, {name} is not what golden makes")
