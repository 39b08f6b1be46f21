"""What is wrong with a descriptor, as far as it alone and its place in the run tell."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import Error, Op, descriptor, elementwise, loop
from hw.params import SEGMENTS, Params

__all__ = ["DescriptorCheck"]


class DescriptorCheck(wiring.Component):
    """Combinational: the error of a descriptor, `Error.NONE` if it may be accepted.

    Addresses of activation and pointer memory depend on where the window stands; they are checked as they are used.

    Members
    -------
    layer, index : the descriptor and its number. batch : samples of the run.
    begins : it comes where the segments of a layer begin; all other descriptors must.
    floor : the first descriptor that a loop may go back to.
    segment : its number in the layer (any number of SEGMENTS or more is SEGMENTS).
    error : OPCODE, not supported; RESERVED, a reserved field is not zero; RANGE, all else that cannot be right.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "layer": In(descriptor(params)), "index": In(16), "batch": In(16), "floor": In(16),
            "begins": In(1), "segment": In(range(SEGMENTS + 1)), "error": Out(Error),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        params, layer = self.params, self.layer

        def missing(table: Value) -> Value:
            """There is no such table."""
            return table >= params.tables if params.tables else Const(1)

        sizes = (
            layer.vectors, layer.wy, layer.wx, layer.height, layer.width, layer.tiles_y, layer.tiles_x, layer.row_lines,
            layer.words, self.batch,
        )  # fmt: skip
        several = (layer.tiles_y != 1) | (layer.tiles_x != 1)
        unfit = [
            *(size == 0 for size in sizes),
            layer.low > layer.high,
            layer.first != self.begins,
            several & (self.segment >= SEGMENTS),
            layer.refill & (several if params.refill else 1),
            layer.pointers >= params.pointer_blocks,
            layer.outputs + layer.words > params.output_words,
            layer.codebook >= params.codebooks,
            layer.functions & (missing(layer.table_1) | missing(layer.table_2)),
            *self._streams(layer),
        ]
        operation = data.View(elementwise(params), layer.as_value())
        unfit_operation = [
            operation.lines == 0,
            self.batch == 0,
            operation.low > operation.high,
            operation.has_e & ~operation.has_c,
            operation.functions & missing(operation.table_1),
            ~self.begins,
        ]
        ending = data.View(loop(params), layer.as_value())
        unfit_loop = [ending.count == 0, ending.first >= self.index, ending.first < self.floor, ~self.begins]
        kinds = [(Op.SEGMENT, layer, unfit), (Op.LOOP, ending, unfit_loop), (Op.END, layer, [~self.begins])]
        if params.elementwise:
            kinds.append((Op.ELEMENTWISE, operation, unfit_operation))
        op = Value.cast(layer.op)
        with m.If(self.index >= params.descriptors):
            m.d.comb += self.error.eq(Error.RANGE)
        with m.Else(), m.Switch(op):
            for kind, view, wrong in kinds:
                names = [str(name) for name, _ in view.shape()]
                reserved = Cat(getattr(view, name) for name in names if name.startswith("reserved"))
                with m.Case(kind.value):
                    with m.If(reserved.any()):
                        m.d.comb += self.error.eq(Error.RESERVED)
                    with m.Elif(Cat(wrong).any()):
                        m.d.comb += self.error.eq(Error.RANGE)
            with m.Default():
                m.d.comb += self.error.eq(Error.OPCODE)
        return m

    def _streams(self, layer: Any) -> list[Value]:
        """What cannot be right of maps that stream."""
        if not self.params.streams:
            return [layer.ring | layer.stream_in | layer.stream_out]
        rows = layer.ring_rows
        return [
            layer.stream_in & ((rows == 0) | (layer.ring_row == 0) | (layer.first & ~layer.ring)),
            layer.stream_out & ((layer.out_rows == 0) | (layer.tile_lines == 0) | layer.moves_result),
            layer.ring & (~layer.stream_in | layer.chained | layer.moves_source | (layer.reach == 0)),
            layer.ring & ((layer.reach > rows) | (layer.dy > rows) | (layer.step_y > rows)),
            layer.ring & ((layer.y0 > rows) | (layer.y0 + rows < 0)),
        ]
