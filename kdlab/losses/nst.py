"""NST: the student's channels as a whole look where the teacher's channels do.

Huang, Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer",
arXiv:1707.01219; the default is the form of Jung, Lee, Park, Moon, "Fair Feature Distillation for
Visual Recognition" (MFD), CVPR 2021.

Idea: a channel, scaled to length 1 over the positions, says which places a neuron selects. A map
is a cloud of such vectors. The squared maximum mean discrepancy between student's and teacher's
cloud, with the kernel (x.y)², is the loss: clouds may differ in size and no channel is paired.

Symbols: A map (B, C, H, W); `selectivity` its unit channels (B, C, P), P = H W positions;
G Gram matrix of channels, (B, C, C').
Choices: last map, weight 3: MFD's UTKFace row. Its CIFAR-10S row has 30, found on a path that
gives no gradient (below); RepDistiller recommends 50.
Differences: none between paper and code in the formula. How it is computed is ours: MFD's code
holds a (B, C, C, P) tensor (19 GB for ShuffleNet at batch 128); here batched products, of channels
or of positions, whichever are fewer: mean G_ab² over all channels is the product of two P x P
matrices M = U^T U / C, so the loss is |M_t - M_s|². MFD's code feeds its CIFAR network's flat
vector, a map of one position: unit channels are then 0 or 1 and the gradient is 0 whatever the
student does. The class refuses such a map; the function computes it. The paper is known to us
through these codes, so no line here carries its equation numbers.
"""

import torch
from torch import Tensor, nn

from ..functional import full, unit
from ..inputs import check_layer, paired_maps, several_positions
from ..outputs import Output, Targets


def selectivity(features: Tensor) -> Tensor:
    """Every channel as a unit vector over positions: (B, C, H, W) -> (B, C, P). Zeros stay 0."""
    features, = full(features)
    return unit(features.flatten(2), dim=2)


def nst(student: Tensor, teacher: Tensor) -> Tensor:
    """mean G_tt² + mean G_ss² - 2 mean G_ts², means over channel pairs, then over the batch.

    student: (B, C_s, H, W); teacher: (B, C_t, H, W).   Returns a scalar, 0 to 2.
    """
    s, t = full(selectivity(student), selectivity(teacher))
    channels, positions = max(s.shape[1], t.shape[1]), s.shape[2]
    with torch.autocast(s.device.type, enabled=False):
        if positions <= channels:
            difference = t.mT @ t / t.shape[1] - s.mT @ s / s.shape[1]  # (B, P, P)
            return difference.square().sum((1, 2)).mean()
        tt, ss, ts = ((a @ b.mT).square().mean() for a, b in ((t, t), (s, s), (t, s)))
        return tt + ss - 2 * ts


class NST(nn.Module):
    """Neuron selectivity transfer, a term for every layer: "last_map", or "stage1" and so on.

    layer: "last_map" | "all" | a stage's number, from 1.   Labels are not used.
    An embedding has no positions, so there is no such layer.
    ValueError without a teacher or its maps, for maps of two sides or of one position.
    """

    needs = {"features"}

    def __init__(self, weight: float = 3, layer: str | int = "last_map"):
        super().__init__()
        check_layer(layer, ("last_map", "all"), "NST")
        self.weight, self.layer = weight, layer

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        pairs = paired_maps(student, teacher, targets, self.layer, "NST")
        several_positions(pairs, "NST")
        return {name: self.weight * nst(*pair) for name, pair in pairs.items()}
