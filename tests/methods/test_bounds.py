from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from tests.tiny import COLOURS, write_model

from dspt.backbones import Backbone, load_backbone
from dspt.methods.bounds import (
    ABSENT,
    PROBE_GRID,
    LabelledFeatures,
    LinearProbe,
    ZeroShot,
    ZeroShotEnsemble,
)

NAMES = tuple(COLOURS)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_model(tmp_path_factory.mktemp("bounds") / "model"), device="cpu")


def data(backbone: Backbone, given: list[int], seed: int = 0, names: int = 6) -> LabelledFeatures:
    draws = torch.Generator().manual_seed(seed)
    centres = torch.randn(names, backbone.embed_dim, generator=draws)
    noise = torch.randn(len(given), backbone.embed_dim, generator=draws)
    features = F.normalize(centres[torch.tensor(given)] + 0.3 * noise, dim=1)
    return LabelledFeatures(
        features, torch.tensor(given), NAMES[:names], "a photo of a {}.", backbone, seed
    )


def test_zero_shot_is_open_clip_itself(backbone: Backbone) -> None:
    head = ZeroShot()(data(backbone, [0, 1, 2]))
    tokens = backbone.tokenizer([f"a photo of a {name}." for name in NAMES])
    with torch.no_grad():
        texts = F.normalize(backbone.model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(head.weight, 100 * texts, rtol=1e-4, atol=1e-4)
    assert not head.bias.any()


def test_the_ensemble_is_open_clips_zero_shot_classifier(backbone: Backbone) -> None:
    from open_clip import OPENAI_IMAGENET_TEMPLATES, build_zero_shot_classifier

    head = ZeroShotEnsemble()(data(backbone, [0, 1, 2]))
    expected = build_zero_shot_classifier(
        backbone.model, backbone.tokenizer, list(NAMES), OPENAI_IMAGENET_TEMPLATES, device="cpu"
    )
    torch.testing.assert_close(head.weight, 100 * expected.T, rtol=1e-4, atol=1e-4)


def test_a_probe_of_given_strength_is_scikit_learns(backbone: Backbone) -> None:
    given = [i % 6 for i in range(36)]
    labelled = data(backbone, given)
    head = LinearProbe(c=10.0)(labelled)
    x = labelled.features.double().numpy()
    fitted = LogisticRegression(C=10.0, max_iter=1000).fit(x, given)
    ours = labelled.features @ head.weight.T + head.bias
    np.testing.assert_allclose(
        ours.softmax(1).numpy(), fitted.predict_proba(x), rtol=1e-3, atol=1e-5
    )


def test_two_classes(backbone: Backbone) -> None:
    given = [i % 2 for i in range(20)]
    labelled = data(backbone, given, names=2)
    head = LinearProbe(c=10.0)(labelled)
    x = labelled.features.double().numpy()
    fitted = LogisticRegression(C=10.0, max_iter=1000).fit(x, given)
    ours = (labelled.features @ head.weight.T + head.bias).softmax(1)
    np.testing.assert_allclose(ours.numpy(), fitted.predict_proba(x), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("given", [[0, 1, 2, 3, 4] * 4, [2, 5] * 5, [3] * 4, [3]])
def test_a_class_without_a_label_is_never_predicted(backbone: Backbone, given: list[int]) -> None:
    labelled = data(backbone, given)
    head = LinearProbe()(labelled)
    logits = labelled.features @ head.weight.T + head.bias
    assert logits.isfinite().all()
    assert set(logits.argmax(1).tolist()) <= set(given)
    absent = sorted(set(range(6)) - set(given))
    assert (head.bias[absent] == ABSENT).all()


def test_the_strength_is_chosen_on_held_out_labels_and_repeatable(backbone: Backbone) -> None:
    labelled = data(backbone, [i % 6 for i in range(60)])
    head, again = LinearProbe()(labelled), LinearProbe()(labelled)
    assert torch.equal(head.weight, again.weight)
    candidates = [LinearProbe(c=c)(labelled).weight for c in PROBE_GRID]
    assert any(torch.equal(head.weight, each) for each in candidates)
    hits = ((labelled.features @ head.weight.T + head.bias).argmax(1) == labelled.given).float()
    assert hits.mean() > 0.9
