"""ArcDistill and CosDistill: equation 4 against rows that stay."""

import math

import pytest
import torch

from kdlab.losses.adadistill import AdaDistill, ArcDistill, CosDistill, adadistill
from kdlab.outputs import Output, Targets

BOTH = pytest.mark.parametrize("loss_class", [ArcDistill, CosDistill])


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def by_loop(student, rows, labels, kind, s, m):
    total = 0.0
    for f, y in zip(student.tolist(), labels.tolist(), strict=True):
        c = [cosine(f, w) for w in rows.tolist()]
        own = math.cos(math.acos(c[y]) + m) if kind == "arc" else c[y] - m
        logits = [s * (own if j == y else value) for j, value in enumerate(c)]
        total += math.log(sum(map(math.exp, logits))) - logits[y]
    return total / len(labels)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return (torch.randn(7, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64),
            torch.tensor([2, 0, 2, 4, 0, 2, 1]))


def term(loss, student, labels):
    return loss(Output(student), None, Targets(labels))["softmax"]  # no teacher at run time


@BOTH
@pytest.mark.parametrize("options", [{}, {"scale": 8, "margin": 0.2}, {"chunk": 2}])
def test_equation_4_by_loop(batch, loss_class, options):
    student, rows, labels = batch
    kind, margin = ("arc", 0.45) if loss_class is ArcDistill else ("cos", 0.35)
    expected = by_loop(student, rows, labels, kind, options.get("scale", 64),
                       options.get("margin", margin))
    assert float(term(loss_class(rows, **options), student, labels)) == pytest.approx(
        expected, rel=1e-9)


@BOTH
def test_hand_number_and_hand_gradient(loss_class):
    """Student 60 degrees from its own row, 30 from the other; s = 2.

    Own logit: arc, 2 cos(60 + 30 degrees) = 0; cos, 2 (1/2 - 1/2) = 0. Other: 2 cos 30 = sqrt 3.
    Turning towards the own row by t: own rises by 2 sin 90 (arc) or 2 sin 60 (cos), the other
    falls by 2 sin 30 = 1; |x| = 2.
    """
    margin = math.pi / 6 if loss_class is ArcDistill else 0.5
    rows = torch.tensor([[3.0, 0.0], [0.0, 0.1]], dtype=torch.float64)  # any length
    x = torch.tensor([[1.0, math.sqrt(3)]], dtype=torch.float64, requires_grad=True)
    value = term(loss_class(rows, scale=2, margin=margin), x, torch.tensor([0]))
    assert value.item() == pytest.approx(math.log1p(math.exp(math.sqrt(3))))
    value.backward()
    towards = torch.tensor([math.sqrt(3) / 2, -0.5], dtype=torch.float64)
    rise = 2 if loss_class is ArcDistill else math.sqrt(3)
    share = 1 / (1 + math.exp(-math.sqrt(3)))
    assert float(x.grad[0] @ towards) == pytest.approx(-share * (rise + 1) / 2)


@BOTH
def test_the_rows_stay_and_take_no_gradient(batch, loss_class):
    student, rows, labels = batch
    given = rows.clone().requires_grad_()
    loss = loss_class(given)
    x = student.clone().requires_grad_()
    for _ in range(2):
        term(loss.train(), x, labels).backward()
    assert torch.equal(loss.centres, rows) and given.grad is None and x.grad.any()
    assert not list(loss.parameters()) and not getattr(loss, "needs", ())
    with torch.no_grad():
        given.zero_()  # the teacher's own tensor may go: the loss holds a copy
    assert torch.equal(loss.centres, rows)


@BOTH
def test_it_is_adadistill_once_its_centres_stand(batch, loss_class):
    student, rows, labels = batch
    ada = AdaDistill(3, 5, loss_class.kind).double().eval()
    ada.centres.copy_(rows)
    other = ada(Output(student), Output(student), Targets(labels))["softmax"]
    assert torch.equal(term(loss_class(rows), student, labels), other)


@BOTH
def test_a_checkpoint_is_whole(batch, loss_class):
    student, rows, labels = batch
    first, second = loss_class(rows), loss_class(torch.ones(5, 3, dtype=torch.float64))
    assert set(first.state_dict()) == {"centres"}
    second.load_state_dict(first.state_dict())
    assert torch.equal(term(first, student, labels), term(second, student, labels))


@BOTH
def test_lengths_and_rotations_cost_nothing(batch, loss_class):
    student, rows, labels = batch
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    torch.testing.assert_close(term(loss_class(rows), student, labels),
                               term(loss_class(2 * rows @ turn), student @ turn / 3, labels))


@pytest.mark.parametrize("kind", ["arc", "cos"])
def test_gradcheck(batch, kind):
    student, rows, labels = batch
    assert torch.autograd.gradcheck(
        lambda x: adadistill(x, rows, labels, kind, 8), student.requires_grad_())


@BOTH
@pytest.mark.parametrize("chunk", [None, 2])
def test_on_and_opposite_a_row_everything_is_finite(loss_class, chunk):
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    x = torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]], requires_grad=True)
    value = term(loss_class(rows, chunk=chunk), x, torch.tensor([0, 1, 2]))
    value.backward()
    assert value.isfinite() and x.grad.isfinite().all()


@BOTH
def test_streaming_equals_plain(batch, loss_class):
    student, rows, labels = batch
    results = []
    for chunk in (None, 2):
        x = student.clone().requires_grad_()
        value = term(loss_class(rows, chunk=chunk), x, labels)
        value.backward()
        results.append((value.detach(), x.grad))
    torch.testing.assert_close(*results)


@BOTH
def test_bf16_embeddings_are_compared_in_float32(loss_class):
    torch.manual_seed(0)
    rows, x, labels = torch.randn(6, 16), torch.randn(4, 16).bfloat16(), torch.arange(4)
    with torch.autocast("cpu", torch.bfloat16):
        value = term(loss_class(rows), x, labels)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(
        float(term(loss_class(rows.double()), x.double(), labels)), rel=1e-5)
    assert loss_class(rows.bfloat16()).centres.dtype == torch.float32


@BOTH
def test_rows_that_cannot_serve_are_refused(batch, loss_class):
    rows, name = batch[1], loss_class.__name__
    with pytest.raises(ValueError, match=f"{name} needs the teacher's class rows and got none"):
        loss_class(None)
    with pytest.raises(ValueError, match=r"\(classes, dimensions\), not .* \(3,\)"):
        loss_class(rows[0])
    for wrong in (0, torch.nan, torch.inf):
        broken = rows.clone()
        broken[3] = wrong
        with pytest.raises(ValueError, match=f"1 of {name}'s 5 class rows.*row 3"):
            loss_class(broken)
    with pytest.raises(ValueError, match="chunk must be a number of classes"):
        loss_class(rows, chunk=0)


@BOTH
def test_wrong_batches_are_refused(batch, loss_class):
    student, rows, labels = batch
    loss, name = loss_class(rows), loss_class.__name__
    broken = student.clone()
    broken[5, 1] = torch.nan
    for x, y, message in (
        (student[:, :2], labels, f"{name} has class rows of 3 dimensions and the student has 2"),
        (student, labels + 1, "label 5 in row 3.*5 classes"),
        (student, labels - 1, "label -1 in row 1"),
        (broken, labels, "1 of 7 student embeddings.*row 5"),
        (student, labels[:6], "7 .* embeddings but labels"),
    ):
        with pytest.raises(ValueError, match=message):
            term(loss, x, y)
