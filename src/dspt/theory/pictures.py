"""The theory drawn from the formulas; each picture is a :class:`dspt.report.figures.Drawing`.

Only palette colours are used, shades by opacity, so that a page can repaint them in dark mode.

The theorems are about four losses, ``LOSSES``, which every picture shows; the others, ``RIVALS``,
have panels of their own in the first picture, beside DSPT, so that no panel holds more than five
lines.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dspt.report.figures import NARROW, WIDE, Canvas, Drawing, plot_line
from dspt.report.palette import Mark, assign_marks, method_label
from dspt.theory import bounds, closed_forms

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LOSSES = ("ce", "gce", "mae", "dspt")
RIVALS = ("label-smoothing", "sce", "nce+rce", "phuber-ce")
CLASSES = (2, 10, 100, 1000)
SCALES = (10, 30, 100)
BELOW = 0.15
"""In the picture of ratios all further classes lie this far, in cosine, below the better one."""

_BY_CLASSES = (
    Mark("vermilion", "s", (6, 2)),
    Mark("purple", "D", (7, 2, 1.6, 2)),
    Mark("green", "^", (2, 1.6)),
    Mark("blue", "o"),
)


def _plot(canvas: Canvas, axes: Axes, x: Any, y: Any, mark: Mark, **more: Any) -> None:
    plot_line(canvas, axes, x, y, mark, **{"linewidth": 2.2, **more})


def _frame(axes: Axes, title: str, x: str, grid: Any = "y") -> None:
    axes.set_title(title, fontsize=12.5)
    axes.set_xlabel(x)
    axes.grid(axis=grid, linewidth=1)
    axes.spines["left"].set_visible(False)


def _legend(canvas: Canvas, axes: Axes, **where: Any) -> None:
    axes.legend(
        frameon=False,
        labelcolor=canvas.colour("ink"),
        handlelength=2.6,
        borderaxespad=0.3,
        labelspacing=0.35,
        fontsize=12,
        **where,
    )


def _panels(canvas: Canvas, count: int, **more: Any) -> Sequence[Axes]:
    """Panels in reading order: below each other if narrow, else side by side, four as 2 x 2."""
    shape = (count, 1) if canvas.narrow else (2, 2) if count == 4 else (1, count)
    engine = canvas.figure.get_layout_engine()
    if engine is not None:
        engine.set(wspace=0.05)  # type: ignore[call-arg]
    return list(canvas.figure.subplots(*shape, squeeze=False, **more).flat)


def _curves(
    canvas: Canvas, axes: Sequence[Axes], losses: Sequence[str], p: Array, logits: Any
) -> None:
    """Value in the first of the axes, gradient norm in the second, against ``p_y``."""
    import torch

    target = torch.zeros(len(p), dtype=torch.long)
    marks = assign_marks((loss, loss) for loss in (*LOSSES, *RIVALS))
    for panel, function in zip(axes, (closed_forms.value, closed_forms.gradient_norm), strict=True):
        panel.axvspan(0, 0.15, color=canvas.colour("zone"), linewidth=0, zorder=0)
        panel.set_xlim(0, 1)
        for loss in losses:
            _plot(
                canvas,
                panel,
                p,
                function(loss, logits, target).numpy(),
                marks[loss],
                label=method_label(loss),
                linewidth=2.9 if loss == "dspt" else 2.1,
                markevery=(12 + 5 * losses.index(loss), 34),
            )


def loss_and_gradient(classes: int = 10) -> Drawing:
    """Value and gradient norm of every loss against ``p_y``, one rival having the rest.

    Above the losses of the theorems, below the others, all with their default options. Below, a
    hundredth of the rest is spread over the other classes: label smoothing and NCE ask for them.
    """

    def draw(canvas: Canvas) -> None:
        import numpy as np

        panels = _panels(canvas, 4)
        whole = np.linspace(0.0, 1.0, 201)
        inside = np.linspace(0.001, 0.999, 201)
        _curves(canvas, panels[:2], LOSSES, whole, closed_forms.rival_logits(whole, classes))
        _curves(
            canvas,
            panels[2:],
            (*RIVALS, "dspt"),
            inside,
            closed_forms.nearly_rival_logits(inside, classes),
        )
        for axes, title, top in zip(
            panels,
            ("Loss", "Gradient norm by the logits", "Loss: further rivals",
             "Gradient norm: further rivals"),
            (4, 1.5, 5.5, 1.8),
            strict=True,
        ):  # fmt: skip
            _frame(axes, title, "Probability of the given label")
            axes.set_ylim(0, top)
        for axes in (panels[0 if canvas.narrow else 1], panels[2]):
            _legend(canvas, axes, loc="upper right")

    return Drawing(
        name="loss-and-gradient",
        label=f"Loss and gradient norm against the probability of the given label, {classes} "
        "classes. Cross-entropy is unbounded and pulls hardest at 0; DSPT, MAE and GCE are bounded "
        "and their gradient returns to 0 there. Of the further rivals, label smoothing pulls like "
        "cross-entropy and pushes a learned label back; SCE and NCE + RCE are nearly MAE, twice as "
        "large; PHuber-CE is cross-entropy down to 0.1, and below falls to 0.",
        wide=(WIDE, 640),
        narrow=(NARROW, 1160),
        draw=draw,
    )


_ZONE = 0.1  # of the peak: below it, a sample counts as saturated
_LEVELS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0001)


def _shades(canvas: Canvas) -> list[tuple[float, float, float, float]]:
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(canvas.colour("blue"))
    steps = len(_LEVELS) - 2
    return [(red, green, blue, round(0.92 * i / steps, 3)) for i in range(steps + 1)]


def _simplex(steps: int) -> tuple[Array, list[tuple[int, int, int]]]:
    """Points of the simplex of three classes, [n, 3], denser towards its edges, and triangles."""
    import numpy as np

    rows = [(i, j) for i in range(steps + 1) for j in range(steps + 1 - i)]
    place = {row: number for number, row in enumerate(rows)}
    triangles = []
    for i, j in rows:
        if i + j < steps:
            triangles.append((place[i, j], place[i + 1, j], place[i, j + 1]))
        if i + j < steps - 1:
            triangles.append((place[i + 1, j], place[i + 1, j + 1], place[i, j + 1]))
    even = np.array([(i, steps - i - j, j) for i, j in rows]) / steps
    dense = even**2 * (3 - 2 * even)
    points: Array = dense / dense.sum(1, keepdims=True)
    return points, triangles


def _share_of_peak(points: Array, loss: str) -> Array:
    """Gradient norm for the label 0 at probabilities [n, C], divided by the greatest of them."""
    import numpy as np
    import torch

    with np.errstate(divide="ignore"):
        logits = torch.from_numpy(np.log(points))
    target = torch.zeros(len(points), dtype=torch.long)
    norms: Array = closed_forms.gradient_norm(loss, logits, target).numpy()
    return norms / norms.max()


def _key(canvas: Canvas, axes: Axes) -> None:
    for (low, high), shade in zip(itertools.pairwise(_LEVELS), _shades(canvas), strict=True):
        axes.axvspan(low, min(high, 1.0), color=shade, linewidth=0)
    axes.plot([0, 1, 1, 0, 0], [0, 0, 1, 1, 0], color=canvas.colour("muted"), linewidth=1)
    axes.axvline(_ZONE, color=canvas.colour("ink"), linewidth=1.6)
    axes.set_xlim(-0.002, 1.002)
    axes.set_ylim(-0.04, 1.04)
    axes.set_yticks([])
    axes.set_xticks([0, _ZONE, 0.5, 1], ["0", "10 %", "50 %", "100 %"])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_title(
        "Gradient norm as a share of its peak",
        fontsize=12,
        fontweight="normal",
        color=canvas.colour("muted"),
    )


def saturation_three() -> Drawing:
    """Gradient norm over the probabilities of three classes, as a share of each loss's peak."""

    def triangle(canvas: Canvas, axes: Axes, loss: str) -> None:
        from matplotlib.tri import Triangulation

        points, triangles = _simplex(44)
        height = math.sqrt(3) / 2
        mesh = Triangulation(points[:, 2] + points[:, 0] / 2, points[:, 0] * height, triangles)
        share = _share_of_peak(points, loss)
        axes.tricontourf(mesh, share, levels=_LEVELS, colors=_shades(canvas))
        axes.tricontour(mesh, share, levels=[_ZONE], colors=[canvas.colour("ink")], linewidths=1.6)
        axes.plot([0, 1, 0.5, 0], [0, 0, height, 0], color=canvas.colour("muted"), linewidth=1)
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.set_xlim(-0.05, 1.05)
        axes.set_ylim(-0.17 if canvas.narrow else -0.1, height + 0.14)
        text: dict[str, Any] = {"color": canvas.colour("muted"), "fontsize": 11.5}
        axes.text(0.5, height + 0.03, "given label", ha="center", **text)
        axes.text(-0.04, -0.03, "class A", va="top", **text)
        axes.text(1.04, -0.03, "class B", ha="right", va="top", **text)
        axes.set_title(method_label(loss), loc="center", pad=4)

    def draw(canvas: Canvas) -> None:
        ratios = [1, 1, 0.06 if not canvas.narrow else 0.1]
        grid = canvas.figure.add_gridspec(3, 2, height_ratios=ratios)
        for place, loss in enumerate(LOSSES):
            triangle(canvas, canvas.figure.add_subplot(grid[place // 2, place % 2]), loss)
        _key(canvas, canvas.figure.add_subplot(grid[2, :]))

    return Drawing(
        name="saturation-three-classes",
        label="Gradient norm over the probabilities of three classes, as triangles with the given "
        "label at the top. Cross-entropy is weak only near the top. GCE and MAE are weak near the "
        "top and along the whole opposite side; DSPT near the top, near the two other corners and "
        "near the middle of the opposite side.",
        wide=(WIDE, 740),
        narrow=(NARROW, 430),
        draw=draw,
    )


def saturation_two() -> Drawing:
    """The same for two classes, where the simplex is a line."""

    def draw(canvas: Canvas) -> None:
        import numpy as np

        grid = canvas.figure.add_gridspec(2, 1, height_ratios=[1, 0.13])
        axes = canvas.figure.add_subplot(grid[0])
        p = np.linspace(0, 1, 501)
        for row, loss in enumerate(reversed(LOSSES)):
            low, high = row + 0.14, row + 0.86
            share = _share_of_peak(np.stack([p, 1 - p], axis=1), loss)
            band = np.digitize(share, _LEVELS) - 1
            ends = np.flatnonzero(np.diff(band))
            starts = np.concatenate([[0.0], (p[ends] + p[ends + 1]) / 2])
            widths = np.diff(np.append(starts, 1.0))
            shades = _shades(canvas)
            for start, width, place in zip(starts, widths, [*ends, -1], strict=True):
                axes.barh(row + 0.5, width, high - low, start, color=shades[band[place]],
                          linewidth=0)  # fmt: skip
            for place in np.flatnonzero(np.diff(share < _ZONE)):
                axes.plot([p[place]] * 2, [low, high], color=canvas.colour("ink"),
                          linewidth=1.6, solid_capstyle="butt")  # fmt: skip
            axes.plot([0, 1, 1, 0, 0], [low, low, high, high, low],
                      color=canvas.colour("muted"), linewidth=1)  # fmt: skip
        axes.set_xlim(-0.002, 1.002)
        axes.set_ylim(0, len(LOSSES))
        names = [method_label(loss) for loss in reversed(LOSSES)]
        axes.set_yticks([row + 0.5 for row in range(len(LOSSES))], names)
        axes.tick_params(axis="y", labelcolor=canvas.colour("ink"))
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.set_xlabel("Probability of the given label")
        _key(canvas, canvas.figure.add_subplot(grid[1]))

    return Drawing(
        name="saturation-two-classes",
        label="Gradient norm over the probabilities of two classes, as strips. Cross-entropy grows "
        "towards 0; GCE, MAE and DSPT are weak at both ends.",
        wide=(WIDE, 330),
        narrow=(NARROW, 330),
        draw=draw,
    )


def ratio_logits(gaps: Array, classes: int, scale: float) -> Any:
    """Logits of the picture of ratios: label, rival ``gap`` above it in cosine, the rest below.

    Args:
        gaps: cosine of the rival minus that of the label, class 0; [n].
        classes: C >= 2; the other C - 2 lie ``BELOW`` under the better of the two.
        scale: what cosines are multiplied by.

    Returns:
        Logits, [n, C], float64.
    """
    import torch

    rival = torch.from_numpy(gaps)
    cosines = (rival.clamp(min=0) - BELOW)[:, None].repeat(1, classes)
    cosines[:, 0] = 0.0
    cosines[:, 1] = rival
    return scale * cosines


def suppression_by_error() -> Drawing:
    """DSPT's suppression ratio against how wrong the label looks, by C and by logit scale."""

    def draw(canvas: Canvas) -> None:
        import numpy as np
        import torch

        gaps = np.linspace(-0.3, 0.3, 121)
        target = torch.zeros(len(gaps), dtype=torch.long)
        panels = _panels(canvas, len(SCALES), sharey=True)
        for axes, scale in zip(panels, SCALES, strict=True):
            axes.axvspan(0, 0.3, color=canvas.colour("zone"), linewidth=0, zorder=0)
            for classes, mark in zip(CLASSES, _BY_CLASSES, strict=True):
                ratio = closed_forms.suppression_ratio(
                    "dspt", ratio_logits(gaps, classes, scale), target
                )
                _plot(
                    canvas, axes, gaps, ratio.numpy(), mark, label=f"C = {classes:,}",
                    markevery=(10, 25), markersize=6,
                )  # fmt: skip
            _frame(axes, f"Logit scale {scale}", "Rival's cosine − label's")
            axes.set_yscale("log")
            axes.set_ylim(1e-7, 2)
            axes.set_xlim(-0.3, 0.3)
            axes.set_xticks([-0.2, 0, 0.2], ["−0.2", "0", "0.2"])
            powers = (0, -2, -4, -6)
            names = ("100 %", "1 %", "0.01 %", "0.0001 %")
            axes.set_yticks([10.0**k for k in powers], names)
            axes.minorticks_off()
            axes.tick_params(labelleft=canvas.narrow or axes is panels[0])
        _legend(canvas, panels[-1 if canvas.narrow else 0], loc="lower left")

    return Drawing(
        name="suppression-ratio",
        label="Gradient norm of DSPT divided by that of cross-entropy, against the cosine by which "
        "a rival class leads the given label, for 2 to 1,000 classes and logit scales 10, 30 and "
        "100. The larger the scale, the sharper the fall where the label is contradicted.",
        wide=(WIDE, 330),
        narrow=(NARROW, 860),
        draw=draw,
    )


def dspt_against_mae() -> Drawing:
    """How DSPT nears MAE as C grows, and what symmetric noise can cost each loss."""

    def draw(canvas: Canvas) -> None:
        import numpy as np

        counts = np.unique(np.geomspace(2, 10_000, 60).astype(int))
        marks = assign_marks((loss, loss) for loss in LOSSES)
        left, right = _panels(canvas, 2)
        tilt = [bounds.tilt(int(c)) for c in counts]
        width = [bounds.label_free_range(int(c)) for c in counts]
        _plot(canvas, left, counts, bounds.LIMIT / counts, Mark("reference", "", (2, 2)),
              label="0.718 / C", linewidth=1.6)  # fmt: skip
        _plot(canvas, left, counts, tilt, Mark("amber", "v", (4, 1.6)),
              label="pull on the label", markevery=(6, 14))  # fmt: skip
        _plot(canvas, left, counts, width, marks["dspt"],
              label="label-free term", markevery=(3, 14))  # fmt: skip
        _frame(left, "DSPT's distance from MAE / 2", "Number of classes", "both")
        for loss in ("gce", "dspt"):
            kept = [int(c) for c in counts if c > 2]
            bound = []
            for classes in kept:
                low, high = bounds.loss_range(loss, classes)
                bound.append(bounds.excess_risk_bound(loss, 0.5, classes) / (high - low))
            _plot(canvas, right, kept, bound, marks[loss], label=method_label(loss),
                  markevery=(3, 14))  # fmt: skip
        _frame(right, "Risk that 50 % noise can add", "Number of classes", "both")
        right.text(0.04, 0.05, "MAE: none. Cross-entropy: no bound.", color=canvas.colour("muted"),
                   fontsize=11.5, transform=right.transAxes)  # fmt: skip
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks([2, 10, 100, 1000, 10_000], ["2", "10", "100", "1,000", "10,000"])
            axes.set_xlim(1.8, 11_000)
            axes.set_ylim(3e-5, 3)
            axes.set_yticks(
                [1.0, 0.1, 0.01, 0.001, 0.0001], ["1", "0.1", "0.01", "0.001", "0.0001"]
            )
            axes.minorticks_off()
            _legend(canvas, axes, loc="upper right" if axes is left else (0.42, 0.68))

    return Drawing(
        name="dspt-and-mae",
        label="Left: the range of DSPT's label-free term and the tilt of its pull against the "
        "number of classes; both fall as 1 / C. Right: the bound on the risk that 50 % symmetric "
        "noise can add, as a share of each loss's range, for GCE and DSPT.",
        wide=(WIDE, 330),
        narrow=(NARROW, 600),
        draw=draw,
    )


def all_pictures() -> list[Drawing]:
    """Every picture, in the order of the page."""
    return [
        loss_and_gradient(),
        saturation_three(),
        saturation_two(),
        suppression_by_error(),
        dspt_against_mae(),
    ]
