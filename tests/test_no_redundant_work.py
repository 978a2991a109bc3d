"""What should not be done twice, or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.tiny import COLOURS, draw, write_model
from torch import Tensor

from dspt.backbones import load_backbone
from dspt.configuration import PromptConfig
from dspt.model import PromptModel
from dspt.prompts.shared_prefix import SharedPrefixEngine


def test_evaluation_encodes_the_text_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone(write_model(tmp_path / "model"), device="cpu")
    calls: list[tuple[int, ...]] = []
    original = SharedPrefixEngine.__call__

    def counting(self: SharedPrefixEngine, context: Tensor) -> Tensor:
        calls.append(tuple(context.shape))
        return original(self, context)

    monkeypatch.setattr(SharedPrefixEngine, "__call__", counting)
    context = 0.02 * torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    model = PromptModel(backbone, tuple(COLOURS), PromptConfig(n_ctx=4), context)
    paths = []
    for number, name in enumerate(COLOURS):
        paths.append(tmp_path / f"{number}.png")
        draw(name, number).save(paths[-1])
    found = model.predict(paths, batch_size=2)
    model.predict(paths[:1])
    model.logits(torch.randn(5, 16))
    assert len(found) == len(COLOURS)
    assert calls == [(1, 4, 32)]


@pytest.mark.parametrize(
    "code",
    [
        "import dspt",
        "import dspt.cli",
        "import dspt.cli\n"
        "try: dspt.cli.main(['--help'])\n"
        "except SystemExit as end: assert not end.code",
    ],
    ids=["package", "command", "help"],
)
def test_torch_is_not_loaded_before_it_is_needed(code: str) -> None:
    check = (
        f"import sys\n{code}\n"
        "heavy = ('torch', 'torchvision', 'open_clip', 'sklearn', 'matplotlib', 'scipy', 'ot')\n"
        "loaded = [name for name in heavy if name in sys.modules]\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
