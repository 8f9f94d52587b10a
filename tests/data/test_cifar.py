"""CIFAR-10 from the files that its authors distribute, here of 20 pictures instead of 10,000."""

import gzip
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from kdlab.data import cifar
from kdlab.data.cifar import ARCHIVE, CLASSES, FILES, FOLDER, read_cifar10

N = 20
NAMES = FILES["train"] + FILES["test"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(cifar, "COUNT", N)


def pixels(name):
    return np.random.default_rng(NAMES.index(name)).integers(0, 256, (N, 3, 32, 32), dtype=np.uint8)


def labels(name):
    return np.random.default_rng(NAMES.index(name)).integers(0, 10, N)


def python_2(name):
    """What cPickle of Python 2 and numpy 1 wrote, as the authors' files begin."""
    start = (b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03"
             b"U\x06labelsq\x04]q\x05(")
    array = (b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\0\x85"
             b"U\x01b\x87Rq\x09(K\x01K" + bytes([N]) + b"M\x00\x0c\x86"
             b"cnumpy\ndtype\nq\x0aU\x02u1K\0K\x01\x87Rq\x0b"
             b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T")
    return (start + b"".join(b"K" + bytes([label]) for label in labels(name)) + b"eU\x04dataq\x06"
            + array + struct.pack("<I", N * 3072) + pixels(name).tobytes()
            + b"tbU\tfilenamesq\x0c]q\x0d(" + b"U\x05a.pngq\x0e" * N + b"eu.")


def python_3(name, protocol, **change):
    data = pixels(name).reshape(N, -1)
    return pickle.dumps({"batch_label": "a batch", "labels": labels(name).tolist(), "data": data,
                         "filenames": ["a.png"] * N} | change, protocol)


WRITERS = {"python 2": python_2, **{f"protocol {p}": lambda name, p=p: python_3(name, p)
                                    for p in range(6)}}


def stored(folder, write=python_2):
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_bytes(write(name))
    (folder / "batches.meta").write_bytes(b"not looked at")
    return folder


def archived(path, members=None, kind="w:gz", **options):
    """members: name -> bytes, or a TarInfo -> bytes."""
    if members is None:
        order = ["data_batch_4", "readme.html", "test_batch", "data_batch_3", "batches.meta",
                 "data_batch_2", "data_batch_5", "data_batch_1"]  # as in the authors'
        members = {f"{FOLDER}/{name}": python_2(name) if name in NAMES else b"x" for name in order}
    with tarfile.open(path, kind, **options) as archive:
        top = tarfile.TarInfo(FOLDER)
        top.type = tarfile.DIRTYPE
        archive.addfile(top)
        for member, data in members.items():
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = info.size or len(data)
            archive.addfile(info, io.BytesIO(data) if data else None)
    return path


def expected(part):
    return (np.concatenate([pixels(name) for name in FILES[part]]),
            np.concatenate([labels(name) for name in FILES[part]]))


@pytest.mark.parametrize("part", FILES)
@pytest.mark.parametrize("writer", WRITERS)
def test_the_folder(tmp_path, part, writer):
    folder = stored(tmp_path / FOLDER, WRITERS[writer])
    for path in (folder, tmp_path, str(folder)):
        found = read_cifar10(path, part)
        assert np.array_equal(found.pixels, expected(part)[0]) and found.pixels.dtype == np.uint8
        assert np.array_equal(found.labels, expected(part)[1]) and found.labels.dtype == np.int64
    assert found.pixels.shape == (N * len(FILES[part]), 3, 32, 32) and len(CLASSES) == 10


def test_the_authors_form_is_one_that_python_reads():
    value = pickle.loads(python_2("test_batch"), encoding="bytes")
    assert sorted(value) == [b"batch_label", b"data", b"filenames", b"labels"]
    assert np.array_equal(value[b"data"], pixels("test_batch").reshape(N, -1))


def test_values_by_columns_are_the_same_pictures(tmp_path):
    """Some numpy wrote arrays in Fortran's order."""
    folder = stored(tmp_path / "a", lambda name: python_3(
        name, 2, data=np.asfortranarray(pixels(name).reshape(N, -1))))
    assert np.array_equal(read_cifar10(folder, "test").pixels, pixels("test_batch"))


@pytest.mark.parametrize("part", FILES)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_the_archive_as_it_was_downloaded(tmp_path, part, form):
    path = archived(tmp_path / ARCHIVE, format=form)
    found = read_cifar10(path, part)
    assert np.array_equal(found.pixels, expected(part)[0])
    assert np.array_equal(found.labels, expected(part)[1])
    assert os.listdir(tmp_path) == [ARCHIVE]  # nothing is unpacked to the disk


def test_an_archive_may_begin_with_a_dot(tmp_path):
    path = archived(tmp_path / "a.tar.gz", {f"./{FOLDER}/test_batch": python_2("test_batch")})
    assert np.array_equal(read_cifar10(path, "test").labels, labels("test_batch"))


def test_a_missing_file_says_what_to_put_where(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"data_batch_1: no such file; download {ARCHIVE} "
                       f".* name it, or unpack it and name {FOLDER}"):
        read_cifar10(tmp_path / "missing")
    (stored(tmp_path / FOLDER) / "data_batch_4").unlink()
    with pytest.raises(FileNotFoundError, match=f"{FOLDER}.data_batch_4: no such file"):
        read_cifar10(tmp_path)
    assert len(read_cifar10(tmp_path, "test").labels) == N
    with pytest.raises(ValueError, match="part must be one of train, test, not 'valid'"):
        read_cifar10(tmp_path, "valid")


@pytest.mark.parametrize("change, said", [
    ({"data": np.zeros((N, 3073), np.uint8)}, r"data must be .*\(20, 3072\), not \(20, 3073\)"),
    ({"data": np.zeros((N - 1, 3072), np.uint8)}, r"not \(19, 3072\); is it CIFAR-10"),
    ({"data": np.zeros(N * 3072, np.uint8)}, r"not \(61440,\)"),
    ({"data": np.zeros((N, 3072), np.int64)}, "byte .* REDUCE: DTYPE with such"),
    ({"data": [1, 2]}, "not list"),
    ({"labels": [1] * 19}, "labels must be a list of 20, not list of 19"),
    ({"labels": b"1" * 20}, "labels must be a list of 20, not bytes"),
    ({"labels": [1] * 7 + [10] + [1] * 12}, " picture 7: the label is no number from 0"),
    ({"labels": [-1] * 20}, "picture 0: the label is no number"),
    ({"labels": [True] * 20}, "picture 0: the label is no number"),
    ({"labels": [0.5] * 20}, "BINFLOAT: no set of pictures needs this"),
])
def test_a_file_that_is_not_what_it_should_be_is_named(tmp_path, change, said):
    folder = stored(tmp_path / FOLDER, lambda name: python_3(name, 3, **change))
    with pytest.raises(ValueError, match=f"test_batch.*{said}") as error:
        read_cifar10(folder, "test")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("data, said", [
    (b"", "byte 0, the next instruction: the file ends here"),
    (python_2("test_batch")[:-99], "the file ends here"),
    (python_2("test_batch")[:5000], "BINSTRING: the file ends here, 61440 bytes were to follow"),
    (b"\x80\x02]q\x01.", "holds list, not a batch of CIFAR-10"),
    (b"\x80\x02}q\x01.", "data must be uint8 values .* not NoneType; is it CIFAR-10"),
    (b"\x80\x02}K\x01K\x02s.", "SETITEM: a key is neither text nor bytes"),
    (b"cos\nmkdir\n(S'made'\ntR.", "GLOBAL: it asks for 'os.mkdir'"),
])
def test_a_damaged_or_hostile_file_is_named_and_not_run(tmp_path, monkeypatch, data, said):
    monkeypatch.chdir(tmp_path)
    folder = stored(tmp_path / FOLDER, lambda name: data)
    path = archived(tmp_path / "a.tar.gz", {f"{FOLDER}/test_batch": data or b" "})
    for where in [folder] + [path] * bool(data):
        with pytest.raises(ValueError, match=f"(a.tar.gz |/)test_batch.*{said}") as error:
            read_cifar10(where, "test")
        assert str(error.value).isprintable()
    assert not (tmp_path / "made").exists()


def link(name, kind):
    info = tarfile.TarInfo(f"{FOLDER}/{name}")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize("members, said", [
    ({}, f"holds no {FOLDER}/test_batch; is it {ARCHIVE}"),
    ({"test_batch": b"x"}, f"holds no {FOLDER}/test_batch"),
    ({f"/{FOLDER}/test_batch": b"x", f"../{FOLDER}/test_batch": b"x"}, "holds no"),
    ({link("test_batch", tarfile.SYMTYPE): b""}, "its test_batch is no plain file"),
    ({link("test_batch", tarfile.LNKTYPE): b""}, "its test_batch is no plain file"),
    ({link("test_batch", tarfile.GNUTYPE_SPARSE): b""}, "its test_batch is no plain file"),
    ({f"{FOLDER}/test_batch": b"x" * 200_000}, "its test_batch is no plain file of 31 million"),
    ({"other": bytes(2**20)}, "it unpacks to more than 1000000 bytes"),
    ({str(k): b"" for k in range(2000)}, "it unpacks to more than 1000000 bytes"),
])
def test_an_archive_of_other_things_is_refused(tmp_path, monkeypatch, members, said):
    monkeypatch.setattr(cifar, "MOST", 100_000)
    monkeypatch.setattr(cifar, "ALL", 1_000_000)
    path = archived(tmp_path / "a.tar.gz", members)
    with pytest.raises(ValueError, match=f"a.tar.gz .*{said}") as error:
        read_cifar10(path, "test")
    assert str(error.value).isprintable()


def test_a_file_that_is_there_twice_is_refused(tmp_path):
    members = {f"{folder}{FOLDER}/data_batch_1": python_2("data_batch_1") for folder in ("", "./")}
    with pytest.raises(ValueError, match="holds cifar-10-batches-py/data_batch_1 twice"):
        read_cifar10(archived(tmp_path / "a.tar.gz", members))


def test_a_damaged_archive_is_named(tmp_path):
    whole = archived(tmp_path / "a.tar.gz").read_bytes()
    tar = gzip.decompress(whole)
    sized = bytearray(tar)
    sized[512 + 124:512 + 136] = b"-0000000512\0"
    forms = {"empty": b"", "text": b"<html>", "cut": whole[:len(whole) // 2], "tar": tar,
             "other": gzip.compress(b"something else" * 99), "short": gzip.compress(tar[:700]),
             "backwards": gzip.compress(bytes(sized)), "end": gzip.compress(tar[:6000]),
             "more": gzip.compress(tar + bytes(2**20)), "no end": whole[:-5],
             "one pixel": whole[:40_000] + bytes([whole[40_000] ^ 1]) + whole[40_001:]}
    for name, data in forms.items():
        path = tmp_path / f"{name}.tar.gz"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}.tar.gz cannot be read as {ARCHIVE}") as error:
            read_cifar10(path, "train")
        assert str(error.value).isprintable() and len(str(error.value)) < 400
    for length in range(0, len(whole), 9973):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="pixel.tar.gz cannot be read"):
            read_cifar10(path, "train")
