"""Exported Verilog as the tools of others take it: plain names, Verilog-2005, one memory primitive, SPDX lines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.accelerator import TOP_MODULE
from hw.export import verilog_files, verilog_text
from hw.params import Params, preset
from hw.platform import convert
from sim.rtl.build import tool_environment

ROOT = Path(__file__).parents[2]
SMALL = Params(pes=2, rows=16, weight_words=32, pointer_blocks=16, act_lines=16, output_words=16, codebooks=2,
               descriptors=4)  # fmt: skip
SETS = {"all": SMALL, "plain": SMALL.replace(pes=1, tables=0, elementwise=False, refill=False)}


@pytest.fixture(scope="module", params=SETS)
def files(request):
    return SETS[request.param], verilog_files(SETS[request.param])


@pytest.mark.verifies("exported-verilog-plain-names-pins")
def test_names_are_plain_and_assertions_are_asked_for(files):
    text = files[1]["accelerator.v"]
    assert "\\" not in text
    bare = re.sub(r"`ifdef EIE_ASSERT\n.*?`endif\n", "", text, flags=re.DOTALL)
    assert len(bare) < len(text)
    assert not re.search(r"\bassert\b|\$write|\$display", bare)
    modules = re.findall(r"^module (\w+)", text, re.MULTILINE)
    assert len(modules) == len(set(modules))
    assert not any(
        re.search(r"_\d+$", name) for name in modules if not re.search(r"(bank|acts|operands|half)_\d+$", name)
    )


@pytest.mark.verifies("exported-verilog-plain-names-pins")
def test_the_pins_are_named_as_an_integrator_expects(files):
    params, texts = files
    header = re.search(rf"^module {TOP_MODULE}\((.*?)\);", texts["accelerator.v"], re.MULTILINE | re.DOTALL)
    assert header is not None
    pins = set(re.findall(r"\w+", header[1]))
    channels = ("awaddr awprot awvalid awready wdata wstrb wvalid wready bresp bvalid bready araddr arprot arvalid "
                "arready rdata rresp rvalid rready").split()  # fmt: skip
    expected = {"aclk", "aresetn", "irq", *(f"s_axi_{name}" for name in channels)}
    if params.refill:
        expected |= {f"s_axis_weights_{name}" for name in ("tdata", "tlast", "tvalid", "tready")}
    if params.streams:
        expected |= {f"{port}_{name}" for port in ("s_axis_acts", "m_axis_acts")
                     for name in ("tdata", "tlast", "tvalid", "tready")}  # fmt: skip
    assert pins == expected


@pytest.mark.verifies("exported-verilog-plain-names-pins")
def test_every_file_says_its_license(files):
    for name, text in files[1].items():
        if name.endswith(".json"):
            assert json.loads(text)["license"] == "Apache-2.0"
        else:
            assert "SPDX-License-Identifier: Apache-2.0" in "".join(text.splitlines()[:2]), name


@pytest.mark.verifies("exported-verilog-plain-names-pins")
def test_memories_are_instances_of_the_one_primitive_but_for_two_small_ones(files):
    """Places of segments and of what is to be written: a few words, read in the cycle of their address (registers).

    So are queue and accumulators of a PE where they are as small.
    """
    params, texts = files
    arrays = re.findall(r"^  reg \[(\d+):0\] \w+ \[(\d+):0\];", texts["accelerator.v"], re.MULTILINE)
    assert len(arrays) == 1 + params.elementwise + 4 * params.near
    assert all(int(last) < 32 for _, last in arrays)
    assert len(re.findall(r"^  eie_ram #\(", texts["accelerator.v"], re.MULTILINE)) > 8


@pytest.mark.verifies("exported-verilog-plain-names-pins")
@pytest.mark.parametrize("name", ["BOARD_MIN", "BOARD_4"])
def test_no_memory_starts_with_contents(name):
    """A design that relied on them would differ between simulation and silicon; near memories are no `eie_ram`."""
    text = verilog_text(preset(name))
    assert len(re.findall(r"^  reg \[\d+:0\] memory \[\d+:0\];", text, re.MULTILINE)) == 1 + 4 * preset(name).near
    assert not re.search(r"^  initial\b", text, re.MULTILINE)


def accepted_by_yosys(folder, files):
    """Whether yosys reads the files as Verilog-2005, finds every module and no driver conflict."""
    for name in ("accelerator.v", "eie_ram.v"):
        (folder / name).write_text(files[name])
    (folder / "read.ys").write_text(
        f"read_verilog eie_ram.v accelerator.v\nhierarchy -check -top {TOP_MODULE}\nproc\ncheck -assert\n"
    )
    command = [sys.executable, "-m", "sim.formal.yosys", "-ql", "yosys.log", "read.ys"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode == 0


@pytest.mark.verifies("exported-verilog-yosys-verilog-2005")
@pytest.mark.slow
def test_yosys_reads_it_and_catches_a_planted_assert(files, tmp_path):
    pytest.importorskip("pyosys", reason="yosys comes with the extra [formal]")
    texts = files[1]
    assert accepted_by_yosys(tmp_path, texts)
    bare = texts["accelerator.v"].replace("`ifdef EIE_ASSERT\n", "").replace("`endif\n", "")
    assert not accepted_by_yosys(tmp_path, {**texts, "accelerator.v": bare})


@pytest.mark.verifies("exported-verilog-yosys-verilog-2005")
@pytest.mark.rtl
def test_verilator_reads_it_as_verilog_2005(files, tmp_path):
    for name in ("accelerator.v", "eie_ram.v", "lint.vlt"):
        (tmp_path / name).write_text(files[1][name])
    command = ["verilator", "--language", "1364-2005", "--lint-only", "-Wall", "lint.vlt", "accelerator.v",
               "eie_ram.v", "--top", TOP_MODULE]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, env=tool_environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


class Awkward(wiring.Component):
    """Signals named as words of the language, and as one another."""

    def __init__(self):
        super().__init__({"a": In(4), "b": Out(4), "c": Out(4)})

    def elaborate(self, platform):
        m = Module()
        names = ("table", "before", "always_comb", "a_b", "a.b", "a$b", "logic")
        signals = [Signal(4, name=name) for name in names]
        for n, signal in enumerate(signals):
            m.d.sync += signal.eq(self.a + n)
            m.d.comb += [self.b.eq(sum(signals)), self.c.eq(signals[0] ^ signals[-1])]
        return m


@pytest.mark.verifies("exported-verilog-plain-names-pins")
@pytest.mark.rtl
def test_words_of_the_language_and_equal_names_stay_apart(tmp_path):
    text = convert(Awkward(), "awkward")
    assert "\\" not in text
    declared = re.findall(r"^  (?:reg|wire) (?:\[\d+:0\] )?(\w+)", text, re.MULTILINE)
    assert len(declared) == len(set(declared))
    (tmp_path / "awkward.v").write_text(text)
    for language in ("1364-2005", "1800-2017"):
        command = ["verilator", "--language", language, "--lint-only", "-Wno-fatal", "awkward.v"]
        done = subprocess.run(
            command, cwd=tmp_path, env=tool_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_presets_export(tmp_path):
    assert "\\" not in verilog_files(preset("ECP5_PE"))["accelerator.v"]
