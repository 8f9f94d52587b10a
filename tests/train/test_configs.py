"""Every file in configs/ builds; every miniature prepares and takes its first steps."""

import re
from pathlib import Path

import pytest
import torch
import yaml

import kdlab.world
from kdlab.models import MODELS
from kdlab.teachers import Teacher, load_teacher
from kdlab.train import train
from kdlab.train.build import build_losses, build_student
from kdlab.train.optimizer import lr_factor
from kdlab.train.run import load_run, prepare

FILES = {path.stem: path for path in
         sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))}
MINIATURES = [name for name in FILES if "miniature" in name]
RECIPES = ["ekd", "ekd_ir18", "adadistill", "adadistill_casia", "shrinkteanet", "refo_1_proxy",
           "refo_3_teacher", "refo_5_student", "mfd_cifar10s", "mfd_utkface", "mfd_celeba"]
TEACHERS = {"iresnet50_ms1mv2": "iresnet50", "iresnet90_ms1mv2": "iresnet90",
            "refo_1_proxy": "mobilefacenet", "refo_3_teacher": "iresnet50"}  # whose file it is


def test_every_published_recipe_is_there_with_a_miniature():
    assert set(RECIPES) <= set(FILES)
    for name in RECIPES:
        family = name.split("_")[0]
        assert [m for m in MINIATURES if m.startswith(family)], name
    assert {"refo_1_proxy_miniature", "refo_3_teacher_miniature",
            "refo_5_student_miniature"} <= set(MINIATURES)


@pytest.mark.parametrize("name", RECIPES)
def test_every_field_of_a_recipe_says_where_it_comes_from(name):
    """On its own line, on one that opens a block of commented lines, or on the line above."""
    lines = FILES[name].read_text().splitlines()
    opens = re.compile(r"^\s*\w+:$")
    for above, line in zip(["", *lines], lines, strict=False):
        field = re.match(r"\s*(\w+):", line)
        told = "#" in line or above.lstrip().startswith("#")
        if field and field[1] not in ("loss", "schedule", "out") and not opens.match(line):
            assert told, line


def on_meta(run):
    """Student, teacher and losses of a run as shapes; the teacher's file need not be there."""
    named = run.teacher and not run.teacher.endswith(".safetensors")
    teacher = load_teacher(run.teacher) if named else None
    with torch.device("meta"):
        student = build_student(run)
        if run.teacher and not named:
            stem = run.teacher.split("/")[1].removesuffix(".safetensors")
            network = MODELS[TEACHERS[stem]]() if stem in TEACHERS else build_student(run)
            contract = {"embedding_size": network.embedding_size, "mean": [127.5] * 3,
                        "divide": 127.5}
            teacher = Teacher(network, contract, "0" * 64, torch.zeros(network.embedding_size))
        return student, teacher, build_losses(run, student, teacher)


@pytest.mark.parametrize("name", FILES)
def test_a_config_builds_its_network_losses_and_rate(name):
    run = load_run(FILES[name])
    student, teacher, losses = on_meta(run)
    assert list(losses) == list(run.losses)
    S = student.input_size
    said = student(torch.empty(2, 3, S, S, device="meta"))
    assert said.embedding.shape == (2, student.embedding_size)
    if run.classifies:
        assert said.logits.shape == (2, run.identities)
    assert run.sizes[run.crop] >= S and run.train.out is not None
    if teacher is not None and "MFD" not in str(run.losses):
        assert teacher.embedding_size == student.embedding_size or name == "ekd_miniature"

    config, steps = run.train, run.train.epochs * 100
    rates = [lr_factor(config, step, steps) for step in range(steps)]
    warm = round(config.warmup * steps)
    assert max(rates) == pytest.approx(1) and rates[warm] == pytest.approx(1, rel=0.01)
    assert all(b <= a for a, b in zip(rates[warm:], rates[warm + 1:], strict=False))
    for fallen, milestone in enumerate(config.milestones):
        if milestone == round(milestone):
            assert rates[int(milestone) * 100 - 1] == pytest.approx(0.1**fallen)
            assert rates[int(milestone) * 100] == pytest.approx(0.1 ** (fallen + 1))
    if config.schedule == "plateau":
        assert lr_factor(config, steps - 1, steps, falls=2) == pytest.approx(0.01)


@pytest.mark.parametrize("name, epochs, batch, lr, milestones, decay", [
    ("ekd", 28, 1024, 0.1, [10, 18, 24], 5e-4),
    ("ekd_ir18", 28, 1024, 0.1, [10, 18, 24], 5e-4),
    ("adadistill", 26, 512, 0.1, [7, 13, 19, 24], 5e-4),
    ("adadistill_casia", 60, 512, 0.1, [39, 47, 51], 5e-4),
    ("mfd_cifar10s", 50, 128, 1e-3, [], 0),
    ("mfd_utkface", 50, 128, 1e-3, [], 0),
    ("mfd_celeba", 50, 128, 1e-3, [], 0),
])
def test_a_recipe_has_the_published_numbers(name, epochs, batch, lr, milestones, decay):
    config = load_run(FILES[name]).train
    assert (config.epochs, config.batch_size, config.lr, config.milestones,
            config.weight_decay) == (epochs, batch, lr, milestones, decay)
    assert config.lr_scale == 1 and config.warmup == 0


def test_the_published_losses_have_the_published_numbers():
    def settings(name):
        return load_run(FILES[name]).losses

    assert settings("ekd") == settings("ekd_ir18")
    assert settings("adadistill")["adadistill"]["margin"] == 0.45
    assert settings("refo_3_teacher")["reverse"]["weight"] == 0.5
    assert settings("refo_5_student")["feature_only"]["weight"] == 5
    assert [settings(f"mfd_{d}")["mfd"]["weight"] for d in ("cifar10s", "utkface", "celeba")] == [
        3, 3, 7]
    _, _, losses = on_meta(load_run(FILES["shrinkteanet"]))
    assert [lift[0].out_channels for lift in losses["shrink"].lifts] == [64, 128, 256]


@pytest.mark.parametrize("name", [name for name in FILES if name not in MINIATURES
                                  and name != "first_light"])
def test_a_recipe_without_its_teacher_or_pictures_is_refused_in_words(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = load_run(FILES[name])
    with pytest.raises(FileNotFoundError) as error:
        prepare(run)
    assert str(run.teacher or run.folder.path) in str(error.value)
    assert "\n" not in str(error.value)


def smaller(name):
    """The miniature, made so small that a few steps take no time."""
    values = load_run(FILES[name]).model_dump(mode="json")
    values["world"] |= {"identities": 8, "per_identity": 4}
    values["validation"] |= {"identities": 4, "per_identity": 2, "fpr": 0.2}
    values["train"] |= {"epochs": 1, "batch_size": 16, "device": "cpu", "milestones": [],
                        "warmup": 0, "log_every": 1, "share_every": 2}
    if values["sampler"] and values["sampler"]["pairs"]:
        values["sampler"]["pairs"] |= {"random": 8, "identities": 2}
    if values["world"]["groups"]:
        values["world"] |= {"identities": 3, "per_identity": 16, "nuisance": {"grey": 0.5}}
    return load_run(values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the miniatures run, one after another: a later one finds its teacher there."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.filterwarnings("ignore:EKD. a batch of:UserWarning")  # this small one, it says
@pytest.mark.parametrize("name", sorted(MINIATURES, key=lambda name: "mfd_miniature" == name))
def test_a_miniature_prepares_and_steps(name, folder, monkeypatch, noise):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KDLAB_CACHE", str(folder / "cache"))
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    monkeypatch.setattr(kdlab.world, "rendered", noise)
    run = smaller(name)
    parts = prepare(run)
    assert run.train.out.name == name and len(parts["batches"]) >= 1
    history = train(run.train, **parts)
    assert history.columns["loss"].shape == (len(parts["batches"]),)
    assert "validation" in history.columns
    for loss in run.losses:
        assert any(column.startswith(f"{loss}/") for column in history.columns)
    (run.train.out / "run.yaml").write_text(yaml.safe_dump(run.model_dump(mode="json")))
