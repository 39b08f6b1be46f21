"""Functional bins: situations that a regression must have been in, each with a name and a sentence.

Two kinds. A `Watch` is a condition in a cycle of the hardware, in the names of its Amaranth source: a coverage build
has a ``cover property`` for each. A `Trait` is something in the program that a case runs, read from its descriptors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from compiler.image.image import Image
from compiler.image.steps import ElementwiseStep, LoopStep, Step
from hw.params import Params

__all__ = ["Trait", "Watch", "bins", "every_bin", "traits_of", "watched"]


@dataclass(frozen=True)
class Watch:
    """A condition of the hardware.

    module : end of the name of the module in Verilog. condition : an expression in Verilog, of signals {in braces} as
    the source names them. needs : parameters without which the array has no such signals.
    """

    name: str
    text: str
    module: str
    condition: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trait:
    """Something that a program has: how often, told from its image."""

    name: str
    text: str
    count: Callable[[Image], int]


_SAME = "{valid} && {i__valid} && {row} == {i__payload.row}"


def _earlier(distance: int) -> str:
    """In `Mac`, the sum written now is of the accumulator that was written `distance` cycles ago and not since."""
    tests = [f"{{valid}} && $past({{valid}}, {distance}) && {{row}} == $past({{row}}, {distance})"]
    tests += [f"{{held.bank}} == $past({{held.bank}}, {distance})"]
    tests += [
        f"!($past({{valid}}, {n}) && $past({{row}}, {n}) == {{row}} && $past({{held.bank}}, {n}) == {{held.bank}})"
        for n in range(1, distance)
    ]  # fmt: skip
    return " && ".join(tests)


_WATCHES: tuple[Watch, ...] = (
    Watch("mac-bypass", "An entry meets the accumulator that the entry in front of it writes: the bypass is used",
          "eie_pe.mac", f"{_SAME} && {{held.bank}} == {{i__payload.tag.bank}}"),
    *(
        Watch(f"mac-distance-{n}", f"Two entries add to one accumulator {n} cycles apart, no other in between",
              "eie_pe.mac", _earlier(n))
        for n in (1, 2, 3)
    ),
    Watch("mac-other-bank", "Successive entries have one accumulator number, in different banks: no bypass",
          "eie_pe.mac", f"{_SAME} && {{held.bank}} != {{i__payload.tag.bank}}"),
    Watch("mac-maximum", "An entry of a bank that takes maxima", "eie_pe.mac", "{valid} && {takes_maximum}"),
    *(
        Watch(f"swap-{n}", f"A tile is opened in bank {n} while the tile of the other bank is written back",
              "core.control.banks", f"{{open}} && {{bank}} == {n} && {{computed}}[{1 - n}]")
        for n in (0, 1)
    ),
    Watch("swap-written", "A tile is opened in the cycle in which the other bank is written",
          "core.control.banks", "{open} && {written} && {written_bank} != {bank}"),
    *(
        Watch(f"lane-{n}", f"A column begins in lane {n} of its weight word", "eie_pe.expander",
              f"{{o__valid}} && {{o__ready}} && {{o__payload.lane}} == {n}")
        for n in range(8)
    ),
    Watch("column-two-words", "A column goes on in the next weight word", "eie_pe.expander",
          "{o__valid} && {o__ready} && {o__payload.take} < {o__payload.count}"),
    Watch("vector-one-column", "A vector with work has one column with work", "eie_pe.expander",
          "{i__valid} && {i__ready} && $onehot({i__payload.mask})"),
    Watch("vector-eight-columns", "All eight columns of a vector have work", "eie_pe.expander",
          "{i__valid} && {i__ready} && (&{i__payload.mask})"),
    Watch("shift-0", "An output is shifted by 0", "eie_writeback",
          "{valid_6} && {word_6.last} && {word_6.shift} == 0"),
    Watch("shift-31", "An output is shifted by 31", "eie_writeback",
          "{valid_6} && {word_6.last} && {word_6.shift} == 31"),
    Watch("saturates-high", "An output is above int16", "eie_writeback",
          "{valid_7} && {word_7.last} && $signed({shifted}) > 32767"),
    Watch("saturates-low", "An output is below int16", "eie_writeback",
          "{valid_7} && {word_7.last} && $signed({shifted}) < -32768"),
    Watch("limits-high", "An output is limited by the layer's high, below that of int16", "eie_writeback",
          "{valid_7} && {word_7.last} && $signed({shifted}) > $signed({high}) && $signed({high}) < 32767"),
    Watch("limits-low", "An output is limited by the layer's low, above that of int16", "eie_writeback",
          "{valid_7} && {word_7.last} && $signed({shifted}) < $signed({low}) && $signed({low}) > -32768"),
    *(
        Watch(f"join-{name}", f"A word of the output table {text}", "eie_writeback",
              f"{{valid_5}} && {{word_5.join}} == {n}")
        for n, (name, text) in enumerate((("start", "begins an output"), ("add", "adds another part of a row"),
                                          ("max", "takes the maximum of pixels")))
    ),
    *(
        Watch(f"function-{n}", f"An output goes through {which} of its layer's functions", "eie_writeback",
              f"{{valid_6}} && {{word_6.last}} && {{word_6.function}} == {n}")
        for n, which in enumerate(("none", "the first", "the second"))
    ),
    Watch("border-top", "A position lies above its map", "scan.window", "{valid} && {go} && {y}[16]"),
    Watch("border-bottom", "A position lies below its map", "scan.window",
          "{valid} && {go} && !{y}[16] && {y} >= {held.height}"),
    Watch("border-left", "A position lies left of its map", "scan.window", "{valid} && {go} && {x}[16]"),
    Watch("border-right", "A position lies right of its map", "scan.window",
          "{valid} && {go} && !{x}[16] && {x} >= {held.width}"),
    Watch("border-corner", "A position lies beyond two borders", "scan.window",
          "{valid} && {go} && {y} >= {held.height} && {x} >= {held.width}"),
    Watch("ring-wraps", "A window goes on in the first row of its ring", "scan.window", "{valid} && {go} && {wraps}",
          ("streams",)),
    Watch("scan-blocked", "A vector waits for credit", "core.scan", "{waiting}"),
    Watch("scan-lost", "A word at the memory's output is lost to a read of another, and read again", "core.scan",
          "{lost}", ("elementwise",)),
    Watch("write-queue-full", "Eight tiles and operations wait for write-back", "core.queue", "{full}"),
    Watch("write-queue-both", "A tile waits behind an operation", "core.queue", "{push} && !{operation} && {waiting}"),
    Watch("drain-waits-for-ring", "A tile waits until its row of the ring is sent", "core.drain",
          "{holds} && {valid}", ("streams", "elementwise")),
    Watch("chained-read-waits", "A segment reads the map that the layer before it is writing", "core.control",
          "{chained} && !{open}"),
    *(
        Watch(f"ends-{name}", f"A run ends with {what}", "eie_accelerator.core", f"{{done}} && {{error}} == {n}")
        for n, name, what in ((0, "well", "END"), (1, "opcode", "the error OPCODE"), (2, "range", "the error RANGE"),
                              (3, "reserved", "the error RESERVED"), (4, "stream", "the error STREAM"))
    ),
)  # fmt: skip

DEPTHS = (6, 7, 8, 9)
"""Queue depths of the arrays of the whole campaign (`sim.coverage.campaign.ARRAYS`)."""


def _queue(depth: int) -> Iterator[Watch]:
    for level in range(1, depth + 1):
        full = ", its depth" if level == depth else ""
        yield Watch(f"queue-{depth}-{level}", f"A queue of {depth} holds {level} vectors{full}", "eie_pe.queue",
                    f"{{level}} == {level}")  # fmt: skip


def watched(params: Params) -> tuple[Watch, ...]:
    """The conditions to watch on an array."""
    there = (watch for watch in _WATCHES if all(getattr(params, need) for need in watch.needs))
    return (*there, *_queue(params.queue_depth))


def _segments(image: Image) -> list[Step]:
    return [step for step in image.program if isinstance(step, Step)]


_PLACES = {
    (1, 1): ("only", "the only segment of its layer"), (1, 0): ("first", "the first of several segments"),
    (0, 0): ("inner", "a segment between others"), (0, 1): ("last", "the last of several segments"),
}  # fmt: skip
_WAYS = {
    "plain": "with nothing of what follows", "chained": "reads the map that the layer before writes",
    "dense": "sends vectors of zeros as well", "refill": "has streamed weights", "uniform": "shares weights",
    "ring": "reads a ring of rows", "functions": "has functions", "barrier": "waits for operations",
    "stream_in": "streams a map in", "stream_out": "streams its map out", "maximum": "takes maxima",
}  # fmt: skip


def _has(step: Step, way: str) -> bool:
    if way == "plain":
        return not any(getattr(step, other) for other in _WAYS if other != "plain")
    return bool(getattr(step, way))


def _of_segments(place: tuple[int, int], way: str) -> Callable[[Image], int]:
    return lambda image: sum((step.first, step.last) == place and _has(step, way) for step in _segments(image))


def _of_operations(operands: tuple[int, int, int], function: bool) -> Callable[[Image], int]:
    def fits(step: object) -> bool:
        return (
            isinstance(step, ElementwiseStep) and (step.has_b, step.has_c, step.has_e) == operands
            and bool(step.functions) == function
        )  # fmt: skip

    return lambda image: sum(map(fits, image.program))


_TRAITS: tuple[Trait, ...] = (
    *(
        Trait(f"segment-{name}-{way.replace('_', '-')}", f"A segment that is {text} and {what}",
              _of_segments(place, way))
        for (place, (name, text)), (way, what) in product(_PLACES.items(), _WAYS.items())
    ),
    *(
        Trait(f"operation-{operands}-{'function' if function else 'plain'}",
              f"An operation of {text}{' with a function' if function else ''}",
              _of_operations(want, function))
        for operands, text, want in (("a", "one operand", (0, 0, 0)), ("ab", "a product", (1, 0, 0)),
                                     ("ac", "a sum", (0, 1, 0)), ("abce", "the sum of two products", (1, 1, 1)))
        for function in (False, True)
    ),
    Trait("loop", "A program with a loop", lambda image: sum(isinstance(step, LoopStep) for step in image.program)),
    Trait("tiled", "A layer of several tiles", lambda image: sum(step.tiles > 1 for step in _segments(image))),
)  # fmt: skip


def traits_of(image: Image) -> dict[str, int]:
    """How often a program has each trait."""
    return {trait.name: trait.count(image) for trait in _TRAITS}


def every_bin() -> dict[str, str]:
    """Name and sentence of every bin of the whole campaign."""
    queues = (watch for depth in DEPTHS for watch in _queue(depth))
    found = {watch.name: watch.text for watch in (*_WATCHES, *queues)}
    return found | {trait.name: trait.text for trait in _TRAITS}


def bins(counted: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Every bin with its count; zero for one that was never counted."""
    total = dict.fromkeys(every_bin(), 0)
    for name, count in counted:
        total[name] = total.get(name, 0) + count
    return total


_BRACES = re.compile(r"\{([\w.]+)\}")


def property_text(watch: Watch, names: dict[str, str]) -> str:
    """The ``cover property`` of a watch in a module; `names`: what its signals are called in Verilog.

    Raises
    ------
    KeyError
        The module has no such signal; the first of them.
    """
    condition = _BRACES.sub(lambda found: names[found[1]] + " ", watch.condition)
    return f"  cover property (@(posedge clk) !rst && ({condition})); // bin {watch.name}"
