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
