"""Labels that the data set itself brings, for example human ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dspt.errors import UserError, did_you_mean


def from_column(
    name: str,
    true: np.ndarray,
    num_classes: int,
    keys: Sequence[object],
    columns: Mapping[str, np.ndarray],
) -> np.ndarray:
    """The labels of a column.

    Args:
        name: of the column.
        true: labels taken as true, int64 [N].
        num_classes: C.
        keys: the samples' ids, [N].
        columns: label columns, each [N] with -1 where missing.

    Returns:
        The given labels, int64 [N].

    Raises:
        UserError: no such column, or no valid label in it for one of the samples.
        ValueError: a column of another length (a bug of the caller).
    """
    if name not in columns:
        known = ", ".join(sorted(columns)) or "none"
        named = [f"column:{column}" for column in columns]
        hint = did_you_mean(f"column:{name}", named, cutoff=0.8)
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
