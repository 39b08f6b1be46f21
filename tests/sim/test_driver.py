"""One suite over every port: nothing is preloaded, and what comes back is what the models say."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from compiler.lower.build import build
from compiler.lower.program import MapForm, Program, ProgramLayer, segment_of
from compiler.options import DEFAULT, Options
from hw.layouts import descriptor, fields, identity
from hw.registers import mask, offset
from sim import run as engines
from sim.driver.driver import Driver
from sim.driver.framed import ByteStream, FramedPort
from sim.driver.mapped import MappedPort
from sim.driver.port import DriverError, Port
from sim.driver.simulated import SimulatedPort
from sim.driver.streams import open_serial
from sim.driver.verilated import VerilatedPort
from sim.fpga.boards import BOARDS
from sim.fpga.netlist import netlist_plan, pins_port
from sim.program import chunks
from tests.sim.boards import SMALL, python_board

TIMED = ("accepted", "finished", "written", "starved", "blocked", "refill", "stream")
"""Fields of a record that depend on the pace of a stream."""
PORTS = [
    "amaranth",
    "serial",
    pytest.param("verilator", marks=[pytest.mark.rtl, pytest.mark.slow]),
    pytest.param("pins", marks=[pytest.mark.rtl, pytest.mark.slow]),
]


@pytest.fixture(scope="module", params=PORTS)
def way(request, tmp_path_factory):
    """A port, seconds after which a run of it hangs, and whether its stream is never late."""
    match request.param:
        case "amaranth":
            with SimulatedPort(SMALL) as port:
                yield SimpleNamespace(port=port, patience=0.002, paced=False)
        case "serial":
            with python_board(SMALL) as name, FramedPort(open_serial(name, 115200), timeout=60) as port:
                yield SimpleNamespace(port=port, patience=3.0, paced=True)
        case "verilator":
            with VerilatedPort(SMALL) as port:
                yield SimpleNamespace(port=port, patience=3.0, paced=False)
        case "pins":
            with pins_port(netlist_plan(BOARDS["colorlight-5a75b"], SMALL), "rtl", print) as port:
                yield SimpleNamespace(port=port, patience=3.0, paced=True)


def made(rng, widths, density, batch, options=DEFAULT):
    """A chain of layers of these widths, inputs first, with random weights, and samples for it."""
    book = np.array([0, -70, 31, 5], np.int16)
    maps = [MapForm(f"map{n}", width, 1, 1, 0) for n, width in enumerate(widths)]
    layers = []
    for n, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        shape = (outputs, 1, 1, inputs)
        codes = (rng.integers(1, 4, shape) * (rng.random(shape) < density)).astype(np.uint8)
        bias, shift = rng.integers(-5000, 5000, outputs), np.full(outputs, 5)
        layers.append(ProgramLayer(f"layer{n}", n + 1, (segment_of(n, codes, book),), bias, shift))
    image = build(Program(tuple(maps), tuple(layers), (0,), (len(layers),)), SMALL, options)
    x = rng.integers(-300, 300, (batch, widths[0])) * (rng.random((batch, widths[0])) < 0.6)
    return SimpleNamespace(image=image, x=x.astype(np.int16))


@pytest.fixture(scope="module")
def resident(request):
    """A chain that fits on chip, with more samples than do."""
    case = made(np.random.default_rng(request.config.getoption("seed")), [11, 16, 7], 0.4, 5)
    assert not len(case.image.tiles)
    assert SMALL.act_lines // case.image.frame < 5
    return case


@pytest.fixture(scope="module")
def streamed(request):
    """A chain whose first layer is larger than the weight memory."""
    case = made(np.random.default_rng(request.config.getoption("seed")), [40, 10, 5], 0.8, 2)
    assert len(case.image.tiles)
    return case


def check(driver, case, timed=True, **options):
    """Load, run, and compare every output bit and every field of every record with the models."""
    raw, _ = engines.check_input(case.image, case.x)
    driver.load(case.image, **options)
    found = driver.run(raw, **options)
    model = engines.run(case.image, case.x, engine="cycles")
    assert found.values
    for name, values in found.values.items():
        np.testing.assert_array_equal(values.reshape(model.values[name].shape), model.values[name])
    wanted, got = model.records, found.records
    if not timed:
        wanted, got = (
            [[{k: v for k, v in r.items() if k not in TIMED} for r in one] for one in of] for of in (wanted, got)
        )
    assert got == wanted
    assert len(found.cycles) == len(list(chunks(case.image, raw)))
    for cycles, records in zip(found.cycles, found.records, strict=True):
        assert cycles >= max(record["written"] for record in records)
    return found


@pytest.mark.verifies("driver-over-port-outputs-batch", "pins-pins-driver-terminal-board")
def test_a_batch_in_chunks_is_what_the_models_say(way, resident):
    assert len(check(Driver(way.port), resident, verify=True).cycles) > 1


@pytest.mark.verifies("driver-over-port-refill-tiles")
def test_tiles_are_streamed_while_the_array_runs(way, streamed):
    found = check(Driver(way.port), streamed, timed=not way.paced)
    assert sum(record["refill"] for one in found.records for record in one) > 0


@pytest.mark.verifies("driver-over-port-wrong-identity")
def test_an_image_for_another_array_is_refused_with_both_hashes(way, resident):
    other = SMALL.replace(queue_depth=7)
    with pytest.raises(DriverError, match=f"{identity(SMALL)}.*{identity(other)}"):
        Driver(way.port).load(dataclasses.replace(resident.image, params=other))


class Proxy(Port):
    """Another port, with a fault."""

    def __init__(self, port):
        self.port = port

    def read32(self, offset):
        return self.port.read32(offset)

    def write32(self, offset, value):
        self.port.write32(offset, value)

    def read_block(self, offset, count):
        return self.port.read_block(offset, count)

    def write_block(self, offset, values):
        self.port.write_block(offset, values)

    def send(self, beats, ends):
        return self.port.send(beats, ends)

    def give(self, beats):
        return self.port.give(beats)

    def take(self, most):
        return self.port.take(most)

    def pause(self):
        self.port.pause()

    def clock(self):
        return self.port.clock()


class NoStream(Proxy):
    """The stream takes two beats, and then nothing any more."""

    def __init__(self, port):
        super().__init__(port)
        self.sent = 0

    def send(self, beats, ends):
        taken = self.port.send(beats[: 2 - self.sent], ends[: 2 - self.sent]) if self.sent < 2 else 0
        self.sent += taken
        return taken


@pytest.mark.verifies("driver-over-port-wrong-identity")
def test_a_hung_array_is_a_timeout_that_says_what_was_read_and_the_next_run_is_right(way, streamed):
    driver = Driver(NoStream(way.port), timeout=way.patience)
    raw, _ = engines.check_input(streamed.image, streamed.x)
    driver.load(streamed.image)
    with pytest.raises(
        DriverError, match=r"nothing happened for .* beat 2 of .*STATUS 0x.*busy.*descriptor \d+.*CYCLES \d+"
    ):
        driver.run(raw)
    with pytest.raises(DriverError, match="nothing is loaded"):
        driver.run(raw)
    check(Driver(way.port), streamed, timed=not way.paced)


@pytest.mark.verifies("driver-over-port-wrong-identity")
def test_an_illegal_opcode_ends_the_run_by_name_and_descriptor(way, resident):
    places = {name: (first, width) for name, first, width in fields(descriptor(SMALL))}
    descriptors = resident.image.descriptors.copy()
    descriptors[1, 0] &= 0xFF & ~((1 << places["op"][1]) - 1)
    raw, _ = engines.check_input(resident.image, resident.x)
    driver = Driver(way.port)
    driver.load(dataclasses.replace(resident.image, descriptors=descriptors))
    with pytest.raises(DriverError, match="error OPCODE at descriptor 1"):
        driver.run(raw)


@pytest.mark.verifies("driver-over-port-wrong-identity")
def test_a_wrong_stream_ends_the_run_and_the_next_one_is_right(way, streamed):
    tiles = streamed.image.tiles.copy()
    tiles[0, 1] = 0xFF  # a PE that does not exist
    raw, _ = engines.check_input(streamed.image, streamed.x)
    driver = Driver(way.port)
    driver.load(dataclasses.replace(streamed.image, tiles=tiles))
    with pytest.raises(DriverError, match="error STREAM at descriptor"):
        driver.run(raw)
    check(driver, streamed, timed=not way.paced)


class FlipsWords(Proxy):
    """One bit of the fifth word of a block is wrong on its way to the accelerator."""

    def write_block(self, offset, values):
        flipped = list(values)
        if len(flipped) > 4:
            flipped[4] ^= 1 << 7
        self.port.write_block(offset, flipped)


@pytest.mark.verifies("planted-fault-word-stored-wrong")
def test_planted_fault_a_word_that_is_stored_wrong_is_read_back(way, resident):
    with pytest.raises(DriverError, match="word 0 of DESCRIPTORS, unit 0, reads back as"):
        Driver(FlipsWords(way.port)).load(resident.image, verify=True)


@pytest.mark.verifies("robust-read-back")
def test_an_engine_refuses_a_board_that_stores_a_word_wrongly(resident):
    with SimulatedPort(SMALL) as port, pytest.raises(DriverError, match="of DESCRIPTORS, unit 0, reads back as"):
        engines.run(resident.image, resident.x, engine="board", port=FlipsWords(port))


@pytest.mark.verifies("driver-over-port-wrong-identity")
def test_an_access_that_the_accelerator_refuses_names_the_register(way):
    with pytest.raises(DriverError, match=r"refuses a read at offset 0x40 \(no register\)"):
        way.port.read32(0x40)
    with pytest.raises(DriverError, match=r"refuses a write at offset 0x0c \(PES\)"):
        way.port.write32(offset("PES"), 1)
    assert way.port.read_block(offset("PES"), 70) == [1] * 70


@pytest.fixture(scope="module")
def ends(request):
    """A chain whose inputs and outputs stream, with more samples than the map between its layers leaves room for."""
    case = made(np.random.default_rng(request.config.getoption("seed")), [11, 16, 7], 0.4, 9, Options(stream_io=True))
    assert [each.off_chip for each in case.image.maps] == [True, False, True]
    return case


@pytest.mark.verifies("driver-inputs-outputs-streamed-over")
def test_inputs_and_outputs_are_streamed_while_the_array_runs(way, ends):
    found = check(Driver(way.port), ends, timed=not way.paced)
    assert len(found.cycles) == len(list(chunks(ends.image, engines.check_input(ends.image, ends.x)[0]))) > 1


class NoMaps(Proxy):
    """The stream of maps takes three vectors, and then nothing any more."""

    def __init__(self, port):
        super().__init__(port)
        self.given = 0

    def give(self, beats):
        taken = self.port.give(beats[: 3 - self.given]) if self.given < 3 else 0
        self.given += taken
        return taken

    def forget(self):
        self.port.forget()


@pytest.mark.verifies("driver-inputs-outputs-streamed-over")
def test_maps_that_do_not_come_are_a_timeout_and_the_next_run_is_right(way, ends):
    raw, _ = engines.check_input(ends.image, ends.x)
    driver = Driver(NoMaps(way.port), timeout=way.patience)
    driver.load(ends.image)
    with pytest.raises(DriverError, match=r"before \d+ more activation vectors are taken and \d+ more of its"):
        driver.run(raw)
    check(Driver(way.port), ends, timed=not way.paced)


@pytest.mark.verifies("vector-stands-port-dropped-restart")
def test_a_vector_at_the_port_is_dropped_when_its_source_begins_anew():
    """Until BUSY falls, and not by a restart alone."""
    with SimulatedPort(SMALL) as port:
        driver, one = Driver(port), np.zeros((1, 16), np.uint8)

        def restart(*names):
            driver.write("CONTROL", mask("CONTROL", *names))
            driver._until("the accumulators are clear", lambda status: not status.busy)
            return len(port._given)

        port.give(one)
        assert restart("RESTART") == 1
        assert restart("RESTART", "NEW_STREAM") == 0
        port.give(one)
        port.pause()
        assert len(port._given) == 1


class Doubles(Proxy):
    """The fault: the first vector of a map goes twice."""

    def give(self, beats):
        self.port.give(beats[:1])
        return self.port.give(beats)


@pytest.mark.verifies("planted-fault-vector-goes-twice")
def test_planted_fault_a_vector_that_goes_twice_is_seen(ends):
    with SimulatedPort(SMALL) as port:
        driver, raw = Driver(Doubles(port), timeout=0.002), engines.check_input(ends.image, ends.x)[0]
        driver.load(ends.image)
        model = engines.run(ends.image, ends.x, engine="golden")
        found = driver.run(raw).values
        assert any(not np.array_equal(found[name].reshape(model.values[name].shape), model.values[name])
                   for name in found)  # fmt: skip


@pytest.mark.verifies("driver-inputs-outputs-streamed-over")
def test_a_port_without_streams_of_maps_says_so(ends, tmp_path):
    with pytest.raises(DriverError, match="Refusing has no way"):
        Refusing().give(np.zeros((1, 16), np.uint8))
    (tmp_path / "registers").write_bytes(bytes(4096))
    with MappedPort(str(tmp_path / "registers")) as port:
        for way in (lambda: port.give(np.zeros((1, 16), np.uint8)), lambda: port.take(1)):
            with pytest.raises(DriverError, match=r"give MappedPort functions give\(beats\)"):
                way()


class Refusing(Port):
    """Registers that say nothing, and no streams."""

    def read32(self, offset):
        return 0

    def write32(self, offset, value):
        pass

    def send(self, beats, ends):
        return 0


# What only a line has: bits that flip, bytes that are lost.


class Noise(ByteStream):
    """A stream whose bytes pass through `sent` and `received`."""

    def __init__(self, stream):
        self.stream = stream
        self.sent = self.received = lambda content: content

    def write(self, content):
        self.stream.write(self.sent(content))

    def read(self, most, timeout):
        return self.received(self.stream.read(most, timeout))

    def close(self):
        self.stream.close()


@pytest.fixture(scope="module")
def line():
    with python_board(SMALL) as name, FramedPort(Noise(open_serial(name, 115200)), timeout=60, silence=0.2) as port:
        yield port


def flip(content, bit):
    changed = bytearray(content)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.verifies("serial-line-damaged-requests-sent")
def test_requests_that_are_damaged_on_the_wire_are_sent_again(line, resident, rng):
    sent = 0

    def damage(content):
        nonlocal sent
        sent += 1
        return flip(content, 8 * 6 + int(rng.integers(0, 8 * (len(content) - 6)))) if sent % 8 == 0 else content

    line.stream.sent = damage
    before = line.repeated
    try:
        check(Driver(line), resident)
    finally:
        line.stream.sent = lambda content: content
    assert line.repeated > before


@pytest.mark.verifies("serial-line-damaged-requests-sent")
def test_a_damaged_answer_is_an_error_and_loading_again_helps(line, resident):
    driver = Driver(line)
    driver.load(resident.image)
    line.stream.received = lambda content: flip(content, 8 * len(content) - 1) if content else content
    try:
        with pytest.raises(DriverError, match="damaged"):
            driver.status()
    finally:
        line.stream.received = lambda content: content
    check(driver, resident)


@pytest.mark.verifies("planted-fault-without-checksum-flipped")
def test_planted_fault_without_the_checksum_a_flipped_bit_is_taken(line, monkeypatch):
    line.write32(offset("FIRST"), 5)
    monkeypatch.setattr("sim.driver.framed.binascii.crc_hqx", lambda content, start: 0)
    line.stream.received = lambda content: flip(content, 8 * 4 + 1) if len(content) > 8 else content
    try:
        assert line.read32(offset("FIRST")) == 7
    finally:
        line.stream.received = lambda content: content


@pytest.mark.verifies("serial-line-damaged-requests-sent")
def test_lost_bytes_are_found_by_the_silence(line):
    line.write32(offset("FIRST"), 5)
    lost = [True]

    def lose(content):
        return content[:-3] if lost and lost.pop() else content

    line.stream.sent = lose
    before = line.repeated
    try:
        assert line.read32(offset("FIRST")) == 5
    finally:
        line.stream.sent = lambda content: content
    assert line.repeated == before + 1


@pytest.mark.verifies("serial-line-damaged-requests-sent")
def test_no_answer_is_an_error_in_time(line):
    line.stream.sent, line.timeout = lambda content: b"", 0.1
    try:
        with pytest.raises(DriverError, match=r"no answer within 0.1 s \(0 bytes of one came\)"):
            line.read32(0)
    finally:
        line.stream.sent, line.timeout = lambda content: content, 60
    assert line.read32(offset("PES")) == 1
