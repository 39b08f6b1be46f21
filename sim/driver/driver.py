"""Load an image into an accelerator, run batches, read results and counters."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.image.image import Image
from compiler.image.words import memory_words
from hw.host import READABLE
from hw.layouts import ACT_BITS, Error, Memory, fields, identity, memory_shape, record
from hw.params import LANES, Params
from hw.parity import found as found_wrong
from hw.registers import EVERY_REGISTER, ID, mask, offset
from sim.driver.feed import Feed
from sim.driver.port import DriverError, Port
from sim.program import Chunk, chunks, joined, layer_records, output_lines, outputs_of, record_numbers, words
from sim.streams import given_maps

__all__ = ["Driver", "Run", "Scrub", "Status"]


@dataclass(frozen=True)
class Status:
    """Fields of STATUS. index : descriptor at which the run stands or ended."""

    value: int

    def __getattr__(self, name: str) -> int:
        for field in next(register for register in EVERY_REGISTER if register.name == "STATUS").fields:
            if field.name.lower() == name:
                return (self.value & field.mask) >> field.first
        raise AttributeError(name)

    def __str__(self) -> str:
        flags = [name for name in ("busy", "done", "refused", "in_tile", "parity") if getattr(self, name)]
        return f"STATUS {self.value:#010x} ({', '.join(flags) or 'idle'}; error {self.reason}, descriptor {self.index})"

    @property
    def reason(self) -> str:
        """Name of the error with which the last run ended."""
        known = {error.value: error.name for error in Error}
        return known.get(self.error, str(self.error))


@dataclass(frozen=True)
class Run:
    """What a batch came to.

    values : int16 (batch, H, W, C) of each output, by the name of its map.
    records : for each start of the array, and each layer, times in cycles and counters.
    cycles : of each start, as the accelerator counts them.
    """

    values: dict[str, NDArray[np.int16]]
    records: list[list[dict[str, int]]]
    cycles: list[int]


@dataclass(frozen=True)
class Scrub:
    """What `Driver.scrub` found.

    differs : memories and units that read back as something else than the image, as ``"DESCRIPTORS 0"``. crc32 : of
    each that was read, CRC-32 of the image's words and of what was read, 32-bit parts in their order, low byte first.
    rewritten : memories that cannot be read, and were written again.
    parity : memories of which a word was used with the wrong parity since the image was loaded.
    """

    differs: tuple[str, ...]
    crc32: dict[str, tuple[int, int]]
    rewritten: tuple[str, ...]
    parity: tuple[str, ...]


class Driver:
    """One accelerator behind a port.

    Parameters
    ----------
    port : the way to it; `sim.driver.open_port` opens one by name.
    timeout : seconds that a run may take without progress.

    Raises
    ------
    DriverError
        Methods: the accelerator is another one, refuses an access, ends a run with an error, or does not end it.
    """

    def __init__(self, port: Port, *, timeout: float = 30.0) -> None:
        self.port, self.timeout = port, timeout
        self.image: Image | None = None
        """What is loaded."""

    def read(self, register: str) -> int:
        """Read a register by name."""
        return self.port.read32(offset(register))

    def write(self, register: str, value: int) -> None:
        """Write a register by name."""
        self.port.write32(offset(register), value)

    def status(self) -> Status:
        """Read STATUS."""
        return Status(self.read("STATUS"))

    def check(self, params: Params) -> None:
        """See whether there is an accelerator of these parameters.

        Raises
        ------
        DriverError
            There is none, or one of other parameters or layouts.
        """
        found = self.read("ID")
        if found != ID:
            raise DriverError(
                f"ID reads {found:#010x}; expected {ID:#010x} (the letters EIE1): there is no accelerator at this "
                "port, or not at this offset"
            )
        digest = f"{self.read('HASH_HIGH'):08x}{self.read('HASH_LOW'):08x}"
        if digest != identity(params):
            raise DriverError(
                f"the accelerator has the parameter hash {digest} and {self.read('PES')} PEs; the image is for "
                f"{identity(params)}, {params.pes} PEs: compile it with the parameters of the accelerator"
            )

    def reset(self) -> None:
        """Abandon what runs, and what is left of its streams."""
        # A beat that stands at the pins is taken after the first restart, and forgotten by the second.
        for names in (("RESTART",), ("RESTART", "NEW_STREAM")):
            self.port.forget()
            self.write("CONTROL", mask("CONTROL", *names))
            self._until("the accumulators are clear", lambda status: not status.busy)

    def load_words(self, params: Params, memory: Memory, unit: int, address: int, values: Sequence[int]) -> None:
        """Write successive words of a memory."""
        parts = -(-memory_shape(params, memory)[2] // 32)
        self._select(memory, unit, address)
        self.port.write_block(
            offset("DATA"), [(word >> 32 * part) & 0xFFFFFFFF for word in values for part in range(parts)]
        )

    def fetch_words(self, params: Params, memory: Memory, unit: int, address: int, count: int) -> list[int]:
        """Read successive words of a memory that can be read (`hw.host.READABLE`)."""
        parts = -(-memory_shape(params, memory)[2] // 32)
        self._select(memory, unit, address)
        found = self.port.read_block(offset("DATA"), count * parts)
        return [
            sum(part << 32 * n for n, part in enumerate(found[at : at + parts])) for at in range(0, len(found), parts)
        ]

    def _select(self, memory: Memory, unit: int, address: int) -> None:
        self.write("SELECT", memory.value | unit << 8)
        self.write("ADDRESS", address)

    def load(self, image: Image, *, verify: bool = False) -> None:
        """Check the accelerator, abandon what runs, and write every memory of an image.

        Parameters
        ----------
        verify : read back what can be read (the descriptors) and compare; `run` does the same with inputs. Weights,
            pointers, codebooks, output and function tables cannot be read.

        Raises
        ------
        DriverError
            The accelerator is another one, or a word reads back wrong.
        """
        self.check(image.params)
        self.image = None
        self.reset()
        self._forget_parity(image.params)
        for memory, units in memory_words(image).items():
            for unit, values in enumerate(units):
                self.load_words(image.params, memory, unit, 0, values)
                if verify and memory in READABLE:
                    self._compare(image.params, memory, unit, values)
        self.image = image

    def parity(self) -> tuple[str, ...]:
        """Kinds of memory (`hw.parity.KINDS`) of which a word was used that had the wrong parity, since the last load.

        Raises
        ------
        DriverError
            The array has no parity: it refuses the register.
        """
        return tuple(filter(None, found_wrong(self.read("PARITY")).split(", ")))

    def _forget_parity(self, params: Params) -> None:
        if params.parity:
            self.write("PARITY", mask("PARITY"))

    def scrub(self, image: Image) -> Scrub:
        """Find what has changed in the memories since `image` was loaded, and make them right again.

        What can be read is read back, and its CRC-32 compared with the image's. Weights, pointers, codebooks, output
        and function tables cannot be read, and are written again. What differs is written again as well, so that the
        array then holds the image. In an array with parity the register PARITY is read and cleared. It takes about as
        long as `load`; between runs of a batch nothing else has to be loaded again.

        Parameters
        ----------
        image : what was loaded.

        Raises
        ------
        DriverError
            The accelerator is another one, is busy, or does not take a word: what was written reads back wrong.
        """
        self.check(image.params)
        if (status := self.status()).busy:
            raise DriverError(f"the array runs ({status}); expected scrub(image) between runs")
        crc32: dict[str, tuple[int, int]] = {}
        differs, rewritten = [], []
        for memory, units in memory_words(image).items():
            if memory not in READABLE:
                rewritten.append(memory.name)
            for unit, values in enumerate(units):
                if memory in READABLE:
                    name = f"{memory.name} {unit}"
                    there = self.fetch_words(image.params, memory, unit, 0, len(values))
                    crc32[name] = _crc(image.params, memory, values), _crc(image.params, memory, there)
                    if crc32[name][0] == crc32[name][1]:
                        continue
                    differs.append(name)
                self.load_words(image.params, memory, unit, 0, values)
                if memory in READABLE:
                    self._compare(image.params, memory, unit, values)
        parity = self.parity() if image.params.parity else ()  # also what was read here
        self._forget_parity(image.params)
        return Scrub(tuple(differs), crc32, tuple(rewritten), parity)

    def _check_parity(self, image: Image) -> None:
        """An error if a word was used whose parity was wrong."""
        if image.params.parity and (wrong := ", ".join(self.parity())):
            self.image = None
            raise DriverError(
                f"the parity of a word was wrong in {wrong}: a bit has flipped there, and results are not to be "
                "trusted; load the image again"
            )

    def _compare(self, params: Params, memory: Memory, unit: int, values: Sequence[int]) -> None:
        for address, (found, given) in enumerate(
            zip(self.fetch_words(params, memory, unit, 0, len(values)), values, strict=True)
        ):
            if found != given:
                raise DriverError(
                    f"word {address} of {memory.name}, unit {unit}, reads back as {found:#x}; {given:#x} was written"
                )

    def run(
        self, inputs: Sequence[NDArray[np.int16]], *, verify: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Run:  # fmt: skip
        """Run a batch through the loaded image, as many samples at a time as fit on chip.

        Parameters
        ----------
        inputs : raw int16 (batch, H, W, C) of each input of the image.
        verify : read the inputs back before each start.
        progress : called with (samples done, samples).

        Raises
        ------
        DriverError
            Nothing is loaded, the run fails, or the parity of a word was wrong; the accelerator is then loaded anew.
        """
        image = self.image
        if image is None:
            raise DriverError("nothing is loaded; expected load(image) before run(inputs)")
        values, records, cycles = [], [], []
        for chunk in chunks(image, inputs):
            resident = any(not image.maps[number].off_chip for number in image.inputs)
            for unit, lines in enumerate(words(chunk.inputs) if resident else []):
                given = [int.from_bytes(line.tobytes(), "little") for line in lines]
                self.load_words(image.params, Memory.ACTIVATIONS, unit, 0, given)
                if verify:
                    self._compare(image.params, Memory.ACTIVATIONS, unit, given)
            taken = self._start(image, chunk)
            values.append(self._outputs(image, chunk.count, taken))
            records += self._records(image)
            cycles.append(self.read("CYCLES"))
            self._check_parity(image)
            if progress:
                progress(chunk.first + chunk.count, len(inputs[0]))
        return Run(joined(values), layer_records(image, records), cycles)

    def _start(self, image: Image, chunk: Chunk) -> dict[int, NDArray[np.uint8]]:
        """One run of the array with all its streams; what came out of the maps off chip."""
        feed = Feed(self.port, image, chunk.count, given_maps(image, chunk.memory))
        self.write("FIRST", 0)
        self.write("BATCH", chunk.count)
        self.write("STATUS", mask("STATUS", "DONE", "REFUSED"))
        try:
            feed.ahead()
            self.write("CONTROL", mask("CONTROL", "START"))
            while not (status := self._until_progress(feed)).done:
                pass
            if not status.error:
                # The run ends when the last vector has left the array; it may still be on its way here.
                self._until(feed.missing, lambda status: feed.collected())
            if status.error:
                self._check_parity(image)
            if status.error or feed.missing:
                how = f"with error {status.reason} at descriptor {status.index}" if status.error else "too early"
                rest = f"; missing: {feed.missing}" if not status.error else ""
                raise DriverError(f"the run ended {how}{feed.sent}{rest}")
        except DriverError:
            self.image = None
            raise
        return {} if feed.outside is None else feed.outside.maps

    def _until_progress(self, feed: Feed) -> Status:
        """Feed the run until something moves, or it has ended."""

        def moved(status: Status) -> bool:
            return feed.step() or bool(status.done)

        return self._until(feed.missing or "the run ends", moved)

    def _until(self, what: str, reached: Callable[[Status], bool]) -> Status:
        """Look at STATUS until `reached` says that it is so."""
        deadline = self.port.clock() + self.timeout
        while not reached(status := self.status()):
            if self.port.clock() > deadline:
                raise DriverError(
                    f"nothing happened for {self.timeout:g} s before {what}: {status}, CYCLES {self.read('CYCLES')}"
                )
            self.port.pause()
        return status

    def _outputs(
        self, image: Image, count: int, taken: Mapping[int, NDArray[np.uint8]]
    ) -> dict[str, NDArray[np.int16]]:  # fmt: skip
        """Outputs from activation memory, and from what came by stream."""
        groups = image.params.groups
        lines = np.array(output_lines(image, count), np.int64)
        memory = np.zeros((len(lines), groups, LANES), np.int16)
        places = np.arange(len(lines))
        for part in np.split(places, np.flatnonzero(np.diff(lines) != 1) + 1) if len(lines) else []:
            for unit in range(groups):
                found = self.fetch_words(image.params, Memory.ACTIVATIONS, unit, int(lines[part[0]]), len(part))
                raw = b"".join(word.to_bytes(LANES * ACT_BITS // 8, "little") for word in found)
                memory[part, unit] = np.frombuffer(raw, "<i2").reshape(-1, LANES)
        return outputs_of(image, count, memory, taken)

    def _records(self, image: Image) -> list[dict[str, int]]:
        """The record of each layer."""
        places = fields(record(image.params))
        found = [self.fetch_words(image.params, Memory.RECORDS, 0, n, 1)[0] for n in record_numbers(image)]
        return [{name: word >> first & (1 << width) - 1 for name, first, width in places} for word in found]


def _crc(params: Params, memory: Memory, values: Sequence[int]) -> int:
    """CRC-32 of the words of a memory, as their 32-bit parts go over the port."""
    size = 4 * -(-memory_shape(params, memory)[2] // 32)
    return zlib.crc32(b"".join(word.to_bytes(size, "little") for word in values))
