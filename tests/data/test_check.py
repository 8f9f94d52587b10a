"""`kdlab data check`: what it counts, what it names, what the teacher can and cannot tell."""

import io
import json
import os
import pickle
import shutil
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from rec_files import packed, write

from kdlab.data import check as check_module
from kdlab.data.check import check
from kdlab.data.duplicates import NEAR, average, changes, equal_groups, fingerprints, near_pairs
from kdlab.data.faces import FaceSet
from kdlab.data.opening import open_set
from kdlab.data.probe import CANNOT, probe
from kdlab.plots.data_check import run, words
from kdlab.world.faces import FaceWorld
from kdlab.world.rendered import rendered

PEOPLE = {"anna": 3, "bela": 2, "carl": 4, "dora": 1}


def picture(seed, side=48):
    """Smooth patterns: copies of them keep their look, as faces do."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


@pytest.fixture
def tree(tmp_path):
    k = 0
    for name, count in PEOPLE.items():
        for j in range(count):
            save(tmp_path / "faces" / name / f"{j}.png", picture(k))
            k += 1
    return tmp_path / "faces"


def plain(path, *others, **options):
    return check(path, *others, teacher=False, **options)


def test_a_clean_folder_is_counted(tree):
    report = plain(tree)
    pixels = np.stack([picture(k) for k in range(10)]).astype(np.float64)
    found = report["set"]
    assert report["finished"] and found["images"] == found["read"] == 10
    assert found["identities"] == 4 and found["singletons"] == 1
    assert found["images_per_identity"] == [1, 2.5, 4]
    assert found["sizes"] == [[48, 48, 10]] and found["grey"] == 0 and found["faults"] == []
    assert found["mean"] == pytest.approx(pixels.mean((0, 1, 2)), abs=1e-3)
    assert found["std"] == pytest.approx(pixels.std((0, 1, 2)), abs=1e-3)
    assert report["copies"]["exact"]["extra"] == report["copies"]["near"]["pairs"] == 0
    assert json.loads(json.dumps(report)) == report


def test_the_number_of_threads_changes_nothing(tree):
    one, many = plain(tree, workers=1), plain(tree, workers=7)
    assert one | {"seconds": 0} == many | {"seconds": 0}


def test_copies_are_named_and_two_identities_come_first(tree):
    shutil.copy(tree / "anna" / "0.png", tree / "anna" / "again.png")
    Image.open(tree / "bela" / "0.png").save(tree / "carl" / "same.bmp")  # other bytes, same pixels
    larger = Image.open(tree / "carl" / "1.png").resize((64, 64), Image.Resampling.BICUBIC)
    larger.save(tree / "dora" / "near.jpg", quality=60)
    found = plain(tree)["copies"]
    assert found["exact"]["groups"] == found["exact"]["extra"] == 2
    assert found["exact"]["two_identities"] == 1
    first, second = ([name.split("faces/")[1] for name in group]
                     for group in found["exact"]["names"])
    assert first == ["bela/0.png", "carl/same.bmp"] and second == ["anna/0.png", "anna/again.png"]
    assert found["near"]["pairs"] == found["near"]["two_identities"] == 1
    assert [name.split("faces/")[1] for name in found["near"]["names"][0]] == [
        "carl/1.png", "dora/near.jpg"]
    assert 0 < found["near"]["bits"][0] <= NEAR


def test_a_leak_into_the_benchmark_is_found(tree, tmp_path):
    for k in range(4):
        save(tmp_path / "other" / "xy"[k % 2] / f"{k}.png", picture(100 + k))
    shutil.copy(tree / "anna" / "1.png", tmp_path / "other" / "x" / "l.png")
    Image.open(tree / "carl" / "2.png").save(tmp_path / "other" / "y" / "m.jpg", quality=50)
    found = plain(tree, tmp_path / "other")["leaks"]
    assert (found["exact"], found["near"], found["of"]) == (1, 1, 6)
    assert [[name.rsplit("/", 2)[1:] for name in pair] for pair in found["names"]] == [
        [["anna", "1.png"], ["x", "l.png"]], [["carl", "2.png"], ["y", "m.jpg"]]]
    assert found["bits"][0] == 0 and 0 <= found["bits"][1] <= NEAR
    assert plain(tmp_path / "other")["copies"]["near"]["pairs"] == 0


def huge(path):
    header = b"P6 10000 10000 255\n"
    path.write_bytes(header + bytes(50))


BAD = {
    "cut.png": (lambda p: p.write_bytes(save(p, picture(90)).read_bytes()[:300]), "be read as a"),
    "empty.jpg": (lambda p: p.write_bytes(b""), "cannot be read as a picture"),
    "text.jpg": (lambda p: p.write_text("no picture"), "cannot be read as a picture"),
    "wide.png": (lambda p: save(p, picture(90)[:30]), "is 48 x 30 pixels; aligned"),
    "huge.ppm": (huge, "has 10000 x 10000 pixels, more than"),
    "none.ppm": (lambda p: p.write_bytes(b"P6 0 0 255\n"), "none.ppm "),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_read_is_named_and_the_rest_is_checked(tree):
    for name, (make, _) in BAD.items():
        make(tree / "bela" / name)
    (tree / "hollow").mkdir()
    found = plain(tree)["set"]
    assert found["images"] == 16 and found["read"] == 10
    assert found["unreadable"] == len(BAD) and found["passed_over"] == 1
    assert "hollow holds no picture" in found["faults"][0]
    for name, (_, said) in BAD.items():
        line = next(line for line in found["faults"] if f"bela/{name}" in line)
        assert said in line and "\n" not in line


def test_a_set_of_which_nothing_can_be_read_still_has_a_report(tree, tmp_path):
    for path in tree.rglob("*.png"):  # whole headers, no pixels
        path.write_bytes(path.read_bytes()[:60])
    report = check(tree, tree, teacher=Told())
    assert report["set"]["read"] == 0 and report["set"]["unreadable"] == 10
    assert report["set"]["mean"] is None and report["sheet"] == []
    assert report["leaks"]["exact"] == report["copies"]["exact"]["extra"] == 0
    assert report["probe"]["channels"]["verdict"] == CANNOT
    assert "10 pictures cannot be read" in words(report)


def test_a_disk_that_fails_is_one_fault(tree, monkeypatch):
    def failing(one, row):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(check_module, "picture_of", failing)
    found = plain(tree)["set"]
    assert found["unreadable"] == 10 and found["faults"][0].endswith("0.png: Input/output error")


def test_odd_pictures_are_pictures(tree):
    cmyk = Image.fromarray(picture(70)).convert("CMYK")
    cmyk.save(tree / "anna" / "press.jpg")
    save(tree / "anna" / "sixteen.png", picture(71)[..., 0].astype(np.uint16) * 257)
    frames = [Image.fromarray(picture(72 + k)) for k in range(3)]
    frames[0].save(tree / "anna" / "moving.gif", save_all=True, append_images=frames[1:])
    found = plain(tree)["set"]
    assert found["read"] == found["images"] == 13 and found["grey"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="such names exist on Linux alone")
def test_names_that_are_no_text_can_be_printed(tree, tmp_path):
    odd = os.fsencode(tree) + b"/p\xff"
    os.mkdir(odd)
    shutil.copy(tree / "anna" / "0.png", odd + b"/n\xe9.png")
    with open(odd + b"/bad\xfe.png", "wb"):
        pass
    report = plain(tree)
    assert report["copies"]["exact"]["names"][0][1].endswith(r"p\xff/n\xe9.png")
    assert r"p\xff/bad\xfe.png cannot be read" in report["set"]["faults"][0]
    words(report).encode("utf-8")


@pytest.mark.parametrize("make, error, said", [
    (lambda p: None, FileNotFoundError, "thing: no such file or folder"),
    (lambda p: p.mkdir(), ValueError, "thing holds no sub-folder"),
    (lambda p: p.write_text("x"), ValueError, "thing is no data set; name a folder"),
    (lambda p: save(p / "a.png", picture(0)), ValueError, "thing holds no sub-folder"),
    (lambda p: [(p / d).mkdir(parents=True) for d in "ab"], ValueError, "thing holds no picture"),
])
def test_what_is_no_set_is_refused_in_a_line(tmp_path, make, error, said):
    make(tmp_path / "thing")
    with pytest.raises(error, match=said) as caught:
        plain(tmp_path / "thing")
    assert "\n" not in str(caught.value)


def test_a_damaged_rendered_set_is_refused(tmp_path):
    (tmp_path / "finished.json").write_text("{}")
    for content in (b"", b"PK\x03\x04 cut short"):
        (tmp_path / "factors.npz").write_bytes(content)
        with pytest.raises(ValueError, match="is a damaged rendered set"):
            open_set(tmp_path)
    np.savez(tmp_path / "factors.npz", identity=np.arange(3))
    np.save(tmp_path / "arcface.npy", np.zeros((2, 3, 48, 48), np.uint8))
    with pytest.raises(ValueError, match="arrays do not fit"):
        open_set(tmp_path)
    np.save(tmp_path / "arcface.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="damaged rendered set"):
        open_set(tmp_path)


def encoded(values):
    data = io.BytesIO()
    Image.fromarray(values).save(data, "PNG")
    return data.getvalue()


def test_rec_bin_and_rendered_sets_are_checked_as_folders_are(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    content = [encoded(picture(k)) for k in (0, 1, 2, 0)]
    write(tmp_path / "rec", {k + 1: packed(k + 1, [0, 0, 1, 1][k], content[k] if k != 1 else b"xx")
                             for k in range(4)})
    (tmp_path / "a.bin").write_bytes(pickle.dumps((content, [True, False]), protocol=2))
    np.save(tmp_path / "arcface.npy", np.stack([picture(k) for k in (0, 1, 2, 0)]).transpose(
        0, 3, 1, 2))
    np.savez(tmp_path / "factors.npz", identity=np.array([4, 4, 9, 9]))
    (tmp_path / "finished.json").write_text("{}")
    rec, pairs, own = (plain(tmp_path / name) for name in ("rec", "a.bin", "."))
    assert rec["set"]["kind"] == "RecordIO" and rec["set"]["read"] == 3
    assert "record 2 (byte" in rec["set"]["faults"][0]
    assert pairs["set"]["pairs"] == 2 and pairs["set"]["genuine"] == 1
    assert "identities" not in pairs["set"] and own["set"]["identities"] == 2
    for report in (rec, pairs, own):
        assert report["copies"]["exact"]["extra"] == 1 and report["copies"]["near"]["pairs"] == 0
    assert rec["copies"]["exact"]["two_identities"] == 1


def test_control_c_keeps_what_was_found(tree, tmp_path, monkeypatch, capsys):
    shutil.copy(tree / "anna" / "0.png", tree / "anna" / "00.png")
    monkeypatch.setattr(check_module, "_PART", 4)
    looked_at = check_module._looked_at

    def stopped(one, row):
        if row == 9:
            raise KeyboardInterrupt
        return looked_at(one, row)

    monkeypatch.setattr(check_module, "_looked_at", stopped)
    args = types.SimpleNamespace(path=str(tree), benchmark=None, out=tmp_path / "out", sample=10,
                                 embed=0, no_teacher=False, seed=0)
    assert run(args) == 130
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert not report["finished"] and report["set"]["looked_at"] == report["set"]["read"] == 8
    assert report["copies"]["exact"]["extra"] == 1 and "probe" not in report
    assert "**Stopped: 8 of 11 pictures of the set were looked at" in capsys.readouterr().out


def test_the_report_is_written_for_people_and_programs(tree, tmp_path, capsys):
    shutil.copy(tree / "anna" / "0.png", tree / "bela" / "twin.png")
    (tree / "carl" / "bad.png").write_bytes(b"")
    args = types.SimpleNamespace(path=str(tree), benchmark=str(tree), out=tmp_path / "out",
                                 sample=10, embed=0, no_teacher=True, seed=0)
    assert run(args) == 1  # something could not be read
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == {"report.json", "report.md", "sheet.png",
                                               "copies.png", "leaks.png"}
    page = (out / "report.md").read_text()
    assert page in capsys.readouterr().out + "\n"
    for said in ("4 identities, 1 with one picture", "carl/bad.png cannot be read",
                 "1 of them with two identities", "Of 11 pictures of the benchmark 11 are in"):
        assert said in page
    for path in out.glob("*.png"):
        with Image.open(path) as image:
            assert image.info["Description"] and image.size[0] <= 940


def test_near_pairs_are_those_of_the_double_loop():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, (40, 288)).astype(bool)
    rows = [base]
    for k in (0, 1, 5, 11):
        other = base.copy()
        for row in other:
            row[rng.choice(288, k, replace=False)] ^= True
        rows.append(other)
    bits = np.concatenate(rows)
    expected = set()
    for i in range(len(bits)):
        for j in range(i + 1, len(bits)):
            if (bits[i] != bits[j]).sum() <= 11:
                expected.add((i, j))
    prints = np.packbits(bits, axis=1)
    near = near_pairs(prints)
    found = {(i, j) for (i, j), d in zip(near.pairs.tolist(), near.bits, strict=True) if d <= 11}
    assert found == expected and not near.cut
    across = near_pairs(prints, between=40)
    assert {tuple(pair) for pair in across.pairs.tolist()} == {
        (i, j) for i, j in near.pairs.tolist() if i < 40 <= j}


def test_many_equal_pictures_are_cut_and_said_so():
    near = near_pairs(np.zeros((1000, 36), np.uint8))
    assert near.cut and 0 < len(near.pairs) <= 256 * 1000 and (near.bits == 0).all()
    for count in (0, 1):
        assert len(near_pairs(np.zeros((count, 36), np.uint8)).pairs) == 0


def test_equal_hashes_stand_together():
    order, bounds = equal_groups(np.array([7, 3, 7, 9, 3, 7], np.uint64))
    assert [order[a:b].tolist() for a, b in zip(bounds, bounds[1:], strict=False)] == [
        [1, 4], [0, 2, 5], [3]]


@pytest.mark.parametrize("change", [
    lambda x: np.asarray(x.resize((96, 96), Image.Resampling.BICUBIC)),
    lambda x: np.clip(np.asarray(x) * 0.8 + 10, 0, 255).astype(np.uint8),
    lambda x: np.asarray(x.convert("L").convert("RGB")),
])
def test_a_fingerprint_survives_what_keeps_the_look(change):
    pictures = [picture(k) for k in range(30)]
    common = average(np.stack([changes(x) for x in pictures]))
    before, after = (fingerprints(np.stack([changes(x) for x in some]), common) for some in (
        pictures, [change(Image.fromarray(x)) for x in pictures]))
    differ = np.bitwise_count(before[:, None] ^ after[None]).sum(2)
    assert (np.diag(differ) <= NEAR).all()
    assert (differ[~np.eye(30, dtype=bool)] > NEAR).all()


@pytest.fixture(scope="module")
def faces():
    return rendered(FaceWorld(0), range(16), 4, ("arcface",))


def swapped(faces):
    pixels = np.ascontiguousarray(np.asarray(faces.crops["arcface"])[:, ::-1])
    return FaceSet({"arcface": pixels}, faces.labels, faces.key + " bgr")


def test_the_teacher_recognises_exchanged_channels_and_the_crop(faces):
    for some, order in ((faces, "RGB"), (swapped(faces), "BGR")):
        report = check(some, sample=60)
        found, n = report["probe"], report["probe"]["pictures"]
        assert 40 <= n <= 64 - report["set"]["grey"] < 64 and 14 <= found["units"] <= 16
        assert found["genuine"] + found["impostor"] == n * (n - 1) // 2
        assert found["channels"]["verdict"] == order
        assert found["alignment"]["verdict"] == "arcface" and found["best"] == ["arcface", order]
        assert (found["channels"]["low"] > 0) == (order == "RGB")


class Told:
    """Stands where a teacher does: grey means, so that it knows neither channels nor crops."""

    contract = {"crop": "dlib", "size": 150}

    def __call__(self, images):
        grey = images.float().mean(1)
        small = torch.nn.functional.adaptive_avg_pool2d(grey[:, None], 4).flatten(1)
        return types.SimpleNamespace(embedding=small - small.mean(1, keepdim=True))


def test_what_the_teacher_cannot_tell_is_said(tree, faces):
    grey = np.repeat(np.asarray(faces.crops["arcface"])[:, 1:2], 3, 1)
    found = check(FaceSet({"arcface": grey}, faces.labels, "grey"), teacher=Told())
    assert found["set"]["grey"] == 64 and found["probe"]["channels"]["verdict"] == CANNOT
    assert found["probe"]["channels"]["difference"] == 0
    few = check(tree, teacher=Told())
    assert few["probe"]["channels"]["verdict"] == CANNOT
    assert "3 people with two pictures or more; 8 are needed" in words(few)


def test_pairs_of_a_bin_can_be_probed(tmp_path):
    content = [encoded(picture(k // 2 if k < 40 else 100 + k)) for k in range(80)]
    answers = [True] * 20 + [False] * 20
    (tmp_path / "a.bin").write_bytes(pickle.dumps((content, answers), protocol=2))
    one = open_set(tmp_path / "a.bin")
    found = probe(one, np.array([(True, False)] * 80, [("read", "?"), ("grey", "?")]), Told(), 60)
    assert (found["genuine"], found["impostor"], found["units"]) == (15, 15, 15)
    assert found["hypotheses"][0]["eer"] == 0 and found["of"] == "pairs"


def test_one_person_under_two_identities_is_found_by_the_teacher(tree, tmp_path):
    Image.open(tree / "anna" / "0.png").save(tree / "bela" / "t.jpg", quality=90)
    shutil.copytree(tree, tmp_path / "copy")
    report = check(tree, tmp_path / "copy", teacher=Told(), embed=100)
    found = report["people"]["two_identities"]
    first = {name.split("faces/")[1] for name in found["names"][0]}
    assert first == {"anna/0.png", "bela/t.jpg"} and found["cosines"][0] > 0.99
    assert report["people"]["leaks"]["pairs"] >= 11 and report["people"]["embedded"] == [11, 11]
    assert "under two identities" in words(report)
