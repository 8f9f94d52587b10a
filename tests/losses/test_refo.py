"""ReFO: equations 4 and 5."""

import math

import pytest
import torch

from kdlab.losses.refo import FeatureOnly, ReverseDistillation, feature_only, reverse_distillation
from kdlab.outputs import Output, Targets


def by_loop(a, b, weight, normalize, reduction):
    total = 0.0
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        nx, ny = (math.hypot(*x), math.hypot(*y)) if normalize else (1.0, 1.0)
        squares = [(p / nx - q / ny) ** 2 for p, q in zip(x, y, strict=True)]
        total += sum(squares) / (len(squares) if reduction == "mean" else 1)
    return weight * total / len(a)


@pytest.mark.parametrize("equation", [feature_only, reverse_distillation])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_equations_4_and_5_by_loop(equation, normalize, reduction):
    torch.manual_seed(0)
    a, b = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    assert float(equation(a, b, 2.5, normalize, reduction)) == pytest.approx(
        by_loop(a, b, 2.5, normalize, reduction), rel=1e-9)


def test_hand_number_and_hand_gradient():
    """Directions 60 degrees apart: 2 - 2 cos 60 = 1, times 5. Turning x away by t: 5 * 2 sin 60.

    With |x| = 2 the gradient along the turn halves: 5 * 2 sin 60 / 2 = 4.3301.
    """
    t = math.pi / 3
    x = torch.tensor([[2 * math.cos(t), 2 * math.sin(t)]], dtype=torch.float64, requires_grad=True)
    loss = feature_only(x, torch.tensor([[7.0, 0.0]], dtype=torch.float64))
    loss.backward()
    assert loss.item() == pytest.approx(5)
    along = torch.tensor([-math.sin(t), math.cos(t)], dtype=torch.float64)
    assert float(x.grad[0] @ along) == pytest.approx(5 * math.sin(t))


def test_default_weights_are_the_supplements():
    assert FeatureOnly().weight == 5
    assert ReverseDistillation().weight == 0.5
    assert ReverseDistillation(normalize=False).weight == 0.001
    assert ReverseDistillation(weight=2).weight == 2


def test_rotating_both_costs_nothing_and_lengths_only_matter_raw():
    torch.manual_seed(0)
    a, b = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    for normalize in (True, False):
        torch.testing.assert_close(feature_only(a, b, 5, normalize),
                                   feature_only(a @ turn, b @ turn, 5, normalize))
    torch.testing.assert_close(feature_only(a, b), feature_only(3 * a, b / 7))
    assert feature_only(3 * a, b, 5, False) > feature_only(a, b, 5, False)


@pytest.mark.parametrize("normalize", [True, False])
def test_gradcheck(normalize):
    torch.manual_seed(0)
    a = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: feature_only(x, b, 5, normalize), a)


def test_bf16_is_compared_in_float32():
    torch.manual_seed(0)
    a, b = torch.randn(4, 64).bfloat16(), torch.randn(4, 64).bfloat16()
    value = feature_only(a, b)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(float(feature_only(a.double(), b.double())), rel=1e-5)


def test_wrong_input_is_refused_in_words():
    labels = Targets(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="ReverseDistillation needs a teacher"):
        ReverseDistillation()(Output(torch.randn(3, 4)), None, labels)
    with pytest.raises(ValueError, match="embedding_size"):
        FeatureOnly()(Output(torch.randn(3, 4)), Output(torch.randn(3, 5)), labels)
    with pytest.raises(ValueError, match="3 of 3 student embeddings"):
        FeatureOnly()(Output(torch.full((3, 4), torch.nan)), Output(torch.randn(3, 4)), labels)
    with pytest.raises(ValueError, match="reduction"):
        FeatureOnly(reduction="batchmean")


@pytest.mark.parametrize("loss", [FeatureOnly(), ReverseDistillation()])
def test_a_teacher_that_is_not_finite_is_refused(loss):
    bad = torch.ones(3, 4)
    bad[1, 2] = torch.nan
    with pytest.raises(ValueError, match="1 of 3 teacher embeddings are NaN"):
        loss(Output(torch.ones(3, 4)), Output(bad), Targets(torch.zeros(3, dtype=torch.long)))


@pytest.mark.parametrize("loss", [FeatureOnly(), ReverseDistillation(normalize=False)])
def test_only_the_network_that_learns_gets_a_gradient(loss):
    """Step 3 trains the teacher-to-be against a frozen proxy, step 5 the student."""
    learns, frozen = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    loss(Output(learns), Output(frozen), Targets(torch.tensor([0, 0, 1])))["embedding"].backward()
    assert learns.grad.any(1).all() and frozen.grad is None


@pytest.mark.parametrize("normalize", [True, False])
def test_same_opposite_and_zero_rows_stay_finite(normalize):
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    value = feature_only(x, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 1, normalize)
    value.backward()
    assert value.item() == pytest.approx((0 + 4 + 1) / 3)
    assert x.grad.isfinite().all() and not x.grad[0].any()
