"""Small torch modules, one for each thing that the compiler translates, and the whole networks in small.

``Case.make()`` gives a module with seeded weights, in evaluation mode, and example inputs, samples first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compiler.train import zoo

__all__ = ["NETWORKS", "PATTERNS", "RECURRENT", "SUMS", "ZOO", "Body", "Case"]

BATCH = 3


@dataclass(frozen=True)
class Case:
    """One module.

    Attributes
    ----------
    build : makes the module.
    shapes : of one sample of each input; a tuple that ends in "index" is integers from 0 to 4.
    """

    name: str
    build: Callable[[], nn.Module]
    shapes: tuple[tuple[Any, ...], ...] = ((2, 6, 8),)

    def make(self, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The module and its example inputs."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = self.build().eval()
            for name, buffer in module.named_buffers():  # statistics as after training, not 0 and 1
                if name.endswith("running_mean"):
                    buffer.normal_()
                elif name.endswith("running_var"):
                    buffer.uniform_(0.5, 2.0)
            for parameter in module.parameters():
                if parameter.dim() == 1:  # biases and factors, which torch begins with 0 and 1
                    parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
            return module, tuple(_sample(shape) for shape in self.shapes)

    def __str__(self) -> str:
        return self.name


def _sample(shape: tuple[Any, ...]) -> Tensor:
    if shape[-1:] == ("index",):
        return torch.randint(0, 5, (BATCH, *shape[:-1]))
    return torch.randn(BATCH, *shape)


class Body(nn.Module):
    """A module whose forward is a function given to it, with parts that the function may use."""

    def __init__(self, body: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)
        self.body = body

    def forward(self, *inputs: Tensor) -> Any:
        return self.body(self, *inputs)


def _of(
    name: str,
    body: Callable[..., Any],
    *shapes: tuple[Any, ...],
    parts: Callable[[], dict[str, Any]] = dict,  # type: ignore[assignment]
) -> Case:
    return Case(name, lambda: Body(body, **parts()), shapes or ((2, 6, 8),))


def _layer(name: str, build: Callable[[], nn.Module], *shapes: tuple[Any, ...]) -> Case:
    return Case(name, build, shapes or ((2, 6, 8),))


def _w(*shape: int) -> Callable[[], dict[str, Any]]:
    return lambda: {"w": torch.randn(*shape)}


def _fc(inputs: int = 8, outputs: int = 4) -> Callable[[], dict[str, Any]]:
    return lambda: {"fc": nn.Linear(inputs, outputs)}


def _tanh_gelu(m: Body, x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _fake_channels(m: Body, x: Tensor) -> Tensor:
    return torch.fake_quantize_per_channel_affine(x, torch.full((2,), 0.5), torch.zeros(2, dtype=torch.int32), 1, -3, 4)


def _into(m: Body, x: Tensor) -> Tensor:
    made = x + 1
    torch.mul(x, 2, out=made.view(made.shape))
    return made


PRODUCTS = [
    _layer("linear", lambda: nn.Linear(8, 4), (8,)),
    _layer("linear without bias", lambda: nn.Linear(8, 4, bias=False), (8,)),
    _layer("linear over maps", lambda: nn.Linear(8, 4)),
    _of("x @ W", lambda m, x: x @ m.w, parts=_w(8, 3)),
    _of("x @ W.T + b", lambda m, x: x @ m.w.T + 1.5, (8,), parts=_w(3, 8)),
    _of("W @ x", lambda m, x: m.w @ x, parts=_w(3, 6)),
    _of("W @ x.T", lambda m, x: (m.w @ x.t()).t(), (8,), parts=_w(3, 8)),
    _of("matrix times vector", lambda m, x: x @ m.w, parts=_w(8)),
    _of("addmm", lambda m, x: torch.addmm(torch.ones(3), x, m.w), (8,), parts=_w(8, 3)),
    _of("mm and mv", lambda m, x: torch.mv(torch.mm(x, m.w), m.w[0]), (3,), parts=_w(3, 3)),
    _of("inner", lambda m, x: torch.inner(x, m.w), parts=_w(3, 8)),
    _of("tensordot", lambda m, x: torch.tensordot(x, m.w, dims=([2], [1])), parts=_w(5, 6)),
    _of("einsum last", lambda m, x: torch.einsum("bi,oi->bo", x, m.w), (8,), parts=_w(3, 8)),
    _of("einsum channels", lambda m, x: torch.einsum("kc,bchw->bkhw", m.w, x), parts=_w(5, 2)),
    _of("einsum dots", lambda m, x: torch.einsum("...i,io", x, m.w), parts=_w(8, 3)),
    _of("einsum vector", lambda m, x: torch.einsum("bchw,h->wbc", x, m.w), parts=_w(6)),
]

ELEMENTWISE = [
    _of("add constants", lambda m, x: 2 + x + torch.arange(8.0)),
    _of("subtract", lambda m, x: 1 - (x - 0.5)),
    _of("rsub alpha", lambda m, x: torch.rsub(x, 3, alpha=2)),
    _of("x * 0.5", lambda m, x: x * 0.5),
    _of("x / 255", lambda m, x: x / 255),
    _of("x / tensor", lambda m, x: x / m.w.exp(), parts=_w(2, 1, 1)),
    _of("negative", lambda m, x: -x),
    _of("mean and deviation", lambda m, x: (x - torch.tensor([0.4, 0.6])[:, None, None]) / torch.tensor(0.3)),
    _of("add two", lambda m, x, y: torch.add(x, y, alpha=-0.5), (4, 5), (4, 5)),
    _of("subtract two", lambda m, x, y: x - y, (4, 5), (4, 5)),
    _of("multiply two", lambda m, x, y: x * y, (4, 5), (4, 5)),
    _of("square", lambda m, x: x**2 + torch.ops.aten.square.default(x)),
    _of("gate by itself", lambda m, x: x * torch.sigmoid(x)),
    _of("in place", lambda m, x: (x + 0).mul_(2).add_(1).relu_()),
    _of("written through a view", _into),
    _of("channels scaled by their mean", lambda m, x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))),
    _of("fake quantize", lambda m, x: torch.fake_quantize_per_tensor_affine(x, 0.25, 0, -3, 4)),
    _of("fake quantize channels", _fake_channels),
    _layer("relu", nn.ReLU),
    _of("relu6", lambda m, x: F.relu6(5 * x)),
    _layer("hardtanh", lambda: nn.Hardtanh(-0.5, 0.7)),
    _layer("sigmoid", nn.Sigmoid),
    _layer("tanh", nn.Tanh),
    _of("hardsigmoid", lambda m, x: F.hardsigmoid(4 * x)),
    _of("hardswish", lambda m, x: F.hardswish(4 * x)),
    _layer("silu", nn.SiLU),
    _layer("gelu", nn.GELU),
    _of("gelu tanh", _tanh_gelu),
    _layer("softplus", nn.Softplus),
    _layer("softplus beta", lambda: nn.Softplus(beta=2.0)),
    _layer("leaky relu", lambda: nn.LeakyReLU(0.1)),
    _layer("prelu", lambda: nn.PReLU(2)),
    _of("abs", lambda m, x: x.abs()),
    _of("clamp both", lambda m, x: x.clamp(-0.5, 0.25)),
    _of("clamp max", lambda m, x: x.clamp_max(0.25)),
    _of("minimum", lambda m, x: torch.minimum(x, torch.tensor(0.5))),
]

MAPS = [
    _layer("conv2d", lambda: nn.Conv2d(2, 5, 3)),
    _layer("conv2d everything", lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (2, 1), (1, 2), groups=2), (4, 9, 8)),
    _layer("conv2d same", lambda: nn.Conv2d(2, 3, (4, 3), padding="same", dilation=(1, 2))),
    _layer("conv2d valid", lambda: nn.Conv2d(2, 3, 3, padding="valid")),
    _layer("depthwise", lambda: nn.Conv2d(2, 4, 3, padding=1, groups=2, bias=False)),
    _layer("asymmetric", lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(2, 3, 3, 2))),
    _of(
        "convolution",
        lambda m, x: torch.convolution(x, m.w, None, [1, 1], [1, 0], [1, 1], False, [0, 0], 1),
        parts=_w(3, 2, 3, 3),
    ),
    _layer("conv1d", lambda: nn.Conv1d(4, 3, 3, 2, 1), (4, 9)),
    _layer("conv1d same", lambda: nn.Conv1d(4, 3, 4, padding="same"), (4, 9)),
    _layer("max pool", lambda: nn.MaxPool2d(3, 2, 1)),
    _layer("max pool ceil", lambda: nn.MaxPool2d((2, 3), 2, ceil_mode=True), (2, 7, 8)),
    _layer("max pool dilated", lambda: nn.MaxPool2d(2, 1, dilation=2)),
    _of("max pool with indices", lambda m, x: F.max_pool2d(x, 2, return_indices=True)[0]),
    _of("max pool 1d with indices", lambda m, x: F.max_pool1d(x, 2, return_indices=True)[0], (4, 9)),
    _layer("max pool 1d", lambda: nn.MaxPool1d(2), (4, 9)),
    _layer("average pool", lambda: nn.AvgPool2d((2, 4))),
    _layer("average pool padded", lambda: nn.AvgPool2d(3, 2, 1)),
    _layer("average pool divisor", lambda: nn.AvgPool2d(2, divisor_override=3)),
    _layer("average pool 1d", lambda: nn.AvgPool1d(3), (4, 9)),
    _layer("adaptive average", lambda: nn.AdaptiveAvgPool2d(1)),
    _layer("adaptive average 3x4", lambda: nn.AdaptiveAvgPool2d((3, 4))),
    _layer("adaptive average 1d", lambda: nn.AdaptiveAvgPool1d(3), (4, 9)),
    _layer("adaptive maximum", lambda: nn.AdaptiveMaxPool2d((2, 1))),
    _layer("adaptive maximum 1d", lambda: nn.AdaptiveMaxPool1d(1), (4, 9)),
    _of("spatial mean", lambda m, x: x.mean((2, 3))),
    _of("spatial mean kept", lambda m, x: x.mean((-1, -2), keepdim=True)),
    _of("spatial maximum", lambda m, x: x.amax((2, 3))),
    _of("mean of features", lambda m, x: x.mean(1)),
    _of("sum of steps", lambda m, x: x.sum(1), (5, 4)),
    _of("maximum of rows", lambda m, x: x.max(2).values.max(-1)[0]),
    _layer("batch norm 2d", lambda: nn.BatchNorm2d(2)),
    _layer("batch norm plain", lambda: nn.BatchNorm1d(4, affine=False, eps=0.1), (4, 7)),
    _layer("batch norm 1d", lambda: nn.BatchNorm1d(8), (8,)),
    # What writes in place is rewritten by torch as a whole, and has other names for the rest then.
    _layer("batch norm, written in place", lambda: nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(inplace=True))),
    _of("joined axes, written in place", lambda m, x: x.permute(0, 3, 2, 1).reshape(-1, 48, 2).mul_(2), (2, 6, 8)),
]

MOVES = [
    _of("cat", lambda m, x, y: torch.cat([x, y], 2), (2, 3), (2, 4)),
    _of("cat with a constant", lambda m, x: torch.cat([torch.ones(len(x), 1), x, x], 1), (8,)),
    _of("stack", lambda m, x, y: torch.stack([x, y], 1), (2, 3), (2, 3)),
    _of("chunk", lambda m, x: x.chunk(2, 1)[1]),
    _of("split", lambda m, x: x.split([1, 3, 4], 3)[1]),
    _of("split evenly", lambda m, x: x.split(3, 3)[-1]),
    _of("slice", lambda m, x: x[:, :, 1:5, ::2]),
    _of("select", lambda m, x: x[:, -1, 2]),
    _of("narrow", lambda m, x: x.narrow(3, 2, 4)),
    _of("unbind", lambda m, x: sum(part * n for n, part in enumerate(x.unbind(2)))),
    _of("chosen channels", lambda m, x: x[:, :, [0, 2, 4, 1]]),
    _of("index select", lambda m, x: x.index_select(3, torch.tensor([7, 6, 1]))),
    _of("flip", lambda m, x: x.flip(1)),
    _of("permute", lambda m, x: x.permute(0, 2, 3, 1)),
    _of("transpose", lambda m, x: x.transpose(-1, 1)),
    _of("movedim", lambda m, x: x.movedim(1, -1)),
    _of("samples moved and back", lambda m, x: m.fc(x.permute(2, 0, 1, 3)).permute(1, 2, 0, 3), parts=_fc()),
    _of("view", lambda m, x: x.view(len(x), 4, -1).reshape(-1, 2, 2, 24)),
    _of("flatten and unflatten", lambda m, x: x.flatten(1).unflatten(1, (12, 8))),
    _of("squeeze", lambda m, x: x.unsqueeze(1).squeeze(1).unsqueeze(-1).squeeze()),
    _of("samples moved and reshaped", lambda m, x: x.transpose(0, 1).flatten(2).transpose(0, 1)),
    _of("expand", lambda m, x: x.unsqueeze(2).expand(-1, -1, 3, -1, -1)),
    _of("repeat", lambda m, x: x.repeat(1, 2, 1, 1)),
    _of("pad", lambda m, x: F.pad(x, (1, 2, 0, 3))),
    _of("pad twice", lambda m, x: torch.constant_pad_nd(torch.ops.aten.alias.default(x), (1, 2))),
    _layer("embedding", lambda: nn.Embedding(5, 3), (4, "index")),
    _of("rows of a table", lambda m, x: m.w[x], (4, "index"), parts=_w(5, 3, 2)),
    _of("one hot", lambda m, x: F.one_hot(x, 5).float() @ m.w, (4, "index"), parts=_w(5, 3)),
    _of("positions added", lambda m, x: x + m.e(torch.arange(4)), (4, 8), parts=lambda: {"e": nn.Embedding(4, 8)}),
    _of("integers as numbers", lambda m, x: m.fc(x.float() / 4), (8, "index"), parts=_fc()),
    _of("nothing", lambda m, x: m.fc(F.dropout(x.clone().detach(), 0.5, m.training)), (8,), parts=_fc()),
]

OUTPUTS = [
    _of("softmax", lambda m, x: m.fc(x).softmax(-1), (8,), parts=_fc()),
    _of("log softmax of channels", lambda m, x: F.log_softmax(x, 1)),
    _of("softmax without checks", lambda m, x: torch.ops.aten._softmax.default(x, 3, False)),
    _of("log softmax without checks", lambda m, x: torch.ops.aten._log_softmax.default(x, 3, False)),
    _of("argmax", lambda m, x: m.fc(x).argmax(1), (8,), parts=_fc()),
    _of("argmax of softmax", lambda m, x: x.softmax(2).argmax(2)),
    _of("two outputs", lambda m, x: (m.fc(x), m.fc(x).relu()), (8,), parts=_fc()),
    _of("named outputs", lambda m, x: {"logits": m.fc(x), "hidden": [x + 1, None]}, (8,), parts=_fc()),
    _of("two inputs", lambda m, x, y: m.fc(x) + m.fc(y), (8,), (8,), parts=_fc()),
    _of("unused input", lambda m, x, y: m.fc(x), (8,), (8,), parts=_fc()),
]

RECURRENT = [
    _layer("lstm", lambda: nn.LSTM(4, 5, batch_first=True), (6, 4)),
    _layer("lstm, all options", lambda: nn.LSTM(4, 5, 2, bidirectional=True, batch_first=True), (6, 4)),
    _of("lstm, steps first", lambda m, x: m.r(x.transpose(0, 1)), (6, 4), parts=lambda: {"r": nn.LSTM(4, 5, 2)}),
    _of(
        "lstm, given states",
        lambda m, x, h, c: m.r(x, (h.transpose(0, 1).contiguous(), c.transpose(0, 1).contiguous())),
        (6, 4), (2, 5), (2, 5),
        parts=lambda: {"r": nn.LSTM(4, 5, 2, bias=False, batch_first=True)},
    ),
    _of("lstm, last state", lambda m, x: m.fc(m.r(x)[1][0][-1]), (6, 4),
        parts=lambda: {"r": nn.LSTM(4, 8, batch_first=True), "fc": nn.Linear(8, 2)}),
    _of("lstm, last step", lambda m, x: m.fc(m.r(x)[0][:, -1]), (6, 4),
        parts=lambda: {"r": nn.LSTM(4, 8, batch_first=True), "fc": nn.Linear(8, 2)}),
    _layer("gru", lambda: nn.GRU(4, 5, 2, bidirectional=True, batch_first=True), (6, 4)),
    _layer("gru without bias", lambda: nn.GRU(4, 5, bias=False, batch_first=True), (6, 4)),
    _layer("rnn tanh", lambda: nn.RNN(4, 5, 2, batch_first=True), (6, 4)),
    _layer("rnn relu", lambda: nn.RNN(4, 5, nonlinearity="relu", bidirectional=True, batch_first=True), (6, 4)),
    _of("lstm cell in a loop", lambda m, x: _loop(m.cell, x), (4, 6), parts=lambda: {"cell": nn.LSTMCell(6, 5)}),
    _of("gru cell in a loop", lambda m, x: _loop(m.cell, x), (4, 6), parts=lambda: {"cell": nn.GRUCell(6, 5)}),
    _of("rnn cell in a loop", lambda m, x: _loop(m.cell, x), (4, 6), parts=lambda: {"cell": nn.RNNCell(6, 5)}),
    _of("rnn relu cell", lambda m, x: m.cell(x), (6,), parts=lambda: {"cell": nn.RNNCell(6, 5, nonlinearity="relu")}),
]  # fmt: skip


def _convs(*kernels: int) -> Callable[[], dict[str, Any]]:
    """Convolutions c0, c1, … of four channels from two, which leave the map as it is."""
    return lambda: {f"c{n}": nn.Conv2d(2, 4, size, padding=size // 2) for n, size in enumerate(kernels)}


def _highway(m: Body, x: Tensor) -> Tensor:
    """Two steps of a recurrent highway cell (Zilly et al., 2017): gates of input and state, then of the state alone."""
    state = torch.tanh(m.wh(x[:, 0]))
    for step in range(x.shape[1]):
        read = x[:, step]
        state = state + torch.tanh(m.wh(read) + m.uh(state)) * torch.sigmoid(m.wt(read) + m.ut(state))
        state = state + torch.tanh(m.deep(state)) * torch.sigmoid(m.gate(state))
    return state


def _highway_parts() -> dict[str, Any]:
    sizes = {"wh": 6, "wt": 6, "uh": 4, "ut": 4, "deep": 4, "gate": 4}
    return {name: nn.Linear(inputs, 4) for name, inputs in sizes.items()}


SUMS = [
    _of("projected shortcut", lambda m, x: F.relu(m.c0(x) + m.c1(x)), parts=_convs(3, 1)),
    _of("three convolutions and a map", lambda m, x: m.c0(x) + m.c1(x) + x.repeat(1, 2, 1, 1) + m.c2(x),
        parts=_convs(3, 1, 5)),
    _of("sum of two linears", lambda m, x, y: m.a(x) + m.b(y), (8,), (3,),
        parts=lambda: {"a": nn.Linear(8, 4), "b": nn.Linear(3, 4)}),
    _of("linear and its input over steps", lambda m, x: F.relu(m.fc(x) + x), (5, 8), parts=_fc(8, 8)),
    _of("convolution of joined maps", lambda m, x: m.c0(x) + m.c1(torch.cat([x, x], 1)[:, ::2]), parts=_convs(3, 3)),
    _of("linear of joined values", lambda m, x, y: m.fc(torch.cat([x, y], 1)), (5,), (3,), parts=_fc()),
    _of("recurrent highway", _highway, (4, 6), parts=_highway_parts),
]  # fmt: skip
"""What becomes a sum of products that is rounded once."""


def _loop(cell: nn.Module, x: Tensor) -> Any:
    state = None
    for step in range(x.shape[1]):
        state = cell(x[:, step], state)
    return state


PATTERNS = [
    _layer("batch norm behind linear", lambda: nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU()), (8,)),
    _of("x @ W + b", lambda m, x: x @ m.w + torch.arange(3.0), (8,), parts=_w(8, 3)),
    _of("scaled before linear", lambda m, x: m.fc(x * 0.5), (8,), parts=_fc()),
    _of("pixels", lambda m, x: m.fc(x / 255), (8,), parts=_fc()),
    _of("clamp(min=0)", lambda m, x: m.fc(x).clamp(min=0), (8,), parts=_fc()),
    _of("clamp_min", lambda m, x: torch.clamp_min(m.fc(x), 0), (8,), parts=_fc()),
    _of("maximum(x, 0)", lambda m, x: torch.maximum(m.fc(x), torch.tensor(0.0)), (8,), parts=_fc()),
    _layer("threshold", lambda: nn.Sequential(nn.Linear(8, 6), nn.Threshold(0, 0)), (8,)),
    _of("einsum", lambda m, x: torch.einsum("bi,io->bo", x, m.w).relu(), (8,), parts=_w(8, 3)),
    _layer("convolution 1x1", lambda: nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU()), (8, 1, 1)),
    _layer("convolution of full size", lambda: nn.Sequential(nn.Conv2d(2, 5, (6, 8)), nn.Flatten())),
    _of("slice of the input", lambda m, x: m.fc(x[:, 2:10]), (12,), parts=_fc()),
    _of("select of the input", lambda m, x: m.fc(x[:, 1]), (3, 8), parts=_fc()),
    _of("transposed input", lambda m, x: m.fc(x.transpose(1, 2).flatten(1)), (2, 4), parts=_fc()),
    _of("softmax at the end", lambda m, x: torch.softmax(m.fc(x), 1), (8,), parts=_fc()),
    _of("argmax at the end", lambda m, x: m.fc(x).argmax(-1), (8,), parts=_fc()),
]
"""What people write for a chain of Linear and ReLU."""


class Residual(nn.Module):
    """Convolution and normalization with a shortcut, then a gate of channels by a joined map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(4, 3)))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norm(self.conv(x)) + x)
        result: Tensor = self.head(torch.cat([hidden, x], 1))
        return result


NETWORKS = [
    Case("lenet-5", zoo.lenet_5, ((1, 32, 32),)),
    Case("resnet-8", partial(zoo.resnet_8, (4, 8, 12)), ((1, 16, 16),)),
    Case("ds-cnn", partial(zoo.ds_cnn, 8), ((1, 20, 10),)),
    Case("mobilenet-0.25", partial(zoo.mobilenet, 0.25), ((1, 32, 32),)),
    Case("mlp-bn", partial(zoo._dense, (36, 24, 16, 10), last=True), ((1, 6, 6),)),
    Case("autoencoder", partial(zoo.autoencoder, 16, 4, 40), ((40,),)),
    Case("lstm-tagger", partial(zoo.Tagger, 8, 6), ((7, "index"),)),
    Case("residual and joined", Residual),
]
"""The networks of `compiler.train.zoo` in sizes for tests."""

ZOO: list[Case] = [*PRODUCTS, *ELEMENTWISE, *MAPS, *MOVES, *OUTPUTS, *RECURRENT, *SUMS, *PATTERNS, *NETWORKS]
"""Every case; names are unique."""
