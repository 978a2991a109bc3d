"""Fit the linear image projection to the finished text tower, on cached features only.

It starts from the closed form and is refined with what the open pictures offer: emoji should
find their names and subgroups, and the model should agree with the image tower's own ImageNet
softmax on clip art and on synthetic features of every class. An anchor keeps it near the start.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from emoji import TRAINING_VENDORS
from image_tower import load_efficientnet
from settings import (
    CONSTANT_NORM,
    EMBED_DIM,
    IMAGE_CONSTANT,
    SEED,
    SEMANTIC_DIM,
    Work,
)
from targets import JointSpace
from text_tower import encode_names
from torch import Tensor, nn
from wordnet import imagenet_keys

STEPS = 400
LOGIT_SCALE = 100.0
_RELATIVE_RATE = 0.05  # peak learning rate over the mean absolute weight
_EMOJI_TEMPLATES = ("an emoji of {}.", "{}.", "a photo of a {}.")
_CLASS_TEMPLATES = ("a photo of a {}.", "{}.")
_SMOOTHING = 0.05
# Synthetic class features: a class is this many deviations from the mean, along the direction
# that its classifier row likes best, plus a part of the spread of natural features.
_CLASS_SHIFT, _CLASS_SPREAD = 4.0, 0.7


def closed_form(space: JointSpace, features: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of the projection before any fitting.

    The bias removes the mean ImageNet feature, and gives one spare dimension a constant; the
    text side has a constant in the other one. They divide all cosines, so that probabilities at
    CLIP's scale of 100 are about as confident as CLIP's; without them they would be far too sure.
    """
    weight = torch.zeros(EMBED_DIM, space.basis.shape[1])
    weight[:SEMANTIC_DIM] = space.basis
    bias = -weight @ space.offset
    typical = ((features - space.offset) @ space.basis.t()).norm(dim=-1).mean()
    bias[IMAGE_CONSTANT] = CONSTANT_NORM * typical
    return weight, bias


def fit_projection(work: Work, space: JointSpace, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (EMBED_DIM, channels) and bias of the image projection."""
    torch.manual_seed(SEED)
    classifier = load_efficientnet(work).classifier
    clipart = torch.load(work.features("clipart"), weights_only=True)["features"].float()
    emoji = _EmojiTask(work, space, model)
    classes = _ClassTask(space, model, classifier, clipart)

    start, bias = closed_form(space, clipart)
    weight = start.clone().requires_grad_(True)
    bias.requires_grad_(True)
    rate = _RELATIVE_RATE * float(start.abs().mean())
    optimiser = torch.optim.Adam([weight, bias], lr=rate)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / STEPS)
        away = ((weight - start)[:SEMANTIC_DIM] ** 2).sum() / (start[:SEMANTIC_DIM] ** 2).sum()
        terms = (
            emoji.loss(weight, bias),
            classes.loss(weight, bias),
            2 * classes.alignment(weight),
            2 * away,
        )
        loss = torch.stack(terms).sum()
        optimiser.zero_grad()
        loss.backward()
        weight.grad[SEMANTIC_DIM:] = 0  # the spare dimensions stay constant
        optimiser.step()
        if step % 100 == 0 or step == STEPS - 1:
            shown = " ".join(f"{term.item():.3f}" for term in terms)
            print(f"projection step {step}: {shown}", flush=True)
    return weight.detach(), bias.detach()


class _EmojiTask:
    """Cross-entropy of emoji pictures against emoji names and subgroup names."""

    def __init__(self, work: Work, space: JointSpace, model: nn.Module) -> None:
        features, numbers = [], []
        for vendor in TRAINING_VENDORS:
            saved = torch.load(work.features(vendor), weights_only=True)
            features.append(saved["features"].float())
            numbers.append(saved["emoji"])
        self.features = torch.cat(features)
        shown, self.names = torch.cat(numbers).unique(return_inverse=True)
        items = [space.emoji[number] for number in shown.tolist()]
        words = sorted({item.subgroup_words for item in items})
        subgroup = torch.tensor([words.index(item.subgroup_words) for item in items])
        self.subgroups = subgroup[self.names]
        self.name_text = _mean_text(model, [item.name for item in items], _EMOJI_TEMPLATES)
        self.subgroup_text = _mean_text(model, words, _EMOJI_TEMPLATES)

    def loss(self, weight: Tensor, bias: Tensor, batch: int = 384) -> Tensor:
        at = torch.randint(len(self.features), (batch,))
        image = F.normalize(self.features[at] @ weight.t() + bias, dim=-1)
        by_name = LOGIT_SCALE * image @ self.name_text.t()
        by_subgroup = LOGIT_SCALE * image @ self.subgroup_text.t()
        return F.cross_entropy(
            by_name, self.names[at], label_smoothing=_SMOOTHING
        ) + 0.5 * F.cross_entropy(by_subgroup, self.subgroups[at], label_smoothing=_SMOOTHING)


class _ClassTask:
    """Agreement with the image tower's own classifier over the 1000 ImageNet classes."""

    def __init__(
        self, space: JointSpace, model: nn.Module, classifier: nn.Linear, clipart: Tensor
    ) -> None:
        self.classifier, self.clipart, self.offset = classifier, clipart, space.offset
        words = [space.wordnet.synsets[key].words[:3] for key in imagenet_keys()]
        owner = torch.tensor([at for at, group in enumerate(words) for _ in group])
        text = _mean_text(model, [word for group in words for word in group], _CLASS_TEMPLATES)
        summed = torch.zeros(len(words), EMBED_DIM).index_add_(0, owner, text)
        self.text = F.normalize(summed, dim=-1)
        rows = classifier.weight - classifier.weight.mean(0)
        self.rows = F.normalize(rows, dim=-1)
        centred = clipart - clipart.mean(0)
        covariance = centred.t() @ centred / len(centred)
        values, vectors = torch.linalg.eigh(covariance)
        self.spread = vectors * values.clamp(min=0).sqrt()
        shift = rows @ covariance
        self.shift = shift / (shift * rows).sum(-1, keepdim=True).sqrt()

    def loss(self, weight: Tensor, bias: Tensor, batch: int = 256) -> Tensor:
        wanted = torch.randint(1000, (batch,))
        noise = torch.randn(batch, len(self.offset)) @ self.spread.t()
        synthetic = self.offset + _CLASS_SHIFT * self.shift[wanted] + _CLASS_SPREAD * noise
        drawn = self.clipart[torch.randint(len(self.clipart), (batch // 2,))]
        features = torch.cat([synthetic.clamp(0, 6), drawn])
        image = F.normalize(features @ weight.t() + bias, dim=-1)
        ours = (LOGIT_SCALE * image @ self.text.t()).log_softmax(-1)
        return F.kl_div(ours, self.classifier(features).softmax(-1), reduction="batchmean")

    def alignment(self, weight: Tensor) -> Tensor:
        """Distance between each class's text, read back as an image direction, and its row."""
        read_back = F.normalize(self.text[:, :SEMANTIC_DIM] @ weight[:SEMANTIC_DIM], dim=-1)
        return (1 - (read_back * self.rows).sum(-1)).mean()


def _mean_text(model: nn.Module, names: list[str], templates: tuple[str, ...]) -> Tensor:
    return F.normalize(
        torch.stack([encode_names(model, names, template) for template in templates]).mean(0),
        dim=-1,
    )
