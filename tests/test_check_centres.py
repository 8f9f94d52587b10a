"""The checks about AdaDistill's centres, fed right answers and learners' mistakes."""

import numpy as np
import pytest
import torch

from kdlab.check import centres
from kdlab.check.judge import outcome, same
from kdlab.losses import adadistill


def _cos(a, b):
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


def _moved(centre, teacher, alpha):
    length = sum(x * x for x in teacher) ** 0.5
    return [alpha * w + (1 - alpha) * t / length for w, t in zip(centre, teacher, strict=True)]


def _momentum(student, teacher, centre):
    near = min(max(_cos(centre, teacher), 1e-6), 1)
    return min(max(near * _cos(student, teacher), 1e-6), 1)


def _weights(momentum, visits):
    found = [1.0]
    for _ in range(visits - 1):
        found = [momentum * w for w in found] + [1 - momentum]
    return found


def _batch(centres_, teacher, labels, momenta):
    new = np.array(centres_)
    kept = {label: row for row, label in enumerate(labels)}
    for label, row in kept.items():
        new[label] = momenta[row] * centres_[label] + (1 - momenta[row]) * teacher[row]
    return new


RIGHT = {"moved_centre": _moved, "centre_momentum": _momentum, "sample_weights": _weights,
         "batch_centres": _batch}


def _norm(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _last_in_first_out(c, t, y, a):
    return _batch(c, t[::-1], y[::-1], a[::-1])


def _in_place(c, t, y, a):
    for k, label in enumerate(y):
        c[label] = a[k] * c[label] + (1 - a[k]) * t[k]
    return c


WRONG = {
    "moved_centre": {
        "weights are exchanged: alpha": lambda w, t, a: (1 - a) * w + a * _norm(t),
        "a long one would move": lambda w, t, a: a * w + (1 - a) * t,
        "exchanged, and the teacher's": lambda w, t, a: (1 - a) * w + a * t,
        "ends with the sum, and so": lambda w, t, a: _norm(a * w + (1 - a) * _norm(t)),
        "that earlier blends left": lambda w, t, a: a * _norm(w) + (1 - a) * _norm(t),
        "does neither": lambda w, t, a: _norm(a * _norm(w) + (1 - a) * _norm(t)),
        "wants the weight 1 - alpha": lambda w, t, a: a * w + _norm(t),
        "wants the weight alpha": lambda w, t, a: w + (1 - a) * _norm(t),
        "the shape is": lambda w, t, a: float(a),
    },
    "centre_momentum": {
        "that is alpha, equation": lambda s, t, w: max(_cos(s, t), 1e-6),
        "centre's cosine alone": lambda s, t, w: max(_cos(w, t), 1e-6),
        "two negative cosines": lambda s, t, w: max(_cos(s, t) * _cos(w, t), 1e-6),
        "that is the paper's form": lambda s, t, w: max(_cos(s, t) * _cos(w, t), 0),
        "1e-6, not 0": lambda s, t, w: max(_cos(s, t) * max(_cos(w, t), 0), 0),
        "nothing is clipped": lambda s, t, w: _cos(s, t) * _cos(w, t),
        "compared with the student": lambda s, t, w: max(
            _cos(s, t) * max(_cos(w, s), 1e-6), 1e-6),
        "these are dot products": lambda s, t, w: np.clip(
            (s @ t) * np.clip(w @ t, 1e-6, 1), 1e-6, 1),
        "teacher's share": lambda s, t, w: 1 - _momentum(s, t, w),
    },
    "sample_weights": {
        "do not add up to 1": lambda a, n: (1 - a) * a ** np.arange(n - 1, -1, -1.0),
        "by dividing": lambda a, n: a ** np.arange(n - 1, -1, -1.0) / sum(
            a ** np.arange(n - 1, -1, -1.0)),
        "other way round": lambda a, n: _weights(a, n)[::-1],
        "comes first, and it": lambda a, n: (1 - a) * a ** np.arange(0.0, n),
        "weights are exchanged": lambda a, n: _weights(1 - a, n),
        "plain mean": lambda a, n: [1 / n] * n,
        "comes in with": lambda a, n: a ** np.arange(n - 1, -1, -1.0),
    },
    "batch_centres": {
        'repeated="sequential"': _in_place,
        "the first row stays": _last_in_first_out,
        "rows of one label are averaged": lambda c, t, y, a: np.array([
            np.mean([a[k] * c[j] + (1 - a[k]) * t[k] for k in np.flatnonzero(y == j)], 0)
            if j in y else c[j] for j in range(len(c))]),
        "weights are exchanged": lambda c, t, y, a: _batch(c, t, y, 1 - a),
        "one row a face": lambda c, t, y, a: a[:, None] * c[y] + (1 - a)[:, None] * t,
        "not divided by their lengths": lambda c, t, y, a: _norm(_batch(c, t, y, a)),
    },
}


def _reference(exercise):
    return getattr(centres, f"_{exercise}")


def test_every_exercise_is_tested():
    own = {name for name, thing in vars(centres).items()
           if not name.startswith("_") and getattr(thing, "__module__", "") == centres.__name__}
    assert own == set(RIGHT) == set(WRONG)


@pytest.mark.parametrize("exercise", RIGHT)
def test_a_right_answer_is_returned_itself(exercise, capsys):
    assert getattr(centres, exercise)(RIGHT[exercise]) is RIGHT[exercise]
    assert f"{exercise}: right. Tested: " in capsys.readouterr().out


def _raises(*_):
    raise NotImplementedError


@pytest.mark.parametrize("empty", [_raises, lambda *_: None, ..., None])
@pytest.mark.parametrize("exercise", RIGHT)
def test_an_untouched_cell_binds_the_reference(exercise, empty, capsys):
    assert getattr(centres, exercise)(empty) is _reference(exercise)
    assert "not done yet" in capsys.readouterr().out


@pytest.mark.parametrize("exercise, hint, wrong", [
    (exercise, hint, wrong) for exercise in WRONG for hint, wrong in WRONG[exercise].items()
])
def test_a_wrong_answer_gets_its_own_hint_and_the_reference(exercise, hint, wrong, capsys):
    assert getattr(centres, exercise)(wrong) is _reference(exercise)
    said = capsys.readouterr().out
    assert hint in said.partition("Hint: ")[2] and "expected: " in said


@pytest.mark.parametrize("exercise", RIGHT)
def test_no_two_mistakes_look_alike(exercise, monkeypatch):
    """Otherwise the second hint could never be given."""
    seen = []
    monkeypatch.setattr(centres, "judge", lambda *args: seen.append(args))
    getattr(centres, exercise)(None)
    cases, mistakes = seen[0][3:5]
    answers = [[outcome(fn, args) for _, args in cases] for fn, _ in mistakes]
    answers.append([outcome(_reference(exercise), args) for _, args in cases])
    for k, one in enumerate(answers):
        for other in answers[:k]:
            assert not all(same(x, y) for x, y in zip(one, other, strict=True))


def test_the_references_are_the_librarys():
    rng = np.random.default_rng(3)
    s, t, w = rng.normal(size=(3, 20, 4))
    found = adadistill.alpha_prime(*map(torch.from_numpy, (s, t, w)))
    own = [centres._centre_momentum(*rows) for rows in zip(s, t, w, strict=True)]
    np.testing.assert_allclose(found, own, rtol=1e-9)
    unit = t / np.linalg.norm(t, axis=1, keepdims=True)
    moved = adadistill.blend(*map(torch.from_numpy, (w, unit)), found)
    own = [centres._moved_centre(*rows) for rows in zip(w, t, found.numpy(), strict=True)]
    np.testing.assert_allclose(moved, own)


def test_the_last_row_stays_as_in_the_library():
    rng = np.random.default_rng(4)
    labels = np.array([0, 2, 0, 1, 0])
    student, teacher = rng.normal(size=(2, 5, 6))
    loss = adadistill.AdaDistill(6, 4).double()
    before = loss.centres.numpy().copy()
    unit = teacher / np.linalg.norm(teacher, axis=1, keepdims=True)
    momenta = np.array([centres._centre_momentum(s, t, before[y])
                        for s, t, y in zip(student, teacher, labels, strict=True)])
    loss.update(*map(torch.from_numpy, (student, teacher, labels)))
    np.testing.assert_allclose(loss.centres, centres._batch_centres(before, unit, labels, momenta),
                               atol=1e-12)
