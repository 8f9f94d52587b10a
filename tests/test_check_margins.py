"""The checks about margins, fed right answers and learners' mistakes."""

import math

import numpy as np
import pytest
import torch

from kdlab.check import margins
from kdlab.check.judge import outcome, same
from kdlab.functional import arc_margin
from kdlab.losses.arcface import arcface


def _room(apart, margin, kind):
    """By bisection, so that it owes the reference nothing."""
    def gap(a):
        own = {"softmax": math.cos(a), "cosface": math.cos(a) - margin,
               "arcface": math.cos(a + margin)}[kind]
        return own - math.cos(apart - a)

    low, high = 0.0, apart / 2
    if gap(low) < 0:
        return 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if gap(middle) > 0 else (low, middle)
    return low


def _collapse(classes, scale, margin):
    return -math.log(1 / (1 + (classes - 1) * math.exp(scale * (math.cos(margin) - 1))))


def _factor(cosine, margin, form):
    theta = np.arccos(cosine)
    exact = np.sin(theta + margin) / np.sin(theta)
    plain = form == "straight_through", (form == "guarded") & (theta > np.pi - margin)
    return np.where(plain[0] | plain[1], 1.0, exact)


def _scale(classes, probability):
    return math.log(probability / (1 - probability) * (classes - 1)) * (1 - 1 / classes)


RIGHT = {"half_width": _room, "collapsed_loss": _collapse, "margin_factor": _factor,
         "scale_needed": _scale}


def _free(apart, m, kind):
    if kind == "cosface":
        return apart / 2 - np.arcsin(m / 2 / np.sin(apart / 2))
    return apart / 2 - m / 2 * (kind == "arcface")


def _else(fn, kind, other):
    """`fn` for one kind, what is right for the others."""
    return lambda a, m, k: fn(a, m) if k == kind else other(a, m, k)


ROOM_WRONG = {
    "not a negative number and not NaN": _free,
    "the arcsin gets more than 1": lambda a, m, k: max(_free(a, m, k), 0.0),
    "the margin is taken once": _else(lambda a, m: max(a / 2 - m, 0), "arcface", _room),
    "taken from the cosine": _else(lambda a, m: max(a - m, 0) / 2, "cosface", _room),
    "taken whole": lambda a, m, k: max(a / 2 - m, 0) if k != "softmax" else a / 2,
    "both sides together": lambda a, m, k: 2 * _room(a, m, k),
    "no margin in it": lambda a, m, k: a / 2,
    "not degrees": lambda a, m, k: math.degrees(_room(a, m, k)),
    "the shape is": lambda a, m, k: np.full(2, _room(a, m, k)),
}
COLLAPSE_WRONG = {
    "the own class has a margin": lambda c, s, m: math.log(c),
    "the sign": lambda c, s, m: math.log(1 + (c - 1) * math.exp(s * (1 - math.cos(m)))),
    "C - 1 others": lambda c, s, m: math.log(1 + c * math.exp(-s * (1 - math.cos(m)))),
    "the scale is missing": lambda c, s, m: _collapse(c, 1, m),
    "minus its logarithm": lambda c, s, m: math.exp(-_collapse(c, s, m)),
    "the others' cosine is -1": lambda c, s, m: math.log(
        1 + (c - 1) * math.exp(-s * (math.cos(m) + 1))),
    "not to the logit": lambda c, s, m: math.log(1 + (c - 1) * math.exp(-s * m)),
    "the guarded form": lambda c, s, m: np.log(1 + (c - 1) * np.exp(s * m * np.sin(m))),
}


def _past(c, m):
    return np.arccos(c) > np.pi - m


FACTOR_WRONG = {
    "the sign of the second term": lambda c, m, f: np.where(
        (f == "straight_through") | ((f == "guarded") & _past(c, m)), 1,
        np.sin(np.arccos(c) - m) / np.sin(np.arccos(c))),
    "the form is not looked at": lambda c, m, f: _factor(c, m, "exact"),
    "whose slope is 1": lambda c, m, f: _factor(c, m, f if f != "guarded" else "exact"),
    "on the wrong side": lambda c, m, f: np.where(
        (f == "straight_through") | ((f == "guarded") & ~_past(c, m)), 1, _factor(c, m, "exact")),
    "straight-through in all three": lambda c, m, f: np.ones(len(c)),
    "the slope over the angle": lambda c, m, f: -np.sin(np.arccos(c) + m),
    "upside down": lambda c, m, f: 1 / _factor(c, m, "exact"),
    "the target itself": lambda c, m, f: np.cos(np.arccos(c) + m),
    "its slope is missing": lambda c, m, f: np.full(len(c), math.cos(m)),
}
SCALE_WRONG = {
    "at cosine -1 / (C - 1), not 0": lambda c, p: math.log((c - 1) * p / (1 - p)),
    "the factor is upside down": lambda c, p: math.log((c - 1) * p / (1 - p)) * c / (c - 1),
    "C - 1 other classes, not C": lambda c, p: math.log(c * p / (1 - p)) * (c - 1) / c,
    "C - 1 of them share": lambda c, p: math.log(p / (1 - p)) * (c - 1) / c,
    "against what the others": lambda c, p: math.log((c - 1) * p) * (c - 1) / c,
    "the natural logarithm": lambda c, p: _scale(c, p) / math.log(10),
}
WRONG = {"half_width": ROOM_WRONG, "collapsed_loss": COLLAPSE_WRONG,
         "margin_factor": FACTOR_WRONG, "scale_needed": SCALE_WRONG}


def test_every_exercise_is_tested():
    own = {name for name, thing in vars(margins).items()
           if not name.startswith("_") and getattr(thing, "__module__", "") == margins.__name__}
    assert own == set(RIGHT) == set(WRONG)


@pytest.mark.parametrize("exercise", RIGHT)
def test_a_right_answer_is_returned_itself(exercise, capsys):
    assert getattr(margins, exercise)(RIGHT[exercise]) is RIGHT[exercise]
    assert f"{exercise}: right. Tested: " in capsys.readouterr().out


def _raises(*_):
    raise NotImplementedError


@pytest.mark.parametrize("empty", [_raises, lambda *_: None, lambda *_: ..., ..., None])
@pytest.mark.parametrize("exercise", RIGHT)
def test_an_untouched_cell_binds_the_reference(exercise, empty, capsys):
    assert getattr(margins, exercise)(empty) is getattr(margins, f"_{exercise}")
    assert "not done yet" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # some mistakes leave the arcsin's domain
@pytest.mark.parametrize("exercise, hint, wrong", [
    (exercise, hint, wrong) for exercise in WRONG for hint, wrong in WRONG[exercise].items()
])
def test_a_wrong_answer_gets_its_own_hint_and_the_reference(exercise, hint, wrong, capsys):
    assert getattr(margins, exercise)(wrong) is getattr(margins, f"_{exercise}")
    said = capsys.readouterr().out
    assert hint in said.partition("Hint: ")[2] and "expected: " in said


@pytest.mark.parametrize("exercise", RIGHT)
def test_no_two_mistakes_look_alike(exercise, monkeypatch):
    """Otherwise the second hint could never be given."""
    seen = []
    monkeypatch.setattr(margins, "judge", lambda *args: seen.append(args))
    getattr(margins, exercise)(None)
    cases, mistakes = seen[0][3], seen[0][4]
    with np.errstate(all="ignore"):
        answers = [[outcome(fn, args) for _, args in cases] for fn, _ in mistakes]
    answers.append([outcome(getattr(margins, f"_{exercise}"), args) for _, args in cases])
    for k, one in enumerate(answers):
        for other in answers[:k]:
            assert not all(same(x, y) for x, y in zip(one, other, strict=True))


def test_the_room_ends_at_the_papers_limits():
    """CosFace eq. (7) for two dimensions: m <= 1 - cos(2 pi / C); ArcFace: the gap itself."""
    for classes in (3, 8, 20):
        apart = 2 * np.pi / classes
        for kind, limit in (("cosface", 1 - np.cos(apart)), ("arcface", apart)):
            assert margins._half_width(apart, 0.999 * limit, kind) > 0
            assert margins._half_width(apart, 1.001 * limit, kind) == 0


def test_the_collapse_is_the_librarys_loss():
    centres = torch.tensor([[0.0, 1.0]], dtype=torch.float64).repeat(8, 1)
    loss = arcface(-centres, centres, torch.arange(8), 16, 1.0)
    assert margins._collapsed_loss(8, 16.0, 1.0) == pytest.approx(float(loss), rel=1e-9)


def test_the_factor_is_the_librarys_slope():
    cosine = torch.linspace(-0.95, 0.99, 30, dtype=torch.float64, requires_grad=True)
    arc_margin(cosine, 0.5).sum().backward()
    own = margins._margin_factor(cosine.detach().numpy(), 0.5, "exact")
    np.testing.assert_allclose(own, cosine.grad, rtol=1e-9)


def test_the_scale_reaches_its_probability():
    """At the corners of a simplex, whose cosines are -1 / (C - 1)."""
    for classes, wanted in ((2, 0.9), (8, 0.99), (1000, 0.5)):
        s = margins._scale_needed(classes, wanted)
        own, other = math.exp(s), math.exp(-s / (classes - 1))
        assert own / (own + (classes - 1) * other) == pytest.approx(wanted)
