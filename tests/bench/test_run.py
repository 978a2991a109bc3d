from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.bench.ground import bench, grid_fields, in_fresh_processes, run, written
from tests.tiny import count_encoded, draw, files_of, write_pictures
from torch import Tensor

from dspt import fit
from dspt.bench.grid import parse_grid
from dspt.bench.run import Bench, Status
from dspt.bench.store import Store, cell_id
from dspt.errors import UserError
from dspt.files import WriteError
from dspt.losses import LOSSES
from dspt.training.loop import train

RUN_FILES = {"config.json", "labels.csv", "result.json", "suspects.csv"}


def test_every_cell_is_a_run_folder_and_nothing_else_is_left(undisturbed: Bench) -> None:
    store = undisturbed.store
    assert len(undisturbed.cells) == 5 * 2 * 2
    assert {path.name for path in store.out.iterdir()} == {"bench.json", "cells", "groups", "locks"}
    assert files_of(store.out / "groups") == {}
    assert {path.name for path in (store.out / "cells").iterdir()} == {
        store.folder(cell).name for cell in undisturbed.cells
    }
    for cell in undisturbed.cells:
        bound = cell.method in ("zero-shot", "linear-probe")
        own = {"head.safetensors"} if bound else {"prompt.safetensors", "metrics.jsonl"}
        assert set(files_of(store.folder(cell))) == RUN_FILES | own


def test_side_by_side_equals_single_runs(ground: Path, undisturbed: Bench) -> None:
    for cell in undisturbed.cells:
        if cell.seed != 2:
            continue
        alone = fit(
            cell.data,
            cell.backbone,
            cache=ground / "cache",
            device="cpu",
            **cell.model_dump(exclude={"data", "backbone", "data_root"}),
        )
        result = undisturbed.store.finished(cell)
        assert result is not None
        assert alone.result.final is not None
        assert result.final is not None
        assert result.final.accuracy == pytest.approx(alone.result.final.accuracy, abs=1e-9)
        assert result.noise == alone.result.noise
        assert len(result.epochs) == len(alone.result.epochs)
        for mine, theirs in zip(result.epochs[1:], alone.result.epochs[1:], strict=True):
            assert mine.train_loss == pytest.approx(theirs.train_loss, abs=2e-5)
        if result.epochs:
            stored = load_file(undisturbed.store.folder(cell) / "prompt.safetensors")["context"]
            torch.testing.assert_close(stored, alone.model.context, rtol=1e-4, atol=2e-6)


@pytest.fixture(scope="module")
def disturbed(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The grid computed again: below "killed" against deaths, below "shared" by two processes."""
    out = tmp_path_factory.mktemp("disturbed")
    dice = random.Random(4)
    lives = [1, 2, *(dice.randrange(3, 90) for _ in range(6))]
    return out, in_fresh_processes(ground, out, lives)


def test_killed_at_any_moment_it_goes_on_to_the_identical_result(
    ground: Path, undisturbed: Bench, disturbed: tuple[Path, Any]
) -> None:
    out, told = disturbed
    assert told["deaths"] >= 4
    store = Store(out / "killed")
    assert written(store, undisturbed) == written(undisturbed.store, undisturbed)
    assert files_of(store.out / "groups") == {}
    assert not list(store.out.rglob("*.tmp"))


def test_two_processes_share_the_work(undisturbed: Bench, disturbed: tuple[Path, Any]) -> None:
    out, told = disturbed
    first, second = told["shared"]
    assert sorted(first + second) == sorted(map(cell_id, undisturbed.cells))
    store = Store(out / "shared")
    for cell in undisturbed.cells:
        mine, theirs = store.finished(cell), undisturbed.store.finished(cell)
        assert mine is not None
        assert theirs is not None
        assert mine.final is not None
        assert theirs.final is not None
        # Other groups than in one process: equal within rounding.
        assert mine.final.accuracy == theirs.final.accuracy
        assert mine.final.mean_confidence == pytest.approx(theirs.final.mean_confidence, abs=1e-4)
        assert mine.noise == theirs.noise
    assert not list(store.out.rglob("*.tmp"))


def test_a_cache_that_cannot_be_written_is_one_error_and_not_one_of_every_cell(
    ground: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    made = Bench(parse_grid(grid_fields(ground)), tmp_path / "out", cache=tmp_path / "file")
    prepared = made.prepare()
    with pytest.raises(WriteError, match="file"):
        made.execute(prepared)
    assert not list((tmp_path / "out").rglob("failure.json"))


def test_a_larger_grid_computes_only_what_is_new(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"methods": ["ce"], "seeds": [1]}
    _, outcome = run(ground, tmp_path, **small)
    assert len(outcome.computed) == 2
    encoded = count_encoded(monkeypatch)
    larger, outcome = run(ground, tmp_path, methods=["ce", "mae"], seeds=[1])
    assert [cell.method for cell in outcome.computed] == ["mae", "mae"]
    assert encoded() == 0
    assert all(larger.store.finished(cell) for cell in larger.cells)
    _, outcome = run(ground, tmp_path, **small)
    assert outcome.computed == []


def test_the_data_set_and_the_model_are_loaded_once(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dspt.bench import loading

    calls: list[str] = []
    for name in ("load_configured", "load_backbone"):
        original: Callable[..., Any] = getattr(loading, name)

        def counting(*given: Any, original: Any = original, name: str = name, **more: Any) -> Any:
            calls.append(name)
            return original(*given, **more)

        monkeypatch.setattr(loading, name, counting)
    made = bench(ground, tmp_path, methods=["zero-shot", "ce"], shots=[2, 4])
    prepared = made.prepare()
    assert len(prepared.groups) > 3
    made.execute(prepared)
    assert sorted(calls) == ["load_backbone", "load_configured"]


def broken(logits: Tensor, target: Tensor) -> Tensor:
    """Infinite from the second epoch on, for label noise only."""
    return torch.nn.functional.cross_entropy(logits, target, reduction="none") * float("inf")


def test_a_diverging_cell_takes_no_other_with_it(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES, "mae", broken)  # type: ignore[index]
    grid = {"methods": ["mae", "ce", "dspt"], "noise": ["symmetric:0.5"], "seeds": [1]}
    made, outcome = run(ground, tmp_path, **grid)
    ((cell, failure),) = outcome.failures
    assert cell.method == "mae"
    assert "diverged in epoch 1" in failure.reason
    assert made.store.failure(cell) == failure
    assert sorted(c.method for c in outcome.computed) == ["ce", "dspt"]
    assert files_of(tmp_path / "groups") == {}
    # Known to diverge, it is told of but not tried again, unless asked for.
    monkeypatch.undo()
    again, outcome = run(ground, tmp_path, **grid)
    assert [c.method for c, _ in outcome.failures] == ["mae"]
    assert outcome.computed == []
    outcome = again.execute(again.prepare(retry=True))
    assert [c.method for c in outcome.computed] == ["mae"]
    assert outcome.failures == []
    assert again.store.failure(cell) is None


def test_noise_that_cannot_be_made_fails_alone(ground: Path, tmp_path: Path) -> None:
    grid = {"methods": ["ce"], "noise": ["none", "column:tag"], "seeds": [1]}
    made, outcome = run(ground, tmp_path, **grid)
    ((cell, failure),) = outcome.failures
    assert str(cell.noise) == "column:tag"
    assert "tag" in failure.reason
    assert len(outcome.computed) == 1
    assert made.store.finished(cell) is None
    assert len(run(ground, tmp_path, **grid)[1].failures) == 1  # tried again, refused again


def test_too_little_memory_makes_smaller_groups(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def small(engine: Any, scale: float, runs: Any, *given: Any, **more: Any) -> Any:
        sizes.append(len(runs))
        if len(runs) > 1:
            raise torch.cuda.OutOfMemoryError
        return train(engine, scale, runs, *given, **more)

    monkeypatch.setattr("dspt.fitting.train", small)
    _, outcome = run(ground, tmp_path, methods=["ce", "mae", "dspt"], noise=["none"], seeds=[1])
    assert sizes == [3, 1, 2, 1, 1]
    assert len(outcome.computed) == 3


def test_changed_data_is_refused(ground: Path, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", ("red", "blue"), 5)
    grid = {"data": [str(pictures)], "noise": ["none"], "seeds": [1]}
    run(ground, tmp_path / "out", methods=["zero-shot"], **grid)
    draw("red", 77).save(pictures / "red" / "077.png")
    with pytest.raises(UserError, match="the data has changed"):
        run(ground, tmp_path / "out", methods=["zero-shot", "ce"], **grid)


def test_the_state_is_told(ground: Path, tmp_path: Path) -> None:
    made = bench(ground, tmp_path, methods=["zero-shot", "ce"])
    seen: list[Status] = []
    made.execute(made.prepare(), seen.append)
    assert seen[0].cells_done == 0
    assert seen[0].seconds_left > 0
    assert [status.groups_done for status in seen] == list(range(len(seen)))
    assert (seen[-1].cells_done, seen[-1].seconds_left) == (8, 0.0)
    assert seen[-1].groups == seen[-1].groups_done


def test_what_cannot_be_run_is_refused_before_anything_is_loaded(
    ground: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="unknown"):
        bench(ground, tmp_path, methods=["ce", "cee"])
    with pytest.raises(UserError, match="no option"):
        bench(ground, tmp_path, methods=["gce:z=1"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        bench(ground, tmp_path / "file").prepare()


def test_a_picture_that_cannot_be_read_is_told_of_only_where_it_belongs(
    ground: Path, tmp_path: Path
) -> None:
    pictures = write_pictures(tmp_path / "pictures" / "train", ("red", "blue"), 8).parent
    write_pictures(pictures / "test", ("red", "blue"), 2, first=50)
    (pictures / "train" / "red" / "003.png").write_bytes(b"no picture")
    grid = {"data": [str(pictures)], "methods": ["ce"], "noise": ["none"], "seeds": [1, 2, 3, 4]}
    made, outcome = run(ground, tmp_path / "out", **grid)
    assert len(outcome.computed) == 4
    seen = set()
    for cell in made.cells:
        result = made.store.finished(cell)
        assert result is not None
        short = result.data.n_train == 7
        assert any("003.png" in warning for warning in result.warnings) == short
        seen.add(short)
    assert seen == {True, False}
