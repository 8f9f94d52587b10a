"""Cross-entropy on logits: by loop, by hand, and what it refuses."""

import math

import pytest
import torch

from kdlab.losses.cross_entropy import CrossEntropy, cross_entropy
from kdlab.outputs import Output, Targets


def by_loop(logits, labels):
    total = 0.0
    for row, y in zip(logits.tolist(), labels.tolist(), strict=True):
        total += math.log(sum(map(math.exp, row))) - row[y]
    return total / len(labels)


def call(logits, labels):
    return CrossEntropy()(Output(torch.zeros(len(labels), 2), logits), None, Targets(labels))


def test_by_loop():
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(7, 4, dtype=torch.float64), torch.tensor([0, 3, 3, 1, 2, 0, 0])
    expected = pytest.approx(by_loop(logits, labels), rel=1e-9)
    assert cross_entropy(logits, labels).item() == expected
    assert call(logits, labels)["cross_entropy"].item() == expected
    assert call(logits + 100, labels)["cross_entropy"].item() == pytest.approx(
        by_loop(logits, labels), rel=1e-9)  # a common shift is free


def test_hand_number_and_hand_gradient():
    """Logits (ln 3, 0): shares 3/4 and 1/4. Label 0: -ln 3/4; gradient (3/4 - 1, 1/4)."""
    logits = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(0.75))
    assert logits.grad.tolist()[0] == pytest.approx([-0.25, 0.25])


def test_gradcheck():
    torch.manual_seed(0)
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, 1, 1])
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, labels), logits)


def test_every_row_counts_whatever_drew_it():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    drawn = torch.tensor([True, True, False, False])
    value = CrossEntropy()(Output(logits, logits), None, Targets(labels, balanced=drawn))
    assert torch.equal(value["cross_entropy"], call(logits, labels)["cross_entropy"])


def test_bf16_logits_are_summed_in_float32():
    torch.manual_seed(0)
    logits, labels = (8 * torch.randn(16, 50)).bfloat16(), torch.arange(16)
    with torch.autocast("cpu", torch.bfloat16):
        value = call(logits, labels)["cross_entropy"]
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(by_loop(logits.double(), labels), rel=1e-5)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4], [0.0, 0.0]], requires_grad=True)
    value = call(logits, torch.tensor([1, 0]))["cross_entropy"]
    value.backward()
    assert value.item() == pytest.approx((2e4 + math.log(2)) / 2) and logits.grad.isfinite().all()


def test_wrong_input_is_refused_in_words():
    logits, labels = torch.zeros(3, 2), torch.tensor([0, 1, 1])
    for arguments, message in (
        ((None, labels), "CrossEntropy needs the student's logits and it has none"),
        ((logits, labels + 1), "label 2 in row 1.*2 classes"),
        ((logits, labels - 1), "label -1 in row 0"),
        ((logits, labels[:2]), r"3 student logits but labels of shape \(2,\)"),
        ((logits, labels.int()), "labels must be int64"),
        ((torch.full((3, 2), torch.nan), labels), "3 of 3 student logits"),
    ):
        with pytest.raises(ValueError, match=message):
            call(*arguments)
