"""Activation scan: reads the windows of segments from the activation memory and sends vectors that are not zero."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import ACT_BITS
from hw.params import LANES, Params
from hw.streams import LINE_BITS, broadcast, scan_request, vector
from hw.window import Window

__all__ = ["Scan"]


class Scan(wiring.Component):
    """Read activation vectors in the order of their window, and send each that has a nonzero activation.

    Vector address `a` lies in bank ``a % groups`` at line ``a // groups``. It is read only when its line is there:
    `open` says that all are, otherwise the lines before the limit. A tile of weights is scanned only when it is loaded.
    A position outside the map reads nothing and is not sent.

    Timing: a vector passes three stages. It is requested (or passed over, outside the map) in cycle A; it stands at the
    output of the memory until it moves, in cycle M, to the register from which it leaves in cycle U: it is sent when
    every PE has credit, or it is skipped ::

        M[i] = max(A[i] + 1, U[i-1])
        U[i] = M[i] + 1 if it is skipped, else the first cycle from M[i] + 1 on in which ``o`` is ready
        A[i+1] = first cycle from max(A[i] + 1, M[i]) on in which its line and its tile are there

    The first A is 1 cycle after ``start``; the next window may start 1 cycle after the last A. No path leads from the
    word of the memory to the next request.

    Others read before the scan: in a cycle with ``claimed`` no vector is requested, and what stands at the output of
    the memory is lost unless it moves in that cycle. It is requested again in the first cycle that is not claimed. So a
    vector of the map moves in the first cycle from max(A[i] + 1, U[i-1]) on that does not follow a claimed one.

    Members
    -------
    start, request, ready : begin a window (only while `ready`).
    open, limit : which lines of the activation memory may be read: all, or those before the limit.
    loaded : for each tile buffer, its weights are there. waiting : the tile to scan is not.
    r_en, r_addr, r_data : read port of all activation banks. claimed : it is somebody else's in this cycle.
    picks, picked, word : the host reads this bank, while nothing is scanned; the word of the bank read last.
    o : vectors to send. Its tag is that of the vector in the register also while it is skipped.
    taken : the last vector of a window is requested in this cycle. `taken_tile`: tile buffer of the window.
    finished : the last vector of a window leaves in this cycle. `closes`: the window was the last of its tile.
    skipped : a vector leaves without being sent.
    busy : a vector is anywhere in the scan. standing : its word is at the output of the memory, and does not move on.
    used : the word of this bank moves on (only with ``params.parity``).
    fault : a vector is requested beyond the activation memory or beyond the pointer memory.

    Source: EIE section IV, "Distributed Leading Non-Zero Detection"; a vector is sent whole here, and each PE takes
    its nonzero columns.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self.window = Window(params)
        tiles = {"loaded": In(2), "waiting": Out(1), "taken_tile": Out(2)} if params.refill else {}
        super().__init__({
            "start": In(1), "request": In(scan_request(params)), "ready": Out(1),
            "open": In(1), "limit": In(LINE_BITS), **tiles,
            "r_en": Out(1), "r_addr": Out(range(params.act_lines)), "claimed": In(1),
            "r_data": In(ACT_BITS * LANES).array(params.groups),
            "picks": In(1), "picked": In(8), "word": Out(ACT_BITS * LANES),
            "o": Out(stream.Signature(broadcast(params))),
            "taken": Out(1), "finished": Out(1), "closes": Out(1), "skipped": Out(1), "busy": Out(1), "fault": Out(1),
            "standing": Out(1), **({"used": Out(params.groups)} if params.parity else {}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        params = self.params
        m.submodules.window = window = self.window
        group_bits = (params.groups - 1).bit_length()
        line = Signal(len(window.address) - group_bits)
        waiting = Signal()
        free = Signal()  # the stage at the output of the memory can take a vector
        go = Signal()
        lost = Signal()  # the word of the vector that stands there
        lost_line = Signal(len(self.r_addr))
        m.d.comb += [
            window.start.eq(self.start), window.request.eq(self.request), window.go.eq(go),
            self.ready.eq(~window.valid),
            line.eq(window.address >> group_bits), self.r_addr.eq(Mux(lost, lost_line, line)),
            go.eq(
                window.valid & ~waiting & free
                & (~window.inside | (~self.claimed & (self.open | (line < self.limit))))
            ),
            self.r_en.eq((go & window.inside) | (lost & ~self.claimed)), self.taken.eq(go & window.last),
            self.fault.eq(
                go & window.inside & ((line >= params.act_lines) | (window.pointers >= params.pointer_blocks))
            ),
        ]  # fmt: skip
        if params.refill:
            m.d.comb += [
                waiting.eq(window.valid & (window.tag.tile & ~self.loaded).any()), self.waiting.eq(waiting),
                self.taken_tile.eq(window.tag.tile),
            ]  # fmt: skip

        # The vector that stands at the output of the memory.
        read, moves = Signal(), Signal()
        at, at_group = Signal(vector(params)), Signal(max(1, group_bits))
        m.d.comb += free.eq(~read | moves)
        with m.If(free):
            m.d.sync += read.eq(go)
        m.d.sync += lost.eq(self.claimed & read & at.inside & ~moves)
        with m.If(go):
            m.d.sync += [
                lost_line.eq(line),
                at_group.eq(window.address[:group_bits]), at.pointers.eq(window.pointers), at.inside.eq(window.inside),
                at.dense.eq(window.dense), at.last.eq(window.last), at.tag.eq(window.tag), at.closes.eq(window.closes),
            ]  # fmt: skip
        with m.If(self.picks):
            m.d.sync += at_group.eq(self.picked)
        acts = Signal(data.ArrayLayout(ACT_BITS, LANES))
        m.d.comb += self.word.eq(acts)
        with m.Switch(at_group):
            for group in range(params.groups):
                with m.Case(group):
                    m.d.comb += acts.as_value().eq(self.r_data[group])
        nonzero = Cat((acts[lane].any() | at.dense) & at.inside for lane in range(LANES))

        if params.parity:
            m.d.comb += self.used.eq((moves & at.inside) << at_group)

        # The vector in the register: sent, or skipped.
        held, last = Signal(), Signal()
        sends = Signal(2)  # each half of the lanes: the longest path from the memory ends a level earlier
        leaves = Signal()
        m.d.comb += [
            self.o.valid.eq(held & sends.any()), leaves.eq(held & (self.o.ready | ~sends.any())),
            moves.eq(read & ~lost & (~held | leaves)), self.skipped.eq(held & ~sends.any()),
            self.finished.eq(leaves & last),
            self.busy.eq(window.valid | read | held), self.standing.eq(read & ~moves),
        ]  # fmt: skip
        m.d.sync += held.eq(moves | (held & ~leaves))
        with m.If(moves):
            m.d.sync += [
                self.o.p.pointers.eq(at.pointers), self.o.p.mask.eq(nonzero), self.o.p.acts.eq(acts),
                self.o.p.tag.eq(at.tag), last.eq(at.last), self.closes.eq(at.closes),
                sends.eq(Cat(half.any() for half in (nonzero[: LANES // 2], nonzero[LANES // 2 :]))),
            ]  # fmt: skip
        return m
