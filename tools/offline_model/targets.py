"""The joint space in closed form: image basis and a text target for every word, no training.

An ImageNet class is known to the image tower by its classifier row. A word gets the average of
the rows of the concepts that it resembles, where resemblance is measured in three ways: MiniLM
on the bare word, MiniLM on "word: gloss", and Lin's similarity in WordNet's is-a graph.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from emoji import TRAINING_VENDORS, load_emoji
from image_tower import load_efficientnet, mean_imagenet_feature
from minilm import PhraseVectors
from settings import SEMANTIC_DIM, Work
from torch import Tensor
from wordnet import ANIMAL, ARTIFACT, BODY, FOOD, NATURAL_OBJECT, PLANT, WordNet, imagenet_keys

# Categories of things one can photograph, with how much a sense counts among a word's senses.
PHYSICAL = {ANIMAL: 1.0, ARTIFACT: 1.0, BODY: 1.0, PLANT: 0.8, FOOD: 0.7, NATURAL_OBJECT: 0.7}
_SENSE_DECAY = 0.6  # a word's senses come most frequent first
_NAME_PENALTY = 0.3  # a sense that is spelled differently (capitals: a person, a genus)

# Hypernyms above this many ImageNet classes say little ("artifact").
_MAX_DESCENDANTS = 220

# Temperatures of the averages. Three similarities are summed for a word with a gloss, only one
# is there for a free phrase.
_SENSE_TEMPERATURE = 0.10
_PHRASE_TEMPERATURE = 0.06
# Stand-in for a similarity that a memory entry without a sense cannot have.
_IMPUTED = 0.8

# Weights of drawn concepts in the averages: drawings help most where ImageNet has no photograph.
_DRAWN_KNOWN, _DRAWN_NEW, _DRAWN_SENSELESS = 0.05, 0.7, 0.1
_CLIPART_FACTOR = 0.35
_DRAWN_ENERGY = 0.7  # share of drawn concepts in the choice of the image basis
_SHRINKAGE = 3.0  # of the covariance that drawn concepts are whitened with


@dataclass(frozen=True)
class Entry:
    """One concept with a known image direction: its phrases, its sense, its log weight."""

    phrases: tuple[str, ...]
    sense: str | None
    log_weight: float


class JointSpace:
    """Image basis (SEMANTIC_DIM, channels), feature offset, and targets of words."""

    def __init__(self, work: Work) -> None:
        self.wordnet = WordNet(work.wordnet)
        self.vectors = PhraseVectors(work)
        self.emoji = load_emoji(work)
        model = load_efficientnet(work)
        self.offset = mean_imagenet_feature(model)
        classifier = model.classifier.weight - model.classifier.weight.mean(0)
        photographed, self.entries = self._photographed(classifier)
        drawn, entries = self._drawn(work)
        self.entries = self.entries + entries
        directions = torch.cat(
            [photographed, _DRAWN_ENERGY * classifier.norm(dim=-1).mean() * drawn]
        )
        directions = directions @ self._remove_domains
        self.basis = torch.linalg.svd(directions, full_matrices=False)[2][:SEMANTIC_DIM]
        self.rows = F.normalize(directions @ self.basis.t(), dim=-1)
        self._index_memory()

    @property
    def anchors(self) -> Tensor:
        """Unit rows of the 1000 ImageNet classes."""
        return self.rows[:1000]

    def senses(self, word: str) -> list[tuple[str, float]]:
        """The word's photographable senses with weights that sum to one."""
        weighted = []
        for rank, key in enumerate(self.wordnet.senses.get(word.lower(), ())):
            synset = self.wordnet.synsets[key]
            if synset.category in PHYSICAL:
                weight = PHYSICAL[synset.category] * _SENSE_DECAY**rank
                weighted.append((key, weight * (1 if word in synset.words else _NAME_PENALTY)))
        total = sum(weight for _, weight in weighted)
        return [(key, weight / total) for key, weight in weighted]

    def word_targets(self, words: Sequence[str], chunk: int = 1024) -> Tensor:
        """Unit targets of words that have at least one photographable sense each."""
        parts = [self._word_targets(words[at : at + chunk]) for at in range(0, len(words), chunk)]
        return torch.cat(parts)

    def phrase_targets(self, phrases: Sequence[str], chunk: int = 4096) -> Tensor:
        """Unit targets of any phrases, from MiniLM alone."""
        vectors = self.vectors(phrases)
        parts = []
        for part in vectors.split(chunk):
            logits = self._phrase_similarity(part) / _PHRASE_TEMPERATURE + self._log_weight
            parts.append(F.normalize(logits.softmax(-1) @ self.rows, dim=-1))
        return torch.cat(parts)

    def gloss_text(self, key: str) -> str:
        """What MiniLM reads for a sense."""
        synset = self.wordnet.synsets[key]
        return f"{', '.join(synset.words)}: {synset.gloss}"

    def _photographed(self, classifier: Tensor) -> tuple[Tensor, list[Entry]]:
        """ImageNet's classes, then their hypernyms as the mean of the classes below."""
        classes = imagenet_keys()
        below: dict[str, list[int]] = {}
        for index, key in enumerate(classes):
            for ancestor in self.wordnet.ancestors(key):
                below.setdefault(ancestor, []).append(index)
        hypernyms = sorted(
            key
            for key, members in below.items()
            if key not in set(classes) and len(members) <= _MAX_DESCENDANTS
        )
        means = [classifier[below[key]].mean(0) for key in hypernyms]
        entries = [Entry(self.wordnet.synsets[k].words, k, 0.0) for k in [*classes, *hypernyms]]
        return torch.cat([classifier, torch.stack(means)]), entries

    def _drawn(self, work: Work) -> tuple[Tensor, list[Entry]]:
        """Emoji, emoji subgroups and clip art: whitened mean features of their pictures.

        Every kind of drawing (vendor and composition) is centred by itself, and the directions
        from photographs to drawings are removed, so that what is left is the concept.
        """
        total = torch.zeros(len(self.emoji), len(self.offset))
        count = torch.zeros(len(self.emoji))
        centred, means = [], []
        for vendor in TRAINING_VENDORS:
            saved = torch.load(work.features(vendor), weights_only=True)
            for composition in range(3):
                features = saved["features"][composition::3].float()
                numbers = saved["emoji"][composition::3]
                means.append(features.mean(0))
                centred.append(features - means[-1])
                total.index_add_(0, numbers, centred[-1])
                count.index_add_(0, numbers, torch.ones(len(numbers)))
        saved = torch.load(work.features("clipart"), weights_only=True)
        clipart = saved["features"].float()
        means.append(clipart.mean(0))
        centred.append(clipart - means[-1])
        away, _ = torch.linalg.qr(torch.stack([mean - self.offset for mean in means], 1))
        self._remove_domains = torch.eye(len(self.offset)) - away @ away.t()
        whiten = _shrunk_inverse(torch.cat(centred)) @ self._remove_domains

        known = {entry.sense for entry in self.entries}
        seen = [number for number in range(len(self.emoji)) if count[number] > 0]
        emoji = F.normalize(total[seen] @ whiten, dim=-1)
        entries = [self._drawn_entry(self.emoji[number].name, known, 1.0) for number in seen]
        subgroups = sorted({self.emoji[number].subgroup_words for number in seen})
        groups = []
        for subgroup in subgroups:
            members = [
                at
                for at, number in enumerate(seen)
                if self.emoji[number].subgroup_words == subgroup
            ]
            groups.append(F.normalize(emoji[members].mean(0), dim=-1))
            entries.append(Entry((subgroup,), None, torch.tensor(_DRAWN_SENSELESS).log().item()))
        concepts: dict[str, list[int]] = {}
        for at, name in enumerate(saved["names"]):
            if concept := self._clipart_concept(name):
                concepts.setdefault(concept, []).append(at)
        art = [centred[-1][members].mean(0) for members in concepts.values()]
        entries += [self._drawn_entry(name, known, _CLIPART_FACTOR) for name in concepts]
        drawn = [emoji, torch.stack(groups), F.normalize(torch.stack(art) @ whiten, dim=-1)]
        return torch.cat(drawn), entries

    def _drawn_entry(self, name: str, known: set[str | None], factor: float) -> Entry:
        senses = self.senses(name)
        sense = max(senses, key=lambda pair: pair[1])[0] if senses else None
        weight = _DRAWN_SENSELESS if sense is None else _DRAWN_NEW
        weight = _DRAWN_KNOWN if sense in known else weight
        return Entry((name,), sense, torch.tensor(weight * factor).log().item())

    def _clipart_concept(self, name: str) -> str | None:
        """The longest word at the start of a file name that names a photographable thing."""
        tokens = re.sub("[^a-z]+", " ", name.rsplit("/")[-1].removesuffix(".png").lower()).split()
        for length in (3, 2, 1):
            candidate = " ".join(tokens[:length])
            if len(tokens) >= length and len(candidate) > 2 and self.senses(candidate):
                return candidate
        return None

    def _index_memory(self) -> None:
        keys = [(phrase, at) for at, entry in enumerate(self.entries) for phrase in entry.phrases]
        self._keys = self.vectors([phrase for phrase, _ in keys])
        self._key_entry = torch.tensor([at for _, at in keys])
        self._log_weight = torch.tensor([entry.log_weight for entry in self.entries])
        self._with_sense = [at for at, entry in enumerate(self.entries) if entry.sense]
        self._memory_senses = [self.entries[at].sense for at in self._with_sense]
        self._glosses = self.vectors([self.gloss_text(key) for key in self._memory_senses])

    def _phrase_similarity(self, vectors: Tensor) -> Tensor:
        """Cosine to the best phrase of every entry."""
        best = torch.full((len(vectors), len(self.entries)), -1.0)
        owner = self._key_entry.expand(len(vectors), -1)
        return best.scatter_reduce(1, owner, vectors @ self._keys.t(), "amax")

    def _word_targets(self, words: Sequence[str]) -> Tensor:
        pairs = [(at, *sense) for at, word in enumerate(words) for sense in self.senses(word)]
        owner = torch.tensor([at for at, _, _ in pairs])
        share = torch.tensor([weight for _, _, weight in pairs])
        keys = sorted({key for _, key, _ in pairs})
        row = {key: at for at, key in enumerate(keys)}
        sense = torch.tensor([row[key] for _, key, _ in pairs])
        lemma = self._phrase_similarity(self.vectors(words))[owner]
        gloss = self.vectors([self.gloss_text(key) for key in keys]) @ self._glosses.t()
        graph = torch.from_numpy(self.wordnet.lin_similarity(keys, self._memory_senses))
        meaning = 2 * _IMPUTED * lemma
        meaning[:, self._with_sense] = (gloss + graph)[sense]
        logits = (lemma + meaning) / _SENSE_TEMPERATURE + self._log_weight
        targets = F.normalize(logits.softmax(-1) @ self.rows, dim=-1) * share[:, None]
        summed = torch.zeros(len(words), self.rows.shape[1]).index_add_(0, owner, targets)
        return F.normalize(summed, dim=-1)


def _shrunk_inverse(features: Tensor) -> Tensor:
    covariance = features.t() @ features / len(features)
    shrunk = covariance + _SHRINKAGE * covariance.diagonal().mean() * torch.eye(len(covariance))
    return torch.linalg.inv(shrunk)
