"""``auto`` as a method: its head, its by-products in the result, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.tiny import COLOURS, write_model

import dspt
from dspt.backbones import Backbone, load_backbone
from dspt.correction import correct
from dspt.errors import UserError
from dspt.methods.auto import Auto
from dspt.methods.bounds import LabelledFeatures
from dspt.result import RunResult

NAMES = tuple(COLOURS)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_model(tmp_path_factory.mktemp("auto") / "model"), device="cpu")


def labelled(backbone: Backbone, given: list[int]) -> LabelledFeatures:
    draws = torch.Generator().manual_seed(0)
    features = torch.randn(len(given), backbone.embed_dim, generator=draws)
    return LabelledFeatures(
        F.normalize(features, dim=1), torch.tensor(given), NAMES, "a photo of a {}.", backbone, 7
    )


def test_the_head_is_a_share_of_zero_shot_plus_the_change_that_was_found(
    backbone: Backbone,
) -> None:
    data = labelled(backbone, [i % 6 for i in range(48)])
    head = Auto()(data)
    zero_shot = backbone.logit_scale * backbone.zero_shot_features(NAMES, "a photo of a {}.")
    anchor = (data.features @ zero_shot.t()).numpy()
    alone = correct(data.features.numpy(), data.given.numpy(), anchor, seed=7)
    found = alone.classifier
    expected = found.anchor_weight * zero_shot + torch.from_numpy(found.change.T).float()
    torch.testing.assert_close(head.weight, expected)
    assert not head.bias.any()
    assert np.array_equal(head.correction.posterior, alone.posterior)


def test_a_class_that_no_label_names_keeps_a_finite_row(backbone: Backbone) -> None:
    head = Auto()(labelled(backbone, [i % 5 for i in range(40)]))
    assert torch.isfinite(head.weight).all()


def test_too_few_pictures_are_refused_with_the_mend(backbone: Backbone) -> None:
    with pytest.raises(UserError, match="needs at least 8, not 4; add pictures"):
        Auto()(labelled(backbone, [0, 1, 2, 3]))


def test_a_run_writes_the_estimate_and_ranks_by_the_posterior(tmp_path: Path) -> None:
    run = dspt.fit(
        "demo", out=tmp_path / "run", method="auto", shots=4, noise="symmetric:0.25", seed=2
    )
    found = RunResult.read(tmp_path / "run" / "result.json").noise_estimate
    assert found is not None
    assert found.interval[0] <= found.rate <= found.interval[1]
    assert found.transition is not None
    assert np.allclose(np.sum(found.transition, axis=1), 1, atol=1e-4)
    assert sum(found.weights.values()) == pytest.approx(1)
    doubts = [1 - suspect.probability_given for suspect in run.suspects]
    assert doubts == sorted(doubts, reverse=True)
    assert run.result.epochs == []
    again = dspt.fit(
        "demo", out=tmp_path / "run", method="auto", shots=4, noise="symmetric:0.25", seed=2
    )
    assert [s.id for s in again.suspects] == [s.id for s in run.suspects]


def test_other_methods_estimate_nothing(tmp_path: Path) -> None:
    assert dspt.fit("demo", method="zero-shot", shots=2).result.noise_estimate is None


def test_it_cannot_name_other_classes() -> None:
    with pytest.raises(UserError, match="auto knows no other classes"):
        dspt.fit("demo", method="auto", classes="base", transfer=["new"])
