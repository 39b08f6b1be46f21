"""Cocotb bench of long runs: programs, each from clear accumulators, and what each of them leaves.

The job folder holds what is loaded and the programs (``job.json``); what was observed goes to ``results.json`` and is
judged by `sim.extent_cases`. Streams are offered and taken in every cycle, so that Python is not in the loop.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb

from hw.layouts import Memory
from hw.params import Params
from sim.testbench.job import Bench


@cocotb.test()
async def extents(dut: Any) -> None:
    """All programs, one after the other."""
    folder = Path(os.environ["EIE_JOB"])
    job = json.loads((folder / "job.json").read_text())
    params = Params.from_dict(job["params"])
    bench = Bench(dut, params, job["watchdog"])
    await bench.reset()
    for name, unit, address, words in job["loads"]:
        await bench.host.load(Memory[name], unit, address, [int(word, 16) for word in words])
    observed = []
    for words, batch in job["programs"]:
        await bench.host.command("RESTART")
        while (await bench.host.status())["busy"]:
            pass
        await bench.host.load(Memory.DESCRIPTORS, 0, 0, [int(word, 16) for word in words])
        if params.streams:
            dut.s_axis_acts_tvalid.value = dut.m_axis_acts_tready.value = 1
            dut.s_axis_acts_tdata.value = 0
        status = await bench.run(batch)
        bench.still()
        records = await bench.host.fetch(Memory.RECORDS, 0, 0, len(words) - 1)
        (line,) = await bench.host.fetch(Memory.ACTIVATIONS, 0, 0, 1)
        cycles = await bench.host.read("CYCLES")
        observed.append({"status": status, "cycles": cycles, "records": [hex(n) for n in records], "line": hex(line)})
    (folder / "results.json").write_text(json.dumps(observed))
