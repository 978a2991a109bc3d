"""Kill commands at random moments, start them again, compare with an undisturbed run.

    python -m tools.reliability.kills --work DIR --kills 40

Each trial has folders of its own. A command is started and killed after a time drawn uniformly from
the duration of the undisturbed run, several times in a row, then runs to its end. `--job` takes any
command of dspt: `--job "audit demo --out {out} --cache {cache}"`. `--signal INT` presses Ctrl-C
instead.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.common import keep, print_table
from tools.reliability.jobs import (
    Cached,
    Job,
    Running,
    cached,
    litter,
    make_jobs,
    outcome,
    parser,
    run,
)

STATES = ("nothing", "features", "checkpoint", "results")
"""What a kill left at most, in the order in which it comes to be."""

RESULT_FILES = ("result.json", "audit.json")
"""Written last, so their presence means completeness."""


@dataclass
class Tally:
    """What was seen of one job.

    Attributes:
        job: its name.
        seconds: of the last undisturbed run.
        kills: how often it was killed.
        found: kills by what they left at most.
        trials: how often it was brought to its end.
        identical: how often with the results of the undisturbed run.
        epochs: trained in all trials.
        epochs_again: trained although a checkpoint had them.
        pictures: encoded in all trials.
        pictures_again: encoded although the cache had them.
        results_again: written although they were complete.
        temporary: temporary files that kills left.
        temporary_at_end: those that were still there when the command had run to its end.
        wrong: one line for everything that should not be.
    """

    job: str
    seconds: float = 0.0
    kills: int = 0
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    trials: int = 0
    identical: int = 0
    epochs: int = 0
    epochs_again: int = 0
    pictures: int = 0
    pictures_again: int = 0
    results_again: int = 0
    temporary: int = 0
    temporary_at_end: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Whole:
    """An undisturbed run."""

    files: dict[str, str]
    cache: Cached
    said: str
    seconds: float


def campaign(
    job: Job,
    work: Path,
    kills: int,
    in_a_row: int,
    dice: random.Random,
    how: signal.Signals = signal.SIGKILL,
    fresh: bool = False,
) -> Tally:
    """Kill a job ``kills`` times, at most ``in_a_row`` times a trial."""
    whole = _undisturbed(job, work / f"{job.name}-whole", fresh)
    tally = Tally(job.name, whole.seconds)
    while tally.kills < kills:
        place = work / f"{job.name}-{tally.trials}"
        _trial(job, place, whole, min(in_a_row, kills - tally.kills), dice, how, fresh, tally)
        if not tally.wrong:
            shutil.rmtree(place)
    return tally


def _undisturbed(job: Job, place: Path, fresh: bool) -> Whole:
    shutil.rmtree(place, ignore_errors=True)
    ended = run(job, place, fresh=fresh)
    if ended.code:
        raise SystemExit(f"{job.name} does not run: {ended.err}")
    return Whole(outcome(place / "out"), cached(place / "cache"), ended.out, ended.seconds)


def _trial(
    job: Job,
    place: Path,
    whole: Whole,
    lives: int,
    dice: random.Random,
    how: signal.Signals,
    fresh: bool,
    tally: Tally,
) -> None:
    shutil.rmtree(place, ignore_errors=True)
    out, cache = place / "out", place / "cache"
    finished: dict[Path, tuple[int, int]] = {}
    epochs: dict[str, list[int]] = defaultdict(list)

    def wrong(text: str) -> None:
        tally.wrong.append(f"{place.name}: {text}")

    for life in range(lives + 1):
        known = len(cached(cache).features)
        after = dice.uniform(0, tally.seconds) if life < lives else None
        ended = Running(job, place, fresh=fresh).finish(after, how)
        encoded = 0
        for what, *told in map(str.split, ended.log):
            if what == "pictures":
                encoded += int(told[0])
            else:
                name, epoch = told[0], int(told[1])
                tally.epochs += 1
                tally.epochs_again += epoch <= max(epochs[name], default=-1)
                epochs[name].append(epoch)
        tally.pictures += encoded
        tally.pictures_again += max(0, known + encoded - len(whole.cache.features))
        if ended.code == 0:
            if life == 0:  # undisturbed; a shared machine is now faster, now slower
                tally.seconds = ended.seconds
            break
        tally.kills += 1
        tally.found[_state(out, cache)] += 1
        tally.temporary += len(litter(out, cache))
        finished |= _finished(out, cache)
        lines = ended.err.strip().splitlines()
        if how == signal.SIGINT and (ended.code != 130 or len(lines) != 1):
            wrong(f"after {after:.2f} s exit code {ended.code}, {len(lines)} lines: {lines[-1:]}")
        if how == signal.SIGKILL and ended.code != -how:
            wrong(f"exit code {ended.code}: {lines[-1:]}")
    tally.trials += 1
    if ended.code:
        wrong(f"did not end well: exit code {ended.code}: {ended.err}")
    tally.results_again += sum(_mark(path) != mark for path, mark in finished.items())
    tally.temporary_at_end += len(litter(out, cache))
    mine, found = outcome(out), cached(cache)
    differing = sorted(
        name for name in mine | whole.files if mine.get(name) != whole.files.get(name)
    )
    if differing:
        wrong(f"differs from the undisturbed run: {differing[:5]}")
    if found.features != whole.cache.features or found.repeated or found.others:
        wrong(f"cache: {len(found.features)} features, {found.repeated} twice, {found.others}")
    if not whole.files and ended.out != whole.said:  # its result is what it prints
        wrong("prints something else than the undisturbed run")
    tally.identical += not differing and found.features == whole.cache.features


def _state(out: Path, cache: Path) -> str:
    """The furthest that a kill left on disk."""
    if any(next(out.rglob(name), None) for name in RESULT_FILES):
        return "results"
    if next(out.rglob("*checkpoint.safetensors"), None) or next(out.glob("groups/*tensors"), None):
        return "checkpoint"
    return "features" if next(cache.rglob("*.safetensors"), None) else "nothing"


def _finished(out: Path, cache: Path) -> dict[Path, tuple[int, int]]:
    """Complete results and shards, with what tells whether they were written again."""
    found = [path for name in RESULT_FILES for path in out.rglob(name)]
    found += [*cache.rglob("*.safetensors")]
    return {path: _mark(path) for path in found}


def _mark(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def report(tallies: list[Tally]) -> None:
    """Print the table, and what went wrong."""
    header = ["job", "s", "kills", *STATES, "ends", "identical", "epochs", "again"]
    header += ["pictures", "again", "results again", "temporary", "at end", "wrong"]
    rows = [
        [
            *(t.job, round(t.seconds, 1), t.kills, *(t.found[state] for state in STATES)),
            *(t.trials, t.identical, t.epochs, t.epochs_again, t.pictures, t.pictures_again),
            *(t.results_again, t.temporary, t.temporary_at_end, len(t.wrong)),
        ]
        for t in tallies
    ]
    print_table(header, rows)
    for tally in tallies:
        for line in tally.wrong:
            print(f"WRONG {tally.job} {line}")


def main(given: list[str] | None = None) -> list[Tally]:
    """Run the campaign."""
    options = parser("Killed and started again.")
    options.add_argument("--job", action="append", help="fit, bench, features or a command line")
    options.add_argument("--kills", type=int, default=40, help="of each job")
    options.add_argument("--in-a-row", type=int, default=4, help="kills before a run may end")
    options.add_argument("--signal", choices=["KILL", "INT"], default="KILL")
    options.add_argument("--name", default="kills", help="of the JSON file")
    arguments: argparse.Namespace = options.parse_args(given)
    how = signal.Signals[f"SIG{arguments.signal}"]
    jobs = make_jobs(
        arguments.work / "ground",
        arguments.job or ["fit", "bench", "features"],
        tiny=arguments.tiny,
    )
    dice = random.Random(arguments.seed)
    tallies = [
        campaign(
            job, arguments.work, arguments.kills, arguments.in_a_row, dice, how, arguments.fresh
        )
        for job in jobs
    ]
    report(tallies)
    keep(arguments.out, arguments.name, {t.job: asdict(t) for t in tallies}, arguments)
    return tallies


if __name__ == "__main__":
    raise SystemExit(any(tally.wrong for tally in main()))
