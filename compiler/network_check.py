"""What must hold in a network before anyone believes a size in it."""

from __future__ import annotations

from compiler.errors import ImageError, ModelError
from compiler.graph.integer import verify_integer
from compiler.image.check import check
from compiler.network import Network

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
    parts = [node for node in network.graph if node.op == "Array"]
    if [node["image"] for node in parts] != list(range(len(network.images))):
        raise ImageError(
            f"the graph runs images {[n['image'] for n in parts]}; expected 0 to {len(network.images) - 1}"
        )
    for node in parts:
        image = network.image(node)
        before, after = network.types[node.inputs[0]], network.types[node.output]
        expected = (image.inputs, image.input_exponent, image.outputs, image.output_exponent, len(image.layers))
        found = (before.shape[-1], before.exponent, after.shape[-1], after.exponent, node["layers"])
        if found != expected:
            raise ImageError(
                f"{node.name}: widths, exponents and layers are {found} in the graph, {expected} in its image"
            )
