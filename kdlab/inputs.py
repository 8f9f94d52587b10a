"""What a loss refuses, in words, before it computes anything.

Each function names both sides of what does not fit. Dimensions: B batch, D embedding, C classes.
"""

import torch
from torch import Tensor

from .distributed import gather, gather_with_gradient
from .functional import full
from .outputs import Output, Targets


def check_batch(embedding: Tensor, labels: Tensor, num_classes: int | None = None,
                whose: str = "student", what: str = "embeddings") -> None:
    """ValueError where a row of the embedding is not finite or a label is not a class.

    embedding: (B, D); labels: (B,); num_classes None: labels are not judged.
    whose, what: for the message, where something else than an embedding is judged.
    One synchronisation with the device in the good case.
    """
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64, not {labels.dtype}; call .long() on them")
    if embedding.ndim != 2:
        raise ValueError(f"the {whose}'s {what} must be (batch, dimensions), not "
                         f"{tuple(embedding.shape)}")
    if labels.shape != embedding.shape[:1]:
        raise ValueError(f"{len(embedding)} {whose} {what} but labels of shape "
                         f"{tuple(labels.shape)}")
    if len(embedding) == 0:
        raise ValueError("the batch is empty; a loss needs one row at least")
    broken = ~embedding.isfinite().all(1)
    wrong = torch.zeros_like(broken)
    if num_classes is not None:
        wrong = (labels < 0) | (labels >= num_classes)
    if not bool((wrong | broken).any()):
        return
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(f"label {int(labels[row])} in row {row} of the batch, but the loss has "
                         f"{num_classes} classes (0 to {num_classes - 1}); it needs one for every "
                         "identity (num_classes, or a row of the teacher's centres)")
    raise ValueError(f"{int(broken.sum())} of {len(embedding)} {whose} {what} are NaN or "
                     f"infinite (first: row {int(broken.nonzero()[0])} of the batch)")


def teacher_embedding(student: Output, teacher: Output | None, loss: str) -> Tensor:
    """The teacher's embedding, detached; ValueError where it is missing or of another size.

    For losses that compare the two embeddings number by number.
    """
    if teacher is None:
        raise ValueError(f"{loss} needs a teacher's embedding, got no teacher; pass train() one")
    if teacher.embedding.shape != student.embedding.shape:
        raise ValueError(
            f"{loss} compares embeddings of one size: the student's are "
            f"{tuple(student.embedding.shape)}, the teacher's {tuple(teacher.embedding.shape)}; "
            "give the student the teacher's embedding_size")
    return teacher.embedding.detach()


def relational(student: Output, teacher: Output | None, targets: Targets, loss: str,
               layer: str = "") -> tuple[Tensor, Tensor]:
    """Both embeddings, of any two sizes, checked: (B, D_s), (B, D_t); the teacher's detached.

    For losses that compare relations. Of several processes, the rows of all.
    layer: what messages put after "student" and "teacher" where no true embedding is given.
    """
    if teacher is None:
        raise ValueError(f"{loss} needs a teacher's embedding, got no teacher; pass train() one")
    mine, theirs = student.embedding, teacher.embedding.detach()
    if len(mine) != len(theirs):
        raise ValueError(f"{loss} compares the relations of one batch: {len(mine)} embeddings of "
                         f"the student, {len(theirs)} of the teacher")
    check_batch(mine, targets.labels, whose=f"student{layer}")
    check_batch(theirs, targets.labels, whose=f"teacher{layer}")
    return gather_with_gradient(mine), gather(theirs)


def teacher_logits(student: Output, teacher: Output | None, loss: str) -> Tensor:
    """The teacher's logits, detached; ValueError where either side has none or the shapes differ.
    """
    if teacher is None:
        raise ValueError(f"{loss} needs a teacher's logits, got no teacher; pass train() one")
    for name, output in (("student", student), ("teacher", teacher)):
        if output.logits is None:
            raise ValueError(f"{loss} compares logits and the {name} has none; use a network with "
                             "a classifier, or say how to make them of an embedding")
    if student.logits.shape != teacher.logits.shape:
        raise ValueError(f"{loss} compares logits of one shape: the student's are "
                         f"{tuple(student.logits.shape)}, the teacher's "
                         f"{tuple(teacher.logits.shape)}; both must know the same classes")
    return teacher.logits.detach()


def teacher_maps(student: Output, teacher: Output | None, loss: str) -> tuple[Tensor, ...]:
    """The teacher's feature maps, detached, one for each of the student's; ValueError where either
    has none or their numbers or batch sizes differ. Channels and sides are the loss's own affair.
    """
    if teacher is None:
        raise ValueError(f"{loss} needs a teacher's feature maps, got no teacher; pass train() one")
    if not student.features or len(student.features) != len(teacher.features):
        raise ValueError(f"{loss} compares feature maps stage by stage: the student has "
                         f"{len(student.features)}, the teacher {len(teacher.features)}; the "
                         "networks need stages alike, and a cache of embeddings has none")
    for stage, (mine, theirs) in enumerate(zip(student.features, teacher.features, strict=True), 1):
        if not len(mine) == len(theirs) == len(student.embedding) == len(teacher.embedding):
            raise ValueError(f"{loss}: stage {stage} has {len(mine)} rows of the student and "
                             f"{len(theirs)} of the teacher, beside {len(student.embedding)} and "
                             f"{len(teacher.embedding)} embeddings; all must be of one batch")
    return tuple(theirs.detach() for theirs in teacher.features)


def same_side(student: Tensor, teacher: Tensor, stage: int, loss: str) -> None:
    """ValueError where the maps of a stage (from 1) differ in height or width."""
    if student.shape[2:] != teacher.shape[2:]:
        mine, theirs = (" x ".join(map(str, x.shape[2:])) for x in (student, teacher))
        raise ValueError(f"{loss}: the map of stage {stage} is {mine} in the student and {theirs} "
                         "in the teacher; give both networks one input size and equal strides")


def check_layer(layer: str | int, allowed: tuple[str, ...], loss: str) -> None:
    """ValueError where `layer` is neither one of the names nor the number of a stage, from 1."""
    stage = isinstance(layer, int) and not isinstance(layer, bool) and layer >= 1
    if not stage and layer not in allowed:
        raise ValueError(f"{loss}: layer must be one of {', '.join(allowed)} or a stage's number, "
                         f"from 1, not {layer!r}")


def paired_maps(student: Output, teacher: Output | None, targets: Targets, layer: str | int,
                loss: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Term name -> the student's and the teacher's map, (B, C, H, W) each, the latter detached.

    layer: "last_map" | "all" | a stage's number, from 1.   ValueError where a network has no such
    stage, the sides differ (channels may) or a map is not finite.
    """
    goals = teacher_maps(student, teacher, loss)
    last = len(goals)
    stages = {"last_map": [last], "all": range(1, last + 1)}.get(layer, [layer])
    pairs = {}
    for stage in stages:
        if stage > last:
            raise ValueError(f"{loss}: layer={stage}, but the networks have {last} stages")
        pair = student.features[stage - 1], goals[stage - 1]
        same_side(*pair, stage, loss)
        for whose, features in zip(("student", "teacher"), pair, strict=True):
            check_batch(features.flatten(1), targets.labels, whose=whose, what="maps")
        pairs["last_map" if layer == "last_map" else f"stage{stage}"] = pair
    return pairs


def several_positions(pairs: dict[str, tuple[Tensor, Tensor]], loss: str) -> None:
    """ValueError where a map has one position only: a unit vector of one number teaches nothing."""
    for name, (mine, _) in pairs.items():
        if mine.shape[2:].numel() < 2:
            raise ValueError(f"{loss}: the map {name} has one position, there its gradient is 0 "
                             "for every student; take a layer with a larger map")


def check_balanced(targets: Targets) -> Tensor | None:
    """`targets.balanced`, (B,) bool or None; ValueError where it is anything else."""
    balanced = targets.balanced
    if balanced is not None and (balanced.shape != targets.labels.shape
                                 or balanced.dtype != torch.bool):
        raise ValueError(f"{len(targets.labels)} labels but targets.balanced is {balanced.dtype} "
                         f"of shape {tuple(balanced.shape)}; it says of each row, True or False, "
                         "whether the P x K sampler drew it")
    return balanced


def class_rows(centres: Tensor | None, loss: str) -> Tensor:
    """A copy of a teacher's class rows (C, D), detached; ValueError where they cannot serve."""
    if centres is None:
        raise ValueError(f"{loss} needs the teacher's class rows and got none; a teacher without "
                         "a classifier cannot teach it")
    centres = torch.as_tensor(centres)
    if centres.ndim != 2 or len(centres) == 0 or not centres.is_floating_point():
        raise ValueError(f"{loss} takes class rows as floating-point numbers of shape (classes, "
                         f"dimensions), not {centres.dtype} of shape {tuple(centres.shape)}")
    centres, = full(centres.detach().clone())
    length = centres.norm(dim=1)
    broken = ~(length.isfinite() & (length > 1e-12))  # F.normalize's floor
    if broken.any():
        raise ValueError(f"{int(broken.sum())} of {loss}'s {len(centres)} class rows are zero, NaN "
                         f"or infinite (first: row {int(broken.nonzero()[0])}); such a class has "
                         "no direction, take the rows of a whole teacher file")
    return centres


def check_groups(targets: Targets, loss: str, num_groups: int | None = None) -> Tensor:
    """The groups (B,) int64; ValueError where they are missing, of another type or length, or
    outside 0 .. num_groups - 1."""
    groups = targets.groups
    if groups is None:
        raise ValueError(f"{loss} needs targets.groups, the sensitive attribute of every row; "
                         "pass groups to Batches")
    if groups.dtype != torch.int64:
        raise ValueError(f"groups must be int64, not {groups.dtype}; call .long() on them")
    if groups.shape != targets.labels.shape:
        raise ValueError(f"{len(targets.labels)} labels but groups of shape "
                         f"{tuple(groups.shape)}")
    wrong = (groups < 0) | (groups >= num_groups if num_groups is not None else groups < 0)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        most = "" if num_groups is None else f" to {num_groups - 1}"
        raise ValueError(f"group {int(groups[row])} in row {row} of the batch; groups are 0{most}")
    return groups
