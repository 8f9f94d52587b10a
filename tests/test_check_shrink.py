"""The checks about ShrinkTeaNet's exercises, fed right answers and learners' mistakes."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from kdlab.check import shrink
from kdlab.check.judge import outcome, same
from kdlab.losses import shrinkteanet


def _rows(fn):
    return lambda s, t: np.array([fn(a, b) for a, b in zip(s, t, strict=True)])


def _parts(a, b):
    length = (np.linalg.norm(a) - np.linalg.norm(b)) ** 2
    return [length, ((a - b) ** 2).sum() - length]


def _pull(x, squared):
    return 2 * np.sin(x) - np.sin(2 * x) if squared else np.cos(np.pi / 2 - x)


def _lift(features, weight):
    return np.array([sum(w * channel for w, channel in zip(row, features, strict=True))
                     for row in weight])


def _weights(n, last):
    found = [last]
    while len(found) < n:
        found.insert(0, found[0] / 2)
    return found


RIGHT = {"angular_loss": lambda s, t: _rows(cosine)(s, t).mean(), "split_distance": _rows(_parts),
         "angle_pull": _pull, "lift_map": _lift, "halved_weights": _weights}

_norm = np.linalg.norm
WRONG = {
    "angular_loss": {
        "the dot product of rows": lambda s, t: 1 - (s * t).sum() / len(s),
        "the teacher's rows keep": lambda s, t: _rows(
            lambda a, b: 1 - a @ b / _norm(a))(s, t).mean(),
        "is the similarity": lambda s, t: 1 - _rows(cosine)(s, t).mean(),
        "as equation (4) prints": lambda s, t: (_rows(cosine)(s, t) ** 2).mean(),
        "summed over the batch": lambda s, t: _rows(cosine)(s, t).sum(),
        "one length for the whole": lambda s, t: cosine(s.ravel(), t.ravel()),
        "element by element": lambda s, t: _rows(
            lambda a, b: ((1 - a / _norm(a) * b / _norm(b)) ** 2).sum())(s, t).mean(),
        "twice too much": lambda s, t: 2 * _rows(cosine)(s, t).mean(),
        "one number a row": _rows(cosine),
    },
    "split_distance": {
        "factor 2 of the direction's": _rows(
            lambda a, b: [_parts(a, b)[0], _parts(a, b)[1] / 2]),
        "on the unit sphere": _rows(lambda a, b: [_parts(a, b)[0], 2 * cosine(a, b)]),
        "no unit of length": _rows(lambda a, b: [_parts(a, b)[0], cosine(a, b)]),
        "enters squared": _rows(lambda a, b: [abs(_norm(a) - _norm(b)), _parts(a, b)[1]]),
        "not the lengths one by one": _rows(lambda a, b: [a @ a - b @ b, _parts(a, b)[1]]),
        "columns are exchanged": _rows(lambda a, b: _parts(a, b)[::-1]),
        "large where the directions agree": _rows(
            lambda a, b: [_parts(a, b)[0], 2 * a @ b]),
        "(B, 2)": lambda s, t: _rows(_parts)(s, t).T,
        "keep the batch": lambda s, t: _rows(_parts)(s, t).mean(0),
    },
    "angle_pull": {
        "squared is not looked at": lambda x, squared: _pull(x, False),
        "it is squared always": lambda x, squared: _pull(x, True),
        "the sign": lambda x, squared: -_pull(x, squared),
        "2 of the chain rule": lambda x, squared: _pull(x, squared) / (2 if squared else 1),
        "inner derivative": lambda x, squared: 2 - 2 * np.cos(x) if squared else np.sin(x),
        "the loss itself": lambda x, squared: (1 - np.cos(x)) ** (1 + squared),
        "square of the slope": lambda x, squared: np.sin(x) ** (1 + squared),
        "1 is a constant": lambda x, squared: _pull(x, True) if squared else 1 - np.sin(x),
    },
    "lift_map": {
        "by columns": lambda f, w: np.tensordot(w.reshape(w.shape[::-1]).T, f, 1),
        "which are pixels": lambda f, w: np.matmul(w, f),
        "number of channels": lambda f, w: np.mean([
            np.multiply.outer(w[:, c], f[c]) for c in range(len(f))], 0),
        "in one row": lambda f, w: w @ f.reshape(len(f), -1),
        "in the wrong order": lambda f, w: (
            w @ f.reshape(-1, len(f)).T).reshape(-1, *f.shape[1:]),
        "over the channels is missing": lambda f, w: w[:, :, None, None] * f,
        "channels come first": lambda f, w: np.moveaxis(_lift(f, w), 0, 2),
        "no activation": lambda f, w: _lift(f, w).clip(0),
    },
    "halved_weights": {
        "upside down": lambda n, last: _weights(n, last)[::-1],
        "one halving too many": lambda n, last: _weights(n, last / 2),
        "must come out as the lambda_n": lambda n, last: [last * 2**i for i in range(n)],
        "equal steps": lambda n, last: np.linspace(last / n, last, n),
        "all alike": lambda n, last: [last] * n,
        "not looked at": lambda n, last: _weights(n, 1),
    },
}


def _reference(exercise):
    return getattr(shrink, f"_{exercise}")


def test_every_exercise_is_tested():
    own = {name for name, thing in vars(shrink).items() if not name.startswith("_")
           and getattr(thing, "__module__", "") == shrink.__name__}
    assert own == set(RIGHT) == set(WRONG)


@pytest.mark.parametrize("exercise", RIGHT)
def test_a_right_answer_is_returned_itself(exercise, capsys):
    assert getattr(shrink, exercise)(RIGHT[exercise]) is RIGHT[exercise]
    assert f"{exercise}: right. Tested: " in capsys.readouterr().out


def _raises(*_):
    raise NotImplementedError


@pytest.mark.parametrize("empty", [_raises, lambda *_: None, ..., None])
@pytest.mark.parametrize("exercise", RIGHT)
def test_an_untouched_cell_binds_the_reference(exercise, empty, capsys):
    assert getattr(shrink, exercise)(empty) is _reference(exercise)
    assert "not done yet" in capsys.readouterr().out


@pytest.mark.parametrize("exercise, hint, wrong", [
    (exercise, hint, wrong) for exercise in WRONG for hint, wrong in WRONG[exercise].items()])
def test_a_wrong_answer_gets_its_own_hint_and_the_reference(exercise, hint, wrong, capsys):
    assert getattr(shrink, exercise)(wrong) is _reference(exercise)
    said = capsys.readouterr().out
    assert hint in said.partition("Hint: ")[2] and "expected: " in said


@pytest.mark.parametrize("exercise", RIGHT)
def test_no_two_mistakes_look_alike(exercise, monkeypatch):
    """Otherwise the second hint could never be given."""
    seen = []
    monkeypatch.setattr(shrink, "judge", lambda *args: seen.append(args))
    getattr(shrink, exercise)(None)
    cases, mistakes = seen[0][3:5]
    answers = [[outcome(fn, args) for _, args in cases]
               for fn in [*(fn for fn, _ in mistakes), _reference(exercise)]]
    for k, one in enumerate(answers):
        for other in answers[:k]:
            assert not all(same(x, y) for x, y in zip(one, other, strict=True))


def test_the_references_are_the_librarys():
    rng = np.random.default_rng(3)
    s, t = (torch.from_numpy(rng.normal(size=(6, 5))) for _ in range(2))
    assert shrink._angular_loss(s.numpy(), t.numpy()) == pytest.approx(
        float(shrinkteanet.angular(s, t)), rel=1e-9)
    parts = shrink._split_distance(s.numpy(), t.numpy())
    np.testing.assert_allclose(parts.sum(1), (s - t).square().sum(1))
    assert shrink._halved_weights(4, 0.001) == shrinkteanet.stage_weights(4, 0.001)
    conv = shrinkteanet.lifts([3], [4])[0][0].double()
    features = torch.from_numpy(rng.normal(size=(2, 3, 4, 5)))
    for own, made in zip(features, conv(features), strict=True):
        weight = conv.weight.detach().numpy()[:, :, 0, 0]
        np.testing.assert_allclose(shrink._lift_map(own.numpy(), weight), made.detach())


@pytest.mark.parametrize("squared", [False, True])
def test_the_pull_is_what_autograd_finds(squared):
    theta = torch.linspace(0.1, 3, 7, dtype=torch.float64, requires_grad=True)
    student = torch.stack([theta.cos(), theta.sin()], 1)
    teacher = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(7, 2)
    (7 * shrinkteanet.angular(student, teacher, squared)).backward()
    np.testing.assert_allclose(shrink._angle_pull(theta.detach().numpy(), squared), theta.grad)
