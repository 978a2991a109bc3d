"""How long does it take to open a feature cache with many pictures, and how much memory?

    python -m benchmarks.cache

A fresh process opens the cache of one view, asks for every picture and takes all features.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import common
from benchmarks.memory import resident
from dspt.feature_cache import FeatureCache

QUESTION = "cache"


def digests(pictures: int) -> list[bytes]:
    """As if of so many pictures."""
    return [hashlib.sha256(str(number).encode()).digest() for number in range(pictures)]


def fill(folder: Path, dtype: str, pictures: int, dim: int) -> None:
    """Write a cache."""
    cache = FeatureCache(folder, 0, dtype)  # type: ignore[arg-type]
    features = torch.nn.functional.normalize(torch.randn(pictures, dim), dim=-1)
    for digest, feature in zip(digests(pictures), features, strict=True):
        cache.add(digest, feature)
    cache.flush()


def use(folder: Path, dtype: str, pictures: int, dim: int) -> dict[str, float]:
    """Seconds, and MiB of resident memory above what there was before."""
    asked, before, found = digests(pictures), resident(), {}

    def note(what: str, began: float) -> None:
        found[f"{what}, s"] = time.perf_counter() - began
        found[f"{what}, MiB"] = resident() - before

    began = time.perf_counter()
    cache = FeatureCache(folder, 0, dtype)  # type: ignore[arg-type]
    note("open", began)
    began = time.perf_counter()
    values = np.zeros((pictures, dim), dtype=np.float32)
    for row, digest in enumerate(asked):
        values[row] = cache.get(digest)
    note("check and take all", began)
    found["of that the features taken, MiB"] = values.nbytes / 2**20
    before = resident()
    for place in np.random.default_rng(0).integers(0, pictures, 2048):
        assert cache.get(asked[place]) is not None
    began = time.perf_counter()
    for place in np.random.default_rng(1).integers(0, pictures, 2048):
        assert cache.get(asked[place]) is not None
    found["one at random, us"] = (time.perf_counter() - began) / 2048 * 1e6
    found["asking at random, MiB"] = resident() - before
    return found


def main() -> None:
    """Measure, print, keep."""
    options = common.parser(__doc__ or "")
    options.add_argument("--pictures", type=int, default=50_000)
    options.add_argument("--dim", type=int, default=512)
    options.add_argument("--one", nargs=2, help="use this folder and type in this process")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        folder, dtype = arguments.one
        print(json.dumps(use(Path(folder), dtype, arguments.pictures, arguments.dim)))
        return
    numbers = {}
    with tempfile.TemporaryDirectory() as place:
        for dtype in ("fp32", "fp16"):
            fill(Path(place), dtype, arguments.pictures, arguments.dim)
            call = [sys.executable, "-m", "benchmarks.cache", "--one", place, dtype]
            call += [
                "--dim",
                str(arguments.dim),
                "--pictures",
                str(arguments.pictures),
                "--threads",
                str(arguments.threads),
            ]
            done = subprocess.run(call, capture_output=True, text=True, check=True)
            numbers[dtype] = json.loads(done.stdout.splitlines()[-1])
    common.print_table(
        ["", *numbers],
        [[what, *(found[what] for found in numbers.values())] for what in numbers["fp32"]],
    )
    common.keep(arguments.out, QUESTION, numbers, arguments)


if __name__ == "__main__":
    main()
