"""Run the trials of an experiment in processes, keep each as it is finished, and write the report."""

from __future__ import annotations

import json
import multiprocessing
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol

import torch

from compiler.errors import InputError
from compiler.experiments.base import Env, Experiment, Trial
from compiler.experiments.document import REPORT, write_report
from compiler.journal import Journal
from compiler.parent import end_with_parent
from compiler.train.checkpoint import write_atomic

__all__ = ["REPORT", "TRIALS", "Told", "run_experiment"]

TRIALS = "trials"

_BEAT = 0.5  # seconds between looks at what trials say


class Told(Protocol):
    """Is told that `done` of `total` trials are finished, with a few words on what is going on."""

    def __call__(self, stage: str, done: int, total: int, text: str) -> None:
        """Take note."""


def run_experiment(
    experiment: Experiment,
    out: Path,
    *,
    jobs: int = 1,
    resume: bool = False,
    progress: Told | None = None,
    data_dir: Path | None = None,
    tensorboard: Path | None = None,
) -> dict[str, Any]:
    """Run what is not finished yet; returns the report.

    ``out/report.md`` and ``out/report.json`` hold it too, the latter with the names of the trials only: what each found
    is in ``out/trials``.

    Trials are independent and on one thread each, so `jobs` and interruptions do not change their results, times
    excepted.

    Parameters
    ----------
    jobs : trials at once.
    resume : keep the finished trials that are there, of other seeds (or sparsities, …) of the same recipe as well.
    data_dir : folder with the files of the data set, if not from the cache.
    tensorboard : folder for event files: trials that are through, their seconds, and numbers among their figures.

    ``out/progress.jsonl`` says what is done while it is (`compiler.journal`).

    Raises
    ------
    InputError
        `out` holds trials already and `resume` is not set, or it holds those of other settings.
    EieError
        As the trials do; those that are finished stay.
    """
    tell: Told = progress or (lambda stage, done, total, text: None)
    settings = json.loads(json.dumps(experiment.asdict()))
    folder = out / TRIALS
    if folder.exists() and not resume:
        raise InputError(f"{out} holds an experiment already; continue it with --resume or choose another folder")
    trials = experiment.trials()
    finished = {trial.key: _finished(folder, trial, settings, experiment.listed) for trial in trials}
    results = {key: found for key, found in finished.items() if found is not None}
    missing = [trial for trial in trials if trial.key not in results]
    tell(experiment.name, len(results), len(trials), "")
    with Journal(out, tensorboard) as journal:
        journal.note("begin", kind="experiment", name=experiment.name, total=len(trials), done=sorted(results))
        for key, result in _run_all(experiment, missing, jobs, data_dir, tell, len(results), len(trials)):
            write_atomic(folder / f"{key}.json", json.dumps({"settings": settings, "result": result}).encode())
            results[key] = result
            journal.note("trial", key=key, seconds=result["seconds"])
            numbers = {f"figures/{n}": v for n, v in result["figures"].items() if isinstance(v, int | float)}
            journal.curve({"trials/done": len(results), "trials/seconds": result["seconds"], **numbers}, len(results))
        ordered = {trial.key: results[trial.key] for trial in trials}
        summary = experiment.summarize({key: result["figures"] for key, result in ordered.items()})
        spent = {key: (result["seconds"], result["cpu_seconds"]) for key, result in ordered.items()}
        report = write_report(out, settings, summary, spent)
        journal.note("end", status="finished")
    return {**report, "trials": ordered}


def _finished(folder: Path, trial: Trial, settings: Mapping[str, Any], listed: Sequence[str]) -> dict[str, Any] | None:
    path = folder / f"{trial.key}.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stored, result = content["settings"], content["result"]
        assert isinstance(result["figures"], dict)
        assert isinstance(stored, dict)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise InputError(f"{path} is damaged or is no trial of an experiment; remove it") from error
    # What a trial has of these is in its key; which others there are may change, so that a recipe can be given more.
    changed = ", ".join(
        key for key in {**stored, **settings} if key not in listed and stored.get(key) != settings.get(key)
    )
    if changed:
        raise InputError(f"{path} is a trial with other settings (they differ in {changed}); choose another folder")
    return dict(result)


def _run_all(
    experiment: Experiment, trials: list[Trial], jobs: int, data_dir: Path | None, tell: Told, done: int, total: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and result of each trial as it is finished; the first that fails ends it all."""
    if not trials:
        return
    # Processes that start afresh: a forked one would share torch's threads with this one.
    context = multiprocessing.get_context("spawn")
    said = context.SimpleQueue()
    words: dict[str, str] = {}
    began, fresh = time.monotonic(), 0
    with ProcessPoolExecutor(min(jobs, len(trials)), context, initializer=_begin, initargs=(said,)) as pool:
        running: dict[Future[dict[str, Any]], str] = {
            pool.submit(_trial, experiment, trial, data_dir): trial.key for trial in trials
        }
        try:
            while running:
                ended, _ = wait(running, timeout=_BEAT, return_when=FIRST_COMPLETED)
                # Those that failed come last, so that what was finished beside them is kept.
                for future in sorted(ended, key=lambda future: future.exception() is not None):
                    key = running.pop(future)
                    words.pop(key, None)
                    yield key, future.result()
                    fresh += 1
                while not said.empty():
                    key, word = said.get()
                    if key in running.values():
                        words[key] = f"{key} {word}"
                left = (time.monotonic() - began) / fresh * len(running) / 60 if fresh and running else None
                tell(
                    experiment.name,
                    done + fresh,
                    total,
                    "; ".join(words.values()) + (f"; {left:.0f} min left" if left else ""),
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


_said: Any = None  # in a process that runs trials: takes (key, word)


def _begin(said: Any) -> None:
    """Start a process of trials: it ends when the one that started it does, even if that was killed."""
    global _said
    _said = said
    end_with_parent()


def _trial(experiment: Experiment, trial: Trial, data_dir: Path | None) -> dict[str, Any]:
    """One trial in the process of this call."""
    torch.set_num_threads(1)
    began = time.monotonic(), _cpu_seconds()
    _said.put((trial.key, "starts"))
    figures = experiment.run(trial, Env(data_dir, lambda word: _said.put((trial.key, word))))
    return {
        "figures": figures,
        "seconds": round(time.monotonic() - began[0], 3),
        "cpu_seconds": round(_cpu_seconds() - began[1], 3),
    }


def _cpu_seconds() -> float:
    """Of this process and of those that it started and waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
