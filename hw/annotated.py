"""Verilog in which every branch says from which line of the Amaranth source it comes, for coverage.

The text is that of `hw.platform.convert` and attributes in it (a test compares the two). Amaranth's own writer names
the source of signals and operators, and leaves out those of the branches of ``m.If`` and ``m.Switch``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from amaranth.back import rtlil, verilog
from amaranth.hdl import _ir, _nir
from amaranth.hdl._ast import SignalDict

__all__ = ["annotated_text"]

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _source(location: tuple[str, int] | None) -> str:
    """``hw/x.py:7``; of what is not of the kit, the package and file in it."""
    if location is None:
        return ""
    file, line = os.path.abspath(location[0]), location[1]
    if file.startswith(os.path.join(_ROOT, "hw") + os.sep):
        return f"{os.path.relpath(file, _ROOT)}:{line}".replace(os.sep, "/")
    return "/".join(file.split(os.sep)[-3:]) + f":{line}"


class _Switch(rtlil.Switch):
    """A switch with an attribute: for each case the source of its condition, and those of its statements."""

    def __init__(self, sel: Any) -> None:
        super().__init__(sel)
        self.branches: list[tuple[str, list[str]]] = []

    def emit(self, line: Any) -> None:
        """Write the attribute in front of the switch."""
        branches = "|".join(f"{source}={' '.join(dict.fromkeys(covers))}" for source, covers in self.branches)
        line(f'attribute \\branches "{branches}"')
        super().emit(line)


class _Emitter(rtlil.ModuleEmitter):
    """Amaranth's writer of a module, whose branches keep their sources."""

    def emit_assignment_list(self, cell_idx: Any, cell: Any) -> None:
        """As in Amaranth 0.5: conditions become nested switches."""
        left = _nir.Value(_nir.Net.from_cell(cell_idx, bit) for bit in range(len(cell.default)))
        process = self.builder.process(src_loc=cell.src_loc)
        process.assign(self.sigspec(left), self.sigspec(cell.default))
        always = _nir.Net.from_const(1)
        at = self._assign(process, [], always, cell, left, 0)
        assert at == len(cell.assignments)

    def _assign(self, case: Any, covers: list[str], cond: Any, cell: Any, left: Any, at: int) -> int:
        """Write assignments from number `at` on into the case of `cond`; returns the first that is not in it."""
        while at < len(cell.assignments):
            assign = cell.assignments[at]
            if assign.cond == cond:
                part = left[assign.start : assign.start + len(assign.value)]
                case.assign(self.sigspec(part), self.sigspec(assign.value))
                covers.append(_source(assign.src_loc))
                at += 1
                continue
            inner = assign.cond
            while inner != cond:
                if inner == _nir.Net.from_const(1):
                    return at
                index = inner.cell
                priority = self.netlist.cells[index]
                inner = priority.en
            at = self._switch(case, index, priority, cell, left, at)
        return at

    def _switch(self, case: Any, index: int, priority: Any, cell: Any, left: Any, at: int) -> int:
        always = _nir.Net.from_const(1)
        matches = [None if net == always else self.netlist.cells[net.cell] for net in priority.inputs]
        test = next((match.value for match in matches if match is not None), _nir.Value())
        switch = _Switch(self.sigspec(test))
        case.contents.append(switch)
        for bit, match in enumerate(matches):
            covers: list[str] = []
            if match is None:
                made, source = switch.default(), "else"
            else:
                made, source = switch.case(match.patterns), _source(match.src_loc)
            if match is None or match.patterns:
                switch.branches.append((source, covers))
            at = self._assign(made, covers, _nir.Net.from_cell(index, bit), cell, left, at)
        return at


def annotated_text(component: Any, ports: Mapping[str, Any], name: str, platform: object) -> str:
    """Verilog of a component, with attributes ``src`` of signals and operators, ``branches`` of `_Switch`.

    Parameters
    ----------
    ports : name → (signal, direction), as for ``amaranth.back.verilog.convert``.
    """
    fragment = _ir.Fragment.get(component, platform)
    netlist = _ir.build_netlist(fragment, ports=ports, name=name)
    empty = rtlil.EmptyModuleChecker(netlist)
    design = rtlil.Design(emit_src=True)
    names = SignalDict()
    for index, module in enumerate(netlist.modules):
        if empty.is_empty(index):
            continue
        builder = design.module(".".join(module.name), src_loc=module.src_loc)
        if index == 0:
            builder.attribute("top", 1)
        _Emitter(builder, netlist, module, names, empty_checker=empty).emit()
    text = re.sub(r'(attribute \\src ")([^":]*):(\d+)', lambda at: at[1] + _source((at[2], int(at[3]))), str(design))
    return str(verilog._convert_rtlil_text(text))
