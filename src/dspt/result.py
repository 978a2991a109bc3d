"""What a run leaves behind: the versioned schema of ``result.json``.

Every field that a reader of a result could ask for is here and typed; ``docs/result-schema.md``
explains them in words. Accuracies and rates are fractions in [0, 1]; times are seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspt.configuration import FitConfig
from dspt.errors import UserError
from dspt.files import write_text

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class BackboneInfo(_Record):
    """The frozen model that the prompt was trained for."""

    name: str
    pretrained: str | None = Field(description="tag or file name of the weights; null if none")
    fingerprint: str = Field(description="SHA-256 over names, types and bytes of all weights")
    embed_dim: int
    image_size: tuple[int, int]
    context_length: int
    logit_scale: float = Field(description="the factor on the cosine, exp of the model's parameter")
    precision: str
    text_path: Literal["shared-prefix", "open_clip"] = Field(
        description="our exact prefix-sharing engine, or open_clip's own forward pass"
    )


class DataInfo(_Record):
    """What was trained and tested on. File names are in labels.csv beside the result."""

    name: str
    fingerprint: str = Field(
        description="SHA-256 over class names, paths, labels and splits of the whole data set"
    )
    class_names: list[str]
    shots: int | None = Field(description="pictures per class; null means all")
    n_train: int
    n_test: int
    train_per_class: list[int]
    test_source: Literal["split", "holdout", "none"]


class NoiseInfo(_Record):
    """The labels that training saw, against the labels taken as true."""

    spec: str
    true_labels_known: bool
    n_wrong: int | None
    realised_rate: float | None
    transition: list[list[int]] | None = Field(
        description="counts [true class][given class]; null when the truth is unknown"
    )


class NoiseEstimate(_Record):
    """What `auto` found out about the labels without knowing the truth."""

    rate: float = Field(description="expected share of wrong labels")
    interval: tuple[float, float] = Field(
        description="95 %, from resampled pictures; noise that follows the model's own confusions "
        "is not in it"
    )
    transition: list[list[float]] | None = Field(
        description="P(given class | true class) as [true][given]; null above 200 classes"
    )
    weights: dict[str, float] = Field(
        description="of zero-shot, the heads held near it and the free ones, by strength"
    )
    informed: bool = Field(
        description="whether zero-shot says anything about the given labels; if not, nothing does"
    )


class Evaluation(_Record):
    """Top-1 accuracy and calibration on one set of pictures."""

    n: int = Field(ge=0)
    accuracy: Fraction
    interval: tuple[Fraction, Fraction] = Field(description="95 % Wilson interval of the accuracy")
    calibration_error: Fraction = Field(
        description="expected calibration error, 15 equal-width bins"
    )
    mean_confidence: Fraction
    per_class_accuracy: list[Fraction | None] = Field(
        description="null where a class has no picture"
    )
    per_class_n: list[int]
    per_class_mistakes: list[list[tuple[int, int]]] | None = Field(
        None,
        description="for each class the up to 3 others its pictures are most often taken for, each "
        "as (class, number of pictures); null in older results",
    )
    calibration_bins: list[tuple[int, float, float]] | None = Field(
        None,
        description="(pictures, mean confidence, accuracy) of each of the 15 bins that has "
        "pictures, from unsure to sure; null in older results",
    )


class ZeroShot(_Record):
    """The untrained model with a hand-written template: what must not be lost."""

    template: str
    test: Evaluation | None
    train_accuracy_given: float
    train_accuracy_true: float | None


class SampleEvidence(_Record):
    """What the prompt, as it stands, makes of some training samples; ``as_`` are shares of them.

    Of an empty set only the counts are there.
    """

    n: int
    gradient_norm: float | None = Field(
        description="mean norm of the derivative of a sample's loss by its logits"
    )
    probability_given: float | None = Field(description="mean probability of the given label")
    probability_histogram: list[int] = Field(
        description="samples by probability of the given label, 20 equal bins from 0 to 1"
    )
    as_given: float | None = Field(
        description="predicted as labelled; of the mislabelled: memorised"
    )
    as_true: float | None = Field(description="predicted as what they are; null if unknown")
    as_zero_shot: float | None = Field(description="predicted as the untrained model does")


class UpdateEvidence(_Record):
    """Whose gradient moves the context vectors: that of the mean loss over all training samples.

    It is the sum of two parts, each summed over its own samples and divided by the number of all:
    g = g_clean + g_mislabelled. Momentum, weight decay and the choice of a batch are left out. Null
    where the truth is unknown or a norm that is divided by is 0.
    """

    norm: float = Field(description="length of g")
    norm_clean: float | None
    norm_mislabelled: float | None
    cosine: float | None = Field(description="between the two parts")
    mislabelled_share: float | None = Field(
        description="norm_mislabelled / (norm_clean + norm_mislabelled)"
    )
    mislabelled_projection: float | None = Field(
        description="g_mislabelled . g / norm^2, the signed share of the step along g; with the "
        "clean part's it adds up to 1, below 0 the mislabelled samples work against the step"
    )


class Evidence(_Record):
    """What the gradient does and what is learned, for clean and mislabelled training samples."""

    all: SampleEvidence
    clean: SampleEvidence | None = Field(description="null where the truth is unknown")
    mislabelled: SampleEvidence | None = Field(description="null where the truth is unknown")
    update: UpdateEvidence | None = Field(
        description="null in epochs in which it was not measured (epochs of fewer than 16 steps)"
    )


class EpochMetrics(_Record):
    """One line of metrics.jsonl, measured with the prompt as it stands after the epoch.

    Epoch 0 is the untrained start. Gradient norms are means over samples of the norm of the
    derivative of the per-sample loss by the logits, apart for rightly and wrongly labelled ones.
    """

    epoch: int
    lr: float | None = Field(description="learning rate of the epoch; null for the start")
    train_loss: float | None = Field(description="mean over the epoch's batches; null at the start")
    accuracy_given: float
    accuracy_true: float | None
    accuracy_test: float | None
    gradient_norm_clean: float | None
    gradient_norm_mislabelled: float | None
    evidence: Evidence | None = Field(None, description="with `evidence` only")


NEW = "new"
"""The transfer target that stands for the other half of the classes (base-to-new)."""


class Transfer(_Record):
    """A trained prompt before other class names, on pictures of those classes."""

    data: str
    target: str = Field(description='as asked for: "new" or the name of a data set')
    n_classes: int
    zero_shot: Evaluation
    tuned: Evaluation


class Timing(_Record):
    """Wall-clock seconds of the process that finished the run."""

    image_features: float
    training: float
    total: float
    device: str
    threads: int
    side_by_side: int = Field(1, description="runs that shared this time")


class Environment(_Record):
    """Where the numbers come from."""

    dspt: str
    torch: str
    open_clip: str
    python: str
    platform: str
    processor_count: int


class RunResult(_Record):
    """``result.json`` of one run.

    Version 2 names a method where version 1 named a loss; results of version 1 are read as well.
    """

    schema_version: Literal[1, 2] = 2
    config: FitConfig
    backbone: BackboneInfo
    data: DataInfo
    noise: NoiseInfo
    noise_estimate: NoiseEstimate | None = Field(None, description="of method `auto` only")
    zero_shot: ZeroShot
    epochs: list[EpochMetrics]
    final: Evaluation | None = Field(description="on the test pictures; null without any")
    transfers: list[Transfer] = Field([], description="accuracy on other classes or data")
    context_fingerprint: str = Field(
        description="SHA-256 of the trained context vectors, or of the linear head of a method "
        "without a prompt"
    )
    warnings: list[str]
    time: Timing
    environment: Environment

    def write(self, path: Path) -> None:
        """Write atomically as indented JSON."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> RunResult:
        """Read and check.

        Raises:
            UserError: when the file is missing, is no JSON, or does not fit the schema.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot read {path}: {error}; is it the folder of a finished run?"
            ) from None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the file"
            raise UserError(
                f"{path} is not a result of this version: {field}: {first['msg']}; "
                "run `dspt fit` again with --overwrite"
            ) from None


class Suspect(_Record):
    """A training sample, ordered by how much gradient its given label was refused.

    Method `auto` knows more, the posterior over true labels: it orders by the posterior's doubt in
    the given label, and both probabilities and the proposal are the posterior's.

    ``suppression`` is 1 - |dL_DSPT/dz| / |dL_CE/dz| in [0, 1]: near 1 for a label that the trained
    model confidently contradicts, near 0 for one it agrees with.
    """

    id: str = Field(description="relative path or row of the picture")
    given: int
    proposed: int = Field(description="the class that the trained model prefers")
    zero_shot: int = Field(description="the class that the untrained model prefers")
    true: int | None
    probability_given: float
    probability_proposed: float
    suppression: float
