"""The kit's front door: `compile`, `run` and `Image`, and the command line in `eie.cli`.

The work is done in the packages `compiler`, `sim` and `hw`; this one only names it. Nothing heavy is imported
until it is used, so that ``import eie`` and ``eie --help`` are immediate, and so that torch is needed only
by those who compile torch modules.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from compiler.image.image import Image
    from compiler.ir import Graph
    from hw.params import Params
    from sim.run import Result

__all__ = ["Image", "compile", "run"]


def compile(
    model: Any,
    example_inputs: Any = None,
    params: Params | None = None,
    calibration: ArrayLike | None = None,
) -> Image:
    """Compile a network for an array.

    Parameters
    ----------
    model : a ``torch.nn.Module`` of Linear and ReLU layers, or a `compiler.ir.Graph` (no torch needed).
    example_inputs : tensor (batch, inputs), or a tuple holding it, for ``torch.export``; not used for a graph.
    params : the array; 16 PEs if not given (see `hw.params.PRESETS`).
    calibration : float (n, inputs): fixed-point ranges are chosen on it; int16: inputs are raw integers.
        Without it the example inputs of a torch module calibrate.

    Returns
    -------
    Image
        What ``Image.save`` writes as an ``.eie`` file.

    Raises
    ------
    EieError
        The model has unsupported operations (all are listed), or does not fit the array.
    """
    import numpy as np

    from compiler.ir import Graph
    from compiler.lower.pipeline import compile_graph
    from hw.params import Params

    graph: Graph
    if isinstance(model, Graph):
        graph = model
    else:
        from compiler.frontend.torch_export import from_torch

        inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
        graph = from_torch(model, inputs)
        if calibration is None:
            calibration = inputs[0].detach().cpu().flatten(1).numpy()
    data = None if calibration is None else np.asarray(calibration)
    return compile_graph(graph, params if params is not None else Params(), data)


def run(image: Image | str | Path, x: ArrayLike, engine: str = "rtl", **options: Any) -> Result:
    """Run a batch on the golden model, the cycle model or the hardware.

    Parameters
    ----------
    image : the compiled network, or the path of its ``.eie`` file.
    x : (batch, inputs); int16 is taken raw, float is quantized at the image's input exponent.
    engine : "golden", "cycles", "rtl" (Verilog in Verilator) or "amaranth" (Amaranth's own simulator).
    options : `waves`, `trace` and `progress` of `sim.run.run`.

    Returns
    -------
    Result
        Every layer's outputs in the network's own neuron order, with cycles and counters.

    Raises
    ------
    EieError
        Image or input is wrong, or a tool is missing.
    """
    import numpy as np

    from compiler.image.image import Image
    from sim.run import run as run_engine

    loaded = image if isinstance(image, Image) else Image.load(Path(image))
    return run_engine(loaded, np.asarray(x), engine=engine, **options)


def __getattr__(name: str) -> Any:
    if name == "Image":
        from compiler.image.image import Image

        return Image
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
