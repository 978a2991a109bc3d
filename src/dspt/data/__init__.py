"""Data sets: one door, :func:`load_dataset`, for every layout that is understood."""

from dspt.data.dataset import ImageDataset, ImageStore
from dspt.data.door import load_dataset
from dspt.data.images import UnreadableImage, open_image
from dspt.data.picture_files import picture_files
from dspt.data.shots import draw_shots

__all__ = [
    "ImageDataset",
    "ImageStore",
    "UnreadableImage",
    "draw_shots",
    "load_dataset",
    "open_image",
    "picture_files",
]
