"""A folder of picture files as a set of faces."""

import os
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from kdlab.data.batches import Batches, OnDisk
from kdlab.data.faces import FaceSet
from kdlab.data.folder import ImageFolder, decode

PEOPLE = {"anna": 3, "bela": 2, "carl": 4}


def picture(seed, side=32):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


@pytest.fixture
def tree(tmp_path):
    """anna/0.png ... of 32 pixels; picture k of all is picture(k)."""
    k = 0
    for name, count in PEOPLE.items():
        for j in range(count):
            save(tmp_path / "faces" / name / f"{j}.png", picture(k))
            k += 1
    return tmp_path / "faces"


def test_sub_folders_by_name_are_the_labels_and_files_by_name_the_rows(tree):
    (tree / ".hidden").mkdir()
    (tree / "readme.txt").write_text("no identity")
    (tree / "bela" / "notes.txt").write_text("no picture")
    (tree / "bela" / ".0.png").write_text("nor this")
    faces = ImageFolder(tree, 32)
    assert faces.identities == ["anna", "bela", "carl"] and len(faces) == 9
    assert faces.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2] and faces.labels.dtype == np.int64
    assert faces.groups is None and faces.sizes == {"arcface": 32}
    assert faces.name(4) == tree / "bela" / "1.png"
    assert faces.read("arcface", 32, [8, 0, 8]).tolist() == np.stack(
        [picture(8), picture(0), picture(8)]).transpose(0, 3, 1, 2).tolist()


def test_it_reads_as_a_face_set_does(tree):
    stored = np.stack([picture(k) for k in range(9)]).transpose(0, 3, 1, 2)
    other = FaceSet({"arcface": stored}, np.zeros(9, np.int64), "")
    faces, rows = ImageFolder(tree, 32), torch.tensor([3, 3, 7])
    for size in (24, 25, 32):
        assert torch.equal(faces.read("arcface", size, rows), other.read("arcface", size, rows))
    assert faces.read("arcface", 24, []).shape == (0, 3, 24, 24)


def test_larger_files_are_shrunk_from_their_own_size(tree):
    save(tree / "anna" / "1.png", picture(50, 96))
    faces = ImageFolder(tree, 32)
    expected = FaceSet({"arcface": picture(50, 96).transpose(2, 0, 1)[None]}, np.zeros(1), "")
    assert torch.equal(faces.read("arcface", 32, [0, 1])[1:], expected.pixels("arcface", 32))
    assert faces.read("arcface", 32, [0])[0].tolist() == picture(0).transpose(2, 0, 1).tolist()


def test_the_number_of_threads_changes_nothing(tree):
    rows = np.random.default_rng(0).integers(0, 9, 200)
    one, many = (ImageFolder(tree, 32, workers=workers) for workers in (1, 8))
    assert torch.equal(one.read("arcface", 24, rows), many.read("arcface", 24, rows))
    assert one.key == many.key


def test_batches_from_disk_are_those_from_memory(tree):
    faces = ImageFolder(tree, 32)
    memory = faces.read("arcface", 24, range(9))
    held = Batches(memory, faces.labels, 2, seed=3)
    lazy = Batches(faces.pixels(size=24), faces.labels, 2, seed=3)
    assert isinstance(lazy.pixels, OnDisk) and lazy.preprocessing == held.preprocessing
    for epoch, start in ((0, 0), (1, 0), (1, 2), (1, 4)):
        a, b = list(held.epoch(epoch, start)), list(lazy.epoch(epoch, start))
        assert len(a) == len(b) == 4 - start
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x.images, y.images) and torch.equal(x.index, y.index)
            assert torch.equal(x.flipped, y.flipped)
            assert torch.equal(x.targets.labels, y.targets.labels)


def test_an_epoch_can_be_left_in_the_middle_and_skipped_batches_are_not_read(tree, monkeypatch):
    faces = ImageFolder(tree, 32)
    batches = Batches(faces.pixels(), faces.labels, 1)
    stream = batches.epoch(0)
    next(stream)
    stream.close()
    seen, read = [], faces.read

    def watched(crop, size, rows):
        seen.append(rows.tolist())
        return read(crop, size, rows)

    monkeypatch.setattr(faces, "read", watched)
    rest = [batch.index.tolist() for batch in batches.epoch(0, start=6)]
    assert sorted(seen) == sorted(rest) and len(rest) == 3


def test_the_key_changes_with_names_lengths_times_and_groups(tree, tmp_path):
    keys = [ImageFolder(tree, 32).key]
    assert ImageFolder(tree, 24).key == keys[0]  # how it is looked at is no part of it
    os.utime(tree / "anna" / "0.png", ns=(0, 5))
    keys.append(ImageFolder(tree, 32).key)
    (tree / "anna" / "0.png").rename(tree / "anna" / "9.png")
    keys.append(ImageFolder(tree, 32).key)
    for groups in ("anna,0\nbela,0\ncarl,1\n", "anna,0\nbela,1\ncarl,1\n"):
        (tmp_path / "groups.csv").write_text(groups)
        keys.append(ImageFolder(tree, 32, groups=tmp_path / "groups.csv").key)
    assert len(set(keys)) == len(keys)
    assert ImageFolder(shutil.copytree(tree, tmp_path / "copy"), 32).key == keys[2]


def test_groups_of_identities_and_of_pictures(tree, tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("\ufeffname,group\nanna,1\nbela/0.png,0\nbela/1.png,2\ncarl, 0\n")
    assert ImageFolder(tree, 32, groups=path).groups.tolist() == [1, 1, 1, 0, 2, 0, 0, 0, 0]


@pytest.mark.parametrize("text, said", [
    ("anna,1\nbela,0\n", "gives carl/0.png no group .4 pictures"),
    ("anna,1\nbella,0\n", "line 2: .* has no 'bella'; did you mean 'bela'"),
    ("anna,1\nanna/7.png,0\n", "line 2: .* has no 'anna/7.png'"),
    ("anna,1\nanna/0.png,0\n", "line 2: 'anna/0.png' was in another group"),
    ("anna,1\nbela,-1\n", "line 2: a group is a number from 0, not '-1'"),
    ("anna,1\nbela\n", "line 2: a line is a name and a group, not 1"),
    ('anna,1\n"bela,0\n', "line 2: .*a line is fields with commas"),
    ("anna,1\n\n\nbela,x\n", "line 4: a group is a number from 0, not 'x'"),
    ("a" * 70000, "line 1 is longer than 65536 characters"),
])
def test_groups_that_do_not_fit_are_named(tree, tmp_path, text, said):
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        ImageFolder(tree, 32, groups=tmp_path / "groups.csv")
    assert "groups.csv" in str(error.value) and "\n" not in str(error.value)


def test_formats_become_upright_rgb(tmp_path):
    grey = picture(1)[..., 0]
    values = {
        "grey.png": np.repeat(grey[..., None], 3, 2),
        "sixteen.png": np.repeat(grey[..., None], 3, 2),
        "sixteen.tif": np.repeat(grey[..., None], 3, 2),
        "clear.png": picture(2) * (picture(3)[..., :1] > 99),
        "turned.png": np.rot90(picture(4), -1),
        "plain.webp": picture(5),
        "palette.png": np.zeros((32, 32, 3), np.uint8) + np.array([7, 8, 9], np.uint8),
    }
    save(tmp_path / "grey.png", grey)
    for name in ("sixteen.png", "sixteen.tif"):
        save(tmp_path / name, grey.astype(np.uint16) * 257)
    alpha = (picture(3)[..., :1] > 99).astype(np.uint8) * 255
    save(tmp_path / "clear.png", np.concatenate([picture(2), alpha], 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it turned clockwise
    save(tmp_path / "turned.png", picture(4), exif=exif)
    save(tmp_path / "plain.webp", picture(5), lossless=True)
    Image.new("RGB", (32, 32), (7, 8, 9)).quantize(4).save(tmp_path / "palette.png")
    for name, expected in values.items():
        got = decode(tmp_path / name, 32)
        assert got.dtype == np.uint8 and np.array_equal(got, expected), name
    Image.new("CMYK", (32, 32), (255, 0, 0, 0)).save(tmp_path / "press.jpg", quality=95)
    assert np.abs(decode(tmp_path / "press.jpg", 32).astype(int) - [0, 255, 255]).max() < 8


def test_sixteen_bits_are_rounded(tmp_path):
    values = np.zeros((32, 32), np.uint16)
    values[0, :4] = 65535, 128, 129, 386  # 1, 0.498, 0.502 and 1.502 of 257
    save(tmp_path / "a.png", values)
    assert decode(tmp_path / "a.png", 32)[0, :4, 0].tolist() == [255, 0, 1, 2]


def chunk(kind, content):
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def test_a_picture_of_huge_size_is_refused_before_it_is_decoded(tree):
    """The header promises a gigapixel; nothing else is in the file."""
    for side, said in ((8100, "has 8100 x 8100 pixels, more"), (40000, "has over 64,000,000 pix")):
        promise(tree / "anna" / "0.png", side)
        with pytest.raises(ValueError, match=rf"anna.0\.png {said}"):
            ImageFolder(tree, 32)


def promise(path, side):
    """A PNG whose header says side x side pixels, and no more of it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def test_of_a_hundred_megapixels_the_error_alone_is_heard(tree):
    """Pillow would warn before we refuse; in a process of its own, for pytest has its own filters.
    """
    promise(tree / "anna" / "0.png", 10_000)
    script = f"from kdlab.data import ImageFolder; ImageFolder({str(tree)!r}, 32)"
    done = subprocess.run([sys.executable, "-W", "always", "-c", script], text=True,
                          capture_output=True)
    assert done.stderr.splitlines()[-1].endswith(
        "0.png has 10000 x 10000 pixels, more than any aligned face; remove it")
    assert "Warning" not in done.stderr and "Pillow" not in done.stderr


@pytest.mark.parametrize("break_it, said", [
    (lambda path: path.write_bytes(path.read_bytes()[:200]), "cannot be read as a picture"),
    (lambda path: path.write_bytes(b"no picture"), "cannot be read as a picture"),
    (lambda path: path.write_bytes(b""), "cannot be read as a picture"),
    (lambda path: path.unlink(), "cannot be read as a picture"),
    (lambda path: save(path, picture(0)[:, :30]), "is 30 x 32 pixels; aligned pictures are square"),
    (lambda path: save(path, picture(0, 16)), "is 16 pixels a side, the set asks for 32; set size"),
    (lambda path: Image.fromarray(np.ones((32, 32), np.float32)).save(path, "TIFF"), "8 or 16"),
])
def test_a_bad_file_is_named_when_it_is_read(tree, break_it, said):
    faces = ImageFolder(tree, 32)
    break_it(tree / "bela" / "1.png")
    with pytest.raises(ValueError, match=rf"bela.1\.png.*{said}") as error:
        faces.read("arcface", 32, range(9))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=rf"bela.1\.png.*{said}"):
        list(Batches(faces.pixels(), faces.labels, 3).epoch(0))


def test_postscript_is_not_handed_to_another_program(tree):
    Image.fromarray(picture(0)).save(tree / "bela" / "1.png", "EPS")
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        ImageFolder(tree, 32).read("arcface", 32, [4])


def test_a_folder_that_cannot_be_a_set_is_refused(tmp_path, tree):
    with pytest.raises(FileNotFoundError, match="missing: no such folder"):
        ImageFolder(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no sub-folder; make one for each identity"):
        ImageFolder(tmp_path / "empty")
    save(tmp_path / "flat" / "a.png", picture(0))
    with pytest.raises(ValueError, match="flat holds no sub-folder"):
        ImageFolder(tmp_path / "flat")
    save(tmp_path / "one" / "anna" / "a.png", picture(0))
    with pytest.raises(ValueError, match="one holds one identity, 'anna'"):
        ImageFolder(tmp_path / "one", 32)
    (tree / "dora").mkdir()
    with pytest.raises(ValueError, match="dora holds no picture"):
        ImageFolder(tree, 32)
    with pytest.raises(ValueError, match="crop must be one of arcface, dlib"):
        ImageFolder(tree, crop="tight")


@pytest.mark.parametrize("ask, error, said", [
    (("dlib", 32, [0]), KeyError, "the crop 'arcface', not 'dlib'"),
    (("arcface", 33, [0]), ValueError, "24 to 32 pixels"),
    (("arcface", 20, [0]), ValueError, "24 to 32 pixels"),
    (("arcface", 32, [9]), IndexError, "0 to 8, asked were 9 to 9"),
    (("arcface", 32, [-1]), IndexError, "0 to 8, asked were -1"),
])
def test_what_is_not_there_cannot_be_read(tree, ask, error, said):
    with pytest.raises(error, match=said):
        ImageFolder(tree, 32).read(*ask)


def test_told_to_skip_it_reads_the_next_picture_of_the_same_identity(tree):
    (tree / "dora").mkdir()
    (tree / "carl" / "1.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="1 faults passed over, the first: .*dora holds no"):
        faces = ImageFolder(tree, 32, on_bad="skip")
    assert faces.identities == ["anna", "bela", "carl"] and len(faces) == 9
    with pytest.warns(UserWarning, match=r"carl.1\.png cannot be read.*another picture"):
        read = faces.read("arcface", 32, range(9))
    assert torch.equal(read[6], read[7]) and faces.faults.count == 2
    assert torch.equal(faces.read("arcface", 32, [6]), read[6:7]) and faces.faults.count == 2
    assert "carl" in faces.faults.lines[1] and "\n" not in faces.faults.lines[1]
    for k in range(4):
        (tree / "carl" / f"{k}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="of 'carl' no picture can be read"), pytest.warns():
        faces.read("arcface", 32, [5])
    with pytest.raises(ValueError, match="on_bad must be 'raise' or 'skip'"):
        ImageFolder(tree, 32, on_bad="ignore")


def test_told_to_skip_it_still_refuses_what_is_bad_throughout(tree):
    for path in tree.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        ImageFolder(tree, 32, on_bad="skip")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("what", ["bela", "bela/1.png"])
def test_without_permission_the_file_is_named(tree, what):
    (tree / what).chmod(0)
    with pytest.raises((PermissionError, ValueError), match="bela") as error:
        ImageFolder(tree, 32).read("arcface", 32, range(9))
    assert "\n" not in str(error.value)
    with pytest.warns():
        ImageFolder(tree, 32, on_bad="skip").read("arcface", 32, range(5))


def test_a_folder_without_permission_can_be_skipped(tree, monkeypatch):
    """As above, for those who test as root."""
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("bela"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError, match="bela"):
        ImageFolder(tree, 32)
    with pytest.warns(UserWarning, match="bela: Permission denied"):
        assert ImageFolder(tree, 32, on_bad="skip").identities == ["anna", "carl"]


@pytest.mark.skipif(sys.platform != "linux", reason="such names exist on Linux alone")
def test_names_that_are_no_text_work_and_can_be_printed(tree, tmp_path):
    odd = os.fsencode(tree) + b"/z\xff"
    os.mkdir(odd)
    shutil.copy(tree / "anna" / "0.png", odd + b"/n\xe9.png")
    (tmp_path / "groups.csv").write_bytes(b"anna,1\nbela,0\ncarl,0\nz\xff/n\xe9.png,2\n")
    faces = ImageFolder(tree, 32, groups=tmp_path / "groups.csv")
    assert faces.groups[-1] == 2
    assert torch.equal(*faces.read("arcface", 32, [0, 9]))
    with open(odd + b"/n\xe9.png", "wb"):
        pass
    with pytest.raises(ValueError, match=r"z\\xff/n\\xe9.png cannot be read") as error:
        faces.read("arcface", 32, [9])
    str(error.value).encode("utf-8")


def test_a_picture_without_pixels_is_refused(tree):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0))
    (tree / "anna" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match=r"anna.0\.png") as error:
        ImageFolder(tree, 32)
    assert "0 x 0" in str(error.value) or "cannot be read" in str(error.value)


def test_an_animation_is_its_first_picture(tmp_path):
    frames = [Image.fromarray(picture(k)[..., 0]) for k in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.array_equal(decode(tmp_path / "a.gif", 32)[..., 0], picture(0)[..., 0])
