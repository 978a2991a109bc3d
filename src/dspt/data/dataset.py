"""A labelled set of pictures, whatever files it came from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Literal, Protocol

import numpy as np

from dspt.data.paths import LONGEST, is_clean, printable
from dspt.errors import UserError

SPLITS = ("train", "val", "test")


def check_class_name(name: str, where: str) -> None:
    """Refuse what cannot stand in a prompt and on a line of a table.

    Raises:
        UserError: for blanks, control characters, stray bytes and very long names.
    """
    if not name.strip() or not is_clean(name) or len(name) > LONGEST:
        raise UserError(f"{where}: {name[:60]!a} cannot name a class; write a few words")


class ImageStore(Protocol):
    """Encoded pictures by number, read one by one when needed."""

    def __len__(self) -> int: ...

    def key(self, i: int) -> str:
        """Id of picture ``i``: its relative POSIX path, or "train.parquet#17" (rows from 0)."""
        ...

    def read(self, i: int) -> bytes:
        """The file of picture ``i``, still encoded.

        Raises:
            UserError: when it is missing or cannot be read.
        """
        ...


@dataclass(frozen=True)
class ImageDataset:
    """Pictures, labels and splits.

    Args:
        name: short name for tables and figures.
        source: what the user gave to load it.
        class_names: C names as they stand in a prompt.
        images: N pictures.
        labels: int64 [N], true as far as the data says.
        splits: "train" and perhaps "val" and "test", each int64 indices into images; disjoint.
        columns: further labels of the same pictures, each int64 [N], -1 where missing.
        template: the usual zero-shot prompt of this data set.
        test_source: whether the test pictures are the data's own, held out by us, or absent.

    Raises:
        UserError: fewer than two classes, equal or empty class names, an empty training split.
        ValueError: arrays that do not fit together (a bug of a reader).
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    images: ImageStore
    labels: np.ndarray
    splits: Mapping[str, np.ndarray]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    template: str = "a photo of a {}."
    test_source: Literal["split", "holdout", "none"] = "split"

    def __post_init__(self) -> None:
        self._check_classes()
        self._check_arrays()
        if "test" not in self.splits:
            object.__setattr__(self, "test_source", "none")
        elif self.test_source == "none":
            raise ValueError('test_source is "none", yet there is a test split')

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over class names, ids, labels, columns and splits; not over the pictures."""
        digest = sha256(json.dumps(self.class_names).encode())
        for i in range(len(self.images)):
            digest.update(self.images.key(i).encode("utf-8", "surrogateescape") + b"\0")
        arrays = {"labels": self.labels, **self.columns, **self.splits}
        for name, values in sorted(arrays.items()):
            digest.update(f"{name} {len(values)}\n".encode())
            digest.update(np.ascontiguousarray(values, dtype="<i8").tobytes())
        return digest.hexdigest()

    def keys(self, indices: Iterable[int] | np.ndarray) -> list[str]:
        """Ids of the pictures with these numbers."""
        return [self.images.key(int(i)) for i in indices]

    def _check_classes(self) -> None:
        if len(self.class_names) < 2:
            found = ", ".join(f"{printable(name):.60}" for name in self.class_names) or "none"
            raise UserError(
                f"{self.source}: needs at least two classes, found {len(self.class_names)} "
                f"({found}); check that this is the right folder or label column"
            )
        seen: set[str] = set()
        for name in self.class_names:
            check_class_name(name, self.source)
            if name in seen:
                raise UserError(
                    f'{self.source}: two classes are called "{name}" ("_" reads as a space); '
                    "rename or merge them"
                )
            seen.add(name)

    def _check_arrays(self) -> None:
        n = len(self.images)
        for what, labels in {"labels": self.labels, **self.columns}.items():
            if labels.shape != (n,) or labels.dtype != np.int64:
                raise ValueError(f"{what}: int64 [{n}] wanted, got {labels.dtype} {labels.shape}")
            lowest = 0 if labels is self.labels else -1
            if n and not (labels.min() >= lowest and labels.max() < len(self.class_names)):
                raise ValueError(f"{what}: values outside the {len(self.class_names)} classes")
        unknown = set(self.splits) - set(SPLITS)
        if unknown or "train" not in self.splits:
            raise ValueError(f"splits must be train and perhaps val, test; got {set(self.splits)}")
        if len(self.splits["train"]) == 0:
            raise UserError(f"{self.source}: the training split is empty; it needs pictures")
        indices = np.concatenate(list(self.splits.values()))
        if indices.dtype != np.int64 or indices.min() < 0 or indices.max() >= n:
            raise ValueError(f"split indices must be int64 in [0, {n})")
        if len(np.unique(indices)) != len(indices):
            raise ValueError("splits overlap or repeat a picture")
