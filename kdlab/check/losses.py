"""Exercises about losses."""

from collections.abc import Callable

import numpy as np

from kdlab.check.judge import Case, Mistake, judge


def arcface_logit(fn: Callable) -> Callable:
    """Tensor of cosines, margin in radians -> cos(theta + margin), without acos (ArcFace eq. 3)."""
    used = _names(fn)
    if used & {"acos", "arccos"}:
        print("arcface_logit: it calls acos, which gives NaN when rounding pushes a cosine past 1 "
              "and an infinite gradient at 1.\n  Hint: cos(a + b) = cos a cos b - sin a sin b, and "
              "sin follows from cos.\n  The cells below use the reference.")
        return _arcface_logit
    return judge("arcface_logit", fn, _arcface_logit, _arcface_cases(), _ARCFACE_MISTAKES)


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


def _names(fn: Callable) -> set[str]:
    """The names a Python function uses; none for anything else."""
    code = getattr(fn, "__code__", None)
    return set(code.co_names) if code else set()
