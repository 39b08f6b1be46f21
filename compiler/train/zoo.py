"""Whole networks to compile, trained here within minutes: sizes of MLPerf Tiny, LeNet-5, and a tagger of text.

Images are 32x32 with one channel: handwritten digits (scikit-learn, enlarged four times) or Fashion-MNIST (with a
border). The autoencoder sees ten digits side by side, 640 values. The tagger reads lower-case letters of Python's own
help texts and says which were capitals. Layers and widths are those of the reference models of MLPerf Tiny (Banbury et
al., 2021, section 3), whose data sets come in no package: so figures compare floats with integers, not networks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from compiler.errors import ToolError
from compiler.frontend.torch_module import quiet
from compiler.train import data
from compiler.train.letters import LETTERS
from compiler.train.separable import convolution, ds_cnn, mobilenet

__all__ = [
    "LETTERS",
    "NETWORKS",
    "Entry",
    "Samples",
    "autoencoder",
    "ds_cnn",
    "export_onnx",
    "load",
    "mobilenet",
    "resnet_8",
    "train",
]

SIDE = 32
STEPS = 48
"""Letters that the tagger reads at a time."""


@dataclass(frozen=True)
class Samples:
    """Inputs and what the network shall make of them, for training and for the test.

    Attributes
    ----------
    train, test : (inputs, targets): float32 or int64 inputs (n, …), int64 labels (n, …) or float32 targets.
    """

    train: tuple[NDArray[Any], NDArray[Any]]
    test: tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Entry:
    """One network of the zoo.

    Attributes
    ----------
    make : builds it, untrained.
    kind : what it is trained on.
    epochs, rate : of AdamW with a cosine schedule, for `kind` of the digits' size.
    """

    make: Callable[[], nn.Module]
    kind: Literal["images", "frames", "text"]
    epochs: int
    rate: float


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def resnet_8(widths: tuple[int, ...] = (16, 32, 64), classes: int = 10) -> nn.Sequential:
    """Image classification of MLPerf Tiny: a convolution, three residual blocks, average, Linear."""
    blocks = OrderedDict(
        (f"block{n}", _Residual(inputs, outputs, 1 if n == 1 else 2))
        for n, (inputs, outputs) in enumerate(pairwise((widths[0], *widths)), start=1)
    )
    head = {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(widths[-1], classes)}
    return nn.Sequential(OrderedDict(stem=convolution(1, widths[0], 3), **blocks, **head))


def lenet_5() -> nn.Sequential:
    """LeNet-5 as Caffe has it, for 32x32 pixels."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 20, 5), pool1=nn.MaxPool2d(2), conv2=nn.Conv2d(20, 50, 5), pool2=nn.MaxPool2d(2),
            flat=nn.Flatten(), fc1=nn.Linear(1250, 500), relu=nn.ReLU(), fc2=nn.Linear(500, 10),
        )
    )  # fmt: skip


def _dense(sizes: tuple[int, ...], *, last: bool) -> nn.Sequential:
    """Linear, batch normalization and ReLU for each pair of sizes; `last`: a Linear alone for the last pair."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flat=nn.Flatten())
    pairs = list(pairwise(sizes))
    for n, (inputs, outputs) in enumerate(pairs, start=1):
        layers[f"fc{n}"] = nn.Linear(inputs, outputs)
        if not (last and n == len(pairs)):
            layers[f"norm{n}"], layers[f"relu{n}"] = nn.BatchNorm1d(outputs), nn.ReLU()
    return nn.Sequential(layers)


def autoencoder(width: int = 128, middle: int = 8, features: int = 640) -> nn.Sequential:
    """Anomaly detection of MLPerf Tiny: 640-128x4-8-128x4-640, batch normalization and ReLU but behind the last."""
    return _dense((features, *[width] * 4, middle, *[width] * 4, features), last=True)


class Tagger(nn.Module):
    """Embedding, two layers of LSTM, and a Linear for each step."""

    def __init__(self, hidden: int = 64, features: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS), features)
        self.lstm = nn.LSTM(features, hidden, num_layers=2, batch_first=True)
        self.fc = nn.Linear(hidden, 2)

    def forward(self, letters: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.lstm(self.embedding(letters))[0])
        return scores


NETWORKS: dict[str, Entry] = {
    "lenet-5": Entry(lenet_5, "images", 10, 2e-3),
    "resnet-8": Entry(resnet_8, "images", 12, 4e-3),
    "ds-cnn": Entry(ds_cnn, "images", 20, 4e-3),
    "mobilenet-0.25": Entry(mobilenet, "images", 40, 4e-3),
    "mlp-bn": Entry(partial(_dense, (SIDE * SIDE, 256, 128, 10), last=True), "images", 20, 2e-3),
    "autoencoder": Entry(autoencoder, "frames", 30, 2e-3),
    "lstm-tagger": Entry(Tagger, "text", 6, 4e-3),
}
"""The networks, by name."""


def load(kind: str, dataset: str = "digits") -> Samples:
    """Samples of one kind; `dataset` ("digits" or "fashion-mnist") says which images.

    Raises
    ------
    ToolError
        The data set is not on this machine.
    """
    if kind == "text":
        return _text()
    if kind == "frames":
        return _frames()
    training, test = data.DATASETS[dataset].read(None)
    _, height, width = data.DATASETS[dataset].shape
    parts = []
    for split in (training, test):
        pixels = split.inputs.reshape(-1, 1, height, width)
        if height * 4 <= SIDE:
            pixels = pixels.repeat(4, axis=2).repeat(4, axis=3)
        edge = (SIDE - pixels.shape[2]) // 2
        pixels = np.pad(pixels, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
        parts.append((np.ascontiguousarray(pixels, np.float32), split.labels))
    return Samples(*parts)


def _frames() -> Samples:
    """Ten digits side by side, and the same again as target."""
    parts = []
    for seed, split in enumerate(data.DATASETS["digits"].read(None)):
        rng = np.random.default_rng(seed)
        picked = split.inputs[rng.integers(len(split), size=(4000 if seed == 0 else 500, 10))]
        values = np.ascontiguousarray(picked.reshape(len(picked), 640), np.float32)
        parts.append((values, values))
    return Samples(*parts)


def _text() -> Samples:
    """Letters as positions in `LETTERS`, and 1 where the letter was a capital."""
    from pydoc_data.topics import topics

    text = " ".join(" ".join(topics[name].split()) for name in sorted(topics))
    known = [letter for letter in text if letter.lower() in LETTERS]
    codes = np.array([LETTERS.index(letter.lower()) for letter in known], np.int64)
    capital = np.array([letter.isupper() for letter in known], np.int64)
    rows = len(codes) // STEPS
    inputs, labels = (values[: rows * STEPS].reshape(rows, STEPS) for values in (codes, capital))
    order = np.random.default_rng(0).permutation(rows)
    held = order[: rows // 10]
    rest = order[rows // 10 :]
    return Samples((inputs[rest], labels[rest]), (inputs[held], labels[held]))


def train(entry: Entry, samples: Samples, seed: int = 1, epochs: int | None = None) -> nn.Module:
    """Train a network of the zoo; in evaluation mode."""
    torch.manual_seed(seed)
    module = entry.make()
    inputs, targets = (torch.from_numpy(part) for part in samples.train)
    rounds = epochs if epochs is not None else max(1, round(entry.epochs * min(1.0, 4000 / len(inputs))))
    optimizer = torch.optim.AdamW(module.parameters(), entry.rate)
    steps = rounds * -(-len(inputs) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    module.train()
    for _ in range(rounds):
        for batch in torch.randperm(len(inputs)).split(64):  # type: ignore[no-untyped-call]
            if len(batch) == 1:
                continue  # batch normalization needs two
            made = module(inputs[batch])
            wanted = targets[batch]
            loss = (
                functional.mse_loss(made, wanted)
                if wanted.is_floating_point()
                else functional.cross_entropy(made.flatten(0, -2), wanted.flatten())
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return module.eval()


def export_onnx(module: nn.Module, inputs: NDArray[Any]) -> bytes:
    """The module as an ONNX file, through torch's own exporter.

    Raises
    ------
    ToolError
        The exporter's packages are not installed.
    """
    try:
        import onnxscript  # type: ignore[import-untyped, unused-ignore]  # noqa: F401
    except ImportError:
        raise ToolError(
            "torch exports ONNX with the package onnxscript; pip install 'eie-kit[onnx]' onnxscript"
        ) from None
    with quiet():  # the exporter warns of its own internals
        program = torch.onnx.export(module, (torch.from_numpy(inputs),), dynamo=True, verbose=False)
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content
