"""What each fixed constant of ``--method auto`` is worth: change one at a time, measure again.

    DSPT_DATA=FOLDER python tools/auto_study.py --out auto-study [--set cifar10n ...] [--seeds 1 2]

Prints, per data set, mean test accuracy, how well wrong labels are ranked and the error of the
estimated noise rate over seven kinds of noise, and writes every cell as CSV. What is finished is
not done again.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from dspt.backbones import load_backbone
from dspt.configuration import build_config
from dspt.correction import correct
from dspt.correction.channel import SYMMETRIC
from dspt.correction.constants import CONSTANTS, Constants
from dspt.progress import Silent
from dspt.training_set import (
    draw_training_set,
    feature_table,
    load_configured,
    training_set_tensors,
)

NOISES = ["none", "symmetric:0.5", "symmetric:0.75", "asymmetric:0.5", "asymmetric:0.75"]
NOISES += ["instance:0.5"]
SETS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "cifar10n": ({"data": "cifar10n"}, [*NOISES, "column:worse_label"]),
    "emoji": ({"data": "demo"}, NOISES),
    "caltech101": ({"data": "caltech101", "classes": "first:25"}, NOISES),
}
COLUMNS = (
    "set",
    "noise",
    "seed",
    "variant",
    "true_rate",
    "accuracy",
    "auroc",
    "ap",
    "rate",
    "covered",
)
COLUMNS += ("seconds",)


def _penalties(least: float) -> tuple[float, ...]:
    return tuple(strength for strength in CONSTANTS.strengths if strength >= least)


VARIANTS: dict[str, Constants] = {
    "as it is": CONSTANTS,
    "four folds": replace(CONSTANTS, folds=4),
    "six folds": replace(CONSTANTS, folds=6),
    "one round": replace(CONSTANTS, rounds=1),
    "two rounds": replace(CONSTANTS, rounds=2),
    "four rounds": replace(CONSTANTS, rounds=4),
    "first round: all penalties": replace(CONSTANTS, first_strength=0),
    "first round: from 0.3": replace(CONSTANTS, first_strength=0.3),
    "first round: from 1": replace(CONSTANTS, first_strength=1),
    "penalties from 0.001": replace(CONSTANTS, strengths=(0.001, *CONSTANTS.strengths)),
    "penalties from 0.01": replace(CONSTANTS, strengths=_penalties(0.01)),
    "penalties from 0.1": replace(CONSTANTS, strengths=_penalties(0.1)),
    "channel: symmetric only": replace(CONSTANTS, prior_strengths=(SYMMETRIC,)),
    "channel: free": replace(CONSTANTS, prior_strengths=(0.5,)),
    "structure: best likelihood": replace(CONSTANTS, standard_errors=0),
    "structure: four standard errors": replace(CONSTANTS, standard_errors=4),
    "no sharpened copies": replace(CONSTANTS, sharpness=1),
    "copies four times as sure": replace(CONSTANTS, sharpness=4),
    "no free heads": replace(CONSTANTS, free_heads=False),
    "five neighbours": replace(CONSTANTS, neighbours=5),
    "twenty neighbours": replace(CONSTANTS, neighbours=20),
    "neighbours unheard": replace(CONSTANTS, neighbour_weight=0),
    "neighbours with a full say": replace(CONSTANTS, neighbour_weight=1),
}


def measure(name: str, noise: str, seed: int, left: list[str]) -> list[dict]:
    """All variants on one draw of pictures and noise."""
    config = build_config(**SETS[name][0], shots=16, noise=noise, seed=seed)
    dataset = load_configured(config)
    backbone = load_backbone(config.backbone)
    features = feature_table(config, dataset, backbone, None, Silent())
    drawn = draw_training_set(config, dataset, features)
    test = dataset.splits["test"]
    test = test[features.take(test, "test", plain=True)]
    tensors = training_set_tensors(drawn, dataset, backbone, features, test)
    zero_shot = backbone.logit_scale * backbone.zero_shot_features(
        dataset.class_names, config.template or dataset.template
    )
    x, seen = tensors.features[:, 0], tensors.test_features
    true = drawn.given if drawn.true is None else drawn.true
    wrong = drawn.given != true
    rows = []
    for variant in left:
        started = time.perf_counter()
        found = correct(
            x.numpy(),
            drawn.given,
            (x @ zero_shot.t()).numpy(),
            seed=seed,
            constants=VARIANTS[variant],
        )
        seconds = time.perf_counter() - started
        change = torch.from_numpy(found.classifier.change.T).float()
        weight = found.classifier.anchor_weight * zero_shot + change
        right = (seen @ weight.t()).argmax(dim=1) == tensors.test_labels
        rows.append(
            {
                "set": name,
                "noise": noise,
                "seed": seed,
                "variant": variant,
                "true_rate": wrong.mean(),
                "accuracy": right.double().mean().item(),
                "auroc": roc_auc_score(wrong, found.suspicion) if wrong.any() else "",
                "ap": average_precision_score(wrong, found.suspicion) if wrong.any() else "",
                "rate": found.noise_rate,
                "covered": int(found.interval[0] <= wrong.mean() <= found.interval[1]),
                "seconds": seconds,
            }
        )
    return rows


def table(rows: list[dict], name: str) -> str:
    """A line per variant; accuracy also as the difference from the method as it is."""
    rows = [row for row in rows if row["set"] == name]
    noises = list(dict.fromkeys(row["noise"] for row in rows))
    lines = [
        "| "
        + " | ".join(["variant", *noises])
        + " | mean | AUROC | average precision | error of the rate | bias of it "
        "| in the interval | seconds |",
        "| --- |" + " ---: |" * (len(noises) + 7),
    ]
    for variant in VARIANTS:
        own = [row for row in rows if row["variant"] == variant]
        if not own:
            continue
        accuracies = [
            100 * statistics.fmean(float(row["accuracy"]) for row in own if row["noise"] == noise)
            for noise in noises
        ]
        errors = [100 * (float(row["rate"]) - float(row["true_rate"])) for row in own]
        ranking = [
            100 * statistics.fmean(float(row[key]) for row in own if row[key] != "")
            for key in ("auroc", "ap")
        ]
        covered = sum(int(row["covered"]) for row in own)
        cells = [f"{value:.1f}" for value in accuracies]
        cells += [f"{value:.1f}" for value in (statistics.fmean(accuracies), *ranking)]
        cells += [f"{statistics.fmean(map(abs, errors)):.1f}", f"{statistics.fmean(errors):+.1f}"]
        cells += [f"{covered} of {len(own)}"]
        cells += [f"{statistics.median(float(row['seconds']) for row in own):.1f}"]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", dest="sets", choices=SETS, action="append")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--variant", dest="variants", choices=VARIANTS, action="append")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "auto-study.csv"
    rows: list[dict] = []
    if path.is_file():
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    for name in options.sets or SETS:
        for seed in options.seeds:
            for noise in SETS[name][1]:
                place = (name, noise, str(seed))
                done = {
                    row["variant"]
                    for row in rows
                    if (row["set"], row["noise"], str(row["seed"])) == place
                }
                left = [v for v in options.variants or VARIANTS if v not in done]
                if not left:
                    continue
                print(f"{name} {noise} seed {seed}", file=sys.stderr, flush=True)
                rows += measure(name, noise, seed, left)
                with path.open("w", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS)
                    writer.writeheader()
                    writer.writerows(rows)
        print(f"### {name}\n\n{table(rows, name)}")


if __name__ == "__main__":
    main()
