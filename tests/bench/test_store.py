from __future__ import annotations

import json
from pathlib import Path

import pytest

from dspt.bench.run import Bench
from dspt.bench.store import Failure, Store, cell_id, cell_name, group_id
from dspt.configuration import FitConfig, build_config
from dspt.errors import UserError
from dspt.files import atomic_path


def cell(**fields: object) -> FitConfig:
    return build_config(**{"data": "caltech101", "noise": "symmetric:0.5", "seed": 2, **fields})


def test_ids_are_the_same_in_every_process_and_version() -> None:
    assert cell_id(cell()) == "19848ec3da6f"
    assert cell_id(cell(method="gce", method_options={"q": 0.5}, shots=None)) == "7074eb74b4cb"
    assert group_id([cell(), cell(seed=3)]) == "002c167a7287"
    assert cell_name(cell()) == "caltech101-dspt-symmetric-0.5-16shots-s2-" + cell_id(cell())


def test_everything_that_decides_the_outcome_counts() -> None:
    changes = [
        {},
        {"data": "dtd"},
        {"classes": "base"},
        {"backbone": "RN50"},
        {"pretrained": "openai"},
        {"precision": "bf16"},
        {"method": "ce"},
        {"method_options": {"q": 0.7}},
        {"shots": 8},
        {"noise": "symmetric:0.25"},
        {"seed": 3},
        {"draw_seed": 3},
        {"noise_seed": 3},
        {"prompt": {"init": "a photo of a"}},
        {"recipe": {"epochs": 51}},
        {"views": 2},
        {"feature_precision": "fp16"},
        {"evidence": True},
        {"template": "a {}"},
        {"holdout": 0.1},
    ]
    ids = {cell_id(cell(**change)) for change in changes}
    assert len(ids) == len(changes)
    assert cell_id(cell(data_root="/elsewhere")) == cell_id(cell())


def test_names_of_folders_hold_no_path_and_are_short() -> None:
    name = cell_name(cell(data="/a/b/" + "x y" * 99, noise="column:../worse"))
    assert len(name) < 100
    assert "/" not in name
    assert not name.startswith(".")


def test_finished_means_a_readable_result_of_the_same_settings(
    undisturbed: Bench, tmp_path: Path
) -> None:
    first, second = undisturbed.cells[:2]
    told = (undisturbed.store.folder(first) / "result.json").read_text()
    store = Store(tmp_path)
    assert store.finished(first) is None
    target = store.folder(first) / "result.json"
    target.parent.mkdir(parents=True)
    for damaged in ("", told[: len(told) // 2], "{}"):
        target.write_text(damaged)
        assert store.finished(first) is None
    target.write_text((undisturbed.store.folder(second) / "result.json").read_text())
    assert store.finished(first) is None
    target.write_text(told)
    assert store.finished(first) is not None
    moved = first.model_copy(update={"data_root": "/elsewhere"})
    assert store.finished(moved) is not None


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    one, other = Store(tmp_path), Store(tmp_path)
    cells = [cell(seed=seed) for seed in range(3)]
    with one.locked(cells[:2]) as first:
        assert first == cells[:2]
        with other.locked(cells) as second:
            assert second == cells[2:]
    with other.locked(cells) as third:
        assert third == cells


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    store, members = Store(tmp_path), [cell()]
    folder = store.folder(cell())
    folder.mkdir(parents=True)
    (folder / ".result.json.abcdefgh.tmp").write_text("half")
    store.write_failure(cell(), Failure("before", final=True))
    store.prepare(cell())
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    store.write_group(members)
    name = store.checkpoint(members)
    (name.parent / f".{name.name}.abcdefgh.tmp").write_text("half")
    with atomic_path(name.parent / "other.safetensors") as living:
        store.forget_group(members)
        assert list(name.parent.iterdir()) == [living]


def test_groups_are_found_again_and_damaged_records_passed_over(tmp_path: Path) -> None:
    store, members = Store(tmp_path), [cell(seed=5), cell(seed=4)]
    assert store.groups() == []
    store.write_group(members)
    folder = store.checkpoint(members).parent
    (folder / "damaged.json").write_text("{")
    (folder / "renamed.json").write_text(store.checkpoint(members).with_suffix(".json").read_text())
    assert store.groups() == [members]


def test_grids_are_added_never_lost(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for grid in ({"a": 1}, {"b": 2}, {"a": 1}):
        store.remember(grid)
    assert json.loads((tmp_path / "bench.json").read_text())["grids"] == [{"a": 1}, {"b": 2}]
    (tmp_path / "bench.json").write_text("{}")
    with pytest.raises(UserError, match=r"bench\.json"):
        store.remember({"a": 1})
    assert (tmp_path / "bench.json").read_text() == "{}"


def test_failures_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.failure(cell()) is None
    store.write_failure(cell(), Failure("diverged", final=True))
    assert store.failure(cell()) == Failure("diverged", final=True)
