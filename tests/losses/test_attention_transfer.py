"""AttentionTransfer: attention maps by loop and by hand, and what they do not see."""

import math

import pytest
import torch

from kdlab.losses.attention_transfer import AttentionTransfer, attention, attention_transfer
from kdlab.outputs import Output, Targets

LABELS = Targets(torch.arange(3))


def draw(seed, channels=(2, 4), sides=((3, 2), (2, 2))):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Output(normal(3, 5), features=tuple(
        normal(3, c, *side) for c, side in zip(channels, sides, strict=True)))


@pytest.fixture
def pair():
    return draw(0), draw(1, (3, 6))  # other channel numbers


def attention_by_loop(sample):
    c, h, w = sample.shape
    q = [sum(float(sample[k, y, x]) ** 2 for k in range(c)) / c for y in range(h) for x in range(w)]
    return [value / math.hypot(*q) for value in q]


def by_loop(student, teacher, half):
    total, count = 0.0, 0
    for mine, theirs in zip(student, teacher, strict=True):
        for a, b in zip(attention_by_loop(mine), attention_by_loop(theirs), strict=True):
            total, count = total + (a - b) ** 2, count + 1
    return total / count / (2 if half else 1)


@pytest.mark.parametrize("layer, names", [("last_map", {"last_map": 1}), (1, {"stage1": 0}),
                                          ("all", {"stage1": 0, "stage2": 1})])
@pytest.mark.parametrize("half", [True, False])
def test_the_formula_by_loop(pair, layer, names, half):
    student, teacher = pair
    terms = AttentionTransfer(7, layer, half=half)(student, teacher, LABELS)
    assert list(terms) == list(names)
    for name, place in names.items():
        expected = 7 * by_loop(student.features[place], teacher.features[place], half)
        assert terms[name].item() == pytest.approx(expected, rel=1e-9)


def test_hand_number_and_hand_gradient():
    """One channel, two positions. Student 1, 1: Q = (1, 1) / sqrt 2. Teacher 1, 0: Q = (1, 0).

    Difference squared: (1 - 1/sqrt 2)² + 1/2 = 2 - sqrt 2; mean over two, half: (2 - sqrt 2) / 4.
    Slope at the first entry: dQ = (1/2, -1/2) * 2x / sqrt 2 = (1, -1) / sqrt 2;
    half the mean of squares has the slope (Qs - Qt) . dQ / 2
    = ((1/sqrt 2 - 1) - 1/sqrt 2) / sqrt 2 / 2 = -1 / (2 sqrt 2).
    """
    s = torch.ones(1, 1, 1, 2, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([[[[1.0, 0.0]]]], dtype=torch.float64)
    value = attention_transfer(s, t)
    value.backward()
    slope = 1 / (2 * math.sqrt(2))
    assert value.item() == pytest.approx((2 - math.sqrt(2)) / 4)
    assert s.grad.flatten().tolist() == pytest.approx([-slope, slope])
    # the authors' form at their weight
    assert (1000 * attention_transfer(s, t, half=False)).item() == pytest.approx(
        1000 * (2 - math.sqrt(2)) / 2)


def test_only_the_place_counts():
    """Scale of a sample, sign of an entry, order and number of channels: all free."""
    s, t = (x.features[0] for x in (draw(0), draw(1)))
    value = attention_transfer(s, t)
    torch.testing.assert_close(attention_transfer(-3 * s, t), value)
    torch.testing.assert_close(attention_transfer(s.flip(1), torch.cat([t, t], 1)), value)
    torch.testing.assert_close(attention(s).norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert attention_transfer(s, 5 * s.abs()).item() == pytest.approx(0, abs=1e-30)
    assert attention_transfer(s.flip(3), s) > 0.001  # the places moved


@pytest.mark.parametrize("half", [True, False])
def test_gradcheck(pair, half):
    goal = pair[1].features[0]
    assert torch.autograd.gradcheck(lambda x: attention_transfer(x, goal, half),
                                    pair[0].features[0].requires_grad_())


@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-8, 1e-4])
def test_zero_and_tiny_maps_have_finite_gradients(size):
    x = torch.full((3, 4, 2, 2), size, requires_grad=True)
    goal = torch.rand(3, 4, 2, 2)
    goal[0] = 0
    value = attention_transfer(x, goal)
    value.backward()
    assert value.isfinite() and x.grad.isfinite().all()


def test_no_gradient_reaches_the_teacher(pair):
    student, teacher = ([f.requires_grad_() for f in o.features] for o in pair)
    sum(AttentionTransfer(layer="all")(*pair, LABELS).values()).backward()
    assert all(f.grad.any() for f in student) and all(f.grad is None for f in teacher)


def test_bf16_stays_near(pair):
    half = [Output(o.embedding.bfloat16(), features=tuple(f.bfloat16() for f in o.features))
            for o in pair]
    with torch.autocast("cpu", torch.bfloat16):
        value = AttentionTransfer()(*half, LABELS)["last_map"]
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(
        AttentionTransfer()(*pair, LABELS)["last_map"].item(), rel=2e-2)


def test_defaults_are_mfds():
    loss = AttentionTransfer()
    assert (loss.weight, loss.layer, loss.half) == (1, "last_map", True)
    assert loss.needs == {"features"}


def test_wrong_input_is_refused_in_words(pair):
    student, teacher = pair
    broken = teacher._replace(features=tuple(x / 0 for x in teacher.features))
    point = draw(0, sides=((3, 2), (1, 1)))
    for loss, arguments, message in (
        (AttentionTransfer(), (student, None, LABELS), "AttentionTransfer needs a teacher's feat"),
        (AttentionTransfer(), (student, Output(teacher.embedding), LABELS), "cache of embeddings"),
        (AttentionTransfer(1, 1), (student, draw(1, sides=((3, 3), (2, 2))), LABELS),
         "stage 1 is 3 x 2 in the student and 3 x 3 in the teacher"),
        (AttentionTransfer(), (point, point, LABELS), "last_map has one position"),
        (AttentionTransfer(layer=3), (student, teacher, LABELS), "networks have 2 stages"),
        (AttentionTransfer(), (student, broken, LABELS), "3 of 3 teacher maps"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(*arguments)
    with pytest.raises(ValueError, match="AttentionTransfer: layer must be one of last_map, all"):
        AttentionTransfer(layer="embedding")
