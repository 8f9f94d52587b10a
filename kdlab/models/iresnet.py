"""IResNet, the improved residual network of face recognition, and two small ones for a laptop.

Deng et al., ArcFace, CVPR 2019 (its "LResNet-E-IR"). Widths, units and heads are those of
insightface's torch networks, whose parameter counts these reproduce for 18, 34, 50, 100 layers:
24,025,600 / 34,139,328 / 43,590,848 / 65,156,160 at 112 x 112 and 512 dimensions. iresnet90 is
the teacher of ShrinkTeaNet, 63,677,120 parameters.

Choices: convolutions start at N(0, 0.1), the linear layer at PyTorch's default, no dropout, and
the scale of the last batch norm stays 1 (a parameter that does not train), all as insightface.
Input: (RGB - 127.5) / 127.5. `ir_teacher` and `ir_student` are ours.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from .staged import Staged


class Unit(nn.Module):
    """BN, 3x3 conv, BN, PReLU, 3x3 conv (stride), BN, plus the shortcut; nothing after the sum."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(width_in),
            nn.Conv2d(width_in, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        plain = stride == 1 and width_in == width
        self.shortcut = nn.Identity() if plain else nn.Sequential(
            nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class IResNet(Staged):
    """An IR network: a 3x3 stem, four stages, BN - flatten - linear - BN.

    units, channels: of the four stages.   strides: of the stem, then of each stage.
    stem: its channels, 16 at least (torch 2.13 on CPU corrupts memory in a strided 1x1
    convolution over 8 or fewer channels).
    """

    def __init__(self, units: Sequence[int], channels: Sequence[int] = (64, 128, 256, 512),
                 embedding_size: int = 512, input_size: int = 112, stem: int = 64,
                 strides: Sequence[int] = (1, 2, 2, 2, 2)):
        super().__init__()
        if min(stem, *channels) < 16:
            raise ValueError(f"an IResNet needs 16 channels or more, got {stem}, {channels}")
        self.channels, self.embedding_size = tuple(channels), embedding_size
        self.input_size = side = input_size
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 3, strides[0], 1, bias=False), nn.BatchNorm2d(stem), nn.PReLU(stem))
        self.stages = nn.ModuleList()
        before = stem
        for count, width, stride in zip(units, channels, strides[1:], strict=True):
            first = Unit(before, width, stride)
            rest = [Unit(width, width, 1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(first, *rest))
            before = width
        for stride in strides:
            side = -(-side // stride)
        last = nn.BatchNorm1d(embedding_size)
        last.weight.requires_grad_(False)
        self.head = nn.Sequential(nn.BatchNorm2d(before), nn.Flatten(),
                                  nn.Linear(before * side * side, embedding_size), last)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)


def iresnet18(embedding_size: int = 512) -> IResNet:
    return IResNet((2, 2, 2, 2), embedding_size=embedding_size)


def iresnet34(embedding_size: int = 512) -> IResNet:
    return IResNet((3, 4, 6, 3), embedding_size=embedding_size)


def iresnet50(embedding_size: int = 512) -> IResNet:
    return IResNet((3, 4, 14, 3), embedding_size=embedding_size)


def iresnet90(embedding_size: int = 512) -> IResNet:
    return IResNet((3, 8, 30, 3), embedding_size=embedding_size)


def iresnet100(embedding_size: int = 512) -> IResNet:
    return IResNet((3, 13, 30, 3), embedding_size=embedding_size)


def ir_teacher(embedding_size: int = 512) -> IResNet:
    """48 x 48 input, maps of 24, 12, 6 and 3 pixels; 3.1 M parameters at 512 dimensions."""
    return IResNet((1, 2, 3, 2), (32, 64, 128, 192), embedding_size, input_size=48, stem=16)


def ir_student(embedding_size: int = 512) -> IResNet:
    """48 x 48 input, maps as `ir_teacher`; 0.93 M parameters at 512 dimensions, 0.59 M at 128.

    The stem strides instead of the first stage: full-size maps would take half of the time.
    """
    return IResNet((1, 2, 2, 2), (16, 32, 64, 96), embedding_size, input_size=48, stem=16,
                   strides=(2, 1, 2, 2, 2))
