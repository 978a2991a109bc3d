"""The pictures, their page and the command."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dspt.cli import main
from dspt.losses import LOSSES as ALL_LOSSES
from dspt.report.palette import DARK, LIGHT
from dspt.theory import pictures
from dspt.theory.closed_forms import suppression_ratio
from dspt.theory.page import classes_table, limits_table, render_theory


@pytest.fixture(scope="module")
def page() -> str:
    return render_theory()


def test_the_page_is_complete_and_sealed(page: str) -> None:
    assert "default-src &#39;none&#39;" in page
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", page)
    assert " style=" not in page
    assert page.count("<svg") == 2 * len(pictures.all_pictures())
    ids = re.findall(r"\bid=\"([^\"]+)\"", page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"href=\"#([^\"]+)\"", page)) <= set(ids)
    assert len(page) < 1_000_000


def test_the_same_page_twice(page: str) -> None:
    assert page == render_theory()


def test_only_colours_that_dark_mode_repaints(page: str) -> None:
    figures = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    colours = set(re.findall(r"(?:fill|stroke)=\"(#[0-9a-fA-F]{3,8})\"", figures))
    assert colours
    assert colours <= set(LIGHT.values())


def test_every_loss_is_drawn() -> None:
    assert sorted((*pictures.LOSSES, *pictures.RIVALS)) == sorted(ALL_LOSSES)
    drawn = pictures.loss_and_gradient().svg()
    for name in ("Cross-entropy", "GCE", "MAE", "Label smoothing", "SCE", "NCE + RCE", "PHuber-CE"):
        assert drawn.count(f">{name}<") == 1
    assert drawn.count(">DSPT<") == 2


def test_png_in_light_and_dark() -> None:
    drawing = pictures.saturation_two()
    assert drawing.png(scale=1).startswith(b"\x89PNG")
    assert drawing.png(scale=1) != drawing.png(scale=1, dark=True)
    assert set(LIGHT) == set(DARK)


def test_the_tables_say_what_the_bounds_say() -> None:
    limits = dict(limits_table(10))
    assert limits["DSPT"] == ["1", "≤ 0.405", "0.853", "0.586"]
    assert limits["Cross-entropy"][0] == limits["Cross-entropy"][3] == "∞"
    rows = dict(classes_table())
    assert rows["2"][3:] == ["0.12", "–", "–"]
    assert rows["100"][4] == "0.00718"


def test_samples_of_the_ratio_picture_are_as_described() -> None:
    gaps = np.array([-0.2, 0.1])
    logits = pictures.ratio_logits(gaps, 4, 10.0)
    expected = [[0.0, -2.0, -1.5, -1.5], [0.0, 1.0, -0.5, -0.5]]
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-12)
    # The message of the picture: the larger the scale, the less a contradicted label pulls.
    last = gaps[1:]
    ratios = [
        suppression_ratio("dspt", pictures.ratio_logits(last, 10, scale), torch.tensor([0])).item()
        for scale in pictures.SCALES
    ]
    assert ratios[0] > ratios[1] > ratios[2]
    assert ratios[2] < 1e-3 < ratios[0]


def test_the_command_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "theory"
    with pytest.raises(SystemExit) as ended:
        main(["theory", "--out", str(out), "--quiet"])
    assert ended.value.code == 0
    names = [drawing.name for drawing in pictures.all_pictures()]
    expected = {"theory.html", *(f"{n}.png" for n in names), *(f"{n}.svg" for n in names)}
    assert {path.name for path in out.iterdir()} == expected
    said = capsys.readouterr()
    assert said.err == ""
    assert str(out / "theory.html") in said.out


def test_a_folder_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["theory", "--out", str(blocked), "--quiet"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("dspt: error: cannot write")
    assert len(error.splitlines()) == 1
