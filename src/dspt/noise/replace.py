"""Replacement: every given class keeps its number of pictures, a part of which is of other classes.

The protocol of PTNL (Wu et al. 2023) and JoAPR (Guo and Gu 2024). They bring the wrong pictures in
from the rest of the training split; here the drawn pictures change places among themselves, so that
the few-shot draw does not depend on the noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dspt.errors import UserError
from dspt.noise.draws import wrong_count, wrong_per_class
from dspt.noise.flips import pair
from dspt.seeding import keyed_order, keyed_uint64

ROUNDS = 32
"""Rounds of exchanges; each lets every wrong picture change its label about once in two."""


def replace(
    true: np.ndarray, rate: float, num_classes: int, seed: int, keys: Sequence[object]
) -> np.ndarray:
    """Every class gives up k = int(rate * n_c) pictures and is given k of other classes.

    Which pictures go where is random over all such exchanges, each as likely as any other: a
    shuffle, repaired where a picture got its own class back, then ``ROUNDS`` rounds of random
    exchanges of two and of three labels. A round is symmetric, so it keeps the uniform distribution
    over the exchanges, and moves of two and three labels reach all of them.

    Args:
        true: labels, int64 [N].
        rate: share of wrong pictures in every class.
        num_classes: C, at least 2.
        seed: any integer.
        keys: the samples' ids, [N].

    Returns:
        The given labels, int64 [N].

    Raises:
        UserError: when one class holds more than half of all wrong pictures, so that the others
            have too few to give in return.
    """
    wrong = wrong_per_class(true, rate, num_classes, seed, keys)
    counts = np.bincount(true[wrong], minlength=num_classes)
    largest = int(np.argmax(counts))
    if 2 * counts[largest] > len(wrong):
        raise UserError(
            f"noise replace:{rate!r} cannot keep the size of every class: class number {largest} "
            f"would give up {counts[largest]} pictures and the others have only "
            f"{len(wrong) - counts[largest]} to give in return; draw equally many shots per class, "
            f"or use noise symmetric:{rate!r}"
        )
    given: np.ndarray = true.copy()
    given[wrong] = _exchange(true[wrong], seed, [keys[i] for i in wrong])
    return given


def replace_pair(
    true: np.ndarray, rate: float, num_classes: int, seed: int, keys: Sequence[object]
) -> np.ndarray:
    """Every class c gives its int(rate * n_c) pictures to class (c + 1) mod C.

    The labels are those of :func:`~dspt.noise.flips.pair`; here it is promised that every class
    keeps its size. Arguments as :func:`replace`.

    Raises:
        UserError: when the classes do not all give up the same number of pictures.
    """
    sizes = np.bincount(true, minlength=num_classes)
    counts = np.array([wrong_count(rate, int(n)) for n in sizes])
    low, high = int(np.argmin(counts)), int(np.argmax(counts))
    if counts[low] != counts[high]:
        raise UserError(
            f"noise replace-pair:{rate!r} cannot keep the size of every class: class number {high} "
            f"would give up {counts[high]} of {sizes[high]} pictures, class number {low} "
            f"{counts[low]} of {sizes[low]}; draw equally many shots per class, or use noise "
            f"pair:{rate!r}"
        )
    return pair(true, rate, num_classes, seed, keys)


def _exchange(true: np.ndarray, seed: int, keys: Sequence[object]) -> np.ndarray:
    """The labels ``true`` in random order, none at its own place; no class is more than half."""
    # From here on places are in the order of a hash, so that the order of the samples is forgotten.
    order = keyed_order(seed, "noise/replace", keys)
    places, own = [keys[i] for i in order], true[order]
    labels = np.sort(own)[keyed_order(seed, "noise/replace/shuffle", places)]
    _repair(own, labels)
    _mix(own, labels, seed, places)
    given: np.ndarray = np.empty_like(true)
    given[order] = labels
    return given


def _repair(own: np.ndarray, labels: np.ndarray) -> None:
    """Swap away, in place, every label that is its place's own.

    With class c at i, a place that neither is of class c nor holds c will do. There always is one:
    at most half of the places are of class c, at most half hold c, and i is both.
    """
    for i in np.flatnonzero(labels == own):
        if labels[i] == own[i]:  # a swap further up may have mended it
            j = int(np.argmax((own != own[i]) & (labels != own[i])))
            labels[i], labels[j] = labels[j], labels[i]


def _mix(own: np.ndarray, labels: np.ndarray, seed: int, places: Sequence[object]) -> None:
    """Move labels in place until where they started is forgotten; none goes to its own class."""
    for number in range(ROUNDS):
        numbers = keyed_uint64(seed, f"noise/replace/{number}", places)
        mixed = np.argsort(numbers, kind="stable")
        coins = (numbers & np.uint64(1)).astype(bool)  # the order hangs on the high bits
        (_rotate_threes if number % 2 else _swap_twos)(own, labels, mixed, coins)


def _swap_twos(own: np.ndarray, labels: np.ndarray, mixed: np.ndarray, coins: np.ndarray) -> None:
    """Part the places into random twos; each swaps its labels if allowed, with chance one half."""
    a, b = mixed[: len(mixed) // 2 * 2].reshape(-1, 2).T
    move = coins[a] & (labels[b] != own[a]) & (labels[a] != own[b])
    a, b = a[move], b[move]
    labels[a], labels[b] = labels[b], labels[a]


def _rotate_threes(
    own: np.ndarray, labels: np.ndarray, mixed: np.ndarray, coins: np.ndarray
) -> None:
    """Part the places into random threes; each rotates its labels if allowed, in a random sense."""
    threes = mixed[: len(mixed) // 3 * 3].reshape(-1, 3)
    backwards = coins[threes[:, 0]]
    threes[backwards] = threes[backwards][:, ::-1]
    moved = labels[np.roll(threes, 1, axis=1)]
    move = (moved != own[threes]).all(axis=1)
    labels[threes[move]] = moved[move]
