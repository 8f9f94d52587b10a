"""What every figure owes its reader: named axes, a picture, no upload, few bytes."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from kdlab import plots
from kdlab.plots.show import PLOTLY

RNG = np.random.default_rng(0)
GENUINE, IMPOSTOR = RNG.normal(0.5, 0.15, 300), RNG.normal(0, 0.1, 5000)
FPR = np.linspace(0, 1, 2001)
CURVES = {"arcface": (FPR, FPR**0.4), "ekd": (FPR, FPR**0.2), "mine": (FPR, FPR**0.3)}
BANDS = {"ekd": (FPR**0.25, FPR**0.15)}
ROWS = [("ekd", 1.0, 0.2, 1.8), ("rkd", -0.5, -1.5, 0.5), ("mine", 0.1, -0.1, 0.3)]
FACES = RNG.integers(0, 255, (6, 3, 48, 48), dtype=np.uint8)
STEP = np.arange(20)
LOG = {"step": STEP, "loss": 5 - 0.1 * STEP, "lr": RNG.random((3, 20)), "gap": [np.nan] * 19 + [1]}
AXES = {
    "score_histograms": lambda: plots.score_histograms(GENUINE, IMPOSTOR, {"here": 0.3}),
    "log counts": lambda: plots.score_histograms(GENUINE, IMPOSTOR, 0.3, log_counts=True),
    "threshold_view": lambda: plots.threshold_view(GENUINE, IMPOSTOR, 0.3, 0.9, 0.01),
    "roc": lambda: plots.roc(CURVES, BANDS, 1e-3, [("ekd", 1e-2, 0.4, 0.35, 0.45)]),
    "history": lambda: plots.history(LOG, units={"gap": "%"}),
    "multiples": lambda: plots.multiples(
        {str(t): plots.threshold_view(GENUINE, IMPOSTOR, t, 0.9, 0.01) for t in (0.2, 0.3, 0.4)}
    ),
}
PICTURES = {
    "interval_plot": lambda: plots.interval_plot(ROWS, "percentage points"),
    "contact_sheet": lambda: plots.contact_sheet(FACES, 3, ["a", "b"], ["x", "y", "z"]),
    "titled sheet": lambda: plots.contact_sheet(FACES, 3, titles=list("abcdef")),
    "pair_grid": lambda: plots.pair_grid(FACES[:3], FACES[3:], [0.1, 0.2, 0.3], "impostor"),
}


@pytest.mark.parametrize("name", AXES | PICTURES)
def test_figure_has_a_title_a_picture_and_no_upload(name):
    fig = (AXES | PICTURES)[name]()
    assert fig.layout.title.text
    data, _ = plots.bundle(fig, "words")
    assert data[PLOTLY]["config"]["showSendToCloud"] is False
    image = base64.b64decode(data["image/png"])
    shades = np.asarray(Image.open(io.BytesIO(image)).convert("L"))
    assert shades.shape == (fig.layout.height or 420, fig.layout.width or 760)
    assert shades.std() > 1  # not one flat colour
    assert len(image) < 300_000
    assert len(json.dumps(data[PLOTLY])) < 300_000


@pytest.mark.parametrize("name", AXES)
def test_every_axis_says_what_it_measures(name):
    fig = AXES[name]()
    axes = [fig.layout[key] for key in fig.layout.to_plotly_json() if key[1:5] == "axis"]
    assert axes and all(axis.title.text for axis in axes)


def test_histograms_hold_all_pairs_and_their_uncertainty():
    fig = plots.score_histograms(GENUINE, IMPOSTOR)
    lines = [trace for trace in fig.data if trace.showlegend is not False]
    bands = [trace for trace in fig.data if trace.showlegend is False]
    assert len(lines) == len(bands) == 2
    for line in lines:
        assert np.sum(line.y[::2]) == pytest.approx(100)
    for line, band in zip(lines, bands, strict=True):
        low, high = np.split(np.asarray(band.y), 2)
        assert (low <= line.y + 1e-4).all() and (line.y <= high[::-1] + 1e-4).all()


def test_histograms_refuse_nothing_and_nan():
    for bad in ([], [0.1, np.nan]):
        with pytest.raises(ValueError, match="impostor"):
            plots.score_histograms(GENUINE, np.array(bad))


def test_score_range_and_finest_fpr():
    assert plots.score_range(np.array([2.0, 4.0]), np.array([0.0, 0.0])) == (0.0, 1.5, 4.0)
    assert plots.finest_fpr(np.zeros(50)) == 0.02


def test_roc_is_logarithmic_thin_and_greys_what_is_not_supported():
    fpr = np.arange(1, 50_001) / 50_000
    fig = plots.roc({"ekd": (fpr, np.sqrt(fpr))}, supported=1e-3)
    assert fig.layout.xaxis.type == "log"
    assert len(fig.data[0].x) <= 700 and fig.data[0].x[-1] == 1
    expected = np.sqrt(np.asarray(fig.data[0].x, float))
    np.testing.assert_allclose(fig.data[0].y, expected, rtol=1e-5)
    assert fig.layout.shapes[0].x1 == 1e-3
    assert 10 ** fig.layout.xaxis.range[0] < 1e-3


def test_roc_keeps_the_colour_of_a_method():
    fig = plots.roc(CURVES, BANDS)
    colors = {trace.name: trace.line.color for trace in fig.data if trace.showlegend is not False}
    assert colors["EKD"] == plots.METHODS["ekd"].color
    with pytest.raises(ValueError, match="'flat'"):
        plots.roc({"flat": ([0.0, 0.0], [0.0, 1.0])})


def test_interval_plot_fills_what_excludes_zero_and_checks_rows():
    fig = plots.interval_plot(ROWS, "percentage points")
    assert [trace.marker.symbol.endswith("-open") for trace in fig.data] == [False, True, True]
    assert "percentage points" in fig.layout.xaxis.title.text
    assert fig.layout.yaxis.range[0] > fig.layout.yaxis.range[1]  # the first row on top
    with pytest.raises(ValueError, match="no rows"):
        plots.interval_plot([], "x")
    with pytest.raises(ValueError, match="'a'"):
        plots.interval_plot([("a", 3, 0, 1)], "x")


def test_history_draws_one_panel_a_quantity_and_the_spread_of_seeds():
    fig = plots.history(LOG, {"losses": ["loss"], "rate": ["lr"]})
    assert [note.text for note in fig.layout.annotations] == ["losses", "rate"]
    assert [trace.fill for trace in fig.data] == [None, "toself", None]
    np.testing.assert_allclose(fig.data[2].y, LOG["lr"].mean(0))
    with pytest.raises(ValueError, match="'nope'"):
        plots.history(LOG, ["nope"])


def test_a_logged_nan_is_left_out():
    fig = plots.history(LOG, ["gap"])
    assert list(fig.data[0].x) == [19] and fig.data[0].mode == "markers"


def shown(fig) -> np.ndarray:
    source = fig.data[0].source.split(",", 1)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB"))


def test_contact_sheet_holds_the_very_pixels():
    sheet = shown(plots.contact_sheet(FACES, 3, gap=2))
    assert sheet.shape == (98, 148, 3)
    assert (sheet[:48, :48] == FACES[0].transpose(1, 2, 0)).all()
    assert (sheet[50:, 100:] == FACES[5].transpose(1, 2, 0)).all()
    assert (sheet[48:50] == 255).all()


def test_contact_sheet_of_large_faces_fits_a_notebook():
    faces = np.zeros((8, 3, 224, 224), np.uint8)
    assert plots.contact_sheet(faces, 8).layout.width <= 1024


def test_the_png_of_a_sheet_shows_the_pixels_unblurred():
    faces = np.zeros((2, 3, 48, 48), np.uint8)
    faces[0, 0] = 255
    image = np.asarray(Image.open(io.BytesIO(plots.png(plots.contact_sheet(faces, 2)))))
    red = (image == (255, 0, 0)).all(axis=2)
    assert red.sum() >= (2 * 48 - 2) ** 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: plots.contact_sheet(FACES.astype(float), 3),
        lambda: plots.contact_sheet(FACES.transpose(0, 2, 3, 1), 3),
        lambda: plots.contact_sheet(FACES[:0], 3),
        lambda: plots.contact_sheet(FACES, 3, row_labels=["one"]),
        lambda: plots.contact_sheet(FACES, 0),
        lambda: plots.pair_grid(FACES[:2], FACES[2:], [0.1, 0.2], "x"),
    ],
)
def test_faces_that_cannot_be_shown_are_refused(call):
    with pytest.raises(ValueError):
        call()


def test_pair_grid_says_what_each_pair_is():
    words = ["genuine, rejected", "impostor, accepted"]
    fig = plots.pair_grid(FACES[:2], FACES[2:4], np.array([0.21, 0.83]), words)
    assert [note.text for note in fig.layout.annotations] == [
        "genuine, rejected<br>similarity 0.21",
        "impostor, accepted<br>similarity 0.83",
    ]


def test_multiples_moves_shapes_to_their_own_panel():
    figs = {f"t {t}": plots.threshold_view(GENUINE, IMPOSTOR, t, 0.9, 0.01) for t in (0.1, 0.3)}
    fig = plots.multiples(figs)
    assert [(s.xref, s.x0) for s in fig.layout.shapes] == [("x", 0.1), ("x2", 0.3)]
    assert [s.yref for s in fig.layout.shapes] == ["y domain", "y2 domain"]
    assert sum(trace.showlegend is not False for trace in fig.data) == 2
    one = plots.threshold_view(GENUINE, IMPOSTOR, 0.1, 0.9, 0.01)
    assert plots.multiples({"alone": one}) is one
    with pytest.raises(ValueError, match="several subplots"):
        plots.multiples({"a": plots.history(LOG), "b": one})
    with pytest.raises(ValueError, match="no figures"):
        plots.multiples({})


def test_rows_of_one_method_share_its_look():
    rows = [("adadistill, FPR 1e-2", 1, 0.5, 2), ("ekd", 0, -1, 1),
            ("adadistill, FPR 1e-3", 3, 2, 4)]
    fig = plots.interval_plot(rows, "points")
    first, other, second = (trace.marker.color for trace in fig.data)
    assert first == second != other
    assert [trace.name for trace in fig.data] == ["AdaDistill, FPR 1e-2", "EKD",
                                                  "AdaDistill, FPR 1e-3"]


def test_rows_that_are_no_methods_share_one_plain_look():
    fig = plots.interval_plot([("mask", 1, 0.5, 2), ("ekd", 2, 1, 3), ("age", 0, -1, 1)], "cosine")
    mask, ekd, age = fig.data
    assert mask.marker.color == age.marker.color != ekd.marker.color == plots.METHODS["ekd"].color
    assert (mask.marker.symbol, age.marker.symbol) == ("circle", "circle-open")
    assert mask.marker.color not in {look.color for look in plots.METHODS.values()}


def sizes_of_red(fig) -> list[tuple[int, int]]:
    """Height and width, in the PNG, of each red patch from left to right."""
    image = np.asarray(Image.open(io.BytesIO(plots.png(fig))).convert("RGB")).astype(int)
    red = np.abs(image - (255, 0, 0)).max(axis=2) < 12
    edges = np.flatnonzero(np.diff(np.pad(red.any(0), 1).astype(int)))
    return [(int(red[:, a:b].any(1).sum()), int(b - a)) for a, b in zip(edges[::2], edges[1::2],
                                                                      strict=True)]  # fmt: skip


@pytest.mark.parametrize("rows", [1, 2])
def test_multiples_keep_the_shape_of_pictures(rows):
    faces = np.zeros((rows, 3, 100, 100), np.uint8)
    faces[:, 0] = 255
    fig = plots.multiples({k: plots.contact_sheet(faces, 1, gap=0) for k in ("one", "two")})
    found = sizes_of_red(fig)
    assert len(found) == 2
    for high, wide in found:
        assert wide > 150 and abs(high - rows * wide) <= 4


def test_multiples_write_each_title_where_they_differ():
    figs = {k: plots.contact_sheet(FACES[:1], 1, title=f"person {k}") for k in "ab"}
    fig = plots.multiples(figs)
    assert [note.text for note in fig.layout.annotations] == ["<b>a</b><br>person a",
                                                              "<b>b</b><br>person b"]
    assert not fig.layout.title.text
    named = plots.multiples(figs, "two people")
    assert named.layout.title.text == "two people"
    assert named.layout.annotations[0].text == "<b>a</b>"


def test_a_panels_axis_title_stays_clear_of_its_neighbour():
    figs = {k: plots.roc(CURVES) for k in ("one", "two")}
    fig = plots.multiples(figs)
    inside = fig.layout.width - fig.layout.margin.l - fig.layout.margin.r
    gap = inside * (fig.layout.xaxis2.domain[0] - fig.layout.xaxis.domain[1])
    assert gap >= 80  # 20 of title, 40 of ticks, 20 for half of the neighbour's last label
    assert "<br>" in fig.layout.xaxis.title.text
