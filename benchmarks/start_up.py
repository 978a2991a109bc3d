"""How long do ``import dspt`` and ``dspt --help`` take, and how long does Python alone?

python -m benchmarks.start_up
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks import common

QUESTION = "start_up"
CANDIDATES = {
    "python alone": ["-c", "pass"],
    "import dspt": ["-c", "import dspt"],
    "dspt --help": ["-m", "dspt", "--help"],
}


def main() -> None:
    """Measure, print, keep."""
    arguments = common.parser(__doc__ or "").parse_args()

    def process(call: list[str]) -> None:
        subprocess.run([sys.executable, *call], check=True, stdout=subprocess.DEVNULL)

    times = common.in_turns(
        {name: lambda call=call: process(call) for name, call in CANDIDATES.items()},
        arguments.rounds,
    )
    alone = times["python alone"]
    rows = []
    for name, seconds in times.items():
        above = statistics.median(a - b for a, b in zip(seconds, alone, strict=True))
        rows.append([name, statistics.median(seconds), above])
    common.print_table(["process", "median s", "above python"], rows)
    check = "import sys, dspt; sys.exit('torch' in sys.modules)"
    free = subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    print("import dspt loads no torch" if free else "import dspt loads torch")
    common.keep(arguments.out, QUESTION, {"seconds": times, "without_torch": free}, arguments)


if __name__ == "__main__":
    main()
