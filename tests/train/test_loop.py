import copy
import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from kdlab.data import FaceSet, embed_set
from kdlab.data.batches import Batch, Batches
from kdlab.losses import ShrinkTeaNet
from kdlab.models import MODELS
from kdlab.outputs import Output, Targets
from kdlab.teachers import Teacher
from kdlab.train import History, TrainConfig, train
from kdlab.train.objective import named_terms
from kdlab.train.optimizer import lr_factor, make_optimizer


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small lose time to a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Student(nn.Module):
    """A convolution, a batch norm and a linear layer to 8 dimensions."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16)
        self.linear = nn.Linear(16, 8)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))  # (B, 16, 3, 3)
        return Output(self.linear(x.mean((2, 3))), features=(x,))


class Classify(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8))

    def forward(self, student, teacher, targets):
        return {"ce": F.cross_entropy(student.embedding @ self.weight.T, targets.labels)}


class Imitate(nn.Module):
    needs = {"embedding"}

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight, self.seen = weight, []

    def forward(self, student, teacher, targets):
        assert not teacher.embedding.requires_grad
        self.seen.append(self.weight)
        loss = F.mse_loss(student.embedding, teacher.embedding)
        return {"mse": self.weight * loss, "half": 0.5 * loss}

    def report(self):
        return {"calls": len(self.seen)}


class Cache:
    """Stands where a teacher's cached embeddings would."""

    is_cache = True

    def __init__(self):
        self.table = torch.randn(2, 32, 8, generator=torch.Generator().manual_seed(5))

    def __call__(self, index, flipped):
        return Output(self.table[flipped.long(), index])


class Poison(nn.Module):
    """A loss that breaks at its third call."""

    def __init__(self, through_gradient=False):
        super().__init__()
        self.calls, self.through_gradient = 0, through_gradient

    def forward(self, student, teacher, targets):
        self.calls += 1
        zero = student.embedding.sum() * 0
        if self.calls < 3:
            return {"bad": zero}
        return {"bad": (zero * 1e9).abs().sqrt() if self.through_gradient else zero + math.nan}


def batches(**more):
    """32 random images of 4 people, each person with a colour of their own: quickly learnt."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(32) % 4
    pixels = torch.randint(0, 150, (32, 3, 8, 8), generator=generator)
    pixels[torch.arange(32), labels % 3] += 30 * (1 + labels[:, None, None])
    return Batches(pixels.to(torch.uint8), labels, 8, **more)


def config(**more):
    return TrainConfig(**{"epochs": 1, "batch_size": 8, "lr": 0.1, "device": "cpu",
                          "warmup": 0} | more)


def parts():
    torch.manual_seed(7)
    return Student(), {"arc": Classify(), "kd": Imitate()}


def test_training_lowers_the_loss_and_a_rerun_is_the_same_bit_for_bit():
    runs = []
    for _ in range(2):
        student, losses = parts()
        history = train(config(epochs=3), student, losses, batches(), Cache())
        loss = history.columns["loss"]
        assert loss[-4:].mean() < 0.8 * loss[:4].mean()
        runs.append((student.state_dict(), losses["arc"].state_dict(), loss))
    for first, again in zip(runs[0][:2], runs[1][:2], strict=True):
        assert all(torch.equal(first[name], again[name]) for name in first)
    assert (runs[0][2] == runs[1][2]).all()


def test_random_numbers_inside_a_loss_come_from_the_seed():
    class Noise(nn.Module):
        def forward(self, student, teacher, targets):
            return {"noise": (student.embedding * torch.randn(8)).mean()}

    def end(seed):
        torch.manual_seed(3)
        student = Student()
        torch.rand(seed + 1)  # whatever happened before does not matter
        train(config(seed=seed), student, {"n": Noise()}, batches())
        return student.linear.weight

    assert torch.equal(end(1), end(1)) and not torch.equal(end(1), end(2))


def test_history_has_one_column_a_term_and_they_sum_to_the_loss():
    student, losses = parts()
    history = train(config(epochs=2), student, losses, batches(), Cache())
    columns = history.columns
    assert history.terms == ["arc/ce", "kd/mse", "kd/half"]
    assert columns["step"].tolist() == list(range(1, 9))
    assert columns["epoch"].tolist() == [1] * 4 + [2] * 4
    torch.testing.assert_close(torch.from_numpy(sum(columns[t] for t in history.terms)),
                               torch.from_numpy(columns["loss"]), rtol=1e-6, atol=0)
    assert (columns["images_per_second"] > 0).all()
    assert ((columns["data_wait"] >= 0) & (columns["data_wait"] <= 1)).all()
    assert columns["kd.calls"].tolist() == list(range(1, 9))  # reported, not summed


def test_log_every_keeps_the_first_and_the_last_step():
    student, losses = parts()
    history = train(config(epochs=2, log_every=3), student, losses, batches(), Cache())
    assert history.columns["step"].tolist() == [1, 4, 7, 8]


def test_two_steps_are_what_sgd_says():
    torch.manual_seed(0)
    weight = torch.randn(2, 3)

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(weight.clone())

        def forward(self, x):
            return Output(x.mean((2, 3)) @ self.weight.T)

    class Squares(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.tensor([0.5, -0.5]))

        def forward(self, student, teacher, targets):
            return {"squares": 30 * (student.embedding + self.shift).square().sum(1).mean()}

    few = Batches(batches().pixels[:16], batches().labels[:16], 8, seed=3)
    settings = config(lr=0.2, momentum=0.9, weight_decay=0.01, clip=5.0, warmup=0.5)
    student, loss = Mean(), Squares()
    train(settings, student, {"s": loss}, few)

    # warm-up over half of two steps: step 0 at the peak; cosine then starts at the peak as well
    w, b, v, u = weight.clone(), torch.tensor([0.5, -0.5]), 0, 0
    clipped = 0
    for batch in few.epoch(0):
        x = batch.images.mean((2, 3))
        error = 60 * (x @ w.T + b) / 8  # derivative by the embedding
        gw, gb = error.T @ x, error.sum(0)
        if gw.norm() > 5:
            gw, clipped = gw * 5 / (gw.norm() + 1e-6), clipped + 1
        v, u = 0.9 * v + gw + 0.01 * w, 0.9 * u + gb + 0.01 * b
        w, b = w - 0.2 * v, b - 0.2 * u
    assert clipped  # the case is there
    torch.testing.assert_close(student.weight.detach(), w, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.shift.detach(), b, rtol=1e-5, atol=1e-6)


def test_clipping_covers_the_student_only():
    class Steep(Classify):
        def forward(self, student, teacher, targets):
            return {name: 1e3 * v for name, v in super().forward(
                student, teacher, targets).items()}

    torch.manual_seed(0)
    student, loss = Student(), Steep()
    before = [p.detach().clone() for p in student.parameters()]
    weight = loss.weight.detach().clone()
    one = Batches(batches().pixels[:8], batches().labels[:8], 8)
    history = train(config(lr=1, clip=0.5, momentum=0, weight_decay=0), student, {"s": loss}, one)
    moved = torch.cat([(p - q).flatten() for p, q in zip(student.parameters(), before,
                                                         strict=True)]).norm()
    assert history.columns["gradient_norm"][0] > 5  # logged as it was before clipping
    torch.testing.assert_close(moved.detach(), torch.tensor(0.5), rtol=1e-3, atol=0)
    assert (loss.weight - weight).norm() > 5


def test_without_clip_the_step_is_the_gradient():
    torch.manual_seed(0)
    student, loss = Student(), Classify()
    before = [p.detach().clone() for p in student.parameters()]
    one = Batches(batches().pixels[:8], batches().labels[:8], 8)
    history = train(config(lr=1, clip=None, momentum=0, weight_decay=0), student, {"s": loss}, one)
    moved = torch.cat([(p - q).flatten() for p, q in zip(student.parameters(), before,
                                                         strict=True)]).norm()
    assert float(moved.detach()) == pytest.approx(history.columns["gradient_norm"][0], rel=1e-4)


def test_a_schedule_moves_the_attribute_over_the_epochs():
    student, losses = parts()
    history = train(config(epochs=4, schedules={"kd.weight": [4, 1]}), student, losses, batches(),
                    Cache())
    assert losses["kd"].seen == [4.0] * 4 + [3.0] * 4 + [2.0] * 4 + [1.0] * 4
    assert history.columns["kd.weight"].tolist() == losses["kd"].seen

    student, losses = parts()
    train(config(epochs=5, schedules={"kd.weight": [0, 2, 1]}), student, losses, batches(), Cache())
    assert losses["kd"].seen[::4] == [0, 1, 2, 1.5, 1]

    student, losses = parts()
    train(config(schedules={"kd.weight": [4, 1]}), student, losses, batches(), Cache())
    assert losses["kd"].seen == [4.0] * 4


def test_learning_rate_warms_up_and_falls():
    cosine = config(warmup=0.25)
    assert [lr_factor(cosine, s, 8) for s in (0, 1, 2)] == [0.5, 1, 1]
    assert lr_factor(cosine, 5, 8) == pytest.approx(0.5)
    assert lr_factor(cosine, 8, 8) == pytest.approx(0)
    steps = config(epochs=4, schedule="steps", milestones=[1, 3], gamma=0.1)
    factors = [lr_factor(steps, s, 8) for s in range(8)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
    assert lr_factor(config(warmup=1), 7, 8) == 1
    student, losses = parts()
    history = train(config(warmup=0.5), student, losses, batches(), Cache())
    assert history.columns["lr"] == pytest.approx([0.05, 0.1, 0.1, 0.05])


def test_param_groups_of_a_loss_are_honoured():
    class Own(Classify):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(4))

        def param_groups(self, config):
            return [{"params": [self.weight], "lr": 10 * config.lr, "weight_decay": 0.0}]

    student, own = Student(), Own()
    optimizer = make_optimizer(config(), student, nn.ModuleDict({"o": own}))
    common, special = optimizer.param_groups
    assert special["params"] == [own.weight] and special["weight_decay"] == 0
    assert special["initial_lr"] == pytest.approx(1.0) and common["initial_lr"] == 0.1
    assert len(common["params"]) == len(list(student.parameters())) + 1
    assert any(p is own.bias for p in common["params"])

    frozen = type("Frozen", (Own,), {"param_groups": lambda self, config: [
        {"params": self.parameters(), "lr": 0.0}]})()
    before = frozen.weight.detach().clone()
    train(config(), Student(), {"f": frozen}, batches())
    assert torch.equal(frozen.weight, before)


def test_adamw_is_adamw():
    optimizer = make_optimizer(config(optimizer="adamw", momentum=0.8), Student(), nn.ModuleDict())
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.999)


def test_a_network_teaches_in_eval_mode_without_gradient():
    torch.manual_seed(1)
    teacher = Student()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student, losses = parts()
    train(config(), student, losses, batches(), teacher)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not teacher.training and all(p.grad is None for p in teacher.parameters())


def test_a_cache_is_asked_for_the_very_pictures_of_the_batch():
    asked = []

    class Listening(Cache):
        def __call__(self, index, flipped):
            asked.append((index.tolist(), flipped.tolist()))
            return super().__call__(index, flipped)

    student, losses = parts()
    train(config(), student, losses, batches(seed=9), Listening())
    assert asked == [(b.index.tolist(), b.flipped.tolist()) for b in batches(seed=9).epoch(0)]


def test_the_student_trains_in_train_mode_and_ends_in_eval_mode():
    student, losses = parts()
    train(config(), student, losses, batches(), Cache())
    assert not student.training and not losses["kd"].training
    assert student.norm.num_batches_tracked == 4


def refused(match, student=None, losses=None, data=None, teacher=None, error=ValueError, **more):
    """train() raises before any weight moves."""
    student = student or Student()
    before = [p.detach().clone() for p in student.parameters()]
    with pytest.raises(error, match=match):
        train(config(**more), student, losses or {"arc": Classify()}, data or batches(), teacher)
    assert all(torch.equal(p, q) for p, q in zip(student.parameters(), before, strict=True))


def test_what_cannot_work_is_refused_before_the_first_step():
    maps = Imitate()
    maps.needs = {"features", "embedding"}
    refused("the loss 'kd' .Imitate. learns from a teacher's embedding, but no teacher",
            losses={"kd": Imitate()})
    refused("'kd' .Imitate. needs the teacher's features, and a cache holds embeddings only",
            losses={"kd": maps}, teacher=Cache())
    class Short(Cache):
        def __len__(self):
            return 5

    refused("cache holds the embeddings of 5 pictures, the batches draw from 32", teacher=Short())

    foreign, own = Cache(), batches()
    foreign.identity, own.key = {"faces": "one set"}, "another set"
    with pytest.raises(ValueError, match="embeddings of the set one set, the batches draw from"):
        train(config(), parts()[0], parts()[1], own, foreign)
    refused("cannot be called 'a.b'", losses={"a.b": Classify()})
    refused("cannot be called 'items'", losses={"items": Classify()})
    refused("the batches hold 8 images, config.batch_size is 16", batch_size=16)
    refused("schedules: unknown loss 'ark'; did you mean 'arc'", schedules={"ark.weight": [1, 0]})
    refused("arc.wait is no number", schedules={"arc.wait": [1, 0]})
    refused("arc.weight is no number", schedules={"arc.weight": [1, 0]})  # a parameter
    if not torch.cuda.is_available():
        refused("torch finds no GPU", device="cuda")
    with pytest.raises(ValueError, match="no loss was given"):
        train(config(), Student(), {}, batches())


def test_out_holds_log_and_student_alone(tmp_path):
    student, losses = parts()
    history = train(config(out=tmp_path / "run"), student, losses,
                    batches(crop="arcface"), Cache())
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "checkpoints", "log.jsonl", "student.safetensors"]
    assert History.read(tmp_path / "run" / "log.jsonl").rows == history.rows
    path = tmp_path / "run" / "student.safetensors"
    stored = load_file(path)
    assert stored.keys() == student.state_dict().keys()
    assert all(torch.equal(stored[name], value) for name, value in student.state_dict().items())
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["kdlab"])
    assert about["preprocessing"] == {"crop": "arcface", "size": 8, "channels": "RGB",
                                      "mean": [127.5] * 3, "divide": 127.5}
    assert about["finished"] is True and about["steps"] == 4 and about["config"]["lr"] == 0.1
    assert str(tmp_path) not in json.dumps(about)

    again, losses = parts()
    train(config(out=tmp_path / "again"), again, losses, batches(crop="arcface"), Cache())
    assert (tmp_path / "again" / "student.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("through_gradient", [False, True])
def test_the_first_non_finite_step_stops_saves_and_says(tmp_path, through_gradient):
    student, losses = parts()
    losses["poison"] = Poison(through_gradient)
    said = "not finite: gradient_norm = nan" if through_gradient else "poison/bad = nan, loss = nan"
    with pytest.raises(FloatingPointError, match=f"step 3 .epoch 1.: .*{said}.*nonfinite") as error:
        train(config(out=tmp_path), student, losses, batches(), Cache())
    assert all(p.isfinite().all() for p in student.parameters())
    assert len(error.value.history) == len(History.read(tmp_path / "log.jsonl")) == 2
    assert not (tmp_path / "student.safetensors").exists() and not student.training

    saved = load_file(tmp_path / "nonfinite.safetensors")
    third = [*batches().epoch(0)][2]
    assert torch.equal(saved["images"], third.images)
    assert torch.equal(saved["labels"], third.targets.labels)
    assert torch.equal(saved["index"], third.index)
    assert torch.equal(saved["student.conv.weight"], student.conv.weight)
    assert torch.equal(saved["losses.arc.weight"], losses["arc"].weight)
    about = json.loads((tmp_path / "nonfinite.json").read_text())
    assert about["step"] == 3 and "poison/bad" in about["numbers"]
    norm = float(about["gradient_norms"]["student.linear.weight"])
    assert math.isnan(norm) if through_gradient else norm > 0


def test_an_embedding_that_a_loss_refuses_ends_the_run_the_same_way(tmp_path):
    class Strict(Classify):
        def forward(self, student, teacher, targets):
            if not student.embedding.isfinite().all():
                raise ValueError("the embedding is not finite")
            return super().forward(student, teacher, targets)

    student = Student()
    with torch.no_grad():
        student.linear.bias[0] = math.inf
    with pytest.raises(FloatingPointError, match="step 1 .*student/embedding = inf"):
        train(config(out=tmp_path), student, {"s": Strict()}, batches())
    assert (tmp_path / "nonfinite.safetensors").exists()


def test_logits_or_maps_that_a_loss_refuses_end_it_too():
    x = torch.ones(4, 3)
    for name, output in (("logits", Output(x, x * torch.inf)), ("stage1", Output(x, x, (x / 0,)))):
        class Refuses(torch.nn.Module):
            def forward(self, student, teacher, targets):
                raise ValueError("not finite")

        terms = named_terms(torch.nn.ModuleDict({"r": Refuses()}), output, None, None)
        assert [*terms] == [f"student/{name}"] and not terms[f"student/{name}"].isfinite()
    with pytest.raises(ValueError, match="not finite"):
        named_terms(torch.nn.ModuleDict({"r": Refuses()}), Output(x, x, (x,)), None, None)


def test_an_error_inside_a_loss_is_not_disguised():
    class Broken(Classify):
        def forward(self, student, teacher, targets):
            raise ValueError("label 7 is outside the 4 classes")

    refused("label 7", losses={"b": Broken()})


def test_without_out_a_broken_run_says_how_to_keep_the_batch():
    with pytest.raises(FloatingPointError, match="set config.out"):
        train(config(), Student(), {"poison": Poison()}, batches())


def test_an_interrupt_keeps_what_there_is_and_goes_on_up(tmp_path):
    class Stopped(Batches):
        def epoch(self, epoch):
            yield from [*super().epoch(epoch)][:2]
            raise KeyboardInterrupt

    whole = batches()
    student, losses = parts()
    with pytest.raises(KeyboardInterrupt) as stop:
        train(config(out=tmp_path), student, losses,
              Stopped(whole.pixels, whole.labels, 8), Cache())
    assert len(stop.value.history) == 2 and not student.training
    with safe_open(tmp_path / "student.safetensors", "pt") as file:
        about = json.loads(file.metadata()["kdlab"])
        assert torch.equal(file.get_tensor("conv.weight"), student.conv.weight)
    assert about["finished"] is False and about["steps"] == 2


def test_any_object_with_len_and_epoch_gives_batches():
    class Own:
        def __len__(self):
            return 2

        def epoch(self, epoch):
            for _ in range(2):
                yield Batch(torch.rand(4, 3, 8, 8), Targets(torch.arange(4)), torch.arange(4),
                            torch.zeros(4, dtype=torch.bool))

    assert len(train(config(), Student(), {"arc": Classify()}, Own())) == 2


def test_the_share_of_a_term_is_its_gradients_norm_over_the_sum(tmp_path):
    """Measured on the weights before the step, term by term, each with its own backward."""
    student, losses = parts()
    history = train(config(share_every=2), student, losses, batches(), Cache())
    assert [row["step"] for row in history.rows if "arc.ce_share" in row] == [2, 4]

    student, losses = parts()
    train(config(share_every=0), student, losses, Own(1), Cache())
    batch = [*batches().epoch(0)][1]
    student.train()
    known = Cache()(batch.index, batch.flipped)
    norms = {}
    for name, loss in losses.items():
        for term in loss(student(batch.images), known, batch.targets):
            student.zero_grad()
            loss(student(batch.images), known, batch.targets)[term].backward()
            norms[f"{name}.{term}_share"] = math.sqrt(sum(
                float(p.grad.double().square().sum()) for p in student.parameters()))
    for name, norm in norms.items():
        assert history.rows[1][name] == pytest.approx(norm / sum(norms.values()), rel=1e-4)


class Own:
    """The first batches of an epoch, in an epoch of four as far as the schedule knows."""

    def __init__(self, steps):
        self.steps = steps

    def __len__(self):
        return 4

    def epoch(self, epoch):
        yield from [*batches().epoch(epoch)][:self.steps]


def test_measuring_shares_changes_nothing():
    runs = []
    for every in (0, 1):
        student, losses = parts()
        train(config(share_every=every), student, losses, batches(), Cache())
        runs.append(student.state_dict())
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


def test_bf16_computes_networks_in_half_and_the_rest_in_full():
    seen = []

    class Looks(Classify):
        def forward(self, student, teacher, targets):
            seen.append((student.embedding.dtype, student.features[0].dtype,
                         teacher.embedding.dtype))
            return super().forward(student, teacher, targets)

    torch.manual_seed(0)
    student, losses = Student(), {"arc": Looks()}
    history = train(config(precision="bf16"), student, losses, batches(), Student())
    torch.manual_seed(0)
    plain, exact = Student(), {"arc": Looks()}
    whole = train(config(), plain, exact, batches(), Student())
    assert set(seen) == {(torch.float32,) * 3}
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    assert history.rows[0]["loss"] != whole.rows[0]["loss"]
    assert history.rows[-1]["loss"] == pytest.approx(whole.rows[-1]["loss"], rel=0.05)


def test_channels_last_is_a_matter_of_memory():
    seen = []

    class Looks(Student):
        def forward(self, x):
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return super().forward(x)

    runs = []
    for switched in (False, True):
        torch.manual_seed(0)
        student = Looks()
        train(config(channels_last=switched), student, {"arc": Classify()}, batches())
        runs.append(student.state_dict())
    assert not any(seen[:4]) and all(seen[4:])
    for name, value in runs[0].items():
        torch.testing.assert_close(value, runs[1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile wants a C++ compiler on a CPU")
def test_a_compiled_student_learns_the_same(tmp_path):
    runs = []
    for switched in (False, True):
        torch.manual_seed(0)
        student = Student()
        train(config(compile=switched, share_every=1, out=tmp_path / str(switched)), student,
              {"arc": Classify(), "more": Classify()}, batches())
        runs.append(student.state_dict())
    assert runs[0].keys() == runs[1].keys()
    for name, value in runs[0].items():
        torch.testing.assert_close(value, runs[1][name], rtol=1e-3, atol=1e-5)


def test_the_rate_can_be_stated_for_another_batch_size():
    student, losses = parts()
    scaled = train(config(lr=0.4, lr_batch=32), student, losses, batches(), Cache())
    assert scaled.rows[0]["lr"] == pytest.approx(0.4 * 8 / 32)
    twin, losses = parts()
    train(config(lr=0.1), twin, losses, batches(), Cache())
    for a, b in zip(student.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_line_down_to_zero():
    poly = config(schedule="poly", warmup=0.2)
    assert [lr_factor(poly, step, 10) for step in range(10)] == pytest.approx(
        [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_a_cache_and_the_tail_teach_what_the_network_teaches(tmp_path, monkeypatch):
    """ShrinkTeaNet's four terms, four steps: the trained students agree."""
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path))
    torch.manual_seed(0)
    student, network = (MODELS[name](embedding_size=16) for name in ("ir_student", "ir_teacher"))
    contract = {"crop": "arcface", "size": 48, "mean": [127.5] * 3, "divide": 127.5,
                "embedding_size": 16}
    teacher = Teacher(network, contract, "a" * 64, torch.zeros(16))
    images = np.random.default_rng(0).integers(0, 256, (16, 3, 48, 48), np.uint8)
    faces = FaceSet({"arcface": images}, np.arange(16) % 4, "noise")
    start = ShrinkTeaNet(student.channels, teacher.channels, teacher.tail).state_dict()

    def taught_by(answers, tail=teacher.tail):
        learner, loss = copy.deepcopy(student), ShrinkTeaNet(student.channels, teacher.channels,
                                                             tail)
        loss.load_state_dict(start)
        train(config(batch_size=4, lr=0.01), learner, {"kd": loss},
              Batches(faces.pixels("arcface"), faces.labels, 4, key=faces.key), answers)
        return learner.state_dict()

    cache = embed_set(teacher, faces)
    live, cached = taught_by(teacher), taught_by(cache)
    for name, value in live.items():
        torch.testing.assert_close(cached[name], value, rtol=1e-4, atol=1e-5, msg=name)
    other = Teacher(network, contract, "b" * 64, torch.zeros(16))
    with pytest.raises(ValueError, match="the tail of the teacher bbbb.*embeddings of aaaa"):
        taught_by(cache, other.tail)


def test_pictures_that_are_no_numbers_are_refused_before_the_first_step():
    class Broken(Own):
        def epoch(self, epoch):
            for batch in super().epoch(epoch):
                batch.images[3, 0, 0, 0] = math.nan
                yield batch

    first = next(batches().epoch(0))
    student, losses = parts()
    before = student.conv.weight.clone()
    with pytest.raises(ValueError, match=rf"1 of the first 8 pictures hold NaN.*\(row "
                                         rf"{int(first.index[3])} of the set"):
        train(config(), student, losses, Broken(2), Cache())
    assert torch.equal(student.conv.weight, before)
