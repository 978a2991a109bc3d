"""What the self-adjusting method fixes, so that its user need not."""

from __future__ import annotations

from dataclasses import dataclass

from dspt.correction.channel import PRIOR_STRENGTHS, STANDARD_ERRORS
from dspt.correction.heads import STRENGTHS


@dataclass(frozen=True)
class Constants:
    """What the method fixes. No option of a command; ``tools/auto_study.py`` varies each of them.

    Attributes:
        folds: every head is trained without one of them or several (``nested.py``).
        rounds: of heads, channel and corrected labels; fewer than folds.
        strengths: penalties of the heads.
        first_strength: least penalty in the first round, which learns from the given labels as they
            are. A head that follows them closely explains consistent flips as if they were classes,
            and the channel finds no noise.
        prior_strengths: of the channel's prior, ascending.
        standard_errors: by which structure in the noise has to show.
        sharpness: heads that learn from soft targets are less sure than they are right, and their
            doubt passes for what noise does. So where only symmetric noise shows, each of them
            stands in the pool once as it is and once this many times as sure. (A structured channel
            could explain the mistakes of sharpened heads as noise.) 1: not at all.
        free_heads: whether heads that start from nothing help in the end (``classifier.py``).
        resamples: for the interval of the noise rate.
        neighbours: how many similar samples are heard on each label (``neighbours.py``), or fewer
            where a class has fewer.
        neighbour_weight: of what they say against the heads'; only the ranking depends on it.
    """

    folds: int = 5
    rounds: int = 3
    strengths: tuple[float, ...] = STRENGTHS
    first_strength: float = 0.1
    prior_strengths: tuple[float, ...] = PRIOR_STRENGTHS
    standard_errors: float = STANDARD_ERRORS
    sharpness: float = 2.0
    free_heads: bool = True
    resamples: int = 40
    neighbours: int = 10
    neighbour_weight: float = 0.5


CONSTANTS = Constants()
