"""Core: the array with scan, control, write-back and all memories; no bus."""

from __future__ import annotations

from amaranth import Array, Cat, Elaboratable, Module, Mux, ResetInserter, ResetSignal, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.control import Control
from hw.counters import Counters
from hw.descriptor_memory import SlimDescriptors
from hw.drain import Drain
from hw.elementwise import Elementwise
from hw.layouts import ACT_BITS, REFILL_BITS, Error, Memory, descriptor
from hw.params import LANES, Params
from hw.parity import ACCUMULATORS, KINDS, OPERANDS, QUEUE
from hw.pe import ProcessingElement
from hw.platform import placed
from hw.recorder import Recorder
from hw.refill import Refill
from hw.scan import Scan
from hw.sram import Sram
from hw.stream_in import StreamIn
from hw.stream_out import StreamOut
from hw.streams import beat, broadcast, host_write, memory_read, memory_write, out_beat
from hw.write_queue import WriteQueue
from hw.writeback import Writeback

__all__ = ["PE_MODULE", "READABLE", "READ_LATENCY", "WRITEBACK_MODULE", "Core"]

PE_MODULE = "eie_pe"
WRITEBACK_MODULE = "eie_writeback"
READABLE = (Memory.ACTIVATIONS, Memory.DESCRIPTORS, Memory.RECORDS)
"""Memories that the host reads. The others would each need the host in front of the address of their read port, which
is where the clock of a PE is decided, and a tree of multiplexers over all PEs."""
READ_LATENCY = 3
"""Cycles from a host read request to its data."""


class Core(wiring.Component):
    """Everything between the host port and the multipliers.

    Timing: a run of layers takes the cycles that `compiler.cycles.model` computes, exactly. The credit flags of all PEs
    are one register deep and combine in the cycle of the broadcast; the broadcast is registered once on
    its way to the PEs. With ``params.hops`` the flags of a group of PEs combine in front of as many registers, and the
    broadcast passes as many in each PE.

    Members
    -------
    restart : synchronous reset of everything but the memories; the accumulators are then cleared.
    start, first, batch, busy, done, error, index : see `Control`.
    running : a run is under way. now : cycles since start, counting while the run lasts.
    write : a memory word, one a cycle, while not busy; from registers (it leads to every memory).
    tiles : the refill stream, taken while busy (only with ``params.refill``).
    astray : it is wrong (see `Refill`). The run is abandoned as by a restart, and ends with an error when the
        accumulators are clear.
    acts_in, acts_out : maps that stream in, taken while busy, and maps that stream out (only with ``params.streams``).
    read, read_data : request and, `READ_LATENCY` cycles later, this part of the word (activations, descriptors and
        records only), only while neither ``busy`` nor ``settling``, which the host sees to: a request itself chooses
        who reads, so that no path leads from the state of control to the memories.
    settling : the last record is being written, up to 14 cycles after the end of a run.
    wrong : for each of `hw.parity.KINDS`, a word that was used a few cycles ago had the wrong parity (only with
        ``params.parity``).
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "restart": In(1),
            "start": In(1), "first": In(16), "batch": In(16),
            "busy": Out(1), "done": Out(1), "error": Out(Error), "index": Out(16),
            "running": Out(1), "now": Out(32),
            "write": In(stream.Signature(memory_write(params), always_ready=True)),
            "read": In(stream.Signature(memory_read(params), always_ready=True)),
            "read_data": Out(32), "settling": Out(1), **({"wrong": Out(len(KINDS))} if params.parity else {}),
            **({"tiles": In(stream.Signature(beat(REFILL_BITS))), "astray": Out(1)} if params.refill else {}),
            **({
                "acts_in": In(stream.Signature(ACT_BITS * LANES)), "acts_out": Out(stream.Signature(out_beat(params))),
            } if params.streams else {}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        params = self.params
        m.submodules.control = self.control = Control(params)
        m.submodules.scan = self.scan = Scan(params)
        m.submodules.drain = self.drain = Drain(params)
        m.submodules.counters = self.counters = Counters(params)
        m.submodules.descriptors = self.descriptors = (
            SlimDescriptors(params)
            if params.slim
            else Sram(descriptor(params).size, params.descriptors, parity=params.parity)
        )
        m.submodules.records = self.records = Recorder(params)
        self.pes = [placed(m, f"pe_{n}", ProcessingElement, PE_MODULE, params, platform) for n in range(params.pes)]
        self.writebacks = [
            placed(m, f"writeback_{n}", Writeback, WRITEBACK_MODULE, params, platform) for n in range(params.groups)
        ]
        self.acts = [
            Sram(ACT_BITS * LANES, params.act_lines, log=True, parity=params.parity) for _ in range(params.groups)
        ]
        for n, acts in enumerate(self.acts):
            m.submodules[f"acts_{n}"] = acts
        self.abandon = Signal()
        m.d.comb += self.abandon.eq(self.restart)
        self._run(m)
        if self.params.elementwise:
            self._operations(m)
        if self.params.refill:
            self._refill(m)
        if self.params.streams:
            self._streams(m)
        self._broadcast(m)
        self._write_back(m)
        self._host(m)
        if self.params.parity:
            self._parity(m)
        return ResetInserter(self.abandon)(m)

    def _run(self, m: Module) -> None:
        """Control, scan, drain and counters among one another."""
        control, scan, drain, counters = self.control, self.scan, self.drain, self.counters
        drained = Signal()  # the tile before is written back now
        m.d.comb += [
            control.start.eq(self.start), control.first.eq(self.first), control.batch.eq(self.batch),
            self.busy.eq(control.busy), self.done.eq(control.done), self.error.eq(control.error),
            self.running.eq(control.busy & ~control.clear), self.index.eq(control.index),
            control.r_data.eq(self.descriptors.r_data),
            scan.start.eq(control.scan_start), scan.request.eq(control.scan), control.scan_ready.eq(scan.ready),
            control.scan_busy.eq(scan.busy), control.scan_fault.eq(scan.fault), control.write_fault.eq(drain.fault),
            control.scanned.eq(scan.finished & scan.closes), control.scanned_bank.eq(scan.o.p.tag.bank),
            scan.open.eq(control.open),
            # What write-back of the tile before has done so far: nothing until it has begun.
            drained.eq(drain.draining & (drain.bank != control.front)),
            scan.limit.eq(Mux(drained, drain.line, Mux(control.front, *(tile.destination for tile in control.tiles)))),
            drain.computed.eq(control.computed),
            control.written.eq(drain.written), control.written_bank.eq(drain.bank),
            counters.start.eq(self.start & ~self.busy), self.now.eq(counters.now),
            counters.accept_layer.eq(control.accept_layer), counters.front_layer.eq(control.front_layer),
            counters.ends.eq(control.ends), counters.finished.eq(control.finished),
            counters.counting.eq(control.counting),
            counters.written.eq(drain.through), counters.written_bank.eq(drain.bank),
            counters.skipped.eq(scan.skipped), counters.blocked.eq(scan.o.valid & ~scan.o.ready),
            counters.scan_bank.eq(scan.o.p.tag.bank),
            counters.writing.eq(control.writing), counters.writing_again.eq(control.writing_again),
            self.records.write.eq(counters.write), self.records.record.eq(counters.record),
            self.records.number.eq(counters.number), self.records.again.eq(counters.again),
            self.settling.eq(self.records.settling),
        ]  # fmt: skip
        for bank in range(2):
            m.d.comb += [
                drain.tile[bank].eq(control.tiles[bank]), counters.layer_of[bank].eq(control.layer_of[bank]),
            ]  # fmt: skip

    def _operations(self, m: Module) -> None:
        """Elementwise operations: from control through the queue to drain, and the unit that walks their lines."""
        m.submodules.queue = queue = self.queue = WriteQueue(self.params)
        m.submodules.elementwise = unit = self.elementwise = Elementwise(self.params)
        control, drain, counters = self.control, self.drain, self.counters
        operation = Signal()
        m.d.comb += [
            operation.eq(queue.valid & queue.first_operation),
            queue.push.eq(control.push), queue.operation.eq(control.push_operation), queue.job.eq(control.push_job),
            queue.pop.eq(drain.through), control.full.eq(queue.full), control.waiting.eq(queue.waiting),
            control.operation.eq(operation), control.job.eq(queue.first_job),
            drain.valid.eq(queue.valid), drain.operation.eq(queue.first_operation), drain.job.eq(queue.first_job),
            drain.ends.eq(unit.ends),
            unit.start.eq(drain.start), unit.job.eq(queue.first_job), unit.samples.eq(control.samples),
            self.scan.claimed.eq(unit.r_en), control.write_fault.eq(drain.fault | unit.fault),
            counters.operation.eq(operation), counters.operation_begins.eq(drain.start),
            counters.operation_ends.eq(unit.ends),
        ]  # fmt: skip
        for writeback, acts in zip(self.writebacks, self.acts, strict=True):
            m.d.comb += [
                writeback.acts.eq(acts.r_data), writeback.job.eq(queue.first_job),
                writeback.put.valid.eq(unit.put.valid), writeback.put.payload.eq(unit.put.payload),
                writeback.step.valid.eq(unit.step.valid), writeback.step.payload.eq(unit.step.payload),
            ]  # fmt: skip

    def _refill(self, m: Module) -> None:
        """The stream of tiles, and which buffers the scan may use."""
        m.submodules.refill = refill = self.refill = Refill(self.params)
        connect(m, flipped(self.tiles), refill.i)
        tile = self.scan.o.p.tag.tile
        busy = [Cat(pe.tile_busy[n] for pe in self.pes).any() for n in range(2)]
        m.d.comb += [
            refill.enable.eq(self.running), self.astray.eq(refill.fault),
            refill.wanted.eq(Mux(self.scan.waiting, self.scan.taken_tile, 0)),
            refill.taken.eq(Mux(self.scan.taken, self.scan.taken_tile, 0)),
            refill.scanned.eq(Mux(self.scan.finished, tile, 0)),
            refill.pe_busy.eq(Cat(*busy)), self.scan.loaded.eq(refill.loaded),
            self.counters.refill.eq(self.scan.waiting),
        ]  # fmt: skip

        # A restart of everything but these registers, and when the accumulators are clear, the end of the run.
        stopped, clearing = Signal(reset_less=True), Signal(reset_less=True)
        index = Signal(16, reset_less=True)
        with m.If(refill.fault):
            m.d.comb += self.abandon.eq(1)
            m.d.sync += [stopped.eq(1), clearing.eq(1), index.eq(self.control.index)]
        with m.If(stopped):
            m.d.comb += [self.error.eq(Error.STREAM), self.index.eq(index)]
        with m.If(clearing & ~self.control.busy):
            m.d.comb += self.done.eq(1)
            m.d.sync += clearing.eq(0)
        with m.If(self.start & ~self.busy):
            m.d.sync += stopped.eq(0)
        with m.If(self.restart | ResetSignal()):
            m.d.sync += [stopped.eq(0), clearing.eq(0)]

    def _streams(self, m: Module) -> None:
        """Rows of maps from and to the outside, and what control and drain know of them."""
        m.submodules.stream_in = rows_in = self.stream_in = StreamIn(self.params)
        m.submodules.stream_out = rows_out = self.stream_out = StreamOut(self.params)
        control, scan, drain = self.control, self.scan, self.drain
        connect(m, flipped(self.acts_in), rows_in.i)
        connect(m, rows_out.o, flipped(self.acts_out))
        m.d.comb += [
            rows_in.enable.eq(self.running), rows_in.start.eq(control.in_start),
            rows_in.job.eq(control.in_job), rows_in.samples.eq(control.samples), rows_in.move.eq(control.in_move),
            rows_in.limit.eq(control.in_limit), rows_in.finish.eq(control.in_finish),
            rows_in.stop.eq(control.stream_stop), rows_in.blocked.eq(drain.write),
            control.in_active.eq(rows_in.active), control.received.eq(rows_in.received),
            rows_out.start.eq(control.out_start), rows_out.job.eq(control.out_job),
            rows_out.samples.eq(control.samples), rows_out.stop.eq(control.stream_stop),
            rows_out.row_begins.eq(drain.row_begins), rows_out.row_ends.eq(drain.row_ends),
            control.out_active.eq(rows_out.active), control.out_busy.eq(rows_out.busy), drain.room.eq(rows_out.room),
            control.stream_fault.eq(rows_in.fault | rows_out.fault), control.scan_standing.eq(scan.standing),
            self.counters.stream.eq(control.stream_waits), self.counters.accept.eq(control.scan_start),
            *(into.eq(acts.r_data) for into, acts in zip(rows_out.r_data, self.acts, strict=True)),
        ]  # fmt: skip
        with m.If(rows_out.r_en):
            m.d.comb += scan.claimed.eq(1)

    def _broadcast(self, m: Module) -> None:
        """Scan to all PEs, through one register; a vector fires when every queue has credit."""
        flags = [pe.credit for pe in self.pes]
        for hop in range(self.params.hops):  # the first combines a group, the second all
            width = self.params.group if not hop else len(flags)
            together = [Signal(name=f"credit_{hop}_{n}") for n in range(len(flags) // width)]
            m.d.sync += [flag.eq(Cat(flags[n * width : (n + 1) * width]).all()) for n, flag in enumerate(together)]
            flags = together
        sent = Signal(broadcast(self.params), reset_less=True)
        valid = Signal()
        m.d.comb += self.scan.o.ready.eq(Cat(flags).all())
        m.d.sync += [valid.eq(self.scan.o.valid & self.scan.o.ready), sent.eq(self.scan.o.payload)]
        busy = [Cat(pe.busy[bank] for pe in self.pes).any() for bank in range(2)]
        m.d.comb += self.control.pe_busy.eq(Cat(*busy))
        # What would delay the activations in every PE alike stands here once.
        acts = sent.acts
        for cycle in range(ProcessingElement.acts_late(self.params)):
            late = Signal(acts.shape(), name=f"acts_late_{cycle}", reset_less=True)
            m.d.sync += late.eq(acts)
            acts = late
        for n, pe in enumerate(self.pes):
            m.d.comb += [
                pe.i.valid.eq(valid), pe.i.payload.eq(sent), pe.i.p.acts.eq(acts), pe.restart.eq(self.abandon),
                pe.maximum.eq(self.control.maxima), self.counters.activity[n].eq(pe.activity),
            ]  # fmt: skip

    def _write_back(self, m: Module) -> None:
        """Accumulators through the write-back groups into the activation memory."""
        drain, control = self.drain, self.control
        for n, writeback in enumerate(self.writebacks):
            m.d.comb += [
                writeback.read.eq(drain.read), writeback.address.eq(drain.address),
                writeback.low.eq(drain.now.low), writeback.high.eq(drain.now.high), writeback.restart.eq(self.abandon),
                self.counters.saturated[n].eq(writeback.saturated),
            ]  # fmt: skip
            if self.params.tables:
                m.d.comb += [
                    writeback.functions.eq(drain.now.functions), writeback.function_1.eq(drain.now.function_1),
                    writeback.function_2.eq(drain.now.function_2),
                ]  # fmt: skip
            first = n * self.params.group
            for k, pe in enumerate(self.pes[first : first + self.params.group]):
                m.d.comb += [
                    writeback.sums[k].eq(pe.sum),
                    pe.drain.bank.eq(drain.bank), pe.drain.slot.eq(writeback.slot),
                    pe.drain.clear.eq(writeback.clear[k]), pe.drain.clear_all.eq(control.clear),
                    pe.drain.clear_slot.eq(Mux(control.clear, control.clear_slot, writeback.clear_slot)),
                ]  # fmt: skip
        m.d.comb += drain.flush.eq(self.writebacks[0].o.valid)

    def _host(self, m: Module) -> None:
        """The host's words to their memories, and what it may read back."""
        written, to, word = self.write.valid, self.write.p.to, self.write.p.data

        def writes(memory: Memory, unit: int) -> object:
            return written & (to.memory == memory.value) & (to.unit == unit)

        # Words for the PEs come from the host, or during a run from the refill stream.
        unit, sent = Signal(8), Signal(host_write(self.params))
        everywhere, valid = Signal(), Signal()
        m.d.comb += [
            valid.eq(written & (to.memory <= Memory.CODEBOOK.value)), unit.eq(to.unit),
            everywhere.eq(to.memory == Memory.CODEBOOK.value),
            sent.memory.eq(to.memory), sent.address.eq(to.address), sent.data.eq(word),
        ]  # fmt: skip
        if self.params.refill:
            # A tile's last word is written a cycle after its buffer shows full, long before a column of it is read.
            filled, tile = Signal(), Signal(self.refill.o.payload.shape(), reset_less=True)
            m.d.sync += [filled.eq(self.refill.o.valid), tile.eq(self.refill.o.payload)]
            # What a stream brings beyond its run may still be on its way: the host waits for it.
            with m.If(self.refill.o.valid | filled):
                m.d.comb += self.busy.eq(1)
            with m.If(filled):
                m.d.comb += [
                    valid.eq(tile.memory < Memory.CODEBOOK.value), unit.eq(tile.unit), everywhere.eq(0),
                    sent.memory.eq(tile.memory), sent.address.eq(tile.address), sent.data.eq(tile.data),
                ]  # fmt: skip
        for n, pe in enumerate(self.pes):
            m.d.comb += [pe.host.valid.eq(valid & (everywhere | (unit == n))), pe.host.payload.eq(sent)]

        request = self.read.p.word
        memory, part = Signal(4), Signal(5)
        with m.If(self.read.valid):
            m.d.sync += [memory.eq(request.memory), part.eq(self.read.p.part)]
        m.d.comb += [self.scan.picks.eq(self.read.valid), self.scan.picked.eq(request.unit)]
        for n, (writeback, acts) in enumerate(zip(self.writebacks, self.acts, strict=True)):
            m.d.comb += [
                writeback.w_en.eq(writes(Memory.OUTPUTS, n)), writeback.w_addr.eq(to.address),
                writeback.w_data.eq(word),
                acts.w_en.eq(writes(Memory.ACTIVATIONS, n)), acts.w_addr.eq(to.address), acts.w_data.eq(word),
                acts.r_en.eq(self.scan.r_en), acts.r_addr.eq(self.scan.r_addr), self.scan.r_data[n].eq(acts.r_data),
            ]  # fmt: skip
            if self.params.tables:
                m.d.comb += [
                    writeback.t_en.eq(writes(Memory.TABLES, 0)), writeback.t_addr.eq(to.address),
                    writeback.t_data.eq(word),
                ]  # fmt: skip
            if self.params.elementwise:
                with m.If(self.elementwise.r_en):
                    m.d.comb += [acts.r_en.eq(1), acts.r_addr.eq(self.elementwise.r_addr)]
            if self.params.streams:
                rows_in, rows_out = self.stream_in, self.stream_out
                with m.If(rows_out.r_en):
                    m.d.comb += [acts.r_en.eq(1), acts.r_addr.eq(rows_out.r_addr)]
                with m.If(rows_in.w_en & (rows_in.w_bank == n)):
                    m.d.comb += [acts.w_en.eq(1), acts.w_addr.eq(rows_in.w_addr), acts.w_data.eq(rows_in.w_data)]
            with m.If(self.drain.write):
                m.d.comb += [
                    acts.w_en.eq(1), acts.w_addr.eq(self.drain.line), acts.w_data.eq(writeback.o.payload),
                ]  # fmt: skip
            with m.If(self.read.valid):
                m.d.comb += [acts.r_en.eq(1), acts.r_addr.eq(request.address)]
        m.d.comb += [
            self.descriptors.w_en.eq(writes(Memory.DESCRIPTORS, 0)), self.descriptors.w_data.eq(word),
            self.descriptors.r_en.eq(self.control.r_en),
            self.records.r_en.eq(self.read.valid), self.records.r_number.eq(request.address),
            self.records.r_part.eq(self.read.p.part),
        ]  # fmt: skip

        def one_part(word: Value) -> Value:
            """The part that is read; which one it is where the word has fewer is not specified."""
            parts = [word[n : n + 32] for n in range(0, len(word), 32)]
            return Array(parts)[part[: (len(parts) - 1).bit_length()]]

        if self.params.slim:
            described = self._slim_descriptors(m)
        else:
            m.d.comb += [self.descriptors.w_addr.eq(to.address), self.descriptors.r_addr.eq(self.control.r_addr)]
            with m.If(self.read.valid):
                m.d.comb += [self.descriptors.r_en.eq(1), self.descriptors.r_addr.eq(request.address)]
            described = one_part(self.descriptors.r_data)

        found = {n: Signal(32, name=f"found_{n.name.lower()}") for n in READABLE}
        m.d.sync += [
            found[Memory.ACTIVATIONS].eq(one_part(self.scan.word)),
            found[Memory.DESCRIPTORS].eq(described),
            found[Memory.RECORDS].eq(self.records.r_data),
        ]  # fmt: skip
        for which, words in found.items():
            with m.If(memory == which.value):
                m.d.sync += self.read_data.eq(words)

    def _parity(self, m: Module) -> None:
        """Which words of the core's own memories are used, and what was wrong anywhere, by kind."""
        request, of = self.read.p.word, self.read.p.word.memory
        reads = self.read.valid
        lines = Signal()  # all banks answer somebody else than the scan
        others: list[Value] = [self.elementwise.r_en] if self.params.elementwise else []
        others += [self.stream_out.r_en] if self.params.streams else []
        m.d.sync += lines.eq(Cat(others).any())
        for n, acts in enumerate(self.acts):
            picked = Signal(name=f"picked_{n}")
            m.d.sync += picked.eq(reads & (of == Memory.ACTIVATIONS.value) & (request.unit == n))
            m.d.comb += acts.used.eq(picked | lines | self.scan.used[n])
        if not self.params.slim:
            described = Signal()
            m.d.sync += described.eq((reads & (of == Memory.DESCRIPTORS.value)) | (self.busy & self.control.r_en))
            m.d.comb += self.descriptors.used.eq(described)
        m.d.sync += self.records.r_used.eq(self.read.valid & (of == Memory.RECORDS.value))

        # Those of a group come together in one register, all in another: they come from all over the chip.
        wrong: dict[int, list[Value]] = {
            Memory.ACTIVATIONS.value: [acts.wrong for acts in self.acts],
            Memory.DESCRIPTORS.value: [self.descriptors.wrong], Memory.RECORDS.value: [self.records.wrong],
        }  # fmt: skip
        of_pe = (Memory.WEIGHTS.value, Memory.POINTERS.value, Memory.CODEBOOK.value, QUEUE, ACCUMULATORS)
        of_group = (Memory.OUTPUTS.value, Memory.TABLES.value, OPERANDS)
        for n, writeback in enumerate(self.writebacks):
            pes = self.pes[n * self.params.group : (n + 1) * self.params.group]
            found = [Cat(pe.wrong[k] for pe in pes).any() for k in range(len(of_pe))]
            together = Signal(len(of_pe) + len(of_group), name=f"wrong_{n}")
            m.d.sync += together.eq(Cat(*found, writeback.wrong))
            for k, kind in enumerate((*of_pe, *of_group)):
                wrong.setdefault(kind, []).append(together[k])
        m.d.sync += [self.wrong[kind].eq(Cat(each).any()) for kind, each in wrong.items()]

    def _slim_descriptors(self, m: Module) -> Value:
        """Descriptors by parts of 32 bits: to and from the host, and to control; returns the part that is read."""
        descriptors, control, write, read = self.descriptors, self.control, self.write.p, self.read.p
        m.d.comb += [
            descriptors.w_number.eq(write.to.address), descriptors.w_part.eq(write.part),
            descriptors.r_number.eq(control.r_addr), control.r_ready.eq(descriptors.ready),
            descriptors.p_en.eq(self.read.valid), descriptors.p_number.eq(read.word.address),
            descriptors.p_part.eq(read.part),
        ]  # fmt: skip
        return descriptors.p_data
