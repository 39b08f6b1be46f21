"""Experiments: the same results however they are run, nothing taken for finished that is not, and a true report."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from compiler import experiments
from compiler.errors import EieError, InputError, RecipeError
from compiler.experiments.base import Env, Experiment, Summary, SummaryTable, Trial
from compiler.experiments.runner import REPORT, TRIALS, run_experiment
from compiler.journal import JOURNAL
from compiler.train.table import Table
from sim.search.kinds import KINDS


@dataclass(frozen=True, kw_only=True)
class Squares(Experiment):
    """Squares of the seeds; `broken` fails."""

    kind: ClassVar[str] = "squares"
    broken: int = -1

    @classmethod
    def options(cls, table: Table) -> dict[str, Any]:
        return {}

    def trials(self) -> list[Trial]:
        return [Trial(f"seed-{seed}", {"seed": seed}) for seed in self.seeds]

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        env.note("squares")
        if trial.options["seed"] == self.broken:
            raise EieError("three is broken")
        return {"square": trial.options["seed"] ** 2}

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        from matplotlib.figure import Figure

        total = sum(result["square"] for result in results.values())
        table = SummaryTable("Squares", ["key", "square"], [[key, r["square"]] for key, r in results.items()])
        return Summary({"total": total}, [table], [f"Together {total}."], {"empty": Figure()})


SQUARES = Squares(name="squares", seeds=(1, 2, 3, 4))


def figures(report: Mapping[str, Any]) -> dict[str, Any]:
    return {key: report[key] for key in ("figures", "findings", "tables", "experiment")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_experiment(SQUARES, folder)


@pytest.mark.verifies("report-figures-findings-tables-plots")
def test_the_report_holds_figures_findings_tables_and_plots(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, report = whole
    assert report["figures"] == {"total": 30}
    written = json.loads((folder / REPORT).read_text())
    assert written == {**report, "trials": list(report["trials"])}  # what they found is in their own files
    assert set(report["trials"]) == {"seed-1", "seed-2", "seed-3", "seed-4"}
    assert {"torch", "python", "numpy"} <= report["versions"].keys()
    words = (folder / "report.md").read_text()
    assert "- Together 30." in words
    assert "| seed-4 | 16 |" in words
    assert "Seeds 1, 2, 3, 4; 4 trials" in words
    assert (folder / "empty.png").read_bytes().startswith(b"\x89PNG")
    assert b"</svg>" in (folder / "empty.svg").read_bytes()


class Burning(Squares):
    """The second trial of a process burns CPU in one that it starts."""

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        if trial.options["seed"] == 2:
            burn = "import time\nwhile time.process_time() < 0.5: pass"
            subprocess.run([sys.executable, "-c", burn], check=True)
        return {"square": 0}


def test_cpu_seconds_are_those_of_processes_that_a_trial_starts_too(tmp_path: Path) -> None:
    trials = run_experiment(Burning(name="burning", seeds=(1, 2, 3)), tmp_path)["trials"]
    assert trials["seed-2"]["cpu_seconds"] > 0.45
    assert trials["seed-3"]["cpu_seconds"] < 0.4  # not those of the trial before, in the same process


class Unsummed(Squares):
    """Its trials are through, and no report can be made of them."""

    def summarize(self, results: Mapping[str, dict[str, Any]]) -> Summary:
        raise EieError("no sum")


def test_an_experiment_ends_when_its_report_is_written(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    def ends(folder: Path) -> list[str]:
        lines = map(json.loads, (folder / JOURNAL).read_text().splitlines())
        return [line["status"] for line in lines if line["what"] == "end"]

    assert ends(whole[0]) == ["finished"]
    shutil.copytree(whole[0] / TRIALS, tmp_path / TRIALS)
    with pytest.raises(EieError, match="no sum"):
        run_experiment(Unsummed(name="squares", seeds=(1, 2, 3, 4)), tmp_path, resume=True)
    assert ends(tmp_path) == ["failed"]


@pytest.mark.verifies("fails-keeps-finished-resumes-same")
def test_what_fails_keeps_what_is_finished_and_resumes_to_the_same(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(EieError, match="three is broken"):
        run_experiment(Squares(name="squares", seeds=(1, 2, 3, 4), broken=3), tmp_path)
    last = json.loads((tmp_path / JOURNAL).read_text().splitlines()[-1])
    assert (last["what"], last["status"], last["message"]) == ("end", "failed", "EieError: three is broken")
    done = {path.stem for path in (tmp_path / TRIALS).iterdir()}
    assert {"seed-1", "seed-2"} <= done
    assert "seed-3" not in done
    assert not (tmp_path / REPORT).exists()
    # Trials of other settings are not taken for those of this one.
    with pytest.raises(InputError, match="differ in broken"):
        run_experiment(SQUARES, tmp_path, resume=True)
    for path in (tmp_path / TRIALS).iterdir():
        content = json.loads(path.read_text())
        content["settings"]["broken"] = -1
        path.write_text(json.dumps(content))
    told: list[tuple[int, int]] = []
    report = run_experiment(
        SQUARES, tmp_path, resume=True, jobs=2, progress=lambda stage, done, total, text: told.append((done, total))
    )
    assert figures(report) == figures(whole[1])
    begin = next(each for line in reversed((tmp_path / JOURNAL).read_text().splitlines())
                 if (each := json.loads(line))["what"] == "begin")  # fmt: skip
    assert (begin["total"], set(begin["done"])) == (4, done)
    assert told[0] == (len(done), 4)
    assert told[-1] == (4, 4)


@pytest.mark.verifies("experiment-s-recipe-given-more")
def test_more_seeds_keep_the_trials_of_the_first(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    run_experiment(Squares(name="squares", seeds=(4, 1)), tmp_path)
    first = {path: path.read_bytes() for path in (tmp_path / TRIALS).iterdir()}
    report = run_experiment(SQUARES, tmp_path, resume=True)
    assert len(first) == 2
    assert all(path.read_bytes() == kept for path, kept in first.items())
    assert figures(report) == figures(whole[1])


class Listed(Squares):
    """The same, whose trials do not depend on `broken`."""

    listed = ("seeds", "broken")


@pytest.mark.verifies("experiment-s-recipe-given-more")
def test_settings_that_list_trials_may_change(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    shutil.copytree(whole[0], tmp_path / "two")
    report = run_experiment(Listed(name="squares", seeds=(1, 2), broken=9), tmp_path / "two", resume=True)
    assert report["figures"]["total"] == 5
    with pytest.raises(InputError, match="differ in broken"):
        run_experiment(Squares(name="squares", seeds=(1, 2), broken=9), tmp_path / "two", resume=True)


@pytest.mark.verifies("taken-folder-damaged-trial-refused")
def test_a_folder_that_is_taken_and_a_damaged_trial_are_refused(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--resume"):
        run_experiment(SQUARES, whole[0])
    (tmp_path / TRIALS).mkdir()
    for text in ("", "{}", '{"settings": {}, "result": 3}', '{"settings": {}, "result": {"figures": 1}}'):
        (tmp_path / TRIALS / "seed-2.json").write_text(text)
        with pytest.raises(InputError, match=r"seed-2\.json is damaged"):
            run_experiment(SQUARES, tmp_path, resume=True)


@pytest.mark.verifies("planted-fault-trial-left-out")
def test_planted_fault_a_trial_left_out_of_the_summary_is_caught(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Squares, "trials", lambda self: [Trial(f"seed-{n}", {"seed": n}) for n in self.seeds[:-1]])
    assert figures(run_experiment(SQUARES, tmp_path)) != figures(whole[1])


GOOD = """
kind = "tradeoff"
seeds = [1, 2]
densities = [0.5]
bits = [2]
both_bits = [2]
prune = { epochs = 1, learning_rate = 0.01 }
share = { epochs = 1, learning_rate = 0.01 }
[[networks]]
name = "mlp"
data = "digits"
model = { name = "mlp", hidden = [8] }
dense = { epochs = 1, learning_rate = 0.01 }
"""


@pytest.mark.verifies("recipes-wrong-named-repository-read")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('kind = "tradeoff"', 'kind = "nothing"'), "kind is 'nothing'"),
        (("seeds = [1, 2]", "seeds = []"), "seeds is empty"),
        (("seeds = [1, 2]", "seeds = [1]\nmore = 3"), "unknown key more"),
        (('name = "mlp"\ndata = "digits"', 'name = "mlp"\ndata = "letters"'), "data is 'letters'"),
        (("densities = [0.5]", "densities = [1.5]"), "densities is"),
        (("prune = { epochs = 1,", "prune = { epochs = 0,"), "prune.epochs is 0"),
        (("seeds", "seeds ="), "not valid TOML"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    path = tmp_path / "one.toml"
    path.write_text(GOOD)
    assert experiments.load(path).name == "one"
    assert change[0] in GOOD
    path.write_text(GOOD.replace(*change, 1))
    with pytest.raises(RecipeError, match=words):
        experiments.load(path)


@pytest.mark.verifies("recipes-wrong-named-repository-read")
def test_every_recipe_in_the_repository_is_read() -> None:
    folder = Path(__file__).parents[3] / "recipes" / "experiments"
    found = [*folder.glob("*.toml"), *(folder / "small").glob("*.toml")]
    everything = {**experiments.KINDS, **KINDS}
    assert {experiments.load(path, KINDS).kind for path in found} == set(everything)
    # What `eie bench train` runs is every kind there is, but the one that kills real processes, which takes minutes.
    small = {experiments.load(path, KINDS).kind for path in folder.glob("small/*.toml")}
    assert small == set(everything) - {"consistency-faults"}


@dataclass(frozen=True, kw_only=True)
class Endless(Squares):
    """A trial that says who it is and then goes on for ever."""

    folder: str

    def run(self, trial: Trial, env: Env) -> dict[str, Any]:
        (Path(self.folder) / "pid").write_text(str(os.getpid()))
        while True:
            time.sleep(0.05)


@pytest.mark.verifies("trials-end-command-killed")
def test_trials_end_with_a_command_that_is_killed(tmp_path: Path) -> None:
    endless = Endless(name="endless", seeds=(1,), folder=str(tmp_path))
    command = multiprocessing.get_context("spawn").Process(target=run_experiment, args=(endless, tmp_path / "out"))
    command.start()
    wait_until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text() != "")
    worker = int((tmp_path / "pid").read_text())
    os.kill(worker, 0)
    command.kill()
    command.join()
    wait_until(lambda: not alive(worker))


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def wait_until(true: Callable[[], bool]) -> None:
    """A minute at most: the watchdog."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "a minute has passed"
        time.sleep(0.05)
