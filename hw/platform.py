"""Where a design is going: Amaranth's simulator, or exported Verilog."""

from __future__ import annotations

import re
from typing import Any

from amaranth import ClockSignal, Const, Instance, Module, ResetSignal
from amaranth.back import verilog
from amaranth.hdl import Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring

from hw.annotated import annotated_text
from hw.params import Params

__all__ = ["ExportPlatform", "convert", "is_export", "placed", "ports_of"]


class ExportPlatform:
    """Marks an elaboration for Verilog, in which memories and PEs are instances of modules written once."""


def is_export(platform: object) -> bool:
    """Whether an elaboration is for Verilog."""
    return isinstance(platform, ExportPlatform)


def ports_of(interface: Any, signature: wiring.Signature, separator: str = "__") -> dict[str, tuple[Value, str]]:
    """Every port as name → (signal, ``"i"`` or ``"o"``); constant ``ready`` wires are no ports."""
    ports = {}
    for path, member, value in signature.flatten(interface):
        signal = Value.cast(value)
        if not isinstance(signal, Const):
            ports[separator.join(map(str, path))] = (signal, "i" if member.flow is wiring.In else "o")
    return ports


def placed(m: Module, name: str, kind: Any, module: str, params: Params, platform: object) -> Any:
    """Add a `kind(params)` to `m` and return its interface.

    In Verilog it is an instance of `module`, which is emitted once for all places: 64 copies of a PE cost
    seconds to emit and half a minute to compile, one copy and 64 instances do not.
    """
    if not is_export(platform):
        component = kind(params)
        m.submodules[name] = component
        return component
    signature = kind.ports(params)
    interface = signature.create(path=(name,))
    ports = {f"{way}_{port}": signal for port, (signal, way) in ports_of(interface, signature).items()}
    m.submodules[name] = Instance(module, i_clk=ClockSignal(), i_rst=ResetSignal(), **ports)
    return interface


def convert(component: wiring.Component, name: str, separator: str = "__", annotated: bool = False) -> str:
    """Verilog-2005 text of one component under the module name `name`; `separator` joins the names of its ports.

    Assertions, which that language does not have, are there with ``EIE_ASSERT`` defined. With `annotated`, attributes
    name the Amaranth source of everything, and names stay those of Amaranth (`hw.annotated`).
    """
    directions = {"i": PortDirection.Input, "o": PortDirection.Output}
    ports = {
        port: (signal, directions[way])
        for port, (signal, way) in ports_of(component, component.signature, separator).items()
    }
    if annotated:
        text = annotated_text(component, ports, name, ExportPlatform())
        return _ASSERTION.sub(r"`ifdef EIE_ASSERT\n\g<0>`endif\n", text)
    text = verilog.convert(
        component, name=name, ports=ports, platform=ExportPlatform(), strip_internal_attrs=True, emit_src=False
    )
    return _plain_names(_ASSERTION.sub(r"`ifdef EIE_ASSERT\n\g<0>`endif\n", str(text)))


_ASSERTION = re.compile(
    r"  always @\(posedge \w+\) begin\n    if \(\S+ *\) begin\n(?:      [^\n]*\n)*?"
    r"      assert [^\n]*\n    end\n  end\n"
)
_ESCAPED = re.compile(r"\\(\S+) ")


def _plain_names(text: str) -> str:
    """The same Verilog without escaped identifiers; one name becomes the same in every module.

    Numbers that only made a name different are left out where it then is still different. A single word may be one
    of the language (that is why `table` is escaped), so it takes a number.
    """
    taken = set(re.findall(r"(?<![\\\w$'.])[A-Za-z_]\w*", _ESCAPED.sub(" ", text)))
    names: dict[str, str] = {}
    for name in dict.fromkeys(_ESCAPED.findall(text)):
        kept = name if name.startswith("$") else re.sub(r"\$\d+", "", name)
        plain = re.sub(r"\W+", "_", kept.replace("$", "_")).strip("_")
        if not plain or plain[0].isdigit():
            plain = f"n_{plain}"
        word = "_" not in plain or re.fullmatch(r"\w+", name)
        candidate, number = plain, 0
        while candidate in taken or (word and not number):
            number += 1
            candidate = f"{plain}_{number}"
        taken.add(candidate)
        names[name] = candidate
    return _ESCAPED.sub(lambda found: names[found[1]] + " ", text)
