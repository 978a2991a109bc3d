"""Label noise: which labels are made wrong, and into what.

Protocol A, "flip" (NLPrompt, Pan et al. 2025): over the whole training set exactly int(rate * N)
labels change; counts per class vary. Which ones and into what is a pure function of (seed, sample
id): it does not depend on the order of the samples, on the rate, or on anything drew before. The
wrong samples at a lower rate are therefore a subset of those at a higher rate, with the same wrong
labels, so a sweep over rates adds noise and never redraws it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dspt.errors import UserError
from dspt.seeding import keyed_order, keyed_uint64

GRAMMAR = '"none", "symmetric:RATE", "asymmetric:RATE" (RATE from 0 to 1) or "column:NAME"'

_ALIASES = {
    "clean": "none",
    "sym": "symmetric",
    "symm": "symmetric",
    "uniform": "symmetric",
    "asym": "asymmetric",
    "asymm": "asymmetric",
    "pair": "asymmetric",
    "pairflip": "asymmetric",
    "flip": "symmetric",
    "human": "column",
    "col": "column",
}
_KINDS = ("none", "symmetric", "asymmetric", "column")


class NoiseSpec(BaseModel):
    """Where the given labels come from.

    ``none``: the data's own labels. ``symmetric``: wrong labels uniform over the other C-1 classes.
    ``asymmetric``: class y becomes (y+1) mod C. ``column``: another label column of the data set,
    for example human labels. ``rate`` is the share of wrong labels of the two flips.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["none", "symmetric", "asymmetric", "column"] = "none"
    rate: float = Field(
        default=0.0, ge=0, le=1, allow_inf_nan=False, description="share of wrong labels of a flip"
    )
    column: str | None = Field(default=None, min_length=1, description="name, for kind column")

    @model_validator(mode="after")
    def _check_consistent(self) -> NoiseSpec:
        if self.kind in ("none", "column") and self.rate != 0:
            raise ValueError(f'noise "{self.kind}" takes no rate; allowed: {GRAMMAR}')
        if self.kind == "column" and self.column is None:
            raise ValueError('noise "column" needs the name of the column, as in "column:NAME"')
        if self.kind != "column" and self.column is not None:
            raise ValueError(f'noise "{self.kind}" takes no column; allowed: {GRAMMAR}')
        return self

    @classmethod
    def parse(cls, text: str) -> NoiseSpec:
        """Read the grammar that ``str(spec)`` writes.

        Raises:
            ValueError: in one line that says what is allowed and, for a near miss, what was meant.
        """
        kind, colon, argument = text.partition(":")
        if kind == "none" and not colon:
            return cls()
        if kind == "column" and argument:
            return cls(kind="column", column=argument)
        if kind in ("symmetric", "asymmetric"):
            rate = _as_float(argument)
            if rate is not None and 0 <= rate <= 1:
                return cls(kind="symmetric" if kind == "symmetric" else "asymmetric", rate=rate)
        guess = _suggestion(text)
        hint = f'; did you mean "{guess}"?' if guess else ""
        raise ValueError(f"no such noise: {text!r}; allowed: {GRAMMAR}{hint}")

    def __str__(self) -> str:
        if self.kind == "none":
            return "none"
        if self.kind == "column":
            return f"column:{self.column}"
        return f"{self.kind}:{abs(self.rate)!r}"  # abs: -0.0 is 0.0


def _as_float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _suggestion(text: str) -> str | None:
    """The nearest text of the grammar, or None when nothing is near."""
    kind, _, argument = text.strip().partition(":")
    word = kind.strip().lower()
    kind_guess = _ALIASES.get(word)
    if kind_guess is None:
        near = difflib.get_close_matches(word, _KINDS, n=1)
        if not near:
            return None
        kind_guess = near[0]
    if kind_guess == "none":
        return "none"
    argument = argument.strip()
    if kind_guess == "column":
        return f"column:{argument or 'NAME'}"
    rate = _as_float(argument.rstrip("% "))
    if rate is not None and (argument.endswith("%") or rate > 1):
        rate /= 100
    if rate is None or not 0 <= rate <= 1:
        rate = 0.5
    return f"{kind_guess}:{rate!r}"


def apply_noise(
    labels: np.ndarray,
    spec: NoiseSpec,
    num_classes: int,
    seed: int,
    keys: Sequence[object],
    columns: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """The given labels of a training set.

    Args:
        labels: true labels, integers in [0, num_classes), shape [N]. Not changed.
        spec: what noise.
        num_classes: C.
        seed: draws the wrong labels; not used by ``none`` and ``column``.
        keys: the samples' ids, shape [N], all different as text.
        columns: further label columns of these samples, each [N] with -1 where missing.

    Returns:
        Array of ``int64``, shape [N]. For a flip exactly int(rate * N) entries differ from labels.

    Raises:
        UserError: a flip with fewer than two classes; a column that does not exist, or that has no
            valid label for one of the samples.
        ValueError: arguments that do not fit together (a bug of the caller).
    """
    true: np.ndarray = np.array(labels, dtype=np.int64)  # a copy
    _check_arguments(true, num_classes, keys)
    if spec.kind == "none":
        return true
    if spec.kind == "column":
        return _from_column(spec.column or "", true, num_classes, keys, columns or {})
    if num_classes < 2:
        raise UserError(
            f"noise {spec} needs at least two classes, the data has {num_classes}; use noise none"
        )
    # 0.29 * 100 is 28.999999999999996 in binary floating point; the user means 29.
    wrong = keyed_order(seed, "noise/which", keys)[: int(spec.rate * len(true) + 1e-9)]
    given: np.ndarray = true.copy()
    if spec.kind == "asymmetric":
        given[wrong] = (true[wrong] + 1) % num_classes
        return given
    numbers = keyed_uint64(seed, "noise/to", [keys[i] for i in wrong])
    other: np.ndarray = (numbers % np.uint64(num_classes - 1)).astype(np.int64)
    given[wrong] = other + (other >= true[wrong])  # step over the true class
    return given


def _check_arguments(true: np.ndarray, num_classes: int, keys: Sequence[object]) -> None:
    if true.ndim != 1 or len(keys) != len(true):
        raise ValueError(f"labels {true.shape} and {len(keys)} keys must be two lists of length N")
    if true.size and not (true.min() >= 0 and true.max() < num_classes):
        raise ValueError(f"labels must lie in [0, {num_classes}), got {true.min()} to {true.max()}")
    if len({str(key) for key in keys}) != len(true):
        raise ValueError("keys must all be different: equal ones would get the same noise")


def _from_column(
    name: str,
    true: np.ndarray,
    num_classes: int,
    keys: Sequence[object],
    columns: Mapping[str, np.ndarray],
) -> np.ndarray:
    if name not in columns:
        known = ", ".join(sorted(columns)) or "none"
        near = difflib.get_close_matches(name, list(columns), n=1)
        hint = f'; did you mean "column:{near[0]}"?' if near else ""
        raise UserError(
            f'the data has no label column "{name}" beside its labels; label columns found: '
            f"{known}{hint}"
        )
    given: np.ndarray = np.array(columns[name], dtype=np.int64)
    if given.shape != true.shape:
        raise ValueError(f'column "{name}" has shape {given.shape}, labels have {true.shape}')
    bad = np.flatnonzero((given < 0) | (given >= num_classes))
    if bad.size:
        raise UserError(
            f'column "{name}" has no valid label for {bad.size} of {len(given)} training samples, '
            f"first {keys[bad[0]]}; fill it in or drop these rows"
        )
    return given


def transition_counts(true: np.ndarray, given: np.ndarray, num_classes: int) -> np.ndarray:
    """How often each true class was given each label.

    Args:
        true: labels in [0, num_classes), shape [N].
        given: labels in [0, num_classes), shape [N].
        num_classes: C.

    Returns:
        Array of ``int64``, shape [C, C]: rows are true classes, columns given labels.

    Raises:
        ValueError: labels outside the range or of different lengths.
    """
    true = np.asarray(true, dtype=np.int64)
    given = np.asarray(given, dtype=np.int64)
    if true.ndim != 1 or true.shape != given.shape:
        raise ValueError(f"labels must have one shape [N], got {true.shape} and {given.shape}")
    for labels in (true, given):
        if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
            raise ValueError(f"labels must lie in [0, {num_classes})")
    flat = np.bincount(true * num_classes + given, minlength=num_classes * num_classes)
    return flat.reshape(num_classes, num_classes).astype(np.int64)
