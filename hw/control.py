"""Control: fetches the descriptors of a run, checks them, and starts scan and write-back for each tile."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.banks import Banks
from hw.descriptor_check import DescriptorCheck
from hw.layouts import Error, Op, descriptor, elementwise
from hw.params import Params
from hw.ring import Ring
from hw.streams import ROW_BITS, elementwise_job, out_job, output_tile, ring_job, scan_request
from hw.tile_loop import TileLoop

__all__ = ["Control"]


class Control(wiring.Component):
    """Sequence of layers, samples, tiles and segments over two accumulator banks, tile by tile in turn.

    A segment is accepted as soon as the last vector of the one before is requested, the first one of a tile when also
    the bank is free: the tile before the previous one is written back. PEs still work on earlier tiles then.
    Descriptors are fetched one ahead.

    Elementwise operations are only queued: they are carried out in their place among the tiles that are written back,
    while the segments behind them are scanned; those with ``barrier`` wait until they are all written. A tile takes its
    place in the queue when its first segment is accepted.

    A layer whose maps stream in or out is accepted when everything that earlier layers stream is through, and so is an
    elementwise operation when what they stream out is sent. Its in-stream begins when its first segment could be
    accepted but for the rows that it reads. Each segment that reads the ring of rows waits for these. The first one of
    a row of tiles lets rows go before it is accepted, when no vector of the segment before can be read again.

    Timing: ``accept`` comes 3 cycles after ``start`` and 2 cycles after the descriptor before at the earliest. So does
    the ``push`` of an operation (which also waits for a place in the queue), and the end of a loop; all of these are
    ``params.fetch`` cycles later. When a tile counts
    as computed: see `Banks`. A segment that reads a ring is accepted 5 cycles after the descriptor before at the
    earliest, and 2 cycles after the last vector that it waits for is written; the first of its layer 2 cycles after
    ``in_start``.

    An error ends the run: nothing more is accepted, and what was accepted is scanned and written back, also half a
    tile; the accumulators are clear then.

    Members
    -------
    start, first, batch : begin at descriptor `first`, over `batch` samples (only while not busy).
    busy : from reset until the accumulators are clear, and from start to the end of the last write-back.
    done, error, index : pulse at the end, why, and the descriptor that ended the run.
    samples : `batch` of the run. r_en, r_addr, r_data : read port of the descriptor memory. r_ready : the descriptor is
        there (only with ``params.slim``, elsewhere 1 cycle later).
    clear, clear_slot : clear this accumulator in all PEs and both banks.
    scan_start, scan, scan_ready, scan_busy : to `Scan`. `open`: the whole map may be read.
    scanned, scanned_bank : the last vector of the tile in this bank has left the scan.
    scan_fault, write_fault : an address was beyond its memory, of a segment accepted last, of the tile written.
    pe_busy : for each bank, a PE has work for it.
    computed, tiles, written, written_bank : to and from `Drain`.
    maxima : for each bank, accumulators take the maximum.
    front, pending, finished : the bank of the tile accepted last; see `Banks`.
    accept_layer : a layer is accepted. counting : not all layers of the run are finished.
    layer_of, front_layer : parity of the number of the layer in each bank, and of the layer accepted last.
    number : for each parity, number of the first descriptor of the layer. again : it has run in an earlier round.
    push, push_operation, push_job, full, waiting : to and from `WriteQueue` (only with ``params.elementwise``).
    in_start, in_job, in_move, in_limit, in_finish, in_active, received : to and from `StreamIn`.
    out_start, out_job, out_active, out_busy : to and from `StreamOut`. stream_stop, stream_fault : to and from both.
    scan_standing : from `Scan`. stream_waits : the segment waits for nothing but streams. (All these only with
        ``params.streams``.)
    writing, writing_again : of what is written back now, which is `operation`, `job` or the tile in `written_bank`.
    ends : for each bank, the tile is the last one of its layer.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self.loop = TileLoop(params)
        self.banks = Banks(params)
        self.check = DescriptorCheck(params)
        operations = {
            "push": Out(1), "push_operation": Out(1), "push_job": Out(elementwise_job(params)), "full": In(1),
            "waiting": In(1), "operation": In(1), "job": In(elementwise_job(params)),
        } if params.elementwise else {}  # fmt: skip
        if params.streams:
            self.ring = Ring(params)
            operations |= {
                "in_start": Out(1), "in_job": Out(ring_job(params)), "in_move": Out(1), "in_limit": Out(ROW_BITS),
                "in_finish": Out(1), "in_active": In(1), "received": In(ROW_BITS),
                "out_start": Out(1), "out_job": Out(out_job(params)), "out_active": In(1), "out_busy": In(1),
                "stream_stop": Out(1), "stream_fault": In(1), "scan_standing": In(1),
                "stream_waits": Out(1),
            }  # fmt: skip
        super().__init__({
            "start": In(1), "first": In(16), "batch": In(16), "samples": Out(16),
            "busy": Out(1), "done": Out(1), "error": Out(Error), "index": Out(16),
            "r_en": Out(1), "r_addr": Out(16), "r_data": In(descriptor(params)),
            "clear": Out(1), "clear_slot": Out(params.row_bits),
            "scan_start": Out(1), "scan": Out(scan_request(params)), "scan_ready": In(1), "scan_busy": In(1),
            "open": Out(1), "scanned": In(1), "scanned_bank": In(1), "scan_fault": In(1), "write_fault": In(1),
            "pe_busy": In(2),
            "computed": Out(2), "tiles": Out(output_tile(params)).array(2), "written": In(1), "written_bank": In(1),
            "maxima": Out(2), "front": Out(1), "pending": Out(2), "finished": Out(2),
            "accept_layer": Out(1), "counting": Out(1), "layer_of": Out(1).array(2), "front_layer": Out(1),
            "number": Out(16).array(2), "again": Out(1).array(2), "ends": Out(2),
            "writing": Out(16), "writing_again": Out(1), **operations, **({"r_ready": In(1)} if params.slim else {}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layer = self.r_data
        m.submodules.loop = loop = self.loop
        m.submodules.banks = banks = self.banks
        m.submodules.check = check = self.check
        bank = Signal()  # of the segment to accept
        accept, closing = Signal(), Signal()
        unfinished = Signal()  # a tile is accepted, but not its last segment
        within = Signal()  # the same of a layer
        chained = Signal()
        found = Signal(Error)
        current = Signal(16)  # number of the descriptor accepted last
        faulty, fault_index = Signal(), Signal(16)
        scan_faulted = Signal()  # what the scan finds takes most of a cycle: acted upon in the next one
        at_end = Signal()
        ended = self.computed | self.finished
        written_layer = Mux(self.written_bank, *reversed(self.layer_of))
        op = Value.cast(layer.op)
        step = Signal()  # a descriptor that is no segment is done with
        full, waiting = Signal(), Signal()  # of the queue
        holds, streams = Signal(), Signal()  # a segment or an operation waits for streams; these are not through

        m.d.comb += [
            loop.start.eq(self.start & ~self.busy), loop.first.eq(self.first), loop.batch.eq(self.samples),
            loop.layer.eq(layer), loop.accept.eq(accept), loop.advance.eq(step),
            self.writing.eq(Mux(written_layer, *reversed(self.number))),
            self.writing_again.eq(Mux(written_layer, *reversed(self.again))),
            check.layer.eq(layer), check.index.eq(loop.index), check.batch.eq(self.samples),
            check.floor.eq(loop.floor), check.begins.eq(loop.opens), check.segment.eq(loop.segment),
            banks.open.eq(accept & loop.opens), banks.bank.eq(bank), banks.maximum.eq(layer.maximum),
            banks.tile.destination.eq(loop.destination),
            banks.scanned.eq(self.scanned | closing), banks.scanned_bank.eq(Mux(closing, bank, self.scanned_bank)),
            banks.pe_busy.eq(self.pe_busy), banks.written.eq(self.written), banks.written_bank.eq(self.written_bank),
            self.pending.eq(banks.pending), self.finished.eq(banks.finished), self.computed.eq(banks.computed),
            self.maxima.eq(banks.maxima), self.index.eq(Mux(faulty, fault_index, loop.index)),
            # In the first tile, lines of the layer before may be read as they are written, all when its bank is free.
            self.open.eq(~chained | ~self.pending.bit_select(~self.front, 1)),
            # The tile before the last one may be finished after it; both are written when the next one waits for rows.
            self.counting.eq((self.pending & ~Mux(at_end, ended, 0)).any() | (within & ~at_end)),
            self.accept_layer.eq(accept & loop.opens & loop.begins), self.scan_start.eq(accept),
            self.r_addr.eq(loop.following),
        ]  # fmt: skip
        self._request(m, bank)
        if self.params.elementwise:
            self._operations(m)
            m.d.comb += [
                full.eq(self.full), waiting.eq(self.waiting), self.push.eq((accept & loop.opens) | self.push_operation),
                self.push_operation.eq(step & (op == Op.ELEMENTWISE.value)),
            ]  # fmt: skip

        stands, ready = Signal(), Signal()  # a descriptor; a segment, and all else that it waits for is there
        stream_fault = Signal()
        if self.params.streams:
            self._streams(m, accept, stands, ready, holds, streams, stream_fault)

        stopped = Signal()  # a fault was found: nothing more is accepted
        plain = Signal()  # these three only in Accept: the descriptor is right, and of this kind
        looping = Signal()
        operating = Signal()
        # Accepting looks at few terms, so a fault takes these three away as it is noted down; what the scan finds is
        # late, and is looked at itself.
        caught, faults = scan_faulted | self.write_fault | stream_fault, Signal()
        m.d.comb += [stopped.eq(faulty | scan_faulted), faults.eq(faulty | caught)]
        with m.If(faults | accept | step):
            m.d.sync += [plain.eq(0), looping.eq(0), operating.eq(0)]
        with m.FSM():
            with m.State("Clear"):
                m.d.comb += [self.busy.eq(1), self.clear.eq(1)]
                m.d.sync += self.clear_slot.eq(self.clear_slot + 1)
                with m.If(self.clear_slot == self.params.rows - 1):
                    m.next = "Idle"
            with m.State("Idle"):
                with m.If(self.start):
                    m.d.sync += [self.samples.eq(self.batch), self.error.eq(Error.NONE), faulty.eq(0), within.eq(0)]
                    m.next = "Fetch"
            with m.State("Fetch"):
                m.d.comb += [self.busy.eq(1), self.r_en.eq(1)]
                m.next = "Check"
            with m.State("Check"):
                there = self.r_ready if self.params.slim else Const(1)
                m.d.comb += [self.busy.eq(1), loop.prepare.eq(there)]
                right = check.error == Error.NONE
                stands_right = there & right & ~faults
                m.d.sync += [
                    found.eq(check.error), plain.eq(stands_right & (op == Op.SEGMENT.value)),
                    looping.eq(stands_right & (op == Op.LOOP.value)),
                    operating.eq(stands_right & (op == Op.ELEMENTWISE.value)),
                ]  # fmt: skip
                with m.If(there):
                    m.next = "Accept"
            with m.State("Accept"):
                m.d.comb += self.busy.eq(1)
                with m.If(stopped):
                    m.next = "End"
                with m.Elif(found != Error.NONE):
                    m.d.sync += self.error.eq(found)
                    m.next = "End"
                with m.Elif(op == Op.END.value):
                    m.next = "End"
                with m.Elif(accept | step):
                    m.next = "Check"
            with m.State("End"):
                m.d.comb += [self.busy.eq(1), at_end.eq(1)]
                with m.If(unfinished):
                    # The rest of the tile is given up; its last vector may still be in the scan.
                    m.d.comb += closing.eq(~self.scan_busy)
                    with m.If(closing):
                        m.d.sync += [unfinished.eq(0), bank.eq(~bank)]
                with m.Elif(~self.pending.any() & ~waiting & ~streams):
                    m.d.comb += self.done.eq(1)
                    m.next = "Idle"

        # Few terms, since these lead to all of control and scan.
        free = ~loop.opens | ~(self.pending.bit_select(bank, 1) | full)
        m.d.comb += [
            stands.eq(~scan_faulted & (plain | looping | operating)),
            ready.eq(~scan_faulted & plain & self.scan_ready & free & ~(layer.barrier & waiting)),
            accept.eq(ready & ~holds), step.eq(~scan_faulted & (looping | (operating & ~(full | holds)))),
        ]  # fmt: skip
        with m.If(accept | step):
            m.d.comb += self.r_en.eq(1)
        with m.If(accept):
            m.d.sync += [
                current.eq(loop.index), unfinished.eq(~layer.last), bank.eq(bank ^ layer.last), self.front.eq(bank),
                chained.eq(layer.chained & loop.begins), within.eq(~(layer.last & loop.ends)),
            ]  # fmt: skip
            with m.If(loop.opens):
                m.d.sync += self.ends.bit_select(bank, 1).eq(loop.ends)
                for n in range(2):
                    with m.If(bank == n):
                        m.d.sync += self.layer_of[n].eq(self.front_layer ^ loop.begins)
        with m.If(self.accept_layer):
            m.d.sync += self.front_layer.eq(~self.front_layer)
            for n in range(2):
                with m.If(self.front_layer != n):
                    m.d.sync += [self.number[n].eq(loop.index), self.again[n].eq(loop.again)]
        m.d.sync += scan_faulted.eq(self.scan_fault)
        with m.If(caught & ~faulty & self.busy):
            m.d.sync += [faulty.eq(1), self.error.eq(Error.RANGE)]
            m.d.sync += fault_index.eq(Mux(scan_faulted, current, Mux(stream_fault, loop.index, self.writing)))
        return m

    def _request(self, m: Module, bank: Value) -> None:
        """What scan and drain are told of the segment to accept."""
        layer, loop = self.r_data, self.loop
        for name in ("vectors", "dy", "dx", "wy", "wx", "height", "width", "position_pitch", "window_pitch", "pointers",
                     "dense", "uniform"):  # fmt: skip
            m.d.comb += self.scan[name].eq(layer[name])
        tile = self.banks.tile
        for name in ("row_lines", "row_pitch", "outputs", "words", "low", "high", "functions"):
            m.d.comb += tile[name].eq(layer[name])
        for n, function in enumerate((tile.function_1, tile.function_2), 1):
            for name in ("table", "left", "right"):
                m.d.comb += function[name].eq(layer[f"{name}_{n}"])
        m.d.comb += [
            self.scan.address.eq(loop.address), self.scan.y.eq(loop.y), self.scan.x.eq(loop.x),
            self.scan.closes.eq(layer.last), self.scan.tag.bank.eq(bank), self.scan.tag.codebook.eq(layer.codebook),
        ]  # fmt: skip
        m.d.comb += [there.eq(here) for there, here in zip(self.tiles, self.banks.tiles, strict=True)]
        if self.params.refill:
            m.d.comb += self.scan.tag.tile.eq(Cat(layer.refill & ~layer.buffer, layer.refill & layer.buffer))

    def _streams(
        self, m: Module, accept: Value, stands: Value, ready: Value, holds: Signal, streams: Signal, fault: Signal
    ) -> None:  # fmt: skip
        """What waits for streams, and when these begin, go on and end."""
        layer, loop = self.r_data, self.loop
        m.submodules.ring = ring = self.ring
        segment = Value.cast(layer.op) == Op.SEGMENT.value
        first = Signal()  # of a layer that streams
        standing = Signal()  # a segment stands here, its rows are known
        passed, settled = Signal(), Signal()  # nothing before it is read again; at least one cycle has gone by
        lets_go = Signal()  # rows that only earlier windows read
        begun = Signal()  # the in-stream of the layer
        over = Signal()  # the layer's last segment is accepted
        quiet = Signal()  # no stream of a layer before goes on
        m.d.comb += [
            loop.skip.eq(ring.skip), loop.skip_size.eq(ring.skip_size),
            ring.layer.eq(layer), ring.y.eq(loop.y), ring.prepare.eq(loop.prepare),
            ring.sample_ends.eq(accept & layer.last & loop.sample_ends),
            ring.layer_ends.eq((accept & layer.last & loop.ends) | loop.start),
            ring.enable.eq(begun), ring.received.eq(self.received), self.in_limit.eq(ring.limit),
            ring.move.eq(self.in_move),
            # The first segment of a row of tiles lets rows go; what another one needs beyond these would never come.
            fault.eq(self.stream_fault | (stands & segment & layer.ring & ring.settled & ring.never & ~lets_go)),
            first.eq(loop.opens & loop.begins & (layer.stream_in | layer.stream_out)),
            lets_go.eq(layer.stream_in & loop.opens & loop.row_begins),
            passed.eq(settled & self.scan_ready), quiet.eq(~self.in_active & ~self.out_active),
        ]  # fmt: skip
        m.d.sync += settled.eq(self.scan_ready & ~self.scan_standing)
        with m.If(segment):
            m.d.comb += holds.eq(
                (layer.ring & ~(ring.settled & ring.there)) | (lets_go & ~passed) | (first & ~(begun | quiet))
            )
        with m.Else():
            m.d.comb += holds.eq(self.out_active)
        m.d.comb += [
            standing.eq(stands & segment & ring.settled & passed),
            self.in_start.eq(standing & first & layer.stream_in & quiet & ~begun),
            self.in_move.eq(self.in_start | (standing & lets_go & ~loop.begins)),
            self.in_finish.eq(over & passed), self.out_start.eq(accept & first & layer.stream_out),
            self.stream_waits.eq(ready & holds), self.stream_stop.eq(self.done),
            streams.eq(self.out_busy | (self.in_active & (self.error == Error.NONE))),
            self.in_job.base.eq(layer.ring_base), self.in_job.rows.eq(layer.ring_rows),
            self.in_job.row.eq(layer.ring_row), self.in_job.height.eq(layer.height),
            self.out_job.line.eq(layer.destination), self.out_job.rows.eq(layer.out_rows),
            self.out_job.lines.eq(layer.tile_lines), self.out_job.tiles_y.eq(layer.tiles_y),
            self.banks.tile.row_begins.eq(layer.stream_out & loop.row_begins),
            self.banks.tile.row_ends.eq(layer.stream_out & loop.row_ends),
            self.scan.ring.eq(layer.ring), self.scan.place.eq(loop.place), self.scan.edge.eq(loop.edge),
            self.scan.wrap_pitch.eq(loop.wrap_pitch),
        ]  # fmt: skip
        with m.If(self.in_start):
            m.d.sync += begun.eq(1)
        with m.If(loop.prepare & loop.opens & loop.starts):
            m.d.sync += begun.eq(0)
        with m.If(self.in_finish):
            m.d.sync += over.eq(0)
        with m.If(accept & layer.last & loop.ends & layer.stream_in):
            m.d.sync += over.eq(1)
        with m.If(self.done):
            m.d.sync += over.eq(0)

    def _operations(self, m: Module) -> None:
        """The elementwise operation to queue, and what the records are told of one that is written back."""
        found = data.View(elementwise(self.params), self.r_data.as_value())
        job = self.push_job
        for name in ("has_b", "has_c", "has_e", "scale_a", "scale_c", "shift", "lines", "frame", "low", "high",
                     "functions", "offset"):  # fmt: skip
            m.d.comb += job[name].eq(found[name])
        for name in ("a", "b", "c", "e", "result"):
            m.d.comb += job[name].eq(found[name] + Mux(found[f"moves_{name}"], self.loop.offset, 0))
        for name in ("table", "left", "right"):
            m.d.comb += job.function_1[name].eq(found[f"{name}_1"])
        m.d.comb += [job.number.eq(self.loop.index), job.again.eq(self.loop.again)]
        with m.If(self.operation):
            m.d.comb += [self.writing.eq(self.job.number), self.writing_again.eq(self.job.again)]
