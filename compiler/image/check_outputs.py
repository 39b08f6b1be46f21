"""What must hold for the output table: groups in step, every result made once, every accumulator read once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ImageError
from compiler.image.image import Image
from compiler.image.steps import Step
from compiler.image.unpack import unpack
from hw.layouts import Join, output_word
from hw.params import FUNCTIONS, LANES

__all__ = ["check_outputs", "read_accumulators"]

Int = NDArray[np.int64]
Bool = NDArray[np.bool_]


def _require(good: bool, message: str) -> None:
    if not good:
        raise ImageError(message)


def read_accumulators(image: Image) -> list[Bool]:
    """For each layer, (pes, rows): whether a tile's words read an accumulator for a result."""
    found = []
    for words in _layers(image):
        used = np.zeros((image.params.pes, image.params.rows), np.bool_)
        pe = np.arange(image.params.groups)[:, np.newaxis] * image.params.group + words["pe"]
        real = ~_dummies(words)
        used[pe[real], words["slot"][real]] = True
        found.append(used)
    return found


def check_outputs(image: Image) -> None:
    """Check the words of each layer."""
    params = image.params
    for layer, steps, words in zip(image.layers, image.steps, _layers(image), strict=True):
        if not steps:
            continue
        name, step = layer.name, steps[0]
        _require(step.words > 0, f"{name}: no words of the output table")
        _require(bool((words["pe"] < params.group).all()), f"{name}: a word reads a PE beyond its group")
        _require(bool((words["slot"] < params.rows).all()), f"{name}: a word reads a slot beyond {params.rows}")
        most = FUNCTIONS if step.functions else 0
        _require(bool((words["function"] <= most).all()), f"{name}: a word names a function beyond {most}")
        flush = words["flush"]
        _require(bool((flush == flush[:1]).all()), f"{name}: groups do not write in step")
        planar = image.maps[layer.result].planes > 1
        lines = step.row_lines if planar else layer.tile_y * step.row_lines
        good = int(flush[0].sum()) == lines and bool(flush[0, -1])
        _require(good, f"{name}: {int(flush[0].sum())} vectors are written; expected {lines}")
        dummy = _dummies(words)
        _check_joins(words, dummy, name)
        _check_reads(words, dummy, name)
        tile = (1, layer.tile_y * layer.tile_x) if planar else (layer.tile_y, layer.tile_x)
        _check_lanes(image, layer.result, step, step.row_lines, *tile, words, name)


def _layers(image: Image) -> list[dict[str, Int]]:
    """Words of each layer, (groups, words) each field."""
    words = unpack(output_word(image.params), image.table)
    found = []
    for steps in image.steps:
        here = slice(steps[0].outputs, steps[0].outputs + steps[0].words) if steps else slice(0, 0)
        found.append({name: values[:, here] for name, values in words.items()})
    return found


def _dummies(words: dict[str, Int]) -> Bool:
    """Words without effect: a START that is not the last and that nothing joins."""
    starts = words["join"] == Join.START.value
    alone = np.concatenate([starts[:, 1:], np.ones((len(starts), 1), np.bool_)], axis=1)
    found: Bool = starts & (words["last"] == 0) & alone
    return found


def _check_joins(words: dict[str, Int], dummy: Bool, name: str) -> None:
    """What joins a result stands behind a word of that result that is not its last, before it is written."""
    joins = words["join"] != Join.START.value
    _require(bool((words["join"] <= Join.MAX.value).all()), f"{name}: a word has an unknown way to join")
    ended = (words["last"] == 1) | dummy | (words["flush"] == 1)
    before = np.concatenate([np.ones((len(ended), 1), np.bool_), ended[:, :-1]], axis=1)
    _require(not bool((joins & before).any()), f"{name}: a word joins a result that is complete")
    inner = joins[:, 1:]
    same = words["lane"][:, 1:] == words["lane"][:, :-1]
    _require(bool(same[inner].all()), f"{name}: the words of a result name several lanes")


def _check_reads(words: dict[str, Int], dummy: Bool, name: str) -> None:
    """No accumulator is read twice for a result, or by a dummy before it is."""
    for group in range(len(dummy)):
        key = words["pe"][group] << 32 | words["slot"][group]
        real = key[~dummy[group]]
        _require(len(np.unique(real)) == len(real), f"{name}: an accumulator is read twice in a tile")
        first = {int(k): n for n, k in zip(np.flatnonzero(~dummy[group]).tolist(), real.tolist(), strict=True)}
        for n in np.flatnonzero(dummy[group]).tolist():
            _require(first.get(int(key[n]), -1) < n, f"{name}: a word without effect clears an accumulator in use")


def _check_lanes(
    image: Image, result: int, step: Step, row_lines: int, tile_y: int, tile_x: int, words: dict[str, Int],
    name: str,
) -> None:  # fmt: skip
    """A tile makes each channel of its vectors once, and nothing in lanes that have none.

    tile_y, tile_x : rows of a tile and pixels of each that are written one behind the other.
    """
    groups, form, order = image.params.groups, image.maps[result], image.map_orders[result]
    line = np.cumsum(words["flush"], axis=1) - words["flush"]
    vector = line * groups + np.arange(groups)[:, np.newaxis]
    made = np.zeros((tile_y * row_lines * groups, LANES), np.int64)
    last = words["last"] == 1
    np.add.at(made, (vector[last], words["lane"][last]), 1)
    # Vectors of a row of pixels, as far as this layer writes them.
    row = np.zeros((tile_x, form.pitch, LANES), np.int64)
    inside = step.destination - form.base
    plane = min(inside // form.plane_lines, form.planes - 1)
    row[:, : form.plane] = (order >= 0).reshape(form.planes, form.plane, LANES)[plane]
    first = (inside - plane * form.plane_lines) * groups % (form.pitch if step.moves_result else 1 << 32)
    own = row.reshape(-1, LANES)[first : first + row_lines * groups]
    wanted = np.zeros((row_lines * groups, LANES), np.int64)
    wanted[: len(own)] = own
    same = np.array_equal(made.reshape(tile_y, -1, LANES), np.broadcast_to(wanted, (tile_y, *wanted.shape)))
    _require(same, f"{name}: a tile does not make each channel of its pixels once")
