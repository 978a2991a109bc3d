"""How long does a whole run take, 16 shots and 50 epochs, from the command line?

    python -m benchmarks.end_to_end DATA

Runs ``dspt fit`` in a fresh process with an empty cache, and once more with the features in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import common
from dspt.result import RunResult

QUESTION = "end_to_end"


def main() -> None:
    """Measure, print, keep."""
    options = common.parser(__doc__ or "")
    options.add_argument("data", nargs="?", default="demo")
    options.set_defaults(backbone="default")
    arguments = options.parse_args()
    rows, numbers = [], {}
    with tempfile.TemporaryDirectory() as place:
        for name in ("empty cache", "features in the cache"):
            out = Path(place) / name.replace(" ", "-")
            call = [sys.executable, "-m", "dspt", "fit", arguments.data, "--quiet"]
            call += ["--noise", "symmetric:0.5", "--out", str(out), "--cache", f"{place}/cache"]
            if arguments.backbone != "default":
                call += ["--backbone", arguments.backbone, "--pretrained", "none"]
            environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
            began = time.perf_counter()
            subprocess.run(call, env=environment, check=True, stdout=subprocess.DEVNULL)
            wall = time.perf_counter() - began
            spent = RunResult.read(out / "result.json").time
            rows.append([name, wall, spent.image_features, spent.training])
            numbers[name] = {"wall": wall, **spent.model_dump()}
    common.print_table(["run", "wall s", "features s", "training s"], rows)
    common.keep(arguments.out, QUESTION, numbers, arguments)


if __name__ == "__main__":
    main()
