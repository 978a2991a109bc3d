"""Many results made into tables: which methods, which noise, what spread over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from dspt.report.palette import canonical_loss, loss_label
from dspt.result import RunResult

_T = TypeVar("_T")

# Fields that say which repetition or which table a run belongs to, not which method it is.
_NOT_METHOD = (
    "data",
    "backbone",
    "pretrained",
    "precision",
    "loss",
    "loss_options",
    "noise",
    "seed",
    "draw_seed",
    "noise_seed",
    "label_column",
    "image_column",
    "split_column",
)

# Two-sided 95 % quantiles of Student's t for 1 to 10 degrees of freedom.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def t_quantile(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t, within 0.5 % beyond the table."""
    return _T95[degrees - 1] if degrees <= len(_T95) else 1.96 + 2.6 / degrees


@dataclass(frozen=True)
class Method:
    """A row of the table: a loss with its options, and what else sets it apart."""

    loss: str
    options: tuple[tuple[str, float], ...] = ()
    variant: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The loss alone, for running text."""
        return loss_label(self.loss)

    @property
    def label(self) -> str:
        """The loss with everything that tells it from its neighbours."""
        details = [f"{key} = {value:g}" for key, value in self.options]
        details += [f"{key.rpartition('.')[2]} = {value}" for key, value in self.variant]
        return f"{self.name} ({', '.join(details)})" if details else self.name

    @property
    def canonical(self) -> str:
        return canonical_loss(self.loss)


@dataclass(frozen=True)
class Condition:
    """A column of the table: how the training labels were spoilt."""

    kind: str
    rate: float | None
    text: str

    @property
    def clean(self) -> bool:
        return self.rate == 0 or (self.rate is None and self.kind in ("none", "clean"))

    @property
    def position(self) -> float:
        return -1.0 if self.clean else math.inf if self.rate is None else self.rate

    @property
    def label(self) -> str:
        if self.clean:
            return "0\u00a0%"
        return self.text if self.rate is None else f"{100 * self.rate:g}\u00a0%"


def condition_of(result: RunResult) -> Condition:
    """The noise a run was asked for."""
    spec = result.config.noise
    kind = str(getattr(spec.kind, "value", spec.kind))
    rate = spec.rate
    clean = kind in ("none", "clean") or (rate == 0 and kind != "column")
    if clean:
        return Condition("none", 0.0, "none")
    return Condition(kind, None if kind == "column" else rate, str(spec))


@dataclass(frozen=True)
class Difference:
    """One method's accuracy minus another's over repetitions, as fractions."""

    mean: float
    margin: float | None
    n: int
    paired: bool

    @property
    def level(self) -> bool:
        return abs(self.mean) < 0.0005

    @property
    def clear(self) -> bool:
        """Whether zero lies outside the 95 % t-interval over the repetitions."""
        return self.margin is not None and abs(self.mean) > self.margin


@dataclass(frozen=True)
class Cell:
    """The repetitions of one method under one condition."""

    runs: tuple[RunResult, ...]

    @cached_property
    def accuracies(self) -> list[float]:
        return [run.final.accuracy for run in self.runs if run.final is not None]

    @property
    def n(self) -> int:
        return len(self.accuracies)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float | None:
        return statistics.stdev(self.accuracies) if self.n > 1 else None

    @cached_property
    def gain(self) -> Difference | None:
        """Accuracy minus that of the same run's zero-shot model."""
        gains = [
            run.final.accuracy - run.zero_shot.test.accuracy
            for run in self.runs
            if run.final is not None and run.zero_shot.test is not None
        ]
        return _difference(gains) if gains else None


def _difference(values: Sequence[float]) -> Difference:
    margin = None
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
        margin = t_quantile(len(values) - 1) * error
    return Difference(statistics.fmean(values), margin, len(values), paired=True)


def difference(first: Cell, second: Cell) -> Difference:
    """First minus second; over matching seeds where every run has its counterpart."""

    def by_seed(cell: Cell) -> dict[tuple[int, int, int], float]:
        return {
            (run.config.seed, run.config.draw_seed, run.config.noise_seed): run.final.accuracy
            for run in cell.runs
            if run.final is not None
        }

    left, right = by_seed(first), by_seed(second)
    if left.keys() == right.keys() and len(left) == first.n == second.n:
        return _difference([left[key] - right[key] for key in sorted(left)])
    margin = None
    if first.std is not None and second.std is not None:
        error = math.sqrt(first.std**2 / first.n + second.std**2 / second.n)
        margin = t_quantile(min(first.n, second.n) - 1) * error
    return Difference(first.mean - second.mean, margin, min(first.n, second.n), paired=False)


@dataclass(frozen=True)
class Block:
    """One table: a data set, a model, and one kind of noise at several rates."""

    data: str
    backbone: str
    kind: str
    conditions: tuple[Condition, ...]
    methods: tuple[Method, ...]
    cells: dict[tuple[Method, Condition], Cell]

    def cell(self, method: Method, condition: Condition) -> Cell | None:
        """The tested repetitions, or None where there are none."""
        cell = self.cells.get((method, condition))
        return cell if cell is not None and cell.n else None

    def runs(self, method: Method, condition: Condition) -> tuple[RunResult, ...]:
        """All repetitions, tested or not."""
        cell = self.cells.get((method, condition))
        return cell.runs if cell is not None else ()

    def zero_shot(self, condition: Condition) -> float | None:
        """Mean zero-shot accuracy of the runs of a column."""
        values = [
            run.zero_shot.test.accuracy
            for method in self.methods
            for run in self.runs(method, condition)
            if run.zero_shot.test is not None
        ]
        return statistics.fmean(values) if values else None

    def method(self, loss: str) -> Method | None:
        """The first method that uses a loss."""
        return next((method for method in self.methods if method.canonical == loss), None)

    @property
    def all_runs(self) -> list[RunResult]:
        return [run for cell in self.cells.values() for run in cell.runs]

    @property
    def title(self) -> str:
        """What kind of noise the columns hold."""
        names = {
            "none": "Labels as they are",
            "symmetric": "Symmetric noise",
            "asymmetric": "Asymmetric noise",
            "pair": "Pair noise",
            "instance": "Instance-dependent noise",
            "column": "Labels from a column",
        }
        return names.get(self.kind, self.kind.replace("_", " ").capitalize())


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        return {
            name: text
            for key, part in value.items()
            for name, text in _flat(part, f"{prefix}{key}.").items()
        }
    text = "default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return {prefix[:-1]: text}


def _variants(results: Sequence[RunResult]) -> list[tuple[tuple[str, str], ...]]:
    """For every result, the settings that differ among the results."""
    flat = [_flat(result.config.model_dump(exclude=set(_NOT_METHOD))) for result in results]
    names = dict.fromkeys(name for fields in flat for name in fields)
    varying = [name for name in names if len({fields.get(name) for fields in flat}) > 1]
    return [tuple((name, fields.get(name, "none")) for name in varying) for fields in flat]


_ORDER = ("ce", "label_smoothing", "sce", "gce", "mae")


def _rank(method: Method) -> tuple[int, str]:
    """Baselines first in a fixed order, then others by name, DSPT last."""
    loss = method.canonical
    if loss in _ORDER:
        return _ORDER.index(loss), method.label
    return (len(_ORDER) + 1 if loss == "dspt" else len(_ORDER)), method.label


def _unique(values: Iterable[_T], key: Callable[[_T], Any]) -> tuple[_T, ...]:
    return tuple(sorted(dict.fromkeys(values), key=key))


def summarise(results: Sequence[RunResult]) -> list[Block]:
    """Sort results into tables, one for each data set, model and kind of noise.

    Runs on clean labels stand in every table of their data set. Runs that differ in anything but
    seeds are never averaged: what differs becomes part of the method's name.
    """
    settings: dict[tuple[str, str, str], list[RunResult]] = {}
    for result in results:
        key = (result.data.name, result.backbone.name, result.backbone.fingerprint)
        settings.setdefault(key, []).append(result)
    blocks = []
    for (data, backbone, _), group in settings.items():
        cells: dict[tuple[Method, Condition], list[RunResult]] = {}
        for result, variant in zip(group, _variants(group), strict=True):
            options = tuple(sorted(result.config.loss_options.items()))
            method = Method(result.config.loss, options, variant)
            cells.setdefault((method, condition_of(result)), []).append(result)
        kinds = list(dict.fromkeys(c.kind for _, c in cells if not c.clean)) or ["none"]
        for kind in kinds:
            part = {
                key: Cell(tuple(runs))
                for key, runs in cells.items()
                if key[1].clean or key[1].kind == kind
            }
            blocks.append(
                Block(
                    data=data,
                    backbone=backbone,
                    kind=kind,
                    conditions=_unique((c for _, c in part), lambda c: (c.position, c.text)),
                    methods=_unique((m for m, _ in part), _rank),
                    cells=part,
                )
            )
    return blocks


def block_titles(blocks: Sequence[Block]) -> list[str]:
    """For every table its kind of noise, and whatever else tells it from the others."""
    titles = []
    for block in blocks:
        parts = [block.data] if len({b.data for b in blocks}) > 1 else []
        parts += [block.backbone] if len({b.backbone for b in blocks}) > 1 else []
        titles.append(", ".join([*parts, block.title.lower() if parts else block.title]))
    return titles
