"""ShuffleNetV2: the shuffle and the split, on numbers small enough to see."""

import torch
import torch.nn.functional as F

from kdlab.models import ShuffleNetV2
from kdlab.models.shufflenet_v2 import Unit, shuffle


def test_the_halves_take_turns():
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert shuffle(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_half_of_the_channels_pass_a_unit_untouched():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 5)
    y = Unit(8, 8)(x)
    assert torch.equal(y[:, ::2], x[:, :4])
    assert not torch.equal(y[:, 1::2], x[:, 4:])


def test_a_unit_going_down_halves_the_map_and_both_halves_see_every_channel():
    torch.manual_seed(0)
    unit = Unit(6, 20, down=True)
    for half in (0, 1):
        x = torch.randn(2, 6, 8, 8, requires_grad=True)
        y = unit(x)
        assert y.shape == (2, 20, 4, 4)
        (y[:, half::2] * torch.randn(2, 10, 4, 4)).sum().backward()
        assert x.grad.abs().sum((0, 2, 3)).min() > 0


def test_units_are_four_eight_four():
    """Ma et al., Table 5: stages of 4, 8, 4 units, 116, 232, 464 channels; then 1024."""
    with torch.device("meta"):
        model = ShuffleNetV2()
    assert [len(stage) for stage in model.stages][:3] == [4, 8, 4]
    assert model.channels == (116, 232, 464, 1024)


def test_embedding_is_the_mean_of_the_last_map_and_logits_are_linear_in_it():
    torch.manual_seed(0)
    model = ShuffleNetV2(5, input_size=64).eval()
    with torch.no_grad():
        out = model(torch.randn(2, 3, 64, 64))
        assert out.features[-1].shape == (2, 1024, 2, 2)
        torch.testing.assert_close(out.embedding, out.features[-1].mean((2, 3)))
        torch.testing.assert_close(out.logits, F.linear(
            out.embedding, model.classifier.weight, model.classifier.bias))
