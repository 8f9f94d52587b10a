"""MegaFace as loops over identities, plants and probes; the refinement; feature files."""

import struct

import numpy as np
import pytest

from kdlab.evaluate.identification import rank1
from kdlab.evaluate.megaface import megaface, read_feature, refine, write_feature


def faces(seed=0, N=30, M=57, D=6):
    """probes of 8 people, some of one picture only, and strangers."""
    random = np.random.default_rng(seed)
    labels = random.integers(8, size=N)
    labels[0] = 99
    x = random.normal(size=(100, D))[labels] + random.normal(size=(N, D))
    return x, labels, random.normal(size=(M, D)) * 3


def unit(row):
    return row / sum(row**2) ** 0.5


def loop(x, labels, distractors, count):
    """Hits and trials of rank 1 as the protocol tells it; genuine and impostor scores."""
    x, strangers = [unit(row) for row in x], [unit(row) for row in distractors]
    hits = trials = 0
    for plant in range(len(x)):
        for probe in range(len(x)):
            if probe != plant and labels[probe] == labels[plant]:
                gallery = [sum(x[probe] * s) for s in strangers[:count]]
                hits += sum(x[probe] * x[plant]) >= max(gallery)
                trials += 1
    genuine = [sum(x[i] * x[j]) for i in range(len(x)) for j in range(i) if labels[i] == labels[j]]
    return hits, trials, np.array(genuine), np.array([sum(a * b) for a in x for b in strangers])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("block", [4, 1000])
def test_the_loop(seed, block):
    x, labels, distractors = faces(seed)
    found = megaface(x, labels, distractors, [1, 10, 57], (0.2, 0.01, 1e-6), block=block)
    for count in (1, 10, 57):
        hits, trials, genuine, impostor = loop(x, labels, distractors, count)
        rank = found.rank1[count]
        assert (rank.hits, rank.pairs) == (hits, trials)
        assert rank.rate == pytest.approx(hits / trials, abs=1e-9)
        assert rank.low <= rank.rate <= rank.high
    assert (found.genuine, found.impostor) == (len(genuine), len(impostor)) == (trials // 2, 1710)
    rates = [(0.0, 0.0)] + [(float(np.mean(impostor >= t)), float(np.mean(genuine >= t)))
                            for t in [*genuine, *impostor]]
    for fpr, point in found.points.items():
        assert point.tpr == pytest.approx(max(t for f, t in rates if f <= fpr), abs=1e-9)
        assert point.supported == (fpr * 1710 >= 1)


def test_default_counts_and_the_rank1_of_this_package():
    """Without ties the two agree."""
    x, labels, distractors = faces(4)
    found = megaface(x, labels, distractors).rank1
    assert list(found) == [10, 57]
    everyone = np.concatenate([x, distractors]).astype(np.float32)
    theirs = rank1(everyone, np.r_[labels, 1000 + np.arange(57)], np.arange(30), np.arange(30),
                   30 + np.arange(57), [10, 57])
    assert {count: rank.rate for count, rank in found.items()} == pytest.approx(theirs, abs=1e-9)


def test_hand_number():
    """Mates at 0 and 60 degrees, a stranger at 80: 20 from one probe and 80 from the other. The
    probe at 0 is found (60 < 80), the one at 60 is not (60 > 20)."""
    angles = np.radians([0, 60, 80])
    x = np.stack([np.cos(angles), np.sin(angles)], 1)
    found = megaface(x[:2], [0, 0], x[2:], fprs=(0.5, 0.4))
    assert found.rank1[1][0] == 0.5 and found.rank1[1][3:] == (1, 2)
    assert (found.genuine, found.impostor) == (1, 2)
    assert found.points[0.5][:2] == (1, 0.5)  # one of cos 80, cos 20 may lie above: as cos 60 does
    assert found.points[0.4][:2] == (0, 0)  # none may: cos 60 is refused with cos 20


def test_a_tie_is_a_hit():
    x = np.ones((4, 3))
    assert megaface(x, [0, 0, 1, 1], np.ones((5, 3))).rank1[5].rate == 1


def test_nan_is_named_by_its_row():
    x, labels, distractors = faces()
    x[3, 0], bad = np.nan, distractors.copy()
    with pytest.raises(ValueError, match="probe 3 is not finite"):
        megaface(x, labels, distractors)
    bad[41] = np.inf
    with pytest.raises(ValueError, match="distractor 41 is not finite"):
        megaface(np.nan_to_num(x), labels, bad)


@pytest.mark.parametrize("labels, M, more, said", [
    ([0, 1, 2], 4, {}, "nobody has two pictures"), ([0, 0], 4, {}, r"labels \(N,\)"),
    ([0, 0, 1], 0, {}, "no distractors"), ([0, 0, 1], 4, {"counts": [5]}, "must be 1 to 4"),
    ([0, 0, 1], 4, {"counts": [0]}, "must be 1 to 4"), ([0, 0, 1], 4, {"counts": []}, "1 to 4"),
    ([0, 0, 1], 4, {"fprs": (2,)}, "between 0 and 1"), ([0, 0, 1], 4, {"rule": "x"}, "below")])
def test_refusals(labels, M, more, said):
    with pytest.raises(ValueError, match=said):
        megaface(np.eye(3), labels, np.ones((M, 3)), **more)


# The refinement


def test_noisy_photographs_leave_the_race():
    x, labels, distractors = faces(5)
    noisy_probe, noisy_distractor = np.zeros(30, bool), np.zeros(57, bool)
    row = int(np.flatnonzero(np.bincount(labels, minlength=100)[labels] > 3)[0])
    noisy_probe[row] = noisy_distractor[[2, 50]] = True
    probes, strangers = refine(x, labels, noisy_probe, distractors, noisy_distractor)
    assert probes.shape == (30, 7) and strangers.shape == (57, 7)
    assert not probes[:, 6].any() and strangers[:, 6].tolist() == (100 * noisy_distractor).tolist()
    units = np.array([unit(r) for r in x])
    centre = unit(sum(units[k] for k in range(30) if labels[k] == labels[row] and k != row))
    assert unit(centre) @ probes[row, :6] > 1 - 1e-5 and abs(probes[row, :6] - centre).max() > 1e-6
    keep = np.arange(30) != row
    np.testing.assert_allclose(probes[keep, :6], units[keep], atol=1e-12)
    far = np.array([unit(r) for r in strangers[noisy_distractor]])
    assert abs(far @ probes.T).max() < 0.01
    again = refine(x, labels, noisy_probe, distractors, noisy_distractor, seed=1)[0]
    assert (again[row] != probes[row]).any() and (again[keep] == probes[keep]).all()


def test_refining_nothing_changes_nothing():
    x, labels, distractors = faces(6)
    clean = refine(x, labels, np.zeros(30, bool), distractors, np.zeros(57, bool))
    one, other = (megaface(*given) for given in ((x, labels, distractors),
                                                 (clean[0], labels, clean[1])))
    assert one.rank1 == other.rank1


def test_refine_refusals():
    x, labels, distractors = faces()
    none, few = np.zeros(30, bool), np.zeros(57, bool)
    alone = none.copy()
    alone[0] = True
    with pytest.raises(ValueError, match="probe 0 is noisy, and so are all others of person 99"):
        refine(x, labels, alone, distractors, few)
    with pytest.raises(ValueError, match="57 distractors need a mask"):
        refine(x, labels, none, distractors, none)
    with pytest.raises(ValueError, match="30 probes need a mask"):
        refine(x, labels, np.zeros(30), distractors, few)


# Feature files


def test_a_feature_file_is_four_integers_and_floats(tmp_path):
    path, values = tmp_path / "a.bin", np.array([0.5, -2, 1e-3], np.float32)
    write_feature(path, values)
    assert path.read_bytes() == struct.pack("<4i3f", 3, 1, 4, 5, *values.tolist())
    assert np.array_equal(read_feature(path), values) and read_feature(path).flags.writeable


@pytest.mark.parametrize("data, said", [
    (b"", "has 0 bytes; a feature file has a header of 16"),
    (struct.pack("<3i", 3, 1, 4), "has 12 bytes"),
    (struct.pack("<4i2f", 3, 1, 4, 5, 0, 0), "has 24 bytes; 3 numbers make 28"),
    (struct.pack("<4i4f", 3, 1, 4, 5, 0, 0, 0, 0), "has 32 bytes; 3 numbers make 28"),
    (struct.pack("<4i", 2**31 - 1, 1, 4, 5), "begins with 2147483647, 1, 4, 5"),
    (struct.pack("<4i", -1, 1, 4, 5), "begins with -1, 1"),
    (struct.pack("<4i", 0, 1, 4, 5), "begins with 0, 1"),
    (struct.pack(">4i1f", 1, 1, 4, 5, 0), "begins with 16777216"),
    (struct.pack("<4i1f", 1, 1, 8, 6, 0), "begins with 1, 1, 8, 6"),
    (struct.pack("<4i2f", 2, 1, 4, 5, 0, np.nan), "number 1 is not finite")])
def test_hostile_feature_files(tmp_path, data, said):
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"a.bin.* {said}" if "number 1" not in said else said):
        read_feature(path)


def test_feature_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match="b.bin: no such feature file"):
        read_feature(tmp_path / "b.bin")
    for bad, said in ((np.ones((2, 2)), r"numbers \(D,\), not \(2, 2\)"), (np.ones(0), "not "),
                      (np.array([1, np.inf]), "number 1 is not finite")):
        with pytest.raises(ValueError, match=said):
            write_feature(tmp_path / "b.bin", bad)
    assert not (tmp_path / "b.bin").exists()
