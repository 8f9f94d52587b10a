"""Losses: one paper, one file. loss(student, teacher, targets) -> named, weighted scalars."""

from .adadistill import AdaDistill
from .arcface import ArcFace
from .refo import FeatureOnly, ReverseDistillation

LOSSES = {
    "ArcFace": ArcFace,
    "AdaDistill": AdaDistill,
    "FeatureOnly": FeatureOnly,
    "ReverseDistillation": ReverseDistillation,
}

__all__ = ["LOSSES", "AdaDistill", "ArcFace", "FeatureOnly", "ReverseDistillation"]
