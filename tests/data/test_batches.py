import numpy as np
import pytest
import torch

from kdlab.data import GroupBalancedSampler, PairSampler
from kdlab.data.batches import Batches, OnDisk
from kdlab.data.faces import FaceSet
from kdlab.losses.ekd import EKD
from kdlab.outputs import Output
from kdlab.train.config import TrainConfig
from kdlab.train.loop import train


def pixels(n=10, size=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def test_an_epoch_shows_every_image_once_as_its_index_and_flip_say():
    x, labels = pixels(), torch.arange(10)
    batches = Batches(x, labels, 5)
    assert len(batches) == 2 and batches.num_classes == 10
    seen = []
    for batch in batches.epoch(0):
        for image, label, i, flipped in zip(batch.images, batch.targets.labels, batch.index,
                                            batch.flipped, strict=True):
            expected = (x[i].float() - 127.5) / 127.5
            torch.testing.assert_close(image, expected.flip(-1) if flipped else expected,
                                       rtol=0, atol=0)
            assert label == labels[i]
            seen.append(int(i))
        assert batch.images.dtype == torch.float32 and batch.index.dtype == torch.int64
        assert batch.flipped.dtype == torch.bool
        assert batch.targets.groups is None and batch.targets.balanced is None
    assert sorted(seen) == list(range(10))


def test_pixels_are_not_changed_by_flipping():
    x = pixels()
    before = x.clone()
    list(Batches(x, torch.zeros(10, dtype=torch.int64), 5).epoch(0))
    assert torch.equal(x, before)


def test_an_epoch_depends_on_seed_and_epoch_only():
    def order(seed, epoch, skip=False):
        batches = Batches(pixels(), range(10), 5, seed=seed)
        if skip:
            list(batches.epoch(0))
        return [(b.index.tolist(), b.flipped.tolist()) for b in batches.epoch(epoch)]

    assert order(1, 3) == order(1, 3, skip=True)
    assert order(1, 3) != order(1, 4)
    assert order(1, 3) != order(2, 3)


def test_half_the_images_are_flipped_and_none_without_flip():
    batches = Batches(pixels(2000, 1), [0] * 2000, 2000)
    share = next(batches.epoch(0)).flipped.float().mean()
    assert 0.45 < share < 0.55  # four standard deviations of a fair coin
    assert not next(Batches(pixels(), range(10), 10, flip=False).epoch(0)).flipped.any()


def test_the_remainder_is_dropped_or_kept():
    sizes = [len(b.index) for b in Batches(pixels(), range(10), 4).epoch(0)]
    assert sizes == [4, 4]
    batches = Batches(pixels(), range(10), 4, drop_last=False)
    assert [len(b.index) for b in batches.epoch(0)] == [4, 4, 2] and len(batches) == 3
    assert len(Batches(pixels(), range(10), 16, drop_last=False)) == 1


def test_groups_and_memory_format_reach_the_batch():
    groups = torch.arange(10) % 2
    batch = next(Batches(pixels(), range(10), 5, groups=groups, channels_last=True).epoch(0))
    assert torch.equal(batch.targets.groups, groups[batch.index])
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_to_moves_what_the_losses_read():
    batch = next(Batches(pixels(), range(10), 5).epoch(0)).to("meta")
    assert batch.images.is_meta and batch.targets.labels.is_meta
    assert not batch.index.is_meta and not batch.flipped.is_meta


def test_preprocessing_is_what_was_done():
    assert Batches(pixels(), range(10), 5, crop="arcface").preprocessing == {
        "crop": "arcface", "size": 4, "channels": "RGB", "mean": [127.5] * 3,
        "divide": 127.5}


def test_a_sampler_decides_rows_length_batch_size_and_balanced():
    labels = [k // 5 for k in range(30)]
    sampler = PairSampler(labels, 8, 2, 3, seed=1)
    batches = Batches(pixels(30), labels, sampler=sampler)
    assert batches.batch_size == 14 and len(batches) == 3
    x = batches.pixels
    for batch, (index, balanced) in zip(batches.epoch(2), sampler.epoch(2), strict=True):
        assert torch.equal(batch.index, index) and torch.equal(batch.targets.balanced, balanced)
        assert torch.equal(batch.targets.labels, torch.tensor(labels)[index])
        for image, i, flipped in zip(batch.images, index, batch.flipped, strict=True):
            expected = (x[i].float() - 127.5) / 127.5
            assert torch.equal(image, expected.flip(-1) if flipped else expected)
        assert batch.to("meta").targets.balanced.is_meta


def test_a_sampled_epoch_depends_on_seed_and_epoch_only_and_flips_half():
    labels = [k // 5 for k in range(30)]

    def flips(seed, epoch, skip=False, flip=True):
        batches = Batches(pixels(30), labels, seed=seed, flip=flip,
                          sampler=PairSampler(labels, 8, 2, 3))
        if skip:
            list(batches.epoch(0))
        return torch.cat([batch.flipped for batch in batches.epoch(epoch)]).tolist()

    assert flips(1, 3) == flips(1, 3, skip=True)
    assert flips(1, 3) != flips(1, 4) and flips(1, 3) != flips(2, 3)
    many = sum((flips(0, epoch) for epoch in range(50)), [])
    assert 0.45 < sum(many) / len(many) < 0.55 and len(many) == 2100  # 4.6 standard deviations
    assert not any(flips(0, 0, flip=False))


def test_group_balanced_batches_leave_balanced_open():
    labels, groups = [0, 1] * 10, [0] * 10 + [1] * 10
    sampler = GroupBalancedSampler(labels, groups, 9)
    batches = Batches(pixels(20), labels, groups=groups, sampler=sampler)
    assert batches.batch_size == 8 and len(batches) == 2
    for batch in batches.epoch(0):
        assert batch.targets.balanced is None
        assert (batch.targets.groups * 2 + batch.targets.labels).bincount().tolist() == [2] * 4


def alike(a, b):
    """Two batches hold the same."""
    return torch.equal(a.images, b.images) and all(
        (x is None) == (y is None) and (x is None or torch.equal(x, y))
        for x, y in zip((*a.targets, a.index, a.flipped), (*b.targets, b.index, b.flipped),
                        strict=True))


LABELS = [k // 5 for k in range(30)]
KINDS = {  # what makes the batches: all of size 8 but the last
    "plain": dict(batch_size=8),
    "whole": dict(batch_size=8, drop_last=False, groups=[k % 2 for k in range(30)]),
    "pairs": dict(sampler=PairSampler(LABELS, 4, 2, 2, seed=1)),
    "groups": dict(sampler=GroupBalancedSampler([0, 1] * 15, [0] * 15 + [1] * 15, 8),
                   labels=[0, 1] * 15, groups=[0] * 15 + [1] * 15),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("disk", [False, True])
def test_an_epoch_begins_where_it_is_told(kind, disk):
    x = pixels(30)
    faces = FaceSet({"arcface": x.numpy()}, np.array(LABELS), "")
    x = OnDisk(faces, "arcface", 4) if disk else x
    batches = Batches(x, **{"labels": LABELS, "seed": 2} | KINDS[kind])
    whole = list(batches.epoch(1))
    assert len(whole) == len(batches)
    for start in range(len(whole) + 1):
        rest = list(batches.epoch(1, start=start))
        assert len(rest) == len(whole) - start
        assert all(alike(a, b) for a, b in zip(rest, whole[start:], strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", [1, 2])
def test_processes_share_every_batch(kind, world):
    arguments = {"labels": LABELS, "seed": 2} | KINDS[kind]
    whole = Batches(pixels(30), **arguments)
    parts = [Batches(pixels(30), **arguments, rank=rank, world=world) for rank in range(world)]
    for rank, part in enumerate(parts):
        assert part.batch_size == whole.batch_size and len(part) == len(whole)
        for mine, all_rows in zip(part.epoch(3), whole.epoch(3), strict=True):
            rows = slice(rank, None, world)
            assert torch.equal(mine.images, all_rows.images[rows])
            assert torch.equal(mine.index, all_rows.index[rows])
            assert torch.equal(mine.flipped, all_rows.flipped[rows])
            assert torch.equal(mine.targets.labels, all_rows.targets.labels[rows])
            if kind == "pairs":
                assert mine.targets.balanced.tolist() == ([False] * 4 + [True] * 4)[rows]


@pytest.mark.parametrize("arguments, said", [
    (dict(rank=2, world=2), "process 2 of 2 cannot be"),
    (dict(batch_size=5, world=2), "2 processes cannot share a batch, 5 images"),
    (dict(batch_size=4, drop_last=False, world=4), "4 processes cannot share the last batch of"),
    (dict(batch_size=None, world=2, sampler=PairSampler(list(range(5)) * 2, 3, 2, 2),
          labels=list(range(5)) * 2), "share the random rows of a batch, 3 images"),
    (dict(batch_size=None, world=4, sampler=PairSampler(list(range(5)) * 2, 4, 1, 2),
          labels=list(range(5)) * 2), "share the paired rows of a batch, 2 images"),
])
def test_batches_that_cannot_be_shared_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Batches(**{"pixels": pixels(), "labels": range(10), "batch_size": 5} | arguments)


class Flat(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(48, 8)

    def forward(self, images):
        return Output(self.layer(images.flatten(1)))


def test_train_runs_ekd_on_sampled_batches():
    """The paper's form, which refuses to run without `balanced`."""
    labels = [k // 5 for k in range(30)]
    batches = Batches(pixels(30), labels, sampler=PairSampler(labels, 8, 2, 3))
    torch.manual_seed(0)
    loss = EKD((0.5, 0.1), positives="balanced", norm="l1")
    config = TrainConfig(epochs=2, batch_size=14, device="cpu", log_every=1)
    history = train(config, Flat(), {"ekd": loss}, batches, teacher=Flat())
    assert loss.updates == 6 and "ekd/positive" in str(history)


@pytest.mark.parametrize("arguments, said", [
    (dict(pixels=pixels().float()), "uint8"),
    (dict(pixels=pixels()[:, :1]), r"\(N, 3, S, S\)"),
    (dict(pixels=pixels()[:, :, :2]), "S, S"),
    (dict(pixels=pixels(0), labels=[]), "no images"),
    (dict(labels=[0, 1, 2, 3, 4, -1, 6, 7, 8, 9]), "row 5 has -1"),
    (dict(labels=range(9)), "one for each image"),
    (dict(labels=torch.rand(10)), "integers"),
    (dict(groups=[-1] * 10), "groups must be 0 or more"),
    (dict(batch_size=11), "fewer than one batch of 11"),
    (dict(batch_size=0), "1 or more"),
    (dict(seed=-1), "seed"),
    (dict(batch_size=None), "batch_size is missing"),
    (dict(sampler=PairSampler(list(range(5)) * 2, 2, 2, 2)), "hold 6 images, batch_size is 5"),
    (dict(batch_size=None, sampler=PairSampler(list(range(5)) * 2, 2, 2, 2)), "of other labels"),
    (dict(batch_size=None, sampler=PairSampler([0, 0], 0, 1, 2)), r"other labels \(2\).*\(10\)"),
])
def test_what_cannot_work_is_said_in_words(arguments, said):
    with pytest.raises(ValueError, match=said):
        Batches(**{"pixels": pixels(), "labels": range(10), "batch_size": 5} | arguments)
