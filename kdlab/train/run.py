"""A run file: who learns, from what, from whom, and how; and all of it made ready for train().

Whatever can be refused is refused before a picture is rendered, decoded or embedded, in one line
that names the field.
"""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError, field_validator, model_validator

from kdlab.align import SIZES
from kdlab.train.build import arguments, build_losses, build_student
from kdlab.train.config import Strict, TrainConfig, explain, load_config
from kdlab.train.loop import pick_device
from kdlab.train.pictures import Pictures, validator
from kdlab.train.sections import FolderConfig, SamplerConfig, ValidationConfig, WorldConfig
from kdlab.train.taught import check_teacher, rehearse, run_teacher

__all__ = ["RunConfig", "build_losses", "build_student", "load_run", "prepare"]
WHOLE = 4 << 30  # bytes of cached embeddings in float32; a larger cache is float16 (ours)


class RunConfig(Strict):
    """One run: who learns, from what, from whom, and how."""

    student: str = Field("ir_student", description="A name in kdlab.models.MODELS.")
    embedding_size: int | None = Field(
        None, ge=1, description="Dimensions of the student's embedding; None: 128, or what a "
        "classifier has.")
    losses: dict[str, dict[str, Any]] = Field(
        min_length=1, description="name: {loss: a name in kdlab.losses.LOSSES, and its arguments};"
        " what a file cannot hold is filled in (kdlab.train.build).")
    world: WorldConfig | None = Field(
        None, description="Rendered faces to train on; the default where no folder is named.")
    folder: FolderConfig | None = Field(None, description="Picture files to train on.")
    sampler: SamplerConfig | None = Field(None, description="None: every picture once an epoch.")
    teacher: str | None = Field(
        None, description="A name in data/teachers such as 'dlib_resnet29', a path to "
        ".safetensors, also a run's student.safetensors, or null for none.")
    validation: ValidationConfig | None = Field(None, description="None: no validation.")
    train: TrainConfig = TrainConfig()

    @property
    def identities(self) -> int:
        """Classes of a classification loss."""
        return (self.world or self.folder).identities

    @property
    def classifies(self) -> bool:
        """Does the student end in a classifier, as those of fair distillation do?"""
        from kdlab.models import MODELS

        return "num_classes" in arguments(MODELS[self.student])

    @property
    def sizes(self) -> dict[str, int]:
        """The crops there are of the pictures, each with its pixels a side."""
        return self.folder.sizes if self.folder else dict(SIZES)

    @property
    def crop(self) -> str:
        """The crop that the student looks at."""
        return self.folder.crop if self.folder else "arcface"

    @property
    def num_groups(self) -> int | None:
        """How many groups the pictures have, where the file tells."""
        return self.world and {None: None, "ancestry": 3}.get(self.world.groups, 2)

    @model_validator(mode="before")
    @classmethod
    def _rendered(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("world") is values.get("folder") is None:
            return values | {"world": {}}
        return values

    @field_validator("losses")
    @classmethod
    def _named(cls, losses: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, settings in losses.items():
            if not isinstance(settings.get("loss"), str):
                raise ValueError(f"{name} does not say which loss: '{name}: {{loss: ArcFace}}'")
        return losses

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        if self.world and self.folder:
            raise ValueError("world and folder exclude one another; a run trains on rendered faces "
                             "or on files, leave one out")
        pairs = self.sampler and self.sampler.pairs
        if pairs and pairs.random + pairs.identities * pairs.per_identity != self.train.batch_size:
            raise ValueError(
                f"train.batch_size: sampler.pairs makes batches of {pairs.random} + "
                f"{pairs.identities} x {pairs.per_identity} = "
                f"{pairs.random + pairs.identities * pairs.per_identity}, not "
                f"{self.train.batch_size}; make them agree")
        if self.sampler and self.sampler.groups and not (self.world or self.folder).groups:
            raise ValueError("sampler.groups wants groups: set world.groups or folder.groups")
        if (self.validation and not self.validation.folder and self.world
                and self.validation.first < self.world.identities):
            raise ValueError(f"validation.first: person {self.validation.first} is trained on "
                             f"(0 to {self.world.identities - 1}); begin later")
        if self.train.schedule == "plateau" and self.validation is None:
            raise ValueError("train.schedule: 'plateau' waits for better validations; add "
                             "'validation: {}', or take another schedule")
        return self


def load_run(run: str | Path | dict | RunConfig) -> RunConfig:
    """A run from a YAML file or a dict; one that is checked already comes back as it is.

    A file that says no `train.out` gets runs/NAME, NAME its own without the suffix. Raises
    FileNotFoundError, or ValueError of one line that names every bad field.
    """
    if isinstance(run, RunConfig):
        return run
    if isinstance(run, dict):
        try:
            return RunConfig.model_validate(run)
        except ValidationError as error:
            raise ValueError(explain(error)) from error
    loaded = load_config(run, RunConfig)
    if loaded.train.out is None:
        settings = loaded.train.model_copy(update={"out": Path("runs") / Path(run).stem})
        loaded = loaded.model_copy(update={"train": settings})
    return loaded


def prepare(run: str | Path | dict | RunConfig, rank: int = 0, world: int = 1) -> dict[str, Any]:
    """Everything train() takes but the config: student, losses, batches, teacher, validate.

    Renders, reads and fills the cache of embeddings, after all that can be refused was: unknown
    names, arguments, the teacher's file, shapes that no loss can compare, batches that cannot be
    drawn. rank, world: of several processes, each prepares its own. The teacher is a cache where
    the losses read embeddings only, the network where one wants more, None where all was told.
    """
    from kdlab.data.embeddings import embed_set

    run = load_run(run)
    device = pick_device(run.train.device)
    torch.manual_seed(run.train.seed)  # the first weights of student and losses
    student = build_student(run)
    teacher = None if run.teacher is None else run_teacher(run.teacher)
    losses = build_losses(run, student, teacher)
    for module in (student, *losses.values(), *([teacher] if teacher else [])):
        module.to(device)
    how = check_teacher(run, student, losses, teacher)
    rehearse(run, student, losses, teacher, how, device)
    pictures = Pictures(run, student.input_size, rank, world)
    validate = validator(run, pictures)

    faces = pictures.take({run.crop, teacher.contract["crop"]} if how == "embeddings"
                          else {run.crop})
    learnt_from = teacher if how == "network" else None
    if how == "embeddings":
        large = len(faces) * 2 * teacher.embedding_size * 4 > WHOLE
        learnt_from = embed_set(teacher, faces, dtype="float16" if large else "float32")
    return {"student": student, "losses": losses, "batches": pictures.batches(faces),
            "teacher": learnt_from, "validate": validate}
