"""How long language models take on one thread, whole and shrunk; and their products with zeros left out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from compiler.experiments.stopwatch import interleaved
from compiler.train.language import LanguageModel

__all__ = ["model_speed", "product_speed"]


def model_speed(
    models: Mapping[str, LanguageModel], vocabulary: int, batch: int, length: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Median CPU seconds for `length` words of `batch` texts, in turns: of the whole model and of its recurrent layers.

    Times do not depend on which words they are.
    """
    words = torch.arange(batch * length).remainder(vocabulary).view(batch, length)
    whole, layers = {}, {}
    for name, model in models.items():
        model.eval()
        inputs = model.embedding(words).detach()
        whole[name] = lambda model=model: _quietly(model, words)
        layers[name] = lambda model=model, inputs=inputs: _quietly(model.rnn, inputs)
    return {"whole": interleaved(whole, repeats), "layers": interleaved(layers, repeats)}


def product_speed(matrices: Sequence[Tensor], batch: int, repeats: int) -> dict[str, float]:
    """Median CPU seconds of every matrix times `batch` columns: dense, and in torch's compressed sparse rows."""
    columns = [torch.ones(matrix.shape[1], batch) for matrix in matrices]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        sparse = [matrix.to_sparse_csr() for matrix in matrices]
        return interleaved(
            {
                "dense": lambda: [m @ c for m, c in zip(matrices, columns, strict=True)],
                "sparse": lambda: [m @ c for m, c in zip(sparse, columns, strict=True)],
            },
            repeats,
        )


def _quietly(module: torch.nn.Module, inputs: Tensor) -> None:
    with torch.inference_mode():
        module(inputs)
