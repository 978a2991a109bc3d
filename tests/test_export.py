"""Exported classifiers give our numbers, under open_clip alone and under onnxruntime."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.models import tiny_config, write_model_folder
from tests.tiny import draw, encoded, write_model

import dspt.export
from dspt.backbones import Backbone, load_backbone
from dspt.configuration import PromptConfig
from dspt.data import open_image
from dspt.errors import UserError
from dspt.export import class_embeddings, describe, export_embeddings, export_onnx, open_clip_call
from dspt.model import LinearModel, PromptModel

ROOT = Path(__file__).parents[1]
NAMES = ("red", "green", "écru <b>")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_model(tmp_path_factory.mktemp("tiny") / "model"), device="cpu")


def prompt(backbone: Backbone) -> PromptModel:
    assert backbone.text_tower is not None
    draws = torch.Generator().manual_seed(1)
    context = 0.05 * torch.randn(3, backbone.text_tower.width, generator=draws)
    return PromptModel(backbone, NAMES, PromptConfig(n_ctx=3), context)


def linear(backbone: Backbone) -> LinearModel:
    draws = torch.Generator().manual_seed(2)
    weight = 5 * torch.randn(3, backbone.embed_dim, generator=draws)
    return LinearModel(backbone, NAMES, weight, torch.randn(3, generator=draws))


MADE = {"prompt": prompt, "linear": linear}


def shown(backbone: Backbone, n: int) -> torch.Tensor:
    """Preprocessed pixels of drawn pictures."""
    colours = ("red", "green", "black")
    images = [open_image(encoded(draw(colours[i % 3], i)), "") for i in range(n)]
    return torch.stack([backbone.preprocess(image) for image in images])


@pytest.mark.parametrize("kind", MADE)
def test_embeddings_are_the_classifier(backbone: Backbone, tmp_path: Path, kind: str) -> None:
    """The files alone, multiplied as the formula says, give the model's probabilities."""
    model = MADE[kind](backbone)
    files = export_embeddings(model, tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["classifier.safetensors", "classifier.json"]
    head = load_file(files[0])
    about = json.loads(files[1].read_text(encoding="utf-8"))
    features = backbone.encode_image(shown(backbone, 5))
    logits = about["logit_scale"] * features @ head["weight"].T + head["bias"]
    torch.testing.assert_close(logits, model.logits(features), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(class_embeddings(model).logits(features), logits)
    assert class_embeddings(model).logits(features.double()).dtype == torch.float64
    assert tuple(about["class_names"]) == NAMES
    assert about["embed_dim"] == head["weight"].shape[1] == backbone.embed_dim
    assert about["backbone"]["fingerprint"] == backbone.fingerprint
    assert about["preprocessing"]["mean"] == [0.5] * 3
    assert about["preprocessing"]["std"] == [0.25] * 3
    assert about["preprocessing"]["interpolation"] == "bicubic"
    assert about["preprocessing"]["resize_mode"] == "shortest"
    assert about["preprocessing"]["size"] == [32, 32]
    if kind == "prompt":
        assert head["weight"].norm(dim=1) == pytest.approx(torch.ones(3))
        assert about["logit_scale"] == backbone.logit_scale == pytest.approx(100)
    else:
        assert about["logit_scale"] == 1


def test_open_clip_loads_the_same_model(backbone: Backbone, tmp_path: Path) -> None:
    import open_clip

    quick = write_model_folder(tmp_path / "quick", tiny_config(quick_gelu=True))
    assert quick is not None
    for held in (backbone, load_backbone(f"local-dir:{tmp_path / 'quick'}", device="cpu")):
        call = open_clip_call(held)
        model, preprocess = open_clip.create_model_from_pretrained(**call)
        pixels = shown(held, 3)
        assert torch.equal(preprocess(draw("red", 0)), held.preprocess(draw("red", 0)))
        with torch.no_grad():
            features = model.eval().encode_image(pixels, normalize=True)
        torch.testing.assert_close(features, held.encode_image(pixels), rtol=1e-5, atol=1e-6)
    assert open_clip_call(held)["force_quick_gelu"] is True
    assert open_clip_call(backbone)["force_quick_gelu"] is False


def test_a_folder_is_named_so_that_any_directory_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    for name in ("model", "local-dir:model"):
        call = open_clip_call(load_backbone(name, device="cpu"))
        assert call["model_name"] == f"local-dir:{tmp_path / 'model'}"
    packaged = open_clip_call(load_backbone("default", device="cpu"))["model_name"]
    assert Path(packaged.removeprefix("local-dir:"), "open_clip_config.json").is_file()


def test_random_weights_are_refused(tmp_path: Path) -> None:
    held = load_backbone(write_model(tmp_path / "model"), "none", device="cpu")
    with pytest.raises(UserError, match="nobody can load again"):
        export_embeddings(prompt(held), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def outputs(file: Path, pixels: torch.Tensor) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(["probabilities", "features"], {"pixels": pixels.numpy()})


@pytest.fixture(scope="module")
def exported(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with both exports of the tiny model's prompt."""
    folder = tmp_path_factory.mktemp("exported")
    export_embeddings(prompt(backbone), folder)
    assert export_onnx(prompt(backbone), folder)[0] == folder / "classifier.onnx"
    return folder


def test_onnx_agrees_with_ours_for_any_batch(backbone: Backbone, exported: Path) -> None:
    names = sorted(path.name for path in exported.iterdir())
    assert names == ["classifier.json", "classifier.onnx", "classifier.safetensors"]
    assert_onnx_agrees(exported / "classifier.onnx", prompt(backbone))


@pytest.mark.slow
def test_onnx_of_the_packaged_model_agrees(tmp_path: Path) -> None:
    model = prompt(load_backbone("default", device="cpu"))
    file, difference = export_onnx(model, tmp_path)
    assert 0 <= difference < TOLERANCE
    assert_onnx_agrees(file, model)


def assert_onnx_agrees(file: Path, model: PromptModel) -> None:
    held = model.backbone
    for n in (1, 2, 5):
        pixels = shown(held, n)
        probabilities, features = outputs(file, pixels)
        ours = held.encode_image(pixels)
        assert features == pytest.approx(ours.numpy(), abs=TOLERANCE)
        assert probabilities == pytest.approx(
            model.logits(ours).softmax(dim=1).numpy(), abs=TOLERANCE
        )
    # The text tower stays out of the file.
    visual = sum(4 * p.numel() for p in held.model.visual.parameters())  # type: ignore[union-attr]
    assert file.stat().st_size < 1.2 * visual + 200_000


def test_onnx_tells_what_it_is(backbone: Backbone, exported: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported / "classifier.onnx"))
    told = json.loads(session.get_modelmeta().custom_metadata_map["dspt"])
    assert told == json.loads((exported / "classifier.json").read_text(encoding="utf-8"))
    assert told == json.loads(json.dumps(describe(prompt(backbone))))


def test_onnx_of_half_precision_computes_in_fp32(tmp_path: Path) -> None:
    """The same weights, so features differ by no more than bf16 rounds."""
    held = load_backbone(write_model(tmp_path / "model"), device="cpu", precision="bf16")
    file, difference = export_onnx(prompt(held), tmp_path / "out")
    assert difference < TOLERANCE
    pixels = shown(held, 3)
    features = outputs(file, pixels)[1]
    assert features == pytest.approx(held.encode_image(pixels).numpy(), abs=0.05)
    assert features.dtype == np.float32


def test_large_weights_lie_beside_the_graph(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the limit lowered; and the head is a linear one."""
    monkeypatch.setattr(dspt.export, "ONE_FILE_BYTES", 1000)
    model = linear(backbone)
    file, _ = export_onnx(model, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["classifier.onnx", "classifier.onnx.data"]
    pixels = shown(backbone, 4)
    expected = model.logits(backbone.encode_image(pixels)).softmax(dim=1)
    assert outputs(file, pixels)[0] == pytest.approx(expected.numpy(), abs=TOLERANCE)


def test_an_onnx_file_that_differs_is_not_written(
    backbone: Backbone, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of one prompt is compared with another prompt."""
    import onnxruntime

    original = onnxruntime.InferenceSession

    def other(file: str, **options: Any) -> Any:
        return original(str(exported / "classifier.onnx"), **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", other)
    with pytest.raises(UserError, match="differ by"):
        export_onnx(linear(backbone), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("absent", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_extra_one_line_says_what_to_install(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(UserError, match=rf"needs {absent}, .*pip install 'dspt\[onnx\]'"):
        export_onnx(prompt(backbone), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tower_that_cannot_be_exported_is_said(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pixels: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("this part\nis new")

    monkeypatch.setattr(dspt.export, "deepcopy", lambda model: model)
    monkeypatch.setattr(backbone.model, "encode_image", refuse)
    with pytest.raises(UserError, match=r"this part is new.*export without --onnx") as caught:
        export_onnx(linear(backbone), tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_said(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for export in (export_embeddings, export_onnx):
        call: Any = export
        with pytest.raises(UserError, match="cannot write"):
            call(prompt(backbone), tmp_path / "taken")


def test_the_examples_of_the_page_run(backbone: Backbone, exported: Path, tmp_path: Path) -> None:
    """As written; what they print is what ``predict`` says."""
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 2
    statements = [line for line in blocks[0].splitlines() if line and "import" not in line]
    assert len(statements) <= 10
    model = prompt(backbone)
    shutil.copytree(exported, tmp_path / "run" / "export")
    (tmp_path / "picture.png").write_bytes(encoded(draw("green", 3, side=50)))
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    named, best = done.stdout.splitlines()
    (told,) = model.predict([tmp_path / "picture.png"], top=3)
    expected = dict(zip(told.labels, told.probabilities, strict=True))
    assert ast.literal_eval(named) == pytest.approx(expected, abs=TOLERANCE)
    label, probability = best.rsplit(" ", 1)
    assert label == told.label
    assert float(probability) == pytest.approx(told.probabilities[0], abs=TOLERANCE)
