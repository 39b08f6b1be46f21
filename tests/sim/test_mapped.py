"""The mapped port: addresses and widths. No accelerator lies behind a file, so the suite of the ports cannot run."""

from __future__ import annotations

import mmap
import os
import struct
import sys
import threading

import numpy as np
import pytest

from hw.layouts import identity
from hw.registers import ID, REGISTERS, offset
from sim.driver.driver import Driver
from sim.driver.mapped import PAGE, MappedPort
from sim.driver.opening import open_port
from sim.driver.port import DriverError, PortError
from tests.sim.boards import SMALL


@pytest.fixture
def registers(tmp_path):
    """A file of two pages, the registers in the second; whatever is not written is 0xA5."""
    path = tmp_path / "registers"
    path.write_bytes(b"\xa5" * 2 * PAGE)
    return path


@pytest.mark.verifies("mapped-port-addresses-widths-accelerator")
def test_words_are_written_and_read_at_their_addresses_and_nowhere_else(registers, rng):
    before = bytearray(registers.read_bytes())
    with MappedPort(str(registers), PAGE) as port:
        for at in rng.permutation(PAGE // 4)[:100]:
            value = int(rng.integers(0, 1 << 32))
            port.write32(4 * int(at), value)
            struct.pack_into("<I", before, PAGE + 4 * int(at), value)
            assert port.read32(4 * int(at)) == value
    assert registers.read_bytes() == before


def test_a_block_goes_to_one_register(registers):
    before = registers.read_bytes()
    with MappedPort(str(registers), PAGE) as port:
        port.write_block(offset("DATA"), [1, 2, 3])
        assert port.read_block(offset("DATA"), 2) == [3, 3]
    at = PAGE + offset("DATA")
    assert registers.read_bytes() == before[:at] + struct.pack("<I", 3) + before[at + 4 :]


@pytest.mark.parametrize("wrong", [2, 0x2D, -4, PAGE])
def test_what_is_no_word_of_the_page_is_refused(registers, wrong):
    with MappedPort(str(registers)) as port:
        for access in (lambda: port.read32(wrong), lambda: port.write32(wrong, 0)):
            with pytest.raises(DriverError, match="no word"):
                access()


@pytest.mark.verifies("mapped-port-addresses-widths-accelerator")
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memfd_create")
def test_a_thread_behind_a_memfd_sees_each_word_whole():
    """Another mapping of the same memory, polled: a word that was written in parts would show."""
    number = os.memfd_create("registers")
    os.truncate(number, PAGE)
    seen, stop = set(), threading.Event()
    with mmap.mmap(number, PAGE) as page, memoryview(page).cast("I") as words:

        def serve():
            while not stop.is_set():
                seen.add(words[offset("FIRST") // 4])
                words[offset("STATUS") // 4] = words[offset("CONTROL") // 4]

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with MappedPort(f"/proc/self/fd/{number}") as port:
                for value in (0, 0xFFFFFFFF) * 2000:
                    port.write32(offset("FIRST"), value)
                port.write32(offset("CONTROL"), 0x12345678)
                while port.read32(offset("STATUS")) != 0x12345678:
                    pass
        finally:
            stop.set()
            thread.join()
    os.close(number)
    assert seen <= {0, 0xFFFFFFFF}


def test_the_identity_is_read_at_its_offsets(registers):
    with MappedPort(str(registers)) as port:
        with pytest.raises(DriverError, match=f"ID reads 0xa5a5a5a5; expected {ID:#x}"):
            Driver(port).check(SMALL)
        digest = int(identity(SMALL), 16)
        for name, value in (("ID", ID), ("HASH_LOW", digest & 0xFFFFFFFF), ("HASH_HIGH", digest >> 32)):
            port.write32(offset(name), value)
        Driver(port).check(SMALL)
        port.write32(offset("HASH_HIGH"), digest >> 32 ^ 1)
        with pytest.raises(DriverError, match=f"{identity(SMALL)}"):
            Driver(port).check(SMALL)
    assert len({register.offset for register in REGISTERS}) == len(REGISTERS)


def test_beats_go_to_the_function_that_was_given(registers):
    beats, ends = np.zeros((2, 16), np.uint8), np.array([False, True])
    with MappedPort(str(registers)) as port, pytest.raises(DriverError, match="streams weights"):
        port.send(beats, ends)
    given = []
    with MappedPort(str(registers), stream=lambda *of: given.append(of) or 1, forget=lambda: given.clear()) as port:
        assert port.send(beats, ends) == 1
        assert len(given) == 1
        port.forget()
        assert not given


@pytest.mark.parametrize(
    "name", ["mmap:/none", "mmap:{path}:3", "mmap:", "uart:/dev/ttyUSB0", "serial:/none", "serial:{path}", ""]
)
def test_ports_that_cannot_be_opened_say_so(registers, name):
    with pytest.raises(PortError, match=r"cannot be|no serial port|is no port"):
        open_port(name.format(path=registers), SMALL)


def test_names_of_ports(registers):
    with open_port(f"mmap:{registers}:0x1000", SMALL) as port:
        port.write32(0, 7)
    assert registers.read_bytes()[PAGE : PAGE + 4] == struct.pack("<I", 7)
    assert sys.byteorder == "little"
