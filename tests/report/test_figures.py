"""Figures: right, repeatable, and free of anything a strict page would refuse."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from dspt.report import figures
from dspt.report.palette import DARK, LIGHT, assign_marks
from dspt.theory.bounds import label_free_range
from dspt.theory.closed_forms import has_closed_form
from dspt.theory.closed_forms import rival_gradient_norm as gradient_norm


def drawings(made, grid):
    run = made.run_result()
    pick = [r for r in grid if r.config.noise.rate == 0.5]
    return [
        figures.accuracy_against_noise(grid),
        figures.accuracy_against_noise(made.sweep(("symmetric", "asymmetric"), seeds=1)),
        figures.training_curves(run),
        figures.training_curves(made.run_result(final=None, truth=False, epochs=1)),
        figures.gradient_by_epoch(
            [(loss, [r for r in pick if r.config.method == loss]) for loss in ("ce", "dspt")]
        ),
        figures.gradient_by_probability(10),
        figures.accuracy_intervals([("Tuned", 0.78, (0.76, 0.8)), ("Zero-shot", 1.0, (0.9, 1.0))]),
    ]


def test_same_bytes_twice(made, grid):
    for first, second in zip(drawings(made, grid), drawings(made, grid), strict=True):
        for narrow in (False, True):
            assert first.svg(narrow=narrow) == second.svg(narrow=narrow)
    main = figures.accuracy_against_noise(grid)
    assert main.png() == main.png()
    assert main.png() != main.png(dark=True)
    assert main.png().startswith(b"\x89PNG")


def test_svg_is_fit_for_inlining(made, grid):
    ids: set[str] = set()
    for drawing in drawings(made, grid)[2:]:
        for narrow in (False, True):
            text = drawing.svg(narrow=narrow)
            root = ElementTree.fromstring(text)
            assert root.get("role") == "img"
            assert root.get("aria-label")
            assert not re.search(
                r'\sstyle="|<style|<metadata|<!DOCTYPE|<\?xml|http://(?!www\.w3\.org/2000/svg")',
                text,
            )
            own = set(re.findall(r'\sid="([^"]+)"', text))
            assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= own
    for narrow in (False, True):
        own = set(
            re.findall(r'\sid="([^"]+)"', figures.gradient_by_probability(10).svg(narrow=narrow))
        )
        assert not own & ids
        ids |= own


def test_narrow_and_wide_have_their_widths(grid):
    drawing = figures.accuracy_against_noise(grid)
    assert 'viewBox="0 0 760 400"' in drawing.svg()
    assert 'viewBox="0 0 340 330"' in drawing.svg(narrow=True)


def test_every_colour_of_a_figure_follows_dark_mode(made, grid):
    for drawing in drawings(made, grid):
        colours = set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]{6})"', drawing.svg()))
        assert colours
        assert colours <= set(LIGHT.values())
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT)


def test_drawing_leaves_matplotlib_settings_alone():
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 33, "svg.fonttype": "path"}):
        odd = figures.gradient_by_probability(10).svg()
        assert matplotlib.rcParams["font.size"] == 33
    assert dict(matplotlib.rcParams) == before
    assert odd == figures.gradient_by_probability(10).svg()


def test_labels_do_not_collide():
    placed = figures._spread([50.0, 50.1, 50.2, 10.0], gap=4, low=0, high=52)
    assert all(abs(a - b) >= 3.999 for i, a in enumerate(placed) for b in placed[:i])
    assert placed[3] == 10.0
    assert max(placed) <= 52
    assert sorted(range(4), key=placed.__getitem__) == [3, 0, 1, 2]


def test_hostile_names_are_text(made):
    results = [
        made.run_result(data=made.HOSTILE[0], noise=f"{kind}:{rate}", final=0.5, zero_shot=0.5)
        for kind in ("symmetric", "asymmetric")
        for rate in (0.2, 0.4)
    ] + [made.run_result(data="$x_", noise=f"symmetric:{rate}") for rate in (0.2, 0.4)]
    text = figures.accuracy_against_noise(results).svg()
    ElementTree.fromstring(text)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "$x_" in text


def test_no_accuracy_is_said(made):
    with pytest.raises(ValueError, match="no result has a test accuracy"):
        figures.accuracy_against_noise([made.run_result(final=None)])


def test_every_method_has_a_mark_of_its_own():
    from dspt.methods import method_names

    names = [name for name in method_names() if name != "zero-shot"]
    marks = assign_marks((name, name) for name in names)
    assert len({mark.marker for mark in marks.values()}) == len(names)
    assert len({(mark.colour, mark.dash) for mark in marks.values()}) == len(names)
    assert {mark.colour for mark in marks.values()} <= LIGHT.keys()
    # A variant takes none of the marks that belong to another method in the same figure.
    more = assign_marks([("dspt, other", "dspt"), *((name, name) for name in names)])
    assert more["dspt, other"] == marks["dspt"]
    assert more["dspt"] not in marks.values()


def test_many_methods_share_one_legend(made):
    names = ["linear-probe", "ce", "sce", "gce", "mae", "joapr", "nlprompt", "dspt"]
    results = [
        made.run_result(method=name, noise=f"{kind}:{rate}", data=data, final=0.5 + 0.03 * place)
        for place, name in enumerate(names)
        for kind in ("symmetric", "asymmetric")
        for rate in (0.25, 0.5)
        for data in ("one", "two")
    ]
    drawing = figures.accuracy_against_noise(results)
    root = ElementTree.fromstring(drawing.svg())
    words = [text for node in root.iter() if (text := node.text)]
    assert words.count("NLPrompt") == 1  # in the legend, not once per panel
    assert words.count("Zero-shot") == 1
    assert "one, symmetric noise" in words
    assert "two, asymmetric noise" in words
    assert words.count("Test accuracy; 10 classes, 16 shots, 1 seed") == 4


def test_human_labels_are_groups_with_their_rate(made):
    results = [
        made.run_result(method=method, noise=noise, realised=rate, data="cifar10n", final=0.6)
        for method in ("ce", "dspt")
        for noise, rate in (("column:worse", 0.4), ("column:aggre", 0.1), ("none", 0.0))
    ]
    drawing = figures.accuracy_against_noise(results)
    words = [t for node in ElementTree.fromstring(drawing.svg()).iter() if (t := node.text)]
    assert [w for w in words if w in ("clean", "aggre", "worse")] == ["clean", "aggre", "worse"]
    assert "40.0\u00a0%" in words


def test_a_file_of_its_own_has_a_background(grid):
    drawing = figures.accuracy_against_noise(grid)
    for dark, colours in ((False, LIGHT), (True, DARK)):
        root = ElementTree.fromstring(drawing.standalone_svg(dark=dark))
        assert root.get("viewBox") == "-14 -14 788 428"
        assert root[0].tag.endswith("rect")
        assert root[0].get("fill") == colours["card"]


def test_marks_are_distinct():
    marks = assign_marks(
        [(str(i), name) for i, name in enumerate(("dspt", "ce", "mae", "gce", "gce", "x", "y"))]
    )
    assert len(set(marks.values())) == 7
    assert len({mark.marker for mark in marks.values()}) == 7


@pytest.mark.parametrize("loss", ["ce", "mae", "gce", "dspt"])
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_closed_forms_agree_with_finite_differences(loss, classes):
    def value(z):
        p = np.exp(z - z.max())
        p /= p.sum()
        if loss == "ce":
            return -np.log(p[0])
        if loss == "mae":
            return 2 * (1 - p[0])
        if loss == "gce":
            return (1 - p[0] ** 0.7) / 0.7
        return np.log(np.exp(p).sum()) - p[0]

    for p_given in (0.01, 0.3, 0.5, 0.9):
        z = np.full(classes, -40.0)
        z[:2] = np.log(p_given), np.log(1 - p_given)
        step = 1e-5
        slope = [
            (value(z + step * unit) - value(z - step * unit)) / (2 * step)
            for unit in np.eye(classes)
        ]
        expected = np.linalg.norm(slope)
        assert gradient_norm(loss, np.array(p_given), classes) == pytest.approx(expected, rel=1e-5)


def test_gradient_vanishes_where_it_should():
    ends = np.array([0.0, 1.0])
    for loss in ("mae", "gce", "dspt"):
        assert np.allclose(gradient_norm(loss, ends, 10), 0)
    assert gradient_norm("ce", ends, 10) == pytest.approx([np.sqrt(2), 0])
    assert not has_closed_form("elr")


def test_label_free_range_shrinks_with_classes():
    assert label_free_range(10) == pytest.approx(0.7 / 10, rel=0.2)
    assert label_free_range(1000) < label_free_range(100) < label_free_range(10)
