"""ResNet-18, the network of MFD's UTKFace experiment.

He et al., Deep Residual Learning, CVPR 2016; Jung et al., Fair Feature Distillation, CVPR 2021.
11,689,512 parameters at 1000 classes, as torchvision counts them. MFD's input: 176 x 176 RGB in
[0, 1], then ImageNet's mean and standard deviation.

The embedding is the pooled last map. MFD's feature is that map before pooling, `features[-1]`:
512 x 6 x 6 at 176 pixels (`layer="last_map"`).

Choices: convolutions start at Kaiming's fan-out scale, the linear layer at PyTorch's default, both
as torchvision; the last batch norm of a unit starts at scale 1.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from .staged import Staged


class Unit(nn.Module):
    """3x3 conv (stride), BN, ReLU, 3x3 conv, BN, plus the shortcut; ReLU after the sum."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width_in, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        plain = stride == 1 and width_in == width
        self.shortcut = nn.Identity() if plain else nn.Sequential(
            nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class ResNet18(Staged):
    """Returns Output: embedding (B, 512), logits (B, num_classes), four maps of 64 to 512 channels.

    input_size: side of the pictures; any will do.
    """

    channels = (64, 128, 256, 512)

    def __init__(self, num_classes: int = 1000, *, input_size: int = 176,
                 embedding_size: int = 512):
        super().__init__()
        if embedding_size != 512:
            raise ValueError(f"resnet18 has 512 dimensions, not {embedding_size}")
        self.input_size, self.embedding_size = input_size, embedding_size
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList()
        before = 64
        for width in self.channels:
            first = Unit(before, width, 1 if width == 64 else 2)
            self.stages.append(nn.Sequential(first, Unit(width, width, 1)))
            before = width
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
