"""What MobileNet's face forms keep of insightface's."""

import pytest
import torch
from torch import nn

from kdlab.models import MobileFaceNet, MobileNetV1, MobileNetV2
from kdlab.models.mobilefacenet import Bottleneck


def test_v1s_batch_norm_scales_stay_one_but_that_of_the_global_convolution():
    with torch.device("meta"):
        model = MobileNetV1()
    trained = [name for name, module in model.named_modules()
               if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))
               and module.weight.requires_grad]
    assert trained == ["head.0.1"]
    fixed = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    # stem 32; depthwise 32+64+128+128+256+256+5*512+512+1024; 1x1 64+128+128+256+256+6*512+2*1024
    assert fixed == 32 + 4960 + 5952 + 512  # and the last, of the embedding


def test_v1_has_thirteen_pairs_of_which_four_stride():
    with torch.device("meta"):
        model = MobileNetV1()
    depthwise = [m for m in model.stages.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [m.in_channels for m in depthwise] == [32, 64, 128, 128, 256, 256, *[512] * 6, 1024]
    assert [m.stride[0] for m in depthwise] == [1, 2, 1, 2, 1, 2, *[1] * 5, 2, 1]
    last = model.head[0][0]
    assert last.groups == 512 and tuple(last.weight.shape) == (512, 2, 7, 7)


def test_v2_is_the_papers_table_of_inverted_residuals():
    """Sandler et al., Table 2: (channels, repeats) 24 2, 32 3, 64 4, 96 3, 160 3, 320 1."""
    with torch.device("meta"):
        model = MobileNetV2()
    blocks = [m for m in model.modules() if isinstance(m, Bottleneck)]
    widths = [b.body[2][0].out_channels for b in blocks]
    assert widths == [24] * 2 + [32] * 3 + [64] * 4 + [96] * 3 + [160] * 3 + [320]
    assert all(b.body[0][0].out_channels == 6 * b.body[0][0].in_channels for b in blocks)
    assert [b.residual for b in blocks] == [False, True, False, True, True, False, True, True, True,
                                            False, True, True, False, True, True, False]


@pytest.mark.parametrize("network", [MobileNetV1, MobileNetV2, MobileFaceNet])
def test_convolutions_start_at_kaimings_fan_out_scale(network):
    torch.manual_seed(0)
    for conv in (m for m in network().modules() if isinstance(m, nn.Conv2d)):
        count, fan_out = conv.weight.numel(), conv.out_channels * conv.kernel_size[0] ** 2
        wanted = (2 / fan_out) ** 0.5
        # four standard errors of a normal sample's standard deviation
        assert conv.weight.std().item() == pytest.approx(wanted, rel=4 / (2 * count) ** 0.5)
