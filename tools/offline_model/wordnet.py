"""WordNet nouns: senses, glosses, and a similarity in the is-a graph."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from timm.data import ImageNetInfo

# Lexicographer files (WordNet's coarse categories of nouns).
ACT, ANIMAL, ARTIFACT, ATTRIBUTE, BODY = "04", "05", "06", "07", "08"
COGNITION, COMMUNICATION, EVENT, FEELING, FOOD = "09", "10", "11", "12", "13"
GROUP, PLACE, NATURAL_OBJECT, PERSON, PHENOMENON = "14", "15", "17", "18", "19"
PLANT, POSSESSION, SHAPE, SUBSTANCE = "20", "21", "25", "27"

_MARKER = re.compile(r"\(.*?\)")


@dataclass(frozen=True)
class Synset:
    """One sense: its words, gloss (without the usage examples), parents and category."""

    key: str
    words: tuple[str, ...]
    gloss: str
    parents: tuple[str, ...]
    category: str


class WordNet:
    """The noun part of WordNet, read from its database files."""

    def __init__(self, folder: Path) -> None:
        self.synsets = _read_synsets(folder / "data.noun")
        self.senses = _read_senses(folder / "index.noun")

    def ancestors(self, key: str) -> set[str]:
        """All senses above `key`, `key` itself included."""
        found = {key}
        pending = [key]
        while pending:
            for parent in self.synsets[pending.pop()].parents:
                if parent not in found:
                    found.add(parent)
                    pending.append(parent)
        return found

    @cached_property
    def information(self) -> dict[str, float]:
        """Information content in [0, 1] from the graph alone: 1 for a leaf, 0 for the root."""
        below: Counter[str] = Counter()
        for key in self.synsets:
            below.update(self.ancestors(key))
        top = math.log(len(self.synsets))
        return {key: 1 - math.log(count) / top for key, count in below.items()}

    def lin_similarity(self, queries: Iterable[str], memory: list[str]) -> np.ndarray:
        """Lin's similarity (len(queries), len(memory)): shared over own information content."""
        column: dict[str, list[int]] = {}
        for index, key in enumerate(memory):
            for ancestor in self.ancestors(key):
                column.setdefault(ancestor, []).append(index)
        columns = {key: np.array(indices) for key, indices in column.items()}
        own = np.array([self.information[key] for key in memory], dtype=np.float32)
        rows = []
        for query in queries:
            shared = np.zeros(len(memory), dtype=np.float32)
            for ancestor in self.ancestors(query):
                if ancestor in columns:
                    at = columns[ancestor]
                    shared[at] = np.maximum(shared[at], self.information[ancestor])
            rows.append(2 * shared / (own + self.information[query] + 1e-6))
        return np.stack(rows)


def imagenet_keys() -> list[str]:
    """The WordNet key of every ImageNet class, in the order of the classifier's rows."""
    info = ImageNetInfo()
    return [info.index_to_label_name(index).removeprefix("n") for index in range(1000)]


def _read_synsets(path: Path) -> dict[str, Synset]:
    synsets = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("  "):  # the licence text at the top
            continue
        data, gloss = line.split(" | ", 1)
        fields = data.split()
        word_count = int(fields[3], 16)
        words = [_MARKER.sub("", fields[4 + 2 * i]).replace("_", " ") for i in range(word_count)]
        at = 4 + 2 * word_count
        parents = []
        for i in range(int(fields[at])):
            symbol, target, part, _ = fields[at + 1 + 4 * i : at + 5 + 4 * i]
            if symbol in ("@", "@i") and part == "n":
                parents.append(target)
        gloss = gloss.split('; "')[0].strip()
        synsets[fields[0]] = Synset(fields[0], tuple(words), gloss, tuple(parents), fields[1])
    return synsets


def _read_senses(path: Path) -> dict[str, tuple[str, ...]]:
    """Word in lower case -> its senses, the most frequent one first."""
    senses = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            continue
        fields = line.split()
        senses[fields[0].replace("_", " ")] = tuple(fields[-int(fields[2]) :])
    return senses
