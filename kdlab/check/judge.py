"""How every exercise's check works: run the answer on cases, compare, say a hint that fits."""

import copy
from collections.abc import Callable

import numpy as np

Case = tuple[str, tuple]  # what it tests, the arguments
Mistake = tuple[Callable, str]  # a function that makes it, the hint
UNTOUCHED = object()


class OtherKind(Exception):
    """The answer is not of the kind asked for: it came back and cannot be compared."""


def judge(name: str, fn: Callable, reference: Callable, cases: list[Case],
          mistakes: list[Mistake], compare: tuple[str, Callable] | None = None) -> Callable:
    """Judge `fn` on all cases, say so, and return `fn` when right, else the reference.

    compare: where the answer itself cannot be compared (several are right, or it has parts of
    several lengths): what is compared, in words, and compare(value, *args) -> numbers.
    """
    what, seen = compare or ("", None)
    got = [outcome(fn, args, seen) for _, args in cases]
    if any(one is UNTOUCHED for one in got):
        print(f"{name}: not done yet (nothing is returned). The cells below use the reference; "
              "write your own and run the cell again.")
        return reference
    expected = [outcome(reference, args, seen) for _, args in cases]
    wrong = [k for k in range(len(cases)) if not same(got[k], expected[k])]
    if not wrong:
        print(f"{name}: right. Tested: {'; '.join(tested for tested, _ in cases)}.")
        return fn
    first = wrong[0]
    print(f"{name}: {len(cases) - len(wrong)} of {len(cases)} tests pass.\n"
          f"  Tested:   {cases[first][0]}{f' ({what})' if what else ''}\n"
          f"  expected: {_show(expected[first])}\n"
          f"  got:      {_show(got[first])}\n"
          f"  Hint: {_hint(got, expected, first, cases, mistakes, seen)}.\n"
          "  The cells below use the reference; try again.")
    return reference


def outcome(fn: Callable, args: tuple, seen: Callable | None = None):
    """What comes back, as a float array; an exception as itself; UNTOUCHED for an empty cell."""
    if fn is None or fn is ...:
        return UNTOUCHED
    try:
        value = fn(*copy.deepcopy(args))
        if value is None or value is ...:
            return UNTOUCHED
    except NotImplementedError:
        return UNTOUCHED
    except Exception as error:  # the learner's code: whatever it raises is the answer
        return error
    try:
        return np.asarray(seen(value, *args) if seen else value, dtype=float)
    except (TypeError, ValueError):
        return OtherKind(f"a {type(value).__name__}: {' '.join(repr(value).split())[:60]}")


def same(x, y) -> bool:
    """Two outcomes alike: equal numbers up to rounding, or the same kind of exception."""
    if isinstance(x, Exception) or isinstance(y, Exception):
        return type(x) is type(y)
    return x.shape == y.shape and np.allclose(x, y, rtol=1e-6, atol=1e-9, equal_nan=True)


def _hint(got: list, expected: list, first: int, cases: list[Case], mistakes: list[Mistake],
          seen: Callable | None) -> str:
    with np.errstate(all="ignore"):
        for mistake, hint in mistakes:
            if all(same(g, outcome(mistake, args, seen))
                   for g, (_, args) in zip(got, cases, strict=True)):
                return hint
    bad = got[first]
    if isinstance(bad, OtherKind):
        return "that is not of the kind asked for; read what the exercise wants returned"
    if isinstance(bad, Exception):
        return f"it stops with {type(bad).__name__}; call it on the example and read the last line"
    if bad.shape != expected[first].shape:
        return f"the shape is {bad.shape} and should be {expected[first].shape}"
    if not np.isfinite(bad).all():
        return "there is a NaN or an infinity: look for a division by 0 or a root below 0"
    return "the shape is right and the numbers are not; work the first test out by hand"


def _show(value) -> str:
    if isinstance(value, Exception):
        return f"{type(value).__name__}: {' '.join(str(value).split())}"
    text = np.array2string(value, precision=4, threshold=6, edgeitems=2, suppress_small=True)
    shape = f"shape {value.shape}: " if value.ndim else ""
    return shape + text.replace("\n", "")
