"""Value, gradient, gradient norm and suppression ratio of every loss, in closed form.

The gradients are those of :mod:`dspt.losses`, one beside each loss. With ``p = softmax(z)`` and
label ``y``, sources in the files of the losses:

=============== =========================== ======================================= ==============
loss            value                       gradient by the logits                  suppression
=============== =========================== ======================================= ==============
ce              -log p_y                    p - onehot(y)                           1
label-smoothing -sum_k t_k log p_k          p - t,  t = (1 - s) onehot(y) + s / C   unbounded
mae             2 (1 - p_y)                 2 p_y (p - onehot(y))                   2 p_y
gce             (1 - p_y^q) / q             p_y^q (p - onehot(y))                   p_y^q
sce             -a log p_y - b A (1 - p_y)  (a - b A p_y) (p - onehot(y))           a - b A p_y
nce+rce         a NCE - b A (1 - p_y)       a NCE' - b A p_y (p - onehot(y))        no short form
phuber-ce       -log p_y, its tangent below min(1, tau p_y) (p - onehot(y))         min(1, tau p_y)
                p_y = 1 / tau
dspt            log sum_j exp p_j - p_y     p_y (p - onehot(y)) + p (q' - sum p q') docs/theory.md
=============== =========================== ======================================= ==============

``a``, ``b`` are the options alpha, beta and ``A < 0`` is log_zero; ``q' = softmax(p)``;
``NCE = log p_y / L`` with ``L = sum_k log p_k``, and ``NCE'`` its gradient,
``[onehot(y) - p + NCE (C p - 1)] / L``. All hold for logits of any size in float32 and float64.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dspt.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Array = NDArray[np.float64]

Options = Mapping[str, float]


def has_closed_form(loss: str) -> bool:
    """Whether the loss's file holds its gradient, as ``<name of the function>_gradient``."""
    return _gradient_function(loss) is not None


def _gradient_function(loss: str) -> Callable[..., Tensor] | None:
    """The function beside the loss; found by its name, so that a new loss stays one file."""
    from dspt.losses import LOSSES

    function = LOSSES.get(loss)
    if function is None:
        return None
    beside = sys.modules[function.__module__]
    return getattr(beside, f"{function.__name__}_gradient", None)


def value(loss: str, logits: Tensor, target: Tensor, options: Options | None = None) -> Tensor:
    """Per-sample value of a loss.

    Args:
        loss: name as in :data:`dspt.losses.LOSSES`.
        logits: [n, C], float32 or float64.
        target: class indices, [n].
        options: the loss's own, such as ``{"q": 0.5}``.

    Returns:
        Values, [n].

    Raises:
        UserError: for an unknown loss or option.
    """
    from dspt.losses import per_sample_loss

    return per_sample_loss(loss, options)(logits, target)


def gradient(loss: str, logits: Tensor, target: Tensor, options: Options | None = None) -> Tensor:
    """Gradient of each sample's own loss by its logits.

    Arguments and errors as for :func:`value`.

    Returns:
        Gradient, [n, C]; every row sums to 0.
    """
    from dspt.losses import per_sample_loss

    per_sample_loss(loss, options)  # says what is wrong with a name or an option
    function = _gradient_function(loss)
    if function is None:
        raise UserError(f"loss: {loss!r} has no closed form of its gradient")
    return function(logits, target, **(options or {}))


def gradient_norm(
    loss: str, logits: Tensor, target: Tensor, options: Options | None = None
) -> Tensor:
    """Euclidean norm of :func:`gradient`, [n]; right down to the smallest numbers of the type."""
    return _norm(gradient(loss, logits, target, options))


def suppression_ratio(
    loss: str, logits: Tensor, target: Tensor, options: Options | None = None
) -> Tensor:
    """Gradient norm of a loss divided by that of cross-entropy on the same sample.

    1 for cross-entropy itself; near 0 where the loss lets a label go. Computed in float64. Where
    ``p_y`` is so near 1 that cross-entropy's own gradient would underflow, the ratio has long
    reached its limit (``docs/theory.md``, theorem 4) and is taken where ``1 - p_y = e^-300``. Two
    losses differ there: label smoothing pushes a learned label back, so its ratio grows without
    bound (infinity in float32), and NCE + RCE nears its limit only as fast as NCE fades, as one
    over the lead in logits.

    Arguments and errors as for :func:`value`.

    Returns:
        Ratios >= 0, [n], in the type of the logits.
    """
    import torch

    exact, label = logits.double(), target[:, None]
    others = exact.scatter(1, label, float("-inf")).logsumexp(-1, keepdim=True)
    exact = exact.scatter(1, label, torch.minimum(exact.gather(1, label), others + 300.0))
    kept, full = (
        gradient_norm(name, exact, target, o) for name, o in ((loss, options), ("ce", {}))
    )
    return (kept / full).to(logits.dtype)


def _norm(rows: Tensor) -> Tensor:
    """Euclidean norm of rows whose squares may underflow."""
    import torch

    size = rows.abs().amax(dim=-1, keepdim=True)
    scale = torch.where(size > 0, size, torch.ones_like(size))
    return size[:, 0] * (rows / scale).norm(dim=-1)


def rival_logits(p_given: Array, classes: int) -> Tensor:
    """Logits of samples where the label, class 0, has ``p_given`` and one rival has the rest.

    The other C - 2 classes have probability 0: minus infinity, which every gradient here bears.
    For more than two classes that empties the normalised term of NCE + RCE, and the *value* of
    label smoothing is infinite: for those two see :func:`nearly_rival_logits`.

    Args:
        p_given: probabilities of the label in [0, 1], of any shape with n elements.
        classes: C >= 2.

    Returns:
        Logits, [n, C], float64.
    """
    import numpy as np
    import torch

    p = torch.from_numpy(np.array(p_given, dtype=np.float64).reshape(-1))
    logits = torch.full((len(p), classes), float("-inf"), dtype=torch.float64)
    logits[:, 0] = torch.log(p)
    logits[:, 1] = torch.log1p(-p)
    return logits


def nearly_rival_logits(p_given: Array, classes: int, spread: float = 0.01) -> Tensor:
    """As :func:`rival_logits`, but the other C - 2 classes share a part of the rest evenly.

    Args:
        p_given: probabilities of the label in (0, 1), of any shape with n elements.
        classes: C >= 3.
        spread: the part of ``1 - p_given`` that the other classes share, in (0, 1).

    Returns:
        Logits, [n, C], float64, all finite.
    """
    logits = rival_logits(p_given, classes)
    rest = logits[:, 1:2].clone()
    logits[:, 1:2] = rest + math.log1p(-spread)
    logits[:, 2:] = rest + math.log(spread / (classes - 2))
    return logits


def rival_gradient_norm(
    loss: str, p_given: Array, classes: int, options: Options | None = None
) -> Array:
    """Gradient norm of the samples of :func:`rival_logits`, shaped as ``p_given``.

    Raises:
        UserError: for a loss without a closed form; ask :func:`has_closed_form` first.
    """
    import numpy as np
    import torch

    logits = rival_logits(p_given, classes)
    target = torch.zeros(len(logits), dtype=torch.long)
    norms: Array = gradient_norm(loss, logits, target, options).numpy()
    return norms.reshape(np.shape(p_given))
