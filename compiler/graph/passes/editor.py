"""A graph that is being rewritten: who makes and who reads each value stays known while nodes are exchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from weakref import WeakKeyDictionary

from compiler.errors import ModelError
from compiler.graph.ir import Graph, Node, Type, unique
from compiler.graph.operators import made_by, types

__all__ = ["Editor", "Rule", "rewrite", "verified"]

MAX_SWEEPS = 1000
"""Far more than any network needs: beyond, a rule undoes what it did."""


_VERIFIED: WeakKeyDictionary[Graph, dict[str, Type]] = WeakKeyDictionary()


def verified(graph: Graph) -> Mapping[str, Type]:
    """The types of a graph, which is verified the first time: that reads every weight, and most passes change none.

    Raises
    ------
    ModelError
        As `compiler.graph.operators.verify`.
    """
    if graph not in _VERIFIED:
        _VERIFIED[graph] = types(graph)
    return _VERIFIED[graph]


class Editor:
    """The nodes of a verified graph, and an index over them.

    Attributes
    ----------
    nodes : by name.
    types : of every value.
    makers : value → the node that makes it.
    readers : value → the nodes that read it, once for each time they do.
    """

    def __init__(self, graph: Graph) -> None:
        self.nodes: dict[str, Node] = {}
        self.types: dict[str, Type] = dict(verified(graph))
        self.makers: dict[str, Node] = {}
        self.readers: dict[str, list[Node]] = {}
        self._ends = {op: [node.name for node in graph if node.op == op] for op in ("Input", "Output")}
        for node in graph:
            self._index(node)

    def _index(self, node: Node) -> None:
        self.nodes[node.name] = node
        for value in node.outputs:
            self.makers[value] = node
            self.readers.setdefault(value, [])
        for value in node.inputs:
            self.readers.setdefault(value, []).append(node)

    def _forget(self, node: Node) -> None:
        del self.nodes[node.name]
        for value in node.outputs:
            del self.makers[value]
        for value in node.inputs:
            self.readers[value].remove(node)

    def shape(self, value: str) -> tuple[int, ...]:
        """Of one sample of a value."""
        return self.types[value].shape

    def maker(self, node: Node, position: int = 0) -> Node:
        """The node that makes what `node` reads."""
        return self.makers[node.inputs[position]]

    def only_reader(self, node: Node) -> Node | None:
        """The node that alone, and once, reads the one value of `node`."""
        if len(node.outputs) != 1 or len(self.readers[node.output]) != 1:
            return None
        return self.readers[node.output][0]

    def feeds_only(self, node: Node, reader: Node) -> bool:
        """Whether what `node` makes is needed nowhere but in `reader`."""
        return self.only_reader(node) is reader

    def name(self, wish: str) -> str:
        """A name for a further node and its value."""
        return unique(wish, self.nodes.keys() | self.types.keys())

    def replace(self, old: Iterable[Node], new: Sequence[Node], renamed: Mapping[str, str] | None = None) -> None:
        """Exchange nodes.

        Parameters
        ----------
        new : in an order in which each reads what is made before it; names may be those of `old`. Nodes that nobody
            reads any more go as well.
        renamed : value that goes → value that its readers read instead.
        """
        old = list(old)
        for node in old:
            self._forget(node)
        for gone, instead in (renamed or {}).items():
            for reader in dict.fromkeys(self.readers[gone]):
                inputs = tuple(instead if value == gone else value for value in reader.inputs)
                self._forget(reader)
                self._index(reader.replace(inputs=inputs))
        for node in new:
            made = made_by(node, [self.types[value] for value in node.inputs])
            self.types.update(zip(node.outputs, made, strict=True))
            self._index(node)
        self._drop_unread(value for node in old for value in node.inputs)

    def _drop_unread(self, values: Iterable[str]) -> None:
        """Nodes that nobody reads would be taken for readers of what they read."""
        waiting = list(values)
        while waiting:
            maker = self.makers.get(waiting.pop())
            if maker is not None and maker.op != "Input" and not any(self.readers[value] for value in maker.outputs):
                self._forget(maker)
                waiting += maker.inputs

    def graph(self) -> Graph:
        """The nodes in an order of computation: Inputs first and Outputs last, each in the order that they had."""
        ends = {op: [self.nodes[name] for name in names] for op, names in self._ends.items()}
        ordered = {node.name: node for node in ends["Input"]}
        inner = [node for node in self.nodes.values() if node.op not in ends]
        for end in inner + ends["Output"]:
            waiting = [end]
            while waiting:
                node = waiting[-1]
                missing = [self.makers[value] for value in node.inputs if self.makers[value].name not in ordered]
                waiting += missing
                if not missing:
                    ordered.setdefault(node.name, waiting.pop())
        outputs = [ordered.pop(node.name) for node in ends["Output"]]
        return Graph((*ordered.values(), *outputs))


Rule = Callable[[Editor, Node], bool]
"""Looks at one node, and at what is around it; rewrites and says so, or leaves all as it is."""


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """Apply a rule to every node until it finds nothing; the graph itself where it never did."""
    editor, changed = Editor(graph), False
    for _ in range(MAX_SWEEPS):
        found = False
        for name in list(editor.nodes):
            node = editor.nodes.get(name)
            if node is not None and rule(editor, node):
                found = changed = True
        if not found:
            break
    else:
        raise ModelError(f"rewriting does not end after {MAX_SWEEPS} sweeps: please report this model")
    return editor.graph() if changed else graph
