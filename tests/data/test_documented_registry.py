"""The page about data says what the registry says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_of_known_data_sets_is_generated_from_the_registry() -> None:
    spec = importlib.util.spec_from_file_location("table", ROOT / "tools" / "dataset_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.PAGE.read_text(encoding="utf-8")
    assert module.table() in text
    assert module.page(text) == text
