"""A sample of the fuzzing campaign, and that a campaign sees what is wrong, goes on where it was, and replays."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from compiler import arrays, plain_tensors
from compiler.coding import wire
from compiler.errors import InputError
from compiler.train import table
from eie.commands.fuzz import fuzz
from sim.fuzz import worker
from sim.fuzz.campaign import campaign, replay, shares, targets
from sim.fuzz.lies import lie_bytes, lie_value
from sim.fuzz.packed import Nets
from sim.fuzz.protobuf import parse, write
from sim.fuzz.target import Target
from sim.fuzz.worker import Runner
from sim.pages.progress import state
from sim.trials import kit
from tests.sim.fuzz_target import Loud, Odd

ROOT = Path(__file__).parents[2]
CASES = {"net": 600, "npy": 500, "npz": 150, "safetensors": 500, "onnx": 60, "recipe": 100, "run": 30, "eiez": 80,
         "eie": 60}  # fmt: skip


@pytest.fixture(scope="module")
def known() -> dict[str, Target]:
    return targets(ROOT / "recipes")


@pytest.fixture(scope="module")
def runner(known: dict[str, Target]):
    made = Runner(known)
    yield made
    made.close()


@pytest.mark.verifies("fuzz-sample")
@pytest.mark.parametrize("name", CASES)
def test_every_case_is_refused_in_words_or_right(runner: Runner, name: str, seed: int) -> None:
    found = runner.chunk(name, seed, 0, CASES[name])
    assert found.failures == []
    assert found.refused + found.accepted == CASES[name]
    # Both happen, or the cases are no good; and they are refused for many reasons.
    assert found.refused > CASES[name] // 4
    assert len(found.reasons) >= 4


@pytest.mark.verifies("fuzz-sample")
def test_all_targets_but_the_array_have_a_sample(known: dict[str, Target]) -> None:
    assert set(known) == {*CASES, "rtl"}


@pytest.mark.verifies("fuzz-processes")
def test_cases_depend_on_seed_and_number_alone(known: dict[str, Target], runner: Runner) -> None:
    again = Runner(targets(ROOT / "recipes"))
    for name in ("eiez", "onnx", "npz"):
        one = [runner.content(name, 3, case) for case in (0, 7, 1)]
        assert one == [again.content(name, 3, case) for case in (0, 7, 1)]
        assert len(set(one)) == 3
    again.close()


def kinds(runner: Runner, name: str, count: int, seed: int = 1) -> set[str]:
    return {failure.kind for failure in runner.chunk(name, seed, 0, count).failures}


@pytest.mark.verifies("fuzz-planted")
def test_planted_faults_of_readers_are_found(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A size that is believed, an error of numpy that is not translated, types that are taken, TOML too long."""
    with monkeypatch.context() as patch:
        byte = wire.Reader.byte
        patch.setattr(wire.Reader, "byte", lambda self, what, high=255: byte(self, what))
        assert "exception" in kinds(runner, "eiez", 150)
    with monkeypatch.context() as patch:
        patch.setattr(arrays, "UNREADABLE", (OSError, EOFError))
        assert kinds(runner, "npy", 200) == {"exception"}
    with monkeypatch.context() as patch:
        patch.setattr(plain_tensors, "_check", lambda path, types: None)
        found = kinds(runner, "safetensors", 400)
        assert found
        assert found <= {"exception", "wrong"}
    with monkeypatch.context() as patch:
        patch.setattr(table, "MOST_BYTES", 1 << 30)
        patch.setattr(worker, "SECONDS", 0.2)
        failure, _ = runner.judge(runner.target("recipe"), b"[a" + b".b" * 50_000 + b"]", Random(1), 1, 0)
        assert failure is not None
        assert failure.kind == "slow"


@pytest.mark.verifies("fuzz-planted")
def test_a_fault_in_what_is_made_of_a_file_is_found(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    from sim.fuzz import packed

    read = packed.read_net

    def other(data: bytes, forms: object) -> object:
        model = read(data, forms)  # type: ignore[arg-type]
        halved = {name: values / 2 for name, values in model.dense.items()}
        return dataclasses.replace(model, dense=halved)

    monkeypatch.setattr(packed, "read_net", other)
    assert kinds(runner, "net", 100) == {"wrong"}


@pytest.mark.verifies("fuzz-processes")
def test_what_goes_wrong_in_a_process_is_a_failure_with_its_file(tmp_path: Path) -> None:
    """Memory, an end of the process, an error that says nothing; all others of the chunk are run."""
    known: dict[str, Target] = {"odd": Odd()}
    told = []
    report = campaign(known, ["odd"], 120, 1, 1, tmp_path, told=told.append)
    found = {failure.kind: failure for failure in report.failures}
    assert set(found) == {"memory", "died", "message", "exception", "wrong"}
    assert report.cases == 120
    assert report.totals["odd"].failed == len(report.failures) == len(told)
    assert not report.passed
    assert "exit code 7" in found["died"].what
    lines = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert {line["case"] for line in lines} == {failure.case for failure in report.failures}
    for line in lines:
        content, _, _ = replay({"odd": Odd(tame=True)}, "odd", 1, line["case"])
        assert (tmp_path / line["file"]).read_bytes() == content
    # The same again finds all of it done; what a kill left of a last line is not believed.
    with (tmp_path / "cases.jsonl").open("a") as stream:
        stream.write('{"target": "odd", "fir')
    before = (tmp_path / "cases.jsonl").read_bytes().count(b"\n")
    again = campaign(known, ["odd"], 120, 1, 1, tmp_path)
    assert (tmp_path / "cases.jsonl").read_bytes().count(b"\n") == before
    assert (tmp_path / "cases.jsonl").read_bytes().endswith(b"}\n")
    assert (again.before, again.cases) == (120, 120)
    assert {failure.case for failure in again.failures} == {failure.case for failure in report.failures}
    with pytest.raises(InputError, match="line 1 is of seed 1; expected 2"):
        campaign(known, ["odd"], 120, 2, 1, tmp_path)
    (run,) = state(tmp_path)["runs"]  # as `eie watch` shows it
    assert (run["kind"], run["name"], run["status"]) == ("fuzz", "seed 1", "failed")
    assert (run["done"], run["total"]) == (120, 120)
    assert run["cases"] == {"refused": 120 - len(told), "failed": len(told)}
    assert {each["status"] for each in run["failures"]} == set(found)
    assert f"odd, case {found['died'].case}: {found['died'].what}" in [each["message"] for each in run["failures"]]


@pytest.mark.verifies("fuzz-lines")
def test_only_lines_of_this_campaign_are_believed(tmp_path: Path) -> None:
    """Not those of other sources or seeds, nor what is no line; a line behind half of one is not lost."""
    known: dict[str, Target] = {"odd": Odd(tame=True)}
    lines = tmp_path / "cases.jsonl"
    assert campaign(known, ["odd"], 50, 1, 1, tmp_path).passed
    right = lines.read_text()
    (line,) = [json.loads(text) for text in right.splitlines()]
    assert line["kit"] == kit()
    lines.write_text(right + right[:40])
    assert campaign(known, ["odd"], 100, 1, 1, tmp_path).before == 50
    assert campaign(known, ["odd"], 100, 1, 1, tmp_path).before == 100
    for change, said in (
        ({"kit": "0.1.0+f00"}, r"line 1 is of kit 0\.1\.0\+f00; this is .* choose another folder"),
        ({"kit": None}, "of kit None"), ({"seed": 2}, "of seed 2; expected 1"), ({"seed": "1"}, "seed should be whole"),
        ({"count": 0}, "count should be 1 or more"), ({"seconds": float("nan")}, "seconds should be numbers"),
        ({"failures": [{"case": 1}]}, "its failures should each have case"), ({"target": []}, "target should be text"),
    ):  # fmt: skip
        lines.write_text(json.dumps({**line, **change}) + "\n" + right[:40])
        before = lines.read_bytes()
        with pytest.raises(InputError, match=said):
            campaign(known, ["odd"], 50, 1, 1, tmp_path)
        assert lines.read_bytes() == before


@pytest.mark.verifies("robust-messages")
def test_what_is_printed_of_cases_shows_no_sign_that_a_terminal_obeys(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sim.fuzz.campaign.targets", lambda recipes: {"loud": Loud()})
    for arguments, said in (
        (["--cases", "1", "-o", tmp_path / "all"], "loud case 0: wrong: "), (["loud", "--case", "0"], "FAILED: wrong"),
        (["loud", "--file", tmp_path / "quiet"], "refused: "),
    ):  # fmt: skip
        (tmp_path / "quiet").write_text("quiet")
        monkeypatch.chdir(tmp_path)
        ran = CliRunner().invoke(fuzz, [str(each) for each in arguments])
        assert said in ran.output
        assert "\\x1b]0;x\\x07" in ran.output
        assert "\x1b" not in ran.output


@pytest.mark.verifies("fuzz-processes")
def test_a_case_without_end_is_ended() -> None:
    class Endless(Nets):
        def check(self, path: Path, random: Random) -> None:
            while True:
                try:
                    time.sleep(0)
                except Exception:
                    continue

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "SECONDS", 0.05)
        runner = Runner({"net": Endless()})
        assert kinds(runner, "net", 1) == {"slow"}
        runner.close()


@pytest.mark.verifies("fuzz-lies")
def test_lies_change_one_thing_and_leave_the_rest(rng) -> None:
    random = Random(1)
    value = {"a": [1, 2, {"b": "text", "c": 0.5}], "d": True}
    kept = json.dumps(value)
    made = [lie_value(random, value) for _ in range(300)]
    assert json.dumps(value) == kept
    assert sum(json.dumps(each) != kept for each in made) > 270
    data = rng.bytes(200)
    assert sum(lie_bytes(random, data) != data for _ in range(100)) > 90


@pytest.mark.verifies("fuzz-lies")
def test_messages_come_together_again() -> None:
    for path in sorted((ROOT / "sim" / "fuzz" / "corpus").glob("*.onnx")):
        content = path.read_bytes()
        assert write(parse(content)) == content
        assert any(isinstance(value, list) for _, _, value in parse(content))


@pytest.mark.verifies("fuzz-lies")
def test_shares_leave_no_target_out(known: dict[str, Target]) -> None:
    counts = shares(known, list(known), 1000)
    assert min(counts.values()) >= 1
    assert 900 <= sum(counts.values()) <= 1010
    assert counts["net"] > counts["eie"]
