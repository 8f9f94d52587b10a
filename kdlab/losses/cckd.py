"""CCKD: the student keeps the teacher's correlations between faces, taken through a kernel.

Peng, Jin, Liu, Li, Wu, Liu, Zhou, Zhang, "Correlation Congruence for Knowledge Distillation",
ICCV 2019.

Idea: every two faces of a batch have a correlation, a Gaussian kernel of their embeddings, and
the student's table of correlations is pulled to the teacher's. The kernel is replaced by the first
terms of its Taylor series: powers of the cosine, the first linear, the second bent towards near
pairs. The two embeddings may have different sizes.

Symbols: f unit embeddings (B, D); c = f.f' cosine; gamma; P `order`; K `kernel`.
exp(-gamma |f - f'|²) = e^(-2 gamma) e^(2 gamma c) = e^(-2 gamma) sum_p (2 gamma c)^p / p!.
Choices: gamma = 0.4, P = 2: every public code. weight = 1: ours; the paper's is not known here.
Differences: the paper was not at hand, so lines name a formula instead of an equation. P = 2 means
p = 0, 1, 2. A revision of TFace's code (171ec14) stops at p = 1: the kernel is then affine in the
cosine and the loss is (2 gamma e^(-2 gamma))² = 0.1292 times TFace's form of SP, `form="tface"`.
torchdistill takes raw embeddings and the Frobenius norm un-squared, over B²: `form="torchdistill"`;
there the powers of large inner products rule. RepDistiller's `Correlation` is another loss (the
products of |f_s - f_t| of neighbouring rows) and not offered. Several processes: their rows are
one batch.
"""

import math

import torch
from torch import Tensor, nn

from ..functional import full, unit
from ..inputs import relational
from ..outputs import Output, Targets

FORMS = ("paper", "tface", "torchdistill")


def kernel(similarity: Tensor, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Taylor series of the Gaussian kernel up to `order`, elementwise, of cosines in [-1, 1]."""
    terms = [(2 * gamma) ** p / math.factorial(p) * similarity**p for p in range(order + 1)]
    return math.exp(-2 * gamma) * sum(terms)  # K = e^(-2 gamma) sum_p (2 gamma)^p / p! c^p


def cckd(student: Tensor, teacher: Tensor, gamma: float = 0.4, order: int = 2,
         form: str = "paper") -> Tensor:
    """The correlation congruence loss: (B, D_s), (B, D_t) -> scalar. No gradient into the teacher.

    form: "paper"; "tface" without the highest order; "torchdistill" of raw embeddings, un-squared.
    """
    def table(x: Tensor) -> Tensor:
        x, = full(x)
        x = x if form == "torchdistill" else unit(x)
        with torch.autocast(x.device.type, enabled=False):
            return kernel(x @ x.T, gamma, order - (form == "tface"))

    gap = torch.sub(*full(table(student), table(teacher.detach())))
    if form == "torchdistill":
        return gap.norm() / len(gap) ** 2  # |K(f_s) - K(f_t)|_F / B²
    return gap.square().mean()  # |K(f_s) - K(f_t)|_F² / B²


class CCKD(nn.Module):
    """Correlation congruence; labels are not used. Its term is "correlation".

    gamma: above 0, in 1 / squared distance.   order: P, 1 or more.
    form: "paper", "tface" or "torchdistill".
    ValueError without a teacher, for unequal batches, for non-finite embeddings.
    """

    needs = {"embedding"}

    def __init__(self, weight: float = 1, *, gamma: float = 0.4, order: int = 2,
                 form: str = "paper"):
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
        if not gamma > 0:
            raise ValueError(f"gamma must be above 0, not {gamma}")
        least = 2 if form == "tface" else 1
        if order < least:
            raise ValueError(f'order must be {least} or more for form="{form}", not {order}; '
                             "without a power of the cosine the loss is 0")
        self.weight, self.gamma, self.order, self.form = weight, gamma, order, form

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        mine, theirs = relational(student, teacher, targets, "CCKD")
        return {"correlation": self.weight * cckd(mine, theirs, self.gamma, self.order,
                                                  self.form)}
