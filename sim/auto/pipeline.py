"""From a network and a target to what is used: NAME.eie, NAME.eiez, the samples it was timed on, a report."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compiler.claim import claimed
from compiler.coding.container import Coder
from compiler.errors import InputError
from compiler.files import write_file
from compiler.network import Network
from compiler.network_file import load, save
from compiler.train.run import Progress
from sim.auto.report import write_report
from sim.auto.run import ARMS, Arm, Auto, Job
from sim.benchmarks.trained import golden_outputs
from sim.network import run_network
from sim.packed import compress_image

__all__ = ["INPUTS", "Compressed", "check", "compress_auto"]

INPUTS = "inputs.npy"
"""The samples on which cycles and energy were measured."""

_SETTINGS = "auto.json"
_CODER: Coder = "context"


@dataclass(frozen=True)
class Compressed:
    """What came out.

    Attributes
    ----------
    report : as ``report.json`` holds it. met : whether the compiled network is within the target.
    network, packed, inputs : the files.
    """

    report: dict[str, Any]
    met: bool
    network: Path
    packed: Path
    inputs: Path


def compress_auto(
    job: Job,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    data_dir: Path | None = None,
    counted: int = 200,
) -> Compressed:
    """Find densities for a target, train, compile, compare with one density for all layers.

    Parameters
    ----------
    out : folder; trainings are in folders of it, as of `eie train`. resume : go on with the same job,
        or with another target of it, whose trainings begin after the same dense one.
    counted : test samples that the compiled networks classify, by the golden model; 0 for none.

    Raises
    ------
    InputError
        `out` holds another job, or one and `resume` is not set; the target is below what is possible; the recipe has
        not one stage that prunes; or the compiled network does not take the cycles that its cost says.
    EieError
        As training and compiling do.
    """
    began = time.monotonic(), time.process_time()
    tell: Progress = progress or (lambda stage, done, total, text: None)
    with claimed(out):
        _keep_settings(job, out, resume)
        auto = Auto(job, out, tell, data_dir)
        dense = auto.dense()
        limit = job.target.limit(dense.cost)
        arms = [dense, *(auto.arm(name, job.target, limit, f"{job.target.word}-") for name in ARMS)]
        found = arms[-1]
        if found.network is None or found.cost is None:
            raise InputError(
                "the network does not fit the array at any densities that were trained; choose a larger one"
            )
        buffer = io.BytesIO()
        np.save(buffer, auto.subject.lesson.arrange(auto.subject.inputs[: job.samples]), allow_pickle=False)
        write_file(out / INPUTS, buffer.getvalue())
        files, golden = {}, {}
        for arm in arms:
            if arm.network is not None:
                path = out / f"{job.recipe.name}{'' if arm is found else f'-{arm.name}'}.eie"
                save(arm.network, path)
                data, _ = compress_image(path, _CODER)
                files[arm.name] = len(data)
                if counted:
                    golden[arm.name] = _in_integers(arm.name, arm.network, auto, counted, tell)
        write_file(path.with_suffix(".eiez"), data)
        check(path, out / INPUTS, found)
        spent = time.monotonic() - began[0], time.process_time() - began[1]
        report = write_report(job, limit, arms, files, golden, spent, out)
    return Compressed(report, report["figures"]["target"]["met"], path, path.with_suffix(".eiez"), out / INPUTS)


def check(file: Path, inputs: Path, arm: Arm) -> None:
    """Raises `InputError` unless the network in a file takes the cycles that the arm's cost says."""
    network = load(file)
    samples = np.load(inputs, allow_pickle=False)
    assert arm.cost is not None
    ran = run_network(network, {node.name: samples for node in network.graph.inputs}, engine="cycles")
    takes, says = sum(part.cycles or 0 for part in ran.runs), arm.cost.cycles * len(samples)
    if takes != round(says):
        raise InputError(
            f"{file} takes {takes:,} cycles for {len(samples)} samples, and its cost says {says:,.0f}; the sources of "
            "the kit were changed meanwhile: compress anew, in another folder"
        )


def _keep_settings(job: Job, out: Path, resume: bool) -> None:
    settings, path = json.loads(json.dumps(job.asdict())), out / _SETTINGS
    if path.is_file():
        if not resume:
            raise InputError(f"{out} holds a compression already; continue it with --resume or choose another folder")
        try:
            stored = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise InputError(f"{path} is damaged; choose another folder") from None
        changed = [key for key in settings if key != "target" and stored.get(key) != settings[key]]
        if changed:
            raise InputError(
                f"{out} is a compression with other settings (they differ in {', '.join(changed)}); choose another one"
            )
    write_file(path, (json.dumps(settings, indent=2) + "\n").encode())


def _in_integers(name: str, network: Network, auto: Auto, counted: int, tell: Progress) -> float:
    """Share of right answers of the compiled network, by the golden model, on the first test samples."""
    test = auto.subject.dataset.test.take(slice(counted))
    tell(f"{name} in integers", 0, 1, "")
    outputs = golden_outputs(network, auto.subject.lesson.arrange(test.inputs))
    share = float(np.mean(outputs.reshape(len(test), -1).argmax(axis=-1) == test.labels))
    tell(f"{name} in integers", 1, 1, f"{share:.2%} of {len(test):,} test samples right")
    return share
