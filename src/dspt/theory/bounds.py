"""The constants of the theorems in ``docs/theory.md``, as functions of the number of classes.

Standard library only. Notation: ``C`` classes, ``p`` in the simplex, label ``y``, rate of wrong
labels ``eta``; ``h(p) = log sum_j exp(p_j) - 1`` is DSPT's label-free term.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from dspt.errors import UserError

Options = Mapping[str, float]

LIMIT = math.e - 2
"""``C * label_free_range(C)`` rises with C towards this number, 0.718, and never reaches it."""


def _check(classes: int) -> int:
    if classes < 2:
        raise UserError(f"classes: {classes} is too few; a loss over classes needs at least two")
    return classes


def _power(options: Options | None) -> float:
    q = (options or {}).get("q", 0.7)
    if not 0.0 < q <= 1.0:
        raise UserError(f"loss_options: q must be in (0, 1], not {q}")
    return q


def _unknown(loss: str) -> UserError:
    return UserError(f"loss: nothing is proven here about {loss!r}; choose from ce, mae, gce, dspt")


def loss_range(loss: str, classes: int, options: Options | None = None) -> tuple[float, float]:
    """Infimum and supremum of a loss (theorem 1 for DSPT; infinity for cross-entropy)."""
    _check(classes)
    if loss == "ce":
        return 0.0, math.inf
    if loss == "mae":
        return 0.0, 2.0
    if loss == "gce":
        return 0.0, 1.0 / _power(options)
    if loss == "dspt":
        top = math.log(math.e + classes - 1)
        return top - 1.0, top
    raise _unknown(loss)


def label_free_limits(classes: int) -> tuple[float, float]:
    """Least and greatest ``h(p)``: at the uniform and at a one-hot ``p`` (theorem 2)."""
    _check(classes)
    return math.log(classes) + 1 / classes - 1, math.log(math.e + classes - 1) - 1


def label_free_range(classes: int) -> float:
    """``W(C) = log(1 + (e - 1) / C) - 1 / C < (e - 2) / C``: by how much ``h`` can vary."""
    return math.log1p((math.e - 1) / _check(classes)) - 1 / classes


def tilt(classes: int) -> float:
    """``delta(C) = (e - 1) / (e + C - 1)``: the most two entries of ``softmax(p)`` can differ by.

    The pull of DSPT on the label's own logit is that of MAE / 2 times a factor in
    ``[1 - delta, 1 + delta]`` (theorem 3).
    """
    return (math.e - 1) / (math.e + _check(classes) - 1)


def gradient_norm_bound(loss: str, classes: int, options: Options | None = None) -> float:
    """A number that no gradient norm by the logits exceeds (theorem 3).

    The least such number for ce, mae and gce; for dspt at most ``1 + delta(C)`` times the least.
    """
    _check(classes)
    if loss == "ce":
        return math.sqrt(2)
    if loss == "mae":
        return math.sqrt(2) / 2
    if loss == "gce":
        q = _power(options)
        return math.sqrt(2) * q**q / (1 + q) ** (1 + q)
    if loss == "dspt":
        return math.sqrt(2) / 4 * (1 + tilt(classes))
    raise _unknown(loss)


def learned_ratio(loss: str, classes: int) -> float:
    """Limit of the suppression ratio as ``p_y -> 1``, however the rest is spread (theorem 4)."""
    _check(classes)
    if loss in ("ce", "gce"):
        return 1.0
    if loss == "mae":
        return 2.0
    if loss == "dspt":
        return classes / (math.e + classes - 1)
    raise _unknown(loss)


def peak(classes: int) -> tuple[float, float]:
    """Where DSPT pulls most when one rival has all the rest: ``p_y``, and the norm there.

    Below 1/2 for every C, nearing it as ``1/2 - sqrt(e) / (4 C)`` (theorem 5).
    """
    _check(classes)

    def slope(t: float) -> float:  # of log(t (1 - t) (1 - g(t)))
        a, b = math.exp(t), math.exp(1 - t)
        total = a + b + classes - 2
        g = (a - b) / total
        dg = (a + b - g * (a - b)) / total
        return (1 - 2 * t) / (t * (1 - t)) - dg / (1 - g)

    low, high = 0.25, 0.5  # positive at the one, negative at the other
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return low, rival_norm(low, classes)


def rival_norm(p_given: float, classes: int) -> float:
    """DSPT's gradient norm where the label has ``p_given`` and one rival the rest."""
    a, b = math.exp(p_given), math.exp(1 - p_given)
    g = (a - b) / (a + b + _check(classes) - 2)
    return math.sqrt(2) * p_given * (1 - p_given) * (1 - g)


def saturation_bound(margin: float) -> float:
    """DSPT's gradient norm is below this if a class other than the label leads all by ``margin``.

    ``sqrt(2) exp(1 - margin)``, for every C (theorem 6). The margin is one of logits: logit scale
    times cosines.
    """
    return math.sqrt(2) * math.exp(1 - margin)


def label_sum_width(loss: str, classes: int, options: Options | None = None) -> float:
    """By how much the sum of a loss over all labels can vary over ``p``; 0 is symmetry (theorem 7).

    0 for mae, ``C W(C) < e - 2`` for dspt, ``(C^(1 - q) - 1) / q`` for gce, infinity for ce.
    """
    _check(classes)
    if loss == "ce":
        return math.inf
    if loss == "mae":
        return 0.0
    if loss == "gce":
        q = _power(options)
        return (classes ** (1 - q) - 1) / q
    if loss == "dspt":
        return classes * label_free_range(classes)
    raise _unknown(loss)


def excess_risk_bound(
    loss: str, rate: float, classes: int, options: Options | None = None
) -> float:
    """What symmetric noise can cost: clean risk of the noisy minimiser over the least (theorem 8).

    Args:
        loss: ce, mae, gce or dspt.
        rate: share of wrong labels, each class other than the true one alike, in [0, (C-1)/C).
        classes: C >= 2.
        options: the loss's own.

    Returns:
        ``rate * label_sum_width / (C - 1 - rate C)``; 0 for mae or without noise.

    Raises:
        UserError: for a rate outside [0, (C-1)/C), where labels say nothing or mislead.
    """
    width = label_sum_width(loss, classes, options)
    if not 0.0 <= rate < (classes - 1) / classes:
        raise UserError(
            f"rate: {rate:g} is outside [0, {(classes - 1) / classes:g}); with {classes} classes "
            "labels at or above that rate say nothing about the truth"
        )
    return 0.0 if rate == 0 else rate * width / (classes - 1 - rate * classes)
