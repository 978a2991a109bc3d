"""The losses as the papers print them, in decimal arithmetic of 150 digits.

With so many digits neither a difference of nearly equal numbers nor a tiny step costs anything that
could be seen in float64, so slopes of these values are gradients to be trusted at any confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext

DIGITS = 150
STEP = Decimal(10) ** -40


def value(
    name: str, logits: Sequence[Decimal], label: int, options: Mapping[str, float]
) -> Decimal:
    """The loss of one sample."""
    exps = [z.exp() for z in logits]
    p = [e / sum(exps) for e in exps]
    if name == "dspt":
        return -(p[label].exp() / sum(x.exp() for x in p)).ln()
    if name == "mae":
        return sum(abs(x - (k == label)) for k, x in enumerate(p))
    if name == "gce":
        q = Decimal(options.get("q", 0.7))
        return (1 - p[label] ** q) / q
    ce = -p[label].ln()
    if name == "ce":
        return ce
    if name == "label-smoothing":
        s = Decimal(options.get("smoothing", 0.1))
        return -sum(((1 - s) * (k == label) + s / len(p)) * x.ln() for k, x in enumerate(p))
    if name == "phuber-ce":
        tau = Decimal(options.get("tau", 10.0))
        return ce if p[label] > 1 / tau else -tau * p[label] + tau.ln() + 1
    reverse = -sum(
        x * Decimal(options.get("log_zero", -4.0)) for k, x in enumerate(p) if k != label
    )
    if name == "sce":
        return Decimal(options.get("alpha", 0.1)) * ce + Decimal(options.get("beta", 1.0)) * reverse
    assert name == "nce+rce"
    normalised = ce / -sum(x.ln() for x in p)
    return (
        Decimal(options.get("alpha", 1.0)) * normalised
        + Decimal(options.get("beta", 1.0)) * reverse
    )


def value_and_gradient(
    name: str, logits: Sequence[float], label: int, options: Mapping[str, float]
) -> tuple[float, list[float]]:
    """The loss of one sample and its gradient by the logits, by central differences."""
    with localcontext() as context:
        context.prec = DIGITS
        z = [Decimal(x) for x in logits]
        slopes = []
        for k in range(len(z)):
            ahead, behind = (
                value(name, [x + side * STEP * (j == k) for j, x in enumerate(z)], label, options)
                for side in (1, -1)
            )
            slopes.append(float((ahead - behind) / (2 * STEP)))
        at = float(value(name, z, label, options))
    assert all(map(math.isfinite, slopes))
    return at, slopes
