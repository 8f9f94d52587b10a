"""The progress bar: what it leaves behind in a notebook, a terminal and a log."""

import IPython.display
import pytest

from kdlab import progress


@pytest.fixture
def page(monkeypatch):
    """What a notebook's page shows, output by output; an empty one shows nothing."""
    outputs = []

    class Handle:
        def __init__(self, data):
            self.place = len(outputs)
            outputs.append(data)

        def update(self, data, raw):
            outputs[self.place] = data

    monkeypatch.delenv("KDLAB_HEADLESS", raising=False)
    monkeypatch.setattr(progress, "in_kernel", lambda: True)
    monkeypatch.setattr(IPython.display, "display", lambda data, raw, display_id: Handle(data))
    return outputs


def test_a_finished_bar_leaves_nothing_on_the_page(page, capsys):
    for done, _ in enumerate(progress.progress(range(3), "steps")):
        assert len(page) == 1 and page[0]["text/plain"].startswith("steps: ")
        assert done == 0 or capsys.readouterr().err == ""
    assert page == [{}] and capsys.readouterr() == ("", "")


def test_nor_does_one_that_is_broken_off(page):
    with pytest.raises(ValueError, match="stop"):
        for _ in progress.progress(range(3), "steps"):
            raise ValueError("stop")
    assert page == [{}]


def test_a_terminal_has_its_line_wiped(monkeypatch, capsys):
    monkeypatch.delenv("KDLAB_HEADLESS", raising=False)
    assert not progress.in_kernel()
    assert list(progress.progress(range(3), "steps")) == [0, 1, 2]
    said = capsys.readouterr().err
    assert "steps" in said and said.rpartition("\r")[2].strip() == ""


def test_a_log_hears_now_and_then(monkeypatch, capsys):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    clock = iter(range(0, 100, 3))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.progress(iter("abcd"), "steps")) == list("abcd")
    assert capsys.readouterr().err.splitlines() == ["steps: 2/? after 6 s", "steps: 4/? after 12 s"]
