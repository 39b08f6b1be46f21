"""Recordings: what benches put to the pins of an array in each cycle, and what it answered."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ToolError
from hw.accelerator import TOP_MODULE
from hw.registers import offset
from sim.mutation.netlist import SELECT, SELECT_BITS

__all__ = ["BYTES", "LAYOUT", "LOOK", "PINS", "parse", "with_recorder"]

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
"""Bits of the byte behind these, LOOK: what is compared. read : all of the word that is read. poll : of STATUS while a
run is under way, what does not depend on time. maps : the beat of a map. status : the interrupt with this word."""

REPEAT = 4
"""Bytes behind that: for how many cycles all this is so. It is 1 where a beat is handed over."""

PINS = sum(-(-bits // 8) for _, bits in LAYOUT)
BYTES = PINS + 1 + REPEAT

NEXT = "eie_next"
"""Input that chooses the mutant of a replay."""

_BUSY = 1


def with_recorder(text: str) -> str:
    """The Verilog of an array that writes its pins to the file of ``+eie_record=``; a plusarg chooses the mutant.

    With ``+eie_replay`` the input `NEXT` chooses it instead, from one clock edge on. Where a mutant is not the array
    without it, and whether it is chosen or not, ``eie_seen`` of its number is set (see ``replay.cpp``).
    """
    text = "endmodule".join(_watched(module) for module in text.split("endmodule"))
    begin = text.index(f"module {TOP_MODULE}(")
    end = text.index("endmodule", begin)
    top = text[begin:end]
    if SELECT in top:
        top = re.sub(rf"(module {TOP_MODULE}\([^)]*?), {SELECT}\b|\b{SELECT}, ", r"\1", top, count=1)
        top = re.sub(rf"  input \[\d+:0\] {SELECT};\n  wire \[\d+:0\] {SELECT};\n", "", top)
    top = top.replace(f"module {TOP_MODULE}(", f"module {TOP_MODULE}({NEXT}, ", 1)
    pins = ", ".join(f"{-(-bits // 8) * 8 - bits}'h0, {name}" if bits % 8 else name for name, bits in LAYOUT)
    head, rest = top.split(";\n", 1)
    top = f"""{head};
  input [{SELECT_BITS - 1}:0] {NEXT};
  reg [{SELECT_BITS - 1}:0] {SELECT};
  reg eie_replays;
  initial eie_replays = $test$plusargs("eie_replay");
  initial if (!$value$plusargs("{SELECT}=%d", {SELECT})) {SELECT} = 0;
  always @(posedge aclk) if (eie_replays) {SELECT} <= {NEXT};
{rest}
  string eie_record;
  integer eie_recorder = 0;
  reg [{8 * PINS - 1}:0] eie_pins;
  integer eie_repeat = 0;
  initial if ($value$plusargs("eie_record=%s", eie_record)) eie_recorder = $fopen(eie_record, "w");
  always @(posedge aclk) if (eie_recorder != 0) begin
    if (eie_repeat != 0 && eie_pins == {{{pins}}}) eie_repeat = eie_repeat + 1;
    else begin
      if (eie_repeat != 0) $fdisplay(eie_recorder, "%h%h", eie_pins, eie_repeat);
      eie_pins = {{{pins}}};
      eie_repeat = 1;
    end
  end
  final if (eie_recorder != 0) begin
    $fdisplay(eie_recorder, "%h%h", eie_pins, eie_repeat);
    $fclose(eie_recorder);
  end
"""
    return text[:begin] + top + text[end:]


def _watched(module: str) -> str:
    """A module that tells of each mutant in it, a choice between two bits, when these differ."""
    watches = []
    for wire, digits in re.findall(rf"^  assign (\S+) = {SELECT} == 16'h(\w+);$", module, re.MULTILINE):
        found = re.search(rf"^  assign .* = {re.escape(wire)} \? (.+) : (.+);$", module, re.MULTILINE)
        if not found:
            raise ToolError(f"no choice in the Verilog is that of mutant {int(digits, 16)}; expected one")
        place = f"eie_seen[{int(digits, 16)}]"
        watches.append(
            f'  always @* $c("{{extern unsigned char eie_seen[]; {place} |= ", ({found[1]}) ^ ({found[2]}), ";}}");\n'
        )
    return module + "".join(watches)


def parse(lines: str) -> NDArray[np.uint8]:
    """A recording, uint8 (rows, BYTES), of what the recorder wrote, from the first reset on."""
    raw = np.frombuffer(bytes.fromhex(lines), np.uint8).reshape(-1, PINS + REPEAT)
    raw = raw[np.argmax(raw[:, 0] == 0) :]
    at = dict(zip((name for name, _ in LAYOUT), np.cumsum([0, *(-(-bits // 8) for _, bits in LAYOUT)]), strict=False))
    beats = np.zeros(len(raw), bool)
    for valid, ready in ((name, name.replace("valid", "ready")) for name in at if name.endswith("valid")):
        beats |= (raw[:, at[valid]] & raw[:, at[ready]]).astype(bool)
    repeats = raw[:, PINS:].copy().view(">u4")[:, 0].astype(np.int64)
    raw = np.repeat(raw, np.where(beats, repeats, 1), 0)
    repeats = np.repeat(np.where(beats, 1, repeats), np.where(beats, repeats, 1))
    made = np.concatenate(
        [raw[:, :PINS], np.zeros((len(raw), 1), np.uint8), repeats.astype(">u4")[:, None].view(np.uint8)], 1
    )

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
            row[PINS] |= LOOK["poll"] if status and busy else LOOK["read"]
            if status and not busy:
                row[PINS] |= LOOK["status"]
        if row[at["s_axi_arvalid"]] & row[at["s_axi_arready"]]:
            asked.append(int(row[at["s_axi_araddr"]]) << 8 | int(row[at["s_axi_araddr"] + 1]))
    sent = (pin("m_axis_acts_tvalid") & pin("m_axis_acts_tready")).astype(bool)
    made[sent, PINS] |= LOOK["maps"]
    return made
