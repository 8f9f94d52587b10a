"""NST: the discrepancy of channels by loop and by hand; flat vectors teach nothing."""

import math

import pytest
import torch

from kdlab.losses.nst import NST, nst, selectivity
from kdlab.outputs import Output, Targets

LABELS = Targets(torch.arange(3))


def draw(seed, channels=(2, 6), sides=((3, 2), (2, 2))):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Output(normal(3, 5), features=tuple(
        normal(3, c, *side) for c, side in zip(channels, sides, strict=True)))


@pytest.fixture
def pair():
    """Stage 1: fewer channels than positions; stage 2: more. Channel numbers differ."""
    return draw(0), draw(1, (3, 7))


def unit_channels(sample):
    rows = [row.flatten().tolist() for row in sample]
    return [[x / math.hypot(*row) for x in row] for row in rows]


def mean_kernel(a, b):
    values = [sum(x * y for x, y in zip(p, q, strict=True)) ** 2 for p in a for q in b]
    return sum(values) / len(values)


def by_loop(student, teacher):
    total = 0.0
    for mine, theirs in zip(student, teacher, strict=True):
        s, t = unit_channels(mine), unit_channels(theirs)
        total += mean_kernel(t, t) + mean_kernel(s, s) - 2 * mean_kernel(t, s)
    return total / len(student)


@pytest.mark.parametrize("layer, names", [("last_map", {"last_map": 1}), (1, {"stage1": 0}),
                                          ("all", {"stage1": 0, "stage2": 1})])
def test_the_formula_by_loop(pair, layer, names):
    student, teacher = pair
    terms = NST(7, layer)(student, teacher, LABELS)
    assert list(terms) == list(names)
    for name, place in names.items():
        expected = 7 * by_loop(student.features[place], teacher.features[place])
        assert terms[name].item() == pytest.approx(expected, rel=1e-9)


def test_hand_number_and_hand_gradient():
    """One channel each, two positions: student at 60 degrees, teacher at 0.

    1 + 1 - 2 cos² 60 = 3/2. Turning the student by t: d(-2 cos²)/dt = 2 sin 120 = sqrt 3; it has
    length 2, so the slope along the turn is sqrt 3 / 2.
    """
    angle = math.pi / 3
    s = torch.tensor([2 * math.cos(angle), 2 * math.sin(angle)], dtype=torch.float64)
    s = s.view(1, 1, 1, 2).requires_grad_()
    t = torch.tensor([5.0, 0.0], dtype=torch.float64).view(1, 1, 1, 2)
    value = nst(s, t)
    value.backward()
    along = torch.tensor([-math.sin(angle), math.cos(angle)], dtype=torch.float64)
    assert value.item() == pytest.approx(1.5)
    assert (s.grad.flatten() @ along).item() == pytest.approx(math.sqrt(3) / 2)


def test_channels_are_a_cloud():
    """Their order, lengths, signs and repetition are free; where they look is not."""
    for s, t in zip(draw(0).features, draw(1).features, strict=True):
        value = nst(s, t)
        torch.testing.assert_close(nst(-2 * s.flip(1), torch.cat([t, 3 * t], 1)), value)
        assert nst(s, torch.cat([s, s], 1)).item() == pytest.approx(0, abs=1e-15)
        assert nst(s.flip(3), s) > 0.001
        torch.testing.assert_close(selectivity(s).norm(dim=2), torch.ones(s.shape[:2]).double())


def test_both_ways_of_computing_agree():
    """Channels repeated change which product is smaller and nothing else."""
    s, t = draw(0).features[0], draw(1).features[0]  # 2 channels, 6 positions
    torch.testing.assert_close(nst(s.repeat(1, 4, 1, 1), t), nst(s, t))


def test_a_flat_vector_teaches_nothing():
    """MFD's released CIFAR run: a ReLU vector of 4 as a map of one position.

    A unit channel is 1 where the neuron is active, else 0, so the value is ((3 - 1) / 4)² for three
    active neurons of the student and one of the teacher, whatever their size: gradient 0.
    """
    s = torch.tensor([[0.5, 2.0, 0.0, 7.0]], dtype=torch.float64, requires_grad=True)
    t = torch.tensor([[0.0, 0.0, 0.3, 0.0]], dtype=torch.float64)
    value = nst(s[..., None, None], t[..., None, None])
    value.backward()
    assert value.item() == pytest.approx(0.25)
    assert s.grad.abs().max() < 1e-15
    point = Output(s.detach(), features=(s.detach()[..., None, None],))
    with pytest.raises(ValueError, match="one position.*gradient is 0"):
        NST()(point, point, Targets(torch.tensor([0])))


@pytest.mark.parametrize("stage", [0, 1])
def test_gradcheck(pair, stage):
    goal = pair[1].features[stage]
    assert torch.autograd.gradcheck(lambda x: nst(x, goal),
                                    pair[0].features[stage].requires_grad_())


@pytest.mark.parametrize("shape", [(3, 4, 2, 2), (3, 4, 3, 3)])
def test_zero_channels_and_zero_maps_have_finite_gradients(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x[0], x[1, 2] = 0, 0
    for student, teacher in ((x, x.flip(0)), (torch.zeros(shape), x), (x, torch.zeros(shape))):
        student = student.clone().requires_grad_()
        value = nst(student, teacher)
        value.backward()
        assert value.isfinite() and student.grad.isfinite().all()


def test_no_gradient_reaches_the_teacher(pair):
    student, teacher = ([f.requires_grad_() for f in o.features] for o in pair)
    sum(NST(layer="all")(*pair, LABELS).values()).backward()
    assert all(f.grad.any() for f in student) and all(f.grad is None for f in teacher)


def test_bf16_stays_near(pair):
    half = [Output(o.embedding.bfloat16(), features=tuple(f.bfloat16() for f in o.features))
            for o in pair]
    with torch.autocast("cpu", torch.bfloat16):
        terms = NST(layer="all")(*half, LABELS)
    for name, exact in NST(layer="all")(*pair, LABELS).items():
        assert terms[name].dtype == torch.float32
        assert terms[name].item() == pytest.approx(exact.item(), rel=2e-2)


def test_a_large_map_needs_no_large_tensor():
    """No tensor of (B, C, C, P) numbers: 2 * 1024² * 36 of them would be 300 MB."""
    largest = []

    def keep(tensor):
        largest.append(tensor.numel())
        return tensor

    s = torch.randn(2, 1024, 6, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        nst(s, s.detach().flip(0)).backward()
    assert max(largest) <= s.numel()


def test_defaults():
    loss = NST()
    assert (loss.weight, loss.layer, loss.needs) == (3, "last_map", {"features"})


def test_wrong_input_is_refused_in_words(pair):
    student, teacher = pair
    broken = student._replace(features=tuple(x / 0 for x in student.features))
    for loss, arguments, message in (
        (NST(), (student, None, LABELS), "NST needs a teacher's feature maps"),
        (NST(), (student, Output(teacher.embedding), LABELS), "a cache of embeddings has none"),
        (NST(1, 1), (student, draw(1, sides=((3, 3), (2, 2))), LABELS),
         "stage 1 is 3 x 2 in the student and 3 x 3 in the teacher"),
        (NST(layer=3), (student, teacher, LABELS), "layer=3, but the networks have 2 stages"),
        (NST(), (broken, teacher, LABELS), "3 of 3 student maps"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(*arguments)
    with pytest.raises(ValueError, match="NST: layer must be one of last_map, all"):
        NST(layer="embedding")
