"""Figures from results, as SVG for a page and PNG for a document.

A ``Drawing`` is a recipe: it is drawn anew, wide or narrow, light or dark, whenever it is asked
for, with matplotlib's object interface and settings of its own, so that a user's matplotlibrc has
no say and the same input gives the same bytes. One unit of the drawing is one CSS pixel.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspt.report import wording
from dspt.report.palette import (
    DARK,
    LIGHT,
    Dash,
    Mark,
    assign_marks,
    method_label,
)
from dspt.report.summary import Block, Condition, Method, plural, summarise
from dspt.result import EpochMetrics, RunResult
from dspt.theory import closed_forms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 12.0,
    "text.parse_math": False,  # names may hold a dollar sign
    "text.usetex": False,
    "axes.unicode_minus": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1.0,
    "axes.titlesize": 13.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.labelsize": 12.0,
    "axes.labelpad": 6.0,
    "axes.axisbelow": True,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.major.pad": 6.0,
    "ytick.major.pad": 6.0,
    "lines.linewidth": 2.2,
    "lines.markersize": 7.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "dspt",
    "figure.dpi": 72.0,  # one unit of the SVG is one CSS pixel
}

WIDE = 760
NARROW = 340


@dataclass(frozen=True)
class Canvas:
    """What a drawing function draws on."""

    figure: Figure
    narrow: bool
    colours: Mapping[str, str]

    def colour(self, name: str) -> str:
        return self.colours[name]


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn at two widths and in two colour schemes."""

    name: str
    label: str
    """What the figure shows, for those who do not see it."""
    wide: tuple[int, int]
    narrow: tuple[int, int]
    draw: Callable[[Canvas], None]

    def svg(self, *, narrow: bool = False, prefix: str | None = None) -> str:
        """SVG without styles or fonts of its own, fit for inlining under a strict policy.

        ``prefix`` starts its ids; give different ones to drawings that share a page.
        """
        from dspt.report.svg import clean_svg

        raw = self._save("svg", narrow, LIGHT)
        prefix = prefix if prefix is not None else self.name
        size = "narrow" if narrow else "wide"
        return clean_svg(raw.decode("utf-8"), f"{prefix}-{size}", self.label)

    def standalone_svg(self, *, dark: bool = False) -> str:
        """SVG on a card of its own, for a file that other documents show."""
        from dspt.report.svg import clean_svg, on_card

        colours = DARK if dark else LIGHT
        raw = self._save("svg", False, colours).decode("utf-8")
        return on_card(clean_svg(raw, self.name, self.label), colours["card"])

    def png(self, *, narrow: bool = False, dark: bool = False, scale: float = 2.0) -> bytes:
        """PNG on a card with round corners; legible on white and on dark pages alike."""
        return self._save("png", narrow, DARK if dark else LIGHT, scale)

    def _save(
        self, form: str, narrow: bool, colours: Mapping[str, str], scale: float = 1.0
    ) -> bytes:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            settings: Any = {
                **_SETTINGS,
                "text.color": colours["ink"],
                "axes.titlecolor": colours["ink"],
                "axes.edgecolor": colours["muted"],
                "axes.labelcolor": colours["muted"],
                "axes.facecolor": "none",
                "figure.facecolor": "none",
                "xtick.labelcolor": colours["muted"],
                "ytick.labelcolor": colours["muted"],
                "grid.color": colours["grid"],
            }
            matplotlib.rcParams.update(settings)
            width, height = self.narrow if narrow else self.wide
            margin = 0 if form == "svg" else 20
            size = ((width + 2 * margin) / 72, (height + 2 * margin) / 72)
            figure = Figure(figsize=size, dpi=72.0)
            canvas = FigureCanvasSVG(figure) if form == "svg" else FigureCanvasAgg(figure)
            rect = (
                margin / (width + 2 * margin),
                margin / (height + 2 * margin),
                width / (width + 2 * margin),
                height / (height + 2 * margin),
            )
            figure.set_layout_engine("constrained", rect=rect, w_pad=0.06, h_pad=0.08, hspace=0.05)
            self.draw(Canvas(figure, narrow, colours))
            if form == "png":
                _add_card(figure, colours)
            buffer = io.BytesIO()
            metadata = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
            figure.savefig(
                buffer, format=form, dpi=72 * scale, metadata=metadata, transparent=False
            )
            del canvas
        return buffer.getvalue()


def _add_card(figure: Figure, colours: Mapping[str, str]) -> None:
    """A card with round corners behind everything; transparent outside."""
    from matplotlib.patches import FancyBboxPatch
    from matplotlib.transforms import Affine2D

    width, height = figure.get_size_inches() * 72
    card = FancyBboxPatch(
        (13, 13),
        width - 26,
        height - 26,
        boxstyle="round,pad=12,rounding_size=12",
        facecolor=colours["card"],
        edgecolor=colours["grid"],
        linewidth=1,
        transform=Affine2D().scale(1 / 72) + figure.dpi_scale_trans,
        zorder=-10,
    )
    card.set_in_layout(False)
    figure.add_artist(card)


# Helpers


def _percent_axis(axes: Axes, ticks: int = 5) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(nbins=ticks, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}\u00a0%"))
    axes.grid(axis="y", linewidth=1)
    axes.spines["left"].set_visible(False)


def _spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart until neighbours are ``gap`` away, staying near where they belong."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    # Groups of labels that touch, as [sum of wanted positions, members]; merged until none overlap.
    groups: list[list[int]] = []

    def centre(group: list[int]) -> float:
        middle = statistics.fmean(values[i] for i in group)
        half = gap * (len(group) - 1) / 2
        return min(max(middle, low + half), max(high - half, low + half))

    for index in order:
        groups.append([index])
        while len(groups) > 1:
            below, above = groups[-2], groups[-1]
            needed = gap * (len(below) + len(above)) / 2
            if centre(above) - centre(below) >= needed:
                break
            groups[-2:] = [below + above]
    placed = [0.0] * len(values)
    for group in groups:
        start = centre(group) - gap * (len(group) - 1) / 2
        for step, index in enumerate(group):
            placed[index] = start + step * gap
    return placed


def _label_ends(
    canvas: Canvas, axes: Axes, x: float, labels: Sequence[tuple[float, str, str]], height: float
) -> None:
    """Write names at the right end of lines; ``height`` is the panel's height in pixels."""
    low, high = axes.get_ylim()
    gap = (high - low) * 15.5 / height
    places = _spread([y for y, _, _ in labels], gap, low, high)
    for (y, text, colour), place in zip(labels, places, strict=True):
        axes.annotate(
            text,
            xy=(x, y),
            xytext=(12, (place - y) * height / (high - low)),
            textcoords="offset points",
            va="center",
            ha="left",
            color=colour,
            fontsize=12,
            fontweight="bold",
            annotation_clip=False,
        )


def plot_line(canvas: Canvas, axes: Axes, x: Any, y: Any, mark: Mark, **more: Any) -> None:
    """A line with the colour, marker and dashes of ``mark``; ``more`` goes to matplotlib."""
    style: Any = (0, mark.dash) if mark.dash else "solid"
    settings = {
        "color": canvas.colour(mark.colour),
        "linestyle": style,
        "marker": mark.marker,
        "markeredgecolor": canvas.colour("card"),
        "markeredgewidth": 1.2,
        "solid_capstyle": "round",
        "zorder": 3,
        **more,
    }
    axes.plot(x, y, **settings)


def _caption(canvas: Canvas, axes: Axes, text: str) -> None:
    """Name the vertical axis above it, where it reads without turning one's head."""
    axes.text(0, 1.02, text, transform=axes.transAxes, color=canvas.colour("muted"), fontsize=12)


def _panel_height(total: float) -> float:
    return max(total - 70.0, 40.0)


def _legend(canvas: Canvas, axes: Axes, **where: Any) -> None:
    axes.legend(
        frameon=False,
        labelcolor=canvas.colour("ink"),
        handlelength=2.6,
        borderaxespad=0.2,
        fontsize=12,
        **where,
    )


# The main figure

_DIRECT = 5  # so many lines can be named at their ends; more get a legend
_RATELESS = ("column", "matrix")


def accuracy_against_noise(results: Sequence[RunResult]) -> Drawing:
    """Test accuracy against the rate of wrong labels: one line a method, zero-shot as reference.

    The bars are one standard deviation over seeds on either side. One panel for every data set,
    model, number of shots and kind of noise. Noise without a rate, such as human labels, is drawn
    as groups of points, one for each set of labels.

    Raises:
        ValueError: when no result has a test accuracy.
    """
    blocks = [block for block in summarise(results) if _has_points(block)]
    if not blocks:
        raise ValueError("no result has a test accuracy")
    return accuracy_drawing(blocks)


def _has_points(block: Block) -> bool:
    return any(_points(block, method) for method in block.methods)


def _positions(block: Block) -> dict[Condition, float]:
    """Where the columns of a table stand: at their rates, or one by one where there are none."""
    tested = [c for c in block.conditions if any(block.cell(m, c) for m in block.methods)]
    if block.kind in _RATELESS:
        tested.sort(key=lambda c: (not c.clean, block.realised_rate(c) or 0.0))
        return {condition: float(place) for place, condition in enumerate(tested)}
    return {c: 100 * c.rate for c in tested if c.rate is not None}


def _points(block: Block, method: Method) -> list[tuple[float, float, float]]:
    return [
        (x, 100 * cell.mean, 100 * (cell.std or 0.0))
        for condition, x in _positions(block).items()
        if (cell := block.cell(method, condition)) is not None
    ]


def _tick(block: Block, condition: Condition) -> str:
    if block.kind not in _RATELESS:
        return condition.label
    name = "clean" if condition.clean else _fit(condition.text.partition(":")[2], 14)
    rate = block.realised_rate(condition)
    return name if rate is None else f"{name}\n{100 * rate:.1f}\u00a0%"


def panel_title(block: Block, blocks: Sequence[Block]) -> str:
    """Data set, kind of noise, and what else tells a panel from its neighbours."""
    parts = [block.data]
    parts += [block.backbone] if len({b.backbone for b in blocks}) > 1 else []
    parts += [value for _, value in block.setting]
    return ", ".join([*parts, block.title.lower()])


def panel_subtitle(block: Block) -> str:
    """Classes, shots and seeds."""
    counts = sorted({cell.n for cell in block.cells.values() if cell.n})
    seeds = plural(counts[-1], "seed")
    if counts[0] != counts[-1]:
        seeds = f"{counts[0]} to {seeds}"
    classes = len(block.all_runs[0].data.class_names)
    return f"{classes:,} classes, {block.shots_text}, {seeds}"


def accuracy_drawing(blocks: Sequence[Block]) -> Drawing:
    """``accuracy_against_noise`` for tables already summarised."""
    per_row = 1 if len(blocks) == 1 else 2
    rows = -(-len(blocks) // per_row)
    methods = list(
        dict.fromkeys(m for b in blocks for m in b.rivals if _points(b, m))
    )  # in the order of the first table that has them
    marks = assign_marks((method.label, method.key) for method in methods)
    legend = len(methods) > _DIRECT or any(b.kind in _RATELESS for b in blocks)
    labels = [*(method.label for method in methods), "Zero-shot"]
    columns = {
        narrow: max(1, min(len(labels), int(width / (46 + 7.4 * max(map(len, labels))))))
        for narrow, width in ((False, WIDE), (True, NARROW))
    }
    below = {n: 20 * -(-len(labels) // c) + 8 if legend else 0 for n, c in columns.items()}
    each = {False: 400 if len(blocks) == 1 else 350 if legend else 310, True: 330}
    parts = []
    for block in blocks:
        names = {x: _tick(block, c).replace("\n", " ") for c, x in _positions(block).items()}
        for method in block.rivals:
            line = _points(block, method)
            if line:
                ends = " to ".join(
                    f"{y:.1f} % at {names[x]}" for x, y, _ in dict.fromkeys((line[0], line[-1]))
                )
                where = f"{panel_title(block, blocks)}, " if len(blocks) > 1 else ""
                parts.append(f"{where}{method.label}: {ends}")

    def draw(canvas: Canvas) -> None:
        shape = (len(blocks), 1) if canvas.narrow else (rows, per_row)
        panels = list(canvas.figure.subplots(*shape, squeeze=False).flat)
        for axes in panels[len(blocks) :]:
            axes.set_axis_off()
        for axes, block in zip(panels, blocks, strict=False):
            axes.set_title(_fit(panel_title(block, blocks), 40), pad=26)
            _caption(canvas, axes, f"Test accuracy; {panel_subtitle(block)}")
            height = _panel_height(each[canvas.narrow]) - 16
            # Panels of one setting have one scale, fixed before labels are placed by it.
            axes.set_ylim(*_accuracy_range([b for b in blocks if _place(b) == _place(block)]))
            _accuracy_panel(canvas, axes, block, marks, None if legend else height)
        if legend:
            _method_legend(canvas, methods, marks, columns[canvas.narrow])

    return Drawing(
        name="accuracy-noise",
        label="Test accuracy against the share of wrong labels. " + "; ".join(parts) + ".",
        wide=(WIDE, each[False] * rows + below[False]),
        narrow=(NARROW, each[True] * len(blocks) + below[True]),
        draw=draw,
    )


def _place(block: Block) -> tuple[object, ...]:
    """What panels of one scale share."""
    return block.data, block.backbone, block.shots, block.setting


def _accuracy_range(blocks: Sequence[Block]) -> tuple[float, float]:
    bounds = [
        y + side * std
        for block in blocks
        for method in block.methods
        for _, y, std in _points(block, method)
        for side in (-1, 1)
    ]
    bounds += [
        100 * zero
        for block in blocks
        for condition in _positions(block)
        if (zero := block.zero_shot(condition)) is not None
    ]
    pad = 0.05 * (max(bounds) - min(bounds)) or 1.0
    return min(bounds) - pad, max(bounds) + pad


def _accuracy_panel(
    canvas: Canvas, axes: Axes, block: Block, marks: Mapping[str, Mark], height: float | None
) -> None:
    """One panel; with a height in pixels, lines are named at their ends."""
    positions = _positions(block)
    methods = [method for method in block.rivals if _points(block, method)]
    grouped = block.kind in _RATELESS
    at = list(positions.values())
    span = max(at) - min(at) or 1.0
    # A little apart, so that error bars and markers of close methods stay legible.
    if grouped:
        step = 0.74 / max(len(methods), 2)
    else:
        step = span * min(0.014 if canvas.narrow else 0.009, 0.07 / max(len(methods), 1))
    middle = (len(methods) - 1) / 2
    ends: list[tuple[float, str, str]] = []
    for place, method in enumerate(methods):
        x, y, std = (list(values) for values in zip(*_points(block, method), strict=True))
        mark = marks[method.label]
        colour = canvas.colour(mark.colour)
        x = [value + step * (place - middle) for value in x]
        own = method.canonical == "dspt"
        if any(std):
            axes.errorbar(
                x, y, std, fmt="none", ecolor=colour, elinewidth=1.4, alpha=0.6,
                zorder=4 if own else 2,
            )  # fmt: skip
        style: dict[str, Any] = {"linestyle": "none"} if grouped else {}
        many = len(methods) > _DIRECT
        style |= {"markersize": 8.0 if own else 7.0, "markeredgewidth": 0.6 if many else 1.2}
        plot_line(
            canvas, axes, x, y, mark, linewidth=2.8 if own else 1.8,
            zorder=5 if own else 3, **style,
        )  # fmt: skip
        ends.append((y[-1], method.label, colour))
    edge = 0.5 if grouped else 0.02 * span + step * middle
    zero = [(x, 100 * z) for c, x in positions.items() if (z := block.zero_shot(c)) is not None]
    if zero:
        x0, y0 = (list(values) for values in zip(*zero, strict=True))
        x0, y0 = [x0[0] - edge, *x0, x0[-1] + edge], [y0[0], *y0, y0[-1]]
        axes.plot(x0, y0, color=canvas.colour("reference"), zorder=2, **_ZERO_SHOT)
        ends.append((y0[-1], "Zero-shot", canvas.colour("reference")))
    _percent_axis(axes, ticks=7)
    axes.set_xticks(at, [_tick(block, condition) for condition in positions])
    axes.set_xlim(min(at) - edge, max(at) + edge)
    if grouped:
        for line in at[1:]:
            axes.axvline(line - 0.5, color=canvas.colour("grid"), linewidth=1, zorder=0)
    axes.set_xlabel("Training labels and share of wrong ones" if grouped else _X_LABEL)
    if height is not None:
        if canvas.narrow or len(canvas.figure.axes) > 1:
            ends = [(y, _fit(text, 16), colour) for y, text, colour in ends]
        _label_ends(canvas, axes, max(at) + step * middle, ends, height)


_ZERO_SHOT: dict[str, Any] = {"linewidth": 1.6, "linestyle": (0, (1.2, 1.8))}
_X_LABEL = "Wrong labels in training"


def _method_legend(
    canvas: Canvas, methods: Sequence[Method], marks: Mapping[str, Mark], columns: int
) -> None:
    """Every line of a figure once, below its panels."""
    from matplotlib.lines import Line2D

    handles = []
    for method in methods:
        mark = marks[method.label]
        handles.append(
            Line2D(
                [], [], color=canvas.colour(mark.colour), marker=mark.marker, label=method.label,
                linestyle=(0, mark.dash) if mark.dash else "solid", markersize=7.5,
                linewidth=2.8 if method.canonical == "dspt" else 1.8,
                markeredgecolor=canvas.colour("card"), markeredgewidth=0.6,
            )
        )  # fmt: skip
    handles.append(
        Line2D([], [], color=canvas.colour("reference"), label="Zero-shot", **_ZERO_SHOT)
    )
    canvas.figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False,
        labelcolor=canvas.colour("ink"), handlelength=3.2, columnspacing=1.4, fontsize=12,
    )  # fmt: skip


def _fit(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


# One run


def training_curves(result: RunResult) -> Drawing:
    """Accuracy over epochs, and the gradient of right and wrong labels where the truth is known."""
    epochs = result.epochs
    gradients = any(
        e.gradient_norm_clean is not None and e.gradient_norm_mislabelled is not None
        for e in epochs
    )
    lines: list[tuple[str, str, str, Dash, list[float | None]]] = [
        ("test pictures", "blue", "o", (), [e.accuracy_test for e in epochs]),
        ("true labels", "green", "^", (2, 1.6), [e.accuracy_true for e in epochs]),
        ("given labels", "vermilion", "s", (6, 2), [e.accuracy_given for e in epochs]),
    ]
    zero = result.zero_shot.test.accuracy if result.zero_shot.test is not None else None

    def draw(canvas: Canvas) -> None:
        panels = 2 if gradients else 1
        shape = (panels, 1) if canvas.narrow else (1, panels)
        grid = list(canvas.figure.subplots(*shape, squeeze=False).flat)
        height = _panel_height(280.0)
        axes = grid[0]
        axes.set_title("Accuracy after each epoch")
        ends = []
        for name, colour, marker, dash, values in lines:
            rows = [
                (e.epoch, 100 * v) for e, v in zip(epochs, values, strict=True) if v is not None
            ]
            if not rows:
                continue
            x, y = (list(part) for part in zip(*rows, strict=True))
            every = max(1, len(x) // 6)
            plot_line(canvas, axes, x, y, Mark(colour, marker, dash), markevery=every)
            ends.append((y[-1], name, canvas.colour(colour)))
        if zero is not None and epochs:
            axes.plot(
                [epochs[0].epoch, epochs[-1].epoch], [100 * zero] * 2,
                color=canvas.colour("reference"), linewidth=1.6, linestyle=(0, (1.2, 1.8)),
            )  # fmt: skip
            ends.append((100 * zero, "zero-shot (test)", canvas.colour("reference")))
        _percent_axis(axes)
        _epoch_axis(axes, epochs)
        if epochs:
            _label_ends(canvas, axes, epochs[-1].epoch, ends, height)
        if gradients:
            grid[1].set_title("Gradient norm per picture")
            _gradient_panel(canvas, grid[1], [result], height)

    return Drawing(
        name="training",
        label=_training_label(result, zero),
        wide=(WIDE if gradients else 560, 280),
        narrow=(NARROW, 560 if gradients else 280),
        draw=draw,
    )


def _training_label(result: RunResult, zero: float | None) -> str:
    if not result.epochs:
        return "Accuracy after each epoch: nothing was trained."
    first, last = result.epochs[0], result.epochs[-1]
    parts = [
        f"given labels from {100 * first.accuracy_given:.1f} to {100 * last.accuracy_given:.1f} %"
    ]
    for name, a, b in (
        ("true labels", first.accuracy_true, last.accuracy_true),
        ("test pictures", first.accuracy_test, last.accuracy_test),
    ):
        if a is not None and b is not None:
            parts.append(f"{name} from {100 * a:.1f} to {100 * b:.1f} %")
    text = f"Accuracy over {last.epoch} epochs: {'; '.join(parts)}"
    if zero is not None:
        text += f"; zero-shot {100 * zero:.1f} %"
    if last.gradient_norm_clean is not None and last.gradient_norm_mislabelled is not None:
        text += (
            f". Gradient norm at the end: {last.gradient_norm_clean:.3g} for rightly and "
            f"{last.gradient_norm_mislabelled:.3g} for wrongly labelled pictures"
        )
    return text + "."


def _epoch_axis(axes: Axes, epochs: Sequence[EpochMetrics]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xlabel("Epoch")
    if len(epochs) == 1:
        axes.set_xlim(epochs[0].epoch - 0.5, epochs[0].epoch + 0.5)


def _gradient_rows(
    results: Sequence[RunResult], field: str
) -> list[tuple[int, float, float, float]]:
    """Per epoch: mean, least and greatest over runs."""
    values: dict[int, list[float]] = {}
    for result in results:
        for epoch in result.epochs:
            value = getattr(epoch, field)
            if value is not None:
                values.setdefault(epoch.epoch, []).append(value)
    return [(e, statistics.fmean(v), min(v), max(v)) for e, v in sorted(values.items())]


def _gradient_panel(
    canvas: Canvas, axes: Axes, results: Sequence[RunResult], height: float
) -> None:
    ends = []
    top = 0.0
    for field, name, mark in (
        ("gradient_norm_mislabelled", "wrong labels", Mark("vermilion", "s", (6, 2))),
        ("gradient_norm_clean", "right labels", Mark("green", "^")),
    ):
        rows = _gradient_rows(results, field)
        if not rows:
            continue
        x, mean, low, high = (list(part) for part in zip(*rows, strict=True))
        colour = canvas.colour(mark.colour)
        if len(results) > 1:
            axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0, zorder=1)
        plot_line(canvas, axes, x, mean, mark, markevery=max(1, len(x) // 6))
        ends.append((mean[-1], name, colour))
        top = max(top, *high)
    axes.set_ylim(0, top * 1.08 or 1.0)
    axes.grid(axis="y", linewidth=1)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="y", nbins=5)
    if results and results[0].epochs:
        _epoch_axis(axes, results[0].epochs)
        _label_ends(
            canvas, axes, max(r.epochs[-1].epoch for r in results if r.epochs), ends, height
        )


def gradient_by_epoch(groups: Sequence[tuple[str, Sequence[RunResult]]]) -> Drawing:
    """Gradient norm of right and of wrong labels by epoch, one panel a method.

    Each panel has its own scale from zero: what counts is wrong against right within a panel. The
    band spans all seeds.
    """
    parts = []
    for name, runs in groups:
        clean = _gradient_rows(runs, "gradient_norm_clean")
        wrong = _gradient_rows(runs, "gradient_norm_mislabelled")
        if clean and wrong:
            parts.append(
                f"{name}: {wrong[-1][1]:.3g} for wrong and {clean[-1][1]:.3g} for right labels"
            )

    def draw(canvas: Canvas) -> None:
        shape = (len(groups), 1) if canvas.narrow else (1, len(groups))
        grid = canvas.figure.subplots(*shape, squeeze=False)
        for axes, (name, runs) in zip(grid.flat, groups, strict=True):
            axes.set_title(_fit(name, 34))
            _gradient_panel(canvas, axes, runs, _panel_height(280.0))

    return Drawing(
        name="gradient-epoch",
        label="Gradient norm by epoch, at the end " + "; ".join(parts) + ".",
        wide=(WIDE if len(groups) > 1 else 480, 280),
        narrow=(NARROW, 270 * len(groups)),
        draw=draw,
    )


def gradient_by_probability(
    classes: int, losses: Sequence[tuple[str, Mapping[str, float]]] | None = None
) -> Drawing:
    """|dL/dz| against the probability of the given label, the rest being on one rival class.

    Losses without a closed form here are left out.
    """
    chosen = losses or [("ce", {}), ("gce", {"q": 0.7}), ("mae", {}), ("dspt", {})]
    known: dict[str, Mapping[str, float]] = {}
    for loss, options in chosen:
        if closed_forms.has_closed_form(loss):
            known.setdefault(loss, options)

    def draw(canvas: Canvas) -> None:
        import numpy as np

        axes = canvas.figure.subplots()
        axes.axvspan(0, 0.15, color=canvas.colour("zone"), linewidth=0, zorder=0)
        p = np.linspace(0.0, 1.0, 101)
        marks = assign_marks((loss, loss) for loss in known)
        for loss, options in known.items():
            y = closed_forms.rival_gradient_norm(loss, p, classes, options)
            wide = 2.8 if loss == "dspt" else 2.0
            name = method_label(loss)
            if "q" in options:
                name += f" (q = {options['q']:g})"
            plot_line(
                canvas,
                axes,
                list(p),
                list(y),
                marks[loss],
                linewidth=wide,
                markevery=(8, 14),
                label=name,
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, None)
        axes.set_xlabel("Probability of the given label")
        axes.grid(axis="y", linewidth=1)
        axes.spines["left"].set_visible(False)
        _caption(canvas, axes, "Gradient norm |∂L/∂z|")
        if len(known) > _DIRECT:  # too many to find room among the curves
            handles, texts = axes.get_legend_handles_labels()
            canvas.figure.legend(
                handles, texts, loc="outside lower center", ncols=2 if canvas.narrow else 4,
                frameon=False, labelcolor=canvas.colour("ink"), handlelength=3.2, fontsize=12,
            )  # fmt: skip
        else:
            _legend(canvas, axes, loc="upper right")

    below = {n: 20 * -(-len(known) // n) + 8 if len(known) > _DIRECT else 0 for n in (2, 4)}
    names = wording.listing(method_label(loss) for loss in known)
    return Drawing(
        name="gradient-probability",
        label="Gradient norm against the probability of the given label, "
        f"for {names} with {classes} classes.",
        wide=(WIDE, 330 + below[4]),
        narrow=(NARROW, 300 + below[2]),
        draw=draw,
    )


def accuracy_intervals(rows: Sequence[tuple[str, float, tuple[float, float]]]) -> Drawing:
    """Accuracies with their 95 % intervals, one row each; the first is what was trained."""

    def draw(canvas: Canvas) -> None:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        axes = canvas.figure.subplots()
        for place, (_, value, (low, high)) in enumerate(rows):
            y = len(rows) - 1 - place
            colour = canvas.colour("blue" if place == 0 else "reference")
            axes.plot([100 * low, 100 * high], [y, y], color=colour, linewidth=7, alpha=0.28,
                      solid_capstyle="round", zorder=2)  # fmt: skip
            axes.plot([100 * value], [y], marker="o" if place == 0 else "D", color=colour,
                      markersize=10 if place == 0 else 8, zorder=3)  # fmt: skip
        low = min(100 * bounds[0] for _, _, bounds in rows)
        high = max(100 * bounds[1] for _, _, bounds in rows)
        pad = max(0.12 * (high - low), 1.0)
        axes.set_xlim(max(0.0, low - pad), min(100.0, high + pad))
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
        axes.tick_params(axis="y", labelcolor=canvas.colour("ink"))
        axes.xaxis.set_major_locator(
            MaxNLocator(nbins=4 if canvas.narrow else 7, steps=[1, 2, 2.5, 5, 10])
        )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}\u00a0%"))
        axes.grid(axis="x", linewidth=1)
        axes.spines["left"].set_visible(False)

    parts = [
        f"{name} {100 * v:.1f} % ({100 * low:.1f} to {100 * high:.1f} %)"
        for name, v, (low, high) in rows
    ]
    height = 46 + 34 * len(rows)
    return Drawing(
        name="intervals",
        label="Test accuracy with 95 % intervals: " + "; ".join(parts) + ".",
        wide=(WIDE, height),
        narrow=(NARROW, height),
        draw=draw,
    )


__all__ = [
    "Drawing",
    "accuracy_against_noise",
    "accuracy_drawing",
    "accuracy_intervals",
    "gradient_by_epoch",
    "gradient_by_probability",
    "training_curves",
]
