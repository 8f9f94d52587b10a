"""The checks about the classic methods, fed right answers and learners' mistakes."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from kdlab.check import classic
from kdlab.check.judge import outcome, same
from kdlab.losses import darkrank, hinton_kd, rkd


def _terms(s, t, T):
    p = softmax(t / T, axis=1)
    return p * (log_softmax(t / T, axis=1) - log_softmax(s / T, axis=1))


def _kd(s, t, T):
    return T * T * _terms(s, t, T).sum() / len(s)


def _matrix(x):
    return np.array([[np.sqrt(((a - b) ** 2).sum()) for b in x] for a in x])


def _scaled(x, mean=None):
    d = _matrix(x)
    return d / (d[~np.eye(len(d), dtype=bool)].mean() if mean is None else mean)


def _huber(x):
    return np.where(abs(x) < 1, x * x / 2, abs(x) - 0.5)


def _rkd(s, t):
    return _huber(_scaled(s) - _scaled(t)).mean()


def _list(scores, order):
    left, total = list(order), 0.0
    for face in order:
        total += scores[face] - np.log(sum(np.exp(scores[k]) for k in left))
        left.remove(face)
    return total


RIGHT = {"kd_loss": _kd, "rkd_distance": _rkd, "list_log_probability": _list}

KD_WRONG = {
    "T² is missing": lambda s, t, T: _terms(s, t, T).sum(1).mean(),
    "not T": lambda s, t, T: T * _terms(s, t, T).sum(1).mean(),
    "classes are averaged": lambda s, t, T: T * T * _terms(s, t, T).mean(),
    "summed over the faces": lambda s, t, T: T * T * _terms(s, t, T).sum(),
    "are exchanged": lambda s, t, T: _kd(t, s, T),
    "are not divided by T": lambda s, t, T: T * T * _kd(s, t, 1),
    "only the weights": lambda s, t, T: T * T * (softmax(t / T, axis=1) * (
        log_softmax(t, axis=1) - log_softmax(s, axis=1))).sum(1).mean(),
    "the cross-entropy": lambda s, t, T: -T * T * (
        softmax(t / T, axis=1) * log_softmax(s / T, axis=1)).sum(1).mean(),
    "the sign": lambda s, t, T: -_kd(s, t, T),
    "the shape is": lambda s, t, T: T * T * _terms(s, t, T).sum(1),
}

RKD_WRONG = {
    "not divided by their mean": lambda s, t: _huber(_matrix(s) - _matrix(t)).mean(),
    "own mean": lambda s, t: _huber(_scaled(s, _matrix(t).sum() / (len(t) * (len(t) - 1)))
                                    - _scaled(t)).mean(),
    "zeros of the diagonal": lambda s, t: _huber(
        _scaled(s, _matrix(s).mean()) - _scaled(t, _matrix(t).mean())).mean(),
    "leaves out the diagonal": lambda s, t: _huber(
        _scaled(s) - _scaled(t))[~np.eye(len(s), dtype=bool)].mean(),
    "squared difference": lambda s, t: ((_scaled(s) - _scaled(t)) ** 2).mean(),
    "turns linear": lambda s, t: ((_scaled(s) - _scaled(t)) ** 2).mean() / 2,
    "absolute difference": lambda s, t: abs(_scaled(s) - _scaled(t)).mean(),
    "summed": lambda s, t: _huber(_scaled(s) - _scaled(t)).sum(),
    "take the root": lambda s, t: _huber(*[np.subtract(*[
        (d := _matrix(x) ** 2) / d[~np.eye(len(d), dtype=bool)].mean() for x in (s, t)])]).mean(),
    "the shape is": lambda s, t: _huber(_scaled(s) - _scaled(t)),
}

LIST_WRONG = {
    "nobody leaves": lambda s, o: log_softmax(s[o]).sum(),
    "outside the list": lambda s, o: sum(log_softmax(
        np.where(np.isin(np.arange(len(s)), o[:i]), -np.inf, s))[o[i]] for i in range(len(o))),
    "other sign": lambda s, o: -_list(s, o),
    "that is the probability": lambda s, o: np.exp(_list(s, o)),
    "a mean over the places": lambda s, o: _list(s, o) / len(o),
    "from its end": lambda s, o: _list(s, o[::-1]),
    "scores were sorted": lambda s, o: _list(-np.sort(-s[o]), range(len(o))),
    "order holds indices": lambda s, o: _list(s, range(len(o))),
    "belongs into the sum": lambda s, o: sum(
        s[o[i]] - np.log(np.exp(s[o[i + 1:]]).sum()) for i in range(len(o) - 1)),
    "it stops with IndexError": lambda s, o: s[len(s)],
}
WRONG = {"kd_loss": KD_WRONG, "rkd_distance": RKD_WRONG, "list_log_probability": LIST_WRONG}


def _untouched(*args):
    raise NotImplementedError("...")


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_answer_is_bound(name, capsys):
    assert getattr(classic, name)(RIGHT[name]) is RIGHT[name]
    assert f"{name}: right. Tested: " in capsys.readouterr().out


@pytest.mark.parametrize("name", RIGHT)
def test_the_reference_is_bound_where_nothing_is_done(name, capsys):
    reference = getattr(classic, name)(_untouched)
    assert "not done yet" in capsys.readouterr().out
    assert getattr(classic, name)(reference) is reference


@pytest.mark.parametrize(("name", "hint"), [(n, h) for n, own in WRONG.items() for h in own])
def test_each_mistake_gets_its_hint(name, hint, capsys):
    bound = getattr(classic, name)(WRONG[name][hint])
    assert bound is not WRONG[name][hint]
    told = capsys.readouterr().out
    assert hint in told.split("Hint: ")[1], told


@pytest.mark.parametrize(("cases", "mistakes", "reference"), [
    (classic._kd_cases, classic._KD_MISTAKES, classic._kd_loss),
    (classic._rkd_cases, classic._RKD_MISTAKES, classic._rkd_distance),
    (classic._list_cases, classic._LIST_MISTAKES, classic._list)])
def test_no_two_mistakes_are_one_and_none_is_right(cases, mistakes, reference):
    answers = [[outcome(fn, args) for _, args in cases()]
               for fn in (reference, *(fn for fn, _ in mistakes))]
    with np.errstate(all="ignore"):
        for i, one in enumerate(answers):
            for other in answers[:i]:
                assert not all(same(a, b) for a, b in zip(one, other, strict=True))


def test_the_references_are_the_library():
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(2, 6, 9))
    S, T = torch.from_numpy(s), torch.from_numpy(t)
    assert classic._kd_loss(s, t, 4.0) == pytest.approx(float(hinton_kd.hinton_kd(S, T, 4)))
    assert classic._rkd_distance(s, t) == pytest.approx(float(rkd.distance_loss(
        rkd.relative_distances(S), rkd.relative_distances(T))))
    order = np.array([3, 0, 5])
    assert classic._list(s[0], order) == pytest.approx(
        float(darkrank.log_probability(S[0][torch.from_numpy(order)])))
