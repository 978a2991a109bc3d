"""Test pictures for a data set that has none of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dspt.seeding import keyed_order


def hold_out(
    labels: np.ndarray, indices: np.ndarray, share: float, keys: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Split ``indices`` into training and test pictures, class by class.

    Always the same for the same files: the seed is fixed, so runs with different seeds are tested
    on the same pictures. Every class keeps at least one picture for training and, if it has two or
    more, gives at least one for testing.

    Args:
        labels: labels of the whole data set, int64 [N].
        indices: pictures to split, int64 [M].
        share: of each class, 0 < share < 1; rounded to the nearest count.
        keys: ids of ``indices``, length M.

    Returns:
        (train, test): both sorted, together exactly ``indices``.
    """
    picked = labels[indices]
    test = np.zeros(len(indices), dtype=bool)
    for label in np.unique(picked):
        members = np.flatnonzero(picked == label)
        count = min(max(int(share * len(members) + 0.5), 1), len(members) - 1)
        order = keyed_order(0, "holdout", [keys[int(m)] for m in members])
        test[members[order[:count]]] = True
    return np.sort(indices[~test]), np.sort(indices[test])
