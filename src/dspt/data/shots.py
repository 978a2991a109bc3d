"""The few-shot draw: k pictures of every class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dspt.errors import UserError
from dspt.seeding import keyed_uint64


def draw_shots(
    labels: np.ndarray,
    indices: np.ndarray,
    shots: int | None,
    seed: int,
    keys: Sequence[str],
    class_names: Sequence[str] | None = None,
) -> np.ndarray:
    """Draw ``shots`` pictures of every class by its true label, before any noise.

    The draw is a pure function of (seed, key) within a class: it depends neither on the order of
    the files nor on a noise setting, and the draw with fewer shots is part of the one with more.
    A class with fewer pictures gives all it has.

    Args:
        labels: true labels of the whole data set, int64 [N].
        indices: pictures to draw from (the training split), int64 [M].
        shots: pictures per class, at least 1; None takes all of ``indices``.
        seed: any integer, 0 included.
        keys: ids of ``indices``, length M, all different.
        class_names: names of all C classes; without them C is the highest label plus one, and
            messages name classes by number.

    Returns:
        The drawn part of ``indices``, sorted ascending, int64 [at most C * shots].

    Raises:
        UserError: shots below 1, or a class without any picture in ``indices``.
        ValueError: keys that do not fit the indices (a bug of the caller).
    """
    indices = np.asarray(indices, dtype=np.int64)
    if len(keys) != len(indices) or len(set(keys)) != len(indices):
        raise ValueError(f"{len(indices)} different keys wanted, one per index")
    if shots is not None and shots < 1:
        raise UserError(f"shots must be at least 1, got {shots}; leave them out to take all")
    drawn_from = np.asarray(labels)[indices]
    num_classes = (
        len(class_names) if class_names is not None else int(np.max(labels, initial=-1)) + 1
    )
    counts = np.bincount(drawn_from, minlength=num_classes)
    empty = np.flatnonzero(counts == 0)
    if empty.size:
        names = [class_names[c] if class_names is not None else f"number {c}" for c in empty[:5]]
        more = f" and {empty.size - 5} more" if empty.size > 5 else ""
        raise UserError(
            f"no training picture of class {', '.join(names)}{more}; add pictures or remove the "
            "class from the data"
        )
    if shots is None:
        return np.sort(indices)
    return draw_up_to(labels, indices, shots, seed, keys, "shots")


def draw_up_to(
    labels: np.ndarray,
    indices: np.ndarray,
    most: int,
    seed: int,
    keys: Sequence[str],
    purpose: str,
) -> np.ndarray:
    """At most ``most`` pictures of every class; a class may be empty.

    Args:
        labels, indices, seed, keys: as for :func:`draw_shots`.
        purpose: what they are for; draws for different purposes are independent.

    Returns:
        The drawn part of ``indices``, sorted ascending, int64.
    """
    drawn_from = np.asarray(labels)[indices]
    # Sort by class and within a class by hash; then take the first of each class.
    order = np.lexsort((keyed_uint64(seed, purpose, keys), drawn_from))
    counts = np.bincount(drawn_from)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    return np.sort(indices[order[rank < most]])
