"""DarkRank: hard and soft transfer by loop and by hand, and the original code's recipe."""

import math
from itertools import permutations

import pytest
import torch

from kdlab.losses.darkrank import DarkRank, hard, log_probability, nearest, scores, soft
from kdlab.outputs import Output, Targets


def labels(n):
    return Targets(torch.zeros(n, dtype=torch.int64))


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def unit(v):
    length = math.hypot(*v)
    return [x / length for x in v]


def scores_by_loop(x, alpha, beta, normalize):
    x = [unit(v) for v in x.tolist()] if normalize else x.tolist()
    return [[-alpha * math.dist(a, b) ** beta for b in x] for a in x]


def probability(score, order):
    product = 1.0
    for i, pick in enumerate(order):
        product *= math.exp(score[pick]) / sum(math.exp(score[k]) for k in order[i:])
    return product


def by_loop(student, teacher, form, alpha, beta, length, normalize, queries):
    s = scores_by_loop(student, alpha, beta, normalize)
    t = scores_by_loop(teacher, alpha, beta, normalize)
    n = len(s)
    chosen = range(n if queries == "all" else n // 2)
    total = 0.0
    for q in chosen:
        listed = sorted((k for k in range(n) if k != q), key=lambda k: -t[q][k])[:length]
        if form == "hard":
            total -= math.log(probability(s[q], listed))
            continue
        for order in permutations(listed):
            p = probability(t[q], order)
            total += p * (math.log(p) - math.log(probability(s[q], order)))
    return total / len(chosen)


@pytest.mark.parametrize("options", [
    {}, {"length": None}, {"length": 3}, {"alpha": 2, "normalize": False},  # TFace's; RKD script's
    {"alpha": 0.5, "beta": 1, "length": 2}, {"queries": "first_half"},
    {"form": "soft"}, {"form": "soft", "length": 3, "alpha": 1.5, "beta": 2},
    {"form": "soft", "alpha": 0.2, "normalize": False, "queries": "first_half"},
], ids=str)
def test_both_forms_by_loop(options):
    student, teacher = draw(7, 3), draw(7, 5, seed=1)
    whole = {"form": "hard", "alpha": 3, "beta": 3, "length": 4, "normalize": True,
             "queries": "all"} | options
    value = DarkRank(**options, weight=2.5)(Output(student), Output(teacher), labels(7))["rank"]
    assert value.item() == pytest.approx(2.5 * by_loop(student, teacher, **whole), rel=1e-9)


def test_hand_number_and_hand_gradient():
    """On a line: teacher at 0, 1, 3, student at 0, 2, y = 1; score = -distance.

    Query 0: order 1, 2 with scores -2 and -y:            log(1 + e^(2 - y)) = log(1 + e).
    Query 1: order 0, 2 with scores -2 and -(2 - y):      log(1 + e^y)       = log(1 + e).
    Query 2: order 1, 0 with scores -(2 - y) and -y:      log(1 + e^(2 - 2y)) = log 2.
    Their slopes in y: -sigmoid(1), sigmoid(1), -2 sigmoid(0): together -1.
    """
    student = torch.tensor([[0.0], [2], [1]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0.0], [1], [3]], dtype=torch.float64)
    loss = DarkRank(alpha=1, beta=1, length=2, normalize=False)
    value = loss(Output(student), Output(teacher), labels(3))["rank"]
    assert value.item() == pytest.approx((2 * math.log(1 + math.e) + math.log(2)) / 3)
    value.backward()
    assert student.grad[2, 0].item() == pytest.approx(-1 / 3)


def test_hand_number_of_soft_transfer():
    """Lists of two: the order (a, b) has probability sigmoid(s_a - s_b).

    Teacher's probabilities 3/4, 1/4, student's 1/2 twice: KL = 3/4 log(3/2) + 1/4 log(1/2).
    """
    teacher = torch.zeros(3, 3, dtype=torch.float64)
    teacher[:, 2] = -math.log(3)
    teacher[2] = torch.tensor([0, -math.log(3), 0])
    value = soft(torch.zeros_like(teacher), teacher, 2)
    torch.testing.assert_close(value[0].item(), 0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    torch.testing.assert_close(value[2].item(), value[0].item())


def test_the_original_recipe():
    """As the original states it: embeddings times √3.5, squared distances to the power 2, lists
    of 4, the first half as queries, cross-entropy, weight 16; less the teacher's own entropy."""
    student, teacher = draw(8, 3), draw(8, 4, seed=1)
    s, t = ([[math.sqrt(3.5) * x for x in unit(v)] for v in rows.tolist()]
            for rows in (student, teacher))
    total = 0.0
    for q in range(4):
        far = [math.dist(t[q], other) ** 2 for other in t]
        own = [-(math.dist(s[q], other) ** 2) ** 2.0 for other in s]
        listed = sorted(range(8), key=lambda k: far[k])[1:5]
        for order in permutations(listed):
            p = probability([-(d**2.0) for d in far], order)
            total += p * (math.log(p) - math.log(probability(own, order)))
    loss = DarkRank("soft", alpha=12.25, beta=4, length=4, weight=16, queries="first_half")
    value = loss(Output(student), Output(teacher), labels(8))["rank"]
    assert value.item() == pytest.approx(16 * total / 4, rel=1e-9)


def test_probabilities_of_all_orders_sum_to_1_and_the_sorted_one_leads():
    score = draw(4)
    orders = torch.tensor(list(permutations(range(4))))
    chance = log_probability(score[orders]).exp()
    assert chance.sum().item() == pytest.approx(1)
    assert orders[chance.argmax()].tolist() == score.argsort(descending=True).tolist()


def test_a_face_never_stands_in_its_own_list_even_beside_a_twin():
    """Sorting and dropping the first place would keep row 1 in row 1's list."""
    x = draw(5, 3)[[0, 0, 1, 2, 3, 4]]
    listed = nearest(scores(x), 3)
    assert all(q not in row for q, row in enumerate(listed.tolist()))
    assert listed[0, 0] == 1 and listed[1, 0] == 0
    assert nearest(scores(x)).shape == (6, 5)


def test_only_the_order_counts_for_hard_and_agreement_is_free_for_soft():
    x = draw(6, 3)
    turn, _ = torch.linalg.qr(draw(3, 3, seed=1))
    torch.testing.assert_close(hard(scores(x), scores(draw(6, 4))),
                               hard(scores(x), scores(draw(6, 4), alpha=9, beta=1)))
    assert soft(scores(x), scores(5 * x @ turn)).abs().max() < 1e-12
    right, wrong = scores(x), scores(x).flip(1)
    assert hard(right, scores(x)).mean() < hard(wrong, scores(x)).mean()


@pytest.mark.parametrize("options", [{}, {"length": None}, {"form": "soft", "length": 3},
                                     {"beta": 1, "normalize": False}], ids=str)
def test_gradcheck(options):
    loss, teacher = DarkRank(**options), Output(draw(6, 4, seed=1))
    student = draw(6, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: loss(Output(x), teacher, labels(6))["rank"], student)


@pytest.mark.parametrize("form", ["hard", "soft"])
@pytest.mark.parametrize("beta", [1, 1.5, 3])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("rows", [torch.zeros(6, 3), torch.ones(6, 3),
                                  torch.eye(3).repeat(2, 1), 100 * torch.eye(6),
                                  torch.eye(3).repeat(2, 1) * torch.tensor([1.0, -1]).repeat(3)[
                                      :, None]],
                         ids=["zero", "equal", "twins", "far", "opposed"])
def test_odd_batches_stay_finite(rows, form, beta, normalize):
    for teacher in (draw(6, 4).float(), 1000 * draw(6, 4).float(), rows):
        student = rows.clone().requires_grad_()
        value = DarkRank(form, beta=beta, normalize=normalize)(
            Output(student), Output(teacher), labels(6))["rank"]
        value.backward()
        assert value.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize("form", ["hard", "soft"])
def test_bf16_is_compared_in_float32(form):
    student, teacher = draw(8, 64), draw(8, 32, seed=1)
    exact = DarkRank(form)(Output(student), Output(teacher), labels(8))["rank"]
    half = student.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = DarkRank(form)(Output(half), Output(teacher.bfloat16()), labels(8))["rank"]
    value.backward()
    assert value.dtype == torch.float32 and half.grad.isfinite().all()
    assert value.item() == pytest.approx(exact.item(), rel=2e-2)


def test_the_rows_of_all_processes_are_one_batch(monkeypatch):
    student, teacher = draw(12, 3), draw(12, 4, seed=1)
    for name, whole in (("gather_with_gradient", student), ("gather", teacher)):
        monkeypatch.setattr(f"kdlab.inputs.{name}", lambda rows, whole=whole: torch.stack(
            [rows, whole[1::2]], 1).flatten(0, 1))
    part = Output(student[::2]), Output(teacher[::2]), labels(6)
    values = hard(scores(student), scores(teacher), 4)  # one a query, of the merged batch
    assert DarkRank()(*part)["rank"].item() == pytest.approx(values.mean().item())
    assert DarkRank(queries="first_half")(*part)["rank"].item() == pytest.approx(
        values[:6].mean().item())


def test_wrong_input_is_refused_in_words():
    four, five = Output(draw(4, 3)), Output(draw(5, 3))
    with pytest.raises(ValueError, match="DarkRank needs a teacher"):
        DarkRank()(four, None, labels(4))
    with pytest.raises(ValueError, match="4 embeddings of the student, 5 of the teacher"):
        DarkRank()(four, five, labels(4))
    with pytest.raises(ValueError, match="of 5 student embeddings are NaN"):
        DarkRank()(Output(draw(5, 3).log()), five, labels(5))
    with pytest.raises(ValueError, match="length=4 needs 5 rows or more, the batch has 4"):
        DarkRank()(four, four, labels(4))
    with pytest.raises(ValueError, match="length=None needs 3 rows or more, the batch has 2"):
        DarkRank(length=None)(Output(draw(2, 3)), Output(draw(2, 3)), labels(2))
    for options, words in (({"form": "listnet"}, "form must be"), ({"alpha": 0}, "alpha must be"),
                           ({"beta": 0.5}, "beta must be"), ({"length": 1}, "length must be"),
                           ({"queries": "pairs"}, "queries must be"),
                           ({"form": "soft", "length": 8}, "8! = 40,320 orders"),
                           ({"form": "soft", "length": None}, "all orders")):
        with pytest.raises(ValueError, match=words):
            DarkRank(**options)
