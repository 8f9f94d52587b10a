"""The teacher-embedding cache: equal to the teacher, resumed, never somebody else's."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from kdlab.cache import cache_dir
from kdlab.data import blocks, embeddings
from kdlab.data.embeddings import EmbeddingCache, embed_set
from kdlab.data.faces import FaceSet
from kdlab.data.folder import ImageFolder
from kdlab.outputs import Output
from kdlab.teachers import Teacher

N, D = 37, 6


class Toy(nn.Module):
    """Sees left and right differently, counts its calls, and stops where told."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3 * 8 * 8, D, generator=generator))
        self.calls, self.stop_at = 0, None

    def forward(self, x):
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return Output(x.flatten(1) @ self.weight)


def toy(hash="a" * 64, **change):
    contract = {"crop": "arcface", "size": 8, "mean": [127.5] * 3, "divide": 127.5,
                "embedding_size": D} | change
    return Teacher(Toy(), contract, hash, torch.full((D,), 0.5))


def pictures(key="faces", seed=0, n=N):
    images = np.random.default_rng(seed).integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)
    return FaceSet({"arcface": images}, np.arange(n) // 2, key)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path))
    monkeypatch.setenv("KDLAB_HEADLESS", "1")


def folder():
    (found,) = cache_dir("embeddings").iterdir()
    return found


def expected(teacher, faces):
    x = faces.pixels("arcface")
    return torch.stack([teacher(x).embedding, teacher(x.flip(3)).embedding], 1).numpy()


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_equals_the_teacher(batch):
    teacher, faces = toy(), pictures()
    cached = embed_set(teacher, faces, batch=batch)
    assert cached.array.shape == (N, 2, D) and cached.array.dtype == np.float32
    np.testing.assert_allclose(cached.array, expected(teacher, faces), rtol=1e-5, atol=1e-5)
    index = torch.tensor([3, 3, 36, 0])
    flipped = torch.tensor([True, False, True, False])
    out = cached(index, flipped)
    assert isinstance(out, Output) and out.logits is None and out.features == ()
    np.testing.assert_array_equal(out.embedding, cached.array[[3, 3, 36, 0], [1, 0, 1, 0]])
    out.embedding.add_(1)  # a copy: the file is not touched
    np.testing.assert_allclose(cached.array, expected(teacher, faces), rtol=1e-5, atol=1e-5)


def test_shrinks_the_crop_as_the_contract_says(monkeypatch):
    monkeypatch.setattr("kdlab.data.faces.SMALLEST", 8)  # the toy's input
    faces = pictures()
    big = FaceSet({"arcface": faces.crops["arcface"].repeat(2, 2).repeat(2, 3)}, faces.labels, "b")
    np.testing.assert_allclose(embed_set(toy(), big).array, embed_set(toy(), faces).array)


def test_a_folder_of_pictures_is_a_set_too(tmp_path, monkeypatch):
    monkeypatch.setattr("kdlab.data.reading.SMALLEST", 8)  # the toy's input
    faces = pictures(n=6)
    for k, picture in enumerate(faces.crops["arcface"]):
        (tmp_path / "people" / f"{k // 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / f"people/{k // 2}/{k}.png")
    folder = ImageFolder(tmp_path / "people", size=8)
    cached = embed_set(toy(), folder, batch=4)
    np.testing.assert_array_equal(cached.array, embed_set(toy(), faces, batch=4).array)
    cached.check(toy(), folder)
    teacher = toy()
    teacher.embedding_mean[0] = torch.inf
    with pytest.raises(ValueError, match=r"picture 0 \(.*people/0/0.png\) is not finite"):
        embed_set(teacher, folder, dtype="float16")


def test_second_time_the_teacher_is_not_asked():
    embed_set(toy(), pictures())
    teacher = toy()
    cached = embed_set(teacher, pictures())
    assert teacher.network.calls == 0 and len(cached) == N


@pytest.fixture
def small(monkeypatch):
    """Blocks of 16 pictures: the toy set has three."""
    monkeypatch.setattr(embeddings, "BLOCK", 16)


def test_interrupted_run_goes_on_where_it_stopped(small):
    teacher, faces = toy(), pictures()
    teacher.network.stop_at = 2 * 8 + 3  # in the second block: a block is 8 batches, both sides
    with pytest.raises(KeyboardInterrupt):
        embed_set(teacher, faces, batch=2)
    with pytest.raises(ValueError, match="not finished; run embed_set again"):
        EmbeddingCache(folder())
    with open(folder() / "blocks.txt", "ab") as file:
        file.write(b"half a line")  # what a killed process may leave
    again = toy()
    cached = embed_set(again, faces, batch=2)
    assert again.network.calls == 2 * -(-(N - 16) // 2)
    np.testing.assert_allclose(cached.array, expected(toy(), faces), rtol=1e-5, atol=1e-5)
    cached.verify()
    assert not list((folder() / "claims").iterdir())


def test_what_an_interrupted_run_left_damaged_is_computed_anew(small, capsys):
    teacher, faces = toy(), pictures()
    teacher.network.stop_at = 2 * 8 * 2 + 1  # in the third block
    with pytest.raises(KeyboardInterrupt):
        embed_set(teacher, faces, batch=2)
    wrong_byte(folder(), row=20)
    again = toy()
    cached = embed_set(again, faces, batch=2)
    assert again.network.calls == 2 * 8 + 2 * 3  # the second block and the third
    np.testing.assert_allclose(cached.array, expected(toy(), faces), rtol=1e-5, atol=1e-5)
    assert "1 of 3 blocks" in capsys.readouterr().err


def wrong_byte(place, row):
    with open(place / "embeddings.npy", "r+b") as file:
        file.seek(-(N - row) * 2 * D * 4, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def test_a_wrong_byte_is_found_and_only_its_block_computed_anew(small, capsys):
    good = np.array(embed_set(toy(), pictures()).array)
    EmbeddingCache(folder(), verify=True)
    wrong_byte(folder(), row=17)
    cached = EmbeddingCache(folder())  # not looked at: a start costs nothing
    with pytest.raises(ValueError, match=r"block 1 of .*\(pictures 16 to 31\) is not what was wr"):
        cached.verify()
    with pytest.raises(ValueError, match="verify=True.* computes it anew"):
        EmbeddingCache(folder(), verify=True)
    teacher = toy()
    cached = embed_set(teacher, pictures(), verify=True)
    assert teacher.network.calls == 2 and np.array_equal(cached.array, good)
    assert "1 of 3 blocks" in capsys.readouterr().err
    cached.verify()


def test_a_wrong_hash_counts_as_a_wrong_block(small):
    embed_set(toy(), pictures())
    lines = folder() / "blocks.txt"
    lines.write_text(lines.read_text().replace("00000002 ", "00000002 0", 1)[:-2] + "\n")
    with pytest.raises(ValueError, match="block 2 "):
        EmbeddingCache(folder(), verify=True)


@pytest.mark.parametrize("torn", [b"\0" * 74, b"x" * 74, b"00000009 " + b"0" * 64 + b"\n"])
def test_what_is_no_line_says_nothing(small, torn):
    """Zeros, as after a power cut; text; a block that the set does not have."""
    embed_set(toy(), pictures())
    lines = folder() / "blocks.txt"
    lines.write_bytes(torn + lines.read_bytes())
    EmbeddingCache(folder(), verify=True)
    lines.write_bytes(torn + lines.read_bytes()[2 * 74:])
    teacher = toy()
    embed_set(teacher, pictures()).verify()
    assert teacher.network.calls == 2


def test_two_at_once_compute_once():
    first, second = toy(), toy()
    threads = [threading.Thread(target=embed_set, args=(t, pictures())) for t in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted([first.network.calls, second.network.calls]) == [0, 2]


def test_keys_differ_by_teacher_faces_and_contract():
    embed_set(toy(), pictures())
    embed_set(toy(hash="b" * 64), pictures())
    embed_set(toy(divide=128.0), pictures())
    embed_set(toy(), pictures("other"))
    assert len(list(cache_dir("embeddings").iterdir())) == 4


def test_float16_halves_the_file_and_is_another_file():
    whole, half = embed_set(toy(), pictures()), embed_set(toy(), pictures(), dtype="float16")
    assert len(list(cache_dir("embeddings").iterdir())) == 2
    assert half.array.dtype == np.float16 and half.identity["dtype"] == "float16"
    np.testing.assert_array_equal(half.array, whole.array.astype(np.float16))
    out = half(torch.tensor([4, 2]), torch.tensor([True, False])).embedding
    assert out.dtype == torch.float32
    np.testing.assert_array_equal(out, half.array[[4, 2], [1, 0]])


def test_float16_rounds_cosines_as_the_docstring_says():
    x = np.random.default_rng(0).standard_normal((2, 10_000, 512)).astype(np.float32)

    def cosine(a, b):
        return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    moved = cosine(*x.astype(np.float16).astype(np.float64)) - cosine(*x.astype(np.float64))
    assert 1.2e-5 < np.sqrt((moved ** 2).mean()) < 1.4e-5 and np.abs(moved).max() < 7e-5


def test_what_float16_cannot_hold_is_refused():
    teacher = toy(divide=1e-4)
    embed_set(teacher, pictures())
    with pytest.raises(ValueError, match="picture 0 goes beyond what float16 holds; take dtype='f"):
        embed_set(teacher, pictures(), dtype="float16")
    with pytest.raises(ValueError, match="float32 or float16, not 'int8'"):
        embed_set(toy(), pictures(), dtype="int8")
    with pytest.raises(ValueError, match="batch must be 1 or more"):
        embed_set(toy(), pictures(), batch=0)


def test_check_refuses_in_words():
    cached = embed_set(toy(), pictures())
    cached.check(toy(), pictures())
    with pytest.raises(ValueError, match="another teacher's"):
        cached.check(teacher=toy(hash="b" * 64))
    with pytest.raises(ValueError, match="another contract .*: divide 127.5, not 128.0; compute"):
        cached.check(teacher=toy(divide=128.0))
    with pytest.raises(ValueError, match="other pictures"):
        cached.check(faces=pictures("other"))
    with pytest.raises(IndexError, match="belongs to another set"):
        cached(torch.tensor([N]), torch.tensor([False]))
    with pytest.raises(IndexError, match="belongs to another set"):
        cached(torch.tensor([-1]), torch.tensor([False]))


def truncated(place):
    content = (place / "embeddings.npy").read_bytes()
    (place / "embeddings.npy").write_bytes(content[:-10])


def foreign(place):
    state = json.loads((place / "state.json").read_text())
    state["teacher"] = "c" * 64
    (place / "state.json").write_text(json.dumps(state))


def other_shape(place):
    np.save(place / "embeddings.npy", np.zeros((N, 2, D + 4), np.float32))


@pytest.mark.parametrize("damage", [
    truncated, foreign, other_shape, lambda p: (p / "embeddings.npy").unlink(),
    lambda p: (p / "state.json").write_text("{"), lambda p: (p / "state.json").write_text("[]"),
    lambda p: (p / "state.json").write_text("[" * 100_000)])
def test_damaged_cache_is_computed_anew_with_one_line(damage, capsys):
    embed_set(toy(), pictures())
    damage(folder())
    teacher = toy()
    cached = embed_set(teacher, pictures())
    assert teacher.network.calls == 2
    np.testing.assert_allclose(cached.array, expected(toy(), pictures()), rtol=1e-5, atol=1e-5)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "computed anew" in said


@pytest.mark.parametrize("damage, says", [
    (truncated, "truncated"), (other_shape, "not what its state.json says"),
    (lambda p: (p / "state.json").unlink(), "not finished")])
def test_damaged_cache_is_not_opened(damage, says):
    embed_set(toy(), pictures())
    place = folder()
    damage(place)
    with pytest.raises(ValueError, match=says):
        EmbeddingCache(place)


def test_a_pickled_array_is_not_opened():
    embed_set(toy(), pictures())
    np.save(folder() / "embeddings.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="missing or truncated"):
        EmbeddingCache(folder())


def test_a_set_without_the_crop_is_refused():
    with pytest.raises(ValueError, match="looks at the 'dlib' crop at 8 pixels.*arcface 8"):
        embed_set(toy(crop="dlib"), pictures())
    with pytest.raises(ValueError, match="0 pictures"):
        embed_set(toy(), pictures(n=0))


def test_an_embedding_that_is_not_finite_is_named_and_not_kept():
    teacher, faces = toy(divide=2e-36), pictures()  # bright pictures overflow, dark ones do not
    faces.crops["arcface"][:] = 128
    faces.crops["arcface"][5] = 255
    with pytest.raises(ValueError, match="picture 5 is not finite; the teacher's file or that"):
        embed_set(teacher, faces)
    assert not (folder() / "blocks.txt").exists()
    with pytest.raises(ValueError, match="not finished"):
        EmbeddingCache(folder())


class Millions:
    """MS1MV2's size; nobody has its pictures here, so nobody may read one."""

    key, sizes = "millions", {"arcface": 112}

    def __len__(self):
        return 5_822_653

    def read(self, crop, size, rows):
        raise AssertionError("a picture was read")


def wide(hash="d" * 64):
    contract = {"crop": "arcface", "size": 112, "mean": [127.5] * 3, "divide": 127.5,
                "embedding_size": 512}
    return Teacher(Toy(), contract, hash, torch.zeros(512))


def test_bookkeeping_at_ms1mv2s_size_takes_little_memory(monkeypatch):
    """A finished cache of 11.9 GB, all of it a hole in the file: found, opened and looked up."""
    monkeypatch.setattr(blocks.Blocks, "_check_space", lambda self, left: None)
    monkeypatch.setattr(blocks.Blocks, "fill", lambda self, compute: iter(()))
    with pytest.raises(ValueError, match="not finished"):
        embed_set(wide(), Millions(), dtype="float16")
    lines = folder() / "blocks.txt"
    lines.write_text("".join(f"{k:08d} {'0' * 64}\n" for k in range(11_373)))
    tracemalloc.start()
    cached = embed_set(wide(), Millions(), dtype="float16")
    out = cached(torch.tensor([5_822_652, 0] * 256), torch.ones(512, dtype=torch.bool))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert out.embedding.shape == (512, 512) and not out.embedding.any()
    assert cached.array.nbytes == 5_822_653 * 2 * 512 * 2 and peak < 20_000_000
    cached._blocks.path.unlink()


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(monkeypatch):
    free = type("usage", (), {"free": 2_000_000_000})
    monkeypatch.setattr(blocks.shutil, "disk_usage", lambda folder: free)
    with pytest.raises(OSError, match=r"^21.8 GB are missing: .* needs 23.8 GB more, the disk has "
                                      r"2.0; make room, .*KDLAB_CACHE .* or take dtype='float16'$"):
        embed_set(wide(), Millions())
    with pytest.raises(OSError, match=r"^9.9 GB are missing: .* needs 11.9 GB .* another disk$"):
        embed_set(wide(), Millions(), dtype="float16")
    for place in cache_dir("embeddings").iterdir():
        assert not [path for path in place.iterdir() if path.stat().st_size]


def test_a_disk_that_gets_full_loses_nothing_finished(small, monkeypatch):
    full, fsync, told = [], os.fsync, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def until_full(fd):
        full.append(fd)
        if len(full) == 4:  # state.json, the first block, its line, and now the second block
            raise told
        fsync(fd)

    monkeypatch.setattr(blocks.os, "fsync", until_full)
    with pytest.raises(OSError, match="embeddings.npy: No space left on device; what was finished"):
        embed_set(toy(), pictures())
    monkeypatch.setattr(blocks.os, "fsync", fsync)
    teacher = toy()
    cached = embed_set(teacher, pictures())
    assert teacher.network.calls == 4  # two blocks of three, both sides
    np.testing.assert_allclose(cached.array, expected(toy(), pictures()), rtol=1e-5, atol=1e-5)


PEOPLE = 200  # pictures that two processes share, in 25 blocks of 8


@pytest.fixture(scope="module")
def pair():
    """Two processes that have loaded everything and fill the cache folder they are told to."""
    both = [subprocess.Popen([sys.executable, "-P", __file__], text=True, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    yield both
    for process in both:
        process.kill()
        process.communicate()


def tell(pair, place, hang_at=(0, 0)):
    for process, call in zip(pair, hang_at, strict=True):
        process.stdin.write(f"{call} {place}\n")
        process.stdin.flush()


def alone(tmp_path, monkeypatch):
    """What one process makes of the same set elsewhere."""
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "alone"))
    found = np.array(embed_set(toy(), pictures(n=PEOPLE), batch=8).array)
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path))
    return found


@pytest.fixture
def eight(monkeypatch):
    monkeypatch.setattr(embeddings, "BLOCK", 8)


def test_two_processes_fill_one_cache_together(eight, pair, tmp_path, monkeypatch):
    tell(pair, tmp_path)
    calls = [len([*iter(process.stdout.readline, "done\n")]) for process in pair]
    assert sum(calls) == 2 * 25 and min(calls) > 0  # no block twice, and both had a share
    teacher = toy()
    cached = embed_set(teacher, pictures(n=PEOPLE), batch=8)
    assert teacher.network.calls == 0
    cached.verify()
    assert cached.array.tobytes() == alone(tmp_path, monkeypatch).tobytes()


def test_a_killed_processs_block_is_taken_by_another(eight, pair, tmp_path, monkeypatch):
    """After the test above, whose processes it ends."""
    hang_at = 5, 3  # in the third block of the one, in the second of the other
    tell(pair, tmp_path, hang_at)
    for process, calls in zip(pair, hang_at, strict=True):
        assert [process.stdout.readline() for _ in range(calls)] == ["call\n"] * calls
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    kept = len((folder() / "blocks.txt").read_bytes()) // 74
    assert kept == 3 and len(list((folder() / "claims").iterdir())) == 2
    teacher = toy()
    cached = embed_set(teacher, pictures(n=PEOPLE), batch=8)
    assert teacher.network.calls == 2 * (25 - kept)
    assert cached.array.tobytes() == alone(tmp_path, monkeypatch).tobytes()
    assert not list((folder() / "claims").iterdir())


class Slow(Toy):
    """Says each call and takes its time, so that two processes meet; hangs where told."""

    def forward(self, x):
        found = super().forward(x)
        print("call", flush=True)
        time.sleep(60 if self.calls == self.hang_at else 0.03)
        return found


if __name__ == "__main__":  # one of the pair
    embeddings.BLOCK = 8
    slow = toy()
    slow.network = Slow()
    print("ready", flush=True)
    for line in sys.stdin:
        call, os.environ["KDLAB_CACHE"] = line.strip().split(" ", 1)
        slow.network.hang_at = int(call) + slow.network.calls if int(call) else None
        embed_set(slow, pictures(n=PEOPLE), batch=8)
        print("done", flush=True)
