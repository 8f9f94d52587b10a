"""MFD: its formulas by loop and by hand, its gradient, its floor, and what it does to groups."""

import math
import subprocess
import sys

import pytest
import torch

from kdlab.losses import mfd as module
from kdlab.losses.mfd import MFD, bandwidth, discrepancies, kernel, mfd
from kdlab.outputs import Output, Targets


def squared(u, v):
    return max(sum((p - q) ** 2 for p, q in zip(u, v, strict=True)), 1e-12)


def bandwidth_by_loop(student, teacher):
    return sum(squared(t, s) for t in teacher for s in student) / len(teacher) / len(student)


def by_loop(student, teacher, labels, groups, weight, sigma):
    """(lambda / 2) sum_y sum_a D2(y, a), pair after pair."""
    student, teacher, labels, groups = (x.tolist() for x in (student, teacher, labels, groups))
    bw = bandwidth_by_loop(student, teacher)

    def mean_k(first, second):
        total = sum(math.exp(-squared(u, v) / (2 * sigma * bw)) for u in first for v in second)
        return total / (len(first) * len(second))

    total = 0.0
    for y in set(labels):
        whole = [t for t, label in zip(teacher, labels, strict=True) if label == y]
        for a in set(groups):
            cell = [s for s, label, group in zip(student, labels, groups, strict=True)
                    if (label, group) == (y, a)]
            if cell:
                total += mean_k(whole, whole) + mean_k(cell, cell) - 2 * mean_k(whole, cell)
    return weight / 2 * total


@pytest.fixture
def batch():
    """Classes 0, 3 and 7; groups 0, 1 and 5; the cells (0, 1), (7, 0) and (7, 5) are empty."""
    torch.manual_seed(0)
    student, teacher = (torch.randn(9, 4, dtype=torch.float64) for _ in range(2))
    return (student, teacher, torch.tensor([0, 3, 3, 7, 0, 3, 3, 7, 0]),
            torch.tensor([0, 0, 1, 1, 5, 5, 1, 1, 0]))


def copies(classes, groups, each):
    """Labels and groups of a batch with `each` rows in every cell."""
    cells = torch.cartesian_prod(torch.arange(classes), torch.arange(groups))
    return cells.repeat_interleave(each, 0).unbind(1)


@pytest.mark.parametrize("weight", [3, 0.7])
@pytest.mark.parametrize("sigma", [1, 0.3])
def test_the_sum_over_cells_by_loop(batch, weight, sigma):
    assert mfd(*batch, weight, sigma).item() == pytest.approx(
        by_loop(*batch, weight, sigma), rel=1e-9)


def test_classes_and_groups_are_names_only(batch):
    student, teacher, labels, groups = batch
    torch.testing.assert_close(mfd(student, teacher, labels * 1000 - 7, 3 - groups), mfd(*batch))


def test_hand_number_and_hand_gradient():
    """One row: t = 0, s = 2. bw = 4, h = 2 bw = 8, k(t, s) = e^(-4/8) = 0.60653.

    D2 = 1 + 1 - 2 * 0.60653 = 0.78694, times 3/2: 1.18041. With bw held, dD2/ds = -2 k (-2 s / h)
    = 2 * 0.60653 * 4 / 8 = 0.60653, times 3/2: 0.90980.
    """
    student = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    zero = torch.tensor([0])
    loss = mfd(student, torch.zeros(1, 1, dtype=torch.float64), zero, zero)
    loss.backward()
    assert loss.item() == pytest.approx(1.18041, rel=1e-5)
    assert student.grad.item() == pytest.approx(0.90980, rel=1e-5)


def test_the_gradient_is_the_formula(batch):
    """dD2/ds_j = -4/(h n^2) sum_i k(s_i, s_j)(s_j - s_i) + 4/(h n m) sum_t k(t, s_j)(s_j - t)."""
    student, teacher, labels, groups = batch
    h = 2 * 0.5 * bandwidth_by_loop(student.tolist(), teacher.tolist())
    expected = torch.zeros_like(student)
    for j in range(len(student)):
        cell = [i for i in range(len(student))
                if labels[i] == labels[j] and groups[i] == groups[j]]
        whole = [i for i in range(len(student)) if labels[i] == labels[j]]
        n, m = len(cell), len(whole)
        for i in cell:
            k = math.exp(-squared(student[i].tolist(), student[j].tolist()) / h)
            expected[j] -= 4 / (h * n * n) * k * (student[j] - student[i])
        for i in whole:
            k = math.exp(-squared(teacher[i].tolist(), student[j].tolist()) / h)
            expected[j] += 4 / (h * n * m) * k * (student[j] - teacher[i])
    student = student.requires_grad_()
    mfd(student, teacher, labels, groups, weight=3, sigma=0.5).backward()
    torch.testing.assert_close(student.grad, 1.5 * expected)


def test_gradcheck_with_the_bandwidth_held(batch, monkeypatch):
    student, teacher, labels, groups = batch
    monkeypatch.setattr(module, "bandwidth", lambda squared: torch.tensor(5.0).double())
    assert torch.autograd.gradcheck(lambda x: mfd(x, teacher, labels, groups),
                                    student.requires_grad_())


def test_shift_scale_and_rotation_of_both_cost_nothing(batch):
    student, teacher, labels, groups = batch
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    for change in (lambda x: x + 100, lambda x: 0.01 * x, lambda x: x @ turn):
        torch.testing.assert_close(mfd(change(student), change(teacher), labels, groups),
                                   mfd(*batch))
    assert abs(mfd(student + 1, teacher, labels, groups) - mfd(*batch)) > 0.1  # one alone does


def test_rows_are_not_matched_one_by_one(batch):
    student, teacher, labels, groups = batch
    order = torch.arange(9)
    order[[1, 2, 5, 6]] = torch.tensor([6, 5, 1, 2])  # the rows of class 3
    torch.testing.assert_close(mfd(student, teacher[order], labels, groups), mfd(*batch))


def test_equal_distributions_still_cost_the_estimators_floor():
    """6 rows a cell, 12 a class, 10 classes, 2 groups, weight 3: about 2.95, above ln 10.

    Two independent draws of a rectified Gaussian in 256 dimensions; by formula
    3/2 * 20 * (1/6 + 1/12)(1 - E k), and E k = e^(-1/2) nearly: 2.95.
    """
    torch.manual_seed(0)
    labels, groups = copies(10, 2, 6)
    values = [mfd(torch.randn(120, 256).relu(), torch.randn(120, 256).relu(), labels,
                  groups).item() for _ in range(5)]
    assert sum(values) / 5 == pytest.approx(2.95, abs=0.05) and min(values) > math.log(10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_teacher_itself_costs_nothing_unless_its_groups_differ(dtype):
    torch.manual_seed(0)
    features = torch.randn(24, 16, dtype=dtype)
    labels, groups = copies(3, 2, 4)
    assert mfd(features, features, labels, torch.zeros_like(groups)) == 0
    assert mfd(features, features, labels, groups) > 0.1


def test_every_cell_has_its_own_number(batch):
    cells = discrepancies(*batch)
    assert cells.shape == (6,) and (cells > 0).all()  # 3 x 3 cells, three of them empty
    torch.testing.assert_close(mfd(*batch), 1.5 * cells.sum())
    student, teacher, labels, groups = batch
    moved = student.clone()
    moved[3] = teacher[3]  # class 7, group 1: the last cell; bw moves a little
    changed = discrepancies(moved, teacher, labels, groups)
    assert changed[-1] < 0.9 * cells[-1]


def test_descent_takes_the_group_out_of_the_features():
    """The teacher leaks the group in its first dimension; the student starts as the teacher."""
    torch.manual_seed(0)
    labels, groups = copies(2, 2, 10)
    teacher = torch.randn(40, 4, dtype=torch.float64)
    teacher[:, 0] += 4 * groups
    teacher[:, 1] += 4 * labels
    student = teacher.clone().requires_grad_()
    for _ in range(60):
        gradient, = torch.autograd.grad(mfd(student, teacher, labels, groups), student)
        student = (student - 20 * gradient).detach().requires_grad_()

    def between(x, column, names):
        return float((x[names == 1, column].mean() - x[names == 0, column].mean()).detach())

    assert between(student, 0, groups) < between(teacher, 0, groups) / 3
    assert between(student, 1, labels) > between(teacher, 1, labels) * 0.8


def test_float32_is_near_float64():
    torch.manual_seed(0)
    student, teacher = torch.randn(96, 256).relu() + 10, torch.randn(96, 256).relu() + 10
    labels, groups = copies(6, 2, 8)
    exact = mfd(student.double(), teacher.double(), labels, groups).item()
    assert mfd(student, teacher, labels, groups).item() == pytest.approx(exact, rel=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_have_finite_values_and_gradients(dtype):
    labels, groups = copies(2, 2, 3)
    torch.manual_seed(0)
    for student, teacher in (
            (torch.ones(12, 5), torch.ones(12, 5)), (torch.zeros(12, 5), torch.zeros(12, 5)),
            (torch.full((12, 5), 0.1), torch.randn(12, 5)),
            (torch.randn(1, 5).repeat(12, 1), torch.randn(1, 5).repeat(12, 1))):
        x = student.to(dtype).requires_grad_()
        loss = mfd(x, teacher.to(dtype), labels, groups)
        loss.backward()
        assert loss.isfinite() and loss > -1e-6 and x.grad.isfinite().all()


def test_the_kernel_at_and_below_its_floor():
    d2 = torch.tensor([0.0, 1e-13, 2.0], dtype=torch.float64, requires_grad=True)
    k = kernel(d2, torch.tensor(4.0).double(), sigma=0.5)
    k.sum().backward()
    assert k.tolist() == pytest.approx([1, 1, math.exp(-0.5)])
    assert d2.grad.tolist() == pytest.approx([0, 0, -math.exp(-0.5) / 4])  # flat below the floor
    assert bandwidth(torch.zeros(2, 2)).item() == pytest.approx(1e-12)


def outputs(batch):
    """The batch's rows as a last map of 1 x 2 x 2 behind a first map, and as embeddings."""
    student, teacher, labels, groups = batch
    first = torch.randn(9, 3, 4, 4, dtype=torch.float64)
    return (*(Output(x + 1, None, (first, x.view(9, 1, 2, 2))) for x in (student, teacher)),
            Targets(labels, groups))


def test_the_layers(batch):
    student, teacher, labels, groups = batch
    s, t, targets = outputs(batch)
    torch.testing.assert_close(MFD()(s, t, targets)["mmd"], mfd(*batch, 3, 1))
    torch.testing.assert_close(MFD(7, 2, "embedding")(s, t, targets)["mmd"],
                               mfd(student, teacher, labels, groups, 7, 2))  # a shift is free
    assert MFD().needs == {"features"} and MFD(layer="embedding").needs == {"embedding"}
    assert not MFD().state_dict()


def test_joint_is_one_cell_and_wants_no_groups(batch):
    student, teacher, labels, _ = batch
    zero = torch.zeros_like(labels)
    s, t, _ = outputs(batch)
    assert MFD(joint=True)(s, t, Targets(labels))["mmd"].item() == pytest.approx(
        by_loop(student, teacher, zero, zero, 3, 1), rel=1e-9)


def test_the_teacher_gets_no_gradient(batch):
    student, teacher, labels, groups = batch
    student, teacher = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    loss = MFD(layer="embedding")
    loss(Output(student), Output(teacher), Targets(labels, groups))["mmd"].backward()
    assert student.grad.any(1).all() and teacher.grad is None


def test_bf16_outputs_are_compared_in_float32(batch):
    student, teacher = (x.bfloat16().requires_grad_() for x in batch[:2])
    with torch.autocast("cpu", torch.bfloat16):
        value = mfd(student, teacher, *batch[2:])
    value.backward()
    assert value.dtype == torch.float32 and student.grad.isfinite().all()
    assert value.item() == pytest.approx(mfd(*batch).item(), rel=2e-2)
    exact = mfd(student.detach().double(), teacher.detach().double(), *batch[2:]).item()
    assert value.item() == pytest.approx(exact, rel=1e-5)


def test_wrong_input_is_refused_in_words(batch):
    s, t, targets = outputs(batch)
    broken = s._replace(features=(s.features[0], s.features[1].clone()))
    broken.features[1][4] = torch.inf
    wide = t._replace(features=(t.features[0], t.features[1].expand(9, 2, 2, 2)))
    for arguments, message in (
        ((s, None, targets), "MFD needs a teacher's feature maps, got no teacher"),
        ((s, Output(t.embedding), targets), "the student has 2, the teacher 0"),
        ((s, wide, targets), r"\(9, 1, 2, 2\), the teacher's \(9, 2, 2, 2\)"),
        ((s, t, Targets(targets.labels)), "MFD needs targets.groups"),
        ((s, t, Targets(targets.labels, targets.groups[:4])), "9 labels but groups of"),
        ((s, t, Targets(targets.labels, targets.groups - 1)), "group -1 in row 0"),
        ((s, t, Targets(targets.labels[:3], targets.groups[:3])), r"labels of shape \(3,\)"),
        ((broken, t, targets), "1 of 9 student last-map embeddings are NaN.*row 4"),
        ((t, broken, targets), "1 of 9 teacher last-map"),
    ):
        with pytest.raises(ValueError, match=message):
            MFD()(*arguments)
    with pytest.raises(ValueError, match="MFD needs a teacher's embedding"):
        MFD(layer="embedding")(s, None, targets)
    with pytest.raises(ValueError, match='layer must be "last_map" or "embedding", not \'fc\''):
        MFD(layer="fc")
    with pytest.raises(ValueError, match="sigma must be above 0, not 0"):
        MFD(sigma=0)


PROCESS = """
import sys
import torch
import torch.distributed as dist
from kdlab.losses.mfd import MFD
from kdlab.outputs import Output, Targets

rank, path = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.manual_seed(0)
x, t = torch.randn(2, 12, 4, dtype=torch.float64)
labels, groups = torch.arange(12) % 3, torch.arange(12) % 2
loss = MFD(layer="embedding")
x.requires_grad_()
whole = loss(Output(x), Output(t), Targets(labels, groups))["mmd"]
expected, = torch.autograd.grad(whole, x)
dist.init_process_group("gloo", init_method="file://" + path, rank=rank, world_size=2)
own = slice(6 * rank, 6 * rank + 6)
part = loss(Output(x[own]), Output(t[own]), Targets(labels[own], groups[own]))["mmd"]
gradient, = torch.autograd.grad(part, x)
torch.testing.assert_close(part, whole)
torch.testing.assert_close(gradient[own], 2 * expected[own])  # DDP then takes the mean of two
dist.destroy_process_group()
"""


def test_two_processes_are_one_batch(tmp_path):
    runs = [subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "meet")],
                             stderr=subprocess.PIPE, text=True) for rank in range(2)]
    for run in runs:
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 0, errors
