"""Memory and time when there is much to do: how they grow, row by row.

    python -m tools.reliability.bounded --work DIR

Three questions, each answered for several sizes in processes of their own: the memory of extracting
features of so many pictures (`--rows`, drawn as they are read, through a tiny random tower), of
`dspt predict` over so many files (`--files`), and the time that a bench of so many planned cells
(`--cells`) needs for a dry run, for its start until the first group is begun, for its start again
when all cells but four are finished, and when all are. `--rows 1000000` takes an hour or more.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import keep, print_table
from tests.tiny import write_model, write_pictures
from tools.reliability.jobs import CLASSES, ROOT, parser, small_picture

MIB = 1024 * 1024


class DrawnPictures:
    """Pictures that are drawn when they are read; a store of a data set."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def key(self, i: int) -> str:
        """A name."""
        return f"picture-{i}"

    def read(self, i: int) -> bytes:
        """Bytes of a PNG."""
        return small_picture(i)


def extraction(work: Path, rows: int) -> dict[str, float]:
    """Features of ``rows`` pictures: memory beyond that of libraries and tower."""
    from dspt.backbones import load_backbone
    from dspt.features import extract_features

    backbone = load_backbone(str(work / "model"), None, device="cpu")
    cache = work / f"cache-{rows}"
    extract_features(backbone, DrawnPictures(64), range(64), cache=work / "warm-up", workers=1)
    before, began = _peak_mib(), time.perf_counter()
    found = extract_features(backbone, DrawnPictures(rows), np.arange(rows), cache=cache, workers=1)
    seconds, grown = time.perf_counter() - began, _peak_mib() - before
    assert found.readable.all()
    shards = sum(file.stat().st_size for file in cache.rglob("*.safetensors"))
    shutil.rmtree(cache)
    return {
        "rows": rows,
        "seconds": seconds,
        "grown_mib": grown,
        "of_that_result_mib": found.values.nbytes / MIB,
        "of_that_mapped_cache_mib": shards / MIB,
    }


def prediction(work: Path, files: int) -> dict[str, float]:
    """``dspt predict`` over ``files`` pictures: most memory of the process."""
    folder = work / "to-predict"
    for number in range(files):
        path = folder / f"{number // 1000:04}" / f"{number:07}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(small_picture(number))
    part = work / f"part-{files}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for number in range(-(-files // 1000)):
        (part / f"{number:04}").symlink_to(folder / f"{number:04}")
    places = [str(place) for place in sorted(part.iterdir())]
    table = work / f"predictions-{files}.csv"
    began = time.perf_counter()
    _dspt("predict", str(work / "run"), *places, "--format", "csv", "--out", str(table), "--quiet")
    with table.open(encoding="utf-8") as lines:
        assert sum(1 for _ in lines) == files + 1
    return {
        "rows": files,
        "seconds": time.perf_counter() - began,
        "peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def planning(work: Path, cells: int) -> dict[str, float]:
    """Processor seconds that a bench of ``cells`` cells needs before and after its work.

    All but a few results are copies of one that was computed.
    """
    from dspt.bench.grid import cells as cells_of
    from dspt.bench.grid import parse_grid, read_grid
    from dspt.bench.store import Store

    out, grid = work / f"bench-{cells}", work / f"grid-{cells}.yaml"
    shutil.rmtree(out, ignore_errors=True)
    grid.write_text(
        f"data: [{work / 'pictures'}]\nbackbones: [{work / 'model'}]\n"
        f"methods: [ce, dspt, gce, mae]\nshots: [4]\nseeds: {list(range(cells // 4))}\n"
        "recipe: {epochs: 2}\n"
    )
    call = ("bench", str(grid), "--out", str(out), "--cache", str(work / "cache"), "--quiet")
    told: dict[str, float] = {"cells": cells}

    def begun() -> bool:
        return any(out.glob("groups/*.json"))

    told["dry_run_cpu_s"] = _dspt(*call, "--dry-run")
    told["start_cpu_s"] = _dspt(*call, until=begun)
    store = Store(out)
    planned = cells_of(parse_grid(read_grid(grid)))
    one = work / f"grid-{cells}-one.yaml"
    one.write_text(grid.read_text().replace("[ce, dspt, gce, mae]", "[ce]"))
    _dspt("bench", str(one), "--seed", "0", *call[2:])
    done = next(result for cell in planned if (result := store.finished(cell)) is not None)
    for cell in planned[:-4]:
        if store.finished(cell) is None:
            store.prepare(cell)
            done.model_copy(update={"config": cell}).write(store.folder(cell) / "result.json")
    told["four_left_cpu_s"] = _dspt(*call)
    told["none_left_cpu_s"] = _dspt(*call)
    return told


def _dspt(*arguments: str, until: Callable[[], bool] | None = None) -> float:
    """Run a command, or only until something has happened; processor seconds."""
    before = _children_seconds()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "dspt", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None:
            if until is not None and until():
                process.kill()
            time.sleep(0.05)
    if process.returncode != (0 if until is None else -signal.SIGKILL):
        raise SystemExit(f"dspt {' '.join(arguments)}: exit code {process.returncode}")
    return _children_seconds() - before


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(question: Callable[[Path, int], dict[str, float]], work: Path, size: int) -> Any:
    """The answer from a fresh process, whose memory nothing else has touched."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(question, (work, size))


def main(given: list[str] | None = None) -> dict[str, list[dict[str, float]]]:
    """Answer the questions."""
    options = parser("Memory and time when there is much to do.")
    options.add_argument("--rows", type=int, nargs="*", default=[100_000, 200_000])
    options.add_argument("--files", type=int, nargs="*", default=[10_000, 100_000])
    options.add_argument("--cells", type=int, nargs="*", default=[1_000, 10_000])
    arguments = options.parse_args(given)
    work: Path = arguments.work.resolve()
    if not (work / "model").exists():
        write_model(work / "model")
        write_pictures(work / "pictures" / "train", CLASSES, 6)
        write_pictures(work / "pictures" / "test", CLASSES, 4, first=50)
    if arguments.files and not (work / "run").exists():
        _dspt(
            *("fit", str(work / "pictures"), "--backbone", str(work / "model"), "--shots", "4"),
            *("--epochs", "2", "--out", str(work / "run"), "--cache", str(work / "cache")),
            "--quiet",
        )
    answers: dict[str, list[dict[str, float]]] = {}
    for question, sizes in (
        (extraction, arguments.rows),
        (prediction, arguments.files),
        (planning, arguments.cells),
    ):
        answers[question.__name__] = [alone(question, work, size) for size in sizes]
        if sizes:
            print(question.__name__)
            rows = answers[question.__name__]
            print_table(list(rows[0]), [list(row.values()) for row in rows])
    keep(arguments.out, "bounded", answers, arguments)
    return answers


if __name__ == "__main__":
    main()
