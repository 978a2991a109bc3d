"""The contributor's guide works as it is written."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import COLOURS, write_model, write_pictures

import dspt.losses
import dspt.methods
from dspt import fit
from dspt.backbones import load_backbone
from dspt.errors import UserError
from dspt.methods import method_card

GUIDE = Path(__file__).parents[2] / "docs" / "new-method.md"


@pytest.fixture
def guide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's files as modules, and its lines in the two tables."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    files = [block for block in blocks if block.startswith("# src/dspt/")]
    lines = [block.strip() for block in blocks if not block.startswith("# src/dspt/")]
    assert len(files) == len(lines) == 2
    for block, line, home, table in zip(
        files, lines, (dspt.losses, dspt.methods), ("LOSSES", "OBJECTIVES"), strict=True
    ):
        path = block.splitlines()[0].removeprefix("# src/").removesuffix(".py")
        module = types.ModuleType(path.replace("/", "."))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(block, path, "exec"), module.__dict__)
        entry: dict[str, Any] = eval("{" + line + "}", module.__dict__)
        monkeypatch.setitem(getattr(home, table), *next(iter(entry.items())))


@pytest.mark.usefixtures("guide")
def test_the_examples_train_and_describe_themselves(tmp_path: Path) -> None:
    backbone = load_backbone(write_model(tmp_path / "model"), device="cpu")
    write_pictures(tmp_path / "pictures" / "train", list(COLOURS), 4)
    write_pictures(tmp_path / "pictures" / "test", list(COLOURS), 2, first=50)
    settings: dict[str, Any] = {
        "noise": "symmetric:0.5",
        "recipe": {"epochs": 2, "lr": 0.1},
        "cache": tmp_path / "cache",
    }
    prints = {
        fit(
            tmp_path / "pictures", backbone, method=method, method_options=options, **settings
        ).result.context_fingerprint
        for method, options in (
            ("ce", {}),
            ("taylor-ce", {"terms": 3.0}),
            ("small-loss", {"keep": 0.5}),
        )
    }
    assert len(prints) == 3
    for name, source in (("taylor-ce", "IJCAI 2020"), ("small-loss", "NeurIPS 2018")):
        assert source in method_card(name).source
    with pytest.raises(UserError, match="keep must be in"):
        fit(
            tmp_path / "pictures",
            backbone,
            method="small-loss",
            method_options={"keep": 2.0},
            **settings,
        )


@pytest.mark.usefixtures("guide")
def test_the_taylor_series_has_the_limits_it_claims() -> None:
    function: Any = dspt.losses.LOSSES["taylor-ce"]
    logits, target = torch.tensor([[1.0, 0.5, -1.0]]), torch.tensor([0])
    mae, ce = dspt.losses.LOSSES["mae"], dspt.losses.LOSSES["ce"]
    torch.testing.assert_close(function(logits, target, terms=1), mae(logits, target) / 2)
    torch.testing.assert_close(function(logits, target, terms=200), ce(logits, target))
