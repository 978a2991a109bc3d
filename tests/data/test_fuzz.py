"""Mutated data: loaded rightly or refused in one line. The full campaign is the tool's own."""

from __future__ import annotations

import csv
import importlib
import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.data.made import picture

from dspt.data import ImageDataset, load_dataset
from dspt.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs pipes and alarm signals")


@pytest.fixture(scope="module")
def fuzzer() -> Any:
    sys.path.insert(0, str(ROOT))
    try:
        yield importlib.import_module("tools.reliability.fuzz_data")
    finally:
        sys.path.remove(str(ROOT))


def test_mutated_data(fuzzer: ModuleType) -> None:
    found = fuzzer.fuzz(seed=0, numbers=range(200))
    assert found["failures"] == []
    for kind, counts in found["counts"].items():
        assert counts["loaded"] > 0, kind
        assert counts["refused"] > 0, kind


def test_undamaged_data_agrees_with_the_second_reader(fuzzer: ModuleType, tmp_path: Path) -> None:
    for kind, files in fuzzer.valid().items():
        for name, data in files.items():
            path = tmp_path / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        dataset = load_dataset(tmp_path / kind)
        assert dataset.class_names == ("cat", "hot dog", "red fox")
        fuzzer._compare(tmp_path / kind, dataset)


@pytest.mark.parametrize(
    ("what", "wrong"),
    [
        ("an exception", RuntimeError("x")),
        ("two lines", UserError("a\nb; mend it")),
        ("no place", UserError("bad; mend it")),
    ],
)
def test_the_fuzzer_notices(
    fuzzer: ModuleType, monkeypatch: pytest.MonkeyPatch, what: str, wrong: Exception
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise wrong

    monkeypatch.setattr(fuzzer, "load_dataset", broken)
    assert len(fuzzer.fuzz(0, range(3))["failures"]) == 3


def test_the_fuzzer_notices_wrong_labels_and_hanging(
    fuzzer: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses
    import time

    def swapped(*given: object, **options: object) -> object:
        dataset = load_dataset(*given, **options)  # type: ignore[arg-type]
        return dataclasses.replace(dataset, class_names=dataset.class_names[::-1])

    monkeypatch.setattr(fuzzer, "load_dataset", swapped)
    found = fuzzer.fuzz(0, range(20))
    assert any("wrong in silence" in failure["what"] for failure in found["failures"])
    monkeypatch.setattr(fuzzer, "LIMIT_S", 1)
    monkeypatch.setattr(fuzzer, "load_dataset", lambda *_, **__: time.sleep(30))
    assert "TooSlow" in fuzzer.fuzz(0, range(1))["failures"][0]["what"]


def loaded_or_refused(path: Path) -> ImageDataset | None:
    try:
        return load_dataset(path, holdout=0)
    except UserError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    assert "; " in message
    return None


CELLS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["0", "1", "2", "-1", "01", "1.0", "nan", "", "a", "A", "a_b", "a b", "é"]),
)
ROWS = st.lists(CELLS, min_size=1, max_size=8)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.sampled_from(["csv", "tsv"]))
def test_any_labels_in_text(tmp_path: Path, labels: list[str], kind: str) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="," if kind == "csv" else "\t")
    writer.writerows([("image", "label"), *((f"{i}.png", cell) for i, cell in enumerate(labels))])
    path = tmp_path / f"table.{kind}"
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    dataset = loaded_or_refused(path)
    if dataset is None:
        return
    found = [dataset.class_names[label] for label in dataset.labels]
    assert found == [cell.strip().replace("_", " ") for cell in labels]


NUMBERS = st.one_of(
    st.integers(-3, 5),
    st.integers(-(2**63), 2**63 - 1),
    st.none(),
)
FRACTIONS = st.one_of(st.integers(0, 3).map(float), st.floats(), st.none())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.lists(NUMBERS, min_size=1, max_size=6), st.lists(FRACTIONS, min_size=1, max_size=6)
    ),
    st.sampled_from([None, ["a", "b", "c"]]),
)
def test_any_numbers_in_parquet(tmp_path: Path, labels: list[Any], names: list[str] | None) -> None:
    kind = pa.int64() if all(isinstance(v, int | None) for v in labels) else pa.float64()
    column = pa.array(labels, kind)
    pq.write_table(
        pa.table({"image": [picture()] * len(labels), "label": column}), tmp_path / "t.parquet"
    )
    listed = tmp_path / "classes.txt"
    listed.unlink(missing_ok=True)
    if names is not None:
        listed.write_text("\n".join(names))
    dataset = loaded_or_refused(tmp_path / "t.parquet")
    if dataset is None:
        return
    found = [dataset.class_names[label] for label in dataset.labels]
    assert found == [names[int(v)] if names else str(int(v)) for v in labels]
