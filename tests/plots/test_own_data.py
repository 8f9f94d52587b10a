"""The figures of files and protocols: what they draw, and that they keep the rules."""

import numpy as np
import pytest
from figure_rules import faults

from kdlab.plots.own_data import folds_view, record_view

FIELDS = [("magic", bytes([0x0A, 0x23, 0xD7, 0xCE]), "a chunk begins"),
          ("label", bytes(4), "0"), ("picture", bytes(range(40)), "40 bytes"),
          ("magic", b"\n#\xd7\xce", "a chunk begins")]


def test_a_record_is_drawn_byte_by_byte():
    fig = record_view(FIELDS, title="Record 7")
    assert not faults(fig)
    text = fig.data[0]
    assert text.text[:5] == ("0a", "23", "d7", "ce", "00")
    rows = np.array(text.y)
    assert [int((rows == row).sum()) for row in range(4)] == [4, 4, 13, 4]  # 12 and the dots
    assert text.text[20] == "…" and list(fig.layout.yaxis.ticktext) == [f[0] for f in FIELDS]
    assert [note.text for note in fig.layout.annotations] == [f[2] for f in FIELDS]


@pytest.mark.parametrize("fields", [[], FIELDS * 7])
def test_a_record_has_fields_and_not_too_many(fields):
    with pytest.raises(ValueError, match="1 to 24 fields, not"):
        record_view(fields)


def test_folds_stand_where_they_were_judged():
    grid = np.arange(0, 4, 0.01)
    accuracy = 0.5 + 0.4 * np.exp(-(grid - 1.2)**2)
    thresholds, folds = np.array([1.1, 1.2, 1.2]), np.array([0.8, 0.9, 1.0])
    fig = folds_view(grid, accuracy, thresholds, folds)
    assert not faults(fig)
    curve, marks = fig.data
    np.testing.assert_allclose(curve.y, accuracy, rtol=1e-6)
    np.testing.assert_array_equal(marks.x, thresholds)
    np.testing.assert_array_equal(marks.y, folds)
    assert fig.layout.shapes[0].y0 == pytest.approx(0.9)
    assert "90.0%" in fig.layout.annotations[0].text
