"""Labels drawn from an explicit transition matrix that a file holds."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dspt.errors import UserError
from dspt.noise.draws import by_inverse_cdf, keyed_uniform
from dspt.noise.spec import NoiseSpec

TOLERANCE = 1e-6
"""How far the sum of a row may be from 1."""

LARGEST_FILE = 2**30
"""Bytes of a file that are still read: a matrix of 10,000 classes."""


def resolve(spec: NoiseSpec) -> NoiseSpec:
    """Pin what a specification refers to, so that it says all that decides the labels.

    A ``matrix`` gets the SHA-256 of its file, which is checked on the way. One that has it already,
    and every other kind, is returned as it is, without a look at any file.

    Raises:
        UserError: when the file cannot be read or holds no row-stochastic square matrix.
    """
    if spec.kind != "matrix" or spec.matrix_sha256 is not None:
        return spec
    content = _read(str(spec.matrix))
    _parse(str(spec.matrix), content)
    return spec.model_copy(update={"matrix_sha256": hashlib.sha256(content).hexdigest()})


def from_matrix(
    true: np.ndarray, spec: NoiseSpec, num_classes: int, seed: int, keys: Sequence[object]
) -> np.ndarray:
    """Draw every given label from the row of its true class, each sample for itself.

    Args:
        true: labels, int64 [N].
        spec: of kind ``matrix``, resolved.
        num_classes: C.
        seed: any integer.
        keys: the samples' ids, [N].

    Returns:
        The given labels, int64 [N].

    Raises:
        UserError: the file cannot be read, is not what the specification pins, or its matrix does
            not have C rows.
        ValueError: a specification that was not resolved (a bug of the caller).
    """
    if spec.matrix_sha256 is None:
        raise ValueError(f"noise {spec} must be resolved first: dspt.noise.resolve(spec)")
    content = _read(str(spec.matrix))
    found = hashlib.sha256(content).hexdigest()
    if found != spec.matrix_sha256:
        raise UserError(
            f"noise {spec}: the file has changed since the run was set up (SHA-256 "
            f"{spec.matrix_sha256[:12]} then, {found[:12]} now); restore it or start a new run"
        )
    matrix = _parse(str(spec.matrix), content)
    if len(matrix) != num_classes:
        raise UserError(
            f"noise {spec}: the matrix has {len(matrix)} rows, the data {num_classes} classes; "
            "write one row and one column per class, in the order of the class names"
        )
    uniform = keyed_uniform(seed, "noise/matrix", keys)
    given: np.ndarray = true.copy()
    for label in np.unique(true):
        rows = np.flatnonzero(true == label)
        given[rows] = by_inverse_cdf(matrix[label : label + 1], uniform[rows])
    return given


def _read(file: str) -> bytes:
    path = Path(file)
    if path.suffix.lower() not in (".csv", ".json"):
        raise _refusal(file, "must be a .csv or .json file, and its name must end so")
    try:
        if path.exists() and not path.is_file():  # a device would be read for ever
            raise _refusal(file, "is no file")
        if path.stat().st_size > LARGEST_FILE:
            raise _refusal(file, f"is larger than {LARGEST_FILE >> 30} GiB")
        return path.read_bytes()
    except UserError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = getattr(error, "strerror", None) or error
        raise _refusal(file, f"cannot be read ({reason})") from None


def _refusal(file: str, what: str) -> UserError:
    shown = file if file.isprintable() else ascii(file)
    return UserError(f"matrix:{shown}: {what}")


def _parse(file: str, content: bytes) -> np.ndarray:
    """The checked matrix, float64 [C, C]: row y holds the chances of the labels of true class y."""
    suffix = Path(file).suffix.lower()
    try:
        text = content.decode("utf-8-sig")
        rows = json.loads(text) if suffix == ".json" else _csv_rows(text)
    except (ValueError, csv.Error, RecursionError) as error:
        raise _refusal(
            file, f"no {suffix[1:].upper()} file ({error}); save it as UTF-8 text"
        ) from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        raise _refusal(file, "must hold a matrix, one list of numbers per class")
    matrix = []
    for number, row in enumerate(rows, 1):
        where = f"row {number} of {len(rows)}"
        if len(row) != len(rows):
            raise _refusal(file, f"{where} has {len(row)} entries; the matrix must be square")
        values = [_as_number(entry) for entry in row]
        for column, value in enumerate(values):
            if not 0 <= value <= 1:
                raise _refusal(
                    file,
                    f"{where}, entry {column + 1} is {str(row[column])[:40]!r}; must be a number "
                    "from 0 to 1",
                )
        total = math.fsum(values)
        if abs(total - 1) > TOLERANCE:
            raise _refusal(file, f"{where} sums to {total:.9g}; every row must sum to 1")
        matrix.append(values)
    return np.array(matrix, dtype=np.float64)


def _csv_rows(text: str) -> list[list[str]]:
    rows = csv.reader(io.StringIO(text, newline=""))
    return [row for row in rows if any(cell.strip() for cell in row)]


def _as_number(entry: object) -> float:
    """The entry as a number; not-a-number, which no range holds, when it is none."""
    if isinstance(entry, bool) or not isinstance(entry, (str, int, float)):
        return math.nan
    try:
        return float(entry)
    except (ValueError, OverflowError):
        return math.nan
