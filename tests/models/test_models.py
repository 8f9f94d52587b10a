"""What every network promises: counts, shapes, and a tail that finishes a forward pass."""

import pytest
import torch
from torch import nn

from kdlab.models import MODELS, IResNet

FIXED = {"dlib_resnet29": 128, "resnet18": 512, "shufflenet_v2": 1024, "cifar_cnn": 256}
CLASSIFIERS = {"resnet18": 1000, "shufflenet_v2": 1000, "cifar_cnn": 10}  # classes by default
LARGE = ["iresnet34", "iresnet50", "iresnet90", "iresnet100"]  # shapes and counts only
RUN = [name for name in MODELS if name not in LARGE]


@pytest.fixture(scope="module", params=RUN)
def ran(request):
    """A network in eval mode, two pictures and what it makes of them."""
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    x = torch.randn(2, 3, model.input_size, model.input_size)
    with torch.no_grad():
        return request.param, model, x, model(x)


@pytest.mark.parametrize("name, parameters", [
    # insightface's torch networks, counted from its released code
    ("iresnet18", 24_025_600), ("iresnet34", 34_139_328),
    ("iresnet50", 43_590_848), ("iresnet100", 65_156_160),
    ("iresnet90", 63_677_120),  # the 63.67 M of ShrinkTeaNet
    ("mobilefacenet", 1_199_488),  # the 1.2 M of EKD and AdaDistill
    ("mobilefacenet_r", 3_732_800),  # the 3.73 M of ShrinkTeaNet
    ("mobilenet_v1", 3_532_800),  # the 3.53 M of ShrinkTeaNet
    ("mobilenet_v2", 2_149_312),  # the 2.15 M of ShrinkTeaNet
    ("dlib_resnet29", 5_614_592),  # numbers in dlib's weight file
    ("resnet18", 11_689_512), ("shufflenet_v2", 2_278_604),  # torchvision's
    ("cifar_cnn", 814_122),  # MFD's released code
])
def test_has_the_published_parameter_count(name, parameters):
    with torch.device("meta"):
        model = MODELS[name]()
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name, size, parameters", [
    ("mobilefacenet", 256, 1_068_416), ("mobilefacenet", 128, 1_002_880),
    ("mobilenet_v1", 256, 3_400_960)])
def test_has_the_published_parameter_count_at_other_sizes(name, size, parameters):
    with torch.device("meta"):
        model = MODELS[name](embedding_size=size)
    assert sum(p.numel() for p in model.parameters()) == parameters


def multiply_adds(model: nn.Module) -> int:
    """Multiply-adds of the convolutions and linear layers on one picture."""
    total = 0

    def add(layer, _, out):
        nonlocal total
        total += out[0].numel() * layer.weight[0].numel()

    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(add)
    model(torch.empty(2, 3, model.input_size, model.input_size, device="meta"))
    return total


@pytest.mark.parametrize("name, millions", [
    ("iresnet18", 2610), ("iresnet34", 4460), ("iresnet50", 6309), ("iresnet90", 10934),
    ("iresnet100", 12090), ("mobilefacenet", 221.2), ("mobilenet_v1", 568)])
def test_costs_what_is_published(name, millions):
    with torch.device("meta"):
        model = MODELS[name]()
    tolerance = 0.5 if millions > 500 else 0.05  # the last printed digit
    assert multiply_adds(model) / 1e6 == pytest.approx(millions, abs=tolerance)


def test_laptop_networks_are_of_laptop_size():
    count = {name: sum(p.numel() for p in MODELS[name]().parameters())
             for name in ("ir_student", "ir_teacher")}
    assert 0.3e6 < count["ir_student"] <= 1e6
    assert 2.5e6 < count["ir_teacher"] < 3.5e6


@pytest.mark.parametrize("name", MODELS)
def test_shapes_are_what_the_attributes_say(name):
    size = FIXED.get(name, 192)
    with torch.device("meta"):
        model = MODELS[name](embedding_size=size)
        out = model(torch.empty(2, 3, model.input_size, model.input_size))
        later = [model.tail(f, i).embedding for i, f in enumerate(out.features, 1)]
    assert out.embedding.shape == (2, size) and model.embedding_size == size
    assert len(out.features) == len(model.stages) == len(model.channels)
    assert tuple(f.shape[1] for f in out.features) == tuple(model.channels)
    assert all(e.shape == (2, size) for e in later)
    if name in CLASSIFIERS:
        assert out.logits.shape == (2, CLASSIFIERS[name])
    else:
        assert out.logits is None


@pytest.mark.parametrize("names, sides", [
    (["ir_student", "ir_teacher"], [24, 12, 6, 3]),
    (["iresnet18", "iresnet34", "iresnet50", "iresnet90", "iresnet100", "mobilefacenet",
      "mobilefacenet_r", "mobilenet_v1", "mobilenet_v2"], [56, 28, 14, 7]),
    (["resnet18"], [44, 22, 11, 6]),
    (["shufflenet_v2"], [22, 11, 6, 6]),
    (["cifar_cnn"], [32, 16, 8]),
])
def test_maps_have_the_sizes_that_losses_pair(names, sides):
    for name in names:
        with torch.device("meta"):
            model = MODELS[name]()
            features = model(torch.empty(2, 3, model.input_size, model.input_size)).features
        assert [f.shape[-1] for f in features] == [f.shape[-2] for f in features] == sides, name


def test_tail_finishes_the_forward_pass(ran):
    _, model, _, out = ran
    assert out.embedding.isfinite().all() and out.embedding.std() > 0
    with torch.no_grad():
        for i in range(1, len(model.stages) + 1):
            rest = model.tail(out.features[i - 1], i)
            assert torch.equal(rest.embedding, out.embedding)
            assert rest.logits is out.logits is None or torch.equal(rest.logits, out.logits)
            assert all(map(torch.equal, rest.features, out.features[i:]))


def test_eval_mode_changes_nothing_and_looks_at_one_picture_at_a_time(ran):
    _, model, x, out = ran
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        alone = model(x[1:])
    assert (alone.embedding[0] - out.embedding[1]).norm() < 1e-4 * out.embedding[1].norm()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", [n for n in RUN if n not in ("dlib_resnet29", "iresnet18")])
def test_every_parameter_that_trains_gets_a_gradient(name):
    """dlib's network is not trained here, and iresnet18 is made of what ir_student is."""
    torch.manual_seed(0)
    model = MODELS[name]()
    out = model(torch.randn(4, 3, model.input_size, model.input_size))
    ends = [out.embedding] if out.logits is None else [out.embedding, out.logits]
    sum((end * torch.randn(end.shape)).sum() for end in ends).backward()
    for key, p in model.named_parameters():
        assert p.requires_grad == (p.grad is not None), key
        assert p.grad is None or (p.grad.isfinite().all() and p.grad.any()), key


def test_the_last_batch_norm_scale_of_an_iresnet_stays_one():
    last = MODELS["ir_student"](64).head[-1]
    assert not last.weight.requires_grad and bool((last.weight == 1).all())
    assert last.bias.requires_grad


def test_an_iresnets_convolutions_start_at_a_standard_deviation_of_a_tenth():
    torch.manual_seed(0)
    for conv in (m for m in MODELS["ir_teacher"](64).modules() if isinstance(m, nn.Conv2d)):
        assert conv.weight.std().item() == pytest.approx(0.1, abs=0.4 / conv.weight.numel() ** 0.5)


@pytest.mark.parametrize("name", MODELS)
def test_no_strided_1x1_convolution_has_8_channels_or_fewer(name):
    """torch 2.13 on CPU corrupts memory there."""
    with torch.device("meta"):
        convs = [m for m in MODELS[name]().modules() if isinstance(m, nn.Conv2d)]
    assert all(m.in_channels > 8 for m in convs if m.kernel_size == (1, 1) and m.stride != (1, 1))


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
    for name, size in FIXED.items():
        with pytest.raises(ValueError, match=f"{name}.* {size} dimensions, not 100"):
            MODELS[name](embedding_size=100)
    with pytest.raises(ValueError, match="16 channels or more"):
        IResNet((1, 1, 1, 1), (8, 16, 32, 64))
