"""What an audit leaves behind: the versioned schema of ``audit.json`` and the table beside it.

Shares and probabilities are fractions in [0, 1].
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspt.audit import EVIDENCE
from dspt.configuration import FitConfig
from dspt.errors import UserError
from dspt.files import write_text
from dspt.result import BackboneInfo, Environment

RECORD_FILE = "audit.json"
TABLE_FILE = "audit.csv"
PAGE_FILE = "audit.html"
CHECKPOINT_FILE = "audit-checkpoint.safetensors"
"""Only while the audit is unfinished; not a run's name for it, as the folder may be a run's."""

Split = Literal["train", "val", "test", "all"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AuditSettings(_Record):
    """Everything that decides the outcome of an audit."""

    config: FitConfig = Field(
        description="which pictures and labels: the run's own settings, or those of the call; its "
        "method, prompt and recipe play no part"
    )
    split: Split = "train"
    seed: int = Field(description="of the folds and of the prompts' starts and batches")


class ClassFindings(_Record):
    """The pictures that carry one class's label."""

    name: str
    n: int
    suspects: int = Field(description="of them, those for which another class is more probable")
    expected_wrong: float = Field(description="sum of their doubts")


class EvidenceQuality(_Record):
    """How well one kind of evidence ranks the labels that are really wrong."""

    auroc: float
    average_precision: float
    precision_at_true_rate: float = Field(
        description="share of wrong labels among the first n_wrong of the ranking"
    )


class Quality(_Record):
    """The audit against the truth, which it did not see."""

    n_wrong: int
    noise_rate: float
    evidence: dict[str, EvidenceQuality] = Field(
        description="by name; empty when no label or every label is wrong"
    )


class AuditRecord(_Record):
    """``audit.json``."""

    schema_version: Literal[2] = 2
    settings: AuditSettings
    name: str = Field(description="of the data")
    data_fingerprint: str
    class_names: list[str]
    backbone: BackboneInfo
    template: str
    n: int = Field(description="labels audited")
    n_suspects: int = Field(description="labels for which another class is more probable")
    unreadable: list[str] = Field(description="pictures that were left out, and why")
    noise_rate: float = Field(description="estimated share of wrong labels")
    noise_interval: tuple[float, float] = Field(description="95 %, from resampled pictures")
    informed: bool = Field(
        description="whether zero-shot says anything about the given labels; if not, the ranking "
        "means nothing"
    )
    transition: list[list[float]] | None = Field(
        description="estimated P(given label | true class), [true][given]; null above 200 classes"
    )
    classes: list[ClassFindings]
    quality: Quality | None = Field(description="null where the true labels are unknown")
    warnings: list[str]
    seconds: float
    environment: Environment


@dataclass(frozen=True)
class Finding:
    """What was found about one label; classes are numbers.

    Attributes:
        image: id of the picture.
        split: train, val or test.
        given: the label that was audited.
        proposed: the most probable class, which may be the given one.
        confidence: its probability.
        scores: by name of :data:`dspt.audit.EVIDENCE`; higher is more suspicious.
        true: the true label where it is known.
    """

    image: str
    split: str
    given: int
    proposed: int
    confidence: float
    scores: Mapping[str, float]
    true: int | None = None

    @property
    def suspect(self) -> bool:
        """Whether another class is more probable than the given one."""
        return self.proposed != self.given


@dataclass(frozen=True)
class AuditReport:
    """A finished audit.

    Attributes:
        record: everything measured.
        findings: one per label, the most suspicious first.
        folder: where the files are.
    """

    record: AuditRecord
    findings: Sequence[Finding]
    folder: Path

    @property
    def suspects(self) -> list[Finding]:
        """The labels that another class is more probable than, the most suspicious first."""
        return [finding for finding in self.findings if finding.suspect]


def write_findings(path: Path, findings: Sequence[Finding], names: Sequence[str]) -> None:
    """The ranking as a table, the most suspicious label first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["rank", "image", "split", "given_label", "proposed_label", "confidence"]
    writer.writerow([*head, *EVIDENCE, "true_label"])
    for rank, f in enumerate(findings, 1):
        true = "" if f.true is None else names[f.true]
        scores = [repr(f.scores[name]) for name in EVIDENCE]
        labels = [names[f.given], names[f.proposed], repr(f.confidence)]
        writer.writerow([rank, f.image, f.split, *labels, *scores, true])
    write_text(path, text.getvalue())


def read_report(folder: Path) -> AuditReport:
    """Read a finished audit back.

    Raises:
        UserError: when a file is missing or damaged.
    """
    mend = "audit again with --overwrite"
    path = folder / RECORD_FILE
    try:
        record = AuditRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{path} is no audit of this version: {field}: {first['msg']}; {mend}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; {mend}") from None
    path = folder / TABLE_FILE
    number = {name: i for i, name in enumerate(record.class_names)}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            findings = [
                Finding(
                    image=row["image"],
                    split=row["split"],
                    given=number[row["given_label"]],
                    proposed=number[row["proposed_label"]],
                    confidence=float(row["confidence"]),
                    scores={name: float(row[name]) for name in EVIDENCE},
                    true=number[row["true_label"]] if row["true_label"] else None,
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"cannot read {path} ({error!r}); {mend}") from None
    if len(findings) != record.n:
        raise UserError(f"{path} has {len(findings)} rows, the audit {record.n}; {mend}")
    return AuditReport(record, findings, folder)
