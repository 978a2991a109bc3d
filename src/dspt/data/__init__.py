"""Data sets: one door, :func:`load_dataset`, for every layout that is understood."""

from dspt.data.dataset import ImageDataset, ImageStore
from dspt.data.door import load_dataset
from dspt.data.images import UnreadableImage, open_image
from dspt.data.picture_files import picture_files
from dspt.data.registry import DatasetCard, dataset_card
from dspt.data.shots import draw_shots
from dspt.data.subsets import choose_classes

__all__ = [
    "DatasetCard",
    "ImageDataset",
    "ImageStore",
    "UnreadableImage",
    "choose_classes",
    "dataset_card",
    "draw_shots",
    "load_dataset",
    "open_image",
    "picture_files",
]
