"""Runs in NNCodec's own environment, not in the kit's.

``python nncodec_worker.py TENSORS.npz`` compresses integer tensors losslessly and prints, as JSON, the smallest stream
over NNCodec's settings: its bytes, the settings, seconds of encoding and decoding, and its version. Every stream is
decoded and compared first.

``python nncodec_worker.py TENSORS.npz OUT.npz`` has NNCodec quantize float tensors: for each line of settings (JSON) it
writes the values that come out of the stream to OUT.npz and prints the stream's bytes.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import json
import os
import sys
import tempfile
import time
from typing import Any, TextIO
from unittest.mock import MagicMock

import numpy as np


def main() -> None:
    """Read the tensors, do what is asked for."""
    with np.load(sys.argv[1], allow_pickle=False) as file:
        tensors = {name: np.ascontiguousarray(file[name]) for name in file.files}
    # NNCodec imports torchvision for its data sets, which nothing here uses.
    for name in ("torchvision", "torchvision.transforms", "torchvision.datasets"):
        sys.modules[name] = MagicMock()
    os.chdir(tempfile.mkdtemp())  # it writes files beside itself
    out = sys.stdout
    with contextlib.redirect_stdout(io.StringIO()):
        nnc = importlib.import_module("nncodec.nnc")
        if len(sys.argv) > 2:
            serve(nnc, tensors, sys.argv[2], out)
        else:
            best = smallest(nnc, {name: tensor.astype(np.int32) for name, tensor in tensors.items()})
            print(json.dumps({**best, "version": importlib.metadata.version("nncodec")}), file=out)


def serve(nnc: Any, tensors: dict[str, np.ndarray[Any, Any]], to: str, out: TextIO) -> None:
    """Answer one line of settings after the other."""
    for line in sys.stdin:
        answer: dict[str, Any] = {}
        try:
            copies = {name: tensor.copy() for name, tensor in tensors.items()}
            stream = nnc.compress(copies, bitstream_path=None, return_bitstream=True, **json.loads(line))
            found = nnc.decompress(bytearray(stream))
            np.savez(to, allow_pickle=False, **{name: np.reshape(found[name], tensors[name].shape) for name in tensors})
            answer["bytes"] = len(stream)
        except (Exception, SystemExit) as error:  # whatever NNCodec does with settings that it does not like
            answer["error"] = str(error) or type(error).__name__
        print(json.dumps(answer), file=out, flush=True)


def smallest(nnc: Any, tensors: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """The smallest lossless stream."""
    best: dict[str, Any] = {}
    for row_skipping in (True, False):
        for param_opt in (True, False):
            for scan_order in range(5):
                settings = {"row_skipping": row_skipping, "param_opt": param_opt, "scan_order": scan_order}
                begin = time.perf_counter()
                stream = nnc.compress(
                    dict(tensors), bitstream_path=None, use_dq=False, return_bitstream=True, **settings
                )
                middle = time.perf_counter()
                found = nnc.decompress(bytearray(stream))
                end = time.perf_counter()
                for name, tensor in tensors.items():
                    if not np.array_equal(np.reshape(found[name], tensor.shape), tensor):
                        raise SystemExit(f"NNCodec gave other values for {name} with {settings}")
                if not best or len(stream) < best["bytes"]:
                    times = {"encode_s": middle - begin, "decode_s": end - middle}
                    best = {"bytes": len(stream), "settings": settings, **times}
    return best


if __name__ == "__main__":
    main()
