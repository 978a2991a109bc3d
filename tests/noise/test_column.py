from __future__ import annotations

import numpy as np
import pytest
from tests.noise.samples import noisy

from dspt.errors import UserError


def from_column(spec: str, columns: dict[str, list[int]] | None) -> np.ndarray:
    arrays = None if columns is None else {k: np.array(v) for k, v in columns.items()}
    return noisy([0, 1, 2], spec, 3, keys=["a.jpg", "b.jpg", "c.jpg"], columns=arrays)


def test_a_column_gives_its_labels() -> None:
    columns = {"worse_label": [2, 1, 0]}
    given_labels = from_column("column:worse_label", columns)
    assert given_labels.tolist() == [2, 1, 0]
    assert given_labels.dtype == np.int64


def test_a_missing_column_is_refused_with_those_that_exist() -> None:
    columns = {"worse_label": [2, 1, 0], "aggre_label": [0, 1, 2]}
    with pytest.raises(UserError, match="found: aggre_label, worse_label; did you mean") as caught:
        from_column("column:worst_label", columns)
    assert "'column:worse_label'?" in str(caught.value)
    with pytest.raises(UserError, match=r"found: none$"):
        from_column("column:worst_label", None)


@pytest.mark.parametrize("bad", [-1, 3])
def test_a_missing_label_in_a_column_is_refused_with_its_sample(bad: int) -> None:
    with pytest.raises(UserError, match=r"1 of 3 training samples, first b\.jpg"):
        from_column("column:human", {"human": [0, bad, 1]})


def test_a_column_of_another_length_is_a_bug() -> None:
    with pytest.raises(ValueError, match="shape"):
        from_column("column:human", {"human": [0, 1]})
