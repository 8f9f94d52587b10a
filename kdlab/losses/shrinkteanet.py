"""ShrinkTeaNet: the student's direction follows the teacher's, judged by the teacher itself.

Duong, Luu, Quach, Le, "ShrinkTeaNet: Million-scale Lightweight Face Recognition via Shrinking
Teacher-Student Networks", arXiv:1905.10620.

Idea: only the direction of an embedding matters for recognition, so only the direction is copied.
A map in the middle is not compared with the teacher's map: it is lifted to the teacher's channels
and the frozen teacher finishes the job. If the embedding that comes out points where the teacher's
own does, the student had understood the face so far.

Symbols: F_i map after stage i (B, C_i, H_i, W_i), F_n embedding (B, D); T_{i+1} ... T_n `tail`, the
teacher after stage i; H_i `lifts[i - 1]`; lambda_n `weight`, lambda_i = lambda_{i+1} / 2.
Choices: weight 1, halved at every stage towards the front, 1x1 convolution and batch norm: the
paper, sections 3.3 and 4. The convolution has no bias (the batch norm has one) and starts at
torch's default: ours. `squared=False`: below.
Differences: eq. (4) prints a squared norm of 1 - cos, `squared=True`; every public code has 1 - cos
(margindistillation, TFace), and its gradient does not fade as the two agree. Those codes have the
last layer only: `intermediate=False`, which needs no more than cached embeddings. Eqs. (1) and (2)
define the networks and any distance, eq. (3) is the run's own softmax loss, eq. (5) is eq. (7) with
the last stage alone. H_n, for embeddings of two sizes, is left out: embeddings must agree. The
squared distance between maps that the paper compares with is `FeatureL2`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from ..functional import cosine_of_rows
from ..inputs import check_batch, same_side, teacher_embedding, teacher_maps
from ..outputs import Output, Targets


def angular(student: Tensor, teacher: Tensor, squared: bool = False) -> Tensor:
    """Eq. (4), mean over the batch of 1 - cos, or of its square: (B, D) twice -> scalar, 0 to 2
    (squared: 0 to 4)."""
    gap = 1 - cosine_of_rows(student, teacher)
    return (gap.square() if squared else gap).mean()  # eq. (4)


def through_teacher(lifted: Tensor, teacher: Tensor, tail: Callable[[Tensor, int], Output],
                    stage: int, squared: bool = False) -> Tensor:
    """Eq. (6), stage i < n: the teacher finishes the student's lifted map.

    lifted: (B, C_i, H_i, W_i), H_i(F_i^s); teacher: (B, D), its own embedding, which is T_{i+1} ...
    T_n of its own map.   tail(map, i): everything after stage i; the gradient runs through it.
    """
    finished = tail(lifted, stage).embedding
    if finished.shape != teacher.shape:
        raise ValueError(f"the tail makes embeddings {tuple(finished.shape)} of stage {stage}, the "
                         f"teacher's own are {tuple(teacher.shape)}; pass the tail of the teacher "
                         "that teaches")
    return angular(finished, teacher, squared)  # eq. (6)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """While it lasts, the network takes no gradient and its batch norms learn nothing."""
    learning = [p for p in network.parameters() if p.requires_grad]
    training = [module for module in network.modules() if module.training]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        for module in training:
            module.training = False
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


def stage_weights(stages: int, last: float = 1, halved: bool = True) -> list[float]:
    """lambda_1 ... lambda_n of eq. (7): the last is given, each before it half of the next."""
    return [last * 0.5 ** (stages - i) if halved else last for i in range(1, stages + 1)]


def lifts(student_channels: Sequence[int], teacher_channels: Sequence[int]) -> nn.ModuleList:
    """H_i for each pair of channel numbers: 1x1 convolution without bias, batch norm."""
    return nn.ModuleList(
        nn.Sequential(nn.Conv2d(mine, theirs, 1, bias=False), nn.BatchNorm2d(theirs))
        for mine, theirs in zip(student_channels, teacher_channels, strict=True))


def lift(module: nn.Sequential, features: Tensor) -> Tensor:
    """H_i(F_i^s), in the precision of H_i: (B, C_s, H, W) -> (B, C_t, H, W)."""
    return module(features.to(module[0].weight.dtype))


def check_channels(student_channels: Sequence[int], teacher_channels: Sequence[int],
                   loss: str) -> None:
    """ValueError where the two lists of channels have not one length."""
    if len(student_channels) != len(teacher_channels):
        raise ValueError(f"{loss} pairs stages: {len(student_channels)} channel numbers of the "
                         f"student, {len(teacher_channels)} of the teacher; pass student.channels "
                         "and teacher.channels, each with one number a stage")


def check_maps(student: Output, goals: Sequence[Tensor], lifted: nn.ModuleList, stages: int,
               loss: str) -> None:
    """ValueError where maps to be lifted differ from what the loss was built for, or in side.

    goals: the teacher's maps; () where a cache stands in for it, and its tail judges the lifted.
    """
    if not len(student.features) == stages == len(goals or student.features):
        raise ValueError(f"{loss} was built for {stages} stages, the networks have "
                         f"{len(student.features)}; pass student.channels and teacher.channels "
                         "whole")
    for stage, (module, mine) in enumerate(zip(lifted, student.features, strict=False), 1):
        built = module[0].in_channels, module[0].out_channels
        got = mine.shape[1], goals[stage - 1].shape[1] if goals else built[1]
        if built != got:
            raise ValueError(f"{loss}: stage {stage} was built for {built[0]} channels of the "
                             f"student and {built[1]} of the teacher, got {got[0]} and {got[1]}")
        if goals:
            same_side(mine, goals[stage - 1], stage, loss)


class ShrinkTeaNet(nn.Module):
    """Terms "stage1" ... "stage3" (eq. 6) and "embedding" (eq. 4), weighted by eq. (7).

    student_channels, teacher_channels: of every stage's map; the last stage is served by the
    embeddings, so n - 1 lifts, the parameters of this loss.
    tail: `teacher.tail`, the bound method: the network is neither registered nor saved nor
    switched to train mode here; while it runs on the student's maps it is frozen, so that its
    parameters get no gradient and its batch norms' statistics stay.
    Both lists empty, or intermediate False: the embedding alone; tail may be None and a cache
    of embeddings is enough.   squared: eq. (4) as printed.   weight: lambda_n.

    ValueError for channel lists that do not match each other or the maps, for maps of two sides,
    for embeddings of two sizes or not finite, without a teacher, for a tail that cuts the
    gradient.
    """

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int],
                 tail: Callable[[Tensor, int], Output] | None, squared: bool = False,
                 intermediate: bool = True, *, weight: float = 1):
        super().__init__()
        check_channels(student_channels, teacher_channels, "ShrinkTeaNet")
        self.stages = len(student_channels)
        front = slice(-1) if intermediate else slice(0)
        self.lifts = lifts(student_channels[front], teacher_channels[front])
        if len(self.lifts) and not isinstance(getattr(tail, "__self__", None), nn.Module):
            raise ValueError("ShrinkTeaNet's stages end in the teacher: pass tail=teacher.tail, "
                             f"the method of a network, not {type(tail).__name__}; "
                             "intermediate=False does without")
        self.tail, self.squared, self.weight = tail, squared, weight
        self.needs = {"embedding"}  # the tail is here already, so a cache of embeddings will do

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        goal = teacher_embedding(student, teacher, "ShrinkTeaNet")
        if len(self.lifts):
            maps = teacher_maps(student, teacher, "ShrinkTeaNet") if teacher.features else ()
            check_maps(student, maps, self.lifts, self.stages, "ShrinkTeaNet")
        check_batch(student.embedding, targets.labels)
        check_batch(goal, targets.labels, whose="teacher")
        values = {}
        for stage, (module, features) in enumerate(
                zip(self.lifts, student.features, strict=False), 1):
            lifted = lift(module, features)
            with frozen(self.tail.__self__):
                value = through_teacher(lifted, goal, self.tail, stage, self.squared)
            values[f"stage{stage}"] = value
            if lifted.requires_grad and not value.requires_grad:
                raise ValueError(f"ShrinkTeaNet: the teacher's tail cuts the gradient of stage "
                                 f"{stage}, so the term would be a constant; run the tail neither "
                                 "under no_grad nor on detached maps")
        values["embedding"] = angular(student.embedding, goal, self.squared)
        weights = stage_weights(len(values), self.weight)
        return {name: weight * value
                for weight, (name, value) in zip(weights, values.items(), strict=True)}  # eq. (7)
