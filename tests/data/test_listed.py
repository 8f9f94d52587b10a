"""Landmarks as CSV, UTKFace's names and CelebA's lists, on small files made here."""

import json
import random
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from kdlab.align import TEMPLATES, align
from kdlab.data.batches import Batches
from kdlab.data.embeddings import embed_set
from kdlab.data.folder import ImageFolder
from kdlab.data.listed import celeba, utkface
from kdlab.data.lists import LINE
from kdlab.data.pictures import aligned
from kdlab.data.samplers import GroupBalancedSampler
from kdlab.losses import MFD, CrossEntropy
from kdlab.models import MODELS
from kdlab.teachers import load_teacher
from kdlab.train import TrainConfig, train


def smooth(seed, width, height):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


def points(scale, shift, turn=0.0):
    """Five landmarks: the ArcFace template turned, scaled and moved."""
    c, s = np.cos(turn), np.sin(turn)
    turned = (TEMPLATES["arcface"].numpy() - 56) @ np.array([[c, s], [-s, c]])
    return (turned * scale + shift).astype(np.float32)


CASES = [(0.9, (100, 90), 0.0), (1.6, (120, 110), 0.4), (0.5, (40, 50), -0.9), (0.7, (20, 170), 2)]


@pytest.mark.parametrize("crop", ["arcface", "dlib"])
def test_the_part_that_is_looked_at_gives_what_the_whole_picture_gives(crop):
    picture = smooth(0, 240, 200)
    x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
    for case in CASES:
        own = points(*case)
        whole = align(x, torch.from_numpy(own)[None], crop)[0].permute(1, 2, 0).numpy()
        assert np.abs(aligned(picture, own, crop, "p") - whole).max() <= 0.51, case


def test_large_faces_are_shrunk_in_steps_first():
    """A photograph of 3,000 pixels: the same face as in one of 300, but for the sampling."""
    small = smooth(1, 300, 240)
    large = np.asarray(Image.fromarray(small).resize((3000, 2400), Image.Resampling.BICUBIC))
    own = points(1.4, (150, 110), 0.3)
    a = aligned(small, own, "arcface", "p").astype(int)
    b = aligned(large, (own + 0.5) * 10 - 0.5, "arcface", "p")
    assert np.abs(a - b).max() <= 6 and np.abs(a - b).mean() < 1


def test_landmarks_outside_the_picture_are_refused():
    with pytest.raises(ValueError, match="p has 240 x 200 pixels, its landmarks lie outside"):
        aligned(smooth(0, 240, 200), points(0.9, (900, 90)), "arcface", "p")


@pytest.fixture
def photographs(tmp_path):
    """Two people, two pictures each, of any shape; lines of their landmarks."""
    lines = {}
    for k, name in enumerate(("a/0.png", "a/1.jpg", "b/0.png", "b/1.png")):
        save(tmp_path / "set" / name, smooth(k, 200 + 20 * k, 180))
        lines[name] = points(0.8 + 0.1 * k, (100, 90), 0.1 * k)
    return tmp_path / "set", lines


def written(path, lines, head="name,lx,ly,rx,ry,nx,ny,mlx,mly,mrx,mry\n"):
    path.write_text(head + "".join(
        f"{name},{','.join(f'{v:.4f}' for v in own.ravel())}\n" for name, own in lines.items()))
    return path


@pytest.mark.parametrize("head", ["", "name,lx,ly,rx,ry,nx,ny,mlx,mly,mrx,mry\n"])
def test_a_folder_of_photographs_is_aligned_by_its_landmarks(photographs, tmp_path, head):
    folder, lines = photographs
    faces = ImageFolder(folder, landmarks=written(tmp_path / "l.csv", lines, head))
    assert faces.sizes == {"arcface": 112, "dlib": 150} and len(faces) == 4
    for crop, size in faces.sizes.items():
        got = faces.read(crop, size, [2, 0])
        for row, name in ((0, "b/0.png"), (1, "a/0.png")):
            x = torch.from_numpy(np.array(Image.open(folder / name))).permute(2, 0, 1)[None]
            whole = align(x.float(), torch.from_numpy(lines[name])[None], crop)[0]
            assert (got[row] - whole).abs().max() <= 0.52
    assert faces.read("dlib", 64, [1]).shape == (1, 3, 64, 64)
    assert faces.pixels().shape == (4, 3, 112, 112)
    assert faces.pixels("dlib").shape == (4, 3, 150, 150)
    assert len(list(Batches(faces.pixels(), faces.labels, 2).epoch(0))) == 2


def test_landmarks_are_those_of_the_upright_picture(photographs, tmp_path):
    folder, lines = photographs
    written(tmp_path / "l.csv", lines)
    straight = ImageFolder(folder, landmarks=tmp_path / "l.csv").read("arcface", 112, [2])
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise
    upright = np.asarray(Image.open(folder / "b" / "0.png"))
    save(folder / "b" / "0.png", np.ascontiguousarray(np.rot90(upright)), exif=exif)
    turned = ImageFolder(folder, landmarks=tmp_path / "l.csv").read("arcface", 112, [2])
    assert torch.equal(straight, turned)


def test_the_key_changes_with_the_landmarks(photographs, tmp_path):
    folder, lines = photographs
    keys = [ImageFolder(folder, landmarks=written(tmp_path / "l.csv", lines)).key]
    lines["a/0.png"] = lines["a/0.png"] + 1
    keys.append(ImageFolder(folder, landmarks=written(tmp_path / "l.csv", lines)).key)
    assert len(set(keys)) == 2


def replaced(number, text):
    def change(lines):
        lines[number - 1] = text
        return lines
    return change


GOOD = "a/0.png,1,1,5,1,3,3,1,5,5,5"


@pytest.mark.parametrize("change, said", [
    (lambda lines: lines[:-1], "gives b/1.png no landmarks .1 pictures"),
    (replaced(3, "a/7.png,1,1,5,1,3,3,1,5,5,5"), "line 3: .* has no picture 'a/7.png'"),
    (replaced(3, "a,1,1,5,1,3,3,1,5,5,5"), "line 3: .* has no picture 'a'"),
    (replaced(3, GOOD), "line 3: 'a/0.png' had a line before"),
    (replaced(2, GOOD[:-2]), "line 2: a line is a picture and ten numbers .* not 9"),
    (replaced(2, GOOD + ",1"), "line 2: .* not 11"),
    (replaced(2, "a/0.png,1,1,5,one,3,3,1,5,5,5"), "line 2: 'one' .number 4. is no number"),
    (replaced(2, "a/0.png,1,1,5,nan,3,3,1,5,5,5"), "line 2: number 4 is nan, no place"),
    (replaced(2, "a/0.png,1,1,5,1e9,3,3,1,5,5,5"), "line 2: number 4 is 1e.09, no place"),
    (replaced(2, "a/0.png" + ",3" * 10), "line 2: the five landmarks coincide"),
    (replaced(2, 'a/0.png,"1,1,5,1,3,3,1,5,5,5'), "line 2: .*end of data"),
    (replaced(2, "a/0.png" + "," * LINE), f"line 2 is longer than {LINE}"),
    (lambda lines: [], "gives a/0.png no landmarks .4 pictures"),
])
def test_lines_that_do_not_fit_are_named(photographs, tmp_path, change, said):
    folder, lines = photographs
    text = written(tmp_path / "l.csv", lines).read_text().splitlines()
    (tmp_path / "l.csv").write_text("\n".join(change(text)))
    with pytest.raises(ValueError, match=said) as error:
        ImageFolder(folder, landmarks=tmp_path / "l.csv")
    assert "l.csv" in str(error.value) and "\n" not in str(error.value)


def test_exchanged_sides_are_seen(photographs, tmp_path):
    folder, lines = photographs
    swapped = {name: own[[1, 0, 2, 4, 3]] for name, own in lines.items()}
    with pytest.raises(ValueError, match="in 100% of the lines the left eye lies right"):
        ImageFolder(folder, landmarks=written(tmp_path / "l.csv", swapped))


AGES = [1, 19, 20, 39, 40, 90]  # two of each class


@pytest.fixture
def utk(tmp_path):
    """Two pictures of each class and race, and what MFD leaves out."""
    k = 0
    for age in AGES:
        for race in range(4):
            k += 1
            save(tmp_path / f"{age}_{k % 2}_{race}_2017010{k}.jpg.chip.jpg", smooth(k, 40, 40))
    for name in ("30_0_4_20170101.jpg", "61_1_20170109150557335.jpg.chip.jpg"):
        save(tmp_path / name, smooth(99, 40, 40))
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_utkface_has_age_as_class_and_race_as_group(utk):
    faces = utkface(utk, None, size=32)
    assert len(faces) == 24 and len(faces.left_out) == 2 and faces.sizes == {"whole": 32}
    assert faces.classes[1] == "20 to 39" and faces.group_names[3] == "indian"
    for row in range(len(faces)):
        age, _, race, _ = faces.name(row).name.split(".")[0].split("_")
        assert faces.labels[row] == (0 if int(age) < 20 else 1 if int(age) < 40 else 2)
        assert faces.groups[row] == int(race)
    got = faces.read("whole", 32, [5])
    assert got.shape == (1, 3, 32, 32) and got.dtype == torch.uint8
    batches = Batches(faces.pixels(), faces.labels, 4, groups=faces.groups)
    assert next(iter(batches.epoch(0))).targets.groups.shape == (4,)


def test_a_listed_set_trains(utk, tmp_path, monkeypatch):
    """Class against class, race balanced, the pictures whole; stopped and taken up again."""
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    faces = utkface(utk, None, size=32)
    sampler = GroupBalancedSampler(faces.labels, faces.groups, 12)
    batches = Batches(faces.pixels(), faces.labels, sampler=sampler, groups=faces.groups,
                      crop=faces.crop, key=faces.key)
    torch.manual_seed(0)
    student, teacher = (MODELS["cifar_cnn"](num_classes=3) for _ in range(2))
    losses = {"ce": CrossEntropy(), "mfd": MFD(layer="embedding")}
    config = TrainConfig(epochs=2, batch_size=12, lr=0.01, device="cpu", out=tmp_path / "run")
    history = train(config, student, losses, batches, teacher)
    assert len(history) == 4 and np.isfinite(history.columns["loss"]).all()
    with safe_open(tmp_path / "run" / "student.safetensors", "pt") as file:
        about = json.loads(file.metadata()["kdlab"])["preprocessing"]
    assert (about["crop"], about["size"]) == ("whole", 32)
    assert len(train(config, student, losses, batches, teacher)) == 4
    with pytest.raises(ValueError, match="the teacher looks at the 'dlib' crop at 150 pixels; the "
                                         "set has 24 pictures in the crops: whole 32"):
        embed_set(load_teacher("dlib_resnet29"), faces)


def test_utkface_holds_out_the_last_of_each_class_and_race(utk):
    train, test = (utkface(utk, part, 32, held_out=1) for part in ("train", "test"))
    assert len(train) == len(test) == 12 and train.key != test.key
    for part in (train, test):
        assert sorted(zip(part.labels.tolist(), part.groups.tolist(), strict=True)) == [
            (c, g) for c in range(3) for g in range(4)]

    def numbers(name):  # 2_ before 10_
        return [int(x) for x in re.findall("[0-9]+", name)]

    order = sorted((p.name for p in utk.glob("*chip.jpg") if p.name.count("_") == 3), key=numbers)
    random.seed(1)
    random.shuffle(order)
    seen, expected = set(), []
    for name in order[::-1]:
        age, _, race = numbers(name)[:3]
        if ((age >= 20) + (age >= 40), race) not in seen:
            seen.add(((age >= 20) + (age >= 40), race))
            expected.append(name)
    assert [test.name(row).name for row in range(12)] == expected[::-1]


@pytest.mark.parametrize("name", ["old_0_1_2017.jpg", "20_2_1_2017.jpg", "20_0_5_2017.jpg",
                                  "-3_0_1_2017.jpg", "2000_0_1_2017.jpg"])
def test_utkface_names_that_lie_are_named(utk, name):
    save(utk / name, smooth(0, 40, 40))
    with pytest.raises(ValueError, match=f"{name}: age, gender .0, 1. and race"):
        utkface(utk, None)


def test_utkface_says_what_is_missing(utk, tmp_path):
    with pytest.raises(FileNotFoundError, match="put UTKFace's aligned pictures"):
        utkface(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds 2 pictures of class 0, race 0; a split with 100"):
        utkface(utk)
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="names no picture"):
        utkface(tmp_path / "bare", None)
    with pytest.raises(ValueError, match="part must be"):
        utkface(utk, "valid")


ATTRIBUTES = [f"Attribute_{k}" for k in range(38)] + ["Attractive", "Male"]
CELLS = [(1, 1), (1, -1), (-1, 1), (-1, -1), (1, 1), (1, 1), (-1, -1), (1, -1), (-1, 1), (1, 1)]
PARTS = [0, 0, 0, 0, 0, 1, 2, 2, 2, 2]


def lists(path):
    names = [f"{k:06d}.jpg" for k in range(1, 11)]
    (path / "list_attr_celeba.txt").write_text(
        f"10\n{' '.join(ATTRIBUTES)} \n" + "".join(
            f"{name}  {' '.join(['-1'] * 38)}  {a}  {m}\n"
            for name, (a, m) in zip(names, CELLS, strict=True)))
    (path / "list_eval_partition.txt").write_text(
        "".join(f"{name} {part}\n" for name, part in zip(names, PARTS, strict=True)))
    points = "69 109 106 113 77 142 73 152 108 154"
    (path / "list_landmarks_align_celeba.txt").write_text(
        "10\nlefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y "
        "rightmouth_x rightmouth_y\n" + "".join(f"{name} {points}\n" for name in names))
    return names


@pytest.fixture
def celeb(tmp_path):
    for k, name in enumerate(lists(tmp_path)):
        save(tmp_path / "img_align_celeba" / name, smooth(k, 178, 218), quality=95)
    return tmp_path


def test_celeba_has_an_attribute_as_class_and_one_as_group(celeb):
    train, test = celeba(celeb), celeba(celeb, "test")
    assert train.labels.tolist() == [1, 1, 0, 0, 1] and train.groups.tolist() == [1, 0, 1, 0, 1]
    assert test.labels.tolist() == [0, 1, 0, 1] and test.groups.tolist() == [0, 0, 1, 1]
    assert len(celeba(celeb, "valid")) == 1 and train.classes == ("not Attractive", "Attractive")
    assert train.name(1).name == "000002.jpg" and train.sizes == {"whole": 176}
    got = train.read("whole", 176, [1])[0]
    square = np.asarray(Image.open(train.name(1)))[20:198]
    assert abs(float(got.float().mean()) - square.mean()) < 0.5
    other = celeba(celeb, target="Attribute_3", group="Attractive")
    assert other.labels.tolist() == [0] * 5 and other.groups.tolist() == train.labels.tolist()
    assert len({train.key, test.key, other.key}) == 3


def test_celeba_cuts_its_cells_to_the_smallest_in_the_order_of_the_list(celeb):
    text = (celeb / "list_eval_partition.txt").read_text()
    (celeb / "list_eval_partition.txt").write_text(re.sub(" [01]\n", " 2\n", text))
    faces = celeba(celeb, "test", equal_cells=True)
    assert len(faces) == 8 and len(faces.left_out) == 2
    assert [faces.name(row).name[4:6] for row in range(8)] == [
        "01", "02", "03", "04", "05", "07", "08", "09"]
    assert faces.left_out == ["000006.jpg", "000010.jpg"]


def test_celeba_can_be_aligned_by_its_own_landmarks(celeb):
    faces = celeba(celeb, landmarks=True)
    assert faces.sizes == {"arcface": 112, "dlib": 150}
    x = torch.from_numpy(np.array(Image.open(faces.name(2)))).permute(2, 0, 1)[None].float()
    own = torch.tensor([[69, 109], [106, 113], [77, 142], [73, 152], [108, 154]]).float()
    whole = align(x, own[None], "arcface")[0]
    assert (faces.read("arcface", 112, [2])[0] - whole).abs().max() <= 0.52


def edited(name, old, new):
    def edit(path):
        text = (path / name).read_text()
        assert old in text
        (path / name).write_text(text.replace(old, new, 1))
    return edit


ATTR, SPLIT, MARKS = ("list_attr_celeba.txt", "list_eval_partition.txt",
                      "list_landmarks_align_celeba.txt")


@pytest.mark.parametrize("edit, said", [
    (edited(ATTR, "10\n", "ten\n"), "attr_celeba.txt line 1 must be the number of pictures"),
    (edited(ATTR, "10\n", "11\n"), "attr_celeba.txt announces 11 pictures and lists 10"),
    (edited(ATTR, "Attractive", "Handsome"), "line 2 must name 40 columns, Attractive among"),
    (edited(ATTR, " Male", ""), "line 2 must name 40 columns"),
    (edited(ATTR, "000002.jpg  -1", "000002.jpg  0"), "line 4 must be a picture and 40 values of"),
    (edited(ATTR, "000002.jpg  -1", "000002.jpg"), "line 4 must be a picture and 40 values"),
    (edited(ATTR, "000002.jpg", "000001.jpg"), "line 4: '000001.jpg' had a line before"),
    (edited(ATTR, "000002.jpg", "../../etc"), "line 4: '../../etc' .* no plain name"),
    (edited(SPLIT, "000003.jpg 0", "000003.jpg 3"), "partition.txt line 3 must be a picture and 1"),
    (edited(SPLIT, "000003.jpg 0\n", ""), "attr_celeba.txt line 5: .* gives '000003.jpg' no part"),
    (edited(MARKS, "000001.jpg 69", "000001.jpg x"), "line 3: 'x' .number 1. is no number"),
    (edited(MARKS, "000001.jpg 69", "000011.jpg 69"), "gives '000001.jpg' no landmarks"),
    (lambda path: (path / "img_align_celeba" / "000004.jpg").unlink(), "000004.jpg"),
    (lambda path: (path / SPLIT).unlink(), "partition.txt: not there; download CelebA's"),
    (lambda path: (path / ATTR).write_bytes(b""), "names no picture"),
    (lambda path: (path / ATTR).write_bytes(b"\xff\xfe\x00" * 9), "line 1 must be the number"),
])
def test_celeba_lists_that_do_not_fit_are_named(celeb, edit, said):
    edit(celeb)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as error:
        celeba(celeb, landmarks=True)
    assert "\n" not in str(error.value)


def test_a_bad_picture_of_a_list_is_named_when_it_is_read(celeb):
    faces = celeba(celeb)
    faces.name(1).write_bytes(faces.name(1).read_bytes()[:500])
    with pytest.raises(ValueError, match="000002.jpg cannot be read as a picture"):
        faces.read("whole", 176, [0, 1])
    with pytest.raises(KeyError, match="the crop 'whole', not 'arcface'"):
        faces.read("arcface", 112, [0])
    with pytest.raises(IndexError, match="pictures 0 to 4"):
        faces.read("whole", 176, [5])
