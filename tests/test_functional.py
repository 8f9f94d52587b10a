"""The mathematics losses share."""

import math

import pytest
import torch

from kdlab.functional import (
    arc_margin,
    check_batch,
    cos_margin,
    cosine_of_rows,
    cosines,
    full,
    margin_cross_entropy,
    squared_distance,
    straight_through,
    teacher_embedding,
)
from kdlab.outputs import Output


def test_cosines_by_loop():
    torch.manual_seed(0)
    x, y = torch.randn(4, 3).double(), torch.randn(5, 3).double()
    for i in range(4):
        for j in range(5):
            dot = sum(float(x[i, d] * y[j, d]) for d in range(3))
            expected = dot / (math.hypot(*x[i].tolist()) * math.hypot(*y[j].tolist()))
            assert float(cosines(x, y)[i, j]) == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(cosine_of_rows(x, y[:4]), cosines(x, y).diagonal()[:4])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_squared_distance_by_loop(normalize, reduction):
    torch.manual_seed(1)
    x, y = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    total = 0.0
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        na, nb = (math.hypot(*a), math.hypot(*b)) if normalize else (1.0, 1.0)
        total += sum((p / na - q / nb) ** 2 for p, q in zip(a, b, strict=True))
    expected = total / 4 / (3 if reduction == "mean" else 1)
    assert float(squared_distance(x, y, normalize, reduction)) == pytest.approx(expected, rel=1e-9)


def test_arc_margin_is_the_cosine_of_the_wider_angle():
    theta = torch.linspace(0.01, math.pi - 0.01, 50, dtype=torch.float64)
    torch.testing.assert_close(arc_margin(theta.cos(), 0.5), (theta + 0.5).cos())
    margins = torch.linspace(0.1, 0.5, 50, dtype=torch.float64)
    torch.testing.assert_close(arc_margin(theta.cos(), margins), (theta + margins).cos())


def test_arc_margin_slope():
    """d cos(theta + m) / d cos(theta) = sin(theta + m) / sin(theta)."""
    theta = torch.linspace(0.01, math.pi - 0.01, 50, dtype=torch.float64)
    cosine = theta.cos().requires_grad_()
    arc_margin(cosine, 0.5).sum().backward()
    torch.testing.assert_close(cosine.grad, (theta + 0.5).sin() / theta.sin())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arc_margin_at_the_poles_is_exact_and_finite(dtype):
    cosine = torch.tensor([1.0, -1.0, 1 + 2e-7], dtype=dtype, requires_grad=True)
    value = arc_margin(cosine, 0.5)
    value.sum().backward()
    expected = torch.tensor([math.cos(0.5), -math.cos(0.5), math.cos(0.5)], dtype=dtype)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    # the sine's slope is taken as 0 there: what is left is cos(m)
    torch.testing.assert_close(cosine.grad, torch.full_like(cosine, math.cos(0.5)))


def test_straight_through_takes_the_value_of_one_and_the_slope_of_the_other():
    x = torch.tensor([0.3], requires_grad=True)
    y = straight_through(5 * x + 1, 2 * x)
    y.backward()
    assert y.item() == pytest.approx(2.5) and float(x.grad) == 2


def test_full_raises_precision_and_never_lowers_it():
    half, single, double = (torch.zeros(1, dtype=t)
                            for t in (torch.bfloat16, torch.float32, torch.float64))
    assert {t.dtype for t in full(half, half)} == {torch.float32}
    assert {t.dtype for t in full(half, double, single)} == {torch.float64}


def test_cosines_keep_float32_under_autocast():
    torch.manual_seed(0)
    x, y = torch.randn(4, 64), torch.randn(5, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert (cosines(x, y) - cosines(x.double(), y)).abs().max() < 1e-6  # bf16: 4e-3


MARGINED = {
    "arc": lambda c: arc_margin(c, 0.5),
    "cos": lambda c: cos_margin(c, 0.4),
    "straight_through": lambda c: straight_through(arc_margin(c, 0.5), c),
}


@pytest.mark.parametrize("kind", MARGINED)
@pytest.mark.parametrize("chunk", [1, 7, 30, 1000])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_streaming_over_classes_changes_nothing(kind, chunk, dtype, tolerance):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(12, 16, generator=generator, dtype=dtype)
    w = torch.randn(30, 16, generator=generator, dtype=dtype) * 0.01
    labels = torch.randint(30, (12,), generator=generator)
    x[:4] = w[labels[:4]] * 50 + 0.3 * x[:4]  # some rows near their centre, as late in training
    results = []
    for size in (None, chunk):
        a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
        loss = margin_cross_entropy(a, b, labels, 64, MARGINED[kind], size)
        (3 * loss).backward()
        results.append((loss.detach(), a.grad, b.grad))
    for plain, streamed in zip(*results, strict=True):
        assert (plain - streamed).norm() <= tolerance * plain.norm()


def test_streaming_gradcheck():
    torch.manual_seed(0)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 4, 4])
    assert torch.autograd.gradcheck(
        lambda a, b: margin_cross_entropy(a, b, labels, 4, MARGINED["arc"], 2), (x, w))


def test_streaming_never_holds_all_logits():
    """No tensor of B x C numbers appears, going forward or back."""
    from torch.utils._python_dispatch import TorchDispatchMode

    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in (out if isinstance(out, tuple) else (out,))
                         if isinstance(t, torch.Tensor))
            return out

    B, C, D, chunk = 64, 1000, 4, 50
    x = torch.randn(B, D, requires_grad=True)
    w = torch.randn(C, D, requires_grad=True)
    with Watch():
        margin_cross_entropy(x, w, torch.arange(B), 64, MARGINED["arc"], chunk).backward()
    assert max(sizes) == max(C * D, B * chunk)  # the weight's gradient, one block
    sizes.clear()
    with Watch():
        margin_cross_entropy(x, w, torch.arange(B), 64, MARGINED["arc"]).backward()
    assert max(sizes) == B * C  # so the watch does see it


def test_batches_are_refused_in_words():
    x, labels = torch.randn(4, 3), torch.tensor([0, 1, 9, 2])
    with pytest.raises(ValueError, match="label 9 in row 2 of the batch, but the loss has 5 class"):
        check_batch(x, labels, 5)
    with pytest.raises(ValueError, match="label -1 in row 0"):
        check_batch(x, labels - 1, 100)
    x[1, 2], x[3, 0] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="2 of 4 student embeddings are NaN or infinite .*row 1"):
        check_batch(x, labels, 10)
    with pytest.raises(ValueError, match=r"4 embeddings but labels of shape \(3,\)"):
        check_batch(x, labels[:3], 10)
    with pytest.raises(ValueError, match="the batch is empty"):
        check_batch(x[:0], labels[:0])


def test_a_missing_or_unequal_teacher_is_refused_in_words():
    student = Output(torch.randn(4, 8))
    with pytest.raises(ValueError, match="Some needs a teacher's embedding"):
        teacher_embedding(student, None, "Some")
    with pytest.raises(ValueError, match=r"student's are \(4, 8\), the teacher's \(4, 16\)"):
        teacher_embedding(student, Output(torch.randn(4, 16)), "Some")
    assert not teacher_embedding(
        student, Output(torch.randn(4, 8, requires_grad=True)), "Some").requires_grad
