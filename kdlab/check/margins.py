"""Exercises about margins: room, scale, the two gradients, and the loss of a collapse.

Deng et al., "ArcFace", CVPR 2019; Wang et al., "CosFace", CVPR 2018. Angles are radians.
"""

from collections.abc import Callable

import numpy as np

from kdlab.check.judge import Case, Mistake, judge


def half_width(fn: Callable) -> Callable:
    """Angle between two centres, margin, "softmax" | "arcface" | "cosface" -> a class's room.

    Measured from its centre towards the other one, as far as it wins in spite of its margin; 0
    where it wins nowhere.
    """
    return judge("half_width", fn, _half_width, _room_cases(), _ROOM_MISTAKES)


def collapsed_loss(fn: Callable) -> Callable:
    """Number of classes, scale, margin -> ArcFace's loss where all centres coincide and every row
    lies opposite to them."""
    return judge("collapsed_loss", fn, _collapsed_loss, _collapse_cases(), _COLLAPSE_MISTAKES)


def margin_factor(fn: Callable) -> Callable:
    """Cosines (N,), margin, "exact" | "straight_through" | "guarded" -> d target / d cos theta."""
    return judge("margin_factor", fn, _margin_factor, _factor_cases(), _FACTOR_MISTAKES)


def scale_needed(fn: Callable) -> Callable:
    """Number of classes, own probability wanted at a centre -> CosFace's bound, eq. (6)."""
    return judge("scale_needed", fn, _scale_needed, _scale_cases(), _SCALE_MISTAKES)


def _half_width(apart: float, margin: float, kind: str) -> float:
    if kind == "cosface":  # cos a - cos(apart - a) = 2 sin(apart / 2) sin(apart / 2 - a) = margin
        share = margin / (2 * np.sin(apart / 2))
        return max(apart / 2 - np.arcsin(min(share, 1.0)), 0.0)
    return max(apart - margin * (kind == "arcface"), 0.0) / 2


def _room_cases() -> list[Case]:
    return [
        ("softmax, centres 90 degrees apart: half of it", (np.pi / 2, 0.0, "softmax")),
        ("ArcFace, 1.2 radians apart, margin 0.5", (1.2, 0.5, "arcface")),
        ("CosFace, 1.2 radians apart, margin 0.35", (1.2, 0.35, "cosface")),
        ("ArcFace, a margin as wide as the gap", (0.5, 0.5, "arcface")),
        ("ArcFace, a margin wider than the gap: no room", (0.5, 0.9, "arcface")),
        ("CosFace, 8 classes on a circle, margin 0.4: no room", (np.pi / 4, 0.4, "cosface")),
        ("CosFace, 8 classes on a circle, margin 0.8: no room", (np.pi / 4, 0.8, "cosface")),
    ]


def _open(apart: float, margin: float, kind: str) -> float:
    """Without the floor of 0."""
    if kind == "cosface":
        return apart / 2 - np.arcsin(margin / (2 * np.sin(apart / 2)))
    return (apart - margin * (kind == "arcface")) / 2


_ROOM_MISTAKES: list[Mistake] = [
    (_open, "where the margin is wider than the gap a class has no room: 0, not a negative number "
            "and not NaN"),
    (lambda a, m, k: max(_open(a, m, k), 0.0),
     "nearly: with CosFace's margin of 0.8 the arcsin gets more than 1 and becomes NaN; no room "
     "is 0"),
    (lambda a, m, k: max(a / 2 - m, 0.0) if k == "arcface" else _half_width(a, m, k),
     "with ArcFace a + m = apart - a: the margin is taken once, and a is half of what is left"),
    (lambda a, m, k: _half_width(a, m, "arcface" if k == "cosface" else k),
     "CosFace's margin is taken from the cosine, not added to the angle: cos a - m = "
     "cos(apart - a)"),
    (lambda a, m, k: max(a / 2 - m, 0.0) if k != "softmax" else a / 2,
     "the margin was taken whole from half of the gap; write down where the two logits are equal"),
    (lambda a, m, k: 2 * _half_width(a, m, k), "that is the width to both sides together"),
    (lambda a, m, k: a / 2, "there is no margin in it"),
    (lambda a, m, k: np.degrees(_half_width(a, m, k)), "in radians, not degrees"),
]


def _collapsed_loss(classes: int, scale: float, margin: float) -> float:
    return float(np.log1p((classes - 1) * np.exp(-scale * (1 - np.cos(margin)))))


def _collapse_cases() -> list[Case]:
    return [
        ("8 classes, scale 16, no margin: log 8", (8, 16.0, 0.0)),
        ("8 classes, scale 16, margin 1", (8, 16.0, 1.0)),
        ("8 classes, scale 64, margin 0.5", (8, 64.0, 0.5)),
        ("85,742 classes, scale 64, margin 0.5", (85_742, 64.0, 0.5)),
    ]


_COLLAPSE_MISTAKES: list[Mistake] = [
    (lambda c, s, m: np.log(c), "the own class has a margin: its logit is s cos(pi + m), the "
                                "others' are s cos(pi)"),
    (lambda c, s, m: np.log1p((c - 1) * np.exp(s * (1 - np.cos(m)))),
     "the sign: cos(pi + m) = -cos m is larger than cos(pi) = -1, so the own class wins"),
    (lambda c, s, m: np.log1p(c * np.exp(-s * (1 - np.cos(m)))),
     "the own class counts once: there are C - 1 others"),
    (lambda c, s, m: np.log1p((c - 1) * np.exp(-(1 - np.cos(m)))), "the scale is missing"),
    (lambda c, s, m: 1 / (1 + (c - 1) * np.exp(-s * (1 - np.cos(m)))),
     "that is the own class's probability; the loss is minus its logarithm"),
    (lambda c, s, m: np.log1p((c - 1) * np.exp(-s * (1 + np.cos(m)))),
     "the rows lie opposite to the centres: the others' cosine is -1, not 1, and the own one is "
     "cos(pi + m) = -cos m"),
    (lambda c, s, m: np.log1p((c - 1) * np.exp(-s * m)),
     "the margin is added to the angle, not to the logit: cos(pi + m)"),
    (lambda c, s, m: np.log1p((c - 1) * np.exp(s * m * np.sin(m))),
     "that is the guarded form, cos(theta) - m sin(m); here the guard is off"),
]


def _margin_factor(cosine: np.ndarray, margin: float, form: str) -> np.ndarray:
    if form == "straight_through":
        return np.ones_like(cosine)
    exact = np.cos(margin) + cosine * np.sin(margin) / np.sqrt(1 - cosine**2)
    return exact if form == "exact" else np.where(cosine < -np.cos(margin), 1.0, exact)


def _factor_cases() -> list[Case]:
    every = np.cos(np.radians([5.0, 45.0, 90.0, 150.0, 170.0]))
    return [
        ("at 90 degrees, margin 0.5: cos 0.5", (np.zeros(1), 0.5, "exact")),
        ("from 5 to 170 degrees, exact", (every, 0.5, "exact")),
        ("the same, straight-through", (every, 0.5, "straight_through")),
        ("the same, guarded: 170 degrees lie past pi - 0.5", (every, 0.5, "guarded")),
        ("margin 1, guarded: 150 degrees as well", (every, 1.0, "guarded")),
    ]


def _sines(cosine: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    theta = np.arccos(cosine)
    return np.sin(theta), np.sin(theta + margin)


_FACTOR_MISTAKES: list[Mistake] = [
    (lambda c, m, f: _margin_factor(c, -m, f) if f == "exact" else (
        np.where(c < -np.cos(m), 1, _margin_factor(c, -m, "exact")) if f == "guarded"
        else np.ones_like(c)),
     "the sign of the second term: d sin(theta) / d cos(theta) = -cos / sin, and it stands behind "
     "a minus"),
    (lambda c, m, f: _margin_factor(c, m, "exact"),
     "the form is not looked at: straight-through passes the gradient on, with factor 1"),
    (lambda c, m, f: _margin_factor(c, m, "exact" if f == "guarded" else f),
     "guarded: past theta = pi - m the target is cos(theta) - m sin(m), whose slope is 1"),
    (lambda c, m, f: np.ones_like(c) if f == "straight_through" else np.where(
        (c > -np.cos(m)) & (f == "guarded"), 1, _margin_factor(c, m, "exact")),
     "the guard is on the wrong side: it takes over where theta is larger than pi - m"),
    (lambda c, m, f: np.ones_like(c), "that is straight-through in all three"),
    (lambda c, m, f: -_sines(c, m)[1],
     "that is the slope over the angle; over the cosine it is divided by -sin(theta)"),
    (lambda c, m, f: _sines(c, m)[0] / _sines(c, m)[1],
     "upside down: sin(theta + m) / sin(theta)"),
    (lambda c, m, f: c * np.cos(m) - np.sqrt(1 - c**2) * np.sin(m),
     "that is the target itself, cos(theta + m); asked for is its slope"),
    (lambda c, m, f: np.ones_like(c) * np.cos(m),
     "sin(theta) depends on cos(theta) as well: its slope is missing"),
]


def _scale_needed(classes: int, probability: float) -> float:
    odds = probability / (1 - probability)
    return float((classes - 1) / classes * np.log((classes - 1) * odds))


def _scale_cases() -> list[Case]:
    return [
        ("2 classes, probability 0.9: log(9) / 2", (2, 0.9)),
        ("8 classes, probability 0.99", (8, 0.99)),
        ("85,742 classes, probability 0.999", (85_742, 0.999)),
    ]


_SCALE_MISTAKES: list[Mistake] = [
    (lambda c, p: np.log((c - 1) * p / (1 - p)),
     "the others lie at cosine -1 / (C - 1), not 0: that gives the factor (C - 1) / C"),
    (lambda c, p: c / (c - 1) * np.log((c - 1) * p / (1 - p)),
     "the factor is upside down: the gap in cosine is C / (C - 1), and s is divided by it"),
    (lambda c, p: (c - 1) / c * np.log(c * p / (1 - p)), "there are C - 1 other classes, not C"),
    (lambda c, p: (c - 1) / c * np.log(p / (1 - p)),
     "that is one other class; C - 1 of them share the rest of the probability"),
    (lambda c, p: (c - 1) / c * np.log((c - 1) * p),
     "probability against what the others have together: p / (1 - p)"),
    (lambda c, p: (c - 1) / c * np.log10((c - 1) * p / (1 - p)),
     "the natural logarithm, because the loss has e"),
]
