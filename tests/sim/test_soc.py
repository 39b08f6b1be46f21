"""The array in systems-on-chip: a LiteX system that runs a network by the guide's C, and the core for FuseSoC."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compiler.files import write_files
from compiler.image.c_source import c_source
from compiler.options import Options
from hw.export import verilog_files
from hw.params import LANES
from sim import run as engines
from sim.program import chunks, outputs_of
from sim.rtl.build import _MAKE_VARIABLES, tool_environment
from sim.streams import BEAT, given_maps
from tests.sim.boards import SMALL
from tests.sim.test_driver import made
from tests.sim.test_host_guide import STRICT, c_array, guide_code

ORIGIN = 0x9000_0000
HERE = Path(__file__).parent


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=tool_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def system(folder: Path) -> None:
    """The system of a folder that `eie verilog` wrote, as ``soc.v`` there."""
    pytest.importorskip("litex", reason="LiteX is not installed: pip install 'eie-kit[soc]'")
    run([sys.executable, str(HERE / "litex_soc.py"), str(folder)], folder)


@pytest.mark.verifies("litex-system-array-runs-network")
@pytest.mark.rtl
@pytest.mark.slow
def test_a_network_runs_in_a_litex_system(tmp_path: Path, seed: int) -> None:
    """Registers over the system's bus, maps over its streams, the end by polling and by interrupt: the golden bits."""
    write_files(tmp_path, verilog_files(SMALL))
    system(tmp_path)
    case = made(np.random.default_rng(seed), [11, 16, 7], 0.4, 3, Options(stream_io=True))
    image = case.image
    raw, _ = engines.check_input(image, case.x)
    part = next(iter(chunks(image, raw)))
    outside = [number for number, each in enumerate(image.maps) if each.off_chip]
    sizes = [part.count * image.maps[number].lines * SMALL.groups * LANES // 2 for number in outside]
    given = given_maps(image, part.memory)[image.inputs[0]].reshape(-1).view("<u4").tolist()
    numbers = {"SAMPLES": part.count, "ORIGIN": ORIGIN, "INPUT_MAP": outside.index(image.inputs[0]),
               "OUTPUT_MAP": outside.index(image.outputs[0])}  # fmt: skip
    (tmp_path / "frames.h").write_text("\n".join([
        "#include <stdint.h>", *(f"#define {name} {value}u" for name, value in numbers.items()),
        c_array("input_map", given), c_array("map_sizes", sizes), "",
    ]))  # fmt: skip
    (tmp_path / "network.h").write_text(c_source(image, "network"))
    (tmp_path / "host.c").write_text(
        guide_code()
        + f"""
void stream_all(uint32_t *const *maps);
void stream_all(uint32_t *const *maps)
{{
    eie_stream_maps(network_transfers, NETWORK_TRANSFERS, network_rows, network_maps, maps, {part.count});
}}
"""
    )
    run(["cc", *STRICT, "-O1", "-c", "host.c", "-o", "host.o"], tmp_path)
    (tmp_path / "main.cpp").write_text((HERE / "litex_main.cpp").read_text())
    run(["verilator", "-cc", "--exe", "--prefix", "Vsoc", "--top-module", "soc", "-Mdir", "obj", "-Wno-fatal",
         "-Wno-lint", "-CFLAGS", f"-I{tmp_path}", "lint.vlt", "soc.v", "accelerator.v", "eie_ram.v", "main.cpp",
         "../host.o"], tmp_path)  # fmt: skip
    run(["make", "-C", "obj", "-f", "Vsoc.mk", *_MAKE_VARIABLES[:-1], "OPT_FAST=-O0"], tmp_path)
    printed = {name: words for name, *words in map(str.split, run(["obj/Vsoc"], tmp_path).splitlines())}
    name = image.maps[image.outputs[0]].name
    right = engines.run(image, case.x[: part.count], engine="golden").values[name]
    assert right.any()
    for way in ("polled", "interrupted"):
        beats = np.array([int(word, 16) for word in printed[way]], "<u4").view(np.uint8).reshape(-1, BEAT)
        none = np.zeros((0, SMALL.groups, LANES), np.int16)
        found = outputs_of(image, part.count, none, {image.outputs[0]: beats})[name]
        np.testing.assert_array_equal(found.reshape(right.shape), right)


@pytest.mark.verifies("litex-system-array-runs-network")
def test_every_pin_of_the_array_is_connected(tmp_path: Path) -> None:
    """Of each direction, with streams and without: a missing one would hang a system silently."""
    pytest.importorskip("litex", reason="LiteX is not installed: pip install 'eie-kit[soc]'")
    write_files(tmp_path, verilog_files(SMALL))
    system(tmp_path)
    (module,) = re.findall(r"module eie_accelerator\((.*?)\);", (tmp_path / "accelerator.v").read_text(), re.DOTALL)
    (instance,) = re.findall(
        r"eie_accelerator eie_accelerator\((.*?)\n\);", (tmp_path / "soc.v").read_text(), re.DOTALL
    )
    pins = {name.strip() for name in module.split(",")}
    assert set(re.findall(r"\.(\w+) *\(", instance)) == pins
    assert {"aclk", "irq", "s_axis_weights_tlast", "m_axis_acts_tready"} <= pins


@pytest.mark.verifies("fusesoc-core-found-linted-broken")
@pytest.mark.rtl
@pytest.mark.slow
def test_fusesoc_finds_the_core_and_lints_it(tmp_path: Path) -> None:
    pytest.importorskip("fusesoc", reason="FuseSoC is not installed: pip install 'eie-kit[soc]'")
    write_files(tmp_path / "core", verilog_files(SMALL))
    (tmp_path / "work").mkdir()
    fusesoc = [sys.executable, "-m", "fusesoc.main", "--cores-root", str(tmp_path / "core")]
    assert "::eie_accelerator:0" in run([*fusesoc, "core", "list"], tmp_path / "work")
    run([*fusesoc, "run", "--target=lint", "::eie_accelerator"], tmp_path / "work")
    made_list = next((tmp_path / "work" / "build").rglob("*.vc")).read_text()
    assert all(name in made_list for name in ("accelerator.v", "eie_ram.v", "lint.vlt", "--top-module eie_accelerator"))
    broken = (tmp_path / "core" / "accelerator.v").read_text().replace("endmodule", "", 1)
    (tmp_path / "core" / "accelerator.v").write_text(broken)
    with pytest.raises(AssertionError):  # the lint looks at the files
        run([*fusesoc, "run", "--target=lint", "::eie_accelerator"], tmp_path / "work")


@pytest.mark.verifies("fusesoc-core-found-linted-broken")
def test_the_core_file_is_what_fusesoc_takes(tmp_path: Path) -> None:
    """Without FuseSoC: the files that it names are those that are written."""
    files = verilog_files(SMALL)
    named = re.findall(r"files: \[(.*?)\]", files["eie.core"])
    assert {name.strip() for each in named for name in each.split(",")} <= files.keys()
    assert files["eie.core"].startswith("CAPI=2:\n")
