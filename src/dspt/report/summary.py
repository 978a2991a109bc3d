"""Many results made into tables: which methods, which noise, what spread over seeds."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

from dspt.noise.spec import KINDS, RATED
from dspt.report.palette import canonical_method, method_label
from dspt.result import Evaluation, RunResult

_T = TypeVar("_T")

Metric = Literal["accuracy", "calibration"]
METRICS: tuple[str, ...] = get_args(Metric)
Seeds = tuple[int, int, int]
"""Start, draw and noise seed: which repetition a run is."""

# Fields that say which repetition or which table a run belongs to, or that decide nothing.
_NOT_METHOD = (
    "data",
    "backbone",
    "pretrained",
    "precision",
    "method",
    "method_options",
    "data_root",
    "classes",
    "shots",
    "noise",
    "seed",
    "draw_seed",
    "noise_seed",
    "feature_precision",
    "evidence",
    "transfer",
    "template",
    "label_column",
    "image_column",
    "split_column",
    "holdout",
)
# What a method without a prompt does not look at.
_PROMPT_ONLY = ("prompt", "recipe", "views")


def t_quantile(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t."""
    from scipy.special import stdtrit  # type: ignore[import-untyped,unused-ignore]

    return float(stdtrit(degrees, 0.975))


def option_text(value: float | str) -> str:
    """A method's option as a reader should see it."""
    return value if isinstance(value, str) else f"{value:g}"


@dataclass(frozen=True)
class Method:
    """A row of the table: a method with its options, and what else sets it apart."""

    key: str
    options: tuple[tuple[str, float | str], ...] = ()
    variant: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The method alone, for running text."""
        return method_label(self.key)

    @property
    def label(self) -> str:
        """The method with everything that tells it from its neighbours."""
        details = [f"{key} = {option_text(value)}" for key, value in self.options]
        details += [f"{key.rpartition('.')[2]} = {value}" for key, value in self.variant]
        return f"{self.name} ({', '.join(details)})" if details else self.name

    @property
    def canonical(self) -> str:
        return canonical_method(self.key)


@dataclass(frozen=True)
class Condition:
    """A column of the table: how the training labels were spoilt."""

    kind: str
    rate: float | None
    text: str

    @property
    def clean(self) -> bool:
        return self.kind == "none"

    @property
    def position(self) -> tuple[int, float, str]:
        """Sorts columns: clean labels, then kinds as the noise page lists them, then rates."""
        kind = KINDS.index(self.kind) if self.kind in KINDS else len(KINDS)
        return kind, math.inf if self.rate is None else self.rate, self.text

    @property
    def label(self) -> str:
        """Within one kind of noise."""
        return self.text if self.rate is None else f"{100 * self.rate:g}\u00a0%"

    @property
    def full_label(self) -> str:
        """Among several kinds of noise."""
        if self.clean:
            return "clean"
        return self.text if self.rate is None else f"{self.kind} {self.label}"


def condition_of(result: RunResult) -> Condition:
    """The noise a run was asked for; every kind at rate 0 is the data's own labels."""
    spec = result.config.noise
    if spec.kind == "none" or (spec.kind in RATED and spec.rate == 0):
        return Condition("none", 0.0, "none")
    if spec.kind == "matrix":
        name = re.split(r"[/\\]", spec.matrix or "")[-1]
        return Condition(spec.kind, None, f"matrix:{name} {(spec.matrix_sha256 or '')[:8]}".strip())
    return Condition(spec.kind, spec.rate if spec.kind in RATED else None, str(spec))


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


def measured(evaluation: Evaluation | None, metric: Metric) -> float | None:
    """The accuracy or the calibration error of an evaluation, as a fraction."""
    if evaluation is None:
        return None
    return evaluation.accuracy if metric == "accuracy" else evaluation.calibration_error


def seeds_of(result: RunResult) -> Seeds:
    """Which repetition a run is."""
    return result.config.seed, result.config.draw_seed, result.config.noise_seed


@dataclass(frozen=True)
class Cell:
    """The repetitions of one method under one condition, each with seeds of its own."""

    runs: tuple[RunResult, ...]
    metric: Metric = "accuracy"

    @cached_property
    def by_seeds(self) -> dict[Seeds, float]:
        """What was measured on the test pictures, repetition by repetition."""
        return {
            seeds_of(run): value
            for run in self.runs
            if (value := measured(run.final, self.metric)) is not None
        }

    @property
    def n(self) -> int:
        return len(self.by_seeds)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.by_seeds.values())

    @property
    def std(self) -> float | None:
        return statistics.stdev(self.by_seeds.values()) if self.n > 1 else None

    @cached_property
    def gain(self) -> Difference | None:
        """Minus the same run's zero-shot model."""
        gains = [
            self.by_seeds[seeds_of(run)] - zero
            for run in self.runs
            if seeds_of(run) in self.by_seeds
            and (zero := measured(run.zero_shot.test, self.metric)) is not None
        ]
        return mean_difference(gains) if gains else None


def mean_difference(values: Sequence[float]) -> Difference:
    """The mean of paired differences with its 95 % t-interval; no interval for a single one."""
    margin = None
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
        margin = t_quantile(len(values) - 1) * error
    return Difference(statistics.fmean(values), margin, len(values), paired=True)


def paired_difference(
    first: Mapping[Seeds, float], second: Mapping[Seeds, float]
) -> Difference | None:
    """First minus second over the seeds that both have; None when they share none."""
    shared = sorted(first.keys() & second.keys())
    return mean_difference([first[seeds] - second[seeds] for seeds in shared]) if shared else None


def difference(first: Cell, second: Cell) -> Difference:
    """First minus second; over matching seeds where every run has its counterpart."""
    if first.by_seeds.keys() == second.by_seeds.keys():
        paired = paired_difference(first.by_seeds, second.by_seeds)
        if paired is not None:
            return paired
    margin = None
    if first.std is not None and second.std is not None:
        error = math.sqrt(first.std**2 / first.n + second.std**2 / second.n)
        margin = t_quantile(min(first.n, second.n) - 1) * error
    return Difference(first.mean - second.mean, margin, min(first.n, second.n), paired=False)


ALL_KINDS = "all"


@dataclass(frozen=True)
class Block:
    """One table: a data set, a model, a number of shots, and noise of one kind or of all kinds.

    Attributes:
        data: name of the data set.
        backbone: name of the model.
        shots: pictures per class; None means all.
        kind: of the noise, or ``ALL_KINDS``.
        setting: (name, value) of whatever else sets it apart from other tables of the same data,
            model and shots.
        conditions: the columns.
        methods: the rows.
        cells: what was run.
        metric: what the cells measure.
        repeats: runs left out because one with the same settings and seeds is in already.
    """

    data: str
    backbone: str
    shots: int | None
    kind: str
    setting: tuple[tuple[str, str], ...]
    conditions: tuple[Condition, ...]
    methods: tuple[Method, ...]
    cells: dict[tuple[Method, Condition], Cell]
    metric: Metric = "accuracy"
    repeats: tuple[RunResult, ...] = ()

    def cell(self, method: Method, condition: Condition) -> Cell | None:
        """The tested repetitions, or None where there are none."""
        cell = self.cells.get((method, condition))
        return cell if cell is not None and cell.n else None

    def runs(self, method: Method, condition: Condition) -> tuple[RunResult, ...]:
        """All repetitions, tested or not."""
        cell = self.cells.get((method, condition))
        return cell.runs if cell is not None else ()

    def condition_runs(self, condition: Condition) -> list[RunResult]:
        """All runs of a column."""
        return [run for method in self.methods for run in self.runs(method, condition)]

    def zero_shot_by_seeds(self, condition: Condition) -> dict[Seeds, float]:
        """What the runs of a column measured of the untrained model."""
        return {
            seeds_of(run): value
            for run in self.condition_runs(condition)
            if (value := measured(run.zero_shot.test, self.metric)) is not None
        }

    def zero_shot(self, condition: Condition) -> float | None:
        """Mean of the untrained model over the runs of a column."""
        values = self.zero_shot_by_seeds(condition).values()
        return statistics.fmean(values) if values else None

    def realised_rate(self, condition: Condition) -> float | None:
        """Mean share of labels that were wrong in fact; None where the truth is unknown."""
        rates = {
            seeds_of(run): run.noise.realised_rate
            for run in self.condition_runs(condition)
            if run.noise.realised_rate is not None
        }
        return statistics.fmean(rates.values()) if rates else None

    def method(self, key: str) -> Method | None:
        """The first row of a method."""
        return next((method for method in self.methods if method.canonical == key), None)

    @property
    def rivals(self) -> tuple[Method, ...]:
        """All rows but the untrained model, which every run measures anyway."""
        known = any(self.zero_shot(condition) is not None for condition in self.conditions)
        return tuple(m for m in self.methods if not known or m.canonical != "zero_shot")

    @property
    def all_runs(self) -> list[RunResult]:
        return [run for cell in self.cells.values() for run in cell.runs]

    @property
    def shots_text(self) -> str:
        return "all labels" if self.shots is None else plural(self.shots, "shot")

    @property
    def title(self) -> str:
        """What kind of noise the columns hold."""
        return _TITLES.get(self.kind, self.kind.replace("_", " ").capitalize())

    def part(self, kind: str) -> Block:
        """Only the columns of one kind of noise, and those of clean labels."""
        cells = {
            key: cell for key, cell in self.cells.items() if key[1].clean or key[1].kind == kind
        }
        return replace(
            self,
            kind=kind,
            conditions=tuple(c for c in self.conditions if any(c == key[1] for key in cells)),
            methods=tuple(m for m in self.methods if any(m == key[0] for key in cells)),
            cells=cells,
        )


_TITLES = {
    "none": "Labels as they are",
    "symmetric": "Symmetric noise",
    "asymmetric": "Asymmetric noise",
    "pair": "Pair noise",
    "replace": "Balanced replacement",
    "replace-pair": "Balanced replacement, pairs",
    "instance": "Instance-dependent noise",
    "matrix": "Noise from a matrix",
    "column": "Labels from a column",
}


def plural(number: int, word: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{number} {word}{'' if number == 1 else 's'}"


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
    """For every result, the settings of its method that differ among the results."""
    from dspt.methods import trains_prompt

    flat = []
    for result in results:
        left_out = set(_NOT_METHOD)
        if not trains_prompt(result.config.method):
            left_out.update(_PROMPT_ONLY)
        flat.append(_flat(result.config.model_dump(exclude=left_out)))
    values: dict[str, set[str]] = {}
    for fields in flat:
        for name, text in fields.items():
            values.setdefault(name, set()).add(text)
    varying = [name for name, texts in values.items() if len(texts) > 1]
    return [tuple((name, fields[name]) for name in varying if name in fields) for fields in flat]


_ORDER = (
    "zero_shot",
    "zero_shot_ensemble",
    "linear_probe",
    "ce",
    "label_smoothing",
    "sce",
    "nce_rce",
    "phuber_ce",
    "gce",
    "mae",
    "elr",
    "joapr",
    "nlprompt",
)


def _rank(method: Method) -> tuple[int, str]:
    """Baselines first in a fixed order, then others by name, DSPT last."""
    key = method.canonical
    if key in _ORDER:
        return _ORDER.index(key), method.label
    return (len(_ORDER) + 1 if key == "dspt" else len(_ORDER)), method.label


def _unique(values: Iterable[_T], key: Callable[[_T], Any]) -> tuple[_T, ...]:
    return tuple(sorted(dict.fromkeys(values), key=key))


def _setting(result: RunResult) -> dict[str, str]:
    """What two runs must share to stand in one table, besides data set, model and shots."""
    config, backbone = result.config, result.backbone
    return {
        "weights": backbone.pretrained or "",
        "fingerprint of the weights": backbone.fingerprint[:8],
        "precision": backbone.precision,
        "features": config.feature_precision,
        "fingerprint of the data": result.data.fingerprint[:8],
        "template": result.zero_shot.template,
    }


def tabulate(results: Sequence[RunResult], metric: Metric = "accuracy") -> list[Block]:
    """Sort results into tables, one for each data set, model, number of shots and setting.

    Runs that differ in anything but seeds are never averaged: what differs becomes part of the
    method's name, and a run that repeats the seeds of another is left out.
    """
    groups: dict[tuple[Any, ...], list[RunResult]] = {}
    for result in results:
        place = (result.data.name, result.backbone.name, result.data.shots)
        groups.setdefault((place, tuple(_setting(result).items())), []).append(result)
    blocks = []
    for (place, setting), group in groups.items():
        others = [dict(other) for where, other in groups if where == place]
        apart = tuple((k, v) for k, v in setting if any(other[k] != v for other in others))
        if "weights" in dict(apart):  # a tag says more than a fingerprint
            apart = tuple(pair for pair in apart if pair[0] != "fingerprint of the weights")
        cells: dict[tuple[Method, Condition], dict[Seeds, RunResult]] = {}
        repeats = []
        for result, variant in zip(group, _variants(group), strict=True):
            options = tuple(sorted(result.config.method_options.items()))
            method = Method(result.config.method, options, variant)
            cell = cells.setdefault((method, condition_of(result)), {})
            if cell.setdefault(seeds_of(result), result) is not result:
                repeats.append(result)
        data, backbone, shots = place
        blocks.append(
            Block(
                data=data,
                backbone=backbone,
                shots=shots,
                kind=ALL_KINDS,
                setting=apart,
                conditions=_unique((c for _, c in cells), lambda c: c.position),
                methods=_unique((m for m, _ in cells), _rank),
                cells={key: Cell(tuple(runs.values()), metric) for key, runs in cells.items()},
                metric=metric,
                repeats=tuple(repeats),
            )
        )
    return blocks


def summarise(results: Sequence[RunResult], metric: Metric = "accuracy") -> list[Block]:
    """``tabulate``, with a table of its own for every kind of noise.

    Runs on clean labels stand in every table of their data set.
    """
    return [
        block.part(kind)
        for block in tabulate(results, metric)
        for kind in dict.fromkeys(c.kind for c in block.conditions if not c.clean) or ("none",)
    ]


def block_titles(blocks: Sequence[Block]) -> list[str]:
    """For every table its kind of noise, and whatever else tells it from the others."""
    titles = []
    for block in blocks:
        parts = [block.data] if len({b.data for b in blocks}) > 1 else []
        parts += [block.backbone] if len({b.backbone for b in blocks}) > 1 else []
        parts += [block.shots_text] if len({b.shots for b in blocks}) > 1 else []
        parts += [f"{name} {value}" for name, value in block.setting]
        titles.append(", ".join([*parts, block.title.lower() if parts else block.title]))
    return titles
