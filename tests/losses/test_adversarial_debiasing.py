"""AD: the adversaries' loss by loop and by hand, and the gradient that is turned round."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from kdlab.losses.adversarial_debiasing import (
    AdversarialDebiasing,
    adversary_loss,
    reverse_gradient,
)
from kdlab.outputs import Output, Targets
from kdlab.train import TrainConfig
from kdlab.train.optimizer import make_optimizer

C, G = 4, 3


@pytest.fixture
def batch():
    """Class 1 is absent, class 3 has one row."""
    torch.manual_seed(0)
    return (torch.randn(8, C, dtype=torch.float64), torch.tensor([2, 0, 2, 3, 0, 2, 0, 0]),
            torch.tensor([0, 1, 2, 2, 0, 1, 1, 0]))


def made(weight=0.5, **options):
    torch.manual_seed(1)
    return AdversarialDebiasing(C, G, weight, hidden=16, **options).double()


def term(loss, logits, labels, groups):
    return loss(Output(logits, logits), None, Targets(labels, groups))["adversary"]


def by_loop(loss, logits, labels, groups):
    total = 0.0
    for c in sorted(set(labels.tolist())):
        first, _, second = loss.adversaries[c]
        rows = [i for i in range(len(labels)) if labels[i] == c]
        for i in rows:
            z = logits[i].tolist()
            hidden = [max(sum(w * x for w, x in zip(row, z, strict=True)) + b, 0)
                      for row, b in zip(first.weight.tolist(), first.bias.tolist(), strict=True)]
            scores = [sum(w * h for w, h in zip(row, hidden, strict=True)) + b
                      for row, b in zip(second.weight.tolist(), second.bias.tolist(), strict=True)]
            cost = math.log(sum(map(math.exp, scores))) - scores[groups[i]]
            total += cost / len(rows)
    return total


@pytest.mark.parametrize("weight", [0, 0.5, 30])
def test_the_sum_over_present_classes_by_loop(batch, weight):
    loss = made(weight)
    assert term(loss, *batch).item() == pytest.approx(by_loop(loss, *batch), rel=1e-9)


def test_hand_number_and_hand_gradient():
    """Class 0: rows with scores (0, 0) and (ln 3, 0), groups 0 and 1: (ln 2 + ln 4) / 2.
    Class 1: one row with (0, ln 3), group 1: ln 4/3. Sum: 1.03972 + 0.28768 = 1.32741.

    Gradient of row 1: shares (3/4, 1/4) less (0, 1), halved: (3/8, -3/8).
    """
    scores = torch.tensor([[0, 0], [math.log(3), 0], [0, math.log(3)]], dtype=torch.float64,
                          requires_grad=True)
    value = adversary_loss(scores, torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    value.backward()
    assert value.item() == pytest.approx(1.32741, rel=1e-5)
    assert scores.grad[1].tolist() == pytest.approx([3 / 8, -3 / 8])


def test_untrained_adversaries_that_say_nothing_cost_ln_g_a_class(batch):
    loss = made()
    for adversary in loss.adversaries:
        torch.nn.init.zeros_(adversary[2].weight)
        torch.nn.init.zeros_(adversary[2].bias)
    assert term(loss, *batch).item() == pytest.approx(3 * math.log(G))  # three classes present


@pytest.mark.parametrize("weight", [0, 0.5, 30])
def test_the_students_gradient_is_minus_weight_times_the_slope(batch, weight):
    """Against finite differences of the loss itself, which autograd must not agree with."""
    logits, labels, groups = batch
    loss, step = made(weight), 1e-6
    slope = torch.zeros_like(logits)
    with torch.no_grad():
        for i in range(len(logits)):
            for k in range(C):
                nudge = torch.zeros_like(logits)
                nudge[i, k] = step
                slope[i, k] = (term(loss, logits + nudge, labels, groups)
                               - term(loss, logits - nudge, labels, groups)) / (2 * step)
    logits = logits.clone().requires_grad_()
    term(loss, logits, labels, groups).backward()
    assert slope.any(1).all()
    torch.testing.assert_close(logits.grad, -weight * slope, rtol=1e-6, atol=1e-7)


def test_the_adversaries_gradient_is_plain_whatever_the_weight(batch):
    gradients = []
    for weight in (0, 0.5, 30):
        loss = made(weight)
        term(loss, *batch).backward()
        gradients.append([p.grad for p in loss.parameters()])
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            assert torch.equal(a, b)
    loss, (logits, labels, groups) = made(30), batch
    parameters = [p.detach().clone().requires_grad_() for p in loss.parameters()]
    names = [name for name, _ in loss.named_parameters()]

    def value(*values):
        return torch.func.functional_call(
            loss, dict(zip(names, values, strict=True)),
            (Output(logits, logits), None, Targets(labels, groups)))["adversary"]

    assert torch.autograd.gradcheck(value, parameters)


def test_an_absent_class_gets_a_gradient_of_zero(batch):
    loss = made()
    term(loss, *batch).backward()
    for c, adversary in enumerate(loss.adversaries):
        moved = any(p.grad.any() for p in adversary.parameters())
        assert moved == (c != 1) and all(p.grad is not None for p in adversary.parameters())


def test_reversal_alone():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reverse_gradient(x, 3)
    (y * torch.tensor([1.0, 10.0])).sum().backward()
    assert torch.equal(y, x) and x.grad.tolist() == [-3, -30]
    with torch.no_grad():
        assert torch.equal(reverse_gradient(x, 3), x)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_optimiser_gives_the_adversaries_their_own_rate(name):
    student, loss = torch.nn.Linear(2, C), made(lr=0.02)
    config = TrainConfig(optimizer=name, lr=0.1, weight_decay=0.3)
    optimizer = make_optimizer(config, student, torch.nn.ModuleDict({"ad": loss}))
    common, own = optimizer.param_groups
    assert {id(p) for p in own["params"]} == {id(p) for p in loss.parameters()}
    assert (own["lr"], own["weight_decay"]) == (0.02, 0)
    assert (common["lr"], common["weight_decay"]) == (0.1, 0.3)
    assert AdversarialDebiasing(C, G, 1).lr == 3e-3


def test_adversaries_find_the_group_and_the_student_climbs_away_from_them():
    """Inputs (class, group) plus noise; the linear student starts by copying both.

    In turns, because the two at once may chase each other round.
    """
    torch.manual_seed(0)
    labels, groups = torch.randint(2, (2, 256))
    x = torch.stack([labels, groups], 1) * 4 - 2 + torch.tensor([0.5, 1]) * torch.randn(256, 2)
    student, loss = torch.nn.Linear(2, 2), AdversarialDebiasing(2, 2, weight=0)
    student.weight.data = torch.tensor([[-1.0, 1.0], [1.0, 1.0]])
    optimizer = torch.optim.Adam(loss.parameters(), 0.02)
    for _ in range(40):
        value = term(loss, student(x).detach(), labels, groups)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert loss.report()["accuracy"] > 0.9 and 0.5 <= loss.report()["majority"] < 0.6
    first, leak = value.item(), student.weight[:, 1].abs().sum().item()
    loss.weight = 10  # what a schedule does
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    for _ in range(6):  # a few: held adversaries are passed and the group comes back turned round
        logits = student(x)
        optimizer.zero_grad()
        (F.cross_entropy(logits, labels) + term(loss, logits, labels, groups)).backward()
        optimizer.step()
    logits = student(x)
    assert (logits.argmax(1) == labels).float().mean() > 0.95
    assert term(loss, logits, labels, groups).item() > 2 * first
    assert student.weight[:, 1].abs().sum().item() < 0.9 * leak


def test_the_report_is_of_the_last_training_step(batch):
    logits, labels, groups = batch
    loss = made()
    assert loss.report() == {}
    term(loss.eval(), logits, labels, groups)
    assert loss.report() == {}
    term(loss.train(), logits, labels, groups)
    right = sum(int(loss.adversaries[y](z).argmax()) == a
                for z, y, a in zip(logits, labels.tolist(), groups.tolist(), strict=True))
    assert loss.report()["accuracy"] == pytest.approx(right / 8)
    assert loss.report()["majority"] == pytest.approx((2 + 1 + 1) / 8)  # classes 0, 2 and 3


def test_bf16_logits_are_judged_in_float32(batch):
    logits = batch[0].bfloat16().requires_grad_()
    loss = made().float()
    exact = copy.deepcopy(loss).double()
    with torch.autocast("cpu", torch.bfloat16):
        value = term(loss, logits, *batch[1:])
    value.backward()
    assert value.dtype == torch.float32 and logits.grad.isfinite().all()
    assert value.item() == pytest.approx(term(exact, logits.double(), *batch[1:]).item(), rel=1e-5)


def test_state_dict_carries_the_adversaries(batch):
    first, second = made(), AdversarialDebiasing(C, G, 0.5, hidden=16).double()
    assert not torch.equal(term(first, *batch), term(second, *batch))
    second.load_state_dict(first.state_dict())
    assert torch.equal(term(first, *batch), term(second, *batch))


def test_wrong_input_is_refused_in_words(batch):
    logits, labels, groups = batch
    loss = made()
    for arguments, message in (
        ((logits[:, :2], labels, groups), "built for 4 classes, the student has 2 logits"),
        ((logits, labels + 1, groups), "label 4 in row 3.*4 classes"),
        ((logits, labels, None), "AdversarialDebiasing needs targets.groups"),
        ((logits, labels, groups + 1), "group 3 in row 2 of the batch; groups are 0 to 2"),
        ((logits, labels, groups - 1), "group -1 in row 0"),
        ((logits * torch.inf, labels, groups), "8 of 8 student logit"),
        ((logits, labels[:3], groups), "8 student logits but labels"),
    ):
        with pytest.raises(ValueError, match=message):
            term(loss, *arguments)
    with pytest.raises(ValueError, match="reads the student's logits and it has none"):
        loss(Output(logits), None, Targets(labels, groups))
    for options, message in (((0, 2, 1), "num_classes must be 1 or more"),
                             ((2, 1, 1), "num_groups must be 2 or more, not 1"),
                             ((2, 2, -1), "weight must be 0 or more.*reversed already"),
                             ((2, 2, 1, 0), "lr must be above 0"),
                             ((2, 2, 1, 1, 0), "hidden must be 1 or more")):
        with pytest.raises(ValueError, match=message):
            AdversarialDebiasing(*options)
