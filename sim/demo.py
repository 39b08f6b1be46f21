"""The whole chain once, on real data: train, compress, compile, simulate the hardware, compare everything."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from compiler.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from compiler.image.image import Image
    from compiler.train.run import LoadedRun, Progress
    from hw.params import Params
    from sim.run import Result

__all__ = ["Clock", "Console", "demonstrate"]

RECIPES = Path(__file__).resolve().parents[1] / "recipes"

AMARANTH_SAMPLES = 4
"""Samples that Amaranth's own simulator runs at most: some 300 cycles a second with 16 PEs."""

WAVE_SAMPLES = 2
"""Samples in the waveform: enough to see the write-back of one under the scan of the next."""

FIXED_LOSS = 0.05
"""Points of accuracy on all held-out samples that fixed point may lose against the compressed floats; one sample
where there are so few that it weighs more."""

EIE_MHZ = 800
"""Clock of the published design (EIE, Han et al., ISCA 2016, section V), to compare with its microseconds."""


class Console(Protocol):
    """Where the demonstration says how far it is."""

    def note(self, text: str) -> None:
        """Say a line."""

    def progress(self, title: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show how many of how many are done while the block runs."""

    def stages(self) -> AbstractContextManager[Progress]:
        """Show how far each stage of training is while the block runs."""


@dataclass
class Clock:
    """Says what is going on, and keeps how long each step took (seconds)."""

    output: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, name: str, text: str) -> Iterator[None]:
        """Time one step."""
        self.output.note(f"{text} …")
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 3)


@dataclass(frozen=True)
class Samples:
    """Held-out samples: those that the hardware runs, and all there are.

    chosen : positions of the former among the latter, ascending.
    """

    chosen: NDArray[np.intp]
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]


def demonstrate(
    data: str,
    params: Params,
    samples: int,
    seed: int,
    engine: str,
    folder: Path,
    clock: Clock,
    waves: bool = False,
    mnist_dir: Path | None = None,
) -> dict[str, Any]:
    """Train, compress, compile, simulate and compare a classifier of handwritten digits.

    Parameters
    ----------
    data : "digits" or "mnist", the recipe to train.
    params : the array.
    samples : held-out samples to run.
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

    folder.mkdir(parents=True, exist_ok=True)
    run = _train(data, seed, folder, mnist_dir, clock)
    image_path = folder / f"{data}.eie"
    with clock.step("compile", f"Compiling for {params.pes} PEs"):
        source = load_source(str(run.folder))
        save(compile_graph(source.graph, params, source.calibration), image_path)
        image = load(image_path).only  # the file is what is verified
    with clock.step("verilog", "Writing the Verilog"):
        write_files(folder / "rtl", verilog_files(params))
    picked, left_out = _choose(run, samples, seed, engine)
    files = {
        "report": folder / "report.json",
        "run": run.folder,
        "image": image_path,
        "verilog": folder / "rtl",
        "waves": folder / "waves.vcd" if waves else None,
    }
    result, golden, model, every = _simulate(image, picked, engine, seed, files["waves"], clock)
    report = _report(image, run, picked, result, golden, model, every)
    return {
        "data": data,
        "engine": engine,
        "pes": params.pes,
        "seed": seed,
        **report,
        "left_out": left_out,
        "seconds": clock.seconds,
        "files": {name: None if path is None else str(path) for name, path in files.items()},
        "params": params.asdict(),
        "hash": image.identity,
    }


def _train(data: str, seed: int, folder: Path, mnist_dir: Path | None, clock: Clock) -> LoadedRun:
    """The run of the recipe, trained now unless a complete one lies in the folder that its hash names."""
    from compiler.train import recipe as recipes
    from compiler.train.run import load_run, train_recipe

    path = RECIPES / f"{data}.toml"
    if not path.is_file():
        raise InputError(f"{path} does not exist; the demonstration runs in a clone of the repository")
    recipe = recipes.load(path).replace(seed=seed)
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


def _choose(run: LoadedRun, samples: int, seed: int, engine: str) -> tuple[Samples, list[str]]:
    """Samples to run, and what is left out against what was asked for, in words."""
    import numpy as np

    held_out, left_out = len(run.test), []
    count = min(samples, held_out)
    if samples > held_out:
        left_out.append(f"{samples} samples were asked for; all {held_out} held-out ones were run")
    if engine == "amaranth":
        if count > AMARANTH_SAMPLES:
            left_out.append(
                f"Amaranth's own simulator is slow: {AMARANTH_SAMPLES} samples were run, "
                f"{count - AMARANTH_SAMPLES} of those asked for were not"
            )
            count = AMARANTH_SAMPLES
        left_out.append("the generated Verilog was not simulated (ENGINE=rtl does, and needs a C++ compiler)")
    chosen = np.sort(np.random.default_rng(seed).permutation(held_out)[:count])
    return Samples(chosen, run.test_inputs, run.test_labels), left_out


def _simulate(
    image: Image, picked: Samples, engine: str, seed: int, waves: Path | None, clock: Clock
) -> tuple[Result, Result, Result, Result]:
    """Results of the hardware, the golden model and the cycle model on the samples, and of golden on all."""
    from sim.run import run

    x = picked.inputs[picked.chosen]
    with clock.step("models", f"Golden model on {len(picked.labels):,} held-out samples, cycle model on {len(x)}"):
        every = run(image, picked.inputs, engine="golden")
        golden = run(image, x, engine="golden")
        model = run(image, x, engine="cycles")
    if engine == "rtl":
        from sim.rtl.build import build

        with clock.step("build", f"Verilator: {image.params.pes} PEs to a simulator (about a minute the first time)"):
            build(image.params)
    with (
        clock.step("simulate", f"Simulating {len(x)} samples ({engine})"),
        clock.output.progress("samples") as progress,
    ):
        result = run(image, x, engine=engine, seed=seed, progress=progress)
    if waves is not None:
        with clock.step("waves", f"Waveform of the first {min(len(x), WAVE_SAMPLES)} samples (a build of its own)"):
            unfinished = waves.with_name(f".{waves.name}.part")
            run(image, x[:WAVE_SAMPLES], engine=engine, seed=seed, waves=unfinished)
            os.replace(unfinished, waves)
    return result, golden, model, every


def _report(
    image: Image, run: LoadedRun, picked: Samples, result: Result, golden: Result, model: Result, every: Result
) -> dict[str, Any]:
    """Everything that was found out, as plain data; the summary is made from it."""
    from sim.compare import compare
    from sim.describe import image_bytes

    values, times = compare(result, golden), compare(result, model)
    entries = sum(layer.counters["entries"] for layer in result.layers)
    useful = entries - sum(layer.counters["padding"] for layer in result.layers)
    cycles = result.cycles or 0
    dense_bytes = sum(layer.products + image.maps[layer.result].channels for layer in image.layers) * 4
    stored_bytes = image_bytes(image)
    accuracy = _accuracies(run, picked, result, golden, every)
    loss = 100 * ((accuracy["compressed"]["held_out"] or 0) - (accuracy["golden"]["held_out"] or 0))
    allowed = max(FIXED_LOSS, 100 / len(picked.labels))
    return {
        "fixed_point": {"lost_points": round(loss, 6), "allowed_points": allowed, "good": loss <= allowed + 1e-9},
        "equal": values.first is None and times.equal and values.values > 0 and times.records > 0,
        "batch": len(picked.chosen),
        "held_out": len(picked.labels),
        "accuracy": accuracy,
        "size": {
            "weights": sum(layer.products for layer in image.layers),
            "nonzeros": sum(layer.nonzeros for layer in image.layers),
            "dense_float32_bytes": dense_bytes,
            "stored_bytes": stored_bytes,
            "ratio": dense_bytes / stored_bytes,
        },
        "cycles": {
            "total": cycles,
            "drain": result.drain_cycles,
            "per_inference": cycles / len(picked.chosen),
            "microseconds_at_800_mhz": cycles / len(picked.chosen) / EIE_MHZ,
            "entries": entries,
            "utilization": useful / (image.params.pes * cycles) if cycles else 0.0,
        },
        "layers": result.asdict()["layers"],
        "compared": {"values": values.asdict(), "cycles": times.asdict()},
        "differences": [*values.explain(), *(line for line in times.explain() if line.startswith("cycles"))],
    }


def _accuracies(
    run: LoadedRun, picked: Samples, result: Result, golden: Result, every: Result
) -> dict[str, dict[str, float | None]]:
    """Share of samples classified rightly, on the samples that were run and on all held-out ones."""
    import numpy as np

    from compiler.train import foreign

    def share(outputs: NDArray[Any], labels: NDArray[np.int64]) -> float:
        return float(np.mean(outputs.argmax(axis=1) == labels))

    features = picked.inputs.shape[1]
    labels, chosen = picked.labels, picked.chosen
    rows: dict[str, dict[str, float | None]] = {}
    for name, module in (("dense", run.before_compression()), ("compressed", run.module)):
        outputs = foreign.outputs(module, picked.inputs, (features,))
        rows[name] = {"samples": share(outputs[chosen], labels[chosen]), "held_out": share(outputs, labels)}
    rows["golden"] = {"samples": share(golden.raw, labels[chosen]), "held_out": share(every.raw, labels)}
    rows[result.engine] = {"samples": share(result.raw, labels[chosen]), "held_out": None}
    return rows
