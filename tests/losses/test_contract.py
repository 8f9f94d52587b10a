"""What every loss promises, over all of LOSSES. A new loss adds one line to MAKE."""

import copy
import inspect

import pytest
import torch
from torch import nn

from kdlab.losses import LOSSES
from kdlab.outputs import Output, Targets

B, D, C, G = 12, 8, 4, 2  # rows, embedding size, classes, groups
CHANNELS = [16, 32]


class Tail(nn.Module):
    """What stands in for a frozen teacher: everything after its first stage."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.conv = nn.Conv2d(CHANNELS[0], CHANNELS[1], 3, 2, 1)
        self.linear = nn.Linear(CHANNELS[1], D)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
        self.eval().requires_grad_(False)

    def tail(self, x, stage):
        if x.dtype == torch.float64:
            self.double()
        return Output(self.linear(self.conv(x).mean((2, 3))))


def centres():
    return torch.randn(C, D, generator=torch.Generator().manual_seed(8))


MAKE = {  # name -> the loss for the outputs below
    "CrossEntropy": lambda: LOSSES["CrossEntropy"](),
    "ArcFace": lambda: LOSSES["ArcFace"](D, C),
    "CosFace": lambda: LOSSES["CosFace"](D, C),
    "HintonKD": lambda: LOSSES["HintonKD"](),
    "FitNet": lambda: LOSSES["FitNet"](),
    "AttentionTransfer": lambda: LOSSES["AttentionTransfer"](),
    "NST": lambda: LOSSES["NST"](),
    "RKD": lambda: LOSSES["RKD"](),
    "SP": lambda: LOSSES["SP"](),
    "CCKD": lambda: LOSSES["CCKD"](),
    "DarkRank": lambda: LOSSES["DarkRank"](),
    "TripletDistillation": lambda: LOSSES["TripletDistillation"](),
    "MarginDistillation": lambda: LOSSES["MarginDistillation"](centres()),
    "FeatureL2": lambda: LOSSES["FeatureL2"](CHANNELS, CHANNELS),
    "ShrinkTeaNet": lambda: LOSSES["ShrinkTeaNet"](CHANNELS, CHANNELS, Tail().tail),
    "EKD": lambda: LOSSES["EKD"](fprs=(1e-1, 1e-2)),
    "AdaDistill": lambda: LOSSES["AdaDistill"](D, C),
    "ArcDistill": lambda: LOSSES["ArcDistill"](centres()),
    "CosDistill": lambda: LOSSES["CosDistill"](centres()),
    "FeatureOnly": lambda: LOSSES["FeatureOnly"](),
    "ReverseDistillation": lambda: LOSSES["ReverseDistillation"](),
    "MFD": lambda: LOSSES["MFD"](),
    "AdversarialDebiasing": lambda: LOSSES["AdversarialDebiasing"](C, G, weight=1.0),
}
# Whose gradient is not the slope of its value by design; each has a test of its own.
NOT_THE_SLOPE = {
    "AdversarialDebiasing": "gradient reversal: tests/losses/test_adversarial_debiasing.py",
    "MFD": "the bandwidth is held fixed: tests/losses/test_mfd.py",
}
# Whose value in training mode may depend on the order of the batch; each has a test of its own.
ORDERED = {"AdaDistill": "a label twice in a batch, the last counts"}


def output(seed: int, dtype=torch.float32) -> Output:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    return Output(draw(B, D), draw(B, C), (draw(B, 16, 4, 4), draw(B, 32, 2, 2)))


def leaves(out: Output):
    return [out.embedding, out.logits, *out.features]


def rows(out: Output, order) -> Output:
    return Output(out.embedding[order], out.logits[order], tuple(f[order] for f in out.features))


def mapped(function, out: Output) -> Output:
    return Output(function(out.embedding), function(out.logits), tuple(map(function, out.features)))


def targets(order=slice(None), labels=None) -> Targets:
    labels = torch.arange(B) % C if labels is None else labels
    groups = torch.arange(B) // C % G
    return Targets(labels[order], groups[order])


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MAKE[name]()


@pytest.fixture(params=sorted(LOSSES))
def loss(request):
    assert request.param in MAKE, f"add {request.param} to MAKE"
    return made(request.param)


def settled(loss):
    """After a step in training mode, so that running state is not at its start; then held still."""
    loss.train()(output(0), output(1), targets())
    return loss.eval()


def finite(terms, student) -> None:
    assert all(t.shape == () and t.isfinite() for t in terms.values())
    sum(terms.values()).backward()
    grads = [x.grad for x in leaves(student) if x.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)


def test_every_loss_is_tested():
    assert MAKE.keys() == LOSSES.keys()


def test_named_finite_scalars(loss):
    for mode in (True, False):
        terms = loss.train(mode)(output(0), output(1), targets())
        assert terms and all(isinstance(name, str) for name in terms)
        assert all(t.shape == () and t.isfinite() for t in terms.values())


def test_the_student_learns_and_the_teacher_does_not(loss):
    student, teacher = output(0), output(1)
    sum(settled(loss)(student, teacher, targets()).values()).backward()
    assert any(x.grad is not None and x.grad.any() for x in leaves(student))
    assert all(x.grad is None or x.grad.isfinite().all() for x in leaves(student))
    assert all(x.grad is None for x in leaves(teacher))


@pytest.mark.parametrize("training", [False, True])
def test_the_order_of_the_batch_is_free(loss, training):
    if training and type(loss).__name__ in ORDERED:
        return  # has a test of its own, named in ORDERED
    order = torch.randperm(B, generator=torch.Generator().manual_seed(5))
    one = copy.deepcopy(loss).train(training)(output(0), output(1), targets())
    other = loss.train(training)(rows(output(0), order), rows(output(1), order), targets(order))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)


def test_the_gradient_is_the_slope(loss):
    """Central differences in float64 along ten directions, state held still."""
    name = type(loss).__name__
    if name in NOT_THE_SLOPE:
        return
    loss = settled(loss).double()
    student, teacher = output(2, torch.float64), output(3, torch.float64)
    sum(loss(student, teacher, targets()).values()).backward()
    generator = torch.Generator().manual_seed(6)
    step = 1e-6
    for _ in range(10):
        way = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in leaves(student)]

        def value(sign, way=way):
            with torch.no_grad():
                moved = [x + sign * step * w for x, w in zip(leaves(student), way, strict=True)]
            out = Output(moved[0], moved[1], tuple(moved[2:]))
            return sum(t.detach() for t in loss(out, teacher, targets()).values())

        slope = (value(1) - value(-1)) / (2 * step)
        expected = sum((x.grad * w).sum() for x, w in zip(leaves(student), way, strict=True)
                       if x.grad is not None)
        torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-7)


def test_nothing_changes_in_eval_mode(loss):
    loss.eval()
    before = copy.deepcopy(loss.state_dict())
    first = loss(output(0), output(1), targets())
    second = loss(output(0), output(1), targets())
    after = loss.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_duplicate_rows_stay_finite(loss):
    same = torch.zeros(B, dtype=torch.int64)
    student = output(0)
    finite(loss(rows(student, same), rows(output(1), same), targets()), student)


def test_one_identity_stays_finite(loss):
    student = output(0)
    finite(loss(student, output(1), targets(labels=torch.zeros(B, dtype=torch.int64))), student)


def test_no_two_rows_of_one_identity_stays_finite():
    for name in sorted(LOSSES):
        loss, student = made(name), output(0)
        four = slice(0, C)  # labels 0, 1, 2, 3
        if name == "DarkRank":  # ranks four neighbours: wants more rows
            loss, four = MAKE[name](), slice(0, B)
        finite(loss(rows(student, four), rows(output(1), four), targets(four)), student)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_student_exactly_on_or_opposite_its_teacher_stays_finite(loss, sign):
    student = output(0)
    teacher = mapped(lambda x: sign * x.detach(), student)
    if hasattr(loss, "centres"):
        loss.centres.copy_(teacher.embedding[:C])
    if isinstance(getattr(loss, "weight", None), nn.Parameter):
        loss.weight.data.copy_(teacher.embedding[:C])
    finite(loss(student, teacher, targets()), student)


def test_zero_embeddings_and_maps_stay_finite(loss):
    student = mapped(lambda x: torch.zeros_like(x).requires_grad_(), output(0))
    finite(loss(student, output(1), targets()), student)


def test_under_autocast_the_loss_is_that_of_float32(loss):
    student, teacher = (mapped(lambda x: x.detach().bfloat16(), output(k)) for k in (0, 1))
    exact = settled(loss)(*(mapped(torch.Tensor.float, x) for x in (student, teacher)), targets())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = loss(student, teacher, targets())
    for name, value in exact.items():
        assert rounded[name].dtype in (torch.float32, torch.float64)
        torch.testing.assert_close(rounded[name], value, rtol=2e-2, atol=2e-2)


def test_state_dict_round_trip(loss):
    name = type(loss).__name__
    loss(output(0), output(1), targets())  # in training mode: state moves
    torch.manual_seed(99)  # another start
    fresh = MAKE[name]()
    fresh.load_state_dict(loss.state_dict())
    one = loss.eval()(output(2), output(3), targets())
    other = fresh.eval()(output(2), output(3), targets())
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_it_needs_and_reports_is_said_plainly(loss):
    assert set(getattr(loss, "needs", ())) <= {"embedding", "logits", "features"}
    loss(output(0), output(1), targets())
    if hasattr(loss, "report"):
        report = loss.report()
        assert report and all(isinstance(value, float) for value in report.values())


def test_what_it_needs_is_what_it_refuses_to_miss(loss):
    if getattr(loss, "needs", None):
        with pytest.raises(ValueError, match="teacher"):
            loss(output(0), None, targets())
    else:
        loss(output(0), None, targets())


def test_batches_of_different_sizes_are_refused(loss):
    fewer = rows(output(0), slice(0, 6))
    with pytest.raises(ValueError):
        loss(fewer, output(1), targets())
    if getattr(loss, "needs", None):
        with pytest.raises(ValueError):
            loss(output(0), rows(output(1), slice(0, 6)), targets())


def test_broken_numbers_are_refused(loss):
    def broken(x):
        x = x.detach().clone()
        x[3].fill_(float("nan"))
        return x

    with pytest.raises(ValueError, match="NaN|finite"):
        loss(mapped(broken, output(0)), output(1), targets())


def test_a_docstring_says_where_it_comes_from(loss):
    text = inspect.getmodule(type(loss)).__doc__
    for part in ("Idea:", "Symbols:", "Choices:", "Differences"):
        assert part in text, part


def test_class_centres_are_saved():
    assert made("AdaDistill").state_dict()["centres"].shape == (C, D)
    assert made("ArcFace").state_dict()["weight"].shape == (C, D)
