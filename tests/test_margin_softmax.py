"""Margin softmax: both forms against a loop, each other and float64; what the blocks hold."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kdlab.functional import arc_margin, cos_margin, straight_through
from kdlab.margin_softmax import margin_cross_entropy

MARGINED = {
    "arc": lambda c: arc_margin(c, 0.5),
    "cos": lambda c: cos_margin(c, 0.4),
    "straight_through": lambda c: straight_through(arc_margin(c, 0.5), c),
}


def draw(dtype=torch.float64, rows=12, classes=30, size=16):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(rows, size, generator=generator).to(dtype)
    w = torch.randn(classes, size, generator=generator).to(dtype) * 0.01
    labels = torch.randint(classes, (rows,), generator=generator)
    x[:4] = w[labels[:4]] * 50 + 0.3 * x[:4]  # some rows near their centre, as late in training
    return x, w, labels


def run(x, w, labels, kind="arc", chunk=None, scale=64.0, autocast=False):
    """Loss and both gradients."""
    a, b = x.detach().clone().requires_grad_(), w.detach().clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = margin_cross_entropy(a, b, labels, scale, MARGINED[kind], chunk)
    (3 * loss).backward()
    return loss.detach(), a.grad, b.grad


def far(one, other):
    pairs = [(p.detach().double(), q.double()) for p, q in zip(one, other, strict=True)]
    return max(float((p - q).norm() / q.norm()) for p, q in pairs)


@pytest.mark.parametrize("chunk", [None, 1, 2, 5, 9])
@pytest.mark.parametrize("scale", [1, 8, 64])
def test_the_softmax_by_loop(chunk, scale):
    torch.manual_seed(0)
    x, w = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    labels, total = torch.tensor([0, 4, 4, 2]), 0.0
    for a, y in zip(x.tolist(), labels.tolist(), strict=True):
        logits = [scale * sum(p * q for p, q in zip(a, b, strict=True))
                  / math.hypot(*a) / math.hypot(*b) for b in w.tolist()]
        logits[y] -= scale * 0.4
        total -= math.log(math.exp(logits[y]) / sum(math.exp(z) for z in logits))
    value = margin_cross_entropy(x, w, labels, scale, MARGINED["cos"], chunk)
    assert value.item() == pytest.approx(total / 4, rel=1e-9)


@pytest.mark.parametrize("kind", MARGINED)
@pytest.mark.parametrize("chunk", [1, 7, 30, 1000])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_blocks_change_nothing(kind, chunk, dtype, tolerance):
    batch = draw(dtype)
    assert far(run(*batch, kind, chunk), run(*batch, kind)) <= tolerance


@pytest.mark.parametrize("kind", MARGINED)
def test_float32_at_scale_64_keeps_five_digits(kind):
    batch = draw(torch.float32, 32, 500, 64)
    exact = run(*(t.double() if t.is_floating_point() else t for t in batch), kind)
    for chunk in (None, 64):
        assert far(run(*batch, kind, chunk), exact) < 1e-5


def test_blocks_keep_the_digits_of_a_loss_near_zero():
    """One row at 0.1 rad of its centre, three others across: loss 3 e^{-64 cos(0.6)} = 3.44e-23.

    In float32 a total less the own logit would be 0 or some 1e-6, a probability less 1 would be 0.
    """
    w = torch.eye(4)
    x = torch.tensor([[math.cos(0.1), math.sin(0.1), 0, 0]])
    loss, by_x, _ = run(x, w, torch.tensor([0]), chunk=2)
    a, b = 64 * math.cos(0.6), 64 * math.sin(0.1)
    assert loss.item() == pytest.approx((math.exp(b) + 2) * math.exp(-a), rel=1e-4)
    exact = run(x.double(), w.double(), torch.tensor([0]), chunk=2)
    assert far([by_x], exact[1:2]) < 1e-4


@pytest.mark.parametrize("kind", ["arc", "cos"])
@pytest.mark.parametrize("chunk", [1, 2, 5, 8])
def test_gradcheck(kind, chunk):
    torch.manual_seed(0)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 4, 4])
    assert torch.autograd.gradcheck(
        lambda a, b: margin_cross_entropy(a, b, labels, 4, MARGINED[kind], chunk), (x, w))


@pytest.mark.parametrize("kind", MARGINED)
@pytest.mark.parametrize("chunk", [None, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_and_opposite_centres_and_without_length_all_is_finite(kind, chunk, dtype):
    w = torch.cat([torch.eye(3, dtype=dtype), torch.zeros(1, 3, dtype=dtype)])
    x = torch.cat([w[:3], -w[:3], w[3:], w[:1]])
    results = run(x, w, torch.tensor([0, 1, 2, 0, 1, 2, 0, 3]), kind, chunk)
    assert all(t.isfinite().all() for t in results)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_one_row_and_one_class(chunk):
    x, w, labels = draw()
    one = x[6:7], w, labels[6:7]
    assert far(run(*one, chunk=chunk), run(*one)) < 1e-12
    loss, by_x, by_w = run(x, w[:1], torch.zeros_like(labels), chunk=chunk)
    assert loss == 0 and not by_x.any() and not by_w.any()  # nothing to confuse it with


@pytest.mark.parametrize("frozen", ["embedding", "weight"])
def test_what_asks_for_no_gradient_gets_none(frozen):
    x, w, labels = draw()
    _, by_x, by_w = run(x, w, labels, chunk=7)
    x.requires_grad_(frozen != "embedding")
    w.requires_grad_(frozen != "weight")
    (3 * margin_cross_entropy(x, w, labels, 64, MARGINED["arc"], 7)).backward()
    for given, expected in ((x, by_x), (w, by_w)):
        assert given.grad is None or torch.equal(given.grad, expected)
    assert (x.grad is None) == (frozen == "embedding") and (w.grad is None) == (frozen == "weight")


def test_gradients_accumulate_and_a_graph_serves_twice():
    x, w, labels = draw()
    _, by_x, by_w = run(x, w, labels, chunk=7)
    x.requires_grad_(), w.requires_grad_()
    loss = margin_cross_entropy(x, w, labels, 64, MARGINED["arc"], 7)
    loss.backward(retain_graph=True)
    (2 * loss).backward()  # 1 + 2 = the 3 of run()
    torch.testing.assert_close((x.grad, w.grad), (by_x, by_w))
    x.grad = w.grad = None  # both halves of a batch, then their mean
    for half in (slice(0, 6), slice(6, 12)):
        part = margin_cross_entropy(x[half], w, labels[half], 64, MARGINED["arc"], 7)
        (3 * part / 2).backward()
    torch.testing.assert_close((x.grad, w.grad), (by_x, by_w))


def test_one_weight_used_twice_in_a_step():
    x, w, labels = draw()
    results = []
    for chunk in (None, 7):
        w = w.detach().clone().requires_grad_()
        sum(margin_cross_entropy(rows, w, labels, 64, MARGINED[kind], chunk)
            for rows, kind in ((x, "arc"), (x.flip(0), "cos"))).backward()
        results.append(w.grad)
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_laid_out_otherwise(dtype):
    x, w, labels = draw(dtype)
    expected = run(x, w, labels, chunk=7)
    a = x.T.contiguous().T.requires_grad_()  # columns first
    wide = torch.stack([w, w], 1).requires_grad_()  # every other row
    for b in (w.T.contiguous().T.requires_grad_(), wide):
        a.grad = None
        assert not a.is_contiguous()
        rows = b[:, 0] if b is wide else b
        assert not rows.is_contiguous()
        loss = margin_cross_entropy(a, rows, labels, 64, MARGINED["arc"], 7)
        (3 * loss).backward()
        by_w = b.grad[:, 0] if b is wide else b.grad
        assert far((loss, a.grad, by_w), expected) < 1e-5


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chunk", [None, 7])
def test_half_precision_goes_in_and_comes_out_and_float32_is_between(half, chunk):
    x, w, labels = draw(torch.float32)
    x = x.to(half)
    exact = run(x.double(), w.double(), labels, chunk=chunk)
    got = run(x, w, labels, chunk=chunk, autocast=True)
    assert [t.dtype for t in got] == [torch.float32, half, torch.float32]
    assert far(got[::2], exact[::2]) < 1e-5  # loss and weight
    assert far(got[1:2], exact[1:2]) < torch.finfo(half).eps  # rounded once, at the end
    both = run(x, w.to(half), labels, chunk=chunk)
    assert both[2].dtype == half and both[0].dtype == torch.float32


def test_blocks_go_back_in_float32_even_inside_autocast():
    x, w, labels = draw(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = run(x, w, labels, chunk=7)
    assert far(got, run(x.double(), w.double(), labels, chunk=7)) < 1e-5


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_value_without_gradients(mode):
    x, w, labels = draw()
    w.requires_grad_()
    with mode():
        plain, blocks = (margin_cross_entropy(x + 0, w, labels, 64, MARGINED["arc"], chunk)
                         for chunk in (None, 7))
    assert not blocks.requires_grad
    torch.testing.assert_close(plain, blocks)


def test_a_margin_of_every_row_its_own():
    x, w, labels = draw()
    margin = torch.linspace(0.1, 0.6, len(x), dtype=torch.float64)
    values = [margin_cross_entropy(x, w, labels, 64, lambda c: arc_margin(c, margin[:, None]),
                                   chunk) for chunk in (None, 7)]
    torch.testing.assert_close(*values)
    one_by_one = [margin_cross_entropy(x[[i]], w, labels[[i]], 64,
                                       lambda c, m=float(m): arc_margin(c, m))
                  for i, m in enumerate(margin)]
    torch.testing.assert_close(values[0], torch.stack(one_by_one).mean())


def test_blocks_never_hold_all_logits():
    """No tensor of B x C numbers appears, going forward or back."""
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
    assert sizes.count(C * D) <= 2  # allocated once, then handed on
    sizes.clear()
    with Watch():
        margin_cross_entropy(x, w, torch.arange(B), 64, MARGINED["arc"]).backward()
    assert max(sizes) == B * C  # so the watch does see it


def test_plain_is_cross_entropy_of_changed_logits():
    x, w, labels = draw()
    logits = F.normalize(x) @ F.normalize(w).T
    logits[torch.arange(12), labels] -= 0.4
    torch.testing.assert_close(margin_cross_entropy(x, w, labels, 64, MARGINED["cos"]),
                               F.cross_entropy(64 * logits, labels))


@pytest.mark.parametrize("chunk", [0, -3])
def test_no_block_of_less_than_a_class(chunk):
    with pytest.raises(ValueError, match="chunk must be a number of classes, 1 or more, or None"):
        margin_cross_entropy(*draw(), 64, MARGINED["arc"], chunk)


def test_a_class_row_of_zeros_has_the_same_gradient_in_both_forms():
    x, w, labels = draw()
    w[int(labels[0])] = 0
    whole, blocks = run(x, w, labels), run(x, w, labels, chunk=7)
    assert far(blocks, whole) < 1e-12 and blocks[2].isfinite().all()
