"""Networks: each returns Output and has stages, channels and tail(features, stage).

A face network takes `embedding_size`; a classifier (resnet18, shufflenet_v2, cifar_cnn) takes
`num_classes` and fills `Output.logits`. Every one can be built without arguments.
"""

from .cifar_cnn import CifarCNN
from .dlib_resnet29 import DlibResNet29
from .iresnet import (
    IResNet,
    ir_student,
    ir_teacher,
    iresnet18,
    iresnet34,
    iresnet50,
    iresnet90,
    iresnet100,
)
from .mobilefacenet import MobileFaceNet, mobilefacenet_r
from .mobilenet import MobileNetV1, MobileNetV2
from .resnet18 import ResNet18
from .shufflenet_v2 import ShuffleNetV2

MODELS = {
    "iresnet18": iresnet18,
    "iresnet34": iresnet34,
    "iresnet50": iresnet50,
    "iresnet90": iresnet90,
    "iresnet100": iresnet100,
    "mobilefacenet": MobileFaceNet,
    "mobilefacenet_r": mobilefacenet_r,
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "dlib_resnet29": DlibResNet29,
    "ir_teacher": ir_teacher,
    "ir_student": ir_student,
    "resnet18": ResNet18,
    "shufflenet_v2": ShuffleNetV2,
    "cifar_cnn": CifarCNN,
}

__all__ = ["MODELS", "CifarCNN", "DlibResNet29", "IResNet", "MobileFaceNet", "MobileNetV1",
           "MobileNetV2", "ResNet18", "ShuffleNetV2"]
