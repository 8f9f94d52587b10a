"""The student and the losses of a run file: what it names, and what no file can hold filled in.

A loss is told what is known of the run by the names of its arguments: embedding_size, num_classes,
num_groups, student_channels, and of the teacher centres, teacher_channels and tail.
"""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdlab.functional import cosines
from kdlab.teachers import Teacher
from kdlab.train.config import unknown

EMBEDDING = 128  # dimensions where a run does not say: those of the shipped dlib_resnet29
OF_TEACHER = ("centres", "teacher_channels", "tail")  # arguments that come with the teacher


def build_student(run) -> nn.Module:
    """The student of a run; ValueError for a name that is not in MODELS or another size."""
    from kdlab.models import MODELS

    if run.student not in MODELS:
        raise ValueError(f"student: {unknown('network', run.student, MODELS)}")
    make = MODELS[run.student]
    if run.classifies:  # it has an embedding of its own
        student = make(num_classes=run.identities)
        if run.embedding_size not in (None, student.embedding_size):
            raise ValueError(f"embedding_size: {run.student} has {student.embedding_size} "
                             f"dimensions, not {run.embedding_size}; leave it out")
        return student
    try:
        return make(embedding_size=run.embedding_size or EMBEDDING)
    except ValueError as error:
        raise ValueError(f"embedding_size: {error}") from error


def build_losses(run, student: nn.Module | None = None,
                 teacher: Teacher | None = None) -> dict[str, nn.Module]:
    """The losses of a run, in the order of the file.

    student: None to look at one without weights.   teacher: as `load_teacher` gives it.
    In HintonKD `student_logits: arc` names another loss of the file, whose `logits` are meant, and
    `teacher_logits: 64` means 64 cos to the teacher's class rows.
    Raises ValueError that names the loss and the argument that does not fit.
    """
    from kdlab.losses import LOSSES

    if student is None:
        with torch.device("meta"):
            student = build_student(run)
    known = {"embedding_size": student.embedding_size, "num_classes": run.identities,
             "num_groups": run.num_groups, "student_channels": getattr(student, "channels", None)}
    if teacher is not None:
        known |= {"teacher_channels": teacher.channels or None, "tail": teacher.tail,
                  "centres": teacher.centres}
    known = {key: value for key, value in known.items() if value is not None}
    losses, later = dict.fromkeys(run.losses), []
    for name, settings in run.losses.items():
        kind = settings["loss"]
        if kind not in LOSSES:
            raise ValueError(f"losses.{name}: {unknown('loss', kind, LOSSES)}")
        takes = arguments(LOSSES[kind])
        given = {key: value for key, value in settings.items() if key != "loss"}
        for argument in given:
            if argument not in takes:
                mend = unknown(f"{kind} argument", argument, takes) if takes else (
                    f"{kind} takes no arguments, not {argument!r}")
                raise ValueError(f"losses.{name}: {mend}")
        given = {key: value for key, value in known.items() if key in takes} | given
        missing = [key for key, p in takes.items() if p.default is p.empty and key not in given]
        if missing:
            raise ValueError(f"losses.{name}: {kind} wants {', '.join(missing)}; "
                             f"{_mend(run, missing, teacher)}")
        if "centres" in takes and "centres" not in settings:
            given["centres"] = class_rows(run, teacher, f"losses.{name}")
        if "student_logits" in takes:
            later.append((name, LOSSES[kind], given))
        else:
            losses[name] = _made(name, LOSSES[kind], given)
    for name, kind, given in later:  # they read the others
        losses[name] = _made(name, kind, given | _logits(run, losses, name, given, teacher))
    return losses


def arguments(kind: Callable) -> dict[str, inspect.Parameter]:
    """The named arguments of a loss or network; none where a class has no constructor."""
    return {name: p for name, p in inspect.signature(kind).parameters.items()
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def class_rows(run, teacher: Teacher | None, where: str) -> Tensor:
    """The teacher's class rows for this run's identities, (num_classes, D).

    A teacher of rendered people knows them by number, so that a run with fewer takes the first
    rows; rows of a folder must be as many as its identities. ValueError that begins with `where`.
    """
    C = run.identities
    if teacher is None or teacher.centres is None:
        who = "the run has no teacher" if teacher is None else f"{run.teacher} was saved without"
        raise ValueError(f"{where}: the class rows of a teacher are wanted, and {who}; take one "
                         "that has them, such as ir_teacher")
    rows, world = teacher.centres, teacher.contract.get("trained_on")
    seed = world.get("seed") if isinstance(world, dict) else None
    if run.world and (len(rows) < C or seed not in (None, run.world.seed)):
        raise ValueError(f"{where}: {run.teacher} has class rows for {len(rows)} people of the "
                         f"world of seed {seed}, the run has {C} of seed {run.world.seed}; train "
                         "on people that the teacher knows")
    if run.folder and len(rows) != C:
        raise ValueError(f"{where}: {run.teacher} has class rows for {len(rows)} people, the "
                         f"folder has {C}; row k must be the folder's identity k")
    return rows[:C]


def _made(name: str, kind: type, given: dict) -> nn.Module:
    try:
        return kind(**given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"losses.{name}: {error}") from error


def _mend(run, missing: list[str], teacher: Teacher | None) -> str:
    if teacher is None and set(missing) & set(OF_TEACHER):
        return "they come with a teacher; name one in `teacher:`"
    if "centres" in missing:
        return f"{run.teacher} was saved without; take a teacher with class rows, as ir_teacher"
    if "num_groups" in missing:
        return "say how many there are, as in num_groups: 2"
    return "say them there"


def _logits(run, losses: dict, name: str, given: dict, teacher: Teacher | None) -> dict:
    """HintonKD's two functions for what the file says."""
    made, source = {}, given.get("student_logits")
    if source is not None:
        can = [other for other, loss in losses.items() if hasattr(loss, "logits")]
        if source not in can:
            raise ValueError(f"losses.{name}: student_logits is the name of a loss of this file "
                             f"that has logits, such as an ArcFace; not {source!r}, "
                             f"known are {', '.join(can) or 'none'}")
        made["student_logits"] = losses[source].logits
    scale = given.get("teacher_logits")
    if scale is not None:
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0:
            raise ValueError(f"losses.{name}: teacher_logits is the scale s of s cos to the "
                             f"teacher's class rows, a number such as 64, not {scale!r}")
        rows = class_rows(run, teacher, f"losses.{name}")
        made["teacher_logits"] = lambda x: scale * cosines(x, rows.to(x.device))
    return made
