"""Two processes over gloo train as one does, stop together, and hand over to another number.

This file run as a script is one of the two processes; they start once, for every test below.
"""

import faulthandler
import json
import math
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tiny_run import STEPS, Cache, Student, batches, config, parts
from torch import nn

from kdlab.distributed import leave, rank
from kdlab.losses import ArcFace
from kdlab.train import History, train
from kdlab.train.checkpoint import found

WORLD = 2


class Poison(nn.Module):
    """A loss that breaks at its third call, in process 1 only."""

    calls = 0

    def forward(self, student, teacher, targets):
        self.calls += 1
        bad = self.calls == 3 and rank() == 1
        return {"bad": student.embedding.sum() * (math.nan if bad else 0)}


def dealt(rank=0, world=1, stop=None, out=None):
    """This process's rows; with `stop`, process 1 asks for an end at that batch."""
    made = batches(rank=rank, world=world)
    inner, count = made.epoch, iter(range(1, 1000))

    def epoch(number, start=0):
        for batch in inner(number, start=start):
            if next(count) == stop:
                (out / "stop").touch()
            yield batch

    made.epoch = epoch
    return made


def infinite(made, me):
    """Process 1's third batch holds an infinite picture."""
    inner = made.epoch

    def epoch(number, start=0):
        for k, batch in enumerate(inner(number, start=start), 1):
            if k == 3 and me == 1:
                batch.images[0] = math.inf
            yield batch

    made.epoch = epoch
    return made


def run(out, rank=0, world=1, stop=None, norm=False):
    student, losses = parts(norm)
    return train(config(out=out), student, losses, dealt(rank, world, stop, out), Cache())


def worker(me: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=(folder / "meet").as_uri(), rank=me,
                            world_size=WORLD, timeout=timedelta(seconds=120))
    run(folder / "plain", me, WORLD)
    run(folder / "norm", me, WORLD, norm=True)
    said = {}
    for name, norm in (("plain_stopped", False), ("norm_resumed", True)):
        try:
            run(folder / name, me, WORLD, stop=5 if me == 0 else None, norm=norm)
        except KeyboardInterrupt as error:
            said[name] = [row["step"] for row in error.history.rows][-1] if me == 0 else "stopped"
        dist.barrier()
    run(folder / "norm_resumed", me, WORLD, norm=True)
    torch.manual_seed(0)
    try:
        train(config(out=folder / "nan", schedules={}), Student(),
              {"arc": ArcFace(8, 6, scale=8), "poison": Poison()}, dealt(me, WORLD))
    except FloatingPointError as error:
        said["nan"] = str(error)
    for name, own in (("embedding", dealt(me, WORLD)), ("steps", None)):
        student, losses = parts()
        try:
            if own is None:  # a folder that process 1 does not see
                out = folder / ("plain_stopped" if me == 0 else "elsewhere")
                run(out, me, WORLD)
            else:
                train(config(out=folder / name), student, losses, infinite(own, me), Cache())
        except (FloatingPointError, ValueError) as error:
            said[name] = str(error)
    (folder / f"{me}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the two processes, and one alone, left their runs."""
    folder = tmp_path_factory.mktemp("two")
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    running = [subprocess.Popen([sys.executable, __file__, str(me), str(folder)], env=env,
                                stderr=subprocess.PIPE, text=True) for me in range(WORLD)]
    try:
        errors = [process.communicate(timeout=300)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * WORLD, "\n".join(errors)
    (folder / "stderr").write_text("".join(errors))
    run(folder / "alone")
    return folder


def last(out):
    return load_file(found(out)[-1])


def close(mine, theirs):
    assert mine.keys() == theirs.keys() and "losses.ada.centres" in mine
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=2e-3, atol=2e-5, msg=name)


def test_two_processes_learn_what_one_does(folder):
    """Thresholds, centres, random negatives, momentum: float32 summed in another order."""
    close(last(folder / "plain"), last(folder / "alone"))
    rows = [History.read(folder / name / "log.jsonl").rows for name in ("plain", "alone")]
    assert len(rows[0]) == len(rows[1]) == STEPS
    for mine, theirs in zip(*rows, strict=True):
        for name in ("loss", "gradient_norm", "ekd/positive", "ekd/negative", "ada/softmax"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-3), name


def test_the_wish_of_one_process_stops_all_at_one_step(folder):
    said = [json.loads((folder / f"{me}.json").read_text()) for me in range(WORLD)]
    assert said[0]["plain_stopped"] == 5 and said[1]["plain_stopped"] == "stopped"
    assert int(found(folder / "plain_stopped")[-1].stem) == 5


def test_stopped_and_resumed_by_two_is_bit_for_bit_the_undisturbed(folder):
    mine, theirs = last(folder / "norm_resumed"), last(folder / "norm")
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), name


def test_one_process_goes_on_where_two_stopped(folder, tmp_path):
    shutil.copytree(folder / "plain_stopped", tmp_path / "run")
    history = run(tmp_path / "run")
    assert [row["step"] for row in history.rows] == [*range(1, STEPS + 1)]
    close(last(tmp_path / "run"), last(folder / "alone"))


def test_a_nan_in_one_process_stops_all_and_leaves_what_each_saw(folder):
    said = [json.loads((folder / f"{me}.json").read_text())["nan"] for me in range(WORLD)]
    for me, mark in enumerate(("", "-1")):
        assert "step 3" in said[me] and f"nonfinite{mark}.json" in said[me]
        batch = load_file(folder / "nan" / f"nonfinite{mark}.safetensors")
        assert batch["index"].tolist() == [*dealt(me, WORLD).epoch(0)][2].index.tolist()


def test_an_embedding_that_is_not_finite_in_one_process_stops_all(folder):
    """Its losses would refuse it and leave the others waiting in a collective."""
    said = [json.loads((folder / f"{me}.json").read_text())["embedding"] for me in range(WORLD)]
    assert all("step 3" in line and "not finite" in line for line in said)
    assert "student/embedding" in said[1]


def test_machines_that_see_different_folders_are_refused(folder):
    for me in range(WORLD):
        said = json.loads((folder / f"{me}.json").read_text())["steps"]
        assert "at steps [5, 0]; all machines must see one folder" in said


def test_nobody_complains_that_all_parameters_are_used(folder):
    assert "find_unused_parameters" not in (folder / "stderr").read_text()


def test_a_batch_that_cannot_be_dealt_is_refused():
    with pytest.raises(ValueError, match="5"):
        batches(rank=0, world=5)


if __name__ == "__main__":
    faulthandler.enable()  # a process that aborts says where
    torch.set_num_threads(1)
    worker(int(sys.argv[1]), Path(sys.argv[2]))
    leave()
