"""Recordings: what benches put to the pins of an array in each cycle, and what it answered."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from hw.accelerator import TOP_MODULE
from hw.registers import offset
from sim.mutation.netlist import SELECT, SELECT_BITS

__all__ = ["BYTES", "LAYOUT", "LOOK", "parse", "with_recorder"]

LAYOUT = (
    ("aresetn", 1), ("s_axi_awvalid", 1), ("s_axi_awaddr", 12), ("s_axi_wvalid", 1), ("s_axi_wdata", 32),
    ("s_axi_wstrb", 4), ("s_axi_bready", 1), ("s_axi_arvalid", 1), ("s_axi_araddr", 12), ("s_axi_rready", 1),
    ("s_axis_weights_tvalid", 1), ("s_axis_weights_tlast", 1), ("s_axis_weights_tdata", 128),
    ("s_axis_acts_tvalid", 1), ("s_axis_acts_tdata", 128), ("m_axis_acts_tready", 1),
    ("s_axi_awready", 1), ("s_axi_wready", 1), ("s_axi_bvalid", 1), ("s_axi_bresp", 2), ("s_axi_arready", 1),
    ("s_axi_rvalid", 1), ("s_axi_rdata", 32), ("s_axi_rresp", 2), ("irq", 1), ("s_axis_weights_tready", 1),
    ("s_axis_acts_tready", 1), ("m_axis_acts_tvalid", 1), ("m_axis_acts_tlast", 1), ("m_axis_acts_tdata", 128),
)  # fmt: skip
"""Pins of a cycle with their bits; each takes whole bytes, the highest first. Inputs, then outputs."""

LOOK = {"read": 1, "poll": 2, "maps": 4, "status": 8}
"""Bits of the byte behind them: what is compared. read : all of the word that is read. poll : of STATUS while a run is
under way, what does not depend on time. maps : the beat of a map. status : the interrupt with this word."""

BYTES = sum(-(-bits // 8) for _, bits in LAYOUT) + 1

_BUSY = 1


def with_recorder(text: str) -> str:
    """The Verilog of an array that writes its pins to the file of ``+eie_record=``; a plusarg chooses the mutant."""
    begin = text.index(f"module {TOP_MODULE}(")
    end = text.index("endmodule", begin)
    top = text[begin:end]
    if SELECT in top:
        top = re.sub(rf"(module {TOP_MODULE}\([^)]*?), {SELECT}\b|\b{SELECT}, ", r"\1", top, count=1)
        top = re.sub(rf"  input \[\d+:0\] {SELECT};\n  wire \[\d+:0\] {SELECT};\n", "", top)
    pins = ", ".join(f"{-(-bits // 8) * 8 - bits}'h0, {name}" if bits % 8 else name for name, bits in LAYOUT)
    head, rest = top.split(";\n", 1)
    top = f"""{head};
  reg [{SELECT_BITS - 1}:0] {SELECT};
  initial if (!$value$plusargs("{SELECT}=%d", {SELECT})) {SELECT} = 0;
{rest}
  string eie_record;
  integer eie_recorder = 0;
  initial if ($value$plusargs("eie_record=%s", eie_record)) eie_recorder = $fopen(eie_record, "w");
  always @(posedge aclk) if (eie_recorder != 0) $fdisplay(eie_recorder, "%h", {{{pins}}});
  final if (eie_recorder != 0) $fclose(eie_recorder);
"""
    return text[:begin] + top + text[end:]


def parse(lines: str) -> NDArray[np.uint8]:
    """A recording, uint8 (cycles, BYTES), of what the recorder wrote, from the first reset on."""
    raw = np.frombuffer(bytes.fromhex(lines), np.uint8).reshape(-1, BYTES - 1)
    raw = raw[np.argmax(raw[:, 0] == 0) :]
    made = np.concatenate([raw, np.zeros((len(raw), 1), np.uint8)], 1)
    at = dict(zip((name for name, _ in LAYOUT), np.cumsum([0, *(-(-bits // 8) for _, bits in LAYOUT)]), strict=False))

    def pin(name: str) -> NDArray[np.uint8]:
        return made[:, at[name]]

    # The address of each word that is read: requests and answers go in order, and a reset forgets both.
    asked: list[int] = []
    for cycle in np.flatnonzero(
        (pin("aresetn") == 0)
        | (pin("s_axi_arvalid") & pin("s_axi_arready"))
        | (pin("s_axi_rvalid") & pin("s_axi_rready"))
    ):
        row = made[cycle]
        if not row[at["aresetn"]]:
            asked.clear()
            continue
        if row[at["s_axi_rvalid"]] & row[at["s_axi_rready"]]:
            status = asked.pop(0) == offset("STATUS") if asked else False
            busy = bool(row[at["s_axi_rdata"] + 3] & _BUSY)
            row[-1] |= LOOK["poll"] if status and busy else LOOK["read"]
            if status and not busy:
                row[-1] |= LOOK["status"]
        if row[at["s_axi_arvalid"]] & row[at["s_axi_arready"]]:
            asked.append(int(row[at["s_axi_araddr"]]) << 8 | int(row[at["s_axi_araddr"] + 1]))
    sent = (pin("m_axis_acts_tvalid") & pin("m_axis_acts_tready")).astype(bool)
    made[sent, -1] |= LOOK["maps"]
    return made
