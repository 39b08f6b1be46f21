"""``eie compile``, ``info`` and ``run``: right numbers out, and nothing out of wrong ones in."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest

from compiler.network_file import load as load_network


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)


def expected_raw(layer, exponent: int):
    """saturate(floor(relu(W x + b) / 2**exponent + 1/2)), in integers."""
    total = np.maximum(layer.x.astype(np.int64) @ layer.weight.T + layer.bias, 0)
    assert exponent >= 0
    rounded = (total + ((1 << exponent) >> 1)) >> exponent
    return np.clip(rounded, -32768, 32767)


@pytest.mark.parametrize("engine", ["golden", "cycles"])
def test_run_computes_the_integers_that_the_layer_means(engine, layer, invoke, tmp_path) -> None:
    result = invoke(
        "run", layer.image, "--input", layer.inputs, "--output", tmp_path / "y.npz", "--engine", engine, "--json"
    )
    assert result.exit_code == 0, result.output
    y = load(tmp_path / "y.npz")
    assert y["raw"].dtype == np.int16
    np.testing.assert_array_equal(y["raw"], expected_raw(layer, int(y["exponent"])))
    np.testing.assert_array_equal(y["value"], y["raw"] * 2.0 ** int(y["exponent"]))
    assert len(np.unique(y["raw"])) > 100  # the layer is not trivially zero or saturated
    answer = json.loads(result.stdout)
    assert {"engine", "pes", "batch", "cycles", "drain_cycles", "layers"} <= set(answer)
    assert (answer["engine"], answer["pes"], answer["batch"]) == (engine, 16, 5)
    (only,) = answer["layers"]
    assert only["name"] == "layer"
    if engine == "golden":
        assert answer["cycles"] is None
        assert only["cycles"] is None
        assert only["latency"] is None
    else:
        active = layer.x != 0
        useful = int(sum(np.count_nonzero(layer.weight[:, columns]) for columns in active))
        assert only["counters"]["entries"] - only["counters"]["padding"] == useful
        assert answer["cycles"] == only["cycles"] + answer["drain_cycles"]
        assert answer["cycles"] > useful / 16


def test_python_gives_what_the_command_line_gives(layer, invoke, tmp_path) -> None:
    import eie

    invoke("run", layer.image, "--input", layer.inputs, "--output", tmp_path / "y.npz")
    result = eie.run(layer.image, layer.x, engine="golden")
    np.testing.assert_array_equal(result.raw, load(tmp_path / "y.npz")["raw"])


def test_one_vector_is_a_batch_of_one(layer, invoke, tmp_path) -> None:
    np.save(tmp_path / "one.npy", layer.x[2])
    result = invoke("run", layer.image, "--input", tmp_path / "one.npy", "--output", tmp_path / "y.npz")
    assert result.exit_code == 0, result.output
    y = load(tmp_path / "y.npz")
    np.testing.assert_array_equal(y["raw"], expected_raw(layer, int(y["exponent"]))[2:3])


def test_float_inputs_are_quantized_and_saturation_is_told(layer, invoke, tmp_path) -> None:
    x = layer.x.astype(np.float64) + 0.25
    x[0, :3] = 1e6
    np.save(tmp_path / "x.npy", x)
    result = invoke("run", layer.image, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz")
    assert result.exit_code == 0, result.output
    assert "3 of 3,920 inputs were saturated" in result.stderr
    y = load(tmp_path / "y.npz")
    np.testing.assert_array_equal(y["raw"][1:], expected_raw(layer, int(y["exponent"]))[1:])


def test_trace_holds_every_layer_and_record(layer, invoke, tmp_path) -> None:
    folder = tmp_path / "deep" / "trace"
    result = invoke("run", layer.image, "--input", layer.inputs, "--engine", "cycles", "--trace", folder)
    assert result.exit_code == 0, result.output
    trace = json.loads((folder / "trace.json").read_text())
    assert trace["layers"] == ["layer"]
    (records,) = trace["records"]  # of one image
    assert len(records) == 1  # one run of the array takes the batch
    assert records[0][0]["written"] > records[0][0]["accepted"]
    raw = np.load(folder / trace["files"][0])
    np.testing.assert_array_equal(raw, np.asarray(expected_raw(layer, json_exponent(invoke, layer))))


def json_exponent(invoke, layer) -> int:
    return int(json.loads(invoke("info", layer.image, "--json").stdout)["output_exponent"])


def save_text(path: Path) -> None:
    path.write_text("1 2 3\n")


def save_pickle(path: Path) -> None:
    np.save(path, np.array([{"run": "me"}], dtype=object), allow_pickle=True)


def save_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, x=np.zeros((1, 784), np.int16))


def with_nan() -> np.ndarray:
    x = np.zeros((2, 784), np.float32)
    x[1, 7] = np.nan
    return x


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (np.zeros((2, 783), np.int16), ["783", "784"]),
        (np.zeros(783, np.int16), ["783", "784"]),
        (np.zeros((1, 2, 784), np.int16), ["(1, 2, 784)"]),
        (np.zeros((2, 784), np.int64), ["int64", "int16"]),
        (np.zeros((2, 784), np.uint8), ["uint8", "int16"]),
        (np.zeros((2, 784), np.complex64), ["complex64"]),
        (np.zeros((0, 784), np.int16), ["empty", "784"]),
        (np.int16(3), ["()", "784"]),
        (with_nan(), ["NaN"]),
        (np.full((1, 784), np.inf), ["infinite"]),
        (save_text, [".npy"]),
        (save_pickle, [".npy"]),
        (save_archive, ["x.npy", "holds", "input"]),
        (None, ["no such file"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else getattr(value, "__name__", None),
)
def test_bad_inputs_are_refused_whole(make, words, layer, invoke, tmp_path) -> None:
    path = tmp_path / "x.npy"
    if callable(make):
        make(path)
    elif make is not None:
        np.save(path, make)
    (tmp_path / "y.npz").write_bytes(b"an earlier result")
    before = files(tmp_path)
    result = invoke("run", layer.image, "--input", path, "--output", tmp_path / "y.npz", "--json")
    assert result.exit_code == 2, result.output
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert files(tmp_path) == before


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "missing"])
@pytest.mark.parametrize("command", ["info", "run", "diff"])
def test_bad_images_are_refused(command, damage, layer, invoke, tmp_path, rng) -> None:
    content = bytearray(layer.image.read_bytes())
    path = tmp_path / "bad.eie"
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[int(rng.integers(len(content) // 2, len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
    elif damage == "text":
        path.write_text("not an image")
    before = files(tmp_path)
    options = {
        "info": [],
        "run": ["--input", layer.inputs, "--output", tmp_path / "y.npz"],
        "diff": ["--input", layer.inputs, "--engines", "golden,cycles"],
    }
    result = invoke(command, path, *options[command], "--json")
    assert result.exit_code == 2, result.output
    assert "bad.eie" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert files(tmp_path) == before


def test_json_goes_to_a_file_beside_the_words(layer, invoke, tmp_path) -> None:
    result = invoke("info", layer.image, "--json", tmp_path / "info.json")
    assert result.exit_code == 0
    assert "nonzeros" in result.stdout
    answer = json.loads((tmp_path / "info.json").read_text())
    assert answer["outputs"] == 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "IMAGE"],
        ["run", "IMAGE", "--input", "INPUT"],
        ["diff", "IMAGE", "--input", "INPUT", "--engines", "golden,cycles"],
        ["compile", "NPZ", "-o", "out.eie"],
        ["doctor", "--engine", "golden"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_standard_output_is_json_and_nothing_else(arguments, layer, invoke, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"IMAGE": layer.image, "INPUT": layer.inputs, "NPZ": layer.npz}
    result = invoke(*(names.get(word, word) for word in arguments), "--json")
    assert isinstance(json.loads(result.stdout), dict)


def test_json_does_not_overwrite_the_image(layer, invoke, tmp_path) -> None:
    # `--json F` takes the word after it; here that word was meant as the image.
    path = tmp_path / "copy.eie"
    path.write_bytes(layer.image.read_bytes())
    result = invoke("info", "--json", path)
    assert result.exit_code == 2
    assert path.read_bytes() == layer.image.read_bytes()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--waves", "w.vcd"], "--engine rtl"),
        (["--waves", "w.fst", "--engine", "amaranth"], "--engine rtl"),
        (["--output", "nowhere/y.npz"], "nowhere"),
        (["--json", "nowhere/y.json"], "nowhere"),
        (["--engine", "fpga"], "fpga"),
        (["--timeline", "t.json", "--clock", "nan"], "nan is not a finite number"),
        (["--timeline", "t.json", "--clock", "inf"], "--clock"),
        (["--timeline", "t.json", "--clock", "1e-320"], "--clock"),
        (["--engine", "rtl", "--waves", "w.vcd", "--waves-window", "0:10000000000000000"], "below 2^32"),
        (["--engine", "rtl", "--waves", "w.vcd", "--waves-window", "0:4294967296"], "below 2^32"),
        (["--engine", "rtl", "--waves", "w.vcd", "--waves-window", f"0:{'9' * 5000}"], "below 2^32"),
        (["--engine", "rtl", "--waves", "w.vcd", "--waves-depth", "4294967296"], "1000"),
    ],
)
def test_run_refuses_before_it_runs(options, word, layer, invoke, tmp_path, monkeypatch) -> None:
    import sim.run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sim.run, "run", lambda *_, **__: pytest.fail("it ran"))
    result = invoke("run", layer.image, "--input", layer.inputs, *options)
    assert result.exit_code == 2
    assert word in result.stderr
    assert files(tmp_path) == {}


@pytest.mark.verifies("waveforms-hold-levels-cycles")
def test_a_window_is_compared_with_the_longest_run_and_not_with_their_sum(layer, invoke, tmp_path, monkeypatch) -> None:
    import sim.network

    runs = [sim.network.run_network(load_network(layer.image), np.load(layer.inputs)[:count], engine="cycles").runs[0]
            for count in (1, 5)]  # fmt: skip
    one, five = (ran.records[0][-1]["written"] for ran in runs)
    assert one < five
    both = dataclasses.replace(runs[1], records=[*runs[0].records, *runs[1].records], cycles=one + five)
    found = sim.network.run_network(load_network(layer.image), np.load(layer.inputs), engine="cycles")
    monkeypatch.setattr(sim.network, "run_network", lambda *_, **__: dataclasses.replace(found, runs=[both]))
    common = ("run", layer.image, "--input", layer.inputs, "--engine", "rtl", "--waves", tmp_path / "w.vcd")
    for first, empty in ((five - 1, False), (five, True), (one + five - 1, True)):
        result = invoke(*common, "--waves-window", f"{first}:{first + 9}")
        assert result.exit_code == 0, result.output
        assert ("w.vcd is empty: no run lasts until cycle" in result.stderr) == empty


def commands(group: click.Group) -> Iterator[click.Command]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from commands(command) if isinstance(command, click.Group) else [command]


@pytest.mark.verifies("options-finite-numbers")
def test_no_option_takes_a_number_that_is_not_finite() -> None:
    from eie.cli import cli
    from eie.commands.fmax import fmax

    floats = [(command.name, option) for command in (*commands(cli), fmax) for option in command.params
              if isinstance(option.type, type(click.FLOAT))]  # fmt: skip
    assert len(floats) >= 9
    for _, option in floats:
        for given in ("nan", "inf", "-inf"):
            with pytest.raises(click.BadParameter):
                option.type.convert(given, option, None)
    with pytest.raises(AssertionError):  # planted: one of click's own
        assert math.isfinite(click.FloatRange(min=0).convert("nan", None, None))


@pytest.mark.verifies("timeline-equals-records")
def test_a_timeline_is_written_for_a_viewer(layer, invoke, tmp_path) -> None:
    target = tmp_path / "t.json"
    result = invoke("run", layer.image, "--input", layer.inputs, "--timeline", target, "--clock", "500")
    assert result.exit_code == 0, result.output
    assert f"timeline: {target}" in result.stdout
    trace = json.loads(target.read_text())
    cycles = trace["otherData"]["cycles"]
    assert trace["otherData"]["network"] == layer.image.name
    last = max(event["ts"] + event["dur"] for event in trace["traceEvents"] if event["ph"] == "X")
    assert abs(last - cycles / 500) <= 2 / 500, "two nanoseconds a cycle, in microseconds"


def test_info_counts_what_is_there(layer, invoke) -> None:
    answer = json.loads(invoke("info", layer.image, "--json").stdout)
    (only,) = answer["layers"]
    assert only["nonzeros"] == np.count_nonzero(layer.weight)
    assert only["density"] == pytest.approx(np.count_nonzero(layer.weight) / layer.weight.size)
    assert only["exact"] is True
    entries = only["nonzeros"] + only["padding"]
    assert only["bits"]["entries"] == entries * 10
    assert answer["bits"]["entries"] == entries * 10
    assert sum(answer["bits"].values()) == pytest.approx(answer["dense_float32_bits"] / answer["ratio"])
    assert -(-entries // 16) == only["cycles"]["ideal"] <= only["cycles"]["busiest"] < only["cycles"]["model"]
    weight_exponent = only["output_exponent"] - only["input_exponents"][0] - only["shifts"][1]
    largest = int(np.abs(layer.weight).sum(axis=1).max()) << -weight_exponent << 15
    assert largest.bit_length() <= only["bound_bits"] <= only["acc_bits"]
    assert all(memory["used"] <= memory["words"] for memory in answer["memories"])
    assert all(0 < share <= 1 for share in only["break_even"].values())


def test_info_expects_the_cycles_that_a_full_vector_takes(layer, invoke, tmp_path) -> None:
    np.save(tmp_path / "full.npy", np.ones((1, 784), np.int16))
    ran = invoke("run", layer.image, "--input", tmp_path / "full.npy", "--engine", "cycles", "--json")
    expected = json.loads(invoke("info", layer.image, "--json").stdout)["cycles"]["model"]
    assert json.loads(ran.stdout)["layers"][0]["cycles"] == expected


def save_weight(**arrays: object):
    def save(path: Path) -> None:
        np.savez(path, **arrays)  # type: ignore[arg-type]

    return save


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (save_weight(weight=np.zeros(5, np.float32)), ["weight"]),
        (save_weight(weight=np.full((2, 2), np.nan, np.float32)), ["finite"]),
        (save_weight(weight=np.zeros((2, 2)), bias=np.zeros(3)), ["bias"]),
        (save_weight(weight=np.zeros((2, 2)), activation="tanh"), ["tanh", "relu"]),
        (save_text, ["layer.npz"]),
        (None, ["layer.npz", "no such file"]),
    ],
)
def test_bad_layers_are_refused(make, words, invoke, tmp_path) -> None:
    path = tmp_path / "layer.npz"
    if make is not None:
        make(path)
    before = files(tmp_path)
    result = invoke("compile", path, "-o", tmp_path / "layer.eie")
    assert result.exit_code == 2, result.output
    assert all(word in result.stderr for word in words), result.stderr
    assert files(tmp_path) == before


def test_a_layer_larger_than_the_memories_is_streamed_and_says_so(layer, invoke, tmp_path) -> None:
    small = ("--preset", "BALANCED_16", "--set", "weight_words=64", "--set", "pointer_blocks=32")
    result = invoke("compile", layer.npz, "-o", tmp_path / "l.eie", *small, "--calibrate", layer.inputs, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    [told] = facts["layers"]
    assert told["streamed"] > 2
    assert facts["tile_bytes"] % 16 == 0 < facts["tile_bytes"]
    assert told["cycles"]["model"] > told["cycles"]["resident"] >= told["cycles"]["busiest"]
    assert "streamed in for each sample" in result.stderr
    outputs = []
    for image in (layer.image, tmp_path / "l.eie"):
        result = invoke(
            "run", image, "--input", layer.inputs, "--output", tmp_path / "y.npz", "--engine", "cycles", "--json"
        )
        assert result.exit_code == 0, result.output
        outputs.append((np.load(tmp_path / "y.npz")["raw"], json.loads(result.stdout)))
    (raw, resident), (tiled_raw, tiled) = outputs
    np.testing.assert_array_equal(tiled_raw, raw)
    assert tiled["cycles"] > resident["cycles"]
    assert tiled["layers"][0]["counters"]["refill"] > 0 == resident["layers"][0]["counters"]["refill"]


def test_a_network_too_large_names_the_parameter_to_raise(layer, invoke, tmp_path) -> None:
    result = invoke("compile", layer.npz, "-o", tmp_path / "l.eie", "--set", "act_lines=16")
    assert result.exit_code == 2
    assert "--set act_lines=" in result.stderr
    assert files(tmp_path) == {}


@pytest.mark.parametrize("x", [np.zeros((3, 5)), np.full((3, 784), np.nan), np.zeros((0, 784)), np.array(["a"])])
def test_bad_calibration_is_refused(x, layer, invoke, tmp_path) -> None:
    np.save(tmp_path / "c.npy", x)
    result = invoke("compile", layer.npz, "-o", tmp_path / "l.eie", "--calibrate", tmp_path / "c.npy")
    assert result.exit_code == 2, result.output
    assert "calibration" in result.stderr
    assert set(files(tmp_path)) == {"c.npy"}


def test_without_calibration_the_user_is_told(layer, invoke, tmp_path) -> None:
    result = invoke("compile", layer.npz, "-o", tmp_path / "l.eie")
    assert result.exit_code == 0
    assert "no --calibrate" in result.stderr


def test_compiling_twice_gives_the_same_bytes(layer, invoke, tmp_path) -> None:
    result = invoke("compile", layer.npz, "-o", tmp_path / "l.eie", "--calibrate", layer.inputs)
    assert result.exit_code == 0
    assert (tmp_path / "l.eie").read_bytes() == layer.image.read_bytes()


@pytest.mark.parametrize("source", ["nothing", "nothing.txt", "eie"])
def test_an_input_of_no_kind_is_told_the_kinds(source, invoke, tmp_path) -> None:
    result = invoke("compile", source, "-o", tmp_path / "l.eie")
    assert result.exit_code == 2
    assert "RUN/" in result.stderr or "eie train" in result.stderr
    assert files(tmp_path) == {}


@pytest.mark.verifies("missing-files-whole-numbers-inputs")
def test_a_missing_file_and_whole_numbers_are_refused_with_the_remedy(layer, invoke, tmp_path) -> None:
    result = invoke("run", tmp_path / "absent.eie", "--input", layer.inputs)
    assert (result.exit_code, "absent.eie: no such file" in result.stderr) == (2, True)
    result = invoke("run", layer.inputs, "--input", layer.inputs)
    assert (result.exit_code, "expected an .eie file" in result.stderr) == (2, True)
    np.save(tmp_path / "pixels.npy", layer.x.astype(np.uint8))
    result = invoke("run", layer.image, "--input", tmp_path / "pixels.npy")
    assert (result.exit_code, "uint8" in result.stderr, "astype" in result.stderr) == (2, True, True)


def test_part_of_a_byte_counts_as_one(tmp_path, capsys) -> None:
    from eie.compiled import show_compiled
    from eie.output import Output

    facts = {
        "layers": [], "graph": [], "host": [], "tile_bytes": 0, "params": {"acc_bits": 40, "code_bits": 4},
        "bits": {"entries": 12}, "ratio": None, "hash": "0",
    }  # fmt: skip
    show_compiled(Output(None), tmp_path / "n.eie", facts, ())
    assert ": 2 bytes" in capsys.readouterr().out
