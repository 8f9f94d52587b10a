"""TripletDistillation: a triplet loss whose margin is as wide as the teacher sees the gap.

Feng, Wang, Hu, Yu, Wang, Wang, "Triplet Distillation for Deep Face Recognition", ICIP 2020.

Idea: a triplet loss asks that the negative be farther from the anchor than the positive by a
margin, the same for everybody. Here the teacher sets it: people it finds alike get a narrow
margin, people it finds unlike a wide one. It is meant to refine a student already trained.

Symbols: d student, D teacher distances; ap anchor to positive, an anchor to negative (T,);
m_i margin of a triplet, between `least` and `most`; D_max the batch's widest D_an - D_ap.
Choices: 0.2 and 0.5, squared distances of unit vectors or angles: the released port, the
MarginDistillation authors' code, whose formula this is; the paper's equation numbers and own
margin function we have not seen, so that no line is tagged. Weight 1: ours.
Differences: the port lays a batch out as anchors, positives, negatives (`layout="thirds"`),
chosen beforehand with the student as it then was: at random among negatives that are farther than
the positive by less than 0.35, in squared distance. `layout="batch"`, ours, makes triplets of the
batch's labels: every anchor and positive with the negative now nearest to the anchor
(`mining="hardest"`), or the nearest within the port's window (`"semi_hard"`, FaceNet's remedy
against the collapse of a student not yet trained). The port divides by zero where the teacher
sees no gap at all; here D_max is 0.001 at least, so that margins are then `least` and rounding
does not spread them over their whole range. Its arccos has an infinite slope at cos = +-1; here
the slope is taken as 0 there.
"""

import math

import torch
from torch import Tensor, nn

from ..functional import cosines, full
from ..inputs import check_batch
from ..outputs import Output, Targets

WINDOW = 0.35  # semi-hard negatives are farther than the positive by less, released port
NARROWEST = 1e-3  # least D_max, ours: arccos near cos = 1 in float32 is off by some 4e-4


def distances(embedding: Tensor, distance: str = "squared") -> Tensor:
    """Distance of every row to every row on the unit sphere: (B, D) -> (B, B).

    distance: "squared" 2 - 2 cos, 0 to 4; "angle" radians, 0 to pi, gradient 0 at both ends.
    """
    cosine = cosines(embedding, embedding)
    if distance == "squared":
        return 2 - 2 * cosine
    inside = cosine.abs() < 1  # the slope of arccos is infinite at +-1
    ends = (1 - cosine.detach().sign()) * (math.pi / 2)
    return torch.where(inside, torch.where(inside, cosine, 0).acos(), ends)


def margins(gap: Tensor, least: float = 0.2, most: float = 0.5) -> Tensor:
    """m_i = (most - least) / D_max * relu(D_an - D_ap) + least.   gap: D_an - D_ap (T,) -> (T,)."""
    gap = gap.relu()
    return (most - least) * (gap / gap.max().clamp(min=NARROWEST)) + least


def thirds(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of anchors, positives, negatives in a batch laid out so: (3T,) -> (T,) three times.

    ValueError where the batch does not divide by 3 or its labels contradict the layout.
    """
    if len(labels) % 3:
        raise ValueError('layout="thirds" takes anchors, positives and negatives, a third of the '
                         f"batch each; {len(labels)} rows do not divide by 3")
    anchor, positive, negative = torch.arange(len(labels), device=labels.device).chunk(3)
    wrong = (labels[anchor] != labels[positive]) | (labels[anchor] == labels[negative])
    if wrong.any():
        i = int(wrong.nonzero()[0])
        a, p, n = (int(labels[rows[i]]) for rows in (anchor, positive, negative))
        raise ValueError(f'layout="thirds": triplet {i} has labels {a}, {p}, {n}; the positive '
                         "must be of the anchor's class and the negative of another")
    return anchor, positive, negative


@torch.no_grad()
def mine(embedding: Tensor, labels: Tensor,
         mining: str = "hardest") -> tuple[Tensor, Tensor, Tensor]:
    """Every ordered pair of one class with one negative: (B, D), (B,) -> (T,) rows three times.

    mining: "hardest", the row of another class nearest to the anchor; "semi_hard", the nearest
    that is farther than the positive, by less than 0.35 in squared distance. Pairs that have
    none make no triplet.
    """
    squared = distances(embedding)
    same = labels[:, None] == labels
    anchor, positive = (same & ~torch.eye(len(labels), dtype=torch.bool,
                                          device=labels.device)).nonzero(as_tuple=True)
    to_others = squared.masked_fill(same, torch.inf)  # (B, B)
    if mining == "hardest":
        nearest, negative = (x[anchor] for x in to_others.min(1))
    else:
        beyond = to_others[anchor] - squared[anchor, positive][:, None]  # (pairs, B)
        outside = (beyond <= 0) | (beyond >= WINDOW)
        nearest, negative = to_others[anchor].masked_fill(outside, torch.inf).min(1)
    found = nearest.isfinite()
    return anchor[found], positive[found], negative[found]


def triplet_distillation(student: Tensor, teacher: Tensor, triplets: tuple[Tensor, Tensor, Tensor],
                         least: float = 0.2, most: float = 0.5,
                         distance: str = "squared") -> tuple[Tensor, Tensor]:
    """Of each triplet relu(d_ap - d_an + m_i), whose mean is the loss, and m_i.

    student: (B, D_s); teacher: (B, D_t); triplets: rows (T,) three times, T >= 1.
    distance: "squared" | "angle", of both.   Returns (T,) twice.
    """
    anchor, positive, negative = triplets
    d, D = distances(student, distance), distances(teacher.detach(), distance)
    margin = margins(D[anchor, negative] - D[anchor, positive], least, most)
    return (d[anchor, positive] - d[anchor, negative] + margin).relu(), margin


class TripletDistillation(nn.Module):
    """Triplets whose margins, `least` to `most`, grow with the gap the teacher sees.

    distance: "squared" (0 to 4) | "angle" (radians); the margins are in its units.
    layout: "batch", triplets by label, every pair with the negative `mining` names, "hardest" |
    "semi_hard"; "thirds", the batch is anchors | positives | negatives.
    Uses every row of the process's own batch; student and teacher may differ in embedding size.
    With no triplet in the batch the loss is 0. ValueError without a teacher, for batches of
    different length, for non-finite embeddings, for a batch that is not three thirds.
    """

    needs = {"embedding"}

    def __init__(self, *, least: float = 0.2, most: float = 0.5, weight: float = 1,
                 distance: str = "squared", layout: str = "batch", mining: str = "hardest"):
        super().__init__()
        for name, value, allowed in (("distance", distance, ("squared", "angle")),
                                     ("layout", layout, ("batch", "thirds")),
                                     ("mining", mining, ("hardest", "semi_hard"))):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        if not 0 <= least <= most:
            raise ValueError(f"margins go from least to most, 0 or more: got {least} and {most}")
        self.least, self.most, self.weight = least, most, weight
        self.distance, self.layout, self.mining = distance, layout, mining
        self._last = None  # number of triplets, share that pull, mean margin, for report()

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        if teacher is None:
            raise ValueError("TripletDistillation needs a teacher's embedding, got no teacher; "
                             "pass train() one")
        embedding, labels, goal = student.embedding, targets.labels, teacher.embedding.detach()
        if len(goal) != len(embedding):
            raise ValueError(f"TripletDistillation got {len(embedding)} rows of the student and "
                             f"{len(goal)} of the teacher; both must see one batch")
        check_batch(embedding, labels)
        check_batch(goal, labels, whose="teacher")
        triplets = (thirds(labels) if self.layout == "thirds"
                    else mine(embedding, labels, self.mining))
        if len(triplets[0]) == 0:
            if self.training:
                self._last = 0, 0, self.least
            return {"triplet": (full(embedding)[0] * 0).sum()}
        terms, margin = triplet_distillation(embedding, goal, triplets, self.least, self.most,
                                             self.distance)
        if self.training:
            self._last = len(terms), (terms.detach() > 0).float().mean(), margin.mean()
        return {"triplet": self.weight * terms.mean()}

    def report(self) -> dict[str, float]:
        """Of the last training step: triplets, the share of them inside their margin, mean margin.
        """
        if self._last is None:
            return {}
        number, active, margin = self._last
        return {"triplets": float(number), "active": float(active), "margin": float(margin)}
