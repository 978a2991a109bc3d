"""Everything that defines the build: one seed, sizes, and where the files of a build live."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SEED = 0

# Image tower: EfficientNet-Lite2, at a lower resolution than the 260 it was trained at: at 192
# it is twice as fast, and small pictures even do better.
TIMM_MODEL = "tf_efficientnet_lite2"
IMAGE_SIZE = 192
PIXEL_MEAN = 0.5
PIXEL_STD = 0.5

# The joint space. The last two dimensions carry only a constant (see fit_projection.py).
EMBED_DIM = 256
SEMANTIC_DIM = EMBED_DIM - 2
IMAGE_CONSTANT = EMBED_DIM - 2
TEXT_CONSTANT = EMBED_DIM - 1
CONSTANT_NORM = 2.0

# Text tower: the open_clip text transformer.
TEXT_WIDTH = 256
TEXT_HEADS = 4
TEXT_LAYERS = 4
CONTEXT_LENGTH = 77
VOCAB_SIZE = 49408


@dataclass(frozen=True)
class Work:
    """Layout of the build folder: downloaded packages and cached intermediate results."""

    root: Path

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    @property
    def wheels(self) -> Path:
        return self.packages / "wheels"

    @property
    def npm(self) -> Path:
        return self.packages / "npm"

    @property
    def wordnet(self) -> Path:
        return self.packages / "debian" / "usr" / "share" / "wordnet"

    @property
    def clipart(self) -> Path:
        return self.packages / "debian" / "usr" / "share" / "openclipart" / "png"

    def cache(self, name: str) -> Path:
        """Path of one cached intermediate result; its folder is created."""
        folder = self.root / "cache"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def features(self, name: str) -> Path:
        """Path of the cached image features of one picture set (depends on the image tower)."""
        return self.cache(f"features_{IMAGE_SIZE}_{name}.pt")
