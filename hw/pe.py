"""Processing element: pointer read, queue, expander, weight read, decode, multiply-accumulate in a row."""

from __future__ import annotations

from amaranth import Cat, Elaboratable, Module, ResetInserter, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect

from hw.activation_queue import ActivationQueue
from hw.expander import Expander
from hw.layouts import Memory
from hw.mac import Mac
from hw.params import Params
from hw.pointer_read import PointerRead
from hw.streams import broadcast, drain_request, event, host_write
from hw.weight_decode import WeightDecode
from hw.weight_read import WeightRead

__all__ = ["ProcessingElement"]


class ProcessingElement(wiring.Component):
    """One PE with all its memories.

    Timing: a vector that arrives at ``i`` in cycle t is written into the queue, or dropped, in t + `TO_QUEUE` (with
    ``params.hops`` as many cycles later, and all that follows). With an idle PE its entries are selected one a cycle
    from t + `TO_SELECT` on, and the first sum is written in t + `TO_SELECT` + `SELECT_TO_WRITE`. One entry a cycle,
    without a bubble between columns or vectors.

    Members
    -------
    i : broadcast vectors (always ready; send only while ``credit``). The ``acts`` of a vector come `acts_late` cycles
        after the rest.
    credit : registered credit flag of the queue.
    busy : for each bank, a vector is anywhere between ``i`` and the accumulators: from the cycle after it arrived to
        the one in which it is dropped or its last sum is written. tile_busy : for each tile buffer.
    activity : what was selected in the cycle before.
    drain, sum : write-back's port to the accumulators (see `Mac`); its ``slot`` comes 1 cycle before the rest.
    maximum : for each bank, its layer takes maxima instead of sums (see `Mac`).
    restart : synchronous reset of everything but the memories.
    wrong : parity of a word that was used: of weights, pointers, codebook, queue, accumulators, in this order (only
        with ``params.parity``).
    host : words for the weight, pointer and codebook memories, one a cycle, while the PE is idle.
    """

    TO_QUEUE = PointerRead.LATENCY
    TO_SELECT = TO_QUEUE + ActivationQueue.LATENCY + Expander.LATENCY + WeightRead.TAKE_TO_SELECT
    SELECT_TO_WRITE = 1 + WeightDecode.LATENCY + Mac.LATENCY

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__(self.ports(params))

    @staticmethod
    def acts_late(params: Params) -> int:
        """Cycles from a vector to its activations."""
        return PointerRead.ACTS_LATE + params.hops

    @staticmethod
    def ports(params: Params) -> wiring.Signature:
        return wiring.Signature({
            "i": In(stream.Signature(broadcast(params), always_ready=True)),
            "credit": Out(1),
            "busy": Out(2),
            **({"tile_busy": Out(2)} if params.refill else {}),
            "activity": Out(event(params)),
            "drain": In(drain_request(params)),
            "sum": Out(signed(params.acc_bits)),
            "maximum": In(2),
            "host": In(stream.Signature(host_write(params), always_ready=True)),
            "restart": In(1),
            **({"wrong": Out(5)} if params.parity else {}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.pointer_read = pointers = self.pointer_read = PointerRead(self.params)
        m.submodules.queue = queue = self.queue = ActivationQueue(self.params)
        m.submodules.expander = expander = self.expander = Expander(self.params)
        m.submodules.weight_read = weights = self.weight_read = WeightRead(self.params)
        m.submodules.weight_decode = decode = self.weight_decode = WeightDecode(self.params)
        m.submodules.mac = mac = self.mac = Mac(self.params)

        valid, sent = self.i.valid, self.i.payload
        for hop in range(self.params.hops):
            arrived = Signal(name=f"arrived_{hop}")
            taken = Signal(broadcast(self.params), name=f"taken_{hop}", reset_less=True)
            m.d.sync += [arrived.eq(valid), taken.eq(sent)]
            valid, sent = arrived, taken
        m.d.comb += [
            pointers.i.valid.eq(valid), pointers.i.payload.eq(sent), pointers.i.p.acts.eq(self.i.p.acts),
        ]  # fmt: skip
        # Here and not in write-back, which is far away: through accumulator and adder it is a long way already.
        slot = Signal.like(self.drain.slot, reset_less=True)
        m.d.sync += slot.eq(self.drain.slot)
        connect(m, pointers.o, queue.i)
        connect(m, queue.o, expander.i)
        connect(m, expander.o, weights.i)
        connect(m, weights.o, decode.i)
        connect(m, decode.o, mac.i)
        m.d.comb += [
            self.credit.eq(queue.credit),
            mac.drain.eq(self.drain), mac.drain.slot.eq(slot), self.sum.eq(mac.sum), mac.maximum.eq(self.maximum),
            self.activity.entry.eq(weights.o.valid),
            self.activity.padding.eq(weights.o.valid & (weights.o.p.code == 0)),
            self.activity.bank.eq(weights.o.p.tag.bank),
        ]  # fmt: skip

        # One is enough: vectors come by at least as many, so a word is still written before it is read. No restart
        # loses it, as without hops.
        written, word = self.host.valid, self.host.p
        if self.params.hops:
            held = Signal.like(word, name="host_word", reset_less=True)
            wrote = Signal(name="host_wrote", reset_less=True)
            m.d.sync += [wrote.eq(written), held.eq(word)]
            written, word = wrote, held
        for memory, block in ((Memory.WEIGHTS, weights), (Memory.POINTERS, pointers), (Memory.CODEBOOK, decode)):
            m.d.comb += [
                block.w_en.eq(written & (word.memory == memory.value)),
                block.w_addr.eq(word.address),
                block.w_data.eq(word.data),
            ]

        if self.params.parity:
            blocks = (weights.memory, pointers.memory, decode.memory, queue, mac)
            m.d.comb += self.wrong.eq(Cat(block.wrong for block in blocks))

        # Vectors on their way; at most one enters and two leave in a cycle (dropped, finished).
        def on_their_way(name: str, entered: Value, dropped: Value, finished: Value) -> Value:
            pending = Signal(range(self.params.queue_depth + 32), name=f"pending_{name}")
            m.d.sync += pending.eq(
                pending + (self.i.valid & entered) - (pointers.dropped & dropped) - (mac.done & finished)
            )
            return pending != 0

        tags = (self.i.p.tag, pointers.dropped_tag, mac.done_tag)
        for n in range(2):
            m.d.comb += self.busy[n].eq(on_their_way(f"bank_{n}", *(tag.bank == n for tag in tags)))
            if self.params.refill:
                m.d.comb += self.tile_busy[n].eq(on_their_way(f"tile_{n}", *(tag.tile[n] for tag in tags)))
        return ResetInserter(self.restart)(m)
