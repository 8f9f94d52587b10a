"""MarginDistillation: the teacher's class centres, and a margin that follows the teacher's cosine.

Svitov, Alyamkin, "MarginDistillation: distillation for margin-based softmax", arXiv 2003.02586,
2020.

Idea: the student is trained by margin softmax against the teacher's trained class centres, which
stay frozen. A face that the teacher puts near its centre gets a wide margin, so the student must
bring it near too; a face that the teacher itself finds hard gets a narrow one. The student learns
the teacher's angles to the centres and gets no other term.

Symbols: x student embedding, f_t teacher embedding (B, D); W `centres` (C, D); y labels (B,);
c_i cosine of f_t and its own centre; m_i margin in radians; s scale; theta the student's angle to
its own centre.
Choices: s = 64, least = 0.2, most = 0.5: the released code.
Differences: the paper was not at hand, so lines name a formula instead of an equation, and the
form is the released code's. A negative c_i takes the margin below `least` there, without limit
while the batch's greatest cosine is small: so by default; `clip=True` counts it as 0. Where no
cosine of the batch is above 0 that code divides by 0 or turns the order round: here every margin
is `least`. Nothing guards theta + m > pi, as there. Several processes: each takes its own batch's
greatest cosine, as there. `chunk`: ours.
"""

from functools import partial

from torch import Tensor, nn

from ..functional import arc_margin, cosine_of_rows
from ..inputs import check_batch, class_rows, teacher_embedding
from ..margin_softmax import check_chunk, margin_cross_entropy
from ..outputs import Output, Targets


def margins(cosine: Tensor, least: float = 0.2, most: float = 0.5, clip: bool = False) -> Tensor:
    """The margin of every face from the teacher's cosine to its centre: (B,) -> (B,), radians.

    clip: a negative cosine counts as 0, so that no margin is below `least`.
    """
    if clip:
        cosine = cosine.clamp(min=0)
    top = cosine.max()
    share = (cosine / top.where(top > 0, 1)).where(top > 0, 0)
    return (most - least) * share + least  # m_i = (most - least) / max_batch(c) * c_i + least


def margindistillation(student: Tensor, centres: Tensor, labels: Tensor, margin: Tensor,
                       scale: float = 64, chunk: int | None = None) -> Tensor:
    """Mean over the batch of
    -log( e^{s cos(theta_y + m_i)} / (e^{s cos(theta_y + m_i)} + sum_{j != y} e^{s cos theta_j}) ).

    student: (B, D); centres: (C, D), no gradient into them; labels: (B,); margin: (B,), radians.
    chunk: classes per block, None for all at once.   Returns a scalar, float32 at least.
    """
    margined = partial(arc_margin, margin=margin[:, None])  # cos(theta_y + m_i)
    return margin_cross_entropy(student, centres.detach(), labels, scale, margined, chunk)


class MarginDistillation(nn.Module):
    """MarginDistillation with the teacher's class centres, the buffer `centres` (C, D).

    centres: (C, D), row k that of class k, of any length.
    scale: s.   least, most: margins in radians of a face at cosine 0 and of the batch's best.
    clip: no margin below `least`.   chunk: as in ArcFace.
    Uses every row. ValueError for centres that are missing, not finite or without a direction,
    without a teacher, for embeddings that have not the centres' size, for a label outside the
    classes, for non-finite embeddings.
    """

    needs = {"embedding"}
    fixed = ("centres",)  # never learnt: other rows are another run

    def __init__(self, centres: Tensor, *, scale: float = 64,
                 least: float = 0.2, most: float = 0.5, clip: bool = False,
                 chunk: int | None = None):
        super().__init__()
        check_chunk(chunk)
        if least > most:
            raise ValueError(f"least must not be above most, got {least} and {most}")
        self.scale, self.least, self.most = scale, least, most
        self.clip, self.chunk = clip, chunk
        self.register_buffer("centres", class_rows(centres, "MarginDistillation"))
        self._last = None  # of the last training step, for report()

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        embedding, labels = student.embedding, targets.labels
        goal = teacher_embedding(student, teacher, "MarginDistillation")
        classes, size = self.centres.shape
        if embedding.shape[1] != size:
            raise ValueError(f"MarginDistillation has the teacher's centres of {size} dimensions, "
                             f"the embeddings have {embedding.shape[1]}; the student needs the "
                             "teacher's embedding_size")
        check_batch(embedding, labels, classes)
        check_batch(goal, labels, whose="teacher")
        cosine = cosine_of_rows(goal, self.centres[labels])
        margin = margins(cosine, self.least, self.most, self.clip)
        if self.training:
            self._last = cosine.mean(), margin.mean(), margin.min()
        return {"softmax": margindistillation(embedding, self.centres, labels, margin, self.scale,
                                              self.chunk)}

    def report(self) -> dict[str, float]:
        """Of the last training step: the teacher's mean cosine to the own centres, and the mean and
        least margin in radians."""
        if self._last is None:
            return {}
        return dict(zip(("teacher_cosine", "margin", "least_margin"), map(float, self._last),
                        strict=True))
