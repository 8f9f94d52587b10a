"""Figures and words about relations: how teacher and student see each pair of pictures.

Huang, Wu, Xu, Ding, "Evaluation-oriented Knowledge Distillation for Deep Face Recognition", CVPR
2022, figures 1 and 2. Nothing is computed here that a loss computes: similarities, thresholds and
which pairs are critical (eq. 5 of the paper) come from the caller.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from kdlab.plots.faces import contact_sheet
from kdlab.plots.style import GENUINE, GREY, IMPOSTOR, INK, figure

LIMIT = 1500  # pairs in one map: a front end redraws that many marks without a delay; ours
LABEL = 0.07, 0.04  # room of one threshold's label, in widths and heights of the axes; ours
STRIP = 0.16  # of the data's span, left free beside the data for these labels; ours
LOOKS = {True: (GENUINE, "circle", "same person"), False: (IMPOSTOR, "diamond", "two people")}


def relation_map(
    teacher: np.ndarray,
    student: np.ndarray,
    genuine: np.ndarray,
    teacher_thresholds: np.ndarray,
    student_thresholds: np.ndarray,
    fprs: Sequence[float],
    *,
    critical: np.ndarray,
    limit: int = LIMIT,
    title: str = "How teacher and student see each pair",
) -> go.Figure:
    """Each pair a point: the teacher's similarity across, the student's up, thresholds dashed.

    teacher, student: (N,) cosine similarities of the same pairs.   genuine: (N,) bool, one person.
    teacher_thresholds, student_thresholds: (K,) at the false-positive rates `fprs` (fractions).
    critical: (N,) bool, pairs that some threshold parts (EKD's eq. 5): drawn filled, the others
    open and faint.   limit: points at most; critical pairs come first, and the subtitle says what
    is shown.   A point's `customdata` is its pair number.
    Raises ValueError for arrays that do not fit together, are empty or not finite.
    """
    teacher, student, genuine, critical = _pairs(teacher, student, genuine, critical)
    lines = _thresholds(teacher_thresholds, student_thresholds, fprs)
    chosen = sample(genuine, critical, limit)
    fig = figure(title, _told(len(teacher), chosen, critical), width=680, height=640)
    for parted in (False, True):  # critical pairs lie on top
        for same, (ink, symbol, name) in LOOKS.items():
            rows = chosen[(genuine[chosen] == same) & (critical[chosen] == parted)]
            if not len(rows):
                continue
            style = {"symbol": symbol, "size": 9, "line": {"color": INK, "width": 0.8}}
            faint = {"symbol": f"{symbol}-open", "size": 5, "line": {"width": 1}}
            told = f"<br>{name}, {'' if parted else 'not '}critical<br>"
            fig.add_scatter(
                x=teacher[rows], y=student[rows], mode="markers", customdata=rows,
                name=f"{name}, {'critical' if parted else 'other'} ({len(rows):,})",
                marker={"color": ink} | (style if parted else faint),
                hovertemplate=f"pair %{{customdata}}{told}teacher %{{x:.3f}}, "
                              "student %{y:.3f}<extra></extra>",
            )  # fmt: skip
    every = np.concatenate([teacher[chosen], student[chosen], *lines])
    low, high = float(every.min()), float(every.max())
    span = max(high - low, 1e-3)  # one pair, or all alike: still a range
    ends = [low - 0.04 * span, high + STRIP * span]
    fig.update_xaxes(title_text="teacher, cosine similarity", range=ends)
    fig.update_yaxes(title_text="student, cosine similarity", range=ends)
    for side, values in zip("xy", lines, strict=True):
        _lines(fig, side, values, fprs, ends)
    return fig.update_layout(margin_t=74, legend={"orientation": "h", "x": 0, "y": -0.14,
                                                  "yanchor": "top"})  # fmt: skip


def sample(genuine: np.ndarray, critical: np.ndarray, limit: int) -> np.ndarray:
    """Numbers of at most `limit` pairs, ascending: critical ones first, then as many of each kind.

    genuine, critical: (N,) bool.   Where critical pairs alone fill the map, a fifth stays for the
    others, so that it shows what they differ from. Within a kind the pairs are taken at even steps
    of their number.
    """
    taken = []
    spare = min(limit // 5, int((~critical).sum()))
    for parted in (True, False):
        kinds = [np.flatnonzero((genuine == same) & (critical == parted)) for same in LOOKS]
        kinds.sort(key=len)
        for left, rows in zip((2, 1), kinds, strict=True):
            room = limit - spare * parted - sum(map(len, taken))
            count = min(len(rows), room // left)
            taken.append(rows[np.arange(count) * len(rows) // max(count, 1)])
    return np.sort(np.concatenate(taken))


def pair_kinds(
    student: np.ndarray, genuine: np.ndarray, critical: np.ndarray, most: int = 50
) -> dict[str, np.ndarray]:
    """Kind of pair -> the numbers of its first `most` pairs, the student's worst ones first.

    student: (N,) similarities.   genuine, critical: (N,) bool.   A kind without a pair is left out.
    """
    student, genuine, critical = map(np.asarray, (student, genuine, critical))
    up, down = np.argsort(student, kind="stable"), np.argsort(-student, kind="stable")
    kinds = {
        "critical, same person": up[(genuine & critical)[up]],
        "critical, two people": down[(~genuine & critical)[down]],
        "least similar, same person": up[genuine[up]],
        "most similar, two people": down[~genuine[down]],
    }
    return {kind: numbers[:most] for kind, numbers in kinds.items() if len(numbers)}


def pair_words(
    number: int, teacher: np.ndarray, student: np.ndarray, genuine: np.ndarray,
    teacher_thresholds: np.ndarray, student_thresholds: np.ndarray, fprs: Sequence[float], *,
    critical: np.ndarray,
) -> str:  # fmt: skip
    """One pair in words: who it is, both similarities, and the thresholds each of them passes.

    "pair 12: same person, critical; teacher 0.61 passes FPR 1e-1 and 1e-2, ...". For the
    arguments see `relation_map`.
    """
    seen = {"teacher": (teacher, teacher_thresholds), "student": (student, student_thresholds)}
    told = [f"pair {number}: {LOOKS[bool(genuine[number])][2]}, "
            f"{'' if critical[number] else 'not '}critical"]  # fmt: skip
    for name, (similarity, thresholds) in seen.items():
        value = float(similarity[number])
        passed = [rate(f) for f, t in zip(fprs, thresholds, strict=True) if value > t]
        which = f"FPR {', '.join(passed)}" if passed else "no threshold"
        which = f"all {len(passed)} thresholds" if 1 < len(passed) == len(fprs) else which
        told.append(f"{name} {value:.2f} passes {which}")
    return "; ".join(told)


def pair_view(
    kind: str, rank: int, kinds: Mapping[str, Sequence[int]], pairs: np.ndarray, faces: np.ndarray,
    **relations,
) -> go.Figure:  # fmt: skip
    """The two faces of one pair, its words above them.

    kind, rank: which of `kinds` (see `pair_kinds`), counted from 0; past the end means the last.
    pairs: (N, 2) row numbers into faces (M, 3, S, S) uint8.   relations: `pair_words`'s arguments.
    """
    numbers = kinds[kind]
    rank = min(int(rank), len(numbers) - 1)
    number = int(numbers[rank])
    name, _, rest = pair_words(number, **relations).partition("; ")
    fig = contact_sheet(faces[list(pairs[number])], 2, gap=4, subtitle=rest,
                        title=f"{name} ({rank + 1} of {len(numbers)})")  # fmt: skip
    grown = max(760 - fig.layout.width, 0)  # room for the words on narrow faces
    return fig.update_layout(width=fig.layout.width + grown,
                             margin_r=fig.layout.margin.r + grown)  # fmt: skip


def pair_sheet(
    chosen: Mapping[str, int], pairs: np.ndarray, faces: np.ndarray, *, teacher: np.ndarray,
    student: np.ndarray, **_,
) -> go.Figure:  # fmt: skip
    """Some pairs in print, a row each: heading -> pair number, similarities above the faces.

    pairs: (N, 2) row numbers into faces (M, 3, S, S) uint8.   teacher, student: (N,).
    """
    numbers = list(chosen.values())
    told = [words for n in numbers
            for words in (f"teacher {teacher[n]:.2f}", f"student {student[n]:.2f}")]  # fmt: skip
    return contact_sheet(faces[np.asarray(pairs)[numbers].ravel()], 2, list(chosen), told,
                         title="Some of the pairs behind the points")  # fmt: skip


def rate(fpr: float) -> str:
    """0.001 -> "1e-3"."""
    digits, exponent = f"{fpr:e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def _pairs(teacher, student, genuine, critical) -> tuple[np.ndarray, ...]:
    teacher, student = (np.asarray(v, np.float32) for v in (teacher, student))
    genuine, critical = (np.asarray(v, bool) for v in (genuine, critical))
    shapes = {v.shape for v in (teacher, student, genuine, critical)}
    if shapes != {(teacher.size,)} or not teacher.size:
        raise ValueError(
            f"teacher {teacher.shape}, student {student.shape}, genuine {genuine.shape} and "
            f"critical {critical.shape} must be (N,), one value for each pair"
        )
    for name, values in (("teacher", teacher), ("student", student)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} similarities hold a value that is not finite; leave it out")
    return teacher, student, genuine, critical


def _thresholds(teacher, student, fprs) -> tuple[np.ndarray, np.ndarray]:
    lines = tuple(np.asarray(v, np.float64) for v in (teacher, student))
    if {v.shape for v in lines} != {(len(fprs),)}:
        raise ValueError(f"teacher_thresholds {lines[0].shape} and student_thresholds "
                         f"{lines[1].shape} must be (K,), one for each of {len(fprs)} FPRs")
    return lines


def _told(total: int, chosen: np.ndarray, critical: np.ndarray) -> str:
    shown, parted, all_parted = len(chosen), int(critical[chosen].sum()), int(critical.sum())
    pairs = f"all {total:,} pairs" if shown == total else f"{shown:,} of {total:,} pairs"
    bold = f"all {parted:,}" if parted == all_parted else f"{parted:,} of {all_parted:,}"
    return (f"{pairs}, among them {bold} critical ones (filled)<br>"
            "dashed: thresholds, labelled with their FPR; a pair above one is accepted")


def _lines(fig: go.Figure, side: str, values: np.ndarray, fprs, ends: list[float]) -> None:
    """Dashed lines across the data and their labels in the free strip, each clear of the next."""
    order = np.argsort(values, kind="stable")
    room = LABEL["xy".index(side)]
    wide = ends[1] - ends[0]
    spots = spread(values[order], room * wide, ends[0] + room * wide / 2, ends[1])
    other = "yx"["xy".index(side)]
    ref = {f"{side}ref": side, f"{other}ref": f"{other} domain"}
    line = {"color": GREY, "width": 1.2}
    edge, text = (0.91, 0.95) if side == "x" else (0.91, 0.935)  # of the axes: leader, label
    for k, spot in zip(order, spots, strict=True):
        at = float(values[k])
        parts = [(at, at, 0, edge, "dash"), (at, float(spot), edge, text, "solid")]
        for start, end, low, high, dash in parts:
            fig.add_shape(type="line", line=line | {"dash": dash}, layer="below", **ref,
                          **{f"{side}0": start, f"{side}1": end, f"{other}0": low,
                             f"{other}1": high})  # fmt: skip
        fig.add_annotation(text=rate(fprs[k]), showarrow=False, font={"size": 11}, **ref,
                           **{side: float(spot), other: text},
                           xanchor="center" if side == "x" else "left", xshift=3 * (side == "y"),
                           yanchor="bottom" if side == "x" else "middle")  # fmt: skip


def spread(values: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Places near ascending `values`, `gap` apart, inside low..high where that has room.

    Runs of labels that would touch are laid out side by side around their common middle.
    """
    runs = [[float(v), 1] for v in values]  # middle, number of labels
    k = 0
    while k < len(runs):
        middle, count = runs[k]
        half = gap * (count - 1) / 2
        runs[k][0] = min(max(middle, low + half), high - half)
        if k and runs[k][0] - half < runs[k - 1][0] + gap * (runs[k - 1][1] + 1) / 2 - 1e-12:
            before, more = runs.pop(k - 1)
            k -= 1
            runs[k] = [(before * more + middle * count) / (more + count), more + count]
        else:
            k += 1
    return np.array([middle + gap * (i - (count - 1) / 2) for middle, count in runs
                     for i in range(count)])  # fmt: skip
