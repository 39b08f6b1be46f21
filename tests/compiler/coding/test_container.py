from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from compiler.coding.container import CODERS, Coder, compress, decompress
from compiler.compressed import CompressedModel, CompressedTensor
from compiler.errors import ModelError
from tests.compiler.coding.models import assert_equal, models, tensor


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
