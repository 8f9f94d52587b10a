"""A face, a changed face, and the curve of their similarity."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from kdlab import plots

RNG = np.random.default_rng(0)
GRID = np.array([-30.0, 0.0, 30.0])
OWN = {"bare": np.array([0.7, 0.9, 0.6]), "mask": np.array([0.4, 0.5, 0.3])}
STRANGERS = np.array([[0.1, 0.2, 0.0], [-0.1, 0.0, 0.3]])
FACES = {name: RNG.integers(0, 255, (3, 3, 32, 32), dtype=np.uint8) for name in OWN}
REFERENCE = RNG.integers(0, 255, (3, 32, 32), dtype=np.uint8)


def view(at=30, variant="bare"):
    return plots.factor_view(GRID, OWN, STRANGERS, FACES, REFERENCE, at, variant, factor="turn",
                             unit="degrees")


def sheet(fig):
    source = fig.data[0].source.split(",", 1)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB"))


@pytest.mark.parametrize("at, k", [(-30, 0), (4, 1), (29, 2), (80, 2)])
def test_the_picture_and_the_mark_follow_the_value(at, k):
    fig = view(at, "mask")
    assert (sheet(fig)[:32] == REFERENCE.transpose(1, 2, 0)).all()
    assert (sheet(fig)[-32:] == FACES["mask"][k].transpose(1, 2, 0)).all()
    mark = fig.data[-1]
    assert (mark.x[0], mark.y[0]) == (GRID[k], OWN["mask"][k])
    assert f"turn {GRID[k]:g} degrees: similarity {OWN['mask'][k]:.2f}" in (
        fig.layout.title.subtitle.text)


def test_the_band_reaches_from_the_lowest_to_the_highest_stranger():
    fig = view()
    shade = next(t for t in fig.data if t.name == "other people, all")
    low, high = np.split(np.asarray(shade.y), 2)
    np.testing.assert_allclose(low, STRANGERS.min(0), atol=1e-6)
    np.testing.assert_allclose(high[::-1], STRANGERS.max(0), atol=1e-6)


def test_variants_differ_in_more_than_colour():
    own = [t for t in view().data if (t.name or "").startswith("same person")]
    assert len({t.line.color for t in own}) == len({t.marker.symbol for t in own}) == 2
    assert len({t.line.dash for t in own}) == 2


def test_axes_are_named_and_the_figure_can_be_printed():
    fig = view()
    assert fig.layout.xaxis2.title.text == "turn (degrees)"
    assert fig.layout.yaxis2.title.text == "cosine similarity"
    assert len(plots.png(fig)) > 5000


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match="no variant 'hat'; there are bare, mask"):
        view(variant="hat")
