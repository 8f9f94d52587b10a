"""The mathematics losses share."""

import math

import pytest
import torch

from kdlab.functional import (
    arc_margin,
    cos_margin,
    cosine_of_rows,
    cosines,
    full,
    squared_distance,
    squared_distances,
    straight_through,
    unit,
)


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


def test_cos_margin_is_taken_from_the_cosine():
    cosine = torch.tensor([0.9, -0.2])
    torch.testing.assert_close(cos_margin(cosine, 0.4), torch.tensor([0.5, -0.6]))
    torch.testing.assert_close(cos_margin(cosine, torch.tensor([0.1, 0.3])),
                               torch.tensor([0.8, -0.5]))


def test_squared_distances_by_loop():
    torch.manual_seed(2)
    x, y = torch.randn(4, 3).double(), torch.randn(5, 3).double()
    got = squared_distances(x, y)
    assert got.shape == (4, 5)
    for i, a in enumerate(x.tolist()):
        for j, b in enumerate(y.tolist()):
            expected = sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
            assert float(got[i, j]) == pytest.approx(expected, rel=1e-9)


def test_squared_distances_gradient():
    """Also that the middle, which is held fixed, has no part in it."""
    torch.manual_seed(3)
    x, y = (torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (3, 4))
    assert torch.autograd.gradcheck(squared_distances, (x, y))
    squared_distances(x, x).sum().backward()
    assert x.grad.isfinite().all()  # also where a row meets itself


def test_squared_distances_far_from_the_origin_are_0_or_more_and_keep_their_digits():
    torch.manual_seed(4)
    x = torch.randn(6, 8)
    near, far = squared_distances(x, x), squared_distances(x + 1000, x + 1000)
    assert (far >= 0).all() and far.diagonal().max() < 1e-4
    torch.testing.assert_close(far, near, rtol=1e-3, atol=1e-4)


def test_squared_distances_keep_float32_under_autocast():
    torch.manual_seed(0)
    x, y = torch.randn(4, 64), torch.randn(5, 64)
    with torch.autocast("cpu", torch.bfloat16):
        got = squared_distances(x, y)
    torch.testing.assert_close(got, squared_distances(x.double(), y).float())


def test_unit_vectors_have_a_bounded_slope_even_at_zero():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    rows = unit(x)
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    (rows * torch.tensor([[1.0, 0.0], [5.0, 7.0]])).sum().backward()
    # d(x1 / |x|) = (4², -3 * 4) / 5³; at zero the slope that comes is passed on
    torch.testing.assert_close(x.grad, torch.tensor([[0.128, -0.096], [5.0, 7.0]]))
    y = torch.randn(6, 5, 4)
    assert torch.equal(unit(y, dim=2), torch.nn.functional.normalize(y, dim=2))
