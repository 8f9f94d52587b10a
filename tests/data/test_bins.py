"""The .bin sets: pictures and answers of pairs, as they were written in ten years."""

import io
import os
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kdlab.data import bins
from kdlab.data.bins import read_bin
from kdlab.data.embeddings import embed_set
from kdlab.data.faces import FaceSet
from kdlab.evaluate import verification_accuracy
from kdlab.outputs import Output
from kdlab.teachers import Teacher

SIDE = 24


def pixels(seed, side=SIDE):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def encoded(values, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind, **options)
    return file.getvalue()


PNGS = [encoded(pixels(k)) for k in range(6)]
ANSWERS = [True, False, True]
FORMS = {"bytes": bytes, "array (n,)": lambda data: np.frombuffer(data, np.uint8).copy(),
         "array (n, 1)": lambda data: np.frombuffer(data, np.uint8)[:, None].copy(),
         "array (1, n)": lambda data: np.frombuffer(data, np.uint8)[None]}


def saved(path, files=PNGS, answers=ANSWERS, protocol=pickle.HIGHEST_PROTOCOL, outer=tuple):
    path.write_bytes(pickle.dumps(outer((files, answers)), protocol))
    return path


def python_2(files, answers, protocol):
    """What cPickle of Python 2 wrote for (files, answers)."""
    if protocol == 0:
        texts = [b"S'" + repr(file)[2:-1].replace("'", "\\'").replace("\\\\'", "\\'").encode()
                 + b"'\np%d\na" % k for k, file in enumerate(files, 2)]
        return (b"((lp1\n" + b"".join(texts) + b"(lp%d\n" % (len(files) + 2)
                + b"".join(b"I%02d\na" % answer for answer in answers) + b"tp99999\n.")
    texts = [b"T" + struct.pack("<I", len(file)) + file + b"r" + struct.pack("<I", k)
             for k, file in enumerate(files, 2)]
    said = [(b"\x88" if answer else b"\x89") if protocol == 2 else b"I%02d\n" % answer
            for answer in answers]
    start, end = (b"(", b"t.") if protocol == 1 else (b"\x80\x02", b"\x86.")
    return start + b"]q\x01(" + b"".join(texts) + b"e]r\xff\xff\0\0(" + b"".join(said) + b"e" + end


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("outer", [tuple, list])
def test_every_form_of_a_file_is_the_same_set(tmp_path, form, protocol, outer):
    path = saved(tmp_path / "a.bin", list(map(FORMS[form], PNGS)), ANSWERS, protocol, outer)
    pictures, is_same = read_bin(path, SIDE)
    assert is_same.tolist() == ANSWERS and is_same.dtype == bool
    assert len(pictures) == 6 and pictures.sizes == {"arcface": SIDE}
    assert pictures.labels is None and pictures.groups is None
    assert pictures.picture(4) == PNGS[4] and pictures.name(5) == f"{path} picture 5 (pair 2)"
    expected = np.stack([pixels(k).transpose(2, 0, 1) for k in (5, 0, 5)])
    found = pictures.read("arcface", SIDE, torch.tensor([5, 0, 5]))
    assert found.dtype == torch.uint8 and np.array_equal(found, expected)
    plain = read_bin(saved(tmp_path / "b.bin"), SIDE, "arcface", workers=1).pictures
    assert plain.key == pictures.key


@pytest.mark.parametrize("protocol", range(3))
def test_files_of_python_2(tmp_path, protocol):
    path = tmp_path / "a.bin"
    path.write_bytes(python_2(PNGS, ANSWERS, protocol))
    assert pickle.loads(path.read_bytes(), encoding="bytes") == (PNGS, ANSWERS)  # it is one
    pictures, is_same = read_bin(path, SIDE)
    assert is_same.tolist() == ANSWERS and pictures.read("arcface", SIDE, range(6)).shape[0] == 6
    assert pictures.key == read_bin(saved(tmp_path / "b.bin"), SIDE).pictures.key


@pytest.mark.parametrize("answers", [(1, 0, 1), (True, False, True), np.array([1, 0, 1], np.uint8)])
def test_answers_may_be_numbers(tmp_path, answers):
    assert read_bin(saved(tmp_path / "a.bin", answers=answers), SIDE).is_same.tolist() == ANSWERS


def test_the_key_is_of_the_pictures(tmp_path):
    sets = [PNGS, PNGS[::-1], PNGS[:5] + PNGS[:1], PNGS[:4] + [PNGS[4] + PNGS[5][:9], PNGS[5][9:]]]
    keys = [read_bin(saved(tmp_path / "a.bin", files), SIDE).pictures.key for files in sets]
    assert len(set(keys)) == 4
    again = read_bin(saved(tmp_path / "other name.bin", PNGS, [False] * 3, 2), SIDE, "dlib")
    assert again.pictures.key == keys[0] and again.pictures.sizes == {"dlib": SIDE}


def test_one_picture_in_a_hundred_thousand_places(tmp_path):
    """1.7 TB to hash, were it hashed in every one."""
    png = encoded(pixels(0)) + bytes(2**24)  # what follows a PNG's end is not read
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x80\x03](B" + struct.pack("<I", len(png)) + png + b"q\x00"
                     + b"h\x00" * 99_999 + b"e](" + b"\x88" * 50_000 + b"e\x86.")
    pictures, is_same = read_bin(path, SIDE)
    assert len(pictures) == 100_000 and is_same.all()
    assert np.array_equal(pictures.read("arcface", SIDE, [99_999])[0], pixels(0).transpose(2, 0, 1))


def test_larger_pictures_are_shrunk_as_those_of_any_set(tmp_path):
    files = [encoded(pixels(k, side)) for k, side in enumerate([32, 48, 32, 24])]
    found = read_bin(saved(tmp_path / "a.bin", files, [1, 0]), SIDE).pictures
    for k, side in enumerate([32, 48, 32, 24]):
        faces = FaceSet({"arcface": pixels(k, side).transpose(2, 0, 1)[None]}, np.zeros(1), "")
        assert torch.equal(found.read("arcface", SIDE, [k]), faces.pixels("arcface", SIDE))


class Means(torch.nn.Module):
    """Embeds a picture as its mean colour, around grey."""

    def forward(self, x):
        return Output(x.mean((2, 3)))


def test_sixty_pairs_from_the_file_to_the_accuracy(tmp_path, monkeypatch):
    """JPEG pictures of 112 pixels; persons are colours, two of 60 pairs have a wrong answer."""
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    is_same = rng.random(60) < 0.5
    files = []
    for same in is_same:
        first = rng.choice([40, 215], 3)
        for colour in (first, first if same else 255 - first):
            noise = rng.integers(-20, 21, (112, 112, 3))
            files.append(encoded((colour + noise).clip(0, 255).astype(np.uint8), "JPEG"))
    said = is_same.copy()
    said[[7, 31]] ^= True
    pairs = read_bin(saved(tmp_path / "toy.bin", files, said.tolist()))
    contract = {"crop": "arcface", "size": 112, "mean": [127.5] * 3, "divide": 127.5,
                "embedding_size": 3}
    teacher = Teacher(Means(), contract, "a" * 64, torch.zeros(3))
    embeddings = embed_set(teacher, pairs.pictures).array.sum(1)  # a picture and its mirror
    assert embeddings.shape == (120, 3)
    found = verification_accuracy(embeddings, pairs.is_same)
    assert found.mean == pytest.approx(58 / 60)


# Pictures that are none, or unusual


def chunk(kind, content):
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def header(width, height):
    """A PNG that has nothing but a promise."""
    about = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", about) + chunk(b"IDAT", b"")
            + chunk(b"IEND", b""))


@pytest.mark.parametrize("bad, said", [
    (b"", "cannot be read as a picture"),
    (b"no picture", "cannot be read as a picture"),
    (encoded(pixels(1), "JPEG")[:300], "cannot be read as a picture"),
    (PNGS[0][:200], "cannot be read as a picture"),
    (header(0, 0), "cannot be read as a picture"),
    (header(24, 24), "cannot be read as a picture"),
    (header(9000, 9000), "has 9000 x 9000 pixels, more than any aligned face"),
    (header(30000, 30000), "has over 64,000,000 pixels"),
    (encoded(pixels(1)[:, :20]), "is 20 x 24 pixels; aligned pictures are square"),
    (encoded(pixels(1, 16)), "is 16 pixels a side, the set asks for 24"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 24\n%%EndComments\n", "cannot be read"),
])
def test_a_bad_picture_is_named_when_it_is_read_and_not_before(tmp_path, bad, said):
    path = saved(tmp_path / "lfw.bin", [*PNGS[:3], bad, *PNGS[4:]])
    pictures, _ = read_bin(path, SIDE)
    assert pictures.read("arcface", SIDE, [0, 1, 2, 4, 5]).shape == (5, 3, SIDE, SIDE)
    with pytest.raises(ValueError, match=rf"lfw.bin picture 3 .pair 1. {said}") as error:
        pictures.read("arcface", SIDE, range(6))
    assert str(error.value).isprintable() and " at 0x" not in str(error.value)


def test_a_set_of_which_nothing_fits_is_refused_at_once(tmp_path):
    for bad, said in ((b"", "cannot be read"), (encoded(pixels(1, 16)), "is 16 pixels a side")):
        with pytest.raises(ValueError, match=f"a.bin picture 0 .pair 0. {said}"):
            read_bin(saved(tmp_path / "a.bin", [bad] * 6), SIDE)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_of_a_hundred_megapixels_is_not_decoded(tmp_path):
    pictures, _ = read_bin(saved(tmp_path / "a.bin", [header(10_000, 10_000), *PNGS[1:]]), SIDE)
    with pytest.raises(ValueError, match=r"a.bin picture 0 .pair 0. has 10000 x 10000 pixels"):
        pictures.read("arcface", SIDE, [0])


def test_unusual_pictures_are_read_as_in_a_folder(tmp_path):
    grey = pixels(1)[..., 0]
    animated = io.BytesIO()
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    press = io.BytesIO()
    Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)).save(press, "JPEG", quality=95)
    sixteen = encoded(grey.astype(np.uint16) * 257)
    files = [encoded(grey), sixteen, animated.getvalue(), press.getvalue()]
    found = read_bin(saved(tmp_path / "a.bin", files, [1, 1]), SIDE).pictures
    found = found.read("arcface", SIDE, range(4)).numpy()
    assert np.array_equal(found[0], np.broadcast_to(grey, (3, SIDE, SIDE)))
    assert np.array_equal(found[1], found[0])
    for k in (2, 3):
        assert np.abs(found[k].astype(int) - np.array([255, 0, 0])[:, None, None]).max() < 8


# Files that are none


@pytest.mark.parametrize("value, said", [
    ([], "holds list of 0, not pictures and answers"),
    ((PNGS, [1.0] * 3), "BINFLOAT: no set of pictures"),
    ((PNGS, ANSWERS, ANSWERS), "holds tuple of 3, not pictures and answers; is it a .bin of pairs"),
    (b"ab", "holds bytes, not pictures"),
    (([], []), "holds 0 pictures and 0 answers; there must be one answer for every two"),
    ((PNGS, ANSWERS[:2]), "holds 6 pictures and 2 answers"),
    ((PNGS[:5], ANSWERS), "holds 5 pictures and 3 answers"),
    ((PNGS, 3), "the answers are int, not a list"),
    ((b"".join(PNGS), ANSWERS), "the pictures are bytes, not a list"),
    (([*PNGS[:5], 7], ANSWERS), r"picture 5 .pair 2. is int, not the bytes of an encoded picture"),
    (([PNGS[0], PNGS] * 3, ANSWERS), r"picture 1 .pair 0. is list, not the bytes"),
    (([np.zeros((8, 8, 3), np.uint8)] * 6, ANSWERS), r"picture 0 .pair 0. is Array \(8, 8, 3\)"),
    (([np.zeros((8, 8, 3), np.float32)] * 6, ANSWERS), "DTYPE with such arguments"),
    ((PNGS, [True, 2, True]), "pair 1: the answer is int 2, not True or False"),
    ((PNGS, [True, True, b"1"]), "pair 2: the answer is bytes, not True or False"),
    ((PNGS, np.array([True, False, True])), "DTYPE with such arguments"),
    ((["a"] * 6, ANSWERS), "str is nothing that a set of pictures is made of"),
])
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_is_no_set_of_pairs_is_said(tmp_path, value, said, protocol):
    path = tmp_path / "lfw.bin"
    path.write_bytes(pickle.dumps(value, protocol))
    with pytest.raises(ValueError, match=f"lfw.bin.*{said}") as error:
        read_bin(path, SIDE)
    assert str(error.value).isprintable() and len(str(error.value)) < 400


def test_a_list_in_itself_is_refused(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"]q\x00(h\x00h\x00e.")
    with pytest.raises(ValueError, match=r"picture 0 .pair 0. is list, not the bytes"):
        read_bin(tmp_path / "a.bin")


def test_nothing_in_a_file_is_run(tmp_path):
    class Call:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    path = saved(tmp_path / "a.bin", [*PNGS[:5], Call()])
    with pytest.raises(ValueError, match="a.bin: byte .* it asks for 'posix.mkdir'"):
        read_bin(path, SIDE)
    assert not (tmp_path / "made").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "made").exists()  # pickle does run it


def test_files_that_cannot_be_opened(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="lfw.bin: no such file"):
        read_bin(tmp_path / "lfw.bin")
    with pytest.raises(ValueError, match="is no file"):
        read_bin(tmp_path)
    path = saved(tmp_path / "lfw.bin")
    monkeypatch.setattr(bins, "MOST", 100)
    with pytest.raises(ValueError, match="lfw.bin has .* bytes, more than any file of its kind"):
        read_bin(path)


def test_no_permission(tmp_path):
    path = saved(tmp_path / "lfw.bin")
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # who may read everything
            tmp_path.chmod(0o755)
            os.seteuid(65534)
        with pytest.raises(PermissionError, match="Permission denied: .*lfw.bin"):
            read_bin(path)
    finally:
        os.seteuid(user)


def test_a_name_that_is_no_text(tmp_path):
    path = saved(tmp_path / os.fsdecode(b"l\xffw.bin"), [*PNGS[:5], b"no picture"])
    pictures, _ = read_bin(path, SIDE)
    with pytest.raises(ValueError, match=r"l.xffw.bin picture 5 .pair 2. cannot") as error:
        pictures.read("arcface", SIDE, [5])
    str(error.value).encode()  # can be printed


@pytest.mark.parametrize("ask, error, said", [
    (("dlib", SIDE, [0]), KeyError, "the crop 'arcface', not 'dlib'"),
    (("arcface", SIDE + 1, [0]), ValueError, "must be 24 to 24 pixels"),
    (("arcface", SIDE, [6]), IndexError, "pictures 0 to 5, asked were 6 to 6"),
    (("arcface", SIDE, [-1]), IndexError, "0 to 5, asked were -1"),
])
def test_what_is_not_there_cannot_be_read(tmp_path, ask, error, said):
    pictures, _ = read_bin(saved(tmp_path / "a.bin"), SIDE)
    with pytest.raises(error, match=said):
        pictures.read(*ask)
    assert pictures.read("arcface", SIDE, []).shape == (0, 3, SIDE, SIDE)


def test_a_crop_there_is_not(tmp_path):
    with pytest.raises(ValueError, match="crop must be one of arcface, dlib and size 24 to"):
        read_bin(saved(tmp_path / "a.bin"), SIDE, "tight")


# Fuzz: a set, or one line

WHOLE = [pickle.dumps(([FORMS[form](data) for data in PNGS[:2]], [True]), protocol)
         for form in FORMS for protocol in range(6)] + [
    python_2([encoded(pixels(1), "JPEG"), PNGS[1]], [True], protocol) for protocol in range(3)]


@settings(derandomize=True, max_examples=200, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(WHOLE), st.lists(st.tuples(
    st.floats(0, 1, exclude_max=True), st.integers(0, 4), st.binary(max_size=6)), min_size=1,
    max_size=3))
def test_a_mutated_file_is_a_set_or_one_line(tmp_path, data, changes):
    for place, cut, piece in changes:
        at = int(place * len(data))
        data = data[:at] + piece + data[at + cut:]
    (tmp_path / "a.bin").write_bytes(data)
    try:
        pictures, is_same = read_bin(tmp_path / "a.bin", SIDE)
        assert len(pictures) == 2 * len(is_same)
        pictures.read("arcface", SIDE, range(len(pictures)))
    except ValueError as error:
        assert str(error).isprintable() and "a.bin" in str(error) and len(str(error)) < 500
