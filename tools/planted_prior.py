"""Can wrong labels ruin a good prior? ``auto`` on planted clusters, 75 % of their labels wrong.

    python tools/planted_prior.py

It runs on any version of the package: ``PYTHONPATH=CLONE/src python tools/planted_prior.py``.
"""

from __future__ import annotations

import numpy as np

from dspt.correction import correct

SEEDS = (11, 12, 13)


def gaussian(
    n: int,
    classes: int,
    rate: float,
    seed: int,
    prior: float = 0.8,
    kind: str = "symmetric",
    width: int = 24,
    spread: float = 1.5,
    scale: float = 12,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Clusters on the sphere, zero-shot directions that miss them by some angle, wrong labels.

    Returns:
        Features [n, width], true labels [n], given labels [n], zero-shot logits [n, classes].
    """
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((classes, width))
    true = np.arange(n) % classes
    x = centres[true] + spread * generator.standard_normal((n, width))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    named = prior * centres + (1 - prior) * 2 * generator.standard_normal((classes, width))
    named /= np.linalg.norm(named, axis=1, keepdims=True)
    given = true.copy()
    wrong = generator.permutation(n)[: round(rate * n)]
    step = 1 if kind == "next" else generator.integers(1, classes, len(wrong))
    given[wrong] = (true[wrong] + step) % classes
    return x, true, given, scale * x @ named.T


def main() -> None:
    for seed in SEEDS:
        x, true, given, anchor = gaussian(400, 8, 0.75, seed=seed, spread=1.2)
        found = correct(x, given, anchor, seed=1)
        untrained = (anchor.argmax(axis=1) == true).mean()
        if hasattr(found, "classifier"):
            logits = found.classifier.logits(x, anchor)
        else:  # of an older version
            logits = anchor + x @ found.change
        trained = (logits.argmax(axis=1) == true).mean()
        print(
            f"seed {seed}: zero-shot {untrained:.1%}, auto {trained:.1%}, "
            f"estimated share of wrong labels {found.noise_rate:.1%}"
        )


if __name__ == "__main__":
    main()
