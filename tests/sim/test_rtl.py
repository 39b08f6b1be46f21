from __future__ import annotations

import dataclasses
import re
import subprocess
import warnings

import cocotb_tools.config
import numpy as np
import pytest

from compiler.errors import EieError
from compiler.files import write_files
from hw.accelerator import TOP_MODULE
from hw.export import verilog_files, verilog_text
from hw.layouts import descriptor, fields
from hw.params import preset
from sim import run as engines
from sim.cases import random_case
from sim.compare import compare
from sim.decode import decode
from sim.program import flat
from sim.rtl.build import build, tool_environment
from sim.rtl.engine import run_rtl
from sim.verify import SUITES, run_case, verify
from tests.sim.faults import with_switches

ARRAY = SUITES["rtl"].arrays[0]  # one PE, queue depth 6, parity: the smallest build
SWITCHED = SUITES["rtl"].arrays[1].replace(rows=32)  # two PEs, queue depth 7, tiles; far memories, which have a bypass
LARGEST = SUITES["rtl"].arrays[4]  # of those in the sample: sixteen PEs, entries of two times four bits


@pytest.mark.verifies("verilog-golden-cycles-counters-model")
@pytest.mark.rtl
@pytest.mark.slow
def test_verilog_equals_golden_and_cycle_model_on_a_sample(seed):
    """Five arrays twice; those of 32 and 64 PEs take a minute each to build and run in `eie verify rtl` only."""
    reports = [verify("rtl", each, trials=SUITES["rtl"].sample) for each in (seed, seed + 1)]
    assert [report.failures for report in reports] == [[], []]
    assert [report.trials for report in reports] == [SUITES["rtl"].sample] * 2
    assert sum(report.values for report in reports) > 1000
    assert sum(report.records for report in reports) > 20
    assert sum(report.full_queues for report in reports) > 3  # one that is never full proves nothing about credit
    assert sum(report.starved for report in reports) > 10
    assert sum(report.chained for report in reports) > 3
    assert sum(report.saturated for report in reports) > 0


CORNERS = {
    "full_queues": 8, "starved": 15, "refill_waits": 4, "windows": 8, "maxima": 2, "tiled": 6, "segments": 8,
    "chained": 8, "streamed": 8, "saturated": 10,
}  # fmt: skip
"""What `test_every_corner_is_reached_so_often` must have compared at least: layer records, layers or descriptors, as in
`sim.verify.Report`."""


def promised(case):
    """The corners that a case has, by the cycle model and the descriptors."""
    model = engines.run(case.image, case.x, engine="cycles")
    flat = [record for vector in model.records for record in vector]
    steps = [step for steps in case.image.steps for step in steps]
    has = {
        "full_queues": any(record["blocked"] for record in flat),
        "starved": any(record["starved"] for record in flat),
        "refill_waits": any(record["refill"] for record in flat),
        "saturated": any(record["saturated"] for record in flat),
        "windows": any(step.positions > 1 for step in steps),
        "maxima": any(step.maximum for step in steps),
        "tiled": any(step.tiles > 1 for step in steps),
        "segments": any(len(of) > 1 for of in case.image.steps),
        "chained": any(step.chained for step in steps),
        "streamed": any(step.refill for step in steps),
    }
    assert has.keys() == CORNERS.keys()
    return {name for name, there in has.items() if there}


@pytest.mark.verifies("full-queues-starved-pes-refill")
@pytest.mark.rtl
@pytest.mark.slow
def test_every_corner_is_reached_so_often(seed):
    """Networks in tiles on two arrays; a case runs if the model says that it has most of the corners still missing.

    What is counted comes from the records of the hardware.
    """
    arrays = SUITES["rtl"].arrays[1], SUITES["rtl"].arrays[3]  # 2 and 8 PEs, queues of 7 and 6
    seen = dict.fromkeys(CORNERS, 0)
    trials = 0
    for n in range(400):
        missing = {name for name in CORNERS if seen[name] < CORNERS[name]}
        if not missing:
            break
        case = random_case(seed * 1000 + n, arrays[n % 2])
        if 2 * len(missing & promised(case)) <= len(missing):  # few runs, each with most of what is missing
            continue
        what, counted = run_case(case, "rtl")
        assert what is None, f"seed {case.seed}: {what}"
        seen = {name: seen[name] + counted[name] for name in CORNERS}
        trials += 1
    assert {name: count for name, count in seen.items() if count < CORNERS[name]} == {}, f"{trials} trials"
    assert trials > 3


@pytest.mark.rtl
@pytest.mark.slow
def test_cached_builds_do_not_depend_on_the_environment_that_made_them():
    built = build(ARRAY)
    assert str(cocotb_tools.config.libs_dir).encode() not in (built.folder / TOP_MODULE).read_bytes()


@pytest.mark.verifies("same-word-through-host-port")
@pytest.mark.rtl
@pytest.mark.slow
def test_host_port_gives_the_same(seed):
    report = verify("bus", seed, trials=SUITES["bus"].sample)
    assert report.failures == []
    assert report.values > 100


@pytest.mark.verifies("same-random-arrays-amaranth-s")
@pytest.mark.slow
def test_amaranth_equals_golden_and_cycle_model_on_a_sample(seed):
    report = verify("amaranth", seed, trials=SUITES["amaranth"].sample)
    assert report.failures == []
    assert report.values > 500
    assert report.full_queues > 3


@pytest.mark.verifies("verilog-equals-amaranth-s-simulator")
@pytest.mark.rtl
def test_verilog_equals_amaranth(seed):
    case = random_case(seed, ARRAY)
    rtl = engines.run(case.image, case.x, engine="rtl")
    amaranth = engines.run(case.image, case.x, engine="amaranth")
    assert rtl.records == amaranth.records
    assert compare(rtl, amaranth).equal


FAULTS = {
    # name → (module, assignment, what it becomes while the fault is on, what the network must have, caught by)
    "bypass": ("eie_pe_mac ", r"forward <= (.*?);", "1'h0", "entries", ("values: ",)),
    "credit": ("eie_pe_queue ", r"= level \+ (3'h6);", "3'h5", "full queues", ("cycles: ", "overflow")),
    "hang": ("eie_pe_queue ", r"= level \+ (.*3'h6\));", "4'h8", "entries", ("watchdog",)),
    "fragment": ("eie_writeback", r"total <= (.*?);", "raw", "fragments", ("values: ",)),
    # The end of a tile is seen a cycle early; or its sums are read without waiting for the PEs.
    "early": ("eie_accelerator_core_control_banks ", r"= (scanned_2) &", "scanned_1", "layers", ("cycles: ",)),
    "drain": ("eie_accelerator_core_control_banks ", r"scanned_2\) & (\S+ );", "2'h3", "layers", ("values: ",)),
    # One bank for two layers never becomes free, or mixes their sums.
    "bank": ("eie_accelerator_core_control ", r"\bbank <= (.*?);", "bank", "layers", ("watchdog", "values: ")),
    # A tile that is scanned before it is loaded is another's; so is one that is loaded while the PEs read the last one.
    "tile": ("eie_accelerator_core_scan ", r"assign waiting = (.*?);", "1'h0", "tiles",
             ("values: ", "cycles: ", "watchdog")),
    "buffer": ("eie_accelerator_core_refill ", r"used_up = (.*?);", "scanned_2", "tiles",
               ("values: ", "cycles: ")),
}  # fmt: skip
"""Faults of the hardware, all in one build: a plusarg turns one of them on."""


@pytest.fixture(scope="module")
def switched():
    """The array with all faults, none of them on: two PEs, queues of seven, tiles."""
    return build(SWITCHED, mutate=lambda text: with_switches(text, FAULTS))


def first_difference(case, model, built, fault=None):
    """What the comparison with the models says of a case on the array with a fault."""
    try:
        inputs, layers = engines.check_input(case.image, case.x)[0], decode(case.image)
        ran = run_rtl(case.image, inputs, layers, built=built, plusargs=(f"+fault_{fault}",) if fault else ())
    except EieError as error:
        return str(error)
    result = dataclasses.replace(model, engine="rtl", values=flat(ran.values), records=ran.records)
    return next(iter(compare(result, model).explain()), None)


def caught(seed, built, fault, tries=8):
    """What is said of the first network that shows a fault; each of them runs well without it."""
    needs = FAULTS[fault][3]
    for n in range(400):
        case = random_case(seed * 1000 + n, SWITCHED)
        steps = [step for steps in case.image.steps for step in steps]
        model = engines.run(case.image, case.x, engine="cycles")
        has = {
            "entries": sum(record["entries"] for vector in model.records for record in vector) > 50,
            "full queues": any(record["blocked"] for vector in model.records for record in vector),
            "fragments": any(step.words for step in steps),
            "layers": len(case.image.layers) > 1,
            "tiles": sum(step.refill for step in steps) > 2,
        }
        if not (has[needs] and any(x.any() for x in case.x.values())):
            continue
        assert first_difference(case, model, built) is None
        if what := first_difference(case, model, built, fault):
            return what
        tries -= 1
        if not tries:
            break
    return None


def is_caught(seed, built, fault):
    """The fault is caught by what `FAULTS` says: the kind of difference, or the message of a hang or an assertion."""
    what = caught(seed, built, fault)
    assert what, f"{fault}: nothing differs"
    by = FAULTS[fault][4]
    assert any(what.startswith(one) if one.endswith(": ") else one in what for one in by), what


@pytest.mark.verifies("planted-fault-bypass-verilog-caught")
@pytest.mark.rtl
def test_fault_no_bypass_is_caught_by_golden(seed, switched):
    is_caught(seed, switched, "bypass")


@pytest.mark.verifies("planted-fault-credit-rule-off")
@pytest.mark.rtl
def test_fault_credit_rule_one_off_is_caught_by_the_cycle_model(seed, switched):
    is_caught(seed, switched, "credit")


@pytest.mark.verifies("planted-fault-array-hangs-caught")
@pytest.mark.rtl
def test_fault_that_hangs_the_array_is_caught_by_the_watchdog(seed, switched):
    """A rule that wants one place more than the queue has: no column ever fires."""
    is_caught(seed, switched, "hang")


@pytest.mark.verifies("planted-faults-build-fragment-lost")
@pytest.mark.rtl
@pytest.mark.parametrize("fault", ["fragment", "drain", "early", "bank", "tile", "buffer"])
def test_faults_of_fragments_banks_and_tiles_are_caught(seed, switched, fault):
    is_caught(seed, switched, fault)


@pytest.mark.verifies("planted-faults-swapped-nibble-lost")
@pytest.mark.rtl
@pytest.mark.parametrize("fault", ["swapped nibble", "lost padding entry", "bias of the neighbour"])
def test_faults_in_the_image_are_caught(seed, fault):
    """The array runs a damaged image; golden knows the right one."""
    array = ARRAY if "padding" in fault else LARGEST  # of many PEs each has few rows, and skips none
    for n in range(20):
        case = random_case(seed * 100 + n, array)
        entries, table = case.image.entries.copy(), case.image.table.copy()
        codes, skips = entries & (1 << array.code_bits) - 1, entries >> array.code_bits
        if fault == "bias of the neighbour":
            table[:, :, :4] = np.roll(table, 1, axis=1)[:, :, :4]  # the low bits of the bias
        else:
            found = np.argwhere((codes == 0) & (skips == 15) if "padding" in fault else (skips != codes) & (codes != 0))
            if not len(found):
                continue
            at = tuple(found[len(found) // 2])
            entries[at] = 0 if "padding" in fault else (entries[at] >> 4) | (entries[at] << 4) & 0xFF
        damaged = dataclasses.replace(case.image, entries=entries, table=table)
        if differs(case, damaged):
            assert not differs(case, case.image)
            return
    pytest.fail(f"{fault}: twenty damaged images gave the right outputs")


@pytest.mark.verifies("planted-faults-descriptor-off-pointers")
@pytest.mark.rtl
@pytest.mark.parametrize("fault", ["pointers", "source", "outputs", "window_pitch"])
def test_a_descriptor_off_by_one_is_caught(seed, fault):
    """The last descriptor with one field one more; golden knows the right outputs."""
    for n in range(20):
        case = random_case(seed * 100 + n, LARGEST)
        if fault == "window_pitch" and case.image.steps[-1][-1].wy == 1:
            continue  # nobody asks for a second row
        descriptors = case.image.descriptors.copy()
        first = next(first for name, first, _ in fields(descriptor(LARGEST)) if name == fault)
        word = int.from_bytes(descriptors[-2].tobytes(), "little") + (1 << first)
        descriptors[-2] = np.frombuffer(word.to_bytes(descriptors.shape[1], "little"), np.uint8)
        if differs(case, dataclasses.replace(case.image, descriptors=descriptors)):
            assert not differs(case, case.image)
            return
    pytest.fail(f"{fault}: twenty damaged images gave the right outputs")


def differs(case, damaged):
    """Whether the array gives other values with the damaged image, or none."""
    x = {name: np.full_like(raw, 77) for name, raw in case.x.items()}
    right, inputs = engines.run(case.image, x, engine="golden"), engines.check_input(case.image, x)[0]
    try:  # not through `run`, which decodes first and may refuse
        wrong = flat(run_rtl(damaged, inputs, decode(case.image)).values)
    except EieError:
        return True
    return any((raw != wrong[name]).any() for name, raw in right.values.items())


@pytest.mark.verifies("lint-clean-pe-emitted")
@pytest.mark.rtl
@pytest.mark.parametrize(
    "params",
    [
        preset("BALANCED_1"),
        preset("BALANCED_64").replace(pes=16),
        preset("EIE_64").replace(pes=4),
        preset("ECP5_PE"),
        preset("ECP5_PE").replace(parity=True),
    ],
    ids=["BALANCED_1", "sixteen PEs of BALANCED_64", "four PEs of EIE_64", "ECP5_PE", "ECP5_PE with parity"],
)
def test_verilog_is_lint_clean_and_emits_one_pe(tmp_path, params):
    write_files(tmp_path, verilog_files(params))
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


def test_export_is_deterministic_and_leaves_no_unused_blocks():
    params = preset("BALANCED_4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verilog_text(params) == verilog_text(params)
