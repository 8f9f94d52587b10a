"""SP: both forms by loop and by hand."""

import math

import pytest
import torch

from kdlab.losses.sp import SP, gram, rownorm, sp
from kdlab.outputs import Output, Targets


def labels(n):
    return Targets(torch.zeros(n, dtype=torch.int64))


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def unit(v):
    length = math.hypot(*v)
    return [x / length for x in v]


def by_loop(s, t, form):
    tables = []
    for x in (s.tolist(), t.tolist()):
        x = [unit(v) for v in x] if form == "tface" else x
        table = [[sum(p * q for p, q in zip(a, b, strict=True)) for b in x] for a in x]
        tables.append([unit(row) for row in table] if form == "paper" else table)
    n = len(s)
    return sum((tables[0][i][j] - tables[1][i][j]) ** 2 for i in range(n) for j in range(n)) / n**2


@pytest.mark.parametrize("form", ["paper", "tface"])
@pytest.mark.parametrize("layer", ["last_map", "embedding"])
def test_both_forms_by_loop(form, layer):
    """Networks of different widths, map sizes and numbers of stages."""
    student = Output(draw(6, 3), features=(draw(6, 4, 3, 3), draw(6, 5, 2, 2, seed=2)))
    teacher = Output(draw(6, 7, seed=1), features=(draw(6, 8, 3, 2, seed=3),))
    s, t = ((student.embedding, teacher.embedding) if layer == "embedding" else
            (student.features[-1].flatten(1), teacher.features[-1].flatten(1)))
    value = SP(2.5, layer=layer, form=form)(student, teacher, labels(6))["similarity"]
    assert value.item() == pytest.approx(2.5 * by_loop(s, t, form), rel=1e-9)


def test_hand_number_and_hand_gradient():
    """Student rows (1, 0) and (0, y) at y = 1, teacher rows alike: (1, 0) twice.

    G_s = [[1, 0], [0, y²]], its rows (1, 0) and (0, 1) whatever y; G_t's rows (√½, √½) twice.
    |1 - √½|² + ½ a row, two rows, over 4. Turning row 2 to (t, 1): G_s = [[1, t], [t, 1]], both
    off-diagonals of both normalised rows grow at rate 1: 2 (0 - √½) each, over 4.
    """
    student = torch.eye(2, dtype=torch.float64).requires_grad_()
    teacher = torch.tensor([[1.0, 0], [1, 0]], dtype=torch.float64)
    root = math.sqrt(0.5)
    value = sp(student, teacher)
    assert value.item() == pytest.approx(2 * ((1 - root) ** 2 + 0.5) / 4)
    value.backward()
    assert student.grad[1, 0].item() == pytest.approx(2 * 2 * -root / 4)
    assert student.grad[1, 1].item() == pytest.approx(0)


def test_tface_is_the_mean_squared_difference_of_cosines():
    """Two faces 60 degrees apart against 90: two of four entries differ by 1/2."""
    student = torch.tensor([[3.0, 0], [1, math.sqrt(3)]], dtype=torch.float64)
    value = sp(student, torch.eye(2, dtype=torch.float64), "tface")
    assert value.item() == pytest.approx(2 * 0.25 / 4)


def test_rotation_and_scale_cost_nothing_and_the_two_forms_differ():
    x = draw(6, 4)
    turn, _ = torch.linalg.qr(draw(4, 4, seed=1))
    for form in ("paper", "tface"):
        assert sp(x, 3 * x @ turn, form).item() == pytest.approx(0, abs=1e-25)
    longer = x * torch.tensor([1, 2, 3, 4, 5, 6.0], dtype=torch.float64)[:, None]
    assert sp(x, longer, "tface").item() == pytest.approx(0, abs=1e-25)
    assert sp(x, longer, "paper").item() > 1e-3  # row lengths enter through the columns


@pytest.mark.parametrize("form", ["paper", "tface"])
def test_gradcheck(form):
    student, teacher = draw(4, 3).requires_grad_(), draw(4, 5, seed=1)
    assert torch.autograd.gradcheck(lambda x: sp(x, teacher, form), student)


def test_weights_and_needs():
    assert SP().weight == 3000 and SP(form="tface").weight == 1 and SP(7).weight == 7
    assert SP().needs == {"features"} and SP(layer="embedding").needs == {"embedding"}


@pytest.mark.parametrize("form", ["paper", "tface"])
@pytest.mark.parametrize("rows", [torch.zeros(3, 4), torch.ones(3, 4), torch.ones(1, 4),
                                  torch.eye(4)[[0, 0, 1]] * torch.tensor([[1.0], [1], [0]])],
                         ids=["zero", "equal", "one", "one dead"])
def test_odd_batches_stay_finite(rows, form):
    student = rows.clone().requires_grad_()
    value = sp(student, draw(len(rows), 6).float(), form)
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()
    if form == "paper":
        assert student.grad.abs().max() < 10  # a dead row has a slope of common size


def test_rows_of_zeros_stay_zero():
    table = rownorm(gram(torch.tensor([[0.0, 0], [3, 4]])))
    assert table.tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("form", ["paper", "tface"])
def test_bf16_is_compared_in_float32(form):
    student, teacher = draw(8, 64).bfloat16().requires_grad_(), draw(8, 32, seed=1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = SP(1, layer="embedding", form=form)(Output(student), Output(teacher),
                                                    labels(8))["similarity"]
    value.backward()
    assert value.dtype == torch.float32 and student.grad.isfinite().all()
    assert value.item() == pytest.approx(sp(draw(8, 64), draw(8, 32, seed=1), form).item(),
                                         rel=2e-2)


def test_wrong_input_is_refused_in_words():
    def maps(n):
        return Output(draw(n, 3), features=(draw(n, 2, 2, 2),))

    with pytest.raises(ValueError, match="SP needs a teacher's last feature map"):
        SP()(maps(4), None, labels(4))
    with pytest.raises(ValueError, match="SP needs a teacher's embedding"):
        SP(layer="embedding")(maps(4), None, labels(4))
    with pytest.raises(ValueError, match="the teacher has none"):
        SP()(maps(4), Output(draw(4, 3)), labels(4))
    with pytest.raises(ValueError, match="the student has none"):
        SP()(Output(draw(4, 3)), maps(4), labels(4))
    with pytest.raises(ValueError, match="4 embeddings of the student, 5 of the teacher"):
        SP()(maps(4), maps(5), labels(4))
    broken = Output(draw(4, 3), features=(draw(4, 2, 2, 2).log(),))
    with pytest.raises(ValueError, match="of 4 teacher last map embeddings are NaN"):
        SP()(maps(4), broken, labels(4))
    with pytest.raises(ValueError, match="layer must be"):
        SP(layer="maps")
    with pytest.raises(ValueError, match="form must be"):
        SP(form="raw")
