"""Predictions: from a run's first steps, and on more GPUs by a stated model."""

import itertools
import json

import pytest
import torch
from torch import nn

from kdlab.data.batches import Batches
from kdlab.train import TrainConfig, predict
from kdlab.train.group import Group
from kdlab.train.predict import First, measure, probe, whole
from kdlab.train.run import RunConfig
from kdlab.train.scale import activation_bytes, disk, scale

PARTS = {"seconds_per_step": 0.5, "checkpoint_seconds": 2.0, "validation_seconds": 10.0,
         "share_seconds": 0.25, "checkpoint_bytes": 1000, "student_bytes": 400, "row_bytes": 10,
         "cache_bytes": 0}


def test_a_whole_run_by_hand():
    """10 epochs of 30 steps: 300 x 0.5 s, checkpoints at 100, 200, 300, validations after epochs
    3, 6, 9 and 10, shares 6 times: 150 + 6 + 40 + 1.5 s; two checkpoints, two students, 60 rows."""
    config = TrainConfig(epochs=10, checkpoint_every=100, validate_every=3, share_every=50,
                         log_every=5)
    said = whole(PARTS, config, 30)
    assert said["minutes"] == pytest.approx(197.5 / 60)
    assert said["disk_bytes"] == 2 * 1000 + 2 * 400 + 60 * 10


def test_the_teachers_cache_is_part_of_the_disk():
    config = TrainConfig(epochs=4, keep=0, share_every=0)
    parts = PARTS | {"validation_seconds": 0.0}
    plain, cached = (whole(parts | {"cache_bytes": n}, config, 5)["disk_bytes"] for n in (0, 5000))
    assert cached == plain + 5000


def test_what_a_run_leaves_out_costs_nothing():
    config = TrainConfig(epochs=4, keep=0, share_every=0)
    said = whole(PARTS | {"validation_seconds": 0.0}, config, 5)
    assert said == {"minutes": pytest.approx(10 / 60), "disk_bytes": 400 + 20 * 10}


def test_fewer_checkpoints_than_are_kept():
    config = TrainConfig(epochs=1, keep=5, share_every=0)
    assert whole(PARTS | {"validation_seconds": 0.0}, config, 3)["disk_bytes"] == 1000 + 400 + 30


def toy_batches() -> Batches:
    pixels = torch.randint(0, 255, (12, 3, 8, 8), dtype=torch.uint8)
    return Batches(pixels, torch.arange(12) % 4, 4, seed=3)


def test_the_first_steps_are_those_of_the_run():
    batches = toy_batches()
    first = First(batches, 5)
    assert len(first) == 5 and first.batch_size == 4 and first.num_classes == 4
    truth = itertools.chain(batches.epoch(0), batches.epoch(1))
    for got, want in zip(first.epoch(0), itertools.islice(truth, 5), strict=True):
        assert torch.equal(got.index, want.index) and torch.equal(got.images, want.images)


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x):
        from kdlab.outputs import Output

        return Output(self.linear(x.mean((2, 3))))


class Small(nn.Module):
    def forward(self, student, teacher, targets):
        return {"small": student.embedding.square().mean()}


def test_measure_takes_the_steps_and_keeps_the_run_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    asked = []
    monkeypatch.setattr(predict, "prepare", lambda run, rank, world: {
        "student": Student(), "losses": {"s": Small()}, "batches": toy_batches(), "teacher": None,
        "validate": lambda student: asked.append(student.training) or 0.5})
    run = RunConfig(losses={"s": {"loss": "ArcFace"}}, world={"identities": 4}, train={
        "epochs": 7, "batch_size": 4, "device": "cpu", "out": str(tmp_path / "out"),
        "schedule": "steps", "milestones": [2], "checkpoint_every": 4})
    said = measure(run, 10, Group())
    assert said["steps"] == 21 and said["processes"] == 1 and asked == [False]
    assert said["images_per_second"] == pytest.approx(4 / said["seconds_per_step"])
    assert said["checkpoint_bytes"] > said["student_bytes"] > 64
    assert 100 < said["row_bytes"] < 1000 and 50 < said["memory_mb"] < 1e5
    assert said["disk_bytes"] == pytest.approx(
        2 * said["checkpoint_bytes"] + 2 * said["student_bytes"] + 21 * said["row_bytes"], abs=1)
    assert not list(tmp_path.iterdir())
    json.dumps(said)


def test_too_few_steps_say_nothing():
    with pytest.raises(ValueError, match="a probe of 6 steps says nothing; 7 or more"):
        probe({"losses": {"a": {"loss": "ArcFace"}}, "world": {}}, steps=6)


def test_what_the_run_would_refuse_the_probe_says(monkeypatch):
    import subprocess

    said = subprocess.CompletedProcess([], 1, "", "warning: x\nkdlab.train: teacher: no file\n")
    monkeypatch.setattr(predict.subprocess, "run", lambda *_, **__: said)
    with pytest.raises(ValueError, match="^teacher: no file$"):
        probe({"losses": {"a": {"loss": "ArcFace"}}, "world": {}})


def test_one_gpu_costs_what_was_measured():
    """0.3 s for 128 images; 512 images want 1.2 s; 3,000 steps an hour."""
    (row,) = scale(0.3, 512, 1_000_000, 3000, measured_batch=128, gpus=[1])
    assert row["step_seconds"] == pytest.approx(1.2) and row["hours"] == pytest.approx(1.0)
    assert row["exchange_seconds"] == row["gather_seconds"] == 0 and row["efficiency"] == 1
    assert row["bound"] == "compute" and row["images_per_second"] == pytest.approx(512 / 1.2)


def test_the_exchange_of_gradients_by_hand():
    """4 GPUs, 100 M parameters: 2 x 3/4 x 400 MB = 600 MB at 0.8 x 1 GB/s take 0.75 s. Compute is
    0.9 / 4 = 0.225 s, of which 1/2 x 2/3 covers 0.075 s."""
    (row,) = scale(0.9, 128, 100_000_000, 10, gpus=[4], link=1e9)
    assert row["compute_seconds"] == pytest.approx(0.225)
    assert row["exchange_seconds"] == pytest.approx(0.675)
    assert row["step_seconds"] == pytest.approx(0.9) and row["bound"] == "exchange"
    assert row["efficiency"] == pytest.approx(0.25)


def test_an_exchange_that_is_covered_costs_nothing():
    (row,) = scale(0.9, 128, 1_000_000, 10, gpus=[2], link=1e9)
    assert row["exchange_seconds"] == 0 and row["efficiency"] == 1


def test_the_head_is_exchanged_too():
    """1,000 rows of 500 are half a million parameters more."""
    head, plain = (scale(0.0, 8, p, 1, classes=c, embedding_size=500, gpus=[2], link=1e6)[0]
                   for p, c in ((500_000, 1000), (1_000_000, 0)))
    assert head["exchange_seconds"] == pytest.approx(plain["exchange_seconds"])
    assert head["exchange_seconds"] == pytest.approx(2 * 0.5 * 4e6 / 0.8e6)


def test_over_nodes_the_network_is_what_counts():
    """16 GPUs on two nodes: 2 x 15/16 x 4 MB = 7.5 MB at 0.8 x 10 MB/s."""
    eight, sixteen = scale(0.0, 16, 1_000_000, 1, gpus=[8, 16], link=1e12, network=10e6)
    assert (eight["nodes"], sixteen["nodes"]) == (1, 2)
    assert sixteen["exchange_seconds"] == pytest.approx(7.5 / 8)
    assert eight["exchange_seconds"] == pytest.approx(7e6 / 0.8e12)


def test_gathered_embeddings_by_hand():
    """Two matrices and the gradient of one: 4 x 1/2 x 4 x 100 x 50 bytes at 0.8 x 10 kB/s."""
    (row,) = scale(0.0, 100, 0, 1, gpus=[2], embedding_size=50, gathered=2, link=10_000)
    assert row["gather_seconds"] == pytest.approx(40_000 / 8000) and row["bound"] == "gather"


def test_a_slow_disk_is_the_limit():
    """64 images a step; each node reads 100 a second."""
    one, two = scale(0.1, 64, 1000, 100, gpus=[1, 2], per_node=1, read=100, network=1e12)
    assert one["step_seconds"] == pytest.approx(0.64) and one["bound"] == "reading"
    assert two["step_seconds"] == pytest.approx(0.32) and two["read_seconds"] == pytest.approx(0.32)
    assert one["efficiency"] == pytest.approx(0.1 / 0.64)


def test_memory_by_hand():
    """1.5 M parameters: weights, gradients, one momentum; on two GPUs also DDP's buckets; logits of
    50 x 1,000 three times; 50 images of 2 MB."""
    one, two = scale(0.1, 100, 1_000_000, 1, gpus=[1, 2], classes=1000, embedding_size=500,
                     activation_bytes=2e6)
    assert one["memory_gb"] == pytest.approx((3 * 6e6 + 3 * 4e5 + 100 * 2e6) / 1e9)
    assert two["memory_gb"] == pytest.approx((4 * 6e6 + 3 * 2e5 + 50 * 2e6) / 1e9)
    (adam,) = scale(0.1, 100, 1_000_000, 1, gpus=[1], momenta=2, logits=0)
    assert adam["memory_gb"] == pytest.approx(16e6 / 1e9)


def test_a_batch_that_does_not_divide():
    with pytest.raises(ValueError, match="a batch of 100 does not divide among 8 GPUs"):
        scale(0.1, 100, 1000, 1)


def test_the_disk_by_hand():
    """1.5 M numbers and their momenta; 5.8 M pictures and mirrors x 512 x 2 bytes."""
    said = disk(1_000_000, classes=1000, embedding_size=500, keep=2, images=5_800_000,
                teacher_size=512)
    assert said["checkpoint"] == 2 * 6e6 and said["checkpoints"] == 3 * 12e6
    assert said["students"] == 8e6 and said["cache"] == pytest.approx(11.9e9, rel=0.01)
    assert said["total"] == said["checkpoints"] + said["students"] + said["cache"]
    assert disk(1000, keep=0, validated=False)["total"] == 4000


def test_activations_are_counted_once_and_weights_not():
    """Linear keeps its input (B, 64), Tanh its output (B, 32), the next Linear that same tensor."""
    network = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 8))
    assert activation_bytes(network, torch.zeros(16, 64)) == 4 * (64 + 32)


def test_counting_activations_changes_nothing():
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert activation_bytes(network, torch.rand(8, 3, 9, 9)) > 4 * (3 * 81 + 16 * 49)
    assert not network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
