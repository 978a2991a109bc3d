"""Checks of options that several losses share."""

from __future__ import annotations

import math


def check_weights(**weights: float) -> None:
    """Weights of the terms of a loss: finite, not negative, and not all 0.

    Raises:
        ValueError: naming the option and its value.
    """
    for name, value in weights.items():
        if not 0.0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number >= 0, not {value}")
    if not any(weights.values()):
        raise ValueError(f"{' and '.join(weights)} must not all be 0: nothing would be left")
