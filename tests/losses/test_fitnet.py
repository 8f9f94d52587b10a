"""FitNet: the hint by loop and by hand, its layers, its regressor, and the two-stage run."""

import copy

import pytest
import torch
from torch import nn

from kdlab.data.batches import Batch
from kdlab.losses.arcface import ArcFace
from kdlab.losses.fitnet import FitNet, hint
from kdlab.outputs import Output, Targets
from kdlab.train import TrainConfig, train

LABELS = Targets(torch.arange(3))


def draw(seed, channels=(2, 4), embedding=5):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Output(normal(3, embedding), features=tuple(
        normal(3, c, side, side) for c, side in zip(channels, (3, 2), strict=True)))


@pytest.fixture
def pair():
    return draw(0), draw(1)


def by_loop(student, teacher, reduction, half):
    total, count = 0.0, 0
    for u, v in zip(teacher, student, strict=True):
        squares = [(a - b) ** 2 for a, b in zip(u.flatten().tolist(), v.flatten().tolist(),
                                                strict=True)]
        total += sum(squares) / (len(squares) if reduction == "mean" else 1)
        count += 1
    return total / count / (2 if half else 1)


@pytest.mark.parametrize("layer, name", [("last_map", "last_map"), (1, "stage1"), (2, "stage2"),
                                         ("embedding", "embedding")])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("half", [True, False])
def test_the_hint_by_loop(pair, layer, name, reduction, half):
    student, teacher = pair
    terms = FitNet(3, layer, reduction=reduction, half=half)(student, teacher, LABELS)
    mine, theirs = {"last_map": (student.features[1], teacher.features[1]),
                    1: (student.features[0], teacher.features[0]),
                    2: (student.features[1], teacher.features[1]),
                    "embedding": (student.embedding, teacher.embedding)}[layer]
    assert list(terms) == [name]
    assert terms[name].item() == pytest.approx(3 * by_loop(mine, theirs, reduction, half), rel=1e-9)


def test_hand_number_and_hand_gradient():
    """Entries 3 and 1 against 1 and 1: squares 4 and 0; mean 2, half 1. Slope (3 - 1) / 2 = 1."""
    v = torch.tensor([[[[3.0, 1.0]]]], dtype=torch.float64, requires_grad=True)
    value = hint(v, torch.ones_like(v))
    value.backward()
    assert value.item() == 1 and v.grad.flatten().tolist() == [1, 0]
    # FitNets: 1/2 * (4 + 0) = 2;  TFace: no half, 2
    assert hint(v, torch.ones_like(v), "sum").item() == 2
    assert hint(v, torch.ones_like(v), half=False).item() == 2


def test_the_half_goes_with_maps_and_not_with_embeddings(pair):
    student, teacher = pair
    value = FitNet(layer="embedding")(student, teacher, LABELS)["embedding"]
    torch.testing.assert_close(value, nn.functional.mse_loss(student.embedding, teacher.embedding))
    value = FitNet()(student, teacher, LABELS)["last_map"]
    torch.testing.assert_close(
        value, nn.functional.mse_loss(student.features[-1], teacher.features[-1]) / 2)


def test_a_regressor_lifts_the_students_channels_by_loop():
    student, teacher = draw(0, (2, 3)), draw(1, (2, 4))
    torch.manual_seed(0)
    loss = FitNet(channels=(3, 4)).double()
    assert loss.regressor.bias is None and loss.regressor.kernel_size == (1, 1)
    weight = loss.regressor.weight[:, :, 0, 0]
    lifted = torch.zeros(3, 4, 2, 2, dtype=torch.float64)
    for b in range(3):
        for c in range(4):
            for y in range(2):
                for x in range(2):
                    lifted[b, c, y, x] = sum(weight[c, k] * student.features[1][b, k, y, x]
                                             for k in range(3))
    value = loss(student, teacher, LABELS)["last_map"]
    assert value.item() == pytest.approx(
        by_loop(lifted.detach(), teacher.features[1], "mean", True), rel=1e-9)
    value.backward()
    assert loss.regressor.weight.grad.any()
    fresh = FitNet(channels=(3, 4)).double()
    fresh.load_state_dict(loss.state_dict())
    assert torch.equal(fresh(student, teacher, LABELS)["last_map"], value)


def test_a_perfect_student_costs_nothing_and_the_teacher_learns_nothing(pair):
    _, teacher = pair
    leaf = teacher.features[1].clone().requires_grad_()
    student = teacher.features[1].clone().requires_grad_()
    value = FitNet()(teacher._replace(features=(teacher.features[0], student)),
                     teacher._replace(features=(teacher.features[0], leaf)), LABELS)["last_map"]
    value.backward()
    assert value.item() == 0 and not student.grad.any() and leaf.grad is None


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradcheck(pair, reduction):
    goal = pair[1].features[1]
    assert torch.autograd.gradcheck(lambda x: hint(x, goal, reduction),
                                    pair[0].features[1].requires_grad_())


def test_zero_maps_have_finite_gradients():
    x = torch.zeros(3, 4, 2, 2, requires_grad=True)
    zero = torch.zeros_like(x)
    value = FitNet()(Output(torch.ones(3, 5), features=(x,)),
                     Output(torch.ones(3, 5), features=(zero,)), LABELS)["last_map"]
    value.backward()
    assert value.item() == 0 and x.grad.isfinite().all()


def test_bf16_stays_near():
    student, teacher = draw(0, (2, 3)), draw(1, (2, 4))
    torch.manual_seed(0)
    loss = FitNet(channels=(3, 4))
    half = [Output(o.embedding.bfloat16(), features=tuple(f.bfloat16() for f in o.features))
            for o in (student, teacher)]
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(*half, LABELS)["last_map"]
    assert value.dtype == torch.float32
    exact = copy.deepcopy(loss).double()(student, teacher, LABELS)["last_map"]
    assert value.item() == pytest.approx(exact.item(), rel=2e-2)


def test_what_it_needs_follows_the_layer():
    assert FitNet().needs == FitNet(layer=2).needs == {"features"}
    assert FitNet(layer="embedding").needs == {"embedding"}
    assert FitNet().weight == 1


def test_wrong_input_is_refused_in_words(pair):
    student, teacher = pair
    nan = student._replace(features=tuple(x * torch.nan for x in student.features))
    small = teacher._replace(features=(teacher.features[0], teacher.features[1][:, :, :1]))
    for loss, arguments, message in (
        (FitNet(), (student, None, LABELS), "FitNet needs a teacher's feature maps"),
        (FitNet(), (student, Output(teacher.embedding), LABELS), "a cache of embeddings has none"),
        (FitNet(), (student, draw(1, (2, 6)), LABELS), r"4 channels.*6; set channels=\(4, 6\)"),
        (FitNet(), (student, small, LABELS), "stage 2 is 2 x 2 in the student and 1 x 2"),
        (FitNet(layer=3), (student, teacher, LABELS), "layer=3, but the networks have 2 stages"),
        (FitNet(channels=(3, 4)), (student, teacher, LABELS),
         r"built for \(3, 4\) channels.*got maps of \(4, 4\)"),
        (FitNet(layer="embedding"), (student, draw(1, embedding=6), LABELS), r"\(3, 6\)"),
        (FitNet(layer="embedding"), (student, None, LABELS), "needs a teacher's embedding"),
        (FitNet(), (nan, teacher, LABELS), "3 of 3 student maps"),
        (FitNet(), (student, teacher, Targets(torch.arange(4))), "3 student maps but labels"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(*arguments)
    empty = Output(torch.zeros(0, 5), features=(torch.zeros(0, 4, 2, 2),))
    with pytest.raises(ValueError, match="the batch is empty"):
        FitNet()(empty, empty, Targets(torch.zeros(0, dtype=torch.int64)))
    for options, message in (({"layer": "all"}, "layer must be one of last_map, embedding or"),
                             ({"layer": 0}, "from 1, not 0"), ({"layer": True}, "not True"),
                             ({"reduction": "batchmean"}, "reduction must be"),
                             ({"layer": "embedding", "channels": (3, 4)}, "go with a map")):
        with pytest.raises(ValueError, match=message):
            FitNet(**options)


class Small(nn.Module):
    """One convolution and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 16, 3), nn.Linear(16, 8)

    def forward(self, x):
        x = self.conv(x).relu()
        return Output(self.linear(x.mean((2, 3))), features=(x,))


class TwoSteps:
    """Batches of 8 noise pictures."""

    def __len__(self):
        return 2

    def epoch(self, epoch):
        for step in range(2):
            generator = torch.Generator().manual_seed(2 * epoch + step)
            yield Batch(torch.randn(8, 3, 6, 6, generator=generator),
                        Targets(torch.arange(8) % 4), torch.arange(8), torch.zeros(8).bool())


def test_two_stages_are_two_calls_of_train(monkeypatch):
    """The hint stage moves what lies before the hint and nothing behind it; then the rest learns.
    """
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    torch.manual_seed(0)
    student, teacher = Small(), Small()
    start = copy.deepcopy(student)
    config = TrainConfig(epochs=2, batch_size=8, device="cpu")
    stage1 = config.model_copy(update={"epochs": 1})
    history = train(stage1, student, {"fitnet": FitNet()}, TwoSteps(), teacher)
    assert history.rows[-1]["fitnet/last_map"] > 0
    assert not torch.equal(student.conv.weight, start.conv.weight)
    assert torch.equal(student.linear.weight, start.linear.weight)
    stage2 = config.model_copy(update={"schedules": {"fitnet.weight": [1, 0]}})
    losses = {"arc": ArcFace(8, 4), "fitnet": FitNet()}
    last = train(stage2, student, losses, TwoSteps(), teacher).rows[-1]
    assert last["fitnet/last_map"] == 0 < last["arc/softmax"]
    assert not torch.equal(student.linear.weight, start.linear.weight)
