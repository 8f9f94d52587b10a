"""Losses: one paper, one file. loss(student, teacher, targets) -> named, weighted scalars."""

from .adadistill import AdaDistill, ArcDistill, CosDistill
from .adversarial_debiasing import AdversarialDebiasing
from .arcface import ArcFace
from .attention_transfer import AttentionTransfer
from .cckd import CCKD
from .cosface import CosFace
from .cross_entropy import CrossEntropy
from .darkrank import DarkRank
from .ekd import EKD
from .feature_l2 import FeatureL2
from .fitnet import FitNet
from .hinton_kd import HintonKD
from .margindistillation import MarginDistillation
from .mfd import MFD
from .nst import NST
from .refo import FeatureOnly, ReverseDistillation
from .rkd import RKD
from .shrinkteanet import ShrinkTeaNet
from .sp import SP
from .tripletdistillation import TripletDistillation

LOSSES = {loss.__name__: loss for loss in (
    ArcFace, CosFace, CrossEntropy,
    EKD, AdaDistill, ArcDistill, CosDistill, ShrinkTeaNet, FeatureOnly, ReverseDistillation,
    HintonKD, FitNet, AttentionTransfer, NST, FeatureL2,
    RKD, SP, CCKD, DarkRank, TripletDistillation, MarginDistillation,
    MFD, AdversarialDebiasing,
)}

__all__ = ["LOSSES", *LOSSES]
