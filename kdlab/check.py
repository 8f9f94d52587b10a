"""Self-checks for the exercises: what was tested, expected against got, a hint that fits.

    @kdlab.check.cosine_similarity
    def cosine_similarity(a, b):
        ...

An answer that is right is bound as it is. Where the cell is left untouched (it raises
NotImplementedError or returns nothing), and where the answer is wrong, the reference is bound
instead, so that the cells below run and a Run All finishes.

A typical mistake is written down as a function that makes it. Whoever's answer equals it on all
tests has made it, and is told the hint beside it.
"""

import copy
from collections.abc import Callable

import numpy as np

Case = tuple[str, tuple]  # what it tests, the arguments
Mistake = tuple[Callable, str]  # a function that makes it, the hint


def cosine_similarity(fn: Callable) -> Callable:
    """(N, D) and (M, D) arrays -> (N, M): the cosine of every row of `a` with every row of `b`."""
    return _check("cosine_similarity", fn, _cosine_similarity, _cosine_cases(), _COSINE_MISTAKES)


def tpr_at_threshold(fn: Callable) -> Callable:
    """Genuine scores (P,), impostor scores (Q,), a target rate -> the TPR, a number from 0 to 1.

    A pair is accepted when its score >= threshold. The answer is the largest TPR of all
    thresholds whose FPR is at most the target (rule "below" of kdlab.evaluate).
    """
    return _check("tpr_at_threshold", fn, _tpr_at_threshold, _tpr_cases(), _TPR_MISTAKES)


def arcface_logit(fn: Callable) -> Callable:
    """Tensor of cosines, margin in radians -> cos(theta + margin), without acos (ArcFace eq. 3)."""
    used = _names(fn)
    if used & {"acos", "arccos"}:
        print("arcface_logit: it calls acos, which gives NaN when rounding pushes a cosine past 1 "
              "and an infinite gradient at 1.\n  Hint: cos(a + b) = cos a cos b - sin a sin b, and "
              "sin follows from cos.\n  The cells below use the reference.")
        return _arcface_logit
    return _check("arcface_logit", fn, _arcface_logit, _arcface_cases(), _ARCFACE_MISTAKES)


# The references, and the mistakes with their hints.


def _normalise(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _cosine_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _normalise(a) @ _normalise(b).T


def _cosine_cases() -> list[Case]:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    return [
        ("right angle, same and opposite direction",
         (np.array([[1.0, 0.0]]), np.array([[0.0, 2.0], [3.0, 0.0], [-1.0, 0.0]]))),
        ("3 rows against 5 rows", (a, b)),
        ("long and short vectors", (100 * a, 0.01 * b[:3])),
    ]


_COSINE_MISTAKES: list[Mistake] = [
    (lambda a, b: a @ b.T,
     "you have the dot products; divide every row by its length first"),
    (lambda a, b: _normalise(a) @ b.T, "`a` is normalised, `b` is not"),
    (lambda a, b: a @ _normalise(b).T, "`b` is normalised, `a` is not"),
    (lambda a, b: (a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)).T,
     "one length for the whole array; each row has its own: norm(..., axis=1, keepdims=True)"),
    (lambda a, b: (a / np.linalg.norm(a, axis=0)) @ (b / np.linalg.norm(b, axis=0)).T,
     "the lengths are taken down the columns (axis=0); a face is a row (axis=1)"),
    (lambda a, b: _cosine_similarity(b, a),
     "rows and columns are exchanged: entry [i, j] compares a[i] with b[j]"),
    (lambda a, b: 1 - _cosine_similarity(a, b),
     "that is the cosine distance, 1 - similarity; a higher similarity means closer"),
    (lambda a, b: np.linalg.norm(_normalise(a)[:, None] - _normalise(b)[None], axis=2),
     "that is the distance of the normalised rows; the similarity is their dot product"),
    (lambda a, b: (_normalise(a) * _normalise(b)).sum(1),
     "row k is compared with row k only; every row of `a` meets every row of `b`: use @ and .T"),
]


def _tpr_at_threshold(genuine: np.ndarray, impostor: np.ndarray, fpr: float) -> float:
    worst = np.sort(impostor)[::-1]
    allowed = int((np.arange(1, len(worst) + 1) / len(worst) <= fpr).sum())
    if allowed == len(worst):
        return 1.0
    return float(np.mean(genuine > worst[allowed]))  # any threshold just above that impostor


def _tpr_cases() -> list[Case]:
    rng = np.random.default_rng(1)
    return [
        ("10 impostors, FPR 0.2",  # 0.7 must not pass, 0.71 may
         (np.array([0.7, 0.71, 0.75, 0.82, 0.95]), np.arange(10) / 10, 0.2)),
        ("FPR 0.001 of 10 impostors: none may pass",
         (np.array([0.3, 0.9, 0.92, 0.99]), np.arange(10) / 10, 0.001)),
        ("equal scores among the impostors",
         (np.array([0.4, 0.6, 0.65, 0.7, 0.9]), np.array([0.1, 0.6, 0.6, 0.6, 0.8]), 0.4)),
        ("1,000 scores each, FPR 0.1",
         (rng.normal(1.0, 1.0, 1000), rng.normal(0.0, 1.0, 1000), 0.1)),
    ]


_TPR_MISTAKES: list[Mistake] = [
    (lambda g, i, fpr: _tpr_at_threshold(i, g, fpr),
     "genuine and impostor are exchanged: the threshold comes from the impostor scores"),
    (lambda g, i, fpr: 100 * _tpr_at_threshold(g, i, fpr),
     "a rate is a fraction, not a percentage"),
    (lambda g, i, fpr: 1 - _tpr_at_threshold(g, i, fpr),
     "that is the share of genuine pairs refused (FNR); the TPR is the share accepted"),
    (lambda g, i, fpr: _tpr_at_threshold(-g, -i, fpr),
     "low scores are accepted; these are similarities, so a pair is accepted when score >= "
     "threshold"),
    (lambda g, i, fpr: np.mean(g >= np.quantile(i, 1 - fpr)),
     "np.quantile interpolates between two impostors, and its threshold can let too many pass; "
     "count the impostors that pass instead"),
    (lambda g, i, fpr: np.mean(g > np.quantile(i, 1 - fpr)),
     "np.quantile interpolates between two impostors; count the impostors that pass instead"),
    (lambda g, i, fpr: np.mean(g >= np.sort(i)[::-1][int(fpr * len(i))]),
     "at that threshold one impostor too many is accepted: its own score counts as accepted (>=), "
     "so the threshold lies just above it"),
    (lambda g, i, fpr: np.mean(g >= np.sort(i)[::-1][max(int(fpr * len(i)) - 1, 0)]),
     "a threshold at the last allowed impostor is safe only without ties and not the lowest; go "
     "down to just above the first impostor that must not pass"),
    (lambda g, i, fpr: np.mean(g >= np.quantile(g, fpr)),
     "the threshold comes from the genuine scores; FPR counts impostors"),
]


def _arcface_logit(cos, margin: float):
    sin = (1 - cos * cos).clip(0) ** 0.5  # 0 to pi: the sine of the angle is never negative
    return cos * np.cos(margin) - sin * np.sin(margin)


def _arcface_cases() -> list[Case]:
    import torch

    return [
        ("theta = 60 degrees, margin 0.5", (torch.tensor([0.5], dtype=torch.float64), 0.5)),
        ("margin 0 changes nothing", (torch.linspace(-1, 1, 5, dtype=torch.float64), 0.0)),
        ("cosines from -0.9 to 1, margin 0.3",
         (torch.tensor([[-0.9, -0.3, 0.0], [0.4, 0.8, 1.0]], dtype=torch.float64), 0.3)),
    ]


_ARCFACE_MISTAKES: list[Mistake] = [
    (lambda c, m: c + m, "the margin is added to the cosine; it belongs to the angle"),
    (lambda c, m: c - m, "that is CosFace: cos(theta) - m. ArcFace adds the margin to the angle"),
    (lambda c, m: _arcface_logit(c, np.deg2rad(m)),
     "the margin is in radians already; do not convert it from degrees"),
    (lambda c, m: _arcface_logit(c, np.rad2deg(m)),
     "the margin is in radians, and so is what cos() and sin() take; do not convert it to degrees"),
    (lambda c, m: _arcface_logit(c, -m),
     "that is cos(theta - m): the sign of the sine term; a margin makes the task harder"),
    (lambda c, m: c * np.cos(m) - (1 - c * c) * np.sin(m),
     "the square root is missing: sin(theta) = sqrt(1 - cos(theta)^2)"),
    (lambda c, m: c * np.cos(m) - (1 - c) * np.sin(m),
     "sin(theta) is sqrt(1 - cos(theta)^2), not 1 - cos(theta)"),
    (lambda c, m: c * np.cos(m) - np.sin(m), "the term sin(m) lacks its factor sin(theta)"),
    (lambda c, m: c * np.cos(m), "the second term is missing: - sin(theta) sin(m)"),
]


# How every check works.


def _check(name: str, fn: Callable, reference: Callable, cases: list[Case],
           mistakes: list[Mistake]) -> Callable:
    """Judge `fn` on all cases, say so, and return `fn` when right, else the reference."""
    got = [_outcome(fn, args) for _, args in cases]
    if any(outcome is _UNTOUCHED for outcome in got):
        print(f"{name}: not done yet (nothing is returned). The cells below use the reference; "
              "write your own and run the cell again.")
        return reference
    expected = [_outcome(reference, args) for _, args in cases]
    wrong = [k for k in range(len(cases)) if not _same(got[k], expected[k])]
    if not wrong:
        print(f"{name}: right. Tested: {'; '.join(what for what, _ in cases)}.")
        return fn
    first = wrong[0]
    print(f"{name}: {len(cases) - len(wrong)} of {len(cases)} tests pass.\n"
          f"  Tested:   {cases[first][0]}\n"
          f"  expected: {_show(expected[first])}\n"
          f"  got:      {_show(got[first])}\n"
          f"  Hint: {_hint(got, expected, first, cases, mistakes)}.\n"
          "  The cells below use the reference; try again.")
    return reference


_UNTOUCHED = object()


def _outcome(fn: Callable, args: tuple):
    """What comes back, as a float array; an exception as itself; _UNTOUCHED for an empty cell."""
    if fn is None or fn is ...:
        return _UNTOUCHED
    try:
        value = fn(*copy.deepcopy(args))
        if value is None or value is ...:
            return _UNTOUCHED
        return np.asarray(value, dtype=float)
    except NotImplementedError:
        return _UNTOUCHED
    except Exception as error:  # the learner's code: whatever it raises is the answer
        return error


def _same(x, y) -> bool:
    if isinstance(x, Exception) or isinstance(y, Exception):
        return type(x) is type(y)
    return x.shape == y.shape and np.allclose(x, y, rtol=1e-6, atol=1e-9, equal_nan=True)


def _hint(got: list, expected: list, first: int, cases: list[Case], mistakes: list[Mistake]) -> str:
    with np.errstate(all="ignore"):
        for mistake, hint in mistakes:
            if all(_same(g, _outcome(mistake, args))
                   for g, (_, args) in zip(got, cases, strict=True)):
                return hint
    bad = got[first]
    if isinstance(bad, Exception):
        return f"it stops with {type(bad).__name__}; call it on the example and read the last line"
    if bad.shape != expected[first].shape:
        return f"the shape is {bad.shape} and should be {expected[first].shape}"
    if not np.isfinite(bad).all():
        return "there is a NaN or an infinity: look for a division by 0 or a root below 0"
    return "the shape is right and the numbers are not; work the first test out by hand"


def _show(outcome) -> str:
    if isinstance(outcome, Exception):
        return f"{type(outcome).__name__}: {' '.join(str(outcome).split())}"
    text = np.array2string(outcome, precision=4, threshold=6, edgeitems=2, suppress_small=True)
    shape = f"shape {outcome.shape}: " if outcome.ndim else ""
    return shape + text.replace("\n", "")


def _names(fn: Callable) -> set[str]:
    """The names a Python function uses; none for anything else."""
    code = getattr(fn, "__code__", None)
    return set(code.co_names) if code else set()
