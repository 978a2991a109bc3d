from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.bench.ground import grid_fields

from dspt.bench import loading, schedule
from dspt.bench.grid import cells, parse_grid
from dspt.bench.run import Bench
from dspt.bench.schedule import (
    Plan,
    form_groups,
    make_plan,
    measure_shape,
    model_key,
    shape_key,
    source_key,
)
from dspt.bench.store import Store, cell_id
from dspt.configuration import FitConfig, build_config
from dspt.methods import trains_prompt
from dspt.prompts.shared_prefix import SharedPrefixEngine


def cell(**fields: object) -> FitConfig:
    return build_config(**{"data": "caltech101", **fields})


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        ({"method": "ce"}, True),
        ({"method": "gce", "method_options": {"q": 0.5}}, True),
        ({"noise": "pair:0.5"}, True),
        ({"seed": 7}, True),
        ({"prompt": {"n_ctx": 16}}, True),
        ({"prompt": {"n_ctx": 16, "init": "a photo of a"}}, True),
        ({"prompt": {"init": "a photo of a"}}, False),
        ({"prompt": {"n_ctx": 4}}, False),
        ({"prompt": {"position": "front"}}, False),
        ({"prompt": {"class_specific": True}}, False),
        ({"recipe": {"epochs": 9}}, False),
        ({"shots": 8}, False),
        ({"classes": "base"}, False),
        ({"backbone": "RN50"}, False),
        ({"views": 2}, False),
        ({"feature_precision": "fp16"}, False),
        ({"holdout": 0.5}, False),
    ],
)
def test_what_can_train_side_by_side(change: dict[str, Any], alike: bool) -> None:
    assert (shape_key(cell(**change)) == shape_key(cell())) is alike


def groups_of(found: list[FitConfig], size: int) -> list[schedule.Group]:
    return form_groups(Plan(found, {}, {}, []), lambda cell: size)


def test_groups_hold_every_cell_once_and_only_alike_ones() -> None:
    found = cells(
        parse_grid(
            {
                "data": ["a", "b"],
                "backbones": ["x", "y"],
                "methods": ["zero-shot", "linear-probe", "ce", "dspt", "gce"],
                "kinds": ["symmetric"],
                "rates": [0, 0.25, 0.5],
                "shots": [4, 8],
                "seeds": [1, 2],
            }
        )
    )
    groups = groups_of(found, 8)
    assert sorted(cell_id(c) for g in groups for c in g.cells) == sorted(map(cell_id, found))
    for group in groups:
        assert {trains_prompt(c.method) for c in group.cells} == {group.trains}
        if group.trains:
            assert len({shape_key(c) for c in group.cells}) == 1
            assert 6 <= len(group.cells) <= 8  # 18 of a shape: three nearly equal groups
    places = [(model_key(g.cells[0]), source_key(g.cells[0])) for g in groups]
    assert len(list(itertools.groupby(places))) == 4  # no model or data set is loaded twice
    assert len(list(itertools.groupby(model for model, _ in places))) == 2


def test_a_group_is_never_larger_than_allowed() -> None:
    found = cells(parse_grid({"data": ["a"], "methods": ["ce"], "seeds": list(range(9))}))
    assert [len(g.cells) for g in groups_of(found, 8)] == [5, 4]
    assert [len(g.cells) for g in groups_of(found, 1)] == [1] * 9
    assert [len(g.cells) for g in groups_of(found, 100)] == [9]


@pytest.mark.parametrize("count", range(1, 40))
@pytest.mark.parametrize("size", [1, 3, 5, 8])
def test_what_is_left_when_groups_are_finished_is_grouped_as_before(count: int, size: int) -> None:
    found = cells(parse_grid({"data": ["a"], "methods": ["ce"], "seeds": list(range(count))}))
    groups = groups_of(found, size)
    for done in range(1, len(groups)):
        left = found[sum(len(group.cells) for group in groups[:done]) :]
        assert groups_of(left, size) == groups[done:]


def test_ten_thousand_cells_are_planned_without_loading_anything(
    undisturbed: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be loaded")

    monkeypatch.setattr(loading, "load_configured", forbidden)
    monkeypatch.setattr(loading, "load_backbone", forbidden)
    many = cells(
        parse_grid(
            {
                "data": ["caltech101"],
                "methods": ["ce", "dspt", "gce", "mae"],
                "kinds": ["symmetric", "pair"],
                "rates": [n / 50 for n in range(1, 26)],
                "seeds": list(range(50)),
            }
        )
    )
    assert len(many) == 10_000
    store = Store(tmp_path)
    finished = undisturbed.store.finished(undisturbed.cells[0])
    assert finished is not None
    for done in many[:500]:
        folder = store.folder(done)
        folder.mkdir(parents=True)
        text = finished.model_copy(update={"config": done}).model_dump_json()
        (folder / "result.json").write_text(text)
    plan = make_plan(many, store)
    assert len(plan.finished) == 500
    groups = form_groups(plan, lambda cell: 8)
    assert sum(len(group.cells) for group in groups) == 9_500
    assert len(groups) == -(-9_500 // 8)


def test_a_finished_bench_is_looked_at_without_loading_anything(
    ground: Path, undisturbed: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    monkeypatch.setattr(loading, "load_configured", loads.append)
    monkeypatch.setattr(loading, "load_backbone", loads.append)
    grid = parse_grid(grid_fields(ground))
    again = Bench(grid, undisturbed.store.out, device="cpu")
    outcome = again.execute(again.prepare())
    assert loads == []
    assert outcome.computed == []
    assert outcome.failures == []


def test_a_begun_group_is_continued_only_whole(undisturbed: Bench, tmp_path: Path) -> None:
    members = [c for c in undisturbed.cells if c.method in ("ce", "dspt")][:3]
    store = Store(tmp_path)
    store.write_group(members)
    assert make_plan(undisturbed.cells, store).begun == [members]
    assert make_plan(members[:2], store).begun == []
    assert form_groups(make_plan(members, store), lambda cell: 1) == [
        schedule.Group(members, trains=True, begun=True)
    ]
    # The rest stays what it would have been, and nothing is done twice.
    groups = form_groups(make_plan(undisturbed.cells, store), lambda cell: 3)
    ids = [cell_id(c) for g in groups for c in g.cells]
    assert sorted(ids) == sorted(map(cell_id, undisturbed.cells))


def test_records_of_groups_that_are_done_are_removed(undisturbed: Bench) -> None:
    members = [c for c in undisturbed.cells if c.method == "ce"][:2]
    undisturbed.store.write_group(members)
    assert make_plan(undisturbed.cells, undisturbed.store).begun == []
    assert undisturbed.store.groups() == []


def test_sizes_fit_the_memory_limit_of_the_engine(
    ground: Path, undisturbed: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(c for c in undisturbed.cells if c.method == "ce")
    loader = loading.Loader("cpu", ground / "cache", _silent())

    def size(bytes_per_run: int, members: int, most: int | None = None) -> int:
        training_bytes: Callable[..., int] = lambda self, runs: runs * bytes_per_run  # noqa: E731
        monkeypatch.setattr(SharedPrefixEngine, "training_bytes", training_bytes)
        cost = measure_shape(first, members, loader.dataset(first), loader.backbone(first), most)
        assert cost.step_seconds > 0
        assert cost.steps == 3 * (12 // 4)  # epochs, 3 classes of 4 pictures, batches of 4
        assert cost.seconds(2 * cost.side_by_side) == pytest.approx(
            2 * cost.seconds(cost.side_by_side)
        )
        return cost.side_by_side

    assert size(1, 100) == schedule.ON_CPU
    assert size(2**29, 100) == 4
    assert size(2**40, 100) == 1
    assert size(2**29, 3) == 4
    assert size(2**29, 100, most=6) == 6  # asked for is asked for


def _silent() -> Any:
    from dspt.progress import Silent

    return Silent()
