"""From the drafts of a region to its program: maps get numbers, layouts, and blocks of lines that they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from compiler.graph.ir import Type, unique
from compiler.lower.activity import Activity, Density, parts_of, rates_of
from compiler.lower.draft import Draft
from compiler.lower.draft_segments import Key
from compiler.lower.elementwise import Elementwise
from compiler.lower.loops import Looped, State
from compiler.lower.program import Loop, MapForm, Operand, Operation, Program, ProgramLayer, Segment
from hw.params import Params

__all__ = ["AnyDraft", "assemble"]

AnyDraft = Draft | Elementwise | Looped


def assemble(
    region: Sequence[AnyDraft], types: Mapping[str, Type], needed: set[str], params: Params,
    densities: Mapping[str, Density],
) -> tuple[Program, list[Key], list[Key]]:  # fmt: skip
    """The program of a region, what it reads from outside, and those of its results that leave it.

    densities : how often numbers are not zero, for values of which it is known.
    """
    build = _Assembly(region, types, params, densities)
    for each in region:
        if isinstance(each, Looped):
            build.loop(each)
        else:
            build.add(each, {}, None)
    leaving = [key for each in region for key in each.made if key[0] in needed]
    return build.program(leaving), list(build.inputs.values()), leaving


class _Assembly:
    """A program under construction."""

    def __init__(
        self, region: Sequence[AnyDraft], types: Mapping[str, Type], params: Params, densities: Mapping[str, Density]
    ) -> None:
        self.types, self.params, self.densities = dict(types), params, densities
        self.own = {key for each in region for key in each.made}
        self.maps: list[MapForm] = []
        self.numbers: dict[Key, int] = {}
        self.activities: dict[int, Activity] = {}
        self.inputs: dict[int, Key] = {}  # map → what is read from outside
        self.layers: list[ProgramLayer] = []
        self.operations: list[Operation] = []
        self.order: list[int] = []
        self.loops: list[Loop] = []
        self.rows: set[int] = set()  # maps whose pixels a loop walks over
        self.alike: list[int] = []  # maps → another one of the same layout
        self.units: dict[int, int] = {}  # maps of a layout with others → channels of a part
        self.blocks = 0

    def number(self, key: Key, *, inside: bool = False) -> int:
        """The map of a value; `inside`: of a loop's body, where all are made."""
        if key not in self.numbers:
            value, axes = key
            sizes = dict(zip(axes, self.types[value].shape, strict=True))
            self.numbers[key] = self.new(value, sizes["C"], sizes.get("H", 1), sizes.get("W", 1), value, axes)
            if not inside and key not in self.own:
                self.inputs[self.numbers[key]] = key
        return self.numbers[key]

    def new(self, name: str, channels: int, height: int, width: int, value: str, axes: str) -> int:
        """Another map, at the exponent of a value."""
        free = unique(name, {each.name for each in self.maps})
        exponent = self.types[value].exponent or 0
        density, activity = parts_of(self.densities.get(name), axes)
        self.maps.append(MapForm(free, channels, height, width, exponent, density, axes))
        if activity is not None:
            self.activities[len(self.maps) - 1] = activity
        self.alike.append(len(self.maps) - 1)
        return len(self.maps) - 1

    def root(self, number: int) -> int:
        """The map that stands for all of its layout."""
        while self.alike[number] != number:
            number = self.alike[number]
        return number

    def join(self, numbers: Iterable[int]) -> None:
        """These maps have one layout."""
        first, *others = map(self.root, numbers)
        for other in others:
            self.alike[other] = first

    def add(self, each: Draft | Elementwise, place: Mapping[Key, tuple[Operand, ...]], loop: Looped | None) -> None:
        """A layer or an operation; `place`: where values of a loop lie that are no maps of their own."""

        def at(key: Key) -> tuple[Operand, ...]:
            return place.get(key) or (Operand(self.number(key, inside=loop is not None)),)

        for key in each.reads:  # maps are numbered as they are met
            at(key)
        (result,) = at(each.key)
        if isinstance(each, Draft):
            early: list[Segment] = []
            late: list[Segment] = []  # what earlier steps make comes last: it must be waited for
            for segment, key in zip(each.layer.segments, each.reads, strict=True):
                parts = _placed(segment, at(key), [self.maps[part.map].channels for part in at(key)])
                (early if loop is None or key[0] in loop.parts else late).extend(parts)
            segments = early + late
            self.order.append(len(self.layers))
            self.layers.append(dataclasses.replace(
                each.layer, result=result.map, segments=tuple(segments), moves=result.moves, pixel=result.pixel,
                products=each.layer.products * (1 if loop is None else loop.count),
            ))  # fmt: skip
            return
        operands: dict[str, Operand] = {}
        for which, ref in each.operands.items():
            (found,) = at(ref.key)
            operands[which] = dataclasses.replace(found, part=ref.begin // ref.size)
            if each.single or len(each.operands) > 1:
                self.units[found.map] = ref.size
        if each.single or len(each.operands) > 1:
            self.units[result.map] = self.maps[result.map].channels
        self.join([result.map, *(operand.map for operand in operands.values())])
        self.order.append(-1 - len(self.operations))
        fields: dict[str, Any] = {**operands, **each.fields}
        self.operations.append(Operation(name=each.nodes[0].name, result=result, **fields))

    def loop(self, loop: Looped) -> None:
        """A loop: its states and sequences, then its body."""
        self.types.update(loop.types)
        place: dict[Key, tuple[Operand, ...]] = {}
        first = loop.count - 1 if loop.reverse else 0
        for value, keys in loop.parts.items():
            sources = [self.number(key) for key in keys]
            place[value, "C"] = tuple(Operand(source, pixel=first, moves=True) for source in sources)
            self.rows |= set(sources)
        for value, name in loop.stacked.items():
            made = self.number((name, "WC"))
            self.rows.add(made)
            place[value, "C"] = (Operand(made, pixel=first, moves=True),)
        for state in loop.states:
            self.state(state, loop, place)
        begin = len(self.order)
        for each in loop.body:
            self.add(each, place, loop)
        self.loops.append(Loop(begin, len(self.order) - 1, loop.count, loop.reverse))

    def state(self, state: State, loop: Looped, place: dict[Key, tuple[Operand, ...]]) -> None:
        """A state: the initial one and the steps, or the last one, in one block."""
        kind = loop.types[state.old]
        initial = self.new(state.initial, kind.shape[0], 1, 1, state.old, "C")
        self.inputs[initial] = state.initial, "C"
        made = self.number((state.steps, "WC") if state.steps else (state.final, "C"))
        behind = bool(state.steps) and loop.reverse
        for number, pixel in ((initial, loop.count if behind else 0), (made, int(bool(state.steps) and not behind))):
            self.maps[number] = dataclasses.replace(self.maps[number], block=self.blocks, at=pixel)
            self.units[number] = kind.shape[0]
        self.blocks += 1
        self.join([initial, made])
        place[state.old, "C"] = (Operand(initial, moves=bool(state.steps)),)
        if state.steps:
            self.rows |= {initial, made}
        else:
            place[state.new, "C"] = (Operand(made),)

    def program(self, leaving: Sequence[Key]) -> Program:
        """The finished program."""
        groups = self.params.groups
        layouts: dict[int, int] = {}
        ordered = {self.root(number) for number in self.units}
        for number, form in enumerate(self.maps):  # what lies as one with an order has it too
            if self.root(number) in ordered:
                self.units.setdefault(number, form.channels)
        for number, units in self.units.items():
            form = self.maps[number]
            layout = layouts.setdefault(self.root(number), len(layouts))
            parts = form.channels // units
            vectors = -(-self.params.act_vectors(units) // groups) * groups * parts
            self.maps[number] = dataclasses.replace(form, layout=layout, parts=parts, vectors=vectors)
        lines = [
            -(-(self.maps[n].vectors or self.params.act_vectors(self.maps[n].channels)) // groups) for n in self.rows
        ]
        pitch = max(lines, default=0)
        for number in self.rows:
            self.maps[number] = dataclasses.replace(self.maps[number], pitch=pitch * groups)
        layers = [dataclasses.replace(each, rates=rates_of(each, self.maps, self.activities)) for each in self.layers]
        return Program(
            tuple(self.maps), tuple(layers), tuple(self.inputs), tuple(self.numbers[key] for key in leaving),
            tuple(self.operations), tuple(self.order), tuple(self.loops), pitch,
        )  # fmt: skip


def _placed(segment: Segment, places: Sequence[Operand], channels: Sequence[int]) -> list[Segment]:
    """A segment at where its map lies: one for each of the maps that lie side by side, with the channels of this."""
    found = []
    begin = 0
    row = np.repeat(np.arange(len(segment.counts)), segment.counts)
    for place, size in zip(places, channels, strict=True):
        here = (segment.channel >= begin) & (segment.channel < begin + size) if len(places) > 1 else slice(None)
        counts = np.bincount(row[here], minlength=len(segment.counts))
        y, x = segment.origin
        found.append(dataclasses.replace(
            segment, source=place.map, moves=place.moves, origin=(y, x + place.pixel),
            starts=np.concatenate([[0], np.cumsum(counts)]), tap=segment.tap[here],
            channel=segment.channel[here] - begin, code=segment.code[here],
        ))  # fmt: skip
        begin += size
    return found
