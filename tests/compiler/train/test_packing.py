"""`.eiez` files hold the whole state of a module: scalars, counters and masks as well as weights."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from compiler.coding.container import CODERS, Coder, compress, decompress
from compiler.compressed import INTEGERS, CompressedModel
from compiler.errors import CodingError, ModelError
from compiler.train.packing import compressed_files

# Written before whole numbers had a place in the format: weight (2, 3) of 0, 1 and -2, bias, and a mostly zero matrix.
OLD = {
    "huffman": "RUlFWhABAgMCZmMiAgMUEQMEd2lkZSIIEAIBADwAwAQCABFAAQERkAEAOAC0BQERSAUfCSCCCRBkAM3MzD0AAODAQRDNEw==",
    "context": "RUlFWhEBAgMCZmMiAgMUEQMEd2lkZSIIEAySOnAWE3Pf/ssJen0CEAQAEAJAJ5mZm4AAAD9DqOk=",
}


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.scale = nn.Parameter(torch.tensor(1.25))
        self.register_buffer("positions", torch.arange(40).reshape(1, 40))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("coarse", torch.tensor([0.5, 3.0], dtype=torch.bfloat16))


@pytest.mark.verifies("eiez-scalars-counters-masks-type")
def test_a_file_holds_the_whole_state(seed: int) -> None:
    torch.manual_seed(seed)
    module = Scaled()
    module.norm(module.conv(torch.rand(2, 1, 5, 5)))
    for data in compressed_files(module).values():
        state = decompress(data).network.state()
        assert state.keys() == module.state_dict().keys()
        for name, value in module.state_dict().items():
            expected = value.float().numpy() if value.dtype is torch.bfloat16 else value.numpy()
            assert (state[name].dtype, state[name].shape) == (expected.dtype, expected.shape), name
            np.testing.assert_array_equal(state[name], expected)
        again = Scaled()
        again.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
        assert int(again.norm.num_batches_tracked) == 1
        assert again.scale.item() == 1.25


@pytest.mark.verifies("eiez-scalars-counters-masks-type")
@pytest.mark.parametrize("coder", CODERS)
def test_every_type_at_its_limits(coder: Coder, rng: np.random.Generator) -> None:
    state: dict[str, NDArray[np.generic]] = {"w": rng.standard_normal((4, 6)).astype(np.float32)}
    for name in INTEGERS:
        kind = np.dtype(name)
        ends = [False, True] if name == "bool" else [np.iinfo(kind).min, np.iinfo(kind).max]
        state[name] = np.array(ends, kind)
        state[f"{name}.none"] = np.zeros((0, 3), kind)
        state[f"{name}.one"] = np.array(ends[1], kind)
    model = CompressedModel.from_state(state)
    found = decompress(compress(model, coder))
    assert model.difference(found.network) is None
    assert {size.name for size in found.sizes.tensors} == state.keys()
    for name, value in state.items():
        assert found.network.state()[name].dtype == value.dtype
    state["int64"] = state["int64"] + 0
    state["int64"][0] += 1
    assert model.difference(CompressedModel.from_state(state)) == "int64"
    state["int64"] = state["int64"].astype(np.int32)
    assert model.difference(CompressedModel.from_state(state)) == "int64"


def test_doubles_are_refused() -> None:
    with pytest.raises(ModelError, match="weight: values are float64; expected float32, or whole numbers"):
        compressed_files(nn.Linear(3, 2).double())


@pytest.mark.verifies("eiez-scalars-counters-masks-type")
def test_damaged_whole_numbers_are_refused(rng: np.random.Generator) -> None:
    """Every byte changed, with a checksum that fits: an error or other values, and never anything else."""
    data = compress(CompressedModel.from_state({"n": np.arange(9), "m": np.array([True, False])}))
    body, caught = data[:-4], 0
    for place in range(5, len(body)):
        for value in rng.integers(0, 256, 4):
            changed = bytearray(body)
            changed[place] = value
            try:
                decompress(bytes(changed) + zlib.crc32(changed).to_bytes(4, "little"))
            except CodingError:
                caught += 1
    assert caught > len(body)


@pytest.mark.verifies("eiez-scalars-counters-masks-type")
@pytest.mark.parametrize("coder", CODERS)
def test_a_file_from_before_still_decompresses(coder: Coder) -> None:
    network = decompress(base64.b64decode(OLD[coder])).network
    state = network.state()
    np.testing.assert_array_equal(state["fc.weight"], np.array([[0, 1, -2], [1, 0, 1]], np.float32))
    np.testing.assert_array_equal(state["fc.bias"], np.array([0.5, -0.25], np.float32))
    sparse = np.zeros((8, 16), np.float32)
    sparse[3, 4], sparse[7, 15] = 0.1, -7
    np.testing.assert_array_equal(state["wide.weight"], sparse)
