"""MobileNetV1 and V2 in their face forms, students of ShrinkTeaNet.

Howard et al., MobileNets, 2017; Sandler et al., MobileNetV2, CVPR 2018; Duong et al.,
ShrinkTeaNet, 2019. The face form keeps the trunk at full resolution for a smaller picture (a stem
without stride: 112 pixels end in a 7 x 7 map, as 224 do in the original), has PReLU for ReLU, and
ends in a global depthwise convolution (GDC) instead of a mean. Input: (RGB - 127.5) / 127.5.

MobileNetV1: insightface's, 3,532,800 parameters at 512 dimensions, the paper's 3.53 M; 3,400,960
at 256. As there, the scales of its batch norms stay 1 (parameters that do not train) except the
GDC's. MobileNetV2: the paper gives 2.15 M parameters and no definition, and no released network
matches. Ours is a guess that sums to 2,149,312 at 256 dimensions: the trunk of MobileNetV2 to 320
channels, a 1x1 convolution to 512, GDC.

Choices, ours: batch norms have PyTorch's eps (MXNet's is 1e-3); stages are cut where the maps are
56, 28, 14 and 7 pixels. Convolutions and the linear layer start at N(0, 2 / fan out), as
insightface's do.
"""

from torch import nn

from .mobilefacenet import Bottleneck, conv
from .staged import Staged


def pair(width_in: int, width: int, stride: int = 1) -> nn.Sequential:
    """MobileNetV1's block: 3x3 depthwise, then 1x1, each with BN and PReLU."""
    return nn.Sequential(conv(width_in, width_in, 3, stride, 1, groups=width_in),
                         conv(width_in, width, 1))


def gdc(width_in: int, embedding_size: int) -> nn.Sequential:
    """(B, width_in, 7, 7) -> (B, embedding_size): 7x7 to 512 in 512 groups, linear, BN."""
    last = nn.BatchNorm1d(embedding_size)
    last.weight.requires_grad_(False)
    return nn.Sequential(conv(width_in, 512, 7, groups=512, activation=False), nn.Flatten(),
                         nn.Linear(512, embedding_size), last)


def initialise(network: nn.Module) -> None:
    """Weights to N(0, 2 / fan out), biases to 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class MobileNetV1(Staged):
    """Returns Output: embedding (B, embedding_size), four maps of 128, 256, 512, 1024 channels."""

    channels = (128, 256, 512, 1024)
    input_size = 112

    def __init__(self, embedding_size: int = 512):
        super().__init__()
        self.embedding_size = embedding_size
        self.stem = conv(3, 32, 3, 1, 1)
        self.stages = nn.ModuleList([
            nn.Sequential(pair(32, 64), pair(64, 128, 2), pair(128, 128)),
            nn.Sequential(pair(128, 256, 2), pair(256, 256)),
            nn.Sequential(pair(256, 512, 2), *[pair(512, 512) for _ in range(5)]),
            nn.Sequential(pair(512, 1024, 2), pair(1024, 1024)),
        ])
        self.head = gdc(1024, embedding_size)
        initialise(self)
        for module in (*self.stem.modules(), *self.stages.modules()):
            if isinstance(module, nn.BatchNorm2d):
                module.weight.requires_grad_(False)


def inverted(width_in: int, width: int, count: int, stride: int) -> list[Bottleneck]:
    """One row of MobileNetV2's table: `count` blocks, six times as wide inside as at the start."""
    return [Bottleneck(width_in, width, 6 * width_in, stride),
            *[Bottleneck(width, width, 6 * width) for _ in range(count - 1)]]


class MobileNetV2(Staged):
    """Returns Output: embedding (B, embedding_size), four maps of 24, 32, 96, 320 channels."""

    channels = (24, 32, 96, 320)
    input_size = 112

    def __init__(self, embedding_size: int = 256):
        super().__init__()
        self.embedding_size = embedding_size
        self.stem = conv(3, 32, 3, 1, 1)
        first = [conv(32, 32, 3, 1, 1, groups=32), conv(32, 16, 1, activation=False)]
        self.stages = nn.ModuleList([
            nn.Sequential(*first, *inverted(16, 24, 2, 2)),
            nn.Sequential(*inverted(24, 32, 3, 2)),
            nn.Sequential(*inverted(32, 64, 4, 2), *inverted(64, 96, 3, 1)),
            nn.Sequential(*inverted(96, 160, 3, 2), *inverted(160, 320, 1, 1)),
        ])
        self.head = nn.Sequential(conv(320, 512, 1), *gdc(512, embedding_size))
        initialise(self)
