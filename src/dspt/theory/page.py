"""The page ``dspt theory`` writes: every picture, what it shows, and the numbers beside it."""

from __future__ import annotations

import math

from dspt.report.page import render_page
from dspt.report.palette import method_label
from dspt.theory import bounds, pictures


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if math.isinf(value):
        return "∞"
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(value)))  # three digits that count
    return f"{value:.{places}f}".rstrip("0").rstrip(".")


def limits_table(classes: int) -> list[tuple[str, list[str]]]:
    """One row a loss: range, greatest gradient norm, ratio where learned, window of label sums."""
    rows = []
    for loss in reversed(pictures.LOSSES):
        low, high = bounds.loss_range(loss, classes)
        at_most = "≤ " if loss == "dspt" else ""
        cells = [
            _number(high - low),
            at_most + _number(bounds.gradient_norm_bound(loss, classes)),
            _number(bounds.learned_ratio(loss, classes)),
            _number(bounds.label_sum_width(loss, classes)),
        ]
        rows.append((method_label(loss), cells))
    return rows


def classes_table() -> list[tuple[str, list[str]]]:
    """One row a number of classes: what sets DSPT apart from MAE, and what noise can add."""
    rows = []
    for classes in (2, 10, 100, 1000):
        noise = [
            _number(bounds.excess_risk_bound("dspt", rate, classes))
            if rate < (classes - 1) / classes
            else "–"
            for rate in (0.25, 0.5, 0.75)
        ]
        delta = bounds.tilt(classes)
        cells = [
            _number(bounds.label_free_range(classes)),
            f"{1 - delta:.3f} to {1 + delta:.3f}",
            f"{bounds.peak(classes)[0]:.4f}",
            *noise,
        ]
        rows.append((f"{classes:,}", cells))
    return rows


def render_theory() -> str:
    """The page as HTML, complete in one file."""
    return render_page(
        "theory.html",
        title="What double softmax does to a label",
        curves=pictures.loss_and_gradient(),
        three=pictures.saturation_three(),
        two=pictures.saturation_two(),
        ratios=pictures.suppression_by_error(),
        mae=pictures.dspt_against_mae(),
        limits=limits_table(10),
        by_classes=classes_table(),
    )
