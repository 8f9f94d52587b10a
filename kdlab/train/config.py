"""What a training run can be told: one schema for YAML, the command line and the widgets."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

VERSION = 1
_MAX_BYTES = 1_000_000  # our choice: a run file is a few hundred bytes
AttributeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*\.[A-Za-z_]\w*$")]


class Strict(BaseModel):
    """A config that cannot be misspelt, changed after it was checked, or hold a NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for name in values:
                if name not in cls.model_fields:
                    raise ValueError(unknown("field", name, cls.model_fields))
        return values


class TrainConfig(Strict):
    """How to train. Defaults are our choice for a laptop unless a field names a source.

    `typical` in the schema is the range a slider should offer; the bounds are what is accepted.
    """

    epochs: int = Field(
        10, ge=1, le=10_000, description="Passes over the set.",
        json_schema_extra={"unit": "epochs", "typical": [1, 40]})
    batch_size: int = Field(
        128, ge=1, le=1_000_000, description="Images a step; must be what the batches hold.",
        json_schema_extra={"unit": "images", "typical": [16, 512]})
    lr: float = Field(
        0.1, gt=0, le=100, description="Peak learning rate; insightface and AdaDistill use 0.1 "
        "at batch 512. Smaller batches want less.",
        json_schema_extra={"unit": "1", "scale": "log", "typical": [1e-4, 0.5]})
    momentum: float = Field(
        0.9, ge=0, lt=1, description="Momentum of SGD, the first beta of AdamW (insightface: 0.9).",
        json_schema_extra={"unit": "1", "typical": [0, 0.99]})
    weight_decay: float = Field(
        5e-4, ge=0, le=10, description="L2 penalty of SGD, decoupled decay of AdamW, on every "
        "parameter (insightface: 5e-4).",
        json_schema_extra={"unit": "1", "scale": "log", "typical": [1e-6, 0.1]})
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="The optimiser.")
    lr_batch: int | None = Field(
        None, ge=1, le=1_000_000, description="Batch size that `lr` is stated for; the rate used "
        "is lr * batch_size / lr_batch (Goyal et al. 2017). None: lr as it is.",
        json_schema_extra={"unit": "images", "typical": [128, 1024]})
    schedule: Literal["cosine", "steps", "poly", "plateau"] = Field(
        "cosine", description="Learning rate after the warm-up: half a cosine down to 0; times "
        "`gamma` at each of `milestones` (none: constant); poly: a line down to 0 (insightface); "
        "plateau: times `gamma` after `patience` epochs without a better validation.")
    milestones: list[Annotated[float, Field(gt=0)]] = Field(
        [], description="With schedule 'steps': when to multiply by gamma, ascending; those past "
        "the end are never reached.", json_schema_extra={"unit": "epochs"})
    gamma: float = Field(
        0.1, gt=0, le=1, description="With schedule 'steps' or 'plateau': the factor of each fall.",
        json_schema_extra={"unit": "1", "typical": [0.1, 0.9]})
    patience: int = Field(
        10, ge=0, le=10_000, description="With schedule 'plateau': so many validations may pass "
        "without a better one (torch's default, which MFD used).",
        json_schema_extra={"unit": "validations", "typical": [1, 20]})
    warmup: float = Field(
        0.05, ge=0, le=1, description="Share of all steps over which the learning rate rises "
        "linearly to its peak.", json_schema_extra={"unit": "fraction", "typical": [0, 0.3]})
    clip: float | None = Field(
        5.0, gt=0, description="Largest norm of the student's gradient, all parameters as one "
        "vector; the losses' own parameters are not clipped. None: off (insightface: 5).",
        json_schema_extra={"unit": "1", "scale": "log", "typical": [0.1, 20]})
    seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of torch's random numbers during the run.",
        json_schema_extra={"typical": [0, 9]})
    schedules: dict[AttributeName, list[float]] = Field(
        {}, description="'loss.attribute': values spread evenly over the epochs, linear between "
        "them, first epoch to last; {'kd.weight': [4, 1]} anneals.",
        json_schema_extra={"unit": "of the attribute"})
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="bf16: the networks compute under autocast; weights, losses and "
        "the optimiser stay float32.")
    channels_last: bool = Field(False, description="Memory format of images and convolutions.")
    compile: bool = Field(False, description="torch.compile the student; worth its minute of "
                          "compiling on a GPU.")
    validate_every: int = Field(
        1, ge=1, description="Epochs from one validation to the next; the last epoch always.",
        json_schema_extra={"unit": "epochs", "typical": [1, 10]})
    checkpoint_every: int | None = Field(
        None, ge=1, description="Steps from one checkpoint to the next; None: at the end of each "
        "epoch.", json_schema_extra={"unit": "steps", "typical": [100, 5000]})
    keep: int = Field(
        2, ge=0, le=1000, description="Newest checkpoints that stay; 0: none is written, and a "
        "run that was stopped begins anew.", json_schema_extra={"typical": [1, 5]})
    share_every: int = Field(
        200, ge=0, description="Steps between two measurements of each term's share of the "
        "gradient, one more backward pass a term; 0: never.",
        json_schema_extra={"unit": "steps", "typical": [0, 500]})
    log_every: int = Field(
        1, ge=1, description="Steps from one line of the log to the next; the first and the last "
        "step are always in.", json_schema_extra={"unit": "steps", "typical": [1, 100]})
    device: Literal["cpu", "cuda", "auto"] = Field(
        "auto", description="Where to compute; auto: cuda if there is one.")
    out: Path | None = Field(
        None, description="Folder for log, checkpoints and student; None keeps nothing.")
    version: int = Field(VERSION, ge=1, description="Of this schema; newer ones are refused.")

    @field_validator("version")
    @classmethod
    def _not_newer(cls, version: int) -> int:
        if version > VERSION:
            raise ValueError(f"the file was written for version {version} of the training config, "
                             f"this kdlab knows up to {VERSION}; upgrade kdlab")
        return version

    @field_validator("schedules")
    @classmethod
    def _two_values(cls, schedules: dict[str, list[float]]) -> dict[str, list[float]]:
        for name, values in schedules.items():
            if len(values) < 2:
                raise ValueError(f"{name} wants two values or more, first epoch to last, "
                                 f"not {values}")
        return schedules

    @property
    def lr_scale(self) -> float:
        """What the batch makes of the learning rates: 1 where `lr_batch` is None."""
        return 1.0 if self.lr_batch is None else self.batch_size / self.lr_batch

    @model_validator(mode="after")
    def _milestones(self) -> "TrainConfig":
        if self.milestones and self.schedule != "steps":
            raise ValueError(f"milestones go with schedule 'steps'; this one is {self.schedule!r}")
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones must ascend, not {self.milestones}")
        return self


def unknown(kind: str, name: object, known) -> str:
    """One line for a name that is not among `known`: the nearest, or all of them."""
    nearest = difflib.get_close_matches(str(name), known, n=1)
    mend = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known)}"
    return f"unknown {kind} {name!r}; {mend}"


Config = TypeVar("Config", bound=BaseModel)


def load_config(path: str | Path, kind: type[Config] = TrainConfig) -> Config:
    """Read a YAML file into a TrainConfig (or another pydantic model, `kind`).

    Raises FileNotFoundError, or a ValueError of one line that names the file and every bad field.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such run file")
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size:,} bytes is no run file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a bad date, deep nesting
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ValueError(f"{path}:{where} {problem}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a run file is lines of 'field: value', not "
                         f"{'empty' if values is None else type(values).__name__}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """A pydantic error as one line: 'train.lr: input should be greater than 0 (got -1)'; ..."""
    parts = []
    for e in error.errors(include_url=False):
        field = ".".join(map(str, e["loc"]))
        said = e["msg"].removeprefix("Value error, ")
        if e["type"] != "value_error" and isinstance(e["input"], str | int | float | None):
            said = f"{said[0].lower()}{said[1:]} (got {str(e['input'])[:80]!r})"
        parts.append(f"{field}: {said}" if field else said)
    return "; ".join(parts)
