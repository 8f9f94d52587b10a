"""ArcFace: equation 3 by loop, by hand, and at its edges."""

import math

import pytest
import torch
import torch.nn.functional as F

from kdlab.losses.arcface import ArcFace, arcface
from kdlab.outputs import Output, Targets


def by_loop(x, w, labels, s, m):
    """Eq. (3) with acos and plain sums."""
    total = 0.0
    for row, y in zip(x.tolist(), labels.tolist(), strict=True):
        angle = []
        for centre in w.tolist():
            dot = sum(a * b for a, b in zip(row, centre, strict=True))
            angle.append(math.acos(dot / (math.hypot(*row) * math.hypot(*centre))))
        own = math.exp(s * math.cos(angle[y] + m))
        others = sum(math.exp(s * math.cos(a)) for j, a in enumerate(angle) if j != y)
        total -= math.log(own / (own + others))
    return total / len(labels)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    x, w = torch.randn(6, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    return x, w, torch.tensor([0, 3, 4, 4, 1, 2])


@pytest.mark.parametrize("gradient", ["exact", "straight_through"])
@pytest.mark.parametrize("chunk", [None, 2])
def test_equation_3_by_loop(batch, gradient, chunk):
    for s, m in ((64, 0.5), (8, 0.0), (16, 1.2)):
        value = arcface(*batch, s, m, gradient, chunk)
        assert value.item() == pytest.approx(by_loop(*batch, s, m), rel=1e-9)


def test_hand_number_and_hand_gradient():
    """Embedding at 30 degrees of the own centre (1, 0); the other centre is (0, 1).

    Angles 30 and 60 degrees, s = 2, m = 30 degrees: logits 2 cos 60 = 1 and 2 cos 60 = 1, so the
    loss is ln 2 and p = 1/2 each. Turning x by t (length 1): d logits = -2 sin(60) and
    +2 sin(60), so dL/dt = (p_own - 1)(-2 sin 60) + p_other (2 sin 60) = sin 60 + sin 60 = 1.7321.
    Straight through, the own logit moves as 2 cos(theta): -2 sin(30); dL/dt = 1/2 + sin 60.
    """
    t = math.radians(30)
    direction = torch.tensor([-math.sin(t), math.cos(t)], dtype=torch.float64)  # d x / d t
    w, labels = torch.eye(2, dtype=torch.float64), torch.tensor([0])
    for gradient, slope in (("exact", 2 * math.sin(math.pi / 3)),
                            ("straight_through", 0.5 + math.sin(math.pi / 3))):
        x = torch.tensor([[math.cos(t), math.sin(t)]], dtype=torch.float64, requires_grad=True)
        loss = arcface(x, w, labels, scale=2, margin=t, gradient=gradient)
        loss.backward()
        assert loss.item() == pytest.approx(math.log(2))
        assert float(x.grad[0] @ direction) == pytest.approx(slope)
        assert float(x.grad[0] @ x.detach()[0]) == pytest.approx(0, abs=1e-12)  # length is free


def test_straight_through_is_a_logit_changed_outside_autograd(batch):
    x, w, labels = batch
    x.requires_grad_()
    arcface(x, w, labels, gradient="straight_through").backward()
    got, x.grad = x.grad, None
    cosine = F.normalize(x) @ F.normalize(w).T
    logits = cosine.clone()
    with torch.no_grad():
        rows = torch.arange(len(labels))
        logits[rows, labels] = (logits[rows, labels].acos() + 0.5).cos()
    F.cross_entropy(64 * logits, labels).backward()
    torch.testing.assert_close(got, x.grad)


@pytest.mark.parametrize("chunk", [None, 2])
def test_gradcheck(batch, chunk):
    x, w, labels = batch
    assert torch.autograd.gradcheck(
        lambda a, b: arcface(a, b, labels, 8, 0.5, "exact", chunk),
        (x.requires_grad_(), w.requires_grad_()))


def fallback_by_loop(x, w, labels, s, m):
    """Eq. (3), with cos(theta) - m sin(m) where theta + m > pi."""
    total = 0.0
    for row, y in zip(x.tolist(), labels.tolist(), strict=True):
        cosine = [sum(a * b for a, b in zip(row, centre, strict=True))
                  / math.hypot(*row) / math.hypot(*centre) for centre in w.tolist()]
        theta = math.acos(cosine[y])
        own = (math.cos(theta + m) if theta + m <= math.pi
               else cosine[y] - m * math.sin(m))
        logits = [s * (own if j == y else c) for j, c in enumerate(cosine)]
        total += math.log(sum(map(math.exp, logits))) - logits[y]
    return total / len(labels)


@pytest.mark.parametrize("chunk", [None, 2])
def test_ekds_fallback_by_loop_and_its_gradient(batch, chunk):
    x, w, labels = batch
    x[0], x[1] = -w[0] + 0.1 * x[0], -w[3]  # 0 and 3 are their labels: almost and all opposite
    x[1] += 0.2 * x[2]
    value = arcface(x, w, labels, 16, 0.5, chunk=chunk, fallback=True)
    assert value.item() == pytest.approx(fallback_by_loop(x, w, labels, 16, 0.5), rel=1e-9)
    assert value > arcface(x, w, labels, 16, 0.5, chunk=chunk)  # which rises again past pi
    assert torch.autograd.gradcheck(
        lambda a, b: arcface(a, b, labels, 8, 0.5, "exact", chunk, True),
        (x.requires_grad_(), w.requires_grad_()))


def test_the_fallback_leaves_angles_below_pi_alone():
    """At 150 degrees 0.5 rad more is still below 180; at 155 it is not: cos(155) - 0.5 sin(0.5)."""
    w = torch.eye(2, dtype=torch.float64)
    for degrees, changed in ((150, False), (155, True)):
        t = math.radians(degrees)
        x = torch.tensor([[math.cos(t), math.sin(t)]], dtype=torch.float64, requires_grad=True)
        value = arcface(x, w, torch.tensor([0]), 1, 0.5, fallback=True)
        own = math.cos(t) - 0.5 * math.sin(0.5) if changed else math.cos(t + 0.5)
        assert value.item() == pytest.approx(math.log1p(math.exp(math.sin(t) - own)))
        value.backward()  # turning by t: the own logit falls by sin(t) or sin(t + m)
        p_other = 1 / (1 + math.exp(own - math.sin(t)))
        falls = math.sin(t) if changed else math.sin(t + 0.5)
        along = torch.tensor([-math.sin(t), math.cos(t)], dtype=torch.float64)
        assert float(x.grad[0] @ along) == pytest.approx(p_other * (falls + math.cos(t)))
    loss, plain = (ArcFace(2, 2, fallback=f).double() for f in (True, False))
    plain.load_state_dict({"weight": w}), loss.load_state_dict({"weight": w})
    targets = Targets(torch.tensor([0]))
    assert (loss(Output(x), None, targets)["softmax"]
            > plain(Output(x), None, targets)["softmax"])


def test_invariant_to_rotation_and_lengths(batch):
    x, w, labels = batch
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    a = arcface(x, w, labels)
    b = arcface(3 * x @ turn, 0.1 * w @ turn, labels)
    torch.testing.assert_close(a, b)


def test_a_wider_margin_costs_more(batch):
    torch.manual_seed(1)
    w = torch.randn(5, 4)
    x = w[batch[2]] + 0.3 * torch.randn(6, 4)  # near the own centre, so theta + m < pi
    losses = [arcface(x, w, batch[2], 16, m).item() for m in (0.0, 0.2, 0.4, 0.6)]
    assert losses == sorted(losses) and losses[0] < losses[-1]


@pytest.mark.parametrize("gradient", ["exact", "straight_through"])
@pytest.mark.parametrize("chunk", [None, 1])
def test_on_and_opposite_a_centre_everything_is_finite(gradient, chunk):
    w = torch.eye(3).requires_grad_()
    x = torch.cat([torch.eye(3), -torch.eye(3)]).requires_grad_()
    labels = torch.arange(3).repeat(2)
    loss = arcface(x, w, labels, gradient=gradient, chunk=chunk)
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all() and w.grad.isfinite().all()
    assert arcface(x[:3], w, labels[:3]).item() < 1e-6  # cos 0.5 against 0 at scale 64


def test_all_rows_in_one_class_and_one_class_in_all():
    x = torch.randn(4, 8, requires_grad=True)
    loss = ArcFace(8, 1)
    term = loss(Output(x), None, Targets(torch.zeros(4, dtype=torch.int64)))["softmax"]
    term.backward()
    assert term.item() == 0 and not x.grad.any()  # nothing to confuse it with
    many = ArcFace(8, 3)(Output(x), None, Targets(torch.ones(4, dtype=torch.int64)))["softmax"]
    assert many.isfinite() and many > 0


@pytest.mark.parametrize("chunk", [None, 3])
def test_bf16_embeddings_are_judged_in_float32(chunk):
    torch.manual_seed(0)
    loss = ArcFace(16, 10, chunk=chunk)
    x, targets = torch.randn(6, 16).bfloat16().requires_grad_(), Targets(torch.arange(6))
    with torch.autocast("cpu", torch.bfloat16):
        term = loss(Output(x), None, targets)["softmax"]
        term.backward()
    assert term.dtype == torch.float32 and x.grad.dtype == torch.bfloat16
    exact = loss.double()(Output(x.double()), None, targets)["softmax"]
    assert term.item() == pytest.approx(exact.item(), rel=1e-5)


def test_balanced_rows_are_left_to_other_losses():
    torch.manual_seed(0)
    loss, x, labels = ArcFace(8, 5), torch.randn(6, 8, requires_grad=True), torch.arange(6) % 5
    balanced = torch.tensor([False, False, True, True, False, True])
    term = loss(Output(x), None, Targets(labels, balanced=balanced))["softmax"]
    term.backward()
    few = loss(Output(x[~balanced]), None, Targets(labels[~balanced]))["softmax"]
    assert torch.equal(term, few)
    assert not x.grad[balanced].any() and x.grad[~balanced].any(1).all()


def test_an_empty_selection_is_zero_with_a_gradient_path():
    loss, x = ArcFace(8, 5), torch.randn(4, 8, requires_grad=True)
    everything = Targets(torch.arange(4), balanced=torch.ones(4, dtype=torch.bool))
    term = loss(Output(x), None, everything)["softmax"]
    term.backward()
    assert term.item() == 0
    assert x.grad is not None and not x.grad.any()
    assert loss.weight.grad is not None and not loss.weight.grad.any()


def test_an_empty_selection_in_half_precision_does_not_overflow():
    x = torch.full((4, 8), 6e4, dtype=torch.float16, requires_grad=True)
    everything = Targets(torch.arange(4), balanced=torch.ones(4, dtype=torch.bool))
    assert ArcFace(8, 5)(Output(x), None, everything)["softmax"].item() == 0


def test_logits_are_scaled_cosines_without_a_margin():
    loss = ArcFace(2, 2, scale=10)
    with torch.no_grad():
        loss.weight.copy_(torch.tensor([[3.0, 0], [0, 0.1]]))
    torch.testing.assert_close(loss.logits(torch.tensor([[3.0, 4.0]])),
                               torch.tensor([[6.0, 8.0]]))


def test_centres_start_small():
    torch.manual_seed(0)
    assert ArcFace(64, 500).weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_wrong_input_is_refused_in_words():
    x = torch.randn(3, 8)
    with pytest.raises(ValueError, match="label 5 in row 1 of the batch.*5 classes"):
        ArcFace(8, 5)(Output(x), None, Targets(torch.tensor([0, 5, 1])))
    x[2, 0] = torch.nan
    with pytest.raises(ValueError, match="1 of 3 student embeddings are NaN.*row 2"):
        ArcFace(8, 5)(Output(x), None, Targets(torch.tensor([0, 4, 1])))
    with pytest.raises(ValueError, match="straight_through"):
        ArcFace(8, 5, gradient="approximate")
    with pytest.raises(ValueError, match="chunk must be a number of classes"):
        ArcFace(8, 5, chunk=0)


def test_sizes_and_types_that_do_not_fit_are_said():
    loss = ArcFace(8, 3)
    with pytest.raises(ValueError, match="built for embeddings of 8 dimensions, got 4"):
        loss(Output(torch.ones(2, 4)), None, Targets(torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(ValueError, match="ArcFace was built for embeddings of 8 dimensions, got 4"):
        loss.logits(torch.ones(2, 4))
    with pytest.raises(ValueError, match="labels must be int64, not torch.int32"):
        loss(Output(torch.ones(2, 8)), None, Targets(torch.zeros(2, dtype=torch.int32)))
    with pytest.raises(ValueError, match="fallback is defined for a margin of 0 to pi, not -0.1"):
        ArcFace(8, 3, margin=-0.1, fallback=True)


@pytest.mark.parametrize("chunk", [None, 3])
def test_frozen_centres_and_state(chunk):
    loss, x = ArcFace(8, 5, chunk=chunk), torch.randn(4, 8, requires_grad=True)
    loss.weight.requires_grad_(False)
    targets = Targets(torch.arange(4))
    first = loss(Output(x), None, targets)["softmax"]
    first.backward()
    assert x.grad.any() and loss.weight.grad is None
    fresh = ArcFace(8, 5, chunk=chunk)
    fresh.load_state_dict(loss.state_dict())
    assert torch.equal(fresh(Output(x), None, targets)["softmax"], first)
    assert list(loss.state_dict()) == ["weight"]
