"""Sentences follow the numbers, whoever wins."""

from __future__ import annotations

import pytest

from dspt.report import wording
from dspt.report.summary import block_titles, summarise
from dspt.report.wording import MINUS


def plain(text):
    return text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.7834, "78.3 %"), (0.0, "0.0 %"), (1.0, "100.0 %")],
)
def test_percent(value, expected):
    assert plain(wording.percent(value)) == expected
    assert "\u00a0" in wording.percent(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0731, "+7.3"), (-0.02, f"{MINUS}2.0"), (0.0, "±0.0"), (-0.0001, "±0.0")],
)
def test_signed(value, expected):
    assert wording.signed(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0 %"), (0.001, "<1 %"), (0.5, "50 %"), (0.999, ">99 %"), (1.0, "100 %")],
)
def test_share_is_exact_at_the_ends(value, expected):
    assert plain(wording.share(value)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.44, "0.4 s"), (41.2, "41 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_seconds(value, expected):
    assert plain(wording.seconds(value)) == expected


@pytest.mark.parametrize(
    ("final", "outcome", "words"),
    [
        (0.783, "better", "Tuning gained 7.3 points."),
        (0.650, "worse", "Tuning made the model worse, by 6.0 points."),
        (0.715, "level", "No clear difference. Tuning is 0.5 points ahead."),
        (0.705, "level", "No clear difference. Tuning is 0.5 points behind."),
        (0.710, "level", "No clear difference. Both are equally accurate."),
    ],
)
def test_headline(made, final, outcome, words):
    head = wording.headline(made.run_result(final=final, zero_shot=0.71))
    assert head.outcome == outcome
    assert plain(head.verdict) == words
    assert plain(head.title) == (
        f"Tuned prompt {100 * final:.1f} % on 2,465 test pictures; zero-shot 71.0 %"
    )
    assert "95 % intervals" in plain(head.explanation)
    assert ("zero-shot prompt is the better choice" in head.explanation) == (outcome == "worse")


def test_headline_needs_more_pictures_for_the_same_gap(made):
    assert (
        wording.headline(made.run_result(final=0.75, zero_shot=0.71, n_test=100)).outcome == "level"
    )
    assert (
        wording.headline(made.run_result(final=0.75, zero_shot=0.71, n_test=5000)).outcome
        == "better"
    )


def test_headline_without_test_pictures(made):
    head = wording.headline(made.run_result(final=None))
    assert head.outcome == "unknown"
    assert head.title == "No test pictures, so no accuracy to report"
    assert "no measure of quality" in head.explanation


def test_headline_without_zero_shot(made):
    head = wording.headline(made.run_result(zero_shot=None))
    assert head.outcome == "unknown"
    assert "zero-shot" not in head.title


def test_noise_sentence(made):
    known = made.run_result()
    assert "80 of 160 training labels are wrong (50.0 %)" in plain(
        wording.noise_sentence(known.noise, known.data.n_train)
    )
    unknown = made.run_result(truth=False)
    assert "nobody can say" in wording.noise_sentence(unknown.noise, 160)
    clean = made.run_result(noise="none")
    assert wording.noise_sentence(clean.noise, 160) == "All 160 training labels are right."


def test_findings_mixed(grid):
    (block,) = summarise(grid)
    texts = [plain(text) for text in wording.findings(block)]
    assert texts[0].startswith(
        "DSPT is ahead of zero-shot at 0 % (+4.5), 25 % (+3.6) and 50 % (+1.8) "
        f"and behind it at 75 % ({MINUS}2.4)"
    )
    against_ce = next(text for text in texts if text.startswith("DSPT") and "cross-entropy" in text)
    assert f"behind it at 0 % ({MINUS}2.3)" in against_ce
    assert plain(wording.best_sentence(block)) == (
        "The highest means: cross-entropy at 0 %; GCE (q = 0.7) at 25 %; DSPT at 50 %; "
        "zero-shot at 75 %."
    )


def test_findings_when_dspt_always_loses(made):
    (block,) = summarise(made.sweep(shift=-0.3))
    texts = " ".join(plain(text) for text in wording.findings(block))
    assert f"DSPT is behind zero-shot at every rate: 0 % ({MINUS}25.5)" in texts
    assert "DSPT is behind MAE at every rate" in texts
    assert "DSPT is ahead" not in texts
    assert "DSPT" not in wording.best_sentence(block)
    assert "25.5 points" not in wording.summary_sentence(block)
    assert "32.4 points below zero-shot" in plain(wording.summary_sentence(block))


def test_findings_when_dspt_always_wins(made):
    (block,) = summarise(made.sweep(shift=0.3))
    texts = " ".join(plain(text) for text in wording.findings(block))
    assert "DSPT is ahead of zero-shot at every rate" in texts
    assert "clearly so in every case" in texts
    assert wording.best_sentence(block) == "The highest mean at every rate is that of DSPT."


def test_ties_are_ties(made):
    results = [
        made.run_result(method=method, noise="symmetric:0.5", seed=seed, final=0.6, zero_shot=0.6)
        for method in ("ce", "dspt")
        for seed in (1, 2)
    ]
    (block,) = summarise(results)
    texts = [plain(text) for text in wording.findings(block)]
    assert "DSPT is level with cross-entropy at 50 % (±0.0)." in texts
    assert "cross-entropy, DSPT and zero-shot" in wording.best_sentence(block)


def test_one_seed_claims_nothing_clear(made):
    (block,) = summarise(made.sweep(seeds=1))
    assert not any("clearly" in text for text in wording.findings(block))


def test_seed_spread_decides_what_is_clear(made):
    noisy = made.sweep(spread=0.2)
    (block,) = summarise(noisy)
    assert "nowhere clearly so" in wording.against_zero_shot(block, block.method("dspt"))


@pytest.mark.parametrize(
    ("ce", "dspt", "words"),
    [
        (2.1, 0.6, "DSPT listens less to wrong labels"),
        (0.6, 2.1, "does not hold wrong labels back better"),
        (1.0, 1.0, "treat wrong labels alike"),
    ],
)
def test_gradient_sentence(ce, dspt, words):
    text = wording.gradient_sentence("50 %", [("Cross-entropy", ce, 0.1), ("DSPT", dspt, 0.2)])
    assert words in text
    assert "or that they have been learned" in text


def test_summaries_never_average_what_differs(made):
    results = [made.run_result(seed=1), made.run_result(seed=1, views=4)]
    (block,) = summarise(results)
    assert [m.label for m in block.methods] == ["DSPT (views = 0)", "DSPT (views = 4)"]


def test_clean_runs_stand_in_every_table(made):
    blocks = summarise(made.sweep(("symmetric", "asymmetric")))
    assert [b.kind for b in blocks] == ["symmetric", "asymmetric"]
    assert all(b.conditions[0].clean for b in blocks)
    assert block_titles(blocks) == ["Symmetric noise", "Asymmetric noise"]


def test_column_noise_has_no_rate(made):
    (block,) = summarise([made.run_result(noise="column:human", truth=False)])
    assert block.conditions[0].rate is None
    assert block.conditions[0].label == "column:human"


@pytest.mark.parametrize(
    ("method", "title", "verdict"),
    [
        ("linear-probe", "Linear probe 60.0 % on", "The linear probe is worse than zero-shot"),
        ("zero-shot", "Zero-shot 60.0 % on", "This is the untrained model."),
        ("nlprompt", "Tuned prompt 60.0 % on", "Tuning made the model worse"),
    ],
)
def test_headline_names_what_was_made(made, method, title, verdict):
    head = wording.headline(made.run_result(method=method, final=0.6, zero_shot=0.71))
    assert plain(head.title).startswith(title)
    assert plain(head.verdict).startswith(verdict)


def test_bounds_have_no_variants_of_prompts(made):
    results = [
        made.run_result(method=method, seed=seed, prompt={"init": init})
        for method in ("zero-shot", "linear-probe", "dspt")
        for init in ("random", "a photo of a")
        for seed in (1, 2)
    ]
    (block,) = summarise(results)
    assert [m.label for m in block.methods] == [
        "Zero-shot",
        "Linear probe",
        "DSPT (init = a photo of a)",
        "DSPT (init = random)",
    ]
    assert all(cell.n == len(cell.runs) == 2 for cell in block.cells.values())
    assert len(block.repeats) == 4


def test_shots_weights_and_data_stand_apart(made):
    results = [
        made.run_result(),
        made.run_result(shots=4),
        made.run_result(shots=None),
        made.run_result(backbone="other"),
        made.run_result(data="other"),
    ]
    changed = results[0].data.model_copy(update={"fingerprint": "e" * 64})
    results.append(results[0].model_copy(update={"data": changed}))
    blocks = summarise(results)
    assert len(blocks) == len(results)
    assert len(set(block_titles(blocks))) == len(results)


def test_a_matrix_is_no_clean_label(made, tmp_path):
    from dspt.report.summary import condition_of

    rows = "\n".join(",".join(str(float(i == j)) for j in range(10)) for i in range(10))
    (tmp_path / "t.csv").write_text(rows)
    condition = condition_of(made.run_result(noise=f"matrix:{tmp_path / 't.csv'}", truth=False))
    assert not condition.clean
    assert condition.rate is None
    assert condition.text.startswith("matrix:t.csv ")


@pytest.mark.parametrize("degrees", [1, 2, 4, 30])
def test_t_quantile(degrees):
    from scipy.stats import t

    from dspt.report.summary import t_quantile

    assert t_quantile(degrees) == pytest.approx(t.ppf(0.975, degrees), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Cross-entropy", "cross-entropy"),
        ("DSPT", "DSPT"),
        ("JoAPR", "JoAPR"),
        ("NCE + RCE", "NCE + RCE"),
        ("Zero-shot, 80 templates", "zero-shot, 80 templates"),
        ("GCE (q = 0.7)", "GCE (q = 0.7)"),
    ],
)
def test_names_within_a_sentence(name, expected):
    assert wording.inline(name) == expected
