import numpy as np
import pytest

from kdlab.plots import bundle, multiples, png
from kdlab.plots.relations import (
    pair_kinds,
    pair_sheet,
    pair_view,
    pair_words,
    rate,
    relation_map,
    sample,
    spread,
)

RNG = np.random.default_rng(0)
N = 4000
GENUINE = RNG.random(N) < 0.1
TEACHER = np.where(GENUINE, 0.6, 0.0) + RNG.normal(0, 0.12, N)
STUDENT = TEACHER + RNG.normal(0, 0.06, N)
FPRS = (1e-1, 1e-2, 1e-3)
LINES = [np.quantile(s[~GENUINE], [1 - f for f in FPRS]) for s in (TEACHER, STUDENT)]
CRITICAL = ((TEACHER[:, None] > LINES[0]) != (STUDENT[:, None] > LINES[1])).any(1)
RELATIONS = {"teacher": TEACHER, "student": STUDENT, "genuine": GENUINE, "critical": CRITICAL,
             "teacher_thresholds": LINES[0], "student_thresholds": LINES[1],
             "fprs": FPRS}  # fmt: skip
FACES = RNG.integers(0, 255, (12, 3, 48, 48), dtype=np.uint8)
PAIRS = RNG.integers(0, 12, (N, 2))


def test_every_point_stands_where_its_pair_does():
    fig = relation_map(**RELATIONS)
    drawn = np.concatenate([trace.customdata for trace in fig.data])
    assert len(set(drawn)) == len(drawn) == 1500
    for trace in fig.data:
        np.testing.assert_allclose(trace.x, TEACHER[trace.customdata], atol=1e-6)
        np.testing.assert_allclose(trace.y, STUDENT[trace.customdata], atol=1e-6)
        assert len(set(CRITICAL[trace.customdata])) == len(set(GENUINE[trace.customdata])) == 1
    assert set(np.flatnonzero(CRITICAL)) <= set(drawn)
    told = fig.layout.title.subtitle.text
    assert "1,500 of 4,000 pairs" in told and f"all {CRITICAL.sum():,} critical" in told


def test_kinds_differ_in_shape_and_critical_ones_are_filled():
    traces = {trace.name.split(" (")[0]: trace.marker.symbol
              for trace in relation_map(**RELATIONS).data}
    assert traces == {
        "same person, other": "circle-open", "two people, other": "diamond-open",
        "same person, critical": "circle", "two people, critical": "diamond",
    }  # fmt: skip


def test_a_sample_keeps_critical_pairs_first_and_some_of_the_others():
    few = sample(GENUINE, CRITICAL, N)
    np.testing.assert_array_equal(few, np.arange(N))
    most = sample(GENUINE, CRITICAL, 100)
    assert len(most) == 100 == len(set(most)) and CRITICAL[most].sum() == 80
    assert GENUINE[most].any() and (~GENUINE[most]).any()
    all_critical = sample(GENUINE, np.ones(N, bool), 100)
    assert len(all_critical) == 100
    none = sample(GENUINE, np.zeros(N, bool), 100)
    assert len(none) == 100 and GENUINE[none].sum() == 50


def test_threshold_lines_run_at_their_values_and_labels_keep_apart():
    near = {**RELATIONS, "teacher_thresholds": [0.3, 0.301, 0.302]}
    fig = relation_map(**near)
    upright = [s for s in fig.layout.shapes if s.xref == "x" and s.line.dash == "dash"]
    assert [s.x0 for s in upright] == [0.3, 0.301, 0.302] == [s.x1 for s in upright]
    level = [s for s in fig.layout.shapes if s.yref == "y" and s.line.dash == "dash"]
    np.testing.assert_allclose([s.y0 for s in level], np.sort(LINES[1]))
    labels = [note for note in fig.layout.annotations if note.xref == "x"]
    assert [note.text for note in labels] == ["1e-1", "1e-2", "1e-3"]
    wide = fig.layout.xaxis.range[1] - fig.layout.xaxis.range[0]
    assert np.diff([note.x for note in labels]).min() >= 0.07 * wide - 1e-9


def test_spread_moves_only_what_touches_and_stays_inside():
    np.testing.assert_allclose(spread(np.array([0.1, 0.5, 0.9]), 0.2, 0, 1), [0.1, 0.5, 0.9])
    np.testing.assert_allclose(spread(np.array([0.5, 0.5]), 0.2, 0, 1), [0.4, 0.6])
    np.testing.assert_allclose(spread(np.array([0.0, 0.0, 0.3]), 0.2, 0, 1), [0.0, 0.2, 0.4])
    np.testing.assert_allclose(spread(np.array([1.0, 1.0]), 0.2, 0, 1), [0.8, 1.0])


def test_pair_kinds_put_the_worst_first():
    kinds = pair_kinds(STUDENT, GENUINE, CRITICAL, 20)
    assert list(kinds) == ["critical, same person", "critical, two people",
                           "least similar, same person", "most similar, two people"]
    for kind, numbers in kinds.items():
        same = kind.endswith("same person")
        assert (GENUINE[numbers] == same).all()
        assert (np.diff(STUDENT[numbers]) * (1 if same else -1) >= 0).all()
        if kind.startswith("critical"):
            assert CRITICAL[numbers].all()
    assert STUDENT[kinds["most similar, two people"][0]] == STUDENT[~GENUINE].max()
    assert "critical, same person" not in pair_kinds(STUDENT, GENUINE, np.zeros(N, bool))


def test_words_name_the_thresholds_that_each_network_lets_the_pair_pass():
    told = pair_words(1, [0, 0.5], [0, 0.2], [False, True], [0.1, 0.3, 0.4], [0.1, 0.3, 0.4], FPRS,
                      critical=[False, True])  # fmt: skip
    assert told == ("pair 1: same person, critical; teacher 0.50 passes all 3 thresholds; "
                    "student 0.20 passes FPR 1e-1")  # fmt: skip
    told = pair_words(0, [0, 0.5], [0, 0.2], [False, True], [0.1, 0.3, 0.4], [0.1, 0.3, 0.4], FPRS,
                      critical=[False, True])  # fmt: skip
    assert told.startswith("pair 0: two people, not critical; teacher 0.00 passes no threshold")
    assert rate(1e-6) == "1e-6" and rate(0.005) == "5e-3"


def test_a_pair_view_says_what_it_shows_and_stops_at_the_last():
    kinds = pair_kinds(STUDENT, GENUINE, CRITICAL, 5)
    kind = "critical, two people"
    fig = pair_view(kind, 99, kinds, PAIRS, FACES, **RELATIONS)
    assert fig.layout.title.text.startswith(f"pair {kinds[kind][-1]}: two people, critical (5 of 5")
    assert "student" in fig.layout.title.subtitle.text
    both = {str(k): pair_view(kind, k, kinds, PAIRS, FACES, **RELATIONS) for k in range(2)}
    assert len(multiples(both).data) == 2


@pytest.mark.parametrize("make", [
    lambda: relation_map(**RELATIONS),
    lambda: relation_map(*([0.5], [0.4], [True], [0.3], [0.3], [1e-2]), critical=[False]),
    lambda: pair_sheet({"one": 3, "another": 8}, PAIRS, FACES, **RELATIONS),
])  # fmt: skip
def test_the_figures_print_and_hold_few_bytes(make):
    fig = make()
    assert fig.layout.title.text and len(png(fig)) > 3000
    data, _ = bundle(fig, "words")
    assert len(str(data)) < 500_000
    if fig.data[0].type == "scatter":
        assert "cosine" in fig.layout.xaxis.title.text and "cosine" in fig.layout.yaxis.title.text


@pytest.mark.parametrize(("change", "match"), [
    ({"student": STUDENT[:-1]}, "one value for each pair"),
    ({"critical": CRITICAL[:, None]}, "one value for each pair"),
    ({"teacher": np.where(GENUINE, np.nan, TEACHER)}, "teacher similarities"),
    ({"fprs": FPRS[:2]}, "one for each of 2 FPRs"),
])  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(change, match):
    with pytest.raises(ValueError, match=match):
        relation_map(**(RELATIONS | change))
