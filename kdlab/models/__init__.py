"""Networks: each returns Output and has stages, channels and tail(features, stage)."""

from .dlib_resnet29 import DlibResNet29
from .iresnet import (
    IResNet,
    ir_student,
    ir_teacher,
    iresnet18,
    iresnet34,
    iresnet50,
    iresnet100,
)
from .mobilefacenet import MobileFaceNet

MODELS = {
    "iresnet18": iresnet18,
    "iresnet34": iresnet34,
    "iresnet50": iresnet50,
    "iresnet100": iresnet100,
    "mobilefacenet": MobileFaceNet,
    "dlib_resnet29": DlibResNet29,
    "ir_teacher": ir_teacher,
    "ir_student": ir_student,
}

__all__ = ["MODELS", "DlibResNet29", "IResNet", "MobileFaceNet"]
