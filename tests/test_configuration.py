from __future__ import annotations

import pytest

from dspt.configuration import FitConfig, build_config
from dspt.errors import UserError
from dspt.noise import NoiseSpec


def refusal(**fields: object) -> str:
    with pytest.raises(UserError) as caught:
        build_config(**{"data": "d", **fields})
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message


def test_one_seed_serves_for_all_unless_others_are_given() -> None:
    config = build_config(data="d", seed=7)
    assert (config.seed, config.draw_seed, config.noise_seed) == (7, 7, 7)
    config = build_config(data="d", seed=7, noise_seed=3)
    assert (config.seed, config.draw_seed, config.noise_seed) == (7, 7, 3)
    config = build_config(data="d", draw_seed=0)
    assert (config.seed, config.draw_seed, config.noise_seed) == (1, 0, 1)


def test_noise_can_be_text_or_a_spec() -> None:
    spec = NoiseSpec(kind="symmetric", rate=0.5)
    assert build_config(data="d", noise="symmetric:0.5") == build_config(data="d", noise=spec)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"noise": "column:human", "shots": None, "seed": -5},
        {"noise": "symmetric:0.1", "loss_options": {"q": 0.1 + 0.2}, "draw_seed": 10**25},
        {"prompt": {"init": "ein Bild von", "position": "middle"}, "recipe": {"lr": 1 / 3}},
        {"template": "é {}", "holdout": 0.0, "views": 3},
        {"method": "nlprompt", "method_options": {"reg": 0.1, "noisy_loss": "dspt"}},
        {"classes": "base", "transfer": ("new", "dtd"), "evidence": True},
    ],
)
def test_json_round_trip(fields: dict[str, object]) -> None:
    config = build_config(data="d", **fields)
    assert FitConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shots", 0),
        ("shots", "many"),
        ("shots", 1.5),
        ("noise", "symetric:0.5"),
        ("noise", "symmetric:1.5"),
        ("seed", 1.5),
        ("views", -1),
        ("precision", "fp8"),
        ("holdout", 1.0),
        ("holdout", -0.1),
        ("holdout", float("nan")),
        ("template", "a photo"),
        ("template", "{} and {}"),
        ("method_options", {"q": [1]}),
        ("colour", "red"),
        ("data", None),
    ],
)
def test_a_bad_field_is_named(field: str, value: object) -> None:
    assert refusal(**{field: value}).startswith(f"{field}")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("recipe.lr", {"recipe": {"lr": -1}}),
        ("recipe.epochs", {"recipe": {"epochs": 0}}),
        ("recipe.schedule", {"recipe": {"schedule": "step"}}),
        ("recipe.lrr", {"recipe": {"lrr": 1}}),
        ("prompt.n_ctx", {"prompt": {"n_ctx": 0}}),
        ("prompt.init", {"prompt": {"init": ""}}),
        ("prompt.position", {"prompt": {"position": "left"}}),
    ],
)
def test_a_bad_nested_field_is_named(name: str, fields: dict[str, object]) -> None:
    assert refusal(**fields).startswith(f"{name}: ")


def test_the_given_value_is_shown() -> None:
    assert "(got -3)" in refusal(shots=-3)
    assert "'fp8'" in refusal(precision="fp8")


def test_a_near_miss_of_a_noise_is_helped() -> None:
    assert 'did you mean "symmetric:0.5"' in refusal(noise="sym:0.5")


def test_a_loss_is_a_method_by_its_short_name() -> None:
    short = build_config(data="d", loss="gce", loss_options={"q": 0.5})
    assert short == build_config(data="d", method="gce", method_options={"q": 0.5})
    assert "give loss or method, not both" in refusal(loss="ce", method="gce")
