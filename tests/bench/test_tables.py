"""Tables against numbers worked out by hand."""

from __future__ import annotations

import csv
import io
import math
import re
import statistics
from pathlib import Path

import pytest
from scipy import stats
from tests.report import made

from dspt.bench.comparing import overall_difference
from dspt.bench.published import read_published
from dspt.bench.tables import render_tables
from dspt.errors import UserError
from dspt.report.collect import Collected, collect
from dspt.result import RunResult, Transfer
from dspt.transfer import harmonic_mean

CE = {"none": (0.80, 0.82, 0.81), "symmetric:0.5": (0.60, 0.64, 0.59)}
DSPT = {"none": (0.75, 0.76, 0.76), "symmetric:0.5": (0.70, 0.71, 0.72)}


def runs(method: str, values: dict[str, tuple[float, ...]], **more: object) -> list[RunResult]:
    return [
        made.run_result(
            method=method, noise=noise, seed=seed, final=value, epochs=1, zero_shot=0.65, **more
        )
        for noise, row in values.items()
        for seed, value in enumerate(row, start=1)
    ]


def found(*groups: list[RunResult], **more: list[str]) -> Collected:
    lists = {"skipped": [], "failures": [], "benches": [], **more}
    return Collected([run for group in groups for run in group], **lists)


def cells(text: str, label: str, table: int = 0) -> list[str]:
    """The row of a label in the Markdown table of that place, without the label."""
    tables = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in tables[table].splitlines()]
    (row,) = [row for row in rows if row[0] == label]
    return row[1:]


def plain(text: str) -> str:
    return text.replace("\u00a0", " ").replace("\u2212", "-")


def test_means_spread_and_bold() -> None:
    text = plain(render_tables(found(runs("ce", CE), runs("dspt", DSPT))))
    assert cells(text, "Method") == ["clean", "symmetric 50 %"]
    assert cells(text, "Cross-entropy") == ["**81.0 ± 1.0**", "61.0 ± 2.6"]
    assert cells(text, "DSPT") == ["75.7 ± 0.6", "**71.0 ± 1.0**"]
    assert cells(text, "Zero-shot") == ["65.0", "65.0"]
    assert "over 3 seeds (1, 2, 3)" in text
    assert "10 classes, 16 shots" in text


def test_paired_differences_by_hand() -> None:
    text = plain(render_tables(found(runs("ce", CE), runs("dspt", DSPT))))
    gaps = {noise: [a - b for a, b in zip(DSPT[noise], CE[noise], strict=True)] for noise in CE}
    expected = []
    for values in (*gaps.values(), [statistics.fmean(pair) for pair in zip(*gaps.values())]):  # noqa: B905
        low, high = stats.t.interval(0.95, 2, statistics.fmean(values), stats.sem(values))
        expected.append([round(100 * v, 1) for v in (statistics.fmean(values), low, high)])
    shown = [
        [float(n) for n in re.findall(r"[+-]\d+\.\d", c)] for c in cells(text, "Cross-entropy", 1)
    ]
    assert shown == expected
    assert cells(text, "DSPT -", 1) == ["clean", "symmetric 50 %", "all columns"]
    zero = [float(c.split()[0]) for c in cells(text, "Zero-shot", 1)]
    assert zero == [10.7, 6.0, 8.3]


def test_ties_within_rounding_are_both_bold() -> None:
    one = runs("ce", {"none": (0.7002,)})
    two = runs("dspt", {"none": (0.7004,)})
    three = runs("mae", {"none": (0.6989,)})
    text = render_tables(found(one, two, three))
    assert cells(text, "Cross-entropy") == ["**70.0**"]
    assert cells(text, "DSPT") == ["**70.0**"]
    assert cells(text, "MAE") == ["69.9"]
    assert "One seed each" in text


def test_incomplete_and_empty_cells_are_marked() -> None:
    short = {"none": DSPT["none"], "symmetric:0.5": DSPT["symmetric:0.5"][:2]}
    gce = {"none": (0.5, 0.5, 0.5)}
    text = plain(render_tables(found(runs("ce", CE), runs("dspt", short), runs("gce", gce))))
    assert cells(text, "DSPT")[1] == "**70.5 ± 0.7** (2/3)".replace("** (2/3)", " (2/3)**")
    assert cells(text, "GCE") == ["50.0 ± 0.0", "–"]
    assert "Incomplete: 1 cell with fewer seeds" in text
    assert "no result (1 cell)" in text
    # The difference uses the two seeds that both have, and says so.
    assert cells(text, "Cross-entropy", 1)[1].startswith("+8.5 [")
    assert cells(text, "Cross-entropy", 1)[1].endswith("(2/3)")
    assert cells(text, "GCE", 1)[1] == "–"
    assert cells(text, "GCE", 1)[2].endswith("1 column")


def test_seeds_that_do_not_match_are_not_paired() -> None:
    other = [
        made.run_result(method="ce", noise="none", seed=seed, final=0.7, epochs=1)
        for seed in (4, 5, 6)
    ]
    text = render_tables(found(other, runs("dspt", {"none": DSPT["none"]})))
    assert "Not all cells have the same seeds" in text
    assert "| Cross-entropy |" not in plain(text).split("minus each other")[1]


def test_overall_difference_averages_within_a_seed_first() -> None:
    a = [{(1, 1, 1): 0.5, (2, 2, 2): 0.6}, {(1, 1, 1): 0.7, (2, 2, 2): 0.9}, {}]
    b = [{(1, 1, 1): 0.4, (2, 2, 2): 0.4}, {(1, 1, 1): 0.4, (2, 2, 2): 0.8}, {(1, 1, 1): 0.1}]
    gap, columns = overall_difference(a, b)
    assert gap is not None
    assert columns == 2
    assert gap.n == 2
    assert gap.mean == pytest.approx((0.2 + 0.15) / 2)
    assert gap.margin == pytest.approx(
        stats.t.ppf(0.975, 1) * statistics.stdev([0.2, 0.15]) / math.sqrt(2)
    )
    assert overall_difference([{(1, 1, 1): 0.5}], [{(2, 2, 2): 0.5}]) == (None, 0)


def test_backbones_shots_and_variants_never_mix() -> None:
    text = plain(
        render_tables(
            found(
                runs("dspt", DSPT),
                runs("dspt", DSPT, backbone="RN50"),
                runs("dspt", DSPT, shots=4),
                runs("dspt", DSPT, shots=None, prompt={"init": "a photo of a"}),
            )
        )
    )
    heads = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert heads == [
        "cifar10-small, dspt-mini-160, 10 classes, 16 shots",
        "cifar10-small, RN50, 10 classes, 16 shots",
        "cifar10-small, dspt-mini-160, 10 classes, 4 shots",
        "cifar10-small, dspt-mini-160, 10 classes, all labels",
    ]
    text = render_tables(
        found(runs("dspt", DSPT), runs("dspt", CE, prompt={"init": "a photo of a"}))
    )
    assert cells(text, "DSPT (init = random)")[0].startswith("75.7")
    assert cells(text, "DSPT (init = a photo of a)")[0].startswith("**81.0")


def test_a_variant_is_compared_with_its_own_kind() -> None:
    both = [
        run
        for init in ("random", "a photo of a")
        for method, values in (("dspt", DSPT), ("ce", CE), ("linear-probe", CE))
        for run in runs(method, values, prompt={"init": init})
    ]
    parts = render_tables(found(both)).split("minus each other method")
    assert len(parts) == 3
    for part, own, other in (
        (parts[1], "a photo of a", "random"),
        (parts[2], "random", "a photo of a"),
    ):
        table = part.split("Paired")[0]
        assert f"Cross-entropy (init = {own})" in table
        assert f"Cross-entropy (init = {other})" not in table
        assert "| Linear probe" in table


def test_repeats_are_left_out_and_said() -> None:
    again = runs("dspt", DSPT)
    text = render_tables(found(runs("dspt", DSPT), again))
    assert cells(text, "DSPT")[0].startswith("**75.7 ± 0.6")
    assert "6 results left out" in text


def test_calibration_lower_is_better() -> None:
    ce = [made.run_result(method="ce", seed=s, calibration=0.30 + s / 100) for s in (1, 2)]
    dspt = [made.run_result(method="dspt", seed=s, calibration=0.10) for s in (1, 2)]
    text = plain(render_tables(found(ce, dspt), metric="calibration"))
    assert "lower is better" in text
    assert cells(text, "Cross-entropy") == ["31.5 ± 0.7"]
    assert cells(text, "DSPT") == ["**10.0 ± 0.0**"]
    assert cells(text, "Cross-entropy", 1)[0].startswith("-21.5")


def test_against_another_method() -> None:
    text = plain(render_tables(found(runs("ce", CE), runs("dspt", DSPT)), against="ce"))
    assert cells(text, "DSPT", 1)[0].startswith("+5.3")
    text = plain(render_tables(found(runs("ce", CE), runs("dspt", DSPT)), against="zero-shot"))
    assert cells(text, "DSPT", 1)[0].startswith("-10.7")
    with pytest.raises(UserError, match="against: no result is of the method 'gce'; there are ce"):
        render_tables(found(runs("ce", CE)), against="gce")
    assert "minus each other" not in render_tables(found(runs("ce", CE)))


def test_zero_shot_as_a_method_is_one_row() -> None:
    zero = runs("zero-shot", dict.fromkeys(CE, (0.65,) * 3))
    text = render_tables(found(zero, runs("dspt", DSPT)))
    assert cells(text, "Zero-shot") == ["65.0", "65.0"]


def transfers(run: RunResult, *rows: tuple[str, str, float, float]) -> RunResult:
    made_up = [
        Transfer(
            data=data,
            target=target,
            n_classes=10,
            zero_shot=made.evaluation(zero, 10, 1000),
            tuned=made.evaluation(tuned, 10, 1000),
        )
        for target, data, tuned, zero in rows
    ]
    return run.model_copy(update={"transfers": made_up})


def test_base_to_new_and_harmonic_mean() -> None:
    new = (0.60, 0.50)
    results = [
        transfers(run, ("new", "cifar10-small[new]", value, 0.55))
        for run, value in zip(runs("dspt", {"none": (0.8, 0.7)}), new, strict=True)
    ]
    text = plain(render_tables(found(results)))
    table = text.split("### Base to new")[1]
    h = [harmonic_mean(a, b) for a, b in zip((0.8, 0.7), new, strict=True)]
    assert cells(table, "Method") == ["base", "new", "harmonic mean"]
    assert cells(table, "DSPT") == [
        "**75.0 ± 7.1**",
        "**55.0 ± 7.1**",
        f"**{100 * statistics.fmean(h):.1f} ± {100 * statistics.stdev(h):.1f}**",
    ]
    assert cells(table, "Zero-shot")[:2] == ["65.0", "**55.0**"]


def test_cross_dataset_has_a_column_per_target() -> None:
    results = [
        transfers(run, ("dtd", "DTD", 0.4, 0.45), ("pets", "Pets", 0.8, 0.75))
        for run in runs("dspt", {"none": (0.8, 0.7)})
    ]
    table = plain(render_tables(found(results))).split("### Cross-data-set")[1]
    assert cells(table, "Method") == ["cifar10-small (source)", "DTD", "Pets", "mean of targets"]
    assert cells(table, "DSPT") == [
        "**75.0 ± 7.1**",
        "40.0 ± 0.0",
        "**80.0 ± 0.0**",
        "**60.0 ± 0.0**",
    ]
    assert cells(table, "Zero-shot") == ["65.0", "**45.0**", "75.0", "**60.0**"]


def test_published_numbers_stand_apart() -> None:
    results = found(runs("ce", CE, data="Caltech101"), runs("dspt", DSPT, data="Caltech101"))
    without = render_tables(results)
    text = plain(render_tables(results, published=read_published()))
    assert "published" not in without
    assert cells(text, "published (1): NLPrompt, RN50, 16 shots") == ["–", "89.9"]
    assert cells(text, "published (2): CoOp, RN50, 16 shots") == ["92.0 ± 0.15", "–"]
    # Never bold, never in a difference, though they are the highest.
    for line in text.splitlines():
        assert not ("published" in line and "**" in line)
    assert cells(text, "Cross-entropy")[0] == "**81.0 ± 1.0**"
    assert "published" not in text.split("minus each other method")[1].split("---\n\n")[0]
    assert "(1) second-hand:" in text
    assert "(2) read: Zhou et al." in text
    assert "setting not stated: DSPT 96.06 %" in text
    assert "81.97" in text
    other = render_tables(found(runs("dspt", DSPT)), published=read_published())
    assert "published" not in other


def test_published_numbers_name_a_source_and_are_percent() -> None:
    published = read_published()
    assert {n.source for n in published.numbers} == published.sources.keys()
    assert all(1 < n.accuracy < 100 for n in published.numbers)
    assert [
        n.accuracy for n in published.on("caltech-101") if n.label == "CoOp, RN50, 16 shots"
    ] == [
        81.0,
        70.9,
        46.9,
        92.0,
    ]
    assert published.on("oxford_pets") == published.on("OxfordPets") != []
    assert published.on("caltech101[base]") == []


def test_csv_says_the_same_with_full_precision() -> None:
    results = found(runs("ce", CE, data="Caltech101"), runs("dspt", DSPT, data="Caltech101"))
    text = render_tables(results, "csv", published=read_published())
    rows = list(csv.DictReader(io.StringIO(text)))
    measured = [row for row in rows if row["status"] == "measured"]
    assert len(measured) == 4
    for row in measured:
        values = {"ce": CE, "dspt": DSPT}[row["method"]][row["noise"]]
        assert float(row["mean"]) == statistics.fmean(values)
        assert float(row["std"]) == statistics.stdev(values)
        assert row["seeds"] == "1 2 3"
        assert row["n"] == "3"
        assert row["shots"] == "16"
        assert float(row["zero_shot"]) == pytest.approx(0.65)
    noisy = next(r for r in measured if r["method"] == "ce" and r["noise_kind"] == "symmetric")
    assert noisy["noise_rate"] == noisy["realised_rate"] == "0.5"
    gaps = [a - b for a, b in zip(DSPT["symmetric:0.5"], CE["symmetric:0.5"], strict=True)]
    low, high = stats.t.interval(0.95, 2, statistics.fmean(gaps), stats.sem(gaps))
    assert noisy["against"] == "DSPT"
    assert float(noisy["difference"]) == pytest.approx(statistics.fmean(gaps))
    assert float(noisy["difference_low"]) == pytest.approx(low)
    assert float(noisy["difference_high"]) == pytest.approx(high)
    assert all(row["against"] == "" for row in measured if row["method"] == "dspt")
    others = [row for row in rows if row["status"] != "measured"]
    assert {row["status"] for row in others} == {"published"}
    assert all(row["source"] and row["against"] == "" for row in others)


def test_csv_holds_transfers() -> None:
    results = [
        transfers(r, ("new", "x[new]", 0.6, 0.5)) for r in runs("dspt", {"none": (0.8, 0.7)})
    ]
    rows = list(csv.DictReader(io.StringIO(render_tables(found(results), "csv"))))
    assert [row["measure"] for row in rows] == ["accuracy", "accuracy on new classes"]
    assert rows[1]["mean"] == "0.6"


HOSTILE = r"50% & $x_{1}$ #~^\ <b> | *a* `b` [c] \input{x}"


def test_latex_is_escaped_and_balanced() -> None:
    text = render_tables(
        found(
            runs("ce", CE, data=HOSTILE),
            runs("dspt", DSPT, data=HOSTILE),
            benches=[HOSTILE + "\nx"],
        ),
        "latex",
    )
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert r"\input" not in body
    bare = re.sub(r"\\[\\{}$&%#_]", "", body)
    depth = 0
    for sign in bare:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert "%" not in bare
    assert body.count(r"\begin{table}") == body.count(r"\end{table}") == 2
    assert r"\textbf{81.0 $\pm$ 1.0}" in body
    for tabular in re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", body, flags=re.DOTALL):
        columns = len(re.search(r"\{(l r*|lr*)\}", tabular)[1])  # type: ignore[index]
        for line in tabular.splitlines():
            if line.endswith(r"\\") and "multicolumn" not in line:
                assert len(re.findall(r"(?<!\\)&", line)) == columns - 1


def test_markdown_is_escaped() -> None:
    text = render_tables(found(runs("dspt", DSPT, data=HOSTILE + "\n# Heading")))
    assert "<b>" not in text
    assert "\n# Heading" not in text
    assert r"\*a\*" in text


def test_environments_and_commands_are_in_the_footer() -> None:
    text = render_tables(
        found(
            runs("ce", CE, torch="2.9.0"),
            runs("dspt", DSPT),
            benches=["dspt bench --preset smoke"],
            failures=["cell: diverged"],
            skipped=["x"],
        )
    )
    assert "6 runs: dspt 0.1.0, torch 2.9.0" in text
    assert "6 runs: dspt 0.1.0, torch 2.8.0" in text
    assert "different environments" in text
    assert "Made by: dspt bench --preset smoke" in text
    assert "1 run ended without a result: cell: diverged" in text
    assert "1 file could not be read" in text


def test_warnings_of_runs_are_shown() -> None:
    both = runs("dspt", DSPT, warnings=["label collapse", "worse (12.5%) than zero-shot"])
    both[0] = both[0].model_copy(
        update={"warnings": ["label collapse", "only here (7%)", "w", "v"]}
    )
    text = render_tables(found(both))
    assert "Warnings of runs: 6 runs: label collapse; 5 runs: worse than zero-shot" in text
    assert "DSPT, none, seed 1: only here (7%)" in text
    assert "and 2 more" in text


def test_results_without_tests_are_refused() -> None:
    with pytest.raises(UserError, match="none of the results has test pictures"):
        render_tables(found([made.run_result(final=None)]))


def test_collecting(tmp_path: Path) -> None:
    good = tmp_path / "a" / "deep" / "run"
    good.mkdir(parents=True)
    made.run_result(epochs=1).write(good / "result.json")
    bad = tmp_path / "b"
    bad.mkdir()
    (bad / "result.json").write_text("{")
    failed = tmp_path / "c"
    failed.mkdir()
    (failed / "failure.json").write_text('{"reason": "diverged", "final": true}')
    (tmp_path / "bench.json").write_text('{"grids": [{"methods": ["ce"], "shots": 4}, 7]}')
    got = collect([tmp_path, tmp_path / "a"])
    assert len(got.results) == 1  # once, though it lies below both folders
    assert len(got.skipped) == 1
    assert str(bad / "result.json") in got.skipped[0]
    assert got.failures == ["c: diverged"]
    assert got.benches == ["dspt bench, methods: ce; shots: 4"]
    with pytest.raises(UserError, match="no result found below"):
        collect([bad])
    with pytest.raises(UserError, match="is no folder"):
        collect([tmp_path / "none"])
