"""EKD: equations 4 to 11 by loop, by hand, its thresholds, and the merged batch of two processes.

This file run as a script is one of the two processes; they start once, for every test below.
"""

import copy
import faulthandler
import math
import subprocess
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

from kdlab.distributed import leave
from kdlab.losses.ekd import (
    EKD,
    critical,
    distance_loss,
    fpr_ranks,
    fpr_thresholds,
    moving_average,
    pair_similarities,
    rank_loss,
    soft_indicator,
)
from kdlab.outputs import Output, Targets

WORLD, B, STEPS = 2, 10, 3
COARSE = (0.5, 0.1, 0.02)  # rates that some dozen negative pairs can tell apart
quiet = pytest.mark.filterwarnings("ignore:EKD")


def similarities_by_loop(x):
    rows = x.tolist()
    return {(i, j): sum(a * b for a, b in zip(p, rows[j], strict=True))
            / math.hypot(*p) / math.hypot(*rows[j])
            for i, p in enumerate(rows) for j in range(i + 1, len(rows))}


def indicator_by_loop(x, temperature):
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, x / temperature))))


def ekd_by_loop(student, teacher, labels, balanced, fprs, before, temperature=0.01, momentum=0.99,
                number=2000, norm="l2", form="rank", positives="all", critical_only=False,
                steps=None, hardest="student"):
    """Both terms without their weights, and the new thresholds, of one step in training mode.

    before: thresholds of student and teacher; steps: how many updates were done, this one
    included, where they are to be corrected for their start.
    """
    s, t, y = similarities_by_loop(student), similarities_by_loop(teacher), labels.tolist()
    same = [p for p in s if y[p[0]] == y[p[1]]]
    if positives == "balanced":
        same = [p for p in same if balanced[p[0]] and balanced[p[1]]]
    other = [p for p in s if y[p[0]] != y[p[1]]]
    now = []
    for start, similarity in zip(before, (s, t), strict=True):
        ordered = sorted((similarity[p] for p in other), reverse=True)
        estimate = [ordered[round(len(other) * f * 10**6) // 10**6] for f in fprs]
        now.append([momentum * a + (1 - momentum) * b
                    for a, b in zip(start, estimate, strict=True)])
    seen = 1 if steps is None else 1 - momentum**steps
    used = [[value / seen for value in row] for row in now]
    by = s if hardest == "student" else t
    other = sorted(other, key=lambda p: by[p], reverse=True)[:number]
    size = abs if norm == "l1" else lambda x: x * x
    terms = []
    for chosen in (same, other):
        values = []
        for p in chosen:
            if critical_only and not any((t[p] > b) != (s[p] > a)
                                         for a, b in zip(*used, strict=True)):
                continue
            if form == "distance":
                values.append(sum(size((t[p] - b) - (s[p] - a))
                                  for a, b in zip(*used, strict=True)))
            else:
                values.append(size(sum(indicator_by_loop(t[p] - b, temperature) for b in used[1])
                                   - sum(indicator_by_loop(s[p] - a, temperature)
                                         for a in used[0])))
        terms.append(sum(values) / len(values) if values else 0.0)
    return terms, now


def draw(seed: int, rows: int = 12, size: int = 4):
    """Student (rows, 4), teacher (rows, 6), labels in 0..3, the last half balanced."""
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, size, generator=g, dtype=torch.float64),
            torch.randn(rows, 6, generator=g, dtype=torch.float64),
            torch.randint(4, (rows,), generator=g), torch.arange(rows) >= rows // 2)


def apply(loss, student, teacher, labels, balanced=None):
    return loss(Output(student), Output(teacher), Targets(labels, balanced=balanced))


OPTIONS = [{}, {"norm": "l1", "positives": "balanced"}, {"form": "distance"},
           {"form": "distance", "norm": "l1"}, {"critical_only": True},
           {"critical_only": True, "form": "distance"}, {"debias": True}, {"hardest": "teacher"},
           {"momentum": 0.5, "temperature": 0.1}, {"momentum": 0, "debias": True}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equations_by_loop_over_three_steps(options):
    loss = EKD(COARSE, hard_negatives=9, positive_weight=2, negative_weight=3, **options).double()
    debias = options.get("debias", False)
    plain = {key: value for key, value in options.items() if key != "debias"}
    thresholds = [[0.0] * 3, [0.0] * 3]
    for step in range(3):
        batch = draw(step)
        terms = apply(loss, *batch)
        (positive, negative), thresholds = ekd_by_loop(
            *batch, COARSE, thresholds, number=9, steps=step + 1 if debias else None, **plain)
        assert positive > 0 and negative > 0
        assert float(terms["positive"]) == pytest.approx(2 * positive, rel=1e-9)
        assert float(terms["negative"]) == pytest.approx(3 * negative, rel=1e-9)
        for found, expected in zip((loss.student_thresholds, loss.teacher_thresholds), thresholds,
                                   strict=True):
            torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64),
                                       rtol=1e-12, atol=1e-14)
    assert int(loss.updates) == 3


def test_hand_number_and_hand_gradient():
    """The positive pair: student 60 degrees apart, s = 0.5; teacher 0 degrees, s = 1. Threshold
    0.5, tau 0.1: counts G(0) = 0.5 and G(5) = 1 / (1 + e^-5) = 0.99331, squared 0.24335, times
    0.02 = 0.0048670. d/ds = -2 * 0.49331 * 0.25 / 0.1 = -2.46654; widening the angle by one
    radian changes s by -sin 60 = -0.86603: 2.46654 * 0.86603 * 0.02 = 0.042722.

    The negative pairs: student 90 and 30 degrees, teacher 180 both. G(-15) = 3e-7 for the teacher,
    G(-5) = 0.0066929 and G((0.866025 - 0.5) / 0.1) = 0.974912 for the student: the mean of the
    squares is (0.0000448 + 0.950452) / 2 = 0.475248; times 0.01 = 0.00475248.
    """
    loss = EKD((0.5,), temperature=0.1).double().eval()
    loss.student_thresholds.fill_(0.5)
    loss.teacher_thresholds.fill_(0.5)
    degrees = torch.tensor([0.0, 60.0, 90.0], dtype=torch.float64).deg2rad().requires_grad_()
    student = torch.stack([degrees.cos(), degrees.sin()], 1)
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    terms = apply(loss, student, teacher, torch.tensor([0, 0, 1]))
    assert terms["positive"].item() == pytest.approx(0.0048670, rel=1e-4)
    assert terms["negative"].item() == pytest.approx(0.00475248, rel=1e-4)
    terms["positive"].backward()
    torch.testing.assert_close(degrees.grad, torch.tensor([-0.042722, 0.042722, 0]).double(),
                               rtol=1e-4, atol=1e-7)


def test_equations_4_and_5_by_hand():
    new = moving_average(torch.tensor([0.5]), torch.tensor([1.0]), 0.9)
    assert new.item() == pytest.approx(0.55)
    parted = critical(torch.tensor([0.6, 0.2]), torch.tensor([0.6, 0.6]),
                      torch.tensor([0.3, 0.7]), torch.tensor([0.3, 0.5]))
    assert parted.tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize("student, teacher", [(a, b) for a in range(7) for b in range(7)])
def test_only_pairs_in_different_bands_cost_and_one_for_each_threshold_between(student, teacher):
    """Bands between thresholds 0.1 apart; similarities 0.03 or more from each, tau 0.01.

    Six thresholds are each at most G(-3) = 0.05 from their side, in sum at most 0.1 with the
    distances 3, 13, 23 ... of tau on either side.
    """
    thresholds = torch.arange(6) * 0.1
    for inside in (-0.07, -0.03):
        s = torch.tensor([0.1 * student + inside])
        t = torch.tensor([0.1 * teacher - 0.05])
        apart = rank_loss(s, t, thresholds, thresholds, norm="l1").item()
        assert apart == pytest.approx(abs(student - teacher), abs=0.1)


def test_the_distance_form_costs_inside_a_band_too():
    thresholds = torch.tensor([0.0, 0.5])
    s, t = torch.tensor([0.2]), torch.tensor([0.3])
    assert rank_loss(s, t, thresholds, thresholds).item() < 1e-10
    assert distance_loss(s, t, thresholds, thresholds).item() == pytest.approx(2 * 0.01)
    assert distance_loss(s, t, thresholds, thresholds, "l1").item() == pytest.approx(2 * 0.1)
    both = distance_loss(s, t, thresholds, thresholds + 0.1)  # only relative places count
    assert both.item() == pytest.approx(0, abs=1e-12)


def test_the_indicator_is_a_sigmoid_cut_off_at_50():
    x = torch.tensor([-0.6, -0.4, 0.0, 0.4, 0.6], dtype=torch.float64, requires_grad=True)
    soft_indicator(x).sum().backward()
    assert soft_indicator(x).tolist() == pytest.approx([indicator_by_loop(v, 0.01)
                                                        for v in x.tolist()], rel=1e-12)
    assert x.grad[0] == x.grad[4] == 0 < x.grad[1]
    assert x.grad[2] == pytest.approx(25)  # eq. (13): 0.5 * 0.5 / 0.01


def test_ranks_are_exact():
    pairs = 1024 * 1023 // 2 - 768  # the paper's merged batch: 128 identities of 4
    assert fpr_ranks(pairs, EKD().fprs) == [52300, 5230, 523, 52, 5, 0]
    rates = [10.0**-k for k in range(1, 7)]
    for total in (1, 9, 10, 999, 1000, 10**6 - 1, 10**6, 3 * 10**6, 10**7, 123_456_789):
        assert fpr_ranks(total, rates) == [total // 10**k for k in range(1, 7)]
    assert fpr_ranks(3, [1 / 3]) == [1] and fpr_ranks(100, [0.07, 0.29]) == [7, 29]


def test_a_threshold_leaves_its_share_of_negatives_strictly_above():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    found = fpr_thresholds(values.sort(descending=True).values, 1000, (0.1, 0.01, 0.001, 0.0001))
    assert [(values > t).sum().item() for t in found] == [100, 10, 1, 0]


def test_squared_or_absolute():
    """One positive pair, so that the mean is of one number: 0.02 d^2 against 0.02 |d|."""
    student, teacher, _, _ = draw(0, rows=3)
    terms = [apply(EKD(COARSE, norm=norm).double().eval(), student, teacher,
                   torch.tensor([0, 0, 1]))["positive"].item() / 0.02 for norm in ("l2", "l1")]
    assert terms[0] == pytest.approx(terms[1] ** 2) and terms[1] > 0


def test_positives_outside_the_balanced_rows_count_as_released():
    """Rows 0 and 1 share a label by accident, rows 2 and 3 by the sampler, 1 and 2 across."""
    labels, balanced = torch.tensor([0, 0, 0, 0, 1]), torch.tensor([0, 0, 1, 1, 1]).bool()
    similarity = torch.zeros(5, 5)
    for positives, expected in (("all", [1, 2, 3, 7, 8, 13]), ("balanced", [13])):
        loss = EKD(COARSE, positives=positives).eval()
        positive, negative = loss.select(similarity, similarity, labels,
                                         balanced if positives == "balanced" else None)
        assert positive.tolist() == expected
        assert sorted(negative.tolist()) == [4, 9, 14, 19]


def crowd(identities=16, images=4, size=16):
    """Close images of one identity and strangers, seen by student and by teacher."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(identities * images) // images
    return [torch.randn(identities, size, generator=g)[labels]
            + spread * torch.randn(len(labels), size, generator=g)
            for spread in (0.45, 0.3)] + [labels]


@quiet
def test_zero_start_teaches_positives_nothing_at_first_and_debias_mends_it():
    """The first thresholds are a hundredth of the batch's: every positive passes all of them."""
    gradients = {}
    for debias in (False, True):
        student, teacher, labels = crowd()
        student.requires_grad_()
        loss = EKD(debias=debias)
        apply(loss, student, teacher, labels)["positive"].backward()
        gradients[debias] = student.grad.norm().item()
        estimate = loss.thresholds()[0] if debias else loss.student_thresholds * 100
    assert gradients[False] < 1e-9 and gradients[True] > 1e-4
    assert estimate[-1] > 0.5  # the hardest stranger of the batch, not a hundredth of it


@quiet
def test_debiased_thresholds_of_one_batch_shown_again_stand():
    loss, batch = EKD(COARSE, debias=True), crowd()
    apply(loss, *batch)
    first = [t.clone() for t in loss.thresholds()]
    for _ in range(5):
        apply(loss, *batch)
    torch.testing.assert_close(loss.thresholds(), tuple(first))
    assert not EKD(debias=True).thresholds()[0].any()  # and before any batch they are 0


def test_random_negatives_follow_torchs_seed_and_are_distinct_strangers():
    student, teacher, labels, _ = draw(3)
    similarity = torch.rand(12, 12)
    loss, picks = EKD(COARSE, hard_negatives=7, negatives="random"), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        picks.append(loss.select(similarity, similarity, labels)[1].tolist())
    assert picks[0] == picks[1] != picks[2]
    assert all(len(set(p)) == 7 for p in picks)
    assert all(i // 12 < i % 12 and labels[i // 12] != labels[i % 12] for i in sum(picks, []))
    every = apply(EKD(COARSE, negatives="random").double(), student, teacher, labels)
    hard = apply(EKD(COARSE).double(), student, teacher, labels)  # there are fewer than 2000
    torch.testing.assert_close(every, hard)


def test_few_pairs_and_many_have_the_same_similarities_and_gradient():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 5, generator=g, dtype=torch.float64)
    rows, columns = torch.randint(64, (2, 80), generator=g)
    grads = []
    for parts in (1, 4):  # 80 pairs through the matrix, then 20 at a time
        leaf = x.clone().requires_grad_()
        found = torch.cat([pair_similarities(leaf, r, c) for r, c in zip(
            rows.chunk(parts), columns.chunk(parts), strict=True)])
        found.sin().sum().backward()
        grads.append((found.detach(), leaf.grad))
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-14)
    assert 100 * 80 >= 64**2 > 100 * 20


@pytest.mark.parametrize("options", [{}, {"norm": "l1"}, {"form": "distance"},
                                     {"form": "distance", "norm": "l1"}], ids=str)
def test_gradcheck(options):
    student, teacher, labels, _ = draw(0, rows=6)
    loss = EKD(COARSE, temperature=0.3, hard_negatives=5, **options).double()
    apply(loss, student, teacher, labels)
    loss.eval()
    assert torch.autograd.gradcheck(
        lambda x: sum(apply(loss, x, teacher, labels).values()), student.requires_grad_())


def test_gradient_reaches_the_student_only():
    student, teacher, labels, _ = draw(0)
    loss = EKD(COARSE, temperature=0.3).double()
    teacher.requires_grad_()
    sum(apply(loss, student.requires_grad_(), teacher, labels).values()).backward()
    assert student.grad.any(1).all() and teacher.grad is None
    assert not list(loss.parameters()) and not loss.student_thresholds.requires_grad


def test_state_moves_in_training_mode_only_and_is_saved():
    batch = draw(0)
    first, second = EKD(COARSE, debias=True).double(), EKD(COARSE, debias=True).double()
    apply(first, *batch)
    assert set(first.state_dict()) == {"student_thresholds", "teacher_thresholds", "updates"}
    second.load_state_dict(first.state_dict())
    before = copy.deepcopy(first.state_dict())
    a, b = (apply(loss.eval(), *draw(1)) for loss in (first, second))
    assert a == b
    assert all(torch.equal(before[key], value) for key, value in first.state_dict().items())


@quiet
@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [5, 5, 5, 5], [7]], ids=["strangers", "one", "1"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_without_a_kind_of_pairs_its_term_is_zero_with_a_gradient(labels, options):
    labels = torch.tensor(labels)
    loss = EKD(**options).double()
    loss.student_thresholds.fill_(0.3)
    before = loss.student_thresholds.clone()
    student, teacher, _, _ = draw(0, rows=len(labels))
    terms = apply(loss, student.requires_grad_(), teacher, labels, labels < 9)
    sum(terms.values()).backward()
    assert student.grad.isfinite().all()
    strangers = len(set(labels.tolist())) > 1
    if strangers or len(labels) == 1:
        assert terms["positive"] == 0 and terms["positive"].requires_grad
    if not strangers:
        assert terms["negative"] == 0 and terms["negative"].requires_grad
        assert torch.equal(loss.student_thresholds, before) and loss.updates == 0


@quiet
def test_zero_opposite_and_repeated_embeddings_stay_finite():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]],
                     requires_grad=True)
    terms = apply(EKD(), x, x.detach(), torch.tensor([0, 0, 1, 1, 2]))
    sum(terms.values()).backward()
    assert all(t.isfinite() for t in terms.values()) and x.grad.isfinite().all()


@quiet
def test_bf16_outputs_are_compared_in_float32():
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(16, 8, generator=g).bfloat16() for _ in range(2))
    labels, loss = torch.arange(16) // 4, EKD(COARSE)
    exact = copy.deepcopy(loss).double()
    with torch.autocast("cpu", torch.bfloat16):
        terms = apply(loss, student, teacher, labels)
    for name, value in apply(exact, student.double(), teacher.double(), labels).items():
        assert terms[name].dtype == torch.float32
        assert float(terms[name]) == pytest.approx(float(value), rel=1e-4)


def test_one_warning_names_pairs_and_rates():
    labels = torch.arange(64)  # 2016 pairs: ranks 201, 20, 2, 0, 0, 0
    x, loss = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), EKD()
    with pytest.warns(UserWarning) as caught:
        for _ in range(2):
            apply(loss, x, x, labels)
    assert len(caught) == 1
    said = str(caught[0].message)
    assert "2016 negative pairs" in said and "FPR 1e-4, 1e-5, 1e-6 apart" in said
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply(EKD((0.1, 0.01, 0.001)), x, x, labels)
        apply(EKD().eval(), x, x, labels)


def test_report_says_thresholds_and_shares_of_critical_pairs():
    """Threshold 0 in eval, in training a hundredth of one similarity: s against t decides."""
    loss = EKD((0.5, 2.5e-2), momentum=0).double()
    student = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]], dtype=torch.float64)
    apply(loss, student, teacher, torch.tensor([0, 0, 1]))
    # Negatives, student: 0 and 0.6; teacher: 0.8 and 0.6. Ranks 1 and 0 of two.
    # Positive: student 0.8 is above 0 and 0.6, teacher 0 above none: critical. Negatives: (0, 2)
    # student above none, teacher above 0.6: critical; (1, 2) above one, above none: critical.
    assert loss.report() == pytest.approx({
        "student_threshold_5e-1": 0, "student_threshold_2.5e-2": 0.6,
        "teacher_threshold_5e-1": 0.6, "teacher_threshold_2.5e-2": 0.8,
        "critical_positive": 1, "critical_negative": 1})
    apply(loss, student, student, torch.tensor([0, 1, 2]))
    report = loss.report()
    assert "critical_positive" not in report and report["critical_negative"] == 0
    assert set(EKD().report().values()) == {0.0} and "student_threshold_1e-6" in EKD().report()


def test_wrong_input_is_refused_in_words_and_leaves_the_thresholds():
    student, teacher, labels, balanced = draw(0)
    broken = teacher.clone()
    broken[5, 1] = torch.nan
    loss = EKD(COARSE, positives="balanced").double()
    for arguments, message in (
        ((Output(student), None, Targets(labels)), "EKD needs a teacher's embedding"),
        ((Output(student), Output(teacher[:7]), Targets(labels)), "student has 12.*teacher 7"),
        ((Output(student), Output(teacher), Targets(labels)), "targets.balanced.*PairSampler"),
        ((Output(student), Output(teacher), Targets(labels, balanced=balanced[:3])),
         r"12 labels but targets.balanced is .* of shape \(3,\)"),
        ((Output(student), Output(teacher), Targets(labels[:5], balanced=balanced[:5])),
         "12 .* embeddings but labels"),
        ((Output(student), Output(broken), Targets(labels, balanced=balanced)),
         "1 of 12 teacher embeddings.*row 5"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(*arguments)
    assert not loss.student_thresholds.any() and loss.updates == 0
    for name in ("negatives", "norm", "form", "positives", "hardest"):
        with pytest.raises(ValueError, match=f"{name} must be one of"):
            EKD(**{name: "other"})
    for wrong in ((), (0.1, 0.1), (0.1, 0), (1,), (math.nan,)):
        with pytest.raises(ValueError, match="fprs must be rates above 0"):
            EKD(wrong)
    for wrong in ({"temperature": 0}, {"momentum": 1}, {"hard_negatives": 0}):
        with pytest.raises(ValueError, match="EKD wants temperature above 0, momentum in"):
            EKD(**wrong)


# ---- two processes ----

SETTINGS = {"plain": {}, "scaled": {"scale_by_world": True},
            "balanced": {"positives": "balanced", "norm": "l1", "debias": True}}


def network():
    torch.manual_seed(0)
    return nn.Linear(4, 3).double()


def steps(net, loss, batches):
    """Values, gradients and thresholds of STEPS steps of plain descent."""
    values, grads = [], []
    for images, teacher, labels, balanced in batches:
        net.zero_grad()
        terms = apply(loss, net(images), teacher, labels, balanced)
        sum(terms.values()).backward()
        weight = next(net.parameters())
        values.append(torch.stack([*terms.values()]).detach())
        grads.append(weight.grad.clone())
        with torch.no_grad():
            weight -= 0.1 * weight.grad
    return {"values": torch.stack(values), "gradients": torch.stack(grads), **loss.state_dict()}


def make(name):
    return EKD(COARSE, temperature=0.3, hard_negatives=20, **SETTINGS[name]).double()


def worker(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=(folder / "meet").as_uri(), rank=rank,
                            world_size=WORLD, timeout=timedelta(seconds=60))
    mine = [draw(10 * step + rank, rows=B) for step in range(STEPS)]
    out = {}
    for name in SETTINGS:
        ddp = nn.parallel.DistributedDataParallel(network())
        out |= {f"{name}_{key}": value for key, value in steps(ddp, make(name), mine).items()}
    if rank == 0:  # in eval mode a process asks no other
        apply(make("balanced").eval(), *mine[0])
    save_file(out, folder / f"{rank}.safetensors")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each process computed, in order of rank."""
    folder = tmp_path_factory.mktemp("two")
    running = [subprocess.Popen([sys.executable, "-P", __file__, str(rank), str(folder)],
                                stderr=subprocess.PIPE, text=True) for rank in range(WORLD)]
    try:
        errors = [process.communicate(timeout=120)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * WORLD, "\n".join(errors)
    return [load_file(folder / f"{rank}.safetensors") for rank in range(WORLD)]


@pytest.mark.parametrize("name", ["plain", "balanced"])
def test_two_processes_train_as_one_on_the_merged_batch(results, name):
    whole = [tuple(map(torch.cat, zip(*(draw(10 * step + rank, rows=B) for rank in range(WORLD)),
                                      strict=True))) for step in range(STEPS)]
    alone = steps(network(), make(name), whole)
    assert alone["student_thresholds"].all() and alone["gradients"].any()
    for tensors in results:
        for key, expected in alone.items():
            torch.testing.assert_close(tensors[f"{name}_{key}"], expected, rtol=1e-9, atol=1e-13)


def test_scaled_by_world_is_the_released_gradient_and_the_same_value(results):
    for tensors in results:
        torch.testing.assert_close(tensors["scaled_values"][0], tensors["plain_values"][0],
                                   rtol=1e-12, atol=0)
        torch.testing.assert_close(tensors["scaled_gradients"][0],
                                   WORLD * tensors["plain_gradients"][0], rtol=1e-9, atol=1e-13)


def test_with_one_process_the_factor_is_one():
    gradients = []
    for name in ("plain", "scaled"):
        student, *others = draw(0)
        sum(apply(make(name), student.requires_grad_(), *others).values()).backward()
        gradients.append(student.grad)
    assert gradients[0].any()
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=0)


if __name__ == "__main__":
    faulthandler.enable()  # a process that aborts says where
    torch.set_num_threads(1)
    worker(int(sys.argv[1]), Path(sys.argv[2]))
    leave()


@quiet
def test_one_threshold_that_parts_a_pair_makes_it_critical():
    """Cosines 0.6 (student) and 0.8 (teacher); thresholds 0.9, 0.5, 0.7: the third parts them."""
    student = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    teacher = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    same = Targets(torch.zeros(2, dtype=torch.int64))
    for third, parted in ((0.7, True), (0.3, False)):
        loss = EKD(fprs=COARSE, critical_only=True, form="distance", positive_weight=1).eval()
        for buffer in (loss.student_thresholds, loss.teacher_thresholds):
            buffer.copy_(torch.tensor([0.9, 0.5, third]))
        value = loss(Output(student), Output(teacher), same)["positive"]
        # eq. (7) with equal thresholds: 3 x (0.8 - 0.6)² = 0.12
        assert value.item() == pytest.approx(0.12 if parted else 0, rel=1e-5)
