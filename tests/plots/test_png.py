"""The PNG twin: every trace kind leaves ink, and what it cannot draw it names."""

import io
import json

import numpy as np
import plotly.graph_objects as go
import pytest
from matplotlib.text import Text
from PIL import Image

from kdlab.plots import TEMPLATE, figure, png
from kdlab.plots.png import _Twin, data_uri, encode


def pixels(fig: go.Figure, **options) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png(fig, **options))).convert("RGB")).astype(int)


def has(fig: go.Figure, rgb: tuple[int, int, int], **options) -> int:
    """How many pixels are that colour, give or take antialiasing."""
    return int((np.abs(pixels(fig, **options) - rgb).max(axis=2) < 12).sum())


RED = {"color": "#FF0000"}
RED_URI = data_uri(encode(Image.new("RGB", (4, 4), (255, 0, 0))))
TRACES = {
    "lines": go.Scatter(x=[1, 2], y=[1, 2], mode="lines", line=RED),
    "dotted": go.Scatter(x=[1, 2], y=[1, 2], mode="lines", line=RED | {"dash": "dot"}),
    "steps": go.Scatter(x=[1, 2, 3], y=[1, 2, 1], mode="lines", line=RED | {"shape": "hv"}),
    "markers": go.Scatter(x=[1, 2], y=[1, 2], mode="markers", marker=RED),
    "open markers": go.Scatter(
        x=[1, 2], y=[1, 2], mode="markers", marker=RED | {"symbol": "star-open", "size": 12}
    ),
    "error bars": go.Scatter(
        x=[1, 2], y=[1, 2], mode="markers", marker={"color": "#00F", "size": 1},
        error_y={"array": [1, 1], "color": "red"}, line=RED,
    ),
    "band": go.Scatter(x=[1, 2, 2, 1], y=[1, 1, 2, 2], fill="toself", fillcolor="rgb(255,0,0)",
                       line_width=0, mode="lines"),
    "area": go.Scatter(x=[1, 2], y=[1, 2], fill="tozeroy", fillcolor="red", mode="none"),
    "scattergl": go.Scattergl(x=[1, 2], y=[1, 2], mode="markers", marker=RED),
    "bar": go.Bar(x=["a", "b"], y=[1, 2], marker=RED),
    "lying bar": go.Bar(y=["a", "b"], x=[1, 2], orientation="h", marker=RED),
    "histogram": go.Histogram(x=[1, 2, 2, 3], marker=RED),
    "heatmap": go.Heatmap(z=[[1, 1], [1, 1]], colorscale=[[0, "red"], [1, "red"]]),
    "image": go.Image(source=RED_URI),
    "image array": go.Image(z=np.full((2, 2, 3), (255, 0, 0), np.uint8)),
    "text": go.Scatter(x=[1], y=[1], mode="text", text=["MMMM"], textfont=RED | {"size": 60}),
}  # fmt: skip


@pytest.mark.parametrize("kind", TRACES)
def test_a_trace_leaves_its_ink(kind):
    fig = go.Figure(TRACES[kind], layout={"template": TEMPLATE})
    assert has(fig, (255, 0, 0)) > 20


def test_size_is_the_layouts_and_scale_multiplies_it():
    fig = go.Figure(TRACES["lines"], layout={"width": 300, "height": 200})
    assert pixels(fig).shape == (200, 300, 3)
    assert pixels(fig, scale=2).shape == (400, 600, 3)


def test_alt_text_is_in_the_file():
    image = Image.open(io.BytesIO(png(go.Figure(TRACES["lines"]), "a red line")))
    assert image.text["Description"] == "a red line"


@pytest.mark.parametrize("trace", [go.Violin(y=[1, 2]), go.Scatter3d(x=[1], y=[1], z=[1])])
def test_an_unknown_trace_is_named(trace):
    with pytest.raises(ValueError, match=f"'{trace.type}'"):
        png(go.Figure(trace))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"sliders": [{"steps": []}]}, "sliders"),
        ({"yaxis2": {"overlaying": "y"}}, "overlaying"),
        ({"shapes": [{"type": "circle", "x0": 1, "x1": 2, "y0": 1, "y1": 2}]}, "circle"),
        ({"xaxis": {"tickformat": "~s"}}, "~s"),
    ],
)
def test_an_unknown_layout_part_is_named(change, word):
    fig = go.Figure(TRACES["lines"], layout=change)
    if "yaxis2" in change:
        fig.add_scatter(x=[1], y=[1], yaxis="y2")
    with pytest.raises(ValueError, match=word):
        png(fig)


def test_an_unknown_marker_is_named():
    fig = go.Figure(go.Scatter(x=[1], y=[1], mode="markers", marker={"symbol": "hourglass"}))
    with pytest.raises(ValueError, match="hourglass"):
        png(fig)


def test_pictures_come_from_the_figure_only():
    fig = go.Figure(go.Image(source="http://example.org/face.png"))
    with pytest.raises(ValueError, match="data:"):
        png(fig)


def test_shapes_use_values_and_annotations_use_powers_on_a_log_axis():
    fig = go.Figure(go.Scatter(x=[1, 1000], y=[0, 1], mode="lines", line={"color": "white"}))
    fig.update_layout(width=400, height=300, showlegend=False, margin=dict.fromkeys("lrtb", 50))
    fig.update_xaxes(type="log", range=[0, 3], showgrid=False)
    fig.update_yaxes(range=[0, 1], showgrid=False)
    fig.add_shape(type="line", x0=10, x1=10, y0=0, y1=1, line={"color": "red"})
    fig.add_annotation(x=2, y=0.5, text="M", showarrow=False, font={"color": "blue", "size": 40})
    image = pixels(fig)
    left, right = (
        np.abs(image - np.array(rgb)).max(axis=2).argmin() % 400
        for rgb in ((255, 0, 0), (0, 0, 255))
    )
    assert abs(left - 150) < 4  # 50 + 300 / 3: the first decade
    assert abs(right - 250) < 25  # 50 + 300 * 2 / 3, half a letter either way


def test_margins_grow_until_long_labels_fit():
    fig = go.Figure(go.Bar(y=["a label much longer than its margin " * 2, "b"], x=[1, 2],
                           orientation="h", marker=RED))  # fmt: skip
    fig.update_layout(width=700, height=200, margin={"l": 10, "r": 10, "t": 10, "b": 10})
    image = pixels(fig)
    assert (image[:, :4] > 240).all()  # nothing is cut off at the rim
    assert (image.min(axis=2) < 100).any(axis=0).argmax() >= 4


def test_a_figure_without_room_says_so():
    fig = go.Figure(TRACES["lines"], layout={"width": 60, "height": 60})
    with pytest.raises(ValueError, match="width"):
        png(fig)


def test_a_figure_restored_from_json_draws_alike():
    fig = go.Figure(go.Scatter(x=np.arange(5.0), y=np.arange(5.0) ** 2, mode="lines"))
    again = go.Figure(json.loads(fig.to_json()))
    assert np.array_equal(pixels(fig), pixels(again))


def texts(fig: go.Figure) -> dict[str, float]:
    """What is written in the twin -> the size of its letters in pixels."""
    twin = _Twin(fig, 1.0)
    twin.draw()
    return {text.get_text(): text.get_fontsize() * twin.dpi / 72
            for text in twin.figure.findobj(Text) if text.get_text() and text.get_visible()}


def test_letters_are_as_large_as_the_layout_says():
    fig = figure("title", "subtitle").add_scatter(
        x=[0, 1], y=[0, 1], name="legend", showlegend=True, mode="lines+text", text=["here", ""])
    fig.add_heatmap(z=[[0.37]], texttemplate="%{z:.2f} z", colorbar={"title": "scale"})
    fig.update_layout(xaxis={"title": "along", "tickvals": [0], "ticktext": ["tick"]})
    fig.add_annotation(x=0.5, y=0.5, text="note", font={"size": 13})
    found = texts(fig)
    nominal = {"title": 15, "subtitle": 12, "legend": 11, "here": 12, "0.37 z": 11, "scale": 12,
               "along": 12, "tick": 12, "note": 13}
    assert {word: found[word] for word in nominal} == pytest.approx(nominal)
    assert min(found.values()) >= 11


def test_a_legend_that_starts_half_way_is_not_cut_off():
    fig = figure("A title", legend={"orientation": "h", "x": 0.4, "y": -0.2, "yanchor": "top"})
    for i in range(5):
        fig.add_scatter(x=[1, 2], y=[i, i], name=f"a name of some length {i}", line=RED)
    image = pixels(fig)
    assert (image[:, -4:] > 240).all()
