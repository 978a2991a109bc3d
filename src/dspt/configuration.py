"""The configuration of a run: typed, checked, and named field by field when something is wrong."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from dspt.errors import UserError
from dspt.noise import NoiseSpec, resolve
from dspt.training.recipe import Recipe


class PromptConfig(BaseModel):
    """What the prompt looks like before training.

    Source: CoOp (Zhou et al. 2022): M context vectors, shared by all classes or one set a class,
    the class name at the end, in the middle or in front.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_ctx: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="number of context vectors; default 16, or the template's own token count",
    )
    init: str = Field(
        "random",
        min_length=1,
        description='"random" for N(0, 0.02), or words such as "a photo of a"',
    )
    class_specific: bool = Field(False, description="own context vectors for every class")
    position: Literal["end", "middle", "front"] = Field(
        "end", description="of the class name among the context vectors"
    )


class FitConfig(BaseModel):
    """Everything that decides the outcome of ``dspt fit``, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = Field(description="as given to dspt.load_dataset")
    data_root: str | None = Field(
        None, description="where data sets known by name lie; default: $DSPT_DATA"
    )
    classes: str = Field(
        "all", description='"all", "base" or "new" (halves of the classes), or "first:N"'
    )
    backbone: str = Field("default", description="as given to dspt.load_backbone")
    pretrained: str | None = Field(None, description="tag or file of the weights")
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    method: str = Field("dspt", description="a name of dspt.methods; every loss is one")
    method_options: dict[str, float | str] = Field(
        default_factory=dict, description="the method's own settings, for example q of gce"
    )
    shots: int | None = Field(16, ge=1, description="pictures per class; null means all")
    noise: NoiseSpec = NoiseSpec()
    seed: int = Field(1, description="starts the context vectors and orders the batches")
    draw_seed: int = Field(description="draws the shots; default: seed")
    noise_seed: int = Field(description="draws the wrong labels; default: seed")
    prompt: PromptConfig = PromptConfig()
    recipe: Recipe = Recipe()
    views: int = Field(
        0, ge=0, le=1000, description="augmented views per training picture; 0 = the picture"
    )
    feature_precision: Literal["fp32", "fp16"] = Field(
        "fp32", description="of the image features; fp16 halves the cache on disk"
    )
    evidence: bool = Field(False, description="measure after every epoch what the gradient does")
    transfer: tuple[str, ...] = Field(
        (),
        description='what else to test the prompt on: "new" for the other half of the classes '
        "(with classes=base), or other data sets",
    )
    template: str | None = Field(
        None, description="zero-shot template with {}; default: the data set's own"
    )
    label_column: str | None = Field(None, description="of a manifest; default: the usual names")
    image_column: str | None = Field(None, description="of a manifest; default: the usual names")
    split_column: str | None = Field(None, description="of a manifest; default: the usual name")
    holdout: float = Field(
        0.2, ge=0, lt=1, description="share held out for testing when the data has no test split"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, fields: Any) -> Any:
        if isinstance(fields, dict):
            seed = fields.get("seed", 1)
            fields = {"draw_seed": seed, "noise_seed": seed, **fields}
            # Plain prompt tuning with a loss is the method of the loss's name.
            for short, name in (("loss", "method"), ("loss_options", "method_options")):
                if short in fields:
                    value = fields.pop(short)
                    if fields.setdefault(name, value) != value:
                        raise ValueError(f"give {short} or {name}, not both")
        return fields

    @field_validator("noise", mode="before")
    @classmethod
    def _parse_noise(cls, value: Any) -> Any:
        return NoiseSpec.parse(value) if isinstance(value, str) else value

    @field_validator("noise")
    @classmethod
    def _pin_noise(cls, value: NoiseSpec) -> NoiseSpec:
        return resolve(value)

    @field_validator("template")
    @classmethod
    def _check_template(cls, value: str | None) -> str | None:
        if value is not None and value.count("{}") != 1:
            raise ValueError('must hold "{}" exactly once, for example "a photo of a {}."')
        return value


def build_config(**fields: Any) -> FitConfig:
    """Check the fields of a run.

    Raises:
        UserError: in one line, naming the field, the value and what is allowed.
    """
    try:
        return FitConfig(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] in ("missing", "value_error") else f" (got {first['input']!r})"
        raise UserError(f"{name}: {reason}{given}") from None
