"""The benchmark of losses: every loss has a plainest form, and the two agree."""

import sys
from pathlib import Path

import pytest

from kdlab.losses import LOSSES

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import losses as module

    monkeypatch.setattr(module, "B", 32)
    monkeypatch.setattr(module, "PEOPLE", 8)
    monkeypatch.setattr(module, "C", 40)
    monkeypatch.setattr(module, "SECONDS", 0)
    yield module
    for name in ("losses", "plain"):
        sys.modules.pop(name, None)


@pytest.mark.filterwarnings("ignore:EKD. a batch of 448 negative pairs")
def test_plainest_forms_agree_with_the_losses(bench):
    assert bench.PLAIN.keys() == LOSSES.keys()
    student, teacher, targets, network = bench.batch("cpu")
    losses = bench.make(network, "cpu")
    for name in LOSSES:  # compare() stops where they differ
        found = bench.compare(name, losses[name], student, teacher, targets, "cpu")
        assert found["kdlab"]["seconds"] > 0 and found["plain"]["seconds"] > 0


def test_a_form_that_differs_stops_the_benchmark(bench, monkeypatch):
    student, teacher, targets, network = bench.batch("cpu")
    loss = bench.make(network, "cpu")["SP"]
    monkeypatch.setitem(bench.PLAIN, "SP", lambda s, t, y, loss: s.embedding.square().sum())
    with pytest.raises(SystemExit, match="SP: .* in its plainest form"):
        bench.compare("SP", loss, student, teacher, targets, "cpu")


@pytest.fixture
def two_nn(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import two_nn as module

    monkeypatch.setattr(module, "COLUMNS", 40)
    yield module
    sys.modules.pop("two_nn", None)


def test_the_growth_of_a_power_law(two_nn):
    sizes = [10, 20, 80]
    assert two_nn.growth(sizes, [3 * n**2.2 for n in sizes]) == pytest.approx(2.2)


def test_two_nn_and_its_peer_agree_draw_by_draw(two_nn, monkeypatch):
    assert two_nn.equal(200, "cpu")["largest_difference"] < 1e-9
    monkeypatch.setattr(two_nn, "peer", lambda x: 3.0)  # so a difference is seen
    assert two_nn.equal(200, "cpu")["largest_difference"] > 0.1


@pytest.mark.parametrize("kind", ["protocol", "once", "peer"])
def test_a_case_of_two_nn_measures_itself(two_nn, kind):
    found = two_nn.case(kind, 250, "cpu")
    assert found["seconds"] > 0 and found["peak_bytes"] > 1e7 and 5 < found["dimension"] < 17


def test_the_table_of_two_nn(two_nn, monkeypatch, capsys):
    def stand_in(kind, n, device):
        seconds = {"protocol": 12.0, "once": 10.0, "peer": n**2 / 1e6, "equal": None}[kind]
        return {"n": n, "seconds": seconds, "peak_bytes": 1e9, "largest_difference": 2e-12}

    monkeypatch.setattr(two_nn, "apart", stand_in)
    found = two_nn.compare(10_000, [1000, 2000], 500, "cpu")
    assert found["peer_power"] == pytest.approx(2)
    assert found["ratio_to_peer"] == pytest.approx(20 * 81 / 12)  # 9000 points: 81 s
    said = capsys.readouterr().out
    assert "81 s  EXTRAPOLATED as n^2.00 from 2000 points" in said and "one fit: 1.20" in said
