"""Cross-entropy on a network's own logits: plain classification.

The multinomial log-likelihood; no paper of its own here.

Idea: for networks that end in a classifier, such as those of MFD's experiments. The logits go
into a softmax, the loss is -log of the share of the true class. Margin losses (`ArcFace`) bring
their own class rows and want no logits; this one has no parameters.

Symbols: z logits (B, C); y labels (B,).
Choices: mean over the batch, weight 1: as in the released MFD code.   Differences: none.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ..functional import full
from ..inputs import check_batch
from ..outputs import Output, Targets


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch of -log( e^{z_y} / sum_j e^{z_j} ): (B, C), (B,) -> scalar.

    float32 at least.
    """
    return F.cross_entropy(*full(logits), labels)


class CrossEntropy(nn.Module):
    """Cross-entropy of `student.logits` with the labels; its term is "cross_entropy".

    Asks for no teacher, uses every row. ValueError for missing logits, for a label outside the
    C classes of the logits, for logits that are not finite.
    """

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        logits = student.logits
        if logits is None:
            raise ValueError("CrossEntropy needs the student's logits and it has none; use a "
                             "network with a classifier, or ArcFace, which brings its own")
        check_batch(logits, targets.labels, logits.shape[1], what="logits")
        return {"cross_entropy": cross_entropy(logits, targets.labels)}
