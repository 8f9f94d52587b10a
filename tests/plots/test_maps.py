import numpy as np
import pytest

from kdlab.plots import bundle, multiples, png
from kdlab.plots.maps import PEOPLE, REST, centre_frame, centre_map, embedding_map

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(12), 5)
MAPS = {name: RNG.normal(0, 3, (60, 2)).astype(np.float32) for name in ("teacher", "student")}
CENTRES = np.cumsum(RNG.normal(0, 1, (6, 10, 2)), 0).astype(np.float32)


def test_a_picture_has_its_number_in_every_map():
    fig = embedding_map(MAPS, LABELS)
    for axes, xy in zip(("x", "x2"), MAPS.values(), strict=True):
        traces = [trace for trace in fig.data if trace.xaxis == axes]
        drawn = np.concatenate([trace.customdata for trace in traces])
        np.testing.assert_array_equal(np.sort(drawn), np.arange(60))
        for trace in traces:
            np.testing.assert_allclose(np.stack([trace.x, trace.y], 1), xy[trace.customdata])
    assert [note.text for note in fig.layout.annotations] == ["teacher", "student"]
    assert "all 60 pictures of 12 people" in fig.layout.title.subtitle.text


def test_people_look_alike_in_both_maps_and_unlike_one_another():
    fig = embedding_map(MAPS, LABELS)
    looks = {}
    for trace in fig.data:
        looks.setdefault(trace.name, set()).add((trace.marker.color, trace.marker.symbol))
    assert all(len(own) == 1 for own in looks.values()) and len(looks) == PEOPLE + 1
    assert len({look for own in looks.values() for look in own}) == PEOPLE + 1
    assert sum(trace.showlegend is not False for trace in fig.data) == PEOPLE + 1
    assert fig.data[0].name == REST


def test_the_reader_may_choose_the_people_and_the_number_of_pictures():
    fig = embedding_map(MAPS, LABELS, people=[3, 7], limit=30)
    assert {trace.name for trace in fig.data} == {REST, "person 3", "person 7"}
    assert sum(len(trace.x) for trace in fig.data if trace.xaxis == "x") == 30
    assert "30 of 60 pictures" in fig.layout.title.subtitle.text
    alone = embedding_map({"teacher": MAPS["teacher"]}, LABELS % 3)
    assert REST not in {trace.name for trace in alone.data}


def test_centres_stand_at_their_frame_and_trails_hold_all_of_them():
    fig = centre_map(CENTRES, frame=2, targets=CENTRES[-1])
    trails = fig.data[0]
    assert trails.name == "trails" and np.isnan(trails.x[6]) and len(trails.x) == 10 * 7
    np.testing.assert_allclose(trails.x[7:13], CENTRES[:, 1, 0])
    names = [trace.name for trace in fig.data]
    assert len(set(names)) == len(names)
    for name, (x, y) in centre_frame(fig, CENTRES[2]).items():
        trace = next(trace for trace in fig.data if trace.name == name)
        np.testing.assert_array_equal(trace.x, x)
        np.testing.assert_array_equal(trace.y, y)
    assert set(names) - set(centre_frame(fig, CENTRES[2])) == {"trails", "teacher's centres"}
    low, high = fig.layout.xaxis.range
    assert low < CENTRES[..., 0].min() and high > CENTRES[..., 0].max()


def test_centres_without_a_past_have_no_trails():
    assert "trails" not in {trace.name for trace in centre_map(CENTRES[0]).data}


@pytest.mark.parametrize("make", [
    lambda: embedding_map(MAPS, LABELS),
    lambda: embedding_map({"one": np.zeros((3, 2))}, [0, 0, 1]),
    lambda: centre_map(CENTRES, targets=CENTRES[-1], subtitle="said below the title"),
    lambda: centre_map(np.zeros((1, 2))),
    lambda: multiples({str(k): centre_map(CENTRES, frame=k) for k in (0, 3, -1)}),
])  # fmt: skip
def test_the_figures_name_their_axes_print_and_hold_few_bytes(make):
    fig = make()
    axes = [fig.layout[key] for key in fig.layout.to_plotly_json() if key[1:5] == "axis"]
    assert axes and all("no unit" in axis.title.text for axis in axes)
    assert fig.layout.title.text and len(png(fig)) > 3000
    assert len(str(bundle(fig, "words")[0])) < 500_000


@pytest.mark.parametrize(("make", "match"), [
    (lambda: embedding_map({"a": MAPS["teacher"][1:]}, LABELS), "'a' must be finite and"),
    (lambda: embedding_map({"a": np.full((60, 2), np.nan)}, LABELS), "'a' must be finite"),
    (lambda: embedding_map({}, LABELS), "one to three maps"),
    (lambda: embedding_map(MAPS, LABELS, people=range(PEOPLE + 1)), "a reader tells"),
    (lambda: centre_map(np.zeros((3, 3))), r"\(C, 2\) or \(T, C, 2\)"),
    (lambda: centre_map(CENTRES, targets=CENTRES), "targets must be"),
])  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
