"""Load an image into an accelerator, run batches, read results and counters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiler.image.image import Image
from compiler.image.rings import must_be_resident
from compiler.image.words import memory_words
from hw.host import READABLE
from hw.layouts import ACT_BITS, Error, Memory, fields, identity, memory_shape, record
from hw.params import LANES, Params
from hw.registers import ID, REGISTERS, mask, offset
from sim.driver.port import DriverError, Port
from sim.program import chunks, joined, layer_records, map_values, output_lines, record_numbers, refill_stream, words
from sim.tiles import tile_ends

__all__ = ["Driver", "Run", "Status"]

OFFERED = 64
"""Beats that are offered to the refill stream between two looks at the run."""


@dataclass(frozen=True)
class Status:
    """Fields of STATUS. index : descriptor at which the run stands or ended."""

    value: int

    def __getattr__(self, name: str) -> int:
        for field in next(register for register in REGISTERS if register.name == "STATUS").fields:
            if field.name.lower() == name:
                return (self.value & field.mask) >> field.first
        raise AttributeError(name)

    def __str__(self) -> str:
        flags = [name for name in ("busy", "done", "refused", "in_tile") if getattr(self, name)]
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
        """Abandon what runs, and what is left of a refill stream."""
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
        ImageError
            Maps of the image stream in or out, which this driver does not do.
        DriverError
            The accelerator is another one, or a word reads back wrong.
        """
        must_be_resident(image, "this driver")
        self.check(image.params)
        self.image = None
        self.reset()
        for memory, units in memory_words(image).items():
            for unit, values in enumerate(units):
                self.load_words(image.params, memory, unit, 0, values)
                if verify and memory in READABLE:
                    self._compare(image.params, memory, unit, values)
        self.image = image

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
            Nothing is loaded, or the run fails; the accelerator is then loaded anew.
        """
        image = self.image
        if image is None:
            raise DriverError("nothing is loaded; expected load(image) before run(inputs)")
        values, records, cycles = [], [], []
        for chunk in chunks(image, inputs):
            for unit, lines in enumerate(words(chunk.inputs)):
                given = [int.from_bytes(line.tobytes(), "little") for line in lines]
                self.load_words(image.params, Memory.ACTIVATIONS, unit, 0, given)
                if verify:
                    self._compare(image.params, Memory.ACTIVATIONS, unit, given)
            self._start(image, chunk.count)
            values.append(self._outputs(image, chunk.count))
            records += self._records(image)
            cycles.append(self.read("CYCLES"))
            if progress:
                progress(chunk.first + chunk.count, len(inputs[0]))
        return Run(joined(values), layer_records(image, records), cycles)

    def _start(self, image: Image, count: int) -> None:
        """One run of the array, its refill stream included."""
        beats = refill_stream(image, count)
        ends = tile_ends(image.params, beats)
        self.write("FIRST", 0)
        self.write("BATCH", count)
        self.write("STATUS", mask("STATUS", "DONE", "REFUSED"))
        at, ahead = 0, -1
        while ahead < at:  # as many as are taken before the run
            ahead, at = at, self._send(beats, ends, at)
        self.write("CONTROL", mask("CONTROL", "START"))
        try:
            while at < len(beats):
                at, status = self._until_progress(beats, ends, at)
                if status.done:
                    break
            status = self._until("the run ends", lambda status: bool(status.done))
            if status.error or at < len(beats):
                how = f"with error {status.reason} at descriptor {status.index}" if status.error else "too early"
                sent = f", when {at} of {len(beats)} beats of its refill stream were sent" if len(beats) else ""
                raise DriverError(f"the run ended {how}{sent}")
        except DriverError:
            self.image = None
            raise

    def _send(self, beats: NDArray[np.uint8], ends: NDArray[np.bool_], at: int) -> int:
        """Offer the next beats; returns where the stream stands then."""
        if at == len(beats):
            return at
        return at + self.port.send(beats[at : at + OFFERED], ends[at : at + OFFERED])

    def _until_progress(self, beats: NDArray[np.uint8], ends: NDArray[np.bool_], at: int) -> tuple[int, Status]:
        """Offer beats until some are taken, or the run has ended."""
        sent = at

        def moved(status: Status) -> bool:
            nonlocal sent
            if status.done:
                return True
            sent = self._send(beats, ends, sent)
            return sent > at

        status = self._until(f"beat {at} of {len(beats)} of the refill stream is taken", moved)
        return sent, status

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

    def _outputs(self, image: Image, count: int) -> dict[str, NDArray[np.int16]]:
        """Outputs from activation memory."""
        groups = image.params.groups
        memory = np.zeros((count * image.frame, groups, LANES), np.int16)
        lines = np.array(output_lines(image, count))
        for part in np.split(lines, np.flatnonzero(np.diff(lines) != 1) + 1):
            for unit in range(groups):
                found = self.fetch_words(image.params, Memory.ACTIVATIONS, unit, int(part[0]), len(part))
                raw = b"".join(word.to_bytes(LANES * ACT_BITS // 8, "little") for word in found)
                memory[part, unit] = np.frombuffer(raw, "<i2").reshape(-1, LANES)
        frames = memory.reshape(count, image.frame, groups, LANES)
        return {image.maps[number].name: map_values(image, number, frames) for number in image.outputs}

    def _records(self, image: Image) -> list[dict[str, int]]:
        """The record of each layer."""
        places = fields(record(image.params))
        found = [self.fetch_words(image.params, Memory.RECORDS, 0, n, 1)[0] for n in record_numbers(image)]
        return [{name: word >> first & (1 << width) - 1 for name, first, width in places} for word in found]
