"""CLIP-like models: any of open_clip's, or the small one that ships with the package."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from dspt.backbones.backbone import Backbone
from dspt.backbones.devices import choose_device
from dspt.backbones.text_tower import TextTower, UnsupportedTower, take_text_tower
from dspt.errors import UserError, did_you_mean

__all__ = ["Backbone", "TextTower", "UnsupportedTower", "load_backbone", "take_text_tower"]

NO_WEIGHTS = "none"


def default_model_directory() -> Path:
    """Folder of the model that ships with the package, an ordinary open_clip model."""
    return Path(str(resources.files("dspt") / "assets" / "default_model"))


def load_backbone(
    name: str = "default",
    pretrained: str | None = None,
    *,
    device: str = "auto",
    precision: str = "fp32",
) -> Backbone:
    """Load a frozen CLIP-like model.

    Args:
        name: ``"default"`` (ships with the package, works offline), a model name of open_clip
            (``"ViT-B-16"``), ``"hf-hub:organisation/model"``, ``"local-dir:folder"`` or simply the
            path of such a folder (holding ``open_clip_config.json`` and weights).
        pretrained: for a model name: a tag of open_clip (``"openai"``), the path of a local
            checkpoint (safetensors, or a ``.pt`` that is read without unpickling code), or
            ``"none"`` for random weights (the same ones every time).
        device: ``"auto"`` (CUDA if there is one, else the CPU) or a torch device.
        precision: of the towers: ``"fp32"``, ``"fp16"`` or ``"bf16"``.

    Raises:
        UserError: when there is no such model, tag, file or device, or the weights do not load.
    """
    if precision not in ("fp32", "fp16", "bf16"):
        raise UserError(f"precision: must be fp32, fp16 or bf16, not {precision!r}")
    source, weights = _resolve(name, pretrained)

    import torch

    _refuse_pickles_of_old_torch(source, weights)
    place = choose_device(device)
    random_start = weights == NO_WEIGHTS
    with torch.random.fork_rng(devices=[]), _quiet_open_clip():
        torch.manual_seed(0)  # random weights are the same in every process
        model, transform, tokenizer = _create(source, weights, precision, place, random_start)
    # Convolutions run about twice as fast with the channels last; the values are the same.
    model.eval().requires_grad_(False).visual.to(memory_format=torch.channels_last)
    try:
        tower, note = take_text_tower(model), ""
    except UnsupportedTower as reason:
        tower, note = None, f"text tower runs through open_clip's own forward pass: {reason}"
    config = dict(getattr(model.visual, "preprocess_cfg", {}))
    config.setdefault("size", model.visual.image_size)
    return Backbone(
        name=name,
        pretrained=pretrained,
        model=model,
        preprocess=transform,
        preprocess_config=config,
        tokenizer=tokenizer,
        device=place,
        precision=precision,
        text_tower=tower,
        text_note=note,
    )


def _resolve(name: str, pretrained: str | None) -> tuple[str, str | None]:
    """What open_clip is asked for: (model name with schema, tag or file or "none")."""
    if name == "default":
        directory = default_model_directory()
        if not (directory / "open_clip_config.json").is_file():
            raise UserError(
                f"backbone: the packaged model is missing from {directory}; reinstall dspt"
            )
        if pretrained not in (None, NO_WEIGHTS):
            raise UserError("pretrained: the default backbone brings its own weights; leave it out")
        return f"local-dir:{directory}", pretrained
    if name.startswith(("hf-hub:", "local-dir:")) or os.path.isdir(name):
        source = name if ":" in name and not os.path.isdir(name) else f"local-dir:{name}"
        if pretrained not in (None, NO_WEIGHTS):
            raise UserError(f"pretrained: {name} brings its own weights; leave it out")
        if source.startswith("local-dir:"):
            directory = Path(source.removeprefix("local-dir:"))
            if not (directory / "open_clip_config.json").is_file():
                raise UserError(
                    f"backbone: {directory} is no model folder (no open_clip_config.json in it)"
                )
        return source, pretrained

    import open_clip

    known = open_clip.list_models()
    if name not in known:
        hint = did_you_mean(name, ["default", *known], n=3)
        raise UserError(f"backbone: {name!r} is unknown; `dspt models` lists the names{hint}")
    if pretrained == NO_WEIGHTS:
        return name, pretrained
    tags = open_clip.list_pretrained_tags_by_model(name)
    listed = ", ".join(tags) or "it has none"
    if pretrained is None:
        raise UserError(
            f"pretrained: {name} needs weights: a tag ({listed}), "
            "a checkpoint file, or none for random weights"
        )
    if pretrained not in tags and not os.path.isfile(pretrained):
        raise UserError(
            f"pretrained: {pretrained!r} is neither a tag of {name} ({listed}) nor a file"
            f"{did_you_mean(pretrained, tags)}"
        )
    return name, pretrained


def _create(
    source: str, weights: str | None, precision: str, device: Any, random_start: bool
) -> Any:
    import open_clip

    # Weights trained with quick-GELU (OpenAI's) are wrong under GELU; the tag knows which it was.
    tag = open_clip.get_pretrained_cfg(source, weights) if weights and ":" not in source else {}
    try:
        model, _, transform = open_clip.create_model_and_transforms(
            source,
            pretrained=None if random_start else weights,
            load_weights=not random_start,
            require_pretrained=not random_start,
            precision=precision,
            device=device,
            force_quick_gelu=bool(tag.get("quick_gelu", False)),
            pretrained_text=False,
        )
        tokenizer = open_clip.get_tokenizer(source)
    except pickle.UnpicklingError as error:  # torch's message would advise to run the code
        raise UserError(
            f"backbone: the weights of {source} are a pickle that holds more than tensors; nothing "
            "in it was run; use safetensors, or weights from a source that you trust"
        ) from error
    except Exception as error:  # open_clip, torch and the hub raise many kinds; all mean the same
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"backbone: {source} does not load ({type(error).__name__}: {reason}); check the name, "
            "the file and, for a download, the network"
        ) from error
    return model, transform, tokenizer


def _refuse_pickles_of_old_torch(source: str, weights: str | None) -> None:
    """torch before 2.6 can be made to run code by a file that it reads with ``weights_only``.

    Source: CVE-2025-32434.
    """
    import torch

    if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6) or weights == NO_WEIGHTS:
        return
    folder = Path(source.removeprefix("local-dir:"))
    files = [Path(weights)] if weights else list(folder.glob("*")) if folder.is_dir() else []
    if any(file.suffix == ".safetensors" for file in files):
        return
    for file in files:
        if file.is_file() and file.suffix in (".pt", ".pth", ".bin", ".ckpt"):
            raise UserError(
                f"backbone: reading {file} safely needs torch 2.6 or newer; update torch or use "
                "safetensors"
            )


@contextlib.contextmanager
def _quiet_open_clip() -> Iterator[None]:
    """open_clip logs every step and warns of random weights that were asked for."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
