"""The whole chain once, on real data: train, compress, compile, simulate the hardware, compare everything."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.errors import InputError

if TYPE_CHECKING:
    from compiler.network import Network
    from compiler.train.run import LoadedRun
    from hw.params import Params
    from sim.clock import Clock
    from sim.demo_report import Results, Samples

__all__ = ["CLASSIFIERS", "NETWORKS", "Subject", "demonstrate"]

RECIPES = Path(__file__).resolve().parents[1] / "recipes"

WAVE_SAMPLES = 2
"""Samples in the waveform: enough to see the write-back of one under the scan of the next."""


@dataclass(frozen=True)
class Subject:
    """A network to show.

    recipe : that trains it.
    samples : held-out samples that the hardware runs if nobody says how many.
    amaranth : samples that Amaranth's own simulator runs at most: some 300 cycles a second with 16 PEs.
    """

    recipe: Path
    samples: int
    amaranth: int


CLASSIFIERS = {name: Subject(RECIPES / f"{name}.toml", 64, 4) for name in ("digits", "mnist")}
"""LeNet-300-100 by the data that it is trained on; on digits with fewer neurons."""

NETWORKS = {
    "lenet5": Subject(RECIPES / "networks" / "small" / "lenet-5.toml", 32, 2),
    "resnet8": Subject(RECIPES / "networks" / "small" / "resnet-8.toml", 16, 1),
    "dscnn": Subject(RECIPES / "networks" / "small" / "ds-cnn.toml", 8, 1),
    "lstm": Subject(RECIPES / "networks" / "small" / "lstm.toml", 64, 4),
}
"""Whole networks: convolutions, branches, depthwise convolutions, recurrent layers."""


def demonstrate(
    name: str,
    params: Params,
    samples: int | None,
    seed: int,
    engine: str,
    folder: Path,
    clock: Clock,
    waves: bool = False,
    mnist_dir: Path | None = None,
) -> dict[str, Any]:
    """Train, compress, compile, simulate and compare a network.

    Parameters
    ----------
    name : of `CLASSIFIERS` or `NETWORKS`.
    params : the array.
    samples : held-out samples to run; None for as many as the network is worth.
    seed : of all that is random.
    engine : "rtl" or "amaranth".
    folder : gets the run, the image, the Verilog and the waveform; made if it is not there.
    clock : says what is going on, and keeps how long each step took.
    waves : write a waveform of the first samples as well (needs "rtl").
    mnist_dir : folder that has the MNIST files.

    Returns
    -------
    dict
        What was found out, as plain data: ``equal`` says that every bit and every cycle is as the models have it,
        ``fixed_point.good`` that fixed point loses no more accuracy than it may.

    Raises
    ------
    EieError
        There is no recipe here, the data are missing, or a tool is.
    """
    from compiler.files import write_files
    from compiler.lower.pipeline import compile_graph
    from compiler.network_file import load, save
    from compiler.source import load as load_source
    from hw.export import verilog_files
    from sim.demo_report import report
    from sim.rtl.exported import array_verilog

    subject = {**CLASSIFIERS, **NETWORKS}[name]
    folder.mkdir(parents=True, exist_ok=True)
    run = _train(subject, seed, folder, mnist_dir, clock)
    network_path = folder / f"{name}.eie"
    with clock.step("compile", f"Compiling for {params.pes} PEs"):
        source = load_source(str(run.folder))
        save(compile_graph(source.graph, params, source.calibration), network_path)
        network = load(network_path)  # the file is what is verified
    with clock.step("verilog", "Writing the Verilog"):
        write_files(folder / "rtl", verilog_files(params, array_verilog(params)))
    picked, left_out = _choose(run, subject, samples, seed, engine)
    if waves and len(network.images) != 1:
        left_out.append(f"no waveform: it shows one image of the array, and this network has {len(network.images)}")
        waves = False
    files = {
        "report": folder / "report.json",
        "run": run.folder,
        "image": network_path,
        "verilog": folder / "rtl",
        "waves": folder / "waves.vcd" if waves else None,
    }
    results = _simulate(network, picked, engine, seed, files["waves"], clock)
    return {
        "name": name,
        "data": run.recipe.dataset,
        "engine": engine,
        "pes": params.pes,
        "seed": seed,
        **report(network, run, picked, results),
        "left_out": left_out,
        "seconds": clock.seconds,
        "files": {name: None if path is None else str(path) for name, path in files.items()},
        "params": params.asdict(),
        "hash": network.identity,
    }


def _train(subject: Subject, seed: int, folder: Path, mnist_dir: Path | None, clock: Clock) -> LoadedRun:
    """The run of the recipe, trained now unless a complete one lies in the folder that its hash names."""
    from compiler.train import recipe as recipes
    from compiler.train.run import load_run, train_recipe

    if not subject.recipe.is_file():
        raise InputError(f"{subject.recipe} does not exist; the demonstration runs in a clone of the repository")
    recipe = recipes.load(subject.recipe).replace(seed=seed)
    target = folder / f"run-{_training_key(recipe.asdict())}"
    done = (target / "report.json").is_file()
    with clock.step("train", f"{'Taking up' if done else 'Training'} {recipe.name}, seed {seed}"):
        with clock.output.stages() as stages:
            train_recipe(recipe, target, resume=True, progress=stages, data_dir=mnist_dir)
        run = load_run(target, mnist_dir)
        _ = run.test  # read now, so that its time and its errors belong to this step
    return run


def _training_key(recipe: dict[str, Any]) -> str:
    """Hash of everything that the trained bits depend on: recipe, training code, libraries, machine."""
    from compiler import train

    code = [path.read_text(encoding="utf-8") for path in sorted(Path(train.__path__[0]).rglob("*.py"))]
    versions = [importlib.metadata.version(name) for name in ("torch", "numpy", "scikit-learn")]
    key = json.dumps([recipe, code, versions, platform.machine(), platform.python_version()], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def _choose(run: LoadedRun, subject: Subject, samples: int | None, seed: int, engine: str) -> tuple[Samples, list[str]]:
    """Samples to run, and what is left out against what was asked for, in words."""
    import numpy as np

    from sim.demo_report import Samples

    held_out, left_out = len(run.test), []
    asked = subject.samples if samples is None else samples
    count = min(asked, held_out)
    if asked > held_out:
        left_out.append(f"{asked} samples were asked for; all {held_out} held-out ones were run")
    if engine == "amaranth":
        if count > subject.amaranth:
            left_out.append(
                f"Amaranth's own simulator is slow: {subject.amaranth} samples were run, "
                f"{count - subject.amaranth} of those asked for were not"
            )
            count = subject.amaranth
        left_out.append("the generated Verilog was not simulated (ENGINE=rtl does, and needs a C++ compiler)")
    chosen = np.sort(np.random.default_rng(seed).permutation(held_out)[:count])
    return Samples(chosen, run.test_inputs, run.test_labels), left_out


def _simulate(network: Network, picked: Samples, engine: str, seed: int, waves: Path | None, clock: Clock) -> Results:
    """Results of the hardware, the golden model and the cycle model on the samples, and of golden on all."""
    from sim.benchmarks.trained import golden_outputs
    from sim.demo_report import Results
    from sim.network import run_network

    x, params = picked.inputs[picked.chosen], network.params
    with (
        clock.step("models", f"Golden model on {len(picked.labels):,} held-out samples, cycle model on {len(x)}"),
        clock.output.progress("samples") as progress,
    ):
        every = golden_outputs(network, picked.inputs, progress)
        golden = run_network(network, x, engine="golden")
        model = run_network(network, x, engine="cycles")
    if engine == "rtl":
        from sim.rtl.build import build

        with clock.step("build", f"Verilator: {params.pes} PEs to a simulator (about a minute the first time)"):
            build(params)
    with (
        clock.step("simulate", f"Simulating {len(x)} samples, {model.cycles or 0:,} cycles ({engine})"),
        clock.output.progress("samples") as progress,
    ):
        hardware = run_network(network, x, engine=engine, seed=seed, progress=progress)
    if waves is not None:
        with clock.step("waves", f"Waveform of the first {min(len(x), WAVE_SAMPLES)} samples (a build of its own)"):
            unfinished = waves.with_name(f".{waves.name}.part")
            run_network(network, x[:WAVE_SAMPLES], engine=engine, seed=seed, waves=unfinished)
            os.replace(unfinished, waves)
    return Results(hardware, golden, model, every)
