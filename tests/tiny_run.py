"""A run that takes a tenth of a second, with state in every corner: shared by tests of training."""

import torch
from torch import nn
from torch.nn import functional as F

from kdlab.data.batches import Batches
from kdlab.data.samplers import PairSampler
from kdlab.losses import EKD, AdaDistill, ArcFace
from kdlab.outputs import Output
from kdlab.train import TrainConfig

N, CLASSES, D, STEPS = 48, 6, 8, 12  # pictures, people, dimensions, steps of an epoch times epochs


class Student(nn.Module):
    """A convolution, a batch norm (unless told), a linear layer."""

    def __init__(self, norm: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2)
        self.norm = nn.BatchNorm2d(16) if norm else nn.Identity()
        self.linear = nn.Linear(16 * 9, D)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))  # (B, 16, 3, 3)
        return Output(self.linear(x.flatten(1)), features=(x,))


class Cache:
    """Where a teacher's cached embeddings would be."""

    is_cache = True

    def __init__(self, seed: int = 5):
        self.table = torch.randn(2, N, D, generator=torch.Generator().manual_seed(seed))
        self.identity = {"teacher": f"teacher {seed}", "faces": "tiny"}

    def __len__(self):
        return N

    def __call__(self, index, flipped):
        return Output(self.table[flipped.long(), index])


def parts(norm: bool = True, seed: int = 0) -> tuple[nn.Module, dict[str, nn.Module]]:
    """ArcFace (learnt rows), EKD (thresholds, random negatives) and AdaDistill (centres)."""
    torch.manual_seed(seed)
    return Student(norm), {
        "arc": ArcFace(D, CLASSES, scale=8),
        "ekd": EKD(fprs=(1e-1, 1e-2), negatives="random", hard_negatives=40),
        "ada": AdaDistill(D, CLASSES, scale=8)}


def batches(**more) -> Batches:
    """Four batches an epoch: 8 random rows and 2 people x 2, in colours of their own."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % CLASSES
    pixels = torch.randint(0, 150, (N, 3, 8, 8), generator=generator)
    pixels[torch.arange(N), labels % 3] += 15 * (1 + labels[:, None, None])
    sampler = PairSampler(labels, random=12, identities=2, per_identity=2)
    return Batches(pixels.to(torch.uint8), labels, sampler=sampler, key="tiny", **more)


def config(**more) -> TrainConfig:
    return TrainConfig(**{"epochs": 3, "batch_size": 16, "lr": 0.1, "device": "cpu",
                          "checkpoint_every": 1, "share_every": 0,
                          "schedules": {"ekd.positive_weight": [0.02, 0.01]}} | more)
