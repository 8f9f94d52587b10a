"""PairSampler and GroupBalancedSampler: what a batch holds, how many come, what is refused."""

import numpy as np
import pytest
import torch

from kdlab.data.samplers import GroupBalancedSampler, PairSampler

LABELS = [k // 6 for k in range(60)] + [10, 10, 11]  # ten identities of 6 images, one of 2, of 1


def test_a_batch_is_random_rows_then_pairs():
    sampler = PairSampler(LABELS, 20, 4, 3)
    assert sampler.batch_size == 32 and len(sampler) == 3
    labels, batches = np.array(LABELS), list(sampler.epoch(0))
    assert len(batches) == 3
    for index, balanced in batches:
        assert index.dtype == torch.int64 and balanced.dtype == torch.bool
        assert balanced.tolist() == [False] * 20 + [True] * 12
        rows = index[balanced].reshape(4, 3).numpy()
        assert all(len(set(identity)) == 1 for identity in labels[rows])
        assert len(set(labels[rows[:, 0]])) == 4 and len(set(rows.flat)) == 12
        assert labels[rows].max() < 10  # the others have too few images
    shown = torch.cat([index[~balanced] for index, balanced in batches]).tolist()
    assert len(set(shown)) == 60  # a permutation of 63, the incomplete batch left out


def test_every_row_and_identity_has_its_turn_over_epochs():
    sampler = PairSampler(LABELS, 20, 4, 3)
    pairs = [index[balanced] for e in range(20) for index, balanced in sampler.epoch(e)]
    counts = torch.cat(pairs).bincount(minlength=63)
    assert counts[:60].min() > 0 and counts[60:].sum() == 0


def test_an_epoch_depends_on_seed_and_epoch_only():
    def rows(make, seed, epoch, skip=False):
        sampler = make(seed)
        if skip:
            list(sampler.epoch(0))
        return [index.tolist() for index, _ in sampler.epoch(epoch)]

    for make in (lambda seed: PairSampler(LABELS, 20, 4, 3, seed=seed),
                 lambda seed: GroupBalancedSampler([0, 1] * 20, [0] * 20 + [1] * 20, 8, seed=seed)):
        assert rows(make, 1, 3) == rows(make, 1, 3, skip=True)
        assert rows(make, 1, 3) != rows(make, 1, 4) and rows(make, 1, 3) != rows(make, 2, 3)


def test_pairs_alone_without_random_rows():
    sampler = PairSampler(LABELS, 0, 5, 4)
    assert sampler.batch_size == 20 and len(sampler) == 3 == len(list(sampler.epoch(0)))
    assert all(balanced.all() for _, balanced in sampler.epoch(0))


def test_small_identities_repeat_their_images_in_order_as_released():
    sampler = PairSampler(LABELS, 0, 12, 4, repeat=True)
    index, _ = next(iter(sampler.epoch(0)))
    rows = {LABELS[row[0]]: row for row in index.reshape(12, 4).tolist()}
    assert len(rows) == 12
    assert rows[10] == [60, 61, 60, 61] and rows[11] == [62] * 4
    assert all(len(set(rows[k])) == 4 for k in range(10))


def test_the_papers_batch():
    labels = torch.arange(2000) % 400  # 5 images of 400 identities
    sampler = PairSampler(labels, 512, 128, 4)
    index, balanced = next(iter(sampler.epoch(0)))
    chosen = labels[index[balanced]]
    same = (chosen[:, None] == chosen).triu(1)
    assert len(index) == 1024 and same.sum() == 768  # section 4.2: "about 800" positive pairs


def cells(sampler, index):
    cell = sampler.groups * 2 + sampler.labels
    return np.bincount(cell[index], minlength=4).tolist()


UNEQUAL = np.repeat([0, 1, 2, 3], [20, 7, 3, 11])  # cell = 2 group + label


def test_every_cell_gives_as_many_rows_until_the_biggest_is_used_once():
    sampler = GroupBalancedSampler(UNEQUAL % 2, UNEQUAL // 2, 15)
    assert sampler.batch_size == 12 and len(sampler) == 6  # 3 a cell; 20 // 3 cycles
    batches = list(sampler.epoch(0))
    assert len(batches) == 6
    for index, balanced in batches:
        assert balanced is None and index.dtype == torch.int64
        assert cells(sampler, index) == [3, 3, 3, 3]
        assert (UNEQUAL[index] == np.repeat([0, 1, 2, 3], 3)).all()  # group by group
    counts = np.bincount(torch.cat([index for index, _ in batches]), minlength=41)
    assert counts[:20].max() == 1 and counts[:20].sum() == 18
    for start, size in ((20, 7), (27, 3), (30, 11)):  # repeated evenly: whole rounds and a part
        own = counts[start:start + size]
        assert own.sum() == 18 and own.max() - own.min() <= 1


def test_the_released_cut_runs_across_cycles():
    whole = GroupBalancedSampler(UNEQUAL % 2, UNEQUAL // 2, 15, seed=3)
    cut = GroupBalancedSampler(UNEQUAL % 2, UNEQUAL // 2, 15, seed=3, cut="batch")
    assert cut.batch_size == 15 and len(cut) == 72 // 15 == 4
    stream = torch.cat([index for index, _ in whole.epoch(1)])
    batches = [index for index, _ in cut.epoch(1)]
    assert len(batches) == 4 and torch.equal(torch.cat(batches), stream[:60])
    assert cells(cut, batches[0]) == [6, 3, 3, 3]


def test_cifar_10s_counts():
    """Ten classes, 4,000 of one group and 1,000 of the other: 6 a cell, cycles of 120."""
    groups = np.concatenate([np.repeat([0, 1], [4000, 1000] if label < 5 else [1000, 4000])
                             for label in range(10)])
    labels = np.repeat(np.arange(10), 5000)
    sampler = GroupBalancedSampler(labels, groups, 128)
    assert len(sampler) == 666 and sampler.batch_size == 120
    assert sum(len(index) for index, _ in sampler.epoch(0)) == 79_920
    released = GroupBalancedSampler(labels, groups, 128, cut="batch")
    sizes = [len(index) for index, _ in released.epoch(0)]
    assert sizes == [128] * 624 and len(released) == 624  # a plain loader: 50000 // 128 = 390


@pytest.mark.parametrize("arguments, said", [
    (dict(identities=11), r"takes 11 identities, but only 10 of the set's 12 have 3 images or more"
                          ".*repeat=True"),
    (dict(identities=13, repeat=True), "only 12 of the set's 12 have any image; lower identities"),
    (dict(random=64), "63 images, fewer than the 64 one batch takes"),
    (dict(per_identity=1), "per_identity 2 or more"),
    (dict(identities=0), "identities 1 or more"),
    (dict(random=-1), "random and seed 0 or more"),
    (dict(seed=-1), "random and seed 0 or more"),
    (dict(labels=[]), "labels"),
    (dict(labels=[0.5, 1.0]), "labels must be integers"),
    (dict(labels=[0, -2]), "row 1 has -2"),
    (dict(labels=[[0], [1]]), r"labels must be \(N,\)"),
])
def test_pairs_that_cannot_be_drawn_are_said_in_words(arguments, said):
    with pytest.raises(ValueError, match=said):
        PairSampler(**{"labels": LABELS, "random": 20, "identities": 4, "per_identity": 3}
                    | arguments)


@pytest.mark.parametrize("arguments, said", [
    (dict(groups=[0, 0, 1, 0]), "no image is of class 1 and group 1"),
    (dict(labels=[0, 2, 0, 2]), "no image is of class 1 and group 0.*without gaps"),
    (dict(batch_size=3), "batch_size 3 is less than one row of each of the 4 cells"),
    (dict(batch_size=8), "biggest cell of class and group holds 1 images.*batch of 8"),
    (dict(batch_size=7, cut="batch"), "too few to fill a batch of 7"),
    (dict(groups=[0, 1]), r"groups must be \(4,\), one for each image, not \(2,\)"),
    (dict(cut="cycles"), "cut must be one of cycle, batch, not 'cycles'"),
    (dict(seed=-1), "seed must be 0 or more"),
])
def test_groups_that_cannot_be_balanced_are_said_in_words(arguments, said):
    with pytest.raises(ValueError, match=said):
        GroupBalancedSampler(**{"labels": [0, 1, 0, 1], "groups": [0, 0, 1, 1], "batch_size": 4}
                             | arguments)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int32])
def test_labels_may_be_unsigned(dtype):
    sampler = PairSampler(np.repeat(np.arange(4), 4).astype(dtype), 4, 2, 2)
    index, balanced = next(iter(sampler.epoch(0)))
    assert len(index) == 8 and balanced.sum() == 4
