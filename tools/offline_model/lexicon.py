"""The phrases that the text tower learns, with their targets and sampling weights."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from settings import SEED
from targets import PHYSICAL, JointSpace
from torch import Tensor
from wordnet import ANIMAL, PLANT, imagenet_keys

# Share of the training texts that each group of phrases gets.
_SHARES = {
    "imagenet": 0.20,
    "hypernyms": 0.07,
    "glosses": 0.03,
    "emoji names": 0.08,
    "emoji tags": 0.06,
    "emoji subgroups": 0.04,
    "things": 0.37,
    "other words": 0.05,
    "modified": 0.10,
}
_OTHER_WORDS = 12_000
_MODIFIED = 12_000
_MODIFIER_WEIGHT = 0.25
_MODIFIERS_BEFORE = (
    "big", "small", "large", "little", "old", "new", "young", "baby", "adult", "wild", "tame",
    "common", "giant", "tiny", "red", "green", "blue", "yellow", "black", "white", "brown", "grey",
    "pink", "orange", "golden", "wooden", "metal", "plastic", "stone", "toy", "antique", "modern",
    "electric", "broken", "round", "long", "tall", "open", "closed", "flying", "sitting",
    "standing", "running", "wet", "striped", "spotted",
)  # fmt: skip
_MODIFIERS_AFTER = (
    "head", "face", "body", "side", "front", "back", "tail", "eye", "leg", "wing", "top", "part",
    "close-up", "picture", "group", "pair",
)  # fmt: skip


@dataclass(frozen=True)
class Lexicon:
    """Phrases, unit targets (n, SEMANTIC_DIM), and sampling weights that sum to one."""

    phrases: list[str]
    targets: Tensor
    weights: Tensor


def build_lexicon(space: JointSpace) -> Lexicon:
    """All training phrases."""
    generator = random.Random(SEED)
    wordnet = space.wordnet
    classes = imagenet_keys()
    hypernyms = [e.sense for e in space.entries[len(classes) :] if e.log_weight == 0.0]
    groups: dict[str, tuple[list[str], Tensor]] = {}

    def add(group: str, phrases: Sequence[str], targets: Tensor) -> None:
        groups[group] = (list(phrases), targets)

    for group, keys in (("imagenet", classes), ("hypernyms", hypernyms)):
        words = sorted({word for key in keys for word in wordnet.synsets[key].words})
        add(group, words, _any_targets(space, words))
    glosses = sorted({wordnet.synsets[key].gloss for key in [*classes, *hypernyms]})
    add("glosses", glosses, space.phrase_targets(glosses))

    pictorial = [item for item in space.emoji if item.pictorial]
    for group, words in (
        ("emoji names", {item.name for item in pictorial}),
        ("emoji tags", {tag for item in pictorial for tag in item.tags}),
        ("emoji subgroups", {item.subgroup_words for item in space.emoji}),
    ):
        add(group, sorted(words), _any_targets(space, sorted(words)))

    things = _things(space)
    add("things", things, space.word_targets(things))
    others = _other_words(space, generator)
    add("other words", others, space.phrase_targets(others))
    add("modified", *_modified(space, things, groups["things"][1], generator))

    phrases, targets, weights = [], [], []
    for group, (group_phrases, group_targets) in groups.items():
        phrases += group_phrases
        targets.append(group_targets)
        weights.append(torch.full((len(group_phrases),), _SHARES[group] / len(group_phrases)))
        print(f"lexicon: {len(group_phrases)} {group}", flush=True)
    return Lexicon(phrases, torch.cat(targets), torch.cat(weights))


def token_targets(space: JointSpace, lexicon: Lexicon, strings: Sequence[str]) -> Tensor:
    """A target for every vocabulary entry: that of its own string, nothing for no string."""
    known = {phrase.lower(): at for at, phrase in enumerate(lexicon.phrases)}
    targets = space.phrase_targets([string or "." for string in strings])
    for at, string in enumerate(strings):
        if not string:
            targets[at] = 0
        elif string in known:
            targets[at] = lexicon.targets[known[string]]
    return targets


def _any_targets(space: JointSpace, words: Sequence[str]) -> Tensor:
    """Targets by sense where a word has one, from MiniLM alone otherwise."""
    targets = space.phrase_targets(words)
    with_sense = [at for at, word in enumerate(words) if space.senses(word)]
    targets[with_sense] = space.word_targets([words[at] for at in with_sense])
    return targets


def _things(space: JointSpace) -> list[str]:
    """WordNet's words for photographable things, without Latin names."""
    words = set()
    for synset in space.wordnet.synsets.values():
        if synset.category in PHYSICAL:
            latin = synset.category in (ANIMAL, PLANT)
            words.update(w for w in synset.words if not (latin and _is_latin(space, w)))
    return sorted(word for word in words if len(word) > 2)


def _is_latin(space: JointSpace, word: str) -> bool:
    """`Litocranius walleri` is Latin, `Joshua tree` is not: its last word is an English noun."""
    tokens = word.split()
    if tokens[0] in ("genus", "family", "order", "suborder", "class", "subfamily", "superfamily"):
        return True
    return word[0].isupper() and not _is_common_noun(space, tokens[-1].lower())


def _is_common_noun(space: JointSpace, word: str) -> bool:
    """Whether some sense of the word is spelled without capitals."""
    keys = space.wordnet.senses.get(word, ())
    return any(word in space.wordnet.synsets[key].words for key in keys)


def _other_words(space: JointSpace, generator: random.Random) -> list[str]:
    """Some words for what one cannot photograph: they occur in class names and contexts too."""
    words = {
        word
        for synset in space.wordnet.synsets.values()
        if synset.category not in PHYSICAL
        for word in synset.words
        if word.islower() and len(word) > 2 and not space.senses(word)
    }
    return sorted(generator.sample(sorted(words), _OTHER_WORDS))


def _modified(
    space: JointSpace, things: list[str], targets: Tensor, generator: random.Random
) -> tuple[list[str], Tensor]:
    """Things with an adjective or a part ("old car", "owl head"): mostly still the thing."""
    modifiers = [*_MODIFIERS_BEFORE, *_MODIFIERS_AFTER]
    modifier_targets = _any_targets(space, modifiers)
    short = [at for at, word in enumerate(things) if " " not in word and word.islower()]
    seen = {phrase for entry in space.entries for phrase in entry.phrases}
    familiar = [at for at in short if things[at] in seen]
    phrases, rows = [], []
    for at in generator.choices(short, k=_MODIFIED // 2) + generator.choices(
        familiar, k=_MODIFIED // 2
    ):
        number = generator.randrange(len(modifiers))
        before = number < len(_MODIFIERS_BEFORE)
        pair = (modifiers[number], things[at]) if before else (things[at], modifiers[number])
        phrases.append(" ".join(pair))
        rows.append(targets[at] + _MODIFIER_WEIGHT * modifier_targets[number])
    return phrases, F.normalize(torch.stack(rows), dim=-1)
