"""The run monitor: what it says, what its knobs do, and that it ends with the run."""

import html
import importlib
import json
import threading
import time

import pytest

from kdlab.plots.monitor import VIEWS
from kdlab.ui.monitor import Monitor, run_monitor

ui = importlib.import_module("kdlab.ui.monitor")
PATIENCE = 60  # seconds for a thread to see something; it takes hundredths


class Stand:
    """Stands where a Run does: a folder, and what it is told to say."""

    def __init__(self, out, state="training", steps=0):
        self.out, self.said, self.asked = out, {"state": state, "message": "", "steps": 40}, []
        (out / "log.jsonl").touch()
        for step in range(1, steps + 1):
            self.write(step)

    def write(self, step):
        with open(self.out / "log.jsonl", "a") as file:
            file.write(json.dumps({
                "step": step, "epoch": 1, "lr": 0.1 / step, "loss": 2 / step,
                "arc/softmax": 2 / step, "gradient_norm": 1.0, "images_per_second": 100.0,
                "data_wait": 0.1, "memory_mb": 500.0, "arc.softmax_share": 1.0,
                "arc.drift": 0.5}) + "\n")
        self.said |= {"step": step, "images_per_second": 1234.5, "eta_seconds": 3.0 * (40 - step)}

    @property
    def status(self):
        self.asked.append("status")
        return dict(self.said)

    def stop(self, wait):
        assert wait is False  # a click waits for nothing
        (self.out / "stop").touch()
        self.asked.append("stop")

    def resume(self):
        self.asked.append("resume")
        self.said["state"] = "starting"


def settle(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def shown(monitor) -> str:
    """The words of its picture."""
    return html.unescape(monitor.picture.value.split('alt="')[1].split('" src=')[0])


@pytest.fixture
def outputs(monkeypatch):
    """What is displayed: boxes, and (figure, alt) of static pictures."""
    monkeypatch.delenv("KDLAB_HEADLESS", raising=False)
    seen = {"boxes": [], "pictures": []}
    monkeypatch.setattr(ui, "display", seen["boxes"].append)
    monkeypatch.setattr(ui, "show", lambda fig, alt, name: seen["pictures"].append((fig, alt)))
    return seen


def test_what_it_says_of_a_run_that_trains(tmp_path):
    monitor = Monitor(Stand(tmp_path, steps=10))
    assert "role='status' aria-live='polite'" in monitor.state.value
    assert "<b>training</b>" in monitor.state.value
    assert monitor.numbers.value == "step 10 of 40, 1,234 images/s, ends in 2 min"
    assert "over 10 training steps, losses: loss 2 to 0.2" in shown(monitor)
    assert not monitor.stop.disabled and monitor.resume.disabled


@pytest.mark.parametrize("state, stop, resume", [
    ("starting", True, False), ("preparing", True, False), ("training", True, False),
    ("finished", False, False), ("stopped", False, True), ("failed", False, True),
    ("died", False, True)])
def test_only_the_button_that_can_act_is_enabled(tmp_path, state, stop, resume):
    monitor = Monitor(Stand(tmp_path, state))
    assert (not monitor.stop.disabled, not monitor.resume.disabled) == (stop, resume)


@pytest.mark.parametrize("view", VIEWS[1:])
def test_the_choice_changes_the_picture(tmp_path, view):
    monitor = Monitor(Stand(tmp_path, steps=10))
    before = monitor.picture.value
    monitor.view.value = view
    assert monitor.picture.value != before and f"10 training steps, {view}: " in shown(monitor)


def test_every_knob_has_a_name(tmp_path):
    monitor = Monitor(Stand(tmp_path))
    assert [knob.description for knob in (monitor.view, monitor.stop, monitor.resume)] == [
        "show", "Stop", "Resume"]
    assert all(knob.tooltip for knob in (monitor.view, monitor.stop, monitor.resume))
    assert "kdlab" in monitor.box._dom_classes


def test_stop_asks_and_does_not_wait(tmp_path):
    run = Stand(tmp_path, steps=3)
    monitor = Monitor(run)
    monitor.stop.click()
    assert "stop" in run.asked and monitor.stop.disabled
    monitor.look()
    assert "stopping after this step" in monitor.state.value


def test_resume_goes_on_and_watches_again(tmp_path):
    run = Stand(tmp_path, "died", steps=3)
    run.said["message"] = "killed; <resume> goes on from step 3"
    monitor = Monitor(run, every=0.01)
    assert "killed; &lt;resume&gt; goes on from step 3" in monitor.state.value
    monitor.resume.click()
    assert "resume" in run.asked and monitor.resume.disabled and not monitor.stop.disabled
    assert monitor.thread.is_alive()
    run.said["state"] = "finished"
    settle(lambda: not monitor.thread.is_alive())


def test_it_follows_until_the_run_has_ended(tmp_path):
    run = Stand(tmp_path, steps=2)
    monitor = Monitor(run, every=0.01)
    monitor.watch()
    first = monitor.thread
    monitor.watch()
    assert monitor.thread is first  # one is enough
    run.write(3)
    settle(lambda: "step 3" in monitor.numbers.value)
    run.write(4)
    run.said |= {"state": "finished"}
    settle(lambda: not first.is_alive())
    assert "<b>finished</b>" in monitor.state.value and "over 4 training steps" in shown(monitor)


def test_drawing_leaves_the_processor_to_the_run(tmp_path, monkeypatch):
    """A picture that took 1 s is followed by the next after 9 s more, however much is logged."""
    clock, drawn = [0.0], []
    monkeypatch.setattr(ui, "monotonic", lambda: clock[0])

    def slow(fig, alt):
        drawn.append(clock[0])
        clock[0] += 1
        return alt

    monkeypatch.setattr(ui, "live_figure", slow)
    run = Stand(tmp_path, steps=1)
    monitor = Monitor(run)
    for step in range(2, 32):
        clock[0] += 1
        run.write(step)
        monitor.look()
        assert f"step {step} of" in monitor.numbers.value  # numbers are cheap
    assert drawn == [0.0, 10.0, 20.0, 30.0]
    run.said["state"] = "stopped"
    monitor.look()
    assert len(drawn) == 5  # the last rows are not left out


@pytest.mark.parametrize("how", ["close", "box"])
def test_closing_the_widget_ends_the_thread_not_the_run(tmp_path, how):
    run = Stand(tmp_path, steps=2)
    monitor = Monitor(run, every=0.01)
    monitor.watch()
    monitor.close() if how == "close" else monitor.box.close()
    settle(lambda: not monitor.thread.is_alive())
    assert "stop" not in run.asked


def test_an_error_is_shown_and_passes(tmp_path, monkeypatch):
    run = Stand(tmp_path, steps=2)
    monitor = Monitor(run, every=0.01)
    good = ui.monitor_view
    monkeypatch.setattr(ui, "monitor_view", lambda *_: {}["curves"])
    run.write(3)
    monitor.watch()
    settle(lambda: "KeyError" in monitor.error.value)
    assert "role='alert'" in monitor.error.value and monitor.thread.is_alive()
    monkeypatch.setattr(ui, "monitor_view", good)
    run.write(4)
    settle(lambda: monitor.error.value == "" and "over 4" in shown(monitor))
    monitor.close()


def test_a_button_that_fails_says_why(tmp_path):
    run = Stand(tmp_path, "died")
    run.resume = lambda: (_ for _ in ()).throw(ValueError("runs/x is being written by process 7"))
    monitor = Monitor(run)
    monitor.resume.click()
    assert "runs/x is being written by process 7" in monitor.error.value


def test_headless_is_one_picture_and_no_thread(tmp_path, outputs, monkeypatch):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    before = threading.active_count()
    run_monitor(Stand(tmp_path, "finished", steps=5))
    ((fig, alt),) = outputs["pictures"]
    assert not outputs["boxes"] and threading.active_count() == before
    assert alt.startswith("finished step 5 of 40") and "loss 2 to 0.4" in alt
    assert fig.layout.title.text == f"{tmp_path.name}: losses"


def test_it_attaches_to_a_run_that_is_under_way(tmp_path, outputs):
    run_monitor(Stand(tmp_path, steps=5), every=0.01)
    again = Stand(tmp_path)
    again.said |= {"state": "finished"}
    run_monitor(again)  # as after a restart of the kernel
    assert len(outputs["boxes"]) == 2 and not outputs["pictures"]
    assert all("over 5 training steps" in box.children[3].value for box in outputs["boxes"])
    outputs["boxes"][0].close()


@pytest.mark.parametrize("seconds, said", [
    (0.2, "1 s"), (89, "89 s"), (91, "2 min"), (3600, "1 h 0 min"), (7500, "2 h 5 min")])
def test_durations(seconds, said):
    assert ui._duration(seconds) == said
