"""Multiply-accumulate with two accumulator banks and a bypass."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import ACT_BITS, WEIGHT_BITS, near_sum
from hw.near_ram import NearRam
from hw.params import Params
from hw.parity import ParityBeside
from hw.sram import Sram
from hw.streams import drain_request, product_operands, tag

__all__ = ["Mac"]


class Mac(wiring.Component):
    """Add products to accumulators, one a cycle, also onto the same accumulator in successive cycles.

    Two banks: while one is written back and cleared, entries of the next tile add to the other. The bank
    travels with each entry, so tiles may follow one another without waiting for the slowest PE.

    Numerics: int16 × int16 = int32 product, exact; the sum wraps modulo ``2**acc_bits``. In a bank with ``maximum``
    an entry does not add: accumulator = max(accumulator, act + 32768), whatever its weight; so the compiler stores no
    padding entries in such a layer. There a cleared accumulator stands for -32768, the lowest activation, and values
    lie in 0 … 65535.

    Timing: a sum is written `LATENCY` cycles after its operands arrive. ``sum`` follows ``drain.slot`` and
    ``drain.bank`` by 1 cycle.
    Few accumulators (`Params.near`) lie in memories that are read within a cycle: in that of the write. Such a
    memory has a bit more, whether its accumulator was written since it was cleared: if not, it stands for zero.
    Bypass, where there are more: the accumulator is read in the cycle in which the entry before it writes; if it is the
    same one, the sum just written is used instead of the memory's answer. The entry before that has left.

    No accumulator is read and written in the same cycle, where the memory's answer is not specified. Between
    entries, the bypass above sees to it. Between entries and write-back, control does: ``drain.bank`` and ``clear``
    only ever name a bank that no entry is on its way to, and ``clear_all`` comes while the array is idle. Within
    write-back, the output table does: an accumulator is cleared in the cycle after it was read, while that of the
    next word is read, and the compiler lets at most one word of a tile use an accumulator. Where a word repeats an
    address nonetheless (it names another PE, or it has no effect), nobody uses the answer.

    Members
    -------
    i : operands (always ready).
    done, done_tag : the last entry of a vector was written in this cycle, and what the vector belonged to.
    maximum : for each bank, its layer takes maxima; does not change while an entry of the bank is on its way.
    drain : write-back's read and clear requests to this PE: `slot` of `bank` is read in every cycle in which no entry
        reads that bank; with ``clear``, `clear_slot` of `bank` becomes zero; with ``clear_all``, that of both banks.
    sum : accumulator that `drain` asked for, int`acc_bits`.
    wrong : an accumulator that was used had the wrong parity (only with ``params.parity``). The bits lie beside the
        banks, since the sum is the end of a long path.

    Source: EIE section IV, "Arithmetic Unit" (bypass) and "Activation Read/Write" (two banks).
    """

    LATENCY = 1

    def __init__(self, params: Params) -> None:
        self.params = params
        self.banks: list[Any] = [
            NearRam(near_sum(params).size, params.rows) if params.near else Sram(params.acc_bits, params.rows)
            for _ in range(2)
        ]
        super().__init__({
            "i": In(stream.Signature(product_operands(params), always_ready=True)),
            "done": Out(1), "done_tag": Out(tag(params)),
            "maximum": In(2),
            "drain": In(drain_request(params)),
            "sum": Out(signed(params.acc_bits)), **({"wrong": Out(1)} if params.parity else {}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bank_0, m.submodules.bank_1 = self.banks
        entry = self.i.p
        product = Signal(signed(WEIGHT_BITS + ACT_BITS), reset_less=True)
        valid = Signal()
        last = Signal()
        takes_maximum = Signal()
        held = Signal(tag(self.params))
        row = Signal(self.params.row_bits)
        maximum = self.maximum.bit_select(entry.tag.bank, 1)
        from_lowest = Cat(entry.act[:-1], ~entry.act[-1])  # act + 32768
        m.d.sync += [
            product.eq(Mux(maximum, from_lowest, entry.weight.raw.as_signed() * entry.act.as_signed())),
            takes_maximum.eq(maximum),
            valid.eq(self.i.valid), last.eq(entry.last), held.eq(entry.tag), row.eq(entry.row),
        ]  # fmt: skip
        m.d.comb += [self.done.eq(valid & last), self.done_tag.eq(held)]
        (self._near if self.params.near else self._far)(m, product, valid, takes_maximum, held.bank, row)
        if self.params.parity:
            self._parity(m, valid, held.bank, row)
        return m

    def _parity(self, m: Module, valid: Signal, bank: Value, row: Signal) -> None:
        """Which accumulators are used: those that are added to, and those that write-back clears."""
        entry = self.i.p
        self.checks = checks = [ParityBeside(memory) for memory in self.banks]
        for n, check in enumerate(checks):
            m.submodules[f"parity_{n}"] = check
            adds = Signal(name=f"adds_{n}")
            if self.params.near:
                m.d.sync += adds.eq(valid & (bank == n))
            else:  # without the one that comes from the bypass
                clash = valid & (bank == n) & (row == entry.row)
                m.d.sync += adds.eq(self.i.valid & (entry.tag.bank == n) & ~clash)
            m.d.comb += check.used.eq(adds | (self.drain.clear & (self.drain.bank == n)))
        m.d.comb += self.wrong.eq(checks[0].wrong | checks[1].wrong)

    def _far(self, m: Module, product: Signal, valid: Signal, takes_maximum: Signal, bank: Value, row: Signal) -> None:
        """An accumulator is read in one cycle, and added to and written in the next."""
        bits, entry = self.params.acc_bits, self.i.p
        forward = Signal()
        previous = Signal(signed(bits), reset_less=True)
        stored = Signal(signed(bits))
        before = Signal(signed(bits))
        total = Signal(signed(bits))
        m.d.sync += [
            forward.eq(valid & (row == entry.row) & (bank == entry.tag.bank)),
            previous.eq(total),
        ]  # fmt: skip

        added = Signal(bits)
        larger = Signal(ACT_BITS)
        m.d.comb += [
            stored.eq(Mux(bank, self.banks[1].r_data, self.banks[0].r_data)),
            before.eq(Mux(forward, previous, stored)),
            added.eq(before + product),  # the carry out is dropped: sums wrap
            larger.eq(Mux(product[:ACT_BITS] > before[:ACT_BITS], product[:ACT_BITS], before[:ACT_BITS])),
            # Two values below 2**16 add up to less than 2**17: from there on the sum is zero as it is, and the
            # longest part of its carry chain ends without a multiplexer behind it.
            total.eq(Cat(Mux(takes_maximum, larger, added[: ACT_BITS + 1]), added[ACT_BITS + 1 :])),
        ]  # fmt: skip

        drained = Signal()
        m.d.sync += drained.eq(self.drain.bank)
        m.d.comb += self.sum.eq(Mux(drained, self.banks[1].r_data, self.banks[0].r_data))
        for n, memory in enumerate(self.banks):
            draining = self.drain.bank == n
            # Reading an accumulator in the cycle that writes it is what `forward` is for: no read then.
            clash = valid & (bank == n) & (row == entry.row)
            with m.If(self.i.valid & (entry.tag.bank == n)):
                m.d.comb += [memory.r_en.eq(~clash), memory.r_addr.eq(entry.row)]
            with m.Elif(draining):
                m.d.comb += [memory.r_en.eq(1), memory.r_addr.eq(self.drain.slot)]
            with m.If(valid & (bank == n)):
                m.d.comb += [memory.w_en.eq(1), memory.w_addr.eq(row), memory.w_data.eq(total)]
            with m.Else():
                m.d.comb += [
                    memory.w_en.eq((self.drain.clear & draining) | self.drain.clear_all),
                    memory.w_addr.eq(self.drain.clear_slot),
                    memory.w_data.eq(0),
                ]

    def _near(self, m: Module, product: Signal, valid: Signal, takes_maximum: Signal, bank: Value, row: Signal) -> None:
        """An accumulator is read, added to and written in one cycle."""
        bits = self.params.acc_bits
        words = [data.View(near_sum(self.params), memory.r_data) for memory in self.banks]
        stored, used = Signal(bits), Signal()
        total = Signal(bits)
        larger = Signal()
        m.d.comb += [
            stored.eq(Mux(bank, words[1].sum, words[0].sum)), used.eq(Mux(bank, words[1].used, words[0].used)),
            # A maximum is what comes, where that is larger or the first to come; else nothing is written.
            total.eq(Mux(used & ~takes_maximum, stored, 0) + product),  # the carry out is dropped: sums wrap
            larger.eq(~used | (product[:ACT_BITS] > stored[:ACT_BITS])),
        ]  # fmt: skip
        drained, drained_used = Signal(bits), Signal()
        m.d.comb += [
            drained.eq(Mux(self.drain.bank, words[1].sum, words[0].sum)),
            drained_used.eq(Mux(self.drain.bank, words[1].used, words[0].used)),
        ]  # fmt: skip
        m.d.sync += self.sum.eq(Mux(drained_used, drained, 0))
        for n, memory in enumerate(self.banks):
            mine, cleared = Signal(name=f"mine_{n}"), self.drain.clear & (self.drain.bank == n)
            word = Signal(near_sum(self.params), name=f"word_{n}")
            m.d.comb += [
                mine.eq(valid & (bank == n)), word.sum.eq(total), word.used.eq(mine),
                memory.r_addr.eq(Mux(mine, row, self.drain.slot)),
                memory.w_addr.eq(Mux(mine, row, self.drain.clear_slot)), memory.w_data.eq(word),
                memory.w_en.eq(Mux(mine, larger | ~takes_maximum, cleared | self.drain.clear_all)),
            ]  # fmt: skip
