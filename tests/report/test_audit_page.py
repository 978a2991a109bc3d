"""The page of an audit: what it counts, what it draws."""

from __future__ import annotations

import re
from html import unescape

import pytest

from dspt.report import AuditPage, render_audit
from dspt.report.gallery import judge
from dspt.report.heatmap import heat_map


def text_of(page: str) -> str:
    body = page[page.index("<body>") : page.index("<script>")]
    words = unescape(re.sub(r"<[^>]+>", " ", body)).replace("\u00a0", " ")
    return re.sub(r"\s+", " ", words)


def test_says_what_was_found(made):
    page = made.audit_page()
    text = text_of(render_audit(page, made.thumbnail))
    wrong = sum(s.true != s.given for s in page.suspects)
    assert "About 24.1 % of 480 labels look wrong" in text
    assert "116 wrong labels. 95 % interval of the share: 22.0 to 26.3 %" in text
    assert "120 of 480 labels are listed." in text
    assert f"{wrong} are truly mislabelled and {120 - wrong} are wrongly accused." in text
    assert "Every score is out of fold." in text
    assert "Folds 5" in text


def test_without_truth_or_estimates(made):
    page = made.audit_page(truth=False, noise_rate=None, noise_interval=None, transition=None)
    text = text_of(render_audit(page, made.thumbnail))
    assert "480 labels ranked by how likely each is wrong" in text
    assert "The truth is unknown here" in text
    assert "An estimate" not in text
    assert "Which labels stand for which classes" not in text
    assert "How good the ranking is" not in text
    assert "Truly wrong" not in text


def test_without_suspects(made):
    text = text_of(render_audit(AuditPage("none", ["a", "b"], 3, []), made.thumbnail))
    assert "No label looks wrong." in text


def test_a_truth_that_is_known_of_some(made):
    import dataclasses

    page = made.audit_page(n=3)
    known, unknown = page.suspects[0], dataclasses.replace(page.suspects[1], true=None)
    page = dataclasses.replace(page, suspects=[known, unknown])
    assert "of 1 the truth is unknown" in text_of(render_audit(page, made.thumbnail))


def test_quality_marks_the_best_of_a_column(made):
    page = render_audit(made.audit_page(), made.thumbnail)
    table = page[page.index('aria-label="Quality of the ranking"') :]
    table = table[: table.index("</table>")]
    assert re.findall(r'class="value best">([\d.]+)<', table) == ["0.953", "0.910", "0.870"]
    assert table.count("\u2013") == 1  # the measure that one row lacks


def test_size_of_a_large_audit(made):
    names = [f"class number {i}" for i in range(1000)]
    heavy = made.picture(1) + bytes(20_000)
    page = render_audit(made.audit_page(names, n=1000), lambda key: heavy)
    assert len(page.encode()) < 4_000_000
    assert page.count('<li class="sample"') == 300
    assert "The 300 most suspicious are shown." in page
    assert "Drawn are the 120 classes with the most wrong labels." in page


@pytest.mark.parametrize(
    ("true", "group", "tone"),
    [(None, "", ""), (0, "accused", "bad"), (1, "wrong", "good"), (2, "wrong", "half")],
)
def test_verdicts(true, group, tone):
    verdict = judge(given=0, proposed=1, true=true)
    assert (verdict.group, verdict.tone) == (group, tone)


def test_heat_map_of_few_classes():
    heat = heat_map([[0.7, 0.28, 0.02], [0.0, 0.996, 0.004], [0.06, 0.1, 0.84]], ["a", "b", "c"])
    assert [[style for _, style in row] for row in heat.rows] == [
        ["own", "heat5", "heat2"],
        ["", "own", ""],
        ["heat3", "heat4", "own"],
    ]
    assert [(f.true, f.given, f.share) for f in heat.flows] == [
        ("a", "b", 0.28),
        ("c", "b", 0.1),
        ("c", "a", 0.06),
        ("a", "c", 0.02),
    ]
    assert not heat.paths
    assert "a labelled b 28.0" in heat.label


def test_heat_map_of_many_classes_has_one_square_a_share():
    n = 40
    matrix = [[0.0] * n for _ in range(n)]
    for c in range(n):
        matrix[c][c] = 1.0
    matrix[3][7], matrix[3][3] = 0.3, 0.7
    heat = heat_map(matrix, [str(c) for c in range(n)])
    paths = dict(heat.paths)
    assert set(paths) == {"own", "heat5"}
    assert paths["own"].count("M") == n
    corner = f"M{heat.margin + 7 * heat.cell} {heat.margin + 3 * heat.cell}h"
    assert paths["heat5"].startswith(corner)
    assert not heat.rows


def test_heat_map_draws_the_noisiest_of_very_many():
    n = 130
    matrix = [[float(t == g) for g in range(n)] for t in range(n)]
    matrix[129][129], matrix[129][0] = 0.5, 0.5
    heat = heat_map(matrix, [str(c) for c in range(n)])
    assert heat.left_out == 10
    assert "129" in heat.names
    assert "128" not in heat.names


def test_heat_map_must_fit():
    with pytest.raises(ValueError, match="2 by 2"):
        heat_map([[1.0, 0.0]], ["a", "b"])
