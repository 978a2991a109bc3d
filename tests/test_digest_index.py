from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import files_of

import dspt.digest_index
from dspt.digest_index import DigestIndex


def digests_of(numbers: list[int]) -> np.ndarray:
    raw = b"".join(hashlib.sha256(str(number).encode()).digest() for number in numbers)
    return np.frombuffer(raw, np.uint8).reshape(-1, 32)


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
@pytest.mark.parametrize("part", [1, 7, 1 << 16])
@settings(max_examples=30, deadline=None)
@given(batches=st.lists(st.lists(st.integers(0, 60), max_size=40), max_size=12))
def test_it_finds_what_a_dictionary_finds(
    in_memory: int, part: int, batches: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dspt.digest_index, "IN_MEMORY", in_memory)
        patch.setattr(dspt.digest_index, "PART", part)
        folder = tmp_path_factory.mktemp("index")
        index, expected, count = DigestIndex(folder), defaultdict(set), 0
        for numbers in batches:
            index.add(digests_of(numbers), count)
            for number in numbers:
                expected[number].add(count)
                count += 1
        for number in range(62):
            found = list(index.find(digests_of([number]).tobytes()))
            assert len(found) == len(set(found))
            assert set(found) == expected[number]
        assert files_of(folder) == {}


def test_digests_that_begin_alike_are_all_found(tmp_path: Path) -> None:
    """Also the first and the last that there can be."""
    index = DigestIndex(tmp_path)
    for number, byte in enumerate((0, 255, 0, 255, 7)):
        digest = np.full((1, 32), byte, dtype=np.uint8)
        digest[0, 31] = number  # beyond what a run holds
        index.add(digest, number)
    assert sorted(index.find(bytes(32))) == [0, 2]
    assert sorted(index.find(b"\xff" * 32)) == [1, 3]


def test_runs_are_few(tmp_path: Path) -> None:
    index = DigestIndex(tmp_path)
    for number in range(200):
        index.add(digests_of(list(range(8 * number, 8 * number + 8))), 8 * number)
    assert len(index._runs) <= 8
    assert sum(map(len, index._runs)) == 1600
