"""A tiny random CLIP and tiny drawn pictures, written where a test wants them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import Tensor

from dspt.backbones import Backbone

COLOURS = {
    "red": (230, 40, 30),
    "green": (30, 170, 60),
    "blue": (40, 60, 220),
    "yellow": (240, 220, 40),
    "black": (20, 20, 20),
    "white": (245, 245, 245),
}

FINISHED_RUN = {
    "config.json",
    "labels.csv",
    "metrics.jsonl",
    "prompt.safetensors",
    "report.html",
    "result.json",
    "suspects.csv",
}


def write_model(
    folder: Path, *, seed: int = 0, mean: float = 0.5, width: int = 32, embed_dim: int = 16
) -> str:
    """An open_clip model folder; returns its path as text.

    All weights are random but one: the image projection is solved for, so that the model knows the
    colours by name and has a prior that training can keep or lose.
    """
    model_cfg: dict[str, Any] = {
        "embed_dim": embed_dim,
        "vision_cfg": {
            "image_size": 32,
            "layers": 2,
            "width": width,
            "head_width": 16,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": width,
            "heads": 2,
            "layers": 2,
        },
    }
    preprocess = {
        "mean": [mean] * 3,
        "std": [0.25] * 3,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**model_cfg).eval()
    _teach_colours(model, mean)
    state = model.state_dict()
    state["logit_scale"] = torch.tensor(100.0).log()
    folder.mkdir(parents=True)
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in state.items()},
        folder / "open_clip_model.safetensors",
    )
    return str(folder)


@torch.no_grad()
def _teach_colours(model: Any, mean: float) -> None:
    """Choose the image projection so that pictures of a colour lie near the colour's name."""
    shown = [(name, draw(name, number, 32)) for name in COLOURS for number in range(900, 910)]
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for _, image in shown])
    names = open_clip.get_tokenizer("ViT-B-32")([f"a photo of a {name}." for name, _ in shown])
    model.visual.proj, projection = None, model.visual.proj
    states = model.encode_image((pixels / 255 - mean) / 0.25)
    texts = model.encode_text(names, normalize=True)
    states, texts = states.double(), texts.double()
    ridge = 0.01 * torch.eye(states.shape[1])  # keeps weights small and rounding errors with them
    solved = torch.linalg.solve(states.T @ states + ridge, states.T @ texts)
    model.visual.proj = torch.nn.Parameter(solved.float().reshape(projection.shape))


def draw(name: str, number: int, side: int = 40) -> Image.Image:
    """A picture that mostly has the colour ``name``; every (name, number) gives another one."""
    dice = hashlib.sha256(f"{name} {number}".encode()).digest()
    image = Image.new("RGB", (side, side), COLOURS.get(name, tuple(dice[:3])))
    x, y = dice[3] % (side - 14), dice[4] % (side - 14)
    ImageDraw.Draw(image).ellipse(
        (x, y, x + 4 + dice[5] % 9, y + 4 + dice[6] % 9), tuple(dice[7:10])
    )
    return image


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """The bytes of a picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_pictures(
    folder: Path, classes: Sequence[str] = ("red", "green", "blue"), n: int = 6, first: int = 0
) -> Path:
    """One folder a class with ``n`` pictures each."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(first, first + n):
            (folder / name / f"{number:03}.png").write_bytes(encoded(draw(name, number)))
    return folder


class Pictures:
    """Pictures in memory, as a data set's store."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self._keys = list(files)

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, i: int) -> str:
        return self._keys[i]

    def read(self, i: int) -> bytes:
        return self.files[self._keys[i]]


def some_pictures(n: int, name: str = "red") -> Pictures:
    """``n`` different pictures."""
    return Pictures({f"{name}/{i}.png": encoded(draw(name, i)) for i in range(n)})


def count_encoded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """From now on, how many pictures went through an image tower."""
    original, seen = Backbone.encode_image, [0]

    def counting(self: Backbone, images: Tensor) -> Tensor:
        seen[0] += int(images.flatten(1).any(dim=1).sum())  # batches are filled up with zeros
        return original(self, images)

    monkeypatch.setattr(Backbone, "encode_image", counting)
    return lambda: seen[0]


def files_of(folder: Path) -> dict[str, bytes]:
    """Name and bytes of every file in a folder and below, hidden ones included."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
