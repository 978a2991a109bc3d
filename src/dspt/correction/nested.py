"""Nested folds: experts of several rounds that never saw the labels they are asked about.

In each round heads learn from labels that the round before corrected, and a corrected label holds
what *its* experts had learned. So a head that leaves out one fold must learn from corrections that
left it out as well, and these from others. With ``R`` rounds, the heads that leave out a set of
``s`` folds are of round ``R + 1 - s``::

    heads without {a, b, c}   learn from the given labels            (round 1 of 3)
    heads without {a, b}      from labels corrected without them     (round 2)
    heads without {a}         from labels corrected without it       (round 3)

and fold ``a`` is judged by the heads without ``a``. Plain folds in every round let wrong labels
vouch for themselves: noise looks like less, and weak penalties look better than they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from scipy.special import softmax

from dspt.correction.channel import SYMMETRIC, Channel, fit_channel, select_channel, sharpened
from dspt.correction.constants import Constants
from dspt.correction.heads import anchored_heads
from dspt.correction.neighbours import nearest_mean


@dataclass(frozen=True)
class Judgement:
    """What is known of some samples from experts that never saw their labels.

    Attributes:
        channel: from these experts and the given labels.
        experts: zero-shot, the heads, and their sharpened copies if there are any, [K, n, C].
        heads: the heads' part of it, once each, [S, n, C].
        strengths: penalties of the heads, S.
        copies: how sure each copy of the heads is: (1,) or (1, sharpness).
    """

    channel: Channel
    experts: np.ndarray
    heads: np.ndarray
    strengths: tuple[float, ...]
    copies: tuple[float, ...]


class NestedFolds:
    """Heads and corrected labels without some of the folds; each is made once.

    Args:
        features: L2-normalised image features, float64 [n, D].
        anchor: zero-shot logits, [n, C].
        given: labels, int64 [n].
        fold: number of each sample's fold, [n].
        prior_strengths: of the channel, to choose from.
        constants: of the method.
        on_heads: told whenever the heads without some set of folds are there.
    """

    def __init__(
        self,
        features: np.ndarray,
        anchor: np.ndarray,
        given: np.ndarray,
        fold: np.ndarray,
        prior_strengths: Sequence[float],
        constants: Constants,
        on_heads: Callable[[], None] = lambda: None,
    ) -> None:
        self._features, self._anchor, self._given = features, anchor, given
        self._fold = fold
        self._prior_strengths = prior_strengths
        self._constants = constants
        self._on_heads = on_heads
        self._heads: dict[frozenset[int], np.ndarray] = {}
        self._last_targets: dict[int, np.ndarray] = {}

    @staticmethod
    def sets(constants: Constants) -> int:
        """How many sets of folds need heads of their own."""
        rounds = sum(comb(constants.folds, size) for size in range(1, constants.rounds + 1))
        return rounds + (constants.folds if constants.free_heads else 0)

    def judge(self, without: frozenset[int] = frozenset()) -> Judgement:
        """Experts and channel for the samples outside the folds ``without``, in their order.

        No label in these folds plays any part, and no expert saw a label that it is asked about.
        """
        samples = self._outside(without)
        strengths = self._strengths(len(without) + 1)
        heads = np.empty((len(strengths), *self._anchor.shape))
        for number in set(self._fold.tolist()) - without:
            held = self._fold == number
            change = self.heads(without | {number})
            heads[:, held] = softmax(self._anchor[held] + self._features[held] @ change, axis=-1)
        heads, given = heads[:, samples], self._given[samples]
        zero_shot = softmax(self._anchor[samples], axis=1)[None]
        experts = np.concatenate([zero_shot, heads])
        channel = select_channel(
            experts, given, self._prior_strengths, self._constants.standard_errors
        )
        copies: tuple[float, ...] = (1.0,)
        if channel.prior_strength == SYMMETRIC and self._constants.sharpness != 1:
            copies = (1.0, self._constants.sharpness)
            experts = np.concatenate([experts, sharpened(heads, self._constants.sharpness)])
            channel = fit_channel(experts, given, SYMMETRIC)
        return Judgement(channel, experts, heads, strengths, copies)

    def heads(self, without: frozenset[int]) -> np.ndarray:
        """Changes of the class embeddings, trained outside the folds ``without``, [S, D, C]."""
        if without not in self._heads:
            samples = self._outside(without)
            if len(without) == self._constants.rounds:
                targets = np.eye(self._anchor.shape[1])[self._given[samples]]
            else:
                targets = self.judge(without).channel.posterior
            if len(without) == 1:
                self._last_targets[next(iter(without))] = targets
            self._heads[without] = anchored_heads(
                self._features[samples],
                self._anchor[samples],
                targets,
                self._strengths(len(without)),
            )
            self._on_heads()
        return self._heads[without]

    def neighbours(self, count: int) -> np.ndarray:
        """Mean label of each sample's ``count`` nearest ones in other folds, [n, C].

        These labels are corrected without the sample's own fold, like the targets of its heads.
        """
        votes = np.empty(self._anchor.shape)
        for held, targets in self._corrected():
            votes[held] = nearest_mean(self._features[held], self._features[~held], targets, count)
        return votes

    def free_heads(self) -> np.ndarray:
        """What heads that start from nothing say of each sample, [S, n, C].

        Their targets are those of the last round's heads.
        """
        strengths = self._strengths(1)
        said = np.empty((len(strengths), *self._anchor.shape))
        for held, targets in self._corrected():
            nothing = np.zeros_like(targets)
            change = anchored_heads(self._features[~held], nothing, targets, strengths)
            said[:, held] = softmax(self._features[held] @ change, axis=-1)
            self._on_heads()
        return said

    def _corrected(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each fold as a mask, and the labels of the others as corrected without it."""
        for number in sorted(set(self._fold.tolist())):
            self.heads(frozenset({number}))
            yield self._fold == number, self._last_targets[number]

    def _strengths(self, left_out: int) -> tuple[float, ...]:
        """Penalties of the heads that leave out so many folds."""
        least = self._constants.first_strength if left_out == self._constants.rounds else 0
        return tuple(strength for strength in self._constants.strengths if strength >= least)

    def _outside(self, without: frozenset[int]) -> np.ndarray:
        return ~np.isin(self._fold, list(without))
