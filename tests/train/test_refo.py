"""ReFO's five steps: the paper's order, resumable between any two, equal to doing them by hand."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlab.data.batches import Batches
from kdlab.data.samplers import PairSampler
from kdlab.losses import ArcFace, FeatureOnly, ReverseDistillation
from kdlab.outputs import Output
from kdlab.train import TrainConfig, train
from kdlab.train import refo as recipe
from kdlab.train.refo import refo

CONFIG = TrainConfig(epochs=2, batch_size=8, lr=0.05, seed=3, device="cpu")


class Net(nn.Module):
    embedding_size = 6

    def __init__(self, width: int = 16):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, self.embedding_size)

    def forward(self, x):
        return Output(self.linear(F.relu(self.norm(self.conv(x))).mean((2, 3))))


def wide():
    return Net(32)


def batches(key="drawn", labels=None, crop="arcface", **more) -> Batches:
    pixels = torch.randint(0, 256, (32, 3, 24, 24), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    labels = np.arange(32) % 4 if labels is None else labels
    return Batches(pixels, labels, None if "sampler" in more else 8, crop=crop, key=key, **more)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KDLAB_HEADLESS", "1")


@pytest.fixture
def trained(monkeypatch):
    """What the recipe trains, in order; `stop` makes that call be interrupted."""
    calls = {"losses": [], "stop": None}

    def watched(config, student, losses, *more):
        if len(calls["losses"]) == calls["stop"]:
            raise KeyboardInterrupt
        calls["losses"].append(tuple(losses))
        return train(config, student, losses, *more)

    monkeypatch.setattr(recipe, "train", watched)
    return calls


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in
               zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_is_the_five_steps_done_by_hand(tmp_path):
    """By hand: proxy and teacher answer in the step itself; the recipe looks answers up."""
    known, other = batches(), batches("second set")
    found = refo(tmp_path, wide, {"mobile": Net}, known, Net, other, config=CONFIG, beta1=0.7,
                 beta2=2)

    def fresh(step: int, make):
        torch.manual_seed(int(np.random.SeedSequence((3, step)).generate_state(1)[0]))
        return make()

    proxy = fresh(1, Net)
    train(CONFIG, proxy, {"arcface": ArcFace(6, 4)}, known)  # step 1
    teacher = fresh(3, wide)
    train(CONFIG, teacher, {"arcface": ArcFace(6, 4), "reverse": ReverseDistillation(0.7)}, known,
          proxy)  # steps 2 and 3
    student = fresh(5, Net)
    train(CONFIG, student, {"feature_only": FeatureOnly(2)}, other, teacher)  # steps 4 and 5
    for name, network in (("proxy", proxy), ("teacher", teacher), ("mobile", student)):
        for a, b in zip(found[name].state_dict().values(), network.state_dict().values(),
                        strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert not any(network.training for network in found.values())


def test_without_a_proxy_the_teacher_is_vanilla(tmp_path, trained):
    made = refo(tmp_path, wide, {"mobile": Net}, batches(), config=CONFIG)
    assert set(made) == {"teacher", "mobile"}
    assert trained["losses"] == [("arcface",), ("feature_only",)]
    teacher = wide()
    torch.manual_seed(int(np.random.SeedSequence((3, 3)).generate_state(1)[0]))
    teacher = wide()
    train(CONFIG, teacher, {"arcface": ArcFace(6, 4)}, batches())
    assert same(made["teacher"], teacher)


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_an_interrupted_run_goes_on_between_any_two_steps(tmp_path, trained, step):
    students = {"mobile": Net, "wide": wide}
    whole = refo(tmp_path / "whole", wide, students, batches(), Net, config=CONFIG)
    trained |= {"losses": [], "stop": step}
    with pytest.raises(KeyboardInterrupt):
        refo(tmp_path / "cut", wide, students, batches(), Net, config=CONFIG)
    trained |= {"losses": [], "stop": None}
    resumed = refo(tmp_path / "cut", wide, students, batches(), Net, config=CONFIG)
    assert len(trained["losses"]) == 4 - step
    assert all(same(whole[name], resumed[name]) for name in whole)


def test_nothing_is_trained_twice_and_nothing_overwritten(tmp_path, trained):
    first = refo(tmp_path, wide, {"mobile": Net}, batches(), Net, config=CONFIG)
    trained["losses"].clear()
    again = refo(tmp_path, wide, {"mobile": Net}, batches(), Net, config=CONFIG)
    assert not trained["losses"] and all(same(first[name], again[name]) for name in first)
    refo(tmp_path, wide, {"mobile": Net}, batches(), Net, config=CONFIG, beta1=2)
    assert trained["losses"] == [("arcface", "reverse"), ("feature_only",)]  # the proxy stays
    trained["losses"].clear()
    refo(tmp_path, wide, {"mobile": Net}, batches(), Net, config=CONFIG, beta2=2)
    assert trained["losses"] == [("feature_only",)]
    names = sorted(path.name.split("-")[0] for path in tmp_path.iterdir() if path.is_dir()
                   and path.name[0].isdigit())
    assert names == ["1_proxy", "3_teacher", "3_teacher", *["5_mobile"] * 3]


def test_a_teacher_that_starts_trained_is_another_step(tmp_path, trained):
    def started():
        made = wide()
        with torch.no_grad():
            made.linear.bias.fill_(1)
        return made

    fresh = refo(tmp_path, wide, {}, batches(), config=CONFIG)
    tuned = refo(tmp_path, started, {}, batches(), config=CONFIG)
    assert len(trained["losses"]) == 2 and not same(fresh["teacher"], tuned["teacher"])


def test_the_student_does_not_start_from_the_proxy(tmp_path):
    """They are separate networks, even where the architecture is one."""
    made = refo(tmp_path, wide, {"mobile": Net}, batches(), Net,
                config=CONFIG.model_copy(update={"lr": 1e-9}))
    assert not torch.allclose(made["proxy"].conv.weight, made["mobile"].conv.weight, atol=1e-3)


def test_students_never_see_a_label(tmp_path):
    plain = refo(tmp_path / "a", wide, {"mobile": Net}, batches(), None, batches("D2"),
                 config=CONFIG)
    mixed = refo(tmp_path / "b", wide, {"mobile": Net}, batches(), None,
                 batches("D2", np.random.default_rng(0).permutation(32)), config=CONFIG)
    assert same(plain["mobile"], mixed["mobile"])


def test_each_step_may_have_a_config_of_its_own(tmp_path):
    configs = {"teacher": CONFIG.model_copy(update={"epochs": 1})}
    refo(tmp_path, wide, {"mobile": Net}, batches(), Net, config=CONFIG, configs=configs)
    epochs = {path.name[0]: json.loads((path / "step.json").read_text())["config"]["epochs"]
              for path in tmp_path.iterdir() if path.is_dir() and path.name[0].isdigit()}
    assert epochs == {"1": 2, "3": 1, "5": 2}


def test_a_damaged_step_is_named(tmp_path):
    refo(tmp_path, wide, {}, batches(), config=CONFIG)
    file = next(tmp_path.glob("3_teacher-*/student.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="student.safetensors is missing or not the file that"):
        refo(tmp_path, wide, {}, batches(), config=CONFIG)


class Larger(Net):
    embedding_size = 7


@pytest.mark.parametrize(("change", "message"), [
    ({"proxy": Larger}, "one embedding size, there is no projection: teacher 6, proxy 7"),
    ({"students": {"proxy": Net}}, "a student cannot be called 'proxy'"),
    ({"students": {"../up": Net}}, r"a student cannot be called '\.\./up'"),
    ({"known": batches(None)}, "the known batches do not say which pictures they hold"),
    ({"unlabelled": batches(crop=None)}, "the unlabelled batches do not say"),
    ({"known": batches(sampler=PairSampler(np.arange(32) % 4, 4, 2, 2))}, "come from a sampler"),
    ({"configs": {"teachers": CONFIG}}, "did you mean 'teacher'"),
])
def test_what_cannot_work_is_refused_before_the_first_step(tmp_path, trained, change, message):
    given = {"teacher": wide, "students": {}, "known": batches(), "config": CONFIG} | change
    with pytest.raises(ValueError, match=message):
        refo(tmp_path, **given)
    assert not trained["losses"]


@pytest.mark.parametrize("factor", [2, 0.25])  # powers of two: no rounding enters
def test_beta2_is_a_learning_rate_and_a_weight_decay(factor):
    """With SGD, beta2 c times as large is lr c times as large and weight decay c times smaller.

    g = c grad + w d, step lr g: the same as grad + (w / c) d, step (lr c) g. Momentum is linear;
    clipping is not, so it is off.
    """
    def run(beta2: float, lr: float, weight_decay: float) -> nn.Module:
        torch.manual_seed(0)
        student, teacher = Net(), wide()
        config = TrainConfig(epochs=3, batch_size=8, lr=lr, weight_decay=weight_decay, clip=None,
                             device="cpu")
        train(config, student, {"feature_only": FeatureOnly(beta2)}, batches(), teacher)
        return student

    assert same(run(5 * factor, 0.05, 1e-2), run(5, 0.05 * factor, 1e-2 / factor))
    assert not same(run(5 * factor, 0.05, 1e-2), run(5, 0.05 * factor, 1e-2))
