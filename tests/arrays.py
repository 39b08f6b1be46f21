"""An array that tests of many subjects run their networks on in Verilog: its simulator is built once."""

from __future__ import annotations

from hw.params import Params

__all__ = ["COMMON"]

COMMON = Params(
    pes=4, code_bits=8, rows=256, weight_words=32768, pointer_blocks=2048, act_lines=2048, output_words=4096,
    descriptors=64, refill=False,
)  # fmt: skip
"""Codes of eight bits, so that sharing without retraining costs little; every operator is there."""
