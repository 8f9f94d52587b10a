"""What every loss promises, over all of LOSSES. A new loss adds one line to MAKE."""

import copy

import pytest
import torch

from kdlab.losses import LOSSES
from kdlab.outputs import Output, Targets

B, D, C = 12, 8, 4  # rows, embedding size, classes
MAKE = {  # name -> the loss for the outputs below
    "ArcFace": lambda: LOSSES["ArcFace"](D, C),
    "AdaDistill": lambda: LOSSES["AdaDistill"](D, C),
    "FeatureOnly": lambda: LOSSES["FeatureOnly"](),
    "ReverseDistillation": lambda: LOSSES["ReverseDistillation"](),
}


def output(seed: int) -> Output:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, requires_grad=True)

    return Output(draw(B, D), draw(B, C), (draw(B, 16, 4, 4), draw(B, 32, 2, 2)))


def leaves(out: Output):
    return [out.embedding, out.logits, *out.features]


def rows(out: Output, order) -> Output:
    return Output(out.embedding[order], out.logits[order], tuple(f[order] for f in out.features))


def targets(order=slice(None)) -> Targets:
    labels = torch.arange(B) % C
    return Targets(labels[order], groups=(torch.arange(B) % 2)[order])


@pytest.fixture(params=sorted(LOSSES))
def loss(request):
    assert request.param in MAKE, f"add {request.param} to MAKE"
    torch.manual_seed(0)
    return MAKE[request.param]()


def test_named_finite_scalars(loss):
    for mode in (True, False):
        terms = loss.train(mode)(output(0), output(1), targets())
        assert terms and all(isinstance(name, str) for name in terms)
        assert all(t.shape == () and t.isfinite() for t in terms.values())


def test_the_student_learns_and_the_teacher_does_not(loss):
    student, teacher = output(0), output(1)
    sum(loss(student, teacher, targets()).values()).backward()
    assert any(x.grad is not None and x.grad.any() for x in leaves(student))
    assert all(x.grad is None or x.grad.isfinite().all() for x in leaves(student))
    assert all(x.grad is None for x in leaves(teacher))


def test_the_order_of_the_batch_is_free(loss):
    loss.eval()
    order = torch.randperm(B, generator=torch.Generator().manual_seed(5))
    one = loss(output(0), output(1), targets())
    other = loss(rows(output(0), order), rows(output(1), order), targets(order))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)


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
    student, teacher = output(0), output(1)
    terms = loss(rows(student, same), rows(teacher, same), targets())
    sum(terms.values()).backward()
    assert all(t.isfinite() for t in terms.values())
    assert all(x.grad is None or x.grad.isfinite().all() for x in leaves(student))


def test_state_dict_round_trip(loss):
    loss(output(0), output(1), targets())  # in training mode: state moves
    torch.manual_seed(99)  # another start
    fresh = MAKE[type(loss).__name__]()
    fresh.load_state_dict(loss.state_dict())
    one = loss.eval()(output(2), output(3), targets())
    other = fresh.eval()(output(2), output(3), targets())
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_it_needs_and_reports_is_said_plainly(loss):
    assert set(getattr(loss, "needs", ())) <= {"embedding", "logits", "features"}
    loss(output(0), output(1), targets())
    if hasattr(loss, "report"):
        report = loss.report()
        assert report and all(isinstance(value, float) for value in report.values())


def test_class_centres_are_saved():
    assert MAKE["AdaDistill"]().state_dict()["centres"].shape == (C, D)
    assert MAKE["ArcFace"]().state_dict()["weight"].shape == (C, D)
