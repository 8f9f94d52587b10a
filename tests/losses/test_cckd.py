"""CCKD: every form by loop and by hand, and TFace's missing power."""

import math

import pytest
import torch

from kdlab.losses.cckd import CCKD, cckd, kernel
from kdlab.losses.sp import sp
from kdlab.outputs import Output, Targets


def labels(n):
    return Targets(torch.zeros(n, dtype=torch.int64))


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def unit(v):
    length = math.hypot(*v)
    return [x / length for x in v]


def by_loop(s, t, gamma, order, form):
    powers = range(order) if form == "tface" else range(order + 1)

    def correlation(a, b):
        c = sum(p * q for p, q in zip(a, b, strict=True))
        return math.exp(-2 * gamma) * sum((2 * gamma) ** p / math.factorial(p) * c**p
                                          for p in powers)

    total, n = 0.0, len(s)
    s, t = s.tolist(), t.tolist()
    if form != "torchdistill":
        s, t = [unit(v) for v in s], [unit(v) for v in t]
    for i in range(n):
        for j in range(n):
            total += (correlation(s[i], s[j]) - correlation(t[i], t[j])) ** 2
    return (math.sqrt(total) if form == "torchdistill" else total) / n**2


@pytest.mark.parametrize("form", ["paper", "tface", "torchdistill"])
@pytest.mark.parametrize(("gamma", "order"), [(0.4, 2), (1.5, 4)])
def test_every_form_by_loop(form, gamma, order):
    student, teacher = draw(6, 3), draw(6, 5, seed=1)
    value = CCKD(2.5, gamma=gamma, order=order, form=form)(Output(student), Output(teacher),
                                                           labels(6))["correlation"]
    assert value.item() == pytest.approx(2.5 * by_loop(student, teacher, gamma, order, form),
                                         rel=1e-9)


def test_hand_number_and_hand_gradient():
    """Two faces 60 degrees apart, the teacher's 90: cosines 1/2 and 0, on two of four entries.

    gamma = 1/2: K(c) = e^-1 (1 + c + c² / 2), so the gap is e^-1 (1/2 + 1/8) = 5 / (8 e).
    Turning one of them away by t: dc = -sin 60, K' = e^-1 (1 + c) = 3 / (2 e); |x| = 2 halves it.
    """
    t = math.pi / 3
    student = torch.tensor([[1.0, 0], [2 * math.cos(t), 2 * math.sin(t)]], dtype=torch.float64,
                           requires_grad=True)
    value = cckd(student, torch.eye(2, dtype=torch.float64), gamma=0.5)
    gap = 5 / 8 / math.e
    assert value.item() == pytest.approx(2 * gap**2 / 4)
    value.backward()
    along = torch.tensor([-math.sin(t), math.cos(t)], dtype=torch.float64)
    slope = 2 * 2 * gap / 4 * (1.5 / math.e) * -math.sin(t) / 2
    assert (student.grad[1] @ along).item() == pytest.approx(slope)


def test_the_kernel_tends_to_the_gaussian():
    x, y = (torch.nn.functional.normalize(draw(5, 4, seed=seed)) for seed in (0, 1))
    gauss = (-0.4 * (x - y).square().sum(1)).exp()
    torch.testing.assert_close(kernel((x * y).sum(1), order=20), gauss)
    assert (kernel((x * y).sum(1)) - gauss).abs().max() < 0.05  # three terms come near


def test_tface_without_the_quadratic_term_is_sp_again():
    student, teacher = draw(7, 4), draw(7, 9, seed=1)
    factor = (0.8 * math.exp(-0.8)) ** 2
    assert factor == pytest.approx(0.1292, abs=5e-5)
    ratio = cckd(student, teacher, form="tface") / sp(student, teacher, "tface")
    assert ratio.item() == pytest.approx(factor, rel=1e-9)
    whole = cckd(student, teacher) / sp(student, teacher, "tface")
    assert abs(whole.item() / factor - 1) > 0.01  # with it, it is a loss of its own


def test_rotation_and_length_cost_nothing():
    x = draw(6, 4)
    turn, _ = torch.linalg.qr(draw(4, 4, seed=1))
    for form in ("paper", "tface"):
        assert cckd(x, 3 * x @ turn, form=form).item() == pytest.approx(0, abs=1e-25)
    assert cckd(x, x @ turn, form="torchdistill").item() == pytest.approx(0, abs=1e-12)
    assert cckd(x, 3 * x @ turn, form="torchdistill").item() > 0.1  # raw embeddings have a length


@pytest.mark.parametrize("form", ["paper", "tface", "torchdistill"])
def test_gradcheck(form):
    student, teacher = draw(4, 3).requires_grad_(), draw(4, 5, seed=1)
    assert torch.autograd.gradcheck(lambda x: cckd(x, teacher, form=form), student)


@pytest.mark.parametrize("form", ["paper", "tface", "torchdistill"])
@pytest.mark.parametrize("rows", [torch.zeros(3, 4), torch.ones(3, 4), torch.ones(1, 4),
                                  torch.eye(4)[[0, 0, 1]]], ids=["zero", "equal", "one", "twins"])
def test_odd_batches_stay_finite(rows, form):
    for teacher in (draw(len(rows), 6).float(), rows):  # the second: nothing left to learn
        student = rows.clone().requires_grad_()
        value = cckd(student, teacher, form=form)
        value.backward()
        assert value.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize("form", ["paper", "tface", "torchdistill"])
def test_bf16_is_compared_in_float32(form):
    student, teacher = draw(8, 64) / 8, draw(8, 32, seed=1) / 8
    half = student.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = CCKD(form=form)(Output(half), Output(teacher.bfloat16()), labels(8))["correlation"]
    value.backward()
    assert value.dtype == torch.float32 and half.grad.isfinite().all()
    assert value.item() == pytest.approx(cckd(student, teacher, form=form).item(), rel=2e-2)


def test_wrong_input_is_refused_in_words():
    four, five = Output(draw(4, 3)), Output(draw(5, 3))
    with pytest.raises(ValueError, match="CCKD needs a teacher"):
        CCKD()(four, None, labels(4))
    with pytest.raises(ValueError, match="4 embeddings of the student, 5 of the teacher"):
        CCKD()(four, five, labels(4))
    with pytest.raises(ValueError, match="of 4 teacher embeddings are NaN"):
        CCKD()(four, Output(draw(4, 3).log()), labels(4))
    with pytest.raises(ValueError, match="form must be one of paper, tface, torchdistill"):
        CCKD(form="gauss")
    with pytest.raises(ValueError, match="gamma must be above 0"):
        CCKD(gamma=0)
    with pytest.raises(ValueError, match="order must be 1 or more"):
        CCKD(order=0)
    with pytest.raises(ValueError, match="order must be 2 or more"):
        CCKD(order=1, form="tface")
