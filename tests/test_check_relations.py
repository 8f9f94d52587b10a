"""The checks about EKD's thresholds and relations, fed right answers and learners' mistakes."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit

from kdlab.check import relations, thresholds
from kdlab.check.judge import outcome, same
from kdlab.losses import ekd


def _threshold(impostor, fpr):
    return sorted(impostor, reverse=True)[math.floor(len(impostor) * fpr)]


def _ema(estimates, momentum, debias):
    n = len(estimates)
    weights = (1 - momentum) * momentum ** np.arange(n)[::-1]
    return (weights * estimates).sum() / (weights.sum() if debias else 1)


def _critical(student, teacher, ts, tt):
    return np.array([[(s > a) ^ (t > b) for a, b in zip(ts, tt, strict=True)]
                     for s, t in zip(student, teacher, strict=True)])


def _slope(x, tau):
    return expit(x / tau) * expit(-x / tau) / tau


def _passed(s, thresholds, tau):
    return sum(expit((s - t) / tau) for t in thresholds)


def _loss(student, teacher, ts, tt, tau):
    return np.mean([abs(_passed(t, tt, tau) - _passed(s, ts, tau))
                    for s, t in zip(student, teacher, strict=True)])


RIGHT = {"batch_threshold": _threshold, "ema_after": _ema, "critical": _critical,
         "indicator_slope": _slope, "rank_loss": _loss}

THRESHOLD_WRONG = {
    "do not subtract 1": lambda i, f: sorted(i)[::-1][max(math.floor(len(i) * f) - 1, 0)],
    "[-0] is the lowest": lambda i, f: sorted(i)[-math.floor(len(i) * f)],
    "one rank too late": lambda i, f: sorted(i)[-math.floor(len(i) * f) - 2],
    "the sort is ascending": lambda i, f: sorted(i)[math.floor(len(i) * f)],
    "not sorted yet": lambda i, f: i[math.floor(len(i) * f)],
    "not up": lambda i, f: sorted(i)[::-1][math.ceil(len(i) * f)],
    "np.quantile interpolates": lambda i, f: np.percentile(i, 100 - 100 * f),
    "threshold_from_impostors": lambda i, f: np.nextafter(_threshold(i, f), 2),
    "not of the kind": lambda i, f: np.sort(i)[::-1],
}


def _running(estimates, momentum, debias, start=None, feed=False):
    t = 0 if start is None else estimates[start]
    for n, e in enumerate(estimates[0 if start is None else start + 1:], 1):
        t = momentum * t + (1 - momentum) * e
        t = t / (1 - momentum**n) if feed and debias else t
    return t / (1 - momentum ** len(estimates)) if debias and not feed else t


EMA_WRONG = {
    "is the other one": lambda e, m, d: _ema(e, 1 - m, d),
    "you start at the first": lambda e, m, d: _running(e, m, d, start=0),
    "is not looked at": lambda e, m, d: _ema(e, m, False),
    "it is corrected always": lambda e, m, d: _ema(e, m, True),
    "divided by 1 - momentum;": lambda e, m, d: _ema(e, m, False) / (1 - m if d else 1),
    "the weight still on": lambda e, m, d: _ema(e, m, False) / (m ** len(e) if d else 1),
    "so divide": lambda e, m, d: _ema(e, m, False) * (1 - m ** len(e) if d else 1),
    "the first step divides by 0": lambda e, m, d: _ema(e, m, False) / (
        np.float64(1 - m ** (len(e) - 1)) if d else 1),
    "goes back into": lambda e, m, d: _running(e, m, d, feed=True),
    "go through them in order": lambda e, m, d: _ema(e[::-1], m, d),
    "the plain mean": lambda e, m, d: sum(e) / len(e),
    "so the first step divides by 0": lambda e, m, d: float(_ema(e, m, False)) / (
        1 - m ** (len(e) - 1) if d else 1),
    "it stops with IndexError": lambda e, m, d: e[len(e)],
}

CRITICAL_WRONG = {
    ">, not >=": lambda s, t, ts, tt: np.greater_equal.outer(s, ts) ^ np.greater_equal.outer(t, tt),
    "agree on": lambda s, t, ts, tt: ~_critical(s, t, ts, tt),
    "the teacher is judged": lambda s, t, ts, tt: _critical(s, t, ts, ts),
    "the student is judged": lambda s, t, ts, tt: _critical(s, t, tt, tt),
    "are exchanged": lambda s, t, ts, tt: _critical(s, t, tt, ts),
    "rows and columns": lambda s, t, ts, tt: _critical(s, t, ts, tt).T,
    "take any(1) later": lambda s, t, ts, tt: _critical(s, t, ts, tt).max(1),
    "meets threshold n only": lambda s, t, ts, tt: (s > ts) ^ (t > tt),
    "the teacher alone accepts;": lambda s, t, ts, tt: (
        np.greater.outer(t, tt) > np.greater.outer(s, ts)),
    "the shape is": lambda s, t, ts, tt: _critical(s, t, ts, tt).sum(),
}

SLOPE_WRONG = {
    "chain rule is missing": lambda x, tau: tau * _slope(x, tau),
    "not tau: the smaller": lambda x, tau: tau * tau * _slope(x, tau),
    "that is G itself": lambda x, tau: expit(x / tau),
    "stands x / tau, not x": lambda x, tau: _slope(x, 1) / tau,
    "there is no tau": lambda x, tau: _slope(x, 1),
    "the sign": lambda x, tau: -_slope(x, tau),
    "slope of the hard step": lambda x, tau: np.zeros_like(x),
    "inf / inf is NaN": lambda x, tau: np.exp(-x / tau) / (1 + np.exp(-x / tau)) ** 2 / tau,
}


def _each(s, t, ts, tt, tau):
    return expit((t[:, None] - tt) / tau) - expit((s[:, None] - ts) / tau)


LOSS_WRONG = {
    "the released code": lambda *a: (_each(*a).sum(1) ** 2).mean(),
    "the step is hard": lambda s, t, ts, tt, tau: np.mean(np.abs(
        [sum(x > tt) - sum(y > ts) for x, y in zip(t, s, strict=True)])),
    "a mean over the thresholds": lambda *a: abs(_each(*a).mean(1)).mean(),
    "summed over the pairs": lambda *a: len(a[0]) * _loss(*a),
    "for each threshold": lambda *a: abs(_each(*a)).sum() / len(a[0]),
    "axis 0 are the pairs": lambda *a: abs(_each(*a).sum(0)).mean(),
    "cancel out": lambda *a: abs(_each(*a).sum(1).mean()),
    "absolute value is missing": lambda *a: _each(*a).sum(1).mean(),
    "one norm over all pairs": lambda *a: np.sqrt((_each(*a).sum(1) ** 2).sum()) / len(a[0]),
    "that is eq. (7)": lambda s, t, ts, tt, tau: abs(
        np.subtract.outer(t, tt) - np.subtract.outer(s, ts)).sum(1).mean(),
    "the teacher is judged": lambda s, t, ts, tt, tau: _loss(s, t, ts, ts, tau),
    "the student is judged": lambda s, t, ts, tt, tau: _loss(s, t, tt, tt, tau),
    "stands x / tau, not x": lambda s, t, ts, tt, tau: _loss(s, t, ts, tt, 1),
    "the shape is": lambda *a: abs(_each(*a).sum(1)),
}

MODULE = {"batch_threshold": thresholds, "ema_after": thresholds, "critical": relations,
          "indicator_slope": relations, "rank_loss": relations}
WRONG = {"batch_threshold": THRESHOLD_WRONG, "ema_after": EMA_WRONG, "critical": CRITICAL_WRONG,
         "indicator_slope": SLOPE_WRONG, "rank_loss": LOSS_WRONG}


def _reference(exercise):
    return getattr(MODULE[exercise], f"_{exercise}")


def test_every_exercise_is_tested():
    own = {name for module in (relations, thresholds) for name, thing in vars(module).items()
           if not name.startswith("_") and getattr(thing, "__module__", "") == module.__name__}
    assert own == set(RIGHT) == set(WRONG)


@pytest.mark.parametrize("exercise", RIGHT)
def test_a_right_answer_is_returned_itself(exercise, capsys):
    assert getattr(MODULE[exercise], exercise)(RIGHT[exercise]) is RIGHT[exercise]
    assert f"{exercise}: right. Tested: " in capsys.readouterr().out


def _raises(*_):
    raise NotImplementedError


@pytest.mark.parametrize("empty", [_raises, lambda *_: None, lambda *_: ..., ..., None])
@pytest.mark.parametrize("exercise", RIGHT)
def test_an_untouched_cell_binds_the_reference(exercise, empty, capsys):
    assert getattr(MODULE[exercise], exercise)(empty) is _reference(exercise)
    assert "not done yet" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # some mistakes overflow or divide by 0
@pytest.mark.parametrize("exercise, hint, wrong", [
    (exercise, hint, wrong) for exercise in WRONG for hint, wrong in WRONG[exercise].items()
])
def test_a_wrong_answer_gets_its_own_hint_and_the_reference(exercise, hint, wrong, capsys):
    assert getattr(MODULE[exercise], exercise)(wrong) is _reference(exercise)
    said = capsys.readouterr().out
    assert hint in said.partition("Hint: ")[2] and "expected: " in said


@pytest.mark.parametrize("exercise", RIGHT)
def test_no_two_mistakes_look_alike(exercise, monkeypatch):
    """Otherwise the second hint could never be given."""
    seen = []
    monkeypatch.setattr(MODULE[exercise], "judge", lambda *args: seen.append(args))
    getattr(MODULE[exercise], exercise)(None)
    cases, mistakes, compare = seen[0][3], seen[0][4], [*seen[0][5:], ("", None)][0][1]
    with np.errstate(all="ignore"):
        answers = [[outcome(fn, args, compare) for _, args in cases] for fn, _ in mistakes]
    answers.append([outcome(_reference(exercise), args, compare) for _, args in cases])
    for k, one in enumerate(answers):
        for other in answers[:k]:
            assert not all(same(x, y) for x, y in zip(one, other, strict=True))


def test_the_references_are_the_librarys():
    rng = np.random.default_rng(3)
    s, t, ts, tt = (torch.from_numpy(rng.normal(0.3, 0.2, n)) for n in (40, 40, 4, 4))
    own = [x.numpy() for x in (s, t, ts, tt)]
    assert (relations._critical(*own) == ekd.critical(s, t, ts, tt).numpy()).all()
    assert relations._rank_loss(*own, 0.02) == pytest.approx(
        float(ekd.rank_loss(s, t, ts, tt, 0.02, norm="l1")), rel=1e-9)
    x = s.clone().requires_grad_()
    ekd.soft_indicator(x, 0.05).sum().backward()
    np.testing.assert_allclose(relations._indicator_slope(own[0], 0.05), x.grad, rtol=1e-9)
    running = torch.zeros(1, dtype=torch.float64)
    for estimate in own[0]:
        running = ekd.moving_average(running, torch.tensor([estimate]))
    assert thresholds._ema_after(own[0], 0.99, False) == pytest.approx(float(running))


@pytest.mark.parametrize("total, fpr", [(100, 0.29), (2016, 1e-3), (1000, 1e-3), (57, 1e-6)])
def test_the_threshold_has_the_librarys_rank(total, fpr):
    values = np.random.default_rng(4).normal(size=total)
    ranked = torch.from_numpy(np.sort(values)[::-1].copy())
    assert thresholds._batch_threshold(values, fpr) == ekd.fpr_thresholds(ranked, total, [fpr])[0]


def test_the_running_threshold_is_half_way_after_69_steps():
    """1 - 0.99^69 = 0.5002; the corrected one is there at once."""
    assert thresholds._ema_after(np.full(69, 0.4), 0.99, False) == pytest.approx(0.2, rel=1e-3)
    assert thresholds._ema_after(np.full(1, 0.4), 0.99, True) == pytest.approx(0.4)
