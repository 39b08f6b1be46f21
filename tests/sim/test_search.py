"""Searches: the same trials whatever is killed and however many processes; paths; ladders; hardware equal to cost."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.claim import claimed
from compiler.errors import InputError, RecipeError, ToolError
from compiler.experiments.policy.agents import AGENTS
from compiler.experiments.policy.problem import Problem
from sim.front import unbeaten
from sim.pages.progress import state
from sim.search import run as running
from sim.search.hardware import check, same
from sim.search.run import ends, folder_of, run_search
from sim.search.spec import Search, load
from sim.search.study import DATABASE, Study, front
from sim.search.trial import Outcome, _Ladder, run_task

pytest.importorskip("torch")
pytest.importorskip("optuna")

ROOT = Path(__file__).parents[2]
RECIPE = """
[search]
sampler = "tpe"
trials = 5
ahead = 2
seed = 3
objectives = ["error", "file"]
preset = "BALANCED_2"
samples = 2

[search.variables]
"stages.dense.learning_rate" = { low = 1e-3, high = 0.1, log = true }
"model.hidden.0" = { low = 4, high = 9 }
"stages.dense.optimizer" = ["adamw", "sgd"]
"array.queue_depth" = [8, 16]

[data]
name = "digits"
samples = 200

[model]
name = "mlp"
hidden = [6]

[[stages]]
kind = "dense"
epochs = 3
batch = 50
learning_rate = 1e-2
"""


def write(folder: Path, text: str = RECIPE, **changes: str) -> Path:
    """A search in a file, lines of [search] changed."""
    lines = text.splitlines()
    for key, value in changes.items():
        lines = [line for line in lines if not line.startswith(f"{key} = ")]
        if value:
            lines.insert(lines.index("[search]") + 1, f"{key} = {value}")
    path = folder / "small.toml"
    path.write_text("\n".join(lines))
    return path


def trials(folder: Path) -> list[Any]:
    """All that a search found, times excepted."""
    report = json.loads((folder / "report.json").read_text())
    return [report["figures"]["search"], report["tables"]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that nothing disturbed."""
    folder = tmp_path_factory.mktemp("plain")
    run_search(load(write(folder)), folder / "out", rtl=0)
    return folder / "out"


@pytest.mark.verifies("search-report")
def test_the_report_follows_from_the_trials(plain: Path) -> None:
    figures = json.loads((plain / "report.json").read_text())["figures"]["search"]
    tried = figures["tried"]
    assert [each["trial"] for each in tried] == list(range(5))
    assert {each["state"] for each in tried} == {"complete"}
    best = [tuple(each["objectives"]) for each in tried if each["front"]]
    beaten = [tuple(each["objectives"]) for each in tried if not each["front"]]
    assert best
    for each in beaten:
        assert any(all(a <= b for a, b in zip(other, each, strict=True)) for other in best)
    kept = sorted(int(path.name) for path in (plain / running.TRIALS).iterdir())
    assert kept == sorted(each["trial"] for each in figures["front"])  # other trainings are removed
    for each in figures["front"]:
        stored = json.loads((plain / running.TRIALS / f"{each['trial']:05d}" / "report.json").read_text())
        accuracy = stored["stages"][-1]["accuracy"]["validation"]
        assert each["figures"]["error"] == pytest.approx(100 * (1 - accuracy))
        assert stored["recipe"]["model"]["hidden"] == [each["values"]["model.hidden.0"]]


@pytest.mark.verifies("search-resume")
def test_optuna_reads_the_file_itself(plain: Path) -> None:
    import optuna

    study = optuna.load_study(study_name="search", storage=f"sqlite:///{plain / DATABASE}")
    assert [trial.values for trial in study.trials] == [
        each["objectives"] for each in json.loads((plain / "report.json").read_text())["figures"]["search"]["tried"]
    ]


@pytest.mark.verifies("search-resume")
def test_more_trials_go_on_from_the_same_ones(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_search(load(write(tmp_path, trials="3")), out, rtl=0)
    for number in range(3):  # a process that is killed may leave those of trials that are beaten
        folder_of(out, number).mkdir(parents=True, exist_ok=True)
    run_search(load(write(tmp_path)), out, rtl=0, resume=True)
    assert trials(out) == trials(plain)
    assert sorted((out / running.TRIALS).iterdir()) == [
        out / path.relative_to(plain) for path in sorted((plain / running.TRIALS).iterdir())
    ]
    (run,) = (each for each in state(out)["runs"] if each["kind"] == "search")
    assert (run["done"], run["total"]) == (5, 5)  # those of the first run are not counted again


@pytest.mark.verifies("search-resume")
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_with_two_processes_it_finds_the_same(plain: Path, tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", write(tmp_path)
    command = [sys.executable, "-m", "eie", "search", str(recipe), "-o", str(out), "--rtl", "0", "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        deadline = time.monotonic() + 500
        journal = out / "progress.jsonl"
        while process.poll() is None and time.monotonic() < deadline:
            if journal.exists() and journal.read_text().count('"trial"') >= 2:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    with closing(Study(load(recipe), out)) as study:
        known = len(study._known)
    assert 2 <= known < 5
    while True:  # workers of the killed process end with it
        try:
            run_search(load(recipe), out, rtl=0, resume=True)
            break
        except InputError as error:
            if "another process" not in str(error):
                raise
            time.sleep(0.1)
    assert trials(out) == trials(plain)


@pytest.mark.verifies("search-resume")
@pytest.mark.parametrize("sampler", ["cmaes", "nsga2", "random"])
def test_every_sampler_proposes_the_same_again(sampler: str, tmp_path: Path) -> None:
    """Objectives are made up here; a study that is read again at any point must go on as the one that was not."""
    text = RECIPE.replace('["error", "file"]', '["error"]') if sampler == "cmaes" else RECIPE
    changes = {} if sampler == "random" else {"population": "4"}
    search = load(write(tmp_path, text, sampler=f'"{sampler}"', trials="14", ahead="3", **changes))

    def go_on(study: Study, until: int) -> None:
        waiting = {each.number: each for each in study.proposals()}
        while waiting and len(study.outcomes) < until:
            each = waiting.pop(len(study.outcomes))
            rate, hidden = each.values["stages.dense.learning_rate"], each.values["model.hidden.0"]
            numbers = (abs(rate - 0.02), float(hidden))[: len(search.objectives)]
            study.tell(Outcome(each.number, each.values, "complete", numbers))
            waiting |= {more.number: more for more in study.proposals()}

    whole = tmp_path / "whole"
    parts = tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    with closing(Study(search, whole)) as study:
        go_on(study, 14)
    for until in (5, 14):
        with closing(Study(search, parts)) as again:
            go_on(again, until)
    assert again.outcomes == study.outcomes
    assert len({each.values["stages.dense.learning_rate"] for each in study.outcomes.values()}) > 4


@pytest.mark.verifies("search-resume")
def test_a_file_that_does_not_fit_is_refused(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(plain, out)
    with pytest.raises(InputError, match="holds a search already; continue it with --resume"):
        run_search(load(write(tmp_path)), out, rtl=0)
    with pytest.raises(InputError, match="other settings \\(they differ in seed\\)"):
        run_search(load(write(tmp_path, seed="4")), out, rtl=0, resume=True)
    with claimed(out), pytest.raises(InputError, match="another process is at work"):
        run_search(load(write(tmp_path)), out, rtl=0, resume=True)
    with sqlite3.connect(out / DATABASE) as database:  # planted: a proposal that Optuna would not make
        database.execute("UPDATE trial_params SET param_value = 0.0123 WHERE trial_id = 2 AND param_name LIKE '%rate'")
    database.close()
    with pytest.raises(InputError, match=r"trial 1 has .*0\.0123"):
        run_search(load(write(tmp_path)), out, rtl=0, resume=True)
    (out / DATABASE).write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match="cannot be used as the file of a search"):
        run_search(load(write(tmp_path)), out, rtl=0, resume=True)


@pytest.mark.verifies("search-recipe")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('"stages.prune.density" = [0.1, 0.2]', "there is no stages.prune.density; expected one of stages.dense.kind"),
        ('"model.hidden" = [3, 4]', "model.hidden is no single value; expected one of model.hidden.0"),
        ('"model.hidden.0.x" = [3, 4]', "model.hidden.0 is 6, a single value"),
        ('"array.pez" = [3, 4]', "there is no array.pez; expected one of array.pes"),
        ('"array.pes" = [2, 3]', "array.pes = 3"),
        ('"stages.dense.learning_rate" = { low = 0.5, high = 0.1 }', "expected low below high"),
        ('"stages.dense.learning_rate" = { low = 0, high = 0.1, log = true }', "with log expected above 0"),
        ('"stages.dense.epochs" = { low = 0, high = 3 }', "stages.dense.epochs = 0"),
        ('"stages.dense.optimizer" = ["adamw"]', "expected two or more different"),
        ('"stages.dense.optimizer" = ["adamw", "adam"]', "stages.dense.optimizer = 'adam'"),
        ("stages.dense.epochs = [1, 2]", "a path of several parts in quotes"),
        ("seed = 3", "search.variables.seed is 3; expected"),
    ],
)
def test_variables_that_are_none_are_refused(line: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(write(tmp_path, RECIPE.replace("[search.variables]", f"[search.variables]\n{line}")
                   .replace('"stages.dense.optimizer" = ["adamw", "sgd"]\n', "")
                   .replace('"stages.dense.learning_rate" = { low = 1e-3, high = 0.1, log = true }\n', "")
                   .replace('"model.hidden.0" = { low = 4, high = 9 }\n', "")))  # fmt: skip
    assert said in str(caught.value)


@pytest.mark.verifies("search-recipe")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objectives": '["error", "speed"]'}, "names speed; expected some of error, cycles"),
        ({"objectives": "[]"}, "objectives is empty"),
        ({"sampler": '"cmaes"'}, "expected one objective"),
        ({"pruner": '"asha"'}, "objectives is ['error'] alone"),
        ({"population": "4"}, "belongs to cmaes and nsga2"),
        ({"sampler": '"grid"'}, "expected one of tpe, cmaes, nsga2, random"),
        ({"trials": ""}, "search.trials is missing"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(write(tmp_path, **changes))
    assert said in str(caught.value)


@pytest.mark.verifies("search-recipe")
@pytest.mark.parametrize("package", ["optuna", "cmaes"])
def test_packages_that_are_missing_are_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = load(write(tmp_path, RECIPE.replace('["error", "file"]', '["error"]'), sampler='"cmaes"'))
    problem = Problem([[1.0, 2.0]], 2.0, lambda policy: 0.0, np.ones((1, 1)))
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    said = rf"needs the package {package}; run: pip install 'eie-kit\[search\]'"
    with pytest.raises(ToolError, match=said):
        run_search(search, tmp_path / "out", rtl=0)
    with pytest.raises(ToolError, match=said):
        AGENTS["cmaes"](problem, 2, 1, 0.0)


@pytest.mark.verifies("search-recipe")
def test_every_search_in_the_repository_is_one() -> None:
    found = [load(path) for path in sorted((ROOT / "recipes" / "search").glob("*.toml"))]
    assert found
    assert all(isinstance(each, Search) for each in found)


@pytest.mark.verifies("search-report")
def test_the_front_is_what_no_other_beats() -> None:
    assert unbeaten([(2, 1), (1, 2), (2, 2), (1, 2), (3, 0)]) == [0, 1, 4]  # of equal ones the first
    assert unbeaten([(2,), (1,), (1,)]) == [1]
    assert unbeaten([]) == []
    many = [tuple(map(float, row)) for row in np.random.default_rng(1).integers(0, 6, (40, 3))]
    kept: list[Outcome] = []  # one after the other, as a search keeps it
    outcomes = [Outcome(number, {}, "complete", point) for number, point in enumerate(many)]
    for outcome in outcomes:
        kept = front([*kept, outcome])
    assert kept == front(outcomes)
    assert sorted(each.number for each in kept) == unbeaten(many)
    assert front([Outcome(0, {}, "failed"), Outcome(1, {}, "pruned")]) == []


def lines(*errors: float) -> list[dict[str, Any]]:
    return [{"validation": 1 - error / 100} for error in errors]


@pytest.mark.verifies("search-ladder")
def test_the_ladder_is_the_published_one() -> None:
    """With reduction 2 a trial goes on from a rung if it is among the better half of those that reached it."""
    from sim.search.trial import Pruned

    rivals = ({"completed_rung_0": 10.0}, {"completed_rung_0": 20.0}, {"completed_rung_0": 30.0})
    good = _Ladder(2, 2, rivals)
    good.climb(lines(90, 15, 14))  # second of four after two epochs
    assert good.reached == {"completed_rung_0": pytest.approx(15.0)}
    bad = _Ladder(2, 2, rivals)
    bad.climb(lines(1))  # no rung yet
    with pytest.raises(Pruned):
        bad.climb(lines(1, 25))
    assert bad.curve == pytest.approx([1.0, 25.0])
    again = _Ladder(2, 2, rivals)  # taken up again one epoch later
    with pytest.raises(Pruned):
        again.climb(lines(1, 25, 3))
    assert (again.curve, again.reached) == (bad.curve, bad.reached)


@pytest.mark.verifies("search-ladder")
def test_trainings_that_go_worse_are_ended(tmp_path: Path) -> None:
    text = RECIPE.replace('["error", "file"]', '["error"]').replace('"array.queue_depth" = [8, 16]\n', "")
    search = load(write(tmp_path, text, pruner='"asha"', reduction="2", trials="8", ahead="1"))
    report = run_search(search, tmp_path / "out", rtl=0)
    tried = report["figures"]["search"]["tried"]
    epochs = {state: {each["epochs"] for each in tried if each["state"] == state} for state in ("complete", "pruned")}
    assert epochs["complete"] == {3}
    assert epochs["pruned"] <= {1, 2}
    assert epochs["pruned"]
    assert sum(each["epochs"] for each in tried) < 8 * 3


@pytest.mark.verifies("search-faults")
def test_a_trial_that_cannot_be_says_why_and_the_search_goes_on(plain: Path, tmp_path: Path) -> None:
    text = RECIPE.replace('["error", "file"]', '["cycles"]').replace(
        "[8, 16]", '[8, 16]\n"array.pointer_blocks" = [2, 512]'
    )
    report = run_search(load(write(tmp_path, text, trials="4", sampler='"random"', seed="2")), tmp_path / "out", rtl=0)
    states = {each["values"]["array.pointer_blocks"]: each for each in report["figures"]["search"]["tried"]}
    assert {key: each["state"] for key, each in states.items()} == {2: "failed", 512: "complete"}
    assert "pointer" in states[2]["message"]


@pytest.mark.verifies("search-faults")
def test_a_trial_whose_worker_dies_is_begun_thrice_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[int] = []

    class Dying(running.Here):  # type: ignore[misc]
        often = 1

        def run(self, shards: Any, careful: bool = False) -> Any:
            while shards:
                shard = shards.popleft()
                if died.count(shard.number) < self.often and shard.number == 1:
                    died.append(shard.number)
                    yield shard, None
                    continue
                for line in run_task(shard):
                    yield shard, [line]

    monkeypatch.setattr(running, "Here", Dying)
    search = load(write(tmp_path, trials="2", ahead="2"))
    run_search(search, tmp_path / "once", rtl=0)
    assert died == [1]
    monkeypatch.setattr(Dying, "often", 9)
    died.clear()
    with pytest.raises(running.WorkerError, match="trial 1 died each of 3 times"):
        run_search(search, tmp_path / "often", rtl=0)


@pytest.mark.verifies("search-hardware")
@pytest.mark.rtl
@pytest.mark.slow
def test_the_best_runs_in_hardware_as_it_was_counted(tmp_path: Path) -> None:
    text = RECIPE.replace('["error", "file"]', '["cycles", "bytes"]')
    search = load(write(tmp_path, text, trials="2"))
    out = tmp_path / "out"
    report = run_search(search, out)
    (found,) = report["figures"]["checked"]
    assert found["rtl_cycles"] == round(found["cycles"] * found["samples"]) > 0
    with closing(Study(search, out)) as study:
        study.proposals()
    outcome = ends(search, front(study.outcomes.values()))[0]
    wrong = dataclasses.replace(outcome, figures={**outcome.figures, "cycles": outcome.figures["cycles"] + 1})
    with pytest.raises(InputError, match=r"its cycles is .* now, and was"):  # planted
        check(search, wrong, folder_of(out, outcome.number))


@pytest.mark.verifies("search-hardware")
def test_planted_cycles_of_the_hardware_are_seen() -> None:
    from sim.cost import Bytes, Cost, Cycles, LayerCost, Picojoules

    cost = Cost((LayerCost("a", Cycles(10.5), Picojoules(3.0), Bytes(7)),), 2, (), "", "")

    class Part:
        cycles = 21

    class Ran:
        runs = (Part(),)

    outcome = Outcome(0, {}, "complete", figures={"cycles": 10.5})
    assert same(outcome, Ran(), cost) == 21  # type: ignore[arg-type]
    Part.cycles = 22
    with pytest.raises(InputError, match="the hardware takes 22 cycles for 2 samples, its cost says 21"):
        same(outcome, Ran(), cost)  # type: ignore[arg-type]
