"""Published numbers, to be shown beside measured ones and never mixed with them.

They lie in ``assets/published.json``, each with its source and with how far it was checked.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Record):
    """Where a number comes from.

    ``read``: seen in the authors' own paper or repository. ``second-hand``: as quoted by others.
    """

    text: str
    status: Literal["read", "second-hand"]


class Number(_Record):
    """A published top-1 accuracy; accuracy, std and rate in percent, None where not stated."""

    data: str
    method: str
    backbone: str | None
    shots: int | None
    noise: str | None
    rate: float | None
    accuracy: float
    std: float | None
    source: str

    @property
    def setting_known(self) -> bool:
        """Whether it can stand in a column."""
        return self.noise is not None

    @property
    def label(self) -> str:
        """The method and what it was measured with."""
        shots = None if self.shots is None else f"{self.shots} shots"
        return ", ".join(filter(None, (self.method, self.backbone, shots)))


class Published(_Record):
    """All published numbers."""

    about: str
    sources: dict[str, Source]
    names: dict[str, list[str]]
    numbers: tuple[Number, ...]

    def on(self, data: str) -> list[Number]:
        """The numbers of a data set, by whichever of its names."""
        known = re.sub(r"[^a-z0-9]", "", data.lower())
        return [n for n in self.numbers if known in self.names.get(n.data, [])]


def read_published() -> Published:
    """The numbers that come with the package."""
    path = resources.files("dspt") / "assets" / "published.json"
    return Published.model_validate_json(path.read_text(encoding="utf-8"))
