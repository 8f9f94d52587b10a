"""MobileFaceNet, the 1.2 M parameter student of the face distillation papers, and a wider one.

Chen et al., MobileFaceNets, CCBR 2018. 1,199,488 parameters at 512 dimensions: the form of EKD
and AdaDistill, whose last batch norm has neither scale nor bias (insightface's `mbf` is twice as
wide and another network). Input: (RGB - 127.5) / 127.5 at 112 x 112.

Choices, ours: convolutions start at Kaiming's fan-out scale (a batch norm follows each, so the
scale hardly matters); stages are cut where the maps are 56, 28, 14 and 7 pixels, as an IResNet's
are, so that losses on maps can pair the two.

`mobilefacenet_r` follows Duong et al., ShrinkTeaNet, 2019, whose MobileFaceNet-R leaves maps of
the teacher's sizes, 3.73 M parameters. The paper says no more: ours is in its spirit.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from .staged import Staged


def conv(width_in: int, width: int, kernel: int, stride: int = 1, padding: int = 0,
         groups: int = 1, activation: bool = True) -> nn.Sequential:
    """Convolution without bias, BN and, if wanted, PReLU."""
    layers = [nn.Conv2d(width_in, width, kernel, stride, padding, groups=groups, bias=False),
              nn.BatchNorm2d(width)]
    return nn.Sequential(*layers, *([nn.PReLU(width)] if activation else []))


class Bottleneck(nn.Module):
    """1x1 up to `hidden`, 3x3 depthwise, 1x1 down without activation; a sum if it is residual."""

    def __init__(self, width_in: int, width: int, hidden: int, stride: int = 1):
        super().__init__()
        self.residual = stride == 1 and width_in == width
        self.body = nn.Sequential(
            conv(width_in, hidden, 1),
            conv(hidden, hidden, 3, stride, 1, groups=hidden),
            conv(hidden, width, 1, activation=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileFaceNet(Staged):
    """Returns Output: embedding (B, embedding_size), one map per stage.

    channels: of the four stages.   down, expand: of the last three, how wide the strided block and
    the blocks after it are inside.
    """

    input_size = 112

    def __init__(self, embedding_size: int = 512, channels: Sequence[int] = (64, 64, 128, 128),
                 down: Sequence[int] = (128, 256, 512), expand: Sequence[int] = (128, 256, 256)):
        super().__init__()
        self.channels, self.embedding_size = tuple(channels), embedding_size
        before = channels[0]
        self.stem = conv(3, before, 3, 2, 1)
        self.stages = nn.ModuleList([conv(before, before, 3, 1, 1, groups=before)])
        for count, width, first, rest in zip((4, 6, 2), channels[1:], down, expand, strict=True):
            self.stages.append(nn.Sequential(
                Bottleneck(before, width, first, 2),
                *[Bottleneck(width, width, rest) for _ in range(count)]))
            before = width
        self.head = nn.Sequential(
            conv(before, 512, 1),
            conv(512, 512, 7, groups=512, activation=False),  # global depthwise convolution
            nn.Flatten(),
            nn.Linear(512, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size, affine=False),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def mobilefacenet_r(embedding_size: int = 512) -> MobileFaceNet:
    """Maps of an IResNet's sizes; 3,732,800 parameters at 512 dimensions.

    The widths inside the blocks are ours: of the many that give the 3.73 M of the paper, one.
    """
    return MobileFaceNet(embedding_size, (64, 128, 256, 512), (64, 512, 1024), (256, 256, 512))
