"""What noise is asked for: a typed specification and the text that writes it."""

from __future__ import annotations

import difflib
import math
from typing import Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal[
    "none",
    "symmetric",
    "asymmetric",
    "pair",
    "replace",
    "replace-pair",
    "instance",
    "matrix",
    "column",
]
KINDS: tuple[str, ...] = get_args(Kind)
RATED: tuple[str, ...] = KINDS[1:7]
"""The kinds that take a rate."""

GRAMMAR = (
    '"none", '
    + ", ".join(f'"{kind}:RATE"' for kind in RATED)
    + ' (RATE from 0 to 1), "matrix:FILE" or "column:NAME"'
)

_ALIASES = {
    "clean": "none",
    "sym": "symmetric",
    "symm": "symmetric",
    "uniform": "symmetric",
    "flip": "symmetric",
    "asym": "asymmetric",
    "asymm": "asymmetric",
    "pairflip": "pair",
    "balanced": "replace",
    "replacepair": "replace-pair",
    "replace_pair": "replace-pair",
    "idn": "instance",
    "instance-dependent": "instance",
    "transition": "matrix",
    "human": "column",
    "col": "column",
}


class NoiseSpec(BaseModel):
    """Where the given labels come from.

    ``none``: the data's own labels. ``symmetric``, ``asymmetric``, ``pair``: flips. ``replace``,
    ``replace-pair``: every class keeps its size, a part of its pictures is of other classes.
    ``instance``: depends on the picture. ``matrix``: drawn from a transition matrix in a file.
    ``column``: another label column of the data set, for example human labels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = "none"
    rate: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="share of wrong labels, for the kinds that take one",
    )
    column: str | None = Field(default=None, min_length=1, description="name, for kind column")
    matrix: str | None = Field(
        default=None, min_length=1, description="CSV or JSON file, for kind matrix"
    )
    matrix_sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="of that file when the run was set up"
    )

    @model_validator(mode="after")
    def _check_consistent(self) -> NoiseSpec:
        if self.kind not in RATED and self.rate != 0:
            raise ValueError(f'noise "{self.kind}" takes no rate; allowed: {GRAMMAR}')
        for kind, field, value, what in (
            ("column", "column", self.column, "the name of the column"),
            ("matrix", "matrix", self.matrix, "a file"),
        ):
            if self.kind == kind and value is None:
                raise ValueError(f'noise "{kind}" needs {what}; allowed: {GRAMMAR}')
            if self.kind != kind and value is not None:
                raise ValueError(f'noise "{self.kind}" takes no {field}; allowed: {GRAMMAR}')
        if self.kind != "matrix" and self.matrix_sha256 is not None:
            raise ValueError(f'noise "{self.kind}" takes no matrix_sha256')
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
        if kind == "matrix" and argument:
            return cls(kind="matrix", matrix=argument)
        if kind in RATED:
            rate = _as_float(argument)
            if rate is not None and 0 <= rate <= 1:
                return cls(kind=cast(Kind, kind), rate=rate)
        guess = _suggestion(text)
        hint = f'; did you mean "{guess}"?' if guess else ""
        raise ValueError(f"no such noise: {text!r}; allowed: {GRAMMAR}{hint}")

    def __str__(self) -> str:
        """The text that :meth:`parse` reads. It names a matrix file but not its content."""
        if self.kind == "none":
            return "none"
        if self.kind == "column":
            return f"column:{self.column}"
        if self.kind == "matrix":
            return f"matrix:{self.matrix}"
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
        near = difflib.get_close_matches(word, KINDS, n=1)
        if not near:
            return None
        kind_guess = near[0]
    if kind_guess == "none":
        return "none"
    argument = argument.strip()
    if kind_guess not in RATED:
        stand_in = "NAME" if kind_guess == "column" else "FILE"
        return f"{kind_guess}:{argument if argument and argument.isprintable() else stand_in}"
    rate = _as_float(argument.rstrip("% "))
    if rate is not None and (argument.endswith("%") or rate > 1):
        rate /= 100
    if rate is None or not 0 <= rate <= 1:
        rate = 0.5
    return f"{kind_guess}:{rate!r}"
