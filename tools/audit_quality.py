"""How well `dspt audit` finds wrong labels, beside cleanlab on the same out-of-fold probabilities.

    DSPT_DATA=FOLDER python tools/audit_quality.py --out audit-quality [--set caltech101 ...]

The packaged emoji and 50 classes of Caltech-101 with labels made wrong, CIFAR-10N with labels of
people. Prints one table a set and writes rows as CSV. cleanlab (AGPL) is used if it is installed
(`pip install 'dspt[compare]'`) and left out visibly if not. What is finished is not done again.
``--no-prompts`` leaves out the prompts, which take nearly all of the time, and measures the
estimated share on labels as they are (``none``) as well.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.metrics import average_precision_score, roc_auc_score

from dspt.audit import audit_labels
from dspt.backbones import load_backbone
from dspt.cli.console import BarProgress
from dspt.configuration import build_config
from dspt.correction import correct
from dspt.training_set import draw_training_set, feature_table, load_configured

SYNTHETIC = ["none", "symmetric:0.25", "symmetric:0.5", "asymmetric:0.25", "asymmetric:0.5"]
HUMAN = ["none", "column:aggre_label", "column:random_label1", "column:worse_label"]
SETS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "emoji": ({"data": "demo", "shots": 16}, SYNTHETIC),
    "caltech101": ({"data": "caltech101", "classes": "first:50", "shots": 16}, SYNTHETIC),
    "cifar10n": ({"data": "cifar10n", "shots": 64}, HUMAN),
}
COLUMNS = ("set", "noise", "seed", "n", "true_rate", "source", "auroc", "ap", "precision", "rate")


def quality(scores: np.ndarray, wrong: np.ndarray, rate: float | None) -> dict[str, float | str]:
    """AUROC, average precision, precision among as many as are wrong, and the rate claimed."""
    if not wrong.any():
        return {"auroc": "", "ap": "", "precision": "", "rate": "" if rate is None else rate}
    top = np.argsort(-scores, kind="stable")[: int(wrong.sum())]
    return {
        "auroc": float(roc_auc_score(wrong, scores)),
        "ap": float(average_precision_score(wrong, scores)),
        "precision": float(wrong[top].mean()),
        "rate": "" if rate is None else rate,
    }


def cleanlab_rows(given: np.ndarray, probabilities: np.ndarray, name: str) -> dict[str, tuple]:
    """cleanlab's rankings and its estimate of how many labels are wrong."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    issues = find_label_issues(given, probabilities, n_jobs=1)
    found = {}
    for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
        quality_scores = get_label_quality_scores(
            given, probabilities, method=method, adjust_pred_probs=False
        )
        found[f"cleanlab {method}, {name}"] = (-quality_scores, float(issues.mean()))
    return found


def measure(name: str, noise: str, seed: int, prompts: bool, progress: BarProgress) -> list[dict]:
    """All rows of one audit."""
    config = build_config(**SETS[name][0], noise=noise, seed=seed)
    dataset = load_configured(config)
    backbone = load_backbone(config.backbone)
    features = feature_table(config, dataset, backbone, None, progress)
    drawn = draw_training_set(config, dataset, features)
    pictures, given = features.stack(drawn.indices)[:, 0], drawn.given
    template = config.template or dataset.template
    sources: dict[str, tuple[np.ndarray, float | None]]
    logits_of: dict[str, np.ndarray] = {}
    if prompts:
        audit = audit_labels(
            backbone,
            dataset.class_names,
            pictures,
            torch.from_numpy(given),
            template,
            seed=seed,
            progress=progress,
        )
        found, logits_of = audit.correction, audit.prompt_logits
        sources = {key: (scores, None) for key, scores in audit.scores.items()}
    else:
        untrained = backbone.zero_shot_features(dataset.class_names, template)
        anchor = (backbone.logit_scale * pictures @ untrained.t()).double().numpy()
        found = correct(pictures.double().numpy(), given, anchor, seed=seed)
        rows = np.arange(len(given))
        sources = {
            "suspicion": (found.suspicion, None),
            "doubt": (1 - found.posterior[rows, given], None),
            "neighbours": (found.neighbours, None),
            "zero_shot": (1 - softmax(anchor, axis=1)[rows, given], None),
        }
    sources["doubt"] = (sources["doubt"][0], found.noise_rate)
    wrong = np.zeros(len(given), bool) if drawn.true is None else given != drawn.true
    if importlib.util.find_spec("cleanlab"):
        sources |= cleanlab_rows(given, found.probabilities, "our pooled probabilities")
        for learner, logits in logits_of.items():
            sources |= cleanlab_rows(
                given, softmax(logits, axis=1), f"out-of-fold {learner} prompt"
            )
    else:
        progress.note("cleanlab is not installed: the comparison with it is left out")
    about = {"set": name, "noise": noise, "seed": seed, "n": len(given), "true_rate": wrong.mean()}
    return [
        {**about, "source": source, **quality(scores, wrong, rate)}
        for source, (scores, rate) in sources.items()
    ]


def table(rows: list[dict], name: str) -> str:
    """Means over seeds, in percent; the best of each column bold."""
    rows = [row for row in rows if row["set"] == name]
    noises = list(dict.fromkeys(row["noise"] for row in rows))
    ranked = [noise for noise in noises if noise != "none"]
    lines = [
        f"### {name}: AUROC / average precision / precision at the true number, %",
        "",
        "| ranked by | " + " | ".join(ranked) + " | mean AUROC |",
        "| --- |" + " ---: |" * (len(ranked) + 1),
    ]
    for source in dict.fromkeys(row["source"] for row in rows):
        cells, aurocs = [], []
        for noise in ranked:
            own = [r for r in rows if r["source"] == source and r["noise"] == noise]
            mean = {
                key: 100 * statistics.fmean(float(r[key]) for r in own)
                for key in ("auroc", "ap", "precision")
            }
            cells.append(f"{mean['auroc']:.1f} / {mean['ap']:.1f} / {mean['precision']:.1f}")
            aurocs.append(mean["auroc"])
        lines.append(f"| {source} | " + " | ".join(cells) + f" | {statistics.fmean(aurocs):.1f} |")
    lines += ["", "| share of wrong labels, % | " + " | ".join(noises) + " |"]
    lines.append("| --- |" + " ---: |" * len(noises))
    truth = [
        f"{100 * statistics.fmean(float(r['true_rate']) for r in rows if r['noise'] == noise):.1f}"
        for noise in noises
    ]
    lines.append("| true | " + " | ".join(truth) + " |")
    for source in dict.fromkeys(row["source"] for row in rows if row["rate"] != ""):
        if source != "doubt" and "self_confidence" not in source:
            continue  # cleanlab's estimate is the same for all its rankings
        estimates = [
            [
                100 * float(r["rate"])
                for r in rows
                if r["source"] == source and r["noise"] == noise and r["rate"] != ""
            ]
            for noise in noises
        ]
        shown = source.replace(" self_confidence", "")
        lines.append(
            f"| {shown} | " + " | ".join(f"{statistics.fmean(e):.1f}" for e in estimates) + " |"
        )
    return "\n".join(lines) + "\n"


def overall(rows: list[dict]) -> str:
    """Means over all columns with wrong labels, each column's mean over seeds first, in percent."""
    columns = list(dict.fromkeys((row["set"], row["noise"]) for row in rows))
    columns = [column for column in columns if column[1] != "none"]
    lines = [
        f"### mean over {len(columns)} columns",
        "",
        "| ranked by | AUROC | average precision | precision | error of the share |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for source in dict.fromkeys(row["source"] for row in rows):
        own = [
            [r for r in rows if r["source"] == source and (r["set"], r["noise"]) == column]
            for column in columns
        ]

        def mean(key: str, own: list[list[dict]] = own) -> list[float]:
            return [100 * statistics.fmean(float(r[key]) for r in column) for column in own]

        cells = [f"{statistics.fmean(mean(key)):.1f}" for key in ("auroc", "ap", "precision")]
        error = ""
        if all(r["rate"] != "" for column in own for r in column):
            pairs = zip(mean("rate"), mean("true_rate"), strict=True)
            error = f"{statistics.fmean(abs(rate - true) for rate, true in pairs):.1f}"
        lines.append(f"| {source} | " + " | ".join([*cells, error]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", dest="sets", choices=SETS, action="append")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--no-prompts", dest="prompts", action="store_false")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "audit-quality.csv"
    rows: list[dict] = []
    if path.is_file():
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(row["set"], row["noise"], row["seed"]) for row in rows}
    progress = BarProgress()
    for name in options.sets or SETS:
        for seed in options.seeds:
            for noise in SETS[name][1]:
                if (name, noise, str(seed)) in done or (options.prompts and noise == "none"):
                    continue
                print(f"{name} {noise} seed {seed}", file=sys.stderr, flush=True)
                rows += measure(name, noise, seed, options.prompts, progress)
                with path.open("w", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS)
                    writer.writeheader()
                    writer.writerows(rows)
        print(table(_asked(rows, [name], options.seeds), name))
    print(overall(_asked(rows, options.sets or list(SETS), options.seeds)))


def _asked(rows: list[dict], names: list[str], seeds: list[int]) -> list[dict]:
    """The file may hold more from earlier calls."""
    return [row for row in rows if row["set"] in names and int(row["seed"]) in seeds]


if __name__ == "__main__":
    main()
