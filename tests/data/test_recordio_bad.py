"""What is wrong with a RecordIO file is one line; a long job goes on where told to."""

import io
import os
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rec_files import expected, face_records, jpeg, packed, pixels, png, record_bytes, write

from kdlab.data.recordio import RecordIOFaces


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "set", face_records())
    (tmp_path / "set" / "property").write_text("3,32,32\n9\n")  # with RecBuilder's second line
    return tmp_path / "set"


def sized(width, height):
    """A JPEG whose header promises that many pixels."""
    content = bytearray(jpeg())
    at = content.index(b"\xff\xc0") + 5
    content[at:at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.mark.parametrize("content, said", [
    (b"", "holds no picture"),
    (b"no picture", "cannot be read as a picture"),
    (jpeg()[:200], "cannot be read as a picture"),
    (sized(0, 0), "(has 0 x 0 pixels|cannot be read as a picture)"),
    (sized(10_000, 10_000), "has 10000 x 10000 pixels, more than any aligned face"),
    (sized(32, 48), "is 32 x 48 pixels; aligned pictures are square"),
    (jpeg(24), "is 24 pixels a side, the set asks for 32"),
])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bad_picture_is_named_by_record_and_byte(tmp_path, content, said):
    records = face_records()
    records[8] = packed(8, 2, content)  # not one of those looked at when the set is opened
    faces = RecordIOFaces(write(tmp_path, records), 32)
    with pytest.raises(ValueError, match=rf"train\.rec record 8 \(byte \d+\) .*{said}") as error:
        faces.read("arcface", 32, range(9))
    assert "\n" not in str(error.value)


def test_cmyk_and_sixteen_bits_are_read_as_of_a_folder(tmp_path):
    grey = pixels(5)[..., 0]
    sixteen = io.BytesIO()
    Image.fromarray(grey.astype(np.uint16) * 257).save(sixteen, "PNG")
    records = face_records()
    records[1] = packed(1, 0, jpeg(mode="CMYK", color=(255, 0, 0, 0)))
    records[2] = packed(2, 0, sixteen.getvalue())
    found = RecordIOFaces(write(tmp_path, records), 32).read("arcface", 32, [0, 1]).numpy()
    assert np.abs(found[0].transpose(1, 2, 0).astype(int) - [0, 255, 255]).max() < 8
    assert (found[1] == grey).all()


def cut(path, count):
    path.write_bytes(path.read_bytes()[:count])


def patch(path, at, new):
    content = bytearray(path.read_bytes())
    content[at:at + len(new)] = new
    path.write_bytes(content)


def lines(folder, change):
    path = folder / "train.idx"
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


FIRST = len(record_bytes(packed(1, 0, png(1))))  # bytes of a record

BROKEN = {
    "empty": (lambda f: cut(f / "train.rec", 0), r"train\.rec is empty"),
    "truncated": (lambda f: cut(f / "train.rec", FIRST + 9), r"train\.idx record 0 \(byte \d+\) "
                  "and 11 more: no place in .* of 3213 bytes, which is cut short"),
    "cut in the last": (lambda f: cut(f / "train.rec", (f / "train.rec").stat().st_size - 4),
                        r"train\.(rec|idx).*record 0 \(byte \d+\)"),
    "cut, no idx": (lambda f: [cut(f / "train.rec", FIRST + 900), (f / "train.idx").unlink()],
                    rf"train\.rec byte {FIRST}: it ends at byte \d+, the file at {FIRST + 900}"),
    "no magic": (lambda f: patch(f / "train.rec", 0, b"JUNK"),
                 r"record 1 \(byte 0\): no record begins at byte 0"),
    "flag": (lambda f: patch(f / "train.rec", 4, struct.pack("<I", 3 << 29 | 40)),
             r"record 1 \(byte 0\): the chunk at byte 0 has the flag 3 where a record begins"),
    "unfinished": (lambda f: patch(f / "train.rec", 4, struct.pack("<I", 1 << 29 | FIRST - 8)),
                   rf"record 1 .*: the chunk at byte {FIRST} has the flag 0 where .* goes on"),
    "length": (lambda f: patch(f / "train.rec", 4, struct.pack("<I", (1 << 29) - 1)),
               r"record 1 \(byte 0\): it ends at byte 536870920, the file at"),
    "zero length": (lambda f: patch(f / "train.rec", 4, struct.pack("<I", 0)),
                    r"record 1 \(byte 0\): it holds 0 bytes, its header alone takes 24"),
    "labels": (lambda f: patch(f / "train.rec", 8, struct.pack("<I", 2**32 - 1)),
               r"record 1 .*too few for the 4294967295 labels"),
    "key": (lambda f: patch(f / "train.rec", 16, struct.pack("<Q", 5)),
            r"record 1 \(byte 0\) says that its key is 5, the index is wrong or another file's"),
    "large label": (lambda f: patch(f / "train.rec", 12, struct.pack("<f", 2**24 + 2)),
                    r"record 1 \(byte 0\) has the label 16777218; from 2\^24 = 16777216 on"),
    "label nan": (lambda f: patch(f / "train.rec", 12, struct.pack("<f", float("nan"))),
                  r"record 1 \(byte 0\) has the label nan, an identity is a whole number"),
    "label -1": (lambda f: patch(f / "train.rec", 12, struct.pack("<f", -1)), "has the label -1"),
    "label 0.5": (lambda f: patch(f / "train.rec", 12, struct.pack("<f", 0.5)), "the label 0.5"),
    "idx words": (lambda f: lines(f, lambda t: [*t[:3], "four\t12\n"]),
                  r"train\.idx line 4: a line is a key and a byte, not b'four"),
    "idx three": (lambda f: lines(f, lambda t: ["1\t0\t0\n", *t]), r"train\.idx line 1: a line"),
    "idx minus": (lambda f: lines(f, lambda t: ["-1\t0\n", *t]), r"train\.idx line 1: a line"),
    "idx huge": (lambda f: lines(f, lambda t: [f"{2**63}\t0\n"]), r"train\.idx line 1: a line"),
    "idx bytes": (lambda f: (f / "train.idx").write_bytes(b"\xff\xfe1\t0\n"), "idx line 1: a line"),
    "idx empty": (lambda f: (f / "train.idx").write_text(""), r"train\.idx names no record of"),
    "idx twice": (lambda f: lines(f, lambda t: [t[0], *t]), r"train\.idx record 1 \(byte 0\) "
                  r"and 1 more: the key stands there more than once"),
    "idx one byte": (lambda f: lines(f, lambda t: [*t, "77\t0\n"]),
                     r"train\.idx record (1|77) \(byte 0\): begins within another record"),
    "idx beyond": (lambda f: lines(f, lambda t: [*t, "77\t99999996\n"]),
                   r"train\.idx record 77 \(byte 99999996\): no place in"),
    "idx end": (lambda f: lines(f, lambda t: [*t, f"77\t{2**63 - 4}\n"]), "record 77 .*: no place"),
    "idx odd": (lambda f: lines(f, lambda t: [*t, "77\t1002\n"]), r"77 \(byte 1002\): no place"),
    "idx shifted": (lambda f: lines(f, lambda t: [f"{k}\t{line.split()[1]}\n" for k, line
                                                 in enumerate(t)]), "says that its key is"),
    "idx short": (lambda f: lines(f, lambda t: [*t[:4], *t[5:]]),
                  r"train\.idx has no line for 1 of the pictures 1 to 9, the first .* record 5"),
    "idx older": (lambda f: lines(f, lambda t: t[:7]), r"train\.idx knows nothing of bytes \d+ to"),
    "two ids": (lambda f: [patch(f / "train.rec", 16, struct.pack("<Q", 5)),
                           (f / "train.idx").unlink()],
                r"train\.rec record 5 \(byte 0\) and 1 more: the key stands .*find the \.idx"),
    "classes": (lambda f: (f / "property").write_text("2,32,32\n"),
                r"record 6 \(byte \d+\) has the label 2, beside it `property` speaks of 2"),
    "property": (lambda f: (f / "property").write_text("no"), "property must begin with ident"),
    "oblong": (lambda f: (f / "property").write_text("3,32,48"), "property must begin with ident"),
    "small": (lambda f: (f / "property").write_text("3,112,112"), "record 1 .*is 32 pixels a side"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_file_is_one_line_that_names_it(folder, name):
    break_it, said = BROKEN[name]
    break_it(folder)
    with pytest.raises(ValueError, match=said) as error:
        RecordIOFaces(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_the_idx_of_another_file_is_refused(folder, tmp_path):
    write(tmp_path / "b", face_records(content=lambda key: png(key, 32 + key)))
    (folder / "train.idx").write_bytes((tmp_path / "b" / "train.idx").read_bytes())
    with pytest.raises(ValueError, match=r"train\.(idx|rec)"):
        RecordIOFaces(folder)


def test_what_is_missing_or_alone_is_said(tmp_path, folder):
    for path in (tmp_path / "nothing", tmp_path / "nothing.rec"):
        with pytest.raises(FileNotFoundError, match="nothing.*: no such file; name a .rec, or"):
            RecordIOFaces(path)
    with pytest.raises(ValueError, match="holds one identity, 0"):
        RecordIOFaces(write(tmp_path / "one", face_records([4])), 32)
    with pytest.raises(ValueError, match="crop must be one of arcface, dlib"):
        RecordIOFaces(folder, crop="tight")
    with pytest.raises(ValueError, match="on_bad must be 'raise' or 'skip', not 'ignore'"):
        RecordIOFaces(folder, on_bad="ignore")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["train.rec", "train.idx"])
def test_a_file_that_may_not_be_read_is_named(folder, name):
    (folder / name).chmod(0)
    with pytest.raises(PermissionError, match=name):
        RecordIOFaces(folder)


def test_a_name_that_is_not_utf8_is_no_fault(tmp_path):
    strange = tmp_path / os.fsdecode(b"caf\xe9")
    write(strange, face_records())
    assert len(RecordIOFaces(strange, 32)) == 9


@pytest.mark.parametrize("ask, error, said", [
    (("dlib", 32, [0]), KeyError, "the crop 'arcface', not 'dlib'"),
    (("arcface", 33, [0]), ValueError, "24 to 32 pixels"),
    (("arcface", 32, [9]), IndexError, "0 to 8, asked were 9 to 9"),
    (("arcface", 32, [-1]), IndexError, "0 to 8, asked were -1"),
])
def test_what_is_not_there_cannot_be_read(folder, ask, error, said):
    with pytest.raises(error, match=said):
        RecordIOFaces(folder).read(*ask)


# Skipping.

def test_a_long_job_skips_counts_and_reports(tmp_path):
    records = {k: packed(k, k % 3, png(k)) for k in range(12)}
    records[4] = packed(4, 2**24 + 2, png(4))
    records[5] = packed(5, 2)
    records[7] = packed(7, 1, b"no picture")
    records[10] = packed(10, 1, jpeg()[:300])
    rec = write(tmp_path, records)
    with pytest.warns(UserWarning, match="2 faults passed over, the first: .*record 4 .*2.24"):
        faces = RecordIOFaces(rec, 32, on_bad="skip")
    assert faces.labels.tolist() == [0, 1, 2, 0, 0, 1, 2, 0, 1, 2]  # without 4 and 5
    with pytest.warns(UserWarning, match=r"record (7|10) .*another picture of identity 1 is read"):
        found = faces.read("arcface", 32, range(10))
    assert found.tolist() == expected([0, 1, 2, 3, 6, 1, 8, 9, 1, 11]).tolist()
    assert faces.faults.count == 4 == len(faces.faults.lines)
    for key, line in zip((4, 5, 7, 10), sorted(faces.faults.lines[:2])
                         + sorted(faces.faults.lines[2:], reverse=True), strict=True):
        assert f"{rec} record {key} (byte " in line
    assert torch.equal(faces.read("arcface", 32, range(10)), found)
    assert faces.faults.count == 4  # known by now
    with pytest.warns(UserWarning, match="2 faults passed over"):  # also when read from the cache
        assert len(RecordIOFaces(rec, 32, on_bad="skip")) == 10
    with pytest.raises(ValueError, match="record 4"):
        RecordIOFaces(rec, 32)


def test_an_identity_without_any_readable_picture_stops_also_a_long_job(tmp_path):
    records = face_records()
    records[4], records[5] = packed(4, 1, b"none"), packed(5, 1, b"none")
    faces = RecordIOFaces(write(tmp_path, records), 32, on_bad="skip")
    with (pytest.warns(UserWarning, match="record 4"),
          pytest.raises(ValueError, match="of identity 1 no picture can be read: .*record 4")):
        faces.read("arcface", 32, [3])


def test_a_scan_finds_its_way_past_damage(tmp_path):
    records = {k: packed(k, k % 3, png(k)) for k in range(12)}
    rec = write(tmp_path, records)
    starts = [int(line.split()[1]) for line in (tmp_path / "train.idx").read_text().splitlines()]
    (tmp_path / "train.idx").unlink()
    patch(rec, starts[3], b"\0" * 2000)
    patch(rec, starts[6] + 4, struct.pack("<I", (1 << 29) - 1))
    with pytest.raises(ValueError, match=rf"train\.rec byte {starts[3]}: no record begins"):
        RecordIOFaces(rec, 32)
    with pytest.warns(UserWarning, match="2 faults passed over"):
        faces = RecordIOFaces(rec, 32, on_bad="skip")
    kept = [0, 1, 2, 4, 5, 7, 8, 9, 10, 11]
    assert faces.labels.tolist() == [k % 3 for k in kept]
    assert faces.read("arcface", 32, range(10)).tolist() == expected(kept).tolist()
    assert not (tmp_path / "train.idx").exists()  # one with gaps is not left there


# Anything at all.

BASE = face_records([2, 2], content=lambda key: png(key, 24) if key % 2 else jpeg(24))
EDGES = [0, 1, 3, 4, 24, 28, 255, 1 << 29, 3 << 29, 2**31, 2**32 - 1, 0xCED7230A]


@st.composite
def mutated(draw, data):
    """A valid file changed at random: words, bytes, stretches left out, doubled or cut off."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.sampled_from(["word", "byte", "drop", "double", "cut", "insert"]))
        if how == "word":
            at -= at % 4
            data[at:at + 4] = struct.pack("<I", draw(st.sampled_from(EDGES)))
        elif how == "byte":
            data[at:at + 1] = bytes([draw(st.integers(0, 255))])
        elif how == "cut":
            del data[at:]
        else:
            length = draw(st.integers(1, 200))
            part = data[at:at + length]
            data[at:at + (length if how == "drop" else 0)] = (
                b"" if how == "drop" else part if how == "double"
                else draw(st.binary(min_size=1, max_size=12)))
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=250, derandomize=True, deadline=None, database=None,
          suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_file_whatever_does_more_than_be_refused(tmp_path_factory, monkeypatch, data):
    folder = tmp_path_factory.mktemp("fuzz")
    monkeypatch.setenv("KDLAB_CACHE", str(folder / "cache"))
    rec = write(folder, BASE)
    which = data.draw(st.sampled_from(["rec", "rec", "rec", "idx", "both", "rec alone"]))
    idx = folder / "train.idx"
    if which != "idx":
        rec.write_bytes(data.draw(mutated(rec.read_bytes())))
    if which in ("idx", "both"):
        idx.write_bytes(data.draw(mutated(idx.read_bytes())))
    if which == "rec alone":
        idx.unlink()
    on_bad, size = data.draw(st.sampled_from(["raise", "skip"])), rec.stat().st_size
    tracemalloc.start()
    try:
        faces = RecordIOFaces(rec, 24, on_bad=on_bad, workers=1)
        assert len(faces) <= size // 32 and faces.labels.min() >= 0
        assert faces.read("arcface", 24, range(len(faces))).shape == (len(faces), 3, 24, 24)
    except (ValueError, OSError) as error:
        assert "\n" not in str(error) and "train." in str(error), repr(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * size + (2 << 20)  # the window of a pass takes 1 MB, Pillow and numpy some
