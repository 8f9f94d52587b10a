"""Figures about class centres that move: AdaDistill's Figures 3, 4 and 5.

Boutros, Struc, Damer, "AdaDistill: Adaptive Knowledge Distillation for Deep Face Recognition", ECCV
2024. What is drawn comes from the caller; no printed number is in here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.style import (
    BLUE,
    GREY,
    INK,
    METHODS,
    TEMPLATE,
    Look,
    band,
    beads,
    faded,
    figure,
    looks,
)
from kdlab.plots.thresholds import heading

# Figure 5's four runs and our control; the papers' methods as everywhere, the variants ours.
RUNS = {
    "arcface": METHODS["arcface"],
    "arcdistill": METHODS["arcdistill"],
    "alpha": Look(BLUE, "triangle-up", "dot", "AdaDistill, α"),
    "alpha_prime": METHODS["adadistill"]._replace(label="AdaDistill, α′"),
    "means": Look(INK, "x", "dashdot", "fixed class means"),
}
BELOW = {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}
FEWEST, BINS = 12, 50  # bins of a histogram of cosines, the root of the scores between; ours
END = 1.15  # of the axes around a unit circle; ours
SPOTS = 3  # markers on a curve, beside its dash; ours
PANELS = {"momentum": "mean momentum", "loss": "training loss", "rate": "validation people"}


def run_looks(names: Sequence[str]) -> dict[str, Look]:
    """The look of each run: RUNS' own, else a spare one."""
    return {name: RUNS.get(name) or own for name, own in looks(names).items()}


def four_runs(
    runs: Mapping[str, Mapping[str, np.ndarray]],
    *,
    rate: str = "TPR at FPR 1e-3 (%)",
    title: str = "Momentum, loss and rate while training",
    subtitle: str | None = "mean of the seeds, in a band from the lowest to the highest",
) -> go.Figure:
    """AdaDistill's Figure 5 for these runs: the momentum, the loss and the validation rate.

    runs: name -> "step" (T,), "loss" and, of moving centres, "momentum", (T,) or (seeds, T), and
    "validated" (V,) steps with "rate", (V,) or (seeds, V) fractions. Losses of different methods
    have different targets and do not compare.   Raises ValueError without runs, or naming a run
    whose curves do not fit their steps.
    """
    if not runs:
        raise ValueError("there are no runs; nothing to draw")
    fig = make_subplots(1, 3, subplot_titles=list(PANELS.values()), horizontal_spacing=0.09)
    fig.update_annotations(font_size=12)
    look = run_looks(list(runs))
    for column, (part, units) in enumerate(zip(PANELS, ("no unit", "no unit", rate), strict=True)):
        spot = {"row": 1, "col": column + 1}
        for rank, (name, run) in enumerate(runs.items()):
            if part in run:
                steps = np.asarray(run["validated" if part == "rate" else "step"], float)
                values = np.atleast_2d(np.asarray(run[part], float))
                if values.shape[1] != len(steps):
                    raise ValueError(f"run '{name}': {part} has {values.shape[1]} values for "
                                     f"{len(steps)} steps")
                _curve(fig, steps, values, look[name], rank / len(runs), spot)
        if not any(part in run for run in runs.values()):  # an axis without a trace does not exist
            fig.add_scatter(x=[None], y=[None], mode="lines", showlegend=False, **spot)
        words = {"momentum": "share of the old centre kept (no unit)",
                 "loss": "softmax loss (no unit)", "rate": units}[part]
        fig.update_xaxes(title_text="training step", nticks=5, **spot)
        fig.update_yaxes(title_text=words, **spot)
    fig.update_yaxes(range=[0, 1], row=1, col=1)
    fig.update_yaxes(tickformat=".0%", rangemode="tozero", row=1, col=3)
    return fig.update_layout(template=TEMPLATE, title=heading(title, subtitle), width=940,
                             height=430, margin={"t": 96}, legend=BELOW)  # fmt: skip


def timeline(
    steps: np.ndarray,
    curves: Mapping[str, np.ndarray],
    quantity: str,
    *,
    title: str,
    subtitle: str | None = None,
    percent: bool = False,
    x: str = "training step",
) -> go.Figure:
    """Curves over training steps, or over what `x` says, each with a band where it has one.

    steps: (T,).   curves: name -> (T,), or (T, 3): lower end of a band, the curve, upper end.
    quantity: what is up, with its unit.   percent: values are fractions, shown in percent.
    Raises ValueError for a curve that does not fit the steps.
    """
    steps = np.asarray(steps, float)
    fig = figure(title, subtitle)
    for rank, (name, own) in enumerate(run_looks(list(curves)).items()):
        values = np.asarray(curves[name], float)
        if values.shape not in ((len(steps),), (len(steps), 3)):
            raise ValueError(f"curve '{name}' is {values.shape}; give ({len(steps)},) or "
                             f"({len(steps)}, 3)")
        parts = values.T if values.ndim == 2 else values[None]
        _curve(fig, steps, parts, own, rank / len(curves), {}, middle=len(parts) // 2)
    fig.update_xaxes(title_text=x)
    fig.update_yaxes(title_text=quantity, tickformat=".0%" if percent else "")
    return fig.update_layout(legend=BELOW)


def score_shift(
    scores: Mapping[str, np.ndarray],
    *,
    title: str = "Two samples of a person, and a sample and its centre",
    subtitle: str | None = None,
) -> go.Figure:
    """AdaDistill's Figure 3: histograms of cosines, one outline for each kind of score.

    scores: name -> (P,) cosines, at least one.   subtitle: None for the medians.
    Raises ValueError for an empty or non-finite list.
    """
    for name, values in scores.items():
        if not np.size(values) or not np.isfinite(values).all():
            raise ValueError(f"scores '{name}' are empty or not finite; nothing to draw")
    every = np.concatenate([np.ravel(values) for values in scores.values()])
    bins = int(np.clip(min(map(np.size, scores.values())) ** 0.5, FEWEST, BINS))
    edges = np.linspace(every.min(), max(every.max(), every.min() + 1e-6), bins + 1)
    told = "medians: " + ", ".join(f"{name} {np.median(own):.2f}" for name, own in scores.items())
    fig = figure(title, subtitle or told, margin_t=84)
    for rank, (name, own) in enumerate(run_looks(list(scores)).items()):
        share = 100 * np.histogram(scores[name], edges)[0] / np.size(scores[name])
        x, y = np.repeat(edges, 2)[1:-1], np.repeat(share, 2)
        fig.add_scatter(x=x, y=y, mode="lines", name=own.label, legendgroup=name, showlegend=False,
                        line={"color": own.color, "dash": own.dash, "width": 2}, fill="tozeroy",
                        fillcolor=faded(own.color, 0.12),
                        hovertemplate="cosine %{x:.2f}: %{y:.1f} %<extra></extra>")  # fmt: skip
        at = np.array([max(share.argmax() - 4, 0), share.argmax()]) + rank
        at = at.clip(0, bins - 1)
        fig.add_trace(beads((edges[at] + edges[at + 1]) / 2, share[at], own, name))
    fig.update_xaxes(title_text="cosine similarity")
    fig.update_yaxes(title_text="share of the scores in the bin (%)")
    return fig.update_layout(legend=BELOW)


def blend_view(
    teacher: np.ndarray,
    now: np.ndarray,
    student: np.ndarray,
    old: np.ndarray,
    new: np.ndarray,
    fixed: np.ndarray,
    *,
    title: str = "One step of a centre",
    subtitle: str | None = None,
) -> go.Figure:
    """AdaDistill's Figure 4 on a circle: where a class centre goes, and where a fixed one stays.

    teacher: (N, 2) unit embeddings of the class; now: (2,) the one of this step's face; student:
    (2,) what the student says of it; old, new: (2,) the centre before and after the step, shorter
    than 1 where a blend made it so; fixed: (2,) the teacher's class row or mean.
    Raises ValueError for other shapes.
    """
    for name, value, shape in (("teacher", teacher, (len(teacher), 2)), ("now", now, (2,)),
                               ("student", student, (2,)), ("old", old, (2,)), ("new", new, (2,)),
                               ("fixed", fixed, (2,))):  # fmt: skip
        if np.shape(value) != shape:
            raise ValueError(f"{name} should be {shape}, it is {np.shape(value)}")
    angle = np.linspace(0, 2 * np.pi, 181)
    # A panel of `multiples` is as much wider than high: the circle stays one in print.
    fig = figure(title, subtitle, width=660, height=680, margin_t=84)
    fig.add_scatter(x=np.cos(angle), y=np.sin(angle), mode="lines", name="unit circle",
                    line={"color": GREY, "width": 1}, showlegend=False, hoverinfo="skip")
    fig.add_scatter(x=teacher[:, 0], y=teacher[:, 1], mode="markers", name="teacher, the class",
                    marker={"symbol": "circle-open", "size": 8, "color": INK})  # fmt: skip
    fig.add_scatter(x=[old[0], new[0]], y=[old[1], new[1]], mode="lines", name="the step",
                    line={"color": GREY, "width": 2, "dash": "dot"}, showlegend=False,
                    hoverinfo="skip")  # fmt: skip
    shown = {"teacher, this face": (now, INK, "circle"), "student": (student, BLUE, "cross"),
             "centre before": (old, RUNS["alpha_prime"].color, "diamond-open"),
             "centre after": (new, RUNS["alpha_prime"].color, "diamond"),
             "fixed centre": (fixed, RUNS["arcdistill"].color, "square")}  # fmt: skip
    for name, (place, ink, symbol) in shown.items():
        fig.add_scatter(x=[place[0]], y=[place[1]], mode="markers", name=name, hoverinfo="name",
                        marker={"symbol": symbol, "size": 13, "color": ink,
                                "line": {"width": 1.8, "color": ink}})  # fmt: skip
    for update, way, end in ((fig.update_xaxes, 1, 1.21 * END), (fig.update_yaxes, 2, END)):
        update(title_text=f"direction {way} (no unit)", range=[-end, end], nticks=6)
    return fig.update_layout(legend=BELOW | {"y": -0.14})


def _curve(fig: go.Figure, steps: np.ndarray, values: np.ndarray, own: Look, shift: float,
           spot: dict, middle: int | None = None) -> None:
    """One run's curve, its band where it has one, and a few markers between the other runs'."""
    mean = values.mean(0) if middle is None else values[middle]
    if len(values) > 1:
        fig.add_trace(band(steps, values.min(0), values.max(0), own.color, own.label), **spot)
    fig.add_scatter(x=steps.astype(np.float32), y=mean.astype(np.float32), mode="lines",
                    name=own.label, legendgroup=own.label, showlegend=False,
                    line={"color": own.color, "dash": own.dash, "width": 2}, **spot)  # fmt: skip
    at = (np.arange(SPOTS) + 0.1 + 0.8 * shift) / SPOTS * (len(steps) - 1)
    at = np.unique(at.round().astype(int))
    first = not any(t.showlegend is not False and t.name == own.label for t in fig.data)
    fig.add_trace(beads(steps[at], mean[at], own, own.label).update(showlegend=first), **spot)
