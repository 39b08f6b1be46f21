"""The kit's public API: `compile`, `cost`, `run`, `load` and `save`, and the command line in `eie.cli`.

The work is done in the packages `compiler`, `sim` and `hw`; this one only names it. Nothing heavy is imported
until it is used, so that ``import eie`` and ``eie --help`` are immediate, and so that torch is needed only
by those who compile torch modules.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compiler.errors import EieError
    from compiler.graph.ir import Graph
    from compiler.network import Network
    from compiler.options import Options
    from hw.params import Params
    from sim.cost import Cost
    from sim.network import NetworkResult

__all__ = ["EieError", "compile", "cost", "load", "run", "save"]


def compile(
    model: Any,
    example_inputs: Any = None,
    params: Params | str | None = None,
    calibration: Any = None,
    options: Options | None = None,
) -> Network:
    """Compile a network for an array.

    Parameters
    ----------
    model : a ``torch.nn.Module``, the path of an ``.onnx`` file, or a `compiler.graph.ir.Graph` (no torch needed).
    example_inputs : tensor (batch, …), or a tuple of them, for ``torch.export``; for a module only.
    params : the array, or the name of one of `hw.params.PRESETS`; 16 PEs if not given.
    calibration : float (n, …): fixed-point ranges are chosen on it; int16: inputs are raw integers; a tuple for
        several inputs. Without it the example inputs of a torch module calibrate.
    options : how the compiler lays the network out; those of the preset if not given.

    Returns
    -------
    Network
        What `save` writes as an ``.eie`` file. Operators that the array cannot run yet are its ``host``.

    Raises
    ------
    EieError
        The model has unsupported operations (all are listed), or does not fit the array.
    """
    from compiler.lower.pipeline import compile_graph

    graph, arrays = _read(model, example_inputs, calibration)
    array, settled = _array(params, options)
    return compile_graph(graph, array, arrays, settled)


def cost(
    model: Any,
    params: Params | str | None = None,
    calibration: Any = None,
    samples: Any = None,
    example_inputs: Any = None,
    options: Options | None = None,
) -> Cost:
    """What a network costs on an array: cycles, energy and bytes of one sample, by layer; exact, and kept by content.

    Parameters
    ----------
    model, params, calibration, example_inputs, options : as for `compile`; calibration data or example inputs there
        must be.
    samples : inputs (n, …) that are run, as one batch; the first 8 of the calibration data if not given.

    Returns
    -------
    Cost
        ``cycles`` are those of the hardware, by the exact cycle model; see `sim.cost`.

    Raises
    ------
    EieError
        As `compile`.
    """
    import numpy as np

    from compiler.errors import InputError
    from compiler.source import fit
    from sim.cost import cost as cost_of

    graph, arrays = _read(model, example_inputs, calibration)
    if arrays is None:
        raise InputError("no calibration data; expected inputs (n, …), since cycles depend on the zeros in them")
    given = None
    if samples is not None:
        given = fit(graph, tuple(np.asarray(x) for x in (samples if isinstance(samples, tuple) else (samples,))))
    array, settled = _array(params, options)
    return cost_of(graph, array, arrays, given, options=settled)


def _read(model: Any, example_inputs: Any, calibration: Any) -> tuple[Graph, tuple[Any, ...] | None]:
    """The float graph of a network after its passes, and its calibration data if there is any."""
    import numpy as np

    from compiler.graph.ir import Graph
    from compiler.source import fit, from_module, load, rewrite

    given = None
    if calibration is not None:
        given = tuple(np.asarray(x) for x in (calibration if isinstance(calibration, tuple) else (calibration,)))
    if isinstance(model, Graph):
        graph = rewrite(model)
    elif isinstance(model, (str, Path)):
        graph = load(str(model), data=given).graph
    else:
        inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
        graph = from_module(model, inputs).graph
        if given is None:
            given = tuple(tensor.detach().cpu().numpy() for tensor in inputs)
    return graph, None if given is None else fit(graph, given)


def _array(params: Params | str | None, options: Options | None) -> tuple[Params, Options]:
    """The array that is meant, and how the compiler lays networks out for it."""
    from compiler.errors import InputError
    from compiler.options import DEFAULT, preset_options
    from hw.params import Params, preset

    array = preset(params) if isinstance(params, str) else Params() if params is None else params
    if not isinstance(array, Params):
        raise InputError(f"params is a {type(params).__name__}; expected hw.params.Params, or the name of a preset")
    if options is None:
        options = preset_options(params) if isinstance(params, str) else DEFAULT
    return array, options


def run(network: Network | str | Path, x: Any, engine: str = "rtl", **options: Any) -> NetworkResult:
    """Run a batch on the golden model, the cycle model or the hardware.

    Parameters
    ----------
    network : the compiled network, or the path of its ``.eie`` file.
    x : (batch, …); int16 is taken raw, float is quantized at the network's input exponent; for several inputs a
        tuple, or a mapping from their names.
    engine : "golden", "cycles", "rtl" (Verilog in Verilator), "amaranth" (Amaranth's own simulator) or "board" (an
        accelerator behind a port).
    options : `waves`, `seed`, `port` and `progress` of `sim.network.run_network`.

    Returns
    -------
    NetworkResult
        Every value of the network, with cycles and counters.

    Raises
    ------
    EieError
        Network or input is wrong, or a tool is missing.
    """
    from compiler.network_file import load
    from sim.network import run_network

    loaded = load(Path(network)) if isinstance(network, (str, Path)) else network
    return run_network(loaded, x, engine=engine, **options)


def load(path: str | Path) -> Network:
    """The network in an ``.eie`` file. Raises `EieError` if it is none, damaged, or contradicts itself."""
    from compiler.network_file import load as load_network

    return load_network(path)


def save(network: Network, path: str | Path) -> None:
    """Write a network as an ``.eie`` file, whole or not at all."""
    from compiler.network_file import save as save_network

    save_network(network, path)


def __getattr__(name: str) -> Any:
    if name == "EieError":
        from compiler.errors import EieError

        return EieError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
