"""What the groups of a bench share: each data set, model and feature table is loaded once."""

from __future__ import annotations

from pathlib import Path

from dspt.backbones import Backbone, load_backbone
from dspt.bench.schedule import ModelKey, SourceKey, model_key, source_key
from dspt.configuration import FitConfig
from dspt.data import ImageDataset
from dspt.progress import Progress
from dspt.training_set import FeatureTable, feature_table, load_configured


class Loader:
    """Loads when first asked for and keeps until told to let go.

    Args:
        device: for the backbones.
        cache: folder for image features; None for the user's cache folder.
        progress: where to report to.
    """

    def __init__(self, device: str, cache: Path | None, progress: Progress) -> None:
        self.cache, self.progress = cache, progress
        self._device = device
        self._datasets: dict[SourceKey, ImageDataset] = {}
        self._backbones: dict[ModelKey, Backbone] = {}
        self._features: dict[tuple[SourceKey, ModelKey, int, str], FeatureTable] = {}

    def dataset(self, cell: FitConfig) -> ImageDataset:
        """The data set of a cell.

        Raises:
            UserError: when it cannot be read.
        """
        key = source_key(cell)
        if key not in self._datasets:
            self._datasets[key] = load_configured(cell)
        return self._datasets[key]

    def backbone(self, cell: FitConfig) -> Backbone:
        """The model of a cell.

        Raises:
            UserError: when it cannot be loaded.
        """
        key = model_key(cell)
        if key not in self._backbones:
            with self.progress.task(f"loading the backbone {cell.backbone}") as advance:
                self._backbones[key] = load_backbone(
                    cell.backbone, cell.pretrained, device=self._device, precision=cell.precision
                )
                advance(1, 1)
            if self._backbones[key].text_note:
                self.progress.note(self._backbones[key].text_note)
        return self._backbones[key]

    def features(self, cell: FitConfig) -> FeatureTable:
        """The image features that a cell shares with all others of its data and model."""
        key = (source_key(cell), model_key(cell), cell.views, cell.feature_precision)
        if key not in self._features:
            self._features[key] = feature_table(
                cell, self.dataset(cell), self.backbone(cell), self.cache, self.progress
            )
        return self._features[key]

    def keep_only(self, cells: list[FitConfig]) -> None:
        """Let go of what these cells do not need."""
        sources, models = set(map(source_key, cells)), set(map(model_key, cells))
        pairs = {(source_key(cell), model_key(cell)) for cell in cells}
        self._features = {key: held for key, held in self._features.items() if key[:2] in pairs}
        self._datasets = {key: held for key, held in self._datasets.items() if key in sources}
        self._backbones = {key: held for key, held in self._backbones.items() if key in models}
