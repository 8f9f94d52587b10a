"""Broken off anywhere and called again, a run ends with the bits of one that was left alone."""

import errno
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny_run import STEPS, Cache, batches, config, parts
from torch import nn

from kdlab.losses import ArcDistill
from kdlab.train import History, TrainConfig, train
from kdlab.train import checkpoint as checkpoints
from kdlab.train.checkpoint import found
from kdlab.train.log import Log

CLOCK = {"images_per_second", "data_wait", "memory_mb"}  # columns no two runs share


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small lose time to a second thread
    yield
    torch.set_num_threads(threads)


def run(out, seed=0, own=batches, teacher=None, **more):
    student, losses = parts(seed=seed)
    return train(config(out=out, **more), student, losses, own(), teacher or Cache())


def last(out):
    return load_file(found(out)[-1])


def equal(out, other):
    """Every tensor of the last checkpoints, and the logs but for the clock."""
    mine, theirs = last(out), last(other)
    assert mine.keys() == theirs.keys() and len(mine) > 15
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), name
    rows = [[{k: v for k, v in row.items() if k not in CLOCK} for row in
             History.read(folder / "log.jsonl").rows] for folder in (out, other)]
    np.testing.assert_equal(*rows)
    assert (out / "student.safetensors").read_bytes() == \
        (other / "student.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole")
    os.environ["KDLAB_HEADLESS"] = "1"
    run(out)
    return out


def stopping_at(step, how):
    """Batches that, when batch `step` is asked for, do `how()` first."""
    def own():
        made = batches()
        inner, count = made.epoch, iter(range(1, 1000))

        def epoch(number, start=0):
            for batch in inner(number, start=start):
                if next(count) == step:
                    how()
                yield batch

        made.epoch = epoch
        return made

    return own


@pytest.mark.parametrize("step", [1, 2, 4, 7, 11])  # begin, inside and end of epochs
def test_stopped_by_a_file_or_by_ctrl_c_and_called_again(tmp_path, whole, step):
    for name, how in (("file", lambda: (tmp_path / "file" / "stop").touch()),
                      ("key", lambda: os.kill(os.getpid(), signal.SIGINT))):
        out = tmp_path / name
        with pytest.raises(KeyboardInterrupt) as stop:
            run(out, own=stopping_at(step, how), checkpoint_every=5)  # saved though none is due
        assert stop.value.history.rows[-1]["step"] == step
        assert int(found(out)[-1].stem) == step and not (out / "stop").exists()
        history = run(out, seed=9)  # other first weights: the checkpoint's count
        assert [row["step"] for row in history.rows] == [*range(1, STEPS + 1)]
        equal(out, whole)


def test_ctrl_c_is_as_it_was_after_the_run(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    run(tmp_path)
    assert signal.getsignal(signal.SIGINT) is before


def test_killed_between_checkpoints_it_repeats_the_steps_since(tmp_path, whole):
    class Died(Exception):
        pass

    def die():
        raise Died

    with pytest.raises(Died):
        run(tmp_path, own=stopping_at(9, die), checkpoint_every=3)
    assert [int(p.stem) for p in found(tmp_path)] == [3, 6]
    assert History.read(tmp_path / "log.jsonl").rows[-1]["step"] == 8  # ahead of the checkpoint
    run(tmp_path)
    equal(tmp_path, whole)


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = run(tmp_path)
    before = (tmp_path / "log.jsonl").read_bytes()
    student, losses = parts(seed=3)
    again = train(config(out=tmp_path), student, losses, batches(), Cache())
    np.testing.assert_equal(again.rows, first.rows)
    assert (tmp_path / "log.jsonl").read_bytes() == before
    stored = load_file(tmp_path / "student.safetensors")
    assert all(torch.equal(stored[name], value) for name, value in student.state_dict().items())
    assert torch.equal(last(tmp_path)["losses.ada.centres"], losses["ada"].centres)


@pytest.mark.parametrize("said, more", [
    (r"config\.lr is 0\.1 there and 0\.2 here", {"lr": 0.2}),
    (r"teacher\.teacher is teacher 5 there and teacher 6 here", {"teacher": Cache(6)}),
    (r"batches\.seed is 0 there and 1 here", {"own": lambda: batches(seed=1)}),
])
def test_another_run_in_the_folder_is_refused_and_nothing_lost(tmp_path, whole, said, more):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    with pytest.raises(ValueError, match=f"holds another run .*{said}.*choose another out"):
        run(out, **more)
    equal(out, whole)


def test_another_network_or_loss_is_another_run(whole):
    student, losses = parts()
    student.linear = nn.Linear(16 * 9, 8, bias=False)
    with pytest.raises(ValueError, match=r"student\.tensors is"):
        train(config(out=whole), student, losses, batches(), Cache())
    student, losses = parts()
    losses["arc"].scale = 16
    with pytest.raises(ValueError, match=r"losses\.arc\.scale is"):
        train(config(out=whole), student, losses, batches(), Cache())


def test_how_it_is_logged_and_kept_may_change(tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, own=stopping_at(5, (lambda: (tmp_path / "stop").touch())))
    run(tmp_path, checkpoint_every=2, keep=5)
    equal(tmp_path, whole)


@pytest.mark.parametrize("damage", [
    lambda content: content[: len(content) // 2],
    lambda content: b"",
    lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    lambda content: content.replace(b"kdlab checkpoint 1", b"kdlab checkpoint 9"),
])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, whole, damage, capsys):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, own=stopping_at(6, (lambda: (tmp_path / "stop").touch())))
    newest = found(tmp_path)[-1]
    newest.write_bytes(damage(newest.read_bytes()))
    run(tmp_path)
    said = capsys.readouterr().err
    assert f"{newest} is damaged" in said and "an earlier one is used" in said
    equal(tmp_path, whole)


def test_with_every_checkpoint_damaged_it_refuses(tmp_path):
    run(tmp_path)
    for path in found(tmp_path):
        path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no checkpoint in .* is whole; delete that folder"):
        run(tmp_path)


def test_a_full_disk_stops_in_words_and_loses_nothing(tmp_path, whole, monkeypatch):
    write, wrote = checkpoints.save_file, []

    def full(state, path, metadata):
        if len(wrote) == 4:
            path.write_bytes(b"as much as there was room for")
            raise SafetensorError("Error while serializing: I/O error: No space left on device "
                                  "(os error 28)")  # what it says on a full disk
        wrote.append(write(state, path, metadata))

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="step 5 cannot be written .*disk is full.*step 4 is safe: "
                                      "make room and start"):
        run(tmp_path)
    monkeypatch.undo()
    assert len([*(tmp_path / "checkpoints").iterdir()]) == 2  # no half of one
    run(tmp_path)
    equal(tmp_path, whole)


def test_too_little_room_is_seen_before_the_first_step(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="0 MB free and the run may want .* MB"):
        run(tmp_path)
    assert not (tmp_path / "log.jsonl").exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="the out folder .* cannot be written"):
        run(tmp_path / "file" / "run")


def test_only_the_newest_checkpoints_stay(tmp_path):
    run(tmp_path / "two", keep=2)
    assert [int(p.stem) for p in found(tmp_path / "two")] == [11, 12]
    run(tmp_path / "none", keep=0)
    assert found(tmp_path / "none") == []
    run(tmp_path / "epochs", keep=9, checkpoint_every=None)
    assert [int(p.stem) for p in found(tmp_path / "epochs")] == [4, 8, 12]


def test_validation_keeps_the_best_and_survives_a_resume(tmp_path):
    values = {4: 0.3, 8: 0.9, 12: 0.5}

    def train_it(out, own=batches, limit=99):
        student, losses = parts()
        asked = []

        def validate(net):
            assert not net.training and not torch.is_grad_enabled()
            torch.rand(3)  # its random numbers are its own
            asked.append(net.linear.weight.clone())
            return [*values.values()][len(History.read(out / "log.jsonl").rows) // 4]

        train(config(out=out, log_every=1), student, losses, own(), Cache(), validate=validate)
        return asked

    asked = train_it(tmp_path / "a")
    history = History.read(tmp_path / "a" / "log.jsonl")
    assert {row["step"]: row["validation"] for row in history.rows if "validation" in row} == values
    best = load_file(tmp_path / "a" / "best.safetensors")
    assert len(asked) == 3 and torch.equal(best["linear.weight"], asked[1])
    with pytest.raises(KeyboardInterrupt):
        train_it(tmp_path / "b", stopping_at(9, lambda: (tmp_path / "b" / "stop").touch()))
    train_it(tmp_path / "b")  # the best was before the break
    assert (tmp_path / "b" / "best.safetensors").read_bytes() == \
        (tmp_path / "a" / "best.safetensors").read_bytes()
    equal(tmp_path / "b", tmp_path / "a")


def test_plateau_lowers_the_rate_after_its_patience(tmp_path):
    student, losses = parts()
    values = iter([0.5, 0.4, 0.5, 0.6, 0.1, 0.1, 0.1])  # an equal value is not a better one
    more = {"epochs": 7, "schedule": "plateau", "patience": 1, "gamma": 0.5, "warmup": 0}
    history = train(config(**more), student, losses, batches(), Cache(),
                    validate=lambda net: next(values))
    rates = [row["lr"] for row in history.rows if row["step"] % 4 == 1]
    # Falls after the second value in a row that is not better: after epochs 3 and 6.
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025])
    with pytest.raises(ValueError, match="nothing validates"):
        train(config(**more), student, losses, batches(), Cache())


def test_a_validation_that_is_no_number_ends_the_run(tmp_path):
    student, losses = parts()
    values = iter([0.5, float("nan")])
    with pytest.raises(FloatingPointError, match="validation after step 8 is nan"):
        train(config(out=tmp_path, checkpoint_every=None), student, losses, batches(), Cache(),
              validate=lambda net: next(values))
    assert [int(p.stem) for p in found(tmp_path)] == [4]


def test_adam_and_the_losses_diagnostics_resume_too(tmp_path):
    more = {"optimizer": "adamw", "lr": 0.01}
    whole = run(tmp_path / "whole", **more)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "torn", own=stopping_at(5, (tmp_path / "torn" / "stop").touch), **more)
    run(tmp_path / "torn", **more)
    equal(tmp_path / "torn", tmp_path / "whole")
    assert {"ekd.student_threshold_1e-1", "ekd.teacher_threshold_1e-2", "ekd.critical_positive",
            "ada.centre_drift_degrees", "ada.momentum", "memory_mb"} <= whole.columns.keys()


def test_class_rows_of_another_teacher_are_another_run(tmp_path):
    def with_rows(seed):
        rows = torch.randn(6, 8, generator=torch.Generator().manual_seed(seed))
        return train(config(out=tmp_path, schedules={}), parts()[0], {"kd": ArcDistill(rows)},
                     batches(), None)

    with_rows(0)
    with_rows(0)
    with pytest.raises(ValueError, match=r"losses\.kd\.centres is \w{12} there and \w{12} here"):
        with_rows(1)


def test_what_a_kill_left_half_written_goes(tmp_path):
    run(tmp_path)
    rests = [tmp_path / ".best.safetensors.1.2", tmp_path / "checkpoints/.00000003.safetensors.1.2"]
    for rest in rests:
        rest.write_bytes(b"half")
    run(tmp_path)
    assert not any(rest.exists() for rest in rests) and len(found(tmp_path)) == 2


class Full:
    """A file on a full disk."""

    def __init__(self, name):
        self.name = name

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self):
        pass


def test_a_log_that_cannot_be_written_says_so(tmp_path):
    with Log(tmp_path / "log.jsonl") as log:
        log.file.close()
        log.file = Full(tmp_path / "log.jsonl")
        with pytest.raises(OSError, match="log.jsonl cannot be written .No space left.*are safe"):
            log.write({"step": 1})


def test_a_config_of_a_newer_version_is_refused():
    with pytest.raises(ValueError, match="version 2 .* knows up to 1; upgrade"):
        TrainConfig(version=2)
