from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dspt.bench.grid import cells, override, parse_grid, preset_names, read_grid, read_preset
from dspt.data.registry import dataset_card
from dspt.errors import UserError
from dspt.fitting import check_settings

SMALL = {"data": ["demo"], "methods": ["ce", "dspt"]}


def made(**fields: Any) -> list[tuple[str, str, int | None, int]]:
    found = cells(parse_grid({**SMALL, **fields}))
    return [(cell.method, str(cell.noise), cell.shots, cell.seed) for cell in found]


def test_every_combination_is_a_cell() -> None:
    found = made(noise=["none", "column:tag"], shots=[4, "all"], seeds=[1, 2])
    assert set(found) == {
        (method, noise, shots, seed)
        for method in ("ce", "dspt")
        for noise in ("none", "column:tag")
        for shots in (4, None)
        for seed in (1, 2)
    }
    assert len(found) == 16


def test_a_rate_of_zero_is_one_clean_cell_for_all_kinds() -> None:
    found = made(kinds=["symmetric", "asymmetric"], rates=[0, 0.5], noise=["none", "pair:0"])
    noise = Counter(noise for _, noise, _, _ in found)
    assert noise == {"none": 2, "symmetric:0.5": 2, "asymmetric:0.5": 2}


def test_cells_go_seed_by_seed() -> None:
    assert [seed for *_, seed in made(seeds=[3, 1], noise=["none", "pair:0.5"])] == [3] * 4 + [
        1
    ] * 4


def test_one_seed_draws_everything() -> None:
    (cell,) = cells(parse_grid({"data": "demo", "methods": "ce", "seeds": [0]}))
    assert (cell.seed, cell.draw_seed, cell.noise_seed) == (0, 0, 0)


def test_what_a_data_set_says_of_itself_counts_more() -> None:
    fields = {
        "data": ["demo", {"data": "other", "classes": "first:5", "noise": "column:tag"}],
        "methods": ["ce"],
        "noise": ["none", "symmetric:0.5"],
        "classes": "base",
    }
    found = [(cell.data, cell.classes, str(cell.noise)) for cell in cells(parse_grid(fields))]
    assert found == [
        ("demo", "base", "none"),
        ("demo", "base", "symmetric:0.5"),
        ("other", "first:5", "column:tag"),
    ]


def test_short_forms_of_backbones_and_methods() -> None:
    (cell,) = cells(
        parse_grid({"data": "demo", "backbones": "RN50@openai", "methods": "gce:q=0.5"})
    )
    assert (cell.backbone, cell.pretrained) == ("RN50", "openai")
    assert (cell.method, cell.method_options) == ("gce", {"q": 0.5})


def test_further_grids_say_only_what_differs() -> None:
    found = made(
        noise=["none", "symmetric:0.5"],
        seeds=[1, 2],
        also=[{"kinds": ["asymmetric"], "rates": [0.5], "methods": ["ce"]}],
    )
    assert len(found) == 8 + 2
    assert [cell for cell in found if "asymmetric" in cell[1]] == [
        ("ce", "asymmetric:0.5", 16, 1),
        ("ce", "asymmetric:0.5", 16, 2),
    ]


def test_exclude_leaves_out_what_agrees_in_everything_given() -> None:
    found = made(
        kinds=["symmetric", "pair"],
        rates=[0.25, 0.5],
        exclude=[{"method": "ce", "noise": "pair"}, {"noise": "symmetric:0.25"}],
    )
    assert set(found) == {
        ("ce", "symmetric:0.5", 16, 1),
        ("dspt", "symmetric:0.5", 16, 1),
        ("dspt", "pair:0.25", 16, 1),
        ("dspt", "pair:0.5", 16, 1),
    }


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"metods": ["ce"]}, ["metods", "no such field", "methods"]),
        ({"methods": []}, ["methods", "at least 1"]),
        ({"methods": [{"metod": "ce"}]}, ["methods.0"]),
        ({"methods": ["gce:q"]}, ["methods", "gce:q=0.5"]),
        ({"recipe": {"epochs": 0}}, ["recipe.epochs", "got 0"]),
        ({"prompt": {"ctx": 4}}, ["prompt.ctx", "no such field"]),
        ({"data": [{"data": "demo", "class": "base"}]}, ["data.0.class", "no such field"]),
        ({"seeds": 3}, ["seeds", "[1, 2, 3]"]),
        ({"seeds": ["one"]}, ["seeds.0", "'one'"]),
        ({"shots": [0]}, ["shots", "at least 1"]),
        ({"shots": ["few"]}, ["shots.0", "'few'"]),
        ({"kinds": ["symmetric"]}, ["kinds needs rates"]),
        ({"rates": [0.5]}, ["rates needs kinds"]),
        ({"kinds": ["column"], "rates": [0.5]}, ["kinds", "'column' takes no rate"]),
        ({"kinds": ["symmetric"], "rates": [50]}, ["noise", "symmetric:0.5"]),
        ({"noise": ["symetric:0.5"]}, ["noise", "did you mean"]),
        ({"exclude": [{}]}, ["exclude.0", "nothing"]),
        ({"exclude": [{"method": "ce"}, {"method": "dspt"}]}, ["empty"]),
        ({"also": [{"seed": [1]}]}, ["also.0", "seed", "no such field"]),
        ({"also": [{"also": []}]}, ["also.0.also"]),
        ({"backbones": [{"backbone": "x", "precision": "fp8"}]}, ["precision", "fp8"]),
        ({"classes": 3}, ["classes"]),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        cells(parse_grid({**SMALL, **fields}, "my.yaml"))
    message = str(refused.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_file_that_is_no_grid_is_named(tmp_path: Path) -> None:
    for text in ("methods: [ce", "- ce\n- dspt\n", "\0"):
        (tmp_path / "grid.yaml").write_text(text)
        with pytest.raises(UserError, match=r"grid\.yaml"):
            read_grid(tmp_path / "grid.yaml")
    with pytest.raises(UserError, match=r"none\.yaml"):
        read_grid(tmp_path / "none.yaml")


def test_options_replace_fields_wherever_they_stand() -> None:
    fields = {
        "data": ["demo", {"data": "other", "noise": "column:tag", "classes": "base"}],
        "methods": ["ce"],
        "kinds": ["symmetric"],
        "rates": [0, 0.5],
        "recipe": {"epochs": 50, "lr": 0.01},
        "also": [{"methods": ["mae"], "noise": "pair:0.5", "recipe": {"epochs": 9}}],
    }
    changed = override(fields, {"methods": ["dspt"], "recipe": {"epochs": 2}})
    found = cells(parse_grid(changed))
    assert {(cell.method, cell.recipe.epochs, cell.recipe.lr) for cell in found} == {
        ("dspt", 2, 0.01)
    }
    assert {str(cell.noise) for cell in found} == {
        "none",
        "symmetric:0.5",
        "pair:0.5",
        "column:tag",
    }
    found = cells(parse_grid(override(fields, {"noise": ["none"], "classes": "first:4"})))
    assert {(str(cell.noise), cell.classes) for cell in found} == {("none", "first:4")}
    found = cells(parse_grid(override(fields, {"rates": [0.25], "data": ["demo"]})))
    assert {(cell.data, str(cell.noise)) for cell in found} == {("demo", "symmetric:0.25")}
    assert fields["methods"] == ["ce"]


def test_a_further_grid_with_data_of_its_own_is_for_that_data_only() -> None:
    fields = {
        "data": ["demo", "a"],
        "methods": ["ce"],
        "also": [{"data": ["a", {"data": "b"}], "noise": ["column:tag"]}, {"noise": ["pair:0.5"]}],
    }

    def found(*data: str) -> set[tuple[str, str]]:
        grid = parse_grid(override(fields, {"data": list(data)}))
        return {(cell.data, str(cell.noise)) for cell in cells(grid)}

    assert found("demo") == {("demo", "none"), ("demo", "pair:0.5")}
    assert found("b", "c") == {
        ("b", "none"),
        ("b", "pair:0.5"),
        ("b", "column:tag"),
        ("c", "none"),
        ("c", "pair:0.5"),
    }


def test_presets_are_possible_runs_on_known_data() -> None:
    sizes = {}
    for name in preset_names():
        found = cells(parse_grid(read_preset(name)))
        sizes[name] = len(found)
        for cell in {(c.method, c.data): c for c in found}.values():
            check_settings(cell)
            assert cell.data == "demo" or dataset_card(cell.data).name == cell.data
        for cell in found:
            if cell.noise.kind == "column":
                column = str(cell.noise).removeprefix("column:")
                assert column in dataset_card(cell.data).noise_columns
    assert sizes == {
        "caltech101": 10 * (1 + 2 * 3) * 3,
        "caltech101-lite": 10 * 4 * 2,
        "dspt-figure1": 3 * 7 * 3,
        "human-noise": 10 * 3 * 2 * 5,
        "nlprompt-table": 6 * 7 * 12 * 3,
        "self-adjusting": 9 * (9 + 11) * 3,
        "smoke": 5 * 2,
    }
    with pytest.raises(UserError, match="smoke"):
        read_preset("smok")


@pytest.mark.parametrize(
    "text",
    [
        "data: null\nmethods: null\nbackbones: null\nshots: null\n",
        "shots: null\ndata: demo\nmethods: ce\n",
        "seeds: 2001-99-99\n",  # YAML reads an impossible date
        "a: " + "[" * 5000,
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "a: &a [*a]\n",
        "? [1, 2]\n: 3\n",
        "seeds: [" + "9" * 5000 + "]\n",
    ],
)
def test_no_yaml_is_a_traceback(tmp_path: Path, text: str) -> None:
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(UserError):
        parse_grid(read_grid(tmp_path / "grid.yaml"))


def test_a_device_is_not_read() -> None:
    with pytest.raises(UserError, match="device"):
        read_grid(Path("/dev/zero"))
