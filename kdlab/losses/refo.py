"""ReFO: reverse distillation, then feature-only distillation.

"Rethinking Feature-Based Knowledge Distillation for Face Recognition", CVPR 2023.

Idea: a student that only copies the teacher's embedding, without labels, does well if the
teacher's features are easy to copy. So the teacher is first trained with one eye on a small
network (reverse distillation), which raises its intrinsic dimension towards the student's. Then
the student copies that tailored teacher and sees no label (feature only).

Symbols: f_t teacher embedding, f_s student embedding, f_s' embedding of the student proxy, all
(B, D); beta1, beta2 `weight`.
Choices: beta1 = 0.5 on normalised embeddings, 0.001 on raw ones, beta2 = 5: the supplement.
Sum over dimensions, mean over the batch: ours; the text says squared error and no more. With the
mean over 512 dimensions the beta1 term would stay below 0.004, that is without effect.
Differences: no code was released. Equation 4's classification term is a loss of its own (ArcFace,
beside this one in the run's losses).
"""

from torch import Tensor, nn

from ..functional import squared_distance
from ..inputs import check_batch, teacher_embedding
from ..outputs import Output, Targets


def reverse_distillation(teacher: Tensor, proxy: Tensor, weight: float = 0.5,
                         normalize: bool = True, reduction: str = "sum") -> Tensor:
    """The second term of eq. (4), L = L_cls + beta1 L_emb(f_t, f_s').   (B, D) twice -> scalar."""
    return weight * squared_distance(teacher, proxy, normalize, reduction)  # eq. (4)


def feature_only(student: Tensor, teacher: Tensor, weight: float = 5, normalize: bool = True,
                 reduction: str = "sum") -> Tensor:
    """Eq. (5), L = beta2 L_emb(f_s, f_t), all there is.   (B, D) twice -> scalar."""
    return weight * squared_distance(student, teacher, normalize, reduction)  # eq. (5)


class FeatureOnly(nn.Module):
    """ReFO's step 5: the student copies the teacher's embedding; labels are not used.

    weight: beta2.   normalize: compare directions (0 to 4 times weight) or raw vectors.
    reduction: over dimensions, "sum" or "mean".   Also AdaDistill's eq. (2) at weight 1.
    ValueError without a teacher, for unequal embedding sizes, for non-finite embeddings.
    """

    needs = {"embedding"}
    equation = staticmethod(feature_only)

    def __init__(self, weight: float = 5, normalize: bool = True, *, reduction: str = "sum"):
        super().__init__()
        if reduction not in ("sum", "mean"):
            raise ValueError(f'reduction must be "sum" or "mean", not {reduction!r}')
        self.weight, self.normalize, self.reduction = weight, normalize, reduction

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        goal = teacher_embedding(student, teacher, type(self).__name__)
        check_batch(student.embedding, targets.labels)
        check_batch(goal, targets.labels, whose="teacher")
        return {"embedding": self.equation(student.embedding, goal, self.weight, self.normalize,
                                           self.reduction)}


class ReverseDistillation(FeatureOnly):
    """ReFO's step 3: the teacher learns, beside ArcFace, to stay near a frozen student proxy.

    In the run the network that learns (`student`) is the teacher-to-be and `teacher` is the
    proxy. weight: beta1; None for 0.5 normalised, 0.001 raw.   Otherwise as FeatureOnly.
    """

    equation = staticmethod(reverse_distillation)

    def __init__(self, weight: float | None = None, normalize: bool = True, *,
                 reduction: str = "sum"):
        default = 0.5 if normalize else 0.001
        super().__init__(default if weight is None else weight, normalize, reduction=reduction)
