"""SP: faces that excite the teacher alike shall excite the student alike.

Tung, Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019.

Idea: the inner products of every two flattened feature maps of a batch say which faces a network
takes for alike. The student's table of them, each row scaled to length 1, is pulled to the
teacher's. The table is B x B whatever the networks, so their maps may differ in channels and size.

Symbols: F flattened maps (B, D) of student and teacher; G = F F^T `gram`; rownorm: every row
divided by its length.
Choices: weight = 3000 on the last map: RepDistiller, mdistiller and torchdistill. TFace's weight
was not published: 1 there, ours.
Differences: the paper was not at hand, so lines name a formula instead of an equation. TFace
compares unit embeddings and leaves the row normalisation out, as its comment says: `form="tface"`
with `layer="embedding"`, then the mean squared difference of cosines; on one input 0.0465 against
0.0147 with row normalisation. Rows of zeros (a dead map) stay 0 here and have a finite slope.
Several processes: their rows are one batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional import cosines, full
from ..inputs import relational
from ..outputs import Output, Targets

WEIGHTS = {"paper": 3000, "tface": 1}


def gram(x: Tensor) -> Tensor:
    """Inner product of every two rows, in float32 at least: (B, D) -> (B, B)."""
    x, = full(x)
    with torch.autocast(x.device.type, enabled=False):
        return x @ x.T  # G = F F^T


def rownorm(x: Tensor) -> Tensor:
    """Every row divided by its length, rows of zeros left as they are: (B, B) -> (B, B)."""
    length = x.norm(dim=1, keepdim=True)
    return x / length.where(length > 0, 1)  # G_i / |G_i|


def sp(student: Tensor, teacher: Tensor, form: str = "paper") -> Tensor:
    """The similarity-preserving loss, without its weight: (B, D_s), (B, D_t) -> scalar.

    form: "paper" compares rownorm(F F^T), "tface" the cosines. No gradient into the teacher.
    """
    table = (lambda x: rownorm(gram(x))) if form == "paper" else (lambda x: cosines(x, x))
    # |rownorm(G_s) - rownorm(G_t)|_F² / B²
    return F.mse_loss(*full(table(student), table(teacher.detach())))


def _last_map(output: Output | None, whose: str) -> Output:
    """The last map, flattened, in the place of the embedding."""
    if output is None:
        raise ValueError("SP needs a teacher's last feature map, got no teacher; pass train() one")
    if not output.features:
        raise ValueError(f"SP compares last feature maps and the {whose} has none; use a network, "
                         'not a cache of embeddings, or layer="embedding"')
    return Output(output.features[-1].flatten(1))


class SP(nn.Module):
    """Similarity-preserving distillation; labels are not used. Its term is "similarity".

    weight: None for 3000 in the paper's form, 1 in TFace's.
    layer: "last_map", the last of `features`, flattened, or "embedding".
    form: "paper" or "tface" (unit rows, no row normalisation).
    ValueError without a teacher, for a missing layer, unequal batches, numbers that are not finite.
    """

    def __init__(self, weight: float | None = None, *, layer: str = "last_map",
                 form: str = "paper"):
        super().__init__()
        if layer not in ("last_map", "embedding"):
            raise ValueError(f'layer must be "last_map" or "embedding", not {layer!r}')
        if form not in WEIGHTS:
            raise ValueError(f'form must be "paper" or "tface", not {form!r}')
        self.weight = WEIGHTS[form] if weight is None else weight
        self.layer, self.form = layer, form
        self.needs = {"features"} if layer == "last_map" else {"embedding"}

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        if self.layer == "last_map":
            student, teacher = _last_map(student, "student"), _last_map(teacher, "teacher")
        mine, theirs = relational(student, teacher, targets, "SP",
                                  " last map" if self.layer == "last_map" else "")
        return {"similarity": self.weight * sp(mine, theirs, self.form)}
