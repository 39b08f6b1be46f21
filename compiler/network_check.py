"""What must hold in a network before anyone believes a size in it."""

from __future__ import annotations

from collections import Counter

from compiler.errors import ImageError, ModelError
from compiler.graph.integer import everywhere, verify_integer
from compiler.graph.ir import Graph, Type
from compiler.image.check import check
from compiler.network import Network
from compiler.network_cost import check_cost

__all__ = ["check_network"]


def check_network(network: Network) -> None:
    """Check graph, images, and that both agree.

    Raises
    ------
    ImageError
        Naming the first thing that is wrong.
    """
    for number, image in enumerate(network.images):
        if image.params != network.params:
            raise ImageError(f"image {number} was made for another array than the network")
        if image.options != network.options:
            raise ImageError(f"image {number} was made with other options than the first")
        try:
            check(image)
        except ImageError as e:
            raise ImageError(f"image {number}: {e}" if len(network.images) > 1 else str(e)) from None
    try:
        verify_integer(network.graph, network.params.acc_bits)
    except ModelError as e:
        raise ImageError(f"the graph is not well-formed: {e}") from None
    check_cost(network.graph)
    parts = [node for node in network.graph if node.op == "Array"]
    if [node["image"] for node in parts] != list(range(len(network.images))):
        raise ImageError(
            f"the graph runs images {[n['image'] for n in parts]}; expected 0 to {len(network.images) - 1}"
        )
    for node in parts:
        image = network.image(node)
        for what, names, numbers, axes in (
            ("reads", node.inputs, image.inputs, node["reads"]), ("makes", node.outputs, image.outputs, node["makes"]),
        ):  # fmt: skip
            found = [_form(network.types[name], order) for name, order in zip(names, axes, strict=True)]
            maps = [image.maps[number] for number in numbers]
            expected = [(each.channels, each.height, each.width, each.exponent) for each in maps]
            if found != expected:
                raise ImageError(
                    f"{node.name}: it {what} {found} (channels, rows, columns, exponent) in the graph, "
                    f"{expected} in its image"
                )
    _check_names(network)


def _form(kind: Type, axes: str) -> tuple[int, int, int, int]:
    sizes = dict(zip(axes, kind.shape, strict=True))
    return sizes["C"], sizes.get("H", 1), sizes.get("W", 1), kind.exponent or 0


def _check_names(network: Network) -> None:
    """Every value that a run gives has a name of its own: those of the graph, of its loops, and within images."""
    names = _names(network.graph)
    known = set(names)
    if len(known) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ImageError(f"{twice!r} is a value of the graph and one of a loop; expected names of their own")
    for node in network.graph:
        if node.body is not None and (inner := [part.name for part in everywhere(node.body) if part.op == "Array"]):
            raise ImageError(f"{inner[0]} is in a loop ({node.name}); the array runs no part of one")
    for node in (node for node in network.graph if node.op == "Array"):
        image = network.image(node)
        for number, each in enumerate(image.maps):
            if number in image.inputs or (number in image.outputs and each.name in node.outputs):
                continue
            if each.name in known:
                raise ImageError(
                    f"image {node['image']} has a map {each.name!r}, and the network another value of that name"
                )
            known.add(each.name)


def _names(graph: Graph) -> list[str]:
    """The values of a graph; those in the body of a Scan as "scan/value"."""
    names = [name for node in graph for name in node.outputs]
    for node in graph:
        if node.body is not None:
            names += [f"{node.name}/{name}" for name in _names(node.body)]
    return names
