"""A grid of runs: what varies and what all runs share, from a YAML file, a preset and options."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dspt.bench.store import cell_id
from dspt.configuration import FitConfig, PromptConfig, build_config
from dspt.errors import UserError, did_you_mean
from dspt.noise import NoiseSpec
from dspt.noise.spec import RATED
from dspt.training.recipe import Recipe

NOISE_FIELDS = ("noise", "kinds", "rates")
"""Fields that together say which labels are wrong; giving one of them anew forgets the others."""

DEEPEST = 20
"""Levels of lists and fields in a grid's file."""

Options = dict[str, float | str]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataEntry(_Part):
    """A data set of the grid, with what is different for it; a plain text is ``data`` alone."""

    data: str = Field(min_length=1, description="as given to dspt.load_dataset")
    classes: str | None = Field(None, description="default: the grid's")
    noise: tuple[str, ...] | None = Field(None, description="replaces the grid's noise")
    template: str | None = None
    label_column: str | None = None
    image_column: str | None = None
    split_column: str | None = None
    holdout: float | None = None

    @field_validator("noise", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return _listed(value)


class BackboneEntry(_Part):
    """A model of the grid; a plain text is ``NAME`` or ``NAME@PRETRAINED``."""

    backbone: str = Field("default", min_length=1)
    pretrained: str | None = None
    precision: str = "fp32"


class MethodEntry(_Part):
    """A method of the grid; a plain text is ``NAME`` or ``NAME:option=value,...``."""

    method: str = Field(min_length=1)
    options: Options = Field(default_factory=dict)


class Exclusion(_Part):
    """Cells to leave out: those that agree in everything that is given."""

    data: str | None = None
    backbone: str | None = None
    method: str | None = None
    noise: str | None = Field(None, description="as in the grid, or a kind alone")
    shots: int | None = None
    seed: int | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Exclusion:
        if not self.model_dump(exclude_none=True):
            raise ValueError("names nothing to leave out")
        return self

    def matches(self, cell: FitConfig) -> bool:
        """Whether the cell is left out."""
        noise = (str(cell.noise), cell.noise.kind)
        return all(
            given is None or given == held
            for given, held in (
                (self.data, cell.data),
                (self.backbone, cell.backbone),
                (self.method, cell.method),
                (self.shots, cell.shots),
                (self.seed, cell.seed),
            )
        ) and (self.noise is None or self.noise in noise)


class Grid(_Part):
    """Every combination of data, backbones, methods, noise, shots and seeds is one cell.

    The noise is what ``noise`` lists and every one of ``kinds`` at every one of ``rates``; a rate
    of 0 is the same clean cell for all kinds.
    """

    data: tuple[DataEntry, ...] = Field(min_length=1)
    root: str | None = Field(None, description="where data sets known by name lie")
    backbones: tuple[BackboneEntry, ...] = Field((BackboneEntry(),), min_length=1)
    methods: tuple[MethodEntry, ...] = Field(min_length=1)
    noise: tuple[str, ...] = Field((), description='for example "none" or "column:worse_label"')
    kinds: tuple[str, ...] = Field((), description='for example "symmetric"')
    rates: tuple[float, ...] = ()
    shots: tuple[int | None, ...] = Field((16,), min_length=1, description='numbers or "all"')
    seeds: tuple[int, ...] = Field((1,), min_length=1)
    classes: str = "all"
    prompt: PromptConfig = PromptConfig()
    recipe: Recipe = Recipe()
    views: int = Field(0, ge=0)
    feature_precision: str = "fp32"
    evidence: bool = False
    transfer: tuple[str, ...] = ()
    exclude: tuple[Exclusion, ...] = ()
    also: tuple[dict[str, Any], ...] = Field(
        (), description="further grids; what they do not say is as in this one"
    )

    @field_validator("noise", "kinds", "rates", "shots", "transfer", "exclude", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return _listed(value)

    @field_validator("seeds", mode="before")
    @classmethod
    def _no_single_seed(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise ValueError(f"must be a list, such as [1, 2, 3]; a single seed is [{value}]")
        return value

    @field_validator("shots", mode="before")
    @classmethod
    def _all_shots(cls, value: Any) -> Any:
        return _each(value, lambda shots: None if shots == "all" else shots)

    @field_validator("shots")
    @classmethod
    def _check_shots(cls, value: tuple[int | None, ...]) -> tuple[int | None, ...]:
        if any(shots is not None and shots < 1 for shots in value):
            raise ValueError('must be at least 1, or "all"')
        return value

    @field_validator("kinds")
    @classmethod
    def _check_kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for kind in value:
            if kind not in RATED:
                raise ValueError(f"{kind!r} takes no rate; allowed: {', '.join(RATED)}")
        return value

    @field_validator("data", mode="before")
    @classmethod
    def _data_texts(cls, value: Any) -> Any:
        return _each(value, lambda part: {"data": part} if isinstance(part, str) else part)

    @field_validator("backbones", mode="before")
    @classmethod
    def _backbone_texts(cls, value: Any) -> Any:
        return _each(value, lambda part: _backbone(part) if isinstance(part, str) else part)

    @field_validator("methods", mode="before")
    @classmethod
    def _method_texts(cls, value: Any) -> Any:
        return _each(value, lambda part: _method(part) if isinstance(part, str) else part)

    @model_validator(mode="after")
    def _check_noise(self) -> Grid:
        if bool(self.kinds) != bool(self.rates):
            given, missing = ("kinds", "rates") if self.kinds else ("rates", "kinds")
            raise ValueError(f"{given} needs {missing}")
        return self

    def noise_of(self, entry: DataEntry) -> list[str]:
        """The noise of one data set, as texts of the grammar."""
        if entry.noise is not None:
            return list(entry.noise)
        rated = [
            "none" if rate == 0 else f"{kind}:{rate!r}"
            for kind in self.kinds
            for rate in self.rates
        ]
        return [*self.noise, *rated] or ["none"]


def parse_grid(fields: Mapping[str, Any], where: str = "grid") -> Grid:
    """Check the fields of a grid, those of its further grids included.

    Raises:
        UserError: in one line, naming ``where`` and the field.
    """
    try:
        grid = Grid.model_validate(dict(fields))
    except ValidationError as error:
        raise UserError(f"{where}: {_first_line(error)}") from None
    for number, part in enumerate(grid.also):
        if "also" in part:
            raise UserError(f"{where}: also.{number}.also: put it beside the other one")
        parse_grid(_combined(fields, part), f"{where}: also.{number}")
    return grid


def cells(grid: Grid) -> list[FitConfig]:
    """The runs of a grid, equal ones once, in the order of the grid, seed by seed.

    Raises:
        UserError: when a combination is no possible run, or none is left.
    """
    fields = grid.model_dump(exclude_unset=True, exclude={"also"})
    grids = [grid, *(parse_grid(_combined(fields, part)) for part in grid.also)]
    found: dict[str, FitConfig] = {}
    for part in grids:
        for cell in _combinations(part):
            found.setdefault(cell_id(cell), cell)
    if not found:
        raise UserError("the grid is empty: exclude leaves nothing")
    # Seed by seed, so that a bench that is cut short has whole tables of some seeds.
    seeds = list(dict.fromkeys(seed for part in grids for seed in part.seeds))
    return sorted(found.values(), key=lambda cell: seeds.index(cell.seed))


def _combinations(grid: Grid) -> Iterator[FitConfig]:
    for entry, model in itertools.product(grid.data, grid.backbones):
        own = entry.model_dump(exclude={"noise"}, exclude_none=True)
        for seed, noise, shots, method in itertools.product(
            grid.seeds, grid.noise_of(entry), grid.shots, grid.methods
        ):
            try:
                spec = NoiseSpec.parse(noise)
            except ValueError as error:
                raise UserError(f"noise: {error}") from None
            cell = build_config(
                **{
                    "classes": grid.classes,
                    **own,
                    **model.model_dump(),
                    "data_root": grid.root,
                    "method": method.method,
                    "method_options": method.options,
                    "shots": shots,
                    # No rate, no noise: the same clean run whatever the kind.
                    "noise": NoiseSpec() if spec.kind in RATED and not spec.rate else spec,
                    "seed": seed,
                    "prompt": grid.prompt,
                    "recipe": grid.recipe,
                    "views": grid.views,
                    "feature_precision": grid.feature_precision,
                    "evidence": grid.evidence,
                    "transfer": grid.transfer,
                }
            )
            if not any(exclusion.matches(cell) for exclusion in grid.exclude):
                yield cell


def read_grid(path: Path) -> dict[str, Any]:
    """The fields in a YAML file, unchecked.

    Raises:
        UserError: when it cannot be read or holds no fields.
    """
    try:
        if path.is_char_device() or path.is_block_device():  # it would be read for ever
            raise OSError("it is a device")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the grid {path}: {error}") from None
    return _yaml(text, str(path))


def preset_names() -> list[str]:
    """Names of the grids that come with the package."""
    folder = resources.files("dspt") / "assets" / "presets"
    return sorted(file.name[: -len(".yaml")] for file in folder.iterdir() if ".yaml" in file.name)


def read_preset(name: str) -> dict[str, Any]:
    """The fields of a packaged grid.

    Raises:
        UserError: when there is none of this name.
    """
    names = preset_names()
    if name not in names:
        hint = did_you_mean(name, names)
        raise UserError(f"preset: {name!r} is unknown; choose from {', '.join(names)}{hint}")
    file = resources.files("dspt") / "assets" / "presets" / f"{name}.yaml"
    return _yaml(file.read_text(encoding="utf-8"), f"preset {name}")


def override(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A grid's fields with some of them given anew, everywhere in the grid.

    ``prompt`` and ``recipe`` are changed part by part. ``noise`` replaces all that the grid says of
    noise; ``kinds`` or ``rates`` replace the listed ``noise`` and the other stays. A further grid
    (``also``) for data of its own stays as far as ``data`` names the same data.
    """
    changed = {**fields}
    if "also" in changed and isinstance(changed["also"], list):
        kept = [_on_data(part, changes.get("data")) for part in changed["also"]]
        changed["also"] = [_without(part, changes) for part in kept if part is not None]
    if isinstance(changed.get("data"), list):
        changed["data"] = [_without(entry, changes) for entry in changed["data"]]
    changed = {**_without(changed, changes), **changes}
    for whole in ("prompt", "recipe"):
        if whole in changes and isinstance(fields.get(whole), dict):
            changed[whole] = {**fields[whole], **changes[whole]}
    return changed


def _on_data(part: Any, data: Sequence[Any] | None) -> Any:
    """A further grid on those of its own data that are asked for; None if there is none."""
    if data is None or not isinstance(part, dict) or not isinstance(part.get("data"), list):
        return part
    asked = {_data_name(entry) for entry in data}
    own = [entry for entry in part["data"] if _data_name(entry) in asked]
    return {**part, "data": own} if own else None


def _data_name(entry: Any) -> Any:
    return entry.get("data") if isinstance(entry, dict) else entry


def _without(part: Any, changes: Mapping[str, Any]) -> Any:
    """A part of a grid without what is given anew."""
    if not isinstance(part, dict):
        return part
    gone = set(changes) - {"prompt", "recipe", "data"}
    if "noise" in changes:
        gone |= set(NOISE_FIELDS)
    elif "kinds" in changes or "rates" in changes:
        gone.add("noise")
    kept = {key: value for key, value in part.items() if key not in gone}
    for whole in ("prompt", "recipe"):
        if whole in changes and isinstance(kept.get(whole), dict):
            kept[whole] = {k: v for k, v in kept[whole].items() if k not in changes[whole]}
    return kept


def _combined(fields: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """A further grid: what it does not say is as in the grid around it."""
    kept = {key: value for key, value in fields.items() if key != "also"}
    if any(name in part for name in NOISE_FIELDS):
        for name in NOISE_FIELDS:
            kept.pop(name, None)
    combined = {**kept, **part}
    for whole in ("prompt", "recipe"):
        if isinstance(kept.get(whole), dict) and isinstance(part.get(whole), dict):
            combined[whole] = {**kept[whole], **part[whole]}
    return combined


def _yaml(text: str, where: str) -> dict[str, Any]:
    import yaml

    depth = 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            # A few lines of aliases of aliases stand for more than a memory holds.
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"{where}: aliases (*name) are not read; write it out")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise UserError(f"{where}: is nested deeper than {DEEPEST} levels; no grid is")
        fields = yaml.safe_load(text)
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, TypeError) as error:
        # The latter two: an impossible date or number, a list as a key.
        raise UserError(f"{where}: no readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(fields, dict):
        raise UserError(f"{where}: must hold fields, such as 'methods: [ce, dspt]'")
    return {str(key): value for key, value in fields.items()}


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | int | float | dict) else value


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """A list with its entries changed; what is none stays, for the field's type to refuse."""
    listed = _listed(value)
    return [change(part) for part in listed] if isinstance(listed, list | tuple) else listed


def _backbone(text: str) -> dict[str, Any]:
    name, at, pretrained = text.partition("@")
    return {"backbone": name, "pretrained": pretrained} if at else {"backbone": name}


def _method(text: str) -> dict[str, Any]:
    """``name:option=value,option=value`` as fields; what reads as a number is one."""
    name, colon, rest = text.partition(":")
    options: Options = {}
    for pair in rest.split(",") if colon else ():
        key, sign, value = pair.partition("=")
        if not key or not sign or not value:
            raise ValueError(f"options must look like gce:q=0.5, not {text!r}")
        try:
            options[key.strip()] = float(value)
        except ValueError:
            options[key.strip()] = value.strip()
    return {"method": name, "options": options}


def _first_line(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        reason = "no such field"
        if len(first["loc"]) == 1:
            reason += f"; a grid has {', '.join(Grid.model_fields)}"
    given = ""
    if first["type"] not in ("missing", "value_error", "extra_forbidden"):
        given = f" (got {first['input']!r})"
    return f"{field}: {reason}{given}" if field else reason
