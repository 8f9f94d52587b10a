"""Templates of IJB: pooling and scores as loops, and lists that nobody should trust."""

import os

import numpy as np
import pytest

from kdlab.evaluate import templates as module
from kdlab.evaluate.templates import (
    SETTINGS,
    TemplateLists,
    pool,
    read_template_lists,
    verify_templates,
)

SWITCHES = [(norm, detector, flip) for norm in (True, False) for detector in (True, False)
            for flip in (True, False)]


def faces(N=80, D=5, seed=0):
    """Embeddings with norms that differ, and the lists: 12 templates with media of 1 to 3."""
    random = np.random.default_rng(seed)
    template = random.choice([7, 3, 100, *range(20, 29)], N)
    media = random.integers(4, size=N) + 10 * template
    media[:6] = 5  # one medium in several templates
    known = np.unique(template)
    first, second = (known[side] for side in np.triu_indices(len(known), 1))
    lists = TemplateLists(template, media, first, second, (first + second) % 3 == 0,
                          detector=random.uniform(0.2, 1, N))
    centres = random.normal(size=(101, D))
    x = (centres[template] + random.normal(size=(N, D))) * random.uniform(1, 5, (N, 1))
    return x, lists, x[:, ::-1] * 0.9


def pool_loop(x, template, media, norm, detector, mirrored):
    rows = []
    for k, row in enumerate(x):
        row = row if mirrored is None else row + mirrored[k]
        row = row if norm else row / sum(row**2) ** 0.5
        rows.append(row if detector is None else row * detector[k])
    found = {}
    for t in sorted(set(template.tolist())):
        total = 0
        for m in sorted({media[k] for k in range(len(x)) if template[k] == t}):
            own = [rows[k] for k in range(len(x)) if template[k] == t and media[k] == m]
            total = total + sum(own) / len(own)
        found[t] = total / sum(total**2) ** 0.5
    return found


# Pooling


@pytest.mark.parametrize("norm, detector, flip", SWITCHES)
@pytest.mark.parametrize("rows", [1, 20, 1 << 13])
def test_pool_loop(monkeypatch, norm, detector, flip, rows):
    monkeypatch.setattr(module, "ROWS", rows)
    x, lists, mirrored = faces()
    weight, mirrored = lists.detector if detector else None, mirrored if flip else None
    loop = pool_loop(x, lists.template, lists.media, norm, weight, mirrored)
    found, numbers = pool(x, lists.template, lists.media, norm=norm, detector=weight,
                          mirrored=mirrored)
    assert numbers.tolist() == list(loop) and found.dtype == np.float64
    np.testing.assert_allclose(found, list(loop.values()), atol=1e-9)


def test_hand_number_and_the_flat_average():
    """Two frames of a film along x, one photograph along y. Media: (1, 1), 45 degrees; flat:
    (2, 1). With the detector's 1, 1/2 and 1/4: the film's mean is 3/4, the photograph 1/4."""
    x, template, media = np.array([[3, 0], [3, 0], [0, 3.0]]), np.zeros(3, int), np.array([1, 1, 2])
    found = pool(x, template, media, norm=False)[0]
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5]])
    flat = pool(x, template, None, norm=False)[0]
    np.testing.assert_allclose(flat, [[2 / 5**0.5, 1 / 5**0.5]])
    weighed = pool(x, template, media, norm=False, detector=np.array([1, 0.5, 0.25]))[0]
    np.testing.assert_allclose(weighed, [[3 / 10**0.5, 1 / 10**0.5]])


def test_the_flat_average_is_a_plain_mean():
    x, lists, _ = faces()
    found, numbers = pool(x, lists.template, None, norm=True)
    for row, t in zip(found, numbers, strict=True):
        mean = x[lists.template == t].mean(0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-9)


def test_norms_weigh_only_where_they_are_kept():
    x, lists, _ = faces()
    longer = x * np.random.default_rng(1).uniform(0.5, 9, (len(x), 1))
    args = lists.template, lists.media
    np.testing.assert_allclose(pool(x, *args, norm=False)[0], pool(longer, *args, norm=False)[0],
                               atol=1e-12)
    assert abs(pool(x, *args, norm=True)[0] - pool(longer, *args, norm=True)[0]).max() > 0.01


def test_float32_stays_float32_and_sums_in_float64():
    x, lists, _ = faces()
    found = pool(x.astype(np.float32), lists.template, lists.media, norm=True)[0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, pool(x, lists.template, lists.media, norm=True)[0], atol=1e-6)


def test_nan_is_named_by_its_picture():
    x, lists, mirrored = faces()
    x[33, 1] = np.nan
    for some, weight, flip in ((x, None, None), (x * 0, np.where(np.arange(80) == 33, np.inf, 1),
                                                 None), (np.ones_like(x), None, x)):
        with pytest.raises(ValueError, match="picture 33 has an embedding or a detector"):
            pool(np.nan_to_num(some) if some is not x else x, lists.template, lists.media,
                 norm=True, detector=weight, mirrored=flip)


@pytest.mark.parametrize("x, template, more, said", [
    (np.ones((3, 2)), np.zeros(2, int), {}, r"not \(3, 2\) and \(2,\)"),
    (np.ones(3), np.zeros(3, int), {}, r"embeddings \(N, D\)"),
    (np.ones((0, 2)), np.zeros(0, int), {}, r"embeddings \(N, D\)"),
    (np.ones((3, 2)), np.zeros(3, int), {"media": np.zeros(2)}, "3 pictures need media"),
    (np.ones((3, 2)), np.zeros(3, int), {"detector": np.ones(4)}, "3 pictures need detector"),
    (np.ones((3, 2)), np.zeros(3, int), {"mirrored": np.ones((3, 4))}, "need mirrored")])
def test_pool_refusals(x, template, more, said):
    with pytest.raises(ValueError, match=said):
        pool(x, template, **{"media": None, "norm": True} | more)


# The protocol


@pytest.mark.parametrize("norm, detector, flip", SWITCHES)
@pytest.mark.parametrize("rule", ["nearest", "below"])
def test_protocol_loop(monkeypatch, norm, detector, flip, rule):
    monkeypatch.setattr(module, "PAIRS", 13)
    x, lists, mirrored = faces()
    mirrored = mirrored if flip else None
    loop = pool_loop(x, lists.template, lists.media, norm, lists.detector if detector else None,
                     mirrored)
    scores = [sum(loop[a] * loop[b]) for a, b in zip(lists.first, lists.second, strict=True)]
    found = verify_templates(x, lists, norm=norm, detector=detector, mirrored=mirrored,
                             fprs=(0.3, 0.05), rule=rule)
    np.testing.assert_allclose(found.scores, scores, atol=1e-9)
    scores = np.array(scores)
    genuine, impostor = scores[lists.is_same], scores[~lists.is_same]
    assert (found.genuine, found.impostor) == (len(genuine), len(impostor))
    rates = [(0.0, 0.0)] + [(float(np.mean(impostor >= t)), float(np.mean(genuine >= t)))
                            for t in scores]
    for fpr, point in found.points.items():
        if rule == "below":
            tpr = max(t for f, t in rates if f <= fpr)
        else:
            tpr = -min((abs(f - fpr), -t) for f, t in rates)[1]
        assert point.tpr == pytest.approx(tpr, abs=1e-9) and point.low <= point.tpr <= point.high


def test_unsupported_rates_say_so():
    x, lists, _ = faces()
    points = verify_templates(x, lists, norm=False, detector=False).points
    assert list(points) == [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
    assert points[1e-1].supported and not points[1e-6].supported  # some 40 impostor pairs


def test_the_named_settings_are_two_numbers():
    x, lists, mirrored = faces()
    one, other = (verify_templates(x, lists, **SETTINGS[name], mirrored=flip).scores
                  for name, flip in (("insightface", mirrored), ("ekd", None)))
    loop = pool_loop(x, lists.template, lists.media, False, None, None)
    np.testing.assert_allclose(other[0], sum(loop[lists.first[0]] * loop[lists.second[0]]))
    assert abs(one - other).max() > 0.01


def test_detector_scores_must_be_there():
    x, lists, _ = faces()
    with pytest.raises(ValueError, match="no detector scores; read ..._name_5pts_score.txt"):
        verify_templates(x, lists._replace(detector=None), norm=True, detector=True)


# The lists


LISTS = {"m": "1.jpg 7 1\n2.jpg 7 1\n3.jpg 9 2\n", "p": "7 9 0\n7 7 1\n",
         "s": "".join(f"{k}.jpg " + " ".join(map(str, range(10))) + f" 0.{k}\n" for k in "123")}


def written(folder, **texts):
    paths = {}
    for name, text in (LISTS | texts).items():
        paths[name] = folder / f"{name}.txt"
        paths[name].write_bytes(text if isinstance(text, bytes) else text.encode())
    return paths


@pytest.mark.parametrize("chunk", [3, 1 << 20])
@pytest.mark.parametrize("change", [lambda t: t, lambda t: t.rstrip("\n"),
                                    lambda t: t.replace("\n", "\r\n"),
                                    lambda t: t.replace(" ", "\t ")])
def test_lists_are_read(tmp_path, monkeypatch, chunk, change):
    monkeypatch.setattr(module, "CHUNK", chunk)
    lists = read_template_lists(*written(tmp_path, **{k: change(t) for k, t in LISTS.items()})
                                .values())
    assert lists.template.tolist() == [7, 7, 9] and lists.media.tolist() == [1, 1, 2]
    assert (lists.first.tolist(), lists.second.tolist()) == ([7, 7], [9, 7])
    assert lists.is_same.tolist() == [False, True] and lists.names == ["1.jpg", "2.jpg", "3.jpg"]
    assert lists.landmarks.shape == (3, 5, 2) and lists.landmarks[0, 1].tolist() == [2, 3]
    assert lists.detector.tolist() == pytest.approx([0.1, 0.2, 0.3])
    found = verify_templates(np.eye(3), lists, norm=True, detector=True, fprs=(0.5,))
    assert (found.genuine, found.impostor) == (1, 1)
    np.testing.assert_allclose(found.scores, [0, 1], atol=1e-12)


def test_scores_may_be_left_out(tmp_path):
    paths = written(tmp_path)
    lists = read_template_lists(paths["m"], paths["p"])
    assert lists.names is None and lists.detector is None


def test_a_name_of_other_bytes_is_kept(tmp_path):
    text = LISTS["s"].encode().replace(b"1.jpg", b"\xff\xfe.jpg")
    assert os.fsencode(read_template_lists(*written(tmp_path, s=text).values()).names[0]) == \
        b"\xff\xfe.jpg"


SCORE = "x.jpg 0 1 2 3 4 5 6 7 8 9 "
HOSTILE = [
    ("m", "1.jpg 7 1\n2.jpg 7\n", r"m.txt line 2: .* 3 fields, not 2"),
    ("m", "1.jpg 7 1\n\n2.jpg 7 1\n", "m.txt line 2: .* not 0"),
    ("m", "1.jpg seven 1\n", "m.txt line 1: 'seven' is not a whole number from 0 to 2147483647"),
    ("m", "1.jpg 7 1\n2.jpg 7 -1\n", "m.txt line 2: '-1' is not a whole"),
    ("m", "1.jpg 7 2147483648\n", "m.txt line 1: '2147483648' is not"),
    ("m", "1.jpg 7 " + "9" * 40 + "\n", "m.txt line 1: '9999.* is not"),
    ("m", "1.jpg 18446744073709551615 1\n", "m.txt line 1: '18446744073709551615' is not"),
    ("m", "1.jpg 7 1.5\n", "m.txt line 1: '1.5' is not"),
    ("m", b"1.jpg 7 \xff\n", "m.txt line 1: .* is not a whole"),
    ("m", b"\0" * 100, "m.txt line 1: .* not 1"),
    ("m", "a" * 5000, "m.txt line 1 is longer than 4096 bytes"),
    ("m", "1.jpg 7 1\n" + "a " * 5000, "m.txt line 2 is longer than 4096 bytes"),
    ("m", "", "m.txt is empty"),
    ("p", "", "p.txt is empty"),
    ("p", "7 9 0\n7 9 2\n", "p.txt line 2: the label is 0 or 1, not 2"),
    ("p", "7 9 0\n8 9 1\n", "p.txt line 2: .*m.txt has no template 8"),
    ("p", "7 10 0\n", "p.txt line 1: .*m.txt has no template 10"),
    ("p", "7 9 0 1\n", "p.txt line 1: .* 3 fields, not 4"),
    ("s", SCORE + "nan\n", "s.txt line 1: 'nan' is not a finite number"),
    ("s", SCORE + "1e300\n", "s.txt line 1: '1e300' is not a finite number"),
    ("s", SCORE + "inf\n", "s.txt line 1: 'inf' is not a finite number"),
    ("s", SCORE + "\n", "s.txt line 1: .* 12 fields, not 11"),
    ("s", SCORE + "0.5\n", "s.txt names 1 pictures, .*m.txt 3; they are not of one set")]


@pytest.mark.parametrize("name, text, said", HOSTILE)
def test_hostile_lists_are_one_line_with_file_and_line(tmp_path, name, text, said):
    with pytest.raises(ValueError, match=said) as error:
        read_template_lists(*written(tmp_path, **{name: text}).values())
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_random_bytes_end_in_one_line(tmp_path):
    """Damaged lists are read, or refused in words: nothing else."""
    random, refused = np.random.default_rng(0), 0
    for _ in range(300):
        name = str(random.choice(list(LISTS)))
        text = bytearray(LISTS[name].encode())
        for place in random.integers(len(text), size=random.integers(1, 4)):
            text[place] = random.choice([*b"0179 \n.-_eE\0\xff", int(random.integers(256))])
        try:
            read_template_lists(*written(tmp_path, **{name: bytes(text[:random.integers(1, 200)])})
                                .values())
        except ValueError as error:
            assert "\n" not in str(error) and f"{name}.txt" in str(error)
            refused += 1
    assert 100 < refused < 300


def test_a_missing_list_is_named(tmp_path):
    paths = written(tmp_path)
    with pytest.raises(FileNotFoundError, match="none.txt: no such file; .* meta folder"):
        read_template_lists(paths["m"], tmp_path / "none.txt")


def test_published_sizes_are_compared(tmp_path, monkeypatch):
    paths = written(tmp_path)
    with pytest.raises(ValueError, match="have 2 templates and 1 genuine pairs, IJB-C has 23124"):
        read_template_lists(paths["m"], paths["p"], published="IJB-C")
    with pytest.raises(ValueError, match="one of IJB-B, IJB-C, not 'IJB-A'"):
        read_template_lists(paths["m"], paths["p"], published="IJB-A")
    monkeypatch.setitem(module.PUBLISHED, "IJB-B", (2, 1))
    assert read_template_lists(paths["m"], paths["p"], published="IJB-B").first.tolist() == [7, 7]
