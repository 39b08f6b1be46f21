from __future__ import annotations

import dataclasses
import re
import subprocess
import warnings

import cocotb_tools.config
import numpy as np
import pytest

import hw.activation_queue
from compiler.errors import EieError
from hw.accelerator import TOP_MODULE
from hw.export import export_verilog, verilog_text
from hw.layouts import descriptor, fields
from hw.params import Params, preset
from sim import cycles
from sim import run as engines
from sim.amaranth_engine import run_amaranth
from sim.cases import random_case
from sim.compare import compare
from sim.rtl.build import build, tool_environment
from sim.rtl.engine import run_rtl
from sim.verify import SUITES, run_case, verify

ARRAY = SUITES["rtl"].arrays[0]  # one PE, queue depth 6: the smallest build


@pytest.mark.rtl
@pytest.mark.slow
def test_verilog_equals_golden_and_cycle_model_on_a_sample(seed):
    report = verify("rtl", seed, trials=SUITES["rtl"].sample)
    assert report.failures == []
    assert report.trials == SUITES["rtl"].sample
    assert report.values > 1000
    assert report.records > 20
    assert report.full_queues > 3  # a queue that is never full proves nothing about the room rule
    assert report.saturated > 0


@pytest.mark.rtl
@pytest.mark.slow
def test_cached_builds_do_not_depend_on_the_environment_that_made_them():
    built = build(ARRAY)
    assert str(cocotb_tools.config.libs_dir).encode() not in (built.folder / TOP_MODULE).read_bytes()


@pytest.mark.rtl
@pytest.mark.slow
def test_host_port_gives_the_same(seed):
    report = verify("bus", seed, trials=SUITES["bus"].sample)
    assert report.failures == []
    assert report.values > 100


@pytest.mark.slow
def test_amaranth_equals_golden_and_cycle_model_on_a_sample(seed):
    report = verify("amaranth", seed, trials=SUITES["amaranth"].sample)
    assert report.failures == []
    assert report.values > 500
    assert report.full_queues > 3


@pytest.mark.rtl
def test_verilog_equals_amaranth(seed):
    case = random_case(seed, ARRAY)
    rtl = engines.run(case.image, case.x, engine="rtl")
    amaranth = engines.run(case.image, case.x, engine="amaranth")
    assert rtl.records == amaranth.records
    for a, b in zip(rtl.layer_raw, amaranth.layer_raw, strict=True):
        np.testing.assert_array_equal(a, b)


def faulty(monkeypatch, name, value):
    """Verilog of the small array with a constant of the queue changed."""
    with monkeypatch.context() as patch:
        patch.setattr(hw.activation_queue, name, value)
        return verilog_text(ARRAY)


def run_faulty(seed, mutate, tries=8):
    """What the first differing case on a mutated array says."""
    from sim.rtl.build import build

    built = build(ARRAY, mutate=mutate)
    for n in range(tries):
        case = random_case(seed + n, ARRAY)
        model = engines.run(case.image, case.x, engine="cycles")
        try:
            ran = run_rtl(case.image, case.x, built=built)
        except EieError as error:
            return str(error)
        result = dataclasses.replace(model, engine="rtl", layer_raw=ran.outputs, records=ran.records)
        if what := compare(result, model).explain():
            return what[0]
    return None


@pytest.mark.rtl
def test_fault_no_bypass_is_caught_by_golden(seed):
    what = run_faulty(seed, lambda text: re.sub(r"forward <= [^;1]+;", "forward <= 1'h0;", text))
    assert what
    assert what.startswith("values: ")


@pytest.mark.rtl
def test_fault_room_rule_one_off_is_caught_by_the_cycle_model(seed, monkeypatch):
    text = faulty(monkeypatch, "ROUND_TRIP", 4)
    what = run_faulty(seed, lambda _: text)
    assert what
    assert what.startswith("cycles: ") or "overflow" in what


@pytest.mark.rtl
def test_fault_that_hangs_the_array_is_caught_by_the_watchdog(seed, monkeypatch):
    """With the minimum depth and a rule that wants one place more, no column ever fires."""
    text = faulty(monkeypatch, "ROUND_TRIP", 6)
    what = run_faulty(seed, lambda _: text)
    assert what
    assert "watchdog" in what


def test_fault_room_rule_in_the_model_is_caught_by_the_hardware(monkeypatch):
    """Fails only where a queue fills up, which the sample reaches."""
    monkeypatch.setattr(cycles, "ROUND_TRIP", 4)
    params = Params(pes=2, rows=32, queue_depth=6, weight_words=1024, pointer_blocks=128, act_lines=512,
                    bias_words=512, codebooks=4, descriptors=64)  # fmt: skip
    caught = [what for seed in range(4) if (what := run_case(random_case(seed, params), "amaranth")[0])]
    assert caught
    assert all(what.startswith("cycles: ") for what in caught)


@pytest.mark.parametrize("fault", ["swapped nibble", "lost padding entry", "bias of the neighbour"])
def test_faults_in_the_image_are_caught(seed, fault):
    """The array runs a damaged image; golden knows the right one."""
    params = Params(pes=2, index_bits=4, code_bits=4, rows=64, weight_words=1024, pointer_blocks=128, act_lines=512,
                    bias_words=512, codebooks=4, descriptors=64)  # fmt: skip
    for n in range(20):
        case = random_case(seed * 100 + n, params)
        entries, bias = case.image.entries.copy(), case.image.bias.copy()
        if fault == "bias of the neighbour":
            bias = np.roll(bias, 1, axis=1)
        else:
            found = np.argwhere((entries & 15 == 0) & (entries >> 4 == 15)) if "padding" in fault else \
                np.argwhere((entries >> 4 != entries & 15) & (entries & 15 != 0))  # fmt: skip
            if not len(found):
                continue
            at = tuple(found[len(found) // 2])
            entries[at] = 0 if "padding" in fault else (entries[at] >> 4) | (entries[at] << 4) & 0xFF
        damaged = dataclasses.replace(case.image, entries=entries, bias=bias)
        x = np.full_like(case.x, 77)
        right = engines.run(case.image, x, engine="golden")
        wrong, _ = run_amaranth(damaged, x)  # not through `run`, which decodes first and may refuse
        if any((a != b).any() for a, b in zip(right.layer_raw, wrong, strict=True)):
            return
    pytest.fail(f"{fault}: twenty damaged images gave the right outputs")


FAULTS = {
    # name → (module, assignment, what it becomes while the fault is on)
    "fragment": ("eie_writeback", r"total <= (.*?);", "raw"),
    "fold": (r"\\eie_pe.weight_decode ", r"second <= (.*?);", "~({0})"),
    "drain": (r"\\eie_accelerator.core.control ", r"assign \S+ +?= scanned_2 & (\S+ );", "2'h3"),
    "bank": (r"\\eie_accelerator.core.control ", r"\bbank <= (.*?);", "bank"),
    "tile": (r"\\eie_accelerator.core.scan\S* ", r"assign waiting = (.*?);", "1'h0"),
}
"""Faults of the hardware's newer parts, all in one build: a plusarg turns one of them on."""


def with_faults(text):
    """The Verilog with a switch at each place of `FAULTS`."""
    for name, (module, pattern, wrong) in FAULTS.items():
        begin = re.search(rf"^module {module}", text, re.MULTILINE).start()
        end = text.index("endmodule", begin)
        body = text[begin:end]
        found = re.search(pattern, body)
        right = found[1]
        switched = f'($test$plusargs("fault_{name}") ? {wrong.format(right)} : {right})'
        at = slice(begin + found.start(1), begin + found.end(1))
        text = text[: at.start] + switched + text[at.stop :]
    return text


def first_difference(case, built, fault=None):
    """What the comparison with the models says of a case on the array with a fault."""
    model = engines.run(case.image, case.x, engine="cycles")
    try:
        ran = run_rtl(case.image, case.x, built=built, plusargs=(f"+fault_{fault}",) if fault else ())
    except EieError as error:
        return str(error)
    result = dataclasses.replace(model, engine="rtl", layer_raw=ran.outputs, records=ran.records)
    return next(iter(compare(result, model).explain()), None)


@pytest.mark.rtl
@pytest.mark.slow
def test_faults_of_folds_fragments_banks_and_tiles_are_caught(seed):
    params = SUITES["rtl"].arrays[1]  # two PEs, tiles
    built = build(params, mutate=with_faults)

    def uses(image, fault):
        steps = [step for steps in image.steps for step in steps]
        return {
            "fragment": any(step.fragment_slots for step in steps),
            "fold": any(step.fold for step in steps),
            "tile": sum(step.refill for step in steps) > 2,
        }.get(fault, len(image.layers) > 1)

    caught = {}
    for fault in FAULTS:
        for n in range(100):
            case = random_case(seed * 100 + n, params)
            if uses(case.image, fault) and case.x.any():
                assert first_difference(case, built) is None
                if what := first_difference(case, built, fault):
                    caught[fault] = what
                    break
    assert set(caught) == set(FAULTS)
    assert all(caught[fault].startswith("values: ") for fault in ("fragment", "fold", "drain"))
    # One bank for two layers never becomes free, or mixes their sums; a tile that is scanned too early is another's.
    assert "watchdog" in caught["bank"] or caught["bank"].startswith("values: ")
    assert caught["tile"].startswith(("values: ", "cycles: ")) or "watchdog" in caught["tile"]


def test_a_tile_boundary_off_by_one_is_caught(seed):
    """The array scans a tile with the pointers of the columns one block on; golden knows the right ones."""
    params = Params(pes=2, rows=32, queue_depth=8, weight_words=32, pointer_blocks=12, act_lines=512, bias_words=512,
                    codebooks=4, descriptors=64)  # fmt: skip
    at = next(first for name, first, _ in fields(descriptor(params)) if name == "pointers") // 8
    for n in range(50):
        case = random_case(seed * 100 + n, params)
        steps = [step for steps in case.image.steps for step in steps]
        late = next((number for number, step in enumerate(steps) if step.refill and step.pointer_blocks(params) > 1), 0)
        if not late:
            continue
        descriptors = case.image.descriptors.copy()
        descriptors[late, at] += 1
        x = np.full_like(case.x, 77)
        right = engines.run(case.image, x, engine="golden")
        wrong, _ = run_amaranth(dataclasses.replace(case.image, descriptors=descriptors), x)
        if any((a != b).any() for a, b in zip(right.layer_raw, wrong, strict=True)):
            return
    pytest.fail("no shifted tile gave a wrong output")


@pytest.mark.rtl
@pytest.mark.parametrize("name", ["BALANCED_1", "BALANCED_4", "BALANCED_64", "EIE_64", "ECP5_PE"])
def test_verilog_is_lint_clean_and_emits_one_pe(tmp_path, name):
    params = preset(name)
    export_verilog(params, tmp_path)
    text = (tmp_path / "accelerator.v").read_text()
    assert text.count("module eie_pe(") == 1
    assert len(re.findall(r"eie_pe \S*pe_\d+ \(", text)) == params.pes
    for define in ([], ["+define+EIE_SIMULATION"]):
        command = ["verilator", "--lint-only", "-Wall", *define, "lint.vlt", "accelerator.v", "eie_ram.v", "--top",
                   "eie_accelerator"]  # fmt: skip
        done = subprocess.run(
            command, cwd=tmp_path, env=tool_environment(), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.rtl
def test_c_header_compiles_and_agrees(tmp_path):
    params = preset("BALANCED_4")
    export_verilog(params, tmp_path)
    printing = 'int main(void){printf("%x %x %d", EIE_DATA, EIE_STATUS_ERROR_MASK, EIE_PARAM_PES);}'
    source = '#include <stdio.h>\n#include "eie.h"\n' + printing
    (tmp_path / "main.cpp").write_text(source)
    subprocess.run(["g++", "-Wall", "-Werror", "-x", "c++", "main.cpp", "-o", "main"], cwd=tmp_path, check=True)
    printed = subprocess.run(["./main"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert printed == "2c f0 4"


def test_export_is_deterministic_and_leaves_no_unused_blocks():
    params = preset("BALANCED_4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verilog_text(params) == verilog_text(params)
