"""The C code of docs/host.md, compiled and run against the Verilog, gives the bits of the golden model."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from compiler.errors import ImageError
from compiler.files import write_files
from compiler.image.c_source import c_source
from compiler.lower.build import build as compiled
from hw.export import verilog_files
from hw.layouts import Error
from hw.params import LANES, Params
from sim import run as engines
from sim.cases import random_input, random_network
from sim.program import chunks, map_values
from sim.rtl.build import _MAKE_VARIABLES, tool_environment

ROOT = Path(__file__).parents[2]
PARAMS = Params(
    pes=2, rows=64, queue_depth=8, weight_words=128, pointer_blocks=64, act_lines=512, output_words=512,
    codebooks=4, descriptors=64, tables=0, elementwise=False,
)  # fmt: skip
SAMPLES = 2
STRICT = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")


SEND_ALL = f"""
void send_all(void);
void send_all(void)
{{
    for (int n = 0; n < {SAMPLES}; n++)
        eie_send_tiles(network_tiles, NETWORK_BEATS);
}}
"""
"""The stream of a run: for main, which does not know the network."""


def guide_code():
    """The C of the guide, in its order."""
    return "\n".join(re.findall(r"```c\n(.*?)```", (ROOT / "docs" / "host.md").read_text(encoding="utf-8"), re.DOTALL))


def network(seed):
    """A network of one output with one streamed layer, of several tiles."""
    for n in range(400):
        rng = np.random.default_rng([seed, n])
        with contextlib.suppress(ImageError):
            image = compiled(random_network(rng, PARAMS), PARAMS)
            streamed = [sum(bool(step.refill) for step in steps) for steps in image.steps]
            small = image.frame * SAMPLES <= PARAMS.act_lines and sum(layer.entries for layer in image.layers) < 6000
            if small and len(image.outputs) == 1 and sum(map(bool, streamed)) == 1 and max(streamed) > 1:
                maps = [image.maps[number] for number in image.inputs]
                x = {m.name: random_input(rng, (m.height, m.width, m.channels), SAMPLES) for m in maps}
                return image, x
    raise AssertionError("no such network in 400 draws")


def c_array(name, numbers):
    return f"static const uint32_t {name}[] = {{{', '.join(f'0x{number:x}u' for number in numbers)}}};"


@pytest.fixture(scope="module")
def played(tmp_path_factory, request):
    """The image, its inputs, and the lines that the program printed, by their first word."""
    folder = tmp_path_factory.mktemp("guide")
    image, x = network(request.config.getoption("seed"))
    (part,) = chunks(image, engines.check_input(image, x)[0])
    output = image.maps[image.outputs[0]]
    lines = part.inputs.astype("<i2").reshape(-1).view("<u4").tolist()
    write_files(folder, verilog_files(PARAMS))
    numbers = {"SAMPLES": SAMPLES, "FRAME": image.frame, "FIRST": output.base, "LINES": output.lines,
               "LINE": PARAMS.groups * LANES // 2, "LAST": image.numbers[-1]}  # fmt: skip
    header = "\n".join(["#include <stdint.h>", *(f"#define {name} {value}u" for name, value in numbers.items()),
                        c_array("frames", lines), ""])  # fmt: skip
    (folder / "network.h").write_text(c_source(image, "network"))
    (folder / "frames.h").write_text(header)
    (folder / "host.c").write_text(guide_code() + SEND_ALL)
    (folder / "main.cpp").write_text((Path(__file__).parent / "guide_main.cpp").read_text())
    subprocess.run(["cc", *STRICT, "-O1", "-c", "host.c", "-o", "host.o"], cwd=folder, check=True)
    command = ["verilator", "-cc", "--exe", "--prefix", "Vtop", "--top-module", "eie_accelerator", "-Mdir", "obj",
               "-Wno-fatal", "--x-initial", "unique", "-CFLAGS", f"-I{folder}", "lint.vlt", "accelerator.v",
               "eie_ram.v", "main.cpp", "../host.o"]  # fmt: skip
    make = ["make", "-C", "obj", "-f", "Vtop.mk", *_MAKE_VARIABLES[:-1], "OPT_FAST=-O1"]
    for step in (command, make):
        done = subprocess.run(step, cwd=folder, env=tool_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    run = subprocess.run([folder / "obj" / "Vtop", "+verilator+rand+reset+2"], capture_output=True, text=True,
                         check=False, timeout=300)  # fmt: skip
    assert run.returncode == 0, run.stdout[-500:] + run.stderr
    return image, x, {name: words for name, *words in (line.split() for line in run.stdout.splitlines())}


def values(image, words):
    """The values of the output in its lines, as the program fetched them."""
    output = image.maps[image.outputs[0]]
    lines = np.array([int(word, 16) for word in words], "<u4").view("<i2").reshape(SAMPLES, output.lines, -1, LANES)
    memory = np.zeros((SAMPLES, image.frame, PARAMS.groups, LANES), np.int16)
    memory[:, output.base : output.base + output.lines] = lines
    return map_values(image, image.outputs[0], memory)


@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.parametrize("name", ["guide", "interrupt", "recovered"])
def test_the_guide_gives_the_golden_bits(played, name):
    image, x, printed = played
    right = engines.run(image, x, engine="golden").values[image.maps[image.outputs[0]].name]
    assert right.any()
    np.testing.assert_array_equal(values(image, printed[name]).reshape(right.shape), right)


@pytest.mark.rtl
@pytest.mark.slow
def test_the_guide_says_what_ended_a_run_and_how_long_it_took(played):
    image, x, printed = played
    assert printed["wrong"] == [str(Error.STREAM.value)]
    records = engines.run(image, x, engine="cycles").records[0]
    assert printed["written"] == [str(records[-1]["written"])]
    assert int(printed["cycles"][0]) >= records[-1]["written"]


def test_the_code_of_the_guide_is_strict_c99(tmp_path):
    write_files(tmp_path, {"eie.h": verilog_files(PARAMS)["eie.h"], "host.c": guide_code()})
    (tmp_path / "network.h").write_text(c_source(network(1)[0], "network"))
    subprocess.run(["cc", *STRICT, "-fsyntax-only", "host.c"], cwd=tmp_path, check=True)


def test_maps_that_stream_are_refused():
    image = network(1)[0]
    maps = (dataclasses.replace(image.maps[0], base=-1), *image.maps[1:])
    with pytest.raises(ImageError, match=f"{maps[0].name} streams through the activation ports, which the host in C"):
        c_source(dataclasses.replace(image, maps=maps), "network")
