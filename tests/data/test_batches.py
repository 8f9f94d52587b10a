import pytest
import torch

from kdlab.data.batches import Batches


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
])
def test_what_cannot_work_is_said_in_words(arguments, said):
    with pytest.raises(ValueError, match=said):
        Batches(**{"pixels": pixels(), "labels": range(10), "batch_size": 5} | arguments)
