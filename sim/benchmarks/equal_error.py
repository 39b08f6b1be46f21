"""The kit against NNCodec at matched accuracy, from the same pruned float network on.

The kit's file is that of the finished run. NNCodec gets the network of the checkpoint before weights were shared,
biases included, and quantizes it as its users would: every step size that matters for weights and for the rest, its
dependent (trellis) and its plain quantization, its own choice of step sizes a tensor. A second row lets it distort
values for the sake of bytes, which its `encode` does not offer, but `compress` does. Its file is
the smallest one with no more errors on the validation samples than the kit's; the test samples are counted
afterwards and choose nothing. NNCodec does not train, so the kit's training of shared values is part of the comparison.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compiler.coding.container import compress
from compiler.compressed import CompressedModel
from sim.benchmarks.nncodec import NNCodec, Quantizer, Unavailable

if TYPE_CHECKING:  # torch takes seconds to load
    from compiler.train.runfolder import LoadedRun

__all__ = ["EqualErrorRow", "measure_equal_error"]

# Step sizes 2**(QP/4), about: from ones that lose nothing to ones that leave two values.
_WEIGHT_QPS = range(-22, 0)
_OTHER_QPS = range(-44, -3, 2)
_FIRST_OTHER_QP = -24
_DISTORTIONS = (0.0, 1.0, 3.0, 8.0)
_KEPT = 6  # of each step of the search

Settings = dict[str, Any]
Values = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class EqualErrorRow:
    """One run. Bytes are of whole files; errors are shares of the samples.

    Attributes
    ----------
    distorting : whether NNCodec might distort values for the sake of bytes.
    nonzeros : weights that pruning left.
    smaller : share of NNCodec's bytes that the kit saves; None where a figure is missing.
    trained_on_validation : the run's recipe says so (refit): validation errors are then those of training samples.
    tried : settings of NNCodec that were tried, `settings` those of its smallest file.
    note : why figures are missing.
    """

    network: str
    distorting: bool = False
    nonzeros: int | None = None
    kit_bytes: int | None = None
    nncodec_bytes: int | None = None
    smaller: float | None = None
    kit_validation: float | None = None
    nncodec_validation: float | None = None
    kit_test: float | None = None
    nncodec_test: float | None = None
    trained_on_validation: bool = False
    tried: int = 0
    settings: Settings = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A file of NNCodec's. Its values are made again when they are wanted: hundreds of them would fill the memory."""

    bytes: int
    settings: Settings


def measure_equal_error(
    name: str,
    run: LoadedRun,
    network: CompressedModel,
    nncodec: NNCodec,
    progress: Callable[[str], None],
    distorting: bool = False,
) -> EqualErrorRow:
    """The row of a finished run; `network` is what its file holds.

    distorting : whether NNCodec may also distort values for the sake of bytes.

    Raises
    ------
    Unavailable
        NNCodec ends without an answer.
    """
    pruned = run.before_sharing()
    if pruned is None:
        return EqualErrorRow(name, distorting, note="the run has no checkpoint before a stage that shares weights")
    splits = run.dataset.validation, run.dataset.test
    limit, kit_test = (run.wrong(run.module, split) for split in splits)
    # Copies: the module will hold other values soon.
    state = {key: np.array(value.numpy(), order="C") for key, value in pruned.state_dict().items()}
    floats = {key: value for key, value in state.items() if value.dtype == np.float32 and value.ndim}

    wrong = (0, 0)
    with nncodec.quantizer(floats) as quantizer:
        best, tried = search(
            quantizer, lambda values: run.wrong(pruned, splits[0], values), limit, progress, distorting
        )
        if best is not None:
            values = decoded(quantizer, best)
            wrong = run.wrong(pruned, splits[0], values), run.wrong(pruned, splits[1], values)
    kit = len(compress(network))
    row = EqualErrorRow(
        name,
        distorting,
        nonzeros=sum(int(np.count_nonzero(value)) for value in floats.values() if value.ndim > 1),
        kit_bytes=kit,
        kit_validation=limit / len(splits[0]),
        kit_test=kit_test / len(splits[1]),
        trained_on_validation=run.dataset.refit,
        tried=tried,
        note="" if best else "no settings of NNCodec reach the kit's error",
    )
    if best is None:
        return row
    return replace(
        row,
        nncodec_bytes=best.bytes,
        smaller=1 - kit / best.bytes,
        nncodec_validation=wrong[0] / len(splits[0]),
        nncodec_test=wrong[1] / len(splits[1]),
        settings=best.settings,
    )


def search(
    quantizer: Quantizer,
    errors: Callable[[Values], int],
    limit: int,
    progress: Callable[[str], None],
    distorting: bool = False,
) -> tuple[Candidate | None, int]:
    """The smallest file with at most `limit` errors, and how many settings were tried.

    Three steps, each around the smallest files of the step before that keep the limit: how weights are quantized; how
    finely all else is; how the stream is coded.
    """
    tried, kept = 0, list[Candidate]()

    def step(settings: Iterable[Settings]) -> None:
        nonlocal tried, kept
        found = list(kept)
        for each in settings:
            tried += 1
            encoded = quantizer.encode(each)
            if encoded is not None:
                found.append(Candidate(encoded[0], each))
        found.sort(key=lambda candidate: candidate.bytes)
        kept = []
        for candidate in found:  # smallest first, so that most need not be measured
            if len(kept) < _KEPT and errors(decoded(quantizer, candidate)) <= limit:
                kept.append(candidate)
        progress(f"  NNCodec: {tried} settings, smallest with no more errors: {kept[0].bytes if kept else 'none'}")

    common = {"row_skipping": True, "param_opt": True, "scan_order": 0, "nonweight_qp": _FIRST_OTHER_QP}
    step(
        {**common, "qp": qp, "use_dq": dependent, "opt_qp": own, "lambda_scale": distortion}
        for qp, dependent, own, distortion in itertools.product(
            _WEIGHT_QPS, (True, False), (True, False), _DISTORTIONS if distorting else _DISTORTIONS[:1]
        )
    )
    step({**each.settings, "nonweight_qp": qp} for each in kept for qp in _OTHER_QPS)
    step(
        {**each.settings, "scan_order": order, "row_skipping": skipping, "param_opt": optimized}
        for each in kept
        for order, skipping, optimized in itertools.product(range(5), (True, False), (True, False))
    )
    return (kept[0] if kept else None), tried


def decoded(quantizer: Quantizer, candidate: Candidate) -> Values:
    """The values in a file of NNCodec's."""
    encoded = quantizer.encode(candidate.settings)
    if encoded is None or encoded[0] != candidate.bytes:
        raise Unavailable(f"NNCodec gives another file the second time, with {candidate.settings}")
    return encoded[1]
