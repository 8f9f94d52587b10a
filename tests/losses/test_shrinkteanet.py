"""ShrinkTeaNet: equations 4, 6 and 7 by loop and by hand, and the gradient through the teacher."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from kdlab.data.batches import Batch
from kdlab.losses.shrinkteanet import (
    ShrinkTeaNet,
    angular,
    lifts,
    stage_weights,
    through_teacher,
)
from kdlab.models import MODELS
from kdlab.models.staged import Staged
from kdlab.outputs import Output, Targets
from kdlab.train import TrainConfig, train

LABELS = Targets(torch.arange(4))


class Toy(Staged):
    """Four stages of a 1x1 convolution, batch norm and tanh on 2 x 2 pixels; mean and a matrix."""

    input_size = 2

    def __init__(self, channels, embedding_size=5):
        super().__init__()
        self.channels, self.embedding_size = channels, embedding_size
        self.stem = nn.Identity()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width), nn.Tanh())
            for before, width in zip((3, *channels), channels, strict=False))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                  nn.Linear(channels[-1], embedding_size, bias=False))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):  # statistics as after a training
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)


class Pair:
    """A student, a frozen teacher, pictures and a loss, all in float64."""

    def __init__(self, **options):
        torch.manual_seed(0)
        self.student, self.teacher = Toy((2, 3, 2, 4)).double(), Toy((3, 4, 5, 6)).double()
        self.teacher.eval().requires_grad_(False)
        self.images = torch.randn(4, 3, 2, 2, dtype=torch.float64)
        with torch.no_grad():
            self.known = self.teacher(self.images)
        self.loss = ShrinkTeaNet(self.student.channels, self.teacher.channels, self.teacher.tail,
                                 **options).double()
        for module in self.loss.lifts:
            module[1].running_mean.normal_()
            module[1].running_var.uniform_(0.5, 2)

    def terms(self):
        return self.loss(self.student(self.images), self.known, LABELS)


def pointwise(pixels, convolution, norm):
    """1x1 convolution, then batch norm in eval mode, on a list of pixels (lists of channels)."""
    weight = convolution.weight[:, :, 0, 0].tolist()
    out = []
    for pixel in pixels:
        values = [sum(w * x for w, x in zip(row, pixel, strict=True)) for row in weight]
        out.append([
            (v - m) / math.sqrt(s + norm.eps) * g + b
            for v, m, s, g, b in zip(values, norm.running_mean.tolist(), norm.running_var.tolist(),
                                     norm.weight.tolist(), norm.bias.tolist(), strict=True)])
    return out


def finish(pixels, teacher, stage):
    """T_{stage + 1} ... T_n, then the head: a list of pixels -> the embedding."""
    for convolution, norm, _ in teacher.stages[stage:]:
        pixels = [[math.tanh(v) for v in p] for p in pointwise(pixels, convolution, norm)]
    mean = [sum(column) / len(pixels) for column in zip(*pixels, strict=True)]
    return [sum(w * x for w, x in zip(row, mean, strict=True))
            for row in teacher.head[2].weight.tolist()]


def angular_by_loop(a, b, squared):
    gap = 1 - sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
    return gap**2 if squared else gap


def pixels_of(features, row):
    return [features[row, :, y, x].tolist() for y in range(2) for x in range(2)]


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("weight", [1, 3])
def test_equations_4_6_and_7_by_loop(squared, weight):
    pair = Pair(squared=squared, weight=weight)
    pair.loss.eval()
    output, terms = pair.student(pair.images), pair.terms()
    assert list(terms) == ["stage1", "stage2", "stage3", "embedding"]
    for stage, factor in ((1, 0.125), (2, 0.25), (3, 0.5)):
        total = 0.0
        for row in range(4):
            lifted = pointwise(pixels_of(output.features[stage - 1], row),
                               *pair.loss.lifts[stage - 1])
            own = finish(pixels_of(pair.known.features[stage - 1], row), pair.teacher, stage)
            assert own == pytest.approx(pair.known.embedding[row].tolist())  # eq. (6), left side
            total += angular_by_loop(finish(lifted, pair.teacher, stage), own, squared)
        assert terms[f"stage{stage}"].item() == pytest.approx(weight * factor * total / 4, rel=1e-9)
    total = sum(angular_by_loop(a, b, squared) for a, b in zip(
        output.embedding.tolist(), pair.known.embedding.tolist(), strict=True))
    assert terms["embedding"].item() == pytest.approx(weight * total / 4, rel=1e-9)


def test_hand_number_and_hand_gradient():
    """60 degrees apart: 1 - cos = 1/2, squared 1/4. Turning by t: sin 60, or 2 (1/2) sin 60, which
    is the same here; over |x| = 2."""
    t = math.pi / 3
    along = torch.tensor([-math.sin(t), math.cos(t)], dtype=torch.float64)
    for squared, value in ((False, 0.5), (True, 0.25)):
        x = torch.tensor([[2 * math.cos(t), 2 * math.sin(t)]], dtype=torch.float64,
                         requires_grad=True)
        loss = angular(x, torch.tensor([[7.0, 0.0]], dtype=torch.float64), squared)
        loss.backward()
        assert loss.item() == pytest.approx(value)
        assert float(x.grad[0] @ along) == pytest.approx(math.sin(t) / 2)


def test_the_printed_form_fades_as_the_two_agree():
    """At 0.01 rad the linear slope is sin 0.01; the squared one 2 (1 - cos 0.01) = 1e-4 of it."""
    slopes = []
    for squared in (False, True):
        x = torch.tensor([[math.cos(0.01), math.sin(0.01)]], dtype=torch.float64,
                         requires_grad=True)
        angular(x, torch.tensor([[1.0, 0.0]], dtype=torch.float64), squared).backward()
        slopes.append(x.grad.norm().item())
    assert slopes[1] / slopes[0] == pytest.approx(1e-4, rel=1e-3)


def test_the_weights_halve_towards_the_front():
    assert stage_weights(4) == [0.125, 0.25, 0.5, 1]
    assert stage_weights(2, 3) == [1.5, 3]
    assert stage_weights(3, 2, halved=False) == [2, 2, 2]


def test_only_directions_count():
    torch.manual_seed(0)
    a, b = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    torch.testing.assert_close(angular(3 * a, b / 7), angular(a, b))
    torch.testing.assert_close(angular(a @ turn, b @ turn), angular(a, b))
    assert angular(2 * a, a).item() == pytest.approx(0, abs=1e-15)
    assert angular(-a, a).item() == pytest.approx(2)
    assert angular(-a, a, squared=True).item() == pytest.approx(4)


def test_a_student_that_is_its_teacher_costs_nothing():
    """Same network, lifts the identity: every term is 0."""
    pair = Pair()
    loss = ShrinkTeaNet(pair.teacher.channels, pair.teacher.channels, pair.teacher.tail).double()
    for module in loss.lifts:
        nn.init.dirac_(module[0].weight)
        module[1].eps = 0.0
    for value in loss.eval()(pair.known, pair.known, LABELS).values():
        assert value.item() == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("squared", [False, True])
def test_gradcheck(training, squared):
    pair = Pair(squared=squared)
    pair.loss.train(training)
    output = pair.student(pair.images)
    leaves = [x.detach().requires_grad_() for x in (output.embedding, *output.features)]

    def total(embedding, *features):
        return sum(pair.loss(Output(embedding, features=features), pair.known, LABELS).values())

    assert torch.autograd.gradcheck(total, leaves)


def test_every_front_term_reaches_its_lift_and_the_first_stage_and_not_the_teacher():
    pair = Pair()
    first = pair.student.stages[0][0].weight
    before = copy.deepcopy(pair.teacher.state_dict())
    for i, (name, value) in enumerate(pair.terms().items()):
        parameters = [first, *(module[0].weight for module in pair.loss.lifts)]
        grads = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
        assert grads[0].any(), name
        assert [g is not None and bool(g.any()) for g in grads[1:]] == [j == i for j in range(3)]
    sum(pair.terms().values()).backward()
    assert all(p.grad is None for p in pair.teacher.parameters())
    after = pair.teacher.state_dict()  # statistics of the tail's batch norms among it
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_detached_tail_kills_three_of_four_terms():
    """The trap: the front terms become constants and the loss still goes down by the last one."""
    pair = Pair()
    output = pair.student(pair.images)
    alive, dead = [], []
    for stage, module in enumerate(pair.loss.lifts, 1):
        lifted = module(output.features[stage - 1])
        for terms, tail in ((alive, pair.teacher.tail),
                            (dead, torch.no_grad()(pair.teacher.tail)),
                            (dead, lambda x, i: pair.teacher.tail(x.detach(), i))):
            terms.append(through_teacher(lifted, pair.known.embedding, tail, stage))
    assert [t.requires_grad for t in alive] == [True] * 3
    assert [t.requires_grad for t in dead] == [False] * 6
    torch.testing.assert_close(dead[::2], [t.detach() for t in alive])  # and no value gives it away


class Cut(Toy):
    """A teacher whose tail forgets the graph."""

    @torch.no_grad()
    def tail(self, features, stage):
        return super().tail(features, stage)


def test_a_tail_that_cuts_the_gradient_is_refused():
    pair = Pair()
    cut = Cut((3, 4, 5, 6)).double().eval().requires_grad_(False)
    loss = ShrinkTeaNet(pair.student.channels, cut.channels, cut.tail).double()
    with pytest.raises(ValueError, match="cuts the gradient of stage 1"):
        loss(pair.student(pair.images), pair.known, LABELS)
    with torch.no_grad():  # an evaluation has no gradient to cut
        assert len(loss(pair.student(pair.images), pair.known, LABELS)) == 4


def test_a_teacher_left_unfrozen_learns_nothing_and_is_left_as_it_was():
    pair = Pair()
    pair.teacher.train().requires_grad_(True)
    before = {key: value.clone() for key, value in pair.teacher.state_dict().items()}
    known = pair.known
    output = pair.student(pair.images)
    sum(pair.loss(output, known, LABELS).values()).backward()
    assert all(p.grad is None for p in pair.teacher.parameters())
    assert all(torch.equal(before[key], value) for key, value in pair.teacher.state_dict().items())
    assert all(p.requires_grad for p in pair.teacher.parameters())
    assert all(module.training for module in pair.teacher.modules())
    assert pair.loss.lifts[0][0].weight.grad.any()  # and still the gradient runs through it


def test_the_teacher_is_neither_registered_nor_saved_nor_switched():
    pair = Pair()
    pair.loss.train()
    assert not any(module.training for module in pair.teacher.modules())
    mine = {id(p) for p in pair.loss.parameters()}
    assert not mine & {id(p) for p in pair.teacher.parameters()}
    assert all(key.startswith("lifts.") for key in pair.loss.state_dict())
    assert len(pair.loss.lifts) == 3 and len(mine) == 9  # a convolution, scale and bias, each
    assert all(module[0].bias is None for module in pair.loss.lifts)


def test_state_dict_carries_the_lifts():
    pair = Pair()
    pair.terms()
    fresh = ShrinkTeaNet(pair.student.channels, pair.teacher.channels, pair.teacher.tail).double()
    fresh.load_state_dict(pair.loss.state_dict())
    output = pair.student.eval()(pair.images)
    one, other = (loss.eval()(output, pair.known, LABELS) for loss in (pair.loss, fresh))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("make", [
    partial(ShrinkTeaNet, (), (), None),
    partial(ShrinkTeaNet, (2, 3, 2, 4), (3, 4, 5, 6), None, intermediate=False)])
def test_the_last_layer_alone_asks_for_embeddings_only(make):
    """What the public codes have: margindistillation, TFace."""
    pair, loss = Pair(), make()
    assert loss.needs == {"embedding"} and not list(loss.parameters())
    embedding = pair.student(pair.images).embedding
    terms = loss(Output(embedding), Output(pair.known.embedding), LABELS)
    cosine = nn.functional.cosine_similarity(embedding, pair.known.embedding)
    torch.testing.assert_close(terms, {"embedding": (1 - cosine).mean()})
    assert Pair().loss.needs == {"embedding"}  # its stages go through the tail that it was given


def test_without_the_teachers_maps_it_says_the_same():
    """A cache of embeddings and the tail are enough."""
    pair = Pair()
    output = pair.student(pair.images)
    whole = pair.loss(output, pair.known, LABELS)
    torch.testing.assert_close(pair.loss(output, Output(pair.known.embedding), LABELS), whole)
    assert len(whole) == 4


def test_duplicates_zero_vectors_and_agreement_stay_finite():
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    goal = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    for squared in (False, True):
        value = angular(x, goal, squared)
        value.backward()
        assert value.isfinite() and x.grad.isfinite().all()


def test_bf16_stays_near():
    pair = Pair()
    expected = {name: value.item() for name, value in pair.terms().items()}
    student, loss = copy.deepcopy(pair.student).float(), copy.deepcopy(pair.loss).float()
    loss.tail = pair.teacher.float().tail
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss(student(pair.images.float()), pair.teacher(pair.images.float()), LABELS)
    assert all(value.dtype == torch.float32 for value in terms.values())
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=2e-2)


class TwoSteps:
    """Batches of 8 noise pictures of 2 x 2 pixels."""

    def __len__(self):
        return 2

    def epoch(self, epoch):
        for step in range(2):
            generator = torch.Generator().manual_seed(2 * epoch + step)
            yield Batch(torch.randn(8, 3, 2, 2, generator=generator),
                        Targets(torch.arange(8)), torch.arange(8), torch.zeros(8).bool())


def test_the_loop_trains_lifts_and_student_under_a_teacher_it_froze(monkeypatch, tmp_path):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    torch.manual_seed(0)
    student, teacher = Toy((2, 3, 2, 4)), Toy((3, 4, 5, 6))  # the teacher in train mode
    loss = ShrinkTeaNet(student.channels, teacher.channels, teacher.tail)
    before = copy.deepcopy([m.state_dict() for m in (student, teacher, loss)])
    config = TrainConfig(epochs=2, batch_size=8, device="cpu", lr=0.01, out=tmp_path)
    row = train(config, student, {"shrink": loss}, TwoSteps(), teacher).rows[-1]
    assert {"shrink/stage1", "shrink/stage2", "shrink/stage3", "shrink/embedding"} < set(row)
    still = [all(torch.equal(value, old[key]) for key, value in m.state_dict().items())
             for m, old in zip((student, teacher, loss), before, strict=True)]
    assert still == [False, True, False]


def test_the_laptop_pair_fits():
    """ir_student under ir_teacher: each front term alone reaches the student's first stage."""
    torch.manual_seed(0)
    student, teacher = (MODELS[name](32) for name in ("ir_student", "ir_teacher"))
    teacher.eval().requires_grad_(False)
    images = torch.randn(4, 3, 48, 48)
    loss = ShrinkTeaNet(student.channels, teacher.channels, teacher.tail)
    with torch.no_grad():
        known = teacher(images)
    terms = loss(student(images), known, LABELS)
    parameter = next(student.stages[0].parameters())
    for value in terms.values():
        grad, = torch.autograd.grad(value, parameter, retain_graph=True)
        assert 0 <= value <= 2 and grad.any() and grad.isfinite().all()


def test_wrong_input_is_refused_in_words():
    pair = Pair()
    output, known = pair.student(pair.images), pair.known

    def changed(out, stage, features):
        maps = list(out.features)
        maps[stage - 1] = features
        return out._replace(features=tuple(maps))

    narrow = changed(known, 2, known.features[1][..., :1])
    wide = changed(output, 3, torch.zeros(4, 7, 2, 2, dtype=torch.float64))
    for arguments, message in (
        ((output, None, LABELS), "ShrinkTeaNet needs a teacher's embedding"),
        ((output, known._replace(embedding=known.embedding[:, :3]), LABELS), r"teacher's \(4, 3\)"),
        ((output, narrow, LABELS), "stage 2 is 2 x 2 in the student and 2 x 1 in the teacher"),
        ((wide, known, LABELS), "stage 3 was built for 2 channels.*5 of the teacher, got 7 and 5"),
        ((output._replace(features=output.features[1:]),
          known._replace(features=known.features[1:]), LABELS), "built for 4 stages.*have 3"),
        ((output._replace(embedding=output.embedding * torch.nan), known, LABELS),
         "4 of 4 student"),
        ((output, known._replace(embedding=known.embedding * torch.nan), LABELS), "4 of 4 teacher"),
        ((output, known, Targets(torch.arange(3))), "4 .* embeddings but labels"),
    ):
        with pytest.raises(ValueError, match=message):
            pair.loss(*arguments)
    assert all(module[1].num_batches_tracked == 0 for module in pair.loss.lifts)
    with pytest.raises(ValueError, match="3 channel numbers of the student, 2 of the teacher"):
        ShrinkTeaNet((1, 2, 3), (1, 2), pair.teacher.tail)
    for tail in (None, lambda x, i: x, pair.teacher):
        with pytest.raises(ValueError, match="pass tail=teacher.tail"):
            ShrinkTeaNet((2, 3), (3, 4), tail)


def test_a_lift_is_a_convolution_and_a_batch_norm():
    module, = lifts((2,), (3,))
    assert [type(part) for part in module] == [nn.Conv2d, nn.BatchNorm2d]
    assert module(torch.randn(4, 2, 3, 3)).shape == (4, 3, 3, 3)
