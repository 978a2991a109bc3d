"""Write the model as an ordinary open_clip directory."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from fit_projection import LOGIT_SCALE
from image_tower import load_efficientnet
from safetensors.torch import save_file
from settings import PIXEL_MEAN, PIXEL_STD, Work
from text_tower import model_config
from torch import Tensor, nn

# Rebuilt by open_clip when the model is created.
_NOT_STORED = ("attn_mask",)


def export_model(work: Work, model: nn.Module, weight: Tensor, bias: Tensor, out: Path) -> None:
    """Assemble image tower, projection and text tower; store them in half precision."""
    out.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    for name, tensor in load_efficientnet(work).state_dict().items():
        if not name.startswith("classifier."):
            state[f"visual.trunk.{name}"] = tensor
    state["visual.head.proj.weight"] = weight
    state["visual.head.proj.bias"] = bias
    state["logit_scale"] = torch.tensor(math.log(LOGIT_SCALE))
    model.load_state_dict(state)  # checks names and shapes
    stored = {
        # The logit scale stays whole: in half precision exp(log 100) is 100.03.
        name: (
            tensor.half() if tensor.is_floating_point() and name != "logit_scale" else tensor
        ).contiguous()
        for name, tensor in state.items()
        if not name.endswith(_NOT_STORED)
    }
    path = out / "open_clip_model.safetensors"
    save_file(stored, path)
    path.chmod(0o644)  # safetensors writes a file that only its owner may read
    config = {
        "model_cfg": model_config(),
        "preprocess_cfg": {
            "mean": [PIXEL_MEAN] * 3,
            "std": [PIXEL_STD] * 3,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    text = json.dumps(config, indent=2) + "\n"
    (out / "open_clip_config.json").write_text(text, encoding="utf-8")
