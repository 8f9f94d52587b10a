"""AdaDistill: equations 4 and 6 to 8 by loop, by hand, and what happens to the centres."""

import copy
import math

import pytest
import torch

from kdlab.losses.adadistill import AdaDistill, adadistill, alpha, alpha_prime, blend, occurrence
from kdlab.outputs import Output, Targets


def unit(v):
    length = math.hypot(*v)
    return [x / length for x in v]


def cosine(a, b):
    return sum(x * y for x, y in zip(unit(a), unit(b), strict=True))


def centres_by_loop(student, teacher, centres, labels, adaptive, repeated, clip):
    """Eqs. (6) to (8), sample after sample."""
    old = [list(c) for c in centres.tolist()]
    new = [list(c) for c in old]
    for f_s, f_t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        w, v = (new if repeated == "sequential" else old)[y], unit(f_t)
        agreement, nearness = cosine(f_s, f_t), cosine(w, v)
        floor = 1e-6 if clip == "code" else 0.0
        if adaptive == "alpha":
            a = min(max(agreement, floor), 1.0)
        elif clip == "code":
            a = min(max(agreement * min(max(nearness, floor), 1.0), floor), 1.0)
        else:
            a = min(max(agreement * nearness, 0.0), 1.0)
        new[y] = [a * p + (1 - a) * q for p, q in zip(w, v, strict=True)]
    return torch.tensor(new, dtype=torch.float64)


def loss_by_loop(student, centres, labels, kind, s, m):
    """Eq. (4)."""
    total = 0.0
    for f, y in zip(student.tolist(), labels.tolist(), strict=True):
        c = [cosine(f, w) for w in centres.tolist()]
        own = math.cos(math.acos(c[y]) + m) if kind == "arc" else c[y] - m
        logits = [s * (own if j == y else value) for j, value in enumerate(c)]
        total += math.log(sum(map(math.exp, logits))) - logits[y]
    return total / len(labels)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    labels = torch.tensor([2, 0, 2, 4, 0, 2, 1])  # 2 three times, 0 twice, 3 never
    student, teacher = (torch.randn(7, 3, dtype=torch.float64) for _ in range(2))
    teacher[:4] = student[:4] + 0.5 * teacher[:4]  # some agree with the student
    return student, teacher, labels


@pytest.mark.parametrize("kind", ["arc", "cos"])
@pytest.mark.parametrize("adaptive", ["alpha_prime", "alpha"])
@pytest.mark.parametrize("repeated", ["last", "sequential"])
@pytest.mark.parametrize("clip", ["code", "paper"])
def test_equations_by_loop(batch, kind, adaptive, repeated, clip):
    student, teacher, labels = batch
    torch.manual_seed(1)
    loss = AdaDistill(3, 5, kind, adaptive, repeated, scale=8, clip=clip).double()
    loss.centres.copy_(torch.randn(5, 3))
    for _ in range(2):  # the second step starts from blended centres
        expected = centres_by_loop(student, teacher, loss.centres, labels, adaptive, repeated, clip)
        term = loss(Output(student), Output(teacher), Targets(labels))["softmax"]
        torch.testing.assert_close(loss.centres, expected, rtol=1e-9, atol=1e-12)
        margin = {"arc": 0.45, "cos": 0.35}[kind]
        by_loop = loss_by_loop(student, expected, labels, kind, 8, margin)
        assert term.item() == pytest.approx(by_loop, rel=1e-9)


def test_hand_numbers():
    """Student 60 degrees from the teacher, centre (length 1/2) 60 degrees to the other side.

    alpha = 1/2, alpha' = 1/2 * 1/2 = 1/4. Centre: 1/4 * (1/4, -0.4330) + 3/4 * (1, 0)
    = (13/16, -0.10825). The student's angle to it is 60 + atan(0.10825 / 0.8125) degrees.
    """
    half = math.sqrt(3) / 2
    student = torch.tensor([[1.0, 2 * half]], dtype=torch.float64)  # any length
    teacher = torch.tensor([[3.0, 0.0]], dtype=torch.float64)
    centre = torch.tensor([[0.25, -half / 2], [0.0, 1.0]], dtype=torch.float64)
    assert float(alpha(student, teacher)) == pytest.approx(0.5)
    assert float(alpha_prime(student, teacher, centre[:1])) == pytest.approx(0.25)
    loss = AdaDistill(2, 2, scale=2, margin=0).double()
    loss.centres.copy_(centre)
    student.requires_grad_()
    term = loss(Output(student), Output(teacher), Targets(torch.tensor([0])))["softmax"]
    expected = [[13 / 16, -half / 8], [0.0, 1.0]]
    torch.testing.assert_close(loss.centres, torch.tensor(expected, dtype=torch.float64))
    angle = math.pi / 3 + math.atan2(half / 8, 13 / 16)
    own, other = 2 * math.cos(angle), 2 * half
    assert term.item() == pytest.approx(math.log1p(math.exp(other - own)))
    # turning by t: the own logit falls by 2 sin(angle), the other rises by 2 sin(30) = 1; |x| = 2
    term.backward()
    p_other = 1 / (1 + math.exp(own - other))
    along = torch.tensor([-half, 0.5], dtype=torch.float64)
    slope = p_other * (2 * math.sin(angle) + 1) / 2
    assert float(student.grad[0] @ along) == pytest.approx(slope)
    report = loss.report()
    assert report["momentum"] == pytest.approx(0.25)
    drift = 60 - math.degrees(math.atan2(half / 8, 13 / 16))
    assert report["centre_drift_degrees"] == pytest.approx(drift)


def test_a_student_opposed_to_its_teacher_hands_the_centre_to_the_teacher(batch):
    student, teacher, labels = batch
    loss = AdaDistill(3, 5).double()
    loss(Output(-teacher), Output(teacher), Targets(labels))
    # the last row of each class, whole but for the floor of 1e-6
    for row, y in ((4, 0), (6, 1), (5, 2), (3, 4)):
        torch.testing.assert_close(loss.centres[y], teacher[row] / teacher[row].norm(),
                                   rtol=0, atol=2e-6)


@pytest.mark.parametrize("clip", ["code", "paper"])
def test_the_first_visit_takes_the_centre_to_the_teacher_under_alpha_prime(clip):
    """Random 512-d centres, cosine to the teacher about 0 +- 0.044, student agreeing by 0.9.

    Not positive: momentum 0 (the code's floor, 1e-6) and the centre is v. Positive: a = 0.9 *
    0.044 = 0.04 of a start of length 0.226 leaves 0.04 * 0.226 / 0.96 = 0.0094 rad, half a degree;
    at 4 sigma 0.16 * 0.226 / 0.84 = 0.043 rad, 2.5 degrees.
    """
    torch.manual_seed(0)
    teacher = torch.randn(200, 512, dtype=torch.float64)
    v = torch.nn.functional.normalize(teacher)
    aside = torch.randn_like(v)
    aside = torch.nn.functional.normalize(aside - (aside * v).sum(1, keepdim=True) * v)
    student = 0.9 * v + math.sqrt(1 - 0.81) * aside
    loss = AdaDistill(512, 200, clip=clip).double()
    behind = (loss.centres * v).sum(1) <= 0
    assert 50 < behind.sum() < 150
    loss(Output(student), Output(teacher), Targets(torch.arange(200)))
    if clip == "paper":
        assert torch.equal(loss.centres[behind], v[behind])
    torch.testing.assert_close(loss.centres[behind], v[behind], rtol=0, atol=1e-6)
    cosine = torch.nn.functional.cosine_similarity(loss.centres, v)
    assert cosine.min() > math.cos(math.radians(2.5))
    assert cosine[behind].min() > 1 - 1e-9 > cosine[~behind].max()


@pytest.mark.parametrize("momentum, expected", [(0.5, 0.975), (0.8, 0.74), (0.9, 0.44)])
def test_the_first_visit_leaves_some_of_the_random_start_under_alpha(momentum, expected):
    """Start of length 0.226 at a right angle: cos = (1 - a) / sqrt((1 - a)^2 + (0.226 a)^2)."""
    torch.manual_seed(0)
    v = torch.nn.functional.normalize(torch.randn(200, 512, dtype=torch.float64))
    aside = torch.randn_like(v)
    aside = torch.nn.functional.normalize(aside - (aside * v).sum(1, keepdim=True) * v)
    loss = AdaDistill(512, 200, adaptive="alpha").double()
    assert float(loss.centres.norm(dim=1).mean()) == pytest.approx(0.226, abs=0.002)
    student = momentum * v + math.sqrt(1 - momentum ** 2) * aside
    loss(Output(student), Output(v), Targets(torch.arange(200)))
    cosine = torch.nn.functional.cosine_similarity(loss.centres, v)
    assert float(cosine.mean()) == pytest.approx(expected, abs=0.01)


def test_a_label_twice_last_wins_or_one_after_another():
    """alpha = 0.6 (3-4-5). Last: 0.6 w + 0.4 v2. Sequential: 0.6 (0.6 w + 0.4 v1) + 0.4 v2."""
    w, v1, v2 = torch.tensor([[1.0, 0, 0]]), torch.tensor([0.0, 1, 0]), torch.tensor([0.0, 0, 1])
    teacher = torch.stack((v1, v2)).double()
    student = torch.stack((0.6 * v1 + 0.8 * v2, 0.8 * v1 + 0.6 * v2)).double()
    for repeated, expected in (("last", [0.6, 0, 0.4]), ("sequential", [0.36, 0.24, 0.4])):
        loss = AdaDistill(3, 1, adaptive="alpha", repeated=repeated).double()
        loss.centres.copy_(w)
        loss(Output(student), Output(teacher), Targets(torch.tensor([0, 0])))
        assert loss.centres[0].tolist() == pytest.approx(expected)


def test_the_loss_sees_the_centres_moved_and_eval_mode_moves_none(batch):
    student, teacher, labels = batch
    loss = AdaDistill(3, 5).double()
    start = loss.centres.clone()
    still = loss.eval()(Output(student), Output(teacher), Targets(labels))["softmax"]
    assert torch.equal(loss.centres, start)
    assert torch.equal(still, adadistill(student, start, labels))
    moved = loss.train()(Output(student), Output(teacher), Targets(labels))["softmax"]
    assert torch.equal(moved, adadistill(student, loss.centres, labels))
    assert not torch.equal(loss.centres, start)


def test_where_paper_and_code_clip_differently():
    """Both cosines negative: the paper's momentum is their product, the code's 1e-6."""
    v = torch.tensor([[1.0, 0.0]])
    assert float(alpha_prime(-v, v, -v, "code")) == pytest.approx(1e-6)
    assert float(alpha_prime(-v, v, -v, "paper")) == 1
    assert float(alpha(-v, v)) == pytest.approx(1e-6)
    assert float(alpha(-v, v, floor=0)) == 0


def test_an_agreed_student_keeps_the_centre_under_alpha(batch):
    _, teacher, labels = batch
    loss = AdaDistill(3, 5, adaptive="alpha").double()
    before = loss.centres.clone()
    loss(Output(2 * teacher), Output(teacher), Targets(labels))
    torch.testing.assert_close(loss.centres, before)  # alpha = 1


def test_classes_that_are_not_in_the_batch_stand_still(batch):
    student, teacher, labels = batch
    loss = AdaDistill(3, 5).double()
    before = loss.centres.clone()
    loss(Output(student), Output(teacher), Targets(labels))
    assert torch.equal(loss.centres[3], before[3])
    assert (loss.centres[[0, 1, 2, 4]] != before[[0, 1, 2, 4]]).any(1).all()


def test_one_row_per_class_makes_the_two_repeats_agree(batch):
    student, teacher, _ = batch
    results = []
    for repeated in ("last", "sequential"):
        torch.manual_seed(0)
        loss = AdaDistill(3, 7, repeated=repeated).double()
        loss(Output(student), Output(teacher), Targets(torch.randperm(7)))
        results.append(loss.centres)
    assert torch.equal(*results)


def test_rotating_everything_costs_nothing(batch):
    student, teacher, labels = batch
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    values = []
    for rotation in (torch.eye(3, dtype=torch.float64), turn):
        torch.manual_seed(0)
        loss = AdaDistill(3, 5).double()
        loss.centres.copy_(loss.centres @ rotation)
        values.append(loss(Output(student @ rotation), Output(teacher @ rotation),
                           Targets(labels))["softmax"])
    torch.testing.assert_close(*values)


def test_occurrence_counts_earlier_rows_of_the_same_label():
    assert occurrence(torch.tensor([3, 1, 3, 3, 1, 0])).tolist() == [0, 0, 1, 2, 1, 0]
    assert occurrence(torch.tensor([], dtype=torch.int64)).tolist() == []


def test_no_gradient_reaches_centres_or_teacher(batch):
    student, teacher, labels = (batch[0].clone().requires_grad_(),
                                batch[1].clone().requires_grad_(), batch[2])
    loss = AdaDistill(3, 5).double()
    loss(Output(student), Output(teacher), Targets(labels))["softmax"].backward()
    assert student.grad.any(1).all() and teacher.grad is None and loss.centres.grad is None
    assert not list(loss.parameters())


@pytest.mark.parametrize("kind", ["arc", "cos"])
def test_gradcheck(batch, kind):
    student, teacher, labels = batch
    centres = torch.randn(5, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: adadistill(x, centres, labels, kind, 8, 0.4), student.requires_grad_())


def test_streaming_equals_plain(batch):
    student, teacher, labels = batch
    values = []
    for chunk in (None, 2):
        torch.manual_seed(0)
        x = student.clone().requires_grad_()
        loss = AdaDistill(3, 5, chunk=chunk).double()
        term = loss(Output(x), Output(teacher), Targets(labels))["softmax"]
        term.backward()
        values.append((term.detach(), x.grad))
    torch.testing.assert_close(*values)


def test_on_and_opposite_a_centre_everything_is_finite():
    loss = AdaDistill(2, 3).eval()
    loss.centres.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    x = torch.tensor([[1.0, 0.0], [0.0, -1.0], [1.0, 0.0]], requires_grad=True)
    term = loss(Output(x), Output(x.detach()), Targets(torch.tensor([0, 1, 2])))["softmax"]
    term.backward()
    assert term.isfinite() and x.grad.isfinite().all()


def test_bf16_outputs_move_float32_centres():
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 16).bfloat16(), torch.randn(4, 16).bfloat16()
    loss, targets = AdaDistill(16, 6), Targets(torch.arange(4))
    exact = copy.deepcopy(loss).double()
    with torch.autocast("cpu", torch.bfloat16):
        term = loss(Output(student), Output(teacher), targets)["softmax"]
    expected = exact(Output(student.double()), Output(teacher.double()), targets)["softmax"]
    assert term.dtype == loss.centres.dtype == torch.float32
    torch.testing.assert_close(loss.centres, exact.centres.float())
    assert term.item() == pytest.approx(float(expected), rel=1e-5)


def test_blend_is_a_mean_with_momentum():
    new = blend(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([0.25]))
    assert new.tolist() == [[0.5, 0.75]]


def test_state_dict_carries_the_centres(batch):
    student, teacher, labels = batch
    first, second = AdaDistill(3, 5).double(), AdaDistill(3, 5).double()
    first(Output(student), Output(teacher), Targets(labels))
    second.load_state_dict(first.state_dict())
    a, b = (loss(Output(student), Output(teacher), Targets(labels))["softmax"]
            for loss in (first, second))
    assert torch.equal(a, b) and torch.equal(first.centres, second.centres)


def test_margins_default_by_kind():
    assert AdaDistill(3, 5).margin == 0.45 and AdaDistill(3, 5, "cos").margin == 0.35
    assert AdaDistill(3, 5, margin=0.0).margin == 0


def test_wrong_input_is_refused_in_words_and_leaves_the_centres(batch):
    student, teacher, labels = batch
    loss = AdaDistill(3, 5).double()
    before = loss.centres.clone()
    broken = teacher.clone()
    broken[5, 1] = torch.nan
    for arguments, message in (
        ((Output(student), None, Targets(labels)), "AdaDistill needs a teacher's embedding"),
        ((Output(student), Output(teacher[:, :2]), Targets(labels)), r"teacher's \(7, 2\)"),
        ((Output(student[:, :2]), Output(teacher[:, :2]), Targets(labels)),
         "built for embeddings of 3 dimensions, got 2"),
        ((Output(student), Output(teacher), Targets(labels + 1)), "label 5 in row 3.*5 classes"),
        ((Output(student), Output(broken), Targets(labels)), "1 of 7 teacher embeddings.*row 5"),
        ((Output(broken), Output(teacher), Targets(labels)), "1 of 7 student embeddings"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(*arguments)
    assert torch.equal(loss.centres, before)
    for name in ("kind", "adaptive", "repeated", "clip"):
        with pytest.raises(ValueError, match=f"{name} must be one of"):
            AdaDistill(3, 5, **{name: "other"})


def test_what_the_arguments_cannot_be_is_said():
    x, labels = torch.ones(2, 4), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="chunk must be a number of classes"):
        AdaDistill(4, 3, chunk=-1)
    with pytest.raises(ValueError, match="kind must be one of arc, cos, not 'cosine'"):
        adadistill(x, torch.ones(3, 4), labels, kind="cosine")


@pytest.mark.parametrize("kind, margin", [("arc", 0.45), ("cos", 0.35)])
def test_the_margin_left_out_is_the_papers(kind, margin):
    x, centres, labels = torch.randn(3, 4), torch.randn(5, 4), torch.tensor([0, 4, 2])
    assert torch.equal(adadistill(x, centres, labels, kind),
                       adadistill(x, centres, labels, kind, margin=margin))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("repeated", ["last", "sequential"])
def test_it_may_be_moved_to_another_precision(dtype, repeated):
    torch.manual_seed(0)
    exact = AdaDistill(8, 3, repeated=repeated)
    other = copy.deepcopy(exact).to(dtype)
    x, goal, labels = torch.randn(6, 8), torch.randn(6, 8), torch.tensor([0, 1, 2, 0, 1, 1])
    for loss, student in ((exact, x), (other, x.to(dtype))):
        value = loss(Output(student), Output(goal), Targets(labels))["softmax"]
        assert value.isfinite()
    torch.testing.assert_close(other.centres.float(), exact.centres, rtol=2e-2, atol=2e-2)
