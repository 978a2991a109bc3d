"""Zero-shot accuracy of an open_clip model directory; prints the table of the model card.

    python evaluate.py --model FOLDER --demo FOLDER/demo.parquet \\
        --caltech CALTECH_FOLDER --cifar CIFAR_FOLDER

Works through open_clip alone, as a user's program would.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from settings import CONTEXT_LENGTH, SEED
from test_sets import TestSet, caltech, cifar10, demo_emoji
from text_tower import CONTEXT_STD, forward_text
from torch import Tensor, nn

TEMPLATE = "a photo of a {}."
CONTEXT_VECTORS = 16
RANDOM_CONTEXTS = 5


@torch.inference_mode()
def image_features(
    model: nn.Module, preprocess: object, test: TestSet, batch_size: int = 64
) -> Tensor:
    """Unit image features, through open_clip's own preprocessing."""
    parts = []
    for start in range(0, len(test.loaders), batch_size):
        loaders = test.loaders[start : start + batch_size]
        batch = torch.stack([preprocess(loader().convert("RGB")) for loader in loaders])
        parts.append(model.encode_image(batch, normalize=True))
    return torch.cat(parts)


@torch.inference_mode()
def text_features(model: nn.Module, tokenizer: object, names: Iterable[str]) -> Tensor:
    """Unit text features of class names in the usual template."""
    ids = tokenizer([TEMPLATE.format(name) for name in names])
    return model.encode_text(ids, normalize=True)


@torch.inference_mode()
def random_context_features(
    model: nn.Module, tokenizer: object, names: list[str], seed: int
) -> Tensor:
    """Text features when random vectors replace the template, as before any prompt tuning."""
    generator = torch.Generator().manual_seed(seed)
    placeholder = " ".join(["x"] * CONTEXT_VECTORS)
    ids = tokenizer([f"{placeholder} {name}." for name in names])
    embedded = model.token_embedding(ids)
    shape = (CONTEXT_VECTORS, embedded.shape[-1])
    embedded[:, 1 : 1 + CONTEXT_VECTORS] = CONTEXT_STD * torch.randn(shape, generator=generator)
    return F.normalize(forward_text(model, embedded, ids.argmax(-1)), dim=-1)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy in percent."""
    return 100 * (logits.argmax(-1) == labels).float().mean().item()


@torch.inference_mode()
def table_row(model: nn.Module, preprocess: object, tokenizer: object, test: TestSet) -> str:
    """One Markdown row: zero-shot, class mean, random context, confidence."""
    images = image_features(model, preprocess, test)
    labels = torch.tensor(test.labels)
    scale = model.logit_scale.exp()
    logits = scale * images @ text_features(model, tokenizer, test.classes).t()
    per_class = [accuracy(logits[labels == c], labels[labels == c]) for c in labels.unique()]
    confidence = logits.softmax(-1).max(-1).values.mean()
    contexts = [
        images @ random_context_features(model, tokenizer, test.classes, SEED + number).t()
        for number in range(RANDOM_CONTEXTS)
    ]
    random_start = sum(accuracy(context, labels) for context in contexts) / RANDOM_CONTEXTS
    return (
        f"| {test.name} | {len(test.classes)} | {len(labels)} | {accuracy(logits, labels):.1f} "
        f"| {sum(per_class) / len(per_class):.1f} | {random_start:.1f} | {confidence:.2f} |"
    )


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="open_clip model directory")
    parser.add_argument("--demo", type=Path, help="demo.parquet")
    parser.add_argument("--caltech", type=Path, help="Caltech-101 in CoOp's layout")
    parser.add_argument("--cifar", type=Path, help="folder with CIFAR-10's test.parquet")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    name = f"local-dir:{arguments.model}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name, context_length=CONTEXT_LENGTH)
    model.eval()
    print(
        "| pictures | classes | n | zero-shot % | mean of classes % | random context % "
        "| mean confidence |\n|---|---|---|---|---|---|---|"
    )
    for read, path in (
        (caltech, arguments.caltech),
        (cifar10, arguments.cifar),
        (demo_emoji, arguments.demo),
    ):
        if path is not None:
            print(table_row(model, preprocess, tokenizer, read(path)), flush=True)


if __name__ == "__main__":
    main()
