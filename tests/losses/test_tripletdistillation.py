"""TripletDistillation: margins and triplets by loop, by hand, and the batches that have none."""

import math

import pytest
import torch

from kdlab.losses.tripletdistillation import (
    TripletDistillation,
    distances,
    margins,
    mine,
    thirds,
    triplet_distillation,
)
from kdlab.outputs import Output, Targets


def distance_by_loop(x, y, kind):
    nx, ny = math.hypot(*x), math.hypot(*y)
    if kind == "squared":
        return sum((a / nx - b / ny) ** 2 for a, b in zip(x, y, strict=True))
    return math.acos(sum(a * b for a, b in zip(x, y, strict=True)) / (nx * ny))


def triplets_by_loop(x, labels, layout, mining):
    found = []
    if layout == "thirds":
        n = len(x) // 3
        return [(i, n + i, 2 * n + i) for i in range(n)]
    for a in range(len(x)):
        for p in range(len(x)):
            if a == p or labels[a] != labels[p]:
                continue
            best = None
            for n in range(len(x)):
                to_negative = distance_by_loop(x[a], x[n], "squared")
                beyond = to_negative - distance_by_loop(x[a], x[p], "squared")
                allowed = mining == "hardest" or 0 < beyond < 0.35
                if labels[n] != labels[a] and allowed and (best is None or to_negative < best[0]):
                    best = to_negative, n
            if best is not None:
                found.append((a, p, best[1]))
    return found


def loss_by_loop(student, teacher, labels, kind, layout, mining, least, most):
    s, t = student.tolist(), teacher.tolist()
    triplets = triplets_by_loop(s, labels.tolist(), layout, mining)
    gaps = [max(0.0, distance_by_loop(t[a], t[n], kind) - distance_by_loop(t[a], t[p], kind))
            for a, p, n in triplets]
    total = 0.0
    for (a, p, n), gap in zip(triplets, gaps, strict=True):
        m = (most - least) / max(gaps) * gap + least
        total += max(0.0, distance_by_loop(s[a], s[p], kind)
                     - distance_by_loop(s[a], s[n], kind) + m)
    return total / len(triplets)


@pytest.fixture
def batch():
    """Student (9, 3), teacher (9, 5), labels that are a batch in thirds too."""
    torch.manual_seed(0)
    return (torch.randn(9, 3, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64),
            torch.tensor([0, 1, 2, 0, 1, 2, 1, 2, 0]))


@pytest.mark.parametrize("kind", ["squared", "angle"])
@pytest.mark.parametrize("layout, mining", [("batch", "hardest"), ("batch", "semi_hard"),
                                            ("thirds", "hardest")])
def test_the_formula_by_loop(batch, kind, layout, mining):
    student, teacher, labels = batch
    loss = TripletDistillation(least=0.1, most=0.8, weight=3, distance=kind, layout=layout,
                               mining=mining)
    value = loss(Output(student), Output(teacher), Targets(labels))["triplet"]
    expected = loss_by_loop(student, teacher, labels, kind, layout, mining, 0.1, 0.8)
    assert expected > 0
    assert value.item() == pytest.approx(3 * expected, rel=1e-9)


def on_circle(*degrees):
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack((angles.cos(), angles.sin()), 1)


def test_hand_numbers_and_hand_gradient():
    """Two triplets in thirds, angles.

    Teacher: gaps 60 - 30 = 30 and 80 - 20 = 60 degrees; D_max = 60, so that m = 0.2 + 0.3 / 2
    = 0.35 and 0.5. Student: 40 - 50 = -10 degrees and 30 - 90 = -60. Terms: 0.35 - 0.174533 and
    relu(0.5 - 1.047198) = 0; the mean 0.0877335. Turning the first anchor towards its positive
    by t brings that nearer and the negative, on its other side, farther: -2 t / 2.
    """
    teacher = on_circle(0, 0, 30, 20, 60, 80)
    student = (5 * on_circle(0, 0, 40, 30, -50, 90)).requires_grad_()  # any length
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    loss = TripletDistillation(distance="angle", layout="thirds")
    value = loss(Output(student), Output(teacher), Targets(labels))["triplet"]
    assert value.item() == pytest.approx((0.35 - math.radians(10)) / 2)
    value.backward()
    assert student.grad[0].tolist() == pytest.approx([0, -1 / 5])  # |x| = 5
    assert not student.grad[[1, 3, 5]].any()
    assert loss.report() == pytest.approx({"triplets": 2, "active": 0.5, "margin": 0.425})


def test_squared_distance_of_a_right_angle_is_2_and_of_opposites_4():
    d = distances(on_circle(0, 90, 180))
    torch.testing.assert_close(d[0], torch.tensor([0.0, 2, 4], dtype=torch.float64))
    angle = distances(on_circle(0, 90, 180), "angle")
    assert angle[0].tolist() == pytest.approx([0, math.pi / 2, math.pi])


def test_margins_run_from_least_to_most_and_stand_at_least_without_a_gap():
    """Gaps -1, 0, 1, 4: 0.2, 0.2, 0.2 + 0.3 / 4, 0.5."""
    assert margins(torch.tensor([-1.0, 0, 1, 4])).tolist() == pytest.approx([0.2, 0.2, 0.275, 0.5])
    assert margins(torch.tensor([-1.0, 0])).tolist() == pytest.approx([0.2, 0.2])
    assert margins(torch.tensor([2.0]), 0.1, 0.1).tolist() == pytest.approx([0.1])


def test_only_the_teacher_moves_the_margin_and_unlike_people_get_the_wider(batch):
    student = batch[0]
    teacher = on_circle(0, 0, 5, 5, 20, 120)  # the second negative is the more unlike
    triplets = thirds(torch.tensor([0, 1, 0, 1, 1, 0]))
    for x in (student[:6], 2 * student[3:]):
        _, margin = triplet_distillation(x, teacher, triplets)
        assert margin[1] == 0.5 and 0.2 < margin[0] < 0.25
    _, turned = triplet_distillation(student[:6], 3 * teacher.flip(1), triplets)
    torch.testing.assert_close(turned, margin)


@pytest.mark.parametrize("kind", ["squared", "angle"])
def test_rotations_and_lengths_cost_nothing(batch, kind):
    student, teacher, labels = batch
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    loss = TripletDistillation(distance=kind)
    one = loss(Output(student), Output(teacher), Targets(labels))["triplet"]
    other = loss(Output(2 * student @ turn), Output(7 * teacher), Targets(labels))["triplet"]
    torch.testing.assert_close(one, other)


def test_hardest_and_semi_hard_negatives_on_a_circle():
    """Anchor at 0, its positive at 40. Squared distances 2 - 2 cos: positive 0.468; others at 20:
    0.121, at 50: 0.714 (0.247 beyond), at 60: 1 (0.532 beyond, outside the window of 0.35)."""
    x, labels = on_circle(0, 40, 20, 50, 60), torch.tensor([0, 0, 1, 2, 3])
    assert [t.tolist() for t in mine(x, labels)] == [[0, 1], [1, 0], [2, 3]]
    # seen from 40 the others are at most 20 away, nearer than the positive: no triplet
    assert [t.tolist() for t in mine(x, labels, "semi_hard")] == [[0], [1], [3]]


def test_the_layout_in_thirds_is_the_released_ports():
    anchor, positive, negative = thirds(torch.tensor([4, 7, 4, 7, 7, 9]))
    assert (anchor.tolist(), positive.tolist(), negative.tolist()) == ([0, 1], [2, 3], [4, 5])


@pytest.mark.parametrize("kind", ["squared", "angle"])
def test_gradcheck(batch, kind):
    student, teacher, labels = batch
    triplets = mine(student, labels)
    assert torch.autograd.gradcheck(
        lambda x: triplet_distillation(x, teacher, triplets, distance=kind)[0],
        student.requires_grad_())


def test_no_gradient_reaches_the_teacher(batch):
    student, teacher, labels = batch[0].requires_grad_(), batch[1].requires_grad_(), batch[2]
    TripletDistillation()(Output(student), Output(teacher), Targets(labels))["triplet"].backward()
    assert student.grad.any() and teacher.grad is None


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [5]])
@pytest.mark.parametrize("mining", ["hardest", "semi_hard"])
def test_without_a_triplet_the_loss_is_0_with_a_gradient_path(labels, mining):
    x = torch.randn(len(labels), 4, requires_grad=True)
    loss = TripletDistillation(mining=mining)
    value = loss(Output(x), Output(x.detach()), Targets(torch.tensor(labels)))["triplet"]
    value.backward()
    assert value.item() == 0 and x.grad is not None and not x.grad.any()
    assert loss.report() == {"triplets": 0, "active": 0, "margin": 0.2}


@pytest.mark.parametrize("kind", ["squared", "angle"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_opposite_and_zero_rows_stay_finite(kind, dtype):
    rows = torch.tensor([[1.0, 0], [1, 0], [1, 0], [-1, 0], [0, 0], [0, 1e-30]], dtype=dtype)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    for layout, order in (("batch", range(6)), ("thirds", [0, 2, 4, 1, 3, 5, 2, 0, 3])):
        order = list(order)
        x = rows[order].requires_grad_()
        loss = TripletDistillation(distance=kind, layout=layout)
        value = loss(Output(x), Output(x.detach()), Targets(labels[order]))["triplet"]
        value.backward()
        assert value.isfinite() and x.grad.isfinite().all()


def test_the_angle_of_equal_rows_is_0_and_pulls_nowhere():
    x = torch.tensor([[1.0, 0], [1, 0], [-1, 0]], requires_grad=True)
    d = distances(x, "angle")
    assert d[0].tolist() == [0, 0, torch.tensor(math.pi)]
    d.sum().backward()
    assert not x.grad.any()


def test_a_teacher_that_sees_no_gap_leaves_every_margin_at_least(batch):
    """The released port divides 0 by 0 here."""
    student, _, labels = batch
    same = torch.ones(9, 5, dtype=torch.float64)
    loss = TripletDistillation()
    value = loss(Output(student), Output(same), Targets(labels))["triplet"]
    fixed = TripletDistillation(most=0.2)(Output(student), Output(same), Targets(labels))
    assert loss.report()["margin"] == pytest.approx(0.2)
    torch.testing.assert_close(value, fixed["triplet"])
    assert margins(torch.tensor([0.0, 1e-6])).tolist() == pytest.approx([0.2, 0.2], abs=1e-3)


def test_nothing_is_reported_of_eval_mode(batch):
    student, teacher, labels = batch
    loss = TripletDistillation().eval()
    loss(Output(student), Output(teacher), Targets(labels))
    assert loss.report() == {} and not loss.state_dict()


@pytest.mark.parametrize("kind", ["squared", "angle"])
def test_bf16_outputs_are_compared_in_float32(kind):
    torch.manual_seed(0)
    student, teacher = torch.randn(12, 64).bfloat16(), torch.randn(12, 64).bfloat16()
    loss, labels = TripletDistillation(distance=kind), Targets(torch.arange(12) % 4)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(Output(student), Output(teacher), labels)["triplet"]
    exact = loss(Output(student.double()), Output(teacher.double()), labels)["triplet"]
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)


def test_wrong_input_is_refused_in_words(batch):
    student, teacher, labels = batch
    broken = teacher.clone()
    broken[4, 0] = torch.inf
    loss, port = TripletDistillation(), TripletDistillation(layout="thirds")
    for chosen, arguments, message in (
        (loss, (Output(student), None, Targets(labels)), "needs a teacher's embedding"),
        (loss, (Output(student), Output(teacher[:7]), Targets(labels)),
         "9 rows of the student and 7 of the teacher"),
        (loss, (Output(student), Output(broken), Targets(labels)), "1 of 9 teacher.*row 4"),
        (loss, (Output(student), Output(teacher), Targets(labels[:8])), "9.*embeddings but labels"),
        (port, (Output(student[:8]), Output(teacher[:8]), Targets(labels[:8])),
         "8 rows do not divide by 3"),
        (port, (Output(student), Output(teacher), Targets(labels.roll(1))),
         "triplet 0 has labels 0, 2, 2"),
        (port, (Output(student), Output(teacher), Targets(torch.tensor([0, 1, 2] * 3))),
         "triplet 0 has labels 0, 0, 0"),
    ):
        with pytest.raises(ValueError, match=message):
            chosen(*arguments)
    for name in ("distance", "layout", "mining"):
        with pytest.raises(ValueError, match=f"{name} must be one of"):
            TripletDistillation(**{name: "other"})
    with pytest.raises(ValueError, match="from least to most.*0.6 and 0.5"):
        TripletDistillation(least=0.6)
