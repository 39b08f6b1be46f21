"""Coverage: from counts of Verilator to points of the source, waivers, bins, pages. On a small block, run once."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from compiler.errors import InputError, ToolError
from eie import covering
from eie.commands.verify import verify
from hw.core import PE_MODULE
from hw.export import verilog_text
from hw.pe import ProcessingElement
from hw.platform import _plain_names, convert
from sim import run as engines
from sim.amaranth_engine import run_amaranth
from sim.coverage import bins, page, report, waivers
from sim.coverage.campaign import ALONE, ARRAYS, PLAN
from sim.coverage.disturbed import wild_lengths
from sim.coverage.document import PAGE, document
from sim.coverage.made import (
    MADE,
    apart_case,
    barriers_case,
    held_case,
    lengths_case,
    rows_case,
    shared_case,
    shifts_case,
)
from sim.coverage.points import KINDS, Point, Sources, merge
from sim.decode import decode
from sim.program import flat
from sim.rtl.collect import collecting, keep, note_case, read_cases, read_counts, read_dat
from sim.rtl.covered import left_out, with_bins
from sim.suites import SUITES

SMALL = Path(__file__).parent / "coverage_small"
FILE = "hw/small.py"
LINES = {FILE: [f"text of line {n}" for n in range(1, 30)]}
WAIVED = """
[[waiver]]
file = "hw/small.py"
line = "line 7$"
kind = "toggle"
what = 'word\\[1\\] .*'
reason = "the upper bit is constant zero"
"""


@pytest.fixture(scope="module")
def points():
    names, counts = read_dat(SMALL / "coverage.dat")
    return merge([((SMALL / "accelerator.v").read_text(), names, counts)])


def of(points, line, kind):
    return {point.what: count for point, count in points.items() if (point.line, point.kind) == (line, kind)}


@pytest.mark.verifies("coverage-points-source")
def test_counts_are_those_of_the_source(points):
    assert of(points, 12, "branch") == {"taken": 9}  # else goes on in line 14
    assert of(points, 14, "branch") == {"taken": 3, "else": 13}
    assert of(points, 17, "line") == {"carried out": 13}
    assert of(points, 20, "branch") == {"taken": 9}
    assert of(points, 11, "branch") == {"Mux(go): first": 6, "Mux(go): second": 11}
    assert of(points, 9, "expr")["(go==1 && (! state)==1) => 1"] == 5
    assert of(points, 10, "expr")["(word.first==1) => 1"] == 5  # bits are called by their fields
    assert of(points, 7, "toggle")["word[1] rises"] == 0
    assert of(points, 0, "toggle") == {"out rises": 2, "out falls": 2}  # declared by the library: the interface
    assert of(points, 0, "bin") == {"small-one": 2, "small-two": 0}
    assert not any(point.what.startswith("rst") or point.what.startswith("clk") for point in points)


@pytest.mark.verifies("coverage-merges-sources")
def test_builds_and_runs_add_up_by_source(points, tmp_path):
    text = (SMALL / "accelerator.v").read_text()
    names, counts = read_dat(SMALL / "coverage.dat")
    moved = "// other parameters, other lines\n" + text  # all one line further down
    shifted = [re.sub(r"(?<=\x01l\x02)\d+", lambda found: str(int(found[0]) + 1), name) for name in names]
    twice = merge([(text, names, counts), (moved, shifted, counts)])
    assert {point: 2 * count for point, count in points.items()} == twice

    run, build = tmp_path / "run", tmp_path / "build"
    for folder in (run, build, tmp_path / "raw"):
        folder.mkdir()
    (run / "coverage.dat").write_bytes((SMALL / "coverage.dat").read_bytes())
    (build / "accelerator.v").write_text(text)
    keep(run, build)  # nothing collects
    with collecting(tmp_path / "raw"):
        keep(run, build)
        keep(run, build)
        note_case({"seed": 1, "bins": {"loop": 2}})
    assert merge(read_counts(tmp_path / "raw")) == twice
    assert read_cases(tmp_path / "raw") == [{"seed": 1, "bins": {"loop": 2}}]


@pytest.mark.verifies("coverage-points-source")
@pytest.mark.parametrize(
    ("text", "said"), [(None, "was it built with coverage"), ("rubbish", "begins with"), ("cut", "are no points")]
)
def test_a_file_of_counts_that_is_none_is_refused(tmp_path, text, said):
    file = tmp_path / "coverage.dat"
    if text is not None:
        whole = (SMALL / "coverage.dat").read_text(encoding="latin-1")
        file.write_text(whole[:-20] + "\n" if text == "cut" else text, encoding="latin-1")
    with pytest.raises(ToolError, match=said):
        read_dat(file)


@pytest.mark.verifies("coverage-annotated-verilog")
def test_annotated_verilog_is_the_verilog_and_attributes():
    params = ARRAYS["least"]
    plain = convert(ProcessingElement(params), PE_MODULE)
    annotated = convert(ProcessingElement(params), PE_MODULE, annotated=True)
    assert annotated.count("branches = ") > 30
    bare = re.sub(r"(?m)^ *\(\* (src|branches|top|generator)\b.*\*\)\n", "", annotated)
    bare = re.sub(r"\(\* src = \"[^\"]*\" \*\) ", "", bare)

    def body(text: str) -> list[str]:
        lines = (line for line in text.splitlines() if "Generated" not in line)
        return [re.sub(r"\s+", " ", re.sub(r"\d+", "#", line)).strip() for line in lines]

    found, right = body(_plain_names(bare)), body(plain)
    assert len(found) == len(right)
    assert sum(one != other for one, other in zip(found, right, strict=True)) == 0


@pytest.fixture(scope="module")
def annotated():
    return verilog_text(ARRAYS["whole"], annotated=True)


@pytest.mark.verifies("coverage-bins-fit")
def test_bins_fit_the_hardware_and_lines_come_from_the_source(annotated):
    watches = bins.watched(ARRAYS["whole"])
    text = with_bins(annotated, watches)
    assert text.count("cover property") == len(watches)
    assert "coverage_off" in left_out(text, "eie_accelerator", "accelerator.v")
    assert {params.queue_depth for params in ARRAYS.values()} == set(bins.DEPTHS)
    assert {part.array for part in PLAN} == set(ARRAYS)
    assert {part.kind for part in PLAN} <= {*SUITES, *MADE, *ALONE}
    sources = Sources(text)
    files = {source.partition(":")[0] for source, *_ in sources._arms.values()}
    assert {"hw/control.py", "hw/mac.py", "hw/writeback.py", "hw/window.py", "hw/refill.py"} <= files


@pytest.mark.verifies("coverage-held-queues")
def test_a_queue_that_is_held_up_reaches_every_level():
    case = held_case(1, ARRAYS["tiles"])
    levels = set()

    def watch(core, value):
        levels.add(value(core.pes[0].queue.level))

    run_amaranth(case.image, list(case.x.values()), decode(case.image), watch=watch)
    assert levels == set(range(ARRAYS["tiles"].queue_depth + 1))


@pytest.mark.verifies("coverage-made-cases")
def test_made_cases_have_what_drawn_ones_lack():
    assert bins.traits_of(shared_case(1, ARRAYS["whole"]).image)["segment-inner-uniform"] == 1
    image = shifts_case(1, ARRAYS["whole"]).image
    steps = [step for layer in image.steps for step in layer]
    apart = {step.left_1 - step.right_1 for step in steps} | {step.left_2 - step.right_2 for step in steps}
    assert set(range(-17, 17)) < apart
    assert {int(shift) for layer in decode(image).layers for shift in layer.outputs.shift.flat} == set(range(32))
    made = [apart_case(2, ARRAYS["groups"]), barriers_case(1, ARRAYS["whole"]), rows_case(1, ARRAYS["whole"])]
    traits = Counter(name for case in made for name, count in bins.traits_of(case.image).items() if count)
    lacking = {"only-refill", "first-barrier", "inner-barrier", "inner-stream-in", "inner-stream-out", "inner-ring"}
    lacking |= {f"{place}-{way}" for place in ("first", "inner", "last") for way in ("dense", "maximum")}
    assert {f"segment-{name}" for name in lacking} <= traits.keys()
    assert next(iter(made[1].image.operations.values())).lines > 32


@pytest.mark.verifies("coverage-made-cases")
def test_wild_lengths_say_the_same_of_active_lanes_and_anything_of_others():
    params = ARRAYS["least"]
    case = lengths_case(1_000_003, params)
    bits, size = params.entry_address_bits, params.count_bits

    def columns(image):
        words = [int.from_bytes(word.tobytes(), "little") for word in image.pointers[0]]
        lengths = [[word >> bits + n * size & (1 << size) - 1 for n in range(8)] for word in words]
        before = [[sum(each[:n]) for n in range(8)] for each in lengths]
        starts = (np.array(words)[:, None] + before) % (1 << bits)
        return words, np.array(lengths), starts

    active = case.x["x"].any(axis=0).reshape(-1, 8)
    image = wild_lengths(case.image, case.x["x"], 1_000_003)
    _, lengths, starts = columns(case.image)
    words, wild, moved = columns(image)
    assert (wild == lengths)[active].all()
    assert (moved == starts)[active & (lengths > 0)].all()
    assert (wild != lengths)[~active].mean() > 0.9
    assert wild.max() > params.rows  # more entries than any column has
    for first in range(0, bits + 8 * size - 3, 4):  # each group of four bits has had all of its values
        assert len({word >> first & 15 for word in words}) == 16

    inputs = [case.x["x"][:1]]

    def equal(image):
        made = flat(run_amaranth(image, inputs, decode(case.image))[0])
        right = engines.run(case.image, {"x": inputs[0]}, engine="golden").values
        return all(np.array_equal(right[name], made[name]) for name in right)

    assert equal(image)
    image.pointers[0, :, 0] ^= 1  # planted: columns begin an entry beside their place
    assert not equal(image)


@pytest.mark.verifies("coverage-bins-fit")
def test_planted_a_bin_of_a_signal_that_is_not_there_is_an_error(annotated):
    wrong = replace(bins.watched(ARRAYS["whole"])[0], condition="{no_such_signal}")
    with pytest.raises(ToolError, match=f"bin {wrong.name}: eie_pe.mac has no signal 'no_such_signal'"):
        with_bins(annotated, [wrong])


def reported(points, patterns, found):
    counted = {point: count for point, count in points.items() if point.kind != "bin"}
    return report.CoverageReport(counted, waivers.apply(counted, patterns, LINES), found)


@pytest.mark.verifies("coverage-waivers")
def test_a_point_is_waived_by_the_text_of_its_line(points):
    made = reported(points, waivers.read_waivers(WAIVED, "here"), {"small-one": 2})
    assert [waiver.reason for waiver in made.waiving.of.values()] == ["the upper bit is constant zero"] * 2
    assert made.share("toggle", FILE).waived == 2
    assert made.problems == []
    assert made.share("toggle").percent == 100


@pytest.mark.verifies("coverage-waivers")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("line 7$", "line 8$"), "there is no such point"),
        (("hw/small.py", "hw/gone.py"), "there is no such point"),
        ((r"word\\[1\\] .*", "word.*"), "is reached after all"),
        (('kind = "toggle"', 'kind = "toggle"\nrule = true'), None),
        ((r"word\\[1\\] .*", r"word\\[0\\] .*"), "is reached after all"),
    ],
)
def test_planted_waivers_without_a_match_or_of_what_is_reached_fail(points, change, said):
    text = WAIVED.replace(change[0].replace("\\\\", "\\"), change[1].replace("\\\\", "\\"))
    assert text != WAIVED
    problems = [text for text in reported(points, waivers.read_waivers(text, "here"), {}).problems if "waiver " in text]
    assert bool(problems) == (said is not None)
    assert all(said in problem for problem in problems)


@pytest.mark.verifies("coverage-waivers")
def test_a_rule_that_waives_nothing_fails(points):
    text = WAIVED.replace(r"word\[1\]", r"word\[0\]") + "rule = true\n"
    (problem,) = (text for text in reported(points, waivers.read_waivers(text, "h"), {}).problems if "waiver " in text)
    assert "is reached after all" in problem


@pytest.mark.verifies("coverage-waivers")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[waiver", "here:"),
        ('[[waiver]]\nfile = "a"\nkind = "toggle"\nreason = "none"', "a reason in words"),
        ('[[waiver]]\nfile = "a"\nkind = "lines"\nreason = "it is so"', "kind 'lines'"),
        ('[[waiver]]\nfile = "a"\nkind = "line"\nreason = "it is so"\nnumber = 3', "unknown field 'number'"),
    ],
)
def test_waivers_that_say_too_little_are_refused(text, said):
    with pytest.raises(InputError, match=said):
        waivers.read_waivers(text, "here")


@pytest.mark.verifies("coverage-waivers")
def test_the_lines_of_the_kits_waivers_are_there():
    root = Path(__file__).parents[2]
    sources = [*root.glob("hw/*.py"), *root.glob("hw/rtl/*.v")]
    missing = []
    for waiver in waivers.waivers():
        files = [file for file in sources if waiver.of(file.relative_to(root).as_posix())]
        texts = [line for file in files for line in file.read_text().splitlines()]
        if not files or (waiver.line and not any(re.search(waiver.line, text) for text in texts)):
            missing.append(str(waiver))
    assert missing == []


@pytest.mark.verifies("coverage-bins-empty")
def test_planted_a_bin_that_is_never_reached_is_reported(points):
    counted = [(point.what, count) for point, count in points.items() if point.kind == "bin"]
    full = dict.fromkeys(bins.every_bin(), 1)
    found = {name: count for name, count in bins.bins([*counted, *full.items()]).items()}
    problems = reported(points, waivers.read_waivers(WAIVED, "here"), found).problems
    assert problems == ["bin small-two is empty"]
    del full["shift-31"]
    found = bins.bins(full.items())
    assert reported(points, waivers.read_waivers(WAIVED, "here"), found).empty == ["shift-31"]


@pytest.mark.verifies("coverage-pages")
def test_pages_show_lines_with_their_counts(points, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "source_lines", lambda files: {file: LINES[FILE] for file in files})
    made = reported(points, (), bins.bins([("shift-31", 3)]))
    index = page.write_pages(made, tmp_path / "pages", "one case").read_text()
    assert "one case" in index
    assert "hw-small.py.html" in index
    assert "bin queue-8-8 is empty" in index
    shown = (tmp_path / "pages" / "hw-small.py.html").read_text()
    assert "toggle word[1] rises: 0" in shown
    assert "text of line 24" in shown
    plain = made.asdict()
    assert json.loads(json.dumps(plain))["files"][FILE]["toggle"]["points"] == made.share("toggle", FILE).total
    assert sorted(plain["all"]) == sorted(KINDS)
    assert ["hw/small.py", 7, "toggle", "word[1] rises"] in plain["open"]


@pytest.mark.verifies("coverage-command")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["all"], "name a folder with --coverage"),
        (["all", "--coverage", "d", "--cases", "3"], "--cases means nothing"),
        (["amaranth", "--coverage", "d"], "does not run in Verilator"),
        (["formal", "--coverage", "d"], "--coverage means nothing"),
        (["all", "name", "--coverage", "d"], "names are for the suites formal"),
        (["rtl", "--coverage", "d", "-o", "e", "--resume"], "with --resume only part of the cases"),
        (["rtl", "--coverage", "d", "-o", "d"], "name two folders"),
    ],
)
def test_the_command_refuses(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(verify, arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.verifies("coverage-folder")
def test_only_folders_of_the_kit_are_cleared(tmp_path):
    raw = tmp_path / covering.RAW
    with covering.held(tmp_path), covering.collected(tmp_path):
        note_case({"seed": 1, "bins": {}})
        (raw / "build").mkdir()
        with pytest.raises(InputError, match="another process is at work"), covering.held(tmp_path):
            pass
        assert read_cases(raw)
    with covering.held(tmp_path):
        assert [path.name for path in raw.iterdir()] == [covering.MARK]
    (raw / covering.MARK).unlink()
    (raw / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="was not made by eie verify --coverage; move it"), covering.held(tmp_path):
        pass
    assert (raw / "thesis.txt").read_text() == "mine"
    (tmp_path / "raw").mkdir()  # a name that others use
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / covering.RAW).symlink_to(raw)
    with pytest.raises(InputError, match="is no folder of eie verify"), covering.held(tmp_path / "link"):
        pass
    assert (tmp_path / "raw").is_dir()


@pytest.mark.verifies("coverage-bins-written-down")
def test_the_list_of_bins_in_the_docs_is_that_of_the_kit():
    text = PAGE.read_text(encoding="utf-8")
    assert document(text) == text, "docs/coverage.md is not what `make docs` writes"


@pytest.mark.verifies("coverage-points-source")
def test_points_have_an_order():
    assert sorted([Point("b", 1, "line", ""), Point("a", 2, "line", "")])[0].file == "a"
