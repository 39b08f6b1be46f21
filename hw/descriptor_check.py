"""What is wrong with a descriptor, as far as it alone and its place in the run tell."""

from __future__ import annotations

from amaranth import Cat, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.layouts import Error, Op, descriptor
from hw.params import SEGMENTS, Params

__all__ = ["DescriptorCheck"]


class DescriptorCheck(wiring.Component):
    """Combinational: the error of a descriptor, `Error.NONE` if it may be accepted.

    Addresses of activation and pointer memory depend on where the window stands; they are checked as they are used.

    Members
    -------
    layer, index : the descriptor and its number. batch : samples of the run.
    begins : it comes where the segments of a layer begin.
    segment : its number in the layer (any number of SEGMENTS or more is SEGMENTS).
    error : OPCODE, not supported; RESERVED, a reserved field is not zero; RANGE, all else that cannot be right.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        super().__init__({
            "layer": In(descriptor(params)), "index": In(16), "batch": In(16),
            "begins": In(1), "segment": In(range(SEGMENTS + 1)), "error": Out(Error),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        params, layer = self.params, self.layer
        sizes = (
            layer.vectors, layer.wy, layer.wx, layer.height, layer.width, layer.tiles_y, layer.tiles_x, layer.row_lines,
            layer.words, self.batch,
        )  # fmt: skip
        several = (layer.tiles_y != 1) | (layer.tiles_x != 1)
        unfit = Cat(
            *(size == 0 for size in sizes),
            layer.low > layer.high,
            layer.first != self.begins,
            several & (self.segment >= SEGMENTS),
            layer.refill & (several if params.refill else 1),
            layer.pointers >= params.pointer_blocks,
            layer.outputs + layer.words > params.output_words,
            layer.codebook >= params.codebooks,
        )
        reserved = Cat(getattr(layer, name) for name, _ in descriptor(params) if str(name).startswith("reserved"))
        op = Value.cast(layer.op)
        with m.If(self.index >= params.descriptors):
            m.d.comb += self.error.eq(Error.RANGE)
        with m.Elif((op != Op.SEGMENT.value) & (op != Op.END.value)):
            m.d.comb += self.error.eq(Error.OPCODE)
        with m.Elif(reserved.any()):
            m.d.comb += self.error.eq(Error.RESERVED)
        with m.Elif(op == Op.END.value):
            with m.If(~self.begins):
                m.d.comb += self.error.eq(Error.RANGE)
        with m.Elif(unfit.any()):
            m.d.comb += self.error.eq(Error.RANGE)
        return m
