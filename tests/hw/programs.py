"""Random programs at the level of the hardware, and what an array must make of them.

`random_program(seed)` draws an array and a chain of layers for it: the words of every memory, the beats of the refill
stream, and by plain numpy the contents of the activation memory after the run and the saturated outputs of each layer.
It shares nothing with the compiler: weights are arbitrary matrices from the columns of a window to the accumulators of
a tile, so convolutions, pooling and fully connected layers are special cases of what it draws.

How to use it
-------------
``program.memories[Memory.X][unit]`` are the words of a memory from address 0 on; load them, set the batch to
``program.batch``, offer ``program.beats`` at the refill stream (in order, during the run), start at descriptor 0. After
the run the activation memory of bank g must hold ``program.final[g]`` in every line: results, overhang of tiles, and
everything that no layer may touch. Record ``program.first[n]`` is that of layer n; ``program.saturated[n]`` is its
counter. ``program.layers[n][k]`` is a segment: its descriptor fields, and its entries as the cycle model wants them.
``program.masks`` are what it wants of the activations.

With `streams`, some maps lie off chip: offer ``program.taken`` at the port, take ``program.sent`` from the other one.

With `operators`, layers have functions, elementwise operations stand between them, and some of all this stands in
loops. ``program.items`` has the layers, operations and ends of loops in the order of their descriptors; `first` and
`saturated` are those of layers and operations.

Sizes are small on purpose (a few hundred to a few thousand cycles). The same seed gives the same program. Arguments of
`random_program` fix what a test wants fixed: fields of `Params`, the batch, `kind` of all layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.layouts import Memory, Op, descriptor, elementwise, loop
from hw.params import LANES, Params
from tests.hw.program_draw import KINDS, Draw, Item
from tests.hw.program_operators import FUNCTIONS, Loop, Operation, draw_function, table_words
from tests.hw.program_result import HIGH, LOW, WRAP
from tests.hw.program_words import Segment, lay_out, packed

__all__ = ["KINDS", "Program", "random_program"]


@dataclass
class Program:
    """A program, its memories, and what must come of it; see the module's text."""

    seed: int
    params: Params
    batch: int
    layers: list[list[Segment]]
    first: list[int]
    memories: dict[Memory, list[list[int]]]
    beats: list[int]
    final: NDArray[np.int16]  # (groups, act_lines, 8)
    saturated: list[int]
    items: list[Item]
    masks: list[NDArray[np.uint8]]  # (batch, height, width, vectors) of each segment in the order in which they run
    taken: list[int]  # beats of maps that stream in
    sent: list[tuple[int, int]]  # of maps that stream out, and whether they are the last of a layer

    @property
    def initial(self) -> NDArray[np.int16]:
        """(groups, act_lines, 8) activation memory before the run."""
        raw = b"".join(
            word.to_bytes(2 * LANES, "little") for bank in self.memories[Memory.ACTIVATIONS] for word in bank
        )
        return np.frombuffer(raw, "<i2").reshape(self.final.shape)


class _Draw(Draw):
    """Drawing with operations and loops among the layers."""

    def draw_operation(self) -> None:
        """An elementwise operation on maps, into a map of its own or one that there is."""
        names = ["a", *(name for name in "bc" if self.chance(0.5))]
        if "c" in names and self.chance(0.5):
            names.append("e")
        operands = {name: self.draw_sources("pool")[0] for name in names}
        lines = min(self.pick(1, 20), *(each.lines for each in operands.values()))
        model = operands["a"]
        if self.chance(0.5):
            result = replace(model, base=self.frame, layer=-1, moves=False, operated=True)
            self.frame += result.lines
            self.maps.append(result)
            if self.stride and self.chance(0.5):
                self.spread(result)
        else:
            result = self.draw_sources("pool")[0]
            lines = min(lines, result.lines)
        result.operated = True
        functions = int(self.params.tables > 0 and self.chance(0.4))
        bits = self.pick(1, 47) if self.chance(0.1) else self.pick(1, 24)
        low = 0 if self.chance(0.2) else self.pick(LOW, -1) if self.chance(0.3) else LOW
        step = {
            "op": Op.ELEMENTWISE.value, **{f"has_{name}": int(name in operands) for name in "bce"},
            **{name: operands[name].base if name in operands else 0 for name in "abce"}, "result": result.base,
            **{f"moves_{name}": int(name in operands and operands[name].moves) for name in "abce"},
            "moves_result": int(result.moves), "shift": self.pick(0, 20), "lines": lines, "low": low,
            "high": HIGH if self.chance(0.7) else self.pick(0, HIGH), "scale_a": self.pick(LOW, HIGH),
            "scale_c": self.pick(LOW, HIGH), "offset": self.pick(-(1 << bits), 1 << bits), "functions": functions,
            **(draw_function(self.rng, self.params, 1) if functions else dict.fromkeys(FUNCTIONS[:3], 0)),
        }  # fmt: skip
        self.items.append(Operation(step))
        self.saturated.append(0)
        self.run(len(self.items) - 1, 0)

    def draw_loop(self) -> None:
        """A body of layers and operations, of which some addresses move, and its rounds."""
        self.rounds, self.stride = self.pick(1, 4), self.pick(4, 24)
        self.pitch = self.stride * (1 if self.chance(0.5) else -1)
        body = len(self.items)
        self.draw_input()
        for _ in range(self.pick(1, 4)):
            self.draw_item()
        for n in range(1, self.rounds):
            for item in range(body, len(self.items)):
                self.run(item, n * self.pitch)
        self.items.append(Loop({"op": Op.LOOP.value, "count": self.rounds, "pitch": self.pitch}, body))
        self.saturated.append(0)
        for each in self.maps:
            each.moves = False
        self.rounds = self.stride = self.pitch = 0

    def draw_item(self) -> None:
        """A layer or an operation."""
        if self.params.elementwise and self.chance(0.5):
            self.draw_operation()
        else:
            self.draw_layer()

    def set_barriers(self) -> None:
        """What an operation writes may be read only behind it."""
        for segment, source in self.sources:
            segment.step["barrier"] = int(source.operated or (self.operators and self.chance(0.1)))


def _behind_rings(items: list[Item], rings: int, groups: int) -> None:
    """Frames begin behind the lines of the rings."""
    for item in items:
        if isinstance(item, Operation):
            for name in ("a", "result", *(each for each in "bce" if item.step[f"has_{each}"])):
                item.step[name] += rings
        elif not isinstance(item, Loop):
            for segment in item:
                if not segment.step.get("ring"):
                    segment.step["source"] = (segment.step["source"] + rings * groups) % WRAP
                if not segment.step["stream_out"]:
                    segment.step["destination"] += rings


def random_program(
    seed: int, *, kind: str | None = None, batch: int | None = None, layers: int | None = None,
    operators: bool = False, streams: bool = False, **changes: Any,
) -> Program:  # fmt: skip
    """The program of a seed. `kind` of all layers (`KINDS`), `batch`, number of `layers`, fields of `Params` to fix.

    operators : there are also functions, elementwise operations and loops; `layers` is then the number of all these.
    streams : some of the maps lie off chip.
    """
    draw = _Draw(seed, kind, batch, operators, streams, changes)
    if operators:
        if draw.params.elementwise and draw.chance(0.3):
            draw.draw_operation()
        draw.draw_layer()
    for _ in range(draw.pick(1, 4) if layers is None else layers - operators):
        if not operators:
            draw.draw_layer()
        elif draw.chance(0.4):
            draw.draw_loop()
        else:
            draw.draw_item()
    draw.set_barriers()
    frame = draw.frame + draw.pick(0, 2)
    for item in draw.items:
        for part in item if isinstance(item, list) else [item]:
            if not isinstance(part, Loop):
                part.step["frame"] = frame
    rings = draw.rings.used
    if rings:
        _behind_rings(draw.items, rings, draw.params.groups)
    sizes = [len(item) if isinstance(item, list) else 1 for item in draw.items]
    numbers = [sum(sizes[:n]) for n in range(len(sizes))]
    params = draw.params.replace(
        act_lines=max(2, rings + draw.batch * frame),
        output_words=max(2, len(draw.words[0])),
        descriptors=sum(sizes) + 1,
    )
    words = lay_out(draw.rng, params, draw.batch, draw.layers, draw.order)
    segments = iter(words.descriptors)
    descriptors: list[int] = []
    for item in draw.items:
        if isinstance(item, Operation):
            descriptors.append(packed(elementwise(params), **item.step))
        elif isinstance(item, Loop):
            item.step["first"] = numbers[item.body]
            descriptors.append(packed(loop(params), **item.step))
        else:
            descriptors += [next(segments) for _ in item]

    def whole(lines: NDArray[np.int16], ring_lines: NDArray[np.int16]) -> NDArray[np.int16]:
        each = lines[:, :, :frame].transpose(1, 0, 2, 3).reshape(params.groups, draw.batch * frame, LANES)
        each = np.concatenate([ring_lines[:, :rings], each], 1)
        return np.concatenate([each, np.zeros((params.groups, params.act_lines - each.shape[1], LANES), np.int16)], 1)

    def raw(lines: NDArray[np.int16]) -> list[int]:
        return [int.from_bytes(line.astype("<i2").tobytes(), "little") for line in lines]

    recorded = [n for n, item in enumerate(draw.items) if not isinstance(item, Loop)]
    return Program(
        seed, words.params, draw.batch, draw.layers, [numbers[n] for n in recorded],
        {
            Memory.WEIGHTS: words.weights, Memory.POINTERS: words.pointers,
            Memory.CODEBOOK: [[int(value) & 0xFFFF for value in draw.books.reshape(-1)]],
            Memory.ACTIVATIONS: [raw(lines) for lines in whole(draw.before, draw.rings_before)],
            Memory.OUTPUTS: draw.words,
            Memory.DESCRIPTORS: [[*descriptors, packed(descriptor(params), op=Op.END.value)]],
            Memory.TABLES: [table_words(params, draw.tables)],
        },
        words.beats, whole(draw.now, draw.rings.lines), [draw.saturated[n] for n in recorded], draw.items, draw.masks,
        draw.rings.taken, draw.rings.sent,
    )  # fmt: skip
