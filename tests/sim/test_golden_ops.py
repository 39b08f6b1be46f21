"""The golden model of a graph against Python's unbounded integers, number by number, for every operator."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from compiler.graph.integer import INTEGER
from compiler.graph.ir import Graph, Node
from sim import golden, golden_ops

ACC_BITS = 40
BATCH = 3
HOST = {"Input", "Constant", "Output", "Scan", "Array"}
"""Rows of the table that are not operators of numbers; Scan has a test of its own."""


def raw(rng: np.random.Generator, *shape: int) -> Any:
    """int16 values with both ends, zeros and small numbers among them."""
    values = rng.integers(-32768, 32768, shape)
    ends = rng.choice([-32768, -32767, -1, 0, 1, 32767], shape)
    return np.where(rng.random(shape) < 0.4, ends, values).astype(np.int16)


def finished(total: int, shift: int, activation: str) -> tuple[int, bool]:
    """Write-back of one exact sum."""
    if activation == "relu":
        total = max(total, 0)
    rounded = (total + (2 ** (shift - 1) if shift else 0)) // 2**shift
    return max(-32768, min(32767, rounded)), not -32768 <= rounded <= 32767


def wrapped(total: int) -> int:
    return (total + 2 ** (ACC_BITS - 1)) % 2**ACC_BITS - 2 ** (ACC_BITS - 1)


def places(node: Node, x: Any, kernel: tuple[int, ...], at: tuple[int, ...]) -> list[tuple[tuple[int, ...], Any]]:
    """Taps of a window: their places in the kernel, and in the map or None outside."""
    axes = len(kernel)
    taps = []
    for tap in itertools.product(*(range(k) for k in kernel)):
        where = [
            at[n] * node["stride"][n] + tap[n] * node["dilation"][n] - node["padding"][n] for n in range(axes)
        ]  # fmt: skip
        inside = all(0 <= w < size for w, size in zip(where, x.shape[-axes:], strict=True))
        taps.append((tap, tuple(where) if inside else None))
    return taps


def windows(node: Node, shape: tuple[int, ...], kernel: tuple[int, ...]) -> Any:
    """Places of all windows on a map."""
    counts = []
    for n, size in enumerate(shape):
        room = size + node["padding"][n] + node["padding"][n + len(shape)]
        counts.append((room - (node["dilation"][n] * (kernel[n] - 1) + 1)) // node["stride"][n] + 1)
    return counts


def reference(node: Node, reads: list[Any]) -> tuple[list[int], tuple[int, ...], int]:
    """Results of one sample in order, their shape, and how many saturated."""
    x = reads[0].astype(object)
    tensors = {name: tensor.astype(object) for name, tensor in node.tensors.items()}
    a, made, clipped = node.attributes, [], 0

    def put(total: int, shift: int | None = None, activation: str = "none") -> None:
        nonlocal clipped
        value, over = (total, False) if shift is None else finished(total, shift, activation)
        made.append(value)
        clipped += over

    shape = x.shape
    if node.op == "Linear":
        for row in x.reshape(-1, shape[-1]):
            for codes, bias in zip(node.tensors["codes"], tensors["bias"], strict=True):
                total = sum(tensors["codebook"][c] * v for c, v in zip(codes, row, strict=True)) + bias
                put(wrapped(total), a["shift"], a["activation"])
        shape = (*shape[:-1], len(tensors["bias"]))
    elif node.op in ("Conv", "MaxPool", "AveragePool"):
        kernel = node.tensors["codes"].shape[2:] if node.op == "Conv" else a["kernel"]
        counts = windows(node, shape[1:], kernel)
        channels = len(tensors["bias"]) if node.op == "Conv" else shape[0]
        for channel in range(channels):
            for at in itertools.product(*map(range, counts)):
                taps = places(node, x, kernel, at)
                if node.op == "Conv":
                    codes = node.tensors["codes"][channel]
                    first = channel // (channels // a["groups"]) * len(codes)
                    total = sum(
                        tensors["codebook"][codes[c][tap]] * x[first + c][where]
                        for c in range(len(codes)) for tap, where in taps if where is not None
                    )  # fmt: skip
                    put(wrapped(total + tensors["bias"][channel]), node.tensors["shift"][channel], a["activation"])
                elif node.op == "MaxPool":
                    put(max(x[channel][where] for _, where in taps if where is not None))
                else:
                    total = sum(x[channel][where] for _, where in taps if where is not None)
                    put(total * a["weight"], a["shift"])
        shape = (channels, *counts)
    elif node.op == "Accumulate":
        maps = "conv" in a["kinds"]
        parts = [by_itself(node, n, values) for n, values in enumerate(reads)]
        shape = parts[0].shape
        for at in np.ndindex(shape):
            row = at[0 if maps else -1]
            total = sum(part[at] for part in parts) + tensors["bias"][row]
            put(wrapped(total), node.tensors["shift"][row], a["activation"])
    elif node.op == "Affine":
        scale, offset = (np.broadcast_to(tensors[name], shape) for name in ("scale", "offset"))
        for v, s, o in zip(x.flat, scale.flat, offset.flat, strict=True):
            put(v * s + o, a["shift"], a["activation"])
    elif node.op in ("Add", "Multiply"):
        for v, w in zip(x.flat, reads[1].astype(object).flat, strict=True):
            put(v + w if node.op == "Add" else v * w, a["shift"], a["activation"])
    elif node.op == "Shift":
        for v in x.flat:
            put(v * 2 ** a["left"], a["right"])
    elif node.op == "Clamp":
        for v in x.flat:
            put(max(a["low"], min(a["high"], v)))
    elif node.op == "Table":
        for v in x.flat:
            place, _ = finished(v * 2 ** a["left"], a["right"], "none")
            piece, part = (place + 32768) // 128, (place + 32768) % 128
            start, end = tensors["table"][piece], tensors["table"][piece + 1]
            put(start + ((end - start) * part + 64) // 128)
    elif node.op == "Gather":
        for v in x.flat:
            made.extend(tensors["table"][v])
        shape = (*shape, tensors["table"].shape[1])
    elif node.op == "Indices":
        made.extend(int(v) for v in x.flat)
        shape = (*shape, 1)
    else:
        moved = {
            "Concat": lambda: np.concatenate(reads, axis=a["axis"]),
            "Reshape": lambda: reads[0].reshape(a["shape"]),
            "Transpose": lambda: reads[0].transpose(a["order"]),
            "Slice": lambda: np.stack(
                [np.moveaxis(reads[0], a["axis"], 0)[n] for n in range(a["begin"], a["end"], a["step"])], a["axis"]
            ),
            "Pad": lambda: np.pad(reads[0], list(zip(a["before"], a["after"], strict=True))),
        }[node.op]()
        if a.get("drop"):
            moved = moved.squeeze(a["axis"])
        made, shape = moved.reshape(-1).tolist(), moved.shape
    return made, tuple(shape), clipped


def by_itself(node: Node, n: int, values: Any) -> Any:
    """The exact sums of one segment of an Accumulate, as Python's integers."""
    a, x = node.attributes, values.astype(object)
    if a["kinds"][n] == "identity":
        return x * a["weights"][n]
    weight = node.tensors[f"codebook{n}"].astype(object)[node.tensors[f"codes{n}"]]
    if a["kinds"][n] == "linear":
        made = [
            sum(w * v for w, v in zip(row, place, strict=True))
            for place in x.reshape(-1, x.shape[-1])
            for row in weight
        ]
        return np.array(made, object).reshape(*x.shape[:-1], len(weight))
    axes, kernel = x.ndim - 1, weight.shape[2:]
    window = Node("window", "Conv", (), {
        "stride": a["strides"][n * axes :][:axes], "dilation": a["dilations"][n * axes :][:axes],
        "padding": a["paddings"][2 * n * axes :][: 2 * axes],
    })  # fmt: skip
    counts = windows(window, x.shape[1:], kernel)
    sums = np.zeros((len(weight), *counts), object)
    for row, filters in enumerate(weight):
        first = row // (len(weight) // a["group_counts"][n]) * len(filters)
        for at in itertools.product(*map(range, counts)):
            taps = [(tap, where) for tap, where in places(window, x, kernel, at) if where is not None]
            sums[(row, *at)] = sum(
                channel[tap] * x[first + c][where] for c, channel in enumerate(filters) for tap, where in taps
            )
    return sums


def differences(node: Node, reads: list[Any]) -> str:
    """How the golden model differs from the reference on a batch; empty if it does not."""
    inputs = [
        Node(f"x{n}", "Input", (), {"shape": x.shape[1:], "kind": "index" if x.dtype == np.int64 else "real"})
        for n, x in enumerate(reads)
    ]
    node = node.replace(inputs=tuple(f"x{n}" for n in range(len(reads))))
    found = golden.run_graph([*inputs, node], reads, ACC_BITS)[node.name]
    for sample in range(len(reads[0])):
        made, shape, clipped = reference(node, [x[sample] for x in reads])
        if found.raw.dtype != np.int16 or found.raw[sample].shape != shape:
            return f"{found.raw.dtype} {found.raw[sample].shape}, expected {shape}"
        if found.raw[sample].reshape(-1).tolist() != made:
            return "values"
        if int(found.saturated[sample]) != clipped:
            return f"{found.saturated[sample]} saturated, expected {clipped}"
    return ""


def shift_of(rng: np.random.Generator) -> int:
    return int(rng.choice([0, 1, 31, *rng.integers(2, 31, 3)]))


def sizes(rng: np.random.Generator) -> tuple[int, ...]:
    """A map or a row of one: 1×1, narrow, or a few pixels."""
    axes = int(rng.integers(1, 3))
    return (1,) * axes if rng.random() < 0.2 else tuple(int(n) for n in rng.integers(1, 6, axes))


def window(rng: np.random.Generator, size: tuple[int, ...]) -> dict[str, Any]:
    """A window with its padding; as large as the map, stepping further than itself, dilated, in turn."""
    whole = rng.random() < 0.2
    kernel = tuple(n if whole else int(rng.integers(1, min(3, n) + 1)) for n in size)
    dilation = tuple(
        2 if 2 * (k - 1) < n and k > 1 and rng.random() < 0.5 else 1 for k, n in zip(kernel, size, strict=True)
    )
    padding = tuple(int(rng.integers(0, k)) if d == 1 else 0 for k, d in zip(kernel * 2, dilation * 2, strict=True))
    return {
        "kernel": kernel, "dilation": dilation, "padding": padding,
        "stride": tuple(int(n) for n in rng.integers(1, 5, len(size))),
    }  # fmt: skip


def weights(rng: np.random.Generator, *shape: int) -> dict[str, Any]:
    size = 1 << int(rng.integers(2, 9))
    bias = rng.choice([0, (1 << 39) - 1, -1 << 39, 12345, -7], shape[0])
    codes = rng.integers(0, size, shape) * (rng.random(shape) < rng.choice([0.05, 0.9]))
    return {
        "codes": codes.astype(np.uint8),
        "codebook": np.append([0], raw(rng, size - 1)).astype(np.int16),
        "bias": bias,
    }


def accumulate(rng: np.random.Generator) -> tuple[Node, list[Any]]:
    """Up to four segments that make one shape: convolutions or matrices, and values as they are."""
    maps, outer = bool(rng.random() < 0.5), int(rng.integers(1, 5))
    size = sizes(rng)
    kinds, weight, a, tensors, x = [], [], {"strides": [], "paddings": [], "dilations": [], "group_counts": []}, {}, []
    for n in range(int(rng.integers(1, 5))):
        kinds.append(str(rng.choice(["identity", "product", "product"])) if n else "product")
        weight.append(int(rng.choice([1, 1 << 14, -32768, 77])) if kinds[-1] == "identity" else 0)
        inner = outer if weight[-1] else int(rng.integers(1, 7))
        kernel = tuple(int(rng.choice([1, 3])) for _ in size)
        if maps:
            groups = 2 if not weight[-1] and outer % 2 == 0 and rng.random() < 0.5 else 1
            inner = inner if weight[-1] else inner * groups
            step, wide = (int(rng.integers(1, 3)) for _ in range(2)) if not weight[-1] else (1, 1)
            around = [0 if weight[-1] else k // 2 * wide for k in kernel]
            a["strides"] += [step] * len(size)
            a["dilations"] += [wide] * len(size)
            a["paddings"] += around * 2
            a["group_counts"].append(groups)
            given = (inner, *(n * step - int(rng.integers(0, step)) for n in size))
        else:
            given = (*size, inner)
        x.append(raw(rng, BATCH, *given))
        if kinds[-1] == "product":
            kinds[-1] = "conv" if maps else "linear"
            made = weights(rng, outer, *((inner // groups, *kernel) if maps else (inner,)))
            tensors |= {f"codes{n}": made["codes"], f"codebook{n}": made["codebook"], "bias": made["bias"]}
    tensors["shift"] = np.array([shift_of(rng) for _ in range(outer)])
    attributes = {
        **{name: tuple(values) for name, values in a.items()}, "kinds": tuple(kinds), "weights": tuple(weight),
        "activation": str(rng.choice(["none", "relu"])),
    }  # fmt: skip
    return Node("accumulate", "Accumulate", (), attributes, tensors), x


def case(op: str, rng: np.random.Generator) -> tuple[Node, list[Any]]:
    """A node and a batch of what it reads."""
    relu = {"activation": str(rng.choice(["none", "relu"]))}
    shape = tuple(int(n) for n in rng.integers(1, 6, rng.integers(1, 4)))
    back = {"shift": shift_of(rng), "exponent": 0, **relu}
    x = [raw(rng, BATCH, *shape)]
    a: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    axis = int(rng.integers(len(shape)))
    if op == "Linear":
        a, tensors = {**back, "weight_exponent": 0}, weights(rng, int(rng.choice([1, 3, 257])), shape[-1])
    elif op == "Conv":
        size, groups = sizes(rng), int(rng.integers(1, 4))
        given = window(rng, size)
        inner, outer = int(rng.integers(1, 3)), groups * int(rng.integers(1, 3))
        tensors = weights(rng, outer, inner, *given.pop("kernel"))
        tensors["shift"] = np.array([shift_of(rng) for _ in range(outer)])
        a, x = {**given, "groups": groups, **relu}, [raw(rng, BATCH, groups * inner, *size)]
    elif op == "Accumulate":
        return accumulate(rng)
    elif op in ("MaxPool", "AveragePool"):
        size = sizes(rng)
        a, x = window(rng, size), [raw(rng, BATCH, int(rng.choice([1, 2, 257])), *size)]
        if op == "AveragePool":
            a |= {"weight": int(raw(rng, 1)[0]), "shift": shift_of(rng), "exponent": 0}
    elif op == "Affine":
        over = tuple(n if rng.random() < 0.5 else 1 for n in shape)
        a, tensors = back, {"scale": raw(rng, *over), "offset": rng.integers(-1 << 39, 1 << 39, over)}
    elif op in ("Add", "Multiply"):
        a, x = back, [*x, raw(rng, BATCH, *shape)]
    elif op in ("Shift", "Table"):
        a = {"left": shift_of(rng), "right": shift_of(rng), "exponent": 0}
        if op == "Table":
            a, tensors = (
                {**a, "left": int(rng.integers(0, 3)), "right": int(rng.integers(0, 3))},
                {"table": raw(rng, 513)},
            )
    elif op == "Clamp":
        a = dict(zip(("low", "high"), sorted(int(n) for n in raw(rng, 2)), strict=True))
    elif op == "Concat":
        a, x = {"axis": axis}, [*x, raw(rng, BATCH, *shape), x[0]]
    elif op == "Reshape":
        a = {"shape": shape[::-1]}
    elif op == "Transpose":
        a = {"order": tuple(int(n) for n in rng.permutation(len(shape)))}
    elif op == "Slice":
        begin = int(rng.integers(shape[axis]))
        end = int(rng.integers(begin + 1, shape[axis] + 1))
        a = {"axis": axis, "begin": begin, "end": end, "step": int(rng.integers(1, 3)), "drop": end == begin + 1}
    elif op == "Pad":
        a = {name: tuple(int(n) for n in rng.integers(0, 3, len(shape))) for name in ("before", "after")}
    elif op == "Gather":
        tensors, x = {"table": raw(rng, 300, 4)}, [rng.integers(0, 300, (BATCH, *shape))]
    elif op == "Indices":
        rows = int(rng.choice([1, 300, 1 << 15]))
        a, x = {"rows": rows}, [rng.integers(0, rows, (BATCH, *shape))]
    if rng.random() < 0.1 and x[0].dtype == np.int16:
        x = [np.zeros_like(values) for values in x]
    return Node(op.lower(), op, (), a, tensors), x


OPS = sorted(INTEGER.keys() - HOST)


@pytest.mark.verifies("golden-operator-graph-equals-unbounded")
@pytest.mark.parametrize("op", OPS)
def test_operator_is_that_of_unbounded_integers(op: str, rng: np.random.Generator) -> None:
    for number in range(40):
        node, reads = case(op, rng)
        assert differences(node, reads) == "", f"case {number}: {node.attributes}"


@pytest.mark.verifies("golden-operator-graph-equals-unbounded")
def test_every_operator_has_a_golden_model_and_a_case() -> None:
    assert set(OPS) == golden_ops.OPERATORS.keys() - HOST


def off_by_half(total: Any, shift: Any) -> Any:
    return total >> shift


def one_wider(exact: Any) -> Any:
    return np.clip(exact, -32768, 32766), (exact > 32767) | (exact < -32768)


def around(outside: Callable[[int], int]) -> Any:
    true = golden_ops._windows
    return lambda node, x, kernel, given: true(node, x, kernel, outside(given))


def instead(op: str, change: Callable[[Node], Node]) -> Any:
    """The operators with one of them run on a changed node."""
    true = golden_ops.OPERATORS[op]
    return {**golden_ops.OPERATORS, op: lambda node, reads, bits: true(change(node), reads, bits)}


def changed(**changes: Callable[[Any], Any]) -> Callable[[Node], Node]:
    return lambda node: node.replace(
        attributes={k: changes[k](v) if k in changes else v for k, v in node.attributes.items()},
        tensors={k: changes[k](v) if k in changes else v for k, v in node.tensors.items()},
    )


SUMS = ("Linear", "Conv", "Accumulate", "Affine", "Add", "Multiply", "AveragePool", "Shift")

FAULTS: list[tuple[str, str, Callable[[], Any]]] = [
    *((op, "shifted", lambda: off_by_half) for op in SUMS),
    *((op, "saturate", lambda: one_wider) for op in ("Linear", "Affine", "Add", "Multiply", "Shift")),
    *((op, "wrap", lambda: lambda total, bits: total) for op in ("Linear", "Conv", "Accumulate")),
    ("Conv", "_windows", lambda: around(lambda given: 1)),
    ("AveragePool", "_windows", lambda: around(lambda given: 1)),
    ("MaxPool", "_windows", lambda: around(lambda given: 0)),
    ("Conv", "OPERATORS", lambda: instead("Conv", changed(shift=lambda s: s[::-1]))),
    ("Accumulate", "_windows", lambda: around(lambda given: 1)),
    ("Accumulate", "OPERATORS", lambda: instead("Accumulate", changed(shift=lambda s: s[::-1]))),
    ("Accumulate", "OPERATORS", lambda: instead("Accumulate", changed(weights=lambda w: tuple(n // 2 for n in w)))),
    ("Accumulate", "OPERATORS", lambda: instead("Accumulate", changed(strides=lambda s: s[::-1]))),
    ("Accumulate", "OPERATORS", lambda: instead("Accumulate", changed(paddings=lambda p: (0,) * len(p)))),
    ("Accumulate", "OPERATORS", lambda: instead("Accumulate", changed(group_counts=lambda g: (1,) * len(g)))),
    ("Table", "OPERATORS", lambda: instead("Table", changed(table=lambda t: np.append(t[:-1], t[-2])))),
    ("Clamp", "OPERATORS", lambda: instead("Clamp", changed(high=lambda n: n - 1))),
    ("Concat", "OPERATORS", lambda: {**golden_ops.OPERATORS, "Concat":
        lambda n, x, b: (np.concatenate(x, axis=-1), None)}),
    ("Slice", "OPERATORS", lambda: instead("Slice", changed(step=lambda n: 1))),
    ("Pad", "OPERATORS", lambda: instead("Pad", lambda n: n.replace(
        attributes={"before": n["after"], "after": n["before"]}))),
    ("Transpose", "OPERATORS", lambda: instead("Transpose", changed(order=lambda o: o[::-1]))),
    ("Reshape", "OPERATORS", lambda: {**golden_ops.OPERATORS, "Reshape":
        lambda n, x, b: (x[0].swapaxes(1, -1).reshape(len(x[0]), *n["shape"]), None)}),
    ("Gather", "OPERATORS", lambda: instead("Gather", changed(table=lambda t: np.roll(t, 1, axis=0)))),
    ("Indices", "OPERATORS", lambda: {**golden_ops.OPERATORS, "Indices": lambda n, x, b: (x[0][..., None] + 1, None)}),
]  # fmt: skip


@pytest.mark.verifies("planted-faults-golden-rounding-saturation")
@pytest.mark.parametrize(
    ("op", "name", "fault"), FAULTS, ids=[f"{op}-{name}-{n}" for n, (op, name, _) in enumerate(FAULTS)]
)
def test_fault_in_an_operator_is_caught(
    op: str, name: str, fault: Callable[[], Any], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fault()
    monkeypatch.setattr(golden_ops, name, made)
    if name == "OPERATORS":
        monkeypatch.setattr(golden, name, made)

    def caught() -> bool:
        try:
            return bool(differences(*case(op, rng)))
        except ValueError:  # shapes that do not fit any more
            return True

    assert any(caught() for _ in range(60))


@pytest.mark.verifies("planted-faults-golden-rounding-saturation")
def test_every_operator_has_a_planted_fault() -> None:
    assert {op for op, _, _ in FAULTS} == set(OPS)


def test_weights_may_be_given_as_they_are(rng: np.random.Generator) -> None:
    for _ in range(10):
        node, [x] = case("Linear", rng)
        weight = node.tensors["codebook"].astype(np.int64)[node.tensors["codes"]]
        wanted = golden_ops.OPERATORS["Linear"](node, [x.astype(np.int64)], ACC_BITS)
        for form in (weight, weight.astype(np.int16), scipy.sparse.csr_array(weight)):
            plain = node.replace(tensors={"weight": form, "bias": node.tensors["bias"]})
            found = golden_ops.OPERATORS["Linear"](plain, [x.astype(np.int64)], ACC_BITS)
            np.testing.assert_array_equal(found[0], wanted[0])


def loop(reverse: bool) -> tuple[Node, Node, Node]:
    """Running sums of a sequence, and each step's sum doubled."""
    real = {"kind": "real"}
    body = Graph((
        Node("s", "Input", (), {**real, "shape": (2,)}),
        Node("h", "Input", (), {**real, "shape": (2,)}),
        Node("sum", "Add", ("s", "h"), {"shift": 0, "activation": "none"}),
        Node("twice", "Add", ("sum", "sum"), {"shift": 0, "activation": "none"}),
        Node("y", "Output", ("twice",)),
        Node("after", "Output", ("sum",)),
    ))  # fmt: skip
    return (
        Node("x", "Input", (), {**real, "shape": (4, 2)}),
        Node("zero", "Constant", (), {}, {"value": np.array([5, -5], np.int16)}),
        Node("scan", "Scan", ("x", "zero"), {"sequences": 1, "reverse": reverse}, {}, body, ("scan", "last")),
    )


@pytest.mark.verifies("golden-states-go-step-step")
@pytest.mark.parametrize("reverse", [False, True])
def test_a_loop_carries_its_state_from_step_to_step(reverse: bool) -> None:
    x = np.array([[[1, 2], [3, 4], [5, 6], [30000, -30000]]], np.int16)
    found = golden.run_graph(loop(reverse), [x], ACC_BITS)
    sums, state = [], [5, -5]
    for step in (x[0, ::-1] if reverse else x[0]).tolist():
        state = [max(-32768, min(32767, s + h)) for s, h in zip(step, state, strict=True)]
        sums.append(state)
    wanted = np.array(sums[::-1] if reverse else sums)
    np.testing.assert_array_equal(found["scan/sum"].raw[0], wanted)
    np.testing.assert_array_equal(found["scan"].raw[0], np.clip(2 * wanted, -32768, 32767))
    np.testing.assert_array_equal(found["last"].raw[0], state)
    assert int(found["scan/twice"].saturated[0]) == int((np.abs(2 * wanted + 0.5) > 32768).sum())
    assert int(found["scan"].saturated[0]) == 0  # counted in the body, once


@pytest.mark.verifies("golden-states-go-step-step")
def test_fault_a_loop_in_the_wrong_order_is_caught() -> None:
    x = np.arange(8, dtype=np.int16).reshape(1, 4, 2)
    forwards, backwards = (golden.run_graph(loop(reverse), [x], ACC_BITS)["scan"].raw for reverse in (False, True))
    assert not np.array_equal(forwards, backwards)


@pytest.mark.verifies("golden-refuses-inputs-indices-network")
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "0 inputs are given; the network reads 1"),
        ([np.zeros((1, 4, 2), np.int32)], r"x: int32 \(1, 4, 2\); expected int16 \(batch, 4, 2\)"),
        ([np.zeros((1, 4), np.int16)], r"expected int16 \(batch, 4, 2\)"),
    ],
)
def test_inputs_that_the_network_does_not_take_are_refused(inputs: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        golden.run_graph(loop(False), inputs, ACC_BITS)


@pytest.mark.verifies("golden-refuses-inputs-indices-network")
def test_an_index_beyond_its_table_is_refused() -> None:
    nodes = [
        Node("i", "Input", (), {"shape": (2,), "kind": "index"}),
        Node("rows", "Gather", ("i",), {"exponent": 0}, {"table": np.zeros((3, 1), np.int16)}),
    ]
    golden.run_graph(nodes, [np.array([[0, 2]])], ACC_BITS)
    for wrong in (3, -1):
        with pytest.raises(ValueError, match="its table has 3 rows"):
            golden.run_graph(nodes, [np.array([[0, wrong]])], ACC_BITS)
