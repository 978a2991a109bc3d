"""Memory and time when there is much to do: how they grow, row by row.

    python -m tools.reliability.bounded --work DIR

Three questions, each answered for several sizes in processes of their own: the memory of extracting
features of so many pictures (`--rows`, made as they are read, through a tiny random tower whose
features are as wide as ViT-B's) and of doing so again with all of them in the cache, of `dspt
predict` over so many files (`--files`), and the time that a bench of so many planned cells
(`--cells`) needs for a dry run, for its start until the first group is begun, for its start again
when all cells but four are finished, and when all are. Memory is read from `/proc`, so on Linux.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import keep, print_table
from PIL import Image
from tests.tiny import write_model, write_pictures
from tools.reliability.jobs import CLASSES, ROOT, parser, small_picture

MIB = 1024 * 1024
WIDTH = 512
"""Of a feature."""
EVERY = 2000
"""Pictures after which the memory is looked at."""


class MadePictures:
    """Pictures that are made when they are read; a store of a data set.

    Bitmaps of the tower's size, the same but for their first points, which hold the number: so next
    to nothing is spent on making, decoding and scaling them.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        buffer = io.BytesIO()
        Image.frombytes("RGB", (32, 32), random.Random(0).randbytes(3 * 32 * 32)).save(
            buffer, "BMP"
        )
        self._head, self._tail = buffer.getvalue()[:54], buffer.getvalue()[62:]

    def __len__(self) -> int:
        return self._count

    def key(self, i: int) -> str:
        """A name."""
        return f"picture-{i}"

    def read(self, i: int) -> bytes:
        """Bytes of a bitmap."""
        return self._head + i.to_bytes(8, "little") + self._tail


def extraction(work: Path, rows: int) -> dict[str, float]:
    """Features of ``rows`` pictures, computed and then found: memory beyond libraries and tower."""
    from dspt.backbones import load_backbone
    from dspt.features import extract_features

    backbone = load_backbone(str(work / f"model-{WIDTH}"), None, device="cpu")
    cache = work / f"cache-{rows}"
    shutil.rmtree(cache, ignore_errors=True)
    extract_features(backbone, MadePictures(64), range(64), cache=work / "warm-up", workers=1)
    before = _memory()
    answer: dict[str, float] = {"rows": rows}
    first = None
    for what in ("first", "again"):
        most = dict.fromkeys(before, 0.0)

        def look(done: int, total: int, most: dict[str, float] = most) -> None:
            if done % EVERY == 0 or done == total:
                most |= {name: max(most[name], mib) for name, mib in _memory().items()}

        began = time.perf_counter()
        found = extract_features(
            backbone,
            MadePictures(rows),
            range(rows),
            cache=cache,
            workers=1,
            on_progress=look,
        )
        answer[f"{what}_seconds"] = time.perf_counter() - began
        look(rows, rows)
        for name in before:
            answer[f"{what}_{name}_mib"] = most[name] - before[name]
        assert found.readable.all()
        if first is not None:  # in pieces, as together they would be in memory
            assert all(
                torch.equal(a, b)
                for a, b in zip(first.split(EVERY), found.values.split(EVERY), strict=True)
            )
        first = found.values
    answer["result_mib"] = rows * WIDTH * 4 / MIB
    answer["cache_mib"] = sum(f.stat().st_size for f in cache.rglob("*.safetensors")) / MIB
    shutil.rmtree(cache)
    return answer


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


def _memory() -> dict[str, float]:
    """MiB of this process: what is its own (``RssAnon``), and with what is mapped (``VmRSS``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    told = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return {
        "anonymous": int(told["RssAnon"][0]) / 1024,
        "resident": int(told["VmRSS"][0]) / 1024,
    }


def alone(question: Callable[[Path, int], dict[str, float]], work: Path, size: int) -> Any:
    """The answer from a fresh process, whose memory nothing else has touched."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(question, (work, size))


def main(given: list[str] | None = None) -> dict[str, list[dict[str, float]]]:
    """Answer the questions."""
    options = parser("Memory and time when there is much to do.")
    options.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    options.add_argument("--files", type=int, nargs="*", default=[10_000, 100_000])
    options.add_argument("--cells", type=int, nargs="*", default=[1_000, 10_000])
    arguments = options.parse_args(given)
    work: Path = arguments.work.resolve()
    if not (work / "model").exists():
        write_model(work / "model")
        write_model(work / f"model-{WIDTH}", embed_dim=WIDTH)
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
