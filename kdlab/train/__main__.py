"""python -m kdlab.train run.yaml: train a student on the rendered world, from one file."""

import argparse
import inspect
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import Field, field_validator
from torch import nn

from kdlab.cache import write_atomic
from kdlab.data.batches import Batches
from kdlab.train.config import Strict, TrainConfig, load_config, unknown
from kdlab.train.loop import pick_device, train

INPUT = 48  # pixels a side: the students' input, shrunk from the 112 x 112 "arcface" crop


class WorldConfig(Strict):
    """Which rendered faces to train on."""

    seed: int = Field(0, ge=0, description="Seed of the face world.")
    identities: int = Field(300, ge=2, description="People: numbers 0 to identities - 1.")
    per_identity: int = Field(16, ge=1, description="Images of each.")


class RunConfig(Strict):
    """One run: who learns, from what, from whom, and how."""

    student: str = Field("ir_student", description="A name in kdlab.models.MODELS.")
    embedding_size: int = Field(128, ge=1, description="Dimensions of the student's embedding.")
    losses: dict[str, dict[str, Any]] = Field(
        min_length=1, description="name: {loss: a name in kdlab.losses.LOSSES, and its arguments};"
        " embedding_size and num_classes are filled in where a loss has them.")
    world: WorldConfig = WorldConfig()
    teacher: str | None = Field(None, description="A name in data/teachers such as "
                                "'dlib_resnet29', a path to .safetensors, or null for none.")
    train: TrainConfig = TrainConfig()

    @field_validator("losses")
    @classmethod
    def _named(cls, losses: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, settings in losses.items():
            if not isinstance(settings.get("loss"), str):
                raise ValueError(f"{name} does not say which loss: '{name}: {{loss: ArcFace}}'")
        return losses


def build_student(run: RunConfig) -> nn.Module:
    """The student of a run; ValueError for a name that is not in MODELS."""
    from kdlab.models import MODELS

    if run.student not in MODELS:
        raise ValueError(f"student: {unknown('network', run.student, MODELS)}")
    return MODELS[run.student](embedding_size=run.embedding_size)


def build_losses(run: RunConfig) -> dict[str, nn.Module]:
    """The losses of a run; ValueError that names the loss and the argument that does not fit."""
    from kdlab.losses import LOSSES

    known = {"embedding_size": run.embedding_size, "num_classes": run.world.identities}
    losses = {}
    for name, settings in run.losses.items():
        kind = settings["loss"]
        if kind not in LOSSES:
            raise ValueError(f"losses.{name}: {unknown('loss', kind, LOSSES)}")
        takes = inspect.signature(LOSSES[kind]).parameters
        given = {key: value for key, value in settings.items() if key != "loss"}
        for argument in given:
            if argument not in takes:
                raise ValueError(f"losses.{name}: {unknown(f'{kind} argument', argument, takes)}")
        given = {key: value for key, value in known.items() if key in takes} | given
        missing = [key for key, p in takes.items() if p.default is p.empty and key not in given]
        if missing:
            raise ValueError(f"losses.{name}: {kind} wants {', '.join(missing)}; what a file "
                             "cannot hold (centres, networks) is given to kdlab.train.train()")
        losses[name] = LOSSES[kind](**given)
    return losses


def run_training(run: RunConfig) -> Path:
    """Build, render and train; returns the folder of the results (run.train.out).

    What can be wrong with names, arguments, the teacher's file and the device is said before
    anything is rendered.
    """
    from kdlab.data.embeddings import embed_set
    from kdlab.teachers import load_teacher
    from kdlab.world import FaceWorld, rendered

    device = pick_device(run.train.device)
    torch.manual_seed(run.train.seed)  # the first weights of student and losses
    student, losses = build_student(run), build_losses(run)
    teacher, crops = None, {"arcface"}
    if run.teacher is not None:
        teacher = load_teacher(run.teacher).to(device)
        crops.add(teacher.contract["crop"])
    faces = rendered(FaceWorld(seed=run.world.seed), identities=range(run.world.identities),
                     per_identity=run.world.per_identity, crops=tuple(sorted(crops)))
    known = embed_set(teacher, faces) if teacher else None
    batches = Batches(faces.pixels("arcface", INPUT), faces.labels, run.train.batch_size,
                      seed=run.train.seed, crop="arcface", key=faces.key)
    write_atomic(run.train.out / "run.yaml",
                 yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False))
    print(train(run.train, student, losses, batches, known).table())
    return run.train.out


def main(argv: list[str] | None = None) -> int:
    """The command. Returns 0, 1 for what went wrong (one line says what), 130 when stopped."""
    parser = argparse.ArgumentParser("python -m kdlab.train", description=__doc__)
    parser.add_argument("run", type=Path, help="a run file, such as configs/first_light.yaml")
    path = parser.parse_args(argv).run
    try:
        run = load_config(path, RunConfig)
        if run.train.out is None:
            settings = run.train.model_copy(update={"out": Path("runs") / path.stem})
            run = run.model_copy(update={"train": settings})
        out = run_training(run)
    except KeyboardInterrupt:
        print("stopped; what the run had so far is in its out folder", file=sys.stderr)
        return 130  # what a shell reports for Ctrl-C
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"kdlab.train: {error}", file=sys.stderr)
        return 1
    print(out / "student.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
