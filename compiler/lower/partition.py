"""Which parts of an integer graph the array computes: chains of Linear, each as one `Array` node.

What is left over runs on the host: the array has no hardware for it yet.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from compiler.graph.ir import Graph, Node
from compiler.lower.chain import Chain, QuantizedLayer
from hw.params import Params

__all__ = ["Partition", "partition"]


@dataclass(frozen=True, eq=False)
class Partition:
    """A graph in which each chain that the array computes is one node, and these chains.

    Attributes
    ----------
    graph : the integer graph with `Array` nodes; attribute `image` is the number of the chain.
    chains : the layers of each.
    """

    graph: Graph
    chains: tuple[Chain, ...]


def partition(graph: Graph, params: Params) -> Partition:
    """Cut the longest chains of Linear out of a verified integer graph.

    A chain goes on while a value has one reader, which is a Linear again, and there are codebooks left. The body of a
    Scan stays on the host: its state would have to leave the array at every step.
    """
    uses = Counter(name for node in graph for name in node.inputs)
    readers = {name: node for node in graph for name in node.inputs}
    taken: set[str] = set()
    nodes: list[Node] = []
    chains: list[Chain] = []
    for node in graph:
        if node.op != "Linear":
            nodes.append(node)
            continue
        if node.name in taken:
            continue
        run = [node]
        while len(run) < params.codebooks and uses[run[-1].output] == 1 and readers[run[-1].output].op == "Linear":
            run.append(readers[run[-1].output])
        taken.update(layer.name for layer in run)
        chain = Chain(tuple(_layer(layer) for layer in run), params)
        chain.verify()
        chains.append(chain)
        attributes = {
            "image": len(chains) - 1, "layers": len(run), "width": len(run[-1].tensors["bias"]),
            "exponent": run[-1]["exponent"],
        }  # fmt: skip
        name = run[0].name if len(run) == 1 else f"{run[0].name}…{run[-1].name}"
        nodes.append(Node(name, "Array", node.inputs, attributes, outputs=run[-1].outputs, source=node.source))
    return Partition(Graph(tuple(nodes)), tuple(chains))


def _layer(node: Node) -> QuantizedLayer:
    shift, weight_exponent, exponent = node["shift"], node["weight_exponent"], node["exponent"]
    return QuantizedLayer(
        name=node.name,
        codes=node.tensors["codes"],
        codebook=node.tensors["codebook"],
        weight_exponent=weight_exponent,
        bias=np.asarray(node.tensors["bias"], np.int64),
        shift=shift,
        activation=node["activation"],
        input_exponent=exponent - weight_exponent - shift,
        output_exponent=exponent,
        exact=node["exact"],
        fold=node["fold"],
    )
