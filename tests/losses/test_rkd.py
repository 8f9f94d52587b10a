"""RKD: both terms by loop and by hand, what leaves them alone, and what they hold in memory."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kdlab.losses.rkd import RKD, angle_loss, angles, distance_loss, relative_distances
from kdlab.outputs import Output, Targets


def labels(n):
    return Targets(torch.zeros(n, dtype=torch.int64))


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def smooth_l1(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def unit(v):
    length = math.hypot(*v)
    return [x / length for x in v] if length else list(v)


def distance_by_loop(s, t):
    tables = []
    for x in (s, t):
        table = [[math.dist(a, b) for b in x] for a in x]
        positive = [d for row in table for d in row if d > 0]
        mu = sum(positive) / len(positive)
        tables.append([[d / mu for d in row] for row in table])
    n = len(s)
    return sum(smooth_l1(tables[0][i][j] - tables[1][i][j])
               for i in range(n) for j in range(n)) / n**2


def cosine_by_loop(x, i, j, k):
    first, second = (unit([p - q for p, q in zip(x[m], x[j], strict=True)]) for m in (i, k))
    return sum(p * q for p, q in zip(first, second, strict=True))


def angle_by_loop(s, t):
    n = range(len(s))
    return sum(smooth_l1(cosine_by_loop(s, i, j, k) - cosine_by_loop(t, i, j, k))
               for j in n for i in n for k in n) / len(s) ** 3


def raw(s, t):
    """Both terms, unweighted, as one scalar."""
    s, t = relative_distances(s), relative_distances(t)
    return distance_loss(s, t), angle_loss(s, t)


@pytest.mark.parametrize("normalize", ["none", "teacher", "both"])
@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_both_terms_by_loop(normalize, chunk):
    student, teacher = draw(7, 3), 4 * draw(7, 5, seed=1)  # two sizes, lengths far from 1
    teacher[5] = teacher[2]  # two faces the teacher cannot tell apart
    terms = RKD(2, 3, normalize=normalize, chunk=chunk)(Output(student), Output(teacher), labels(7))
    s = [unit(v) if normalize == "both" else v for v in student.tolist()]
    t = [v if normalize == "none" else unit(v) for v in teacher.tolist()]
    assert terms["distance"].item() == pytest.approx(2 * distance_by_loop(s, t), rel=1e-9)
    assert terms["angle"].item() == pytest.approx(3 * angle_by_loop(s, t), rel=1e-9)


def test_angles_by_loop():
    x = draw(5, 3)
    x[4] = x[1]
    expected = [[[cosine_by_loop(x.tolist(), i, j, k) for k in range(5)] for i in range(5)]
                for j in range(5)]
    torch.testing.assert_close(angles(relative_distances(x)), x.new_tensor(expected))
    torch.testing.assert_close(angles(relative_distances(x), slice(1, 3)),
                               x.new_tensor(expected[1:3]))


def test_hand_numbers_and_hand_gradient():
    """Teacher: three faces at equal distances. Student: a right angle at A, legs of length 1.

    Distances of the student 1, 1, √2, mean (2 + √2) / 3; of the teacher all equal to the mean.
    Cosines of the student 0, √½, √½; of the teacher 1/2. Every pair and every angle counts twice.
    Moving C by t along AB: the angle at A shrinks at rate 1, those at B and C grow at rate 1/2;
    d cos = -sin d angle gives 1, -√½ / 2, -√½ / 2.   BC shrinks at rate √½, AC stays.
    """
    teacher = torch.eye(3, dtype=torch.float64)
    a, b, c = ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0])
    student = torch.tensor([a, b, c], dtype=torch.float64, requires_grad=True)
    root, mu = math.sqrt(2), (2 + math.sqrt(2)) / 3
    distance, angle = raw(student, teacher)
    leg, base = 1 / mu - 1, root / mu - 1
    assert distance.item() == pytest.approx(2 / 9 * (2 * leg**2 / 2 + base**2 / 2))
    wide, sharp = -0.5, 1 / root - 0.5
    assert angle.item() == pytest.approx(2 / 27 * (wide**2 / 2 + 2 * sharp**2 / 2))

    (slope,) = torch.autograd.grad(angle, student, retain_graph=True)
    assert slope[2, 0].item() == pytest.approx(2 / 27 * (wide - 2 * sharp / root / 2))
    (slope,) = torch.autograd.grad(distance, student)
    shrink = -1 / root  # of BC; the mean distance shrinks by a third of it
    moved = 2 * leg * (-shrink / 3 / mu**2) + base * (shrink / mu - root * shrink / 3 / mu**2)
    assert slope[2, 0].item() == pytest.approx(2 / 9 * moved)


def test_shift_scale_and_rotation_cost_nothing():
    student = draw(8, 4)
    turn, _ = torch.linalg.qr(draw(6, 6, seed=1))
    teacher = 5 * torch.nn.functional.pad(student, (0, 2)) @ turn + 3
    for term in raw(student, teacher):
        assert term.item() == pytest.approx(0, abs=1e-25)
    for one, other in zip(raw(student, draw(8, 6)), raw(7 * student - 2, draw(8, 6) / 9),
                          strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("which", [0, 1])
def test_gradcheck(which):
    student, teacher = draw(5, 3).requires_grad_(), draw(5, 4, seed=1)
    assert torch.autograd.gradcheck(lambda x: raw(x, teacher)[which], student)


def test_the_linear_part_of_smooth_l1():
    """A right turn against a turn back: cosines 1 and -1 differ by 2, which costs 2 - 1/2."""
    student = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0], [1.0], [-1.0]], dtype=torch.float64)
    # at row 0: 1 against -1; at row 1: -1 against 1; at row 2: 1 against 1; twice each
    assert raw(student, teacher)[1].item() == pytest.approx(2 / 27 * (1.5 + 1.5))


def test_a_weight_of_0_leaves_its_term_out(monkeypatch):
    student, teacher = Output(draw(5, 3)), Output(draw(5, 4))
    both = RKD()(student, teacher, labels(5))
    assert set(both) == {"distance", "angle"}
    assert RKD(angle_weight=0)(student, teacher, labels(5)) == {"distance": both["distance"]}
    loss = RKD(1, 2)  # the authors' weights
    torch.testing.assert_close(loss(student, teacher, labels(5))["angle"], both["angle"] / 25)
    loss.distance_weight = 0  # as a schedule does
    monkeypatch.setattr("kdlab.losses.rkd.distance_loss", None)
    assert set(loss(student, teacher, labels(5))) == {"angle"}


class Largest(TorchDispatchMode):
    """The largest tensor any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(one, torch.Tensor):
                self.numbers = max(self.numbers, one.numel())
        return made


@pytest.mark.parametrize("chunk", [1, 3])
def test_nothing_cubic_is_made_or_kept(chunk):
    n, kept = 40, []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    student = draw(n, 64).float().requires_grad_()
    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        terms = RKD(chunk=chunk)(Output(student), Output(draw(n, 64).float()), labels(n))
        sum(terms.values()).backward()
    assert largest.numbers <= max(chunk * n * n, n * 64)
    assert max(kept) <= max(n * n, n * 64)


@pytest.mark.parametrize("normalize", ["none", "teacher", "both"])
@pytest.mark.parametrize("rows", [
    torch.ones(4, 3), torch.zeros(4, 3), torch.ones(1, 3), torch.eye(3)[:2],
    torch.eye(3)[[0, 0, 1, 1]], 1e-15 * torch.eye(3), 1e15 * torch.eye(3),
    torch.cat([torch.eye(3), torch.eye(3) * (1 + 1e-7)]),
], ids=["equal", "zero", "one", "two", "twins", "tiny", "huge", "all but equal"])
def test_odd_batches_stay_finite(rows, normalize):
    for dtype in (torch.float32, torch.float64):
        student = rows.to(dtype, copy=True).requires_grad_()
        teacher = draw(len(rows), 5).to(dtype)
        terms = RKD(normalize=normalize)(Output(student), Output(teacher), labels(len(rows)))
        sum(terms.values()).backward()
        assert all(term.isfinite() for term in terms.values())
        assert student.grad.isfinite().all()


def test_a_twin_pulls_no_further_than_its_distance():
    """Equal rows have no direction between them: they count 0 and get no slope from each other."""
    x = draw(4, 3).float()[[0, 0, 1, 2, 3]].requires_grad_()
    distance, angle = raw(x, draw(5, 3))
    (distance + angle).backward()
    assert x.grad.abs().max() < 1


def test_the_slope_beside_a_twin_by_loop():
    """Triples with a direction, one by one through autograd; only the student has twins."""
    x, teacher = draw(4, 3)[[0, 0, 1, 2, 3]].requires_grad_(), draw(5, 3, seed=1)
    total = 0
    for j in range(5):
        for i in range(5):
            for k in range(5):
                if not (torch.equal(x[i], x[j]) or torch.equal(x[k], x[j])):
                    a, b = x[i] - x[j], x[k] - x[j]
                    gap = a @ b / (a @ a * (b @ b)).sqrt()
                    gap = gap - cosine_by_loop(teacher.tolist(), i, j, k)
                    total = total + (gap**2 / 2 if gap.abs() < 1 else gap.abs() - 0.5)
    (expected,) = torch.autograd.grad(total / 125, x)
    (slope,) = torch.autograd.grad(raw(x, teacher)[1], x)
    torch.testing.assert_close(slope, expected)


def test_rows_nearer_than_rounding_have_no_direction():
    """The next float32 after 1 as third side: the law of cosines would give about -12,
    (1 - 1.00000024) / 2e-8."""
    step = 1 + torch.finfo(torch.float32).eps
    distance = torch.tensor([[0, 1e-8, 1], [1e-8, 0, step], [1, step, 0]])
    assert angles(distance)[0, 1, 2] == 0 == angles(distance)[1, 0, 2]
    assert angles(distance)[2, 0, 1].item() == pytest.approx(1)


def test_the_rows_of_all_processes_are_one_batch(monkeypatch):
    student, teacher = draw(6, 3), draw(6, 4, seed=1)
    whole = RKD()(Output(student), Output(teacher), labels(6))
    monkeypatch.setattr("kdlab.inputs.gather_with_gradient",
                        lambda rows: torch.cat([rows, student[2:]]))
    monkeypatch.setattr("kdlab.inputs.gather", lambda rows: torch.cat([rows, teacher[2:]]))
    part = RKD()(Output(student[:2]), Output(teacher[:2]), labels(2))
    assert all(torch.equal(whole[name], part[name]) for name in whole)


def test_float32_far_from_the_origin_and_bf16():
    student, teacher = draw(12, 32), draw(12, 64, seed=1)
    far = (student + 1000).float().requires_grad_()
    same = far.detach().double().requires_grad_()
    exact, single = raw(same, teacher), raw(far, teacher.float())
    for one, other in zip(exact, single, strict=True):
        assert other.dtype == torch.float32
        assert other.item() == pytest.approx(one.item(), rel=1e-5)
    sum(exact).backward()
    sum(single).backward()
    largest = same.grad.abs().max().item()
    torch.testing.assert_close(far.grad.double(), same.grad, rtol=0, atol=1e-5 * largest)
    half = student.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = RKD(1, 1)(Output(half), Output(teacher.bfloat16()), labels(12))
        sum(terms.values()).backward()
    for one, other in zip(raw(student, teacher), terms.values(), strict=True):
        assert other.item() == pytest.approx(one.item(), rel=2e-2)
    assert half.grad.isfinite().all()


def test_wrong_input_is_refused_in_words():
    four, five = Output(draw(4, 3)), Output(draw(5, 3))
    with pytest.raises(ValueError, match="RKD needs a teacher"):
        RKD()(four, None, labels(4))
    with pytest.raises(ValueError, match="4 embeddings of the student, 5 of the teacher"):
        RKD()(four, five, labels(4))
    with pytest.raises(ValueError, match="4 .* embeddings but labels of shape"):
        RKD()(four, four, labels(5))
    broken = Output(draw(4, 3).log())
    with pytest.raises(ValueError, match="of 4 student embeddings are NaN"):
        RKD()(broken, four, labels(4))
    with pytest.raises(ValueError, match="of 4 teacher embeddings are NaN"):
        RKD()(four, broken, labels(4))
    with pytest.raises(ValueError, match="normalize must be"):
        RKD(normalize="student")
    with pytest.raises(ValueError, match="chunk must be"):
        RKD(chunk=0)
    with pytest.raises(ValueError, match="both 0"):
        RKD(0, 0)
