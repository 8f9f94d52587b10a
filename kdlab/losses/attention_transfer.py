"""AttentionTransfer: the student looks where the teacher looks.

Zagoruyko, Komodakis, "Paying More Attention to Attention: Improving the Performance of
Convolutional Neural Networks via Attention Transfer", ICLR 2017; the default is the form of Jung,
Lee, Park, Moon, "Fair Feature Distillation for Visual Recognition" (MFD), CVPR 2021.

Idea: where a map's activations are large, the network pays attention. The squares of a map,
averaged over the channels, are an attention map; scaled to length 1 it says where, not how much.
The student's must resemble the teacher's. Channel numbers are free, positions must match.

Symbols: A map (B, C, H, W); Q `attention` (B, H W), a unit vector for every sample.
Choices: last map, half of the mean over batch and positions, weight 1: MFD's released code and
its CIFAR-10S and CelebA rows (UTKFace: 30). On its CIFAR network the last map is the one MFD takes.
Differences: the authors' code and RepDistiller have no half, sum over several layers and weigh
1000: AttentionTransfer(1000, "all", half=False). MFD's code also lets gradients pile up in the
teacher, without effect; not here. The paper is known to us through these codes, so no line here
carries its equation numbers.
"""

from torch import Tensor, nn

from ..functional import full, unit
from ..inputs import check_layer, paired_maps, several_positions
from ..outputs import Output, Targets


def attention(features: Tensor) -> Tensor:
    """The attention map Q, mean of squares over channels, unit length: (B, C, H, W) -> (B, H W).

    A map of zeros has the attention 0 everywhere.
    """
    features, = full(features)
    return unit(features.square().mean(1).flatten(1))


def attention_transfer(student: Tensor, teacher: Tensor, half: bool = True) -> Tensor:
    """The squared difference of the two attention maps, mean over batch and positions.

    student: (B, C_s, H, W); teacher: (B, C_t, H, W).   Returns a scalar, 0 to 2 / (H W) if not
    halved.
    """
    value = (attention(student) - attention(teacher)).square().mean()
    return value / 2 if half else value


class AttentionTransfer(nn.Module):
    """Attention transfer, a term for every layer: "last_map", or "stage1", "stage2" and so on.

    layer: "last_map" | "all" | a stage's number, from 1.   half: MFD's factor 1/2.
    An embedding has no positions, so there is no such layer. Labels are not used.
    ValueError without a teacher or its maps, for maps of two sides or of one position.
    """

    needs = {"features"}

    def __init__(self, weight: float = 1, layer: str | int = "last_map", *, half: bool = True):
        super().__init__()
        check_layer(layer, ("last_map", "all"), "AttentionTransfer")
        self.weight, self.layer, self.half = weight, layer, half

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        pairs = paired_maps(student, teacher, targets, self.layer, "AttentionTransfer")
        several_positions(pairs, "AttentionTransfer")
        return {name: self.weight * attention_transfer(*pair, self.half)
                for name, pair in pairs.items()}
