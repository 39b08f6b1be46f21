"""``eie compress``, ``decompress``, ``info`` of compressed files, and ``bench compress``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from compiler.coding.container import compress_fixed
from compiler.network_file import load
from compiler.options import preset_options
from eie.commands import bench_compress
from hw.layouts import FORMAT_VERSION
from hw.params import preset
from sim.programs import program_of
from tests.compiler.coding.fixed import chain, parts
from tests.compiler.coding.models import floats, tensor
from tests.compiler.coding.test_formats import assert_equal, of_before

OF_FORMAT_3 = [
    [16178, 11579, -21813, 25901, 26371],
    [15986, 11579, -21813, 26016, 26561],
    [15794, 11579, -21813, 26784, 27841],
]
FORMATS = Path(__file__).parents[1] / "compiler" / "coding" / "data"


@pytest.fixture
def trained(rng, tmp_path):
    """The values of a pruned, shared network in a safetensors file."""
    state = {"fc1.weight": tensor(rng, "a", (30, 40), 4, 0.1).values, "fc1.bias": floats(rng, 30, 0)}
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    return path


@pytest.mark.verifies("image-comes-out-compressed-file")
@pytest.mark.parametrize("coder", ["huffman", "context"])
@pytest.mark.parametrize("preset", ["BALANCED_16", "EIE_64"])
def test_an_image_comes_out_again_byte_for_byte(invoke, layer, tmp_path, coder, preset) -> None:
    image, packed, again = tmp_path / "a.eie", tmp_path / "a.eiez", tmp_path / "b.eie"
    result = invoke("compile", layer.npz, "-o", image, "--preset", preset, "--calibrate", layer.inputs)
    assert result.exit_code == 0, result.output
    result = invoke("compress", image, "-o", packed, "--coder", coder, "--json", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "r.json").read_text())
    assert facts["file_bytes"] == packed.stat().st_size < image.stat().st_size
    assert facts["coder"] == coder
    result = invoke("decompress", packed, "-o", again)
    assert result.exit_code == 0, result.output
    assert again.read_bytes() == image.read_bytes()


@pytest.mark.verifies("same-row-fragments-streamed-weights")
def test_split_and_streamed_images_come_out_again(invoke, rng, tmp_path) -> None:
    """Of an array with small memories: row fragments and streamed weights must be made again as they were."""
    weight = rng.integers(-7, 8, (200, 300)) * (rng.random((200, 300)) < 0.2)
    weight[3] = rng.integers(1, 8, 300)
    np.savez(tmp_path / "l.npz", weight=weight.astype(np.float32))
    np.save(tmp_path / "x.npy", rng.integers(1, 2000, (4, 300)).astype(np.int16))
    image, packed, again = tmp_path / "a.eie", tmp_path / "a.eiez", tmp_path / "b.eie"
    result = invoke("compile", tmp_path / "l.npz", "-o", image, "--preset", "BALANCED_4", "--set", "weight_words=128",
                    "--calibrate", tmp_path / "x.npy")  # fmt: skip
    assert result.exit_code == 0, result.output
    about = json.loads(invoke("info", image, "--json").stdout)["layers"][0]
    assert about["streamed"] > 1
    assert invoke("compress", image, "-o", packed).exit_code == 0
    assert invoke("decompress", packed, "-o", again).exit_code == 0
    assert again.read_bytes() == image.read_bytes()


@pytest.mark.parametrize("coder", ["huffman", "context"])
def test_trained_values_come_out_again_bit_for_bit(invoke, trained, tmp_path, coder) -> None:
    packed, again = tmp_path / "m.eiez", tmp_path / "again.safetensors"
    assert invoke("compress", trained, "-o", packed, "--coder", coder).exit_code == 0
    assert invoke("decompress", packed, "-o", again).exit_code == 0
    found, given = load_file(again), load_file(trained)
    assert found.keys() == given.keys()
    for name, values in given.items():
        np.testing.assert_array_equal(found[name].view(np.uint32), values.view(np.uint32))


def test_info_accounts_for_every_bit(invoke, trained, tmp_path) -> None:
    packed = tmp_path / "m.eiez"
    assert invoke("compress", trained, "-o", packed, "--coder", "huffman").exit_code == 0
    facts = json.loads(invoke("info", packed, "--json").stdout)
    assert facts["file_bytes"] == packed.stat().st_size
    assert sum(facts["bits"].values()) == 8 * facts["file_bytes"]
    assert facts["dense_bytes"] == 4 * (30 * 40 + 30)
    assert facts["ratio"] == pytest.approx(facts["dense_bytes"] / facts["file_bytes"])
    weight, bias = facts["tensors"]
    assert weight["gap_bits"] > 0
    assert weight["bits_per_weight"] == pytest.approx(sum(weight["bits"].values()) / 1200)
    assert bias["bits"]["values"] > 0
    text = invoke("info", packed).stdout
    for word in ("Bits by part", "codes", "positions", "codebook", "header", "fc1.weight", "huffman"):
        assert word in text


@pytest.mark.verifies("planted-faults-compress-proves-file")
def test_a_compressor_that_loses_something_writes_nothing(invoke, layer, trained, tmp_path, monkeypatch) -> None:
    """Planted faults: a network whose image differs, and a coder that changes a value."""
    import sim.packed
    from compiler.coding import float_form

    target = tmp_path / "x.eiez"
    made = sim.packed.image_file
    with monkeypatch.context() as patch:
        patch.setattr(sim.packed, "image_file", lambda *network: made(*network)[:-1] + b"?")
        result = invoke("compress", layer.image, "-o", target)
    assert result.exit_code == 2
    assert "gives another file" in result.output
    assert not target.exists()

    write = float_form._write_codebook
    with monkeypatch.context() as patch:
        swap = [0, 2, 1, *range(3, 16)]
        patch.setattr(float_form, "_write_codebook", lambda w, m, book: write(w, m, book[swap[: len(book)]]))
        result = invoke("compress", trained, "-o", target, "--coder", "huffman")
    assert result.exit_code == 2
    assert "not what was compressed" in result.output
    assert not target.exists()


def test_another_kits_image_is_not_passed_off_as_the_same(invoke, layer, tmp_path, monkeypatch) -> None:
    import sim.packed

    packed, target = tmp_path / "x.eiez", tmp_path / "x.eie"
    assert invoke("compress", layer.image, "-o", packed).exit_code == 0
    monkeypatch.setattr(sim.packed, "image_file", lambda *network: b"another")
    result = invoke("decompress", packed, "-o", target)
    assert result.exit_code == 2
    assert "use the version of the kit that compressed it" in result.output
    assert not target.exists()


def test_bad_input_is_one_line_and_leaves_no_file(invoke, trained, tmp_path) -> None:
    target = tmp_path / "x.eiez"
    broken = tmp_path / "broken.eiez"
    assert invoke("compress", trained, "-o", broken).exit_code == 0
    broken.write_bytes(broken.read_bytes()[:-9])
    for arguments, words in (
        (("compress", tmp_path / "none.eie", "-o", target), "none.eie"),
        (("compress", trained, "-o", target, "--layer", "a=3x3"), "--layer belongs to .net files"),
        (("compress", trained, "-o", tmp_path / "no" / "x.eiez"), "does not exist"),
        (("decompress", broken, "-o", target), "damaged"),
        (("decompress", tmp_path / "none.eiez", "-o", target), "cannot be read"),
        (("info", broken), "damaged"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2, result.output
        assert words in result.output
        assert "Traceback" not in result.output
        assert not target.exists()


def test_net_files_go_in_and_out(invoke, trained, tmp_path) -> None:
    net, packed, values = tmp_path / "m.net", tmp_path / "m.eiez", tmp_path / "v.safetensors"
    result = invoke("compress", trained, "-o", net)
    assert result.exit_code == 0, result.output
    assert "--layer fc1=30x40:4" in result.output
    assert invoke("compress", net, "--layer", "fc1=30x40:4", "-o", packed).exit_code == 0
    assert invoke("decompress", net, "--layer", "fc1=30x40:4", "-o", values).exit_code == 0
    for name, given in load_file(trained).items():
        np.testing.assert_array_equal(load_file(values)[name], given)
    for wrong in ((), ("--layer", "fc1=31x40:4"), ("--layer", "fc1=30x40:8")):
        result = invoke("compress", net, *wrong, "-o", tmp_path / "wrong.eiez")
        assert result.exit_code == 2
        assert "m.net: " in result.output
        assert not (tmp_path / "wrong.eiez").exists()


def test_bench_compress_without_nncodec_says_so(invoke, trained, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EIE_CACHE", str(tmp_path / "cache"))
    target = tmp_path / "f.json"
    result = invoke("bench", "compress", trained, "--no-install", "--no-speed", "--json", target)
    assert result.exit_code == 0, result.output
    assert "NNCodec is not available" in result.stderr
    rows = json.loads(target.read_text())["rows"]
    assert [row["coder"] for row in rows] == ["huffman", "context", "NNCodec"]
    assert rows[2]["file_bytes"] is None
    assert rows[0]["smaller_than_nncodec"] is None
    for row in rows[:2]:
        assert row["file_bytes"] == pytest.approx(row["stream_bytes"] + row["side_bytes"])


def test_bench_compress_says_why_a_run_has_no_row_at_equal_error(invoke, trained, monkeypatch) -> None:
    """A folder that holds a network, but is no run of this kit's."""
    from sim.benchmarks import nncodec

    class Fake:
        def compress(self, model):
            return {"bytes": 1000, "settings": {}, "version": "0"}

    monkeypatch.setattr(nncodec, "prepare", lambda progress, install: Fake())
    result = invoke("bench", "compress", trained.parent, "--no-speed", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert len(answer["rows"]) == 3
    (row,) = answer["equal_error"]
    assert row["kit_bytes"] is None
    assert "not written by this kit" in row["note"]
    assert "no comparison at matched accuracy" in result.stderr


@pytest.mark.verifies("nncodec-bench")
def test_bench_compress_counts_all_bytes_beside_nncodec(invoke, trained, monkeypatch) -> None:
    """NNCodec itself takes 1.5 GB; here is one that answers with a size."""
    from sim.benchmarks import nncodec

    class Fake:
        def compress(self, model):
            return {"bytes": 1000, "settings": {}, "version": "0"}

    monkeypatch.setattr(nncodec, "prepare", lambda progress, install: Fake())
    result = invoke("bench", "compress", trained, "--no-speed", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    side = rows[1]["side_bytes"]
    assert rows[2]["file_bytes"] == round(1000 + side)
    assert rows[1]["smaller_than_nncodec"] == pytest.approx(1 - rows[1]["file_bytes"] / (1000 + side))
    assert bench_compress.compress.name == "compress"


@pytest.mark.verifies("files-formats-2-4-kits")
@pytest.mark.parametrize("name", ["EIE_64", "BALANCED_4"])
def test_decompress_packs_it_anew_and_says_so(invoke, name, tmp_path) -> None:
    target = tmp_path / "n.eie"
    result = invoke("decompress", FORMATS / f"format2-fixed-{name}.eiez", "-o", target)
    assert result.exit_code == 0, result.output
    assert f"made by format 2: the image is packed anew for format {FORMAT_VERSION}" in result.stderr
    image = load(target).images[0]
    assert image.options == preset_options(name)
    assert image.params == of_before(name)
    assert_equal(program_of(image), chain(preset(name)))


@pytest.mark.verifies("files-formats-2-4-kits")
def test_a_network_of_format_3_computes_what_it_did(invoke, tmp_path) -> None:
    """Outputs of the kit that wrote the file, by its golden model."""
    target, x, y = tmp_path / "n.eie", tmp_path / "x.npy", tmp_path / "y.npz"
    result = invoke("decompress", FORMATS / "format3-fixed-BALANCED_4.eiez", "-o", target)
    assert result.exit_code == 0, result.output
    assert "made by format 3" in result.stderr
    np.save(x, (np.arange(60).reshape(3, 4, 5) * 500).astype(np.int16))
    result = invoke("run", target, "--input", x, "--output", y, "--engine", "golden")
    assert result.exit_code == 0, result.output
    assert np.load(y)["raw"].tolist() == OF_FORMAT_3


def test_a_file_of_today_is_held_to_its_checksum(invoke, tmp_path) -> None:
    made, options = chain(preset("BALANCED_4")), preset_options("BALANCED_4")
    path = tmp_path / "n.eiez"
    path.write_bytes(compress_fixed(parts(made), made.params, options, 1))
    result = invoke("decompress", path, "-o", tmp_path / "n.eie")
    assert result.exit_code == 2
    assert "use the version of the kit that compressed it" in result.stderr
    assert not (tmp_path / "n.eie").exists()


def test_floats_of_format_2_need_no_note(invoke, tmp_path) -> None:
    result = invoke("decompress", FORMATS / "format2-float.eiez", "-o", tmp_path / "m.safetensors")
    assert result.exit_code == 0, result.output
    assert "anew" not in result.stderr
    assert load_file(tmp_path / "m.safetensors")["fc1.bias"][1] == np.float32(1) / 3
