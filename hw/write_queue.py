"""What is to be written back, in order: tiles and elementwise operations."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.params import WRITE_QUEUE, Params
from hw.streams import elementwise_job

__all__ = ["WriteQueue"]


class WriteQueue(wiring.Component):
    """A queue of `WRITE_QUEUE` places; what is written back leaves it when it is written.

    Timing: what is pushed shows 1 cycle later if nothing is before it; so does what comes after a ``pop``.

    Members
    -------
    push, operation, job : a tile (``operation`` 0) or an elementwise operation `job`, only while not `full`.
    pop : the first one is written.
    valid, first_operation, first_job : the first one, if there is one.
    full : no place is left. waiting : an elementwise operation is among them.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        job = elementwise_job(params)
        super().__init__({
            "push": In(1), "operation": In(1), "job": In(job), "pop": In(1),
            "valid": Out(1), "first_operation": Out(1), "first_job": Out(job), "full": Out(1), "waiting": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = data.StructLayout({"operation": 1, "job": self.job.shape()})
        m.submodules.memory = places = memory.Memory(shape=shape, depth=WRITE_QUEUE, init=[])
        write, read = places.write_port(), places.read_port(domain="comb")
        tail, head = Signal(range(WRITE_QUEUE)), Signal(range(WRITE_QUEUE))
        level, operations = Signal(range(WRITE_QUEUE + 1)), Signal(range(WRITE_QUEUE + 1))
        m.d.comb += [
            write.en.eq(self.push), write.addr.eq(tail), write.data.operation.eq(self.operation),
            write.data.job.eq(self.job), read.addr.eq(head),
            self.valid.eq(level != 0), self.full.eq(level == WRITE_QUEUE), self.waiting.eq(operations != 0),
            self.first_operation.eq(read.data.operation), self.first_job.eq(read.data.job),
        ]  # fmt: skip
        m.d.sync += [
            tail.eq(tail + self.push), head.eq(head + self.pop), level.eq(level + self.push - self.pop),
            operations.eq(operations + (self.push & self.operation) - (self.pop & self.first_operation)),
        ]  # fmt: skip
        return m
