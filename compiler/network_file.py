"""The file form of a network, `.eie`: a safetensors container.

Tensors are those of the images (``image.0.entries``) and of the nodes that the host computes (``node.3.table``; in the
body of a Scan ``node.3.body.1.codes``). The one metadata entry ``eie`` is a JSON text with two members, ``header``
(format version, identity, parameters, options, graph, layers and maps of each image, CRC-32 of each tensor) and its
``crc32``.
One entry, because safetensors writes several in no stated order and equal networks shall give equal files.
Nothing in a file is believed before it is checked; what is in it is data and never code.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from compiler.errors import ImageError, OptionsError
from compiler.files import write_file
from compiler.graph.ir import Graph, Node
from compiler.image.image import TENSORS, Image, LayerInfo, MapInfo
from compiler.network import Network
from compiler.network_check import check_network
from compiler.options import Options
from compiler.plain_tensors import MOST_AXES
from hw.layouts import FORMAT_VERSION, identity
from hw.params import LANES, Params, ParamsError

__all__ = ["fill_graph", "graph_tensors", "graph_text", "load", "parse_graph", "save", "to_file"]

_DTYPES = {"U8": np.uint8, "I16": np.int16, "I32": np.int32, "I64": np.int64}
_HEADER = {"format", "identity", "params", "options", "graph", "images", "crc32"}
_NODE = {"name", "op", "inputs", "outputs", "attributes", "tensors", "body", "source"}
_MAX_DEPTH = 4
"""Scans within scans; deeper is no network."""


def save(network: Network, path: str | Path) -> None:
    """Write a network; `path` holds either the whole new file or what it held before.

    Raises
    ------
    ImageError
        The network does not verify, or the file cannot be written.
    """
    content = to_file(network)
    try:
        write_file(Path(path), content)
    except OSError as e:
        raise ImageError(f"{path}: cannot be written ({e.strerror})") from None


def to_file(network: Network) -> bytes:
    """The bytes of a network's file. Raises `ImageError` if it does not verify."""
    check_network(network)
    tensors: dict[str, NDArray[Any]] = {}
    for number, image in enumerate(network.images):
        tensors.update({f"image.{number}.{name}": getattr(image, name) for name in TENSORS})
    graph = _write_graph(network.graph, "node", tensors)
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    header = {
        "format": FORMAT_VERSION,
        "identity": network.identity,
        "params": network.params.stored(),
        "options": network.options.stored(),
        "graph": graph,
        "images": [_write_image(image) for image in network.images],
        "crc32": {name: _crc(tensor) for name, tensor in tensors.items()},
    }
    text = json.dumps({"header": header, "crc32": _header_crc(header)}, sort_keys=True)
    return to_bytes(tensors, metadata={"eie": text})


def graph_text(graph: Graph) -> bytes:
    """A graph without the values of its tensors as the header has it. Read it with `parse_graph`."""
    return json.dumps(_write_graph(graph, "node", {}), sort_keys=True, separators=(",", ":")).encode()


def graph_tensors(graph: Graph) -> dict[str, NDArray[Any]]:
    """The tensors of a graph by the names that they have in a file."""
    tensors: dict[str, NDArray[Any]] = {}
    _write_graph(graph, "node", tensors)
    return tensors


def parse_graph(text: bytes) -> tuple[Graph, tuple[str, ...]]:
    """The graph of `graph_text` with empty tensors, and their names. Raises `ImageError` if it is none."""
    try:
        nodes = json.loads(text)
        listed: dict[str, None] = {}
        return _read_graph(nodes, "node", listed), tuple(listed)
    except (ValueError, RecursionError) as e:
        raise ImageError(f"the graph is not readable ({e})") from None


def fill_graph(graph: Graph, tensors: Mapping[str, NDArray[Any]]) -> Graph:
    """A graph of `parse_graph` with its tensors."""
    return _fill(graph, "node", tensors)


def load(path: str | Path, params: Params | None = None) -> Network:
    """Read and check a network.

    Parameters
    ----------
    path : a file that `save` wrote.
    params : the array that shall run it; None takes any.

    Raises
    ------
    ImageError
        The file is not a network, is damaged, contradicts itself, or was made for other parameters or layouts.
    """
    path = Path(path)
    if not path.exists():
        raise ImageError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            network = _read(file, _read_header(file.metadata()), params)
    except (OSError, SafetensorError) as e:
        raise ImageError(f"{path}: not a readable network ({e}); expected an .eie file of `eie compile`") from None
    except RecursionError:
        raise ImageError(f"{path}: the header is nested too deeply for a network") from None
    except ImageError as e:
        raise ImageError(f"{path}: {e}") from None
    return network


def _read(file: Any, header: dict[str, Any], params: Params | None) -> Network:
    found, options = _params(header), _options(header)
    if params is not None and found != params:
        theirs, ours = found.asdict(), params.asdict()
        differing = ", ".join(f"{n} {theirs[n]} here, {ours[n]} there" for n in ours if ours[n] != theirs[n])
        raise ImageError(f"made for {identity(found)}, the array is {identity(params)} ({differing}): compile it again")
    if not isinstance(header["images"], list) or len(header["images"]) > 1 << 12:
        raise ImageError("the list of images is not a list of at most 4096")
    described = [_read_image(entry) for entry in header["images"]]
    expected = {f"image.{number}.{name}" for number in range(len(described)) for name in TENSORS}
    listed: dict[str, None] = {}
    graph = _read_graph(header["graph"], "node", listed)
    names = set(file.keys())
    if names != expected | set(listed):
        missing, more = sorted((expected | set(listed)) - names), sorted(names - expected - set(listed))
        raise ImageError(f"the header and the tensors differ: missing {missing[:5]}, not in the header {more[:5]}")
    tensors = {name: _tensor(file, name, header["crc32"]) for name in sorted(names)}
    images = []
    for number, fields in enumerate(described):
        parts: dict[str, Any] = {name: tensors[f"image.{number}.{name}"] for name in TENSORS}
        for name, (dtype, dimensions) in TENSORS.items():
            if parts[name].dtype != _DTYPES[dtype] or parts[name].ndim != dimensions:
                given = f"{parts[name].dtype} {parts[name].shape}"
                raise ImageError(f"image.{number}.{name} is {given}; expected {dtype}, {dimensions} dimensions")
        images.append(Image(found, **fields, **parts, options=options))
    network = Network(found, _fill(graph, "node", tensors), tuple(images))
    check_network(network)
    return network


def _tensor(file: Any, name: str, stated: Mapping[str, Any]) -> NDArray[Any]:
    part = file.get_slice(name)
    form = part.get_dtype()
    if len(part.get_shape()) > MOST_AXES:
        raise ImageError(f"{name} has more than {MOST_AXES} axes; no tensor of a network does")
    if form not in _DTYPES:
        raise ImageError(f"{name} is {form}; expected one of {', '.join(_DTYPES)}")
    try:
        tensor: NDArray[Any] = file.get_tensor(name)
    except ValueError as error:  # without elements an axis may be longer than numpy counts
        raise ImageError(f"{name} has the shape {part.get_shape()}: {error}") from None
    crc = _crc(tensor)
    if crc != stated.get(name):
        raise ImageError(f"{name} is damaged: CRC-32 {crc}, the header states {stated.get(name)}")
    return tensor


def _write_graph(graph: Graph, prefix: str, tensors: dict[str, NDArray[Any]]) -> list[dict[str, Any]]:
    """Nodes as JSON; their tensors go into `tensors`."""
    written = []
    for number, node in enumerate(graph):
        where = f"{prefix}.{number}"
        tensors.update({f"{where}.{name}": tensor for name, tensor in node.tensors.items()})
        written.append({
            "name": node.name, "op": node.op, "inputs": node.inputs, "outputs": node.outputs, "source": node.source,
            "attributes": dict(node.attributes), "tensors": sorted(node.tensors),
            "body": None if node.body is None else _write_graph(node.body, f"{where}.body", tensors),
        })  # fmt: skip
    return written


def _read_graph(nodes: Any, prefix: str, listed: dict[str, None], depth: int = 0) -> Graph:
    """Nodes without their tensors, whose names go into `listed`."""
    if not isinstance(nodes, list) or depth > _MAX_DEPTH:
        raise ImageError("the graph is not a list of nodes")
    read = []
    for number, entry in enumerate(nodes):
        if not isinstance(entry, dict) or set(entry) != _NODE:
            raise ImageError(f"a node is described by {entry!r:.200}; expected {', '.join(sorted(_NODE))}")
        texts = [entry["name"], entry["op"], entry["source"], *_list(entry["inputs"]), *_list(entry["outputs"])]
        tensors = _list(entry["tensors"])
        if not all(isinstance(text, str) for text in [*texts, *tensors]) or not isinstance(entry["attributes"], dict):
            raise ImageError(f"a node is described by {entry!r:.200}: a name is not a text")
        where = f"{prefix}.{number}"
        listed.update(dict.fromkeys(f"{where}.{name}" for name in tensors))
        body = entry["body"]
        read.append(
            Node(
                entry["name"], entry["op"], tuple(entry["inputs"]),
                {key: _plain(value) for key, value in entry["attributes"].items()},
                dict.fromkeys(tensors, np.zeros(0)),
                None if body is None else _read_graph(body, f"{where}.body", listed, depth + 1),
                tuple(entry["outputs"]), entry["source"],
            )
        )  # fmt: skip
    return Graph(tuple(read))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ImageError(f"a node has {value!r:.80}; expected a list of names")
    return value


def _plain(value: Any) -> Any:
    """An attribute: a number, a text, or a tuple of them."""
    parts = value if isinstance(value, list) else [value]
    if any(part is None or isinstance(part, (dict, list)) for part in parts):
        raise ImageError(f"an attribute is {value!r:.80}; expected numbers, texts or lists of them")
    return tuple(value) if isinstance(value, list) else value


def _fill(graph: Graph, prefix: str, tensors: Mapping[str, NDArray[Any]]) -> Graph:
    """The graph with its tensors."""
    return Graph(
        tuple(
            node.replace(
                tensors={name: tensors[f"{prefix}.{number}.{name}"] for name in node.tensors},
                body=None if node.body is None else _fill(node.body, f"{prefix}.{number}.body", tensors),
            )
            for number, node in enumerate(graph)
        )
    )


def _crc(tensor: NDArray[Any]) -> str:
    return f"{zlib.crc32(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data):08x}"


def _header_crc(header: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(header, sort_keys=True).encode()):08x}"


def _read_header(metadata: dict[str, str] | None) -> dict[str, Any]:
    text = (metadata or {}).get("eie")
    if text is None:
        raise ImageError("a safetensors file, but no compiled network: it has no `eie` metadata")
    try:
        outer = json.loads(text)
        header = outer["header"]
        crc = _header_crc(header)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ImageError("the header is not what a network has") from None
    if not isinstance(header, dict):
        raise ImageError("the header is not what a network has")
    if header.get("format") != FORMAT_VERSION:
        raise ImageError(f"format version {header.get('format')!r}; this kit reads {FORMAT_VERSION}: compile it again")
    if set(header) != _HEADER:
        raise ImageError("the header is not what a network has")
    if crc != outer.get("crc32"):
        raise ImageError(f"the header is damaged: CRC-32 {crc}, the file states {outer.get('crc32')!r}")
    if not isinstance(header["crc32"], dict):
        raise ImageError("the header is not what a network has")
    return header


def _params(header: dict[str, Any]) -> Params:
    try:
        params = Params.from_dict(header["params"])
    except (ParamsError, TypeError) as e:
        raise ImageError(f"its parameters are not legal ({e})") from None
    if identity(params) != header["identity"]:
        raise ImageError(
            f"identity {header['identity']!r}, this kit gives its parameters {identity(params)!r}: compile it again"
        )
    return params


def _options(header: dict[str, Any]) -> Options:
    try:
        return Options.from_dict(header["options"])
    except (OptionsError, AttributeError, TypeError) as e:
        raise ImageError(f"its options are not legal ({e})") from None


_NOT_INTEGER: dict[str, type] = {
    "name": str, "axes": str, "exact": bool,
    **dict.fromkeys(("sources", "parts", "other", "windows", "pool", "rates"), list),
}  # fmt: skip
"""Fields of layers and maps that are no integers."""

_MOST_RATES = LANES * 0xFFFF  # channels of a map, which are vectors that a descriptor counts in 16 bits
_IMAGE = {"layers", "maps", "inputs", "outputs", "frame"}


def _write_image(image: Image) -> dict[str, Any]:
    return {
        "layers": [_without_nothing(dataclasses.asdict(layer)) for layer in image.layers],
        "maps": [dataclasses.asdict(each) for each in image.maps],
        "inputs": image.inputs, "outputs": image.outputs, "frame": image.frame,
    }  # fmt: skip


_LATER: dict[str, tuple[int, ...]] = {"rates": ()}
"""Fields that files lack where they hold no more than this: they were written before there was such a field."""


def _without_nothing(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in _LATER or value != _LATER[name]}


def _read_image(entry: Any) -> dict[str, Any]:
    """What the header says about an image, as fields of `Image`."""
    if not isinstance(entry, dict) or set(entry) != _IMAGE:
        raise ImageError(f"an image is described by {entry!r:.200}; expected {', '.join(sorted(_IMAGE))}")
    if type(entry["frame"]) is not int:
        raise ImageError(f"frame of an image is {entry['frame']!r:.80}")
    return {
        "layers": tuple(_described(LayerInfo, each, "layer") for each in _listed(entry["layers"], "layers")),
        "maps": tuple(_described(MapInfo, each, "map") for each in _listed(entry["maps"], "maps")),
        "inputs": _numbers(entry["inputs"], "inputs"),
        "outputs": _numbers(entry["outputs"], "outputs"),
        "frame": entry["frame"],
    }


def _listed(value: Any, what: str) -> list[Any]:
    most = _MOST_RATES if what == "rates" else 1 << 16
    if not isinstance(value, list) or len(value) > most:
        raise ImageError(f"the list of {what} is not a list of at most {most}")
    return value


def _numbers(value: Any, what: str) -> tuple[int, ...]:
    if not all(type(number) is int for number in _listed(value, what)):
        raise ImageError(f"{what} are {value!r:.80}; expected integers")
    return tuple(value)


def _described(kind: type[Any], entry: Any, what: str) -> Any:
    names = [field.name for field in dataclasses.fields(kind)]
    later: dict[str, Any] = {name: list(value) for name, value in _LATER.items() if name in names}
    if not isinstance(entry, dict) or {*entry, *later} != set(names):
        raise ImageError(f"a {what} is described by {entry!r:.200}; expected {', '.join(names)}")
    entry = {**later, **entry}
    for name in names:
        if type(entry[name]) is not _NOT_INTEGER.get(name, int):
            raise ImageError(f"{name} of a {what} is {entry[name]!r:.80}")
    numbers = {name: _numbers(entry[name], name) for name in names if isinstance(entry[name], list)}
    return kind(**{**entry, **numbers})
