"""ResNet-18: the residual unit, the pooled embedding, other sizes."""

import torch
import torch.nn.functional as F

from kdlab.models import ResNet18
from kdlab.models.resnet18 import Unit


def test_the_activation_comes_after_the_sum():
    """With silent convolutions only the shortcut is left, and what is negative is cut."""
    unit = Unit(1, 1, 1).eval()
    with torch.no_grad():
        unit.body[0].weight.zero_()
        unit.body[3].weight.zero_()
        y = unit(torch.tensor([-2.0, 3.0]).reshape(1, 1, 1, 2))
    assert y.flatten().tolist() == [0.0, 3.0]


def test_layers_stand_where_the_paper_has_them():
    """He et al., Table 1: 7x7 stride 2, pooling, then two units each of 64, 128, 256, 512."""
    with torch.device("meta"):
        model = ResNet18()
    units = [m for m in model.modules() if isinstance(m, Unit)]
    assert [u.body[3].out_channels for u in units] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [u.body[0].stride[0] for u in units] == [1, 1, 2, 1, 2, 1, 2, 1]
    assert model.stem[0].kernel_size == (7, 7) and model.stem[0].stride == (2, 2)


def test_embedding_is_the_mean_of_the_last_map_and_logits_are_linear_in_it():
    torch.manual_seed(0)
    model = ResNet18(5, input_size=64).eval()
    with torch.no_grad():
        out = model(torch.randn(2, 3, 64, 64))
        assert out.features[-1].shape == (2, 512, 2, 2)
        torch.testing.assert_close(out.embedding, out.features[-1].mean((2, 3)))
        torch.testing.assert_close(out.logits, F.linear(
            out.embedding, model.classifier.weight, model.classifier.bias))
    assert out.logits.shape == (2, 5)
