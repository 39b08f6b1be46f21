"""An image run by the plainest means: its bytes read word by word, its layers tile by tile, in Python's integers.

Written from the layouts and what a layer means, and from nothing of the compiler or the simulators. Slow: for small
images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.image.image import Image, MapInfo
from hw.layouts import (
    Join,
    Memory,
    Op,
    descriptor,
    elementwise,
    entry,
    fields,
    loop,
    output_word,
    pointer_block,
    refill_header,
)
from hw.params import LANES

SIGNED = {"y0", "x0", "low", "high", "bias", "scale_a", "scale_c", "offset", "pitch"}


def word_of(layout: Any, data: NDArray[np.uint8]) -> dict[str, int]:
    """Fields of one word."""
    value = int.from_bytes(data.tobytes(), "little")
    found = {}
    for name, first, width in fields(layout):
        number = value >> first & ((1 << width) - 1)
        found[name] = number - (number >> (width - 1) << width) if name in SIGNED else number
    return found


class Reader:
    """The array, with one sample's frame of activation memory.

    Attributes
    ----------
    memory : int16 values by vector address. fresh : vectors that were written. read : vectors that were read.
    """

    def __init__(self, image: Image) -> None:
        self.image, self.params = image, image.params
        p = self.params
        self.memory = np.full((p.act_lines * p.groups, LANES), 0x5A5A, np.int64)
        self.entries = np.zeros((p.pes, p.weight_words, p.word_bytes), np.uint8)
        self.entries[:, : image.entries.shape[1]] = image.entries
        self.pointers = np.zeros((p.pes, p.pointer_blocks, image.pointers.shape[2]), np.uint8)
        self.pointers[:, : image.pointers.shape[1]] = image.pointers
        self.beat = 0
        self.saturated: dict[str, int] = {}
        self.offset = 0  # of the loop

    def put(self, number: int, value: NDArray[Any]) -> None:
        """Write a map (channels, height, width)."""
        each = self.image.maps[number]
        order = self.image.map_orders[number]
        for y in range(each.height):
            for x in range(each.width):
                lanes = np.where(order >= 0, value[order, y, x], 0)
                self.memory[self._address(each, y, x)] = lanes.reshape(-1, LANES)

    def get(self, number: int) -> NDArray[np.int64]:
        """A map (channels, height, width)."""
        each = self.image.maps[number]
        order = self.image.map_orders[number]
        result = np.zeros((each.channels, each.height, each.width), np.int64)
        for y in range(each.height):
            for x in range(each.width):
                lanes = self.memory[self._address(each, y, x)].reshape(-1)
                result[order[order >= 0], y, x] = lanes[order >= 0]
        return result

    def _address(self, each: MapInfo, y: int, x: int) -> list[int]:
        """Of each vector of a pixel."""
        plane, lines = each.vectors // each.planes, each.lines // each.planes
        return [
            (each.base + n // plane * lines) * self.params.groups + y * each.row + x * each.pitch + n % plane
            for n in range(each.vectors)
        ]

    def run(self) -> list[NDArray[np.int64]]:
        """All layers and operations; the map that each writes, as it is when it has run for the last time."""
        results: dict[int, NDArray[np.int64]] = {}
        owner = {}  # first descriptor → layer
        at = 0
        for number, info in enumerate(self.image.layers):
            while self._op(at) == Op.LOOP:
                at += 1
            owner[at] = number
            at += info.descriptors
        at = rounds = self.offset = 0
        while (op := self._op(at)) != Op.END:
            if op == Op.LOOP:
                ending = word_of(loop(self.params), self.image.descriptors[at])
                rounds += 1
                if rounds < ending["count"]:
                    at, self.offset = ending["first"], self.offset + ending["pitch"]
                else:
                    at, self.offset, rounds = at + 1, 0, 0
                continue
            info = self.image.layers[owner[at]]
            rows = self.image.descriptors[at : at + info.descriptors]
            if op == Op.ELEMENTWISE:
                (row,) = rows
                self._operation(info.name, word_of(elementwise(self.params), row))
            else:
                steps = [word_of(descriptor(self.params), row) for row in rows]
                assert [s["first"] for s in steps] == [1] + [0] * (len(steps) - 1)
                assert [s["last"] for s in steps] == [0] * (len(steps) - 1) + [1]
                assert all(s["op"] == Op.SEGMENT.value for s in steps)
                self._layer(info.name, steps)
            results[owner[at]] = self.get(info.result)
            at += info.descriptors
        assert self.beat == len(self.image.tiles)
        return [results[number] for number in range(len(self.image.layers))]

    def _op(self, at: int) -> Op:
        return Op(word_of(descriptor(self.params), self.image.descriptors[at])["op"])

    def _operation(self, name: str, step: dict[str, int]) -> None:
        self.saturated.setdefault(name, 0)
        at = {n: step[n] + self.offset * step[f"moves_{n}"] for n in ("a", "b", "c", "e", "result")}
        limit = 1 << (self.params.acc_bits - 1)
        for line in range(step["lines"]):
            for group in range(self.params.groups):
                place = {n: (first + line) * self.params.groups + group for n, first in at.items()}
                vector = {n: self.memory[each].copy() for n, each in place.items()}
                for lane in range(LANES):
                    a, b, c, e = (int(vector[n][lane]) for n in "abce")
                    total = a * (b if step["has_b"] else step["scale_a"]) + step["offset"]
                    if step["has_c"]:
                        total += c * (e if step["has_e"] else step["scale_c"])
                    total = (total + limit) % (2 * limit) - limit
                    value = self._limited(name, total, step["shift"], step)
                    value = self._function(value, step, int(bool(step["functions"])))
                    self.memory[place["result"], lane] = value

    def _limited(self, name: str, total: int, shift: int, step: dict[str, int]) -> int:
        exact = (total + (1 << shift >> 1)) >> shift
        self.saturated[name] += exact > 32767 or (exact < -32768 and step["low"] < 0)
        return min(max(exact, step["low"], -32768), step["high"], 32767)

    def _function(self, y: int, step: dict[str, int], number: int) -> int:
        if not number:
            return y
        right = step[f"right_{number}"]
        u = min(max(((y << step[f"left_{number}"]) + (1 << right >> 1)) >> right, -32768), 32767)
        table = self.image.functions[step[f"table_{number}"]].tolist()
        i = u // 128 + 256
        return int(table[i] + ((table[i + 1] - table[i]) * (u % 128) + 64) // 128)

    def _layer(self, name: str, steps: list[dict[str, int]]) -> None:
        first = steps[0]
        self.saturated.setdefault(name, 0)
        sums = np.zeros((self.params.pes, self.params.rows), np.int64)  # write-back leaves them zero
        for ty in range(first["tiles_y"]):
            for tx in range(first["tiles_x"]):
                for step in steps:
                    if step["refill"]:
                        self._refill(step["buffer"])
                    self._scan(step, ty, tx, sums)
                line = (
                    first["destination"]
                    + self.offset * first["moves_result"]
                    + ty * first["tile_lines"]
                    + tx * first["column_lines"]
                )
                self._write(name, first, line, sums)

    def _refill(self, buffer: int) -> None:
        while True:
            header = word_of(refill_header(self.params), self.image.tiles[self.beat])
            assert (header["buffer"], header["reserved"]) == (buffer, 0)
            words = self.image.tiles[self.beat + 1 : self.beat + 1 + header["words"]]
            memory = self.entries if header["memory"] == Memory.WEIGHTS.value else self.pointers
            memory[header["unit"], header["address"] : header["address"] + len(words)] = words[:, : memory.shape[2]]
            self.beat += 1 + len(words)
            if header["last"]:
                return

    def _scan(self, step: dict[str, int], ty: int, tx: int, sums: NDArray[np.int64]) -> None:
        pointer = step["pointers"]
        origin = (
            step["source"]
            + self.offset * self.params.groups * step["moves_source"]
            + ty * step["tile_pitch_y"]
            + tx * step["tile_pitch_x"]
        )
        for i in range(step["wy"]):
            for j in range(step["wx"]):
                if step["uniform"]:
                    pointer = step["pointers"]
                y = step["y0"] + ty * step["step_y"] + i * step["dy"]
                x = step["x0"] + tx * step["step_x"] + j * step["dx"]
                if not (0 <= y < step["height"] and 0 <= x < step["width"]):
                    pointer += step["vectors"]
                    continue
                address = (origin + i * step["window_pitch"] + j * step["position_pitch"]) % (1 << 24)
                for v in range(step["vectors"]):
                    self._vector(step, self.memory[(address + v) % (1 << 24)], pointer, sums)
                    pointer += 1

    def _vector(self, step: dict[str, int], acts: NDArray[np.int64], pointer: int, sums: NDArray[np.int64]) -> None:
        p = self.params
        if not acts.any() and not step["dense"]:
            return
        for pe in range(p.pes):
            block = word_of(pointer_block(p), self.pointers[pe, pointer])
            start = block["base"]
            for lane in range(LANES):
                count = block[f"lengths.{lane}"]
                if acts[lane] or step["dense"]:
                    row = -1
                    for n in range(start, start + count):
                        found = self._entry(pe, n)
                        row += 1 + found["index"]
                        if step["maximum"]:
                            sums[pe, row] = max(sums[pe, row], acts[lane] + 32768)
                        else:
                            weight = int(self.image.codebooks[step["codebook"], found["code"]])
                            sums[pe, row] += weight * acts[lane]
                start += count

    def _entry(self, pe: int, number: int) -> dict[str, int]:
        bits = self.params.entry_bits
        word, lane = divmod(number, LANES)
        value = int.from_bytes(self.entries[pe, word].tobytes(), "little") >> (lane * bits) & ((1 << bits) - 1)
        return {name: value >> first & ((1 << width) - 1) for name, first, width in fields(entry(self.params))}

    def _write(self, name: str, step: dict[str, int], line: int, sums: NDArray[np.int64]) -> None:
        p = self.params
        limit = 1 << (p.acc_bits - 1)
        for group in range(p.groups):
            out, at, in_row, total = np.zeros(LANES, np.int64), line, 0, 0
            for number in range(step["outputs"], step["outputs"] + step["words"]):
                word = word_of(output_word(p), self.image.table[group, number])
                pe = group * p.group + word["pe"]
                raw = int(sums[pe, word["slot"]])
                sums[pe, word["slot"]] = 0
                if word["join"] == Join.START.value:
                    total = raw + word["bias"]
                elif word["join"] == Join.ADD.value:
                    total += raw
                else:
                    total = max(total, raw + word["bias"])
                if word["last"]:
                    total = (total + limit) % (2 * limit) - limit
                    value = self._limited(name, total, word["shift"], step)
                    out[word["lane"]] = self._function(value, step, word["function"] if step["functions"] else 0)
                if word["flush"]:
                    self.memory[at * p.groups + group] = out
                    out, at, in_row = np.zeros(LANES, np.int64), at + 1, in_row + 1
                    if in_row == step["row_lines"]:
                        at, in_row = at + step["row_pitch"] - step["row_lines"], 0
            assert not out.any()
        assert not sums.any()
