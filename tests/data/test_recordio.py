"""MXNet's RecordIO face sets as sets of faces."""

import functools
import json
import multiprocessing
import os
import pickle
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from rec_files import MAGIC, expected, face_records, packed, png, record_bytes, slowly, write

from kdlab.data import record_index, record_table
from kdlab.data.batches import Batches
from kdlab.data.folder import ImageFolder
from kdlab.data.recordio import RecordIOFaces
from kdlab.data.records import Faults, Records


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "set", face_records())
    (tmp_path / "set" / "property").write_text("3,32,32\n9\n")  # with RecBuilder's second line
    return tmp_path / "set"


def test_a_folder_or_the_rec_itself_is_a_set(folder):
    faces = RecordIOFaces(folder)
    assert len(faces) == 9 and faces.sizes == {"arcface": 32} and faces.groups is None
    assert faces.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2] and faces.labels.dtype == np.int64
    assert faces.read("arcface", 32, [8, 0, 8]).tolist() == expected([9, 1, 9]).tolist()
    assert faces.picture(3) == png(4)
    assert faces.name(0) == f"{folder / 'train.rec'} record 1 (byte 0)"
    (folder / "train.rec").rename(folder / "other.rec")
    (folder / "train.idx").rename(folder / "other.idx")
    for path in (folder, str(folder / "other.rec")):
        assert RecordIOFaces(path).labels.tolist() == faces.labels.tolist()
    assert not faces.faults.count


def test_it_reads_and_trains_as_a_folder_of_the_same_pictures(folder, tmp_path):
    for key in range(1, 10):
        at = tmp_path / "faces" / "abc"[[0, 0, 0, 1, 1, 2, 2, 2, 2][key - 1]] / f"{key}.png"
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(png(key))
    one, other = RecordIOFaces(folder), ImageFolder(tmp_path / "faces", 32)
    for size in (24, 25, 32):
        rows = torch.tensor([3, 3, 7])
        assert torch.equal(one.read("arcface", size, rows), other.read("arcface", size, rows))
    assert one.read("arcface", 24, []).shape == (0, 3, 24, 24)
    a, b = (list(Batches(s.pixels(size=24), s.labels, 2, seed=3).epoch(0)) for s in (one, other))
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x.images, y.images) and torch.equal(x.targets.labels, y.targets.labels)


def test_larger_pictures_are_shrunk_and_threads_change_nothing(tmp_path):
    write(tmp_path, face_records(content=lambda key: png(key, 48 if key == 2 else 32)))
    rows = np.random.default_rng(0).integers(0, 9, 100)
    one, many = (RecordIOFaces(tmp_path, 32, workers=workers).read("arcface", 24, rows)
                 for workers in (1, 8))
    assert torch.equal(one, many)


@pytest.mark.parametrize("label", [float, lambda i: [i], lambda i: [i, 1.0], lambda i: [i, .5, 7]])
@pytest.mark.parametrize("zero", ["last", "first", "between"])
def test_labels_may_be_arrays_and_record_0_anywhere(tmp_path, label, zero):
    records = face_records(label=label)
    order = list(range(1, 13))
    order.insert({"last": 12, "first": 0, "between": 9}[zero], 0)
    write(tmp_path, records, order)
    faces = RecordIOFaces(tmp_path, 32)
    assert faces.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert faces.read("arcface", 32, range(9)).tolist() == expected(range(1, 10)).tolist()


@pytest.mark.parametrize("label", [float, lambda i: [i, 1.0]])
def test_without_a_directory_every_key_is_a_picture(tmp_path, label):
    """The shuffled variant, keys from 0; and one whose keys begin at 1 and have gaps."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 20).tolist()
    write(tmp_path / "a", {k: packed(k, label(labels[k]), png(k)) for k in range(20)},
          rng.permutation(20).tolist())
    faces = RecordIOFaces(tmp_path / "a", 32)
    assert faces.labels.tolist() == labels
    assert faces.read("arcface", 32, range(20)).tolist() == expected(range(20)).tolist()
    write(tmp_path / "b", {k: packed(k, label(labels[k]), png(k)) for k in range(1, 20, 2)})
    assert RecordIOFaces(tmp_path / "b", 32).labels.tolist() == labels[1::2]


def test_a_directory_spares_the_headers_of_all_but_two_pictures_an_identity(tmp_path, monkeypatch):
    write(tmp_path, face_records([40, 2, 60], content=lambda key: b"picture"))
    heads, head = [], Records.head
    monkeypatch.setattr(Records, "head",
                        lambda self, *where: heads.append(where) or head(self, *where))
    table, _ = record_table.pictures(tmp_path / "train.rec", "raise")
    assert table.tolist()[0] == list(range(1, 103)) and len(heads) < 12
    assert table[2].tolist() == [0] * 40 + [1] * 2 + [2] * 60


def test_labels_are_the_pictures_own_whatever_the_directory_says(tmp_path):
    """Identities in another order than their labels, one in two runs; ranges that do not fit."""
    labels, records = [7, 7, 3, 3, 3, 7, 0, 1, 1], face_records()
    for key, label in enumerate(labels, 1):
        records[key] = packed(key, label, png(key))
    runs = [(1, 3), (3, 6), (6, 7), (7, 8), (8, 10)]
    for name, ranges in {
            "runs": runs, "hidden": [(1, 10)], "short": runs[:-1], "gap": runs[:2] + runs[3:],
            "beyond": [*runs[:-1], (8, 12)], "nan": [*runs[:-1], (8, float("nan"))],
            "halves": [(1, 2.5), (2.5, 10)], "endless": [(1, 3), (3, float("inf")), (5, 10)],
            "scalar": [*runs[:-1], 8], "none": []}.items():
        for key in range(10, 20):
            records.pop(key, None)
        records |= {key: packed(key, one) for key, one in enumerate(ranges, 10)}
        records[0] = packed(0, [10, 10 + len(ranges)])
        write(tmp_path / name, records)
        assert RecordIOFaces(tmp_path / name, 32).labels.tolist() == labels, name


def test_a_label_unlike_the_directory_is_found_when_it_is_read(tmp_path):
    records = face_records()
    records[8] = packed(8, 1, png(8))  # neither first nor last of identity 2
    faces = RecordIOFaces(write(tmp_path, records), 32)
    assert faces.labels[7] == 2
    with pytest.raises(ValueError, match=r"record 8 \(byte \d+\) has the label 1, the directory"):
        faces.read("arcface", 32, [7])


def test_a_directory_rounded_by_float32_is_looked_up(tmp_path):
    """2^24 + 1 is written as 2^24, the key of a picture; Glint360K's is of that kind."""
    last = 1 << 24
    records = {0: packed(0, [last + 1, last + 3]), last - 1: packed(last - 1, 0, png(1)),
               last: packed(last, 1, png(2)), last + 1: packed(last + 1, [1, last]),
               last + 2: packed(last + 2, [last, last + 1])}
    with pytest.warns(UserWarning, match="no line for 16777214 of the pictures 1 to 16777216"):
        faces = RecordIOFaces(write(tmp_path, records), 32, on_bad="skip")
    assert faces.labels.tolist() == [0, 1]
    assert faces.read("arcface", 32, [1]).tolist() == expected([2]).tolist()


# The container.

def hidden_magic(rng):
    """A payload in which the magic stands at random places, in rows, at the ends, and cut off."""
    parts = [MAGIC, MAGIC[:3], MAGIC[1:], b"", b"\0", b"ab", b"abcd", rng.bytes(7), rng.bytes(64)]
    return b"".join(parts[k] for k in rng.integers(0, len(parts), rng.integers(0, 12)))


def test_every_record_is_what_the_slow_reader_finds(tmp_path):
    rng = np.random.default_rng(0)
    contents = [hidden_magic(rng) for _ in range(300)]
    contents += [MAGIC, MAGIC * 5, b"a" + MAGIC, MAGIC + b"a", b"", b"x" * 4 + MAGIC]
    # The header, too, is cut where the magic stands in it: as key, as label, as id2.
    odd = [struct.pack("<I4sQQ", 0, MAGIC, 5, 1), struct.pack("<If4sIQ", 0, 1, MAGIC, 0, 1),
           struct.pack("<IfQ4s4s", 0, 1, 9, MAGIC, MAGIC)]
    payloads = [packed(k, k % 5 if k % 2 else [k % 5, 1], one) for k, one in enumerate(contents)]
    payloads += [one + b"picture" for one in odd]
    data = b"".join(map(record_bytes, payloads))
    (tmp_path / "a.rec").write_bytes(data)
    found = slowly(data)
    assert [payload for _, payload in found] == payloads  # the two transcriptions agree
    assert data.count(MAGIC) > len(payloads)
    records = Records(tmp_path / "a.rec")
    index = records.scan(Faults("raise"))
    assert index[:, 1].tolist() == [at for at, _ in found]
    for (key, at), (_, payload) in zip(index.tolist(), found, strict=True):
        flag, label, own, _ = struct.unpack_from("<IfQQ", payload)
        head, picture = records.picture(at, key)
        assert head == records.head(at) and head.key == key == own
        assert picture == payload[24 + 4 * flag:] and head.picture == len(picture)
        told = struct.unpack_from(f"<{flag}f", payload, 24) if flag else (label,)
        assert np.array_equal(head.labels, told[:2])


def test_pictures_with_the_magic_in_them_are_whole(tmp_path):
    """A comment in the PNG holds the magic, at each of the four places in a word."""
    def content(key):
        whole, text = png(key), b"x" * key + MAGIC * 3
        block = struct.pack(">I", len(text)) + b"prVt" + text
        block += struct.pack(">I", zlib.crc32(b"prVt" + text))
        return whole[:33] + block + whole[33:]  # behind IHDR

    rec = write(tmp_path, face_records(content=content))
    assert rec.read_bytes().count(MAGIC) > 13
    faces = RecordIOFaces(rec, 32)
    assert [faces.picture(k - 1) for k in range(1, 10)] == [content(k) for k in range(1, 10)]
    assert faces.read("arcface", 32, range(9)).tolist() == expected(range(1, 10)).tolist()


# The index.

def test_a_missing_idx_is_made_anew_and_written_beside(folder):
    text, labels = (folder / "train.idx").read_text(), RecordIOFaces(folder).labels
    key = RecordIOFaces(folder).key
    (folder / "train.idx").unlink()
    faces = RecordIOFaces(folder)
    assert faces.labels.tolist() == labels.tolist() and faces.key == key
    assert sorted((folder / "train.idx").read_text().split("\n")) == sorted(text.split("\n"))


def test_where_it_cannot_be_written_the_cache_keeps_it(folder, monkeypatch):
    (folder / "train.idx").unlink()
    write_atomic = record_index.write_atomic

    def refused(path, content):
        if path.suffix == ".idx":
            raise PermissionError(13, "Permission denied", str(path))
        write_atomic(path, content)

    monkeypatch.setattr(record_index, "write_atomic", refused)
    labels = RecordIOFaces(folder).labels.tolist()
    assert not (folder / "train.idx").exists()
    monkeypatch.setattr(Records, "scan", None)  # would fail
    assert RecordIOFaces(folder).labels.tolist() == labels


def test_the_table_is_kept_until_a_file_changes(folder, tmp_path, monkeypatch):
    key, made = RecordIOFaces(folder).key, []
    labelled = record_table._labelled
    monkeypatch.setattr(record_table, "_labelled",
                        lambda *given: made.append(1) or labelled(*given))
    again = RecordIOFaces(folder)
    assert not made and again.key == key and isinstance(again._table, np.memmap)
    for name in ("train.idx", "train.rec"):
        os.utime(folder / name, ns=(0, 5))
        changed = RecordIOFaces(folder).key
        assert made.pop() and (changed == key) == (name == "train.idx")
    kept = next((tmp_path / "cache").rglob("pictures.npy"))
    for damage in (b"", kept.read_bytes()[:150]):
        kept.write_bytes(damage)
        assert len(RecordIOFaces(folder)) == 9 and made.pop()
    kept.with_name("about.json").write_text(json.dumps({"files": 3}))
    assert len(RecordIOFaces(folder)) == 9 and made.pop()


def test_the_key_changes_with_labels_and_the_files_time(folder, tmp_path):
    keys = {RecordIOFaces(folder).key, RecordIOFaces(folder, 24).key}
    assert len(keys) == 1  # how it is looked at is no part of it
    os.utime(folder / "train.rec", ns=(0, 5))
    keys.add(RecordIOFaces(folder).key)
    rec = write(tmp_path / "b", face_records(label=lambda i: 2.0 - i))
    os.utime(rec, ns=(0, 5))
    keys.add(RecordIOFaces(rec, 32).key)
    assert len(keys) == 3


def test_the_index_takes_no_object_a_record(tmp_path):
    N = 5_000
    one = record_bytes(packed(0, 0, b"x"))
    (tmp_path / "train.rec").write_bytes(one * N)
    (tmp_path / "train.idx").write_text("".join(f"{k}\t{k * len(one)}\n" for k in range(N)))
    tracemalloc.start()
    table, _ = record_table.pictures(tmp_path / "train.rec", "raise")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table.shape == (3, N) and isinstance(table, np.memmap)
    assert peak < 140 * N + (2 << 20)


def _read(faces, rows):
    return faces.read("arcface", 32, rows).numpy()


def test_processes_read_one_file_together(folder):
    """Spawned: a fork of a process that has used torch's threads may hang in them."""
    faces = RecordIOFaces(folder, workers=2)
    rows = [np.random.default_rng(k).integers(0, 9, 50) for k in range(4)]
    alone = [_read(faces, one) for one in rows]
    read = functools.partial(RecordIOFaces.read, faces, "arcface", faces.sizes["arcface"])
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        both = pool.map(read, rows, 1)
    for a, b in zip(alone, both, strict=True):
        assert np.array_equal(a, b)
    assert len(pickle.dumps(faces)) < 1000  # not the table
