"""Cases under disturbance, by which no value may change: streams that pause, parity bits that flip, wild lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.image.image import Image
from compiler.lower.program import HIGH
from hw.layouts import Memory, memory_shape
from hw.params import LANES, Params
from hw.parity import KINDS, found
from sim import run as engines
from sim.cases import Case, random_case
from sim.coverage.made import lengths_case
from sim.decode import decode
from sim.function_cases import random_function_case
from sim.program import flat
from sim.rtl.engine import run_rtl, scope

__all__ = ["checked_rams", "disturbed", "flip_case", "flips_told", "lengths_told", "wild_lengths"]

_PAUSES = 0.5
_DRAWN = 200
_ENTRIES = 300
"""Of a case in which something waits in every memory."""
_CANDIDATES = 64
"""For a word of pointer memory."""
_LONGEST = 0.2
"""Share of wild lengths that are as long as can be, so that their sums are too."""


def disturbed(image: Image, x: Mapping[str, NDArray[np.int16]], seed: int) -> str | None:
    """Run an image with streams that pause in half of all cycles; the first value that differs from the model."""
    ran = run_rtl(image, engines.check_input(image, x)[0], decode(image), pauses=_PAUSES, seed=seed)
    return _differs(image, x, flat(ran.values))


def flip_case(seed: int, params: Params) -> Case:
    """A case, of inputs without a zero, that uses every kind of memory that the array has.

    Raises
    ------
    ValueError
        None was found.
    """
    rng = np.random.default_rng([seed, 37])
    for n in range(_DRAWN):
        case = (random_function_case if params.tables else random_case)(seed + n, params)
        operations = case.image.operations.values()
        every = not params.tables or (
            any(step.functions for step in operations) and any(step.has_b for step in operations)
        )  # fmt: skip
        if every and sum(layer.entries for layer in case.image.layers) > _ENTRIES:
            x = {name: rng.integers(1, HIGH + 1, raw.shape).astype(np.int16) for name, raw in case.x.items()}
            return replace(case, x=x)
    raise ValueError(f"seed {seed}: none of {_DRAWN} cases has {_ENTRIES} entries, and a product with a function")


def flips_told(case: Case) -> str | None:
    """Run a case while parity bits flip in all memories that can be reached; what is wrong with values or PARITY."""
    image = case.image
    rams = checked_rams(image.params)
    ran = run_rtl(
        image, engines.check_input(image, case.x)[0], decode(image), bus=True, seed=case.seed,
        flipping=[ram for names in rams.values() for ram in names],
    )  # fmt: skip
    expected = sum(1 << KINDS.index(kind) for kind in rams)
    if ran.parity != expected:
        return f"PARITY names {found(ran.parity)}; expected {found(expected)}"
    return _differs(image, case.x, flat(ran.values))


def lengths_told(seed: int, params: Params) -> str | None:
    """Run a case whose pointer memory says anything of lanes that are never active; what is wrong.

    On an array with parity some of its words have a wrong one, and PARITY must say so.
    """
    case = lengths_case(seed, params)
    rams = checked_rams(params)[Memory.POINTERS.name] if params.parity else []
    ran = run_rtl(
        wild_lengths(case.image, case.x["x"], seed), engines.check_input(case.image, case.x)[0], decode(case.image),
        seed=seed, flipping=rams,
    )  # fmt: skip
    if ran.parity != (1 << Memory.POINTERS.value) * params.parity:
        return f"PARITY names {found(ran.parity)}; expected {Memory.POINTERS.name if rams else 'none'}"
    return _differs(case.image, case.x, flat(ran.values))


def wild_lengths(image: Image, x: NDArray[np.int16], seed: int) -> Image:
    """The image of a layer of one pixel, with any lengths for columns that are zero in all samples.

    Columns are counted on from the base of their vector, so it is moved back by what the wild lengths in front add up
    to. Of some candidates for a word the one is taken that has most groups of four bits with values that no word had.

    Parameters
    ----------
    x : int16 (samples, 1, 1, channels), of each vector only lanes side by side not zero in any.
    """
    params, rng = image.params, np.random.default_rng([seed, 71])
    bits, size = params.entry_address_bits, params.count_bits
    active = x.any(axis=0).reshape(-1, LANES)
    pointers = image.pointers.copy()
    had: set[tuple[int, int]] = set()

    def parts(word: int, mask: int) -> set[tuple[int, int]]:
        """Of a word of the queue, in which the lanes with work stand above."""
        word |= mask << bits + LANES * size
        return {(n, word >> n & 0xF) for n in range(0, bits + LANES * (size + 1), 4)}

    for pe in range(params.pes):
        for block, lanes in enumerate(active):
            old = int.from_bytes(pointers[pe, block].tobytes(), "little")
            lengths = [old >> bits + n * size & (1 << size) - 1 for n in range(LANES)]
            first = int(np.argmax(lanes))
            base = old + sum(lengths[:first])
            mask = sum(1 << n for n in range(LANES) if lanes[n] and lengths[n])
            words = []
            for _ in range(_CANDIDATES):
                drawn = rng.integers(0, 1 << size, LANES)
                drawn[rng.random(LANES) < _LONGEST] = (1 << size) - 1
                wild = np.where(lanes, lengths, drawn).tolist()
                word = (base - sum(wild[:first])) % (1 << bits)
                words.append(word | sum(length << bits + n * size for n, length in enumerate(wild)))
            best = max(words, key=lambda word: len(parts(word, mask) - had))
            had |= parts(best, mask)
            pointers[pe, block] = np.frombuffer(best.to_bytes(pointers.shape[2], "little"), np.uint8)
    return replace(image, pointers=pointers)


def _differs(image: Image, x: Mapping[str, NDArray[np.int16]], values: Mapping[str, NDArray[Any]]) -> str | None:
    model = engines.run(image, x, engine="golden")
    wrong = [name for name in model.values if not np.array_equal(model.values[name], values[name])]
    return f"{wrong[0]} differs from the model" if wrong else None


def checked_rams(params: Params) -> dict[str, list[str]]:
    """By kind, the memories of an array whose parity bits a bench reaches: all but those that are no `eie_ram`."""
    top = scope(Memory.ACTIVATIONS, 0).rpartition(".acts_0")[0]
    loaded = (memory for memory in Memory if memory is not Memory.RECORDS)

    def units(memory: Memory) -> range:
        each = params.pes if memory is Memory.CODEBOOK else memory_shape(params, memory)[0]
        return range(params.groups if memory is Memory.TABLES else each)

    rams = {m.name: [scope(m, n, params.slim) for n in units(m)] for m in loaded if memory_shape(params, m)[1]}
    rams["RECORDS"] = [f"{top}.records.memory.ram"]
    rams |= dict(_inside(params, top))
    return rams


def _inside(params: Params, top: str) -> Iterator[tuple[str, list[str]]]:
    """Memories that the host does not know."""
    if not params.near:
        yield "QUEUE", [f"{top}.pe_{n}.queue.memory.ram" for n in range(params.pes)]
        yield "ACCUMULATORS", [f"{top}.pe_{n}.mac.parity_{k}.bits.ram" for n in range(params.pes) for k in range(2)]
    if params.elementwise:
        groups = range(params.groups)
        yield "OPERANDS", [f"{top}.writeback_{n}.product.operands_{k}.ram" for n in groups for k in range(2)]
