"""The small network of MFD's CIFAR-10S experiment.

Jung et al., Fair Feature Distillation for Visual Recognition, CVPR 2021 (supplement, 1.1).
814,122 parameters at 10 classes. Input: 32 x 32 RGB in [0, 1], not normalised further.

What losses read: a stage is a pair of convolutions, and the pooling and dropout behind it belong to
the next stage. So `features[-1]` is the sixth convolution's map before pooling, 128 x 8 x 8, which
AttentionTransfer takes there, and the embedding is the last hidden layer's 256 activations, after
ReLU, which MFD compares (`layer="embedding"`).

Differences: the text has two hidden layers and names no width; the released code has one of 256
and no dropout behind it. The default is the code; `hidden=(256, 256)` is the text, the widths ours.
Every layer starts at PyTorch's default, as in the code.
"""

from collections.abc import Sequence

from torch import nn

from .staged import Staged


def pool() -> list[nn.Module]:
    """Max-pooling by 2, then dropout."""
    return [nn.MaxPool2d(2), nn.Dropout(0.25)]


class CifarCNN(Staged):
    """Returns Output: embedding (B, hidden[-1]), logits (B, num_classes), maps of 32, 64, 128.

    hidden: widths of the hidden layers; `embedding_size` can only repeat the last of them.
    """

    channels = (32, 64, 128)
    input_size = 32

    def __init__(self, num_classes: int = 10, *, hidden: Sequence[int] = (256,),
                 embedding_size: int | None = None):
        super().__init__()
        if not hidden:
            raise ValueError("cifar_cnn needs a hidden layer: hidden=(256,)")
        if embedding_size not in (None, hidden[-1]):
            raise ValueError(f"cifar_cnn's embedding is its last hidden layer: {hidden[-1]} "
                             f"dimensions, not {embedding_size}; set hidden=({embedding_size},)")
        self.embedding_size = hidden[-1]
        self.stem = nn.Identity()
        self.stages = nn.ModuleList()
        before = 3
        for width in self.channels:
            self.stages.append(nn.Sequential(
                *(pool() if self.stages else []),
                nn.Conv2d(before, width, 3, padding=1), nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1), nn.ReLU()))
            before = width
        layers, before = [*pool(), nn.Flatten()], 128 * 4 * 4
        for width in hidden:
            layers += [nn.Linear(before, width), nn.ReLU()]
            before = width
        self.head = nn.Sequential(*layers)
        self.classifier = nn.Linear(before, num_classes)
