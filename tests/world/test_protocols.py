"""The benchmarks in miniature: who is in them, which pictures meet, how many pairs there are."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from kdlab.align import SIZES
from kdlab.data.faces import FaceSet
from kdlab.evaluate import judge
from kdlab.world import FaceWorld, protocols
from kdlab.world.protocols import (
    PROTOCOLS,
    SHARE,
    TEST,
    TRAINING,
    VALIDATION,
    Protocol,
    counts,
    protocol,
)


@pytest.fixture
def worlds(monkeypatch):
    """Sets without pictures, which cost nothing; the worlds that were asked for them."""
    asked = []

    def bare(world, identities, per_identity, crops):
        asked.append(world)
        identities = list(identities)
        groups = [world.identity(i)["group"] for i in identities]
        factors = {"identity": np.repeat(identities, per_identity),
                   "image": np.tile(np.arange(per_identity), len(identities)),
                   "group": np.repeat(groups, per_identity)}
        return FaceSet({name: np.zeros((len(factors["image"]), 3, 1, 1), np.uint8)
                        for name in crops},
                       np.repeat(np.arange(len(identities)), per_identity), "key", factors)

    monkeypatch.setattr(protocols, "rendered", bare)
    return asked


def brute(labels, pairs):
    """Genuine and impostor among ordered pairs, each unordered one once."""
    met = {frozenset(pair) for pair in pairs if pair[0] != pair[1]}
    kinds = Counter(len({labels[row] for row in pair}) for pair in met)
    return kinds[1], kinds[2]


# Persons


def test_no_person_serves_two_purposes():
    ranges = [TRAINING, VALIDATION, TEST,
              *(range(plan["first"], plan["first"] + SHARE) for plan in PROTOCOLS.values())]
    numbers = [i for numbers in ranges for i in numbers]
    assert len(set(numbers)) == len(numbers) == 30_000 + SHARE * len(PROTOCOLS)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_all_persons_are_of_the_protocol_s_own_numbers(worlds, name):
    plan, p = PROTOCOLS[name], protocol(name)
    own = range(plan["first"], plan["first"] + SHARE)
    assert set(p.faces.factors["identity"].tolist()) <= set(own)
    persons = plan["identities"] * (1 + plan.get("distractors", 0))
    assert len(set(p.faces.factors["identity"])) == len(set(p.faces.labels)) == persons
    pairs = set(zip(p.faces.labels, p.faces.factors["identity"], strict=True))
    assert len(pairs) == persons  # a label is a person
    pictures = set(zip(p.faces.labels, p.faces.factors["image"], strict=True))
    assert len(pictures) == len(p.faces)  # and no picture is there twice


@pytest.mark.parametrize("name", PROTOCOLS)
def test_sizes_support_the_rates_they_promise(worlds, name):
    found = counts(protocol(name))
    assert found["genuine"] >= 600 and found["fprs"][:4] == (1e-1, 1e-2, 1e-3, 1e-4)
    for part in found.get("groups", {}).values():
        assert part["fprs"] == (1e-1, 1e-2, 1e-3)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_rows_are_the_same_every_time_and_in_order_of_number(worlds, name):
    one, two = protocol(name, identities=6), protocol(name, identities=6)
    for field, rows in one.arrays().items():
        assert np.array_equal(rows, two.arrays()[field])
    assert (one.b is one.a) == (PROTOCOLS[name]["b"] is None)
    persons = list(dict.fromkeys(one.faces.factors["identity"].tolist()))
    assert persons == sorted(persons)
    if name != "groups":  # a shrunk protocol is the beginning of the whole
        assert persons[:6] == list(range(PROTOCOLS[name]["first"], PROTOCOLS[name]["first"] + 6))


def test_the_seed_is_that_of_every_world(worlds):
    for name in PROTOCOLS:
        protocol(name, seed=7, identities=6)
    assert {world.seed for world in worlds} == {7}
    assert {world.odd.seed for world in worlds if hasattr(world, "odd")} == {7}


# Sides


def test_even_pictures_are_side_a_and_odd_ones_side_b(monkeypatch, tmp_path):
    """With rendered pictures: each is that of a plain world with its side's nuisance."""
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path))
    sides = {"a": {"yaw_sd": 0.0}, "b": {"yaw_sd": 30.0, "grey": 1.0}}
    monkeypatch.setitem(PROTOCOLS, "two", PROTOCOLS["frontal"] | sides | {"pictures": 2})
    p = protocol("two", seed=3, crops=("arcface",), identities=2)
    assert len(p.faces) == 8 and p.a.tolist() == [0, 2, 4, 6] and p.b.tolist() == [1, 3, 5, 7]
    for side, rows in (("a", p.a), ("b", p.b)):
        world = FaceWorld(3, **sides[side])
        pairs = [(int(p.faces.factors["identity"][r]), int(p.faces.factors["image"][r]))
                 for r in rows]
        expected = world.render(pairs)["arcface"].numpy()
        assert np.array_equal(p.faces.crops["arcface"][rows], expected)
        assert np.array_equal(p.faces.factors["yaw"][rows],
                              np.float32([world.image(*pair)["yaw"] for pair in pairs]))
    assert not p.faces.factors["yaw"][p.a].any() and p.faces.factors["grey"][p.b].all()


def test_both_sides_are_in_the_key_of_a_set():
    def key(a, b):
        return protocols._TwoSides(0, a, b).key

    keys = [key({}, {}), key({}, {"yaw_sd": 1.0}), key({"yaw_sd": 1.0}, {}), FaceWorld(0).key]
    assert len(set(keys)) == 4 and key({}, {"yaw_sd": 1.0}) == keys[1]


def images(worlds, name):
    p = protocol(name, identities=8)
    images = [worlds[0].image(int(i), int(j)) for i, j in
              zip(p.faces.factors["identity"], p.faces.factors["image"], strict=True)]
    return [images[row] for row in p.a], [images[row] for row in p.b]


def test_profile_pairs_are_frontal_against_profile(worlds):
    a, b = images(worlds, "profile")
    assert max(abs(image["yaw"]) for image in a) <= math.radians(10)  # as in CFP
    assert min(abs(image["yaw"]) for image in b) >= math.radians(55)


def test_age_pairs_are_thirty_years_apart_and_of_adults(worlds):
    a, b = images(worlds, "age")
    gaps = [after["age"] - before["age"] for before, after in zip(a, b, strict=True)]
    assert gaps == pytest.approx([30.0] * len(gaps))
    assert min(image["age"] for image in a) >= 18 and max(image["age"] for image in b) <= 75


def test_children_are_children(worlds):
    a, _ = images(worlds, "children")
    assert all(4 <= image["age"] <= 15 for image in a)


def test_masked_pairs_are_plain_against_masked(worlds):
    a, b = images(worlds, "masked")
    assert not any(image["mask"] for image in a) and all(image["mask"] for image in b)


# Templates, strangers, groups


def test_templates_are_of_one_person_and_the_first_is_the_largest(worlds):
    p = protocol("templates", identities=3)
    assert np.bincount(p.template).tolist() == [6, 3, 2, 1] * 3
    for number in range(12):
        assert set(p.faces.labels[p.template == number]) == {number // 4}


def test_distractors_are_strangers_with_one_picture(worlds):
    p = protocol("distractors", identities=2)
    assert len(p.distractor) == 18 and len(p.a) == 10 and p.b is p.a
    labels = p.faces.labels
    assert labels.tolist() == [0] * 5 + [1] * 5 + list(range(2, 20))
    assert not set(labels[p.a]) & set(labels[p.distractor])
    assert sorted([*p.a, *p.distractor]) == list(range(len(p.faces)))


def test_strangers_are_joined_with_their_pictures(monkeypatch, tmp_path):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path))
    monkeypatch.setitem(PROTOCOLS, "few", PROTOCOLS["distractors"] | {"pictures": 1,
                                                                      "distractors": 1})
    p = protocol("few", identities=2)
    first = PROTOCOLS["distractors"]["first"]
    assert p.faces.factors["identity"].tolist() == [first, first + 1, first + 2, first + 3]
    expected = FaceWorld(0).render([(first + k, 0) for k in range(4)], ("arcface", "dlib"))
    for crop, pixels in p.faces.crops.items():
        assert pixels.shape == (4, 3, SIZES[crop], SIZES[crop])
        assert np.array_equal(pixels, expected[crop].numpy())
    assert p.faces.key not in {path.name for path in (tmp_path / "world").iterdir()}


@pytest.mark.parametrize("identities", [6, 11, None])
def test_groups_are_balanced(worlds, identities):
    p = protocol("groups", identities=identities)
    group = dict(zip(p.faces.labels.tolist(), p.group.tolist(), strict=True))
    sizes = Counter(group.values())
    assert len(sizes) == 3 and max(sizes.values()) - min(sizes.values()) <= 1
    for row in (0, len(p.faces) - 1):
        i = int(p.faces.factors["identity"][row])
        assert p.group[row] == worlds[0].identity(i)["group"]


# Counts


@pytest.mark.parametrize("name", PROTOCOLS)
def test_counts_are_those_of_brute_force_and_of_the_judge(worlds, name):
    p = protocol(name, identities=6)
    labels, found = p.faces.labels, counts(p)
    if p.template is not None:
        owner = {t: int(labels[p.template == t][0]) for t in np.unique(p.template)}
        expected = brute(owner, combinations(owner, 2))
    elif p.group is not None:
        met = [(i, j) for i in p.a for j in p.b if p.group[i] == p.group[j]]
        expected = brute(labels, met)
        for g, part in found["groups"].items():
            assert (part["genuine"], part["impostor"]) == brute(
                labels, [pair for pair in met if p.group[pair[0]] == g])
    else:
        expected = brute(labels, [(i, j) for i in p.a for j in p.b])
        if p.distractor is not None:
            expected = expected[0], brute(labels, [(i, j) for i in p.a for j in p.distractor])[1]
    assert (found["genuine"], found["impostor"]) == expected
    judged = judge(np.random.default_rng(0).normal(size=(len(labels), 8)), **p.arrays())
    assert (judged["genuine"], judged["impostor"]) == expected
    assert tuple(judged["tpr"]) == found["fprs"]
    for g, part in found.get("groups", {}).items():
        assert {kind: judged["groups"][g][kind] for kind in ("genuine", "impostor")} == {
            kind: part[kind] for kind in ("genuine", "impostor")}


def test_counts_of_sides_that_overlap():
    random = np.random.default_rng(1)
    for _ in range(20):
        labels = random.integers(0, 4, 12)
        a, b = (random.permutation(12)[:random.integers(1, 12)] for _ in range(2))
        found = counts(Protocol("mine", FaceSet({}, labels, "key"), a, b))
        expected = brute(labels, [(i, j) for i in a for j in b])
        assert (found["genuine"], found["impostor"]) == expected


# Requests that cannot be met


def test_an_unknown_name_lists_the_names():
    with pytest.raises(ValueError, match="unknown protocol 'lfw'; there are frontal, profile, age"):
        protocol("lfw")


@pytest.mark.parametrize("name, identities, most", [
    ("frontal", 1, 1000), ("frontal", 0, 1000), ("frontal", 1001, 1000), ("groups", 5, 1000),
    ("distractors", 101, 100)])
def test_too_few_or_too_many_persons_are_refused_before_rendering(worlds, name, identities, most):
    with pytest.raises(ValueError, match=rf"'{name}' takes \d to {most} identities .*not "
                                         f"{identities}$"):
        protocol(name, identities=identities)
    assert not worlds


def test_groups_that_cannot_be_balanced_are_refused(worlds):
    with pytest.raises(ValueError, match="too few of one ancestry for 1000"):
        protocol("groups", identities=1000)


# What two pictures of a person may share


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_two_pictures_of_a_person_share_light_background_or_clothes(worlds, name):
    p = protocol(name, identities=6)
    for label in np.unique(p.faces.labels):
        rows = np.flatnonzero(p.faces.labels == label)
        images = [worlds[0].image(int(p.faces.factors["identity"][row]),
                                  int(p.faces.factors["image"][row])) for row in rows]
        for factor in ("light", "background", "cloth"):
            assert len({tuple(image[factor].flatten().tolist()) for image in images}) == len(rows)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_picture_is_its_person_s_under_any_other_nuisance_too(worlds, name):
    """Two sides or one, a person is the one of the plain world with these ages."""
    p = protocol(name, identities=6)
    plain = FaceWorld(0, ages=PROTOCOLS[name]["ages"])
    for row in (0, 1, len(p.faces) - 1):
        i = int(p.faces.factors["identity"][row])
        mine, theirs = worlds[0].identity(i), plain.identity(i)
        assert all(np.array_equal(mine[key], theirs[key]) for key in mine
                   if key not in ("brow", "frame"))
        assert mine["brow"] == theirs["brow"]


def test_two_sides_tell_of_the_side_a_picture_is_on():
    world = protocols._TwoSides(0, {"mask": 0.0}, {"mask": 1.0})
    assert [world.describe(3, j)["image"]["mask"] for j in range(4)] == [0, 1, 0, 1]
    assert world.describe(3, 1)["identity"]["age"] == world.identity(3)["age"]
