"""What the campaigns share: commands on small data, run as real processes, and what they leave."""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tests.tiny import write_model, write_pictures
from tools.reliability import watched

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results" / "reliability"
CLASSES = ("red", "green", "blue", "yellow")

LIBRARIES = (
    *("dspt.fitting", "dspt.bench.run", "dspt.measuring", "dspt.report", "open_clip"),
    *(
        "torchvision.transforms",
        "sklearn.linear_model",
        "scipy.stats",
        "pyarrow.parquet",
        "filelock",
    ),
)
"""What a command imports on its way."""

_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Job:
    """A command.

    Attributes:
        name: for tables.
        arguments: of ``dspt``; ``{out}`` and ``{cache}`` stand for its folders.
    """

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: exit code; negative: ended by that signal.
        seconds: from its start.
        out, err: what it said.
        log: what it noted of its work, see ``watched.py``.
    """

    code: int
    seconds: float
    out: str
    err: str
    log: list[str]


def make_jobs(ground: Path, names: Sequence[str], *, tiny: bool = False) -> list[Job]:
    """The named jobs, with data and models for them below ``ground``.

    ``fit`` and ``bench`` work on pictures of the packaged demo, ``features`` on many small drawn
    ones, all with a tiny model; ``tiny`` takes fewer and drawn pictures. Any other name is a whole
    command line of dspt, such as ``"audit demo --out {out} --cache {cache}"``.
    """
    ground.mkdir(parents=True, exist_ok=True)
    model = ground / "model"
    if not model.exists():
        write_model(model)
    pictures = ground / "pictures"
    if not pictures.exists():
        if tiny:
            write_pictures(pictures / "train", CLASSES, 6)
            write_pictures(pictures / "test", CLASSES, 4, first=50)
        else:
            _write_demo(pictures)
    many = ground / "many.parquet"
    if "features" in names and not many.exists():
        write_table(many, 200 if tiny else 5000)
    common = ("--cache", "{cache}", "--device", "cpu", "--quiet")
    own = ("--backbone", str(model), "--shots", "4", "--epochs", "6" if tiny else "40", *common)
    noise = ("--noise", "none", "--noise", "symmetric:0.5", "--seeds", "3")
    methods = [
        part for m in ("zero-shot", "linear-probe", "ce", "dspt") for part in ("--method", m)
    ]
    known = {
        "fit": ("fit", str(pictures), "--noise", "symmetric:0.25", "--out", "{out}", *own),
        "bench": (
            *("bench", "--data", str(pictures), *methods, *noise, "--out", "{out}"),
            *("--side-by-side", "5", *own),
        ),
        "features": (
            *(
                "zeroshot",
                str(many),
                "--split",
                "train",
                "--backbone",
                str(model),
                "--holdout",
                "0",
            ),
            *("--json", *common),
        ),
    }
    return [
        Job(name.split()[0], tuple(known.get(name) or (*name.split(), *common[2:])))
        for name in names
    ]


def _write_demo(folder: Path, classes: int = 8, train: int = 8, test: int = 8) -> None:
    """Some pictures of the packaged demo as class folders."""
    from dspt.data import load_dataset

    demo = load_dataset("demo")
    for label in range(classes):
        for split, count in (("train", train), ("test", test)):
            own = [i for i in demo.splits[split] if demo.labels[i] == label][:count]
            place = folder / split / demo.class_names[label]
            place.mkdir(parents=True)
            for number, index in enumerate(own):
                (place / f"{number:03}.png").write_bytes(demo.images.read(int(index)))


def write_table(path: Path, rows: int, side: int = 8) -> None:
    """A Parquet file of small different pictures, written row group by row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({"image": pa.binary(), "label": pa.string()})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 1000):
            numbers = range(start, min(start + 1000, rows))
            labels = [CLASSES[n % len(CLASSES)] for n in numbers]
            images = [small_picture(n, side) for n in numbers]
            writer.write_table(pa.table({"image": images, "label": labels}, schema))


def small_picture(number: int, side: int = 8) -> bytes:
    """A PNG of random points; every number gives another one."""
    from PIL import Image

    points = hashlib.shake_256(str(number).encode()).digest(3 * side * side)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), points).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


class Running:
    """A job that was started in a place; its folders are ``out`` and ``cache`` there.

    Args:
        job: what to run.
        place: folder; also gets what the process prints and notes.
        fresh: start an interpreter, as a shell does. Otherwise the process is forked from one that
            has loaded the libraries and computed nothing, which is the same but for the start-up.
    """

    def __init__(self, job: Job, place: Path, *, fresh: bool = False) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self._files = [place / f"{what}-{next(_NUMBERS)}" for what in ("log", "stdout", "stderr")]
        filled = [part.format(out=place / "out", cache=place / "cache") for part in job.arguments]
        given = (*map(str, self._files), *filled)
        self._began = time.perf_counter()
        self._process: subprocess.Popen[bytes] | multiprocessing.process.BaseProcess
        if fresh:
            command = [sys.executable, "-m", "tools.reliability.watched", *given]
            self._process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        else:
            self._process = _server().Process(target=watched.run, args=(given,))
            self._process.start()

    def finish(self, after: float | None = None, how: signal.Signals = signal.SIGKILL) -> Ended:
        """Wait for the end; ``after`` seconds from now send the signal ``how``."""
        code = self._wait(after)
        if code is None:
            assert self._process.pid is not None
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, how)
            code = self._wait(None)
        assert code is not None
        seconds = time.perf_counter() - self._began
        log, out, err = (file.read_text() if file.exists() else "" for file in self._files)
        for file in self._files:
            file.unlink(missing_ok=True)
        return Ended(code, seconds, out, err, log.splitlines())

    def _wait(self, seconds: float | None) -> int | None:
        if isinstance(self._process, subprocess.Popen):
            try:
                return self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
        self._process.join(seconds)
        return self._process.exitcode


@functools.cache
def _server() -> multiprocessing.context.BaseContext:
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([f"{__package__}.watched", *LIBRARIES])
    return made


def run(job: Job, place: Path, *, fresh: bool = False) -> Ended:
    """Run a job to its end."""
    return Running(job, place, fresh=fresh).finish()


TIMES = ("time", "seconds")
"""Fields of result.json and audit.json that are never twice the same."""


def outcome(folder: Path) -> dict[str, str]:
    """File by file what a job wrote, as a hash; timings do not count, nor does a page's text."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".json":
            data = json.dumps(_timeless(json.loads(data))).encode()
        if path.suffix == ".html":  # shows timings among its text
            data = b""
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in TIMES}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Cached:
    """What a cache of image features holds.

    Attributes:
        features: hash of every feature by (folder, hash of the picture).
        repeated: features that lie there more than once.
        others: files that are no shards.
    """

    features: dict[tuple[str, str], str]
    repeated: int
    others: list[str]


def cached(cache: Path) -> Cached:
    """Read a cache."""
    features: dict[tuple[str, str], str] = {}
    rows: Counter[tuple[str, str]] = Counter()
    others = []
    for path in sorted(p for p in cache.rglob("*") if p.is_file()):
        if path.suffix != ".safetensors":
            others.append(path.relative_to(cache).as_posix())
            continue
        with safe_open(path, framework="pt") as shard:
            digests, values = shard.get_tensor("digests"), shard.get_tensor("features")
        for digest, value in zip(digests, values, strict=True):
            key = (path.parent.name, _hash(digest))
            rows[key] += 1
            features[key] = _hash(value)
    return Cached(features, rows.total() - len(rows), others)


def _hash(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def litter(*folders: Path) -> list[str]:
    """Temporary files and locks."""
    return [
        path.relative_to(folder).as_posix()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.name.startswith(".") or path.suffix in (".tmp", ".lock")
    ]


def parser(what: str) -> argparse.ArgumentParser:
    """The options that every campaign has."""
    made = argparse.ArgumentParser(description=what)
    made.add_argument("--work", type=Path, required=True, help="folder to work in, on a local disk")
    made.add_argument("--seed", type=int, default=1, help="of what is drawn")
    made.add_argument("--fresh", action="store_true", help="start an interpreter every time")
    made.add_argument("--tiny", action="store_true", help="tiny model and few pictures")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file")
    return made
