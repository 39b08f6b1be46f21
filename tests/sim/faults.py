"""Faults of the Verilog, all in one build: a plusarg turns one of them on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["with_switches"]


def with_switches(text: str, faults: Mapping[str, Sequence[Any]]) -> str:
    """The Verilog with a switch ``+fault_NAME`` at each place of `faults`.

    faults : name → (module, pattern whose group 1 is an expression in it, what that becomes, …).
    """
    for name, (module, pattern, wrong, *_) in faults.items():
        begin = re.search(rf"^module {module}", text, re.MULTILINE).start()  # type: ignore[union-attr]
        end = text.index("endmodule", begin)
        found = re.search(pattern, text[begin:end])
        assert found, f"{name}: {pattern} is not in {module}"
        right = found[1]
        switched = f'($test$plusargs("fault_{name}") ? {wrong.format(right)} : {right})'
        text = text[: begin + found.start(1)] + switched + text[begin + found.end(1) :]
    return text
