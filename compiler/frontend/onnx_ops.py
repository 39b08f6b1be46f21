"""What is translated from ONNX, and what to do instead of some operations that are not."""

from __future__ import annotations

from compiler.frontend.onnx_call import Refused, Translation
from compiler.frontend.onnx_elementwise import ELEMENTWISE
from compiler.frontend.onnx_gather import GATHER
from compiler.frontend.onnx_maps import MAPS
from compiler.frontend.onnx_moves import MOVES
from compiler.frontend.onnx_products import PRODUCTS
from compiler.frontend.onnx_recurrent import RECURRENT

__all__ = ["SUPPORTED", "TRANSLATIONS", "unknown"]

TRANSLATIONS: dict[str, Translation] = {**ELEMENTWISE, **PRODUCTS, **MAPS, **MOVES, **GATHER, **RECURRENT}
"""ONNX name → translation."""

SUPPORTED = ", ".join(sorted(TRANSLATIONS))

_RETRAIN = "use ReLU and retrain"
_HINTS = {
    "Elu": _RETRAIN,
    "Selu": _RETRAIN,
    "Mish": "use HardSwish and retrain",
    "Erf": "for GELU export with opset_version=20 or later, which has it as one operation",
    "Greater": "torch writes softplus as one operation with torch.onnx.export(…, dynamo=False)",
    "If": "control flow must not depend on values; simplify the model before",
    "Loop": "unroll the loop before exporting, or use LSTM, GRU or RNN",
    "Scan": "use LSTM, GRU or RNN",
    "LayerNormalization": "normalization at run time is not supported; use BatchNormalization",
    "InstanceNormalization": "normalization at run time is not supported; use BatchNormalization",
    "GroupNormalization": "normalization at run time is not supported; use BatchNormalization",
    "ConvTranspose": "use a Conv behind repeated values",
    "Attention": "attention is not supported",
}
_QUANTIZED = {
    "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QLinearAdd", "QGemm",
}  # fmt: skip


def unknown(op: str, domain: str) -> Refused:
    """Why an operation is not translated."""
    if domain:
        return Refused(f"the operator {domain}.{op} is not supported: only those of ONNX itself are")
    if op in _QUANTIZED:
        return Refused(f"{op} is not supported; export quantized models as QuantizeLinear and DequantizeLinear",
                       quantization=True)  # fmt: skip
    hint = _HINTS.get(op)
    return Refused(f"{op} is not supported" + (f": {hint}" if hint else ""))
