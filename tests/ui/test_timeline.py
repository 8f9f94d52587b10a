"""The panel that replays one run's thresholds with another memory."""

import numpy as np

from kdlab.ui import threshold_timeline


def test_it_asks_for_the_average_of_its_knobs(monkeypatch, capsys):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    asked, steps, truth = [], np.arange(1, 5), np.tile([0.2, 0.5], (4, 1))

    def average(alpha, debias):
        asked.append((alpha, debias))
        return truth * (1 - alpha ** steps[:, None])

    threshold_timeline(steps, average, truth, [1e-1, 1e-3], alpha=0.8)
    assert asked == [(0.8, False), (0.99, True)]
    assert "alpha 0.8, from zero" in capsys.readouterr().out
