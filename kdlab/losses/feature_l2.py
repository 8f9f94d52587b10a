"""FeatureL2: squared distance between feature maps, the baseline ShrinkTeaNet compares with.

Duong, Luu, Quach, Le, "ShrinkTeaNet: Million-scale Lightweight Face Recognition via Shrinking
Teacher-Student Networks", arXiv:1905.10620, "Student-1".

Idea: the student's map of every stage, lifted to the teacher's channels, is pulled onto the
teacher's map, number by number. A small student cannot match every number of a large one, which is
the paper's case against this loss; it also calls the training unstable.

Symbols: F_i map after stage i (B, C_i, H_i, W_i); H_i `lifts[i - 1]`; lambda_n `weight`.
Choices: lambda_n = 0.001 and halving towards the front, eq. (7): the paper, section 4. A sum over
elements, mean over the batch: ours; 0.001 is there "due to the large value of the loss with large
feature map", which a mean would not have. F_n is the last map, since the weight speaks of maps
and every block counts; the embedding is left to the softmax loss: ours.
Differences: no code was released. In the angular loss F_n is the embedding, where the softmax
sits; `last="embedding"` is that reading, raw embeddings at lambda_n and n - 1 lifted maps, so
that the two losses differ in the distance and in the teacher's tail alone. `halved=False` gives
every stage lambda_n.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ..functional import squared_distance
from ..inputs import check_batch, teacher_embedding, teacher_maps
from ..outputs import Output, Targets
from .shrinkteanet import check_channels, check_maps, lift, lifts, stage_weights


def feature_l2(student: Tensor, teacher: Tensor) -> Tensor:
    """d of section 3.2, |F^t - H(F^s)|², summed over elements, mean over the batch.

    student, teacher: (B, ...) alike, the student's lifted.   Returns a scalar.
    """
    return squared_distance(student.flatten(1), teacher.flatten(1), normalize=False)


class FeatureL2(nn.Module):
    """Terms "stage1" ... "stage4", or with last="embedding" the last one "embedding".

    student_channels, teacher_channels: of every stage's map; the lifts are parameters of this loss.
    weight: lambda_n.   halved: lambda_i = lambda_{i+1} / 2, else all alike.
    last: "map" | "embedding".
    ValueError for channel lists that do not match each other or the maps, for maps of two sides,
    without a teacher or its maps; with last="embedding" for embeddings of two sizes or not finite.
    """

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int],
                 weight: float = 0.001, *, halved: bool = True, last: str = "map"):
        super().__init__()
        check_channels(student_channels, teacher_channels, "FeatureL2")
        if not student_channels:
            raise ValueError("FeatureL2 needs the channels of one stage at least; without maps, "
                             "FeatureOnly compares embeddings")
        if last not in ("map", "embedding"):
            raise ValueError(f'last must be "map" or "embedding", not {last!r}')
        self.weight, self.halved, self.last = weight, halved, last
        self.stages = len(student_channels)
        lifted = slice(None) if last == "map" else slice(-1)
        self.lifts = lifts(student_channels[lifted], teacher_channels[lifted])
        self.needs = {"features"} if last == "map" else {"features", "embedding"}

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        goals = teacher_maps(student, teacher, "FeatureL2")
        check_maps(student, goals, self.lifts, self.stages, "FeatureL2")
        check_batch(student.embedding, targets.labels)
        if self.last == "embedding":
            goal = teacher_embedding(student, teacher, "FeatureL2")
            check_batch(goal, targets.labels, whose="teacher")
        pairs = {f"stage{stage}": (lift(module, mine), theirs) for stage, (module, mine, theirs)
                 in enumerate(zip(self.lifts, student.features, goals, strict=False), 1)}
        if self.last == "embedding":
            pairs["embedding"] = student.embedding, goal
        weights = stage_weights(len(pairs), self.weight, self.halved)
        return {name: weight * feature_l2(*pair)
                for weight, (name, pair) in zip(weights, pairs.items(), strict=True)}  # eq. (7)
