"""The evidence that training left, drawn: whose gradient moves the prompt, and what it learns.

Any number of methods stand side by side; the lines are means over the seeds, the bands span them.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dspt.report import wording
from dspt.report.figures import NARROW, WIDE, Canvas, Drawing, plot_line
from dspt.report.palette import Mark, assign_marks
from dspt.report.summary import Block, Condition, Method, summarise
from dspt.result import Evidence, RunResult

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

Part = Literal["all", "clean", "mislabelled"]
Value = Callable[[Evidence], "float | None"]


@dataclass(frozen=True)
class EvidenceFigure:
    """A figure with the heading and the caption that belong to it."""

    title: str
    drawing: Drawing
    caption: str


def has_evidence(result: RunResult) -> bool:
    """Whether a run was asked to measure evidence."""
    return any(record.evidence is not None for record in result.epochs)


def evidence_section(results: Sequence[RunResult]) -> list[EvidenceFigure]:
    """Figures with captions for one run or for several methods side by side.

    Of several tables the first with evidence is shown, under the noise for which most methods have
    it, and of these at the rate nearest to one half. Where the truth is unknown only what can be
    said without it is drawn.

    Args:
        results: of any methods, rates and seeds.

    Returns:
        No figure when no run measured evidence.
    """
    groups, condition = _groups(results)
    if not groups or condition is None:
        return []
    known = any(group.curve(_of("mislabelled", "as_given")) for group in groups)
    noise = "" if condition.clean else f" Noise: {condition.full_label}."
    lines = noise
    if max(len(group.runs) for group in groups) > 1:
        lines += " Lines: means over seeds; bands span them."
    figures = []
    if known:
        figures.append(
            EvidenceFigure(
                "Whose gradient moves the prompt",
                _lines("evidence-gradient", _UPDATE, groups),
                "Upper: how much of the gradient comes from mislabelled training pictures; at the "
                "logits, of the sum of all pictures’ gradient norms; at the context vectors, the "
                "length of the mislabelled pictures’ summed gradient over that plus the clean "
                "ones’. Dotted: their share of the pictures. Lower: cosine between the whole "
                "gradient and each part; near 1, the step follows that part. Where training comes "
                f"to rest both parts cancel, so the share at the context nears ½.{lines}",
            )
        )
    figures.append(
        EvidenceFigure(
            "What the prompt learns of its labels",
            _lines("evidence-learning", _LEARNING if known else _BLIND, groups),
            (
                "Predictions on the training pictures after each epoch; zero-shot is the untrained "
                "model with its hand-written template."
                if known
                else "All training pictures after each epoch. The true labels are unknown, so "
                "clean and mislabelled pictures cannot be told apart."
            )
            + lines,
        )
    )
    bins = "each bin as a share of the clean or of the mislabelled ones."
    figures.append(
        EvidenceFigure(
            "How probable the given labels are",
            _histograms(groups, ("clean", "mislabelled") if known else ("all",)),
            "Training pictures by the probability of their given label, in 20 bins; "
            f"{bins if known else 'all of them: the truth is unknown.'} A label near 0 is "
            f"contradicted, near 1 learned.{noise}",
        )
    )
    return figures


def evidence_table(results: Sequence[RunResult]) -> tuple[list[str], list[list[str]], str]:
    """The curves' ends as text: header with the methods, a row a quantity, and how to read them.

    Only quantities with a number are listed: none when no run measured evidence.
    """
    groups, _ = _groups(results)
    rows = []
    for name, panel, both in (
        ("Gradient from mislabelled at the logits, start → end", _UPDATE[0], True),
        ("Gradient from mislabelled at the context, start → end", _UPDATE[1], True),
        ("Cosine of step and clean part, start → end", _UPDATE[2], True),
        ("Cosine of step and mislabelled part, start → end", _UPDATE[3], True),
        ("Wrong labels memorised", _LEARNING[0], False),
        ("Truth found under wrong labels", _LEARNING[1], False),
        ("Clean labels learned", _LEARNING[2], False),
        ("Agrees with zero-shot", _LEARNING[3], False),
    ):
        if any(group.curve(panel.value) for group in groups):
            rows.append([name, *(_ends(group, panel, both) for group in groups)])
    note = "Shares in %, after the last epoch unless it says start."
    repeats = sorted({len(group.runs) for group in groups})
    if repeats and repeats[-1] > 1:
        seeds = wording.listing(str(n) for n in repeats)
        note += f" Mean ± standard deviation over {seeds} seeds."
    return ["Measured", *(group.label for group in groups)], rows, note


# What is shown


@dataclass(frozen=True)
class _Panel:
    """A quantity, how to read it, and whether to set it against the share of wrong labels."""

    title: str
    value: Value
    unit: Literal["percent", "cosine", "length"] = "percent"
    shared: bool = False

    @property
    def factor(self) -> int:
        return 100 if self.unit == "percent" else 1

    def text(self, value: float) -> str:
        return f"{100 * value:.0f} %" if self.unit == "percent" else f"{value:.2f}"


def _of(part: Part, field: str) -> Value:
    def value(evidence: Evidence) -> float | None:
        samples = getattr(evidence, part)
        found: float | None = None if samples is None else getattr(samples, field)
        return found

    return value


def _update(field: str) -> Value:
    def value(evidence: Evidence) -> float | None:
        found: float | None = None if evidence.update is None else getattr(evidence.update, field)
        return found

    return value


def _logit_share(evidence: Evidence) -> float | None:
    """Mislabelled samples' share of the sum of all samples' gradient norms at the logits."""
    clean, wrong = evidence.clean, evidence.mislabelled
    if clean is None or wrong is None:
        return None
    sums = [part.n * (part.gradient_norm or 0.0) for part in (clean, wrong)]
    return sums[1] / sum(sums) if sum(sums) else None


def _with_step(part: Literal["clean", "mislabelled"]) -> Value:
    """Cosine between the whole gradient and that of a part."""

    def value(evidence: Evidence) -> float | None:
        update = evidence.update
        if update is None or update.mislabelled_projection is None:
            return None
        projection, length = update.mislabelled_projection, update.norm_mislabelled
        if part == "clean":
            projection, length = 1 - projection, update.norm_clean
        return projection * update.norm / length if length else None

    return value


_UPDATE = (
    _Panel("Mislabelled share, at the logits", _logit_share, shared=True),
    _Panel("Mislabelled share, at the context", _update("mislabelled_share"), shared=True),
    _Panel("Step along the clean part", _with_step("clean"), "cosine"),
    _Panel("Step along the mislabelled part", _with_step("mislabelled"), "cosine"),
)
_LEARNING = (
    _Panel("Wrong labels memorised", _of("mislabelled", "as_given")),
    _Panel("Truth found under a wrong label", _of("mislabelled", "as_true")),
    _Panel("Clean labels learned", _of("clean", "as_given")),
    _Panel("Agreement with zero-shot", _of("all", "as_zero_shot")),
)
_BLIND = (
    _Panel("Given labels learned", _of("all", "as_given")),
    _Panel("Agreement with zero-shot", _of("all", "as_zero_shot")),
    _Panel("Probability of the given label", _of("all", "probability_given")),
    _Panel("Gradient at the context vectors", _update("norm"), "length"),
)


@dataclass(frozen=True)
class _Group:
    """One method's runs: a line."""

    label: str
    mark: Mark
    runs: tuple[RunResult, ...]

    def curve(self, value: Value) -> list[tuple[int, float, float, float]]:
        """Epoch, and mean, least and greatest over the runs."""
        found: dict[int, list[float]] = {}
        for run in self.runs:
            for record in run.epochs:
                if record.evidence is not None and (one := value(record.evidence)) is not None:
                    found.setdefault(record.epoch, []).append(one)
        return [(e, statistics.fmean(v), min(v), max(v)) for e, v in sorted(found.items())]

    def histogram(self, part: Part, epoch: int) -> list[float] | None:
        """Share of a part's samples in each bin, over all runs."""
        parts = [
            found
            for run in self.runs
            for record in run.epochs
            if record.epoch == epoch
            and record.evidence is not None
            and (found := getattr(record.evidence, part)) is not None
            and found.n
        ]
        total = sum(found.n for found in parts)
        if not total:
            return None
        bins = zip(*(found.probability_histogram for found in parts), strict=True)
        return [sum(column) / total for column in bins]

    @property
    def wrong_share(self) -> float | None:
        """Mean share of mislabelled samples."""
        rates = [rate for run in self.runs if (rate := run.noise.realised_rate) is not None]
        return statistics.fmean(rates) if rates else None


def _groups(results: Sequence[RunResult]) -> tuple[list[_Group], Condition | None]:
    """The methods of one table under one condition, with their runs that have evidence."""
    blocks = summarise([result for result in results if has_evidence(result)])
    if not blocks:
        return [], None
    block = blocks[0]

    def order(condition: Condition) -> tuple[int, float]:
        distance = 1.0 if condition.rate is None else abs(condition.rate - 0.5)
        return -len(_measured(block, condition)), distance

    condition = min(block.conditions, key=order)
    measured = _measured(block, condition)
    marks = assign_marks((method.label, method.key) for method, _ in measured)
    return [_Group(m.label, marks[m.label], runs) for m, runs in measured], condition


def _measured(block: Block, condition: Condition) -> list[tuple[Method, tuple[RunResult, ...]]]:
    rows = [(method, block.runs(method, condition)) for method in block.methods]
    return [(method, runs) for method, runs in rows if runs]


def _ends(group: _Group, panel: _Panel, both: bool) -> str:
    """Mean and spread over runs of a curve's last value, or of its first and last."""
    curves = [_Group(group.label, group.mark, (run,)).curve(panel.value) for run in group.runs]
    curves = [curve for curve in curves if curve]
    if not curves:
        return wording.DASH
    digits = 1 if panel.unit == "percent" else 2

    def text(place: int) -> str:
        values = [panel.factor * curve[place][1] for curve in curves]
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        mean = round(statistics.fmean(values), digits) + 0.0  # no minus before a zero
        return f"{mean:.{digits}f}{spread}".replace("-", "\u2212")

    return f"{text(0)} → {text(-1)}" if both else text(-1)


# Drawing


def _grid(
    canvas: Canvas,
    rows: int,
    columns: int,
    legend: Sequence[Artist],
    *,
    sharey: bool = False,
) -> list[list[Axes]]:
    """Panels, below a low strip with the legend if there is one."""
    height = (canvas.figure.get_size_inches()[1] * 72 - 60) / rows
    strip = (50 if canvas.narrow and len(legend) > 2 else 26) / height
    ratios = [strip, rows] if legend else [rows]
    cells = canvas.figure.add_gridspec(len(ratios), 1, height_ratios=ratios)
    if legend:
        _legend(canvas, canvas.figure.add_subplot(cells[0]), legend)
    panels = (
        cells[len(ratios) - 1]
        .subgridspec(rows, columns)
        .subplots(sharex=True, sharey=sharey, squeeze=False)
    )
    return [list(row) for row in panels]


def _legend(canvas: Canvas, strip: Axes, handles: Sequence[Artist]) -> None:
    strip.set_axis_off()
    strip.legend(
        handles=list(handles),
        loc="center left",
        ncols=2 if canvas.narrow else 4,
        frameon=False,
        labelcolor=canvas.colour("ink"),
        handlelength=2.8,
        columnspacing=1.6,
        borderaxespad=0,
        borderpad=0,
        fontsize=12,
    )


def _lines(name: str, panels: Sequence[_Panel], groups: Sequence[_Group]) -> Drawing:
    """One panel a quantity, one line a method."""
    rates = [rate for group in groups if (rate := group.wrong_share) is not None]

    def draw(canvas: Canvas) -> None:
        columns = 1 if canvas.narrow else 2
        legend = [_line_handle(canvas, group) for group in groups] if len(groups) > 1 else []
        grid = _grid(canvas, len(panels) // columns, columns, legend)
        for axes, panel in zip(itertools.chain(*grid), panels, strict=True):
            for group in groups:
                _curve(canvas, axes, group, panel)
            if rates and panel.shared:
                axes.axhline(
                    100 * statistics.fmean(rates),
                    color=canvas.colour("reference"),
                    linewidth=1.4,
                    linestyle=(0, (1.2, 1.8)),
                    zorder=2,
                )
            _frame(canvas, axes, panel)
        for axes in grid[-1]:
            axes.set_xlabel("Epoch")

    return Drawing(
        name=name,
        label=_lines_label(panels, groups),
        wide=(WIDE, 480),
        narrow=(NARROW, 205 * len(panels) + 60),
        draw=draw,
    )


def _line_handle(canvas: Canvas, group: _Group) -> Artist:
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        color=canvas.colour(group.mark.colour),
        linestyle=(0, group.mark.dash) if group.mark.dash else "solid",
        marker=group.mark.marker,
        markeredgecolor=canvas.colour("card"),
        label=group.label,
    )


def _curve(canvas: Canvas, axes: Axes, group: _Group, panel: _Panel) -> None:
    rows = group.curve(panel.value)
    if not rows:
        return
    x = [row[0] for row in rows]
    mean, low, high = ([panel.factor * row[i] for row in rows] for i in (1, 2, 3))
    if len(group.runs) > 1:
        colour = canvas.colour(group.mark.colour)
        axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0, zorder=1)
    wide = 2.8 if group.mark.marker == "o" else 2.0
    every = max(1, len(x) // 5)
    plot_line(canvas, axes, x, mean, group.mark, markevery=every, linewidth=wide)


def _frame(canvas: Canvas, axes: Axes, panel: _Panel) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_title(panel.title, fontsize=12.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    sign = "\u00a0%" if panel.unit == "percent" else ""
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda v, _: f"{v:g}{sign}".replace("-", "\u2212"))
    )
    axes.tick_params(labelbottom=True)
    axes.grid(axis="y", linewidth=1)
    axes.spines["left"].set_visible(False)
    if panel.unit == "cosine":
        axes.set_ylim(-1.05, 1.05)
        axes.axhline(0, color=canvas.colour("muted"), linewidth=1, zorder=1)
    else:  # from zero, or small changes would look large
        axes.set_ylim(bottom=0)


def _lines_label(panels: Sequence[_Panel], groups: Sequence[_Group]) -> str:
    parts = []
    for panel in panels:
        ends = [
            f"{group.label} from {panel.text(rows[0][1])} to {panel.text(rows[-1][1])}"
            for group in groups
            if (rows := group.curve(panel.value))
        ]
        if ends:
            parts.append(f"{panel.title}: {'; '.join(ends)}.")
    return " ".join(parts)


_PART_COLOURS = {"all": "blue", "clean": "green", "mislabelled": "vermilion"}
_DASHED: Any = (0, (3, 1.2))


def _histograms(groups: Sequence[_Group], parts: Sequence[Part]) -> Drawing:
    """A row a method; columns: the start, the middle and the end of training."""
    epochs = sorted({r.epoch for g in groups for run in g.runs for r in run.epochs})
    chosen = list(dict.fromkeys((epochs[0], epochs[len(epochs) // 2], epochs[-1])))

    def draw(canvas: Canvas) -> None:
        columns = list(dict.fromkeys((chosen[0], chosen[-1]))) if canvas.narrow else chosen
        legend = [_part_handle(canvas, part) for part in parts] if len(parts) > 1 else []
        grid = _grid(canvas, len(groups), len(columns), legend, sharey=True)
        for group, row in zip(groups, grid, strict=True):
            for axes, epoch in zip(row, columns, strict=True):
                for part in parts:
                    _steps(canvas, axes, group.histogram(part, epoch), part)
                axes.grid(axis="y", linewidth=1)
                axes.spines["left"].set_visible(False)
                axes.set_ylim(0, 100)
                axes.set_xlim(0, 1)
                axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
                axes.set_yticks([0, 50, 100], ["0\u00a0%", "50\u00a0%", "100\u00a0%"])
                if len(groups) > 1:
                    axes.text(
                        0.5,
                        0.95,
                        group.label,
                        transform=axes.transAxes,
                        ha="center",
                        va="top",
                        fontsize=12,
                    )
        for axes, epoch in zip(grid[0], columns, strict=True):
            axes.set_title("Start" if epoch == 0 else f"Epoch {epoch}", fontsize=12.5)
        for axes in grid[-1]:
            axes.set_xlabel("Probability" if canvas.narrow else "Probability of given label")

    return Drawing(
        name="evidence-histograms",
        label=_histograms_label(groups, parts, chosen[0], chosen[-1]),
        wide=(WIDE, 120 + 120 * len(groups)),
        narrow=(NARROW, 140 + 110 * len(groups)),
        draw=draw,
    )


def _histograms_label(
    groups: Sequence[_Group], parts: Sequence[Part], first: int, last: int
) -> str:
    texts = []
    for group, part in itertools.product(groups, parts):
        start, end = group.histogram(part, first), group.histogram(part, last)
        if start and end:
            texts.append(
                f"{group.label}, {part}: in the lowest bin from {100 * start[0]:.0f} to "
                f"{100 * end[0]:.0f} %, in the highest from {100 * start[-1]:.0f} to "
                f"{100 * end[-1]:.0f} %"
            )
    return f"Training pictures by probability of the given label. {'; '.join(texts)}."


def _part_handle(canvas: Canvas, part: Part) -> Artist:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colour = canvas.colour(_PART_COLOURS[part])
    if part == "mislabelled":
        return Line2D([], [], color=colour, linestyle=_DASHED, label=part)
    return Patch(facecolor=colour, alpha=0.45, label=part)


def _steps(canvas: Canvas, axes: Axes, shares: list[float] | None, part: Part) -> None:
    """Clean or all samples as a filled outline, mislabelled ones as a dashed one before it."""
    if shares is None:
        return
    edges = [i / len(shares) for i in range(len(shares) + 1)]
    heights = [100 * share for share in shares]
    colour = canvas.colour(_PART_COLOURS[part])
    if part == "mislabelled":
        axes.stairs(heights, edges, color=colour, linewidth=1.8, linestyle=_DASHED, zorder=3)
        return
    axes.stairs(heights, edges, color=colour, fill=True, alpha=0.35, linewidth=0, zorder=2)
    axes.stairs(heights, edges, color=colour, linewidth=1.4, zorder=2)
