"""A full disk and a read-only folder: one clear line, exit code 2, nothing lost that was finished.

    python -m tools.reliability.full_disk --work DIR

Every job runs with its output, and then with its cache, on file systems in memory that grow from
nothing to enough, so that the disk is full at another moment each time; then the disk is made large
and the same command must go on to the results of an undisturbed run. Then the same for a folder
that is mounted read-only. Needs root on Linux, to mount.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.common import keep, print_table
from tools.reliability.jobs import Ended, Job, cached, litter, make_jobs, outcome, parser, run

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
"""KiB."""


def can_mount() -> bool:
    """Whether this process may mount file systems."""
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("mount") is not None


@contextlib.contextmanager
def disk(place: Path, kib: int) -> Iterator[None]:
    """A file system in memory of this size; gone at the end.

    Raises:
        OSError: when it cannot be mounted here.
    """
    place.mkdir(parents=True, exist_ok=True)
    _call("mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place))
    try:
        yield
    finally:
        _call("umount", str(place))


def change(place: Path, options: str) -> None:
    """Mount anew with other options, such as a larger size."""
    _call("mount", "-o", f"remount,{options}", str(place))


def _call(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


@dataclass
class Tally:
    """What was seen of one job on one kind of bad disk.

    Attributes:
        job: its name.
        where: "out" or "cache".
        what: "full" or "read-only".
        refused: how often the command ended with exit code 2 and one line.
        enough: how often the disk was large enough.
        identical: how often the same command went on to the results of an undisturbed run.
        lines: the different lines that were said, without folders.
        wrong: one line for everything that should not be.
    """

    job: str
    where: str
    what: str
    refused: int = 0
    enough: int = 0
    identical: int = 0
    lines: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def full(job: Job, work: Path, where: str, sizes: tuple[int, ...] = SIZES) -> Tally:
    """A job on disks that are too small."""
    tally = Tally(job.name, where, "full")
    whole = _whole(job, work)
    for kib in sizes:
        places = _places(work, job)
        with disk(places[where], kib):
            ended = run(job, places["out"].parent)
            _judge(ended, tally, f"{kib} KiB", work)
            finished = _finished(places)
            change(places[where], "size=1g")
            _go_on(job, places, whole, finished, tally, f"{kib} KiB")
    return tally


def read_only(job: Job, work: Path, where: str) -> Tally:
    """A job in a folder that may only be read, at the start and after half of the work."""
    tally = Tally(job.name, where, "read-only")
    whole = _whole(job, work)
    places = _places(work, job)
    with disk(places[where], 1 << 20):
        change(places[where], "ro")
        ended = run(job, places["out"].parent)
        _judge(ended, tally, "empty", work)
        change(places[where], "rw")
        _go_on(job, places, whole, {}, tally, "empty")
    return tally


def _whole(job: Job, work: Path) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """What an undisturbed run gives; computed once."""
    out, cache = work / f"{job.name}-whole" / "out", work / f"{job.name}-whole" / "cache"
    if not cache.exists():
        ended = run(job, out.parent)
        if ended.code:
            raise SystemExit(f"{job.name} does not run: {ended.err}")
    return outcome(out), cached(cache).features


def _places(work: Path, job: Job) -> dict[str, Path]:
    place = work / f"{job.name}-disk"
    shutil.rmtree(place, ignore_errors=True)
    return {"out": place / "out", "cache": place / "cache"}


def _judge(ended: Ended, tally: Tally, when: str, work: Path) -> None:
    lines = ended.err.strip().splitlines()
    errors = [line for line in lines if line.startswith("dspt: error:")]
    if ended.code == 0:
        tally.enough += 1
    elif ended.code == 2 and len(errors) == 1 and lines[-1] == errors[0]:
        tally.refused += 1
        said = errors[0].replace(str(work), "")
        if said not in tally.lines:
            tally.lines.append(said)
    else:
        tally.wrong.append(f"{when}: exit code {ended.code}: {lines[-3:]}")


def _finished(places: dict[str, Path]) -> dict[Path, int]:
    return {
        path: path.stat().st_ino
        for place in places.values()
        for path in (*place.rglob("result.json"), *place.rglob("v1-*/*.safetensors"))
    }


def _go_on(
    job: Job,
    places: dict[str, Path],
    whole: tuple[dict[str, str], dict[tuple[str, str], str]],
    finished: dict[Path, int],
    tally: Tally,
    when: str,
) -> None:
    ended = run(job, places["out"].parent)
    same = (outcome(places["out"]), cached(places["cache"]).features) == whole
    again = [path.name for path, inode in finished.items() if path.stat().st_ino != inode]
    left = litter(*places.values())
    if ended.code or not same or again or left:
        tally.wrong.append(
            f"{when}: with room, exit code {ended.code}, {'same' if same else 'other'} results, "
            f"written again {again}, left {left} {ended.err.strip()[-300:]}"
        )
    tally.identical += ended.code == 0 and same


def main(given: list[str] | None = None) -> list[Tally]:
    """Run the campaign."""
    options = parser("Full disks and read-only folders.")
    options.add_argument("--job", action="append", help="fit, bench, features or a command line")
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="of disks, in KiB")
    arguments = options.parse_args(given)
    if not can_mount():
        raise SystemExit("needs root on Linux, to mount small file systems")
    names = arguments.job or ["fit", "bench", "features"]
    tallies = []
    for job in make_jobs(arguments.work / "ground", names, tiny=arguments.tiny):
        for where in ("out", "cache"):
            if f"{{{where}}}" in job.arguments:
                tallies.append(full(job, arguments.work, where, tuple(arguments.sizes)))
                tallies.append(read_only(job, arguments.work, where))
    print_table(
        ["job", "folder", "disk", "refused", "enough", "went on to the same", "wrong"],
        [[t.job, t.where, t.what, t.refused, t.enough, t.identical, len(t.wrong)] for t in tallies],
    )
    for tally in tallies:
        for line in tally.lines:
            print(f"{tally.job} {tally.where} {tally.what}: {line}")
        for line in tally.wrong:
            print(f"WRONG {tally.job} {tally.where} {tally.what} {line}")
    keep(arguments.out, "full_disk", {"rows": [asdict(t) for t in tallies]}, arguments)
    return tallies


if __name__ == "__main__":
    raise SystemExit(any(tally.wrong for tally in main()))
