"""The command: what it leaves in the folder, how it ends, and what it says when it cannot."""

import contextlib
import json
import os
import signal
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import yaml
from filelock import FileLock
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import kdlab.train.__main__ as command
from kdlab.data.batches import Batches
from kdlab.outputs import Output
from kdlab.train import group as groups
from kdlab.train.checkpoint import found
from kdlab.train.group import Group
from kdlab.train.run import load_run


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x):
        return Output(self.linear(x.mean((2, 3))))


class Near(nn.Module):
    """Embeddings near the corner of their label; `at[step]` is called in that step."""

    def __init__(self, at=None):
        super().__init__()
        self.at, self._calls = at, 0

    def forward(self, student, teacher, targets):
        self._calls += 1
        if self.at and self._calls in self.at:
            self.at[self._calls]()
        return {"near": F.mse_loss(student.embedding, F.one_hot(targets.labels, 4).float())}


AT = {}  # step -> function, for the toy's loss


def toy(run, rank=0, world=1):
    """Stands where prepare() does: 16 pictures, 4 steps an epoch."""
    if run.teacher:
        raise ValueError(f"teacher: there is no file {run.teacher}")
    torch.manual_seed(run.train.seed)
    pixels = torch.randint(0, 255, (16, 3, 8, 8), dtype=torch.uint8)
    batches = Batches(pixels, torch.arange(16) % 4, 4, key="toy")
    return {"student": Student(), "losses": {"toy": Near(AT)}, "batches": batches,
            "teacher": None, "validate": None}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """run(**settings of train) -> exit code; run.out the folder; run.status() what it says."""
    AT.clear()
    monkeypatch.setattr(command, "prepare", toy)
    monkeypatch.chdir(tmp_path)

    def go(teacher=None, argv=(), **train) -> int:
        settings = {"epochs": 3, "batch_size": 4, "lr": 0.1, "device": "cpu", "log_every": 2}
        (tmp_path / "toy.yaml").write_text(yaml.safe_dump({
            "losses": {"toy": {"loss": "ArcFace"}}, "world": {"identities": 4, "per_identity": 4},
            "teacher": teacher, "train": settings | train}))
        return command.main(["toy.yaml", *argv])

    go.out = tmp_path / "runs" / "toy"
    go.status = lambda: json.loads((go.out / "status.json").read_text())
    return go


def files(folder) -> dict:
    """path -> content of all that the run left, but for what it says of itself."""
    return {path: path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path.name != "status.json"}


def test_a_finished_run_says_so_in_its_folder(run, capsys):
    assert run() == 0
    said = run.status()
    assert (said["state"], said["message"], said["steps"]) == ("finished", "", 12)
    assert (said["pid"], said["host"], said["processes"]) == (os.getpid(), os.uname().nodename, 1)
    assert said["started"] <= said["updated"] and 0 < said["seconds"] < 600
    assert 50 < said["peak_memory_mb"] < 1e5
    size = sum(map(len, files(run.out).values()))
    assert size <= said["disk_bytes"] <= size + 1000  # status.json then was another
    assert load_run(run.out / "run.yaml").train.epochs == 3
    assert capsys.readouterr().out.endswith("student.safetensors\n")


def test_states_come_in_order(run, monkeypatch):
    seen = []
    monkeypatch.setattr(command, "tell", lambda out, said: seen.append(dict(said)))
    AT[2] = lambda: seen.append("step 2")
    assert run() == 0
    states = [s if isinstance(s, str) else s["state"] for s in seen]
    assert states == ["preparing", "training", "step 2", "finished"]
    assert seen[0]["steps"] is None and seen[1]["steps"] == 12


def test_what_prepare_refuses_is_failed_with_the_line(run, capsys):
    assert run(teacher="nobody.safetensors") == 1
    line = "teacher: there is no file nobody.safetensors"
    assert capsys.readouterr().err == f"kdlab.train: {line}\n"
    assert run.status()["state"] == "failed" and run.status()["message"] == line


def test_a_file_that_is_refused_leaves_no_folder(run, capsys):
    assert run(epochs=0) == 1
    error = capsys.readouterr().err
    assert error.startswith("kdlab.train: toy.yaml: train.epochs") and error.count("\n") == 1
    assert not run.out.exists()


def test_a_folder_that_is_written_is_refused(run, capsys):
    assert run(epochs=1) == 0
    kept = (run.out / "status.json").read_bytes()
    capsys.readouterr()
    with FileLock(run.out / ".run.lock"):
        assert run(epochs=1) == 1
    error = capsys.readouterr().err
    assert f"being written by process {os.getpid()} on host {os.uname().nodename} since" in error
    assert "choose another out" in error and error.count("\n") == 1
    assert (run.out / "status.json").read_bytes() == kept


def test_a_stop_file_saves_and_the_next_call_goes_on(run, capsys):
    assert run(out="runs/whole") == 0
    AT[5] = lambda: (run.out / "stop").touch()
    assert run() == 130
    said = run.status()
    assert said["state"] == "stopped" and found(run.out)[-1].stem == "00000005"
    assert "goes on" in capsys.readouterr().err
    AT.clear()
    assert run(log_every=3) == 0
    again = run.status()
    assert again["state"] == "finished" and again["seconds"] > said["seconds"]
    here, whole = (load_file(folder / "student.safetensors")
                   for folder in (run.out, run.out.with_name("whole")))
    assert all(torch.equal(here[name], whole[name]) for name in whole)
    assert load_run(run.out / "run.yaml").train.log_every == 3


def test_a_stop_file_from_before_is_not_heeded(run):
    run.out.mkdir(parents=True)
    (run.out / "stop").touch()
    assert run(epochs=1) == 0


def test_sigterm_stops_after_the_step(run):
    AT[5] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    before = signal.getsignal(signal.SIGTERM)
    assert run() == 130
    assert run.status()["state"] == "stopped" and found(run.out)
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_before_the_first_step_breaks_off(run, monkeypatch):
    def slow(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal was not heard")

    monkeypatch.setattr(command, "prepare", slow)
    assert run() == 130
    assert run.status()["state"] == "stopped" and run.status()["steps"] is None


def test_another_run_is_refused_and_nothing_of_the_first_is_lost(run, capsys):
    AT[5] = lambda: (run.out / "stop").touch()
    assert run() == 130
    kept = files(run.out)
    AT.clear()
    assert run(lr=0.2) == 1
    assert run.status()["state"] == "failed" and "lr is 0.1 there" in run.status()["message"]
    assert {p: p.read_bytes() for p in kept} == kept
    assert run() == 0


def test_an_error_nobody_foresaw_shows_where_it_was(run, capsys):
    AT[3] = lambda: {}["key"]
    assert run() == 1
    error = capsys.readouterr().err
    assert "Traceback" in error and error.endswith("kdlab.train: KeyError: 'key'\n")
    assert run.status()["message"] == "KeyError: 'key'"


def test_a_run_that_diverges_has_failed(run, capsys):
    assert run(lr=100, clip=None, warmup=0, epochs=60, momentum=0.99) == 1
    assert "not finite" in run.status()["message"] and "Traceback" not in capsys.readouterr().err


def test_a_device_that_is_not_there_is_failed_too(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(device="cuda") == 1
    assert run.status()["state"] == "failed" and "no GPU here" in run.status()["message"]


def test_a_folder_that_cannot_be_made(run, capsys, tmp_path):
    (tmp_path / "runs").write_text("a file")
    assert run() == 1
    error = capsys.readouterr().err
    assert error.startswith("kdlab.train: the out folder runs/toy cannot be written (")
    assert "choose another train.out" in error and error.count("\n") == 1


def test_a_disk_so_full_that_the_status_cannot_say_it(run, monkeypatch, capsys):
    real = command.tell

    def full(out, said):
        if said["state"] == "failed":
            raise OSError(28, "No space left on device")
        real(out, said)

    monkeypatch.setattr(command, "tell", full)
    AT[3] = lambda: (_ for _ in ()).throw(OSError(28, "the checkpoint cannot be written"))
    assert run() == 1
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "kdlab.train: runs/toy cannot be told how it ended: No space left on device",
        "kdlab.train: the checkpoint cannot be written"]


def test_a_probe_prints_json_and_leaves_nothing(run, capsys, monkeypatch):
    from kdlab.train import predict

    monkeypatch.setattr(predict, "prepare", toy)
    assert run(argv=["--probe", "8"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["steps"] == 12 and said["seconds_per_step"] > 0
    assert not run.out.exists()


def test_the_first_to_fail_is_heard(capsys):
    """Process 1 fails by itself, process 0 only because it lost process 1."""
    store = dist.HashStore()
    zero, one = Group(0, 2, store), Group(1, 2, store)
    store.set("kdlab/heard", "1")
    one.agree("the disk is full", "")
    assert capsys.readouterr().err == ""
    said = zero.agree("RuntimeError: connection closed", "Traceback of the connection\n")
    assert said == "process 1: the disk is full" and capsys.readouterr().err == ""
    assert zero.agree("teacher: no file", "") == "teacher: no file"


def test_nobody_hears_process_1(capsys, monkeypatch):
    monkeypatch.setattr(groups, "HEAR", timedelta(milliseconds=50))
    Group(1, 2, dist.HashStore()).agree("the disk is full", "")
    assert capsys.readouterr().err == "kdlab.train: process 1: the disk is full\n"


def test_numbers_of_all_or_of_those_that_speak(monkeypatch):
    store = dist.HashStore()
    monkeypatch.setattr(groups, "HEAR", timedelta(milliseconds=50))
    assert Group(1, 3, store).numbers(2.5) == [2.5]
    assert Group(0, 3, store).numbers(1.5) == [1.5]  # process 2 keeps silent
    assert Group(2, 3, store).numbers(4.0) == [4.0]
    assert Group(0, 3, store).numbers(1.5) == [1.5, 2.5, 4.0]
    assert Group().numbers(7.0) == [7.0]


def test_more_processes_than_gpus(monkeypatch):
    from kdlab.train import TrainConfig

    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(groups, "pick_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="2 GPUs are here, and more processes"):
        with contextlib.ExitStack() as stack:
            stack.enter_context(groups.together(TrainConfig()))
