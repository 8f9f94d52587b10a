"""Every check is fed the reference, untouched cells, and the mistakes learners make."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from kdlab import check, evaluate
from kdlab.check.judge import outcome, same
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


def _split(similarity, labels):
    genuine, impostor = [], []
    for i in range(len(labels)):
        for j in range(i):
            (genuine if labels[i] == labels[j] else impostor).append(similarity[i, j])
    return genuine, impostor


def _rates(genuine, impostor, threshold):
    return [sum(s >= threshold for s in scores) / len(scores) for scores in (genuine, impostor)]


def _threshold(impostor, fpr):
    fine = [t for t in np.nextafter(impostor, np.inf) if np.mean(impostor >= t) <= fpr]
    return min(fine)


def _needed(fpr, count):
    pairs = round(count / fpr)
    people = 2
    while people * (people - 1) / 2 < pairs:
        people += 1
    return pairs, people


EXERCISES = {  # name -> where it lives, the name of its reference, another right answer
    "cosine_similarity": (check.pairs, "_cosine_similarity", _cosine),
    "split_pairs": (check.pairs, "_split_pairs", _split),
    "rates_at": (check.rates, "_rates_at", _rates),
    "tpr_at_threshold": (check.rates, "_tpr_at_threshold", _tpr),
    "threshold_from_impostors": (check.rates, "_threshold", _threshold),
    "pairs_needed": (check.rates, "_pairs_needed", _needed),
    "arcface_logit": (check.losses, "_arcface_logit", _arcface),
}


def _reference(exercise):
    module, name, _ = EXERCISES[exercise]
    return getattr(module, name)


def test_every_exercise_is_tested():
    elsewhere = {f"kdlab.check.{name}" for name in (
        "centres", "classic", "dimension", "geometry", "margins", "own_data", "relations", "shrink",
        "tailored", "thresholds", "training")}
    here = {name for name in check.__all__ if getattr(check, name).__module__ not in elsewhere}
    assert here == set(EXERCISES)


@pytest.mark.parametrize("exercise", EXERCISES)
def test_a_right_answer_is_returned_itself(exercise, capsys):
    answer = EXERCISES[exercise][2]
    assert getattr(check, exercise)(answer) is answer
    assert "right. Tested: " in capsys.readouterr().out


def _raises(*_):
    raise NotImplementedError


def _returns_nothing(*_):
    pass


def _returns_dots(*_):
    return ...


@pytest.mark.parametrize("empty", [_raises, _returns_nothing, _returns_dots, ..., None])
@pytest.mark.parametrize("exercise", EXERCISES)
def test_an_untouched_cell_binds_the_reference(exercise, empty, capsys):
    bound = getattr(check, exercise)(empty)
    assert bound is _reference(exercise)
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


SPLIT_WRONG = {
    "exchanged": lambda s, y: _split(s, y)[::-1],
    "as (i, j) and as (j, i)": lambda s, y: tuple([*part, *part] for part in _split(s, y)),
    "compared with itself is no test": lambda s, y: (
        [*_split(s, y)[0], *np.diag(s)], _split(s, y)[1]),
    "the whole matrix": lambda s, y: (
        s[np.equal.outer(y, y)], s[~np.equal.outer(y, y)]),
    "impostor pairs are there twice": lambda s, y: (
        _split(s, y)[0], s[np.not_equal.outer(y, y)]),
    "with the next one only": lambda s, y: (
        [s[k, k + 1] for k in range(len(y) - 1) if y[k] == y[k + 1]],
        [s[k, k + 1] for k in range(len(y) - 1) if y[k] != y[k + 1]]),
    "the shape is": lambda s, y: ([], _split(s, y)[1]),
    "not of the kind": lambda s, y: s,
}

RATES_WRONG = {
    ">=, not >": lambda g, i, t: (1 - np.mean(g <= t), 1 - np.mean(i <= t)),
    "genuine pairs first": lambda g, i, t: _rates(i, g, t),
    "those are counts": lambda g, i, t: (sum(g >= t), sum(i >= t)),
    "not a percentage": lambda g, i, t: tuple(100 * r for r in _rates(g, i, t)),
    "its own denominator": lambda g, i, t: tuple(
        sum(s >= t) / len([*g, *i]) for s in (g, i)),
    "low scores are accepted": lambda g, i, t: _rates(-g, -i, -t),
    "FNR": lambda g, i, t: (1 - np.mean(g >= t), np.mean(i >= t)),
}

THRESHOLD_WRONG = {
    "np.quantile interpolates": lambda i, fpr: np.percentile(i, 100 - 100 * fpr),
    "cuts off the lowest": lambda i, fpr: np.percentile(i, 100 * fpr),
    "one impostor too many": lambda i, fpr: sorted(i)[len(i) - 1 - int(fpr * len(i))],
    "last impostor who may pass": lambda i, fpr: sorted(i)[-max(int(fpr * len(i)), 1)],
    "halfway": lambda i, fpr: np.mean([sorted(i)[-max(int(fpr * len(i)), 1)],
                                       sorted(i)[-int(fpr * len(i)) - 1]]),
    "refuses every impostor": lambda i, fpr: np.nextafter(max(i), 2),
    "do not divide by 100": lambda i, fpr: _threshold(i, fpr / 100),
    "normal distribution": lambda i, fpr: norm.isf(fpr, i.mean(), i.std()),
    "not of the kind": lambda i, fpr: np.sort(i),
}

NEEDED_WRONG = {
    "the order is": lambda fpr, count: _needed(fpr, count)[::-1],
    "`count` of them": lambda fpr, count: _needed(fpr, 1),
    "so divide": lambda fpr, count: (
        fpr * count, np.ceil(0.5 + np.sqrt(0.25 + 2 * fpr * count))),
    "two new people": lambda fpr, count: (count / fpr, 2 * _needed(fpr, count)[0]),
    "his own impostor": lambda fpr, count: (count / fpr, np.ceil((count / fpr) ** 0.5)),
    "counted twice": lambda fpr, count: (
        count / fpr, np.ceil(0.5 + np.sqrt(0.25 + count / fpr))),
    "nearly right": lambda fpr, count: (count / fpr, np.ceil((2 * count / fpr) ** 0.5)),
    "round the number of people up": lambda fpr, count: (
        count / fpr, int(0.5 + np.sqrt(0.25 + 2 * count / fpr))),
    "people come whole": lambda fpr, count: (count / fpr, 0.5 + np.sqrt(0.25 + 2 * count / fpr)),
}

WRONG = {"cosine_similarity": COSINE_WRONG, "split_pairs": SPLIT_WRONG, "rates_at": RATES_WRONG,
         "tpr_at_threshold": TPR_WRONG, "threshold_from_impostors": THRESHOLD_WRONG,
         "pairs_needed": NEEDED_WRONG, "arcface_logit": ARCFACE_WRONG}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # some mistakes divide by 0
@pytest.mark.parametrize("exercise, hint, wrong", [
    (exercise, hint, wrong) for exercise in EXERCISES for hint, wrong in WRONG[exercise].items()
])
def test_a_wrong_answer_gets_its_own_hint_and_the_reference(exercise, hint, wrong, capsys):
    assert getattr(check, exercise)(wrong) is _reference(exercise)
    said = capsys.readouterr().out
    assert (hint if "arccos" not in hint else "acos") in said.replace("\n", " ")
    assert "Hint: " in said and ("expected: " in said or "acos" in said)


@pytest.mark.parametrize("exercise", EXERCISES)
def test_no_two_mistakes_look_alike(exercise, monkeypatch):
    """Otherwise the second hint could never be given."""
    seen = []
    monkeypatch.setattr(EXERCISES[exercise][0], "judge", lambda *args: seen.append(args))
    getattr(check, exercise)(None)
    cases, mistakes, compare = seen[0][3], seen[0][4], [*seen[0][5:], ("", None)][0][1]
    with np.errstate(all="ignore"):
        answers = [[outcome(fn, args, compare) for _, args in cases] for fn, _ in mistakes]
        answers.append([outcome(_reference(exercise), args, compare) for _, args in cases])
    for k, one in enumerate(answers):
        for other in answers[:k]:
            assert not all(same(x, y) for x, y in zip(one, other, strict=True))


def test_a_learner_who_changes_the_input_does_not_spoil_the_test(capsys):
    def in_place(a, b):
        a /= np.linalg.norm(a, axis=1, keepdims=True)
        b /= np.linalg.norm(b, axis=1, keepdims=True)
        return a @ b.T

    assert check.cosine_similarity(in_place) is in_place


def test_the_reference_counts_as_the_library_does():
    rng = np.random.default_rng(3)
    genuine, impostor = rng.integers(0, 30, 200) / 20, rng.integers(0, 20, 300) / 20  # many ties
    assert check.rates._tpr_at_threshold(genuine, impostor, 1.0) == 1
    for fpr in (0.001, 0.01, 0.1, 0.29):
        expected = _tpr(genuine, impostor, fpr)
        assert check.rates._tpr_at_threshold(genuine, impostor, fpr) == pytest.approx(expected)
        assert tpr_at_fpr(genuine, impostor, fpr).tpr == pytest.approx(expected)


def test_the_other_references_are_the_librarys():
    rng = np.random.default_rng(6)
    x, labels = rng.normal(size=(30, 5)), rng.integers(0, 8, 30)
    pairs = evaluate.pair_scores(x, labels)
    for own, found in zip(check.pairs._split_pairs(_cosine(x, x), labels), pairs, strict=True):
        np.testing.assert_allclose(own, found, rtol=1e-12)
    assert check.rates._rates_at(*pairs, 0.2) == evaluate.rates_at(*pairs, 0.2)
    for fpr in (0.001, 0.05, 0.3):
        assert check.rates._threshold(pairs[1], fpr) == tpr_at_fpr(*pairs, fpr).threshold


def test_rates_that_are_no_fractions_of_two_count_whole_pairs():
    assert check.rates._pairs_needed(1e-5, 3)[0] == 300_000  # 3 / 1e-5 is 300000.00000000006
