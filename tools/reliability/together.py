"""Several processes at once on the same folders: nothing damaged, nothing done twice.

    python -m tools.reliability.together --work DIR --processes 3

For every job, that many processes with the same command start at once on one output folder and one
cache; in half of the rounds the first of them is killed at a random moment. All others must end
well, with results that are whole, and no epoch, cell or picture may be computed twice, but for what
the killed one had not finished. A bench whose others have ended when the first is killed says that
cells were left to it; the command is then started once more.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.common import keep, print_table
from tools.reliability.jobs import (
    Job,
    Running,
    cached,
    litter,
    make_jobs,
    outcome,
    parser,
    run,
)


@dataclass
class Tally:
    """What was seen of one job.

    Attributes:
        job: its name.
        processes: at once.
        rounds: how often they started together.
        kills: how often the first of them was killed.
        started_again: rounds after which a killed process's cells were left.
        ended_well: processes with exit code 0 that were not killed.
        trained_twice: epochs of one training that more than one process computed.
        encoded: pictures, in all rounds.
        encoded_twice: those of them that more than one process encoded, or one again after a kill.
        wrong: one line for everything that should not be.
    """

    job: str
    processes: int
    rounds: int = 0
    kills: int = 0
    started_again: int = 0
    ended_well: int = 0
    trained_twice: int = 0
    encoded: int = 0
    encoded_twice: int = 0
    wrong: list[str] = field(default_factory=list)


def together(job: Job, work: Path, processes: int, rounds: int, dice: random.Random) -> Tally:
    """Start a job several times at once, round after round."""
    tally = Tally(job.name, processes)
    whole = work / f"{job.name}-whole"
    shutil.rmtree(whole, ignore_errors=True)
    alone = run(job, whole)
    if alone.code:
        raise SystemExit(f"{job.name} does not run: {alone.err}")
    files, features = outcome(whole / "out"), cached(whole / "cache").features
    for number in range(rounds):
        place = work / f"{job.name}-{number}"
        shutil.rmtree(place, ignore_errors=True)
        running = [Running(job, place) for _ in range(processes)]
        kill = number % 2 == 1
        ends = [running[0].finish(dice.uniform(0, 2 * alone.seconds) if kill else None)]
        ends += [one.finish() for one in running[1:]]
        if ends[0].code < 0 and any("are left to another process" in end.err for end in ends):
            tally.started_again += 1
            ends.append(run(job, place))
        tally.rounds += 1
        tally.kills += ends[0].code < 0
        tally.ended_well += sum(end.code == 0 for end in ends)
        wrong = [f"exit code {end.code}: {end.err[-300:]}" for end in ends if end.code > 0]
        epochs: Counter[str] = Counter()
        encoded = 0
        for line in (line for end in ends for line in end.log):
            if line.startswith("epoch"):
                epochs[line] += 1
            else:
                encoded += int(line.split()[1])
        tally.trained_twice += epochs.total() - len(epochs)
        tally.encoded += encoded
        tally.encoded_twice += encoded - len(features)
        found = cached(place / "cache")
        if found.features != features or found.repeated or found.others:
            wrong.append(f"cache: {len(found.features)} features, {found.repeated} twice")
        mine = outcome(place / "out")
        # Prompts that trained in other groups than in one process differ by rounding.
        same = mine.keys() == files.keys() if job.name == "bench" else mine == files
        if not same:
            wrong.append(f"other results: {sorted(set(mine.items()) ^ set(files.items()))[:4]}")
        wrong += [f"left behind: {name}" for name in litter(place / "out", place / "cache")]
        tally.wrong += [f"{place.name}: {text}" for text in wrong]
        if not wrong:
            shutil.rmtree(place)
    return tally


def main(given: list[str] | None = None) -> list[Tally]:
    """Run the campaign."""
    options = parser("Several processes at once.")
    options.add_argument("--job", action="append", help="fit, bench, features or a command line")
    options.add_argument("--processes", type=int, default=3)
    options.add_argument("--rounds", type=int, default=6, help="of each job")
    arguments = options.parse_args(given)
    names = arguments.job or ["fit", "bench", "features"]
    dice = random.Random(arguments.seed)
    tallies = [
        together(job, arguments.work, arguments.processes, arguments.rounds, dice)
        for job in make_jobs(arguments.work / "ground", names, tiny=arguments.tiny)
    ]
    header = ["job", "processes", "rounds", "kills", "again", "ended well", "epochs twice"]
    print_table(
        [*header, "pictures", "twice", "wrong"],
        [
            [
                *(t.job, t.processes, t.rounds, t.kills, t.started_again, t.ended_well),
                *(t.trained_twice, t.encoded, t.encoded_twice, len(t.wrong)),
            ]
            for t in tallies
        ],
    )
    for tally in tallies:
        for line in tally.wrong:
            print(f"WRONG {tally.job} {line}")
    keep(arguments.out, "together", {t.job: asdict(t) for t in tallies}, arguments)
    return tallies


if __name__ == "__main__":
    raise SystemExit(any(tally.wrong for tally in main()))
