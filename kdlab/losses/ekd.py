"""EKD: the student copies on which side of the evaluation thresholds the teacher puts a pair.

Huang, Wu, Xu, Ding, "Evaluation-oriented Knowledge Distillation for Deep Face Recognition",
CVPR 2022.

Idea: a verifier is judged by its TPR at thresholds that leave given FPRs, so only pairs that
student and teacher see on different sides of a threshold cost anything. Each network has its own
thresholds, found among the negative pairs of its batches and averaged over time. The loss compares
how many thresholds a pair passes for either, the step at a threshold softened by a sigmoid.

Symbols: s similarity (N,), the cosine of a pair; e_k threshold of one batch, t_k its running mean
(K,); (T) teacher, (S) student; tau `temperature`; alpha `momentum`; lambda_1, lambda_2
`positive_weight`, `negative_weight`; M number of negative pairs. Eq. (12) is this loss and ArcFace
in one run; it holds nothing to compute here.
Choices: K = 6, tau = 0.01, alpha = 0.99, lambda 0.02 and 0.01, the 2000 hardest negatives: the
paper, sections 3.1 and 4. For the rest, see Differences.
Differences, paper and released code. Defaults are the code's, except for `scale_by_world`; the
paper's form is `norm="l1", positives="balanced"`. `norm`: the paper writes a norm of a number, the
code squares it. `critical_only`: the paper selects by eq. (5), the code has no mask. `positives`:
the paper takes those of the P x K rows, the code every pair of one label in the merged batch.
`hardest`: the paper does not say for whom; the code, for the student. `scale_by_world=True`: the
code multiplies the gradient, not the value, by the number of processes. Both start thresholds at 0
and do not correct for it, so that for some hundred steps positives pass all of them and teach
nothing: `debias=True` (ours) divides by 1 - alpha^n. The code fails without a positive or a
negative pair: here such a term is 0.
"""

import math
import warnings
from collections.abc import Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import gather, gather_with_gradient, processes
from ..functional import cosines, full, straight_through
from ..inputs import check_balanced, check_batch
from ..outputs import Output, Targets

FPRS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # paper, section 3.1
EXPONENT = 50  # released code: where the sigmoid's argument is cut off
DENOMINATOR = 10**12  # more negative pairs than a batch can have


def pair_similarities(embedding: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Eq. (1), cosines of the pairs (rows[n], columns[n]): (B, D), (N,), (N,) -> (N,).

    Few pairs one by one, many through the matrix: at B² / 100 a CPU takes as long for either.
    """
    if 100 * len(rows) >= len(embedding) ** 2:
        return cosines(embedding, embedding)[rows, columns]
    unit = F.normalize(*full(embedding))
    # F.embedding looks rows up; its way back is twice as fast as that of indexing.
    return (F.embedding(rows, unit) * F.embedding(columns, unit)).sum(1)  # eq. (1)


def fpr_ranks(total: int, fprs: Sequence[float]) -> list[int]:
    """floor(total * FPR), exactly: 1e-6 as a float is a little less than a millionth."""
    return [math.floor(total * Fraction(fpr).limit_denominator(DENOMINATOR)) for fpr in fprs]


def fpr_thresholds(descending: Tensor, total: int, fprs: Sequence[float] = FPRS) -> Tensor:
    """Eq. (2) solved for the threshold: the similarity above which floor(M * FPR) pairs lie, (K,).

    descending: similarities of the negative pairs, largest first; the tail below every threshold
    may be missing.   total: M, all of them.   Eq. (3), the TPR, is not computed.
    """
    return descending[fpr_ranks(total, fprs)]


def moving_average(threshold: Tensor, estimate: Tensor, momentum: float = 0.99) -> Tensor:
    """Eq. (4): the new t_k from the old and from this batch's.   (K,), (K,) -> (K,)."""
    return momentum * threshold + (1 - momentum) * estimate  # eq. (4)


def critical(student: Tensor, teacher: Tensor, student_thresholds: Tensor,
             teacher_thresholds: Tensor) -> Tensor:
    """Eq. (5): does threshold k part student and teacher?   (N,) and (K,) twice -> (N, K) bool."""
    return ((teacher[:, None] > teacher_thresholds)
            != (student[:, None] > student_thresholds))  # eq. (5)


def distance_loss(student: Tensor, teacher: Tensor, student_thresholds: Tensor,
                  teacher_thresholds: Tensor, norm: str = "l2") -> Tensor:
    """Eq. (7), similarities relative to the thresholds must agree: (N,), (K,) twice -> scalar.

    norm: "l1" absolute value, "l2" square.   Eq. (6) is one k of it, eq. (8) equal thresholds.
    """
    gap = (teacher[:, None] - teacher_thresholds) - (student[:, None] - student_thresholds)
    return _size(gap, norm).sum(1).mean()  # eq. (7)


def soft_indicator(x: Tensor, temperature: float = 0.01) -> Tensor:
    """Eq. (10), G: 0 far below x = 0, 1 far above; eq. (13) is its slope, G (1 - G) / tau.

    The released code keeps the exponent within +-50. That changes no value (a sigmoid of 50 is 1
    to 2e-22); it makes the slope, which is next to nothing there, exactly 0.
    """
    return torch.sigmoid((x / temperature).clamp(-EXPONENT, EXPONENT))  # eq. (10)


def rank_loss(student: Tensor, teacher: Tensor, student_thresholds: Tensor,
              teacher_thresholds: Tensor, temperature: float = 0.01, norm: str = "l2") -> Tensor:
    """Eq. (11), soft counts of the thresholds passed must agree: (N,), (K,) twice -> scalar.

    norm: "l1" absolute value, "l2" square.   Eq. (9) is its limit for tau = 0, without gradient.
    """
    passed = soft_indicator(student[:, None] - student_thresholds, temperature).sum(1)
    wanted = soft_indicator(teacher[:, None] - teacher_thresholds, temperature).sum(1)
    return _size(wanted - passed, norm).mean()  # eq. (11)


def _size(x: Tensor, norm: str) -> Tensor:
    return x.abs() if norm == "l1" else x.square()


def _label(fpr: float) -> str:
    """0.001 -> "1e-3"."""
    digits, exponent = f"{fpr:e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


class EKD(nn.Module):
    """EKD with its running thresholds, the buffers `student_thresholds`, `teacher_thresholds` (K,).

    fprs: in (0, 0.5], each once.   negatives: the `hard_negatives` hardest ("hard") or as many at
    "random", from torch's global generator; all if there are fewer.   norm: "l2" | "l1".
    form: "rank" (eq. 11) | "distance" (eq. 7).   positives: "all" pairs of one label, or those
    among the "balanced" rows.   critical_only: the mean over selected pairs that some threshold
    parts (eq. 5).   debias: divide the thresholds by 1 - momentum^n after n `updates`.
    hardest: most similar to the "student" | "teacher".   scale_by_world: see Differences.
    Uses every row; embedding sizes of student and teacher may differ. In training mode the pairs
    come from the merged batch of all processes, and the thresholds (of all its negative pairs) move
    before the loss sees them. A term without a pair is 0; without a negative one the thresholds
    stand. Those a batch cannot tell apart are kept and told of, once, by a warning.
    ValueError without a teacher, for unequal batch sizes, for missing `targets.balanced`, for
    non-finite embeddings; the thresholds are then untouched.
    """

    needs = {"embedding"}

    def __init__(self, fprs: Sequence[float] = FPRS, temperature: float = 0.01,
                 momentum: float = 0.99, positive_weight: float = 0.02,
                 negative_weight: float = 0.01, hard_negatives: int = 2000,
                 negatives: str = "hard", norm: str = "l2", form: str = "rank",
                 positives: str = "all", critical_only: bool = False, debias: bool = False, *,
                 hardest: str = "student", scale_by_world: bool = False):
        super().__init__()
        for name, value, allowed in (
                ("negatives", negatives, ("hard", "random")), ("norm", norm, ("l2", "l1")),
                ("form", form, ("rank", "distance")), ("positives", positives, ("all", "balanced")),
                ("hardest", hardest, ("student", "teacher"))):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        fprs = tuple(float(fpr) for fpr in fprs)
        if not fprs or len(set(fprs)) < len(fprs) or not all(0 < fpr <= 0.5 for fpr in fprs):
            raise ValueError(f"fprs must be rates above 0 and up to 0.5, each once, not {fprs}")
        if not temperature > 0 or not 0 <= momentum < 1 or hard_negatives < 1:
            raise ValueError("EKD wants temperature above 0, momentum in [0, 1) and hard_negatives "
                             f"1 or more, not {temperature}, {momentum} and {hard_negatives}")
        self.fprs, self.temperature, self.momentum = fprs, temperature, momentum
        self.positive_weight, self.negative_weight = positive_weight, negative_weight
        self.hard_negatives, self.negatives, self.hardest = hard_negatives, negatives, hardest
        self.norm, self.form, self.positives = norm, form, positives
        self.critical_only, self.debias, self.scale_by_world = critical_only, debias, scale_by_world
        self.register_buffer("student_thresholds", torch.zeros(len(fprs)))
        self.register_buffer("teacher_thresholds", torch.zeros(len(fprs)))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._shares, self._warned = {}, False  # critical pairs of the last training step

    def thresholds(self) -> tuple[Tensor, Tensor]:
        """The student's and the teacher's (K,), as the loss uses them: corrected with `debias`."""
        both = self.student_thresholds, self.teacher_thresholds
        if not self.debias:
            return both
        seen = 1 - self.momentum ** self.updates.clamp(min=1).double()  # before a step they are 0
        return tuple((t / seen).to(t) for t in both)

    @torch.no_grad()
    def update(self, student: Tensor, teacher: Tensor) -> None:
        """Move the thresholds towards those of one batch, eq. (4).   (K,) twice."""
        for running, estimate in ((self.student_thresholds, student),
                                  (self.teacher_thresholds, teacher)):
            running.copy_(moving_average(*full(running, estimate), self.momentum))
        self.updates += 1

    @torch.no_grad()
    def select(self, student: Tensor, teacher: Tensor, labels: Tensor,
               balanced: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The positive and the negative pairs i < j the loss looks at, as positions i * B + j.

        student, teacher: (B, B) similarities; labels, balanced: (B,).
        In training mode the thresholds move on the way: one partial sort serves both.
        """
        same = labels[:, None] == labels
        wanted = same if balanced is None else same & balanced[:, None] & balanced
        positive = wanted.triu(1).flatten().nonzero()[:, 0]
        different = (~same).triu(1)
        total = int(different.sum())
        if total == 0:
            return positive, positive[:0]
        ranks = fpr_ranks(total, self.fprs)
        number, tops = min(self.hard_negatives, total), {}
        for whose, similarity in (("student", student), ("teacher", teacher)):
            hard = number if self.negatives == "hard" and self.hardest == whose else 0
            depth = max(hard, (max(ranks) + 1) * self.training)
            tops[whose] = similarity.where(different, -torch.inf).flatten().topk(depth)
        if self.training:
            self._warn(total, ranks)
            self.update(*(fpr_thresholds(top.values, total, self.fprs) for top in tops.values()))
        if self.negatives == "hard":
            return positive, tops[self.hardest].indices[:number]
        drawn = torch.randperm(total, device=labels.device)[:number]
        return positive, different.flatten().nonzero()[drawn, 0]

    def _warn(self, total: int, ranks: list[int]) -> None:
        """Once: thresholds that take the same element of the sorted similarities are the same."""
        alike = [_label(f) for f, r in zip(self.fprs, ranks, strict=True) if ranks.count(r) > 1]
        if alike and not self._warned:
            self._warned = True
            warnings.warn(f"EKD: a batch of {total} negative pairs cannot tell the thresholds of "
                          f"FPR {', '.join(alike)} apart; enlarge the batch or pass fewer fprs",
                          stacklevel=2)

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        self._check(student, teacher, targets)
        embedding, goal, labels = student.embedding, teacher.embedding.detach(), targets.labels
        balanced = targets.balanced if self.positives == "balanced" else None
        if self.training:  # in eval mode a process asks no other
            embedding, goal, labels = gather_with_gradient(embedding), gather(goal), gather(labels)
            balanced = None if balanced is None else gather(balanced)
        similarity = cosines(goal, goal)
        chosen = self.select(cosines(embedding.detach(), embedding.detach()), similarity, labels,
                             balanced)
        rows, columns = torch.unravel_index(torch.cat(chosen), similarity.shape)
        number = len(chosen[0])
        found, wanted = pair_similarities(embedding, rows, columns), similarity[rows, columns]
        positive = self._term("positive", found[:number], wanted[:number])
        negative = self._term("negative", found[number:], wanted[number:])
        return {"positive": self.positive_weight * positive,
                "negative": self.negative_weight * negative}

    def _term(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        """One mean over the pairs (N,), without its weight; 0 for none."""
        thresholds = self.thresholds()
        parted = critical(student.detach(), teacher, *thresholds).any(1)
        if self.training:
            self._shares[name] = parted.float().mean() if len(parted) else None
        if self.critical_only:
            student, teacher = student[parted], teacher[parted]
        if len(student) == 0:
            return student.sum() * 0  # keeps a gradient path, as DDP wants
        term = (distance_loss(student, teacher, *thresholds, self.norm) if self.form == "distance"
                else rank_loss(student, teacher, *thresholds, self.temperature, self.norm))
        if self.scale_by_world and self.training:
            return straight_through(term, processes() * term)
        return term

    def _check(self, student: Output, teacher: Output | None, targets: Targets) -> None:
        if teacher is None:
            raise ValueError("EKD needs a teacher's embedding, got no teacher; pass train() one")
        mine, theirs, balanced = student.embedding, teacher.embedding, check_balanced(targets)
        if len(mine) != len(theirs):
            raise ValueError(f"EKD compares the pairs of one batch: the student has {len(mine)} "
                             f"rows, the teacher {len(theirs)}; both must see the same pictures")
        if self.positives == "balanced" and balanced is None:
            raise ValueError('EKD(positives="balanced") needs targets.balanced: give Batches a '
                             'PairSampler, or take positives="all"')
        check_batch(mine, targets.labels)
        check_batch(theirs, targets.labels, whose="teacher")

    def report(self) -> dict[str, float]:
        """The thresholds as the loss uses them ("student_threshold_1e-3") and, of the last training
        step, the share of critical pairs among the selected ("critical_positive"), if any."""
        report = {f"{whose}_threshold_{_label(fpr)}": value
                  for whose, values in zip(("student", "teacher"), self.thresholds(), strict=True)
                  for fpr, value in zip(self.fprs, values.tolist(), strict=True)}
        return report | {f"critical_{name}": float(share) for name, share in self._shares.items()
                         if share is not None}
