"""CosFace: its formula by loop, by hand, and at its edges."""

import math

import pytest
import torch

from kdlab.losses.arcface import arcface
from kdlab.losses.cosface import CosFace, cosface
from kdlab.outputs import Output, Targets


def by_loop(x, w, labels, s, m):
    total = 0.0
    for row, y in zip(x.tolist(), labels.tolist(), strict=True):
        cosine = []
        for centre in w.tolist():
            dot = sum(a * b for a, b in zip(row, centre, strict=True))
            cosine.append(dot / (math.hypot(*row) * math.hypot(*centre)))
        own = math.exp(s * (cosine[y] - m))
        others = sum(math.exp(s * c) for j, c in enumerate(cosine) if j != y)
        total -= math.log(own / (own + others))
    return total / len(labels)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    x, w = torch.randn(6, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    return x, w, torch.tensor([0, 3, 4, 4, 1, 2])


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_formula_by_loop(batch, chunk):
    for s, m in ((64, 0.4), (8, 0.0), (16, 0.9)):
        value = cosface(*batch, s, m, chunk)
        assert value.item() == pytest.approx(by_loop(*batch, s, m), rel=1e-9)


@pytest.mark.parametrize("chunk", [None, 1])
def test_hand_number_and_hand_gradient(chunk):
    """Embedding at 30 degrees of the own centre (1, 0); the other centre is (0, 1).

    s = 2, m = cos 30 - 1/2: both logits are 2 * 1/2 = 1, so the loss is ln 2 and p = 1/2 each.
    Turning x by t (length 1) moves the own logit by -2 sin 30 = -1, whatever the margin, and the
    other by 2 cos 30: dL/dt = -1/2 * -1 + 1/2 * 2 cos 30 = 1/2 + cos 30 = 1.3660.
    """
    t = math.radians(30)
    x = torch.tensor([[math.cos(t), math.sin(t)]], dtype=torch.float64, requires_grad=True)
    w, labels = torch.eye(2, dtype=torch.float64), torch.tensor([0])
    loss = cosface(x, w, labels, scale=2, margin=math.cos(t) - 0.5, chunk=chunk)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    along = torch.tensor([-math.sin(t), math.cos(t)], dtype=torch.float64)
    assert float(x.grad[0] @ along) == pytest.approx(0.5 + math.cos(t))
    assert float(x.grad[0] @ x.detach()[0]) == pytest.approx(0, abs=1e-12)  # length is free


@pytest.mark.parametrize("chunk", [None, 2])
def test_gradcheck(batch, chunk):
    x, w, labels = batch
    assert torch.autograd.gradcheck(lambda a, b: cosface(a, b, labels, 8, 0.4, chunk),
                                    (x.requires_grad_(), w.requires_grad_()))


def test_without_a_margin_it_is_arcface_without_one(batch):
    torch.testing.assert_close(cosface(*batch, 64, 0.0), arcface(*batch, 64, 0.0))


def test_the_margin_costs_the_same_at_every_angle(batch):
    """With the other classes far below, a row's loss rises by s m, wherever the row is."""
    w = torch.tensor([[1.0, 0, 0], [0, 1, 0]], dtype=torch.float64)
    for degrees in (100, 120, 150):  # beyond the other centre: the own class is the loser
        t = math.radians(degrees)
        x = torch.tensor([[math.cos(t), math.sin(t), 0]], dtype=torch.float64)
        rise = cosface(x, w, torch.tensor([0])) - cosface(x, w, torch.tensor([0]), margin=0)
        assert rise.item() == pytest.approx(64 * 0.4, rel=1e-9)


def test_invariant_to_rotation_and_lengths(batch):
    x, w, labels = batch
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    torch.testing.assert_close(cosface(x, w, labels), cosface(3 * x @ turn, 0.1 * w @ turn, labels))


@pytest.mark.parametrize("chunk", [None, 1])
def test_on_and_opposite_a_centre_everything_is_finite(chunk):
    w = torch.eye(3).requires_grad_()
    x = torch.cat([torch.eye(3), -torch.eye(3), torch.zeros(3, 3)]).requires_grad_()
    loss = cosface(x, w, torch.arange(3).repeat(3), chunk=chunk)
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all() and w.grad.isfinite().all()
    assert cosface(x[:3], w, torch.arange(3), chunk=chunk).item() < 1e-6  # 1 - 0.4 against 0


@pytest.mark.parametrize("chunk", [None, 3])
def test_bf16_embeddings_are_judged_in_float32(chunk):
    torch.manual_seed(0)
    loss = CosFace(16, 10, chunk=chunk)
    x, targets = torch.randn(6, 16).bfloat16().requires_grad_(), Targets(torch.arange(6))
    with torch.autocast("cpu", torch.bfloat16):
        term = loss(Output(x), None, targets)["softmax"]
    term.backward()
    assert term.dtype == torch.float32 and x.grad.dtype == torch.bfloat16
    exact = loss.double()(Output(x.double()), None, targets)["softmax"]
    assert term.item() == pytest.approx(exact.item(), rel=1e-5)


def test_the_module_is_the_function_on_its_own_centres(batch):
    x, w, labels = batch
    loss = CosFace(4, 5, 16, 0.3).double()
    loss.load_state_dict({"weight": w})
    term = loss(Output(x), None, Targets(labels))["softmax"]
    assert term.item() == pytest.approx(by_loop(x, w, labels, 16, 0.3), rel=1e-9)
    standard = CosFace(4, 5).double()
    standard.load_state_dict({"weight": w})
    term = standard(Output(x), None, Targets(labels))["softmax"]
    assert term.item() == pytest.approx(by_loop(x, w, labels, 64, 0.4), rel=1e-9)
    cosine = standard.logits(x).detach() / 64
    assert float(cosine[0, 0]) == pytest.approx(
        float(x[0] @ w[0]) / math.hypot(*x[0].tolist()) / math.hypot(*w[0].tolist()))


def test_balanced_rows_are_left_to_other_losses():
    torch.manual_seed(0)
    loss, x, labels = CosFace(8, 5), torch.randn(6, 8, requires_grad=True), torch.arange(6) % 5
    balanced = torch.tensor([False, False, True, True, False, True])
    term = loss(Output(x), None, Targets(labels, balanced=balanced))["softmax"]
    term.backward()
    few = loss(Output(x[~balanced]), None, Targets(labels[~balanced]))["softmax"]
    assert torch.equal(term, few)
    assert not x.grad[balanced].any() and x.grad[~balanced].any(1).all()
    none = Targets(labels, balanced=torch.ones(6, dtype=torch.bool))
    assert loss(Output(x), None, none)["softmax"].item() == 0


def test_wrong_input_is_refused_in_words():
    with pytest.raises(ValueError, match="label 5 in row 1 of the batch.*5 classes"):
        CosFace(8, 5)(Output(torch.randn(3, 8)), None, Targets(torch.tensor([0, 5, 1])))
    with pytest.raises(ValueError, match="CosFace was built for embeddings of 8 dimensions, got 4"):
        CosFace(8, 5)(Output(torch.randn(3, 4)), None, Targets(torch.tensor([0, 4, 1])))
    with pytest.raises(ValueError, match="chunk must be a number of classes"):
        CosFace(8, 5, chunk=0)
