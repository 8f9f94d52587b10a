"""ArcFace: additive angular margin softmax.

Deng, Guo, Xue, Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
CVPR 2019.

Idea: class scores are cosines between the embedding and one centre per class. The own class must
win even after its angle is widened by a margin, so classes end up compact and apart. At test time
the centres are thrown away and only the embedding is used.

Symbols: x embedding (B, D); W weight (C, D); y labels (B,); s scale; m margin in radians;
theta_j the angle between x and W_j.
Choices: s = 64, m = 0.5: the paper, section 3; W ~ N(0, 0.01): insightface's torch code.
Differences: the margin is computed from sine and cosine rather than arccos (same values, finite
gradients at cos = +-1). `gradient="exact"` differentiates the loss as printed, as the MXNet code
and AdaDistill do; insightface's torch code changes the logit outside autograd, so its gradient
is that of s cos(theta): `gradient="straight_through"`. Neither falls back where theta + m > pi.
"""

import torch
from torch import Tensor, nn

from ..functional import arc_margin, check_batch, cosines, margin_cross_entropy, straight_through
from ..outputs import Output, Targets


def arcface(embedding: Tensor, weight: Tensor, labels: Tensor, scale: float = 64,
            margin: float = 0.5, gradient: str = "exact", chunk: int | None = None) -> Tensor:
    """Eq. (3): mean over the batch of
    -log( e^{s cos(theta_y + m)} / (e^{s cos(theta_y + m)} + sum_{j != y} e^{s cos theta_j}) ).

    embedding: (B, D); weight: (C, D); labels: (B,).   gradient: "exact" | "straight_through".
    chunk: classes per block, None for all at once.   Returns a scalar, float32 at least.
    """

    def margined(cosine: Tensor) -> Tensor:
        widened = arc_margin(cosine, margin)
        return straight_through(widened, cosine) if gradient == "straight_through" else widened

    return margin_cross_entropy(embedding, weight, labels, scale, margined, chunk)  # eq. (3)


class ArcFace(nn.Module):
    """ArcFace with its class centres, the parameter `weight` (num_classes, embedding_size).

    scale: s.   margin: m, radians.   gradient: "exact" or insightface's "straight_through".
    chunk: classes per block, so that the (B, C) logits never exist at once; None: plain.
    Uses the rows that are not `targets.balanced`; with none left the loss is 0. Asks for no
    teacher. Raises ValueError for a label outside the classes and for non-finite embeddings.
    """

    def __init__(self, embedding_size: int, num_classes: int, scale: float = 64,
                 margin: float = 0.5, gradient: str = "exact", chunk: int | None = None):
        super().__init__()
        if gradient not in ("exact", "straight_through"):
            raise ValueError(f'gradient must be "exact" or "straight_through", not {gradient!r}')
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be a number of classes, 1 or more, or None, not {chunk}")
        self.num_classes, self.scale, self.margin = num_classes, scale, margin
        self.gradient, self.chunk = gradient, chunk
        self.weight = nn.Parameter(torch.randn(num_classes, embedding_size) * 0.01)

    def logits(self, embedding: Tensor) -> Tensor:
        """s * cos, without a margin: (B, D) -> (B, C)."""
        return self.scale * cosines(embedding, self.weight)

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        embedding, labels = student.embedding, targets.labels
        if embedding.shape[1] != self.weight.shape[1]:
            raise ValueError(f"ArcFace was built for embeddings of {self.weight.shape[1]} "
                             f"dimensions, got {embedding.shape[1]}; set embedding_size")
        check_batch(embedding, labels, self.num_classes)
        if targets.balanced is not None:
            embedding, labels = embedding[~targets.balanced], labels[~targets.balanced]
        if len(labels) == 0:  # keeps a gradient path to both, as DDP wants
            return {"softmax": (embedding.sum() + self.weight.sum()) * 0}
        return {"softmax": arcface(embedding, self.weight, labels, self.scale, self.margin,
                                   self.gradient, self.chunk)}
