"""The page of one run of ``dspt fit``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dspt.report import figures, wording
from dspt.report.evidence import evidence_section
from dspt.report.gallery import GROUPS, Card, Wall, judge, truth_sentence
from dspt.report.heatmap import heat_map
from dspt.report.page import Pictures, Thumbnail, render_page
from dspt.report.palette import method_label
from dspt.report.reliability import reliability
from dspt.report.summary import option_text
from dspt.report.wording import Subject
from dspt.result import RunResult, Suspect

GALLERY_LIMIT = 60


def render_run(result: RunResult, suspects: Sequence[Suspect], thumbnail: Thumbnail) -> str:
    """``report.html`` of a run: what came out, how training went, and which labels look wrong.

    Args:
        result: of a finished run.
        suspects: training samples, the most suspicious first; the page shows the first 60 that the
            tuned prompt contradicts.
        thumbnail: the encoded small picture (JPEG, PNG, GIF or WebP) of a suspect's id, or None.

    Returns:
        a self-contained page that loads nothing and is about 3 MB at most.
    """
    final, zero = result.final, result.zero_shot.test
    subject = wording.subject_of(result)
    rows = []
    if final is not None:
        rows.append((subject.row, final.accuracy, final.interval))
        if zero is not None and subject.row != "Zero-shot":
            rows.append(("Zero-shot", zero.accuracy, zero.interval))
    calibration = _calibration(result, subject)
    return render_page(
        "run.html",
        subject=subject,
        title=f"{result.data.name}: {method_label(result.config.method)} run",
        result=result,
        headline=wording.headline(result),
        noise=wording.noise_sentence(result.noise, result.data.n_train),
        method=method_label(result.config.method),
        intervals=figures.accuracy_intervals(rows) if rows else None,
        curves=figures.training_curves(result) if len(result.epochs) > 1 else None,
        gradients=_gradient_text(result),
        **_estimate(result),
        evidence=evidence_section([result]),
        classes=_class_rows(result),
        confused=final is not None and final.per_class_mistakes is not None,
        calibration=calibration,
        reliability=reliability([(name, evaluation) for name, evaluation, _ in calibration]),
        confusions=_confusions(result),
        facts=_facts(result),
        config_json=result.config.model_dump_json(indent=2),
        **_gallery(result, suspects, Pictures(thumbnail), subject.inside),
    )


def _estimate(result: RunResult) -> dict[str, Any]:
    """What the method found out about the labels, as a sentence and a map."""
    found = result.noise_estimate
    if found is None or not found.informed:
        return {"estimate": None, "heat": None}
    low, high = map(wording.percent, found.interval)
    matrix = found.transition
    return {
        "estimate": f"From pictures and labels alone, {wording.percent(found.rate)} of the labels "
        f"were estimated to be wrong (95 % interval {low} to {high}).",
        "heat": None if matrix is None else heat_map(matrix, result.data.class_names),
    }


def _gradient_text(result: RunResult) -> str | None:
    ratios = (
        [
            epoch.gradient_norm_mislabelled / epoch.gradient_norm_clean
            for epoch in (result.epochs[0], result.epochs[-1])
            if epoch.gradient_norm_clean and epoch.gradient_norm_mislabelled is not None
        ]
        if result.epochs
        else []
    )
    if len(ratios) < 2:
        return None
    return (
        "A wrongly labelled picture pulls on the logits, compared with a rightly labelled one, "
        f"{wording.times(ratios[0])} at the untrained start and {wording.times(ratios[1])} at the "
        f"end. {wording.LEARNED}"
    )


def _class_rows(result: RunResult) -> list[dict[str, Any]]:
    final, zero = result.final, result.zero_shot.test
    if final is None:
        return []
    names = result.data.class_names
    mistakes = final.per_class_mistakes or [[] for _ in names]
    rows = []
    for index, name in enumerate(names):
        accuracy = final.per_class_accuracy[index]
        before = zero.per_class_accuracy[index] if zero is not None else None
        rows.append(
            {
                "name": name,
                "tuned": accuracy,
                "zero": before,
                "change": None if accuracy is None or before is None else accuracy - before,
                "n": final.per_class_n[index],
                "train": result.data.train_per_class[index],
                "taken_for": [(names[other], number) for other, number in mistakes[index]],
            }
        )
    return sorted(rows, key=lambda row: (row["tuned"] is None, row["tuned"] or 0.0, row["name"]))


def _calibration(result: RunResult, subject: Subject) -> list[tuple[str, Any, str]]:
    rows = []
    if result.final is not None:
        who = wording.capital(subject.inside)
        rows.append((subject.row, result.final, wording.calibration_sentence(result.final, who)))
    if result.zero_shot.test is not None and subject.row != "Zero-shot":
        test = result.zero_shot.test
        rows.append(("Zero-shot", test, wording.calibration_sentence(test, "Zero-shot")))
    return rows


def _confusions(result: RunResult, limit: int = 8) -> list[tuple[str, str, int]]:
    """The commonest wrong labels: true class, given class, how often."""
    if result.noise.transition is None:
        return []
    names = result.data.class_names
    flows = [
        (names[true], names[given], number)
        for true, row in enumerate(result.noise.transition)
        for given, number in enumerate(row)
        if true != given and number
    ]
    flows.sort(key=lambda flow: -flow[2])
    return flows[:limit] if flows and flows[0][2] > 1 else []


def _facts(result: RunResult) -> list[tuple[str, list[tuple[str, str]]]]:
    from dspt.methods import trains_prompt

    config, backbone, data = result.config, result.backbone, result.data
    made = "Trained context" if trains_prompt(config.method) else "Linear head"
    recipe, prompt = config.recipe, config.prompt
    options = ", ".join(f"{k} = {option_text(v)}" for k, v in sorted(config.method_options.items()))
    sources = {
        "split": "its own test split",
        "holdout": "held out from its pictures",
        "none": "none",
    }
    kind = "one set for each class" if prompt.class_specific else "shared by all classes"
    vectors = "as many as the words have tokens" if prompt.init != "random" else "16"
    seeds = f"start {config.seed}, draw {config.draw_seed}, noise {config.noise_seed}"
    place = {"end": "at the end", "middle": "in the middle", "front": "in front"}[prompt.position]
    size = "{} by {} px".format(*backbone.image_size)
    weights = f"{backbone.name}" + (f", {backbone.pretrained}" if backbone.pretrained else "")
    rate = f"{recipe.lr:g}, {recipe.schedule}"
    if recipe.warmup_epochs:
        epochs = "epoch" if recipe.warmup_epochs == 1 else "epochs"
        rate += f", after {recipe.warmup_epochs} warm-up {epochs} at {recipe.warmup_lr:g}"
    trained: list[tuple[str, str]] = [
        ("Context", f"{prompt.n_ctx or vectors} vectors, {kind}; class name {place}"),
        ("Start", "random" if prompt.init == "random" else f"“{prompt.init}”"),
        ("Epochs", f"{recipe.epochs}, batches of {recipe.batch_size}"),
        ("Learning rate", rate),
        ("SGD", f"momentum {recipe.momentum:g}, weight decay {recipe.weight_decay:g}"),
        ("Views", f"{config.views} augmented" if config.views else "the picture itself"),
    ]
    if not trains_prompt(config.method):
        trained = [("Prompt", "none is trained")]
    return [
        (
            "Training",
            [
                ("Method", method_label(config.method) + (f" ({options})" if options else "")),
                *trained,
                ("Seeds", seeds),
            ],
        ),
        (
            "Data",
            [
                ("Name", data.name),
                ("Classes", wording.count(len(data.class_names))),
                ("Training", wording.pictures(data.n_train) + _shots(data.shots)),
                ("Test", f"{wording.pictures(data.n_test)} ({sources[data.test_source]})"),
                ("Noise asked for", result.noise.spec),
                ("Zero-shot template", f"“{result.zero_shot.template}”"),
            ],
        ),
        (
            "Backbone, frozen",
            [
                ("Model", weights),
                ("Logit scale", f"{backbone.logit_scale:.4g}"),
                ("Pictures", f"{size}, {backbone.embed_dim} dimensions"),
                ("Precision", f"{backbone.precision}, text path {backbone.text_path}"),
                ("Fingerprint", backbone.fingerprint),
                (made, result.context_fingerprint),
            ],
        ),
        (
            "Time and place",
            [
                ("Picture features", wording.seconds(result.time.image_features)),
                ("Training", wording.seconds(result.time.training)),
                ("Total", wording.seconds(result.time.total)),
                ("Device", f"{result.time.device}, threads: {result.time.threads}"),
                ("Versions", f"dspt {result.environment.dspt}, torch {result.environment.torch}, "
                 f"open_clip {result.environment.open_clip}, Python {result.environment.python}"),
                ("Platform", result.environment.platform),
            ],
        ),
    ]  # fmt: skip


def _shots(shots: int | None) -> str:
    return ", all there are" if shots is None else f", up to {shots} a class"


def _gallery(
    result: RunResult, suspects: Sequence[Suspect], pictures: Pictures, who: str
) -> dict[str, Any]:
    names = result.data.class_names
    accused = [s for s in suspects if s.proposed != s.given]
    cards = [_card(suspect, names, pictures) for suspect in accused[:GALLERY_LIMIT]]
    if not suspects:
        text = "No samples were handed to this report."
    elif not accused:
        text = (
            f"{wording.capital(who)} agrees with the given label of all "
            f"{wording.count(len(suspects))} listed training pictures."
        )
    else:
        text = (
            f"{wording.capital(who)} contradicts the given label of {wording.count(len(accused))} "
            f"of {wording.count(len(suspects))} listed training pictures. "
        )
        if len(accused) > len(cards):
            text += f"The {len(cards)} most suspicious are shown. "
        text += truth_sentence(cards)
    groups = GROUPS if any(card.verdict.group for card in cards) else ()
    return {"gallery_text": text, "wall": Wall(cards, groups, "Suppressed")}


def _card(suspect: Suspect, names: Sequence[str], pictures: Pictures) -> Card:
    given, proposed = names[suspect.given], names[suspect.proposed]
    lines = [
        ("Given", given, wording.share(suspect.probability_given)),
        ("Proposed", proposed, wording.share(suspect.probability_proposed)),
    ]
    if suspect.true is not None:
        lines.append(("True", names[suspect.true], ""))
    return Card(
        key=suspect.id,
        given=given,
        proposed=proposed,
        lines=lines,
        picture=pictures(suspect.id),
        score=suspect.suppression,
        verdict=judge(suspect.given, suspect.proposed, suspect.true),
    )
