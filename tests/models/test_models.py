"""What every network promises: counts, shapes, and a tail that finishes a forward pass."""

import pytest
import torch

from kdlab.models import MODELS, IResNet

FIXED = {"dlib_resnet29": 128}  # embedding sizes that cannot be chosen
SMALL = ["mobilefacenet", "dlib_resnet29", "ir_teacher", "ir_student"]  # quick enough to run


@pytest.mark.parametrize("name, parameters", [
    # insightface's torch networks, counted from its released code
    ("iresnet18", 24_025_600), ("iresnet34", 34_139_328),
    ("iresnet50", 43_590_848), ("iresnet100", 65_156_160),
    ("mobilefacenet", 1_199_488),  # the 1.2 M of EKD and AdaDistill
    ("dlib_resnet29", 5_614_592),  # numbers in dlib's weight file
])
def test_has_the_published_parameter_count(name, parameters):
    with torch.device("meta"):
        model = MODELS[name]()
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_laptop_networks_are_of_laptop_size():
    count = {name: sum(p.numel() for p in MODELS[name]().parameters())
             for name in ("ir_student", "ir_teacher")}
    assert 0.3e6 < count["ir_student"] <= 1e6
    assert 2.5e6 < count["ir_teacher"] < 3.5e6


@pytest.mark.parametrize("name", MODELS)
def test_shapes_are_what_the_attributes_say(name):
    size = FIXED.get(name, 256)
    with torch.device("meta"):
        model = MODELS[name](embedding_size=size)
        out = model(torch.empty(2, 3, model.input_size, model.input_size))
    assert out.embedding.shape == (2, size) and model.embedding_size == size
    assert out.logits is None
    assert len(out.features) == len(model.stages) == len(model.channels)
    assert tuple(f.shape[1] for f in out.features) == tuple(model.channels)


def test_students_leave_maps_of_their_teachers_sizes():
    with torch.device("meta"):
        sides = {n: [f.shape[-1] for f in m(torch.empty(2, 3, m.input_size, m.input_size)).features]
                 for n, m in ((n, MODELS[n]()) for n in MODELS)}
    assert sides["ir_student"] == sides["ir_teacher"] == [24, 12, 6, 3]
    assert sides["mobilefacenet"] == sides["iresnet50"] == [56, 28, 14, 7]


@pytest.mark.parametrize("name", SMALL)
def test_tail_finishes_the_forward_pass(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    x = torch.randn(2, 3, model.input_size, model.input_size)
    with torch.no_grad():
        out = model(x)
        assert out.embedding.isfinite().all() and out.embedding.std() > 0
        for i in range(1, len(model.stages) + 1):
            rest = model.tail(out.features[i - 1], i)
            assert torch.equal(rest.embedding, out.embedding)
            assert all(map(torch.equal, rest.features, out.features[i:]))


@pytest.mark.parametrize("name", ["mobilefacenet", "ir_teacher", "ir_student"])
def test_every_parameter_gets_a_gradient(name):
    torch.manual_seed(0)
    model = MODELS[name](embedding_size=32)
    x = torch.randn(4, 3, model.input_size, model.input_size)
    out = model(x)
    (out.embedding * torch.randn(4, 32)).sum().backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())


def test_the_last_batch_norm_scale_of_an_iresnet_stays_one():
    last = MODELS["ir_student"](64).head[-1]
    assert not last.weight.requires_grad and bool((last.weight == 1).all())
    assert last.bias.requires_grad


def test_channels_last_gives_the_same_embedding():
    torch.manual_seed(0)
    model = MODELS["ir_student"](64).eval()
    x = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        plain = model(x).embedding
        other = model.to(memory_format=torch.channels_last)(
            x.contiguous(memory_format=torch.channels_last)).embedding
    assert (plain - other).norm() < 1e-4 * plain.norm()


def test_state_dict_round_trip():
    torch.manual_seed(0)
    first, second = MODELS["ir_student"](64), MODELS["ir_student"](64)
    x = torch.randn(4, 3, 48, 48)
    first(x)  # moves the running statistics
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert torch.equal(first.eval()(x).embedding, second.eval()(x).embedding)


def test_wrong_pictures_and_stages_are_refused_in_words():
    model = MODELS["ir_student"](64)
    with pytest.raises(ValueError, match=r"takes \(B, 3, 48, 48\), got \(2, 3, 112, 112\)"):
        model(torch.zeros(2, 3, 112, 112))
    with pytest.raises(ValueError, match="stage must be 0 to 4, got 5"):
        model.tail(torch.zeros(2, 16, 24, 24), 5)
    with pytest.raises(ValueError, match="stage 2 leaves 32 channels, got a map with 16"):
        model.tail(torch.zeros(2, 16, 24, 24), 2)
    with pytest.raises(ValueError, match="128 dimensions, not 512"):
        MODELS["dlib_resnet29"](512)
    with pytest.raises(ValueError, match="16 channels or more"):
        IResNet((1, 1, 1, 1), (8, 16, 32, 64))
