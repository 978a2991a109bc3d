"""Points to look for counterexamples at: the inside, the edges and the corners of the simplex."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

SEEDS = st.integers(0, 2**32 - 1)
CLASSES = st.one_of(st.integers(2, 6), st.integers(7, 400))
LOSSES = [("ce", {}), ("mae", {}), ("gce", {}), ("gce", {"q": 0.5}), ("dspt", {})]


def points(seed: int, classes: int, n: int = 64) -> tuple[Tensor, Tensor]:
    """Logits [n, C] in float64 of every temper, and labels [n].

    A third of the rows has a few leading classes, the label among them or not; some logits are
    minus infinity, so that faces of the simplex are met too.
    """
    rng = np.random.default_rng(seed)
    spread = 10.0 ** rng.uniform(-1.5, 2.0, (n, 1))
    z = rng.standard_normal((n, classes)) * spread
    y = rng.integers(0, classes, n)
    for row in range(0, n, 3):
        lead = rng.integers(1, min(classes, 4) + 1)
        z[row, rng.choice(classes, lead, replace=False)] += rng.uniform(0, 60, lead)
    for row in range(1, n, 3):
        away = rng.random(classes) < 0.5
        away[rng.integers(0, classes)] = False
        z[row, away] = -np.inf
        z[row] += np.where(np.arange(classes) == y[row], rng.uniform(-5, 20), 0.0)
    return torch.from_numpy(z), torch.from_numpy(y)


def of(p: Tensor, y: Tensor) -> Tensor:
    """``p_y``, [n]."""
    return p.gather(1, y[:, None])[:, 0]
