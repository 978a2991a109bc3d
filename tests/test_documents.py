"""What the documents say is what the code does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_schema_page_is_generated_from_the_models() -> None:
    spec = importlib.util.spec_from_file_location("schema", ROOT / "tools" / "result_schema.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "result-schema.md").read_text(encoding="utf-8") == module.page()


def test_readme_has_exactly_two_set_up_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^python3 -m venv ", readme, flags=re.MULTILINE)) == 2


def test_every_link_between_documents_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_python_examples_of_readme_run(tmp_path: Path) -> None:
    """As written, but with two epochs in place of fifty."""
    from PIL import Image

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len(blocks) == 3
    Image.new("RGB", (64, 48), "red").save(tmp_path / "picture.png")
    for name in ("red", "blue"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for side in (40, 50):
            Image.new("RGB", (64, side), name).save(tmp_path / "pictures" / name / f"{side}.png")
    code = "\n".join(blocks).replace("seed=1,", 'seed=1, recipe={"epochs": 2},', 1)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "suppression=" in done.stdout
    assert "Prediction(" in done.stdout
    assert (tmp_path / "run" / "report.html").is_file()
