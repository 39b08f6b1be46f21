"""Safetensors files of other tools: what widens without loss is read, everything else is named with its type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.errors import InputError
from compiler.float_tensors import read_float_tensors

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file


def test_halves_are_widened_exactly_whatever_their_bits(tmp_path: Path) -> None:
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).reshape(256, 256)
    state = {
        "a": bits.view(torch.bfloat16), "b": torch.ones(3), "c": bits.clone().view(torch.float16),
        "d": torch.zeros(2, 0),
        "e": torch.tensor(1.5, dtype=torch.bfloat16),
    }  # fmt: skip
    save_file(state, tmp_path / "s.safetensors")
    read = read_float_tensors(tmp_path / "s.safetensors")
    assert set(read) == set(state)
    for name, tensor in state.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], tensor.float().numpy())  # NaN equals NaN here


def test_what_float32_does_not_hold_is_named_all_at_once(tmp_path: Path) -> None:
    state = {"fc.w": torch.ones(2), "fc.q": torch.ones(2, dtype=torch.int8), "fc.d": torch.ones(2).double()}
    save_file(state, tmp_path / "s.safetensors")
    with pytest.raises(InputError) as caught:
        read_float_tensors(tmp_path / "s.safetensors")
    assert "fc.q (int8)" in str(caught.value)
    assert "fc.d (float64)" in str(caught.value)
    assert "fc.w" not in str(caught.value)
    assert ".float()" in str(caught.value)


def test_the_counter_of_batch_normalization_comes_with_its_remedy(tmp_path: Path) -> None:
    save_file(torch.nn.BatchNorm1d(3).state_dict(), tmp_path / "s.safetensors")
    with pytest.raises(InputError, match=r"num_batches_tracked \(int64\).*is_floating_point"):
        read_float_tensors(tmp_path / "s.safetensors")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 40])
def test_a_damaged_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "s.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_float_tensors(tmp_path / "s.safetensors")
    with pytest.raises(InputError, match="no such file"):
        read_float_tensors(tmp_path / "t.safetensors")


def test_eie_compress_takes_them(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from compiler.coding.container import decompress
    from eie.cli import cli

    weight = torch.randn(20, 30).bfloat16()
    save_file({"fc.weight": weight}, tmp_path / "s.safetensors")
    target = tmp_path / "s.eiez"
    result = CliRunner().invoke(cli, ["compress", str(tmp_path / "s.safetensors"), "-o", str(target)])
    assert result.exit_code == 0, result.output
    read = decompress(target.read_bytes()).network.state()["fc.weight"]
    np.testing.assert_array_equal(read, weight.float().numpy())
    save_file({"n": torch.ones(2, dtype=torch.int64)}, tmp_path / "i.safetensors")
    result = CliRunner().invoke(cli, ["compress", str(tmp_path / "i.safetensors"), "-o", str(tmp_path / "i.eiez")])
    assert result.exit_code == 2
    assert not (tmp_path / "i.eiez").exists()
