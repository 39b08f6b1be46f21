"""Safetensors files of other tools: what widens without loss is read, everything else is named with its type."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from compiler.errors import InputError
from compiler.plain_tensors import read_tensors

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file


@pytest.mark.verifies("float16-bfloat16-widen-exactly-65")
def test_halves_are_widened_exactly_whatever_their_bits(tmp_path: Path) -> None:
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).reshape(256, 256)
    state = {
        "a": bits.view(torch.bfloat16), "b": torch.ones(3), "c": bits.clone().view(torch.float16),
        "d": torch.zeros(2, 0), "e": torch.tensor(1.5, dtype=torch.bfloat16),
    }  # fmt: skip
    save_file(state, tmp_path / "s.safetensors")
    read = read_tensors(tmp_path / "s.safetensors")
    assert set(read) == set(state)
    for name, tensor in state.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], tensor.float().numpy())  # NaN equals NaN here


def test_whole_numbers_stay_what_they_are(tmp_path: Path) -> None:
    state = {**torch.nn.BatchNorm1d(3).state_dict(), "mask": torch.tensor([True, False])}
    save_file(state, tmp_path / "s.safetensors")
    read = read_tensors(tmp_path / "s.safetensors")
    assert read["num_batches_tracked"].dtype == np.int64
    assert read["num_batches_tracked"].shape == ()
    assert read["mask"].tolist() == [True, False]


@pytest.mark.verifies("float16-bfloat16-widen-exactly-65")
def test_what_float32_does_not_hold_is_named_all_at_once(tmp_path: Path) -> None:
    state = {"fc.w": torch.ones(2), "fc.d": torch.ones(2).double(), "fc.q": torch.ones(2).to(torch.float8_e4m3fn)}
    save_file(state, tmp_path / "s.safetensors")
    with pytest.raises(InputError) as caught:
        read_tensors(tmp_path / "s.safetensors")
    assert "fc.d (float64)" in str(caught.value)
    assert "fc.q (F8_E4M3)" in str(caught.value)
    assert "fc.w" not in str(caught.value)
    assert ".float()" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 40])
def test_a_damaged_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "s.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_tensors(tmp_path / "s.safetensors")
    with pytest.raises(InputError, match="no such file"):
        read_tensors(tmp_path / "t.safetensors")


def test_eie_compress_takes_them(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from compiler.coding.container import decompress
    from eie.cli import cli

    weight = torch.randn(20, 30).bfloat16()
    save_file({"fc.weight": weight, "n": torch.tensor(7)}, tmp_path / "s.safetensors")
    target = tmp_path / "s.eiez"
    result = CliRunner().invoke(cli, ["compress", str(tmp_path / "s.safetensors"), "-o", str(target)])
    assert result.exit_code == 0, result.output
    read = decompress(target.read_bytes()).network.state()
    np.testing.assert_array_equal(read["fc.weight"], weight.float().numpy())
    assert read["n"] == 7
    save_file({"n": torch.ones(2).double()}, tmp_path / "i.safetensors")
    result = CliRunner().invoke(cli, ["compress", str(tmp_path / "i.safetensors"), "-o", str(tmp_path / "i.eiez")])
    assert result.exit_code == 2
    assert not (tmp_path / "i.eiez").exists()


@pytest.mark.verifies("robust-headers")
def test_more_axes_than_numpy_knows_are_refused(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1] * 200, "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(InputError, match=r"a\.safetensors: a has more than 32 axes"):
        read_tensors(path)


def test_an_axis_longer_than_numpy_counts_is_refused(tmp_path: Path) -> None:
    """Without an element, so that no byte is missing."""
    header = b'{"w":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}}'
    path = tmp_path / "long.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_tensors(path)
