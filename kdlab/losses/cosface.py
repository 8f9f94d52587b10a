"""CosFace: additive cosine margin softmax.

Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu, "CosFace: Large Margin Cosine Loss for Deep Face
Recognition", CVPR 2018.

Idea: class scores are cosines between the embedding and one centre per class, as in ArcFace. The
own class must win even after a margin is taken from its cosine. The price of the margin is the
same at every angle, where ArcFace's grows with the sine; so the gradient needs no factor and
nothing is singular at cos = +-1.

Symbols: x embedding (B, D); W weight (C, D); y labels (B,); s scale; m margin in units of cosine;
theta_j the angle between x and W_j.
Choices: s = 64, m = 0.4: insightface's torch code; AdaDistill's best is 0.35.
W ~ N(0, 0.01): insightface's torch code. `chunk`: ours.
Differences: none known to us; the paper was not at hand, so the line names its formula instead of
an equation.
"""

from functools import partial

from torch import Tensor

from ..functional import cos_margin
from ..margin_softmax import margin_cross_entropy
from .arcface import ArcFace


def cosface(embedding: Tensor, weight: Tensor, labels: Tensor, scale: float = 64,
            margin: float = 0.4, chunk: int | None = None) -> Tensor:
    """Mean over the batch of
    -log( e^{s (cos(theta_y) - m)} / (e^{s (cos(theta_y) - m)} + sum_{j != y} e^{s cos theta_j}) ).

    embedding: (B, D); weight: (C, D); labels: (B,).   chunk: classes per block, None for all at
    once.   Returns a scalar, float32 at least.
    """
    margined = partial(cos_margin, margin=margin)  # cos(theta_y) - m
    return margin_cross_entropy(embedding, weight, labels, scale, margined, chunk)


class CosFace(ArcFace):
    """CosFace with its class centres, the parameter `weight` (num_classes, embedding_size).

    scale: s.   margin: m, in units of cosine.   chunk: as in ArcFace. Rows used, `logits` and
    errors: as ArcFace; only the margin differs.
    """

    def __init__(self, embedding_size: int, num_classes: int, scale: float = 64,
                 margin: float = 0.4, *, chunk: int | None = None):
        super().__init__(embedding_size, num_classes, scale, margin, chunk=chunk)

    def softmax(self, embedding: Tensor, labels: Tensor) -> Tensor:
        return cosface(embedding, self.weight, labels, self.scale, self.margin, self.chunk)
