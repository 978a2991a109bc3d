"""Results made up for the report's tests: plausible curves, no training."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from dspt.configuration import build_config
from dspt.report import AuditPage, AuditSuspect
from dspt.result import (
    BackboneInfo,
    DataInfo,
    Environment,
    EpochMetrics,
    Evaluation,
    NoiseInfo,
    RunResult,
    Suspect,
    Timing,
    Transfer,
    ZeroShot,
)

CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
HOSTILE = [
    "<script>alert(1)</script>",
    "\"quoted\" & 'single'",
    "javascript:alert(1)",
    "</style><img src=x onerror=alert(1)>",
    "$\\frac{1}{0}$ \x00\x07 {{ 7*7 }}",
    "https://evil.example/x.png",
]


def evaluation(
    accuracy: float, classes: int, n: int, seed: int = 0, over: float = 0.08
) -> Evaluation:
    rng = random.Random(seed)
    half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / n)
    return Evaluation(
        n=n,
        accuracy=accuracy,
        interval=(max(0.0, accuracy - half), min(1.0, accuracy + half)),
        calibration_error=abs(over),
        mean_confidence=min(1.0, accuracy + over),
        per_class_accuracy=[
            min(1.0, max(0.0, accuracy + rng.uniform(-0.3, 0.25))) for _ in range(classes)
        ],
        per_class_n=[n // classes] * classes,
        per_class_mistakes=[
            [((c + step) % classes, 9 - step) for step in (1, 2, 3) if step < classes]
            for c in range(classes)
        ],
        calibration_bins=[
            (n // 6, m / 6 - 0.05, min(1.0, max(0.0, m / 6 - 0.05 - over))) for m in range(1, 7)
        ],
    )


def run_result(
    *,
    method: str = "dspt",
    noise: str = "symmetric:0.5",
    seed: int = 1,
    final: float | None = 0.783,
    zero_shot: float | None = 0.710,
    n_test: int = 2465,
    class_names: Sequence[str] = CIFAR,
    truth: bool = True,
    epochs: int = 50,
    warnings: Sequence[str] = (),
    data: str = "cifar10-small",
    clean_gradient: float = 0.25,
    wrong_gradient: float = 0.12,
    shots: int | None = 16,
    backbone: str = "dspt-mini-160",
    realised: float | None = None,
    calibration: float = 0.08,
    transfers: Sequence[Transfer] = (),
    torch: str = "2.8.0",
    **config: Any,
) -> RunResult:
    rng = random.Random(f"{method}{noise}{seed}")
    spec = build_config(data=data, method=method, noise=noise, seed=seed, shots=shots, **config)
    classes = len(class_names)
    n_train = 16 * classes
    rate = realised if realised is not None else spec.noise.rate
    wrong = int(rate * n_train) if truth else None
    start = (zero_shot or 0.5) - 0.05
    end = final if final is not None else 0.6
    rows = []
    for epoch in range(epochs + 1 if epochs else 0):
        t = 1 - math.exp(-4 * epoch / max(epochs, 1))
        test = start + (end - start) * t + rng.uniform(-0.004, 0.004)
        measured = truth and bool(wrong)
        rows.append(
            EpochMetrics(
                epoch=epoch,
                lr=None if epoch == 0 else 0.002 * 0.5 * (1 + math.cos(math.pi * epoch / epochs)),
                train_loss=None if epoch == 0 else 2.0 - 0.4 * t,
                accuracy_given=min(1.0, start * (1 - rate) + 0.2 * t),
                accuracy_true=min(1.0, test + 0.03) if truth else None,
                accuracy_test=None if final is None else end if epoch == epochs else test,
                gradient_norm_clean=clean_gradient * (1.3 - 0.3 * t) if truth else None,
                gradient_norm_mislabelled=wrong_gradient * (1.5 - 0.5 * t) if measured else None,
            )
        )
    transition = None
    if truth:
        each, other = divmod(wrong or 0, classes)
        transition = [[0] * classes for _ in range(classes)]
        for true in range(classes):
            flipped = each + (true < other)
            transition[true][true] = 16 - flipped
            for step in range(flipped):
                transition[true][(true + 1 + step % (classes - 1)) % classes] += 1
    return RunResult(
        config=spec,
        backbone=BackboneInfo(
            name=backbone,
            pretrained="default",
            fingerprint="9f2c41d07ab355e8" * 4,
            embed_dim=256,
            image_size=(160, 160),
            context_length=77,
            logit_scale=100.0,
            precision="fp32",
            text_path="shared-prefix",
        ),
        data=DataInfo(
            fingerprint="d" * 64,
            name=data,
            class_names=list(class_names),
            shots=shots,
            n_train=n_train,
            n_test=0 if final is None else n_test,
            train_per_class=[16] * classes,
            test_source="none" if final is None else "split",
        ),
        noise=NoiseInfo(
            spec=noise,
            true_labels_known=truth,
            n_wrong=wrong,
            realised_rate=None if wrong is None else wrong / n_train,
            transition=transition,
        ),
        zero_shot=ZeroShot(
            template="a photo of a {}.",
            test=None
            if final is None or zero_shot is None
            else evaluation(zero_shot, classes, n_test, 1, 0.13),
            train_accuracy_given=0.37,
            train_accuracy_true=0.69 if truth else None,
        ),
        epochs=rows,
        final=None if final is None else evaluation(final, classes, n_test, 2, calibration),
        transfers=list(transfers),
        context_fingerprint="0123456789abcdef" * 4,
        warnings=list(warnings),
        time=Timing(image_features=8.2, training=41.5, total=187.0, device="cpu", threads=2),
        environment=Environment(
            dspt="0.1.0",
            torch=torch,
            open_clip="3.2.0",
            python="3.11.2",
            platform="Linux x86_64",
            processor_count=2,
        ),
    )


def suspects_of(
    result: RunResult, seed: int = 3, refuse: float = 0.85, ids: str = "train/{}.png"
) -> list[Suspect]:
    """Every training sample of a made-up run, the most suspicious first."""
    rng = random.Random(seed)
    classes = len(result.data.class_names)
    wrong = result.noise.n_wrong or 0
    samples = []
    for index in range(result.data.n_train):
        true = index % classes
        flipped = index < wrong
        given = (true + rng.randrange(1, classes)) % classes if flipped else true
        contradict = rng.random() < (refuse if flipped else 0.2)
        proposed = given
        if contradict:
            proposed = (
                true
                if flipped and rng.random() < 0.7
                else (given + rng.randrange(1, classes)) % classes
            )
        p_given = rng.uniform(0.0, 0.3) if contradict else rng.uniform(0.5, 0.99)
        samples.append(
            Suspect(
                id=ids.format(f"{result.data.class_names[true]}-{index}"),
                given=given,
                proposed=proposed,
                zero_shot=true if rng.random() < 0.7 else (true + 1) % classes,
                true=true if result.noise.true_labels_known else None,
                probability_given=p_given,
                probability_proposed=1 - p_given if contradict else p_given,
                suppression=1 - p_given if contradict else 0.2 * (1 - p_given),
            )
        )
    return sorted(samples, key=lambda s: -s.suppression)


def audit_page(
    class_names: Sequence[str] = CIFAR,
    n: int = 120,
    truth: bool = True,
    keys: str = "photos/{}.png",
    **values: Any,
) -> AuditPage:
    """An audit in which every suspect is accused; scores fall from 1 to 0."""
    rng = random.Random(5)
    classes = len(class_names)
    suspects = []
    for place in range(n):
        given, true = rng.sample(range(classes), 2)
        if rng.random() < 0.25:
            true = given
        proposed = true if true != given and rng.random() < 0.8 else (given + 1) % classes
        suspects.append(
            AuditSuspect(
                key=keys.format(place),
                given=given,
                proposed=proposed,
                score=1 - place / n,
                confidence=rng.uniform(0.4, 1),
                true=true if truth else None,
                evidence={"Suppression": 1 - place / n, "Margin": rng.random(), "Zero-shot": 0.0},
            )
        )
    rest = 0.25 / (classes - 1)
    transition = [[0.75 if t == g else rest for g in range(classes)] for t in range(classes)]
    transition[0][0], transition[0][1] = 0.4, 0.35 + rest
    quality = {
        "Combined": {"AUROC": 0.953, "Average precision": 0.91, "Precision at the true rate": 0.87},
        "Margin": {"AUROC": 0.941, "Average precision": 0.89},
    }
    return AuditPage(
        **{
            "title": "birds",
            "class_names": class_names,
            "n": 4 * n,
            "suspects": suspects,
            "facts": [("Folds", "5"), ("Backbone", "dspt-mini-160")],
            "noise_rate": 0.241,
            "noise_interval": (0.22, 0.263),
            "transition": transition,
            "quality": quality if truth else {},
            "notes": ["Every score is out of fold."],
            **values,
        }
    )


# Test accuracy by method and rate, the means of a small trial: DSPT wins, ties and loses.
GRID = {
    "ce": {0.0: 0.575, 0.25: 0.531, 0.5: 0.494, 0.75: 0.408},
    "gce": {0.0: 0.559, 0.25: 0.546, 0.5: 0.517, 0.75: 0.477},
    "mae": {0.0: 0.548, 0.25: 0.542, 0.5: 0.514, 0.75: 0.447},
    "dspt": {0.0: 0.552, 0.25: 0.543, 0.5: 0.525, 0.75: 0.483},
}


def sweep(
    kinds: Sequence[str] = ("symmetric",), seeds: int = 3, shift: float = 0.0, spread: float = 0.012
) -> list[RunResult]:
    results = []
    for kind in kinds:
        for method, row in GRID.items():
            for rate, accuracy in row.items():
                if rate == 0 and kind != kinds[0]:
                    continue
                for seed in range(1, seeds + 1):
                    drop = rate * 0.15 if kind == "asymmetric" else 0.0
                    final = accuracy - drop + spread * (seed - (seeds + 1) / 2) * (1 + rate)
                    final += shift if method == "dspt" else 0.0
                    results.append(
                        run_result(
                            method=method,
                            method_options={"q": 0.7} if method == "gce" else {},
                            noise=f"{kind}:{rate}" if rate else "none",
                            seed=seed,
                            final=final,
                            zero_shot=0.507,
                            n_test=2000,
                            clean_gradient=0.55 if method == "ce" else 0.08,
                            wrong_gradient=1.15 if method == "ce" else 0.05,
                        )
                    )
    return results


@lru_cache(maxsize=256)
def picture(seed: int, size: int = 112) -> bytes:
    """A small JPEG, different for every seed."""
    from PIL import Image, ImageDraw

    rng = random.Random(seed)
    shade = [tuple(rng.randrange(40, 230) for _ in range(3)) for _ in range(3)]
    image = Image.linear_gradient("L").resize((size, size)).rotate(rng.randrange(360))
    image = Image.composite(
        Image.new("RGB", (size, size), shade[0]), Image.new("RGB", (size, size), shade[1]), image
    )
    draw = ImageDraw.Draw(image)
    x, y = rng.randrange(15, 50), rng.randrange(15, 50)
    draw.ellipse((x, y, x + 50, y + 45), fill=shade[2])
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


def thumbnail(key: str) -> bytes | None:
    return None if "missing" in key else picture(sum(map(ord, key)) % 200)
