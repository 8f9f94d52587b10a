"""DarkRank: the student ranks the faces around a face as the teacher does.

Chen, Wang, Zhang, "DarkRank: Accelerating Deep Metric Learning via Cross Sample Similarities
Transfer", AAAI 2018.

Idea: seen from each face (the query) the others of the batch form a list, nearest first. Scores
that fall with the distance give every order of that list a probability (Plackett-Luce). Hard
transfer makes the teacher's order likely under the student (ListMLE); soft transfer matches the
student's probabilities of all orders with the teacher's (ListNet). Only distances within each
embedding enter, so the two may have different sizes.

Symbols: S score; alpha, beta its scale and power; pi an order of a list, pi_t the teacher's; L
`length`, the teacher's L nearest of every query.
Choices: hard, alpha = 3, beta = 3, L = 4: the code of RKD's authors, whose script then passes
alpha = 2; TFace has L = 3. Unit embeddings: TFace and the original code; RKD's authors do not
normalise inside, `normalize=False`. weight = 1: ours.
Differences: the paper was not at hand, so lines name a formula instead of an equation. The original
code's hard form ranks the whole batch, `length=None`; the ports, and the default, only the
teacher's L nearest: a face outside that list enters no denominator. The original's released recipe
is DarkRank("soft", alpha=12.25, beta=4, length=4, weight=16, queries="first_half"): scale 3.5,
squared distance, power 2, (3.5 d²)² = 12.25 d⁴, and only the first half of a batch of pairs as
queries. It minimises the cross-entropy of the two distributions; KL here, the same gradient, and 0
where they agree. Ports drop the query from its list by its place after sorting, so that beside an
equal face it may stay in; here by its index. Several processes: their rows are one batch.
"""

from itertools import permutations
from math import factorial

import torch
from torch import Tensor, nn

from ..functional import distances, full, unit
from ..inputs import relational
from ..outputs import Output, Targets

LONGEST = 7  # of a soft list: 5,040 orders for every query; ours


def scores(x: Tensor, alpha: float = 3, beta: float = 3, normalize: bool = True) -> Tensor:
    """Score of every row as a neighbour of every row, 0 or less: (B, D) -> (B, B).

    alpha: above 0.   beta: 1 or more.   normalize: rows to the unit sphere first.
    """
    x, = full(x)
    x = unit(x) if normalize else x
    return -alpha * distances(x) ** beta  # S(x) = -alpha |x - q|^beta


def nearest(score: Tensor, length: int | None = None) -> Tensor:
    """Each query's best-scored others, best first: (B, B) -> (B, L), indices; None: all B - 1."""
    others = score.detach().clone().fill_diagonal_(-torch.inf)
    order = others.sort(dim=1, descending=True, stable=True).indices
    return order[:, :len(score) - 1 if length is None else length]


def log_probability(ordered: Tensor) -> Tensor:
    """Plackett-Luce log probability of lists in the order given: scores (..., L) -> (...)."""
    rest = ordered.flip(-1).logcumsumexp(-1).flip(-1)  # log sum over the not yet placed
    return (ordered - rest).sum(-1)  # log P(pi) = sum_i log(e^S_pi(i) / sum_{k >= i} e^S_pi(k))


def hard(student: Tensor, teacher: Tensor, length: int | None = 4) -> Tensor:
    """ListMLE, one value a query, 0 or more: scores (B, B) twice -> (B,).   None: all others."""
    return -log_probability(student.gather(1, nearest(teacher, length)))  # -log P(pi_t | s)


def soft(student: Tensor, teacher: Tensor, length: int = 4) -> Tensor:
    """ListNet, one value a query, 0 or more: scores (B, B) twice -> (B,).   L! orders each."""
    listed = nearest(teacher, length)
    orders = torch.tensor(list(permutations(range(length))), device=student.device)
    mine, theirs = (log_probability(score.gather(1, listed)[:, orders])
                    for score in (student, teacher))  # (B, L!)
    return (theirs.exp() * (theirs - mine)).sum(1)  # KL(P(pi | t) || P(pi | s))


class DarkRank(nn.Module):
    """Transfer of ranks; labels are not used. Its term is "rank".

    form: "hard" or "soft".   alpha: above 0.   beta: 1 or more.
    length: neighbours in a list, 2 or more; None, hard only: all others. Soft: at most 7 (L!).
    normalize: rank on the unit sphere.   queries: "all" rows or the batch's "first_half".
    ValueError without a teacher, for unequal batches or fewer rows than length + 1, for
    non-finite embeddings.
    """

    needs = {"embedding"}

    def __init__(self, form: str = "hard", *, alpha: float = 3, beta: float = 3,
                 length: int | None = 4, normalize: bool = True, queries: str = "all",
                 weight: float = 1):
        super().__init__()
        if form not in ("hard", "soft"):
            raise ValueError(f'form must be "hard" or "soft", not {form!r}')
        if queries not in ("all", "first_half"):
            raise ValueError(f'queries must be "all" or "first_half", not {queries!r}')
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, not {alpha}: farther faces score lower")
        if not beta >= 1:
            raise ValueError(f"beta must be 1 or more, not {beta}: below, the slope at equal "
                             "faces is infinite")
        if length is not None and length < 2:
            raise ValueError(f"length must be 2 or more, not {length}: one face has one order")
        if form == "soft" and (length is None or length > LONGEST):
            orders = "all" if length is None else f"{length}! = {factorial(length):,}"
            raise ValueError(f'form="soft" weighs {orders} orders of a list of length {length}; '
                             f'take a length of {LONGEST} or less, or form="hard"')
        self.form, self.alpha, self.beta, self.length = form, alpha, beta, length
        self.normalize, self.queries, self.weight = normalize, queries, weight

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        mine, theirs = relational(student, teacher, targets, "DarkRank")
        least = 3 if self.length is None else self.length + 1
        if len(mine) < least:
            raise ValueError(f"DarkRank with length={self.length} needs {least} rows or more, the "
                             f"batch has {len(mine)}; take a larger batch or a shorter list")
        mine, theirs = (scores(x, self.alpha, self.beta, self.normalize) for x in (mine, theirs))
        losses = (hard if self.form == "hard" else soft)(mine, theirs, self.length)
        if self.queries == "first_half":
            losses = losses[:len(losses) // 2]
        return {"rank": self.weight * losses.mean()}
