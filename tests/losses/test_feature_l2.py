"""FeatureL2: equation 7 with the squared distance, by loop and by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from kdlab.losses.feature_l2 import FeatureL2, feature_l2
from kdlab.outputs import Output, Targets

LABELS = Targets(torch.arange(3))
MINE, THEIRS = (2, 3), (3, 4)


def draw(seed, channels, embedding=5):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Output(normal(3, embedding), features=tuple(
        normal(3, c, side, side) for c, side in zip(channels, (3, 2), strict=True)))


@pytest.fixture
def pair():
    return draw(0, MINE), draw(1, THEIRS)


def build(**options):
    torch.manual_seed(0)
    loss = FeatureL2(MINE, THEIRS, **options).double()
    for module in loss.lifts:
        module[1].running_mean.normal_()
        module[1].running_var.uniform_(0.5, 2)
        nn.init.normal_(module[1].weight)
    return loss


def distance_by_loop(module, student, teacher):
    """Sum over elements of (teacher - lifted student)², mean over samples; batch norm in eval."""
    convolution, norm = copy.deepcopy(module).requires_grad_(False)
    total = 0.0
    for row in range(3):
        for c in range(teacher.shape[1]):
            scale = float(norm.weight[c]) / math.sqrt(float(norm.running_var[c]) + norm.eps)
            for y in range(teacher.shape[2]):
                for x in range(teacher.shape[3]):
                    value = sum(float(convolution.weight[c, k, 0, 0] * student[row, k, y, x])
                                for k in range(student.shape[1]))
                    value = (value - float(norm.running_mean[c])) * scale + float(norm.bias[c])
                    total += (float(teacher[row, c, y, x]) - value) ** 2
    return total / 3


@pytest.mark.parametrize("halved, factors", [(True, (0.5, 1)), (False, (1, 1))])
@pytest.mark.parametrize("last", ["map", "embedding"])
def test_equation_7_by_loop(pair, halved, factors, last):
    student, teacher = pair
    loss = build(weight=0.2, halved=halved, last=last).eval()
    terms = loss(student, teacher, LABELS)
    assert list(terms) == ["stage1", {"map": "stage2", "embedding": "embedding"}[last]]
    expected = [distance_by_loop(module, s, t) for module, s, t in zip(
        loss.lifts, student.features, teacher.features, strict=False)]
    if last == "embedding":
        rows = zip(student.embedding.tolist(), teacher.embedding.tolist(), strict=True)
        expected.append(sum((a - b) ** 2 for x, y in rows
                            for a, b in zip(x, y, strict=True)) / 3)
    for value, factor, known in zip(terms.values(), factors, expected, strict=True):
        assert value.item() == pytest.approx(0.2 * factor * known, rel=1e-9)


def test_hand_number_and_hand_gradient():
    """Two samples, entries (1, 2) and (0, 0) against zeros: (1 + 4 + 0) / 2; slope 2 x / 2 = x."""
    x = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]], dtype=torch.float64, requires_grad=True)
    value = feature_l2(x, torch.zeros_like(x))
    value.backward()
    assert value.item() == 2.5 and torch.equal(x.grad, x.detach())


def test_a_perfect_lift_costs_nothing_and_length_counts():
    """Unlike the angular loss: twice the teacher's map is as wrong as none."""
    _, teacher = draw(0, MINE), draw(1, THEIRS)
    loss = FeatureL2(THEIRS, THEIRS).double().eval()
    for module in loss.lifts:
        nn.init.dirac_(module[0].weight)
        module[1].eps = 0.0
    values = {}
    for factor in (0, 1, 2):
        student = teacher._replace(features=tuple(factor * f for f in teacher.features))
        values[factor] = torch.stack([*loss(student, teacher, LABELS).values()])
    assert values[1].max() < 1e-25
    torch.testing.assert_close(values[0], values[2])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("last", ["map", "embedding"])
def test_gradcheck(pair, training, last):
    student, teacher = pair
    loss = build(last=last, weight=1).train(training)
    leaves = [x.requires_grad_() for x in (student.embedding, *student.features)]

    def total(embedding, *features):
        return sum(loss(Output(embedding, features=features), teacher, LABELS).values())

    assert torch.autograd.gradcheck(total, leaves)


def test_lifts_learn_and_the_teacher_does_not(pair):
    student, teacher = pair
    for f in (*student.features, *teacher.features):
        f.requires_grad_()
    loss = build()
    sum(loss(student, teacher, LABELS).values()).backward()
    assert all(f.grad.any() for f in student.features)
    assert all(f.grad is None for f in teacher.features)
    assert all(module[0].weight.grad.any() for module in loss.lifts)


def test_state_moves_in_training_only_and_is_saved(pair):
    student, teacher = pair
    loss = build().eval()
    before = copy.deepcopy(loss.state_dict())
    loss(student, teacher, LABELS)
    assert all(torch.equal(loss.state_dict()[key], before[key]) for key in before)
    loss.train()(student, teacher, LABELS)
    assert not torch.equal(loss.lifts[0][1].running_mean, before["lifts.0.1.running_mean"])
    fresh = FeatureL2(MINE, THEIRS).double()
    fresh.load_state_dict(loss.state_dict())
    one, other = (x.eval()(student, teacher, LABELS) for x in (loss, fresh))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("training", [False, True])
def test_zero_maps_have_finite_gradients(training):
    zero = Output(torch.zeros(3, 5), features=(
        torch.zeros(3, 2, 3, 3, requires_grad=True), torch.zeros(3, 3, 2, 2, requires_grad=True)))
    goal = Output(torch.zeros(3, 5), features=(torch.zeros(3, 3, 3, 3), torch.zeros(3, 4, 2, 2)))
    terms = FeatureL2(MINE, THEIRS).train(training)(zero, goal, LABELS)
    sum(terms.values()).backward()
    assert all(t.isfinite() for t in terms.values())
    assert all(f.grad.isfinite().all() for f in zero.features)


def test_bf16_stays_near(pair):
    loss = build()
    half = [Output(o.embedding.bfloat16(), features=tuple(f.bfloat16() for f in o.features))
            for o in pair]
    with torch.autocast("cpu", torch.bfloat16):
        terms = copy.deepcopy(loss).float()(*half, LABELS)
    for name, exact in loss(*pair, LABELS).items():
        assert terms[name].dtype == torch.float32
        assert terms[name].item() == pytest.approx(exact.item(), rel=2e-2)


def test_defaults_are_the_papers():
    loss = FeatureL2(MINE, THEIRS)
    assert (loss.weight, loss.halved, len(loss.lifts)) == (0.001, True, 2)
    assert loss.needs == {"features"}
    loss = FeatureL2(MINE, THEIRS, last="embedding")
    assert loss.needs == {"features", "embedding"} and len(loss.lifts) == 1


def test_wrong_input_is_refused_in_words(pair):
    student, teacher = pair
    loss = FeatureL2(MINE, THEIRS, last="embedding").double()
    narrow = teacher._replace(features=(teacher.features[0][..., :2], teacher.features[1]))
    for arguments, message in (
        ((student, None, LABELS), "FeatureL2 needs a teacher's feature maps"),
        ((student, Output(teacher.embedding), LABELS), "a cache of embeddings has none"),
        ((student, narrow, LABELS), "stage 1 is 3 x 3 in the student and 3 x 2 in the teacher"),
        ((student, draw(1, (5, 4)), LABELS), "stage 1 was built for 2.*3 of the teacher, got"),
        ((student, draw(1, THEIRS, 6), LABELS), r"teacher's \(3, 6\)"),
        ((Output(student.embedding, features=student.features[:1]),
          Output(teacher.embedding, features=teacher.features[:1]), LABELS), "2 stages.*have 1"),
        ((student._replace(embedding=student.embedding * torch.nan), teacher, LABELS),
         "3 of 3 student"),
        ((student, teacher._replace(embedding=teacher.embedding * torch.nan), LABELS),
         "3 of 3 teacher"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(*arguments)
    assert loss.lifts[0][1].num_batches_tracked == 0
    with pytest.raises(ValueError, match="1 channel numbers of the student, 2 of the teacher"):
        FeatureL2((2,), (3, 4))
    with pytest.raises(ValueError, match="FeatureOnly compares embeddings"):
        FeatureL2((), ())
    with pytest.raises(ValueError, match='last must be "map" or "embedding"'):
        FeatureL2(MINE, THEIRS, last="logits")
