"""What the questions share: names, timing in turns, and how results are kept."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "speed"

_WORDS = """
red blue green old new big small wild sea house garden mountain river stone paper dog cat bird fish
horse car boat tree flower chair table lamp clock bear wolf fox sun moon star snow
"""


def two_word_names(count: int) -> list[str]:
    """Different class names of two words, each word one token of CLIP's vocabulary."""
    words = _WORDS.split()
    # The second word changes slowest, so few names do not all begin alike.
    names = [f"{a} {b}" for b in words for a in words if a != b]
    if count > len(names):
        raise SystemExit(f"at most {len(names)} names")
    return names[:count]


def parser(question: str) -> argparse.ArgumentParser:
    """The options that every question has."""
    made = argparse.ArgumentParser(description=question)
    made.add_argument("--backbone", default="ViT-B-16", help="random weights of this architecture")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    made.add_argument("--rounds", type=int, default=5, help="timed turns of each candidate")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file")
    return made


def in_turns(
    candidates: dict[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call; the candidates take turns, so that drift meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warm_up + rounds):
        for name, call in candidates.items():
            _finish_device_work()
            began = time.perf_counter()
            call()
            _finish_device_work()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - began)
    return times


def _finish_device_work() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over the turns of slow / fast, pair by pair."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns wide enough for what is in them; numbers to the right."""
    cells = [list(header), *[[_show(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        first, *rest = (cell for cell in row)
        line = first.ljust(widths[0]) + "".join(
            "  " + cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)
        )
        print(line)


def _show(cell: object) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def keep(out: Path, question: str, numbers: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Write the numbers with everything that is needed to read them later."""
    record = {
        "question": question,
        "arguments": {name: str(value) for name, value in vars(arguments).items() if name != "out"},
        "machine": machine(),
        "numbers": numbers,
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{question}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"\n{path.name} written")


def machine() -> dict[str, Any]:
    """Processor, threads, versions and the commit that was measured."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = models[0].split(":", 1)[1].strip() if models else processor
    root = Path(__file__).parent
    call = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    commit = subprocess.run(call, cwd=root, capture_output=True, text=True, check=False)
    return {
        "processor": processor,
        "processor_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }
