"""The checks about embedding geometry, fed right answers and learners' mistakes."""

import numpy as np
import pytest
from scipy import linalg, spatial

from kdlab import geometry as library
from kdlab.check import geometry
from kdlab.check.judge import outcome, same


def _square(x):
    return spatial.distance.squareform(spatial.distance.pdist(x))


def _near(x, k, first=1):
    return np.argsort(_square(x), 1, kind="stable")[:, first : first + k]


def _kept(x, y, k, first=1, more=0, share=len):
    rows = zip(_near(x, k + more, first), _near(y, k + more, first), strict=True)
    return np.array([share(set(a) & set(b)) / k for a, b in rows])


def _svd(a, b):
    return np.linalg.svd(np.einsum("ni,nj->ij", b, a))


def _spread(x, t, of=lambda d: d**2):
    return np.log(np.mean(np.exp(-t * of(spatial.distance.pdist(x)))))


RIGHT = {
    "kept_neighbours": _kept,
    "best_rotation": lambda a, b: linalg.orthogonal_procrustes(b, a)[0],
    "even_spread": _spread,
}

KEPT_WRONG = {
    "its own nearest": lambda x, y, k: _kept(x, y, k, 0),
    "counts as a neighbour": lambda x, y, k: _kept(x, y, k, 0, 1),
    "divide by k": lambda x, y, k: k * _kept(x, y, k),
    "divided by the number of points": lambda x, y, k: k * _kept(x, y, k) / len(x),
    "Jaccard": lambda x, y, k: (s := _kept(x, y, k)) / (2 - s),
    "any place counts": lambda x, y, k: (_near(x, k) == _near(y, k)).mean(1),
    "the k farthest": lambda x, y, k: np.array([
        len(set(a) & set(b)) / k for a, b in zip(
            np.argsort(-_square(x), 1, kind="stable")[:, :k],
            np.argsort(-_square(y), 1, kind="stable")[:, :k], strict=True)]),
    "one share a point": lambda x, y, k: _kept(x, y, k).mean(),
    "share that was lost": lambda x, y, k: 1 - _kept(x, y, k),
    "the shape is": lambda x, y, k: _near(x, k),
}


def _proper(a, b):
    u, _, vt = _svd(a, b)
    return u @ np.diag([1.0] * (len(vt) - 1) + [np.linalg.det(u) * np.linalg.det(vt)]) @ vt


ROTATION_WRONG = {
    "turns a onto b": lambda a, b: linalg.orthogonal_procrustes(a, b)[0],
    "without another .T": lambda a, b: (lambda u, s, vt: u @ vt.T)(*_svd(a, b)),
    "stretches and shears": lambda a, b: np.linalg.lstsq(b, a, rcond=None)[0],
    "singular values": lambda a, b: np.einsum("ni,nj->ij", b, a),
    "mirrors are excluded": _proper,
    "return R, (D, D)": lambda a, b: b @ linalg.orthogonal_procrustes(b, a)[0],
    "the shape is": lambda a, b: linalg.orthogonal_procrustes(b, a)[1],
}

SPREAD_WRONG = {
    "paired with itself": lambda x, t: np.log(np.exp(-t * _square(x) ** 2).mean()),
    "is not squared": lambda x, t: _spread(x, t, lambda d: d),
    "the mean of the logarithms": lambda x, t: -t * (spatial.distance.pdist(x) ** 2).mean(),
    "logarithm is missing": lambda x, t: np.exp(_spread(x, t)),
    "a sum over pairs": lambda x, t: _spread(x, t) + np.log(len(x) * (len(x) - 1) / 2),
    "is small for pairs": lambda x, t: _spread(x, -t),
    "of a mean below 1": lambda x, t: -_spread(x, t),
    "natural one": lambda x, t: _spread(x, t) / np.log(10),
    "cosines stand": lambda x, t: _spread(x, t, lambda d: 1 - d**2 / 2),
    "the shape is": lambda x, t: np.log(np.exp(-t * _square(x) ** 2).mean(1)),
}

WRONG = {"kept_neighbours": KEPT_WRONG, "best_rotation": ROTATION_WRONG,
         "even_spread": SPREAD_WRONG}


def _reference(exercise):
    return getattr(geometry, f"_{exercise}")


def test_every_exercise_is_tested():
    own = {name for name, thing in vars(geometry).items() if not name.startswith("_")
           and getattr(thing, "__module__", "") == geometry.__name__}
    assert own == set(RIGHT) == set(WRONG)


@pytest.mark.parametrize("exercise", RIGHT)
def test_a_right_answer_is_returned_itself(exercise, capsys):
    assert getattr(geometry, exercise)(RIGHT[exercise]) is RIGHT[exercise]
    assert f"{exercise}: right. Tested: " in capsys.readouterr().out


def _raises(*_):
    raise NotImplementedError


@pytest.mark.parametrize("empty", [_raises, lambda *_: None, lambda *_: ..., ..., None])
@pytest.mark.parametrize("exercise", RIGHT)
def test_an_untouched_cell_binds_the_reference(exercise, empty, capsys):
    assert getattr(geometry, exercise)(empty) is _reference(exercise)
    assert "not done yet" in capsys.readouterr().out


@pytest.mark.parametrize("exercise, hint, wrong", [
    (exercise, hint, wrong) for exercise in WRONG for hint, wrong in WRONG[exercise].items()
])
def test_a_wrong_answer_gets_its_own_hint_and_the_reference(exercise, hint, wrong, capsys):
    assert getattr(geometry, exercise)(wrong) is _reference(exercise)
    said = capsys.readouterr().out
    assert hint in said.partition("Hint: ")[2] and "expected: " in said


@pytest.mark.parametrize("exercise", RIGHT)
def test_no_two_mistakes_look_alike(exercise, monkeypatch):
    """Otherwise the second hint could never be given."""
    seen = []
    monkeypatch.setattr(geometry, "judge", lambda *args: seen.append(args))
    getattr(geometry, exercise)(None)
    cases, mistakes = seen[0][3:5]
    answers = [[outcome(fn, args) for _, args in cases] for fn, _ in mistakes]
    answers.append([outcome(_reference(exercise), args) for _, args in cases])
    for k, one in enumerate(answers):
        for other in answers[:k]:
            assert not all(same(x, y) for x, y in zip(one, other, strict=True))


def test_the_references_are_the_librarys():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(25, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = rng.normal(size=(25, 2))
    np.testing.assert_allclose(geometry._kept_neighbours(x, y, 4),
                               library.neighbours_kept(x, y, 4))
    assert geometry._even_spread(x, 2) == pytest.approx(library.uniformity(x))
    a, b = (part - part.mean(0) for part in (y, rng.normal(size=(25, 2))))
    moved = b @ geometry._best_rotation(a, b)
    scale = (moved * a).sum() / (b**2).sum()
    np.testing.assert_allclose(scale * moved, library.onto(a, b)[0], atol=1e-12)
