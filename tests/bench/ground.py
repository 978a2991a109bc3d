"""A tiny bench for the tests of this folder, and processes that die where a test wants them to.

Run as a script it forks processes that compute one grid into one folder. They are forked from a
process that has loaded the libraries but computed nothing, which is fast and safe.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dspt.bench.grid import parse_grid
from dspt.bench.run import Bench, Outcome
from dspt.bench.store import Store, cell_id
from dspt.progress import Silent

METHODS = ["zero-shot", "linear-probe", "ce", "nlprompt", "dspt"]


def grid_fields(ground: Path, **fields: Any) -> dict[str, Any]:
    """A grid on the tiny model and pictures below ``ground``."""
    return {
        "data": [str(ground / "pictures")],
        "backbones": [str(ground / "model")],
        "methods": METHODS,
        "noise": ["none", "symmetric:0.5"],
        "shots": 4,
        "seeds": [1, 2],
        # A gentle rate: the tiny model is steep enough to make rounding errors large.
        "recipe": {"epochs": 3, "batch_size": 4, "lr": 0.0005},
        **fields,
    }


def bench(ground: Path, out: Path, *, progress: Any = None, **fields: Any) -> Bench:
    """The bench of that grid, three prompts side by side."""
    grid = parse_grid(grid_fields(ground, **fields))
    return Bench(
        grid,
        out,
        side_by_side=3,
        device="cpu",
        cache=ground / "cache",
        progress=progress,
    )


def run(ground: Path, out: Path, **fields: Any) -> tuple[Bench, Outcome]:
    """Compute that grid."""
    made = bench(ground, out, **fields)
    return made, made.execute(made.prepare())


def written(store: Store, made: Bench) -> dict[str, tuple[bytes, ...]]:
    """What must not depend on interruptions: measurements, model, ranking and labels of a cell."""
    found = {}
    for cell in made.cells:
        result = store.finished(cell)
        assert result is not None
        folder = store.folder(cell)
        names = ["prompt.safetensors", "head.safetensors", "suspects.csv", "labels.csv"]
        files = [folder / name for name in names]
        if (folder / "metrics.jsonl").is_file():
            files.append(folder / "metrics.jsonl")
        told = result.model_dump_json(exclude={"time"}).encode()
        found[cell_id(cell)] = (told, *(f.read_bytes() for f in files if f.is_file()))
    return found


class _Deadly(Silent):
    """Ends the process by SIGKILL at its n-th event.

    An event is a step, or a written file before or after it gets its name.
    """

    def __init__(self, n: int) -> None:
        self._left = n
        replace = os.replace

        def dangerous(source: Any, target: Any) -> None:
            self.event()
            replace(source, target)
            self.event()

        os.replace = dangerous  # type: ignore[assignment]

    def event(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def task(self, description: str) -> Any:
        import contextlib

        @contextlib.contextmanager
        def running() -> Any:
            yield lambda done, total: self.event()

        return running()


def _fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def _ends_well(child: int) -> bool:
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def die_and_go_on(ground: Path, out: Path, lives: list[int]) -> int:
    """Compute the grid; the i-th attempt dies at its ``lives[i]``-th event. Number of deaths."""
    for deaths, life in enumerate([*lives, 0]):

        def work(life: int = life) -> None:
            made = bench(ground, out, progress=_Deadly(life))
            made.execute(made.prepare())

        if _ends_well(_fork(work)):
            return deaths
    raise AssertionError("the last attempt was to live")


def two_at_once(ground: Path, out: Path) -> list[list[str]]:
    """Compute the grid with two processes; what each computed."""

    def work(number: int) -> None:
        _, outcome = run(ground, out)
        told = json.dumps([cell_id(cell) for cell in outcome.computed])
        (out / f"told-{number}").write_text(told)

    children = [_fork(lambda: work(0)), _fork(lambda: work(1))]
    ends = [_ends_well(child) for child in children]  # wait for both
    assert all(ends)
    return [json.loads((out / f"told-{number}").read_text()) for number in (0, 1)]


def in_fresh_processes(ground: Path, out: Path, lives: list[int]) -> dict[str, Any]:
    """:func:`die_and_go_on` and :func:`two_at_once`, called in a process that may fork."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.ground", ground, out, json.dumps(lives)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


if __name__ == "__main__":
    import open_clip  # noqa: F401 - loaded once, before the forks

    place, below = Path(sys.argv[1]), Path(sys.argv[2])
    deaths = die_and_go_on(place, below / "killed", json.loads(sys.argv[3]))
    print(json.dumps({"deaths": deaths, "shared": two_at_once(place, below / "shared")}))
