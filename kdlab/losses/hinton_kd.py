"""KD: the student copies the teacher's softened class probabilities.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", NIPS 2014 workshop,
arXiv 1503.02531.

Idea: beside its first choice a teacher says how near every other class comes; those small
probabilities are where its knowledge sits. A temperature above 1 flattens both softmaxes so that
they count. Gradients then shrink as 1 / T², so the term is multiplied by T² and keeps its size
when T is changed.

Symbols: z_t, z_s logits (B, C) of teacher and student; T temperature; p, q their softened
probabilities.
Choices: T = 4: RepDistiller, mdistiller, TFace, FaceX-Zoo; the paper leaves it free. Weight 1:
ours; in MFD's comparison it goes from 4 to 1 over the training, a schedule of `weight`.
Differences: the paper was not at hand, so lines name a formula instead of an equation. The paper
writes a cross-entropy, the KL divergence here lacks the teacher's entropy, which has no gradient.
The cross-entropy with the labels is a loss of its own (CrossEntropy or ArcFace, beside this one in
the run's losses); RepDistiller weighs 0.1 to 0.9. For faces no source says which logits: s * cos
of both sides without a margin, `arcface.logits`, is ours.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional import full
from ..inputs import check_batch, teacher_logits
from ..outputs import Output, Targets


def softened(logits: Tensor, temperature: float = 4) -> Tensor:
    """log q_i, q_i = e^{z_i / T} / sum_j e^{z_j / T}: (B, C) -> (B, C), float32 at least."""
    logits, = full(logits)
    return F.log_softmax(logits / temperature, dim=1)  # log softmax(z / T)


def hinton_kd(student: Tensor, teacher: Tensor, temperature: float = 4) -> Tensor:
    """T² KL(softmax(z_t / T) || softmax(z_s / T)), summed over classes, mean over the batch.

    student, teacher: logits (B, C).   Returns a scalar, 0 or more; 0 for equal logits.
    """
    log_q, log_p = full(softened(student, temperature), softened(teacher, temperature))
    divergence = (log_p.exp() * (log_p - log_q)).sum(1).mean()  # KL = sum_i p_i log(p_i / q_i)
    return temperature ** 2 * divergence


class HintonKD(nn.Module):
    """KD on the logits of student and teacher, over the same classes in the same order.

    temperature: T, above 0.   weight: of the term.
    student_logits, teacher_logits: None for `Output.logits`; or a function embedding (B, D) ->
    logits (B, C) for a network that has none, such as `arcface.logits`. With teacher_logits the
    teacher's embedding is enough (`needs`), so a cache of embeddings serves. They are neither
    registered nor saved here: whoever owns their weights trains, saves and moves them. The
    student's gets its gradient from here too; the teacher's none.
    Uses every row; labels are not used. ValueError without a teacher or without logits, for
    logits of different shapes, for non-finite embeddings and logits.
    """

    def __init__(self, temperature: float = 4, weight: float = 1,
                 student_logits: Callable[[Tensor], Tensor] | None = None,
                 teacher_logits: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        for name, function in (("student_logits", student_logits),
                               ("teacher_logits", teacher_logits)):
            if function is not None and not callable(function):
                raise ValueError(f"{name} must be a function of the embedding, such as "
                                 f"arcface.logits, or None, not {type(function).__name__}")
        self.temperature, self.weight = temperature, weight
        self.student_logits = _unregistered(student_logits)
        self.teacher_logits = _unregistered(teacher_logits)
        self.needs = {"logits"} if teacher_logits is None else {"embedding"}

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        check_batch(student.embedding, targets.labels)
        student = _with_logits(student, self.student_logits)
        if teacher is not None:
            check_batch(teacher.embedding, targets.labels, whose="teacher")
            with torch.no_grad():
                teacher = _with_logits(teacher, self.teacher_logits)
        goal = teacher_logits(student, teacher, "HintonKD")
        for whose, logits in (("student", student.logits), ("teacher", goal)):
            broken = ~logits.isfinite().all(1)
            if broken.any():
                raise ValueError(f"{int(broken.sum())} of {len(broken)} rows of the {whose}'s "
                                 "logits are NaN or infinite (first: row "
                                 f"{int(broken.nonzero()[0])} of the batch)")
        return {"logits": self.weight * hinton_kd(student.logits, goal, self.temperature)}


def _unregistered(function: Callable | None) -> Callable | None:
    """A network as its own bound method, which nn.Module does not take for a part of itself."""
    return function.__call__ if isinstance(function, nn.Module) else function


def _with_logits(output: Output, function: Callable[[Tensor], Tensor] | None) -> Output:
    return output if function is None else output._replace(logits=function(output.embedding))
