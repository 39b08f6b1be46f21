"""Control: fetches layer descriptors, checks them, and starts scan and write-back for each."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import Error, Function, Op, descriptor
from hw.params import Params
from hw.streams import layer_output, scan_request

__all__ = ["Control"]


class Control(wiring.Component):
    """Sequence of layers and tiles over two accumulator banks.

    A layer is accepted as soon as the one before is scanned and the bank of the one before that is
    written back; PEs still work on earlier layers then. Descriptors are fetched one ahead. A descriptor after one
    with `keep` goes on in the same bank at once; if there is none, what the bank holds is written back.

    Timing: ``accept`` comes 1 cycle after ``scanned`` at the earliest, and 2 cycles after ``start``. A bank
    counts as computed 3 cycles after ``scanned`` at the earliest, and 1 cycle after all PEs show that they
    are done with it.

    Members
    -------
    start, first : begin at descriptor `first` (only while not busy).
    busy : from reset until the accumulators are clear, and from start to the end of the last write-back.
    done, error, index : pulse at the end, why, and the descriptor that ended the run.
    r_en, r_addr, r_data : read port of the descriptor memory.
    clear, clear_slot : clear this accumulator in all PEs and both banks.
    scan_start, scan, scanned : to `Scan`. `open`: the whole source may be read.
    pe_busy : for each bank, a PE has work for it.
    computed, layer, written, written_bank : to and from `Drain`.
    codebook, fold : codebook number of each bank, and whether its layer is folded.
    accept, front : a layer is accepted; the bank of the layer accepted last.
    continues : what is accepted goes on with the sums of the descriptor before.
    finished : for each bank, in this cycle its layer was found computed.
    pending : for each bank, it holds an accepted layer that is not written back.
    counting : the layer in `front` is the youngest and not finished.
    number : descriptor number of the layer in each bank.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "start": In(1), "first": In(16), "busy": Out(1), "done": Out(1), "error": Out(Error), "index": Out(16),
            "r_en": Out(1), "r_addr": Out(16), "r_data": In(descriptor(params)),
            "clear": Out(1), "clear_slot": Out(params.row_bits),
            "scan_start": Out(1), "scan": Out(scan_request(params)), "scanned": In(1), "open": Out(1),
            "pe_busy": In(2),
            "computed": Out(2), "layer": Out(layer_output(params)).array(2),
            "written": In(1), "written_bank": In(1), "draining": In(1),
            "codebook": Out(4).array(2), "fold": Out(2),
            "accept": Out(1), "continues": Out(1), "front": Out(1),
            "finished": Out(2), "pending": Out(2), "counting": Out(1),
            "number": Out(16).array(2),
        })  # fmt: skip

    def _check(self, m: Module, layer: data.View[data.StructLayout], index: Value) -> Signal:
        """The error of the descriptor at the output of the memory, `Error.NONE` if it is legal."""
        params = self.params
        error = Signal(Error)
        lines_read = (layer.act_vectors + (params.groups - 1)) >> (params.groups - 1).bit_length()
        outputs = Signal(32)
        whole, split = (layer.slots - layer.fragment_slots)[:16], layer.fragment_slots * params.group
        m.d.comb += outputs.eq(whole * params.group + (split >> layer.fragment_log2))
        most = params.max_split.bit_length() - 1  # with splits of eight, every value of the field is legal
        blocks = Mux(layer.fold, (layer.act_vectors + 1) >> 1, layer.act_vectors)
        unfit = [
            layer.fragment_slots > layer.slots,
            *([layer.fragment_log2 > most] if most < (1 << len(layer.fragment_log2)) - 1 else []),
            layer.fold & (params.fold == 1),
            layer.refill & (not params.refill),
            index >= params.descriptors,
            layer.act_vectors == 0,
            layer.slots == 0,
            layer.slots > params.rows,
            layer.source + lines_read > params.act_lines,
            layer.destination + ((outputs + 7) >> 3) > params.act_lines,
            layer.pointers + blocks > params.pointer_blocks,
            layer.bias + outputs > params.bias_words,
            layer.codebook >= params.codebooks,
        ]
        reserved = [getattr(layer, name) != 0 for name, _ in descriptor(params) if str(name).startswith("reserved")]
        op, function = Value.cast(layer.op), Value.cast(layer.function)
        with m.If(index >= params.descriptors):
            m.d.comb += error.eq(Error.RANGE)
        with m.Elif((op != Op.MATVEC.value) & (op != Op.END.value) | (function > Function.RELU.value)):
            m.d.comb += error.eq(Error.OPCODE)
        with m.Elif(sum(reserved, start=0) != 0):
            m.d.comb += error.eq(Error.RESERVED)
        with m.Elif((op == Op.MATVEC.value) & (sum(unfit, start=0) != 0)):
            m.d.comb += error.eq(Error.RANGE)
        return error

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layer = self.r_data
        index = Signal(16)
        bank = Signal()
        keep = Signal()
        found = self._check(m, layer, index)
        chained = Signal()
        # `scanned` reaches the PEs' busy flags 3 cycles later: broadcast register, count, busy register.
        scanned = [Signal(2, name=f"scanned_{n}") for n in range(3)]
        busy = Signal(2)
        at_end = Signal()
        ended = self.computed | self.finished

        m.d.comb += [
            self.scan.source.eq(layer.source), self.scan.act_vectors.eq(layer.act_vectors),
            self.scan.pointers.eq(layer.pointers), self.scan.tag.bank.eq(bank),
            self.scan_start.eq(self.accept), self.index.eq(index),
            # A chained layer may read a line as soon as it is written, anything once the bank is free again.
            self.open.eq(~chained | ~self.pending.bit_select(~self.front, 1)),
            self.finished.eq(scanned[2] & ~busy & self.pending & ~self.computed),
            self.counting.eq(self.pending.any() & ~(at_end & ended.bit_select(self.front, 1))),
        ]  # fmt: skip
        m.d.sync += [busy.eq(self.pe_busy), scanned[1].eq(scanned[0]), scanned[2].eq(scanned[1])]
        m.d.sync += self.computed.eq(self.computed | self.finished)
        with m.If(self.written):
            m.d.sync += self.pending.bit_select(self.written_bank, 1).eq(0)
            m.d.sync += self.computed.bit_select(self.written_bank, 1).eq(0)

        if self.params.refill:
            m.d.comb += self.scan.tag.tile.eq(Cat(layer.refill & ~layer.buffer, layer.refill & layer.buffer))
        if self.params.fold > 1:
            m.d.comb += self.scan.fold.eq(layer.fold)

        with m.FSM():
            with m.State("Clear"):
                m.d.comb += [self.busy.eq(1), self.clear.eq(1)]
                m.d.sync += self.clear_slot.eq(self.clear_slot + 1)
                with m.If(self.clear_slot == self.params.rows - 1):
                    m.next = "Idle"
            with m.State("Idle"):
                with m.If(self.start):
                    m.d.sync += [index.eq(self.first), self.error.eq(Error.NONE)]
                    m.next = "Fetch"
            with m.State("Fetch"):
                m.d.comb += [self.busy.eq(1), self.r_en.eq(1), self.r_addr.eq(index)]
                m.next = "Decode"
            with m.State("Decode"):
                m.d.comb += self.busy.eq(1)
                with m.If(found != Error.NONE):
                    m.d.sync += self.error.eq(found)
                    m.next = "End"
                with m.Elif(Value.cast(layer.op) == Op.END.value):
                    m.next = "End"
                with m.Elif(self.continues | ~self.pending.bit_select(bank, 1)):
                    m.d.comb += [self.accept.eq(1), self.r_en.eq(1), self.r_addr.eq(index + 1)]
                    m.next = "Scan"
            with m.State("Scan"):
                m.d.comb += self.busy.eq(1)
                with m.If(self.scanned):
                    m.d.sync += [scanned[0].bit_select(self.front, 1).eq(~keep), self.continues.eq(keep)]
                    m.next = "Decode"
            with m.State("End"):
                m.d.comb += [self.busy.eq(1), at_end.eq(1)]
                with m.If(self.continues):
                    m.d.sync += [scanned[0].bit_select(self.front, 1).eq(1), self.continues.eq(0), bank.eq(~bank)]
                with m.If(~self.pending.any()):
                    m.d.comb += self.done.eq(1)
                    m.next = "Idle"

        with m.If(self.accept):
            m.d.sync += [
                index.eq(index + 1), bank.eq(bank ^ ~layer.keep), self.front.eq(bank), chained.eq(layer.chained),
                keep.eq(layer.keep), self.pending.bit_select(bank, 1).eq(1),
                self.fold.bit_select(bank, 1).eq(layer.fold),
            ]  # fmt: skip
            m.d.sync += [flags.bit_select(bank, 1).eq(0) for flags in scanned]
            for n in range(2):
                with m.If(bank == n):
                    m.d.sync += [
                        self.codebook[n].eq(layer.codebook), self.number[n].eq(index),
                        self.layer[n].destination.eq(layer.destination), self.layer[n].slots.eq(layer.slots),
                        self.layer[n].fragment_slots.eq(layer.fragment_slots),
                        self.layer[n].fragment_log2.eq(layer.fragment_log2),
                        self.layer[n].bias.eq(layer.bias), self.layer[n].shift.eq(layer.shift),
                        self.layer[n].function.eq(layer.function),
                    ]  # fmt: skip
        return m
