"""Every check is fed the reference, untouched cells, and the mistakes learners make."""

import numpy as np
import pytest
import torch

from kdlab import check
from kdlab.evaluate.verification import tpr_at_fpr


def _cosine(a, b):
    return a @ b.T / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))


def _tpr(genuine, impostor, fpr):
    best = 0.0
    for threshold in [-np.inf, *np.nextafter(impostor, np.inf), *genuine, *impostor]:
        if np.mean(impostor >= threshold) <= fpr:
            best = max(best, float(np.mean(genuine >= threshold)))
    return best


def _arcface(cos, margin):
    return cos * np.cos(margin) - torch.sqrt(1 - cos**2) * np.sin(margin)


@pytest.mark.parametrize("exercise, answer", [
    (check.cosine_similarity, _cosine),
    (check.tpr_at_threshold, _tpr),
    (check.arcface_logit, _arcface),
])
def test_a_right_answer_is_returned_itself(exercise, answer, capsys):
    assert exercise(answer) is answer
    assert "right. Tested: " in capsys.readouterr().out


def _raises(*_):
    raise NotImplementedError


def _returns_nothing(*_):
    pass


def _returns_dots(*_):
    return ...


@pytest.mark.parametrize("empty", [_raises, _returns_nothing, _returns_dots, ..., None])
@pytest.mark.parametrize("exercise", ["cosine_similarity", "tpr_at_threshold", "arcface_logit"])
def test_an_untouched_cell_binds_the_reference(exercise, empty, capsys):
    bound = getattr(check, exercise)(empty)
    assert bound is getattr(check, f"_{exercise}")
    assert "not done yet" in capsys.readouterr().out


COSINE_WRONG = {
    "divide every row by its length": lambda a, b: a @ b.T,
    "`b` is not": lambda a, b: (a / np.sqrt((a**2).sum(1, keepdims=True))) @ b.T,
    "one length for the whole array": lambda a, b: a @ b.T / np.linalg.norm(a) / np.linalg.norm(b),
    "axis=0": lambda a, b: (a / np.sqrt((a**2).sum(0))) @ (b / np.sqrt((b**2).sum(0))).T,
    "rows and columns are exchanged": lambda a, b: _cosine(a, b).T,
    "cosine distance": lambda a, b: 1 - _cosine(a, b),
    "the distance of the normalised rows": lambda a, b: np.sqrt(
        np.maximum(2 - 2 * _cosine(a, b), 0)),
    "every row of `a` meets every row": lambda a, b: (a * b).sum(1) / np.linalg.norm(
        a, axis=1) / np.linalg.norm(b, axis=1),
    "the shape is": lambda a, b: _cosine(a, b).ravel(),
    "the numbers are not": lambda a, b: _cosine(a, b) ** 2,
    "NaN": lambda a, b: _cosine(a, b) * np.nan,
    "it stops with NameError": lambda a, b: a @ undefined,  # noqa: F821
}

TPR_WRONG = {
    "exchanged": lambda g, i, fpr: _tpr(i, g, fpr),
    "not a percentage": lambda g, i, fpr: 100 * _tpr(g, i, fpr),
    "FNR": lambda g, i, fpr: 1 - _tpr(g, i, fpr),
    "low scores are accepted": lambda g, i, fpr: _tpr(-g, -i, fpr),
    "can let too many pass": lambda g, i, fpr: (g >= np.percentile(i, 100 * (1 - fpr))).mean(),
    "one impostor too many": lambda g, i, fpr: (
        g >= sorted(i, reverse=True)[int(len(i) * fpr)]).mean(),
    "safe only without ties": lambda g, i, fpr: (
        g >= sorted(i, reverse=True)[max(int(len(i) * fpr) - 1, 0)]).mean(),
    "FPR counts impostors": lambda g, i, fpr: (g >= np.quantile(g, fpr)).mean(),
}

ARCFACE_WRONG = {
    "added to the cosine": lambda c, m: c + m,
    "CosFace": lambda c, m: c - m,
    "do not convert it from degrees": lambda c, m: _arcface(c, m * np.pi / 180),
    "do not convert it to degrees": lambda c, m: _arcface(c, m * 180 / np.pi),
    "cos(theta - m)": lambda c, m: c * np.cos(m) + torch.sqrt(1 - c**2) * np.sin(m),
    "square root is missing": lambda c, m: c * np.cos(m) - (1 - c**2) * np.sin(m),
    "lacks its factor": lambda c, m: c * np.cos(m) - np.sin(m),
    "acos": lambda c, m: torch.cos(torch.acos(c) + m),
    "arccos": lambda c, m: np.cos(np.arccos(c) + m),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # some mistakes divide by 0
@pytest.mark.parametrize("exercise, hint, wrong", [
    (exercise, hint, wrong)
    for exercise, answers in [("cosine_similarity", COSINE_WRONG),
                              ("tpr_at_threshold", TPR_WRONG), ("arcface_logit", ARCFACE_WRONG)]
    for hint, wrong in answers.items()
])
def test_a_wrong_answer_gets_its_own_hint_and_the_reference(exercise, hint, wrong, capsys):
    assert getattr(check, exercise)(wrong) is getattr(check, f"_{exercise}")
    said = capsys.readouterr().out
    assert (hint if "arccos" not in hint else "acos") in said.replace("\n", " ")
    assert "Hint: " in said and ("expected: " in said or "acos" in said)


@pytest.mark.parametrize("exercise", ["cosine", "tpr", "arcface"])
def test_no_two_mistakes_look_alike(exercise):
    """Otherwise the second hint could never be given."""
    mistakes = getattr(check, f"_{exercise.upper()}_MISTAKES")
    cases = getattr(check, f"_{exercise}_cases")()
    with np.errstate(all="ignore"):
        answers = [[check._outcome(fn, args) for _, args in cases] for fn, _ in mistakes]
    for k, one in enumerate(answers):
        for other in answers[:k]:
            assert not all(check._same(x, y) for x, y in zip(one, other, strict=True))


def test_a_learner_who_changes_the_input_does_not_spoil_the_test(capsys):
    def in_place(a, b):
        a /= np.linalg.norm(a, axis=1, keepdims=True)
        b /= np.linalg.norm(b, axis=1, keepdims=True)
        return a @ b.T

    assert check.cosine_similarity(in_place) is in_place


def test_the_reference_counts_as_the_library_does():
    rng = np.random.default_rng(3)
    genuine, impostor = rng.integers(0, 30, 200) / 20, rng.integers(0, 20, 300) / 20  # many ties
    assert check._tpr_at_threshold(genuine, impostor, 1.0) == 1
    for fpr in (0.001, 0.01, 0.1, 0.29):
        expected = _tpr(genuine, impostor, fpr)
        assert check._tpr_at_threshold(genuine, impostor, fpr) == pytest.approx(expected)
        assert tpr_at_fpr(genuine, impostor, fpr).tpr == pytest.approx(expected)
