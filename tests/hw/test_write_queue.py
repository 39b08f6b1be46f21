"""The queue of what is to be written back against a deque."""

from __future__ import annotations

from collections import deque

import pytest

from hw.params import WRITE_QUEUE, Params
from hw.write_queue import WriteQueue


@pytest.mark.verifies("write-queue-against-deque")
@pytest.mark.parametrize("eager", [0.2, 0.5, 0.9])
def test_items_leave_in_order(simulate, rng, eager):
    dut = WriteQueue(Params(pes=1))
    fullest = 0

    async def bench(ctx):
        nonlocal fullest
        model = deque()
        for number in range(400):
            assert ctx.get(dut.valid) == bool(model)
            assert ctx.get(dut.full) == (len(model) == WRITE_QUEUE)
            assert ctx.get(dut.waiting) == any(operation for operation, _ in model)
            if model:
                operation, wanted = model[0]
                assert ctx.get(dut.first_operation) == operation
                assert not operation or ctx.get(dut.first_job.a) == wanted
            push = bool(len(model) < WRITE_QUEUE and rng.random() < eager)
            pop = bool(model) and bool(rng.random() < 0.5)
            operation = int(rng.integers(2))
            ctx.set(dut.push, push)
            ctx.set(dut.operation, operation)
            ctx.set(dut.job, {"a": number})
            ctx.set(dut.pop, pop)
            if pop:
                model.popleft()
            if push:
                model.append((operation, number))
            fullest = max(fullest, len(model))
            await ctx.tick()

    simulate(dut, bench)
    assert fullest == WRITE_QUEUE or eager < 0.9
