"""How hard each loss pulls at a sample, as a function of the probability of its given label.

The picture is drawn for the simplest sample: the given class has probability p_y, one rival class
has the rest, and the other C - 2 classes have none. With p = softmax(z), every loss that is a
function of p has the gradient dL/dz = J g with g = dL/dp and J = diag(p) - p p^T.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dspt.report.palette import canonical_loss

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Each function returns p_y * dL/dp for the given class and p_r * dL/dp for the rival, which stay
# finite at p = 0 where dL/dp alone does not.
_Weighted = Callable[["Array", int, Mapping[str, float]], tuple["Array", "Array"]]


def _ce(p: Array, classes: int, options: Mapping[str, float]) -> tuple[Array, Array]:
    return 0 * p - 1, 0 * p


def _mae(p: Array, classes: int, options: Mapping[str, float]) -> tuple[Array, Array]:
    return -2 * p, 0 * p


def _gce(p: Array, classes: int, options: Mapping[str, float]) -> tuple[Array, Array]:
    return -(p ** options.get("q", 0.7)), 0 * p


def _dspt(p: Array, classes: int, options: Mapping[str, float]) -> tuple[Array, Array]:
    import numpy as np

    total = np.exp(p) + np.exp(1 - p) + (classes - 2)
    return p * (np.exp(p) / total - 1), (1 - p) * np.exp(1 - p) / total


_LOSSES: dict[str, _Weighted] = {"ce": _ce, "mae": _mae, "gce": _gce, "dspt": _dspt}


def has_closed_form(loss: str) -> bool:
    """Whether ``gradient_norm`` knows the loss."""
    return canonical_loss(loss) in _LOSSES


def gradient_norm(
    loss: str, p_given: Array, classes: int, options: Mapping[str, float] | None = None
) -> Array:
    """Euclidean norm of dL/dz where one rival class has probability 1 - p_given.

    Raises:
        KeyError: for a loss without a closed form here; ask ``has_closed_form`` first.
    """
    import numpy as np

    p = np.asarray(p_given, dtype=np.float64)
    given, rival = _LOSSES[canonical_loss(loss)](p, classes, options or {})
    mean = given + rival  # sum_j p_j g_j
    return np.hypot(given - p * mean, rival - (1 - p) * mean)


def label_free_range(classes: int) -> float:
    """By how much DSPT's label-free term, log sum_j exp(p_j), can vary over all p."""
    import math

    return math.log(math.e + classes - 1) - (math.log(classes) + 1 / classes)
