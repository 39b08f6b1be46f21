"""Runs in NNCodec's own environment, not in the kit's: ``python nncodec_worker.py TENSORS.npz``.

Compresses integer tensors losslessly and prints, as JSON, the smallest stream over NNCodec's settings: its bytes, the
settings, seconds of encoding and decoding, and its version. Every stream is decoded and compared first.
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
from typing import Any
from unittest.mock import MagicMock

import numpy as np


def main() -> None:
    """Read the tensors, try the settings, print the best."""
    with np.load(sys.argv[1], allow_pickle=False) as file:
        tensors = {name: np.ascontiguousarray(file[name].astype(np.int32)) for name in file.files}
    # NNCodec imports torchvision for its data sets, which nothing here uses.
    for name in ("torchvision", "torchvision.transforms", "torchvision.datasets"):
        sys.modules[name] = MagicMock()
    os.chdir(tempfile.mkdtemp())  # it writes files beside itself
    best: dict[str, Any] | None = None
    with contextlib.redirect_stdout(io.StringIO()):
        nnc = importlib.import_module("nncodec.nnc")
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
                    if best is None or len(stream) < best["bytes"]:
                        times = {"encode_s": middle - begin, "decode_s": end - middle}
                        best = {"bytes": len(stream), "settings": settings, **times}
    print(json.dumps({**(best or {}), "version": importlib.metadata.version("nncodec")}))


if __name__ == "__main__":
    main()
