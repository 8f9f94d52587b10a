"""The benchmark of all against all: both ways find the same rates, and its lines are straight."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import all_pairs as module

    yield module
    sys.modules.pop("all_pairs", None)


def test_both_ways_agree(bench):
    plain, tiles = (bench.case(kind, 400) for kind in ("plain", "tiles"))
    np.testing.assert_allclose(plain["rates"], tiles["rates"], atol=1e-12)
    assert plain["pairs"] == 79_800 and plain["rates"][0][0] == 1e-4
    assert 0 < plain["rates"][0][1] < 1 and plain["peak_bytes"] > 1e7


def test_growth_is_a_line_in_the_pairs(bench):
    found = [{"n": n, "seconds": 1 + n * (n - 1) / 1e6, "processor_seconds": n * (n - 1) / 2e6,
              "peak_bytes": 5e8 + 2048 * n} for n in (1000, 2000, 4000)]
    told = bench.growth(found, 200_000)
    assert told["seconds"] == pytest.approx(1 + 200_000 * 199_999 / 1e6)
    assert told["peak_bytes"] == pytest.approx(5e8 + 2048 * 200_000)


def test_the_table(bench, monkeypatch, capsys):
    rates = [[1e-4, 0.9, 1e-4], [1e-6, 0.8, 0.0]]

    def stand_in(kind, n):
        return {"n": n, "seconds": n * (n - 1) / (1 if kind == "plain" else 2),
                "processor_seconds": float(n * n), "rates": rates,
                "peak_bytes": {"plain": 8e9, "tiles": 1e9}[kind]}

    monkeypatch.setattr(bench, "apart", stand_in)
    found = bench.compare([10], 20, 40)
    said = capsys.readouterr().out
    assert found["ratio"]["seconds"] == 2 and found["ratio"]["peak_bytes"] == 8
    assert "780.0 s" in said and "EXTRAPOLATED" in said and "TAR 0.9000 at 0.0001" in said
    assert "EXTRAPOLATED" not in (bench.compare([10, 40], 20, 40), capsys.readouterr().out)[1]

    monkeypatch.setattr(bench, "apart", lambda kind, n: stand_in(kind, n) | {
        "rates": rates if kind == "plain" else [[1e-4, 0.7, 1e-4], rates[1]]})
    with pytest.raises(SystemExit, match="the two disagree"):
        bench.compare([10], 20, 40)
