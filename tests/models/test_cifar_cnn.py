"""MFD's CIFAR network: what its maps and its embedding are."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdlab.models import CifarCNN


def test_is_the_six_convolutions_and_two_linear_layers_in_order():
    """A transcription in eval mode: pairs of conv + ReLU, pooling by 2, 256, classes."""
    torch.manual_seed(0)
    model = CifarCNN().eval()
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    hidden, last = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert [m.out_channels for m in convs] == [32, 32, 64, 64, 128, 128]
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        out = model(x)
        maps = []
        for first, second in zip(convs[::2], convs[1::2], strict=True):
            x = F.relu(F.conv2d(x, first.weight, first.bias, padding=1))
            x = F.relu(F.conv2d(x, second.weight, second.bias, padding=1))
            maps.append(x)  # before pooling: attention transfer reads the last, 128 x 8 x 8
            x = F.max_pool2d(x, 2)
        embedding = F.relu(F.linear(x.flatten(1), hidden.weight, hidden.bias))
        torch.testing.assert_close(out.features, tuple(maps))
        torch.testing.assert_close(out.embedding, embedding)
        torch.testing.assert_close(out.logits, F.linear(embedding, last.weight, last.bias))
    assert out.features[-1].shape == (2, 128, 8, 8) and out.embedding.shape == (2, 256)


def test_dropout_follows_every_pooling_and_only_trains():
    torch.manual_seed(0)
    model, x = CifarCNN(), torch.rand(2, 3, 32, 32)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.25] * 3
    with torch.no_grad():
        first, second = model(x), model(x)
        assert torch.equal(first.features[0], second.features[0])  # nothing is dropped before it
        assert not torch.equal(first.features[1], second.features[1])
        assert not torch.equal(first.embedding, second.embedding)
        model.eval()
        assert torch.equal(model(x).embedding, model(x).embedding)


def test_the_texts_second_hidden_layer_is_an_option():
    model = CifarCNN(7, hidden=(512, 64))
    out = model(torch.rand(2, 3, 32, 32))
    assert out.embedding.shape == (2, 64) and model.embedding_size == 64
    assert out.logits.shape == (2, 7) and (out.embedding >= 0).all()
    # convolutions 287,008 [ours, by hand: 9ab + b each], then 2048-512-64-7 with biases
    assert sum(p.numel() for p in model.parameters()) == (
        287_008 + 2048 * 512 + 512 + 512 * 64 + 64 + 64 * 7 + 7)


def test_what_it_cannot_be_is_refused_in_words():
    with pytest.raises(ValueError, match=r"256 dimensions, not 128; set hidden=\(128,\)"):
        CifarCNN(embedding_size=128)
    assert CifarCNN(hidden=(128,), embedding_size=128).embedding_size == 128
    with pytest.raises(ValueError, match="needs a hidden layer"):
        CifarCNN(hidden=())
    with pytest.raises(ValueError, match=r"takes \(B, 3, 32, 32\), got \(2, 3, 28, 28\)"):
        CifarCNN()(torch.rand(2, 3, 28, 28))
