"""ShuffleNetV2 x1.0, the network of MFD's CelebA experiment.

Ma et al., ShuffleNet V2, ECCV 2018; Jung et al., Fair Feature Distillation, CVPR 2021.
2,278,604 parameters at 1000 classes, as torchvision counts them. MFD's input: 176 x 176 RGB in
[0, 1], then ImageNet's mean and standard deviation.

The embedding is the pooled last map. MFD's feature is that map before pooling, `features[-1]`,
which the paper calls conv5: 1024 x 6 x 6 at 176 pixels (`layer="last_map"`).

Choices: every layer starts at PyTorch's default (the paper gives none).
"""

import torch
from torch import Tensor, nn

from .staged import Staged


def conv(width_in: int, width: int, kernel: int = 1, stride: int = 1) -> list[nn.Module]:
    """Convolution without bias, BN and ReLU."""
    return [nn.Conv2d(width_in, width, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(width), nn.ReLU()]


def depthwise(width: int, stride: int = 1) -> list[nn.Module]:
    """3x3 depthwise convolution and BN: no activation follows it here."""
    return [nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False), nn.BatchNorm2d(width)]


def shuffle(x: Tensor) -> Tensor:
    """(B, 2C, H, W): channels of the first half and of the second take turns."""
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


class Unit(nn.Module):
    """One half of the channels passes, the other goes through the body; then they are shuffled.

    Going down, both halves see all channels, and the first goes through a strided convolution.
    """

    def __init__(self, width_in: int, width: int, down: bool = False):
        super().__init__()
        half = width // 2
        self.down = down
        self.shortcut = nn.Sequential(*depthwise(width_in, 2), *conv(width_in, half)) if down \
            else nn.Identity()
        self.body = nn.Sequential(*conv(width_in if down else half, half),
                                  *depthwise(half, 2 if down else 1), *conv(half, half))

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = (x, x) if self.down else x.chunk(2, dim=1)
        return shuffle(torch.cat((self.shortcut(kept), self.body(worked)), dim=1))


class ShuffleNetV2(Staged):
    """Returns Output: embedding (B, 1024), logits (B, num_classes), four maps.

    The last map is conv5's, as small as the third's.   input_size: side of the pictures; any.
    """

    channels = (116, 232, 464, 1024)

    def __init__(self, num_classes: int = 1000, *, input_size: int = 176,
                 embedding_size: int = 1024):
        super().__init__()
        if embedding_size != 1024:
            raise ValueError(f"shufflenet_v2 has 1024 dimensions, not {embedding_size}")
        self.input_size, self.embedding_size = input_size, embedding_size
        self.stem = nn.Sequential(*conv(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList()
        before = 24
        for width, count in zip(self.channels, (4, 8, 4), strict=False):
            rest = [Unit(width, width) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(Unit(before, width, down=True), *rest))
            before = width
        self.stages.append(nn.Sequential(*conv(before, 1024)))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(1024, num_classes)
