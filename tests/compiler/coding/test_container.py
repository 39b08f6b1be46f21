from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from compiler.coding.container import CODERS, Coder, compress, decompress
from compiler.compressed import CompressedModel, CompressedTensor
from compiler.errors import ModelError
from tests.compiler.coding.models import assert_equal, models, tensor


@pytest.mark.verifies("compressed-files-round-trip-form")
@pytest.mark.parametrize("coder", CODERS)
@given(model=models())
def test_round_trip_is_lossless_and_every_bit_is_accounted_for(coder: Coder, model: CompressedModel) -> None:
    data = compress(model, coder)
    content = decompress(data)
    assert_equal(model, content.network)
    sizes = content.sizes
    assert sizes.file_bytes == len(data)
    assert sizes.header > 0
    assert sizes.dense_bytes == model.dense_bytes
    assert [t.nonzeros for t in sizes.tensors[: len(model.tensors)]] == [t.nonzeros for t in model.tensors]
    assert compress(content.network, coder) == data


@pytest.mark.verifies("pruned-tensors-shared-take-room")
@pytest.mark.parametrize("coder", CODERS)
def test_a_pruned_tensor_takes_the_room_of_what_is_left(coder: Coder, rng: np.random.Generator) -> None:
    values = rng.normal(size=(100, 80)).astype(np.float32)
    values[rng.uniform(size=values.shape) < 0.9] = 0
    content = decompress(compress(CompressedModel((), {"fc1.weight": values}), coder))
    np.testing.assert_array_equal(content.network.dense["fc1.weight"], values)
    (size,) = content.sizes.tensors
    assert size.nonzeros == np.count_nonzero(values)
    # 32 bits a value, and the entropy of where they are within a tenth; a Huffman code has at least a bit.
    density = size.nonzeros / values.size
    entropy = -density * np.log2(density) - (1 - density) * np.log2(1 - density)
    least = size.nonzeros if coder == "huffman" else 0
    assert size.positions < 1.1 * entropy * values.size + least + 200
    assert size.values <= 33 * size.nonzeros


def test_zeros_that_a_mask_made_are_no_values(rng: np.random.Generator) -> None:
    values = rng.normal(size=(50, 40)).astype(np.float32)
    masked = values * (rng.uniform(size=values.shape) < 0.05)  # half of the zeros are negative
    assert np.signbit(masked[masked == 0]).any()
    (size,) = decompress(compress(CompressedModel.from_state({"fc1.weight": masked.astype(np.float32)}))).sizes.tensors
    assert size.bits < 45 * np.count_nonzero(masked)


def test_state_becomes_shared_where_that_is_smaller(rng: np.random.Generator) -> None:
    made = tensor(rng, "fc1.weight", (30, 20), 4, 0.3)
    bias = rng.normal(size=30).astype(np.float32)
    model = CompressedModel.from_state({"fc1.weight": made.values, "fc1.bias": bias})
    assert [t.name for t in model.tensors] == ["fc1.weight"]
    assert list(model.dense) == ["fc1.bias"]
    for name, values in model.state().items():
        np.testing.assert_array_equal(values, made.values if name == "fc1.weight" else bias)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"codebook": np.zeros(3, np.float32)}, "expected float32 of 2 to 256 entries"),
        ({"codebook": np.ones(4, np.float32)}, "as code 0"),
        ({"codebook": np.array([0, np.nan, 1, 2], np.float32)}, "not finite"),
        ({"codes": np.full((2, 3), 4, np.uint8)}, "code 4; expected less than 4"),
        ({"codes": np.zeros((3, 2), np.uint8)}, "codes are uint8 (3, 2); expected uint8 (2, 3)"),
        ({"shape": (2, 0)}, "none empty"),
    ],
)
def test_a_model_that_is_none_is_refused(change: dict[str, object], words: str) -> None:
    fields: dict[str, object] = {
        "name": "a", "shape": (2, 3), "codes": np.zeros((2, 3), np.uint8), "codebook": np.zeros(4, np.float32)
    }  # fmt: skip
    with pytest.raises(ModelError) as caught:
        compress(CompressedModel((CompressedTensor(**{**fields, **change}),)))  # type: ignore[arg-type]
    assert words in str(caught.value)


_MADE = """
import hashlib, numpy as np
from compiler.coding.container import compress
from compiler.compressed import CompressedModel, CompressedTensor
n = np.arange(40 * 60, dtype=np.int64).reshape(40, 60)
codes = np.where(n * 2654435761 % 4294967296 >> 28 < 3, 1 + n * 40503 % 65536 % 15, 0).astype(np.uint8)
book = ((np.arange(16) - 8) / 64).astype(np.float32)
book[[0, 8]] = 0, 0.125
print(hashlib.sha256(compress(CompressedModel((CompressedTensor.of("a.weight", codes, book),)))).hexdigest())
"""


@pytest.mark.verifies("context-coder-same-bytes-compiled")
@pytest.mark.parametrize("compiled", [True, False])
def test_the_context_coder_writes_the_same_bytes_everywhere(compiled: bool) -> None:
    """Compiled or interpreted: no step depends on rounding or on the order in which floats are added.

    If this fails, then files of the version before are no longer read: the format's version must change.
    """
    import os
    import subprocess
    import sys

    environment = {**os.environ, "NUMBA_DISABLE_JIT": "0" if compiled else "1"}
    made = subprocess.run([sys.executable, "-c", _MADE], capture_output=True, text=True, check=True, env=environment)
    assert made.stdout.strip() == "75969777fb10941509db6bc94f03dfa8663e9ba62ae1001b08f4ee1b88f680f0"
