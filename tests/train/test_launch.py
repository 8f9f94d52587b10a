"""Launched runs: real processes on a tiny rendered world, watched and killed from outside.

The long story (launch, stop, resume, kill, resume) is told once; the tests ask what happened.
"""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from kdlab.cache import write_atomic
from kdlab.train import launch as module
from kdlab.train import state
from kdlab.train.checkpoint import found
from kdlab.train.launch import Run, environment, launch
from kdlab.train.run import load_run

PATIENCE = 300  # seconds for one state; a loaded machine takes 20


@pytest.fixture(autouse=True, scope="module")
def world(tmp_path_factory):
    """A cache of our own: sixteen pictures are rendered once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDLAB_HEADLESS", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(state, "PATIENCE", 0.1)
        patch.setenv("KDLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def config(out, **train) -> dict:
    settings = {"epochs": 40, "batch_size": 8, "device": "cpu", "out": str(out),
                "checkpoint_every": 7, "share_every": 0}
    return {"student": "ir_student", "embedding_size": 16, "losses": {"arc": {"loss": "ArcFace"}},
            "world": {"seed": 3, "identities": 4, "per_identity": 4}, "train": settings | train}


def until(run: Run, step: int) -> dict:
    """The status once so many steps are logged."""
    end = time.monotonic() + PATIENCE
    while (said := run.status).get("step", 0) < step or said["state"] != "training":
        assert said["state"] in ("starting", "preparing", "training"), (said, run.tail())
        assert time.monotonic() < end
        time.sleep(0.02)
    return said


def student(out) -> dict:
    return load_file(out / "student.safetensors")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """One run of 80 steps: predicted, stopped, resumed, killed, resumed; and one let alone."""
    folder = tmp_path_factory.mktemp("story")
    told = SimpleNamespace(out=folder / "run")
    alone = folder / "alone.yaml"
    alone.write_text(json.dumps(config(folder / "alone")))
    run = launch(config(told.out), probe=True)
    told.first = run.status
    with pytest.raises(ValueError) as told.refused_early:
        launch(config(told.out))
    told.training = until(run, 3)
    with pytest.raises(ValueError) as told.refused_late:
        launch(config(told.out))
    with pytest.raises(ValueError) as told.not_resumed:
        run.resume()
    told.stopped = run.stop(PATIENCE)
    told.after_stop = set(os.listdir(told.out))

    run = Run(told.out).resume()  # as after a restart of the kernel
    told.resumed = until(run, told.stopped["step"] + 9)
    os.kill(told.resumed["pid"], signal.SIGKILL)
    told.died = run.wait(PATIENCE)
    told.finished = run.resume().wait(PATIENCE)
    told.run, told.alone = run, subprocess.run(  # on as many threads, or sums are rounded apart
        [sys.executable, "-m", "kdlab.train", str(alone)], env=environment(1)).returncode
    return told


def test_it_starts_and_trains(story):
    assert story.first["state"] == "starting" and story.first["pid"] != os.getpid()
    assert story.first["message"] == "its first steps are measured"
    said = story.training
    assert said["state"] == "training" and said["steps"] == 80 and 3 <= said["step"] < 80
    speed = said["images_per_second"]
    assert said["eta_seconds"] == pytest.approx((80 - said["step"]) * 8 / speed)


def test_two_launches_into_one_folder(story):
    for refused in (story.refused_early, story.refused_late, story.not_resumed):
        assert "is being written by process" in str(refused.value)
    assert str(story.first["pid"]) in str(story.refused_early.value)
    assert str(story.training["pid"]) in str(story.refused_late.value)


def test_stop_saves_first(story):
    said = story.stopped
    assert said["state"] == "stopped" and 3 <= said["step"] < 80
    assert {"student.safetensors", "run.yaml", "status.json"} <= story.after_stop
    assert "stop" not in story.after_stop


def test_killed_is_told_from_stopped(story):
    said = story.died
    step = story.resumed["step"]
    assert said["state"] == "died" and said["step"] >= step
    kept = int(said["message"].removeprefix("killed; resume() goes on from step "))
    assert step - 7 <= kept <= said["step"] and (kept % 7 == 0 or kept == story.stopped["step"])


def test_stopped_and_killed_equals_let_alone_bit_for_bit(story):
    assert story.finished["state"] == "finished" and story.alone == 0
    here, whole = student(story.out), student(story.out.with_name("alone"))
    assert here.keys() == whole.keys()
    assert all(torch.equal(here[name], whole[name]) for name in whole)
    assert [row["step"] for row in story.run.history.rows] == list(range(1, 81))
    mine, theirs = (load_run(out / "run.yaml").train.model_dump(exclude={"out"})
                    for out in (story.out, story.out.with_name("alone")))
    assert mine == theirs


def test_the_prediction_and_what_came_of_it(story):
    said = story.run.predicted
    assert said["steps"] == 80 and said["processes"] == 1 and said["minutes"] > 0
    assert story.finished["disk_bytes"] == pytest.approx(said["disk_bytes"], rel=0.05)
    assert story.finished["peak_memory_mb"] == pytest.approx(said["memory_mb"], rel=0.25)
    rows = {what: (before, after) for what, before, after in story.run.report().rows}
    assert rows["minutes"] == (said["minutes"], story.finished["seconds"] / 60)
    assert rows["disk (MB)"] == (said["disk_bytes"] / 1e6, story.finished["disk_bytes"] / 1e6)


def test_what_it_printed(story):
    starts = [line for line in story.run.tail(1000) if line.startswith("--- ")]
    assert len(starts) == 3 and "kdlab.train.predict" in starts[0]
    assert story.run.tail(1) == [str(story.out / "student.safetensors")]


def test_a_finished_run_is_not_resumed(story):
    with pytest.raises(ValueError, match="is finished; there is nothing to go on with"):
        story.run.resume()
    assert "finished step 80 of 80" in repr(story.run)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two processes over gloo, launched once; torchrun, which started them, is told to end."""
    run = launch(config(tmp_path_factory.mktemp("pair") / "run"), processes=2, probe=False)
    torchrun = run.status["pid"]
    assert until(run, 2)["pid"] != torchrun
    os.kill(torchrun, signal.SIGTERM)
    return run, run.wait(PATIENCE)


def test_two_processes_train_one_student_and_save_it_on_sigterm(pair):
    run, said = pair
    assert said["state"] == "stopped" and said["processes"] == 2, run.tail()
    steps = [row["step"] for row in run.history.rows]
    assert steps == list(range(1, said["step"] + 1)) and 2 <= len(steps) < 80
    assert found(run.out)[-1].stem == f"{len(steps):08d}" and student(run.out)
    alone = max(row["memory_mb"] for row in run.history.rows)
    assert said["peak_memory_mb"] > 1.3 * alone  # of both together
    assert "torch.distributed.run" in run.tail(1000)[0]


def test_what_shows_only_later_is_failed_with_its_line(tmp_path):
    run = launch(config(tmp_path) | {"teacher": "nobody"}, probe=False)
    said = run.wait(PATIENCE)
    assert said["state"] == "failed" and "nobody" in said["message"], said
    assert run.tail(1) == [f"kdlab.train: {said['message']}"]
    assert "failed" in repr(run) and said["message"] in repr(run)


def test_stopped_before_it_began(tmp_path):
    run = launch(config(tmp_path), probe=True)
    pid = run.status["pid"]
    said = run.stop(PATIENCE)
    assert said["state"] == "stopped" and said["message"] in ("", "before it began")
    assert not (tmp_path / "stop").exists() and not (tmp_path / "log.jsonl").exists()
    assert run.stop() == run.status  # once more changes nothing
    end = time.monotonic() + PATIENCE
    while psutil.pid_exists(pid):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("cfg, said", [
    (config("x") | {"losses": {}}, "losses"),
    (config("x") | {"studnet": "ir_student"}, "did you mean 'student'"),
    ({k: v for k, v in config("x").items() if k != "train"}, "a run that is launched needs"),
    ("nowhere.yaml", "no such run file"),
])
def test_what_can_be_refused_is_refused_at_once(cfg, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        launch(cfg)
    assert not list(tmp_path.iterdir())


def test_no_process_is_none(tmp_path):
    with pytest.raises(ValueError, match="processes must be 1 or more, not 0"):
        launch(config(tmp_path), processes=0)


def test_nothing_of_a_config_reaches_a_shell(tmp_path, monkeypatch):
    seen = {}
    out = tmp_path / "a; touch b $(touch c)"
    monkeypatch.setattr(module.subprocess, "Popen", lambda args, **how: (
        seen.update(how, args=args), SimpleNamespace(pid=os.getpid(), wait=lambda: 0))[1])
    launch(config(out), processes=3, probe=False)
    assert not seen.get("shell") and seen["start_new_session"] and seen["args"][-1].startswith(
        str(out)) and "--nproc-per-node=3" in seen["args"]
    assert load_run(out / ".launch.yaml").train.out == out


@pytest.mark.parametrize("cores, processes, wanted, threads", [
    (8, 1, None, "8"), (8, 2, None, "4"), (8, 3, None, "2"), (2, 4, None, "1"), (8, 2, "1", "1"),
    (8, 2, "16", "4"),
])
def test_no_more_threads_than_cores(cores, processes, wanted, threads, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("RANK", "3")
    if wanted:
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    found = environment(processes)
    assert found["OMP_NUM_THREADS"] == threads and found["KDLAB_HEADLESS"] == "1"
    assert "RANK" not in found


def told(out, **said) -> Run:
    """A folder that says so of itself; nobody is at work in it."""
    write_atomic(out / "status.json", json.dumps(
        {"state": "training", "message": "", "pid": 1, "host": os.uname().nodename, "processes": 1,
         "started": 0.0, "updated": time.time(), "steps": 100, "seconds": 7.0} | said))
    return Run(out)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run; launch"):
        Run(tmp_path)


def test_a_lock_makes_the_difference(tmp_path):
    run = told(tmp_path)
    (tmp_path / ".run.lock").touch()
    assert run.status["state"] == "died"
    assert run.status["message"] == "killed; resume() begins anew"
    with FileLock(tmp_path / ".run.lock"):
        assert run.status["state"] == "training"
        with pytest.raises(TimeoutError, match="still training after 0 s"):
            run.wait(0)


def test_a_starting_run_lives_as_long_as_its_process(tmp_path):
    here = told(tmp_path, state="starting", pid=os.getpid())
    assert here.status["state"] == "starting"
    assert told(tmp_path, state="starting", pid=os.getpid(), host="another").status["state"] == \
        "starting"  # nobody can see from here
    other = told(tmp_path, state="starting", pid=os.getpid(), updated=0.0)  # its number came again
    (tmp_path / "console.txt").write_text("--- python\nNo module named torch\n")
    assert other.status["state"] == "died"
    assert other.status["message"] == "No module named torch"


def test_a_damaged_status_is_said(tmp_path):
    run = told(tmp_path)
    (tmp_path / "status.json").write_text('{"state": "train')
    assert run.status["state"] == "died" and "damaged" in run.status["message"]


def test_the_seconds_of_a_killed_run_count(tmp_path):
    told(tmp_path, seconds=7.0, updated=1000.0)
    assert state.spent(tmp_path) == 0  # without a checkpoint it begins anew
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "00000005.safetensors").touch()
    (tmp_path / "log.jsonl").touch()
    os.utime(tmp_path / "log.jsonl", (1030.0, 1030.0))
    assert state.spent(tmp_path) == pytest.approx(37)
    told(tmp_path, state="stopped", seconds=9.0)
    assert state.spent(tmp_path) == 9


def test_a_report_without_a_prediction(tmp_path):
    run = told(tmp_path, state="finished", seconds=90.0, peak_memory_mb=1234.0, disk_bytes=5e6)
    assert run.predicted is None
    assert repr(run.report()).splitlines()[1:3] == [
        "             predicted  actual  actual / predicted",
        "minutes              -    1.50                   -"]
    run.report()
    (tmp_path / "predicted.json").write_text(
        json.dumps({"minutes": 1.0, "memory_mb": 1000, "disk_bytes": 4e6}))
    assert run.report()._repr_markdown_().splitlines() == [
        "**finished, 1 process**", "",
        "|  | predicted | actual | actual / predicted |", "| --- | ---: | ---: | ---: |",
        "| minutes | 1.00 | 1.50 | 1.50 |", "| memory (MB) | 1,000 | 1,234 | 1.23 |",
        "| disk (MB) | 4.00 | 5.00 | 1.25 |"]
