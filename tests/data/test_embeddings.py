"""The teacher-embedding cache: equal to the teacher, resumed, never somebody else's."""

import json
import threading

import numpy as np
import pytest
import torch
from torch import nn

from kdlab.cache import cache_dir
from kdlab.data.embeddings import EmbeddingCache, embed_set
from kdlab.data.faces import FaceSet
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


def test_second_time_the_teacher_is_not_asked():
    embed_set(toy(), pictures())
    teacher = toy()
    cached = embed_set(teacher, pictures())
    assert teacher.network.calls == 0 and len(cached) == N


def test_interrupted_run_goes_on_where_it_stopped():
    teacher, faces = toy(), pictures()
    teacher.network.stop_at = 2 * 8 + 3  # in the second block: a block is 8 batches, both sides
    with pytest.raises(KeyboardInterrupt):
        embed_set(teacher, faces, batch=2)
    with pytest.raises(ValueError, match="not finished; run embed_set again"):
        EmbeddingCache(folder())
    with open(folder() / "embeddings.npy", "ab") as file:
        file.write(b"half a block")  # what a killed process may leave
    again = toy()
    cached = embed_set(again, faces, batch=2)
    assert again.network.calls == 2 * -(-(N - 16) // 2)
    np.testing.assert_allclose(cached.array, expected(toy(), faces), rtol=1e-5, atol=1e-5)


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


def test_check_refuses_in_words():
    cached = embed_set(toy(), pictures())
    cached.check(toy(), pictures())
    with pytest.raises(ValueError, match="another teacher's"):
        cached.check(teacher=toy(hash="b" * 64))
    with pytest.raises(ValueError, match="another contract"):
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
    state["identity"]["teacher"] = "c" * 64
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
    teacher = toy()
    with torch.no_grad():
        teacher.network.weight[0] = torch.nan
    with pytest.raises(ValueError, match="picture 0 is not finite"):
        embed_set(teacher, pictures())
    assert not (folder() / "state.json").exists()
