"""``dspt models``: which backbones there are."""

from __future__ import annotations

import json as json_module
from typing import Annotated

import typer

from dspt.cli import console, options
from dspt.errors import UserError, did_you_mean


def command(
    search: Annotated[
        str, typer.Argument(metavar="[TEXT]", help="Only names that contain this.")
    ] = "",
    json: options.Json = False,
) -> None:
    """List the backbones: the packaged one, and those of open_clip with their weights' tags.

    Weights behind a tag are downloaded when first used; the packaged model needs no network.

    \b
    [bold]Examples[/]
    dspt models
    dspt models ViT-B-16
    """
    import open_clip

    tags: dict[str, list[str]] = {"default": []}
    for name in open_clip.list_models():
        tags[name] = open_clip.list_pretrained_tags_by_model(name)
    found = {name: t for name, t in tags.items() if search.lower() in name.lower()}
    if not found:
        hint = did_you_mean(search, tags, n=3)
        raise UserError(f"no backbone has {search!r} in its name; `dspt models` lists all{hint}")
    if json:
        console.out.print(json_module.dumps(found, indent=1), soft_wrap=True, markup=False)
        return
    for name, known in found.items():
        note = "ships with dspt, works offline" if name == "default" else ", ".join(known)
        line = f"{name:<44} {note or 'no tag; give a checkpoint file'}"
        console.out.print(line, soft_wrap=True, markup=False)
