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
is that of s cos(theta): `gradient="straight_through"`. Neither guards theta + m > pi, where
cos(theta + m) rises again; EKD's released code takes cos(theta) - m sin(m) there: `fallback=True`.
`chunk`: ours.
"""

import math

import torch
from torch import Tensor, nn

from ..functional import arc_margin, cosines, straight_through
from ..inputs import check_balanced, check_batch
from ..margin_softmax import check_chunk, margin_cross_entropy
from ..outputs import Output, Targets


def arcface(embedding: Tensor, weight: Tensor, labels: Tensor, scale: float = 64,
            margin: float = 0.5, gradient: str = "exact", chunk: int | None = None,
            fallback: bool = False) -> Tensor:
    """Eq. (3): mean over the batch of
    -log( e^{s cos(theta_y + m)} / (e^{s cos(theta_y + m)} + sum_{j != y} e^{s cos theta_j}) ).

    embedding: (B, D); weight: (C, D); labels: (B,).   gradient: "exact" | "straight_through".
    chunk: classes per block, None for all at once.   fallback: cos(theta) - m sin(m) where
    theta + m > pi.   Returns a scalar, float32 at least.
    """

    def margined(cosine: Tensor) -> Tensor:
        widened = arc_margin(cosine, margin)
        if fallback:
            beyond = cosine < -math.cos(margin)  # theta > pi - m
            widened = widened.where(~beyond, cosine - margin * math.sin(margin))
        return straight_through(widened, cosine) if gradient == "straight_through" else widened

    return margin_cross_entropy(embedding, weight, labels, scale, margined, chunk)  # eq. (3)


class ArcFace(nn.Module):
    """ArcFace with its class centres, the parameter `weight` (num_classes, embedding_size).

    scale: s.   margin: m, radians.   gradient: "exact" or insightface's "straight_through".
    chunk: classes per block, so that the (B, C) logits never exist at once; None: plain.
    fallback: EKD's guard where theta + m > pi.
    Uses the rows that are not `targets.balanced`; with none left the loss is 0. Asks for no
    teacher. Raises ValueError for embeddings of another size, for a label outside the classes and
    for non-finite embeddings.
    """

    def __init__(self, embedding_size: int, num_classes: int, scale: float = 64,
                 margin: float = 0.5, gradient: str = "exact", chunk: int | None = None, *,
                 fallback: bool = False):
        super().__init__()
        if gradient not in ("exact", "straight_through"):
            raise ValueError(f'gradient must be "exact" or "straight_through", not {gradient!r}')
        check_chunk(chunk)
        if fallback and not 0 <= margin <= math.pi:
            raise ValueError(f"fallback is defined for a margin of 0 to pi, not {margin}")
        self.num_classes, self.scale, self.margin = num_classes, scale, margin
        self.gradient, self.chunk, self.fallback = gradient, chunk, fallback
        self.weight = nn.Parameter(torch.randn(num_classes, embedding_size).mul_(0.01))

    def logits(self, embedding: Tensor) -> Tensor:
        """s * cos, without a margin: (B, D) -> (B, C).   ValueError for another D."""
        self._check_size(embedding)
        return self.scale * cosines(embedding, self.weight)

    def softmax(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """The loss of these rows, on the module's own centres: (B, D), (B,) -> scalar."""
        return arcface(embedding, self.weight, labels, self.scale, self.margin, self.gradient,
                       self.chunk, self.fallback)

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        embedding, labels, balanced = student.embedding, targets.labels, check_balanced(targets)
        check_batch(embedding, labels, self.num_classes)
        self._check_size(embedding)
        if balanced is not None:
            embedding, labels = embedding[~balanced], labels[~balanced]
        if len(labels) == 0:  # keeps a gradient path to both, as DDP wants
            return {"softmax": embedding.float().sum() * 0 + self.weight.sum() * 0}
        return {"softmax": self.softmax(embedding, labels)}

    def _check_size(self, embedding: Tensor) -> None:
        name, size = type(self).__name__, self.weight.shape[1]
        if embedding.shape[1] != size:
            raise ValueError(f"{name} was built for embeddings of {size} dimensions, got "
                             f"{embedding.shape[1]}; set embedding_size")
