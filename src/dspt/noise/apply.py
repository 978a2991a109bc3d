"""The one function that makes given labels out of true ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dspt.errors import UserError
from dspt.noise.column import from_column
from dspt.noise.flips import asymmetric, pair, symmetric
from dspt.noise.instance import instance
from dspt.noise.matrix import from_matrix
from dspt.noise.replace import replace, replace_pair
from dspt.noise.spec import NoiseSpec

_BY_RATE = {
    "symmetric": symmetric,
    "asymmetric": asymmetric,
    "pair": pair,
    "replace": replace,
    "replace-pair": replace_pair,
}


def apply_noise(
    labels: np.ndarray,
    spec: NoiseSpec,
    num_classes: int,
    seed: int,
    keys: Sequence[object],
    columns: Mapping[str, np.ndarray] | None = None,
    *,
    features: np.ndarray | Callable[[], np.ndarray] | None = None,
) -> np.ndarray:
    """The given labels of a training set.

    Args:
        labels: true labels, integers in [0, num_classes), shape [N]. Not changed.
        spec: what noise; a ``matrix`` must be resolved (:func:`dspt.noise.resolve`).
        num_classes: C.
        seed: draws the wrong labels; not used by ``none`` and ``column``.
        keys: the samples' ids, shape [N], all different as text.
        columns: further label columns of these samples, each [N] with -1 where missing.
        features: image features of these samples, [N, D], or a function that returns them; asked
            for by ``instance`` alone.

    Returns:
        Array of ``int64``, shape [N].

    Raises:
        UserError: fewer than two classes; a noise that these labels, this column or this matrix
            file cannot have.
        ValueError: arguments that do not fit together (a bug of the caller).
    """
    true: np.ndarray = np.array(labels, dtype=np.int64)  # a copy
    _check_arguments(true, num_classes, keys)
    if spec.kind == "none":
        return true
    if spec.kind == "column":
        return from_column(spec.column or "", true, num_classes, keys, columns or {})
    if num_classes < 2:
        raise UserError(
            f"noise {spec} needs at least two classes, the data has {num_classes}; use noise none"
        )
    if spec.kind == "matrix":
        return from_matrix(true, spec, num_classes, seed, keys)
    if spec.kind == "instance":
        if features is None:
            raise ValueError(f"noise {spec} needs the image features of the samples")
        table = features() if callable(features) else features
        return instance(true, spec.rate, num_classes, seed, keys, table)
    return _BY_RATE[spec.kind](true, spec.rate, num_classes, seed, keys)


def _check_arguments(true: np.ndarray, num_classes: int, keys: Sequence[object]) -> None:
    if true.ndim != 1 or len(keys) != len(true):
        raise ValueError(f"labels {true.shape} and {len(keys)} keys must be two lists of length N")
    if true.size and not (true.min() >= 0 and true.max() < num_classes):
        raise ValueError(f"labels must lie in [0, {num_classes}), got {true.min()} to {true.max()}")
    if len({str(key) for key in keys}) != len(true):
        raise ValueError("keys must all be different: equal ones would get the same noise")
