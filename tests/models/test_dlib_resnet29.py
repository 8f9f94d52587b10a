"""dlib's odd corners, on numbers small enough to see."""

import torch
import torch.nn.functional as F

from kdlab.models.dlib_resnet29 import Affine, DlibResNet29, Unit


def test_affine_scales_and_shifts_the_convolution():
    layer = Affine(1, 1, 1)
    with torch.no_grad():
        layer.conv.weight.fill_(2.0)
        layer.conv.bias.fill_(1.0)
        layer.scale.fill_(3.0)
        layer.shift.fill_(-4.0)
        assert layer(torch.full((1, 1, 1, 1), 5.0)).item() == 3 * (2 * 5 + 1) - 4


def test_a_unit_going_down_pads_the_shortcut_with_zero_channels():
    """With silent convolutions only the shortcut is left: 2x2 means, then zeros."""
    unit = Unit(1, 2, down=True)
    with torch.no_grad():
        for p in unit.parameters():
            p.zero_()
        x = torch.arange(16.0).reshape(1, 1, 4, 4)
        y = unit(x)
    assert y.shape == (1, 2, 2, 2)  # the strided convolution leaves 1 x 1: it is the one padded
    assert y[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert not y[0, 1].any()


def test_layers_stand_in_dlibs_order_with_29_convolutions():
    model = DlibResNet29()
    layers = [m for m in model.modules() if isinstance(m, Affine)]
    assert len(layers) == 29
    widths = [m.conv.out_channels for m in layers]
    assert widths == [32] * 7 + [64] * 8 + [128] * 6 + [256] * 8
    assert layers[0].conv.kernel_size == (7, 7)


def test_the_embedding_is_the_linear_layer_of_the_mean_map():
    torch.manual_seed(0)
    model = DlibResNet29().eval()
    with torch.no_grad():
        out = model(torch.randn(1, 3, 150, 150))
        expected = F.linear(out.features[-1].mean((2, 3)), model.head[2].weight)
    torch.testing.assert_close(out.embedding, expected)
