"""MFD: a student whose features of every group look like the teacher's features of the class.

Jung, Lee, Park, Moon, "Fair Feature Distillation for Visual Recognition", CVPR 2021.

Idea: a network trained on skewed data keeps the sensitive attribute (the group) in its features.
For every class and every group the student's features are pulled, as a distribution, to the
teacher's features of the whole class, all groups together. So it learns from the teacher and is
kept from telling the groups apart at once. Distributions are compared by the squared maximum mean
discrepancy (MMD) with a Gaussian kernel; no row is matched with a row. Runs beside `CrossEntropy`.

Symbols: t_i, s_j flattened features (B, D) of teacher and student; T_y the t_i of class y;
S_ya the s_j of class y and group a, a cell; bw bandwidth; d2 squared distance; lambda `weight`.
Choices: weight = 3: the supplement for CIFAR-10S and UTKFace (7 for CelebA); sigma = 1, the floor
1e-12: released code; layer: the last map before pooling for the released ResNet-18 and
ShuffleNetV2, the hidden layer ("embedding") for its CIFAR network.
Differences: the main text was not at hand, so lines name a formula instead of an equation; the
formulas agree with the released code. The bandwidth there is of teacher-student pairs only, once a
batch, a constant for the gradient, and sigma multiplies it unsquared: so here. A sum over cells,
not a mean: the pull grows with classes times groups. The estimator keeps the diagonals (biased):
with n rows in a cell and m in its class, equal distributions still cost (1/n + 1/m)(1 - E k) a
cell, so a term near 3 is no failure. `joint=True` is the release's unused --jointfeature, one MMD
of the whole batch that sees no class and no group; its polynomial kernel and its form without a
teacher are not offered. Several processes: their rows are one batch; the release knows one.
The published runs draw group-balanced batches (`GroupBalancedSampler`).
"""

import torch
from torch import Tensor, nn

from ..distributed import gather, gather_with_gradient
from ..functional import full, squared_distances
from ..inputs import check_batch, check_groups, teacher_embedding, teacher_maps
from ..outputs import Output, Targets

FLOOR = 1e-12  # least squared distance, released code


def bandwidth(squared: Tensor) -> Tensor:
    """bw, the mean squared distance of teacher and student rows: (B, B) -> scalar, no gradient."""
    return squared.detach().clamp(min=FLOOR).mean()  # bw = mean_ij max(|t_i - s_j|², 1e-12)


def kernel(squared: Tensor, bw: Tensor, sigma: float = 1) -> Tensor:
    """Gaussian kernel of squared distances, elementwise, in (0, 1].   Constant below the floor."""
    return (-squared.clamp(min=FLOOR) / (2 * sigma * bw)).exp()  # k = exp(-d2 / (2 sigma bw))


def discrepancies(student: Tensor, teacher: Tensor, labels: Tensor, groups: Tensor,
                  sigma: float = 1) -> Tensor:
    """Squared MMD of every cell that has rows, V-statistic: (K,), ordered by class, then group.

    student, teacher: (B, D), the same pictures in one order; labels, groups: (B,), any integers.
    D2(y, a) = mean k(T_y, T_y) + mean k(S_ya, S_ya) - 2 mean k(T_y, S_ya), 0 or more.
    """
    student, teacher = full(student, teacher)
    (classes, _), cell = torch.stack([labels, groups]).unique(dim=1, return_inverse=True)
    own = cell == torch.arange(len(classes), device=cell.device)[:, None]  # (K, B): S_ya
    whole = labels == classes[:, None]                                     # (K, B): T_y
    own, whole = (member.to(student.dtype) / member.sum(1, keepdim=True)
                  for member in (own, whole))
    cross = squared_distances(teacher, student)
    bw = bandwidth(cross)
    with torch.autocast(student.device.type, enabled=False):
        within_teacher = whole @ kernel(squared_distances(teacher, teacher), bw, sigma)
        within_student = own @ kernel(squared_distances(student, student), bw, sigma)
        between = whole @ kernel(cross, bw, sigma)
    return ((within_teacher * whole).sum(1) + (within_student * own).sum(1)
            - 2 * (between * own).sum(1))  # D2(y, a)


def mfd(student: Tensor, teacher: Tensor, labels: Tensor, groups: Tensor, weight: float = 3,
        sigma: float = 1) -> Tensor:
    """(lambda / 2) * sum over classes and groups of D2(y, a); cells without rows are left out.

    student, teacher: (B, D); labels, groups: (B,).   Returns a scalar, float32 at least.
    """
    cells = discrepancies(student, teacher.detach(), labels, groups, sigma)
    return weight / 2 * cells.sum()  # L_MFD = lambda / 2 sum_y sum_a D2(y, a)


class MFD(nn.Module):
    """MMD-based fair distillation; its term is "mmd".

    weight: lambda.   sigma: factor of the bandwidth, above 0.   layer: "last_map", the last of
    `features`, flattened, or "embedding"; student and teacher must agree in its shape.
    joint: one MMD of the whole batch; groups are then not asked for.   Uses every row.
    ValueError without a teacher, for a missing or unequal layer, for missing groups, for numbers
    that are not finite.
    """

    def __init__(self, weight: float = 3, sigma: float = 1, layer: str = "last_map", *,
                 joint: bool = False):
        super().__init__()
        if layer not in ("last_map", "embedding"):
            raise ValueError(f'layer must be "last_map" or "embedding", not {layer!r}')
        if not sigma > 0:
            raise ValueError(f"sigma must be above 0, not {sigma}")
        self.weight, self.sigma, self.layer, self.joint = weight, sigma, layer, joint
        self.needs = {"features"} if layer == "last_map" else {"embedding"}

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        mine, theirs = self._layer(student, teacher)
        labels = targets.labels
        layer = "" if self.layer == "embedding" else " last-map"
        check_batch(mine, labels, whose="student" + layer)
        check_batch(theirs, labels, whose="teacher" + layer)
        if self.joint:
            labels = groups = torch.zeros_like(labels)
        else:
            groups = check_groups(targets, "MFD")
        return {"mmd": mfd(gather_with_gradient(mine), gather(theirs), gather(labels),
                           gather(groups), self.weight, self.sigma)}

    def _layer(self, student: Output, teacher: Output | None) -> tuple[Tensor, Tensor]:
        """The compared layer of both, flattened; the teacher's detached."""
        if self.layer == "embedding":
            return student.embedding, teacher_embedding(student, teacher, "MFD")
        theirs = teacher_maps(student, teacher, "MFD")[-1]
        mine = student.features[-1]
        if mine.shape != theirs.shape:
            raise ValueError(f"MFD compares last maps of one shape: the student's is "
                             f"{tuple(mine.shape)}, the teacher's {tuple(theirs.shape)}; use one "
                             'architecture, or layer="embedding"')
        return mine.flatten(1), theirs.flatten(1)
