import base64
import importlib
import io
import json
import subprocess
import sys

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

from kdlab.plots import CONFIG, METHODS, bundle, figure, looks, save_png, show
from kdlab.plots.show import PLOTLY

FIG = go.Figure(go.Scatter(x=[1, 2], y=[1, 2]))


def test_bundle_carries_chart_picture_and_words():
    data, metadata = bundle(FIG, "a rising line", "my figure")
    assert set(data) == {PLOTLY, "image/png", "text/plain"}
    assert data["text/plain"] == metadata["image/png"]["alt"] == "a rising line"
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert image.text["Description"] == "a rising line"
    assert np.asarray(image.convert("L")).std() > 1
    assert metadata["kdlab"] == {"name": "my figure"}
    assert data[PLOTLY]["config"]["toImageButtonOptions"] == {"filename": "my-figure"}
    json.dumps(data)


def test_upload_is_off_in_the_bundle():
    config = bundle(FIG, "words")[0][PLOTLY]["config"]
    assert config["showSendToCloud"] is False
    assert config["plotlyServerURL"] == ""
    assert {"sendChartToCloud", "zoomIn2d", "lasso2d"} <= set(config["modeBarButtonsToRemove"])


def test_upload_is_off_for_plain_plotly_renderers_too():
    for name in ("plotly_mimetype", "vscode", "notebook", "browser"):
        assert pio.renderers[name].config.items() >= CONFIG.items()
    made = pio.renderers["plotly_mimetype"].to_mimebundle(FIG.to_dict())
    assert made[PLOTLY]["config"]["showSendToCloud"] is False


ASKED_FOR = {"renderers": "pio.renderers", "a figure": "go.Figure()._repr_mimebundle_()",
             "held before": "renderers"}  # fmt: skip


@pytest.mark.parametrize("way", ASKED_FOR)
def test_importing_plots_makes_no_renderer_and_yet_each_is_safe(way):
    code = f"""
import json, sys
import plotly.graph_objects as go, plotly.io as pio
if {way == "held before"}: from plotly.io import renderers
import kdlab.plots
print(sorted({{"nbformat", "jsonschema", "plotly.io._renderers"}} & set(sys.modules)))
{ASKED_FOR[way]}
from plotly.io._renderers import renderers
print(json.dumps([r.config for _, r in renderers.items() if hasattr(r, "config")]))
"""
    made, configs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                                   check=True).stdout.splitlines()  # fmt: skip
    assert way == "held before" or made == "[]"
    configs = json.loads(configs)
    assert len(configs) > 10 and all(c.items() >= CONFIG.items() for c in configs)


def test_a_renderer_made_later_is_safe_when_it_shows():
    late = type(pio.renderers["json"])()
    late.config = {"showSendToCloud": True}
    pio.renderers["late"] = late
    assert pio.renderers["late"].config["showSendToCloud"] is False
    del pio.renderers._renderers["late"]  # plotly's own `del` asks for an attribute it lacks


def test_no_address_of_the_network_in_an_output():
    assert "http" not in json.dumps(bundle(FIG, "words")[0][PLOTLY])


@pytest.mark.parametrize("alt", ["", "  ", None])
def test_a_figure_without_words_is_refused(alt):
    with pytest.raises(ValueError, match="alt"):
        show(FIG, alt)


def test_show_makes_a_picture_and_its_words_in_a_kernel(monkeypatch):
    seen = []
    monkeypatch.setattr(InteractiveShell, "initialized", classmethod(lambda cls: True))
    module = importlib.import_module("kdlab.plots.show")  # the name kdlab.plots.show is a function
    monkeypatch.setattr(module, "display", lambda *args, **kw: seen.append((args, kw)))
    assert show(FIG, "a < b") is None
    (picture, spoken), told = zip(*((args[0], kw) for args, kw in seen), strict=True)
    assert [kw["raw"] for kw in told] == [True, True]
    assert PLOTLY in picture and set(spoken) == {"text/html"}
    assert ">Figure: a &lt; b</p>" in spoken["text/html"]
    assert "display" not in spoken["text/html"]  # display: none would silence it


def test_the_chart_is_as_large_as_its_picture():
    """JupyterLab makes a chart without a height 360 px high and as wide as the page."""
    for fig in (FIG, figure("A title"), figure("A title", width=300, height=280)):
        data = bundle(fig, "words")[0]
        image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
        assert (data[PLOTLY]["layout"]["width"], data[PLOTLY]["layout"]["height"]) == image.size


def test_show_outside_a_kernel_says_the_words(capsys):
    show(FIG, "a rising line")
    assert capsys.readouterr().out == "a rising line\n"


def test_save_png(tmp_path):
    save_png(FIG, tmp_path / "a.png", "a rising line", scale=2)
    image = Image.open(tmp_path / "a.png")
    assert image.size == (1400, 900)
    assert np.asarray(image).std() > 0


def test_no_two_methods_look_alike():
    assert len({look[:3] for look in METHODS.values()}) == len(METHODS)
    assert len({look.color for look in METHODS.values()}) == len(METHODS)


def test_looks_knows_spellings_and_keeps_strangers_apart():
    made = looks(["AdaDistill", "feature-only", "mine", "yours"])
    assert made["AdaDistill"] == METHODS["adadistill"]
    assert made["feature-only"] == METHODS["feature_only"]
    assert len({look.color for look in made.values()}) == 4
    assert made["mine"].label == "mine"


def test_many_strangers_stay_distinct():
    made = looks([f"run {i}" for i in range(24)])
    assert len({look[:3] for look in made.values()}) == 24
