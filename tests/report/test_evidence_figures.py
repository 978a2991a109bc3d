"""Figures of evidence: every method and number is there, and nothing where nothing was measured."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from dspt.report.evidence import evidence_section, evidence_table, has_evidence
from dspt.result import Evidence, RunResult, SampleEvidence, UpdateEvidence

METHODS = ("ce", "gce", "mae", "dspt")


def samples(n: int, given: float, true: float | None, zero: float) -> SampleEvidence:
    low = round(n * (1 - given))
    return SampleEvidence(
        n=n,
        gradient_norm=0.2 + given / 4,
        probability_given=given,
        probability_histogram=[low, *[0] * 18, n - low],
        as_given=given,
        as_true=true,
        as_zero_shot=zero,
    )


def with_evidence(result: RunResult, learns: float, truth: bool = True) -> RunResult:
    """Made up: wrong labels are learned up to ``learns``; every second epoch has gradients."""
    n, wrong = result.data.n_train, result.noise.n_wrong or 0
    records = []
    for record in result.epochs:
        t = record.epoch / result.epochs[-1].epoch
        share = 0.2 + 0.4 * t * learns
        update = UpdateEvidence(
            norm=1 - share,
            norm_clean=1 - share if truth else None,
            norm_mislabelled=share if truth else None,
            cosine=-0.3 * t if truth else None,
            mislabelled_share=share if truth else None,
            mislabelled_projection=share - 0.3 if truth else None,
        )
        evidence = Evidence(
            all=samples(n, 0.5 + 0.3 * t, 0.6 if truth else None, 0.9 - 0.4 * t),
            clean=samples(n - wrong, 0.5 + 0.4 * t, 0.5 + 0.4 * t, 0.9) if truth else None,
            mislabelled=samples(wrong, learns * t, 0.6 - 0.4 * t, 0.8) if truth else None,
            update=None if record.epoch % 2 else update,
        )
        records.append(record.model_copy(update={"evidence": evidence}))
    return result.model_copy(update={"epochs": records})


def several(made, seeds: int = 2, noise: str = "symmetric:0.5") -> list[RunResult]:
    return [
        with_evidence(made.run_result(method=loss, noise=noise, seed=seed, epochs=6), 0.2 * number)
        for number, loss in enumerate(METHODS, 1)
        for seed in range(1, seeds + 1)
    ]


def blind(made) -> RunResult:
    return with_evidence(made.run_result(truth=False, noise="none", epochs=4), 0.3, truth=False)


def test_without_evidence_there_is_no_figure(made, grid):
    assert evidence_section(grid) == []
    assert evidence_table(grid)[1] == []
    assert not has_evidence(made.run_result())
    assert has_evidence(several(made)[0])


@pytest.mark.parametrize("narrow", [False, True])
def test_every_method_has_its_lines_and_histograms(made, narrow):
    figures = evidence_section(several(made))
    assert [f.drawing.name for f in figures] == [
        "evidence-gradient",
        "evidence-learning",
        "evidence-histograms",
    ]
    for figure in figures:
        text = figure.drawing.svg(narrow=narrow)
        root = ElementTree.fromstring(text)
        words = " ".join(root.itertext())
        for label in ("Cross-entropy", "GCE", "MAE", "DSPT"):
            assert label in words, figure.title
            assert label in (root.get("aria-label") or "")
        assert not re.search(r'\sstyle="|<style', text)
        assert figure.caption.endswith(".")
        assert text == figure.drawing.svg(narrow=narrow)


def test_labels_tell_the_ends_of_the_curves(made):
    gradient, learning, histograms = (f.drawing.label for f in evidence_section(several(made)))
    assert "at the context: Cross-entropy from 20 % to 28 %; GCE from 20 % to 36 %" in (gradient)
    assert "Wrong labels memorised: Cross-entropy from 0 % to 20 %" in learning
    assert "DSPT, mislabelled: in the lowest bin from 100 to 20 %" in histograms


def test_one_run_is_drawn_without_a_legend(made):
    figures = evidence_section(several(made, seeds=1)[-1:])
    assert len(figures) == 3
    words = " ".join(ElementTree.fromstring(figures[1].drawing.svg()).itertext())
    assert "DSPT" not in words
    assert "means over seeds" not in figures[1].caption
    assert "means over seeds" in evidence_section(several(made))[1].caption


def test_the_rate_nearest_to_one_half_is_shown(made):
    results = several(made, noise="symmetric:0.25") + several(made, noise="symmetric:0.5")
    captions = [figure.caption for figure in evidence_section(results)]
    assert all("symmetric 50" in caption for caption in captions)


def test_without_truth_nothing_is_said_of_clean_and_mislabelled(made):
    figures = evidence_section([blind(made)])
    assert [f.drawing.name for f in figures] == ["evidence-learning", "evidence-histograms"]
    words = " ".join(ElementTree.fromstring(figures[0].drawing.svg()).itertext())
    assert "Given labels learned" in words
    assert "memorised" not in words
    assert all("unknown" in figure.caption for figure in figures)
    header, rows, _ = evidence_table([blind(made)])
    assert header == ["Measured", "DSPT"]
    assert rows == [["Agrees with zero-shot", "50.0"]]


def test_table_gives_start_end_and_spread(made):
    header, rows, note = evidence_table(several(made))
    assert header == ["Measured", "Cross-entropy", "GCE", "MAE", "DSPT"]
    assert all(len(row) == len(header) for row in rows)
    ce = {row[0]: row[1] for row in rows}
    at_context = "Gradient from mislabelled at the context, start → end"
    assert ce[at_context] == "20.0 ± 0.0 → 28.0 ± 0.0"
    assert ce["Wrong labels memorised"] == "20.0 ± 0.0"
    assert ce["Truth found under wrong labels"] == "20.0 ± 0.0"
    assert "2 seeds" in note


def test_hostile_names_and_short_runs_are_drawn(made):
    run = made.run_result(epochs=1, class_names=made.HOSTILE, data=made.HOSTILE[0])
    empty = SampleEvidence(
        n=0,
        gradient_norm=None,
        probability_given=None,
        probability_histogram=[0] * 20,
        as_given=None,
        as_true=None,
        as_zero_shot=None,
    )
    whole = samples(run.data.n_train, 0.5, 0.5, 0.5)
    evidence = Evidence(all=whole, clean=whole, mislabelled=empty, update=None)
    epochs = [run.epochs[0].model_copy(update={"evidence": evidence})]
    for figure in evidence_section([run.model_copy(update={"epochs": epochs})]):
        ElementTree.fromstring(figure.drawing.svg())
