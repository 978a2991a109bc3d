from __future__ import annotations

import pytest
import torch

from dspt.outcome import collapsed_class


def classes(*counts: int) -> torch.Tensor:
    """As many of every class."""
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


@pytest.mark.parametrize(
    ("predicted", "given", "expected"),
    [
        ((50, 50), (50, 50), None),
        ((74, 26), (50, 50), None),
        ((80, 20), (50, 50), 0),  # two classes: more than half is not enough, nearly all is
        ((0, 100), (50, 50), 1),
        ((10, 80, 10), (33, 33, 34), 1),
        ((49, *[1] * 51), (2, *[2] * 49, 0, 0), None),
        ((62, *[1] * 38), (20, *[2] * 40), 0),
        ((92, 8), (90, 10), None),  # most labels are of this class
        ((97, 3), (90, 10), 0),
        ((100, 0), (100, 0), None),  # there is nothing else
        ((5, 0), (3, 2), None),  # too few to tell
    ],
)
def test_collapse(predicted: tuple[int, ...], given: tuple[int, ...], expected: int | None) -> None:
    n = max(len(predicted), len(given))
    assert collapsed_class(classes(*predicted), classes(*given), n) == expected
