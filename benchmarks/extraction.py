"""How near is feature extraction to the bare image tower?

    python -m benchmarks.extraction

Pictures are made, encoded as JPEG and read back from the disk, so reading, decoding and
preprocessing are in the measured path; the bare tower gets tensors that are ready.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import common
from dspt.backbones import load_backbone
from dspt.data import load_dataset
from dspt.features import batch_size, extract_features

QUESTION = "extraction"


def write_pictures(folder: Path, count: int, side: int = 300) -> None:
    """A folder of two classes of smooth random JPEG pictures."""
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        place = folder / f"class {number % 2}" / f"{number:05}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place, quality=90)


def main() -> None:
    """Measure, print, keep."""
    options = common.parser(__doc__ or "")
    options.add_argument("--pictures", type=int, default=200)
    options.set_defaults(backbone="default", rounds=3)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    weights = None if arguments.backbone == "default" else "none"
    backbone = load_backbone(arguments.backbone, weights)
    with tempfile.TemporaryDirectory() as place:
        write_pictures(Path(place) / "pictures", arguments.pictures)
        dataset = load_dataset(Path(place) / "pictures", holdout=0)
        batch = batch_size(backbone.device)
        ready = torch.randn(batch, 3, *backbone.image_size)
        turn = iter(range(10_000))

        def bare() -> None:
            for _ in range(arguments.pictures // batch):
                backbone.encode_image(ready)

        def extract() -> None:
            cache = Path(place) / f"cache{next(turn)}"  # an empty one every time
            extract_features(backbone, dataset.images, dataset.splits["train"], cache=cache)

        times = common.in_turns({"bare tower": bare, "extraction": extract}, arguments.rounds)
    share = 1 / common.ratio(times["extraction"], times["bare tower"])
    common.print_table(
        ["", "pictures/s"],
        [[name, arguments.pictures / statistics.median(t)] for name, t in times.items()],
    )
    print(f"extraction reaches {share:.0%} of the bare tower's throughput")
    common.keep(arguments.out, QUESTION, {"seconds": times, "share": share}, arguments)


if __name__ == "__main__":
    main()
