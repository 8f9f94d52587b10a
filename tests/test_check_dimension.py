"""The checks about TwoNN and ReFO, fed right answers and learners' mistakes."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from kdlab import dimension as library
from kdlab.check import dimension, tailored
from kdlab.check.judge import outcome, same
from kdlab.losses import refo


def _likelihood(mu):
    """The maximum found by search instead of by calculus."""
    logs = np.log(mu).mean()
    return minimize_scalar(lambda t: math.exp(t) * logs - t, bracket=(-3, 5), tol=1e-12).x


def _distinct(r1, r2):
    pairs = [(a, b) for a, b in zip(r1, r2, strict=True) if a != 0 and a != b]
    return len(pairs) / sum(math.log(b / a) for a, b in pairs)


def _kept(mu, discard, first=1.0, total=None):
    n, x = len(mu), sorted(math.log(m) for m in mu)
    rows = range(int(n * (1 - discard) + 1e-9))
    y = [-math.log(1 - (i + first) / (total or n)) for i in rows]
    return sum(x[i] * y[i] for i in rows) / sum(x[i] ** 2 for i in rows)


def _term(teacher, proxy, beta1, reduce=lambda d: (d**2).sum(-1).mean()):
    gap = torch.nn.functional.normalize(torch.as_tensor(teacher)) - (
        torch.nn.functional.normalize(torch.as_tensor(proxy)))
    return float(beta1 * reduce(gap))


def _equal(beta2, factor, lr, decay):
    return np.array([lr, decay]) * [1 / factor, factor]


RIGHT = {
    "dimension_from_ratios": lambda mu: math.exp(_likelihood(mu)), "distinct_points": _distinct,
    "kept_points": _kept, "reverse_distillation": _term, "equal_run": _equal,
}  # fmt: skip

RATIO_WRONG = {
    "that is 1 / d": lambda mu: np.mean(np.log(mu)),
    "not np.log10": lambda mu: 1 / np.mean(np.log10(mu)),
    "natural one: np.log": lambda mu: 1 / np.mean(np.log2(mu)),
    "the logarithm of the mean": lambda mu: 1 / np.log(np.mean(mu)),
    "the middle one": lambda mu: 1 / np.log(np.median(mu)),
    "there is no logarithm": lambda mu: sum(mu) / len(mu),
    "the logarithm is missing": lambda mu: len(mu) / sum(mu),
    "method of moments": lambda mu: 1 / (1 - 1 / np.mean(mu)),
    "with r1 / r2 it is not": lambda mu: len(mu) / np.log(1 / mu).sum(),
    "own estimate": lambda mu: np.mean(1 / np.log(mu)),
    "n - 1 takes": lambda mu: (len(mu) - 1) / np.log(mu).sum(),
    "nothing to subtract": lambda mu: len(mu) / np.log(mu).sum() - 1,
    "factor n is missing": lambda mu: 1 / sum(math.log(m) for m in mu),
    "the shape is": lambda mu: 1 / np.log(mu),
}

DISTINCT_WRONG = {
    "n / inf is 0": lambda a, b: 1 / np.mean(np.log(b / a)),
    "about 28, where": lambda a, b: 1 / np.mean(np.log(b / (a + 1e-12))),
    "about 18, where": lambda a, b: 1 / np.mean(np.log(b / np.where(a == 0, 1e-8, a))),
    "each copy adds 710": lambda a, b: len(a) / np.log(np.nan_to_num(b / a)).sum(),
    "still in n": lambda a, b: len(a) / np.log(b[a > 0] / a[a > 0]).sum(),
    "points with r1 = r2 still": lambda a, b: 1 / np.mean(np.log(b / a)[np.isfinite(b / a)]),
    "a threshold above 0": lambda a, b: _distinct(a[a > 0.01], b[a > 0.01]),
    "n - 1 takes": lambda a, b: _distinct(a, b) * (1 - 1 / ((a > 0) & (a < b)).sum()),
    "that is 1 / d": lambda a, b: 1 / _distinct(a, b),
    "the shape is": lambda a, b: (a > 0) & (a < b),
}


def _free(mu, discard):
    n, kept = len(mu), int(len(mu) * (1 - discard) + 1e-9)
    x, y = np.log(np.sort(mu)), -np.log(1 - np.arange(1, n) / n)
    return np.cov(x[:kept], y[:kept])[0, 1] / np.var(x[:kept], ddof=1)


def _slope(x, y):
    return x @ y / (x @ x)


def _part(mu, discard):
    """ln mu sorted, -ln(1 - F), the number kept; the last ordinate is infinite."""
    n = len(mu)
    with np.errstate(divide="ignore"):
        return (np.sort(np.log(mu)), -np.log(1 - np.arange(1, n + 1) / n),
                int(n * (1 - discard) + 1e-9))


def _with(way):
    return lambda mu, discard: way(*_part(mu, discard))


KEPT_WRONG = {
    "the smallest ratios are discarded": _with(lambda x, y, k: _slope(x[-k:-1], y[-k:-1])),
    "and you keep it": _with(lambda x, y, k: _slope(x[: len(x) - k], y[: len(x) - k])),
    "over the kept points alone, i / kept;": lambda mu, d: _kept(
        np.sort(mu)[: _part(mu, d)[2]], 1 / _part(mu, d)[2]),
    "-ln(1 - F) is infinite": lambda mu, d: _slope(
        _part(mu, d)[0][: _part(mu, d)[2]], -np.log(1 - np.arange(1, _part(mu, d)[2] + 1)
                                                    / _part(mu, d)[2])),
    "or the largest ratios are still in": _with(lambda x, y, k: _slope(x, y)),
    "F starts at 0": lambda mu, d: _kept(mu, d, first=0.0),
    "half a rank": lambda mu, d: _kept(mu, d, first=0.5),
    "not i / (n + 1)": lambda mu, d: _kept(mu, d, total=len(mu) + 1),
    "an intercept of its own": _free,
    "nothing is discarded": _with(lambda x, y, k: _slope(x[:-1], y[:-1])),
    "the other 90 %": lambda mu, d: _kept(mu[: _part(mu, d)[2]], 1 / _part(mu, d)[2]),
    "not sorted": lambda mu, d: _slope(np.log(mu)[: _part(mu, d)[2]],
                                       _part(mu, d)[1][: _part(mu, d)[2]]),
    "logarithm of mu is missing": _with(lambda x, y, k: _slope(np.exp(x[:k]), y[:k])),
    "not F itself": _with(lambda x, y, k: _slope(x[:k], 1 - np.exp(-y[:k]))),
    "ln F; the tail": _with(lambda x, y, k: _slope(x[:k], np.log(1 - np.exp(-y[:k])))),
    "the sign": _with(lambda x, y, k: -_slope(x[:k], y[:k])),
    "x and y are exchanged": _with(lambda x, y, k: _slope(y[:k], x[:k])),
    "one point too many": _with(lambda x, y, k: _slope(x[: k + 1], y[: k + 1])),
    "the mean of the slopes": _with(lambda x, y, k: np.mean(y[:k] / x[:k])),
    "likelihood of the kept": _with(lambda x, y, k: 1 / np.mean(x[:k])),
    "the shape is": _with(lambda x, y, k: x[:k]),
}


def _plain(teacher, proxy, beta1):
    return beta1 * np.square(teacher - proxy).sum(1).mean()


def _rows(x):
    return x / np.sqrt((x**2).sum(1, keepdims=True))


TERM_WRONG = {
    "a default MSE": lambda t, p, b: _term(t, p, b, lambda d: (d**2).mean()),
    "summed over the batch": lambda t, p, b: _term(t, p, b, lambda d: (d**2).sum()),
    "is for unit vectors": _plain,
    "and averaged over the dimensions": lambda t, p, b: _plain(t, p, b) / t.shape[1],
    "the proxy's embeddings": lambda t, p, b: _plain(_rows(t), p, b),
    "the teacher's embeddings": lambda t, p, b: _plain(t, _rows(p), b),
    "the root is taken": lambda t, p, b: _term(t, p, b, lambda d: d.norm(dim=1).mean()),
    "absolute values": lambda t, p, b: _term(t, p, b, lambda d: d.abs().sum(1).mean()),
    "half of it": lambda t, p, b: _term(t, p, b) / 2,
    "that is the similarity": lambda t, p, b: b - _term(t, p, b) / 2,
    "beta1 is missing": lambda t, p, b: _term(t, p, b) / b,
    "the columns are divided": lambda t, p, b: _plain(_rows(t.T).T, _rows(p.T).T, b),
    "one length for the whole": lambda t, p, b: _plain(
        t / np.linalg.norm(t), p / np.linalg.norm(p), b),
    "the shape is": lambda t, p, b: b * np.square(_rows(t) - _rows(p)).sum(1),
}

RUN_WRONG = {
    "has to make up for that": lambda b, c, lr, wd: (lr / c, wd),
    "multiplied by the factor to keep it": lambda b, c, lr, wd: (lr / c, wd / c),
    "both the wrong way": lambda b, c, lr, wd: (lr * c, wd / c),
    "the weight decay changes too": lambda b, c, lr, wd: (lr * c, wd),
    "the rate gets smaller, not larger": lambda b, c, lr, wd: (lr * c, wd * c),
    "nothing changes": lambda b, c, lr, wd: (lr, wd),
    "keep their ratio": lambda b, c, lr, wd: (lr, wd * c),
    "beta2 is in both": lambda b, c, lr, wd: (lr / (b * c), wd * b * c),
    "rules about batch size": lambda b, c, lr, wd: (lr / math.sqrt(c), wd * math.sqrt(c)),
    "the order is": lambda b, c, lr, wd: (wd * c, lr / c),
    "the shape is": lambda b, c, lr, wd: lr / c,
}

MODULE = {"dimension_from_ratios": dimension, "distinct_points": dimension,
          "kept_points": dimension, "reverse_distillation": tailored, "equal_run": tailored}
WRONG = {"dimension_from_ratios": RATIO_WRONG, "distinct_points": DISTINCT_WRONG,
         "kept_points": KEPT_WRONG, "reverse_distillation": TERM_WRONG, "equal_run": RUN_WRONG}


def _reference(exercise):
    return getattr(MODULE[exercise], f"_{exercise}")


def test_every_exercise_is_tested():
    own = {name for module in (dimension, tailored) for name, thing in vars(module).items()
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


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # some mistakes divide by 0
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
    cases, mistakes = seen[0][3:5]
    with np.errstate(all="ignore"):
        answers = [[outcome(fn, args) for _, args in cases] for fn, _ in mistakes]
    answers.append([outcome(_reference(exercise), args) for _, args in cases])
    for k, one in enumerate(answers):
        for other in answers[:k]:
            assert not all(same(x, y) for x, y in zip(one, other, strict=True))


def test_the_references_are_the_librarys():
    rng = np.random.default_rng(5)
    mu = 1 + rng.pareto(5, 500)
    assert dimension._dimension_from_ratios(mu) == pytest.approx(
        library.estimate(mu, "mle")[0], rel=1e-9)
    for discard in (0.1, 0.25, 0.5):
        assert dimension._kept_points(mu, discard) == pytest.approx(
            library.estimate(mu, "fit", discard)[0], rel=1e-9)
    teacher, proxy = rng.normal(size=(2, 6, 8))
    term = refo.reverse_distillation(torch.tensor(teacher), torch.tensor(proxy), 0.3)
    assert tailored._reverse_distillation(teacher, proxy, 0.3) == pytest.approx(float(term))


def test_points_that_count_are_those_of_the_librarys_drop():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(80, 3))
    x = np.concatenate([x, x[:10]])  # ten rows there twice
    distances = np.sort(np.linalg.norm(x[:, None] - x, axis=2), axis=1)[:, 1:3]
    assert (distances[:, 0] == 0).sum() == 20 and (distances[:, 0] == distances[:, 1]).any()
    found = library.two_nn(x, "mle", duplicates="drop")
    assert dimension._distinct_points(*distances.T) == pytest.approx(found.dimension, rel=1e-9)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
@pytest.mark.parametrize("factor", [0.2, 4.0])
def test_sgd_takes_the_same_steps_in_the_equal_run(factor, options):
    rng = np.random.default_rng(7)
    inputs, goal = (torch.tensor(rng.normal(size=(16, 5))) for _ in range(2))
    start, ends = torch.tensor(rng.normal(size=(5, 5))), []
    lr, decay = tailored._equal_run(5.0, factor, 0.05, 1e-2)
    for weight, rate, wd in ((5.0, 0.05, 1e-2), (5.0 * factor, lr, decay),
                             (5.0 * factor, lr, 1e-2)):
        matrix = start.clone().requires_grad_()
        sgd = torch.optim.SGD([matrix], rate, weight_decay=wd, **options)
        for _ in range(20):
            sgd.zero_grad()
            refo.feature_only(inputs @ matrix, goal, weight).backward()
            sgd.step()
        ends.append(matrix.detach())
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-9, atol=1e-9)
    assert (ends[2] - ends[0]).abs().max() > 1e-3  # the decay has to change as well
