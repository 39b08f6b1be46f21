"""Run an image on the generated Verilog: preload, start, read back."""

from __future__ import annotations

import contextlib
import functools
import json
import operator
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compiler.errors import ToolError
from compiler.image.image import Image
from compiler.image.words import memory_words, readmemh
from hw.accelerator import TOP_MODULE
from hw.layouts import Error, Memory, fields, record
from hw.params import LANES
from hw.parity import found
from sim.golden_array import Program
from sim.program import (
    Chunk,
    WriteLog,
    chunks,
    cycle_limit,
    joined,
    layer_records,
    layer_values,
    layer_words,
    output_lines,
    outputs_of,
    record_numbers,
    refill_stream,
    streamed_lines,
)  # fmt: skip
from sim.rtl import collect
from sim.rtl.build import Build, build, tool_environment
from sim.rtl.fst import FstWaves
from sim.rtl.vcd import VcdWaves
from sim.rtl.waves import WAVES_LIMIT, waves_format, window_plusargs
from sim.streams import given_maps, transfers

__all__ = ["RtlError", "RtlRun", "run_rtl", "simulate"]


class RtlError(ToolError):
    """The simulation itself failed (assertion, watchdog, error status); not a wrong number."""

    exit_code = 1


@dataclass(frozen=True)
class RtlRun:
    """What a batch came to.

    values : every map that layers write, int16 (batch, H, W, C), by name; outputs as the host reads them from the
        activation memory, others as they were written to it.
    records : for each run and layer, the fields of the layer record.
    waves : file of the waveform, if asked for. waves_cut : it was longer than the limit, and holds the beginning.
    build : the simulator that was used.
    seconds : wall time between start and interrupt, without preload and read-back, over all chunks.
    parity : what the register PARITY read, over all chunks; 0 but with `flipping`.
    """

    values: dict[str, NDArray[np.int16]]
    records: list[list[dict[str, int]]]
    waves: Path | None
    build: Build
    seconds: float
    waves_cut: bool = False
    parity: int = 0


def scope(memory: Memory, unit: int, slim: bool = False) -> str:
    """Hierarchical name of the `eie_ram` that is a unit of `memory`, as ``%m`` prints it."""
    inside = {
        Memory.WEIGHTS: f"pe_{unit}.weight_read.memory.ram",
        Memory.POINTERS: f"pe_{unit}.pointer_read.memory.ram",
        Memory.CODEBOOK: f"pe_{unit}.weight_decode.memory.ram",
        Memory.OUTPUTS: f"writeback_{unit}.memory.ram",
        Memory.TABLES: f"writeback_{unit}.lookup.memory.ram",
        Memory.DESCRIPTORS: "descriptors.memory.ram" if slim else "descriptors.ram",
        Memory.ACTIVATIONS: f"acts_{unit}.ram",
    }
    return f"{TOP_MODULE}.core.{inside[memory]}"


def preload(image: Image, folder: Path) -> None:
    """Write the static memories as ``$readmemh`` files under the names that `eie_ram` looks for."""
    readmemh(image, folder)
    for pe in range(image.params.pes):
        shutil.copyfile(folder / "codebook_0.hex", folder / f"{scope(Memory.CODEBOOK, pe)}.hex")
        os.replace(folder / f"weights_{pe}.hex", folder / f"{scope(Memory.WEIGHTS, pe)}.hex")
        os.replace(folder / f"pointers_{pe}.hex", folder / f"{scope(Memory.POINTERS, pe)}.hex")
    for group in range(image.params.groups):
        os.replace(folder / f"outputs_{group}.hex", folder / f"{scope(Memory.OUTPUTS, group)}.hex")
        if len(image.functions):
            shutil.copyfile(folder / "tables_0.hex", folder / f"{scope(Memory.TABLES, group)}.hex")
    os.replace(folder / "descriptors_0.hex", folder / f"{scope(Memory.DESCRIPTORS, 0, image.params.slim)}.hex")


def simulate(
    built: Build,
    module: str,
    folder: Path,
    *,
    environment: dict[str, str] | None = None,
    plusargs: tuple[str, ...] = (),
    test: str | None = None,
    timeout: float = 3600,
) -> str:
    """Run a cocotb module on a build, in `folder`; returns what it printed.

    Raises
    ------
    RtlError
        A test of the module failed, or the simulator did.
    """
    import cocotb_tools.config
    import find_libpython

    libpython = find_libpython.find_libpython()
    if libpython is None:
        raise ToolError("this Python has no shared libpython, which cocotb needs; `eie doctor` says how to get one")
    results = folder / "cocotb.xml"
    results.unlink(missing_ok=True)
    loader = "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH"
    libraries = [str(cocotb_tools.config.libs_dir), *filter(None, [os.environ.get(loader)])]
    paths = [str(Path(__file__).parents[2]), *(path for path in sys.path if path)]
    env = {
        **tool_environment(),
        loader: os.pathsep.join(libraries),
        "COCOTB_TOPLEVEL": TOP_MODULE,
        "COCOTB_TEST_MODULES": module,
        "COCOTB_RESULTS_FILE": str(results),
        "COCOTB_LOG_LEVEL": "WARNING",
        "COCOTB_TRUST_INERTIAL_WRITES": "1",
        "COCOTB_REWRITE_ASSERTION_FILES": "",  # else pytest compiles all that is imported: a second for each run
        "TOPLEVEL_LANG": "verilog",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYGPI_PYTHON_BIN": sys.executable,
        "GPI_USERS": f"{libpython};{cocotb_tools.config.pygpi_entry_point()}",
        "EIE_JOB": str(folder),
        **({"COCOTB_TEST_FILTER": f"{test}$"} if test else {}),
        **(environment or {}),
    }
    command = [str(built.folder / TOP_MODULE), *(["--trace"] if built.waves else []), *plusargs]
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise RtlError(f"the simulation did not end within {timeout:.0f} s") from None
    printed = done.stdout + done.stderr
    report = results.read_text() if results.exists() else ""
    if done.returncode or "<testcase" not in report or "<failure" in report or "<error" in report:
        lines = [line for line in printed.splitlines() if line.strip()]
        raise RtlError("the simulation failed:\n" + "\n".join(lines[-25:]))
    if built.coverage:
        collect.keep(folder, built.folder)
    return printed


def run_rtl(
    image: Image,
    inputs: Sequence[NDArray[np.int16]],
    program: Program,
    *,
    bus: bool = False,
    waves: Path | None = None,
    waves_limit: int = WAVES_LIMIT,
    waves_depth: int | None = None,
    waves_window: tuple[int, int] | None = None,
    built: Build | None = None,
    seed: int = 1,
    watchdog: int | None = None,
    pauses: float = 0.0,
    plusargs: tuple[str, ...] = (),
    flips: Sequence[tuple[str, int, int]] = (),
    flipping: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> RtlRun:
    """Run a batch on the Verilog.

    Parameters
    ----------
    image : the memories; its params decide which array is built.
    inputs : int16 (batch, H, W, C), raw, of each input of the image.
    program : the image, decoded.
    bus : load and read every memory through the AXI4-Lite port, as a real host would, instead of preloading.
    waves : where to write a waveform, of `waves_limit` bytes at most; FST if the name ends in ``.fst``, else VCD.
        waves_depth : levels of modules in it, the top being the first; all if None. waves_window : cycles of each run,
        from the first to before the last, that are in it; all, and what is before and between runs, if None.
    built : a build to use instead of the one of `image.params` (mutated arrays).
    seed : of the random contents that all memories and registers start with.
    watchdog : cycles after which a run is given up; by default far beyond what any run of this size takes.
    pauses : share of cycles in which the refill stream has nothing to give, at random (and by `seed`).
    plusargs : more arguments of the simulator (switches of mutated arrays).
    flips : bits to flip before each start: hierarchical name of a memory (`scope`), address, bit.
    flipping : memories with parity whose parity bits are made wrong from start to read-back: all, then at random, by
        `seed`. No value changes by that; what was told is handed over, and no error.
    progress : called with (samples done, samples).

    Raises
    ------
    RtlError
        The array hangs, asserts or ends with an error status, or meets a word whose parity is wrong.
    SimulationError
        It writes other lines than its descriptors say.
    ToolError
        A tool is missing, or for FST a header.
    """
    params = image.params
    form = None if waves is None else waves_format(waves)
    built = built or build(params, waves=form)
    parts = list(chunks(image, inputs))
    with tempfile.TemporaryDirectory(prefix="eie-") as name:
        folder = Path(name)
        preload_folder = folder / "preload"
        preload_folder.mkdir()
        if bus:
            loads = {m.name: [[hex(w) for w in unit] for unit in units] for m, units in memory_words(image).items()}
            (folder / "words.json").write_text(json.dumps(loads))
        else:
            preload(image, preload_folder)
        for number, chunk in enumerate(parts):
            np.save(folder / f"inputs_{number}.npy", np.ascontiguousarray(chunk.inputs.transpose(1, 0, 2)))
            np.save(folder / f"tiles_{number}.npy", refill_stream(image, chunk.count))
            for n, beats in given_maps(image, chunk.memory).items():
                np.save(folder / f"given_{number}_{n}.npy", beats)
        outside = [n for n in image.outputs if image.maps[n].off_chip]
        job = {
            "params": params.asdict(),
            "bus": bus,
            "batches": [chunk.count for chunk in parts],
            "reads": [output_lines(image, chunk.count) for chunk in parts],
            "records": record_numbers(image),
            "transfers": [each.asdict() for each in transfers(image)],
            "given": [n for n in image.inputs if image.maps[n].off_chip],
            "takes": outside,
            "pauses": pauses,
            "watchdog": watchdog or cycle_limit(image, program, max(chunk.count for chunk in parts)),
            "stop_on_error": True,
            "flips": list(flips),
            "flipping": list(flipping),
            "seed": seed,
        }
        (folder / "job.json").write_text(json.dumps(job))
        if progress:
            progress(0, len(inputs[0]))
        log = folder / "writes"
        log.mkdir()
        start = (
            f"+eie_preload={preload_folder}", f"+eie_log={log}", f"+eie_waves_limit={waves_limit}",
            *window_plusargs(waves_depth, waves_window),
            "+verilator+rand+reset+2", f"+verilator+seed+{seed % 2**31 or 1}",
        )  # fmt: skip
        dump = (FstWaves if form == "fst" else VcdWaves)(folder / f"dump.{form}", waves_limit)
        with dump if waves is not None else contextlib.nullcontext():
            simulate(built, "sim.testbench.job", folder, plusargs=(*start, *plusargs))
        results = json.loads((folder / "results.json").read_text())
        for result in results:
            if error := result["status"]["error"]:
                index = result["status"]["index"]
                raise RtlError(f"the array ended with error {Error(error).name} at descriptor {index}")
            if result["parity"] and not flipping:
                raise RtlError(f"the parity of a word was wrong: {found(result['parity'])}")
            if result["left"] != [0, 0]:
                raise RtlError(f"beats that were not taken, and that did not come: {result['left']}")
        taken = [{n: np.load(folder / f"taken_{number}_{n}.npy") for n in outside} for number in range(len(parts))]
        read = [np.load(folder / f"outputs_{number}.npy") for number in range(len(parts))]
        logs = _split(read_log(log, params.groups), image, program, parts, bus)
        kept = None
        if waves is not None:
            dump.deliver(waves)
            kept = waves
    if progress:
        progress(len(inputs[0]), len(inputs[0]))
    values = [
        _values(image, program, chunk, writes, memory.transpose(1, 0, 2), maps)
        for chunk, writes, memory, maps in zip(parts, logs, read, taken, strict=True)
    ]
    records = [unpack_record(image, int(word, 16)) for result in results for word in result["records"]]
    return RtlRun(
        joined(values),
        layer_records(image, records),
        kept,
        built,
        sum(result["seconds"] for result in results),
        dump.cut,
        functools.reduce(operator.or_, (result["parity"] for result in results), 0),
    )


def read_log(folder: Path, groups: int) -> WriteLog:
    """What was written to each bank of the activation memory, as `eie_ram` lists it."""
    logs = []
    for group in range(groups):
        rows = [text.split() for text in (folder / f"{scope(Memory.ACTIVATIONS, group)}.log").read_text().splitlines()]
        words = bytes.fromhex("".join(word.zfill(4 * LANES)[-4 * LANES :] for _, word in rows))  # no parity bit
        lines = np.array([int(address, 16) for address, _ in rows], np.int64)
        logs.append((lines, np.frombuffer(words, ">i2").reshape(-1, LANES)[:, ::-1]))
    return logs


def _split(log: WriteLog, image: Image, program: Program, parts: list[Chunk], bus: bool) -> list[WriteLog]:
    """The writes of each run; what the host wrote before it through the same port is left out."""
    at = 0
    pieces: list[WriteLog] = []
    for number, chunk in enumerate(parts):
        at += len(chunk.inputs) if bus else 0
        size = chunk.count * sum(layer.lines.size for layer in program.runs) + streamed_lines(image, chunk.count)
        end = at + size if number + 1 < len(parts) else None
        pieces.append([(lines[at:end], data[at:end]) for lines, data in log])
        at = end or 0
    return pieces


def _values(
    image: Image, program: Program, chunk: Chunk, log: WriteLog, read: NDArray[np.int16],
    taken: Mapping[int, NDArray[np.uint8]],
) -> dict[str, NDArray[np.int16]]:  # fmt: skip
    """Maps from what was written; outputs from the lines that the host read (lines, groups, 8), or from their beats."""
    values = layer_values(image, program, layer_words(image, program, chunk.count, log))
    return values | outputs_of(image, chunk.count, read, taken)


def unpack_record(image: Image, word: int) -> dict[str, int]:
    """Fields of a layer record."""
    return {name: (word >> first) & ((1 << width) - 1) for name, first, width in fields(record(image.params))}
