"""The user's module made ready to be read: a copy in one number format, its fake quantization fixed, and exported."""

from __future__ import annotations

import copy
import io
import logging
import operator
import warnings
from collections.abc import Container, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compiler.errors import ModelError

__all__ = ["call", "check_inputs", "evaluation", "export", "prepare", "probe", "quiet"]

_HALF = (torch.float16, torch.bfloat16)

_CONVERTED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")

_DOUBLE = 1 << 24
"""Parameters of a module that is also run in float64: beyond, the copy costs more than the sharper comparison gives."""


def check_inputs(module: Any, example_inputs: Any) -> tuple[Tensor, ...]:
    """The example inputs as a tuple of tensors, samples first.

    Raises
    ------
    ModelError
        They are not that, hold something that is not a number, or the module is none.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"the model is of type {type(module).__name__}; expected a torch.nn.Module")
    given = tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)
    shown = ", ".join(_describe(value) for value in given) or "nothing"
    expected = "expected one tensor of shape (batch, ...) for each input"
    if not given or not all(isinstance(value, Tensor) and value.dim() >= 1 for value in given):
        raise ModelError(f"example_inputs is {shown}; {expected}")
    if given[0].dim() < 2 and given[0].is_floating_point():
        raise ModelError(f"example_inputs is {shown}; {expected}")
    if len({len(value) for value in given}) != 1 or not all(value.numel() for value in given):
        raise ModelError(f"example_inputs is {shown}; {expected}, equally many samples and at least one")
    for number, value in enumerate(given):
        if value.dtype == torch.bool or value.is_complex():
            raise ModelError(f"example input {number} is {value.dtype}; expected floats, or integers for positions")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError(f"example input {number} has NaN or infinite numbers; expected finite ones")
    return given


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"of type {type(value).__name__}"


def prepare(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module and its inputs on the CPU, in float32 or float64; a copy of the module where it must change for that.

    Half precision is widened exactly; fake quantization keeps the scales that it has.

    Raises
    ------
    ModelError
        Parameters are sparse, quantized, complex or without data, or the module must be copied and cannot be.
    """
    _check_storage(module)
    floats = {tensor.dtype for tensor in _tensors(module).values() if tensor.is_floating_point()}
    widest = torch.float64 if torch.float64 in floats else torch.float32
    widen = bool(floats.intersection(_HALF))
    moved = any(tensor.device.type != "cpu" for tensor in (*_tensors(module).values(), *inputs))
    faked = any(_is_fake(child) for child in module.modules())
    ready = module
    if widen or moved or faked:
        try:
            ready = copy.deepcopy(module).cpu()
        except Exception as error:  # whatever a foreign module raises
            raise ModelError(f"{type(module).__name__} cannot be copied: {type(error).__name__}: {error}") from error
        ready = ready.to(widest) if widen else ready
        if faked:
            _fix_fakes(ready)
    if floats and (widen or len(floats) == 1):
        inputs = tuple(value.to(widest) if value.is_floating_point() else value for value in inputs)
    return ready, tuple(value.detach().cpu() for value in inputs)


def probe(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Any] | None:
    """Random inputs, and what the module computes from them in float64; None if it cannot, or is large.

    Examples may be zeros, or stay within the bounds of every clamp; these numbers are small and large.
    Integers stay as they are: which of them make sense is not known.
    """
    if sum(parameter.numel() for parameter in module.parameters()) > _DOUBLE:
        return None
    generator = torch.Generator().manual_seed(0)

    def draw(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        scale = torch.exp2(5 * torch.rand(value.shape, generator=generator, dtype=torch.float64) - 1)
        return scale * torch.randn(value.shape, generator=generator, dtype=torch.float64)

    drawn = tuple(map(draw, inputs))
    try:
        with quiet(), torch.no_grad():
            made = copy.deepcopy(module).double()(*(value.clone() for value in drawn))
    except Exception:  # it names float32 in its code, or cannot be copied; the float32 outputs must do
        return None
    leaves = [leaf for leaf in pytree.tree_leaves(made) if isinstance(leaf, Tensor)]
    return (drawn, made) if all(bool(torch.isfinite(leaf).all()) for leaf in leaves) else None


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _check_storage(module: nn.Module) -> None:
    wrong = []
    for name, tensor in _tensors(module).items():
        if tensor.layout != torch.strided:
            how = str(tensor.layout).removeprefix("torch.")
            wrong.append(f"{name} is stored as {how}; make it dense: nn.Parameter(parameter.to_dense())")
        elif tensor.is_quantized:
            wrong.append(f"{name} is a quantized tensor; compile the module before torch converts it")
        elif tensor.is_complex():
            wrong.append(f"{name} is {tensor.dtype}; expected floats")
        elif tensor.is_meta:
            wrong.append(f"{name} has no data (device meta); load its weights first")
    quantized = [name for name, child in module.named_modules() if type(child).__module__.startswith(_CONVERTED)]
    if quantized:
        rest = f" (and {len(quantized) - 1} more)" if len(quantized) > 1 else ""
        wrong.append(
            f"{quantized[0] or '(model)'}{rest} is a quantized module; compile the quantization-aware module, as it "
            "was before torch.ao.quantization.convert"
        )
    if wrong:
        raise ModelError("the model cannot be compiled:\n" + "\n".join(f"  {line}" for line in wrong))


class FakeQuantize(nn.Module):
    """Fake quantization with the scale that it has: torch's own looks at buffers to know whether it is on."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.on = bool(module.fake_quant_enabled[0])
        self.low, self.high = (
            int(module.activation_post_process.quant_min),
            int(module.activation_post_process.quant_max),
        )
        self.per_channel = bool(module.is_per_channel)
        self.axis = int(getattr(module, "ch_axis", 0))
        self.scale: Tensor = nn.Buffer(module.scale.detach().clone())
        self.zero: Tensor = nn.Buffer(module.zero_point.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        if not self.on:
            return x
        if self.per_channel:
            return torch.fake_quantize_per_channel_affine(x, self.scale, self.zero, self.axis, self.low, self.high)
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, self.low, self.high)


def _is_fake(module: nn.Module) -> bool:
    here = type(module).__module__.startswith("torch.ao.quantization")
    return here and hasattr(module, "fake_quant_enabled") and hasattr(module, "activation_post_process")


def _fix_fakes(module: nn.Module) -> None:
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if _is_fake(child):
                setattr(parent, name, FakeQuantize(child))
        hooks: dict[int, Any] = parent._forward_hooks  # prepare_qat calls the fake quantization of outputs from these
        for key, hook in hooks.items():
            if getattr(hook, "__name__", "") == "_observer_forward_hook":
                hooks[key] = _apply_fixed


def _apply_fixed(module: Any, inputs: Any, output: Tensor) -> Any:
    return module.activation_post_process(output)


def call(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """What the module makes of the inputs.

    Raises
    ------
    ModelError
        Its forward fails.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return module(*(value.clone() for value in inputs))  # a forward may write into its input
    except Exception as error:  # it is the user's code: anything can come
        shown = ", ".join(_describe(value) for value in inputs)
        raise ModelError(f"the model fails on example_inputs ({shown}): {type(error).__name__}: {error}") from error


def export(
    module: nn.Module, inputs: tuple[Tensor, ...], known: Container[str], supported: str
) -> torch.export.ExportedProgram:
    """The module as one program of ATen operations, in-place ones made functional.

    Parameters
    ----------
    module, inputs : what is exported, and what it is called with.
    known : names of the operations that can be translated.
    supported : them in words, for the message.

    Raises
    ------
    ModelError
        `torch.export` cannot read it.
    """
    try:
        program: torch.export.ExportedProgram = torch.export.export(module, inputs)
        if not _readable(program, known):
            # An empty table makes in-place operations functional and decomposes nothing else. It takes a second or two.
            program = program.run_decompositions({})
    except Exception as error:  # torch raises a dozen unrelated types here, all of them about the user's module
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"torch.export cannot read {type(module).__name__}: {reason}\n"
            f"supported is {supported}; control flow must not depend on values"
        ) from error
    return program


def _readable(program: torch.export.ExportedProgram, known: Container[str]) -> bool:
    """Whether every operation has a translation as it stands, and none writes into its inputs."""
    return all(
        node.op != "call_function" or node.target is operator.getitem or _plain(node.target, known)
        for node in program.graph.nodes
    )


def _plain(target: Any, known: Container[str]) -> bool:
    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return False
    return target.namespace == "aten" and target._opname in known


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing printed: what torch.export says is about its own internals, and our errors say the rest."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for the time being; afterwards every submodule is back in the mode it had."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training
