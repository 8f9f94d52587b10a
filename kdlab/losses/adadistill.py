"""AdaDistill: class centres that move from the teacher's single faces to its class means.
ArcDistill, CosDistill: the same loss against the class rows the teacher was trained with.

Boutros, Struc, Damer, "AdaDistill: Adaptive Knowledge Distillation for Deep Face Recognition",
ECCV 2024.

Idea: the student is trained by margin softmax against class centres made of teacher embeddings.
Each step blends the teacher's embedding of a sample into its class centre, with a momentum that
is small while the student is far from the teacher (copy this face) and grows as they agree (keep
the class mean). The student gets no other term and the centres no gradient. ArcDistill and
CosDistill, the paper's AMLDistill, put the teacher's trained rows there and leave them.

Symbols: f_s student, f_t teacher (B, D); u, v the two normalised; w_y centre of the own class,
`centres` (C, D); alpha `momentum` (B,); s scale; m margin.
Choices: s = 64; m = 0.45 arc, 0.35 cos, the best of the paper's ablation; centres start at
N(0, 0.01): the released code. alpha' is the paper's better form.
Differences, paper and released code: the code clips the centre's cosine in alpha' to at least 1e-6
before multiplying and the product after, the paper only the product to [0, 1] (they differ where
both cosines are negative): `clip="code"` | `"paper"`. With a label twice in a batch the code starts
each time from the old centre and keeps one at random on a GPU: here the last, everywhere
(`repeated="last"`); `"sequential"` blends them one after another. The released code cannot run
plain alpha; here it is eq. (7). Blended centres are not normalised again, as in the code; only
their direction enters the loss, but a short old centre gives way faster than alpha says. The
code keeps private centres on each GPU (`shared=False`, the paper's runs on four); here every
process blends the faces of all, so that there is one table. It trains ArcDistill on random rows
where the teacher's file is missing; ours refuses. Eq. (2) is `FeatureOnly`, eq. (3) ArcFace or
CosFace; eq. (5) is not known to us.
"""

from functools import partial

import torch
from torch import Tensor, nn

from ..distributed import broadcast, gather
from ..functional import arc_margin, cos_margin, cosine_of_rows, full, unit
from ..inputs import check_batch, class_rows, teacher_embedding
from ..margin_softmax import check_chunk, margin_cross_entropy
from ..outputs import Output, Targets

FLOOR = 1e-6  # least momentum, released code
MARGINS = {"arc": 0.45, "cos": 0.35}  # paper, ablation of the margin


def adadistill(student: Tensor, centres: Tensor, labels: Tensor, kind: str = "arc",
               scale: float = 64, margin: float | None = None,
               chunk: int | None = None) -> Tensor:
    """Eq. (4): margin softmax of the student against given centres; no gradient into them.

    student: (B, D); centres: (C, D); labels: (B,).   kind: "arc" cos(theta + m), "cos"
    cos(theta) - m.   margin: None for 0.45 arc, 0.35 cos.   Returns a scalar.
    """
    if kind not in MARGINS:
        raise ValueError(f"kind must be one of {', '.join(MARGINS)}, not {kind!r}")
    margin = MARGINS[kind] if margin is None else margin
    margined = partial(arc_margin if kind == "arc" else cos_margin, margin=margin)
    return margin_cross_entropy(student, centres.detach(), labels, scale, margined,
                                chunk)  # eq. (4)


def blend(centre: Tensor, teacher: Tensor, momentum: Tensor) -> Tensor:
    """Eq. (6), the new centre.   centre, teacher (unit rows): (B, D); momentum: (B,)."""
    return momentum[:, None] * centre + (1 - momentum[:, None]) * teacher  # eq. (6)


def alpha(student: Tensor, teacher: Tensor, floor: float = FLOOR) -> Tensor:
    """Eq. (7), momentum from student and teacher of one face: (B, D) twice -> (B,)."""
    return cosine_of_rows(student, teacher).clamp(floor, 1)  # eq. (7)


def alpha_prime(student: Tensor, teacher: Tensor, centre: Tensor, clip: str = "code") -> Tensor:
    """Eq. (8), momentum that also asks the old centre: (B, D) three times -> (B,)."""
    agreement, nearness = cosine_of_rows(student, teacher), cosine_of_rows(centre, teacher)
    if clip == "code":
        return (agreement * nearness.clamp(FLOOR, 1)).clamp(FLOOR, 1)
    return (agreement * nearness).clamp(0, 1)  # eq. (8)


def occurrence(labels: Tensor) -> Tensor:
    """How many times a row's label has come before in the batch: (B,) -> (B,) int64."""
    ordered, order = labels.sort(stable=True)
    rank = torch.arange(len(labels), device=labels.device) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(rank).scatter(0, order, rank)


class AdaDistill(nn.Module):
    """AdaDistill with its class centres, the buffer `centres` (num_classes, embedding_size).

    embedding_size: of student and teacher alike.   kind: "arc" | "cos".
    adaptive: "alpha_prime" (eq. 8) | "alpha" (eq. 7).   repeated: "last" | "sequential".
    margin: None for 0.45 arc, 0.35 cos.   clip: "code" | "paper".   chunk: as in ArcFace.
    shared: all processes blend the faces of all, in the order of the batch, and start from the
    centres of rank 0: one table, as one process with the whole batch has it. False: each its own.
    In training mode the centres move first and the loss sees them moved; in eval mode they stand.
    The loss is the mean over the process's own rows, all of them. ValueError without a teacher,
    for unequal embedding sizes, for a label outside the classes, for non-finite embeddings; the
    centres are then untouched.
    """

    needs = {"embedding"}

    def __init__(self, embedding_size: int, num_classes: int, kind: str = "arc",
                 adaptive: str = "alpha_prime", repeated: str = "last", scale: float = 64,
                 margin: float | None = None, *, clip: str = "code", chunk: int | None = None,
                 shared: bool = True):
        super().__init__()
        for name, value, allowed in (("kind", kind, ("arc", "cos")),
                                     ("adaptive", adaptive, ("alpha_prime", "alpha")),
                                     ("repeated", repeated, ("last", "sequential")),
                                     ("clip", clip, ("code", "paper"))):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        check_chunk(chunk)
        self.embedding_size, self.num_classes = embedding_size, num_classes
        self.kind, self.adaptive, self.repeated = kind, adaptive, repeated
        self.scale, self.margin = scale, MARGINS[kind] if margin is None else margin
        self.clip, self.chunk, self.shared = clip, chunk, shared
        self._agreed = False  # whether the processes start from one table
        self.register_buffer("centres", torch.randn(num_classes, embedding_size) * 0.01)
        self._last = None  # momentum and drift of the last update, for report()

    @torch.no_grad()
    def update(self, student: Tensor, teacher: Tensor, labels: Tensor) -> None:
        """Blend a batch of teacher embeddings into the centres, eqs. (6) to (8).

        student, teacher: (B, D), the same faces in one order; labels: (B,).
        """
        student, teacher, _ = full(student, teacher, self.centres[:0])
        teacher = unit(teacher)
        before = self.centres[labels]
        if self.repeated == "last":
            momentum = self._blend(student, teacher, labels,
                                   keep=occurrence(labels.flip(0)).flip(0) == 0)
        else:
            turn, momentum = occurrence(labels), torch.empty_like(teacher[:, 0])
            for k in range(int(turn.max()) + 1):
                rows = turn == k
                momentum[rows] = self._blend(student[rows], teacher[rows], labels[rows])
        chord = (unit(before) - unit(self.centres[labels])).norm(dim=1)
        self._last = momentum.mean(), (2 * (chord / 2).clamp(max=1).asin()).rad2deg().mean()

    def _blend(self, student: Tensor, teacher: Tensor, labels: Tensor,
               keep: Tensor | slice = slice(None)) -> Tensor:
        """Blend rows whose kept labels differ from each other; returns every row's momentum."""
        old = self.centres[labels]
        if self.adaptive == "alpha":
            momentum = alpha(student, teacher, FLOOR if self.clip == "code" else 0)
        else:
            momentum = alpha_prime(student, teacher, old, self.clip)
        self.centres[labels[keep]] = blend(old, teacher, momentum)[keep].to(self.centres)
        return momentum

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        embedding, labels = student.embedding, targets.labels
        goal = teacher_embedding(student, teacher, "AdaDistill")
        if embedding.shape[1] != self.embedding_size:
            raise ValueError(f"AdaDistill was built for embeddings of {self.embedding_size} "
                             f"dimensions, got {embedding.shape[1]}; set embedding_size")
        check_batch(embedding, labels, self.num_classes)
        check_batch(goal, labels, whose="teacher")
        if self.training and self.shared:
            if not self._agreed:
                broadcast(self.centres)
                self._agreed = True
            self.update(gather(embedding), gather(goal), gather(labels))
        elif self.training:
            self.update(embedding, goal, labels)
        return {"softmax": adadistill(embedding, self.centres, labels, self.kind, self.scale,
                                      self.margin, self.chunk)}

    def report(self) -> dict[str, float]:
        """Of the last training step: mean momentum, and the mean angle its centres moved by."""
        if self._last is None:
            return {}
        momentum, drift = self._last
        return {"momentum": float(momentum), "centre_drift_degrees": float(drift)}


class ArcDistill(nn.Module):
    """Eq. (4) against the teacher's trained class rows, the buffer `centres` (C, D); they stay.

    centres: (C, D), copied; row k is class k of the student's labels, so the student trains on
    the identities the teacher was trained on.   margin: m, radians.   chunk: as in ArcFace.
    The rows define the loss, so state_dict carries them and a checkpoint is whole; no network of
    the teacher's is in it, and none is asked for at run time. Uses every row of the batch.
    ValueError for rows that are missing, zero or not finite, for embeddings of another size than
    the rows', for a label beyond the rows, for non-finite embeddings.
    """

    kind = "arc"
    fixed = ("centres",)  # never learnt: other rows are another run

    def __init__(self, centres: Tensor, scale: float = 64, margin: float = 0.45, *,
                 chunk: int | None = None):
        super().__init__()
        check_chunk(chunk)
        self.scale, self.margin, self.chunk = scale, margin, chunk
        self.register_buffer("centres", class_rows(centres, type(self).__name__))

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        embedding, labels = student.embedding, targets.labels
        name, (number, size) = type(self).__name__, self.centres.shape
        if embedding.shape[1] != size:
            raise ValueError(f"{name} has class rows of {size} dimensions and the student has "
                             f"{embedding.shape[1]}; give the student embedding_size={size}")
        check_batch(embedding, labels, number)
        return {"softmax": adadistill(embedding, self.centres, labels, self.kind, self.scale,
                                      self.margin, self.chunk)}


class CosDistill(ArcDistill):
    """As ArcDistill with CosFace's margin, in units of cosine."""

    kind = "cos"

    def __init__(self, centres: Tensor, scale: float = 64, margin: float = 0.35, *,
                 chunk: int | None = None):
        super().__init__(centres, scale, margin, chunk=chunk)
