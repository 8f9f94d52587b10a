"""dlib's face recognition ResNet-29: the architecture, for its CC0 weights.

King, "High Quality Face Recognition with Deep Metric Learning", dlib blog, 2017. 5,614,592
parameters: 29 convolutions with bias, each followed by a scale and a shift per channel (what
dlib leaves of a batch norm after training), and one linear layer without bias to 128 dimensions.

Input: (RGB - [122.782, 117.001, 104.298]) / 256 at 150 x 150, dlib's own crop; the network does
not normalise. Strangers' embeddings sit at cosine 0.82: subtract a mean before normalising.
Modules stand in dlib's order of layers, so a conversion fills them one after another.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .staged import Staged

MEAN = (122.782, 117.001, 104.298)  # RGB, dlib's input_rgb_image
SCALE = 256.0


class Affine(nn.Module):
    """Convolution with bias, then a scale and a shift per channel. Padded only at stride 1."""

    def __init__(self, width_in: int, width: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, kernel, stride,
                              padding=kernel // 2 if stride == 1 else 0)
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.scale[:, None, None] + self.shift[:, None, None]


class Unit(nn.Module):
    """Two 3x3 convolutions and a shortcut; going down, the shortcut is a 2x2 average.

    dlib adds maps of unequal size by padding the smaller with zeros, right, below and in channels.
    """

    def __init__(self, width_in: int, width: int, down: bool = False):
        super().__init__()
        self.first = Affine(width_in, width, 3, 2 if down else 1)
        self.second = Affine(width, width, 3)
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        if self.down:
            x = F.avg_pool2d(x, 2, 2)
            c, h, w = (max(a, b) for a, b in zip(x.shape[1:], y.shape[1:], strict=True))
            x, y = (F.pad(t, (0, w - t.shape[3], 0, h - t.shape[2], 0, c - t.shape[1]))
                    for t in (x, y))
        return F.relu(x + y)


class DlibResNet29(Staged):
    """Returns Output: embedding (B, 128), not normalised, and five maps."""

    channels = (32, 64, 128, 256, 256)
    embedding_size = 128
    input_size = 150

    def __init__(self, embedding_size: int = 128):
        super().__init__()
        if embedding_size != 128:
            raise ValueError(f"dlib_resnet29 has 128 dimensions, not {embedding_size}")
        self.stem = nn.Sequential(Affine(3, 32, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2))
        widths = (32, 32, 64, 128, 256, 256)
        units = (3, 4, 3, 3, 1)  # per stage; every stage but the first begins by going down
        self.stages = nn.ModuleList()
        for i, count in enumerate(units):
            first = Unit(widths[i], widths[i + 1], down=i > 0)
            rest = [Unit(widths[i + 1], widths[i + 1]) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(first, *rest))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                  nn.Linear(256, 128, bias=False))
