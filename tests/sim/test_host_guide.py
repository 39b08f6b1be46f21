"""The C code of docs/host.md, compiled and run against the Verilog, gives the bits of the golden model."""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from compiler.errors import ImageError
from compiler.files import write_files
from compiler.graph.ir import Graph
from compiler.graph.operators import make
from compiler.image.c_source import c_source
from compiler.image.rings import off_chip
from compiler.lower.build import build as compiled
from compiler.options import Options
from hw.export import verilog_files
from hw.layouts import Error
from hw.params import LANES, Params
from sim import run as engines
from sim.benchmarks.whole import Builder, compile_whole
from sim.cases import random_input, random_network
from sim.network import to_map
from sim.program import chunks, map_values, outputs_of
from sim.rtl.build import _MAKE_VARIABLES, tool_environment
from sim.streams import BEAT, given_maps

ROOT = Path(__file__).parents[2]
PARAMS = Params(
    pes=2, rows=64, queue_depth=8, weight_words=128, pointer_blocks=64, act_lines=512, output_words=512,
    codebooks=4, descriptors=64, tables=0, elementwise=False,
)  # fmt: skip
SAMPLES = 2
STRICT = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")


SEND_ALL = f"""
void send_all(void);
void stream_all(uint32_t *const *maps);
void send_all(void)
{{
    for (int n = 0; n < {SAMPLES}; n++)
        eie_send_tiles(network_tiles, NETWORK_BEATS);
}}
void stream_all(uint32_t *const *maps)
{{
    eie_stream_maps(network_transfers, NETWORK_TRANSFERS, network_rows, network_maps, maps, {SAMPLES});
}}
"""
"""The streams of a run: for main, which does not know the network."""


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


def pictures(seed):
    """A network of two convolutions whose maps all stream, the one between them as well."""
    of = Builder((3, 20, 18), 0.4, np.random.default_rng(seed))
    last = of.conv("second", of.conv("first", "image", 12, 3, 1, 1), 5, 3, 2)
    graph = Graph((*of.nodes, make("Output", "output", last)))
    made = compile_whole(graph, PARAMS, Options(stream_io=True, judged=False), count=SAMPLES, seed=seed)
    image = made.network.only
    outside = {number for each in off_chip(image) for number in each.reads}
    assert [each.off_chip for each in image.maps] == [True] * 3
    assert len(outside) == 2
    return image, {image.maps[image.inputs[0]].name: to_map(made.x, "CHW")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The Verilog, compiled once, and what does not depend on a network."""
    folder = tmp_path_factory.mktemp("guide")
    write_files(folder, verilog_files(PARAMS))
    (folder / "main.cpp").write_text((Path(__file__).parent / "guide_main.cpp").read_text())
    return folder


def play(folder, image, x):
    """The lines that the program of a network printed, by their first word."""
    (part,) = chunks(image, engines.check_input(image, x)[0])
    output = image.maps[image.outputs[0]]
    lines = part.inputs[image.rings :].astype("<i2").reshape(-1).view("<u4").tolist()
    outside = [number for number, each in enumerate(image.maps) if each.off_chip]
    sizes = [SAMPLES * image.maps[number].lines * PARAMS.groups * LANES // 2 for number in outside]
    given = given_maps(image, part.memory)
    first = given[image.inputs[0]].reshape(-1).view("<u4").tolist() if given else [0]
    numbers = {"SAMPLES": SAMPLES, "FRAME": image.frame, "FIRST": max(0, output.base),
               "LINES": 0 if output.off_chip else output.lines,
               "LINE": PARAMS.groups * LANES // 2, "LAST": image.numbers[-1], "MAPS": len(outside),
               "INPUT_MAP": outside.index(image.inputs[0]) if given else 0,
               "OUTPUT_MAP": outside.index(image.outputs[0]) if output.off_chip else 0}  # fmt: skip
    header = "\n".join(["#include <stdint.h>", *(f"#define {name} {value}u" for name, value in numbers.items()),
                        c_array("frames", lines), c_array("input_map", first), c_array("map_sizes", sizes or [0]),
                        ""])  # fmt: skip
    (folder / "network.h").write_text(c_source(image, "network"))
    (folder / "frames.h").write_text(header)
    (folder / "host.c").write_text(guide_code() + SEND_ALL)
    subprocess.run(["cc", *STRICT, "-O1", "-c", "host.c", "-o", "host.o"], cwd=folder, check=True)
    for old in (folder / "obj").glob("main.*"):  # it includes what is another for each network
        old.unlink()
    command = ["verilator", "-cc", "--exe", "--prefix", "Vtop", "--top-module", "eie_accelerator", "-Mdir", "obj",
               "-Wno-fatal", "--x-initial", "unique", "-CFLAGS", f"-I{folder}", "lint.vlt", "accelerator.v",
               "eie_ram.v", "main.cpp", "../host.o"]  # fmt: skip
    make = ["make", "-C", "obj", "-f", "Vtop.mk", *_MAKE_VARIABLES[:-1], "OPT_FAST=-O1"]
    for step in (make,) if (folder / "obj").exists() else (command, make):
        done = subprocess.run(step, cwd=folder, env=tool_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    run = subprocess.run([folder / "obj" / "Vtop", "+verilator+rand+reset+2"], capture_output=True, text=True,
                         check=False, timeout=300)  # fmt: skip
    assert run.returncode == 0, run.stdout[-500:] + run.stderr
    return {name: words for name, *words in (line.split() for line in run.stdout.splitlines())}


@pytest.fixture(scope="module")
def played(folder, request):
    """A network with a streamed layer: the image, its inputs, and what was printed."""
    image, x = network(request.config.getoption("seed"))
    return image, x, play(folder, image, x)


@pytest.mark.verifies("guide-c-programmers-maps-stream")
@pytest.mark.rtl
@pytest.mark.slow
def test_streamed_maps_come_and_go_by_the_guide(folder, request):
    """Both streams wait at random; a run that is given up leaves nothing in them."""
    image, x = pictures(request.config.getoption("seed"))
    printed = play(folder, image, x)
    name = image.maps[image.outputs[0]].name
    right = engines.run(image, x, engine="golden").values[name]
    assert right.any()
    for run in ("guide", "recovered"):
        beats = np.array([int(word, 16) for word in printed[run]], "<u4").view(np.uint8).reshape(-1, BEAT)
        found = outputs_of(image, SAMPLES, np.zeros((0, PARAMS.groups, LANES), np.int16), {image.outputs[0]: beats})
        np.testing.assert_array_equal(found[name].reshape(right.shape), right)
    assert printed["wrong"] == ["0"]


def values(image, words):
    """The values of the output in its lines, as the program fetched them."""
    output = image.maps[image.outputs[0]]
    lines = np.array([int(word, 16) for word in words], "<u4").view("<i2").reshape(SAMPLES, output.lines, -1, LANES)
    memory = np.zeros((SAMPLES, image.frame, PARAMS.groups, LANES), np.int16)
    memory[:, output.base : output.base + output.lines] = lines
    return map_values(image, image.outputs[0], memory)


@pytest.mark.verifies("guide-c-programmers-code-strict")
@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.parametrize("name", ["guide", "interrupt", "recovered"])
def test_the_guide_gives_the_golden_bits(played, name):
    image, x, printed = played
    right = engines.run(image, x, engine="golden").values[image.maps[image.outputs[0]].name]
    assert right.any()
    np.testing.assert_array_equal(values(image, printed[name]).reshape(right.shape), right)


@pytest.mark.verifies("guide-c-programmers-code-strict")
@pytest.mark.rtl
@pytest.mark.slow
def test_the_guide_says_what_ended_a_run_and_how_long_it_took(played):
    image, x, printed = played
    assert printed["wrong"] == [str(Error.STREAM.value)]
    records = engines.run(image, x, engine="cycles").records[0]
    assert printed["written"] == [str(records[-1]["written"])]
    assert int(printed["cycles"][0]) >= records[-1]["written"]


@pytest.mark.verifies("guide-c-programmers-code-strict")
def test_the_code_of_the_guide_is_strict_c99(tmp_path):
    write_files(tmp_path, {"eie.h": verilog_files(PARAMS)["eie.h"], "host.c": guide_code()})
    (tmp_path / "network.h").write_text(c_source(network(1)[0], "network"))
    subprocess.run(["cc", *STRICT, "-fsyntax-only", "host.c"], cwd=tmp_path, check=True)


@pytest.mark.verifies("guide-c-programmers-maps-stream")
def test_the_header_says_what_streams(tmp_path):
    """Its orders and numbers are those of the image; the code of the guide takes it."""
    image = pictures(1)[0]
    text = c_source(image, "network")
    write_files(tmp_path, {"eie.h": verilog_files(PARAMS)["eie.h"], "host.c": guide_code(), "network.h": text})
    subprocess.run(["cc", *STRICT, "-fsyntax-only", "host.c"], cwd=tmp_path, check=True)
    assert "#define NETWORK_MAPS 3u" in text
    assert "#define NETWORK_OUTPUT_LINES 0u" in text
    (order,) = re.findall(r"network_output_order\[\] = {(.*?)}", text)
    assert [int(lane) for lane in order.split(",")] == image.map_orders[image.outputs[0]].tolist()
