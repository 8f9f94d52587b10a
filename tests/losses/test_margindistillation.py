"""MarginDistillation: its margins and its softmax by loop, by hand, and at their edges."""

import math

import pytest
import torch

from kdlab.losses.arcface import arcface
from kdlab.losses.margindistillation import MarginDistillation, margindistillation, margins
from kdlab.outputs import Output, Targets


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def by_loop(student, teacher, centres, labels, s=64, least=0.2, most=0.5, clip=False):
    student, teacher, centres, labels = (t.tolist() for t in (student, teacher, centres, labels))
    c = [cosine(f, centres[y]) for f, y in zip(teacher, labels, strict=True)]
    if clip:
        c = [max(v, 0.0) for v in c]
    total = 0.0
    for f, y, own in zip(student, labels, c, strict=True):
        m = (most - least) / max(c) * own + least if max(c) > 0 else least
        logits = [s * cosine(f, w) for w in centres]
        logits[y] = s * math.cos(math.acos(cosine(f, centres[y])) + m)
        total += math.log(sum(map(math.exp, logits))) - logits[y]
    return total / len(labels)


@pytest.fixture
def batch():
    """Student and teacher (7, 3), centres (5, 3), labels; row 3's teacher is off its centre."""
    torch.manual_seed(0)
    labels = torch.tensor([2, 0, 2, 4, 0, 2, 1])
    student, teacher = (torch.randn(7, 3, dtype=torch.float64) for _ in range(2))
    centres = torch.randn(5, 3, dtype=torch.float64)
    teacher = centres[labels] + 0.5 * teacher
    teacher[3] = -teacher[3]
    return student, teacher, centres, labels


@pytest.mark.parametrize("options", [{}, {"clip": True}, {"scale": 8}, {"least": 0.1, "most": 0.9},
                                     {"chunk": 2}, {"chunk": 9, "clip": True}])
def test_the_formulas_by_loop(batch, options):
    student, teacher, centres, labels = batch
    loss = MarginDistillation(centres, **options)
    term = loss(Output(student), Output(teacher), Targets(labels))["softmax"]
    given = {k: v for k, v in options.items() if k != "chunk"}
    given["s"] = given.pop("scale", 64)
    assert term.item() == pytest.approx(by_loop(*batch, **given), rel=1e-9)


def test_hand_numbers():
    """Teacher cosines 0.8, 0.4, 0 and -0.4; the best is 0.8, so m = 0.3 c / 0.8 + 0.2:
    0.5, 0.35, 0.2 and, below `least`, 0.05; clipped 0.2.
    """
    c = torch.tensor([0.8, 0.4, 0.0, -0.4])
    torch.testing.assert_close(margins(c), torch.tensor([0.5, 0.35, 0.2, 0.05]))
    torch.testing.assert_close(margins(c, clip=True), torch.tensor([0.5, 0.35, 0.2, 0.2]))
    torch.testing.assert_close(margins(c, 0, 1), torch.tensor([1, 0.5, 0, -0.5]))


@pytest.mark.parametrize("chunk", [None, 1])
def test_hand_loss_and_hand_gradient(chunk):
    """Teacher on its centre, so m = most = 30 degrees; student at 30 degrees of the own centre
    (1, 0), 60 of the other: ArcFace's hand case. Loss ln 2; turning x by t: 2 sin 60.
    """
    t = math.radians(30)
    x = torch.tensor([[math.cos(t), math.sin(t)]], dtype=torch.float64, requires_grad=True)
    loss = MarginDistillation(torch.eye(2, dtype=torch.float64), scale=2, most=t, chunk=chunk)
    goal = Output(torch.tensor([[7.0, 0.0]], dtype=torch.float64, requires_grad=True))
    term = loss(Output(x), goal, Targets(torch.tensor([0])))["softmax"]
    term.backward()
    assert term.item() == pytest.approx(math.log(2))
    along = torch.tensor([-math.sin(t), math.cos(t)], dtype=torch.float64)
    assert float(x.grad[0] @ along) == pytest.approx(2 * math.sin(math.pi / 3))
    assert goal.embedding.grad is None
    assert loss.report() == pytest.approx({"teacher_cosine": 1, "margin": t, "least_margin": t})


@pytest.mark.parametrize("chunk", [None, 2])
def test_gradcheck(batch, chunk):
    student, _, centres, labels = batch
    margin = torch.linspace(0.1, 0.5, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: margindistillation(x, centres, labels, margin, 8, chunk),
        student.requires_grad_())


def test_a_teacher_alike_on_all_faces_makes_it_arcface_on_frozen_centres(batch):
    student, _, centres, labels = batch
    term = MarginDistillation(centres)(
        Output(student), Output(3 * centres[labels]), Targets(labels))["softmax"]
    torch.testing.assert_close(term, arcface(student, centres, labels, 64, 0.5))


def test_a_face_the_teacher_finds_easy_asks_more_of_the_student(batch):
    c = torch.rand(20, generator=torch.Generator().manual_seed(0))
    order = c.argsort()
    m = margins(c)
    assert (m[order].diff() > 0).all() and 0.2 <= m.min() and m.max() == pytest.approx(0.5)


@pytest.mark.parametrize("clip", [False, True])
def test_a_batch_without_a_cosine_above_0_gets_the_least_margin(batch, clip):
    for c in (torch.tensor([-0.5, -0.1]), torch.tensor([0.0, -0.3]), torch.zeros(3)):
        torch.testing.assert_close(margins(c, clip=clip), torch.full_like(c, 0.2))
    student, _, centres, labels = batch
    student.requires_grad_()
    term = MarginDistillation(centres, clip=clip)(
        Output(student), Output(-centres[labels]), Targets(labels))["softmax"]
    term.backward()
    torch.testing.assert_close(term, arcface(student, centres, labels, 64, 0.2))
    assert student.grad.isfinite().all()


def test_by_default_a_tiny_best_cosine_takes_margins_far_down_and_clip_does_not():
    c = torch.tensor([0.01, -0.5])
    torch.testing.assert_close(margins(c), torch.tensor([0.5, 0.2 - 15]))
    torch.testing.assert_close(margins(c, clip=True), torch.tensor([0.5, 0.2]))


@pytest.mark.parametrize("chunk", [None, 1])
def test_on_and_opposite_centres_everything_is_finite(chunk):
    centres = torch.eye(3)
    x = torch.cat([centres, -centres, torch.zeros(3, 3)]).requires_grad_()
    teacher = torch.cat([centres, -centres, torch.zeros(3, 3)])
    loss = MarginDistillation(centres, chunk=chunk)
    term = loss(Output(x), Output(teacher), Targets(torch.arange(3).repeat(3)))["softmax"]
    term.backward()
    assert term.isfinite() and x.grad.isfinite().all()


def test_bf16_embeddings_are_judged_in_float32(batch):
    student, teacher, centres, labels = batch
    loss = MarginDistillation(centres.float())
    x, goal = student.bfloat16().requires_grad_(), teacher.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        term = loss(Output(x), Output(goal), Targets(labels))["softmax"]
    term.backward()
    assert term.dtype == torch.float32 and x.grad.dtype == torch.bfloat16
    assert term.item() == pytest.approx(
        by_loop(student.bfloat16().double(), goal.double(), centres, labels), rel=1e-5)


def test_the_centres_are_frozen_saved_and_the_losss_own(batch):
    student, teacher, centres, labels = batch
    given = centres.clone().requires_grad_()
    loss = MarginDistillation(given)
    loss(Output(student.requires_grad_()), Output(teacher), Targets(labels))["softmax"].backward()
    assert given.grad is None and not list(loss.parameters())
    assert torch.equal(loss.centres, centres) and not loss.centres.requires_grad
    with torch.no_grad():
        given.zero_()
    assert torch.equal(loss.centres, centres)
    fresh = MarginDistillation(torch.ones(5, 3, dtype=torch.float64))
    fresh.load_state_dict(loss.state_dict())
    assert torch.equal(fresh.centres, centres)


def test_what_it_reports_is_of_training(batch):
    student, teacher, centres, labels = batch
    loss = MarginDistillation(centres).eval()
    loss(Output(student), Output(teacher), Targets(labels))
    assert loss.report() == {}
    loss.train()(Output(student), Output(teacher), Targets(labels))
    c = [cosine(f, centres[y].tolist())
         for f, y in zip(teacher.tolist(), labels.tolist(), strict=True)]
    m = [0.3 / max(c) * v + 0.2 for v in c]
    assert loss.report() == pytest.approx(
        {"teacher_cosine": sum(c) / 7, "margin": sum(m) / 7, "least_margin": min(m)})


def test_wrong_centres_are_refused_in_words():
    good = torch.randn(4, 3)
    with pytest.raises(ValueError, match="needs the teacher's class rows and got none"):
        MarginDistillation(None)
    for value in (torch.nan, torch.inf, 0.0):
        broken = good.clone()
        broken[1] = value
        with pytest.raises(ValueError, match="1 of MarginDist.*4 class rows are zero, NaN.*row 1"):
            MarginDistillation(broken)
    with pytest.raises(ValueError, match=r"not torch.float32 of shape \(3,\)"):
        MarginDistillation(good[0])
    with pytest.raises(ValueError, match="not torch.int64"):
        MarginDistillation(torch.ones(4, 3, dtype=torch.int64))


def test_wrong_options_and_input_are_refused_in_words(batch):
    student, teacher, centres, labels = batch
    loss = MarginDistillation(centres)
    broken = teacher.clone()
    broken[5, 1] = torch.nan
    for arguments, message in (
        ((Output(student), None, Targets(labels)), "MarginDistillation needs a teacher's embed"),
        ((Output(student), Output(teacher[:, :2]), Targets(labels)), r"teacher's \(7, 2\)"),
        ((Output(student[:, :2]), Output(teacher[:, :2]), Targets(labels)),
         "centres of 3 dimensions, the embeddings have 2"),
        ((Output(student), Output(teacher), Targets(labels + 1)), "label 5 in row 3.*5 classes"),
        ((Output(student), Output(broken), Targets(labels)), "1 of 7 teacher embeddings.*row 5"),
        ((Output(broken), Output(teacher), Targets(labels)), "1 of 7 student embeddings"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(*arguments)
    with pytest.raises(ValueError, match="least must not be above most, got 0.6 and 0.5"):
        MarginDistillation(centres, least=0.6)
    with pytest.raises(ValueError, match="chunk must be a number of classes"):
        MarginDistillation(centres, chunk=0)
