"""A run file: what it may say, what is built of it, and what is refused before anything is done."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rec_files import packed, write
from safetensors.torch import load_file, save_file

import kdlab.world
from kdlab.align import TEMPLATES
from kdlab.data.batches import OnDisk
from kdlab.data.embeddings import EmbeddingCache
from kdlab.data.folder import ImageFolder
from kdlab.models import MODELS
from kdlab.teachers import Teacher, save_teacher
from kdlab.train import History, train
from kdlab.train.build import build_losses, build_student
from kdlab.train.pictures import check_labels
from kdlab.train.run import RunConfig, load_run, prepare
from kdlab.train.taught import rehearse, run_teacher

SMALL = {"seed": 0, "identities": 4, "per_identity": 4}
TRAIN = {"epochs": 1, "batch_size": 8, "device": "cpu", "warmup": 0}
ARC = {"arc": {"loss": "ArcFace"}}


def run(**changes):
    """A small run without a teacher, changed; `train` is added to."""
    values = {"student": "ir_student", "embedding_size": 16, "losses": ARC, "world": SMALL}
    return values | changes | {"train": TRAIN | changes.get("train", {})}


@pytest.fixture
def quick(tmp_path, monkeypatch, noise):
    """Noise instead of rendering, a cache of its own; the people that were rendered."""
    asked = []

    def rendered(people, identities, per_identity, crops):
        asked.append(identities)
        return noise(people, identities, per_identity, crops)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    monkeypatch.setattr(kdlab.world, "rendered", rendered)
    return asked


@pytest.fixture
def folder(tmp_path):
    """Three people with four pictures of 48 pixels each."""
    rng = np.random.default_rng(0)
    for name in ("anna", "bela", "carl"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for j in range(4):
            pixels = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "faces" / name / f"{j}.png")
    (tmp_path / "groups.csv").write_text("".join(
        f"{name}/{j}.png,{j % 2}\n" for name in ("anna", "bela", "carl") for j in range(4)))
    return tmp_path / "faces"


def small_teacher(path="mine.safetensors", D=16, C=4, **contract):
    torch.manual_seed(0)
    network = MODELS["ir_student"](embedding_size=D).eval()
    save_teacher(path, network, {
        "network": "ir_student", "arguments": {"embedding_size": D}, "embedding_size": D,
        "crop": "arcface", "size": 48, "channels": "RGB", "mean": [127.5] * 3, "divide": 127.5,
        **contract}, centres=None if C is None else torch.randn(C, D))
    return str(path)


def files(folder, **more):
    return {"path": str(folder), "identities": 3, "size": 48, **more}


def test_a_run_is_read_from_a_file_a_dict_or_itself(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(run()))
    loaded = load_run(path)
    assert loaded.train.out == Path("runs/mine")
    assert load_run(run()).train.out is None and load_run(loaded) is loaded
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(loaded.model_dump(mode="json")))
    assert load_run(again) == loaded
    assert load_run({"losses": ARC}).world.identities == 300  # rendered faces are the default


@pytest.mark.parametrize("changes, said", [
    (dict(studnt="a"), "unknown field 'studnt'; did you mean 'student'"),
    (dict(train={"epoch": 1}), "train: unknown field 'epoch'; did you mean 'epochs'"),
    (dict(train={"version": 99}), "train.version: .*version 99.*upgrade"),
    (dict(world={"identitys": 3}), "world: unknown field 'identitys'; did you mean 'identities'"),
    (dict(world={"identities": 1}), "world.identities: .*greater than or equal to 2"),
    (dict(folder={"path": "a", "identities": 3}), "world and folder exclude one another"),
    (dict(world=None, folder={"path": "a"}), "folder.identities: Field required"),
    (dict(world=None, folder={"path": "a", "identities": 1}), "folder.identities: "),
    (dict(world=None, folder={"path": "a", "identities": 3, "crop": "whole"}),
     "folder.crop: input should be 'arcface' or 'dlib' .got 'whole'"),
    (dict(world=None, folder={"path": "a", "identities": 3, "size": 64, "landmarks": "l.csv"}),
     r"folder: size 64 does not go with landmarks: they align pictures to 112 pixels .arcface."),
    (dict(validation={"landmarks": "l.csv"}), "validation: landmarks are those of files; name"),
    (dict(losses={"arc": {"margin": 1}}), "arc does not say which loss"),
    (dict(losses={}), "losses: "),
    (dict(sampler={}), "sampler: a sampler is either"),
    (dict(sampler={"pair": {}}), "unknown field 'pair'; did you mean 'pairs'"),
    (dict(sampler={"pairs": {"random": 4, "identities": 2}}), "pairs.per_identity: Field required"),
    (dict(sampler={"pairs": {"random": 4, "identities": 2, "per_identity": 4}}),
     r"train.batch_size: .* 4 \+ 2 x 4 = 12, not 8"),
    (dict(sampler={"groups": {}}), "sampler.groups wants groups"),
    (dict(validation={"first": 3}), "validation.first: person 3 is trained on .0 to 3"),
    (dict(validation={"fpr": 1e-6}), "validation: 113,280 pairs of strangers cannot measure"),
    (dict(train={"schedule": "plateau"}), "train.schedule: 'plateau' waits for better validations"),
])
def test_what_a_run_says_wrong_is_one_line(changes, said):
    with pytest.raises(ValueError, match=said) as error:
        load_run(run(**changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("changes, said", [
    (dict(student="ir_studnt"), "student: unknown network 'ir_studnt'; did you mean 'ir_student'"),
    (dict(student="dlib_resnet29"), "embedding_size: dlib_resnet29 has 128 dimensions, not 16"),
    (dict(student="cifar_cnn"), "embedding_size: cifar_cnn has 256 dimensions, not 16; leave"),
    (dict(student="resnet18", embedding_size=None, losses={"ce": {"loss": "CrossEntropy"}}),
     "student: resnet18 looks at 176 pixels, the pictures have 112"),
    (dict(losses={"a": {"loss": "ArcFaec"}}), "losses.a: unknown loss 'ArcFaec'; did you mean"),
    (dict(losses={"a": {"loss": "ArcFace", "scal": 2}}),
     "losses.a: unknown ArcFace argument 'scal'; did you mean 'scale'"),
    (dict(losses={"a": {"loss": "ArcFace", "gradient": "none"}}), "losses.a: gradient must be"),
    (dict(losses={"a": {"loss": "ArcFace", "scale": [1]}}), "losses.a: "),
    (dict(losses={"a": {"loss": "CrossEntropy", "weight": 1}}), "CrossEntropy takes no arguments"),
    (dict(losses={"a": {"loss": "CrossEntropy"}}), "losses.a: CrossEntropy needs the student's lo"),
    (dict(losses={"a": {"loss": "ArcDistill"}}), "losses.a: ArcDistill wants centres; they come"),
    (dict(losses={"a": {"loss": "ShrinkTeaNet"}}), "wants teacher_channels, tail; they come with"),
    (dict(losses={"a": {"loss": "AdversarialDebiasing", "weight": 1}}), "num_groups: 2"),
    (dict(losses={"a": {"loss": "EKD"}}), "losses.a: EKD learns from a teacher, and the run has"),
    (dict(teacher="dlib_resnt29", losses=ARC | {"a": {"loss": "EKD"}}), "teacher: no teacher at"),
    (dict(teacher="gone/student.safetensors"), "teacher: no teacher at gone.*its out is gone"),
    (dict(teacher="dlib_resnet29"), "teacher: no loss of this run learns from dlib_resnet29"),
    (dict(teacher="dlib_resnet29", losses={"a": {"loss": "FeatureOnly"}}),
     r"losses.a: FeatureOnly compares embeddings of one size: .* 16\), .* 128\)"),
    (dict(teacher="dlib_resnet29", losses={"a": {"loss": "AdaDistill"}}), "losses.a: .*128"),
    (dict(teacher="dlib_resnet29", losses={"a": {"loss": "AttentionTransfer"}}),
     "losses.a: AttentionTransfer needs the teacher's features, so both .* 48 pixels .* 150 of"),
    (dict(teacher="dlib_resnet29", losses={"a": {"loss": "CosDistill"}}),
     "losses.a: CosDistill wants centres; dlib_resnet29 was saved without"),
    (dict(teacher="ir_teacher", losses={"a": {"loss": "ArcDistill"}}), "losses.a: .*256"),
    (dict(teacher="ir_teacher", losses={"a": {"loss": "ArcDistill"}}, embedding_size=256,
          world=SMALL | {"seed": 1}), "class rows for 4000 people of the world of seed 0, the run"),
    (dict(teacher="ir_teacher", losses={"a": {"loss": "MFD", "layer": "embedding"}},
          embedding_size=256), "losses.a: MFD needs targets.groups"),
    (dict(teacher="ir_teacher", losses={"a": {"loss": "MFD"}}, world=SMALL | {"groups": "grey"}),
     "losses.a: MFD compares last maps of one shape"),
    (dict(teacher="ir_teacher", losses={"a": {"loss": "EKD", "positives": "balanced"}}),
     "losses.a: .*needs targets.balanced"),
    (dict(teacher="ir_teacher", losses=ARC | {"a": {"loss": "HintonKD", "student_logits": "ark"}}),
     "losses.a: student_logits is the name of a loss .* not 'ark', known are arc"),
    (dict(teacher="ir_teacher", losses=ARC | {
        "a": {"loss": "HintonKD", "student_logits": "arc", "teacher_logits": "arc"}}),
     "losses.a: teacher_logits is the scale s"),
    (dict(teacher="dlib_resnet29", losses=ARC | {
        "a": {"loss": "HintonKD", "student_logits": "arc", "teacher_logits": 64}}),
     "losses.a: the class rows of a teacher are wanted, and dlib_resnet29 was saved without"),
    (dict(world=SMALL | {"nuisance": {"gray": 1}}), "world.nuisance: unknown nuisance gray"),
    (dict(sampler={"pairs": {"random": 2, "identities": 1, "per_identity": 6}}),
     "sampler: a batch takes 1 identities, but only 0 .* have 6 images"),
    (dict(sampler={"groups": {}}, world=SMALL | {"groups": "mask"}),
     "world.groups: the pictures are of the groups 0; two at least"),
    (dict(sampler={"groups": {}}, world={"identities": 12, "groups": "ancestry"}),
     "sampler: no image is of class"),
    (dict(train={"batch_size": 64}), "16 images, fewer than one batch of 64"),
    (dict(train={"device": "cuda"}), "torch finds no GPU"),
    (dict(validation={"folder": "gone"}), "gone: no such folder"),
])
def test_what_cannot_work_is_refused_before_anything_is_rendered(quick, changes, said):
    if changes.get("train") == {"device": "cuda"} and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises((ValueError, FileNotFoundError), match=said) as error:
        prepare(run(**changes))
    assert not quick and not Path("cache/embeddings").exists() and "\n" not in str(error.value)


def test_a_folder_is_refused_before_a_picture_is_decoded(quick, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(kdlab.data.folder, "decode", None)
    for more, said in (
            (dict(identities=5), "folder .*faces holds 3 identities, the run file says 5"),
            (dict(size=64), "is 48 pixels a side, the set asks for 64"),
            (dict(path="gone"), "gone: no such folder"),
            (dict(size=32), "student: ir_student looks at 48 pixels, the pictures have 32"),
            (dict(groups="gone.csv"), "gone.csv")):
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            prepare(run(world=None, folder=files(folder) | more))
    losses = {"ada": {"loss": "AdaDistill"}}
    with pytest.raises(ValueError, match="dlib_resnet29 looks at the 'dlib' crop at 150 pixels; "
                                         "the pictures of this run are: arcface 48"):
        prepare(run(world=None, folder=files(folder), teacher="dlib_resnet29", losses=losses,
                    embedding_size=128))


@pytest.mark.parametrize("labels, said", [
    ([0, 0, 2], "labels run from 0 to 2, and no picture has 1; number the identities 0 to 1"),
    ([1, 2, 2], "labels run from 1 to 2, and no picture has 0"),
    ([0, 0, 0], "holds 1 identity; nobody can be told"),
    ([0, 1, 2], "holds 3 identities, the run file says 2; set identities: 3"),
])
def test_labels_with_gaps_and_one_identity_are_refused(labels, said):
    check_labels(np.array([0, 1, 1]), 2, "here")
    with pytest.raises(ValueError, match=f"^here.* ?{said}"):
        check_labels(np.array(labels), 2, "here")


def test_every_loss_builds_from_a_name(quick):
    """With what its signature asks for and no file can know filled in."""
    from kdlab.losses import LOSSES

    wants = {"AdversarialDebiasing": {"weight": 1}}
    checked = load_run(run(world=SMALL | {"groups": "grey"}, teacher="ir_teacher", losses={
        name.lower(): {"loss": name, **wants.get(name, {})} for name in LOSSES}))
    losses = build_losses(checked, build_student(checked), run_teacher("ir_teacher"))
    assert [type(loss).__name__ for loss in losses.values()] == list(LOSSES)
    assert losses["arcface"].weight.shape == (4, 16)
    assert losses["arcdistill"].centres.shape == (4, 256)  # the first of 4000 rows
    assert losses["adversarialdebiasing"].num_groups == 2
    assert len(losses["shrinkteanet"].lifts) == 3 and len(losses["featurel2"].lifts) == 4


def test_hinton_kd_takes_its_logits_from_a_loss_and_from_class_rows(quick):
    checked = load_run(run(embedding_size=256, teacher="ir_teacher", losses={
        "kd": {"loss": "HintonKD", "student_logits": "arc", "teacher_logits": 30}, **ARC}))
    parts = prepare(checked)
    kd, arc, rows = parts["losses"]["kd"], parts["losses"]["arc"], run_teacher("ir_teacher").centres
    assert list(parts["losses"]) == ["kd", "arc"] and isinstance(parts["teacher"], EmbeddingCache)
    x = torch.randn(3, 256)
    assert torch.equal(kd.student_logits(x), arc.logits(x))
    expected = 30 * torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(rows[:4]).T
    torch.testing.assert_close(kd.teacher_logits(x), expected)
    assert "kd/logits" in train(checked.train, **parts).columns


@pytest.mark.parametrize("losses, kind", [
    ({"a": {"loss": "EKD", "fprs": [0.5]}}, EmbeddingCache),
    ({"a": {"loss": "AttentionTransfer"}}, Teacher),
    ({"a": {"loss": "ArcDistill"}}, type(None)),
    (ARC | {"a": {"loss": "RKD"}}, EmbeddingCache),
])
def test_the_teacher_is_a_cache_where_that_is_enough(quick, losses, kind):
    checked = load_run(run(embedding_size=256, teacher="ir_teacher", losses=losses))
    parts = prepare(checked)
    assert isinstance(parts["teacher"], kind)
    assert np.isfinite(train(checked.train, **parts).columns["loss"]).all()


def test_a_finished_student_is_another_runs_teacher(quick):
    first = load_run(run(train={"out": "runs/first"}))
    train(first.train, **prepare(first))
    second = run(losses={"f": {"loss": "FeatureOnly"}}, teacher="runs/first/student.safetensors")
    with pytest.raises(ValueError, match="teacher: .*no 'kdlab teacher 1' file"):
        prepare(second)  # nobody says which network it is
    Path("runs/first/run.yaml").write_text(yaml.safe_dump(first.model_dump(mode="json")))
    parts = prepare(second)
    teacher = run_teacher("runs/first/student.safetensors")
    assert parts["teacher"].identity["teacher"] == teacher.hash
    assert teacher.contract["size"] == 48 and teacher.contract["crop"] == "arcface"
    index, flipped = torch.arange(16), torch.zeros(16, dtype=torch.bool)
    seen = teacher(parts["batches"].batch(index, flipped).images).embedding
    torch.testing.assert_close(parts["teacher"](index, flipped).embedding, seen)


def test_a_student_that_cannot_teach_is_refused(quick):
    first = load_run(run(train={"out": "runs/first"}))
    train(first.train, **prepare(first))
    path = Path("runs/first/student.safetensors")
    about = json.loads(metadata(path)["kdlab"])
    (path.parent / "run.yaml").write_text(yaml.safe_dump(first.model_dump(mode="json")))
    weights = load_file(path)

    def with_(changed, **more):
        save_file(changed, path, {"kdlab": json.dumps(about | more)})
        with pytest.raises(ValueError) as error:
            run_teacher(str(path))
        return str(error.value)

    assert "was stopped after 2 steps; finish that run first" in with_(weights, finished=False)
    assert "does not fit the ir_student" in with_({"x": torch.zeros(1)})
    name = next(iter(weights))
    assert "not finite" in with_(weights | {name: weights[name] * torch.nan})
    path.write_bytes(b"\x10\0\0\0")
    with pytest.raises(ValueError, match="teacher: .*no student that a run left"):
        run_teacher(str(path))


def metadata(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()


def test_a_run_on_files_trains(quick, folder, tmp_path):
    """EKD's batches, a teacher's cache, validation on the same files; nothing is rendered."""
    small_teacher()
    checked = load_run(run(
        world=None, folder=files(folder), teacher="mine.safetensors",
        losses=ARC | {"ekd": {"loss": "EKD", "fprs": [0.5], "positives": "balanced"}},
        sampler={"pairs": {"random": 4, "identities": 2, "per_identity": 2}},
        validation={"folder": str(folder), "fpr": 0.1}, train={"epochs": 2}))
    parts = prepare(checked)
    assert isinstance(parts["batches"].pixels, OnDisk) and not quick
    assert parts["batches"].key == parts["teacher"].identity["faces"]
    columns = train(checked.train, **parts).columns
    assert np.isfinite(columns["loss"]).all()
    told = columns["validation"][~np.isnan(columns["validation"])]
    assert len(told) == 2 and (told >= 0).all() and (told <= 1).all()


def test_a_classifier_is_validated_by_its_own_loss(quick, folder, tmp_path):
    settings = run(student="cifar_cnn", embedding_size=None, world=None,
                   folder=files(folder, groups=str(tmp_path / "groups.csv")),
                   losses={"ce": {"loss": "CrossEntropy"},
                           "ad": {"loss": "AdversarialDebiasing", "weight": 1, "num_groups": 2}},
                   validation={"folder": str(folder)}, sampler={"groups": {}},
                   train={"batch_size": 6, "schedule": "plateau"})
    parts = prepare(settings)
    student = parts["student"].eval()
    images, labels = parts["batches"].pixels.rows(torch.arange(12)), torch.arange(12) // 4
    logits = student((images.float() - 127.5) / 127.5).logits
    expected = -torch.nn.functional.cross_entropy(logits, labels).detach()
    assert parts["validate"](student) == pytest.approx(float(expected), rel=1e-5)
    (folder / "carl").rename(folder / "dora")
    (tmp_path / "held").mkdir()
    for name in ("anna", "bela"):
        (folder / name).rename(tmp_path / "held" / name)
    settings["folder"] = files(tmp_path / "held", identities=2)
    settings |= {"losses": {"ce": {"loss": "CrossEntropy"}}, "sampler": None}
    (folder / "erik").mkdir()
    (folder / "dora" / "0.png").rename(folder / "erik" / "0.png")
    with pytest.raises(ValueError, match="validation.folder: cifar_cnn names classes"):
        prepare(settings)


def test_validation_is_a_rate_on_people_that_nobody_trains_on(quick):
    parts = prepare(run(validation={"first": 50, "identities": 5, "per_identity": 3, "fpr": 0.1}))
    assert len(quick) == 2 and 0 <= parts["validate"](parts["student"]) <= 1
    assert sorted(list(asked) for asked in quick) == [list(range(4)), list(range(50, 55))]


def test_another_validation_is_another_run(quick):
    """The best student would be the best of two different things."""
    def go(**validation):
        checked = load_run(run(validation=validation or None, train={"out": "runs/judged"}))
        return train(checked.train, **prepare(checked))

    mine = {"first": 50, "identities": 5, "per_identity": 3, "fpr": 0.1}
    go(**mine)
    assert len(go(**mine)) == 2
    for other, said in ((mine | {"first": 60}, "validation.first is 50 there and 60 here"),
                        (mine | {"fpr": 0.2}, "measure is TPR at FPR 0.1 there and .* 0.2 here"),
                        ({}, "validation.first is 50 there and None here")):
        with pytest.raises(ValueError, match=f"runs/judged holds another run .*{said}"):
            go(**other)


def test_processes_prepare_their_own_rows_of_one_batch(quick):
    whole, *parts = (prepare(run(), rank, world)["batches"] for rank, world in
                     ((0, 1), (0, 2), (1, 2)))
    for batch, *mine in zip(whole.epoch(0), *(part.epoch(0) for part in parts), strict=True):
        assert torch.equal(batch.images[0::2], mine[0].images)
        assert torch.equal(batch.images[1::2], mine[1].images)
    with pytest.raises(ValueError, match="3 processes cannot share"):
        prepare(run(), 0, 3)


def test_a_rehearsal_leaves_everything_as_it_was(quick):
    checked = load_run(run(embedding_size=256, teacher="ir_teacher", losses=ARC | {
        "ada": {"loss": "AdaDistill"}, "ekd": {"loss": "EKD", "negatives": "random"}}))
    torch.manual_seed(0)
    student = build_student(checked)
    teacher = run_teacher("ir_teacher")
    losses = torch.nn.ModuleDict(build_losses(checked, student, teacher))
    both = torch.nn.ModuleList([student, losses])
    before, random = {k: v.clone() for k, v in both.state_dict().items()}, torch.get_rng_state()
    rehearse(checked, student, losses, teacher, "embeddings", torch.device("cpu"))
    assert all(torch.equal(v, before[k]) for k, v in both.state_dict().items())
    assert torch.equal(random, torch.get_rng_state()) and losses["ekd"].training


def test_pictures_that_do_not_fit_into_memory_are_read(quick, monkeypatch):
    held = prepare(run())["batches"]
    monkeypatch.setattr(kdlab.train.pictures, "IN_MEMORY", 1000)
    read = prepare(run())["batches"]
    assert isinstance(held.pixels, torch.Tensor) and isinstance(read.pixels, OnDisk)
    for a, b in zip(held.epoch(0), read.epoch(0), strict=True):
        assert torch.equal(a.images, b.images)


def test_a_run_on_rendered_faces_trains(tmp_path, monkeypatch):
    """The real renderer, once: two people, and two held out."""
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path))
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    checked = load_run(run(world={"identities": 2, "per_identity": 2, "groups": "grey",
                                  "nuisance": {"grey": 0.5}},
                           validation={"identities": 2, "per_identity": 2, "fpr": 0.5},
                           train={"batch_size": 2}))
    parts = prepare(checked)
    assert parts["batches"].groups.shape == (4,) and parts["batches"].pixels.shape[-1] == 48
    assert train(checked.train, **parts).columns["validation"][-1] >= 0


def test_every_field_is_described():
    def described(schema):
        for name, field in schema["properties"].items():
            assert field.get("description") or "$ref" in str(field), name

    schema = RunConfig.model_json_schema()
    described(schema)
    for part in schema["$defs"].values():
        described(part)


def test_a_run_on_recordio_is_the_run_on_the_same_files(quick, folder, tmp_path):
    """The pictures of the folder, packed; labels in the order of the names."""
    files_there = sorted(folder.glob("*/*.png"))
    people = sorted({path.parent.name for path in files_there})
    write(tmp_path / "packed", {
        key: packed(key, float(people.index(path.parent.name)), path.read_bytes())
        for key, path in enumerate(files_there, 1)} | {0: packed(0, [13.0, 13.0])})
    first = []
    for where in (folder, tmp_path / "packed", tmp_path / "packed" / "train.rec"):
        made = prepare(run(world=None, folder={"path": str(where), "identities": 3, "size": 48},
                           losses=ARC, train={"batch_size": 4}))
        first.append(next(made["batches"].epoch(0)))
    for batch in first[1:]:
        assert torch.equal(batch.images, first[0].images)
        assert torch.equal(batch.targets.labels, first[0].targets.labels)
    packed_set = {"path": str(tmp_path / "packed"), "identities": 3, "size": 48}
    for changes, said in (
            (dict(folder=packed_set | {"groups": "g.csv"}), "folder.groups: .* is RecordIO"),
            (dict(folder=packed_set | {"size": 112, "landmarks": "l.csv"}), "folder.landmarks: "),
            (dict(folder=packed_set, validation={"folder": packed_set["path"],
                                                 "landmarks": "l.csv"}), "validation.landmarks: ")):
        with pytest.raises(ValueError, match=said):
            prepare(run(world=None, losses=ARC, **changes))
    made = prepare(run(world=None, folder=packed_set,
                       validation={"folder": packed_set["path"], "fpr": 0.1}))
    assert 0 <= made["validate"](made["student"]) <= 1


@pytest.fixture
def photographs(tmp_path):
    """Three people, three pictures of any shape each; the folder, and a CSV of their landmarks."""
    rng, lines = np.random.default_rng(0), []
    for k, name in enumerate(f"{who}/{j}.png" for who in ("anna", "bela", "carl")
                             for j in range(3)):
        (tmp_path / "album" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (150 + k, 170 - k, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "album" / name)
        points = TEMPLATES["arcface"].numpy() + 20 + k
        lines.append(",".join([name, *(f"{x:.3f}" for x in points.ravel())]))
    (tmp_path / "landmarks.csv").write_text("\n".join(lines))
    return tmp_path / "album", tmp_path / "landmarks.csv"


@pytest.mark.parametrize("crop", ["arcface", "dlib"])
def test_photographs_are_aligned_by_landmarks(quick, photographs, crop):
    """The student looks at one crop, the teacher's cache is made of the other."""
    folder, landmarks = map(str, photographs)
    other = {"arcface": "dlib", "dlib": "arcface"}[crop]
    small_teacher(crop=other)
    album = {"path": folder, "identities": 3, "landmarks": landmarks, "crop": crop}
    checked = load_run(run(
        world=None, folder=album, teacher="mine.safetensors", losses=ARC | {
            "f": {"loss": "FeatureOnly"}}, train={"batch_size": 3, "out": "runs/album"},
        validation={"folder": folder, "landmarks": landmarks, "fpr": 0.1}))
    assert checked.sizes == {"arcface": 112, "dlib": 150}
    parts, faces = prepare(checked), ImageFolder(folder, landmarks=landmarks)
    batch = next(parts["batches"].epoch(0))
    seen = faces.read(crop, 48, batch.index)
    seen[batch.flipped] = seen[batch.flipped].flip(-1)
    assert torch.equal(batch.images, (seen.float() - 127.5) / 127.5)
    teacher = run_teacher("mine.safetensors")
    said = teacher(faces.read(other, 48, batch.index)).embedding
    known = parts["teacher"](batch.index, torch.zeros_like(batch.flipped)).embedding
    torch.testing.assert_close(known, said, rtol=1e-5, atol=1e-4)
    assert parts["teacher"].nbytes == 9 * 2 * 16 * 4
    history = train(checked.train, **parts)
    assert 0 <= history.columns["validation"][-1] <= 1
    about = json.loads(metadata(Path("runs/album/student.safetensors"))["kdlab"])
    assert (about["preprocessing"]["crop"], about["preprocessing"]["size"]) == (crop, 48)
    again = RunConfig.model_validate(checked.model_dump(mode="json"))
    assert again == checked  # as run.yaml keeps it


def test_landmarks_that_do_not_fit_are_refused_before_a_picture_is_decoded(
        quick, photographs, monkeypatch):
    folder, landmarks = photographs
    monkeypatch.setattr(kdlab.data.folder, "decode", None)
    text = landmarks.read_text()
    for change, said in (
            (text.replace("carl/2", "carl/7"), "line 9: .* has no picture 'carl/7"),
            (text.replace("bela/1.png,", "bela/1.png,x"), "line 5: 'x.* no number"),
            (None, "landmarks.csv")):
        landmarks.unlink() if change is None else landmarks.write_text(change)
        with pytest.raises((ValueError, FileNotFoundError), match=said) as error:
            prepare(run(world=None, folder={"path": str(folder), "identities": 3,
                                            "landmarks": str(landmarks)}))
        assert "\n" not in str(error.value)


def test_a_run_that_a_bad_picture_ended_goes_on_without_it(quick, folder):
    """`on_bad` from the run file to the batches; the picture is due in the second step."""
    row = int(np.random.default_rng((0, 0)).permutation(12)[4])
    bad = sorted(folder.glob("*/*.png"))[row]
    bad.write_bytes(bad.read_bytes()[:500])

    def go(**more):
        checked = load_run(run(world=None, folder=files(folder, **more), train={
            "batch_size": 4, "epochs": 2, "checkpoint_every": 1, "out": "runs/on"}))
        return [row["step"] for row in train(checked.train, **prepare(checked)).rows]

    with pytest.raises(ValueError, match=rf"{bad.name} cannot be read as a picture"):
        go()
    assert [row["step"] for row in History.read(Path("runs/on/log.jsonl")).rows] == [1]
    with pytest.warns(UserWarning, match="another picture of") as said:
        assert go(on_bad="skip") == [1, 2, 3, 4, 5, 6]
    assert len(said) == 1


def test_the_teacher_says_of_a_bad_picture_what_it_says_of_the_one_in_its_place(quick, folder):
    small_teacher()
    (folder / "bela" / "2.png").write_bytes((folder / "bela" / "2.png").read_bytes()[:500])
    settings = run(world=None, teacher="mine.safetensors", losses=ARC | {
        "f": {"loss": "FeatureOnly"}}, folder=files(folder))
    with pytest.raises(ValueError, match=r"bela.2\.png cannot be read"):
        prepare(settings)
    with pytest.warns(UserWarning, match="another picture"):
        parts = prepare(settings | {"folder": files(folder, on_bad="skip")})
    said = parts["teacher"](torch.tensor([6, 7]), torch.zeros(2, dtype=torch.bool)).embedding
    assert torch.equal(said[0], said[1])
    (folder / "dora").mkdir()
    with pytest.raises(ValueError, match="dora holds no picture"):
        prepare(settings)
    with pytest.warns(UserWarning, match="1 faults passed over, the first: .*dora"):
        prepare(settings | {"folder": files(folder, on_bad="skip")})
