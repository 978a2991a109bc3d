"""Figures as files."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from tests.report import made

from dspt.bench.plots import noise_figure, write_figure
from dspt.errors import UserError
from dspt.report.collect import Collected


def figure(results: list[object]):  # type: ignore[no-untyped-def]
    return noise_figure(Collected(results, [], [], []))  # type: ignore[arg-type]


def test_suffix_decides(tmp_path: Path) -> None:
    drawing = figure(made.sweep(seeds=2))
    assert write_figure(drawing, tmp_path / "one.svg") == [tmp_path / "one.svg"]
    assert write_figure(drawing, tmp_path / "two.PNG") == [tmp_path / "two.PNG"]
    both = write_figure(drawing, tmp_path / "both")
    assert both == [tmp_path / "both.png", tmp_path / "both.svg"]
    assert (tmp_path / "both.svg").read_text() == (tmp_path / "one.svg").read_text()
    assert (tmp_path / "both.png").read_bytes() == (tmp_path / "two.PNG").read_bytes()
    image = Image.open(io.BytesIO((tmp_path / "both.png").read_bytes()))
    assert image.size[0] == 2 * (760 + 40)
    assert ElementTree.fromstring((tmp_path / "one.svg").read_text()).tag.endswith("svg")


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.pdf; give \.png, \.svg"):
        write_figure(figure(made.sweep(seeds=1)), tmp_path / "x.pdf")


def test_nothing_to_draw() -> None:
    with pytest.raises(UserError, match="nothing to draw: no result has a test accuracy"):
        figure([made.run_result(final=None)])


def test_the_label_tells_the_numbers() -> None:
    label = figure(made.sweep(seeds=1, spread=0)).label.replace("\u00a0", " ")
    assert "DSPT: 55.2 % at 0 % to 48.3 % at 75 %" in label
    assert "Cross-entropy: 57.5 % at 0 % to 40.8 % at 75 %" in label
