"""The reliability diagram: how often a model is right, by how sure it is."""

from __future__ import annotations

from collections.abc import Sequence

from dspt.report.figures import NARROW, WIDE, Canvas, Drawing
from dspt.report.wording import share
from dspt.result import Evaluation

_STYLES = (("blue", "o"), ("reference", "D"))


def reliability(rows: Sequence[tuple[str, Evaluation]]) -> Drawing | None:
    """Accuracy against mean confidence in bins of confidence; large marks are large bins.

    Args:
        rows: (name, evaluation), at most two, what was trained first.

    Returns:
        None when no evaluation knows its bins.
    """
    known = [(name, e.n, e.calibration_bins) for name, e in rows if e.calibration_bins]
    if not known:
        return None

    def draw(canvas: Canvas) -> None:
        from matplotlib.ticker import FuncFormatter

        axes = canvas.figure.subplots()
        axes.plot([0, 100], [0, 100], color=canvas.colour("muted"), linewidth=1, zorder=1)
        for (name, n, bins), (colour, marker) in zip(known, _STYLES, strict=False):
            sure = [100 * confidence for _, confidence, _ in bins]
            right = [100 * accuracy for _, _, accuracy in bins]
            paint = canvas.colour(colour)
            axes.plot(sure, right, color=paint, linewidth=1.4, zorder=2)
            axes.scatter(
                sure,
                right,
                s=[16 + 260 * size / n for size, _, _ in bins],
                marker=marker,
                color=paint,
                edgecolors=canvas.colour("card"),
                linewidths=1,
                zorder=3,
            )
            axes.plot([], [], color=paint, marker=marker, linewidth=1.4, label=name)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(range(0, 101, 25))
            axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}\u00a0%"))
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)
        axes.grid(linewidth=1)
        axes.set_xlabel("Mean confidence of the bin")
        axes.set_title("Accuracy of the bin", fontsize=12, fontweight="normal", pad=8)
        axes.legend(frameon=False, loc="upper left", labelcolor=canvas.colour("ink"))

    texts = [
        f"{name}: "
        + ", ".join(f"{share(right)} right where {share(sure)} sure" for _, sure, right in bins)
        for name, _, bins in known
    ]
    return Drawing(
        name="reliability",
        label=f"Accuracy against confidence. {'. '.join(texts)}.",
        wide=(WIDE, 380),
        narrow=(NARROW, 320),
        draw=draw,
    )
