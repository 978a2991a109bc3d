"""An audit as the page that people look at."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dspt.audit.record import AuditRecord, Finding
from dspt.report import AuditPage, AuditSuspect

TITLES = {
    "suspicion": "Suspicion (default ranking)",
    "doubt": "Doubt",
    "neighbours": "Neighbours",
    "suppression": "Suppression",
    "margin": "Margin",
    "disagreement": "Disagreement",
    "zero_shot": "Zero-shot",
}

BLIND_SPOT = (
    "Wrong labels that follow the model's own confusions are not seen: where the model itself "
    "takes one class for another, such labels look right to it, and the estimated share is too low."
)
UNINFORMED = (
    "Do not trust this ranking: the untrained model says nothing about these labels, so nothing "
    "can tell a wrong one from a right one. Check the class names and the template, or take a "
    "model that knows such pictures."
)
_MEANINGS = (
    "Suspicion ranks the labels: the doubt, had the most similar pictures a say in it. Every "
    "picture is judged by models that were trained without its label.",
    "Evidence. Doubt: how probable it is that the given label is wrong; over all labels it sums to "
    "their estimated number. Neighbours: share of the most similar pictures' corrected labels "
    "that is another class. Suppression: share of its gradient that DSPT refuses the given label. "
    "Margin: the best other class against the given one. Disagreement: share of the prompts, "
    "zero-shot among them, that prefer another class. Zero-shot: what the untrained model leaves "
    "to other classes.",
)


def audit_page(
    record: AuditRecord, findings: Sequence[Finding], transition: Sequence[Sequence[float]]
) -> AuditPage:
    """What ``render_audit`` shows.

    Args:
        record: of the audit.
        findings: the most suspicious first.
        transition: P(given label | true class), [true][given], of any size.
    """
    config = record.settings.config
    facts = [
        ("Data", config.data),
        ("Split", record.settings.split),
        ("Pictures", str(record.n)),
        ("Unreadable pictures, left out", str(len(record.unreadable))),
        ("Wrong labels made on purpose", str(config.noise)),
        ("Backbone", record.backbone.name),
        ("Zero-shot prompt", record.template),
        ("Seed", str(record.settings.seed)),
        ("dspt", record.environment.dspt),
    ]
    quality = record.quality
    if quality is not None:
        facts.insert(5, ("Labels that are really wrong", f"{quality.n_wrong} of {record.n}"))
    return AuditPage(
        title=record.name,
        class_names=record.class_names,
        n=record.n,
        suspects=[_suspect(finding) for finding in findings if finding.suspect],
        facts=facts,
        # An estimate that means nothing is no headline.
        noise_rate=record.noise_rate if record.informed else None,
        noise_interval=record.noise_interval if record.informed else None,
        transition=transition if record.informed else None,
        quality={
            TITLES[name]: {
                "AUROC": measured.auroc,
                "Average precision": measured.average_precision,
                "Precision at the true rate": measured.precision_at_true_rate,
            }
            for name, measured in (quality.evidence if quality else {}).items()
        },
        notes=[BLIND_SPOT if record.informed else UNINFORMED, *_MEANINGS, *record.warnings],
    )


def _suspect(finding: Finding) -> AuditSuspect:
    evidence = {
        TITLES[name]: value for name, value in finding.scores.items() if name != "suspicion"
    }
    # A difference of log-probabilities, as the share of the better one of the two.
    evidence[TITLES["margin"]] = 0.5 * (1 + math.tanh(finding.scores["margin"] / 2))
    return AuditSuspect(
        key=finding.image,
        given=finding.given,
        proposed=finding.proposed,
        score=finding.scores["suspicion"],
        confidence=finding.confidence,
        true=finding.true,
        evidence=evidence,
    )
